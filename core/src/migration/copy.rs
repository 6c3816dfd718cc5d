//! Filling an empty database as a copy of one that is being written.
//!
//! The copy is at the position `p0` at which the source began to keep every commit for it:
//!
//! 1. it adopts the head before the oldest block that the source keeps, or before the last 4,096 and those
//!    that are not flushed, and takes the blocks up to `p0`, so that whoever watches and is a little behind need
//!    not begin anew on the copy;
//! 2. it copies rows, table by table, in the order of their keys. Each page is of its own moment, and none
//!    is older than `p0`. Then it writes the rows of the blocks that the source had not flushed at `p0`;
//! 3. it takes every commit after `p0`, in order: whatever a page had too new or too old is then as the
//!    last commit left it.
//!
//! Nothing but what is stored says how far it is: the position tells 1 from what follows, the last key of
//! the last table that has rows is where 2 goes on, and the checkpoint is moved to `p0` block by block at
//! the end of 2. Whatever is done twice comes to the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::apply;
use super::record::{Membership, Role};
use super::side::{Side, follower};
use super::step::Write;
use crate::backend::{Backend, Commit, Head, KeyRange, Scan};
use crate::block::{ChangeKind, RowChange, Serial};
use crate::domain::{BlockId, CommitId};
use crate::error::{Error, ErrorKind, Result};
use crate::log::consumers::Consumers;
use crate::log::feed::{self, Consumer};
use crate::position::Position;
use crate::schema::{RowKey, Table};

/// How a copy is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyOptions {
    /// Rows that are read and written at once.
    pub page: usize,
    /// Of a hundred parts of time so many are used: the rest is for those who write meanwhile.
    pub share: u32,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self { page: 512, share: 50 }
    }
}

/// How far a copy is, for those who wait for it.
#[derive(Debug, Default)]
pub struct CopyProgress {
    copied: AtomicU64,
    total: AtomicU64,
}

impl CopyProgress {
    /// Rows that the copy has.
    #[must_use]
    pub fn copied(&self) -> u64 {
        self.copied.load(Ordering::Relaxed)
    }

    /// Rows that there were to copy when it began, or went on; 0 as long as that is not known.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Another copy begins.
    pub(super) fn reset(&self) {
        self.total.store(0, Ordering::Relaxed);
        self.copied.store(0, Ordering::Relaxed);
    }

    fn add(&self, rows: usize) {
        self.copied.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Counts the rows of both, unless that was done.
    async fn begin(
        &self,
        source: &dyn Backend,
        target: &dyn Backend,
        pace: &mut Pace,
    ) -> Result<()> {
        if self.total() > 0 {
            return Ok(());
        }
        self.copied.store(count(target, pace).await?, Ordering::Relaxed);
        self.total.store(count(source, pace).await?, Ordering::Relaxed);
        Ok(())
    }
}

async fn count(backend: &dyn Backend, pace: &mut Pace) -> Result<u64> {
    const ROWS_PER_READ: usize = 2048;
    let mut rows = 0;
    for table in tables() {
        let mut from = RowKey::new();
        loop {
            let range = KeyRange { table, from, to: None };
            let page = backend.scan(Scan { range, reverse: false, limit: ROWS_PER_READ }).await?;
            rows += page.rows.len() as u64;
            match page.rows.last() {
                Some(last) if page.rows.len() == ROWS_PER_READ => {
                    from = last.key.clone().successor();
                }
                _ => break,
            }
            pace.rest().await;
        }
    }
    Ok(rows)
}

/// Tables that are copied, in this order. What is kept for consumers is each database's own.
fn tables() -> impl Iterator<Item = Table> {
    Table::ALL.into_iter().filter(|table| !matches!(table, Table::Feed | Table::Consumers))
}

/// What a copy needs to know of the moment at which it began.
struct Origin {
    position: Position,
    serial: Serial,
    /// The last block that it does not get.
    before: Serial,
    /// Up to here the source's rows are complete, and so will be the copy's.
    checkpoint: Serial,
    /// The last commit's id, if it can still be told; it is another one as soon as there is another commit.
    commit: CommitId,
}

impl Origin {
    async fn read(source: &dyn Backend, head: &Head) -> Result<Self> {
        let membership = head.membership.ok_or_else(|| {
            Error::new(ErrorKind::Restricted, "the source is not part of a migration")
        })?;
        let name = follower(&membership)?;
        let consumers = Consumers::read(source, head).await?;
        let Consumer { position, serial: before, resync, .. } = consumers.require(&name)?.clone();
        if resync {
            return Err(too_far_behind());
        }
        let (serial, commit) = match position == head.position {
            true => (head.serial, head.commit),
            false => {
                let next =
                    feed::row_at(source, position.next()).await?.ok_or_else(too_far_behind)?;
                let serial = next.serial.get() - u64::from(next.has_block);
                (Serial::new(serial), begin_id(&membership))
            }
        };
        let checkpoint = head.checkpoint.min(serial);
        Ok(Self { position, serial, before, checkpoint, commit })
    }
}

/// What a copy calls the commit at which it began, if that one's own id cannot be told any more.
pub(super) fn begin_id(membership: &Membership) -> CommitId {
    CommitId::from_bytes(*membership.migration.as_bytes())
}

fn too_far_behind() -> Error {
    Error::new(
        ErrorKind::Conflict,
        "the target fell too far behind, and the source keeps nothing for it any longer; it has to be \
         copied anew, which a higher `migration.max_kept_mib` avoids",
    )
}

/// So many blocks a copy gets at most, beside those that are not flushed: each is a commit, and a busy source
/// keeps many more.
const MOST_BLOCKS: u64 = 4096;

/// Has an empty target stand where the oldest block begins that it gets.
pub(super) async fn adopt(source: &Side, target: &dyn Backend, write: &Write) -> Result<()> {
    let backend = source.backend()?;
    let head = backend.head().await?;
    let origin = Origin::read(backend.as_ref(), &head).await?;
    // What is not flushed is nowhere but in blocks.
    let last = Serial::new(origin.serial.get().saturating_sub(MOST_BLOCKS));
    let before = origin.before.max(last.min(origin.checkpoint));
    let first = backend.blocks(before, 1).await?.pop();
    let blocks = origin.serial.get().saturating_sub(before.get());
    // One more: the commit at which it began is taken by its id alone. Where every commit had a block, and
    // all are kept, there is no place for that, and no need.
    let position = origin.position.get().saturating_sub(blocks + 1);
    let (hash, time) = match &first {
        Some(block) if blocks > 0 => (block.previous, block.time),
        _ => (head.hash, head.time),
    };
    let adopted = Head {
        position: Position::new(position),
        commit: CommitId::from_bytes([0; 16]),
        serial: before,
        block: if blocks > 0 { BlockId::from_bytes([0; 16]) } else { head.block },
        hash,
        time,
        epoch: write.after.epoch,
        role: Some(Role::Filling),
        membership: write.after.membership,
        ..head
    };
    target.adopt(&adopted).await
}

/// Copies what is left to copy of blocks and rows. From then on the target is at a position after which
/// the source keeps every commit.
pub(super) async fn copy(
    source: &Side,
    target: &dyn Backend,
    options: CopyOptions,
    progress: &CopyProgress,
) -> Result<()> {
    let backend = source.backend()?;
    let head = backend.head().await?;
    let origin = Origin::read(backend.as_ref(), &head).await?;
    let mut pace = Pace::new(options.share);
    take_blocks(backend.as_ref(), target, &origin, &mut pace).await?;
    if target.head().await?.position > origin.position {
        return Ok(());
    }
    progress.begin(backend.as_ref(), target, &mut pace).await?;
    copy_rows((backend.as_ref(), target), options.page, &mut pace, progress).await?;
    fold_blocks(target, &mut pace).await
}

async fn take_blocks(
    source: &dyn Backend,
    target: &dyn Backend,
    origin: &Origin,
    pace: &mut Pace,
) -> Result<()> {
    const BLOCKS_PER_READ: usize = 16;
    loop {
        let head = target.head().await?;
        if head.position >= origin.position {
            return Ok(());
        }
        if head.serial == origin.serial {
            let (entry, checkpoint) =
                (Some(origin.commit), Some(origin.checkpoint.max(head.checkpoint)));
            return target.commit(&Commit { entry, checkpoint, ..Commit::on(&head) }).await;
        }
        let mut head = head;
        for block in source.blocks(head.serial, BLOCKS_PER_READ).await? {
            if block.serial > origin.serial {
                break;
            }
            // Nothing comes after it but rows, if there is no place for the commit without a block.
            let is_last = head.position.next() == origin.position;
            let checkpoint = is_last.then_some(origin.checkpoint.max(head.checkpoint));
            let commit = Commit { block: Some(block), checkpoint, ..Commit::on(&head) };
            target.commit(&commit).await?;
            head = head.after(&commit)?;
            pace.rest().await;
        }
    }
}

async fn copy_rows(
    (source, target): (&dyn Backend, &dyn Backend),
    page: usize,
    pace: &mut Pace,
    progress: &CopyProgress,
) -> Result<()> {
    let (mut done, mut from) = (Vec::new(), RowKey::new());
    for table in tables() {
        let last = Scan { range: KeyRange::all(table), reverse: true, limit: 1 };
        if let Some(row) = target.scan(last).await?.rows.pop() {
            done = tables().take_while(|other| *other != table).collect();
            from = row.key.successor();
        }
    }
    for table in tables().filter(|table| !done.contains(table)) {
        loop {
            let range = KeyRange { table, from: std::mem::take(&mut from), to: None };
            let rows = source.scan(Scan { range, reverse: false, limit: page }).await?.rows;
            let Some(last) = rows.last() else { break };
            from = last.key.clone().successor();
            let put = |row: crate::backend::Row| RowChange {
                table,
                kind: ChangeKind::Created,
                key: row.key,
                body: Some(row.body),
            };
            let (is_last, count) = (rows.len() < page, rows.len());
            let rows = rows.into_iter().map(put).collect();
            target.commit(&Commit { rows, ..Commit::on(&target.head().await?) }).await?;
            progress.add(count);
            pace.rest().await;
            if is_last {
                from = RowKey::new();
                break;
            }
        }
    }
    Ok(())
}

/// Writes the rows of the blocks that the source had not flushed.
async fn fold_blocks(target: &dyn Backend, pace: &mut Pace) -> Result<()> {
    loop {
        let head = target.head().await?;
        let Some(block) = target.blocks(head.checkpoint, 1).await?.pop() else { return Ok(()) };
        target.commit(&apply::fold(&head, &block)?).await?;
        pace.rest().await;
    }
}

/// The same of a side that was written before, at once.
pub(super) async fn fold(target: &dyn Backend) -> Result<()> {
    fold_blocks(target, &mut Pace::new(100)).await
}

/// Leaves time to others.
struct Pace {
    share: u32,
    since: Instant,
}

impl Pace {
    fn new(share: u32) -> Self {
        Self { share: share.clamp(1, 100), since: Instant::now() }
    }

    async fn rest(&mut self) {
        // A timer is hardly finer than that, so what is owed adds up.
        const SHORTEST: Duration = Duration::from_millis(5);
        // A stalled disk is no reason to wait for long.
        const LONGEST: Duration = Duration::from_millis(250);
        let worked = self.since.elapsed();
        let rest = worked * (100 - self.share) / self.share;
        if rest < SHORTEST {
            return tokio::task::yield_now().await;
        }
        tokio::time::sleep(rest.min(LONGEST)).await;
        self.since = Instant::now();
    }
}
