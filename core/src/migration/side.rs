//! One of the two databases, as it is written: through the store that has it open, or by itself.

use std::sync::Arc;

use super::record::{Membership, Role};
use super::step::Write;
use crate::backend::{Backend, Commit, Head, HeadChange, RecordChange};
use crate::domain::ConsumerName;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::{Core, StoreHandle};
use crate::log::consumers::Consumers;
use crate::log::feed::{self, LogEntry};
use crate::position::Position;
use crate::store::{Store, WeakStore};
use crate::writer::{ConsumerChange, Following, Request};

/// A database that a migration writes to.
#[derive(Debug, Clone)]
pub struct Side(Held);

#[derive(Debug, Clone)]
enum Held {
    /// An open store, which does not stay open for this.
    Open(WeakStore),
    Closed(Arc<dyn Backend>),
}

impl Side {
    /// The database of an open store: what is written to it goes through its writer.
    #[must_use]
    pub fn open(store: &dyn Store) -> Self {
        Self(Held::Open(store.downgrade()))
    }

    /// One that nobody has open.
    #[must_use]
    pub fn closed(backend: Arc<dyn Backend>) -> Self {
        Self(Held::Closed(backend))
    }

    fn store(&self) -> Result<Option<StoreHandle>> {
        match &self.0 {
            Held::Open(store) => {
                store.core().map(|core| Some(StoreHandle::of(core))).ok_or_else(|| {
                    Error::new(
                        ErrorKind::Unavailable,
                        "the store that is being migrated was closed",
                    )
                })
            }
            Held::Closed(_) => Ok(None),
        }
    }

    pub(super) fn backend(&self) -> Result<Arc<dyn Backend>> {
        match &self.0 {
            Held::Open(store) => {
                let core: Option<Arc<Core>> = store.core();
                core.map(|core| core.backend.clone()).ok_or_else(|| {
                    Error::new(
                        ErrorKind::Unavailable,
                        "the store that is being migrated was closed",
                    )
                })
            }
            Held::Closed(backend) => Ok(backend.clone()),
        }
    }

    pub(super) async fn head(&self) -> Result<Head> {
        self.backend()?.head().await
    }

    /// Writes a record. `Conflict` if it is another one by now, or the database stands elsewhere.
    pub(super) async fn write(&self, write: &Write, max_kept_bytes: u64) -> Result<()> {
        let change = RecordChange { before: write.before.record, after: write.after };
        let following = following(write, max_kept_bytes)?;
        if let Some(store) = self.store()? {
            return store
                .send(0, |answer| Request::Record(change, following, answer))
                .await
                .map(drop);
        }
        let backend = self.backend()?;
        let head = backend.head().await?;
        let consumers = Consumers::read(backend.as_ref(), &head).await?;
        let (rows, consumers) = consumers.following(&head, head.position, &following)?;
        let mut commit = Commit {
            expected: write.before.place.position,
            epoch: write.before.record.epoch,
            rows,
            head: HeadChange { record: Some(change), ..HeadChange::default() },
            // What was copied is complete with this.
            checkpoint: (write.before.record.role == Role::Filling).then_some(head.serial),
            ..Commit::default()
        };
        consumers.remove_taken(&mut commit);
        backend.commit(&commit).await?;
        backend.confirm().await
    }

    /// Acknowledged commits after a position, at most so many and of about so many bytes.
    pub(super) async fn entries(
        &self,
        after: Position,
        limits: (usize, u64),
    ) -> Result<Vec<LogEntry>> {
        let last = self.position().await?;
        feed::read_bytes(self.backend()?.as_ref(), after, last, limits).await
    }

    /// That of the last acknowledged commit.
    pub(super) async fn position(&self) -> Result<Position> {
        match self.store()? {
            Some(store) => Ok(store.view().position()),
            None => Ok(self.head().await?.position),
        }
    }

    /// Says that the other side has taken everything up to a position.
    pub(super) async fn let_go(&self, name: &ConsumerName, position: Position) -> Result<()> {
        let Some(store) = self.store()? else { return Ok(()) };
        let change = ConsumerChange::Advance(name.clone(), position);
        store.send(0, |answer| Request::Consumers(change, answer)).await.map(drop)
    }
}

/// The name under which the other side follows.
pub(super) fn follower(membership: &Membership) -> Result<ConsumerName> {
    ConsumerName::new(format!("migration-{}", membership.migration))
}

/// Whether the other side follows this one once a record is written: it does while this one is written
/// and not alone, and is let go of when that ends.
fn following(write: &Write, max_kept_bytes: u64) -> Result<Following> {
    let follows = |role| matches!(role, Role::ActiveAsync | Role::ActiveSync);
    let (before, after) = (&write.before.record, &write.after);
    Ok(match (after.membership.or(before.membership), after.role) {
        (Some(membership), role) if follows(role) => {
            Following::Begins(follower(&membership)?, max_kept_bytes)
        }
        // The fence is not the end of it: what was written before is still to be sent.
        (Some(_), Role::Fenced) | (None, _) => Following::Unchanged,
        (Some(membership), _) => Following::Ends(follower(&membership)?),
    })
}
