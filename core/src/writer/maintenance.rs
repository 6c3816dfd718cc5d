//! Requests that are no commands. They are served while no batch is open and nothing is in flight.

use std::sync::Arc;
use std::time::Instant;

use super::in_flight::uninterrupted;
use super::outcome::unconfirmed;
use super::{ATTEMPTS, ConsumerChange, Following, Request, Writer, outrun, read_only};
use crate::backend::{Commit, Head, HeadChange, KeyRange, RecordChange};
use crate::block::{ChangeKind, RowChange, Serial};
use crate::domain::{CommitId, ConsumerName};
use crate::entropy::draw;
use crate::error::{Error, ErrorKind, Result};
use crate::log::consumers::{self, Consumers};
use crate::log::feed::{self, Consumer};
use crate::position::Position;
use crate::schema::Table;

/// A commit that changes the consumers, and what there is once it is stored.
struct Planned {
    commit: Commit,
    consumers: Consumers,
    consumer: Option<Consumer>,
}

impl Writer {
    pub(super) async fn maintain(&mut self, request: Request) {
        match request {
            // What is between two databases may have another epoch by now, which is no other process's.
            Request::Refresh(answer) => answer.send(match &self.moving {
                Some(error) if self.is_shared => Err(error.clone()),
                _ => self.refresh().await,
            }),
            Request::Wake(answer) => {
                self.wake_upkeep();
                answer.send(Ok(()));
            }
            Request::Probe(answer) => answer.send(self.probe().await),
            Request::Replace(ranges, rows, answer) => answer.send(self.replace(ranges, rows).await),
            Request::Checkpoint(answer) => answer.send(self.checkpoint().await),
            Request::Consumers(change, answer) => {
                answer.send(self.change_consumers(change).await);
            }
            Request::Record(change, following, answer) => {
                answer.send(self.change_record(&change, &following).await);
            }
            Request::Move(moving, answer) => answer.send(self.move_network(moving).await),
            Request::Submit(..) | Request::Append(..) | Request::Follow(..) => {}
        }
    }

    async fn checkpoint(&mut self) -> Result<Serial> {
        match &self.fenced {
            Some(error) => Err(error.clone()),
            None => self.flush_all().await,
        }
    }

    /// Proves that a commit would be stored now. An error is dealt with as one of a commit, but that there is
    /// nothing whose outcome could be open.
    async fn probe(&mut self) -> Result<()> {
        self.require_writable().await?;
        let (backend, epoch) = (self.backend.clone(), self.epoch);
        let Err(error) = uninterrupted(async { backend.probe(epoch).await }).await else {
            return Ok(());
        };
        if matches!(error.kind(), ErrorKind::Fenced { .. }) {
            return Err(self.fence(error));
        }
        self.shared.vital.note("probe", &error);
        self.poison(true);
        self.recovers();
        tracing::warn!(%error, "a probe failed; reopening the backend to compare");
        match self.reopen().await {
            Ok(()) => Err(error),
            // What is stored is not what was acknowledged, or not ours: the graver of the two.
            Err(found) if *found.kind() == ErrorKind::Corrupt => Err(found),
            Err(reopening) => {
                tracing::error!(error = %reopening, "the backend cannot be reopened");
                Err(error)
            }
        }
    }

    /// Removes rows of series and writes others, in one commit without a block.
    async fn replace(&mut self, prune: Vec<KeyRange>, rows: Vec<RowChange>) -> Result<()> {
        for _ in 0..ATTEMPTS {
            self.begin_turn().await?;
            let replaced = self.try_replace(&prune, &rows).await;
            self.end_turn().await;
            if replaced? {
                return Ok(());
            }
        }
        Err(outrun())
    }

    /// Tells whether no other process was first.
    async fn try_replace(&mut self, prune: &[KeyRange], rows: &[RowChange]) -> Result<bool> {
        self.require_writable().await?;
        if self.has_unflushed_in(prune) {
            self.flush_all().await?;
        }
        let before = self.state().serial();
        let entry = Some(self.new_commit_id()?);
        self.make_room_for(feed::encode(prune, rows).len() as u64).await?;
        let mut commit = Commit { prune: prune.to_vec(), entry, ..self.next_commit() };
        let entered = self.consumers.enter(&mut commit, rows, before);
        commit.revision = self.revision_for(&commit);
        commit.rows.extend(rows.iter().cloned());
        let stored = self.stored(&commit).await?;
        if stored {
            self.consumers.stored(entered);
        }
        Ok(stored)
    }

    async fn change_consumers(&mut self, change: ConsumerChange) -> Result<Option<Consumer>> {
        for _ in 0..ATTEMPTS {
            self.begin_turn().await?;
            let changed = self.try_change_consumers(&change).await;
            self.end_turn().await;
            if let Some(consumer) = changed? {
                return Ok(consumer);
            }
        }
        Err(outrun())
    }

    /// Replaces the record, while nothing else is being stored. Gives the head after it. That somebody
    /// follows from then on, or no longer does, does not count here: both sides are at one position. But where other
    /// processes write, too, that somebody begins to follow counts: they learn of it before their next commit, of which
    /// an entry has to be kept.
    async fn change_record(
        &mut self,
        change: &RecordChange,
        following: &Following,
    ) -> Result<Head> {
        for _ in 0..ATTEMPTS {
            if self.read_only {
                return Err(read_only());
            }
            self.refresh().await?;
            let head = self.backend.head().await?;
            let mut commit = self.next_commit();
            let mut before = self.consumers.clone();
            if self.is_shared && matches!(following, Following::Begins(..)) {
                commit.entry = Some(self.new_commit_id()?);
                let entered = before.enter(&mut commit, &[], head.serial);
                before.stored(entered);
            }
            let position = match commit.entry {
                Some(_) => head.position.next(),
                None => head.position,
            };
            let (rows, mut consumers) = before.following(&head, position, following)?;
            commit.rows.extend(rows);
            commit.head = HeadChange { record: Some(*change), ..HeadChange::default() };
            consumers.set_removed(consumers.remove_taken(&mut commit));
            if self.stored(&commit).await? {
                self.consumers = consumers;
                // What follows is written by whoever copies to it, and never from here again.
                self.moving = (!change.after.role.is_active()).then(moving);
                if self.moving.is_none() {
                    self.epoch = change.after.epoch;
                }
                let head = self.backend.head().await?;
                self.shared.head.store(Arc::new(head));
                return Ok(head);
            }
            // Either another process committed first, or the record is another one, which stays so.
            self.backend.head().await?.require_record(&change.before)?;
        }
        Err(outrun())
    }

    /// Gives the consumer as it is now; nothing if another process was first.
    async fn try_change_consumers(
        &mut self,
        change: &ConsumerChange,
    ) -> Result<Option<Option<Consumer>>> {
        self.require_writable().await?;
        if self.is_shared {
            self.read_consumers().await?;
        }
        let mut planned = match change {
            ConsumerChange::Register(name, max_bytes) => self.registration(name, *max_bytes)?,
            ConsumerChange::Advance(name, to) => {
                let (serial, total) = self.serial_and_total(name, *to).await?;
                let (mut consumers, consumer) =
                    self.consumers.advanced(name, (*to, serial, total))?;
                let rows = vec![RowChange::put(ChangeKind::Updated, &consumer)];
                let mut commit = Commit { rows, ..self.next_commit() };
                consumers.set_removed(consumers.remove_taken(&mut commit));
                Planned { commit, consumers, consumer: Some(consumer) }
            }
            ConsumerChange::Remove(name) => self.removal(name)?,
        };
        planned.commit.revision = self.revision_for(&planned.commit);
        if !self.stored(&planned.commit).await? {
            return Ok(None);
        }
        self.consumers = planned.consumers;
        Ok(Some(planned.consumer))
    }

    /// That somebody follows the log, or no longer does, is a commit that counts: so every other process
    /// learns of it before its next one.
    fn registration(&self, name: &ConsumerName, max_bytes: u64) -> Result<Planned> {
        let state = self.state();
        let mut commit = Commit { entry: Some(self.new_commit_id()?), ..self.next_commit() };
        let mut consumers = self.consumers.clone();
        let entered = consumers.enter(&mut commit, &[], state.serial());
        consumers.stored(entered);
        let (consumers, consumer, left) = consumers.with(Consumer {
            name: name.clone(),
            position: state.position().next(),
            serial: state.serial(),
            total: 0,
            max_bytes,
            resync: false,
            registered_at: state.time(),
        })?;
        commit.rows.extend(left);
        commit.rows.push(RowChange::put(ChangeKind::Created, &consumer));
        Ok(Planned { commit, consumers, consumer: Some(consumer) })
    }

    fn removal(&self, name: &ConsumerName) -> Result<Planned> {
        let mut consumers = self.consumers.without(name)?;
        let mut commit = Commit { entry: Some(self.new_commit_id()?), ..self.next_commit() };
        let entered = consumers.enter(&mut commit, &[], self.state().serial());
        consumers.stored(entered);
        commit.rows.push(consumers::removal(name));
        Ok(Planned { commit, consumers, consumer: None })
    }

    /// The serial at a position that a consumer has come to, and the bytes up to there.
    async fn serial_and_total(&self, name: &ConsumerName, to: Position) -> Result<(Serial, u64)> {
        let consumer = self.consumers.require(name)?;
        let position = self.state().position();
        if to > position {
            return Err(Error::invalid("the store has no such position yet")
                .with("to", to)
                .with("position", position));
        }
        if to <= consumer.position || consumer.resync {
            return Ok((consumer.serial, consumer.total));
        }
        let row = feed::row_at(self.backend.as_ref(), to).await?;
        row.map(|row| (row.serial, row.total)).ok_or_else(|| {
            Error::corrupt("a commit is missing in the feed; copy the store anew")
                .with("position", to)
        })
    }

    async fn require_writable(&mut self) -> Result<()> {
        if self.read_only {
            return Err(read_only());
        }
        self.refresh().await?;
        self.refusal().map_or(Ok(()), Err)
    }

    /// Stores a commit without a block. Tells whether it was stored; if another process was first, the
    /// state is the one after that.
    async fn stored(&mut self, commit: &Commit) -> Result<bool> {
        let sent_at = self.elapsed();
        match self.store(commit).await {
            Ok(()) => {
                self.turns.won();
                self.confirm().await.map_err(|error| unconfirmed(&error))?;
                let published = self.shared.published.load_full();
                let mut state = published.state.clone();
                if commit.id().is_some() {
                    state.set_position(commit.expected.next());
                }
                self.publish_state(state, published.audit.clone(), sent_at);
                Ok(true)
            }
            Err(error) if *error.kind() == ErrorKind::Conflict => {
                self.turns.lost(Instant::now());
                self.catch_up_after_conflict().await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn new_commit_id(&self) -> Result<CommitId> {
        Ok(CommitId::time_ordered(self.state().time(), draw(self.entropy.as_ref())?))
    }

    /// Whether audit entries in these ranges are only in blocks: a later flush would bring them back.
    fn has_unflushed_in(&self, ranges: &[KeyRange]) -> bool {
        let published = self.shared.published.load();
        let mut of_audit = ranges.iter().filter(|range| range.table == Table::Audit);
        of_audit.any(|range| published.audit.within(range, false).next().is_some())
    }

    /// Brings the state to where the backend stands.
    pub(super) async fn refresh(&mut self) -> Result<()> {
        if self.poisoned {
            return self.reopen().await;
        }
        if self.is_shared { self.catch_up().await } else { Ok(()) }
    }
}

fn moving() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the network is moving to another database; write to the store that is opened there",
    )
}
