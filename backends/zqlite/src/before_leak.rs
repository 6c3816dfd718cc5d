//! Records that are sealed under a data key that leaked, until they are sealed anew.
//!
//! The inventory goes by tags. Poly1305 commits to nothing, so whoever knows the data key can make another
//! record with the tag of the one that is there. Therefore a rotation because of a leak takes down a code of
//! each whole record that lies under the older versions, by the inventory's new key: the codes are kept in
//! memory, their sum in the head. A store that is opened meanwhile makes them anew and compares the sum, and
//! whatever reads such a record compares its code. Blocks are bound by their hashes, and need none.

use std::collections::HashMap;
use std::ops::ControlFlow;

use ghostwire_store_core::error::{Error, Result};

use crate::engine::Snapshot;
use crate::envelope::{Envelope, Kind, Sum, version_of};
use crate::head::Stored;

/// What the head says of such records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BeforeLeak {
    /// Versions of the data key below this one may be known to somebody. 0: none that has records is.
    pub(crate) below: u32,
    /// Over the codes of all records that are sealed under them. Zeros: there are none.
    pub(crate) sum: Sum,
}

impl BeforeLeak {
    pub(crate) const LENGTH: usize = 4 + 32;

    /// Whether no such record is left.
    pub(crate) fn is_over(&self) -> bool {
        self.sum == Sum::default()
    }
}

/// The codes of such records. One that is replaced stays here until none is left: a slot, or a number, never
/// gets a record under an older version again.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    below: u32,
    codes: HashMap<(Kind, u64), [u8; 32]>,
}

impl Contents {
    /// Whether a record of this kind that is stored like this has to be among them.
    pub(crate) fn bind(&self, kind: Kind, stored: &[u8]) -> bool {
        is_bound(kind) && version_of(stored).is_some_and(|version| version < self.below)
    }

    pub(crate) fn code(&self, kind: Kind, number: u64) -> Option<&[u8; 32]> {
        self.codes.get(&(kind, number))
    }

    /// Once no such record is left.
    pub(crate) fn emptied(&self) -> Self {
        Self { below: self.below, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// Takes down the codes of all records under versions below this one, each after it was checked. Reads
    /// everything.
    pub(crate) fn take_down(
        snapshot: &mut dyn Snapshot,
        envelope: &Envelope,
        below: u32,
        check: Check<'_>,
    ) -> Result<(Self, BeforeLeak)> {
        let (mut contents, mut sum) = (Self { below, ..Self::default() }, Sum::default());
        every_record(snapshot, &mut |kind, number, stored| {
            check(kind, number, stored)?;
            if contents.bind(kind, stored)
                && let Some(code) = envelope.code_of(kind, number, stored)
            {
                sum.toggle(&code);
                contents.codes.insert((kind, number), code);
            }
            Ok(())
        })?;
        Ok((contents, BeforeLeak { below, sum }))
    }

    /// Those of a store that is opened.
    ///
    /// # Errors
    /// `Corrupt` if they are not those that the head has the sum of.
    pub(crate) fn read(
        snapshot: &mut dyn Snapshot,
        envelope: &Envelope,
        stored: &Stored,
    ) -> Result<Self> {
        let before_leak = stored.before_leak;
        if before_leak.is_over() {
            return Ok(Self { below: before_leak.below, ..Self::default() });
        }
        let (contents, found) =
            Self::take_down(snapshot, envelope, before_leak.below, &mut |_, _, _| Ok(()))?;
        match found == before_leak {
            true => Ok(contents),
            false => Err(Error::corrupt(
                "a record under a data key that leaked is not the one that was there when the keys were \
                 rotated: it was made by somebody who has that key, or is damaged; restore the store from a \
                 backup",
            )
            .with("versions_below", before_leak.below)),
        }
    }
}

/// A stored record is replaced or deleted: what is counted by versions and by content goes without it.
pub(crate) fn take_out(
    envelope: &Envelope,
    after: &mut Stored,
    kind: Kind,
    number: u64,
    stored: &[u8],
) {
    version_of(stored).into_iter().for_each(|version| after.resealing.counts.take(version));
    let contents = envelope.contents().filter(|contents| contents.bind(kind, stored));
    if let Some(code) = contents.and_then(|contents| contents.code(kind, number)) {
        after.before_leak.sum.toggle(code);
    }
}

fn is_bound(kind: Kind) -> bool {
    matches!(kind, Kind::Row | Kind::Chunk | Kind::Directory | Kind::Journal)
}

/// Takes a record, its kind and its number.
pub(crate) type Check<'c> = &'c mut dyn FnMut(Kind, u64, &[u8]) -> Result<()>;

/// Rows, data blocks, leaves and entries of the journal, as they are stored.
fn every_record(snapshot: &mut dyn Snapshot, visit: Check<'_>) -> Result<()> {
    let go_on = ControlFlow::Continue;
    snapshot.every_row(None, &mut |slot, stored| visit(Kind::Row, slot, stored).map(go_on))?;
    snapshot.every_chunk(None, &mut |it, stored| visit(Kind::Chunk, it, stored).map(go_on))?;
    snapshot.leaves(&mut |number, stored| visit(Kind::Directory, number, stored))?;
    snapshot.journal(&mut |number, stored| visit(Kind::Journal, number, stored))
}
