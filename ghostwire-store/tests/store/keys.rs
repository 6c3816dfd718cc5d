//! The keyring of a sealed store, as a program meets it.
#![cfg(feature = "zqlite")]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use ghostwire_store::config::{BackendChoice, Config, RootOptions, ZqliteOptions};
use ghostwire_store::domain::NewApiKey;
use ghostwire_store::keys::Keys;
use ghostwire_store::keys::crypto::keyring::Identity;
use ghostwire_store::keys::crypto::root::{KeySource, RootSecret};
use ghostwire_store::keys::crypto::{Result as CryptoResult, SystemRandom};
use ghostwire_store::{ErrorKind, Opener};

/// A key management service, which counts how often it is asked.
#[derive(Debug)]
struct Service {
    identity: Identity,
    asked: AtomicUsize,
    answers: bool,
}

impl Service {
    fn new(answers: bool) -> Arc<Self> {
        let identity = Identity::draw(&SystemRandom).unwrap();
        Arc::new(Self { identity, asked: AtomicUsize::new(0), answers })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl KeySource for Service {
    fn name(&self) -> String {
        "the service of this test".to_owned()
    }

    async fn root_secret(&self) -> CryptoResult<RootSecret> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if !self.answers {
            std::future::pending::<()>().await;
        }
        Ok(RootSecret::Identity(self.identity.clone()))
    }
}

fn config(directory: &Path, environment: &str) -> Config {
    let path = directory.join("s.db");
    let backend = BackendChoice::Zqlite(ZqliteOptions { path, ..ZqliteOptions::default() });
    Config { backend, environment: environment.to_owned(), ..Config::default() }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_service_is_asked_when_a_store_is_opened_and_not_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), "production");
    let service = Service::new(true);
    let opener = Opener::new(&config).key_source(service.clone());
    let store = opener.open().await.unwrap();
    let (_, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    assert_eq!(service.asked(), 1);
    store.close().await.unwrap();
    let store = opener.open().await.unwrap();
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    assert_eq!(service.asked(), 2);
    store.close().await.unwrap();
    assert!(!names(directory.path()).iter().any(|name| name.ends_with(".root")));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_answer_is_not_waited_for_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), "production");
    let service = Service::new(false);
    let opened = Opener::new(&config).key_source(service.clone()).open().await;
    let error = opened.map(drop).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Crypto);
    assert!(error.to_string().contains("the service of this test"), "{error}");
    assert!(error.to_string().contains("30 seconds"), "{error}");
    assert_eq!(names(directory.path()), [""; 0], "nothing is left of it");
}

#[tokio::test]
async fn what_is_refused_before_a_store_is_made_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let nowhere = Some(directory.path().join("nowhere/keyring"));
    for (environment, keyring_file, root) in [
        ("production", None, RootOptions::default()),
        (
            "production",
            None,
            RootOptions { secret_file: Some("/nonexistent".into()), ..RootOptions::default() },
        ),
        ("development", nowhere, RootOptions::default()),
        ("development", Some(directory.path().join("s.db-wal")), RootOptions::default()),
    ] {
        let options =
            ZqliteOptions { path: path.clone(), keyring_file, root, ..Default::default() };
        let config = Config {
            backend: BackendChoice::Zqlite(options),
            ..config(directory.path(), environment)
        };
        let error = Opener::new(&config).open().await.map(drop).unwrap_err();
        assert_eq!(names(directory.path()), [""; 0], "{error}");
    }
}

#[tokio::test]
async fn a_rotated_hash_key_verifies_and_hashes_anew() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), "development");
    let store = Opener::new(&config).open().await.unwrap();
    let (key, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    store.close().await.unwrap();
    let keys = Keys::of(&config).unwrap();
    let first = keys.open().await.unwrap();
    let rotated = keys.rotate_hash_key().await.unwrap();
    assert_eq!((first.generation(), rotated.generation()), (1, 2));
    let store = Opener::new(&config).open().await.unwrap();
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    store.close().await.unwrap();
    let store = Opener::new(&config).open().await.unwrap();
    let hash = store.view().api_keys().get(key.id).unwrap().hash.clone();
    assert_ne!(hash, key.hash);
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    store.close().await.unwrap();
    // The store knows the newer key: a keyring from before is older than that.
    let current = Opener::new(&config).hash_keys().await.unwrap().unwrap();
    assert_eq!(current.iter().count(), 2);
}

#[tokio::test]
async fn a_hash_key_in_a_file_is_not_rotated_in_the_keyring() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), "development");
    config.secret_key_file = Some(directory.path().join("apart"));
    Opener::new(&config).open().await.unwrap().close().await.unwrap();
    let keys = Keys::of(&config).unwrap();
    let error = keys.rotate_hash_key().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Restricted, "{error}");
    assert!(error.to_string().contains("apart"), "{error}");
    assert_eq!(keys.open().await.unwrap().generation(), 1);
}

/// Each step of it is written before the next, so it can be broken off between any two.
#[tokio::test]
async fn a_rotation_that_was_broken_off_is_completed() {
    use ghostwire_store::key_management::Rotation as KeyRotation;
    use ghostwire_store::keys::crypto::keyring::Rotation;
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), "development");
    let store = Opener::new(&config).open().await.unwrap();
    let (_, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    store.close().await.unwrap();
    let keys = Keys::of(&config).unwrap();
    // The keyring is written, and the head is not.
    let begun = keys.change(|keyring| keyring.rotate(Rotation::Routine, 0, &SystemRandom)).await;
    assert!(begun.unwrap().leaving().is_some());
    let store = Opener::new(&config).open().await.unwrap();
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    store.close().await.unwrap();
    // Opening completed it.
    let completed = keys.open().await.unwrap();
    let versions: Vec<_> = completed.data_keys().iter().map(|key| key.version()).collect();
    assert_eq!((versions, completed.leaving().is_none()), (vec![1, 2], true));
    let store = Opener::new(&config).open().await.unwrap();
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    store.verify().await.unwrap();
    let busy =
        Opener::new(&config).rotate_data_key(KeyRotation::Routine).await.map(drop).unwrap_err();
    assert_eq!(*busy.kind(), ErrorKind::Busy);
    store.close().await.unwrap();
    assert_eq!(keys.open().await.unwrap().generation(), completed.generation());
}
