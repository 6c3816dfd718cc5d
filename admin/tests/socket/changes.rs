//! What is changed beside the state, and what the audit trail says of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ghostwire_store_admin::NoHooks;
use ghostwire_store_admin::protocol::KeysRequest;
use ghostwire_store_core::domain::AuditResult;
use ghostwire_store_core::keys::{KeyManager, KeyringInfo, RecipientInfo, Rotation};
use tokio::sync::Semaphore;

use super::*;

/// A keyring of which only the generation and who opens it are real. Rotations wait until they may.
#[derive(Debug)]
struct Keyring {
    generation: AtomicU64,
    begun: Semaphore,
    may_rotate: Semaphore,
}

impl Keyring {
    fn new() -> Arc<Self> {
        let (begun, may_rotate) = (Semaphore::new(0), Semaphore::new(0));
        Arc::new(Self { generation: AtomicU64::new(1), begun, may_rotate })
    }

    fn info(&self) -> KeyringInfo {
        let generation = self.generation.load(Ordering::Relaxed);
        let recipient = |number| RecipientInfo {
            fingerprint: format!("fingerprint-{number}"),
            label: "somebody".to_owned(),
            root: false,
        };
        let recipients = (1..=generation).map(recipient).collect();
        KeyringInfo { generation, rotating_from: None, data_keys: Vec::new(), recipients }
    }

    fn change(&self) -> KeyringInfo {
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.info()
    }
}

#[async_trait::async_trait]
impl KeyManager for Keyring {
    async fn list(&self) -> Result<KeyringInfo> {
        Ok(self.info())
    }

    async fn rotate(&self, rotation: Rotation) -> Result<KeyringInfo> {
        self.begun.add_permits(1);
        self.may_rotate.acquire().await.unwrap().forget();
        let changed = self.change();
        match rotation {
            Rotation::Routine => Ok(changed),
            Rotation::Leaked => Err(Error::new(ErrorKind::Exhausted, "the disk is full")),
        }
    }

    async fn rotate_from(&self, _: u32, _: Rotation) -> Result<KeyringInfo> {
        Ok(self.info())
    }

    async fn add_recipient(&self, _: &str, _: &str) -> Result<KeyringInfo> {
        Ok(self.change())
    }

    async fn remove_recipient(&self, _: &str) -> Result<KeyringInfo> {
        Err(Error::new(ErrorKind::NotFound, "nobody is called so"))
    }

    async fn change_root(&self, _: &Path) -> Result<KeyringInfo> {
        Ok(self.change())
    }

    async fn destroy(&self, _: u32) -> Result<KeyringInfo> {
        Ok(self.change())
    }
}

#[tokio::test]
async fn a_change_of_keys_stands_in_the_trail_also_if_nobody_waits_for_it() {
    let keyring = Keyring::new();
    let world = World::with_keys(keyring.clone()).await;
    let request = br#"{"method":"keys","params":{"rotate":"routine"},"actor":"cli:anna"}"#;
    let asked = raw(&world, request).await;
    keyring.begun.acquire().await.unwrap().forget();
    drop(asked);
    world.until_clients(0).await;
    keyring.may_rotate.add_permits(1);
    let line = loop {
        match world.trail().await.first() {
            Some(line) => break line.clone(),
            None => tokio::task::yield_now().await,
        }
    };
    let said = (line.actor.as_str(), line.action.as_str(), line.subject.as_str(), line.result);
    assert_eq!(said, ("cli:anna", "keyring.rotate", "as planned", AuditResult::Success));
}

#[tokio::test]
async fn the_trail_says_what_was_changed_and_nothing_of_what_was_not() {
    let keyring = Keyring::new();
    keyring.may_rotate.add_permits(1);
    let world = World::with_keys(keyring).await;
    let client = world.client().await.acting_as(cli());
    client.keys(KeysRequest::List).await.unwrap();
    let rotation = Rotation::Routine;
    client.keys(KeysRequest::RotateFrom { from: 1, rotation }).await.unwrap();
    let fingerprint = "nobody".to_owned();
    client.keys(KeysRequest::RemoveRecipient { fingerprint }).await.unwrap_err();
    assert!(world.trail().await.is_empty(), "nothing was changed");
    // A key was drawn, and then the disk was full.
    client.keys(KeysRequest::Rotate(Rotation::Leaked)).await.unwrap_err();
    let (recipient, label) = ("age1pq1".to_owned(), "the safe".to_owned());
    client.keys(KeysRequest::AddRecipient { recipient, label }).await.unwrap();
    let trail = world.trail().await;
    let lines: Vec<_> = trail
        .iter()
        .map(|line| {
            let details = line.details.as_ref().map(|details| details.as_str());
            (line.action.as_str(), line.subject.as_str(), line.result, details)
        })
        .collect();
    let failed = r#"{"error":"exhausted"}"#;
    let expected = [
        ("keyring.rotate", "after a leak", AuditResult::Failed, Some(failed)),
        (
            "keyring.add_recipient",
            "fingerprint-3",
            AuditResult::Success,
            Some(r#"{"label":"the safe"}"#),
        ),
    ];
    assert_eq!(lines, expected);
}

impl World {
    async fn with_keys(keys: Arc<dyn KeyManager>) -> Self {
        Self::open_on(Self::memory(), Some(keys), Arc::new(NoHooks), |_| ()).await
    }
}
