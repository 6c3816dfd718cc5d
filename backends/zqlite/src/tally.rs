//! Adding up what is stored page by page, while commits change it.

use crate::engine::{Batch, Write};
use crate::envelope::sum_of;
use crate::head::Stored;
use crate::series::Replaced;

/// Where a row of the state or a data block lies, in the order in which they are read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Row(u64),
    DataBlock(u8, Vec<u8>),
}

/// How many records there are up to a place, and their sum, as of the last commit. Once all are read
/// these have to be the head's.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    last: Option<Place>,
    records: u64,
    sum: u64,
}

impl Tally {
    /// The place of the record that was read last.
    pub(crate) fn last(&self) -> Option<&Place> {
        self.last.as_ref()
    }

    /// The next record was read.
    pub(crate) fn read(&mut self, place: Place, sum: u64) {
        self.last = Some(place.clone());
        self.changed(&place, None, Some(sum));
    }

    /// What a place adds to the sum has changed, or whether there is a record.
    pub(crate) fn changed(&mut self, place: &Place, before: Option<u64>, after: Option<u64>) {
        if self.last.as_ref().is_none_or(|last| place > last) {
            return;
        }
        let count = |sum: Option<u64>| u64::from(sum.is_some());
        self.records = self.records.wrapping_add(count(after)).wrapping_sub(count(before));
        self.sum = self.sum.wrapping_add(after.unwrap_or(0)).wrapping_sub(before.unwrap_or(0));
    }

    /// A commit that changed data blocks was stored.
    pub(crate) fn follow(&mut self, batch: &Batch<'_>, replaced: &Replaced) {
        for (table, key, sum) in replaced.iter() {
            self.changed(&Place::DataBlock(table, key.to_vec()), Some(sum), None);
        }
        for write in &batch.writes {
            if let Write::PutDataBlock { table, key, body } = write {
                let sum = sum_of(batch.bytes.get(body.clone()).unwrap_or_default());
                self.changed(&Place::DataBlock(*table, key.clone()), None, Some(sum));
            }
        }
    }

    /// Whether these are all the records that a head has. One of an earlier build has no sums.
    pub(crate) fn is_of(&self, stored: &Stored) -> bool {
        self.records == stored.rows.wrapping_add(stored.series.data_blocks)
            && stored.sums.is_none_or(|it| self.sum == it.rows.wrapping_add(it.data_blocks))
    }
}
