//! A backend with a fault, on top of one that has none.

use std::collections::HashSet;
use std::sync::atomic::AtomicU64;

use ghostwire_store_core::backend::BackendInfo;
use ghostwire_store_memory::MemoryBackend;

use super::{Fault, Persistent, Step, bodies, locked};
use crate::prelude::*;

/// Does what the backend below it does, but for one [`Fault`].
#[derive(Debug)]
pub struct BrokenBackend {
    inner: Arc<dyn Backend>,
    fault: Fault,
    persistent: Arc<Persistent>,
    opening: Opening,
    /// Where it stood when it was opened.
    first: Head,
    /// Where it stood after the last commit of this handle.
    known: Mutex<Head>,
    /// Which opening of the store this is.
    opening_number: u8,
    commits: AtomicU64,
    closed: AtomicBool,
    /// Held by a commit.
    lock: tokio::sync::Mutex<()>,
    before: Mutex<Before>,
}

/// What faults need to know of earlier commits.
#[derive(Debug)]
struct Before {
    rows: Vec<RowChange>,
    /// The store without its last commit, and that one.
    behind: MemoryBackend,
    pending: Option<Commit>,
    checkpoint: Option<Serial>,
    purged: Serial,
    keys: BTreeMap<(Table, Vec<u8>), RowKey>,
}

impl BrokenBackend {
    pub(super) async fn open(
        inner: Arc<dyn Backend>,
        fault: Fault,
        persistent: Arc<Persistent>,
        opening: Opening,
    ) -> Result<Self> {
        let first = inner.head().await?;
        let opening_number = persistent.openings.fetch_add(1, Ordering::Relaxed);
        let behind = MemoryBackend::at_schema(opening.store, opening.schema);
        if fault == Fault::ScansACommitBehind {
            let log = locked(&persistent.log).clone();
            for step in log {
                match step {
                    Step::Commit(commit) => behind.commit(&commit).await?,
                    Step::Adopt(head) => behind.adopt(&head).await?,
                    Step::Migrate(target) => behind.migrate(target).await?,
                }
            }
        }
        let known = match (fault, *locked(&persistent.at_close)) {
            (Fault::RemembersTheHeadOfTheLastClose, Some(head)) => head,
            (Fault::RemembersTheHeadOfTheLastClose, None) => Head {
                serial: Serial::ZERO,
                checkpoint: Serial::ZERO,
                oldest_block: Serial::new(1),
                ..first
            },
            _ => first,
        };
        Ok(Self {
            inner,
            fault,
            persistent,
            opening,
            first,
            opening_number,
            known: Mutex::new(known),
            commits: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            lock: tokio::sync::Mutex::default(),
            before: Mutex::new(Before {
                rows: Vec::new(),
                behind,
                pending: None,
                checkpoint: None,
                purged: Serial::ZERO,
                keys: BTreeMap::new(),
            }),
        })
    }

    fn check_open(&self) -> Result<()> {
        if self.fault == Fault::CallsClosedUnexpected && self.closed.load(Ordering::Acquire) {
            return Err(Error::new(Unexpected, "it is closed"));
        }
        Ok(())
    }

    fn altered_head(&self, mut head: Head) -> Head {
        let before = locked(&self.before);
        match self.fault {
            Fault::TakesTheIdentityOfTheOpener => head.store = self.opening.store,
            Fault::CutsBlockTimes => {
                head.time = Timestamp::from_millis(head.time.as_millis()).unwrap_or(head.time);
            }
            Fault::ForgetsTheCheckpoint => head.checkpoint = Serial::ZERO,
            Fault::MovesTheCheckpointBack => {
                head.checkpoint = before.checkpoint.unwrap_or(head.checkpoint);
            }
            Fault::PurgesBeyondTheCheckpoint => {
                head.oldest_block = head.oldest_block.max(before.purged);
            }
            Fault::RemembersTheHeadOfTheLastClose => head = *locked(&self.known),
            Fault::CountsBlocksOnly => head.position = Position::new(head.serial.get()),
            Fault::CountsEveryCommit | Fault::CountsItsUpkeep => {
                let more = self.persistent.miscounted.load(Ordering::Relaxed);
                head.position = Position::new(head.position.get() + more);
            }
            Fault::TakesTheSideOver | Fault::KeepsItsOwnHistory => {
                let log = locked(&self.persistent.log);
                match (self.fault, log.first()) {
                    (Fault::TakesTheSideOver, Some(Step::Adopt(other))) => head.side = other.side,
                    (_, Some(Step::Adopt(_))) => {
                        head.lineage = LineageId::from_bytes(*self.opening.store.as_bytes());
                    }
                    _ => {}
                }
            }
            Fault::ForgetsThatItIsFilling => head.filling = false,
            Fault::ForgetsItsRecord if self.first.role.is_some() => {
                (head.role, head.membership) = (None, None);
            }
            Fault::ForgetsItsPeer => head.membership = None,
            Fault::DrawsASideAtEachOpening => {
                head.side = SideId::from_bytes([self.opening_number; 16]);
            }
            Fault::IsAnotherOnceMigrated => {
                let log = locked(&self.persistent.log);
                if log.iter().any(|step| matches!(step, Step::Migrate(_))) {
                    head.store = StoreId::from_bytes([0xee; 16]);
                }
            }
            Fault::TellsBlocksOnly => head.commit = CommitId::from_bytes(*head.block.as_bytes()),
            _ => {}
        }
        head
    }

    /// What is stored instead of `commit`.
    async fn altered(&self, commit: &Commit) -> Result<Commit> {
        let mut altered = commit.clone();
        for row in &mut altered.rows {
            if let Some(body) = &mut row.body {
                *body = bodies::stored(self.fault, row.table, body);
            }
        }
        match self.fault {
            Fault::IgnoresTheExpectedPosition => {
                altered.expected = self.inner.head().await?.position;
            }
            Fault::CountsBlocksOnly => {
                let head = self.inner.head().await?;
                if commit.expected.get() == head.serial.get() {
                    altered.expected = head.position;
                }
            }
            Fault::CountsEveryCommit | Fault::CountsItsUpkeep => {
                let more = self.persistent.miscounted.load(Ordering::Relaxed);
                altered.expected = Position::new(commit.expected.get().saturating_sub(more));
            }
            Fault::IgnoresTheEpoch => altered.epoch = self.inner.head().await?.epoch,
            Fault::LetsTheEpochMoveBack => {
                let stored = self.inner.head().await?.epoch;
                altered.head.epoch = commit.head.epoch.filter(|epoch| *epoch > stored);
            }
            Fault::ReplacesAnyRecord => {
                let stored = self.inner.head().await?.record();
                if let Some(change) = &mut altered.head.record {
                    change.before = stored;
                }
            }
            Fault::IsFilledForEver => altered.head.filled = false,
            Fault::FeedsBlocksOnly if commit.block.is_none() => {
                altered.rows.retain(|row| row.table != Table::Feed);
            }
            Fault::FeedsForNobody => altered.prune.retain(|range| range.table != Table::Feed),
            Fault::PurgesWhatIsNeeded => altered.purge_before = Some(Serial::new(u64::MAX)),
            Fault::StoresRowsWithoutTheBlock => {
                altered.block = None;
                altered.checkpoint = None;
            }
            Fault::StoresTheBlockWithoutRows if commit.block.is_some() => altered.rows.clear(),
            Fault::ForgetsTheCheckpointOfABlock if commit.block.is_some() => {
                altered.checkpoint = None;
            }
            Fault::KeepsTheOlderImage => {
                let mut seen = HashSet::new();
                altered.rows.retain(|row| seen.insert((row.table, row.key.clone())));
            }
            Fault::FlushesTwice => altered.rows.extend(locked(&self.before).rows.clone()),
            Fault::IgnoresDeletes => altered.rows.retain(|row| row.body.is_some()),
            Fault::RefusesToDeleteNothing => self.require_what_is_deleted(commit).await?,
            Fault::MergesNeighbours => {
                let mut before = locked(&self.before);
                for row in &mut altered.rows {
                    let mut beginning = row.key.as_bytes().to_vec();
                    beginning.pop();
                    let known = before.keys.entry((row.table, beginning));
                    row.key = known.or_insert_with(|| row.key.clone()).clone();
                }
            }
            Fault::CutsLongKeys => {
                for row in &mut altered.rows {
                    let length = row.key.as_bytes().len().min(255);
                    row.key = RowKey::from_bytes(&row.key.as_bytes()[..length])?;
                }
            }
            Fault::MovesTheCheckpointBack => {
                let head = self.inner.head().await?;
                if commit.checkpoint.is_some_and(|checkpoint| checkpoint < head.checkpoint) {
                    altered.checkpoint = None;
                }
            }
            Fault::CutsCheckpoints => {
                let serial = self.inner.head().await?.serial;
                let last = commit.block.as_ref().map_or(serial, |block| block.serial);
                altered.checkpoint = commit.checkpoint.map(|checkpoint| checkpoint.min(last));
            }
            Fault::ForgetsAPurge => altered.purge_before = None,
            Fault::PrunesNothing => altered.prune.clear(),
            Fault::PrunesOneTooMany => {
                for range in &mut altered.prune {
                    range.to = range.to.take().map(RowKey::successor);
                }
            }
            Fault::PrunesOneTooFew => {
                for range in &mut altered.prune {
                    range.from = range.from.clone().successor();
                }
            }
            Fault::PrunesAfterWriting => {
                altered.rows.retain(|row| !commit.prune.iter().any(|range| covers(range, row)));
            }
            _ => {}
        }
        Ok(altered)
    }

    async fn require_what_is_deleted(&self, commit: &Commit) -> Result<()> {
        for row in commit.rows.iter().filter(|row| row.body.is_none()) {
            let to = Some(row.key.clone().successor());
            let range = KeyRange { table: row.table, from: row.key.clone(), to };
            let found = self.inner.scan(Scan { range, reverse: false, limit: 1 }).await?;
            if found.rows.is_empty() {
                return Err(Error::not_found(EntityKind::Node, "a row"));
            }
        }
        Ok(())
    }

    /// Stores what the fault leaves of a commit.
    async fn store(&self, commit: &Commit) -> Result<()> {
        let number = self.commits.fetch_add(1, Ordering::Relaxed) + 1;
        if self.fault == Fault::DropsACommit && number == 3 {
            return Ok(());
        }
        let altered = self.altered(commit).await?;
        let in_steps =
            matches!(self.fault, Fault::StoresInTwoSteps | Fault::KeepsHalfOfWhatIsGivenUp);
        if in_steps && altered.rows.len() > 1 {
            let Commit { expected, epoch, .. } = altered;
            let mut first = Commit { expected, epoch, ..Commit::default() };
            let mut second = altered;
            first.rows = second.rows.drain(..second.rows.len() / 2).collect();
            self.inner.commit(&first).await?;
            for _ in 0..50 {
                // Others come to read.
                tokio::task::yield_now().await;
            }
            return self.inner.commit(&second).await;
        }
        self.inner.commit(&altered).await?;
        if altered.id().is_none() {
            self.persistent.miscounted.fetch_add(1, Ordering::Relaxed);
        }
        if self.fault == Fault::FailsAfterStoring && number == 3 {
            return Err(Error::new(Unavailable, "the answer got lost"));
        }
        Ok(())
    }

    /// Remembers a commit that was stored.
    async fn remember(&self, commit: &Commit) -> Result<()> {
        locked(&self.persistent.log).push(Step::Commit(commit.clone()));
        let head = self.inner.head().await?;
        *locked(&self.known) = head;
        let overdue = {
            let mut before = locked(&self.before);
            before.rows.clone_from(&commit.rows);
            before.checkpoint = commit.checkpoint.or(before.checkpoint);
            if let Some(purge) = commit.purge_before {
                before.purged = before.purged.max(purge.min(head.serial.next()));
            }
            let overdue = before.pending.replace(commit.clone());
            overdue.map(|overdue| (before.behind.clone(), overdue))
        };
        match overdue {
            Some((behind, overdue)) if self.fault == Fault::ScansACommitBehind => {
                behind.commit(&overdue).await
            }
            _ => Ok(()),
        }
    }

    fn altered_scan(&self, mut scan: Scan) -> Scan {
        let Scan { range, reverse, limit } = &mut scan;
        match self.fault {
            Fault::IgnoresTheEnd => range.to = None,
            Fault::IncludesTheEnd => range.to = range.to.take().map(RowKey::successor),
            Fault::ExcludesTheBeginning => range.from = range.from.clone().successor(),
            Fault::TakesInvertedRangesForOpenOnes => {
                range.to = range.to.take().filter(|to| *to > range.from);
            }
            Fault::IgnoresReverse => *reverse = false,
            Fault::GivesARowTooMany => *limit = limit.saturating_add(1),
            Fault::GivesARowTooFew => *limit = limit.saturating_sub(1),
            _ => {}
        }
        scan
    }
}

fn covers(range: &KeyRange, row: &RowChange) -> bool {
    range.table == row.table
        && range.from <= row.key
        && range.to.as_ref().is_none_or(|to| row.key < *to)
}

#[async_trait]
impl Backend for BrokenBackend {
    fn info(&self) -> BackendInfo {
        self.inner.info()
    }

    async fn head(&self) -> Result<Head> {
        self.check_open()?;
        Ok(self.altered_head(self.inner.head().await?))
    }

    async fn revision(&self) -> Result<Option<u64>> {
        self.check_open()?;
        self.inner.revision().await
    }

    fn lagging_answers(&self) -> u64 {
        self.inner.lagging_answers()
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.check_open()?;
        let stored = self.inner.head().await?.schema;
        let has_steps = !target.steps_from(stored)?.is_empty();
        match self.fault {
            Fault::MigratesInWordsOnly => return Ok(()),
            Fault::RefusesASecondMigration if !has_steps => {
                return Err(Error::new(Unexpected, "there is nothing to migrate"));
            }
            Fault::LosesRowsInMigrations if has_steps => {
                let prune = vec![KeyRange::all(Table::DnsRecords)];
                let head = self.inner.head().await?;
                self.inner.commit(&Commit { prune, ..Commit::on(&head) }).await?;
            }
            _ => {}
        }
        self.inner.migrate(target).await?;
        locked(&self.persistent.log).push(Step::Migrate(target));
        *locked(&self.known) = self.inner.head().await?;
        Ok(())
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        self.check_open()?;
        if self.fault == Fault::LocksReadersOut {
            drop(self.lock.lock().await);
        }
        let altered = self.altered_scan(scan.clone());
        let mut page = match self.fault {
            Fault::ScansACommitBehind => {
                self.inner.head().await?;
                let behind = locked(&self.before).behind.clone();
                behind.scan(altered).await?
            }
            Fault::SortsLikeADictionary => {
                let all = Scan { reverse: false, limit: usize::MAX, ..altered };
                let mut page = self.inner.scan(all).await?;
                page.rows.sort_by_key(|row| row.key.as_bytes().to_ascii_lowercase());
                if scan.reverse {
                    page.rows.reverse();
                }
                page.rows.truncate(scan.limit);
                page
            }
            Fault::TellsAnotherMoment => {
                let ScanPage { rows, .. } = self.inner.scan(altered).await?;
                for _ in 0..50 {
                    tokio::task::yield_now().await;
                }
                let Head { position, serial, .. } = self.inner.head().await?;
                ScanPage { rows, position, serial }
            }
            Fault::SaysThatPagesAreOld => {
                let Head { position, serial, .. } = self.first;
                ScanPage { position, serial, ..self.inner.scan(altered).await? }
            }
            _ => self.inner.scan(altered).await?,
        };
        for row in &mut page.rows {
            row.body = bodies::read(self.fault, std::mem::take(&mut row.body));
        }
        Ok(page)
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.check_open()?;
        let (mut after, mut limit) = (after, limit);
        match self.fault {
            Fault::GivesABlockTooMany => limit = limit.saturating_add(1),
            Fault::GivesTheBlockBefore => after = Serial::new(after.get().saturating_sub(1)),
            Fault::PurgesBeyondTheCheckpoint => {
                let oldest = locked(&self.before).purged;
                if after.next() < oldest && after < self.inner.head().await?.serial {
                    let kind = Compacted { oldest: oldest.get() };
                    return Err(Error::new(kind, "gone"));
                }
            }
            _ => {}
        }
        let mut blocks = match self.inner.blocks(after, limit).await {
            Ok(blocks) => blocks,
            Err(error) => match (self.fault, error.kind()) {
                (Fault::NeverCompacted, Compacted { oldest }) => {
                    let before = Serial::new(oldest.saturating_sub(1));
                    self.inner.blocks(before, limit).await?
                }
                (Fault::PurgesInSilence, Compacted { .. }) => Vec::new(),
                (Fault::NamesAnotherOldest, Compacted { .. }) => {
                    let oldest = after.next().get();
                    return Err(Error::new(Compacted { oldest }, "gone"));
                }
                _ => return Err(error),
            },
        };
        match self.fault {
            Fault::ReadsABlockBehind => {
                let serial = self.inner.head().await?.serial;
                blocks.retain(|block| block.serial < serial);
            }
            Fault::SwapsTwoBlocks if blocks.len() > 1 => blocks.swap(0, 1),
            Fault::LosesABlock if blocks.len() > 2 => drop(blocks.remove(1)),
            Fault::AltersBlocks => {
                for block in &mut blocks {
                    block.bytes = bodies::flipped(&block.bytes);
                }
            }
            Fault::CutsLongBlocks => {
                for block in &mut blocks {
                    block.bytes = bodies::cut(&block.bytes);
                }
            }
            _ => {}
        }
        Ok(blocks)
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.check_open()?;
        let _held = self.lock.lock().await;
        self.persistent.disk.about_to_change();
        let error = match self.store(commit).await {
            Ok(()) => return self.remember(commit).await,
            Err(error) => error,
        };
        match (self.fault, error.kind()) {
            (Fault::FailsAfterStoring, Unavailable) => {
                // There is nothing to remember once it is closed.
                let _ = self.remember(commit).await;
                Err(error)
            }
            (Fault::StoresWhatItRefuses, Conflict) | (Fault::StoresWhatItFences, Fenced { .. }) => {
                let (head, rows) = (self.inner.head().await?, commit.rows.clone());
                self.inner.commit(&Commit { rows, ..Commit::on(&head) }).await?;
                Err(error)
            }
            (Fault::CallsConflictsUnexpected, Conflict) => {
                Err(Error::new(Unexpected, "the position is another one"))
            }
            (Fault::CallsFencedConflict, Fenced { .. }) => {
                Err(Error::new(Conflict, "somebody else has taken over"))
            }
            (Fault::TellsSeveralWinners, Conflict) => Ok(()),
            (Fault::CallsStrangeBlocksConflicts, InvalidArgument) if commit.block.is_some() => {
                Err(Error::new(Conflict, "the block does not follow"))
            }
            _ => Err(error),
        }
    }

    async fn maintain(&self, budget: Budget) -> Result<bool> {
        match self.fault {
            Fault::LosesARowInItsUpkeep => {
                let all = KeyRange::all(Table::Users);
                let first = self.inner.scan(Scan { range: all, reverse: false, limit: 1 }).await?;
                let rows = first.rows.into_iter().map(|row| RowChange {
                    table: Table::Users,
                    kind: ChangeKind::Deleted,
                    key: row.key,
                    body: None,
                });
                let rows = rows.collect();
                self.inner
                    .commit(&Commit { rows, ..Commit::on(&self.inner.head().await?) })
                    .await?;
            }
            Fault::CountsItsUpkeep => {
                self.persistent.miscounted.fetch_add(1, Ordering::Relaxed);
            }
            Fault::KeepsUpForEver => return Ok(true),
            _ => {}
        }
        self.inner.maintain(budget).await
    }

    async fn confirm(&self) -> Result<()> {
        self.inner.confirm().await
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        self.check_open()?;
        match self.fault {
            Fault::ProbesInWordsOnly => Ok(()),
            _ => self.inner.probe(epoch).await,
        }
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        self.check_open()?;
        match self.inner.adopt(head).await {
            Err(error) if *error.kind() == Restricted => match self.fault {
                Fault::AdoptsOverContent => Ok(()),
                _ => Err(error),
            },
            adopted => {
                adopted?;
                locked(&self.persistent.log).push(Step::Adopt(*head));
                *locked(&self.known) = self.inner.head().await?;
                Ok(())
            }
        }
    }

    async fn reopen(&self) -> Result<Head> {
        self.check_open()?;
        let head = self.inner.reopen().await?;
        if self.fault == Fault::ReopensFromMemory {
            return Ok(self.first);
        }
        Ok(self.altered_head(head))
    }

    async fn verify(&self) -> Result<()> {
        self.check_open()?;
        let oldest = self.inner.head().await?.oldest_block;
        if self.fault == Fault::ComplainsAfterAPurge && oldest > Serial::new(1) {
            return Err(Error::corrupt("the first block is missing"));
        }
        self.inner.verify().await
    }

    fn announce_close(&self) {
        self.inner.announce_close();
    }

    async fn close(&self) -> Result<()> {
        if self.fault == Fault::IgnoresClose {
            return Ok(());
        }
        if let Ok(head) = self.inner.head().await {
            *locked(&self.persistent.at_close) = Some(head);
        }
        self.closed.store(true, Ordering::Release);
        self.inner.close().await
    }
}
