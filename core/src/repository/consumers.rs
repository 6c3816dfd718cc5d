//! Who follows the log from elsewhere.

use async_trait::async_trait;

use crate::domain::ConsumerName;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::StoreHandle;
use crate::log::consumers::Consumers;
use crate::log::feed::{self, Consumer, LogEntry};
use crate::position::Position;
use crate::writer::{ConsumerChange, Request};

/// Consumers of the log: mirrors, followers and backups, which take every commit, those of series included,
/// and may be away for a while. What they have not taken is kept for them, up to a limit of bytes, in
/// the store itself; so it survives a restart, and costs nothing while nobody is registered.
///
/// [`Store::watch`](crate::Store::watch) needs no registration, and has neither series nor a promise that
/// what it needs is still there.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use ghostwire_store::domain::{ConsumerName, NewUser};
///
/// let backup = ConsumerName::new("backup")?;
/// let registered = store.consumers().register(backup.clone(), 64 * 1024 * 1024).await?;
/// store.users().create(NewUser::local("alice".parse()?)).await?;
///
/// let entries = store.consumers().read(registered.position, 100).await?;
/// assert_eq!(entries.len(), 1);
/// assert!(entries[0].block.is_some());
///
/// // Once the entries are safe elsewhere they need not be kept any longer.
/// store.consumers().advance(&backup, entries[0].position).await?;
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait ConsumerRepository: Send + Sync {
    /// Registers a consumer: every commit from now on is kept for it, blocks and rows of series, until it
    /// has taken them or they are more than `max_bytes`. It is at the position that this gives: copy
    /// the store as it is now, or later, and read on from there.
    ///
    /// # Behavior
    /// - With more than `max_bytes` to take it is marked `resync`, with the commit that was too much, and
    ///   nothing is kept for it any longer. It may then be registered again, and begins anew.
    /// - At most 64 consumers.
    ///
    /// # Errors
    /// `AlreadyExists` (`name`) for one that is registered and not marked `resync`; `InvalidArgument` for
    /// `max_bytes` of 0 or beyond `i64::MAX`; `Exhausted` for too many; those of any write.
    async fn register(&self, name: ConsumerName, max_bytes: u64) -> Result<Consumer>;

    /// Says that a consumer has taken every commit up to `position`, which is then no longer kept for it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for one that is marked `resync`; `InvalidArgument` for a position before
    /// its own, or one that the store does not have yet; those of any write.
    async fn advance(&self, name: &ConsumerName, position: Position) -> Result<Consumer>;

    /// Ends a registration, and lets go of what was kept for it alone.
    ///
    /// # Errors
    /// `NotFound`; those of any write.
    async fn remove(&self, name: &ConsumerName) -> Result<()>;

    /// Everybody who is registered, by name. One whose name begins with `holding-` is a process that opens
    /// or verifies a shared database; it keeps at most 1 GiB.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    async fn list(&self) -> Result<Vec<Consumer>>;

    /// At most `limit` commits after a position, in order and without a gap, as far as they are
    /// acknowledged. Empty if there are none yet.
    ///
    /// # Behavior
    /// - Blocks name the hash of the one before: whoever follows compares it with the last that was taken.
    ///   A store that was put back to an older copy may have passed `after` again.
    /// - Each is whole: a block may have 256 MiB, so read few at a time if they may be large.
    ///
    /// # Errors
    /// `Compacted` if the first of them is not kept; `Conflict` if the store is not as far as `after`: it was
    /// put back to an older copy; `InvalidArgument` for a limit of 0, or above 1,000; `Unavailable`,
    /// `Corrupt`.
    async fn read(&self, after: Position, limit: usize) -> Result<Vec<LogEntry>>;
}

#[async_trait]
impl ConsumerRepository for StoreHandle {
    async fn register(&self, name: ConsumerName, max_bytes: u64) -> Result<Consumer> {
        const OPERATION: &str = "consumer.register";
        if max_bytes == 0 || i64::try_from(max_bytes).is_err() {
            return Err(Error::invalid("a consumer needs room: 1 byte to 2^63 - 1")
                .with("max_bytes", max_bytes)
                .during(OPERATION));
        }
        self.change_consumer(OPERATION, ConsumerChange::Register(name, max_bytes)).await
    }

    async fn advance(&self, name: &ConsumerName, position: Position) -> Result<Consumer> {
        let change = ConsumerChange::Advance(name.clone(), position);
        self.change_consumer("consumer.advance", change).await
    }

    async fn remove(&self, name: &ConsumerName) -> Result<()> {
        let change = ConsumerChange::Remove(name.clone());
        let removed = self.send(0, |answer| Request::Consumers(change, answer)).await;
        removed.map(drop).map_err(|error| error.during("consumer.remove"))
    }

    async fn list(&self) -> Result<Vec<Consumer>> {
        const OPERATION: &str = "consumer.list";
        self.open_view(OPERATION)?;
        let read = async {
            let head = self.backend().head().await?;
            Consumers::read(self.backend(), &head).await
        };
        let consumers = read.await.map_err(|error: Error| error.during(OPERATION))?;
        Ok(consumers.list().to_vec())
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<LogEntry>> {
        const OPERATION: &str = "consumer.read";
        const MOST: usize = 1000;
        let last = self.open_view(OPERATION)?.position();
        let read = async {
            if !(1..=MOST).contains(&limit) {
                return Err(Error::invalid("a limit is 1 to 1,000").with("limit", limit));
            }
            let last = self.position_not_before(after, last).await?;
            feed::read(self.backend(), after, last, limit).await
        };
        read.await.map_err(|error| error.during(OPERATION))
    }
}

impl StoreHandle {
    /// The last position that was acknowledged.
    ///
    /// # Errors
    /// `Conflict` if it is before `after`, also once everything is known that other processes committed.
    async fn position_not_before(&self, after: Position, known: Position) -> Result<Position> {
        if known >= after {
            return Ok(known);
        }
        if self.core.is_shared {
            self.send(0, Request::Refresh).await?;
        }
        let last = self.current_view().position();
        if last >= after {
            return Ok(last);
        }
        Err(Error::new(
            ErrorKind::Conflict,
            "the store has not come to this position: it was put back to an older copy, or the position \
             is another store's; copy it anew and register again",
        )
        .with("after", after)
        .with("position", last))
    }

    async fn change_consumer(
        &self,
        operation: &'static str,
        change: ConsumerChange,
    ) -> Result<Consumer> {
        let changed = self.send(0, |answer| Request::Consumers(change, answer)).await;
        let gone = || Error::new(ErrorKind::Unexpected, "the consumer is gone");
        changed
            .and_then(|consumer| consumer.ok_or_else(gone))
            .map_err(|error| error.during(operation))
    }
}
