//! The one place through which everything passes on its way to and from the engine.
//!
//! A stored record is either *plain*: the format byte 1, 16 bytes of checksum, the content; or *sealed*
//! as `ghostwire-store-crypto` does it: format byte 2, version, nonce, ciphertext, tag. Either has
//! 16 bytes that no other record has, its [`Tag`], and everything above goes by those: what is in
//! memory names the tag that a record has to have, and the head holds sums over all of them.
//!
//! The checksum is SHA-256 (FIPS 180-4), cut to 16 bytes, of a context (this format, the database, the
//! kind of record, its number) and the content. **It is a checksum and no authentication**: whoever can
//! write to the file can compute it. Sealing binds a record to the same, and authenticates it.
//!
//! A block lies in two parts, so that its audit section can be erased by itself, and their tags
//! beside them, so that opening reads those and not the blocks. Plain parts have no frame, so that
//! they need not be copied: their checksums cover the block's hash and how long they are. The hash
//! covers its header, which covers its sections, and [`EncodedBlock::parse`] checks those: no byte
//! is hashed twice.

mod plain;
mod reader;
mod refusal;
mod sealer;

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ghostwire_store_core::block::EncodedBlock;
use ghostwire_store_core::domain::SideId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_crypto::keyring::{Authority, Keyring, Leaving};
use ghostwire_store_crypto::sealing::{CommitSealer, Inventory, Opener, SealingKeys};
pub(crate) use ghostwire_store_crypto::sealing::{Kind, Sum, Tag, tag_of, version_of};
use ghostwire_store_crypto::signature::{PublicKeys, Purpose, Signer, Succession};
use ghostwire_store_crypto::{SystemRandom, on_cleared_stack};

use crate::before_leak::Contents;
use crate::head::{Prefix, Stored};
use plain::Checksums;
pub(crate) use reader::{Reader, StoredBlock, require_content, tags_beside};
use refusal::{damaged, keyless};
pub(crate) use refusal::{missing, older, refused, unexpected};
pub(crate) use sealer::{Part, Sealer, frame_of};

const PLAIN: u8 = 1;
const SEALED: u8 = 2;
const CHECKSUM: usize = 16;
/// There is one head.
const HEAD: u64 = 1;

/// Stands beside a block: the tags of its parts.
pub(crate) const BLOCK_FRAME: usize = 2 * CHECKSUM;

/// How the records of one database are framed.
#[derive(Debug, Clone)]
pub(crate) enum Envelope {
    Plain(Checksums),
    Sealed(Arc<Keys>),
}

/// What a keyring comes to for sealing.
pub(crate) struct Keys {
    keyring: Arc<Keyring>,
    sealing: SealingKeys,
    inventory: Inventory,
    signing: Arc<SigningKeys>,
    /// Of records from before a leak; of none for heads.
    contents: Arc<Contents>,
}

/// What signs manifests and states, and whose signatures hold.
struct SigningKeys {
    signer: Signer,
    /// Those before a rotation that is under way.
    before: Option<PublicKeys>,
}

impl SigningKeys {
    fn of(keyring: &Keyring) -> Result<Self> {
        let signer = |authority: &Authority| {
            authority.signer(Purpose::Manifest).map_err(|error| refused(&error))
        };
        let before = keyring.leaving().and_then(Leaving::authority);
        Ok(Self {
            signer: signer(keyring.authority())?,
            before: before.map(signer).transpose()?.map(|signer| signer.public().clone()),
        })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?})", self.sealing)
    }
}

/// A row of the state, or rows of a series, as they were framed.
#[derive(Debug)]
pub(crate) struct Placed<'a> {
    pub(crate) table: u8,
    pub(crate) key: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl Placed<'_> {
    pub(crate) fn is(&self, table: u8, key: &[u8]) -> bool {
        self.table == table && self.key == key
    }
}

/// What a [`Placed`] has besides its key and body.
pub(crate) const PLACE: usize = 1 + 2;

impl Envelope {
    /// For the head, which says which database it is.
    pub(crate) fn new(keyring: Option<&Keyring>) -> Result<Self> {
        let Some(keyring) = keyring else {
            return Ok(Self::Plain(Checksums::of_heads()));
        };
        Ok(Self::Sealed(Arc::new(Keys {
            sealing: SealingKeys::new(keyring).map_err(|error| refused(&error))?,
            inventory: Inventory::new(keyring.authority()),
            // Seeds of signing keys pass through a library's stack.
            signing: Arc::new(on_cleared_stack(|| SigningKeys::of(keyring))?),
            keyring: Arc::new(keyring.clone()),
            contents: Arc::default(),
        })))
    }

    /// For everything else.
    pub(crate) fn of_database(&self, side: SideId) -> Self {
        match self {
            Self::Plain(checksums) => Self::Plain(checksums.of_database(side)),
            Self::Sealed(keys) => Self::Sealed(Arc::clone(keys)),
        }
    }

    /// With the inventory's key from before a rotation, if this head is from before one that replaces it.
    pub(crate) fn before_rotation(&self, head: &[u8]) -> Result<Option<Self>> {
        let Self::Sealed(keys) = self else { return Ok(None) };
        let version = version_of(Prefix::split(head)?.1);
        let leaving = keys.keyring.leaving().filter(|leaving| version == Some(leaving.version()));
        let authority = leaving.and_then(Leaving::authority);
        Ok(authority.map(|authority| {
            let inventory = Inventory::new(authority);
            Self::Sealed(Arc::new(Keys { inventory, ..keys.shared() }))
        }))
    }

    /// Opens records from before a leak only if they have these contents.
    pub(crate) fn knowing(&self, contents: Contents) -> Self {
        match self {
            Self::Plain(checksums) => Self::Plain(checksums.clone()),
            Self::Sealed(keys) => {
                let contents = Arc::new(contents);
                Self::Sealed(Arc::new(Keys { contents, ..keys.shared() }))
            }
        }
    }

    /// As [`Envelope::knowing`], with what the other one knows. Both have the same key for the inventory.
    pub(crate) fn knowing_as(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Sealed(keys), Self::Sealed(other)) => {
                let contents = Arc::clone(&other.contents);
                Self::Sealed(Arc::new(Keys { contents, ..keys.shared() }))
            }
            _ => self.clone(),
        }
    }

    /// What is known of records from before a leak; `None` of a plain store.
    pub(crate) fn contents(&self) -> Option<&Contents> {
        match self {
            Self::Plain(_) => None,
            Self::Sealed(keys) => Some(&keys.contents),
        }
    }

    /// A code of a whole record, as far as the inventory's key is secret; `None` of a plain store.
    pub(crate) fn code_of(&self, kind: Kind, number: u64, stored: &[u8]) -> Option<[u8; 32]> {
        match self {
            Self::Plain(_) => None,
            Self::Sealed(keys) => Some(keys.inventory.code_of_record(kind, number, stored)),
        }
    }

    /// What signs; `None` of a plain store.
    pub(crate) fn signer(&self) -> Option<&Signer> {
        match self {
            Self::Plain(_) => None,
            Self::Sealed(keys) => Some(&keys.signing.signer),
        }
    }

    /// Whose signatures hold: those of the keyring, and those before a rotation that is under way.
    pub(crate) fn signers(&self) -> impl Iterator<Item = &PublicKeys> {
        let before = match self {
            Self::Plain(_) => None,
            Self::Sealed(keys) => keys.signing.before.as_ref(),
        };
        self.signer().map(Signer::public).into_iter().chain(before)
    }

    /// What those before such a rotation signed of the ones that follow.
    pub(crate) fn succession(&self) -> Result<Option<Succession>> {
        let Self::Sealed(keys) = self else { return Ok(None) };
        let successions = on_cleared_stack(|| keys.keyring.successions());
        let successions = successions.map_err(|error| refused(&error))?;
        Ok(successions.into_iter().find(|it| it.to.purpose() == Purpose::Manifest))
    }

    pub(crate) fn is_sealed(&self) -> bool {
        matches!(self, Self::Sealed(_))
    }

    /// The refusal of a plain store where a sealed one should be.
    pub(crate) fn unsealed() -> Error {
        Error::new(
            ErrorKind::Crypto,
            "the store is plain, and is not opened under a keyring: somebody may have put it there; if it \
             is yours, seal it, or set `zqlite.sealed = false`",
        )
    }

    /// The keyring's generation; 0 of a plain store.
    pub(crate) fn generation(&self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Sealed(keys) => keys.keyring.generation(),
        }
    }

    /// Whether the keyring says that a rotation is under way.
    pub(crate) fn is_rotating(&self) -> bool {
        matches!(self, Self::Sealed(keys) if keys.keyring.leaving().is_some())
    }

    /// The version of the data key that seals; `None` of a plain store.
    pub(crate) fn version(&self) -> Option<u32> {
        match self {
            Self::Plain(_) => None,
            Self::Sealed(keys) => Some(keys.sealing.active()),
        }
    }

    /// The one version of the data key that there is.
    pub(crate) fn only_version(&self) -> Option<u32> {
        match self {
            Self::Sealed(keys) if keys.keyring.data_keys().len() == 1 => self.version(),
            _ => None,
        }
    }

    /// Refuses a keyring that does not follow the one that this was made with.
    pub(crate) fn require_successor_of(&self, before: &Self) -> Result<()> {
        let (Self::Sealed(after), Self::Sealed(before)) = (self, before) else {
            return Err(Error::new(ErrorKind::Unsupported, "the store is not sealed"));
        };
        let (after, before) = (&after.keyring, &before.keyring);
        if after.store() != before.store() {
            return Err(Error::new(
                ErrorKind::Crypto,
                "the keyring belongs to another store than the one that is open",
            )
            .with("store", SideId::from_bytes(*before.store()))
            .with("keyring", SideId::from_bytes(*after.store())));
        }
        if after.generation() < before.generation() {
            return Err(Error::new(
                ErrorKind::Crypto,
                "the keyring is older than the one that the store was opened with; put back the newest \
                 copy of it",
            )
            .with("generation", after.generation())
            .with("needed", before.generation()));
        }
        Ok(())
    }

    /// Seals one commit, whose block, if it has one, has this hash.
    pub(crate) fn sealer(&self, block: Option<&EncodedBlock>) -> Result<Sealer<'_>> {
        let commit = match self {
            Self::Plain(_) => None,
            Self::Sealed(keys) => {
                let hash = block.map_or([0; 32], |block| *block.hash.as_bytes());
                let commit = CommitSealer::new(&keys.sealing, &hash, wall_clock(), &SystemRandom);
                Some(commit.map_err(|error| refused(&error))?)
            }
        };
        Ok(Sealer::new(self, commit))
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        let opener = match self {
            Self::Plain(_) => None,
            Self::Sealed(keys) => Some(Opener::new(&keys.sealing)),
        };
        Reader::new(self, opener)
    }

    /// Opens what belongs to a head, which says under which versions of the data key there are records.
    pub(crate) fn reader_of(&self, stored: &Stored) -> Reader<'_> {
        self.reader().of(stored.resealing.counts)
    }

    /// Puts a record into a sum, or takes it out again: either is the same.
    pub(crate) fn toggle(&self, sum: &mut Sum, kind: Kind, number: u64, tag: Tag) {
        match self {
            // A checksum has kind and number in it, and nobody forges accidents.
            Self::Plain(_) => {
                let mut bytes = *sum.as_bytes();
                bytes.iter_mut().zip(tag.0).for_each(|(sum, tag)| *sum ^= tag);
                *sum = Sum::from_bytes(bytes);
            }
            Self::Sealed(keys) => keys.inventory.toggle(sum, kind, number, tag),
        }
    }

    /// Opens the stored head.
    ///
    /// # Errors
    /// `Crypto` if it is sealed and there is no keyring or another one, or plain and there is one;
    /// `Corrupt`.
    pub(crate) fn open_head(&self, stored: &[u8]) -> Result<Stored> {
        let (bytes, record) = Prefix::split(stored)?;
        let prefix = Prefix::decode(bytes);
        let format = record.first().copied().unwrap_or_default();
        let mut reader = self.reader();
        let content = match (self, format) {
            (Self::Plain(_), SEALED) => return Err(keyless(&prefix)),
            (Self::Sealed(_), PLAIN) => {
                // A head that is plain by accident is not taken for one of a plain store.
                return Err(match Self::new(None)?.open_head(stored) {
                    Ok(_) => Self::unsealed(),
                    Err(error) => error,
                });
            }
            (Self::Plain(_), _) => reader.open_beside(Kind::Head, HEAD, bytes, record)?,
            (Self::Sealed(keys), _) => {
                let older = prefix.generation > self.generation();
                match reader.open_beside(Kind::Head, HEAD, bytes, record) {
                    Ok(_) if older => return Err(keys.older(&prefix)),
                    Ok(content) => {
                        keys.require_current(record)?;
                        content
                    }
                    // The keyring that sealed it may have had a version that this one has not.
                    Err(_) if older && keys.lack_version_of(record) => {
                        return Err(keys.older(&prefix));
                    }
                    Err(error) if keys.is_foreign(&prefix, bytes, record) => {
                        return Err(keys.foreign(&prefix).because(error));
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let stored = Stored::decode(content)?;
        if Prefix::of(&stored, prefix.generation) != prefix {
            return Err(damaged(Kind::Head, HEAD, "misshapen"));
        }
        Ok(stored)
    }
}

impl Keys {
    /// The same, to change a part of it.
    fn shared(&self) -> Self {
        Self {
            keyring: Arc::clone(&self.keyring),
            sealing: self.sealing.clone(),
            inventory: self.inventory.clone(),
            signing: Arc::clone(&self.signing),
            contents: Arc::clone(&self.contents),
        }
    }

    /// Whether a head that does not open was sealed with a keyring of another store. One of this
    /// store whose prefix was altered opens under the prefix that it had.
    fn is_foreign(&self, prefix: &Prefix, bytes: &[u8], record: &[u8]) -> bool {
        let own = self.keyring.store();
        if prefix.side.as_bytes() == own {
            return false;
        }
        let mut restored = own.to_vec();
        restored.extend_from_slice(bytes.get(own.len()..).unwrap_or_default());
        let mut opener = Opener::new(&self.sealing);
        opener.open(Kind::Head, HEAD, &restored, record, &mut Vec::new()).is_err()
    }

    fn lack_version_of(&self, record: &[u8]) -> bool {
        version_of(record).is_some_and(|version| self.keyring.data_key(version).is_err())
    }

    fn foreign(&self, prefix: &Prefix) -> Error {
        Error::new(
            ErrorKind::Crypto,
            "the store was sealed with another keyring than this one; name the keyring of this store",
        )
        .with("store", prefix.side)
        .with("keyring", SideId::from_bytes(*self.keyring.store()))
    }

    fn older(&self, prefix: &Prefix) -> Error {
        Error::new(
            ErrorKind::Crypto,
            "the keyring is older than the store's last commit; put back the newest copy of it",
        )
        .with("generation", self.keyring.generation())
        .with("needed", prefix.generation)
    }

    /// A head under a version that was given up is forged with a key that leaked, or older than it says.
    fn require_current(&self, record: &[u8]) -> Result<()> {
        match version_of(record) {
            Some(version) if !self.keyring.accepts_head_under(version) => Err(Error::corrupt(
                "the head is sealed under a version of the key that was given up: it is older than the \
                 keyring, or forged; restore the store from a backup",
            )
            .with("version", version)),
            _ => Ok(()),
        }
    }
}

/// Microseconds since 1970: one of the three things that a nonce is made of, and the least of them.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
