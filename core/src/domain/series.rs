//! Metrics, a series that is not held in memory.

use serde::{Deserialize, Serialize};

use super::{MetricName, NodeId, Timestamp};
use crate::error::{Error, Result};

/// A measured value: any finite 64-bit float. Negative zero becomes zero, so that every
/// database gives back the same bits.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Sample(f64);

impl Sample {
    /// # Errors
    /// `InvalidArgument` for NaN and infinities.
    pub fn new(value: f64) -> Result<Self> {
        if !value.is_finite() {
            return Err(Error::invalid("a metric's value is a finite number").with("value", value));
        }
        Ok(Self(value + 0.0))
    }

    /// The value; it is finite.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Sample {
    type Error = Error;

    fn try_from(value: f64) -> Result<Self> {
        Self::new(value)
    }
}

impl From<Sample> for f64 {
    fn from(sample: Sample) -> Self {
        sample.0
    }
}

/// One measurement. (node, metric, at) is its key; recording it again replaces the value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricPoint {
    /// The node it was measured on; `None` for the network as a whole. Points of a node that was
    /// deleted stay until retention removes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// What was measured; the unit belongs into the name, as in `rx_bytes_total`.
    pub metric: MetricName,
    /// When it was measured.
    pub at: Timestamp,
    /// The measured value.
    pub value: Sample,
}

/// Which metric points to read: `from <= at < to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricQuery {
    /// Only of this node. `Some(None)` is the network as a whole; `None` is every node.
    pub node: Option<Option<NodeId>>,
    /// Only this metric.
    pub metric: Option<MetricName>,
    /// First moment, inclusive.
    pub from: Timestamp,
    /// Last moment, exclusive.
    pub to: Timestamp,
}

/// The width of a rollup's buckets, aligned to the epoch in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Rollup {
    Minute,
    Hour,
    Day,
}

impl Rollup {
    /// The width in microseconds.
    #[must_use]
    pub fn micros(self) -> i64 {
        match self {
            Self::Minute => 60_000_000,
            Self::Hour => 3_600_000_000,
            Self::Day => 86_400_000_000,
        }
    }
}

/// What the points of one bucket amount to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Aggregate {
    /// Where the bucket begins.
    pub from: Timestamp,
    /// How many points; never 0.
    pub count: u64,
    /// The smallest of the values.
    pub min: f64,
    /// The largest of the values.
    pub max: f64,
    /// Sum of the values, added in the order of (node, metric, time). Once it is beyond what an
    /// `f64` holds (about 1.8e308) it is infinite and stays so; it is never NaN. In JSON an
    /// infinite one is `null`.
    pub sum: f64,
    /// The value of the latest point; of several at one moment, the last in (node, metric) order.
    pub last: f64,
    /// When that was.
    pub last_at: Timestamp,
}

impl Aggregate {
    /// The arithmetic mean; infinite if the sum is.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }
}
