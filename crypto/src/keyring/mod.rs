//! The keyring: every secret of a store in one age v1 file, sealed to each recipient.
//!
//! A file is a header that anybody can read, a stanza for each recipient, a signature, and one
//! sealed payload. Each change writes all of it anew under a new file key, so nothing in it can be
//! replaced by itself. See `docs/cryptography.md` for the bytes.

mod age;
pub(crate) mod bech32;
mod change;
mod content;
mod file;
mod passphrase;
mod recipient;

use std::fmt;

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::keyring::age::{Draft, File, HYBRID, Stanza};
use crate::keyring::content::Content;
use crate::keyring::recipient::FILE_KEY;
use crate::random::Random;
use crate::secret::{Secret, on_cleared_stack};
use crate::signature::{Purpose, Signature, Subject};

pub use change::Rotation;
pub use content::{Authority, DataKey, HashKey, Header, Leaving, Member};
pub use file::KeyringFile;
#[cfg(unix)]
pub(crate) use file::directory_of;
pub(crate) use file::{io, sync_directory_of};
pub use passphrase::Stretch;
#[cfg(test)]
pub(crate) use recipient::contributes;
pub use recipient::{Fingerprint, Identity, Recipient};

/// The most recipients.
pub const MOST_RECIPIENTS: usize = 32;
/// The most versions of the data key.
pub const MOST_DATA_KEYS: usize = 256;
/// The most versions of the key that hashes credentials.
pub const MOST_HASH_KEYS: usize = 64;
/// Longer files are no keyrings, and are not read.
pub const LONGEST_FILE: usize = 256 * 1024;

const HEADER: &str = "ghostwire-store/keyring";
const SIGNATURE: &str = "ghostwire-store/signature";
const FORM: &str = "1";

/// What a keyring is opened with.
#[derive(Clone, Copy)]
pub enum Unlock<'a> {
    /// The identity of a recipient: the root secret, or somebody else's.
    Identity(&'a Identity),
    /// The passphrase that the root secret is made of.
    Passphrase(&'a [u8]),
}

impl fmt::Debug for Unlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(identity) => write!(f, "Unlock({identity:?})"),
            Self::Passphrase(_) => f.write_str("Unlock(Passphrase(..))"),
        }
    }
}

/// What is known of the keyring before it is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected {
    /// The store that it has to belong to; any if `None`.
    pub store: Option<[u8; 16]>,
    /// The least generation that the store's head names.
    pub generation: u64,
}

/// A keyring, open. Changes give the next generation and leave this one as it is.
#[derive(Clone)]
pub struct Keyring {
    content: Content,
    /// SHA-256 of the file; `None` until a change was written and opened again.
    file: Option<[u8; 32]>,
}

impl Keyring {
    /// What anybody can read of a keyring.
    ///
    /// # Errors
    /// `Newer` or `Corrupt`.
    pub fn header(bytes: &[u8]) -> Result<Header> {
        Parts::of(bytes).map(|parts| parts.header)
    }

    /// Opens a keyring.
    ///
    /// # Errors
    /// In this order, each before the next is looked at: `Newer` or `Corrupt` by its form;
    /// `Foreign`, `Older`; `WrongKey` (a passphrase) or `WrongRecipient` (an identity); `Corrupt`
    /// if the header or the payload is not what was sealed; `Spliced` if parts do not belong
    /// together; `Unsigned`.
    pub fn open(bytes: &[u8], unlock: Unlock<'_>, expected: &Expected) -> Result<Self> {
        on_cleared_stack(|| Self::open_here(bytes, unlock, expected))
    }

    fn open_here(bytes: &[u8], unlock: Unlock<'_>, expected: &Expected) -> Result<Self> {
        let parts = Parts::of(bytes)?;
        let header = &parts.header;
        if let Some(store) = expected.store
            && store != header.store
        {
            return Err(Error::Foreign {
                what: "keyring",
                found: Some(header.store),
                expected: store,
            });
        }
        if header.generation < expected.generation {
            return Err(Error::Older { found: header.generation, needed: expected.generation });
        }
        let file_key = parts.file_key(unlock)?;
        if !parts.file.is_header_of(&file_key)? {
            return Err(Error::corrupt("keyring", "its header is not what was sealed"));
        }
        let payload = parts.file.open(&file_key)?;
        let payload =
            payload.ok_or(Error::corrupt("keyring", "its payload is not what was sealed"))?;
        let content = Content::decode(&payload)?;
        let signer = content.authority.signer(Purpose::Store)?;
        if content.header(signer.public().id()) != parts.header_bytes {
            return Err(Error::Spliced { part: "the header is not that of the content" });
        }
        let stanzas = parts.file.stanzas.iter().filter(|(_, stanza)| stanza.name() == HYBRID);
        if stanzas.count() != content.members.len() {
            return Err(Error::Spliced { part: "it is sealed to more or fewer than it names" });
        }
        let body = sha256(&[parts.signed, parts.file.payload]);
        signer.public().verify("keyring", Subject::Keyring, &body, &parts.signature)?;
        Ok(Self { content, file: Some(sha256(&[bytes])) })
    }

    /// The file of this keyring. Each call gives another one.
    ///
    /// # Errors
    /// `Random`, `Library`.
    pub fn seal(&self, random: &dyn Random) -> Result<Vec<u8>> {
        on_cleared_stack(|| self.seal_here(random))
    }

    fn seal_here(&self, random: &dyn Random) -> Result<Vec<u8>> {
        self.content.check().map_err(|why| Error::invalid("keyring", why))?;
        let mut file_key = Zeroizing::new([0; FILE_KEY]);
        random.fill(file_key.as_mut_slice())?;
        let signer = self.content.authority.signer(Purpose::Store)?;
        let payload = age::seal(&file_key, &self.content.encode()?, random)?;
        let mut draft = Draft::new();
        draft.push(&Stanza::new(&[HEADER, FORM], &self.content.header(signer.public().id())));
        for member in &self.content.members {
            draft.push_recipient(&member.recipient, &file_key, random)?;
        }
        let body = sha256(&[draft.as_bytes(), &payload]);
        let signature = signer.sign(Subject::Keyring, &body)?;
        draft.push(&Stanza::new(&[SIGNATURE, FORM], &signature.to_bytes()));
        draft.finish(&file_key, &payload)
    }

    /// The store that it belongs to.
    #[must_use]
    pub const fn store(&self) -> &[u8; 16] {
        &self.content.store
    }

    /// How often it was changed; the first is 1.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.content.generation
    }

    /// SHA-256 of the file of the generation before; zeros in the first.
    #[must_use]
    pub const fn before(&self) -> &[u8; 32] {
        &self.content.before
    }

    /// SHA-256 of the file that it was opened from; `None` for a change that is not written yet.
    #[must_use]
    pub const fn file_hash(&self) -> Option<&[u8; 32]> {
        self.file.as_ref()
    }

    /// Whom it is sealed to.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.content.members
    }

    /// The versions of the data key, in ascending order.
    #[must_use]
    pub fn data_keys(&self) -> &[DataKey] {
        &self.content.data_keys
    }

    /// The version that seals.
    ///
    /// # Errors
    /// `Corrupt` never for a keyring that was opened: it has one.
    pub fn active(&self) -> Result<&DataKey> {
        self.content.data_keys.last().ok_or(Error::corrupt("keyring", "it has no data key"))
    }

    /// The data key of this version.
    ///
    /// # Errors
    /// `MissingVersion` if it was destroyed; `Foreign` if there never was one.
    pub fn data_key(&self, version: u32) -> Result<&DataKey> {
        match self.content.data_keys.iter().find(|key| key.version == version) {
            Some(key) => Ok(key),
            None if (1..self.content.next_version).contains(&version) => {
                Err(Error::MissingVersion { version })
            }
            None => {
                Err(Error::Foreign { what: "record", found: None, expected: self.content.store })
            }
        }
    }

    /// The number that the next version of the data key gets.
    #[must_use]
    pub const fn next_version(&self) -> u32 {
        self.content.next_version
    }

    /// The versions of the key that hashes credentials, in ascending order. The last hashes.
    #[must_use]
    pub fn hash_keys(&self) -> &[HashKey] {
        &self.content.hash_keys
    }

    /// The secrets of inventory, pin and signatures.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.content.authority
    }

    /// What was in force before, while a rotation is under way.
    #[must_use]
    pub const fn leaving(&self) -> Option<&Leaving> {
        self.content.leaving.as_ref()
    }

    /// Whether a head that is sealed under this version may be accepted: the newest, or the one
    /// before while a rotation is under way. A head under any other is forged with a key that was
    /// given up, or older than it says.
    #[must_use]
    pub fn accepts_head_under(&self, version: u32) -> bool {
        let newest = self.content.data_keys.last().map(DataKey::version);
        newest == Some(version) || self.leaving().is_some_and(|leaving| leaving.version == version)
    }

    /// Whether its keys are kept out of the swap; see [`Secret::is_locked`](crate::Secret::is_locked).
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.content.secrets().all(Secret::is_locked)
    }

    /// How the passphrase is stretched, if one unlocks it.
    #[must_use]
    pub const fn passphrase(&self) -> Option<&Stretch> {
        self.content.passphrase.as_ref()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("store", &crate::wire::hex(&self.content.store))
            .field("generation", &self.content.generation)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "constant-time"))]
impl Keyring {
    pub(crate) fn mark_data_keys(&mut self, mark: fn(&mut [u8])) {
        self.content.data_keys.iter_mut().for_each(|key| mark(key.key.expose_mut()));
    }
}

#[cfg(fuzzing)]
pub(crate) fn decode_content(bytes: &[u8]) -> Option<Content> {
    Content::decode(bytes).ok()
}

/// The sections of a file.
struct Parts<'a> {
    file: File<'a>,
    header: Header,
    header_bytes: Vec<u8>,
    signature: Signature,
    /// The part of the header that is signed, together with the payload.
    signed: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > LONGEST_FILE {
            return Err(Error::corrupt("keyring", "it is too long"));
        }
        let file = File::parse(bytes).map_err(|why| Error::corrupt("keyring", why))?;
        let ours = |stanza: &Stanza, name: &'static str| match stanza.arguments.as_slice() {
            [found, form] if found == name && form == FORM => Ok(()),
            [found, form, ..] if found == name => {
                Err(Error::Newer { what: "keyring", found: form.clone() })
            }
            _ => Err(Error::corrupt("keyring", "a part of its header is not where it should be")),
        };
        let (Some((_, first)), Some((at, last))) = (file.stanzas.first(), file.stanzas.last())
        else {
            return Err(Error::corrupt("keyring", "it has no header"));
        };
        ours(first, HEADER)?;
        ours(last, SIGNATURE)?;
        let between = file.stanzas.len().saturating_sub(2);
        if file.stanzas.iter().skip(1).take(between).any(|(_, stanza)| stanza.name() != HYBRID) {
            return Err(Error::corrupt(
                "keyring",
                "it is sealed to something else than age1pq recipients",
            ));
        }
        let signed = file.before(*at);
        let signature = Signature::from_bytes(&last.body)?;
        let header = Header::decode(&first.body);
        let header =
            header.ok_or(Error::corrupt("keyring", "what its header says is misshapen"))?;
        let header_bytes = first.body.clone();
        Ok(Self { file, header, header_bytes, signature, signed })
    }

    fn file_key(&self, unlock: Unlock<'_>) -> Result<Zeroizing<[u8; FILE_KEY]>> {
        let recipients = || self.header.recipients.clone();
        let stretched;
        let identity = match unlock {
            Unlock::Identity(identity) => identity,
            Unlock::Passphrase(passphrase) => {
                let stretch = self.header.passphrase.ok_or_else(|| {
                    Error::invalid("passphrase", "this keyring has none; use an identity")
                })?;
                stretched = stretch.identity(passphrase)?;
                &stretched
            }
        };
        let presented = identity.recipient().fingerprint();
        if self.header.recipients.contains(&presented) {
            let file_key = self.file.file_key(identity)?;
            return file_key
                .ok_or(Error::corrupt("keyring", "its stanza for this identity does not open"));
        }
        Err(match unlock {
            Unlock::Identity(_) => Error::WrongRecipient { presented, recipients: recipients() },
            Unlock::Passphrase(_) => Error::WrongKey { recipients: recipients() },
        })
    }
}

#[cfg(test)]
mod tests;
