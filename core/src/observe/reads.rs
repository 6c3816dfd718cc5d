//! Counting reads. A read takes less time than two looks at a clock, so they are counted and not timed;
//! each thread counts by itself, since a counter that all share would make them wait for each other.

use std::sync::atomic::{AtomicU64, Ordering};

use thread_local::ThreadLocal;

/// How many reads there were.
#[derive(Debug, Default)]
pub(crate) struct Reads(ThreadLocal<Count>);

/// Only its own thread writes it. Apart from others by a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Count(AtomicU64);

impl Reads {
    /// Counts one.
    #[inline]
    pub(crate) fn count(&self) {
        let Count(count) = self.0.get_or_default();
        // No other thread writes, so this needs no atomic addition.
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// How many there were on all threads, those that ended included.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|Count(count)| count.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_counts_and_none_is_forgotten() {
        let reads = Reads::default();
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| (0..1000).for_each(|_| reads.count()));
            }
        });
        reads.count();
        assert_eq!(reads.total(), 4001);
    }
}
