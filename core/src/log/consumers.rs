//! Who follows the log, and what is kept for them.

use bytes::Bytes;

use super::block::{ChangeKind, RowChange, Serial};
use super::feed::{self, Consumer, FeedRow};
use super::hold::is_left_behind;
use crate::backend::{Backend, Commit, Head, KeyRange, Scan};
use crate::domain::ConsumerName;
use crate::error::{Error, ErrorKind, Result};
use crate::position::Position;
use crate::schema::{Record, RowKey, Table};
use crate::writer::Following;

/// At most so many may be registered.
const MOST: usize = 64;

/// A commit removes the entries of at most so many positions, since everybody waits for it: what was kept
/// for a consumer for days may be gigabytes.
const REMOVED_AT_ONCE: u64 = 256;

/// The registered consumers, and how many bytes there are to take.
#[derive(Debug, Clone, Default)]
pub(crate) struct Consumers {
    registered: Vec<Consumer>,
    /// The bytes of all entries so far.
    total: u64,
    /// The feed may have entries after this position,
    removed: Position,
    /// and up to this one.
    last: Position,
}

/// What a commit changes of the consumers once it is stored.
#[derive(Debug, Default)]
pub(crate) struct Entered {
    total: u64,
    removed: Position,
    last: Position,
    overflowed: Vec<ConsumerName>,
}

impl Consumers {
    /// Those that are stored.
    pub(crate) async fn read(backend: &dyn Backend, head: &Head) -> Result<Self> {
        // A store that is only read may be of an older schema, which has no such table.
        if head.schema.version < Table::Consumers.schema().since {
            return Ok(Self::default());
        }
        let range = KeyRange::all(Table::Consumers);
        let page = backend.scan(Scan { range, reverse: false, limit: MOST }).await?;
        let registered = page.rows.iter().map(|row| Consumer::decode(&row.key, &row.body));
        let registered: Vec<Consumer> = registered.collect::<Result<_>>()?;
        let mut total = registered.iter().map(|consumer| consumer.total).max().unwrap_or(0);
        // The feed is empty while everybody has taken everything. Also what those had taken for whom
        // nothing is kept counts: the sum never falls while anybody is registered.
        let (mut removed, mut last) = (Position::ZERO, Position::ZERO);
        if let Some(row) = feed::end_row(backend, true).await? {
            (last, total) = (row.position, total.max(row.total));
            let first = feed::end_row(backend, false).await?.map_or(last, |row| row.position);
            removed = Position::new(first.get().saturating_sub(1));
        }
        Ok(Self { registered, total, removed, last })
    }

    pub(crate) fn list(&self) -> &[Consumer] {
        &self.registered
    }

    /// Those for whom something is kept.
    fn active(&self) -> impl Iterator<Item = &Consumer> {
        self.registered.iter().filter(|consumer| !consumer.resync)
    }

    pub(crate) fn is_followed(&self) -> bool {
        self.active().next().is_some()
    }

    /// The last block that nobody needs any more; `None` if nobody needs any.
    pub(crate) fn taken(&self) -> Option<Serial> {
        self.active().map(|consumer| consumer.serial).min()
    }

    /// Whether so many more bytes are too many for somebody.
    pub(crate) fn would_overflow(&self, bytes: u64) -> bool {
        self.active().any(|consumer| is_over(consumer, self.total + bytes))
    }

    /// Adds to a commit what the feed tells of it: its prunes and these rows of series, which are not
    /// among its rows yet. `before` is the serial that it builds on. Whoever is then too far behind gets
    /// nothing more, from this commit on.
    pub(crate) fn enter(
        &self,
        commit: &mut Commit,
        series: &[RowChange],
        before: Serial,
    ) -> Entered {
        let mut entered = Entered {
            total: self.total,
            removed: self.removed,
            last: self.last,
            overflowed: Vec::new(),
        };
        let Some(id) = commit.id().filter(|_| self.is_followed()) else {
            entered.removed = self.remove_taken(commit);
            return entered;
        };
        let body = feed::encode(&commit.prune, series);
        let block_bytes = commit.block.as_ref().map_or(0, |block| block.bytes.len());
        let total = self.total + (block_bytes + body.len()) as u64;
        let (over, kept): (Vec<_>, Vec<_>) =
            self.active().partition(|consumer| is_over(consumer, total));
        for consumer in &over {
            let resync = Consumer { resync: true, ..(*consumer).clone() };
            commit.rows.push(RowChange::put(ChangeKind::Updated, &resync));
        }
        entered.total = total;
        entered.overflowed = over.iter().map(|it| it.name.clone()).collect();
        // Not what the commit itself removes of series, which the entry tells of.
        entered.removed = self.remove_taken(commit);
        if !kept.is_empty() {
            if entered.removed >= self.last {
                // The feed was empty, however many commits there were before.
                entered.removed = commit.expected;
            }
            entered.last = commit.expected.next();
            let row = FeedRow {
                position: entered.last,
                part: 0,
                commit: id,
                serial: commit.block.as_ref().map_or(before, |block| block.serial),
                has_block: commit.block.is_some(),
                parts: 1,
                total,
                body: Bytes::new(),
            };
            commit.rows.extend(feed::rows_of(&row, &body));
        }
        entered
    }

    /// Adds to a commit the removal of entries that nobody needs any more. Gives up to where they are gone
    /// once it is stored.
    pub(crate) fn remove_taken(&self, commit: &mut Commit) -> Position {
        let Some(to) = self.removable() else { return self.removed };
        commit.prune.push(feed::up_to(to));
        to
    }

    /// Up to where the next commit removes entries; `None` if everything that is there is needed.
    pub(crate) fn removable(&self) -> Option<Position> {
        let taken = self.active().map(|consumer| consumer.position).min();
        let unneeded = taken.map_or(self.last, |taken| taken.min(self.last));
        let most = Position::new(self.removed.get().saturating_add(REMOVED_AT_ONCE));
        (unneeded > self.removed).then(|| unneeded.min(most))
    }

    /// A commit that removes entries up to this position is stored.
    pub(crate) fn set_removed(&mut self, removed: Position) {
        self.removed = removed;
    }

    /// A commit that was entered is stored.
    pub(crate) fn stored(&mut self, entered: Entered) {
        (self.total, self.removed, self.last) = (entered.total, entered.removed, entered.last);
        for consumer in &mut self.registered {
            if entered.overflowed.contains(&consumer.name) {
                consumer.resync = true;
                tracing::warn!(
                    consumer = %consumer.name,
                    max_bytes = consumer.max_bytes,
                    "a consumer fell too far behind; nothing is kept for it any longer, and it has to \
                     copy the store anew"
                );
            }
        }
    }

    /// The consumers with this one among them, which begins after the commit that registers it; and what
    /// takes away the holds that were left behind.
    ///
    /// # Errors
    /// `AlreadyExists` unless the one of that name fell too far behind; `Exhausted`.
    pub(crate) fn with(&self, new: Consumer) -> Result<(Self, Consumer, Vec<RowChange>)> {
        let mut after = self.clone();
        let left = self.registered.iter().filter(|consumer| is_left_behind(consumer));
        let left = left.map(|consumer| removal(&consumer.name)).collect();
        after.registered.retain(|consumer| !is_left_behind(consumer));
        let new = Consumer { total: self.total, ..new };
        let is_full = after.registered.len() >= MOST;
        match after.registered.iter_mut().find(|consumer| consumer.name == new.name) {
            Some(consumer) if consumer.resync => *consumer = new.clone(),
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::AlreadyExists { constraint: "name" },
                    "a consumer of this name is registered",
                )
                .with("name", &new.name));
            }
            None if is_full => {
                return Err(Error::new(ErrorKind::Exhausted, "too many consumers; remove one")
                    .with("most", MOST));
            }
            None => after.registered.push(new.clone()),
        }
        Ok((after, new, left))
    }

    /// The consumers once another record of `head` is stored, and the rows that say so. Whoever begins to follow does
    /// so from `position` on, where the head stands then.
    ///
    /// # Errors
    /// `Exhausted` for too many.
    pub(crate) fn following(
        &self,
        head: &Head,
        position: Position,
        following: &Following,
    ) -> Result<(Vec<RowChange>, Self)> {
        match following {
            Following::Begins(name, max_bytes) if self.require(name).is_err() => {
                let (after, consumer, mut rows) = self.with(Consumer {
                    name: name.clone(),
                    position,
                    // The blocks that are kept now are copied first.
                    serial: Serial::new(head.oldest_block.get().saturating_sub(1)),
                    total: 0,
                    max_bytes: *max_bytes,
                    resync: false,
                    registered_at: head.time,
                })?;
                rows.push(RowChange::put(ChangeKind::Created, &consumer));
                Ok((rows, after))
            }
            Following::Ends(name) if self.require(name).is_ok() => {
                Ok((vec![removal(name)], self.without(name)?))
            }
            _ => Ok((Vec::new(), self.clone())),
        }
    }

    /// The consumers once one has taken everything up to `row`.
    ///
    /// # Errors
    /// As [`Consumers::require`]; `Conflict` if it fell too far behind; `InvalidArgument` if it would
    /// go back.
    pub(crate) fn advanced(
        &self,
        name: &ConsumerName,
        (position, serial, total): (Position, Serial, u64),
    ) -> Result<(Self, Consumer)> {
        let found = self.require(name)?;
        if found.resync {
            return Err(Error::new(
                ErrorKind::Conflict,
                "the consumer fell too far behind, and nothing is kept for it; copy the store anew and \
                 register again",
            )
            .with("name", name)
            .with("max_bytes", found.max_bytes));
        }
        if position < found.position {
            return Err(Error::invalid("a consumer moves forward")
                .with("name", name)
                .with("position", found.position)
                .with("to", position));
        }
        let moved = Consumer { position, serial, total, ..found.clone() };
        let mut after = self.clone();
        after
            .registered
            .iter_mut()
            .filter(|it| it.name == *name)
            .for_each(|it| *it = moved.clone());
        Ok((after, moved))
    }

    /// The consumers without one.
    ///
    /// # Errors
    /// As [`Consumers::require`].
    pub(crate) fn without(&self, name: &ConsumerName) -> Result<Self> {
        self.require(name)?;
        let mut after = self.clone();
        after.registered.retain(|consumer| consumer.name != *name);
        Ok(after)
    }

    /// # Errors
    /// `NotFound`.
    pub(crate) fn require(&self, name: &ConsumerName) -> Result<&Consumer> {
        self.registered.iter().find(|consumer| consumer.name == *name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "no consumer of this name is registered")
                .with("name", name)
        })
    }
}

/// Its row's key.
pub(crate) fn key(name: &ConsumerName) -> RowKey {
    RowKey::new().text(name.as_str())
}

/// What takes its row away.
pub(crate) fn removal(name: &ConsumerName) -> RowChange {
    let (table, kind) = (Table::Consumers, ChangeKind::Deleted);
    RowChange { table, kind, key: key(name), body: None }
}

fn is_over(consumer: &Consumer, total: u64) -> bool {
    total.saturating_sub(consumer.total) > consumer.max_bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn consumer(name: &str, resync: bool) -> Consumer {
        Consumer {
            name: ConsumerName::new(name).unwrap(),
            position: Position::ZERO,
            serial: Serial::ZERO,
            total: 0,
            max_bytes: 1,
            resync,
            registered_at: Timestamp::EPOCH,
        }
    }

    #[test]
    fn holds_that_keep_nothing_go_with_the_next_registration() {
        let registered = vec![
            consumer("holding-1", true),
            consumer("holding-2", false),
            consumer("mirror", true),
        ];
        let consumers = Consumers { registered, ..Consumers::default() };
        let (after, _, left) = consumers.with(consumer("new", false)).unwrap();
        let names: Vec<_> = after.list().iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["holding-2", "mirror", "new"]);
        assert_eq!(left, [removal(&ConsumerName::new("holding-1").unwrap())]);
    }

    #[test]
    fn a_commit_removes_a_bounded_number_of_entries_and_only_those_that_nobody_needs() {
        let mut consumers = Consumers {
            registered: vec![consumer("mirror", false), consumer("left-behind", true)],
            last: Position::new(1000),
            ..Consumers::default()
        };
        assert_eq!(consumers.removable(), None);
        consumers.registered[0].position = Position::new(300);
        for (to, next) in [(256, Some(300)), (300, None)] {
            assert_eq!(consumers.removable(), Some(Position::new(to)));
            let mut commit = Commit::default();
            assert_eq!(consumers.remove_taken(&mut commit), Position::new(to));
            assert_eq!(commit.prune, [feed::up_to(Position::new(to))]);
            consumers.set_removed(Position::new(to));
            assert_eq!(consumers.removable(), next.map(Position::new));
        }
        // Nothing is needed, and the end is known.
        consumers.registered.remove(0);
        let mut commits = 0;
        while let Some(to) = consumers.removable() {
            consumers.set_removed(to);
            commits += 1;
        }
        assert_eq!((commits, consumers.removed), (3, Position::new(1000)));
    }

    #[test]
    fn in_an_empty_feed_there_is_nothing_to_remove_whatever_came_before() {
        let million = Position::new(1_000_000);
        let mirror =
            Consumer { position: million, max_bytes: 1 << 20, ..consumer("mirror", false) };
        let mut consumers = Consumers { registered: vec![mirror], ..Consumers::default() };
        let mut commit = Commit {
            expected: million,
            entry: Some(crate::domain::CommitId::from_bytes([1; 16])),
            ..Commit::default()
        };
        let entered = consumers.enter(&mut commit, &[], Serial::ZERO);
        consumers.stored(entered);
        assert_eq!((commit.rows.len(), commit.prune.len()), (1, 0));
        assert_eq!(consumers.removable(), None);
        // Taken, it goes, and with it the feed is empty again.
        consumers.registered[0].position = million.next();
        assert_eq!(consumers.removable(), Some(million.next()));
        consumers.set_removed(million.next());
        assert_eq!(consumers.removable(), None);
    }
}
