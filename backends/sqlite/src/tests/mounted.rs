//! Mounts. They need a namespace of their own, and the right to make one: a test runs itself again in
//! there, and does nothing where that is not allowed.

use std::process::Command;

use super::*;

const INSIDE: &str = "LOCAL_FILE_TEST_DIRECTORY";

/// Runs the test of this name where `script` has mounted something, and `inside` in there. In the
/// directory are `host`, with a store, `alone` and `whole`.
fn mounted(name: &str, script: &str, inside: impl FnOnce(&Path)) {
    if let Some(directory) = std::env::var_os(INSIDE) {
        inside(Path::new(&directory));
        fs::write(Path::new(&directory).join("verdict"), "passed").unwrap();
        return;
    }
    let (directory, _) = in_new_directory();
    for name in ["host", "alone", "whole"] {
        fs::create_dir(directory.path().join(name)).unwrap();
    }
    fs::write(directory.path().join("host/store.db"), sqlite_file(KIND.application_id, 2)).unwrap();
    fs::write(directory.path().join("alone/store.db"), "").unwrap();
    let script = format!("{{ {script}; }} || exit 77; exec \"$0\" --exact \"$1\" --nocapture");
    let status = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(INSIDE, directory.path())
        .current_dir(directory.path())
        .status();
    // No such program, no such right.
    let Some(code) = status.ok().and_then(|status| status.code()) else { return };
    match code {
        0 => assert_eq!(fs::read_to_string(directory.path().join("verdict")).unwrap(), "passed"),
        code => assert!([1, 77].contains(&code), "{code}"),
    }
}

#[test]
fn a_file_that_is_mounted_alone_is_refused() {
    let name = "tests::mounted::a_file_that_is_mounted_alone_is_refused";
    let script = "mount --bind host/store.db alone/store.db && mount --bind host whole";
    mounted(name, script, |directory| {
        for access in [Access::Create, Access::Existing, Access::ReadOnly] {
            let error = refusal(&directory.join("alone/store.db"), access);
            assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains("mount the directory"), "{error}");
        }
        assert!(!directory.join("alone/store.db.lock").exists());
        StoreFile::open(&directory.join("whole/store.db"), KIND, Access::Existing).unwrap();
    });
}

/// As for a container that may only read what another one writes.
#[test]
fn who_reads_without_a_lock_is_told_of_a_writer() {
    let name = "tests::mounted::who_reads_without_a_lock_is_told_of_a_writer";
    let script = "mount --bind host whole && mount -o remount,ro,bind whole";
    mounted(name, script, |directory| {
        let read = |file: &StoreFile| file.undisturbed(Err::<(), _>(Error::corrupt("torn")));
        let reader =
            StoreFile::open(&directory.join("whole/store.db"), KIND, Access::ReadOnly).unwrap();
        assert!(!reader.is_locked());
        reader.undisturbed(Ok(())).unwrap();
        assert_eq!(*read(&reader).unwrap_err().kind(), ErrorKind::Corrupt);
        let host = directory.join("host/store.db");
        let writer = StoreFile::open(&host, KIND, Access::Existing).unwrap();
        assert_eq!(*read(&reader).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(*reader.undisturbed(Ok(())).unwrap_err().kind(), ErrorKind::Busy);
        // Now there is a lock to be had.
        let whole = directory.join("whole/store.db");
        assert_eq!(*refusal(&whole, Access::ReadOnly).kind(), ErrorKind::Busy);
        drop(writer);
        assert!(StoreFile::open(&whole, KIND, Access::ReadOnly).unwrap().is_locked());
    });
}
