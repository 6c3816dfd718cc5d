//! What a pin says of a store that is opened, and what follows.

use std::path::Path;

use ghostwire_store_core::block::{BlockHash, Serial};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_crypto::Error as CryptoError;
use ghostwire_store_crypto::keyring::Keyring;
use ghostwire_store_crypto::pin::{Anchor, Mark, Pin, PinKey, Signers, Standing, Verdict, decide};
use ghostwire_store_crypto::signature::{PublicKeys, SignerId};

use super::choice::{Accepts, PinOptions};
use super::errors::{other_serial, refusal, unconfigured, unusable};
use super::{Held, PinChoice, Pinning, mark_of};
use crate::head::{Pinned, Stored};
use crate::open::Open;

/// A store that its pin lets be served, before anything was written.
pub(crate) struct Admitted {
    options: PinOptions,
    key: PinKey,
    pin: Option<Box<dyn Pin>>,
    found: Found,
    verdict: Verdict,
}

/// What the pin holds.
#[derive(Debug, Clone, Copy)]
struct Found {
    mark: Option<Mark>,
    /// Whether the mark is by a key of the keyring. If not, nothing vouches for it.
    is_by_own_key: bool,
}

impl Found {
    fn of(read: Result<Option<Mark>, CryptoError>) -> Result<Self> {
        match read {
            Ok(mark) => Ok(Self { mark, is_by_own_key: true }),
            Err(CryptoError::OtherPinKey { mark }) => {
                Ok(Self { mark: Some(*mark), is_by_own_key: false })
            }
            Err(error) => Err(unusable(error)),
        }
    }
}

/// How a store and its pin stand to each other.
#[derive(Debug, Clone)]
pub struct PinReport {
    /// What the pin says of the store, such as `equal`, `ahead`, `rolled back`, `forked`, `missing`.
    pub verdict: &'static str,
    /// Why it is not served; `None` if it is.
    pub refusal: Option<Error>,
    /// Where the store stands.
    pub store: PinnedPlace,
    /// Where the pin does; `None` without one.
    pub pin: Option<PinnedPlace>,
}

/// A place in a store's history, as pins know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PinnedPlace {
    /// Who might write.
    pub epoch: u64,
    /// How often the store's head was written.
    pub commit: u64,
    /// The last block's number.
    pub serial: Serial,
}

/// Compares a store with its pin, and changes neither.
pub(crate) fn report(
    (options, keyring): (&PinOptions, Option<&Keyring>),
    open: &Open,
    stored: &Stored,
) -> Result<PinReport> {
    let key = options.pin_key(stored.head.side, keyring)?;
    let found = Found::of(options.look(&key))?;
    let verdict = judge(&key, open, stored, &found)?;
    let refusal = refusal(verdict, stored, found.mark.as_ref(), &options.place());
    Ok(PinReport {
        verdict: verdict.name(),
        refusal,
        store: PinnedPlace {
            epoch: stored.head.epoch.get(),
            commit: stored.commits,
            serial: stored.head.serial,
        },
        pin: found.mark.map(|Mark { epoch, commit, serial, .. }| PinnedPlace {
            epoch,
            commit,
            serial: Serial::new(serial),
        }),
    })
}

/// Refuses a store that its pin does not know, before anything is written. `None` if it is served
/// without one, or only to be read.
pub(crate) fn admit(
    (choice, keyring): (&PinChoice, Option<&Keyring>),
    (path, read_only): (&Path, bool),
    open: &Open,
    stored: &Stored,
) -> Result<Option<Admitted>> {
    let PinChoice::Commit(options) = choice else {
        return match stored.pinned {
            Some(_) => Err(unconfigured(stored)),
            None => Ok(None),
        };
    };
    let key = options.pin_key(stored.head.side, keyring)?;
    if read_only {
        let found = Found::of(options.look(&key))?;
        let verdict = judge(&key, open, stored, &found)?;
        return match refusal(verdict, stored, found.mark.as_ref(), &options.place()) {
            Some(refusal) => Err(refusal),
            None => Ok(None),
        };
    }
    options.require_other_device(path)?;
    let mut pin = options.open(&key).map_err(unusable)?;
    let found = Found::of(pin.as_mut().map_or(Ok(None), |pin| pin.read()))?;
    let verdict = judge(&key, open, stored, &found)?;
    let is_accepted = match (options.accepts, verdict) {
        (Accepts::MissingPin, Verdict::Missing) => true,
        // It cannot be read, which is as if it were lost.
        (Accepts::MissingPin, Verdict::OtherSigner) => !found.is_by_own_key,
        (
            Accepts::Rollback(serial),
            Verdict::RolledBack { .. }
            | Verdict::Superseded { .. }
            | Verdict::Forked
            | Verdict::OtherSigner,
        ) => match serial == stored.head.serial {
            true => true,
            false => return Err(other_serial(stored, serial)),
        },
        _ => false,
    };
    if !is_accepted
        && let Some(refusal) = refusal(verdict, stored, found.mark.as_ref(), &options.place())
    {
        return Err(refusal);
    }
    Ok(Some(Admitted { options: options.clone(), key, pin, found, verdict }))
}

impl Admitted {
    /// Whether the store is opened for nothing but the commit that gives up the pin's mark.
    pub(crate) fn gives_up_a_mark(&self) -> bool {
        self.overridden().is_some()
    }

    fn overridden(&self) -> Option<Mark> {
        match self.verdict {
            Verdict::RolledBack { .. } | Verdict::Superseded { .. } | Verdict::Forked => {
                self.found.mark
            }
            Verdict::OtherSigner if self.options.accepts != Accepts::MissingPin => self.found.mark,
            _ => None,
        }
    }

    /// Has the pin stand where the store does, which is durable by now; the store serves after that.
    pub(crate) fn begin(self, open: &Open, stored: &mut Stored) -> Result<Pinning> {
        let overridden = self.overridden();
        let Self { options, key, pin, found, .. } = self;
        let mut pin = match pin {
            Some(pin) => pin,
            None => options.create(&key).map_err(unusable)?,
        };
        let here = mark_of(&key, signers(open, stored).current, &open.stored_head(), stored);
        let mark = match (found.mark, overridden) {
            (Some(mark), _) if found.is_by_own_key => mark,
            (Some(_), Some(mark)) => mark,
            (Some(_), None) => {
                pin.replace(&here).map_err(unusable)?;
                here
            }
            (None, _) => {
                pin.advance(None, &here).map_err(unusable)?;
                here
            }
        };
        let replaces = overridden.is_some() && !found.is_by_own_key;
        let held = Held { replaces, ..Held::new(pin, mark) };
        let pinning = Pinning::new(key, held, here, overridden);
        if overridden.is_none() {
            // First the pin, then the head that demands one: no crash leaves a store without the pin that it
            // demands.
            pinning.confirm()?;
            if stored.pinned.is_none() && stored.head.schema.counts_positions() {
                let pinned = Some(Pinned { overridden: None });
                let after = Stored { pinned, ..stored.moved_to(stored.head) };
                open.write_head(&after)?;
                *stored = after;
                pinning.landed(&open.stored_head(), stored);
                pinning.confirm()?;
            }
        }
        Ok(pinning)
    }
}

/// Nothing signs a store that is not sealed.
fn signers(open: &Open, stored: &Stored) -> Signers {
    let mut keys = open.envelope.signers().map(PublicKeys::id);
    Signers {
        current: keys.next().unwrap_or(SignerId::NONE),
        before: keys.next(),
        since_now: stored.signature.is_none_or(|signed| signed.number <= 1),
    }
}

fn judge(key: &PinKey, open: &Open, stored: &Stored, found: &Found) -> Result<Verdict> {
    let (signers, mark) = (signers(open, stored), found.mark.as_ref());
    let here = mark_of(key, signers.current, &open.stored_head(), stored);
    let standing = Standing {
        signers,
        store: here.store,
        epoch: here.epoch,
        commit: here.commit,
        head: here.head,
        pinned: stored.pinned.is_some(),
        overridden: stored.pinned.and_then(|pinned| pinned.overridden),
    };
    if let Some(mark) = mark.filter(|_| !found.is_by_own_key) {
        return judge_unread(&standing, mark);
    }
    // The head that the rotation gives up is older than a mark by the keys that follow.
    if open.is_giving_up() && mark.is_some_and(|mark| mark.signer == signers.current) {
        return Ok(Verdict::Forked);
    }
    let anchor = match mark {
        Some(mark) if mark.store == here.store => anchor(key, open, stored, mark)?,
        _ => Anchor::Missing,
    };
    Ok(decide(&standing, true, mark, anchor))
}

/// Of a mark by a key that is not the store's. One by its own keys would say so: that one was altered.
fn judge_unread(store: &Standing, mark: &Mark) -> Result<Verdict> {
    let is_own = store.signers.current == mark.signer || store.signers.before == Some(mark.signer);
    match (mark.store == store.store, is_own) {
        (false, _) => Ok(Verdict::OtherStore),
        // Somebody gave it up, and was interrupted before it was replaced.
        (true, false) if store.epoch > mark.epoch && store.overridden == Some(mark.head) => {
            Ok(Verdict::Accepted)
        }
        (true, false) => Ok(Verdict::OtherSigner),
        (true, true) => Err(unusable(CryptoError::OtherPinKey { mark: Box::new(*mark) })),
    }
}

/// What became of the block with this serial: its hash is in the head if it is the last one, else in the
/// block after it, from which the chain is followed to the head.
fn anchor(key: &PinKey, open: &Open, stored: &Stored, mark: &Mark) -> Result<Anchor> {
    let (head, serial) = (&stored.head, Serial::new(mark.serial));
    let is = |hash: &BlockHash| Ok(Anchor::Is(key.anchor_for(mark, hash.as_bytes())));
    if serial == head.serial {
        return is(&head.hash);
    }
    if serial == Serial::ZERO {
        return is(&BlockHash::GENESIS);
    }
    if serial > head.serial {
        return Ok(Anchor::Missing);
    }
    let (mut after, mut chain) = (serial, None);
    while after < head.serial {
        // Not all at once: they may have gigabytes.
        let blocks = match open.blocks(after, 16, false) {
            Err(error) if matches!(error.kind(), ErrorKind::Compacted { .. }) => {
                return Ok(Anchor::Missing);
            }
            blocks => blocks?,
        };
        for block in blocks {
            let (first, last) = chain.unwrap_or((block.previous, block.previous));
            if last != block.previous {
                return Err(Error::corrupt("a block does not follow the one before it")
                    .with("serial", block.serial));
            }
            (after, chain) = (block.serial, Some((first, block.hash)));
        }
    }
    chain.map_or(Ok(Anchor::Missing), |(first, _)| is(&first))
}
