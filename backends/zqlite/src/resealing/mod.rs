//! Sealing anew under the newest data key, a slice at a time.
//!
//! A rotation adds a version of the data key, under which everything is sealed that is written from then
//! on. What lies there already is opened and sealed anew in slices between commits: rows by slot; leaves of
//! the directory with the data blocks that they name; blocks, both parts; entries of the journal. Each
//! slice is a commit of its own, and the head says how far that came, so that it goes on after a crash.
//! What stands beside the head is written anew by every checkpoint.

mod count;
mod slice;

use bytes::{Buf, BufMut};
use ghostwire_store_core::error::{Error, ErrorKind};

pub(crate) use count::recounted;
pub(crate) use slice::{Slice, plan_slice};

/// How many versions may have records at one time.
pub(crate) const MOST_VERSIONS: usize = 8;

/// How far the records are sealed under the newest version, as the head says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Resealing {
    /// The version that the cursor goes towards. 0: none was ever begun.
    pub(crate) version: u32,
    pub(crate) cursor: Cursor,
    pub(crate) counts: Counts,
}

/// Everything up to here is sealed anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub(crate) stage: Stage,
    /// Of the stage's last record that is done; records are numbered from 1.
    pub(crate) number: u64,
}

/// What is sealed anew, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    #[default]
    Rows = 0,
    /// Leaf by leaf, with the data blocks that they name.
    Directory = 1,
    Blocks = 2,
    Journal = 3,
    Done = 4,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Rows, Self::Directory, Self::Blocks, Self::Journal, Self::Done];

    fn next(self) -> Self {
        Self::ALL.get(self as usize + 1).copied().unwrap_or(Self::Done)
    }
}

/// How many records are sealed under which version: rows, data blocks, leaves, parts of blocks, entries of
/// the journal. In ascending order, zeros behind; all zeros in a plain store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts([(u32, u64); MOST_VERSIONS]);

impl Counts {
    pub(crate) fn only(version: u32, records: u64) -> Self {
        let mut counts = Self::default();
        if let Some(first) = counts.0.first_mut().filter(|_| records > 0) {
            *first = (version, records);
        }
        counts
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u64)> {
        self.0.into_iter().filter(|(_, records)| *records > 0)
    }

    /// Whether there is no place for a further version, so that two may be counted as one.
    pub(crate) fn is_full(&self) -> bool {
        self.iter().count() == MOST_VERSIONS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The one version that has records.
    pub(crate) fn single(&self) -> Option<u32> {
        let mut versions = self.iter();
        versions.next().filter(|_| versions.next().is_none()).map(|(version, _)| version)
    }

    pub(crate) fn total(&self) -> u64 {
        self.iter().fold(0, |total, (_, records)| total.saturating_add(records))
    }

    pub(crate) fn under(&self, version: u32) -> u64 {
        self.iter().find(|(found, _)| *found == version).map_or(0, |(_, records)| records)
    }

    /// Whether records can be sealed under one more version than `active`, which may have none yet.
    pub(crate) fn has_room(&self, active: u32) -> bool {
        self.iter().filter(|(version, _)| *version != active).count() + 2 <= MOST_VERSIONS
    }

    /// One more. Where there is no place for its version, which a rotation sees to, those of the oldest are
    /// counted with the next: no commit fails because of that.
    pub(crate) fn add(&mut self, version: u32) {
        if self.is_full() && self.under(version) == 0 {
            let [(_, oldest), (_, next), ..] = &mut self.0;
            *next = next.saturating_add(*oldest);
            *oldest = 0;
            self.tidy();
        }
        let own = self.0.iter_mut().find(|(it, records)| *it == version || *records == 0);
        if let Some(own) = own {
            *own = (version, own.1.saturating_add(1));
            self.tidy();
        }
    }

    /// One fewer; of the next version that is counted, where this one's are counted with that.
    pub(crate) fn take(&mut self, version: u32) {
        if let Some((_, records)) =
            self.0.iter_mut().find(|(it, records)| *it >= version && *records > 0)
        {
            *records -= 1;
            if *records == 0 {
                self.tidy();
            }
        }
    }

    fn tidy(&mut self) {
        self.0.iter_mut().filter(|(_, records)| *records == 0).for_each(|it| *it = (0, 0));
        self.0.sort_by_key(|(version, records)| (*records == 0, *version));
    }
}

/// More versions than the head counts records of.
pub(crate) fn too_many_versions() -> Error {
    Error::new(
        ErrorKind::Restricted,
        "records are sealed under 8 versions of the data key already; let them be sealed anew before you \
         rotate again",
    )
    .with("help", "`gwstore keys reseal` does that for a store that nobody has open")
}

impl Resealing {
    pub(crate) const LENGTH: usize = 4 + 1 + 8 + MOST_VERSIONS * (4 + 8);

    /// Whether every record is sealed under `version`.
    pub(crate) fn is_complete(&self, version: u32) -> bool {
        self.counts.iter().all(|(found, _)| found == version)
    }

    /// Whether everything was passed, and some records are counted under another version all the same.
    pub(crate) fn is_stuck(&self, version: u32) -> bool {
        self.version == version && self.cursor.stage == Stage::Done && !self.is_complete(version)
    }

    /// Towards this version: from the beginning, if it was another one.
    pub(crate) fn towards(self, version: u32) -> Self {
        match self.version == version {
            true => self,
            false => Self { version, cursor: Cursor::default(), ..self },
        }
    }

    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        let Self { version, cursor, counts } = self;
        into.put_u32(*version);
        into.put_u8(cursor.stage as u8);
        into.put_u64(cursor.number);
        for (version, records) in counts.0 {
            into.put_u32(version);
            into.put_u64(records);
        }
    }

    /// To be called with enough bytes. `None` for what was never encoded.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let (version, stage, number) = (bytes.get_u32(), bytes.get_u8(), bytes.get_u64());
        let mut counts = Counts::default();
        // Evaluated in the order in which it is written.
        counts.0.iter_mut().for_each(|count| *count = (bytes.get_u32(), bytes.get_u64()));
        let mut tidied = counts;
        tidied.tidy();
        let is_strict = counts.iter().map(|(version, _)| version).is_sorted_by(|a, b| a < b);
        let stage = Stage::ALL.get(usize::from(stage)).copied()?;
        (tidied == counts && is_strict).then_some(Self {
            version,
            cursor: Cursor { stage, number },
            counts,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_by_version() {
        let mut counts = Counts::only(2, 2);
        assert_eq!(counts.single(), Some(2));
        counts.add(3);
        counts.add(1);
        counts.add(3);
        assert_eq!(counts.iter().collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 2)]);
        assert_eq!(
            (counts.total(), counts.under(3), counts.under(9), counts.single()),
            (5, 2, 0, None)
        );
        counts.take(1);
        counts.take(2);
        counts.take(9);
        assert_eq!(counts.iter().collect::<Vec<_>>(), [(2, 1), (3, 2)]);
        (4..9).for_each(|version| counts.add(version));
        assert_eq!(counts.iter().count(), 7);
        assert!(counts.has_room(8) && !counts.has_room(9));
        // No place is left for the second: what is oldest is counted with what follows it.
        counts.add(9);
        counts.add(10);
        assert_eq!(counts.iter().take(2).collect::<Vec<_>>(), [(3, 3), (4, 1)]);
        assert_eq!((counts.total(), counts.under(10)), (10, 1));
        counts.take(2);
        assert_eq!(counts.under(3), 2);
        assert!(Counts::only(1, 0).is_empty());
    }

    #[test]
    fn what_is_encoded_comes_back_and_nothing_else_does() {
        let mut counts = Counts::only(2, 7);
        counts.add(5);
        let cursor = Cursor { stage: Stage::Blocks, number: 9 };
        let whole = Resealing { version: 5, cursor, counts };
        let encode = |resealing: &Resealing| {
            let mut bytes = Vec::new();
            resealing.encode(&mut bytes);
            bytes
        };
        for resealing in [whole, Resealing::default()] {
            let bytes = encode(&resealing);
            assert_eq!(bytes.len(), Resealing::LENGTH);
            assert_eq!(Resealing::decode(&mut &bytes[..]), Some(resealing));
        }
        assert_eq!(whole.towards(5), whole);
        assert_eq!(whole.towards(6).cursor, Cursor::default());
        // A stage that is none; counts that are out of order, twice the same, or of nothing.
        for (at, byte) in [(4, 5), (16, 9), (16, 5), (24, 0)] {
            let mut bytes = encode(&whole);
            *bytes.get_mut(at).unwrap() = byte;
            assert_eq!(Resealing::decode(&mut &bytes[..]), None, "{at}");
        }
    }
}
