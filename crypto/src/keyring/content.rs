//! What a keyring holds, byte by byte. `docs/cryptography.md` has the same as a table.

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::hash::{derive, sha256};
use crate::keyring::passphrase::Stretch;
use crate::keyring::recipient::{Fingerprint, PUBLIC, Recipient};
use crate::keyring::{MOST_DATA_KEYS, MOST_HASH_KEYS, MOST_RECIPIENTS};
use crate::random::Random;
use crate::secret::Secret;
use crate::signature::{Purpose, Seeds, Signer, SignerId};
use crate::wire::{Reader, short};

const TITLE: &[u8] = b"ghostwire-store keyring 1\n";
const LONGEST_LABEL: usize = 64;
const MISSHAPEN: Error = Error::corrupt("keyring", "its content is misshapen");

/// Somebody whom the keyring is sealed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub(crate) recipient: Recipient,
    pub(crate) root: bool,
    pub(crate) label: String,
}

impl Member {
    pub(crate) fn new(recipient: Recipient, root: bool, label: &str) -> Result<Self> {
        if label.len() > LONGEST_LABEL || label.chars().any(char::is_control) {
            let why = format!("it is longer than {LONGEST_LABEL} bytes or has control characters");
            return Err(Error::invalid("label of a recipient", why));
        }
        Ok(Self { recipient, root, label: label.to_owned() })
    }

    /// The recipient.
    #[must_use]
    pub const fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// Whether it is the root secret's, which unlocks the store when it is opened.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.root
    }

    /// What it is for, in the words of whoever added it.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }
}

/// A version of the key that seals records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKey {
    pub(crate) version: u32,
    pub(crate) since: u64,
    pub(crate) key: Secret,
}

impl DataKey {
    /// Which one it is. Numbers go up, and none is ever used for two keys.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// When it was drawn, in microseconds since 1970.
    #[must_use]
    pub const fn since(&self) -> u64 {
        self.since
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &Secret {
        &self.key
    }

    /// What a keyring holds beside a key so that no other passes for it.
    fn commitment(&self, store: &[u8; 16]) -> Result<Secret> {
        let version = self.version.to_be_bytes();
        derive(self.key.expose(), store, &[b"ghostwire-store data key 1", &version])
    }
}

/// A version of the key that hashes credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashKey {
    pub(crate) number: u32,
    pub(crate) since: u64,
    pub(crate) key: Secret,
}

impl HashKey {
    /// Which one it is, among the keyring's.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// When it came into the keyring, in microseconds since 1970.
    #[must_use]
    pub const fn since(&self) -> u64 {
        self.since
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &Secret {
        &self.key
    }

    /// The public id that stands in each hash made with it.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = sha256(&[b"ghostwire-store key id", self.key.expose()]);
        [a, b, c, d]
    }
}

/// The secrets by which a store's own word is told from a forgery. A leak of a data key renews them
/// all.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    pub(crate) inventory: Secret,
    pub(crate) pin: Secret,
    /// In the order of [`Purpose::ALL`].
    pub(crate) seeds: [Seeds; 3],
}

impl Authority {
    pub(crate) fn draw(random: &dyn Random) -> Result<Self> {
        Ok(Self {
            inventory: Secret::draw(random)?,
            pin: Secret::draw(random)?,
            seeds: [Seeds::draw(random)?, Seeds::draw(random)?, Seeds::draw(random)?],
        })
    }

    /// The key of the inventory.
    #[must_use]
    pub const fn inventory(&self) -> &Secret {
        &self.inventory
    }

    /// The key of pins.
    #[must_use]
    pub const fn pin(&self) -> &Secret {
        &self.pin
    }

    /// What signs for this purpose.
    ///
    /// # Errors
    /// `Library` if it cannot be made.
    pub fn signer(&self, purpose: Purpose) -> Result<Signer> {
        let [store, manifest, tree_head] = &self.seeds;
        let seeds = match purpose {
            Purpose::Store => store,
            Purpose::Manifest => manifest,
            Purpose::TreeHead => tree_head,
        };
        Signer::new(purpose, seeds)
    }

    fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let seeds = self.seeds.iter().flat_map(|seeds| [&seeds.ed25519, &seeds.ml_dsa]);
        [&self.inventory, &self.pin].into_iter().chain(seeds)
    }

    fn write(&self, into: &mut Vec<u8>) {
        into.extend(self.inventory.expose());
        into.extend(self.pin.expose());
        for seeds in &self.seeds {
            into.extend(seeds.ed25519.expose());
            into.extend(seeds.ml_dsa.expose());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (inventory, pin) = (reader.secret()?, reader.secret()?);
        let mut seeds = || Some(Seeds { ed25519: reader.secret()?, ml_dsa: reader.secret()? });
        Some(Self { inventory, pin, seeds: [seeds()?, seeds()?, seeds()?] })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

/// What was in force before a rotation, until the head and the pin were written under what is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    pub(crate) version: u32,
    pub(crate) authority: Option<Authority>,
}

impl Leaving {
    /// The version under which the head may still be sealed.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The secrets that were renewed, if they were.
    #[must_use]
    pub const fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }
}

/// Everything in a keyring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) store: [u8; 16],
    pub(crate) generation: u64,
    /// SHA-256 of the file of the generation before; zeros in the first.
    pub(crate) before: [u8; 32],
    pub(crate) passphrase: Option<Stretch>,
    pub(crate) members: Vec<Member>,
    pub(crate) next_version: u32,
    /// In ascending order; the last seals.
    pub(crate) data_keys: Vec<DataKey>,
    pub(crate) next_hash_key: u32,
    /// In ascending order; the last hashes.
    pub(crate) hash_keys: Vec<HashKey>,
    pub(crate) authority: Authority,
    pub(crate) leaving: Option<Leaving>,
}

impl Content {
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let data_keys = self.data_keys.iter().map(|key| &key.key);
        let hash_keys = self.hash_keys.iter().map(|key| &key.key);
        let leaving = self.leaving.iter().filter_map(Leaving::authority);
        let authorities = [&self.authority].into_iter().chain(leaving);
        data_keys.chain(hash_keys).chain(authorities.flat_map(Authority::secrets))
    }

    pub(crate) fn encode(&self) -> Result<Zeroizing<Vec<u8>>> {
        // Large enough for all, so that no copy is left behind by growing.
        let labels: usize = self.members.iter().map(|member| PUBLIC + 2 + member.label.len()).sum();
        let keys = self.data_keys.len() * 76 + self.hash_keys.len() * 44;
        let mut into = Zeroizing::new(Vec::with_capacity(1024 + labels + keys));
        into.extend(TITLE);
        into.extend(self.store);
        into.extend(self.generation.to_be_bytes());
        into.extend(self.before);
        write_passphrase(self.passphrase.as_ref(), &mut into);
        into.extend(short(&self.members).to_be_bytes());
        for Member { recipient, root, label } in &self.members {
            into.extend_from_slice(recipient.as_bytes());
            into.push(u8::from(*root));
            into.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            into.extend(label.as_bytes());
        }
        into.extend(self.next_version.to_be_bytes());
        into.extend(short(&self.data_keys).to_be_bytes());
        for data_key in &self.data_keys {
            into.extend(data_key.version.to_be_bytes());
            into.extend(data_key.since.to_be_bytes());
            into.extend(data_key.key.expose());
            into.extend(data_key.commitment(&self.store)?.expose());
        }
        into.extend(self.next_hash_key.to_be_bytes());
        into.extend(short(&self.hash_keys).to_be_bytes());
        for HashKey { number, since, key } in &self.hash_keys {
            into.extend(number.to_be_bytes());
            into.extend(since.to_be_bytes());
            into.extend(key.expose());
        }
        self.authority.write(&mut into);
        match &self.leaving {
            None => into.push(0),
            Some(Leaving { version, authority }) => {
                into.push(if authority.is_some() { 2 } else { 1 });
                into.extend(version.to_be_bytes());
                if let Some(authority) = authority {
                    authority.write(&mut into);
                }
            }
        }
        Ok(into)
    }

    /// # Errors
    /// `Newer`, `Corrupt` or, for a key that is not the one committed to, `Spliced`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let Some(rest) = bytes.strip_prefix(TITLE) else {
            return Err(Error::corrupt("keyring", "its content does not begin like one"));
        };
        let (content, commitments) = Self::read(&mut Reader::new(rest)).ok_or(MISSHAPEN)?;
        content.check().map_err(|why| Error::corrupt("keyring", why))?;
        for (data_key, commitment) in content.data_keys.iter().zip(commitments) {
            if data_key.commitment(&content.store)? != commitment {
                return Err(Error::Spliced { part: "a data key is not the one committed to" });
            }
        }
        Ok(content)
    }

    fn read(reader: &mut Reader<'_>) -> Option<(Self, Vec<Secret>)> {
        let (store, generation, before) = (*reader.array()?, reader.u64()?, *reader.array()?);
        let passphrase = read_passphrase(reader)?;
        let members = read_list(reader, MOST_RECIPIENTS, |reader| {
            let recipient = Recipient::from_bytes(reader.bytes(PUBLIC)?).ok()?;
            let root = flag(reader)?;
            let length = usize::from(reader.u8()?);
            let label = std::str::from_utf8(reader.bytes(length)?).ok()?;
            Member::new(recipient, root, label).ok()
        })?;
        let next_version = reader.u32()?;
        let data_keys = read_list(reader, MOST_DATA_KEYS, |reader| {
            let (version, since, key) = (reader.u32()?, reader.u64()?, reader.secret()?);
            Some((DataKey { version, since, key }, reader.secret()?))
        })?;
        let (data_keys, commitments) = data_keys.into_iter().unzip();
        let next_hash_key = reader.u32()?;
        let hash_keys = read_list(reader, MOST_HASH_KEYS, |reader| {
            Some(HashKey { number: reader.u32()?, since: reader.u64()?, key: reader.secret()? })
        })?;
        let authority = Authority::read(reader)?;
        let leaving = match reader.u8()? {
            0 => None,
            1 => Some(Leaving { version: reader.u32()?, authority: None }),
            2 => {
                let version = reader.u32()?;
                Some(Leaving { version, authority: Some(Authority::read(reader)?) })
            }
            _ => return None,
        };
        reader.finished()?;
        let content = Self {
            store,
            generation,
            before,
            passphrase,
            members,
            next_version,
            data_keys,
            next_hash_key,
            hash_keys,
            authority,
            leaving,
        };
        Some((content, commitments))
    }

    /// What holds of every keyring, whoever changed it last.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let roots = self.members.iter().filter(|member| member.root).count();
        let rules = [
            (self.generation > 0, "its generation is 0"),
            (!self.members.is_empty(), "it has no recipient"),
            (roots <= 1, "it has two roots"),
            (roots == 1 || self.passphrase.is_none(), "it has a passphrase and no root"),
            (
                unique(self.members.iter().map(|member| member.recipient.as_bytes())),
                "it has a recipient twice",
            ),
            (!self.data_keys.is_empty(), "it has no data key"),
            (
                ascending(self.data_keys.iter().map(|key| key.version), self.next_version),
                "its data keys are out of order",
            ),
            (
                ascending(self.hash_keys.iter().map(|key| key.number), self.next_hash_key),
                "its hash keys are out of order",
            ),
            (unique(self.hash_keys.iter().map(HashKey::id)), "two of its hash keys have one id"),
            (
                self.leaving.as_ref().is_none_or(|leaving| {
                    self.data_keys.iter().rev().skip(1).any(|key| key.version == leaving.version)
                }),
                "the version before is missing",
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(why))
    }

    /// The bytes of the header, which say nothing that the content does not.
    pub(crate) fn header(&self, signer: SignerId) -> Vec<u8> {
        let mut into = self.store.to_vec();
        into.extend(self.generation.to_be_bytes());
        into.extend(short(&self.data_keys).to_be_bytes());
        for data_key in &self.data_keys {
            into.extend(data_key.version.to_be_bytes());
        }
        write_passphrase(self.passphrase.as_ref(), &mut into);
        into.extend(signer.as_bytes());
        into.extend(short(&self.members).to_be_bytes());
        for member in &self.members {
            into.extend(member.recipient.fingerprint().as_bytes());
        }
        into
    }
}

/// What anybody can read of a keyring. It is signed, and its authenticity is only known once the
/// keyring is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The store that it belongs to.
    pub store: [u8; 16],
    /// How often it was changed; the first is 1.
    pub generation: u64,
    /// The versions of the data key, in ascending order. The last seals.
    pub versions: Vec<u32>,
    /// How the passphrase is stretched, if one unlocks it.
    pub passphrase: Option<Stretch>,
    /// Who signed it.
    pub signer: SignerId,
    /// Whom it is sealed to.
    pub recipients: Vec<Fingerprint>,
}

impl Header {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let reader = &mut Reader::new(bytes);
        let header = Self {
            store: *reader.array()?,
            generation: reader.u64()?,
            versions: read_list(reader, MOST_DATA_KEYS, |reader| reader.u32())?,
            passphrase: read_passphrase(reader)?,
            signer: SignerId::from_bytes(*reader.array()?),
            recipients: read_list(reader, MOST_RECIPIENTS, |reader| {
                reader.array().copied().map(Fingerprint::from_bytes)
            })?,
        };
        reader.finished()?;
        Some(header)
    }
}

fn write_passphrase(passphrase: Option<&Stretch>, into: &mut Vec<u8>) {
    into.push(u8::from(passphrase.is_some()));
    if let Some(stretch) = passphrase {
        stretch.write(into);
    }
}

fn read_passphrase(reader: &mut Reader<'_>) -> Option<Option<Stretch>> {
    if flag(reader)? { Stretch::read(reader).map(Some) } else { Some(None) }
}

fn flag(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn read_list<T>(
    reader: &mut Reader<'_>,
    most: usize,
    mut read: impl FnMut(&mut Reader<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = usize::from(reader.u16()?);
    if count > most {
        return None;
    }
    (0..count).map(|_| read(reader)).collect()
}

fn unique<T: PartialEq>(items: impl Iterator<Item = T>) -> bool {
    let items: Vec<T> = items.collect();
    items
        .iter()
        .enumerate()
        .all(|(place, item)| !items.iter().skip(place + 1).any(|other| other == item))
}

/// Whether numbers go up from 1 and end before the next.
fn ascending(numbers: impl Iterator<Item = u32>, next: u32) -> bool {
    numbers.chain([next]).try_fold(0, |last, number| (number > last).then_some(number)).is_some()
}
