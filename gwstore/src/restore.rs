//! Bringing entities in, as every import does it: all of them are tried on a copy of the state
//! first, so that nothing is written of an import that would be refused halfway.

use std::collections::BTreeMap;

use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use ghostwire_store::command::{Command, EntityRecord, Restore};
use ghostwire_store::domain::{
    Actor, AuditEntry, Clock, MetricPoint, PolicyVersion, SystemClock, Timestamp,
};
use ghostwire_store::{EntityKind, Error, ErrorKind, Result, Store};
use ghostwire_store_core::block::BlockBuilder;
use ghostwire_store_core::digest::{Digest, state_digest};
use ghostwire_store_core::state::{Context, CredentialHashes, Reply, State};

use crate::progress::Progress;

/// Entities in one command.
const MOST_IMAGES: usize = 1000;
/// A few large documents fill a command, too: a block has a limit.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// Items of a series in one batch.
const MOST_SERIES: usize = 10_000;
/// While the next batch is made, one is carried out and one is stored.
const UNDER_WAY: usize = 2;

/// A copy of the state on which an import is tried.
pub(crate) struct Rehearsal {
    before: State,
    state: State,
    actor: Actor,
    now: Timestamp,
    /// Entities that are not there yet.
    pub(crate) new: u64,
    /// Entities that are there already, the same in every field.
    pub(crate) unchanged: u64,
}

impl Rehearsal {
    pub(crate) fn on(state: &State) -> Self {
        let now = SystemClock.now().max(state.time());
        let (before, actor) = (state.clone(), Actor::system());
        Self { before, state: state.clone(), actor, now, new: 0, unchanged: 0 }
    }

    /// Tries these entities. Those that break a rule are left out and named: index, and reason.
    pub(crate) fn admit(&mut self, images: &[EntityRecord]) -> Result<Vec<(usize, String)>> {
        let mut refused = Vec::new();
        for (number, batch) in images.chunks(MOST_IMAGES).enumerate() {
            let restore = Restore { images: batch.to_vec(), skip_invalid: true };
            let context = Context { now: self.now, actor: &self.actor, seed: [0; 10] };
            let block = &mut BlockBuilder::default();
            let reply = self.state.execute(&Command::Restore(restore), &context, block)?;
            let Reply::Restored(restored) = reply else {
                return Err(Error::new(
                    ErrorKind::Unexpected,
                    "a restore was answered with another command's reply",
                ));
            };
            self.new += restored.restored;
            self.unchanged += restored.unchanged;
            let before = number * MOST_IMAGES;
            let skipped = restored.skipped.into_iter();
            refused.extend(skipped.map(|(index, reason)| (before + index, reason)));
        }
        Ok(refused)
    }

    /// How many entities of each kind are not there yet; a document that takes the place of a default is not.
    pub(crate) fn new_by_kind(&self) -> BTreeMap<EntityKind, u64> {
        let mut counts = BTreeMap::new();
        for image in self.state.images() {
            *counts.entry(image.entity()).or_default() += 1;
        }
        for image in self.before.images() {
            counts.entry(image.entity()).and_modify(|count| *count -= 1);
        }
        let settings = self.before.settings().iter();
        let replaced = settings.filter(|before| {
            let after = self.state.settings().get(before.document.kind());
            after.is_some_and(|after| after != *before)
        });
        if let Some(count) = counts.get_mut(&EntityKind::Setting) {
            *count += replaced.count() as u64;
        }
        counts
    }

    /// How the credentials are hashed, before and after.
    pub(crate) fn hashes(&self) -> (CredentialHashes, CredentialHashes) {
        (CredentialHashes::of(&self.before), CredentialHashes::of(&self.state))
    }

    /// Whether another policy would be in force.
    pub(crate) fn policy_change(&self) -> Option<PolicyChange> {
        let version = |state: &State| state.policies().current().map(|policy| policy.version);
        let (from, to) = (version(&self.before), version(&self.state)?);
        (from != Some(to)).then_some(PolicyChange { from, to })
    }

    /// Whether everything that the state would hold came from the import.
    pub(crate) fn holds_only_what_was_admitted(&self) -> bool {
        self.state.images().count() as u64 == self.new + self.unchanged
    }

    /// The digest that the state would have.
    pub(crate) fn digest(&self) -> Digest {
        state_digest(&self.state)
    }
}

/// An import that decides who may reach whom from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PolicyChange {
    from: Option<PolicyVersion>,
    to: PolicyVersion,
}

impl PolicyChange {
    /// Nobody loses a policy without having said so.
    pub(crate) fn check_allowed(self, is_allowed: bool) -> Result<()> {
        match self.from {
            Some(from) if !is_allowed => Err(Error::new(
                ErrorKind::Restricted,
                "a policy of the file would come into force in place of the store's; nothing was \
                 written",
            )
            .with("in_force", from.get())
            .with("in_file", self.to.get())
            .with("help", "--policy lets it; `gwstore list policies` shows the store's")),
            _ => Ok(()),
        }
    }

    pub(crate) fn object(&self) -> serde_json::Value {
        serde_json::json!({ "from": self.from, "to": self.to })
    }
}

impl std::fmt::Display for PolicyChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "In force: policy {} of the file", self.to.get())?;
        match self.from {
            Some(from) => write!(f, ", in place of policy {}", from.get()),
            None => f.write_str("; the store had none"),
        }
    }
}

/// Writes entities and series in batches, in order: the next is carried out while one is stored. If
/// one cannot be stored, the next may have been all the same; an import that is run again skips it.
pub(crate) struct Batches<'a> {
    store: &'a dyn Store,
    under_way: FuturesOrdered<BoxFuture<'a, Result<u64>>>,
    progress: Progress,
    images: Vec<EntityRecord>,
    bytes: usize,
    scratch: BytesMut,
    metrics: Vec<MetricPoint>,
    audit: Vec<AuditEntry>,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(store: &'a dyn Store, progress: Progress) -> Self {
        Self {
            store,
            under_way: FuturesOrdered::new(),
            progress,
            images: Vec::new(),
            bytes: 0,
            scratch: BytesMut::new(),
            metrics: Vec::new(),
            audit: Vec::new(),
        }
    }

    pub(crate) async fn image(&mut self, image: EntityRecord) -> Result<()> {
        self.scratch.clear();
        image.encode_into(&mut self.scratch);
        self.bytes += self.scratch.len();
        self.images.push(image);
        if self.images.len() >= MOST_IMAGES || self.bytes >= MOST_BYTES {
            self.write_images().await?;
        }
        Ok(())
    }

    pub(crate) async fn metric(&mut self, point: MetricPoint) -> Result<()> {
        self.metrics.push(point);
        if self.metrics.len() >= MOST_SERIES { self.write_metrics().await } else { Ok(()) }
    }

    pub(crate) async fn audit(&mut self, entry: AuditEntry) -> Result<()> {
        self.audit.push(entry);
        if self.audit.len() >= MOST_SERIES { self.write_audit().await } else { Ok(()) }
    }

    /// Writes what waits for a batch to be full, and waits until everything is written.
    pub(crate) async fn finish(mut self) -> Result<()> {
        self.write_images().await?;
        self.write_metrics().await?;
        self.write_audit().await?;
        while let Some(written) = self.under_way.next().await {
            self.progress.advance(written?);
        }
        Ok(())
    }

    /// Begins to write a batch, and waits until few enough are under way.
    async fn begin(&mut self, write: impl Future<Output = Result<u64>> + Send + 'a) -> Result<()> {
        self.under_way.push_back(write.boxed());
        while self.under_way.len() > UNDER_WAY {
            if let Some(written) = self.under_way.next().await {
                self.progress.advance(written?);
            }
        }
        // A future does nothing until it is asked.
        while let Some(Some(written)) = self.under_way.next().now_or_never() {
            self.progress.advance(written?);
        }
        Ok(())
    }

    async fn write_images(&mut self) -> Result<()> {
        let images = std::mem::take(&mut self.images);
        self.bytes = 0;
        if images.is_empty() {
            return Ok(());
        }
        let (store, count) = (self.store, images.len() as u64);
        let restore = Restore { images, skip_invalid: false };
        self.begin(async move { store.restore(restore).await.map(|_| count) }).await
    }

    async fn write_metrics(&mut self) -> Result<()> {
        let metrics = std::mem::take(&mut self.metrics);
        if metrics.is_empty() {
            return Ok(());
        }
        let (store, count) = (self.store, metrics.len() as u64);
        self.begin(async move { store.metrics().record_many(metrics).await.map(|()| count) }).await
    }

    async fn write_audit(&mut self) -> Result<()> {
        let audit = std::mem::take(&mut self.audit);
        if audit.is_empty() {
            return Ok(());
        }
        let (store, count) = (self.store, audit.len() as u64);
        self.begin(async move { store.audit().append(audit).await.map(|()| count) }).await
    }
}

/// What is stored has to be what the rehearsal came to.
pub(crate) fn check_digest(expected: Digest, stored: Digest) -> Result<()> {
    if stored == expected {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Conflict,
        "the store holds something else than was imported; did somebody else write to it?",
    )
    .with("expected_digest", expected)
    .with("stored_digest", stored))
}
