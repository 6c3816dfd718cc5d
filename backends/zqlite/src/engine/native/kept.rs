//! What was removed and somebody may still read.

use std::collections::HashMap;

/// How much is kept. Beyond that readers have to begin anew.
const MAX_KEPT: usize = 64 << 20;

/// Values that were removed.
#[derive(Debug)]
pub(super) struct Kept {
    /// Each with the version that is without it.
    values: HashMap<u64, (Box<[u8]>, u64)>,
    bytes: usize,
    most: usize,
    /// Snapshots of earlier versions cannot be read any more.
    oldest: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { values: HashMap::new(), bytes: 0, most: MAX_KEPT, oldest: 0 }
    }
}

/// Values that are removed once a write succeeded. Until then they change nothing.
#[derive(Debug)]
pub(super) struct Removed {
    values: Vec<(u64, Box<[u8]>)>,
    bytes: usize,
    room: usize,
}

impl Removed {
    pub(super) fn add(&mut self, id: u64, value: &[u8]) {
        self.bytes += value.len();
        match self.bytes <= self.room {
            true => self.values.push((id, value.into())),
            false => self.values.clear(),
        }
    }
}

impl Kept {
    /// For what a write is about to remove.
    pub(super) fn begin(&self) -> Removed {
        Removed { values: Vec::new(), bytes: 0, room: self.most - self.bytes.min(self.most) }
    }

    /// The write succeeded, and that version is without them.
    pub(super) fn apply(&mut self, removed: Removed, without: u64) {
        if removed.bytes > removed.room {
            self.values.clear();
            (self.bytes, self.oldest) = (0, without);
            return;
        }
        self.bytes += removed.bytes;
        let values = removed.values.into_iter().map(|(id, value)| (id, (value, without)));
        self.values.extend(values);
    }

    /// Whether a snapshot of this version can be read.
    pub(super) fn has(&self, version: u64) -> bool {
        version >= self.oldest
    }

    pub(super) fn get(&self, id: u64) -> Option<&[u8]> {
        self.values.get(&id).map(|(value, _)| &**value)
    }

    /// Nobody reads a version before this one any more.
    pub(super) fn forget_before(&mut self, oldest: u64) {
        if self.values.is_empty() {
            return;
        }
        self.values.retain(|_, (_, without)| *without > oldest);
        self.bytes = self.values.values().map(|(value, _)| value.len()).sum();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn small() -> Kept {
        Kept { most: 10, ..Kept::default() }
    }

    fn remove(kept: &Kept, values: &[(u64, &[u8])]) -> Removed {
        let mut removed = kept.begin();
        values.iter().for_each(|(id, value)| removed.add(*id, value));
        removed
    }

    #[test]
    fn what_a_failed_write_would_remove_changes_nothing() {
        let mut kept = small();
        let removed = remove(&kept, &[(1, b"one")]);
        kept.apply(removed, 1);
        for values in [&[(2, &b"two"[..])][..], &[(2, &b"more than there is room for"[..])][..]] {
            drop(remove(&kept, values));
            assert!(kept.has(0));
            assert_eq!((kept.get(1), kept.get(2)), (Some(&b"one"[..]), None));
            assert_eq!(kept.bytes, 3);
        }
    }

    #[test]
    fn beyond_the_limit_readers_begin_anew() {
        let mut kept = small();
        let removed = remove(&kept, &[(1, b"five."), (2, b"five.")]);
        kept.apply(removed, 4);
        assert!(kept.has(3));
        let removed = remove(&kept, &[(3, b"6")]);
        kept.apply(removed, 5);
        assert_eq!((kept.has(4), kept.has(5), kept.get(1)), (false, true, None));
        let removed = remove(&kept, &[(4, b"four")]);
        kept.apply(removed, 6);
        assert_eq!((kept.has(5), kept.get(4)), (true, Some(&b"four"[..])));
    }

    #[test]
    fn what_nobody_reads_is_forgotten() {
        let mut kept = small();
        for (id, without) in [(1, 1), (2, 2)] {
            let removed = remove(&kept, &[(id, b"row")]);
            kept.apply(removed, without);
        }
        kept.forget_before(1);
        assert_eq!((kept.get(1), kept.get(2), kept.bytes), (None, Some(&b"row"[..]), 3));
        kept.forget_before(u64::MAX);
        assert_eq!((kept.get(2), kept.bytes), (None, 0));
    }
}
