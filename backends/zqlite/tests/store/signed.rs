//! What a store attests of its state, to somebody who has no key of it.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::*;
use ghostwire_store_core::attest::{AttestationOptions, AttestationSink};
use ghostwire_store_core::backend::Attestation;
use ghostwire_store_core::domain::{NewUser, StoreId};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::layer::Observe;
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::{Store, open as open_store};
use ghostwire_store_crypto::SystemRandom;
use ghostwire_store_crypto::keyring::{Keyring, Rotation};
use ghostwire_store_crypto::signature::{Attestation as Signed, Purpose, SignerId};
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};
use tokio::sync::mpsc;

fn signer_of(keyring: &Keyring) -> SignerId {
    keyring.authority().signer(Purpose::Manifest).unwrap().public().id()
}

fn own_keyring() -> Keyring {
    keyring(StoreId::from_bytes([9; 16]))
}

async fn store_on(wanted: ZqliteOptions, options: StoreOptions) -> Arc<dyn Store> {
    let backend = ZqliteBackend::open(wanted).await.unwrap();
    open_store(Arc::new(Observe::new(Arc::new(backend), Arc::new(()))), options).await.unwrap()
}

async fn create(store: &dyn Store, name: &str) {
    store.users().create(NewUser::local(name.parse().unwrap())).await.unwrap();
}

fn parsed(attestation: &Attestation) -> Signed {
    attestation.text.parse().unwrap()
}

#[tokio::test]
async fn what_a_store_attests_is_checked_without_its_keys() {
    let (_directory, path) = directory();
    let store = store_on(sealed(&path), StoreOptions::default()).await;
    create(&*store, "ann").await;
    let attestation = store.attest().await.unwrap();
    let (view, known) = (store.view(), signer_of(&own_keyring()));
    let digest = store.digests().await.unwrap().state;
    assert_eq!((attestation.state.digest, attestation.state.serial), (digest, view.serial()));
    assert_eq!(attestation.signer, known.to_string());
    assert_eq!(store.info().backend.signer, Some(known.to_string()));
    let signed = parsed(&attestation);
    let verified = signed.verify(known).unwrap();
    assert_eq!((verified.signer, verified.successions), (known, 0));
    let said = verified.attested;
    assert_eq!((said.store, said.serial), ([9; 16], view.serial().get()));
    assert_eq!((&said.digest, said.block_hash), (digest.as_bytes(), *view.hash().as_bytes()));
    assert_eq!((said.commit, said.epoch), (view.position().get(), 0));
    // It goes on, and says another thing.
    create(&*store, "bob").await;
    let later = store.attest().await.unwrap();
    assert_ne!(later.state.digest, digest);
    store.close().await.unwrap();
    assert_eq!(*store.attest().await.unwrap_err().kind(), ErrorKind::Unavailable);
    // Who only reads attests, too, and writes nothing.
    let options = StoreOptions { read_only: true, ..StoreOptions::default() };
    let reading = store_on(sealed(&path).read_only(true), options).await;
    assert_eq!(reading.attest().await.unwrap().state.digest, later.state.digest);
    reading.close().await.unwrap();
}

#[tokio::test]
async fn a_plain_store_attests_nothing_and_says_what_to_do() {
    let (_directory, path) = directory();
    let store = store_on(options(&path), StoreOptions::default()).await;
    let error = store.attest().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("gwstore seal"), "{error}");
    assert_eq!(store.info().backend.signer, None);
    store.close().await.unwrap();
    // Nor is it opened as if it did.
    let backend = ZqliteBackend::open(options(&path)).await.unwrap();
    let (sink, _) = Channel::new();
    let options = StoreOptions {
        attestations: Some(AttestationOptions::new(sink)),
        ..StoreOptions::default()
    };
    let error = open_store(Arc::new(backend), options).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn who_knows_the_signer_before_a_leak_follows() {
    let (_directory, path) = directory();
    let store = store_on(sealed(&path), StoreOptions::default()).await;
    create(&*store, "ann").await;
    store.close().await.unwrap();
    let first = own_keyring();
    let mut keyrings = vec![first.clone()];
    for _ in 0..2 {
        let last = keyrings.last().unwrap();
        let rotated = written(&last.rotate(Rotation::Leaked, 0, &SystemRandom).unwrap());
        let with = |keyring: &Keyring| options(&path).sealed(keyring.clone());
        store_on(with(&rotated), StoreOptions::default()).await.close().await.unwrap();
        let finished = written(&rotated.finish_rotation().unwrap());
        let store = store_on(with(&finished), StoreOptions::default()).await;
        create(&*store, &format!("user{}", keyrings.len())).await;
        store.checkpoint().await.unwrap();
        store.verify().await.unwrap();
        keyrings.push(finished);
        let signed = parsed(&store.attest().await.unwrap());
        for (steps, known) in keyrings.iter().rev().map(signer_of).enumerate() {
            assert_eq!(signed.verify(known).unwrap().successions, steps);
        }
        assert!(signed.verify(SignerId::from_bytes([1; 32])).is_err());
        store.close().await.unwrap();
    }
}

/// Hands on what it gets, and fails or waits if told to.
#[derive(Debug)]
struct Channel {
    sender: mpsc::UnboundedSender<Attestation>,
    fails: bool,
    /// It goes on once this is closed.
    gate: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
}

impl Channel {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Attestation>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self { sender, fails: false, gate: Mutex::default() }), receiver)
    }
}

impl AttestationSink for Channel {
    fn publish(&self, attestation: &Attestation) -> Result<()> {
        if let Some(gate) = self.gate.lock().unwrap().take() {
            let _ = gate.recv();
        }
        let _ = self.sender.send(attestation.clone());
        match self.fails {
            true => Err(Error::new(ErrorKind::Unavailable, "as told")),
            false => Ok(()),
        }
    }
}

async fn attesting(path: &Path, options: AttestationOptions) -> Arc<dyn Store> {
    let options = StoreOptions { attestations: Some(options), ..StoreOptions::default() };
    store_on(sealed(path), options).await
}

#[tokio::test]
async fn a_store_attests_by_itself_while_it_changes_and_at_the_end() {
    let (_directory, path) = directory();
    let (sink, mut taken) = Channel::new();
    let every = Duration::from_millis(1);
    let store =
        attesting(&path, AttestationOptions { every, ..AttestationOptions::new(sink) }).await;
    for name in ["ann", "bob"] {
        create(&*store, name).await;
        let wanted = store.digests().await.unwrap().state;
        // What was signed before the change may come first.
        while taken.recv().await.unwrap().state.digest != wanted {}
    }
    store.close().await.unwrap();
    // It has the last state already, so none follows.
    assert!(taken.try_recv().is_err());
}

#[tokio::test]
async fn a_store_attests_when_it_was_verified_and_when_it_is_closed() {
    let (_directory, path) = directory();
    let (sink, mut taken) = Channel::new();
    let store = attesting(&path, AttestationOptions::new(sink)).await;
    create(&*store, "ann").await;
    assert!(taken.try_recv().is_err());
    store.verify().await.unwrap();
    let verified = taken.try_recv().unwrap();
    assert_eq!(verified.state.serial, store.view().serial());
    create(&*store, "bob").await;
    let (serial, digest) = (store.view().serial(), store.digests().await.unwrap().state);
    store.close().await.unwrap();
    let last = taken.try_recv().unwrap();
    assert_eq!((last.state.serial, last.state.digest), (serial, digest));
    parsed(&last).verify(signer_of(&own_keyring())).unwrap();
    assert!(taken.try_recv().is_err());
}

#[tokio::test]
async fn closing_neither_fails_nor_waits_for_long_with_who_takes_attestations() {
    let (_directory, path) = directory();
    let (sink, mut taken) = Channel::new();
    let sink = Arc::new(Channel { fails: true, ..Arc::try_unwrap(sink).unwrap() });
    let store = attesting(&path, AttestationOptions::new(sink)).await;
    create(&*store, "ann").await;
    store.close().await.unwrap();
    assert!(taken.try_recv().is_ok());
    let (sink, mut taken) = Channel::new();
    let (opens, gate) = std::sync::mpsc::channel();
    *sink.gate.lock().unwrap() = Some(gate);
    let patience_at_end = Duration::from_millis(10);
    let options = AttestationOptions { patience_at_end, ..AttestationOptions::new(sink) };
    let store = attesting(&path, options).await;
    create(&*store, "bob").await;
    store.close().await.unwrap();
    assert!(taken.try_recv().is_err());
    drop(opens);
    assert!(taken.recv().await.is_some());
    store_on(sealed(&path), StoreOptions::default()).await.close().await.unwrap();
}
