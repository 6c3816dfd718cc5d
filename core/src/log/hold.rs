//! Keeping blocks from being purged for somebody who reads them.

use std::sync::Arc;

use super::block::{ChangeKind, RowChange, Serial};
use super::consumers::{self, Consumers};
use super::feed::Consumer;
use crate::backend::{Backend, Commit, Head};
use crate::domain::{CommitId, ConsumerName};
use crate::entropy::{Entropy, draw};
use crate::error::{Error, ErrorKind, Result};
use crate::position::Epoch;

/// Whether somebody in this process reads blocks that are to stay.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holds(Arc<()>);

/// Blocks stay while this lives.
#[derive(Debug)]
pub(crate) struct Hold {
    _held: Arc<()>,
}

impl Holds {
    /// From the next commit on that is prepared, no block is purged.
    pub(crate) fn hold(&self) -> Hold {
        Hold { _held: self.0.clone() }
    }

    pub(crate) fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// What the names of stored holds begin with.
const PREFIX: &str = "holding-";

/// A consumer that others who write to the same database see, and keep blocks for. One that is left behind by a
/// process that was killed keeps at most [`MAX_BYTES`], and goes when another one registers after that.
#[derive(Debug)]
pub(crate) struct StoredHold(ConsumerName);

const MAX_BYTES: u64 = 1 << 30;

/// Whether a consumer is a hold that keeps nothing any longer.
pub(super) fn is_left_behind(consumer: &Consumer) -> bool {
    consumer.resync && consumer.name.as_str().starts_with(PREFIX)
}

impl StoredHold {
    /// # Errors
    /// `Fenced` if this is not the epoch; `Exhausted` for too many consumers; those of any commit.
    pub(crate) async fn register(
        backend: &dyn Backend,
        entropy: &dyn Entropy,
        epoch: Epoch,
    ) -> Result<Self> {
        let random: [u8; 8] = draw(entropy)?;
        let name = format!("{PREFIX}{}", data_encoding::HEXLOWER.encode(&random));
        let name = ConsumerName::new(name)?;
        commit_entry(backend, entropy, Some(epoch), &[], |head, consumers, commit| {
            let (_, consumer, left) = consumers.with(Consumer {
                name: name.clone(),
                position: head.position.next(),
                // The blocks since the checkpoint are needed, too.
                serial: head.checkpoint.min(Serial::new(head.oldest_block.get().saturating_sub(1))),
                total: 0,
                max_bytes: MAX_BYTES,
                resync: false,
                registered_at: head.time,
            })?;
            commit.rows.extend(left);
            commit.rows.push(RowChange::put(ChangeKind::Created, &consumer));
            Ok(())
        })
        .await?;
        Ok(Self(name))
    }

    /// Gives the head after that.
    ///
    /// # Errors
    /// Those of any commit.
    pub(crate) async fn release(
        self,
        backend: &dyn Backend,
        entropy: &dyn Entropy,
    ) -> Result<Head> {
        commit_entry(backend, entropy, None, &[], |_, consumers, commit| {
            consumers.without(&self.0)?.remove_taken(commit);
            commit.rows.push(consumers::removal(&self.0));
            Ok(())
        })
        .await
    }
}

/// Commits rows of series and a change of the consumers or the head, again while others commit first. Gives
/// the head after it. Without an epoch, whatever the epoch is: to take back what was written in one that
/// has passed.
pub(crate) async fn commit_entry(
    backend: &dyn Backend,
    entropy: &dyn Entropy,
    epoch: Option<Epoch>,
    series: &[RowChange],
    change: impl Fn(&Head, &Consumers, &mut Commit) -> Result<()>,
) -> Result<Head> {
    const ATTEMPTS: usize = 32;
    for _ in 0..ATTEMPTS {
        let revision = backend.revision().await?;
        let head = backend.head().await?;
        head.require_epoch(epoch.unwrap_or(head.epoch))?;
        let consumers = Consumers::read(backend, &head).await?;
        let entry = Some(CommitId::time_ordered(head.time, draw(entropy)?));
        let mut commit = Commit { entry, revision, ..Commit::on(&head) };
        consumers.enter(&mut commit, series, head.serial);
        commit.rows.extend(series.iter().cloned());
        change(&head, &consumers, &mut commit)?;
        match backend.commit(&commit).await {
            Ok(()) => return head.after(&commit),
            Err(error) if *error.kind() == ErrorKind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(ErrorKind::Busy, "other processes kept writing first; try again"))
}
