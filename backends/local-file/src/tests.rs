#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::Write;

use tempfile::{TempDir, tempdir};

use super::*;

#[cfg(target_os = "linux")]
mod mounted;
#[cfg(unix)]
mod moved;

const KIND: FileKind = FileKind::ZQLITE;

fn in_new_directory() -> (TempDir, PathBuf) {
    let directory = tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("store.db");
    (directory, path)
}

/// A SQLite file as far as this crate looks: a header and pages.
fn sqlite_file(application_id: u32, pages: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4096 * pages as usize];
    bytes[..16].copy_from_slice(b"SQLite format 3\0");
    bytes[16..18].copy_from_slice(&4096u16.to_be_bytes());
    bytes[24..28].copy_from_slice(&7u32.to_be_bytes());
    bytes[28..32].copy_from_slice(&pages.to_be_bytes());
    bytes[68..72].copy_from_slice(&application_id.to_be_bytes());
    bytes[92..96].copy_from_slice(&7u32.to_be_bytes());
    bytes
}

fn refusal(path: &Path, access: Access) -> Error {
    StoreFile::open(path, KIND, access).unwrap_err()
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn makes_an_empty_file_and_finds_it_again() {
    let (_directory, path) = in_new_directory();
    let file = StoreFile::open(&path, KIND, Access::Create).unwrap();
    assert!(file.is_new() && file.is_locked());
    assert_eq!(file.path(), path);
    assert_eq!(file.total_bytes(), 0);
    drop(file);
    assert!(StoreFile::open(&path, KIND, Access::Create).unwrap().is_new());
    fs::write(&path, sqlite_file(KIND.application_id, 2)).unwrap();
    fs::write(with_suffix(&path, "-wal"), [0; 32]).unwrap();
    let file = StoreFile::open(&path, KIND, Access::Create).unwrap();
    assert!(!file.is_new());
    assert_eq!(file.total_bytes(), 8192 + 32);
    drop(file);
    assert!(!StoreFile::open(&path, KIND, Access::ReadOnly).unwrap().is_new());
}

#[test]
fn an_empty_file_is_new_only_to_one_who_may_make_it() {
    let (_directory, path) = in_new_directory();
    fs::write(&path, b"").unwrap();
    for access in [Access::Existing, Access::ReadOnly] {
        assert_eq!(*refusal(&path, access).kind(), ErrorKind::InvalidArgument);
    }
    assert!(StoreFile::open(&path, KIND, Access::Create).unwrap().is_new());
}

#[test]
fn a_file_whose_first_transaction_was_broken_off_is_new_only_to_one_who_may_make_it() {
    let (_directory, path) = in_new_directory();
    // A journal's header: no record, a nonce, no page before.
    let mut journal = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7\0\0\0\0nonc\0\0\0\0".to_vec();
    journal.resize(512, 0);
    for content in [&vec![0; 4096], &sqlite_file(KIND.application_id, 3)[..4096]] {
        fs::write(&path, content).unwrap();
        fs::write(with_suffix(&path, "-journal"), &journal).unwrap();
        for access in [Access::Existing, Access::ReadOnly] {
            assert_eq!(*refusal(&path, access).kind(), ErrorKind::InvalidArgument);
        }
        assert!(StoreFile::open(&path, KIND, Access::Create).unwrap().is_new());
        // With a page before it is the file of somebody else, or damaged.
        let mut other = journal.clone();
        other[19] = 1;
        fs::write(with_suffix(&path, "-journal"), &other).unwrap();
        refusal(&path, Access::Create);
    }
}

#[test]
fn a_store_beside_the_journal_of_another_file_is_not_emptied() {
    let (_directory, path) = in_new_directory();
    let mut journal = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7\0\0\0\0nonc\0\0\0\0".to_vec();
    journal.resize(512, 0);
    // A backup that was put where a store had been begun.
    let mut backup = sqlite_file(KIND.application_id, 3);
    backup[18..20].copy_from_slice(&[2, 2]);
    fs::write(&path, &backup).unwrap();
    fs::write(with_suffix(&path, "-journal"), &journal).unwrap();
    for access in [Access::Create, Access::Existing, Access::ReadOnly] {
        let error = refusal(&path, access);
        assert_eq!(*error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("-journal"), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), backup);
    fs::remove_file(with_suffix(&path, "-journal")).unwrap();
    assert!(!StoreFile::open(&path, KIND, Access::Create).unwrap().is_new());
}

#[test]
fn a_missing_directory_or_file_is_named() {
    let (_directory, path) = in_new_directory();
    for access in [Access::Existing, Access::ReadOnly] {
        let error = refusal(&path, access);
        assert_eq!(*error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("store.db"), "{error}");
        assert!(!path.exists() && !with_suffix(&path, ".lock").exists());
    }
    let error = refusal(&path.join("below").join("store.db"), Access::Create);
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("directory does not exist"), "{error}");
}

#[test]
fn a_directory_and_a_device_are_no_store() {
    let (directory, _) = in_new_directory();
    let error = refusal(directory.path(), Access::Create);
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("is a directory"), "{error}");
    #[cfg(unix)]
    {
        let error = refusal(Path::new("/dev/null"), Access::Create);
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}

#[test]
fn a_path_through_a_file_is_refused() {
    let (_directory, path) = in_new_directory();
    fs::write(&path, b"").unwrap();
    let error = refusal(&path.join("store.db"), Access::Create);
    assert!(error.to_string().contains("store.db"), "{error}");
}

#[test]
fn foreign_files_are_refused_and_left_alone() {
    let (_directory, path) = in_new_directory();
    for content in [b"hello".to_vec(), vec![0; 4096], b"SQLite format 2\0".repeat(300)] {
        fs::write(&path, &content).unwrap();
        let error = refusal(&path, Access::Create);
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("not a ghostwire-store file"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn other_databases_are_told_apart() {
    let (_directory, path) = in_new_directory();
    fs::write(&path, sqlite_file(0, 1)).unwrap();
    let error = refusal(&path, Access::Create);
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("SQLite database, but not"), "{error}");
    fs::write(&path, sqlite_file(FileKind::LIBSQL.application_id, 1)).unwrap();
    let error = refusal(&path, Access::Create);
    assert!(error.to_string().contains("belongs to the libsql backend"), "{error}");
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    let (_directory, path) = in_new_directory();
    let whole = sqlite_file(KIND.application_id, 3);
    for length in [16, 99, 100, 4096, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = refusal(&path, Access::Create);
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{length}");
        assert!(error.to_string().contains("cut short"), "{error}");
    }
    fs::write(&path, &whole[..8192]).unwrap();
    fs::write(with_suffix(&path, "-wal"), b"frames").unwrap();
    StoreFile::open(&path, KIND, Access::Create).unwrap();
    fs::remove_file(with_suffix(&path, "-wal")).unwrap();
    let mut stale = whole[..8192].to_vec();
    stale[92] = 1;
    fs::write(&path, stale).unwrap();
    StoreFile::open(&path, KIND, Access::Create).unwrap();
}

#[test]
fn a_second_open_says_who_has_it() {
    let (_directory, path) = in_new_directory();
    let first = StoreFile::open(&path, KIND, Access::Create).unwrap();
    for access in [Access::Create, Access::Existing, Access::ReadOnly] {
        let error = refusal(&path, access);
        assert_eq!(*error.kind(), ErrorKind::Busy);
        let pid = format!("pid={}", std::process::id());
        assert!(error.to_string().contains(&pid), "{error}");
    }
    drop(first);
    StoreFile::open(&path, KIND, Access::Create).unwrap();
}

#[test]
fn readers_are_several_and_none_is_named() {
    let (_directory, path) = in_new_directory();
    fs::write(&path, sqlite_file(KIND.application_id, 2)).unwrap();
    let readers = [(); 2].map(|()| StoreFile::open(&path, KIND, Access::ReadOnly).unwrap());
    let error = refusal(&path, Access::Existing);
    assert_eq!(*error.kind(), ErrorKind::Busy);
    assert!(!error.to_string().contains("pid"), "{error}");
    drop(readers);
    StoreFile::open(&path, KIND, Access::Existing).unwrap();
}

#[test]
fn readers_share_and_keep_writers_out() {
    let (_directory, path) = in_new_directory();
    fs::write(&path, sqlite_file(KIND.application_id, 1)).unwrap();
    let one = StoreFile::open(&path, KIND, Access::ReadOnly).unwrap();
    let two = StoreFile::open(&path, KIND, Access::ReadOnly).unwrap();
    assert_eq!(*refusal(&path, Access::Existing).kind(), ErrorKind::Busy);
    drop((one, two));
    StoreFile::open(&path, KIND, Access::Existing).unwrap();
}

#[test]
fn another_process_is_kept_out() {
    // A process of its own is `flock`, where there is one.
    let (_directory, path) = in_new_directory();
    let lock = with_suffix(&path, ".lock");
    let file = StoreFile::open(&path, KIND, Access::Create).unwrap();
    let attempt = || std::process::Command::new("flock").arg("-n").arg(&lock).arg("true").status();
    let Ok(status) = attempt() else { return };
    assert!(!status.success());
    drop(file);
    assert!(attempt().unwrap().success());
}

#[cfg(unix)]
#[test]
fn two_names_of_one_file_have_one_lock() {
    let (_directory, path) = in_new_directory();
    let link = path.with_file_name("link.db");
    let _file = StoreFile::open(&path, KIND, Access::Create).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(*refusal(&link, Access::Create).kind(), ErrorKind::Busy);
    let dangling = path.with_file_name("dangling.db");
    std::os::unix::fs::symlink(path.with_file_name("gone.db"), &dangling).unwrap();
    assert!(refusal(&dangling, Access::Create).to_string().contains("leads nowhere"));
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let (_directory, path) = in_new_directory();
    drop(StoreFile::open(&path, KIND, Access::Create).unwrap());
    assert_eq!((mode(&path), mode(&with_suffix(&path, ".lock"))), (0o600, 0o600));
    fs::write(&path, sqlite_file(KIND.application_id, 1)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(StoreFile::open(&path, KIND, Access::ReadOnly).unwrap());
    assert_eq!(mode(&path), 0o644);
    drop(StoreFile::open(&path, KIND, Access::Existing).unwrap());
    assert_eq!(mode(&path), 0o600);
}

#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_written_only_admits_readers() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, path) = in_new_directory();
    fs::write(&path, sqlite_file(KIND.application_id, 1)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let binds = fs::File::create(directory.path().join("probe")).is_err();
    if binds {
        assert_eq!(*refusal(&path, Access::Create).kind(), ErrorKind::PermissionDenied);
        let file = StoreFile::open(&path, KIND, Access::ReadOnly).unwrap();
        assert!(!file.is_locked());
    }
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn errors_of_the_file_system_say_what_to_do() {
    let kind = |io: io::ErrorKind| failed("x", Path::new("/p"), io.into()).kind().clone();
    assert_eq!(kind(io::ErrorKind::PermissionDenied), ErrorKind::PermissionDenied);
    assert_eq!(kind(io::ErrorKind::ReadOnlyFilesystem), ErrorKind::ReadOnly);
    assert_eq!(kind(io::ErrorKind::StorageFull), ErrorKind::Exhausted);
    assert_eq!(kind(io::ErrorKind::BrokenPipe), ErrorKind::Unavailable);
    let error = failed("it broke", Path::new("/p"), io::ErrorKind::PermissionDenied.into());
    assert!(error.to_string().starts_with("it broke; let this process's user"), "{error}");
}

#[test]
fn a_backup_never_replaces_another() {
    let (_directory, path) = in_new_directory();
    let file = StoreFile::open(&path, KIND, Access::Create).unwrap();
    for (content, suffix) in [("a", ".v1.bak"), ("b", ".v1.bak.1"), ("c", ".v1.bak.2")] {
        let backup = file.begin_backup(1).unwrap();
        let mut part = fs::OpenOptions::new().append(true).open(backup.part()).unwrap();
        part.write_all(content.as_bytes()).unwrap();
        #[cfg(unix)]
        assert_eq!(mode(backup.part()), 0o600);
        let done = backup.finish().unwrap();
        assert_eq!(done, with_suffix(&path, suffix));
        assert_eq!(fs::read_to_string(done).unwrap(), content);
    }
    assert_eq!(file.backup_path(2), with_suffix(&path, ".v2.bak"));
}

#[test]
fn an_unfinished_backup_leaves_nothing() {
    let (_directory, path) = in_new_directory();
    let file = StoreFile::open(&path, KIND, Access::Create).unwrap();
    let part = with_suffix(&path, ".v1.bak.part");
    fs::write(&part, b"of a crash").unwrap();
    let backup = file.begin_backup(1).unwrap();
    assert_eq!(fs::metadata(backup.part()).unwrap().len(), 0);
    drop(backup);
    assert!(!part.exists() && !with_suffix(&path, ".v1.bak").exists());
}
