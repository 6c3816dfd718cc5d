//! A file that is mounted by itself. Mounting needs a namespace of its own, and the right to make
//! one: the test runs itself again in there, and does nothing where that is not allowed.

use std::process::Command;

use super::*;

const NAME: &str = "tests::mounted::a_file_that_is_mounted_alone_is_refused";
const INSIDE: &str = "LOCAL_FILE_TEST_DIRECTORY";

#[test]
fn a_file_that_is_mounted_alone_is_refused() {
    if let Some(directory) = std::env::var_os(INSIDE) {
        return inside(Path::new(&directory));
    }
    let (directory, _) = in_new_directory();
    for name in ["host", "alone", "whole"] {
        fs::create_dir(directory.path().join(name)).unwrap();
    }
    fs::write(directory.path().join("host/store.db"), sqlite_file(KIND.application_id, 2)).unwrap();
    fs::write(directory.path().join("alone/store.db"), "").unwrap();
    let script = "mount --bind host/store.db alone/store.db && mount --bind host whole || exit 77; \
                  exec \"$0\" --exact \"$1\" --nocapture";
    let status = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(NAME)
        .env(INSIDE, directory.path())
        .current_dir(directory.path())
        .status();
    // No such program, no such right.
    let Some(code) = status.ok().and_then(|status| status.code()) else { return };
    match code {
        0 => assert_eq!(fs::read_to_string(directory.path().join("verdict")).unwrap(), "refused"),
        code => assert!([1, 77].contains(&code), "{code}"),
    }
}

fn inside(directory: &Path) {
    for access in [Access::Create, Access::Existing, Access::ReadOnly] {
        let error = refusal(&directory.join("alone/store.db"), access);
        assert_eq!(*error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("mount the directory"), "{error}");
    }
    assert!(!directory.join("alone/store.db.lock").exists());
    StoreFile::open(&directory.join("whole/store.db"), KIND, Access::Existing).unwrap();
    fs::write(directory.join("verdict"), "refused").unwrap();
}
