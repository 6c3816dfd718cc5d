//! What root makes for somebody else's store. Needs root, and is skipped without.

#![allow(clippy::print_stderr)]

use std::os::unix::fs::{MetadataExt, chown};

use super::*;

const SERVICE: u32 = 65534;

fn owner(path: &Path) -> u32 {
    fs::metadata(path).unwrap().uid()
}

/// Whether files can be given to others here.
fn is_root(directory: &TempDir) -> bool {
    let is_root = chown(directory.path(), Some(SERVICE), Some(SERVICE)).is_ok();
    if !is_root {
        eprintln!("skipped: only root can give files to others");
    }
    is_root
}

#[test]
fn what_is_made_beside_a_store_belongs_to_its_owner() {
    let (directory, path) = in_new_directory();
    if !is_root(&directory) {
        return;
    }
    fs::write(&path, sqlite_file(KIND.application_id, 2)).unwrap();
    chown(&path, Some(SERVICE), Some(SERVICE)).unwrap();
    let lock = with_suffix(&path, LOCK_FILE);
    drop(StoreFile::open(&path, KIND, Access::ReadOnly).unwrap());
    assert_eq!((owner(&lock), mode(&lock)), (SERVICE, 0o600));
    let file = StoreFile::open(&path, KIND, Access::Existing).unwrap();
    let reserve = with_suffix(&path, RESERVE_FILE);
    if reserve.exists() {
        assert_eq!(owner(&reserve), SERVICE);
    }
    let backup = file.begin_backup(1).unwrap();
    assert_eq!(owner(backup.part()), SERVICE);
    // The copy becomes the store.
    let replacement = file.begin_replacement(8192).unwrap();
    assert_eq!(owner(replacement.part()), SERVICE);
}

#[test]
fn a_new_store_belongs_to_the_owner_of_its_directory() {
    let (directory, path) = in_new_directory();
    if !is_root(&directory) {
        return;
    }
    let below = directory.path().join("below");
    create_private_directory(&below).unwrap();
    assert_eq!((owner(&below), mode(&below)), (SERVICE, 0o700));
    let file = StoreFile::open(&path, KIND, Access::Create).unwrap();
    for made in [&path, &with_suffix(&path, LOCK_FILE)] {
        assert_eq!((owner(made), mode(made)), (SERVICE, 0o600));
    }
    drop(file);
}
