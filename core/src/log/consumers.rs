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

/// At most so many may be registered.
const MOST: usize = 64;

/// The registered consumers, and how many bytes there are to take.
#[derive(Debug, Clone, Default)]
pub(crate) struct Consumers {
    registered: Vec<Consumer>,
    /// The bytes of all entries so far.
    total: u64,
}

/// What a commit changes of the consumers once it is stored.
#[derive(Debug, Default)]
pub(crate) struct Entered {
    total: u64,
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
        if registered.iter().any(|consumer| !consumer.resync) {
            total = feed::last_row(backend).await?.map_or(total, |row| row.total.max(total));
        }
        Ok(Self { registered, total })
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
        let Some(id) = commit.id().filter(|_| self.is_followed()) else {
            return Entered { total: self.total, ..Entered::default() };
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
        if !over.is_empty() {
            commit.prune.extend(taken_by(kept.iter().copied()));
        }
        if !kept.is_empty() {
            let row = FeedRow {
                position: commit.expected.next(),
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
        Entered { total, overflowed: over.into_iter().map(|it| it.name.clone()).collect() }
    }

    /// A commit that was entered is stored.
    pub(crate) fn stored(&mut self, entered: Entered) {
        self.total = entered.total;
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

    /// The consumers once one has taken everything up to `row`, and what nobody needs then.
    ///
    /// # Errors
    /// As [`Consumers::require`]; `Conflict` if it fell too far behind; `InvalidArgument` if it would
    /// go back.
    pub(crate) fn advanced(
        &self,
        name: &ConsumerName,
        (position, serial, total): (Position, Serial, u64),
    ) -> Result<(Self, Consumer, Option<KeyRange>)> {
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
        let taken = taken_by(after.active());
        Ok((after, moved, taken))
    }

    /// The consumers without one, and what nobody needs then.
    ///
    /// # Errors
    /// As [`Consumers::require`].
    pub(crate) fn without(&self, name: &ConsumerName) -> Result<(Self, Option<KeyRange>)> {
        self.require(name)?;
        let mut after = self.clone();
        after.registered.retain(|consumer| consumer.name != *name);
        let taken = taken_by(after.active());
        Ok((after, taken))
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

/// What all of them have taken; everything if there are none.
fn taken_by<'c>(consumers: impl Iterator<Item = &'c Consumer>) -> Option<KeyRange> {
    match consumers.map(|consumer| consumer.position).min() {
        Some(Position::ZERO) => None,
        Some(position) => Some(feed::up_to(position)),
        None => Some(KeyRange::all(Table::Feed)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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
        let consumers = Consumers { registered, total: 0 };
        let (after, _, left) = consumers.with(consumer("new", false)).unwrap();
        let names: Vec<_> = after.list().iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["holding-2", "mirror", "new"]);
        assert_eq!(left, [removal(&ConsumerName::new("holding-1").unwrap())]);
    }
}
