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

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ghostwire_store_core::block::EncodedBlock;
use ghostwire_store_core::domain::SideId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::{RowKey, Table};
use ghostwire_store_crypto::keyring::{Authority, Keyring, Leaving};
use ghostwire_store_crypto::sealing::{CommitSealer, Inventory, Opener, SealingKeys, tag_of};
pub(crate) use ghostwire_store_crypto::sealing::{Kind, Sum, Tag, version_of};
use ghostwire_store_crypto::signature::{PublicKeys, Purpose, Signer, Succession};
use ghostwire_store_crypto::{self as crypto, Damage, SystemRandom};
use sha2::{Digest, Sha256};

use crate::head::{Prefix, Stored};
use crate::resealing::Counts;

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

/// Hashes that have taken in what plain records have in common.
#[derive(Clone)]
pub(crate) struct Checksums {
    /// The head's: which database it is of is read from it.
    head: Sha256,
    /// Those of all other records of a database.
    of_database: Sha256,
}

/// What a keyring comes to for sealing.
pub(crate) struct Keys {
    keyring: Keyring,
    sealing: SealingKeys,
    inventory: Inventory,
    signing: Arc<SigningKeys>,
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

impl fmt::Debug for Checksums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checksums")
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
            let head = Sha256::new_with_prefix(b"ghostwire-store zqlite plain 2");
            return Ok(Self::Plain(Checksums { of_database: head.clone(), head }));
        };
        Ok(Self::Sealed(Arc::new(Keys {
            sealing: SealingKeys::new(keyring).map_err(|error| refused(&error))?,
            inventory: Inventory::new(keyring.authority()),
            signing: Arc::new(SigningKeys::of(keyring)?),
            keyring: keyring.clone(),
        })))
    }

    /// For everything else.
    pub(crate) fn of_database(&self, side: SideId) -> Self {
        match self {
            Self::Plain(Checksums { head, .. }) => {
                let of_database = head.clone().chain_update(side.as_bytes());
                Self::Plain(Checksums { head: head.clone(), of_database })
            }
            Self::Sealed(keys) => Self::Sealed(Arc::clone(keys)),
        }
    }

    /// With the inventory's key from before a rotation, if this head is from before one that replaces it.
    pub(crate) fn before_rotation(&self, head: &[u8]) -> Result<Option<Self>> {
        let Self::Sealed(keys) = self else { return Ok(None) };
        let version = version_of(Prefix::split(head)?.1);
        let leaving = keys.keyring.leaving().filter(|leaving| version == Some(leaving.version()));
        Ok(leaving.and_then(Leaving::authority).map(|authority| {
            Self::Sealed(Arc::new(Keys {
                keyring: keys.keyring.clone(),
                sealing: keys.sealing.clone(),
                inventory: Inventory::new(authority),
                signing: Arc::clone(&keys.signing),
            }))
        }))
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
        let successions = keys.keyring.successions().map_err(|error| refused(&error))?;
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
        Ok(Sealer { envelope: self, commit })
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        let opener = match self {
            Self::Plain(_) => None,
            Self::Sealed(keys) => Some(Opener::new(&keys.sealing)),
        };
        Reader { envelope: self, opener, counts: Counts::default(), plain: Vec::new() }
    }

    /// Opens what belongs to a head, which says under which versions of the data key there are records.
    pub(crate) fn reader_of(&self, stored: &Stored) -> Reader<'_> {
        Reader { counts: stored.resealing.counts, ..self.reader() }
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

fn keyless(prefix: &Prefix) -> Error {
    Error::new(
        ErrorKind::Crypto,
        "the store is sealed; name its keyring, and set `zqlite.sealed = true`",
    )
    .with("store", prefix.side)
    .with("generation", prefix.generation)
}

/// Microseconds since 1970: one of the three things that a nonce is made of, and the least of them.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Checksums {
    fn of(&self, kind: Kind, number: u64, content: &[&[u8]]) -> Tag {
        let context = if kind == Kind::Head { &self.head } else { &self.of_database };
        let mut hash = context.clone().chain_update([kind as u8]);
        hash.update(number.to_be_bytes());
        content.iter().for_each(|part| hash.update(part));
        let hash: [u8; 32] = hash.finalize().into();
        let mut tag = [0; CHECKSUM];
        tag.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Tag(tag)
    }

    /// Of the parts of a block.
    fn of_block(&self, block: &EncodedBlock) -> [Tag; 2] {
        let (changes, audit) = block.parts();
        let serial = block.serial.get();
        // The hash does not tell whether the audit section was erased; its length does.
        let of = |kind, part: &[u8]| {
            self.of(kind, serial, &[block.hash.as_bytes(), &(part.len() as u64).to_be_bytes()])
        };
        [of(Kind::Block, changes), of(Kind::Audit, audit)]
    }
}

/// Frames the records of one commit.
#[derive(Debug)]
pub(crate) struct Sealer<'e> {
    envelope: &'e Envelope,
    commit: Option<CommitSealer>,
}

/// Bytes to write: those of the commit, or among those that were made for it.
#[derive(Debug)]
pub(crate) enum Part<'c> {
    Given(&'c [u8]),
    Made(Range<usize>),
}

/// A block, ready to be written.
#[derive(Debug)]
pub(crate) struct FramedBlock<'c> {
    pub(crate) tags: [Tag; 2],
    pub(crate) changes: Part<'c>,
    pub(crate) audit: Part<'c>,
}

impl<'e> Sealer<'e> {
    /// What signs; `None` of a plain store.
    pub(crate) fn signer(&self) -> Option<&'e Signer> {
        self.envelope.signer()
    }

    /// Appends a record to `into`.
    pub(crate) fn seal(
        &mut self,
        kind: Kind,
        number: u64,
        content: &[&[u8]],
        into: &mut Vec<u8>,
    ) -> Result<Tag> {
        self.seal_beside(kind, number, &[], content, into)
    }

    fn seal_beside(
        &mut self,
        kind: Kind,
        number: u64,
        prefix: &[u8],
        content: &[&[u8]],
        into: &mut Vec<u8>,
    ) -> Result<Tag> {
        match (self.envelope, &mut self.commit) {
            (Envelope::Sealed(_), Some(commit)) => {
                commit.seal(kind, number, prefix, content, into).map_err(|error| refused(&error))
            }
            (Envelope::Plain(checksums), _) => {
                let parts: Vec<&[u8]> =
                    [prefix].into_iter().chain(content.iter().copied()).collect();
                let tag = checksums.of(kind, number, &parts);
                into.push(PLAIN);
                into.extend_from_slice(&tag.0);
                content.iter().for_each(|part| into.extend_from_slice(part));
                Ok(tag)
            }
            (Envelope::Sealed(_), None) => {
                Err(Error::new(ErrorKind::Unexpected, "a sealed store is written without a sealer"))
            }
        }
    }

    /// The head, sealed last: it has the sums over all other records.
    pub(crate) fn seal_head(&mut self, stored: &Stored) -> Result<Vec<u8>> {
        let prefix = Prefix::of(stored, self.envelope.generation()).encode();
        let mut into = prefix.to_vec();
        self.seal_beside(Kind::Head, HEAD, &prefix, &[&stored.encode()], &mut into)?;
        Ok(into)
    }

    /// A head as an earlier build had it, which knew less.
    #[cfg(test)]
    pub(crate) fn seal_shorter_head(&mut self, stored: &Stored, length: usize) -> Result<Vec<u8>> {
        let prefix = Prefix::of(stored, self.envelope.generation()).encode();
        let (mut into, mut content) = (prefix.to_vec(), stored.encode());
        content.truncate(length);
        self.seal_beside(Kind::Head, HEAD, &prefix, &[&content], &mut into)?;
        Ok(into)
    }

    /// A row, or rows of a series.
    pub(crate) fn seal_placed(
        &mut self,
        kind: Kind,
        number: u64,
        placed: &Placed<'_>,
        into: &mut Vec<u8>,
    ) -> Result<Tag> {
        let Placed { table, key, body } = placed;
        // At most MAX_KEY, which fits.
        let length = u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes();
        self.seal(kind, number, &[&[*table], &length, key, body], into)
    }

    pub(crate) fn seal_row(
        &mut self,
        slot: u64,
        table: Table,
        key: &RowKey,
        body: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<Tag> {
        let placed = Placed { table: table.number(), key: key.as_bytes(), body };
        self.seal_placed(Kind::Row, slot, &placed, into)
    }

    pub(crate) fn seal_block<'c>(
        &mut self,
        block: &'c EncodedBlock,
        into: &mut Vec<u8>,
    ) -> Result<FramedBlock<'c>> {
        let (changes, audit) = block.parts();
        if let Envelope::Plain(checksums) = self.envelope {
            let tags = checksums.of_block(block);
            let (changes, audit) = (Part::Given(changes), Part::Given(audit));
            return Ok(FramedBlock { tags, changes, audit });
        }
        let mut part = |kind, content: &[u8]| {
            let start = into.len();
            let tag = self.seal(kind, block.serial.get(), &[content], into)?;
            Ok::<_, Error>((tag, Part::Made(start..into.len())))
        };
        let (changes_tag, changes) = part(Kind::Block, changes)?;
        let (audit_tag, audit) = part(Kind::Audit, audit)?;
        Ok(FramedBlock { tags: [changes_tag, audit_tag], changes, audit })
    }
}

/// What stands beside a block.
pub(crate) fn frame_of(tags: [Tag; 2]) -> [u8; BLOCK_FRAME] {
    let mut frame = [0; BLOCK_FRAME];
    let bytes = tags.iter().flat_map(|tag| tag.0);
    frame.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    frame
}

/// The tags that stand beside a block. Whether they are its own is seen once it is opened.
pub(crate) fn tags_beside(serial: u64, frame: &[u8]) -> Result<[Tag; 2]> {
    let misshapen = || damaged(Kind::Block, serial, "misshapen");
    let (changes, audit) = frame.split_first_chunk().ok_or_else(misshapen)?;
    let audit = <&[u8; CHECKSUM]>::try_from(audit).map_err(|_| misshapen())?;
    Ok([Tag(*changes), Tag(*audit)])
}

/// A block as it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredBlock<'s> {
    pub(crate) serial: u64,
    pub(crate) frame: &'s [u8],
    pub(crate) changes: &'s [u8],
    pub(crate) audit: &'s [u8],
}

/// Opens records, whichever commit framed them. Whoever reads many keeps one.
#[derive(Debug)]
pub(crate) struct Reader<'e> {
    envelope: &'e Envelope,
    opener: Option<Opener>,
    /// How many records there are under which version. Empty: it is not known.
    counts: Counts,
    /// What was opened last.
    plain: Vec<u8>,
}

impl Reader<'_> {
    /// Opens a record of which nothing is known but where it lies, and gives its tag, too.
    ///
    /// # Errors
    /// `Corrupt`, with what is wrong with it; `Crypto` if its key was destroyed.
    pub(crate) fn open<'r>(
        &'r mut self,
        kind: Kind,
        number: u64,
        stored: &'r [u8],
    ) -> Result<(&'r [u8], Tag)> {
        let tag = self.tag(kind, number, stored)?;
        self.open_beside(kind, number, &[], stored).map(|content| (content, tag))
    }

    /// Opens the record that has this tag now. One with another was this record once, or will be.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub(crate) fn open_current<'r>(
        &'r mut self,
        kind: Kind,
        number: u64,
        current: Tag,
        stored: &'r [u8],
    ) -> Result<&'r [u8]> {
        let (content, tag) = self.open(kind, number, stored)?;
        match tag == current {
            true => Ok(content),
            false => Err(older(kind, number)),
        }
    }

    /// Opens the signature record with this number. One with another is that of another moment.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub(crate) fn open_signature<'r>(
        &'r mut self,
        number: u64,
        stored: &'r [u8],
    ) -> Result<&'r [u8]> {
        let Some(opener) = &mut self.opener else {
            return Err(unexpected(Kind::Signature, number));
        };
        let opened = opener.open(Kind::Signature, number, &[], stored, &mut self.plain);
        opened.map_err(|error| match error {
            crypto::Error::Record { damage: Damage::Moved { .. }, .. } => {
                older(Kind::Signature, number)
            }
            error => refused(&error),
        })
    }

    fn tag(&self, kind: Kind, number: u64, stored: &[u8]) -> Result<Tag> {
        let tag = match self.envelope {
            Envelope::Plain(_) => {
                stored.get(1..).and_then(|rest| rest.first_chunk()).copied().map(Tag)
            }
            Envelope::Sealed(_) => tag_of(stored),
        };
        tag.ok_or_else(|| damaged(kind, number, Damage::Truncated.name()))
    }

    fn open_beside<'r>(
        &'r mut self,
        kind: Kind,
        number: u64,
        prefix: &[u8],
        stored: &'r [u8],
    ) -> Result<&'r [u8]> {
        let checksums = match (self.envelope, &mut self.opener) {
            (Envelope::Plain(checksums), _) => checksums,
            (_, Some(opener)) => {
                if kind != Kind::Head {
                    require_in_use(self.envelope, &self.counts, kind, number, stored)?;
                }
                let opened = opener.open(kind, number, prefix, stored, &mut self.plain);
                return opened.map_err(|error| refused(&error));
            }
            (Envelope::Sealed(_), None) => {
                return Err(Error::new(
                    ErrorKind::Unexpected,
                    "a sealed store is read without keys",
                ));
            }
        };
        let damaged = |damage: Damage| damaged(kind, number, damage.name());
        let (&format, rest) = stored.split_first().ok_or_else(|| damaged(Damage::Truncated))?;
        if format != PLAIN {
            return Err(damaged(Damage::UnknownFormat { format }).with("format", format));
        }
        let (tag, content) =
            rest.split_first_chunk::<CHECKSUM>().ok_or_else(|| damaged(Damage::Truncated))?;
        match checksums.of(kind, number, &[prefix, content]).0 == *tag {
            true => Ok(content),
            false => Err(damaged(Damage::Altered)),
        }
    }

    /// A row, or rows of a series, and its tag.
    pub(crate) fn open_placed<'r>(
        &'r mut self,
        kind: Kind,
        number: u64,
        stored: &'r [u8],
    ) -> Result<(Placed<'r>, Tag)> {
        let (content, tag) = self.open(kind, number, stored)?;
        let misshapen = || damaged(kind, number, Damage::Misshapen.name());
        let (&[table], rest) = content.split_first_chunk().ok_or_else(misshapen)?;
        let (&length, rest) = rest.split_first_chunk().ok_or_else(misshapen)?;
        let length = usize::from(u16::from_be_bytes(length));
        let (key, body) = rest.split_at_checked(length).ok_or_else(misshapen)?;
        Ok((Placed { table, key, body }, tag))
    }

    /// The block with this serial; with these tags, where they are known.
    pub(crate) fn open_block(
        &mut self,
        stored: StoredBlock<'_>,
        current: Option<[Tag; 2]>,
    ) -> Result<EncodedBlock> {
        let serial = stored.serial;
        let tags = tags_beside(serial, stored.frame)?;
        let bytes = match self.envelope {
            Envelope::Plain(_) => [stored.changes, stored.audit].concat(),
            Envelope::Sealed(_) => {
                let [changes, audit] = tags;
                let mut bytes = Vec::with_capacity(stored.changes.len() + stored.audit.len());
                bytes.extend_from_slice(self.open_current(
                    Kind::Block,
                    serial,
                    changes,
                    stored.changes,
                )?);
                bytes.extend_from_slice(self.open_current(
                    Kind::Audit,
                    serial,
                    audit,
                    stored.audit,
                )?);
                bytes
            }
        };
        let altered = || damaged(Kind::Block, serial, Damage::Altered.name());
        let block =
            EncodedBlock::parse(Bytes::from(bytes)).map_err(|error| altered().because(error))?;
        if let Envelope::Plain(checksums) = self.envelope
            && checksums.of_block(&block) != tags
        {
            return Err(altered());
        }
        if block.serial.get() != serial {
            return Err(damaged(Kind::Block, serial, "moved").with("found", block.serial));
        }
        match current.is_none_or(|current| current == tags) {
            true => Ok(block),
            false => Err(older(Kind::Block, serial)),
        }
    }
}

/// A record that is sound, and not the one that belongs there now.
pub(crate) fn older(kind: Kind, number: u64) -> Error {
    damaged(kind, number, "of another moment: a later write of it got lost")
}

/// A record that is sound, and should not be there: it was deleted, or is another one's second.
pub(crate) fn unexpected(kind: Kind, number: u64) -> Error {
    damaged(kind, number, "duplicated, or was deleted and put back")
}

/// A record that is not there.
pub(crate) fn missing(kind: Kind, number: u64) -> Error {
    damaged(kind, number, "missing")
}

/// Refuses a record under a version that has none left. Whoever had that key can make one with the tag of
/// the record that is there now, as Poly1305 commits to nothing.
fn require_in_use(
    envelope: &Envelope,
    counts: &Counts,
    kind: Kind,
    number: u64,
    stored: &[u8],
) -> Result<()> {
    let version = version_of(stored);
    let is_in_use = counts.is_empty()
        || counts.is_full()
        || version == envelope.version()
        || version.is_none_or(|version| counts.under(version) > 0);
    match is_in_use {
        true => Ok(()),
        false => Err(damaged(
            kind,
            number,
            "sealed under a version of the data key that has none left: it was \
                     put there by somebody who had that key, or was put back",
        )
        .with("version", version.unwrap_or_default())),
    }
}

fn damaged(kind: Kind, number: u64, damage: &'static str) -> Error {
    let error =
        Error::corrupt(format!("a stored record is {damage}; restore the store from a backup"))
            .with("record", kind.name());
    match kind {
        Kind::Head | Kind::Signature => error,
        Kind::Row => error.with("slot", number),
        Kind::Block | Kind::Audit => error.with("serial", number),
        Kind::Chunk | Kind::Directory | Kind::Journal => error.with("number", number),
    }
}

/// What the crate that seals refuses, as a kind that says what to do.
pub(crate) fn refused(error: &crypto::Error) -> Error {
    match error {
        crypto::Error::Record { damage, kind, number } => {
            let refused = damaged(*kind, *number, damage.name());
            match damage {
                Damage::Moved { from } => refused.with("from", from),
                Damage::UnknownFormat { format } => refused.with("format", format),
                Damage::Foreign { version } => refused.with("version", version),
                _ => refused,
            }
        }
        crypto::Error::Random(_) | crypto::Error::Library(_) => {
            Error::new(ErrorKind::Unavailable, error.to_string())
        }
        _ => Error::new(ErrorKind::Crypto, error.to_string()),
    }
}
