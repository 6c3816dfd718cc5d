//! Medians with their spread, and latencies.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sketches_ddsketch::{Config, DDSketch};

/// Median and range of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    /// Of these; all zero of none. Of an even number, the median is the mean of the middle two.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or_default();
        let last = figures.len().saturating_sub(1);
        let median = f64::midpoint(at(last / 2), at(figures.len() / 2));
        Self { least: at(0), median, most: at(last) }
    }

    /// With every figure replaced.
    pub fn map(self, with: impl Fn(f64) -> f64) -> Self {
        Self { least: with(self.least), median: with(self.median), most: with(self.most) }
    }
}

/// How long calls took, exact to a thousandth: a sketch of quantiles (DDSketch: Masson, Rim and
/// Lee, VLDB 2019) with bins for a nanosecond to a day.
#[derive(Clone)]
pub struct Latencies(DDSketch);

impl Default for Latencies {
    fn default() -> Self {
        Self(DDSketch::new(Config::new(0.001, 16_384, 1e-9)))
    }
}

impl Latencies {
    pub fn record(&mut self, time: Duration) {
        self.0.add(time.as_secs_f64());
    }

    pub fn add(&mut self, others: &Self) {
        // Fails for sketches of another precision; there is one.
        let _ = self.0.merge(&others.0);
    }

    /// Microseconds within which this share of the calls, from 0 to 1, was done; `None` without
    /// calls.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        self.0.quantile(share).ok().flatten().map(|seconds| seconds * 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_the_ends() {
        let spread = Spread::of([3.0, 1.0, 10.0]);
        assert_eq!(spread, Spread { least: 1.0, median: 3.0, most: 10.0 });
        assert_eq!(Spread::of([4.0, 2.0]).median, 3.0);
        assert_eq!(Spread::of([]), Spread::default());
    }

    #[test]
    fn quantiles_are_of_all_that_was_recorded() {
        let (mut some, mut more) = (Latencies::default(), Latencies::default());
        assert_eq!(some.quantile(0.5), None);
        for microseconds in 1..=98 {
            some.record(Duration::from_micros(microseconds));
        }
        more.record(Duration::from_millis(5));
        more.record(Duration::from_millis(5));
        some.add(&more);
        let near = |share: f64, expected: f64| {
            let found = some.quantile(share).unwrap_or_default();
            assert!((found / expected - 1.0).abs() < 0.002, "{share}: {found}, not {expected}");
        };
        near(0.5, 50.0);
        near(0.99, 5_000.0);
    }
}
