//! What the keys of an open store come to: newer ones are taken up, what is sealed is sealed anew, and a
//! version that nothing names can be destroyed.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use ghostwire_store_core::backend::Budget;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_crypto::keyring::Keyring;
use ghostwire_store_crypto::pin::PinKey;
use ghostwire_store_crypto::signature::SignerId;

use super::{Inner, closed, locked, resealed};
use crate::envelope::{Envelope, Kind, version_of};
use crate::head::Prefix;
use crate::open::Open;
use crate::pinning::Pinning;
use crate::resealing::too_many_versions;
use crate::verify::Opened as _;

/// So many frames are read at one moment.
const FRAMES: usize = 4096;

impl Inner {
    /// Seals the next records under the newest version of the data key. Tells whether more are left. The pin
    /// follows with the next commit: a store may be ahead of it.
    pub(crate) fn maintain(&self, budget: &Budget) -> Result<bool> {
        // A store that was put back takes one commit, which says so.
        let is_held = self.pinning.as_ref().is_some_and(Pinning::awaits_commit);
        if self.options.file.read_only || is_held {
            return Ok(false);
        }
        self.with_open(|open| {
            let mut slots = open.slots.write();
            // Whoever had the slots before may have lost its way.
            open.require_known()?;
            if let Some(recounted) = open.recount(&self.status()?.stored)? {
                self.replace_head(open, recounted)?;
            }
            let stored = self.status()?.stored;
            let Some(slice) = open.plan_slice(&stored, &slots, budget)? else { return Ok(false) };
            if slice.writes {
                open.write_series(&slice.batch, slice.version)?;
                slots.apply(slice.moves);
                let mut tags = open.tags.write().unwrap_or_else(PoisonError::into_inner);
                slice.tags.apply(&mut tags);
                self.landed(&slice.batch.head, &slice.stored);
            }
            self.set_stored(slice.stored);
            let goes_on =
                resealed(&open.envelope, &slice.stored).is_some_and(|it| it.is_under_way());
            if !goes_on {
                // What stands beside the head is the last that is under the version before.
                self.sign_last(open)?;
            }
            Ok(goes_on)
        })
    }

    /// Takes up a newer generation of the keyring. If it seals under another version, so does the head when
    /// this returns; after a leak the sums are under the new key, then, and the pin is, too. Nothing of that
    /// is lost if it is broken off: opening completes it.
    pub(crate) fn take_up(&self, keyring: &Keyring) -> Result<()> {
        let taken_up = self.try_take_up(keyring);
        let is_lost =
            self.with_file(|open| Ok(open.lost.load(Ordering::Acquire))).unwrap_or_default();
        match taken_up {
            // Nobody else may write for long, so nobody else would find out where the store stands.
            Err(error) if is_lost => {
                tracing::warn!(%error, "it is not known whether the newest keys are in force; the store is reopened");
                self.reopen()?;
                self.try_take_up(keyring)
            }
            taken_up => taken_up,
        }
    }

    fn try_take_up(&self, keyring: &Keyring) -> Result<()> {
        self.require_writable()?;
        let next = Envelope::new(Some(keyring))?;
        let mut alone = self.alone();
        let open = alone.as_mut().ok_or_else(closed)?;
        self.pinning.as_ref().map_or(Ok(()), Pinning::require_unfenced)?;
        open.require_known()?;
        let stored = self.status()?.stored;
        if self.pinning.is_some() && stored.pinned.is_none() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the store has a pin, and is of a schema that cannot say so: open it once to be written, \
                 which migrates it, before its keys are changed",
            ));
        }
        let next = next.of_database(stored.head.side);
        next.require_successor_of(&open.envelope)?;
        // Also for a head whose fate stays unknown.
        let mut marks_before = None;
        if let Some(pinning) = &self.pinning {
            let signer = next.signer().map_or(SignerId::NONE, |signer| signer.public().id());
            marks_before = Some(pinning.rekey(PinKey::of_keyring(keyring), signer));
        }
        let before = open.envelope.clone();
        let head = open.stored_head();
        open.successor = next.before_rotation(&head)?.map(|_| next.clone());
        let after = if open.successor.is_some() {
            open.succeed(stored)
        } else {
            open.envelope = next.knowing_as(&open.envelope);
            match version_of(Prefix::split(&head)?.1) == next.version() {
                true => Ok(stored),
                // What stands beside the head is sealed under that version, too.
                false => open.write_signed(stored),
            }
        };
        if after.is_err() && open.require_known().is_ok() {
            (open.envelope, open.successor) = (before, None);
            if let (Some(pinning), Some((key, signer))) = (&self.pinning, marks_before) {
                pinning.rekey(key, signer);
            }
            return after.map(drop);
        }
        *locked(&self.envelope) = next;
        let after = after?;
        self.landed(&open.stored_head(), &after);
        self.set_stored(after);
        self.confirm()
    }

    /// Refuses a further version of the data key while too many have records.
    pub(crate) fn require_room_for_version(&self) -> Result<()> {
        self.require_writable()?;
        let Some(active) = self.envelope().version() else {
            return Err(Error::new(ErrorKind::Unsupported, "the store is not sealed"));
        };
        match self.status()?.stored.resealing.counts.has_room(active) {
            true => Ok(()),
            false => Err(too_many_versions()),
        }
    }

    /// Refuses if a record is sealed under this version of the data key, or may be: by what is counted, and
    /// then by every record's frame.
    pub(crate) fn require_unused(&self, version: u32) -> Result<()> {
        let named = |records: u64| {
            Error::new(
                ErrorKind::Restricted,
                "records are sealed under this version of the data key; destroyed, they could be read by \
                 nobody. Let them be sealed anew first",
            )
            .with("version", version)
            .with("records", records)
        };
        self.with_open(|open| {
            let _slots = open.slots.write();
            self.sign_last(open)
        })?;
        match self.status()?.stored.resealing.counts.under(version) {
            0 => {}
            records => return Err(named(records)),
        }
        let (mut records, mut first) = (0_u64, None);
        for kind in Kind::ALL {
            let mut after = Some(0);
            while let Some(last) = after.take() {
                self.with_open(|open| {
                    // A page at a time: no snapshot keeps the log from being begun anew for long.
                    let mut snapshot = open.engine.fresh_snapshot()?;
                    let mut seen = 0;
                    snapshot.frames(kind, last, FRAMES, &mut |number, frame| {
                        seen += 1;
                        after = (seen == FRAMES).then_some(number);
                        if version_of(frame) == Some(version) {
                            records += 1;
                            first.get_or_insert((kind, number));
                        }
                        Ok(())
                    })
                })?;
            }
        }
        match first {
            None => Ok(()),
            Some((kind, number)) => {
                Err(named(records).with("record", kind.name()).with("number", number))
            }
        }
    }

    /// Signs where the store stands, unless that is signed already, under the newest data key. To be called
    /// while nobody else writes.
    pub(super) fn sign_last(&self, open: &Open) -> Result<()> {
        if self.options.file.read_only || open.require_known().is_err() {
            return Ok(());
        }
        if self.pinning.as_ref().is_some_and(|pinning| !pinning.serves()) {
            return Ok(());
        }
        let stored = self.status()?.stored;
        if open.file.undisturbed(open.is_signed(&stored))? {
            return Ok(());
        }
        let signed = open.file.undisturbed(open.write_signed(stored))?;
        self.landed(&open.stored_head(), &signed);
        self.set_stored(signed);
        Ok(())
    }
}
