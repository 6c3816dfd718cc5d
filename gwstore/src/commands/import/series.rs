//! What the series of an import would do to those that are stored.

use std::collections::BTreeMap;
use std::ops::Bound;

use ghostwire_store::Result;
use ghostwire_store::domain::{
    AuditEntry, AuditId, AuditQuery, Limit, MetricPoint, PageRequest, Timestamp,
};
use ghostwire_store_core::backend::{KeyRange, Scan};
use ghostwire_store_core::schema::{Record, RowKey, Table};

use crate::session::Reading;

/// Items that are compared at a time; an export has them in order, so that they lie together in the
/// store, too.
const AT_A_TIME: usize = 10_000;

/// Compares series with what is stored under their keys. A point replaces the one that is there, and
/// that is counted; a line of the audit trail must not.
pub(super) struct SeriesTrial<'r> {
    /// The store; none if it is yet to be made.
    reading: Option<&'r Reading>,
    points: BTreeMap<RowKey, MetricPoint>,
    entries: BTreeMap<(Timestamp, AuditId), (u64, AuditEntry)>,
    found: SeriesFound,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SeriesFound {
    /// Points that are not there yet.
    pub(super) new_points: u64,
    /// Points of which the store has another value.
    pub(super) replaced_points: u64,
    /// Lines of the audit trail that are not there yet.
    pub(super) new_entries: u64,
    /// The file's lines with another version of an entry that is there.
    pub(super) altered: Vec<u64>,
}

impl<'r> SeriesTrial<'r> {
    pub(super) fn on(reading: Option<&'r Reading>) -> Self {
        let (points, entries) = (BTreeMap::new(), BTreeMap::new());
        Self { reading, points, entries, found: SeriesFound::default() }
    }

    pub(super) async fn metric(&mut self, point: MetricPoint) -> Result<()> {
        self.points.insert(point.key(), point);
        if self.points.len() >= AT_A_TIME { self.compare_points().await } else { Ok(()) }
    }

    pub(super) async fn audit(&mut self, line: u64, entry: AuditEntry) -> Result<()> {
        let key = (entry.at, entry.id);
        let before = self.entries.insert(key, (line, entry));
        if let Some((_, before)) = before
            && self.entries.get(&key).is_some_and(|(_, entry)| *entry != before)
        {
            self.found.altered.push(line);
        }
        if self.entries.len() >= AT_A_TIME { self.compare_entries().await } else { Ok(()) }
    }

    pub(super) async fn finish(mut self) -> Result<SeriesFound> {
        self.compare_points().await?;
        self.compare_entries().await?;
        self.found.altered.sort_unstable();
        Ok(self.found)
    }

    async fn compare_points(&mut self) -> Result<()> {
        let points = std::mem::take(&mut self.points);
        self.found.new_points += points.len() as u64;
        let (Some(reading), Some((first, _)), Some((last, _))) =
            (self.reading, points.first_key_value(), points.last_key_value())
        else {
            return Ok(());
        };
        let (mut from, to) = (first.clone(), Some(last.clone().successor()));
        let mut limit = after(points.len());
        loop {
            let range = KeyRange { table: Table::Metrics, from, to: to.clone() };
            let rows = reading.backend.scan(Scan { range, reverse: false, limit }).await?.rows;
            let mut hits: usize = 0;
            for row in &rows {
                let Some(point) = points.get(&row.key) else { continue };
                hits += 1;
                if MetricPoint::decode(&row.key, &row.body)? != *point {
                    self.found.replaced_points += 1;
                }
            }
            self.found.new_points -= hits as u64;
            let Some(last) = rows.last() else { return Ok(()) };
            let Some((next, _)) = points.range(last.key.clone().successor()..).next() else {
                return Ok(());
            };
            from = next.clone();
            limit = after(hits);
        }
    }

    async fn compare_entries(&mut self) -> Result<()> {
        let entries = std::mem::take(&mut self.entries);
        self.found.new_entries += entries.len() as u64;
        let (Some(reading), Some(((first, _), _)), Some(((last, _), _))) =
            (self.reading, entries.first_key_value(), entries.last_key_value())
        else {
            return Ok(());
        };
        // Without an end if there is no later moment.
        let to = Timestamp::from_micros(last.as_micros().saturating_add(1)).ok();
        let mut query = AuditQuery { from: Some(*first), to, ..AuditQuery::default() };
        let at_most = |wanted| Limit::new(after(wanted)).unwrap_or(Limit::MAX);
        let mut request = PageRequest::first(at_most(entries.len()));
        loop {
            let page = reading.store.audit().query(&query, &request).await?;
            let mut hits: usize = 0;
            for stored in &page.items {
                let Some((line, entry)) = entries.get(&(stored.at, stored.id)) else { continue };
                hits += 1;
                if *entry != **stored {
                    self.found.altered.push(*line);
                }
            }
            self.found.new_entries -= hits as u64;
            let (Some(next), Some(last)) = (page.next, page.items.last()) else { return Ok(()) };
            let behind = (Bound::Excluded((last.at, last.id)), Bound::Unbounded);
            let Some(((wanted, _), _)) = entries.range(behind).next() else { return Ok(()) };
            request = if *wanted > last.at {
                query.from = Some(*wanted);
                PageRequest::first(at_most(hits))
            } else {
                PageRequest::after(at_most(hits), next)
            };
        }
    }
}

/// How much to read next, if so much is wanted, or was of the last: items that lie far apart are looked
/// up, so that a file whose items are in no order does not read the whole series for each part of it.
fn after(wanted: usize) -> usize {
    wanted.saturating_mul(2).clamp(1, AT_A_TIME)
}
