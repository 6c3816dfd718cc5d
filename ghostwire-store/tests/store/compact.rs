//! A store's file is made smaller, and is the same store.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;

use crate::world::Site;
use ghostwire_store::domain::*;
use ghostwire_store::{ErrorKind, Opener, Store};

fn sites() -> impl Iterator<Item = Site> {
    Site::all().into_iter().filter(|site| site.config.backend.path().is_some())
}

/// Many users, most of whom are deleted again.
async fn fill(store: &dyn Store) {
    let mut users = Vec::new();
    for number in 0..400 {
        let mut user = NewUser::local(format!("user-{number}").parse().unwrap());
        user.picture_url = Some("x".repeat(2000).parse().unwrap());
        users.push(store.users().create(user).await.unwrap().id);
    }
    for user in users.into_iter().skip(20) {
        store.users().delete(user, false).await.unwrap();
    }
}

fn names_beside(path: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn free_pages_are_given_back_and_the_store_stays_the_same() {
    for mut site in sites() {
        // Blocks that are kept would be most of it.
        site.config.writer.retain_blocks_mib = 0;
        let path = site.config.backend.path().unwrap().to_owned();
        let store = site.open().await;
        fill(store.as_ref()).await;
        store.checkpoint().await.unwrap();
        let (serial, digests) = (store.view().serial(), store.digests().await.unwrap());
        let config = site.config.clone();
        let opener = Opener::new(&config);
        // Not while it is in use.
        assert_eq!(*opener.compact().await.unwrap_err().kind(), ErrorKind::Busy);
        store.close().await.unwrap();
        let backend = Opener::new(&site.config).open_backend().await.unwrap();
        let head = backend.head().await.unwrap();
        backend.close().await.unwrap();

        let before = names_beside(&path);
        // What an attempt left that was broken off.
        let part = format!("{}.compact.part", path.display());
        std::fs::write(&part, b"half a copy").unwrap();
        let compacted = opener.compact().await.unwrap();
        assert!(compacted.after * 3 < compacted.before, "{site:?}: {compacted:?}");
        assert!(std::fs::metadata(&path).unwrap().len() <= compacted.after);
        assert_eq!(names_beside(&path), before, "{site:?}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let backend = Opener::new(&site.config).open_backend().await.unwrap();
        assert_eq!(backend.head().await.unwrap(), head, "{site:?}");
        backend.close().await.unwrap();
        let store = site.open().await;
        assert_eq!(store.view().serial(), serial);
        assert_eq!(store.digests().await.unwrap(), digests);
        store.verify().await.unwrap();
        let user = NewUser::local("afterwards".parse().unwrap());
        store.users().create(user).await.unwrap();
        store.close().await.unwrap();
        // There is not much left to give back.
        let again = opener.compact().await.unwrap();
        assert!(again.after * 2 > again.before, "{again:?}");
    }
}

/// The log of a process that died holds commits that the file does not have yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_only_in_the_log_is_kept() {
    for mut site in sites() {
        let store = site.open().await;
        fill(store.as_ref()).await;
        let digests = store.digests().await.unwrap();
        let mut crashed = site.crashed(store);
        Opener::new(&crashed.config).compact().await.unwrap();
        let store = crashed.open().await;
        assert_eq!(store.digests().await.unwrap(), digests, "{site:?}");
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_not_copied() {
    for mut site in sites() {
        let path = site.config.backend.path().unwrap().to_owned();
        let store = site.open().await;
        fill(store.as_ref()).await;
        store.close().await.unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes
            .windows(7)
            .rposition(|window| window == b"user-1\0" || window == b"xxxxxxx")
            // Of a sealed store any byte will do.
            .unwrap_or(bytes.len() / 2);
        *bytes.get_mut(at).unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        match Opener::new(&site.config).compact().await {
            Err(error) => {
                assert_eq!(*error.kind(), ErrorKind::Corrupt, "{site:?}: {error:?}");
                assert_eq!(std::fs::read(&path).unwrap(), bytes);
            }
            // It was in a free page.
            Ok(_) => site.open().await.verify().await.unwrap(),
        }
        assert!(!Path::new(&format!("{}.compact.part", path.display())).exists());
    }
}

#[cfg(feature = "memory")]
#[tokio::test]
async fn memory_has_no_file() {
    use ghostwire_store::config::{BackendChoice, Config};
    let config = Config { backend: BackendChoice::Memory, ..Config::default() };
    let error = Opener::new(&config).compact().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
}
