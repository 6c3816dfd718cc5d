//! A mark, and the line of text that it is written as.

use std::fmt;

use crate::error::{Error, Result};
use crate::hash::{MacKey, derive, sha256};
use crate::keyring::{Authority, Keyring, Leaving};
use crate::secret::{Secret, equal};
use crate::signature::SignerId;
use crate::wire::{from_decimal, from_hex, hex};

const TITLE: &str = "ghostwire-store pin 1";
/// More than any line has.
pub(crate) const LONGEST_LINE: usize = 1024;

/// How far a store had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The store's id.
    pub store: [u8; 16],
    /// Who might write.
    pub epoch: u64,
    /// How many commits there were.
    pub commit: u64,
    /// The newest block's serial.
    pub serial: u64,
    /// SHA-256 of the stored head: [`Mark::head`].
    pub head: [u8; 32],
    /// By which that block is known again: [`PinKey::anchor`].
    pub anchor: [u8; 32],
    /// Whose signatures the store has.
    pub signer: SignerId,
}

impl Mark {
    /// What [`Mark::head`] is for a head with these stored bytes.
    #[must_use]
    pub fn head(stored: &[u8]) -> [u8; 32] {
        sha256(&[stored])
    }

    /// Whether a store that stood at `other` can have come here by committing.
    #[must_use]
    pub fn follows(&self, other: &Self) -> bool {
        self.store == other.store
            && self.epoch >= other.epoch
            && (self.epoch > other.epoch || self.commit > other.commit)
    }

    fn unsigned(&self) -> String {
        format!(
            "{TITLE} {} {} {} {} {} {} {}",
            hex(&self.store),
            self.epoch,
            self.commit,
            self.serial,
            hex(&self.head),
            hex(&self.anchor),
            self.signer,
        )
    }
}

/// The key that authenticates marks.
#[derive(Clone)]
pub struct PinKey {
    key: MacKey,
    /// Marks by it are read still.
    before: Option<MacKey>,
}

impl PinKey {
    /// The one of a keyring's authority.
    #[must_use]
    pub fn new(authority: &Authority) -> Self {
        Self { key: MacKey::new(authority.pin().expose()), before: None }
    }

    /// The one of a keyring. While a rotation is under way that replaced it, marks by the one before are
    /// read, too, until the pin is moved, which writes them by the new one.
    #[must_use]
    pub fn of_keyring(keyring: &Keyring) -> Self {
        let before = keyring.leaving().and_then(Leaving::authority);
        let before = before.map(|authority| MacKey::new(authority.pin().expose()));
        Self { before, ..Self::new(keyring.authority()) }
    }

    pub(crate) const fn succeeds_another(&self) -> bool {
        self.before.is_some()
    }

    /// The one of a store that is not sealed, from a secret that it has instead of a keyring: the key
    /// that its credentials are hashed with. `store` is the id that its marks bear.
    ///
    /// # Errors
    /// `Library`.
    pub fn of_plain_store(secret: &Secret, store: &[u8; 16]) -> Result<Self> {
        let key = derive(secret.expose(), store, &[b"ghostwire-store pin of a plain store 1"])?;
        Ok(Self { key: MacKey::new(key.expose()), before: None })
    }

    /// By which a block is known again that has this hash; zeros for a store without blocks. It
    /// tells nothing about the block.
    #[must_use]
    pub fn anchor(&self, block_hash: &[u8; 32]) -> [u8; 32] {
        anchor(&self.key, block_hash)
    }

    /// The anchor of a block with this hash as a mark has it that was written by this key or the one before.
    #[must_use]
    pub fn anchor_for(&self, mark: &Mark, block_hash: &[u8; 32]) -> [u8; 32] {
        let before = self.before.as_ref().map(|before| anchor(before, block_hash));
        match before.filter(|before| equal(before, &mark.anchor)) {
            Some(before) => before,
            None => self.anchor(block_hash),
        }
    }

    /// The line of a mark, without an end: title, store, epoch, commit, serial, head, anchor,
    /// signer and a code over all of that.
    #[must_use]
    pub fn line(&self, mark: &Mark) -> String {
        let line = mark.unsigned();
        let code = code(&self.key, &line);
        format!("{line} {}", hex(&code))
    }

    /// The mark of a line.
    ///
    /// # Errors
    /// `Corrupt` if it is misshapen; `OtherPinKey` if its code is by another key, or made up; `Newer` for
    /// another form.
    pub fn parse(&self, line: &str) -> Result<Mark> {
        let misshapen = || Error::corrupt("pin", "it is no line of a pin");
        if line.len() > LONGEST_LINE {
            return Err(misshapen());
        }
        let (unsigned, code) = line.rsplit_once(' ').ok_or_else(misshapen)?;
        let Some(fields) = unsigned.strip_prefix(TITLE).and_then(|rest| rest.strip_prefix(' '))
        else {
            return match unsigned.strip_prefix("ghostwire-store pin ") {
                Some(rest) => {
                    let form = rest.split(' ').next().unwrap_or_default();
                    let form = form.chars().filter(char::is_ascii_graphic).take(16).collect();
                    Err(Error::Newer { what: "pin", found: form })
                }
                None => Err(misshapen()),
            };
        };
        let code: [u8; 32] = from_hex(code).ok_or_else(misshapen)?;
        let mut keys = [Some(&self.key), self.before.as_ref()].into_iter().flatten();
        let is_own = keys.any(|key| equal(&self::code(key, unsigned), &code));
        let mut fields = fields.split(' ');
        let mut field = || fields.next();
        let mut read = || {
            Some(Mark {
                store: from_hex(field()?)?,
                epoch: from_decimal(field()?)?,
                commit: from_decimal(field()?)?,
                serial: from_decimal(field()?)?,
                head: from_hex(field()?)?,
                anchor: from_hex(field()?)?,
                signer: SignerId::from_bytes(from_hex(field()?)?),
            })
        };
        let mark = read().ok_or_else(misshapen)?;
        match (field(), is_own) {
            (Some(_), _) => Err(misshapen()),
            (None, true) => Ok(mark),
            (None, false) => Err(Error::OtherPinKey { mark: Box::new(mark) }),
        }
    }
}

fn code(key: &MacKey, line: &str) -> [u8; 32] {
    key.code(&[line.as_bytes()])
}

fn anchor(key: &MacKey, block_hash: &[u8; 32]) -> [u8; 32] {
    key.code(&[b"ghostwire-store anchor 1", block_hash])
}

impl fmt::Debug for PinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinKey(..)")
    }
}
