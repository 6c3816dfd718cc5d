//! What is changed beside the state, and so leaves its line in the audit trail only once it is done.

use std::future::Future;
use std::sync::Arc;

use ghostwire_store_core::Store;
use ghostwire_store_core::domain::{
    Actor, AuditEntry, AuditId, AuditResult, ConsumerName, ResourceKind,
};
use ghostwire_store_core::entropy::{Entropy, SystemEntropy};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::keys::{KeyringInfo, RecipientInfo, Rotation, StoreKeys};
use serde_json::{Value, json};
use tracing::Instrument;

use super::answer::{Answering, value};
use crate::protocol::{KeysRequest, MigrateRequest};

/// Does this to its end with its line in the trail, also if whoever asked goes meanwhile; one after the other, so that
/// each knows what it changed. The end of the socket waits for it.
pub(super) async fn carried_out(
    to: &Answering,
    change: impl Future<Output = Result<Value>> + Send + 'static,
) -> Result<Value> {
    let alone = to.counters.changing.clone().lock_owned().await;
    let change = async move {
        let changed = change.await;
        drop(alone);
        changed
    };
    let done = tokio::spawn(change.in_current_span()).await;
    done.unwrap_or_else(|error| {
        let message = "a change was broken off, and may have been made or not";
        Err(Error::new(ErrorKind::OutcomeUnknown, message).because(error))
    })
}

/// The keyring, and how far records are sealed anew.
pub(super) async fn list_keys(store: &dyn Store) -> Result<Value> {
    let keys = store.keys()?;
    told(&keys, &keys.list().await?)
}

fn told(keys: &StoreKeys, keyring: &KeyringInfo) -> Result<Value> {
    value(&json!({ "keyring": keyring, "resealed": keys.progress() }))
}

/// A line of the trail, as far as it depends on what was done.
struct Line {
    action: &'static str,
    subject: String,
    details: Value,
}

/// Whoever changes something, and where.
pub(super) struct Change {
    /// Held open until the line is written.
    store: Arc<dyn Store>,
    actor: Actor,
}

impl Change {
    pub(super) fn of(store: Arc<dyn Store>, actor: Actor) -> Self {
        Self { store, actor }
    }

    pub(super) async fn remove_consumer(&self, name: &ConsumerName) -> Result<Value> {
        self.store.consumers().remove(name).await?;
        let subject = name.as_str().to_owned();
        let line = Line { action: "consumer.remove", subject, details: Value::Null };
        self.note(line, AuditResult::Success).await;
        Ok(Value::Null)
    }

    pub(super) async fn change_keys(&self, request: KeysRequest) -> Result<Value> {
        let keys = self.store.keys()?;
        // Where it cannot be read nothing is changed either, and that error says more.
        let before = keys.list().await.ok();
        let changed = carry_out(&keys, request.clone()).await;
        let after = match &changed {
            Ok(keyring) => Some(keyring.clone()),
            Err(_) => keys.list().await.ok(),
        };
        let generation = |keyring: &Option<KeyringInfo>| keyring.as_ref().map(|it| it.generation);
        // Also what ended with an error may have drawn a key; and what was done before is not done again.
        if let Some(after) =
            after.as_ref().filter(|after| generation(&before) != Some(after.generation))
            && let Some(line) = line_of(&request, before.as_ref(), after, changed.as_ref().err())
        {
            let result = match changed {
                Ok(_) => AuditResult::Success,
                Err(_) => AuditResult::Failed,
            };
            self.note(line, result).await;
        }
        told(&keys, &changed?)
    }

    /// Leaves the line. What it tells of is done, whether that can be written or not.
    async fn note(&self, line: Line, result: AuditResult) {
        let action = line.action;
        if let Err(error) = self.append(line, result).await {
            tracing::warn!(%error, action, "a change that was made is missing in the audit trail");
        }
    }

    async fn append(&self, line: Line, result: AuditResult) -> Result<()> {
        let at = self.store.clock().now()?;
        let mut random = [0; 10];
        SystemEntropy.fill(&mut random)?;
        let (kind, _) = line.action.split_once('.').unwrap_or((line.action, ""));
        let id = AuditId::time_ordered(at, random);
        let (actor, action) = (self.actor.clone(), line.action.parse()?);
        let entity = kind.parse::<ResourceKind>()?;
        let mut entry = AuditEntry::new((at, id), actor, action, entity, line.subject.parse()?);
        entry.result = result;
        if line.details.is_object() {
            entry.details = Some(line.details.to_string().parse()?);
        }
        self.store.audit().append(vec![entry]).await
    }
}

/// Leaves a line in the audit trail that a step of a migration was taken. The socket does it for its clients.
pub async fn note_migration(store: Arc<dyn Store>, actor: Actor, request: MigrateRequest) {
    let action = match request {
        MigrateRequest::Start => "migration.start",
        MigrateRequest::Advance => "migration.advance",
        MigrateRequest::Back => "migration.back",
        MigrateRequest::Abort => "migration.abort",
        MigrateRequest::Finish => "migration.finish",
        MigrateRequest::Plan | MigrateRequest::Status => return,
    };
    let subject = store.info().backend.name.to_owned();
    let line = Line { action, subject, details: Value::Null };
    Change::of(store, actor).note(line, AuditResult::Success).await;
}

async fn carry_out(keys: &StoreKeys, request: KeysRequest) -> Result<KeyringInfo> {
    match request {
        KeysRequest::List => keys.list().await,
        KeysRequest::Rotate(rotation) => keys.rotate(rotation).await,
        KeysRequest::RotateFrom { from, rotation } => keys.rotate_from(from, rotation).await,
        KeysRequest::AddRecipient { recipient, label } => {
            keys.add_recipient(&recipient, &label).await
        }
        KeysRequest::RemoveRecipient { fingerprint } => keys.remove_recipient(&fingerprint).await,
        KeysRequest::Destroy { version } => keys.destroy(version).await,
    }
}

/// What the trail says of a change of keys: what was done, and to what.
fn line_of(
    request: &KeysRequest,
    before: Option<&KeyringInfo>,
    after: &KeyringInfo,
    error: Option<&Error>,
) -> Option<Line> {
    let mut details = error.map(|error| ("error", error.kind().name().to_owned()));
    let (action, subject) = match request {
        KeysRequest::List => return None,
        KeysRequest::Rotate(rotation) | KeysRequest::RotateFrom { rotation, .. } => {
            let why = match rotation {
                Rotation::Leaked => "after a leak",
                Rotation::Routine => "as planned",
            };
            ("keyring.rotate", why.to_owned())
        }
        KeysRequest::AddRecipient { label, .. } => {
            let known = before.map_or(&[][..], |before| &before.recipients);
            let is_new = |it: &&RecipientInfo| !known.contains(it);
            let added = after.recipients.iter().rfind(is_new)?;
            details.get_or_insert_with(|| ("label", label.clone()));
            ("keyring.add_recipient", added.fingerprint.clone())
        }
        KeysRequest::RemoveRecipient { fingerprint } => {
            ("keyring.remove_recipient", fingerprint.clone())
        }
        KeysRequest::Destroy { version } => {
            ("keyring.destroy", format!("version {version} of the data key"))
        }
    };
    let details = details.map_or(Value::Null, |(name, text)| json!({ name: text }));
    Some(Line { action, subject, details })
}
