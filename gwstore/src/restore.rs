//! Bringing entities in, as every import does it: all of them are tried on a copy of the state
//! first, so that nothing is written of an import that would be refused halfway.

use bytes::BytesMut;
use ghostwire_store::command::{Command, Image, Restore};
use ghostwire_store::digest::{Digest, state_digest};
use ghostwire_store::domain::{ActorName, AuditEntry, Clock, MetricPoint, SystemClock, Timestamp};
use ghostwire_store::state::{Context, Reply, State};
use ghostwire_store::{Error, ErrorKind, Result, Store};

use crate::progress::Progress;

/// Entities in one command.
const MOST_IMAGES: usize = 1000;
/// A few large documents fill a command, too: a block has a limit.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// Items of a series in one batch.
const MOST_SERIES: usize = 10_000;

/// A copy of the state on which an import is tried.
pub(crate) struct Rehearsal {
    state: State,
    actor: ActorName,
    now: Timestamp,
    /// Entities that are not there yet.
    pub(crate) new: u64,
    /// Entities that are there already, the same in every field.
    pub(crate) unchanged: u64,
}

impl Rehearsal {
    pub(crate) fn on(state: &State) -> Self {
        let now = SystemClock.now().max(state.time());
        Self { state: state.clone(), actor: ActorName::system(), now, new: 0, unchanged: 0 }
    }

    /// Tries these entities. Those that break a rule are left out and named: index, and reason.
    pub(crate) fn admit(&mut self, images: &[Image]) -> Result<Vec<(usize, String)>> {
        let mut refused = Vec::new();
        for (number, batch) in images.chunks(MOST_IMAGES).enumerate() {
            let restore = Restore { images: batch.to_vec(), skip_invalid: true };
            let context = Context { now: self.now, actor: &self.actor };
            let decision = self.state.decide(&Command::Restore(restore), &context)?;
            for change in decision.changes {
                self.state.evolve(change);
            }
            let Reply::Restored(restored) = decision.reply else {
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

    /// Whether everything that the state would hold came from the import.
    pub(crate) fn holds_only_what_was_admitted(&self) -> bool {
        self.state.images().count() as u64 == self.new + self.unchanged
    }

    /// The digest that the state would have.
    pub(crate) fn digest(&self) -> Digest {
        state_digest(&self.state)
    }
}

/// Writes entities and series in batches, each of them durable before the next.
pub(crate) struct Batches<'a> {
    store: &'a dyn Store,
    progress: Progress,
    images: Vec<Image>,
    bytes: usize,
    scratch: BytesMut,
    metrics: Vec<MetricPoint>,
    audit: Vec<AuditEntry>,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(store: &'a dyn Store, progress: Progress) -> Self {
        Self {
            store,
            progress,
            images: Vec::new(),
            bytes: 0,
            scratch: BytesMut::new(),
            metrics: Vec::new(),
            audit: Vec::new(),
        }
    }

    pub(crate) async fn image(&mut self, image: Image) -> Result<()> {
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

    /// Writes what waits for a batch to be full.
    pub(crate) async fn finish(mut self) -> Result<()> {
        self.write_images().await?;
        self.write_metrics().await?;
        self.write_audit().await
    }

    async fn write_images(&mut self) -> Result<()> {
        let images = std::mem::take(&mut self.images);
        self.bytes = 0;
        let count = images.len() as u64;
        if count > 0 {
            self.store.restore(Restore { images, skip_invalid: false }).await?;
            self.progress.advance(count);
        }
        Ok(())
    }

    async fn write_metrics(&mut self) -> Result<()> {
        let metrics = std::mem::take(&mut self.metrics);
        let count = metrics.len() as u64;
        if count > 0 {
            self.store.metrics().record_many(metrics).await?;
            self.progress.advance(count);
        }
        Ok(())
    }

    async fn write_audit(&mut self) -> Result<()> {
        let audit = std::mem::take(&mut self.audit);
        let count = audit.len() as u64;
        if count > 0 {
            self.store.audit().append(audit).await?;
            self.progress.advance(count);
        }
        Ok(())
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
