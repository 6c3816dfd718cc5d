//! The keys of a store that is open.
#![cfg(all(feature = "zqlite", feature = "memory"))]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ghostwire_store::config::{BackendChoice, Config, ZqliteOptions};
use ghostwire_store::domain::{NewApiKey, NewUser};
use ghostwire_store::key_management::{KeyringInfo, Rotation};
use ghostwire_store::keys::Keys;
use ghostwire_store::keys::crypto::SystemRandom;
use ghostwire_store::keys::crypto::keyring::{Identity, Rotation as Reason};
use ghostwire_store::{ErrorKind, Opener, Store};

fn config(directory: &Path) -> Config {
    let options = ZqliteOptions { path: directory.join("store.db"), ..ZqliteOptions::default() };
    Config { backend: BackendChoice::Zqlite(options), ..Config::default() }
}

async fn create(store: &Arc<dyn Store>, name: &str) {
    store.users().create(NewUser::local(name.parse().unwrap())).await.unwrap();
}

fn versions(info: &KeyringInfo) -> Vec<u32> {
    info.data_keys.iter().map(|key| key.version).collect()
}

/// Until everything is sealed anew, which the writer does by itself.
async fn resealed(store: &Arc<dyn Store>) {
    let keys = store.keys().unwrap();
    let done = async {
        while keys.progress().unwrap().is_under_way() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), done).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_and_are_destroyed_while_the_store_serves() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let store = Opener::new(&config).open().await.unwrap();
    let (_, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    for number in 0..200 {
        create(&store, &format!("user{number}")).await;
    }
    store.checkpoint().await.unwrap();
    let keys = store.keys().unwrap();
    assert_eq!(versions(&keys.list().await.unwrap()), [1]);
    let digest = store.digests().await.unwrap();
    for (number, rotation) in [(2, Rotation::Routine), (3, Rotation::Leaked)] {
        let info = keys.rotate(rotation).await.unwrap();
        assert_eq!((info.data_keys.last().unwrap().version, info.rotating_from), (number, None));
        assert_eq!(info, keys.list().await.unwrap());
        assert_eq!(keys.progress().unwrap().version, number);
        // Writers go on meanwhile.
        for other in 0..20 {
            create(&store, &format!("other{number}x{other}")).await;
        }
        resealed(&store).await;
        let info = keys.destroy(number - 1).await.unwrap();
        assert_eq!(versions(&info), [number]);
        store.verify().await.unwrap();
    }
    assert_ne!(store.digests().await.unwrap(), digest);
    for refused in [keys.destroy(3).await, keys.destroy(2).await] {
        assert!(refused.is_err());
    }
    assert_eq!(*keys.destroy(9).await.unwrap_err().kind(), ErrorKind::NotFound);
    let digest = store.digests().await.unwrap();
    store.close().await.unwrap();
    let store = Opener::new(&config).open().await.unwrap();
    assert_eq!(store.digests().await.unwrap(), digest);
    assert_eq!(versions(&store.keys().unwrap().list().await.unwrap()), [3]);
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    store.verify().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_version_that_seals_something_is_not_destroyed() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let store = Opener::new(&config).open().await.unwrap();
    create(&store, "ann").await;
    store.close().await.unwrap();
    let opener = Opener::new(&config);
    opener.rotate_data_key(Rotation::Routine).await.unwrap();
    let refused = opener.destroy_data_key(1).await.unwrap_err();
    assert_eq!(*refused.kind(), ErrorKind::Restricted);
    assert!(refused.to_string().contains("sealed under this version"), "{refused}");
    let resealed = opener.reseal(|_| {}).await.unwrap();
    assert_eq!((resealed.version, resealed.percent()), (2, 100));
    opener.destroy_data_key(1).await.unwrap();
    let gone = opener.destroy_data_key(1).await.unwrap_err();
    assert!(gone.to_string().contains("version 1"), "{gone}");
    let store = Opener::new(&config).open().await.unwrap();
    assert_eq!(store.view().users().len(), 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn recipients_come_and_go_and_the_root_is_replaced_while_the_store_serves() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let store = Opener::new(&config).open().await.unwrap();
    let keys = store.keys().unwrap();
    let escrow = Identity::draw(&SystemRandom).unwrap();
    let line = escrow.recipient().to_string();
    let added = keys.add_recipient(&line, "escrow").await.unwrap();
    let fingerprint = escrow.recipient().fingerprint().to_string();
    assert!(added.recipients.iter().any(|it| it.fingerprint == fingerprint && !it.root));
    let error = keys.add_recipient(&line, "again").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Restricted);
    let error = keys.add_recipient("age1pq1nonsense", "").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    // Beside the open store somebody adds another, and the store takes that up with its next change.
    let beside = Identity::draw(&SystemRandom).unwrap();
    let line = beside.recipient().clone();
    let changed = Keys::of(&config).unwrap();
    changed.change(move |keyring| keyring.add_recipient(line, "beside")).await.unwrap();
    create(&store, "ann").await;
    let removed = keys.remove_recipient(&fingerprint).await.unwrap();
    assert_eq!(versions(&removed), [1, 2]);
    let labels: Vec<_> = removed.recipients.iter().map(|it| it.label.as_str()).collect();
    assert_eq!(labels, ["root", "beside"]);
    let error = keys.remove_recipient(&fingerprint).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    let root = removed.recipients.iter().find(|it| it.root).unwrap();
    let error = keys.remove_recipient(&root.fingerprint).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Restricted);
    let new_root = directory.path().join("new-root");
    let identity = Identity::draw(&SystemRandom).unwrap();
    ghostwire_store::keys::write_identity(&new_root, &identity, directory.path()).unwrap();
    keys.change_root(&new_root).await.unwrap();
    // It goes on by the new one.
    keys.rotate(Rotation::Routine).await.unwrap();
    create(&store, "bob").await;
    store.close().await.unwrap();
    let error = Opener::new(&config).open().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Crypto, "{error}");
    std::fs::copy(&new_root, directory.path().join("store.db.root")).unwrap();
    let store = Opener::new(&config).open().await.unwrap();
    assert_eq!(store.view().users().len(), 2);
    store.close().await.unwrap();
}

#[tokio::test]
async fn stores_without_keys_say_so_and_readers_change_none() {
    let memory = Config { backend: BackendChoice::Memory, ..Config::default() };
    let store = Opener::new(&memory).open().await.unwrap();
    let error = store.keys().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("gwstore seal"), "{error}");
    store.close().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    Opener::new(&config).open().await.unwrap().close().await.unwrap();
    let store = Opener::new(&config).read_only(true).open().await.unwrap();
    let keys = store.keys().unwrap();
    keys.list().await.unwrap();
    let before = keys.list().await.unwrap();
    for refused in [
        keys.rotate(Rotation::Routine).await,
        keys.destroy(1).await,
        keys.remove_recipient("a").await,
    ] {
        assert_eq!(*refused.unwrap_err().kind(), ErrorKind::ReadOnly);
    }
    assert_eq!(keys.list().await.unwrap(), before);
    store.close().await.unwrap();
}

/// Whoever comes second is told, and nothing of the keyring changes.
#[tokio::test]
async fn two_who_rotate_are_told_apart() {
    use ghostwire_store::keys::crypto::keyring::KeyringFile;
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let store = Opener::new(&config).open().await.unwrap();
    let keys = store.keys().unwrap();
    // Another process has the store's keyring in hand.
    let keyring = directory.path().join("store.db.keyring");
    let lock = KeyringFile::lock(&keyring, &keyring).unwrap();
    let error = keys.rotate(Rotation::Routine).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Busy, "{error}");
    drop(lock);
    // Another wants to rotate while the store is open here.
    let error = Opener::new(&config).rotate_data_key(Rotation::Routine).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Busy, "{error}");
    assert_eq!(versions(&keys.list().await.unwrap()), [1]);
    // Two calls at once in one process: one after the other.
    let (one, other) = tokio::join!(keys.rotate(Rotation::Routine), keys.rotate(Rotation::Routine));
    assert_eq!((versions(&one.unwrap()), versions(&other.unwrap())), (vec![1, 2], vec![1, 2, 3]));
    store.close().await.unwrap();
}

/// The keyring from before a rotation is refused by its number, and rotates nothing.
#[tokio::test]
async fn a_keyring_from_before_a_rotation_rotates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let store = Opener::new(&config).open().await.unwrap();
    let keyring = directory.path().join("store.db.keyring");
    let before = std::fs::read(&keyring).unwrap();
    let keys = store.keys().unwrap();
    let newest = keys.rotate(Rotation::Routine).await.unwrap();
    std::fs::write(&keyring, &before).unwrap();
    // Put back beside the open store, it is refused before anything is sealed by what it draws.
    let error = keys.rotate(Rotation::Routine).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Crypto, "{error}");
    let numbers = format!("generation 1, but this store needs {}", newest.generation);
    assert!(error.to_string().contains(&numbers), "{error}");
    assert_eq!(std::fs::read(&keyring).unwrap(), before);
    create(&store, "ann").await;
    store.close().await.unwrap();
    let error = Opener::new(&config).rotate_data_key(Rotation::Routine).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Crypto, "{error}");
    let text = error.to_string();
    assert!(text.contains("older") && text.contains(&newest.generation.to_string()), "{text}");
    assert_eq!(std::fs::read(&keyring).unwrap(), before);
}

/// A rotation because of a leak that was broken off after its keyring is completed by opening.
#[tokio::test]
async fn opening_completes_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let store = Opener::new(&config).open().await.unwrap();
    create(&store, "ann").await;
    store.close().await.unwrap();
    let keys = Keys::of(&config).unwrap();
    for reason in [Reason::Routine, Reason::Leaked] {
        let begun = keys.change(move |keyring| keyring.rotate(reason, 0, &SystemRandom)).await;
        assert!(begun.unwrap().leaving().is_some());
        let store = Opener::new(&config).open().await.unwrap();
        assert!(keys.open().await.unwrap().leaving().is_none());
        store.verify().await.unwrap();
        store.close().await.unwrap();
    }
    // A rotation that finds one broken off completes that.
    let begun = keys.change(|keyring| keyring.rotate(Reason::Leaked, 0, &SystemRandom)).await;
    let version = begun.unwrap().active().unwrap().version();
    let completed = Opener::new(&config).rotate_data_key(Rotation::Routine).await.unwrap();
    assert_eq!(completed.active().unwrap().version(), version);
}
