//! Changes of a keyring, as functions from one generation to the next. They draw keys and do
//! nothing else; writing the result is [`KeyringFile`](super::KeyringFile)'s, and the order of
//! keyring, commit and pin is the store's.

use std::mem;

use crate::error::{Error, Result};
use crate::keyring::content::{Authority, Content, DataKey, HashKey, Leaving, Member};
use crate::keyring::passphrase::Stretch;
use crate::keyring::recipient::{Fingerprint, Recipient};
use crate::keyring::{Keyring, MOST_DATA_KEYS, MOST_HASH_KEYS, MOST_RECIPIENTS};
use crate::random::Random;
use crate::secret::Secret;
use crate::signature::{Purpose, Succession};

/// Why a data key is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// As planned. Inventory, pin and signatures keep their keys.
    Routine,
    /// Somebody may know the key. Those of inventory, pin and signatures are replaced, too, so that
    /// what is forged with the old ones is refused at once, and not only when everything was sealed
    /// anew.
    Leaked,
}

impl Keyring {
    /// The first generation of a store's keyring, with one data key, one key that hashes
    /// credentials, and the root's recipient. `stretch` says how a passphrase becomes the root, if
    /// one does; `now` is in microseconds since 1970.
    ///
    /// # Errors
    /// `Random`.
    pub fn first(
        store: [u8; 16],
        root: Recipient,
        stretch: Option<Stretch>,
        now: u64,
        random: &dyn Random,
    ) -> Result<Self> {
        let content = Content {
            store,
            generation: 1,
            before: [0; 32],
            passphrase: stretch,
            members: vec![Member::new(root, true, "root")?],
            next_version: 2,
            data_keys: vec![DataKey { version: 1, since: now, key: Secret::draw(random)? }],
            next_hash_key: 2,
            hash_keys: vec![HashKey { number: 1, since: now, key: Secret::draw(random)? }],
            authority: Authority::draw(random)?,
            leaving: None,
        };
        Ok(Self { content, file: None })
    }

    /// A new version of the data key, which seals from now on. Until [`Keyring::finish_rotation`]
    /// the head is accepted under the version before, too.
    ///
    /// # Errors
    /// `Refused` while another rotation is under way, or if there are too many versions. `Random`.
    pub fn rotate(&self, rotation: Rotation, now: u64, random: &dyn Random) -> Result<Self> {
        const WHAT: &str = "rotate the data key";
        let refused = |why| Err(Error::Refused { what: WHAT, why });
        let mut next = self.next()?;
        if next.content.leaving.is_some() {
            return refused("a rotation is under way; let it end first");
        }
        if next.content.data_keys.len() >= MOST_DATA_KEYS {
            return refused("there are 256 versions; destroy those that seal nothing any more");
        }
        let version = next.content.next_version;
        let Some(after) = version.checked_add(1) else {
            return refused("all numbers for versions are used up");
        };
        let before = self.active()?.version;
        let renewed = match rotation {
            Rotation::Routine => None,
            Rotation::Leaked => {
                Some(mem::replace(&mut next.content.authority, Authority::draw(random)?))
            }
        };
        next.content.next_version = after;
        next.content.data_keys.push(DataKey { version, since: now, key: Secret::draw(random)? });
        next.content.leaving = Some(Leaving { version: before, authority: renewed });
        Ok(next)
    }

    /// Gives up what was in force before a rotation, once the head, the inventory and the pin are
    /// written under what is now. The version before still opens records, until it is destroyed.
    ///
    /// # Errors
    /// `Refused` if no rotation is under way.
    pub fn finish_rotation(&self) -> Result<Self> {
        let mut next = self.next()?;
        match next.content.leaving.take() {
            Some(_) => Ok(next),
            None => Err(Error::Refused { what: "finish a rotation", why: "none is under way" }),
        }
    }

    /// Without a version of the data key. The caller has read every record's frame and knows that
    /// none names it. What only it sealed can be read by nobody any more who has no older copy of
    /// the keyring.
    ///
    /// # Errors
    /// `Refused` for the version that seals or that a rotation under way needs; `MissingVersion` or
    /// `Foreign` if there is none.
    pub fn destroy(&self, version: u32) -> Result<Self> {
        const WHAT: &str = "destroy a version of the data key";
        self.data_key(version)?;
        if self.active()?.version == version {
            return Err(Error::Refused {
                what: WHAT,
                why: "it is the one that seals; rotate first",
            });
        }
        if self.leaving().is_some_and(|leaving| leaving.version == version) {
            let why = "a rotation away from it is under way; let it end first";
            return Err(Error::Refused { what: WHAT, why });
        }
        let mut next = self.next()?;
        next.content.data_keys.retain(|key| key.version != version);
        Ok(next)
    }

    /// Sealed to one more. They can read everything in the store that was and will be sealed under
    /// the keys in it.
    ///
    /// # Errors
    /// `Refused` for one whom it is sealed to already, or too many; `Invalid` for a label that is
    /// too long.
    pub fn add_recipient(&self, recipient: Recipient, label: &str) -> Result<Self> {
        let refused = |why| Err(Error::Refused { what: "add a recipient", why });
        if self.content.members.iter().any(|member| member.recipient == recipient) {
            return refused("the keyring is sealed to it already");
        }
        if self.content.members.len() >= MOST_RECIPIENTS {
            return refused("there are 32; remove one first");
        }
        let mut next = self.next()?;
        next.content.members.push(Member::new(recipient, false, label)?);
        Ok(next)
    }

    /// Sealed to one fewer, with a new version of the data key and new keys of inventory, pin and
    /// signatures. Whoever leaves keeps what they could read until now.
    ///
    /// # Errors
    /// `Refused` for the root or for one whom it is not sealed to; otherwise as
    /// [`Keyring::rotate`].
    pub fn remove_recipient(
        &self,
        recipient: Fingerprint,
        now: u64,
        random: &dyn Random,
    ) -> Result<Self> {
        let refused = |why| Err(Error::Refused { what: "remove a recipient", why });
        match self.content.members.iter().find(|member| member.recipient.fingerprint() == recipient)
        {
            None => refused("the keyring is not sealed to it"),
            Some(member) if member.root => refused("it is the root; change the root instead"),
            Some(_) => {
                let mut next = self.rotate(Rotation::Leaked, now, random)?;
                let members = &mut next.content.members;
                members.retain(|member| member.recipient.fingerprint() != recipient);
                Ok(next)
            }
        }
    }

    /// Unlocked by another root secret. The data keys stay: older copies of the keyring still open
    /// with the old one.
    ///
    /// # Errors
    /// `Refused` for one whom it is sealed to already.
    pub fn change_root(&self, root: Recipient, stretch: Option<Stretch>) -> Result<Self> {
        if self.content.members.iter().any(|member| member.recipient == root) {
            let why = "the keyring is sealed to the new root already";
            return Err(Error::Refused { what: "change the root", why });
        }
        let mut next = self.next()?;
        next.content.members.retain(|member| !member.root);
        next.content.members.insert(0, Member::new(root, true, "root")?);
        next.content.passphrase = stretch;
        Ok(next)
    }

    /// A new version of the key that hashes credentials, which hashes from now on; the others still
    /// verify.
    ///
    /// # Errors
    /// `Refused` if there are too many; `Random`.
    pub fn rotate_hash_key(&self, now: u64, random: &dyn Random) -> Result<Self> {
        // Of four random bytes one in sixty million is taken by 64 others.
        for _ in 0..8 {
            match self.take_hash_key(Secret::draw(random)?, now) {
                Err(Error::Invalid { .. }) => {}
                taken => return taken,
            }
        }
        Err(Error::Random("it repeats itself".to_owned()))
    }

    /// As [`Keyring::rotate_hash_key`] with a key that exists, such as that of a store that had no
    /// keyring.
    ///
    /// # Errors
    /// `Invalid` if another key has its id; `Refused` if there are too many.
    pub fn take_hash_key(&self, key: Secret, now: u64) -> Result<Self> {
        const WHAT: &str = "add a key that hashes credentials";
        let mut next = self.next()?;
        let number = next.content.next_hash_key;
        let (Some(after), true) =
            (number.checked_add(1), next.content.hash_keys.len() < MOST_HASH_KEYS)
        else {
            return Err(Error::Refused { what: WHAT, why: "there are 64; retire one first" });
        };
        let key = HashKey { number, since: now, key };
        if next.content.hash_keys.iter().any(|other| other.id() == key.id()) {
            return Err(Error::invalid(WHAT, "another key of the keyring has its id"));
        }
        next.content.next_hash_key = after;
        next.content.hash_keys.push(key);
        Ok(next)
    }

    /// Without a version of the key that hashes credentials. What is hashed with it verifies no
    /// more.
    ///
    /// # Errors
    /// `Refused` for the one that hashes, and for one that is not there.
    pub fn retire_hash_key(&self, number: u32) -> Result<Self> {
        let refused =
            |why| Err(Error::Refused { what: "retire a key that hashes credentials", why });
        let mut next = self.next()?;
        match next.content.hash_keys.iter().rposition(|key| key.number == number) {
            None => refused("the keyring has no such key"),
            Some(place) if place + 1 == next.content.hash_keys.len() => {
                refused("it is the one that hashes; rotate it first")
            }
            Some(_) => {
                next.content.hash_keys.retain(|key| key.number != number);
                Ok(next)
            }
        }
    }

    /// The new signing keys, signed by the old, while a rotation that replaced them is under way.
    ///
    /// # Errors
    /// `Library` if signing fails.
    pub fn successions(&self) -> Result<Vec<Succession>> {
        let Some(before) = self.leaving().and_then(Leaving::authority) else {
            return Ok(Vec::new());
        };
        let succession = |purpose: Purpose| {
            let (from, to) = (before.signer(purpose)?, self.authority().signer(purpose)?);
            let signature = from.sign_successor(to.public())?;
            Ok(Succession { from: from.public().clone(), to: to.public().clone(), signature })
        };
        Purpose::ALL.into_iter().map(succession).collect()
    }

    /// The next generation. Changes that follow each other before one is written are one
    /// generation.
    fn next(&self) -> Result<Self> {
        let mut next = Self { content: self.content.clone(), file: None };
        if let Some(file) = self.file {
            let generation = self.content.generation.checked_add(1);
            next.content.generation = generation.ok_or(Error::Refused {
                what: "change the keyring",
                why: "its generations are used up",
            })?;
            next.content.before = file;
        }
        Ok(next)
    }
}
