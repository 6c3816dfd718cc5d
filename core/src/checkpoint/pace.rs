//! How fast the backlog is flushed.

/// Flushing fewer rows at a time would cost more commits than it spares.
const LEAST: usize = 256;

/// How many rows to flush along with a batch that changed `arriving` rows.
///
/// Below half the limit none, so that changes of one row can meet; above it one and a half times
/// what arrives, so that the backlog shrinks; above the limit four times.
pub(super) fn flush_size(dirty: usize, arriving: usize, limit: usize, flushing: bool) -> usize {
    if dirty > limit {
        (arriving * 4).max(4 * LEAST)
    } else if dirty > limit / 2 || (flushing && dirty > limit / 8) {
        keeping_up(arriving)
    } else {
        0
    }
}

/// As many as shrink the backlog while `arriving` rows are added with every batch.
pub(super) fn keeping_up(arriving: usize) -> usize {
    (arriving + arriving / 2).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backlog_stays_bounded_under_any_steady_load() {
        for arriving in [1, 100, 2_000] {
            let (mut dirty, limit, mut most, mut flushing) = (0usize, 10_000, 0, false);
            for _ in 0..20_000 {
                let size = flush_size(dirty, arriving, limit, flushing);
                flushing = size > 0;
                dirty = (dirty + arriving).saturating_sub(size);
                most = most.max(dirty);
            }
            assert!(most <= limit + 4 * arriving, "{arriving}: {most}");
        }
    }
}
