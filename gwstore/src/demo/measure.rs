//! How long things took.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, maybe_done};
use ghostwire_store::Result;
use serde::Serialize;

/// What was done, in the order in which it was first done.
#[derive(Debug, Default)]
pub(super) struct Measurements {
    kinds: Vec<Kind>,
}

/// Every call of one kind.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    latencies: Vec<Duration>,
    busy: Duration,
}

/// What the calls of one kind come to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Figures {
    /// How many calls.
    pub(super) count: usize,
    /// Calls a second while such calls were made.
    pub(super) per_second: f64,
    /// Half of the calls took at most so long, in microseconds.
    pub(super) p50_micros: f64,
    /// 99 of 100 calls took at most so long, in microseconds.
    pub(super) p99_micros: f64,
}

impl Measurements {
    /// One call.
    pub(super) async fn call<T>(
        &mut self,
        name: &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let begun = Instant::now();
        let result = call.await;
        let took = begun.elapsed();
        self.add(name, took, [took]);
        result
    }

    /// Calls made at once, each as a client of its own would. They reach the store in the order of
    /// the list, so that what they come to can be repeated.
    pub(super) async fn wave<T, F: Future<Output = Result<T>>>(
        &mut self,
        name: &'static str,
        calls: impl IntoIterator<Item = F>,
    ) -> Vec<Result<T>> {
        let begun = Instant::now();
        let timed = |call: F| async move {
            let begun = Instant::now();
            let result = call.await;
            (begun.elapsed(), result)
        };
        // A budget for polling, as tokio gives tasks, would send some of them to the queue's end.
        let results = tokio::task::unconstrained(in_order(calls.into_iter().map(timed))).await;
        let busy = begun.elapsed();
        let (latencies, results): (Vec<_>, Vec<_>) = results.into_iter().unzip();
        self.add(name, busy, latencies);
        results
    }

    /// As [`Measurements::wave`], where each call has to succeed.
    pub(super) async fn all<T, F: Future<Output = Result<T>>>(
        &mut self,
        name: &'static str,
        calls: impl IntoIterator<Item = F>,
    ) -> Result<Vec<T>> {
        self.wave(name, calls).await.into_iter().collect()
    }

    /// A plain function, such as a read from a snapshot.
    pub(super) fn read<T>(&mut self, name: &'static str, read: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let value = read();
        let took = begun.elapsed();
        self.add(name, took, [took]);
        value
    }

    fn add(
        &mut self,
        name: &'static str,
        busy: Duration,
        latencies: impl IntoIterator<Item = Duration>,
    ) {
        let found = self.kinds.iter().position(|kind| kind.name == name);
        if found.is_none() {
            self.kinds.push(Kind { name, latencies: Vec::new(), busy: Duration::ZERO });
        }
        let kind = match found {
            Some(at) => self.kinds.get_mut(at),
            None => self.kinds.last_mut(),
        };
        if let Some(kind) = kind {
            kind.latencies.extend(latencies);
            kind.busy += busy;
        }
    }

    /// The kinds, in order.
    pub(super) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// How many calls there were in all.
    pub(super) fn count(&self) -> usize {
        self.kinds.iter().map(|kind| kind.latencies.len()).sum()
    }

    /// How long they took in all.
    pub(super) fn busy(&self) -> Duration {
        self.kinds.iter().map(|kind| kind.busy).sum()
    }
}

impl Kind {
    #[allow(clippy::cast_precision_loss)] // There are fewer than 2^53 calls.
    pub(super) fn figures(&self) -> Figures {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let count = sorted.len();
        Figures {
            count,
            per_second: count as f64 / self.busy.as_secs_f64().max(1e-9),
            p50_micros: micros(quantile(&sorted, 50)),
            p99_micros: micros(quantile(&sorted, 99)),
        }
    }
}

/// The smallest of the sorted values that at least `percent` of them do not exceed.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

pub(super) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

pub(super) fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    quantile(&durations, 50)
}

/// Starts all of them, strictly in order, and awaits them. What a store's write draws and when it
/// joins the queue is decided when it is first polled.
async fn in_order<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| Box::pin(maybe_done(future))).collect();
    std::future::poll_fn(|context| {
        for future in &mut waiting {
            let _ = future.as_mut().poll(context);
        }
        Poll::Ready(())
    })
    .await;
    join_all(waiting.iter_mut().map(Pin::as_mut)).await;
    waiting.iter_mut().filter_map(|future| future.as_mut().take_output()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<_> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!(quantile(&values, 50), Duration::from_micros(100));
        assert_eq!(quantile(&values, 99), Duration::from_micros(198));
        assert_eq!(quantile(values.get(..1).unwrap(), 99), Duration::from_micros(1));
        assert_eq!(quantile(&[], 50), Duration::ZERO);
    }

    #[tokio::test]
    async fn waves_start_in_order_even_if_they_are_large() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(4096);
        let mut measurements = Measurements::default();
        let calls = (0..2000).map(|number| {
            let sender = sender.clone();
            async move {
                sender.send(number).await.unwrap();
                tokio::task::yield_now().await;
                Ok(number)
            }
        });
        let results = measurements.all("send", calls).await.unwrap();
        assert_eq!(results, (0..2000).collect::<Vec<_>>());
        let mut received = Vec::new();
        receiver.close();
        while let Some(number) = receiver.recv().await {
            received.push(number);
        }
        assert_eq!(received, results);
        assert_eq!(measurements.count(), 2000);
    }
}
