//! The keys of a store that is open.
#![cfg(all(feature = "zqlite", feature = "memory"))]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_store::config::{BackendChoice, Config, ZqliteOptions};
use ghostwire_store::domain::{NewApiKey, NewUser};
use ghostwire_store::key_management::{KeyringInfo, Rotation};
use ghostwire_store::keys::Keys;
use ghostwire_store::keys::crypto::keyring::{Identity, Rotation as Reason};
use ghostwire_store::keys::crypto::root::{KeySource, Place, RootSecret};
use ghostwire_store::keys::crypto::{Result as CryptoResult, SystemRandom};
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

/// Rotates the keys when it is first asked: after the keyring was read, and before the file is locked.
#[derive(Debug)]
struct Meanwhile {
    config: Config,
    rotation: Rotation,
    has_rotated: AtomicBool,
    place: Place,
}

#[async_trait]
impl KeySource for Meanwhile {
    fn name(&self) -> String {
        self.place.name()
    }

    async fn root_secret(&self) -> CryptoResult<RootSecret> {
        if !self.has_rotated.swap(true, Ordering::SeqCst) {
            Opener::new(&self.config).rotate_data_key(self.rotation).await.unwrap();
        }
        self.place.root_secret().await
    }
}

/// Whoever waits for the file may have read the keyring of a generation before.
#[tokio::test]
async fn keys_that_are_changed_before_the_file_is_locked_are_read_again() {
    for rotation in [Rotation::Routine, Rotation::Leaked] {
        for read_only in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let config = config(directory.path());
            let store = Opener::new(&config).open().await.unwrap();
            create(&store, "ann").await;
            store.close().await.unwrap();
            let source = Meanwhile {
                config: config.clone(),
                rotation,
                has_rotated: AtomicBool::new(false),
                place: Place::File(directory.path().join("store.db.root")),
            };
            let opener = Opener::new(&config).key_source(Arc::new(source)).read_only(read_only);
            let store = opener.open().await.unwrap();
            assert_eq!(store.view().users().len(), 1);
            assert_eq!(store.keys().unwrap().progress().unwrap().version, 2);
            assert_eq!(versions(&store.keys().unwrap().list().await.unwrap()), [1, 2]);
            if !read_only {
                create(&store, "bob").await;
            }
            store.close().await.unwrap();
        }
    }
}

/// Of a rotation that is repeated because nobody knows how it ended only one is made.
#[tokio::test]
async fn a_rotation_from_a_version_is_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let store = Opener::new(&config).open().await.unwrap();
    create(&store, "ann").await;
    let keys = store.keys().unwrap();
    for _ in 0..2 {
        let info = keys.rotate_from(1, Rotation::Routine).await.unwrap();
        assert_eq!(versions(&info), [1, 2]);
    }
    // Whether that was because of a leak is not known: it is not taken for one.
    let error = keys.rotate_from(1, Rotation::Leaked).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Restricted, "{error}");
    assert!(error.to_string().contains("version=2"), "{error}");
    assert_eq!(versions(&keys.rotate_from(2, Rotation::Leaked).await.unwrap()), [1, 2, 3]);
    assert_eq!(
        *keys.rotate_from(4, Rotation::Routine).await.unwrap_err().kind(),
        ErrorKind::Restricted
    );
    store.close().await.unwrap();
    // Broken off after its keyring, and completed by an opening that nobody told of.
    let begun = Keys::of(&config).unwrap();
    begun.change(|keyring| keyring.rotate(Reason::Routine, 0, &SystemRandom)).await.unwrap();
    Opener::new(&config).open().await.unwrap().close().await.unwrap();
    let keyring = Opener::new(&config).rotate_data_key_from(3, Rotation::Routine).await.unwrap();
    assert_eq!(keyring.active().unwrap().version(), 4);
    // Completed by the call itself, which then knows why it was begun.
    begun.change(|keyring| keyring.rotate(Reason::Leaked, 0, &SystemRandom)).await.unwrap();
    let keyring = Opener::new(&config).rotate_data_key_from(4, Rotation::Leaked).await.unwrap();
    assert_eq!(keyring.active().unwrap().version(), 5);
}

/// Nobody who knows the new keys only can do anything with what the old ones signed.
#[tokio::test]
async fn after_a_leak_the_same_state_is_attested_by_the_new_keys() {
    let directory = tempfile::tempdir().unwrap();
    let attested = directory.path().join("newest.txt");
    let part = directory.path().join("newest.txt.part");
    let mut config = config(directory.path());
    let BackendChoice::Zqlite(options) = &mut config.backend else { unreachable!() };
    options.attestation_file = Some(attested.clone());
    // What a kill left.
    std::fs::write(&part, "ghostwire-store att").unwrap();
    let store = Opener::new(&config).open().await.unwrap();
    assert!(!part.exists());
    create(&store, "ann").await;
    let signed_by = async || {
        store.verify().await.unwrap();
        let text = std::fs::read_to_string(&attested).unwrap();
        let line = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.to_owned()
        };
        (line("digest "), line("keys "))
    };
    let before = signed_by().await;
    assert_eq!(signed_by().await, before);
    store.keys().unwrap().rotate(Rotation::Leaked).await.unwrap();
    let after = signed_by().await;
    assert_eq!(after.0, before.0);
    assert_ne!(after.1, before.1);
    store.close().await.unwrap();
}
