//! Opening records, whichever commit sealed them.

use std::fmt;

use crate::aead::{Key, inner_nonce};
use crate::error::{Damage, Error, Result};
use crate::sealing::frame::{Bound, Frame, PLACE};
use crate::sealing::padding::padded;
use crate::sealing::{Kind, SealingKeys};

/// How many extended keys are kept.
const KEPT: usize = 8;

/// Opens records. Keeps the extended keys of the last few commits and kinds that it met; each
/// reader has its own.
pub struct Opener {
    keys: SealingKeys,
    bound: Bound,
    kept: Vec<Kept>,
    /// Whose place the next one takes.
    oldest: usize,
}

struct Kept {
    version: u32,
    kind: Kind,
    prefix: [u8; 16],
    key: Key,
}

impl Opener {
    /// With the keys of a store.
    #[must_use]
    pub fn new(keys: &SealingKeys) -> Self {
        let (bound, kept) = (Bound::new(keys.store()), Vec::with_capacity(KEPT));
        Self { keys: keys.clone(), bound, kept, oldest: 0 }
    }

    /// Opens a stored record into `plain`, which is overwritten, and gives its content there. It is
    /// the record of this kind and number, with this `prefix` beside it, or it is refused. It may
    /// still be an older one of the same place: see [`Inventory`](crate::sealing::Inventory).
    ///
    /// # Errors
    /// `Record` with what is wrong with it; `MissingVersion` if its key was destroyed.
    pub fn open<'p>(
        &mut self,
        kind: Kind,
        number: u64,
        prefix: &[u8],
        stored: &[u8],
        plain: &'p mut Vec<u8>,
    ) -> Result<&'p [u8]> {
        let damaged = |damage| Error::Record { damage, kind, number };
        let frame = Frame::of(stored).ok_or(damaged(Damage::Truncated))?;
        if !frame.is_sealed() {
            return Err(damaged(Damage::UnknownFormat { format: frame.form }));
        }
        if frame.ciphertext.len() < PLACE {
            return Err(damaged(Damage::Truncated));
        }
        let place = self.extended(&frame, kind, number)?;
        let bound = self.bound.set(frame.version, kind, prefix);
        // Every byte is overwritten, so only what is new needs to be cleared.
        plain.resize(frame.ciphertext.len(), 0);
        let nonce = inner_nonce(frame.counter);
        let opened = self.kept.get(place).is_some_and(|kept| {
            kept.key.open(nonce, bound, frame.ciphertext, frame.tag, plain.as_mut_slice())
        });
        if !opened {
            plain.clear();
            return Err(damaged(Damage::Altered));
        }
        content_of(kind, number, plain).map_err(damaged)
    }

    /// Where the key for this record is kept.
    fn extended(&mut self, frame: &Frame<'_>, kind: Kind, number: u64) -> Result<usize> {
        let same = |kept: &Kept| {
            kept.prefix == *frame.prefix && kept.kind == kind && kept.version == frame.version
        };
        if let Some(place) = self.kept.iter().position(same) {
            return Ok(place);
        }
        let subkey = self.keys.subkey(frame.version, kind);
        let subkey = subkey.ok_or_else(|| self.keys.unknown(frame.version, kind, number))?;
        let key = Key::extended(subkey, frame.prefix)?;
        let kept = Kept { version: frame.version, kind, prefix: *frame.prefix, key };
        let place = self.oldest;
        self.oldest = (place + 1) % KEPT;
        match self.kept.get_mut(place) {
            Some(oldest) => *oldest = kept,
            None => self.kept.push(kept),
        }
        Ok(place)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener({:?})", self.keys)
    }
}

/// The content of what was sealed, if it belongs here. All of this comes behind the tag: only
/// somebody with the key gets so far.
fn content_of(kind: Kind, number: u64, plain: &[u8]) -> Result<&[u8], Damage> {
    let (sealed_for, rest) = plain.split_first_chunk().ok_or(Damage::Misshapen)?;
    let (length, rest) = rest.split_first_chunk().ok_or(Damage::Misshapen)?;
    let sealed_for = u64::from_be_bytes(*sealed_for);
    if sealed_for != number {
        return Err(Damage::Moved { from: sealed_for });
    }
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Damage::Misshapen)?;
    let (content, filling) = rest.split_at_checked(length).ok_or(Damage::Misshapen)?;
    let zeros = filling.iter().fold(0, |all, byte| all | byte) == 0;
    if zeros && padded(kind, length) == plain.len() { Ok(content) } else { Err(Damage::Misshapen) }
}
