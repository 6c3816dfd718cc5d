//! Files that are moved, removed, replaced or linked.

use ghostwire_store_core::backend::Displaced;

use super::*;

fn open_store(path: &Path) -> StoreFile {
    fs::write(path, sqlite_file(KIND.application_id, 2)).unwrap();
    fs::write(with_suffix(path, "-wal"), [0; 32]).unwrap();
    let file = StoreFile::open(path, KIND, Access::Existing).unwrap();
    file.watch_log().unwrap();
    file.confirm_commit().unwrap();
    file
}

/// Moves the file away and, unless `to` is the same, something else to its place.
fn replace(path: &Path) {
    fs::rename(path, with_suffix(path, ".old")).unwrap();
    fs::copy(with_suffix(path, ".old"), path).unwrap();
}

#[test]
fn whatever_happens_to_a_file_is_found_and_stays_found() {
    type Act = fn(&Path);
    let acts: [(&str, Act); 4] = [
        ("removed", |path| fs::remove_file(path).unwrap()),
        ("moved", |path| fs::rename(path, with_suffix(path, ".old")).unwrap()),
        ("replaced", replace),
        ("another name", |path| fs::hard_link(path, with_suffix(path, ".old")).unwrap()),
    ];
    for suffix in ["", "-wal", ".lock"] {
        for (word, act) in acts {
            let (_directory, path) = in_new_directory();
            let file = open_store(&path);
            let part = with_suffix(&path, suffix);
            act(&part);
            assert_eq!(file.info().displaced, None);
            let error = file.confirm_commit().unwrap_err();
            assert_eq!(file.info().displaced, Some(Displaced::Away), "{suffix} {word}");
            assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "{suffix} {word}");
            let error = file.require_in_place().unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "{suffix} {word}");
            let text = error.to_string();
            assert!(text.contains(word), "{suffix} {word}: {text}");
            assert!(text.contains(part.to_str().unwrap()), "{suffix} {word}: {text}");
            // Whatever is done now, somebody else may have written meanwhile.
            let old = with_suffix(&part, ".old");
            match word {
                "another name" => fs::remove_file(old).unwrap(),
                "removed" => {}
                _ => fs::rename(old, &part).unwrap(),
            }
            assert_eq!(file.require_in_place().unwrap_err().to_string(), text);
            let is_back = word != "removed";
            let displaced = if is_back { Displaced::Back } else { Displaced::Away };
            assert_eq!(file.info().displaced, Some(displaced), "{suffix} {word}");
        }
    }
}

#[test]
fn a_directory_that_is_renamed_takes_the_store_with_it() {
    let (directory, _) = in_new_directory();
    let (before, after) = (directory.path().join("before"), directory.path().join("after"));
    fs::create_dir(&before).unwrap();
    let file = open_store(&before.join("store.db"));
    fs::rename(&before, &after).unwrap();
    let error = file.require_in_place().unwrap_err();
    assert!(error.to_string().contains("moved away"), "{error}");
    // By a link at its old place the same file, log and lock are reached: nobody else gets in.
    drop(file);
    let file = open_store(&after.join("store.db"));
    fs::rename(&after, &before).unwrap();
    std::os::unix::fs::symlink(&before, &after).unwrap();
    file.require_in_place().unwrap();
    let link = after.join("store.db");
    assert_eq!(*refusal(&link, Access::Existing).kind(), ErrorKind::Busy);
}

#[test]
fn a_link_in_place_of_the_file_is_not_the_file() {
    let (_directory, path) = in_new_directory();
    let file = open_store(&path);
    let elsewhere = path.with_file_name("elsewhere.db");
    fs::rename(&path, &elsewhere).unwrap();
    // Whoever opens it now takes the lock beside its target.
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(file.require_in_place().unwrap_err().to_string().contains("replaced"));
}

#[test]
fn a_file_with_several_names_is_not_opened_by_any() {
    let (_directory, path) = in_new_directory();
    let copy = path.with_file_name("copy.db");
    fs::write(&path, sqlite_file(KIND.application_id, 2)).unwrap();
    fs::hard_link(&path, &copy).unwrap();
    for name in [&path, &copy] {
        for access in [Access::Create, Access::Existing, Access::ReadOnly] {
            let error = refusal(name, access);
            assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains("names=2"), "{error}");
        }
    }
    fs::remove_file(copy).unwrap();
    // A log goes by the name of its file: this one would be somebody else's, too.
    fs::write(with_suffix(&path, "-wal"), [0; 32]).unwrap();
    fs::hard_link(with_suffix(&path, "-wal"), path.with_file_name("copy.db-wal")).unwrap();
    assert!(refusal(&path, Access::Existing).to_string().contains("store.db-wal"));
    fs::remove_file(path.with_file_name("copy.db-wal")).unwrap();
    StoreFile::open(&path, KIND, Access::Existing).unwrap();
}

#[test]
fn where_a_store_was_none_is_made() {
    let (_directory, path) = in_new_directory();
    let store = SideId::from_bytes([7; 16]);
    let lock = with_suffix(&path, ".lock");
    // What is killed while it is made can be made again.
    fs::write(&path, "").unwrap();
    drop(StoreFile::open(&path, KIND, Access::Create).unwrap());
    fs::remove_file(&path).unwrap();
    let file = StoreFile::open(&path, KIND, Access::Create).unwrap();
    fs::write(&path, sqlite_file(KIND.application_id, 2)).unwrap();
    for _ in 0..2 {
        file.note_store(store);
    }
    drop(file);
    // The next holder, and a reader, leave the note alone.
    drop(StoreFile::open(&path, KIND, Access::ReadOnly).unwrap());
    drop(StoreFile::open(&path, KIND, Access::Existing).unwrap());
    let noted = fs::read_to_string(&lock).unwrap();
    assert_eq!(noted, format!("{:<19}\nstore {store}\n", std::process::id()));
    fs::remove_file(&path).unwrap();
    for access in [Access::Create, Access::Existing, Access::ReadOnly] {
        let error = refusal(&path, access);
        assert_eq!(*error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(&store.to_string()), "{error}");
        assert!(!path.exists());
    }
    // Half of a note was written when there was a store.
    fs::write(&lock, &noted[..22]).unwrap();
    assert_eq!(*refusal(&path, Access::Create).kind(), ErrorKind::NotFound);
    // Another store in its place is what somebody wanted.
    fs::write(&path, sqlite_file(KIND.application_id, 2)).unwrap();
    let other = SideId::from_bytes([8; 16]);
    StoreFile::open(&path, KIND, Access::Create).unwrap().note_store(other);
    assert!(fs::read_to_string(&lock).unwrap().ends_with(&format!("\nstore {other}\n")));
    fs::remove_file(&path).unwrap();
    fs::remove_file(&lock).unwrap();
    assert!(StoreFile::open(&path, KIND, Access::Create).unwrap().is_new());
}

#[test]
fn a_log_without_its_file_is_a_sign() {
    let (_directory, path) = in_new_directory();
    let log = with_suffix(&path, "-wal");
    fs::write(&log, [1; 32]).unwrap();
    for access in [Access::Create, Access::Existing, Access::ReadOnly] {
        let error = refusal(&path, access);
        assert_eq!(*error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("store.db-wal"), "{error}");
    }
    assert_eq!(fs::read(&log).unwrap(), [1; 32]);
    // An empty one is what a store leaves whose end was cut off after its log was moved into it.
    fs::write(&log, "").unwrap();
    StoreFile::open(&path, KIND, Access::Create).unwrap();
}
