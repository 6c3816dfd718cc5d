//! The store's time.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::backend::KeyRange;
use crate::block::{ChangeKind, RowChange};
use crate::command::ClockCommand;
use crate::domain::{AuditEntry, AuditQuery, Limit, PageRequest, Timestamp};
use crate::error::Result;
use crate::handle::StoreHandle;
use crate::schema::{Record, Table};
use crate::series::{count_rows, metric_ranges_from};

/// The store's time, and what was written when the clock was wrong.
///
/// Times in the store never go back, so one write under a clock that is ahead would date all later
/// ones. The store therefore refuses to write under a clock that jumped ahead, and can undo what was
/// written under one.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use ghostwire_store::domain::NewUser;
///
/// let alice = store.users().create(NewUser::local("alice".parse()?)).await?;
/// assert!(alice.created_at <= store.clock().now()?);
/// assert!(!store.clock().report().await?.is_ahead());
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait ClockRepository: Send + Sync {
    /// What the store's clock says.
    ///
    /// # Errors
    /// `Unavailable` if that is later than it can be: further ahead of the last reading than time
    /// has passed since, by more than `ClockOptions::max_step`.
    fn now(&self) -> Result<Timestamp>;

    /// Where the store's time stands, and what it holds from beyond the clock.
    ///
    /// # Behavior
    /// - Reads every entity and, of the series, what is beyond the clock.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    async fn report(&self) -> Result<ClockReport>;

    /// Takes what the clock says as right, and commits a line of the audit trail under it, so that
    /// it is what later openings compare with.
    ///
    /// # Errors
    /// Those of any write.
    async fn accept(&self) -> Result<()>;

    /// Undoes what a clock that was ahead did to times. Make sure that the clock is right now: it is
    /// what later readings are compared with.
    ///
    /// # Behavior
    /// - The store's time goes back to what the clock says.
    /// - So do later times of entities at which something happened; ends that were counted from such a
    ///   time keep their distance.
    /// - Later entries of the audit trail are dated to now, in their order.
    /// - Later metrics are removed, since nobody can tell when they were measured. What was removed
    ///   under the wrong clock does not come back.
    /// - It takes as many commits as it needs; if one fails, repeat it.
    ///
    /// # Errors
    /// Those of any write.
    async fn repair(&self) -> Result<ClockRepair>;
}

/// Where the store's time stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClockReport {
    /// The time of the last commit; `None` before the first one.
    pub store: Option<Timestamp>,
    /// What the clock says.
    pub clock: Timestamp,
    /// Entities with a time beyond the clock at which something happened, by table.
    pub entities: BTreeMap<&'static str, u64>,
    /// Entries of the audit trail beyond the clock.
    pub audit: u64,
    /// Metrics beyond the clock.
    pub metrics: u64,
}

impl ClockReport {
    /// Whether anything is beyond the clock.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.store.is_some_and(|store| store > self.clock)
            || !self.entities.is_empty()
            || self.audit > 0
            || self.metrics > 0
    }
}

/// What a repair came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRepair {
    /// Entities whose times were brought back.
    pub entities: u64,
    /// Entries of the audit trail that were dated anew.
    pub audit: u64,
    /// Metrics that were removed.
    pub metrics: u64,
}

/// The first moment that is beyond `now`.
fn beyond(now: Timestamp) -> Timestamp {
    now.saturating_add(std::time::Duration::from_micros(1))
}

#[async_trait]
impl ClockRepository for StoreHandle {
    fn now(&self) -> Result<Timestamp> {
        self.now().map_err(|error| error.during("clock.now"))
    }

    async fn report(&self) -> Result<ClockReport> {
        const OPERATION: &str = "clock.report";
        let view = self.open_view(OPERATION)?;
        let clock = self.wall_clock();
        let read = async {
            let dated = view.dated_after(clock).into_iter();
            Ok(ClockReport {
                store: (view.serial() > crate::block::Serial::ZERO).then(|| view.time()),
                clock,
                entities: dated.map(|(table, count)| (table.name(), count)).collect(),
                audit: self.count_audit_from(beyond(clock)).await?,
                metrics: count_rows(
                    self.backend(),
                    &metric_ranges_from(self.backend(), beyond(clock)).await?,
                )
                .await?,
            })
        };
        read.await.map_err(|error: crate::error::Error| error.during(OPERATION))
    }

    async fn accept(&self) -> Result<()> {
        self.accept_clock();
        self.run(ClockCommand::Accept).await.map(|_| ())
    }

    async fn repair(&self) -> Result<ClockRepair> {
        const OPERATION: &str = ClockCommand::REPAIR;
        // The clock that was ahead is the measure so far, and may be set forth again.
        self.accept_clock();
        let make = |part| ClockCommand::Repair { part }.into();
        let entities = self.count_in_parts(make).await?;
        let series = async {
            let audit = self.bring_audit_back(OPERATION).await?;
            let ranges = metric_ranges_from(self.backend(), beyond(self.now()?)).await?;
            let metrics = count_rows(self.backend(), &ranges).await?;
            self.prune_series(OPERATION, ranges).await?;
            Ok(ClockRepair { entities, audit, metrics })
        };
        series.await.map_err(|error: crate::error::Error| error.during(OPERATION))
    }
}

impl StoreHandle {
    async fn count_audit_from(&self, from: Timestamp) -> Result<u64> {
        let query = AuditQuery { from: Some(from), ..AuditQuery::default() };
        let mut page = PageRequest::first(Limit::MAX);
        let mut count = 0;
        loop {
            let read = super::AuditRepository::query(self, &query, &page).await?;
            count += read.items.len() as u64;
            let Some(next) = read.next else { return Ok(count) };
            page = PageRequest::after(Limit::MAX, next);
        }
    }

    /// Dates entries from beyond the clock to now, a page at a time: its old rows go in the commit
    /// that brings the new ones. Their ids keep them in order.
    async fn bring_audit_back(&self, operation: &'static str) -> Result<u64> {
        let mut count = 0;
        loop {
            let now = self.now()?;
            let query = AuditQuery { from: Some(beyond(now)), ..AuditQuery::default() };
            let page = PageRequest::first(Limit::MAX);
            let read = super::AuditRepository::query(self, &query, &page).await?.items;
            let (Some(first), Some(last)) = (read.first(), read.last()) else { return Ok(count) };
            let range = KeyRange {
                table: Table::Audit,
                from: first.key(),
                to: Some(last.key().successor()),
            };
            let dated = |entry: &AuditEntry| {
                RowChange::put(ChangeKind::Created, &AuditEntry { at: now, ..entry.clone() })
            };
            let rows: Vec<RowChange> = read.iter().map(|entry| dated(entry)).collect();
            count += rows.len() as u64;
            self.replace_series(operation, vec![range], rows).await?;
        }
    }
}
