//! Reading the series page by page, straight from the backend.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::backend::{Backend, KeyRange, Row, Scan};
use crate::checkpoint::{Entries, UnflushedAudit};
use crate::digest::{Digest, RowHasher};
use crate::domain::{AuditEntry, Id, MetricName, MetricPoint, MetricQuery, NodeId, Timestamp};
use crate::error::{EntityKind, Result};
use crate::schema::{Record, RowKey, Table};

/// Rows are read at most this many at a time.
const ROWS_PER_READ: usize = 1000;

/// In a key, the nil id means the network as a whole, which is not a node.
pub(crate) fn check_node(node: Option<NodeId>) -> Result<()> {
    let checked = node.map_or(Ok(()), |node| node.not_nil().map(drop));
    checked.map_err(|error| error.about(EntityKind::Metric))
}

fn of_series(node: Option<NodeId>, metric: &MetricName) -> RowKey {
    RowKey::new().optional_id(node.as_ref().map(NodeId::as_bytes)).text(metric.as_str())
}

/// Reads the points of a query in the order of (node, metric, time). Steps from series to series
/// by key, so that points outside the query are not read: one scan finds the next series, or the
/// next node if only one metric is wanted, and one reads it. Each scan is of a moment of its own.
pub(crate) struct MetricReader<'b> {
    backend: &'b dyn Backend,
    query: MetricQuery,
    /// Where to look next; `None` at the end.
    next: Option<RowKey>,
}

impl<'b> MetricReader<'b> {
    /// # Errors
    /// `InvalidArgument` for the nil id as node.
    pub(crate) fn new(
        backend: &'b dyn Backend,
        query: MetricQuery,
        after: Option<RowKey>,
    ) -> Result<Self> {
        check_node(query.node.flatten())?;
        let start = match (&query.node, &query.metric) {
            (Some(node), Some(metric)) => of_series(*node, metric).integer(query.from.as_micros()),
            (Some(node), None) => RowKey::new().optional_id(node.as_ref().map(NodeId::as_bytes)),
            (None, _) => RowKey::new(),
        };
        // A cursor is not trusted: it cannot begin before the query does.
        let next = match after {
            Some(after) => start.max(after.successor()),
            None => start,
        };
        let next = (query.from < query.to).then_some(next);
        Ok(Self { backend, query, next })
    }

    /// At most `limit` further points; empty at the end.
    pub(crate) async fn read(&mut self, limit: usize) -> Result<Vec<MetricPoint>> {
        let mut points = Vec::new();
        while points.len() < limit {
            let more = self.read_series(limit - points.len()).await?;
            if more.is_empty() {
                break;
            }
            points.extend(more);
        }
        Ok(points)
    }

    /// At most `limit` further points of one series, by one scan; empty at the end.
    pub(crate) async fn read_series(&mut self, limit: usize) -> Result<Vec<MetricPoint>> {
        while let Some(from_key) = self.next.clone() {
            let Some(found) = self.rows(from_key.clone(), self.end(), 1).await?.pop() else {
                self.next = None;
                break;
            };
            let (range, next) = self.wanted_at(MetricPoint::decode(&found.key, &found.body)?);
            self.next = next;
            let Some((from, to)) = range else { continue };
            // Not from the point that was found: others may have been written before it since.
            let rows = self.rows(from.max(from_key), Some(to), limit).await?;
            if let Some(last) = rows.last()
                && rows.len() == limit
            {
                self.next = Some(last.key.clone().successor());
            }
            if !rows.is_empty() {
                return rows.iter().map(|row| MetricPoint::decode(&row.key, &row.body)).collect();
            }
        }
        Ok(Vec::new())
    }

    /// Which points to read, if any, when `point` is the next one that is stored, and where to look
    /// after them.
    fn wanted_at(&self, point: MetricPoint) -> (Option<(RowKey, RowKey)>, Option<RowKey>) {
        let MetricQuery { metric: wanted, from, to, .. } = &self.query;
        let series = of_series(point.node, wanted.as_ref().unwrap_or(&point.metric));
        let prefix = match wanted {
            Some(_) => RowKey::new().optional_id(point.node.as_ref().map(NodeId::as_bytes)),
            None => series.clone(),
        };
        let is_past = match wanted.as_ref().map(|wanted| point.metric.cmp(wanted)) {
            Some(Ordering::Less) => false,
            Some(Ordering::Greater) => true,
            Some(Ordering::Equal) | None => point.at >= *to,
        };
        let range = (series.clone().integer(from.as_micros()), series.integer(to.as_micros()));
        ((!is_past).then_some(range), prefix.after_prefix())
    }

    /// The end of what the query can contain.
    fn end(&self) -> Option<RowKey> {
        let node = self.query.node.as_ref()?;
        RowKey::new().optional_id(node.as_ref().map(NodeId::as_bytes)).after_prefix()
    }

    async fn rows(&self, from: RowKey, to: Option<RowKey>, limit: usize) -> Result<Vec<Row>> {
        let range = KeyRange { table: Table::Metrics, from, to };
        Ok(self.backend.scan(Scan { range, reverse: false, limit }).await?.rows)
    }
}

/// The ranges of points before a moment, one for each series.
pub(crate) async fn metric_ranges_before(
    backend: &dyn Backend,
    before: Timestamp,
) -> Result<Vec<KeyRange>> {
    let mut ranges = Vec::new();
    let mut from = RowKey::new();
    loop {
        let range = KeyRange { table: Table::Metrics, from, to: None };
        let rows = backend.scan(Scan { range, reverse: false, limit: 1 }).await?.rows;
        let Some(row) = rows.first() else { return Ok(ranges) };
        let point = MetricPoint::decode(&row.key, &row.body)?;
        let series = of_series(point.node, &point.metric);
        if point.at < before {
            ranges.push(KeyRange {
                table: Table::Metrics,
                from: series.clone(),
                to: Some(series.clone().integer(before.as_micros())),
            });
        }
        match series.after_prefix() {
            Some(next) => from = next,
            None => return Ok(ranges),
        }
    }
}

/// The ranges of points from a moment on, one for each series that has any.
pub(crate) async fn metric_ranges_from(
    backend: &dyn Backend,
    at: Timestamp,
) -> Result<Vec<KeyRange>> {
    let query = MetricQuery { node: None, metric: None, from: at, to: Timestamp::MAX };
    let mut reader = MetricReader::new(backend, query, None)?;
    let mut ranges = Vec::new();
    while let Some(point) = reader.read(1).await?.pop() {
        let series = of_series(point.node, &point.metric);
        let to = series.clone().after_prefix();
        ranges.push(KeyRange { table: Table::Metrics, from: point.key(), to: to.clone() });
        reader.next = to;
    }
    Ok(ranges)
}

/// How many rows there are in these ranges.
pub(crate) async fn count_rows(backend: &dyn Backend, ranges: &[KeyRange]) -> Result<u64> {
    let mut count = 0;
    for range in ranges {
        let mut range = range.clone();
        loop {
            let scan = Scan { range: range.clone(), reverse: false, limit: ROWS_PER_READ };
            let rows = backend.scan(scan).await?.rows;
            count += rows.len() as u64;
            match rows.last() {
                Some(last) if rows.len() == ROWS_PER_READ => {
                    range.from = last.key.clone().successor();
                }
                _ => break,
            }
        }
    }
    Ok(count)
}

/// Reads the audit trail: the rows of the table, merged with entries that are only in blocks.
pub(crate) struct AuditReader<'b> {
    backend: &'b dyn Backend,
    unflushed: Entries,
    peeked: Option<(RowKey, Arc<AuditEntry>)>,
    range: KeyRange,
    reverse: bool,
    rows: std::vec::IntoIter<Row>,
    row: Option<Row>,
    /// How many rows to read next.
    ahead: usize,
    exhausted: bool,
}

impl<'b> AuditReader<'b> {
    /// `unflushed` must be taken before this is made, so that nothing falls between. At first
    /// `wanted` rows are read, then more and more: a filter may let few through.
    pub(crate) fn new(
        backend: &'b dyn Backend,
        unflushed: &UnflushedAudit,
        range: KeyRange,
        reverse: bool,
        wanted: usize,
    ) -> Self {
        Self {
            backend,
            unflushed: unflushed.within(&range, reverse),
            peeked: None,
            range,
            reverse,
            rows: Vec::new().into_iter(),
            row: None,
            ahead: wanted.clamp(1, ROWS_PER_READ),
            exhausted: false,
        }
    }

    /// The next entry in order.
    pub(crate) async fn next(&mut self) -> Result<Option<Arc<AuditEntry>>> {
        if self.peeked.is_none() {
            self.peeked = self.unflushed.next();
        }
        if self.row.is_none() {
            self.row = self.next_row().await?;
        }
        let order = match (&self.peeked, &self.row) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((key, _)), Some(row)) if self.reverse => row.key.cmp(key),
            (Some((key, _)), Some(row)) => key.cmp(&row.key),
        };
        if order.is_le() {
            if order.is_eq() {
                self.row = None;
            }
            return Ok(self.peeked.take().map(|(_, entry)| entry));
        }
        match self.row.take() {
            Some(row) => Ok(Some(Arc::new(AuditEntry::decode(&row.key, &row.body)?))),
            None => Ok(None),
        }
    }

    async fn next_row(&mut self) -> Result<Option<Row>> {
        if let Some(row) = self.rows.next() {
            return Ok(Some(row));
        }
        if self.exhausted {
            return Ok(None);
        }
        let scan = Scan { range: self.range.clone(), reverse: self.reverse, limit: self.ahead };
        let rows = self.backend.scan(scan).await?.rows;
        self.exhausted = rows.len() < self.ahead;
        self.ahead = (self.ahead * 2).min(ROWS_PER_READ);
        if let Some(last) = rows.last() {
            if self.reverse {
                self.range.to = Some(last.key.clone());
            } else {
                self.range.from = last.key.clone().successor();
            }
        }
        self.rows = rows.into_iter();
        Ok(self.rows.next())
    }
}

/// The digest of all stored metric points.
pub(crate) async fn metrics_digest(backend: &dyn Backend) -> Result<Digest> {
    let mut hasher = RowHasher::default();
    let mut from = RowKey::new();
    loop {
        let range = KeyRange { table: Table::Metrics, from, to: None };
        let page = backend.scan(Scan { range, reverse: false, limit: ROWS_PER_READ }).await?;
        let rows = page.rows;
        for row in &rows {
            let point = MetricPoint::decode(&row.key, &row.body)?;
            hasher.add(&row.key, &point.encode());
        }
        match rows.last() {
            Some(last) => from = last.key.clone().successor(),
            None => return Ok(hasher.finish()),
        }
    }
}

/// The digest of the whole audit trail.
pub(crate) async fn audit_digest(mut reader: AuditReader<'_>) -> Result<Digest> {
    let mut hasher = RowHasher::default();
    while let Some(entry) = reader.next().await? {
        hasher.add(&entry.key(), &entry.encode());
    }
    Ok(hasher.finish())
}
