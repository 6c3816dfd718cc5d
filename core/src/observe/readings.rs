//! What can be read off a store at any time.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Serialize;

use super::StateCounts;
use crate::error::EntityKind;
use crate::handle::{Core, StoreHandle};
use crate::store::StoreInfo;

/// Reads a store off without keeping it open: once its last handle is gone there is nothing to read.
#[derive(Debug, Clone)]
pub struct Readings(Weak<Core>);

/// A store at a moment. To make one takes a microsecond or so, and now and then, at most a hundredth of
/// the time, as long as it takes to look at every node, route and credential.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Reading {
    /// What the store says of itself.
    pub info: StoreInfo,
    /// How many entities there are of each kind.
    pub entities: Vec<(EntityKind, u64)>,
    /// How many are in which state.
    pub counts: StateCounts,
    /// Addresses that are taken and those that can be given out, IPv4 and then IPv6.
    pub addresses: [(u64, f64); 2],
    /// What waits for the writer.
    pub queue: QueueReading,
    /// Reads by the repositories since the store was opened.
    pub reads: u64,
    /// Who follows the commits.
    pub watchers: WatchReading,
    /// Snapshots.
    pub views: ViewReading,
    /// How far the time of the last commit is ahead of the clock.
    pub clock_ahead: Duration,
    /// The oldest block that is kept; 0 if none was purged or kept so far.
    pub oldest_block: u64,
    /// Bytes of the blocks that are kept.
    pub block_bytes: u64,
}

/// What waits for the writer, or is being stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QueueReading {
    /// Writes in the queue.
    pub size: u64,
    /// How many may be there.
    pub limit: u64,
    /// Bytes of those that own more than a few.
    pub bytes: u64,
    /// How many bytes there may be.
    pub bytes_limit: u64,
}

/// Who follows the commits of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WatchReading {
    /// How many there are.
    pub active: u64,
    /// How many commits the slowest has still to take.
    pub lag: u64,
}

/// The snapshots of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ViewReading {
    /// How old a view is that is taken now; zero unless others write to the backend.
    pub age: Duration,
    /// How long ago the oldest state that somebody still keeps was replaced.
    pub oldest_age: Duration,
}

impl Readings {
    pub(crate) fn of(core: &Arc<Core>) -> Self {
        Self(Arc::downgrade(core))
    }

    /// What the store is at present; `None` once it is gone.
    #[must_use]
    pub fn read(&self) -> Option<Reading> {
        let core = self.0.upgrade()?;
        let handle = StoreHandle::of(core.clone());
        let (view, shared) = (handle.current_view(), &core.shared);
        let now = handle.wall_clock();
        let (active, lag) = shared.observed.watchers.behind(view.serial());
        let read = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
        Some(Reading {
            info: handle.info_of(&view),
            entities: view.entity_counts().map(|(kind, count)| (kind, count as u64)).collect(),
            counts: shared.observed.counts.of(&view, now),
            addresses: view.addresses().usage(view.settings().network()),
            queue: core.queue.reading(),
            reads: shared.observed.reads.total(),
            watchers: WatchReading { active, lag },
            views: ViewReading { age: view.age(), oldest_age: shared.observed.views.oldest() },
            clock_ahead: view.time().since(now),
            oldest_block: read(&shared.counters.oldest_block),
            block_bytes: read(&shared.counters.block_bytes),
        })
    }
}
