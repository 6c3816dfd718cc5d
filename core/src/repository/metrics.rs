//! Metrics.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::BytesMut;

use crate::block::{ChangeKind, RowChange};
use crate::domain::{
    Aggregate, Cursor, Id, MetricPoint, MetricQuery, Page, PageRequest, Rollup, Timestamp,
    WriterId, fingerprint,
};
use crate::error::{Error, Result};
use crate::handle::StoreHandle;
use crate::schema::{Record, RowKey, Table};
use crate::series::{MetricReader, check_node, metric_ranges_before};
use crate::writer::SeriesRows;

/// A batch has at most this many points.
const MAX_POINTS: usize = 10_000;
/// What a point's body takes, about.
const BODY: usize = 10;
/// A rollup has at most this many buckets.
const MAX_BUCKETS: i64 = 10_000;
/// Points are read this many at a time while they are added up.
const POINTS_PER_READ: usize = 1000;

/// Metrics: what nodes and the network measure. A series is not held in memory.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use ghostwire_store::domain::{MetricPoint, MetricQuery, Rollup, Sample, Timestamp};
///
/// let point = |second: i64, value: f64| -> ghostwire_store::Result<MetricPoint> {
///     let at = Timestamp::from_secs(1_760_000_400 + second)?;
///     // `None` is the network as a whole.
///     Ok(MetricPoint { node: None, metric: "rx_bytes".parse()?, at, value: Sample::new(value)? })
/// };
/// store.metrics().record_many(vec![point(0, 1.0)?, point(30, 2.0)?, point(60, 4.0)?]).await?;
///
/// let (from, to) = (point(0, 0.0)?.at, point(120, 0.0)?.at); // from <= at < to
/// let query = MetricQuery { node: Some(None), metric: Some("rx_bytes".parse()?), from, to };
/// let minutes = store.metrics().rollup(&query, Rollup::Minute).await?;
/// assert_eq!(minutes.iter().map(|minute| minute.sum).collect::<Vec<_>>(), [3.0, 4.0]);
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait MetricRepository: Send + Sync {
    /// Records one point. A point with the same node, metric and time is replaced.
    ///
    /// # Behavior
    /// - It is durable as any other write, but no commit: `watch` does not tell of it.
    /// - Points of many callers share a synchronisation of the disk; `record_many` costs less still.
    ///
    /// # Errors
    /// `InvalidArgument` for the nil id as node; those of any write.
    async fn record(&self, point: MetricPoint) -> Result<()>;

    /// Records at most 10,000 points: all, or none. Of several with one key the last one counts.
    ///
    /// # Errors
    /// `InvalidArgument` above 10,000, and for the nil id as a node; those of any write.
    async fn record_many(&self, points: Vec<MetricPoint>) -> Result<()>;

    /// Like [`record_many`](Self::record_many), for a writer that numbers its batches, so that
    /// repeating one after an error stores it once.
    ///
    /// # Behavior
    /// - A batch whose `sequence` is not above the last one stored for `writer` does nothing, also
    ///   after a restart.
    /// - What is known of a writer, 24 bytes and a row, is kept for ever: one that restarts goes on
    ///   under its id, with greater numbers.
    /// - On a shared backend a writer sends through one process at a time.
    ///
    /// # Errors
    /// As `record_many`; `InvalidArgument` also for a sequence above `i64::MAX` and the nil id.
    async fn record_batch(
        &self,
        writer: WriterId,
        sequence: u64,
        points: Vec<MetricPoint>,
    ) -> Result<()>;

    /// A page of points, by node (none first), metric and time.
    ///
    /// # Behavior
    /// - Reads in parts of at most 1,000 points of one series, each of one moment.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another query; `Unavailable`, `Corrupt`.
    async fn range(&self, query: &MetricQuery, page: &PageRequest) -> Result<Page<MetricPoint>>;

    /// All matching points as one; `None` if there are none.
    ///
    /// # Behavior
    /// - Takes time in proportion to the points, and memory for 1,000 of them.
    /// - A series of up to 1,000 matching points is of one moment.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    async fn aggregate(&self, query: &MetricQuery) -> Result<Option<Aggregate>>;

    /// The matching points by minute, hour or day in UTC, oldest first; buckets without points are
    /// left out.
    ///
    /// # Behavior
    /// - As [`aggregate`](Self::aggregate), for each bucket.
    ///
    /// # Errors
    /// `InvalidArgument` if the query spans more than 10,000 buckets; `Unavailable`, `Corrupt`.
    async fn rollup(&self, query: &MetricQuery, width: Rollup) -> Result<Vec<Aggregate>>;

    /// Removes all points before a moment. `apply_retention` of the facade calls it as the
    /// configuration says.
    ///
    /// # Errors
    /// Those of any write.
    async fn prune(&self, before: Timestamp) -> Result<()>;
}

fn rows(points: &[MetricPoint]) -> Result<Vec<RowChange>> {
    if points.len() > MAX_POINTS {
        return Err(Error::invalid("a batch has at most 10000 points")
            .about(crate::error::EntityKind::Metric)
            .with("points", points.len()));
    }
    let nil = points.iter().filter_map(|point| point.node).find(Id::is_nil);
    check_node(nil)?;
    // One buffer for all bodies, of which each is a part.
    let mut buffer = BytesMut::with_capacity(points.len() * BODY);
    let row = |point: &MetricPoint| {
        point.encode_into(&mut buffer);
        let body = Some(buffer.split().freeze());
        RowChange { table: Table::Metrics, kind: ChangeKind::Updated, key: point.key(), body }
    };
    Ok(points.iter().map(row).collect())
}

/// How many buckets a query touches, the first and the last one maybe in part.
fn buckets(query: &MetricQuery, width: Rollup) -> i64 {
    if query.from >= query.to {
        return 0;
    }
    let bucket = |micros: i64| micros / width.micros();
    bucket(query.to.as_micros() - 1) - bucket(query.from.as_micros()) + 1
}

/// Adds a point to an aggregate, or begins one.
fn add(slot: &mut Option<Aggregate>, from: Timestamp, point: &MetricPoint) {
    let value = point.value.get();
    match slot {
        None => {
            *slot = Some(Aggregate {
                from,
                count: 1,
                min: value,
                max: value,
                sum: value,
                last: value,
                last_at: point.at,
            });
        }
        Some(aggregate) => {
            aggregate.count += 1;
            aggregate.min = aggregate.min.min(value);
            aggregate.max = aggregate.max.max(value);
            aggregate.sum += value;
            if point.at >= aggregate.last_at {
                aggregate.last = value;
                aggregate.last_at = point.at;
            }
        }
    }
}

#[async_trait]
impl MetricRepository for StoreHandle {
    async fn record(&self, point: MetricPoint) -> Result<()> {
        self.record_many(vec![point]).await
    }

    async fn record_many(&self, points: Vec<MetricPoint>) -> Result<()> {
        const OPERATION: &str = "metric.record_many";
        let rows = rows(&points).map_err(|error| error.during(OPERATION))?;
        if rows.is_empty() {
            return self.open_view(OPERATION).map(|_| ());
        }
        self.append_series(OPERATION, SeriesRows { rows, position: None }).await
    }

    async fn record_batch(
        &self,
        writer: WriterId,
        sequence: u64,
        points: Vec<MetricPoint>,
    ) -> Result<()> {
        const OPERATION: &str = "metric.record_batch";
        crate::domain::Revision::new(sequence).map_err(|error| error.during(OPERATION))?;
        writer.not_nil().map_err(|error| error.during(OPERATION))?;
        let rows = rows(&points).map_err(|error| error.during(OPERATION))?;
        let position = Some((writer, sequence));
        self.append_series(OPERATION, SeriesRows { rows, position }).await
    }

    async fn range(&self, query: &MetricQuery, page: &PageRequest) -> Result<Page<MetricPoint>> {
        const OPERATION: &str = "metric.range";
        self.open_view(OPERATION)?;
        let named = serde_json::to_vec(query).unwrap_or_default();
        // In JSON, every node and none are both `null`.
        let of_one_node = [u8::from(query.node.is_some())];
        let fingerprint = fingerprint(&[b"metric", &of_one_node, &named]);
        let read = async {
            let after = match &page.cursor {
                Some(cursor) => Some(RowKey::from_bytes(cursor.position_for(fingerprint)?)?),
                None => None,
            };
            let mut reader = MetricReader::new(self.backend(), query.clone(), after)?;
            let limit = page.limit.get();
            let mut items = reader.read(limit + 1).await?;
            let more = items.len() > limit;
            items.truncate(limit);
            let next = match items.last().filter(|_| more) {
                Some(last) => Some(Cursor::new(fingerprint, last.key().as_bytes())?),
                None => None,
            };
            Ok(Page { items, next })
        };
        read.await.map_err(|error: Error| error.during(OPERATION))
    }

    async fn aggregate(&self, query: &MetricQuery) -> Result<Option<Aggregate>> {
        const OPERATION: &str = "metric.aggregate";
        self.open_view(OPERATION)?;
        let mut reader = MetricReader::new(self.backend(), query.clone(), None)
            .map_err(|error| error.during(OPERATION))?;
        let mut aggregate = None;
        loop {
            let points = reader
                .read_series(POINTS_PER_READ)
                .await
                .map_err(|error| error.during(OPERATION))?;
            if points.is_empty() {
                return Ok(aggregate);
            }
            points.iter().for_each(|point| add(&mut aggregate, query.from, point));
        }
    }

    async fn rollup(&self, query: &MetricQuery, width: Rollup) -> Result<Vec<Aggregate>> {
        const OPERATION: &str = "metric.rollup";
        self.open_view(OPERATION)?;
        let buckets = buckets(query, width);
        if buckets > MAX_BUCKETS {
            return Err(Error::invalid("a rollup has at most 10000 buckets; narrow the query")
                .with("buckets", buckets)
                .during(OPERATION));
        }
        let mut reader = MetricReader::new(self.backend(), query.clone(), None)
            .map_err(|error| error.during(OPERATION))?;
        let mut buckets: BTreeMap<i64, Option<Aggregate>> = BTreeMap::new();
        loop {
            let points = reader
                .read_series(POINTS_PER_READ)
                .await
                .map_err(|error| error.during(OPERATION))?;
            if points.is_empty() {
                return Ok(buckets.into_values().flatten().collect());
            }
            for point in &points {
                let start = point.at.as_micros() / width.micros() * width.micros();
                let from = Timestamp::from_micros(start)?;
                add(buckets.entry(start).or_default(), from, point);
            }
        }
    }

    async fn prune(&self, before: Timestamp) -> Result<()> {
        const OPERATION: &str = "metric.prune";
        self.open_view(OPERATION)?;
        let ranges = metric_ranges_before(self.backend(), before)
            .await
            .map_err(|error| error.during(OPERATION))?;
        self.prune_series(OPERATION, ranges).await
    }
}
