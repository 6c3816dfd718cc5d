//! Pins: a mark outside of the store that says how far it has come, so that an older copy of it that was
//! put back is noticed.
//!
//! A commit is stored, and *landed*. Then the pin is moved to the newest that landed, which is the
//! writer's call of [`Backend::confirm`](ghostwire_store_core::backend::Backend::confirm), while the next
//! commit may be on its way to the disk. Only then is anybody told. So the pin is never ahead of what is
//! durable, and never behind of what somebody knows.
//!
//! [`choice`] has the options, [`opening`] what is decided when a store is opened, and [`errors`] what
//! is refused. The protocol and its table of crashes are in `docs/cryptography.md`.

pub(crate) mod choice;
mod errors;
mod opening;

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use ghostwire_store_core::backend::Commit;
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_crypto::Error as CryptoError;
use ghostwire_store_crypto::pin::{Mark, Pin, PinKey};
use ghostwire_store_crypto::signature::SignerId;

use crate::head::{Pinned, Stored};
use crate::inner::locked;
pub use choice::{PinChoice, PinOptions};
use errors::{overtaken, unusable};
pub(crate) use opening::{Admitted, admit, report};
pub use opening::{PinReport, PinnedPlace};

/// The pin of a store that is open to be written.
pub(crate) struct Pinning {
    /// What marks are made with: the key, and whose signatures the store has.
    marks: Mutex<(PinKey, SignerId)>,
    /// What the newest commit that is stored led to.
    landed: Mutex<Mark>,
    /// `None` once closed.
    held: Mutex<Option<Held>>,
    /// The serial of the pin's mark, whose block is kept.
    kept: AtomicU64,
    /// The mark that the next commit gives up.
    overridden: Mutex<Option<Mark>>,
    /// Why nothing is answered any more.
    fenced: OnceLock<Error>,
}

/// A pin, and where it stands.
struct Held {
    pin: Box<dyn Pin>,
    mark: Mark,
    /// Where it may stand by now: moving it there failed.
    attempted: Option<Mark>,
    /// The mark is given up, and by a key that is not known: whatever is held is replaced.
    replaces: bool,
}

impl Held {
    fn new(pin: Box<dyn Pin>, mark: Mark) -> Self {
        Self { pin, mark, attempted: None, replaces: false }
    }

    fn advance(&mut self, to: Mark) -> Result<(), CryptoError> {
        if self.replaces && self.mark != to {
            self.pin.replace(&to)?;
            (self.mark, self.replaces) = (to, false);
            return Ok(());
        }
        if let Some(attempted) = self.attempted {
            match self.pin.read()? {
                Some(found) if found == attempted => self.mark = attempted,
                Some(found) if found == self.mark => {}
                found => {
                    let (holds, expected) =
                        (found.map(|found| found.commit), Some(self.mark.commit));
                    return Err(CryptoError::Fenced { holds, expected });
                }
            }
            self.attempted = None;
        }
        if self.mark == to {
            return Ok(());
        }
        self.attempted = Some(to);
        self.pin.advance(Some(&self.mark), &to)?;
        (self.mark, self.attempted) = (to, None);
        Ok(())
    }
}

impl Pinning {
    fn new(key: PinKey, held: Held, landed: Mark, overridden: Option<Mark>) -> Self {
        Self {
            marks: Mutex::new((key, landed.signer)),
            kept: AtomicU64::new(held.mark.serial),
            landed: Mutex::new(landed),
            held: Mutex::new(Some(held)),
            overridden: Mutex::new(overridden),
            fenced: OnceLock::new(),
        }
    }

    /// Notes where the store stands, by the bytes of the head that is stored. A head of an older schema,
    /// which cannot say that it has a pin, is about to be migrated.
    pub(crate) fn landed(&self, head: &[u8], stored: &Stored) {
        if let Some(pinned) = stored.pinned {
            let (key, signer) = &*locked(&self.marks);
            *locked(&self.landed) = mark_of(key, *signer, head, stored);
            locked(&self.overridden).take_if(|mark| pinned.overridden == Some(mark.head));
        }
    }

    /// Moves the pin to where the store stands.
    pub(crate) fn confirm(&self) -> Result<()> {
        self.require_unfenced()?;
        let mut held = locked(&self.held);
        let held = held
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the store is closed"))?;
        // Read with the pin in hand: of two calls none moves it back.
        let to = *locked(&self.landed);
        match held.advance(to) {
            Ok(()) => {
                self.kept.store(held.mark.serial, Ordering::Release);
                Ok(())
            }
            Err(error @ CryptoError::Fenced { .. }) => Err(self.fence(error, to.epoch)),
            Err(error) => Err(unusable(error)),
        }
    }

    /// Refuses everything once another copy of the store moved the pin.
    pub(crate) fn require_unfenced(&self) -> Result<()> {
        self.fenced.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// The commit, but that it keeps the block which the pin names: by it the store is known to descend
    /// from there.
    pub(crate) fn keeping<'c>(&self, commit: &'c Commit) -> Cow<'c, Commit> {
        let kept = Serial::new(self.kept.load(Ordering::Acquire));
        match commit.purge_before {
            Some(before) if before > kept => {
                Cow::Owned(Commit { purge_before: Some(kept), ..commit.clone() })
            }
            _ => Cow::Borrowed(commit),
        }
    }

    /// What the next commit builds on: it gives up the mark that was overridden, for which it has to begin
    /// an epoch that is later.
    pub(crate) fn over(&self, stored: &Stored, commit: &Commit) -> Result<Stored> {
        let Some(mark) = *locked(&self.overridden) else { return Ok(*stored) };
        if commit.head.epoch.is_none_or(|epoch| epoch.get() <= mark.epoch) {
            return Err(Error::new(
                ErrorKind::Restricted,
                "a store that was put back is only opened to begin an epoch above that of its pin",
            )
            .with("pin_epoch", mark.epoch));
        }
        Ok(Stored { pinned: Some(Pinned { overridden: Some(mark.head) }), ..*stored })
    }

    /// Reads and writes marks by this key and with this signer from now on.
    /// Gives those before.
    pub(crate) fn rekey(&self, key: PinKey, signer: SignerId) -> (PinKey, SignerId) {
        if let Some(held) = locked(&self.held).as_mut() {
            held.pin.rekey(key.clone());
        }
        std::mem::replace(&mut *locked(&self.marks), (key, signer))
    }

    /// Whether the next commit has to give up a mark.
    pub(crate) fn awaits_commit(&self) -> bool {
        locked(&self.overridden).is_some()
    }

    /// Proves that the pin is there, and where this store left it.
    pub(crate) fn probe(&self) -> Result<()> {
        self.confirm()?;
        let mut held = locked(&self.held);
        let Some(held) = held.as_mut() else { return Ok(()) };
        let found = held.pin.read().map_err(unusable)?;
        if found == Some(held.mark) {
            return Ok(());
        }
        let (holds, expected) = (found.map(|found| found.commit), Some(held.mark.commit));
        Err(self.fence(CryptoError::Fenced { holds, expected }, held.mark.epoch))
    }

    fn fence(&self, error: CryptoError, epoch: u64) -> Error {
        self.fenced.get_or_init(|| overtaken(error, epoch)).clone()
    }

    /// Whether commits are accepted, and not only one that gives up the pin's mark.
    pub(crate) fn serves(&self) -> bool {
        locked(&self.overridden).is_none() && self.fenced.get().is_none()
    }

    /// Moves the pin a last time, for what was only flushed, and lets go of it.
    pub(crate) fn close(&self) {
        let is_held = locked(&self.held).is_some() && locked(&self.overridden).is_none();
        if is_held && let Err(error) = self.confirm() {
            tracing::warn!(%error, "the pin stays behind; it is moved when the store is opened");
        }
        drop(locked(&self.held).take());
    }
}

impl fmt::Debug for Pinning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinning").field("landed", &self.landed).finish_non_exhaustive()
    }
}

/// The mark of a store with this head.
fn mark_of(key: &PinKey, signer: SignerId, head: &[u8], stored: &Stored) -> Mark {
    Mark {
        store: *stored.head.side.as_bytes(),
        epoch: stored.head.epoch.get(),
        commit: stored.commits,
        serial: stored.head.serial.get(),
        head: Mark::head(head),
        anchor: key.anchor(stored.head.hash.as_bytes()),
        signer,
    }
}
