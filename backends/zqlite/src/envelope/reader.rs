//! Records on their way from the engine.

use bytes::Bytes;
use ghostwire_store_core::block::EncodedBlock;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_crypto::sealing::{Kind, Opener, Tag, tag_of, version_of};
use ghostwire_store_crypto::{self as crypto, Damage};

use super::refusal::{damaged, of_another_content, older, refused, unexpected};
use super::{CHECKSUM, Envelope, PLAIN, Placed};
use crate::resealing::Counts;

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

impl<'e> Reader<'e> {
    pub(super) fn new(envelope: &'e Envelope, opener: Option<Opener>) -> Self {
        Self { envelope, opener, counts: Counts::default(), plain: Vec::new() }
    }

    /// Of a store that has so many records under which version.
    pub(super) fn of(self, counts: Counts) -> Self {
        Self { counts, ..self }
    }

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

    pub(super) fn open_beside<'r>(
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
                    require_content(self.envelope, kind, number, stored)?;
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

/// Refuses a record from before a leak that is not, byte for byte, the one that was there when the keys were
/// rotated.
pub(crate) fn require_content(
    envelope: &Envelope,
    kind: Kind,
    number: u64,
    stored: &[u8],
) -> Result<()> {
    let contents = envelope.contents().filter(|contents| contents.bind(kind, stored));
    let Some(contents) = contents else { return Ok(()) };
    match envelope.code_of(kind, number, stored) == contents.code(kind, number).copied() {
        true => Ok(()),
        false => Err(of_another_content(kind, number)),
    }
}
