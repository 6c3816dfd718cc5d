//! A plain store sealed, and a sealed one made plain: written anew as a whole, so that nothing of the
//! old form is left in free pages or in a log, and put in its own place in one step, as a smaller copy
//! is. Wherever that is broken off, the old store or the new one is there, whole.

use std::cell::Cell;
use std::path::Path;

use ghostwire_store_core::backend::{Compacted, Head};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::{Compact, FileKind, compact};

use crate::engine::connect::Connect;
use crate::engine::embedded::{Rewriter, write_anew};
use crate::envelope::{Envelope, Kind};
use crate::head::Stored;
use crate::open::{Open, read_data_block};
use crate::options::ZqliteOptions;
use crate::series::SeriesHead;
use crate::series::data_block::DataBlock;
use crate::verify::verify;

/// What a store is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Sealed,
    Plain,
}

/// Writes a store that nobody has open anew, in another form. The options have the keyring.
pub(crate) fn reframe(options: &ZqliteOptions, form: Form) -> Result<Compacted> {
    Connect::require_embedded(options)?;
    let Some(keyring) = &options.keyring else {
        return Err(Error::new(ErrorKind::Crypto, "there is no keyring; name one"));
    };
    let (plain, sealed) = (Envelope::new(None)?, Envelope::new(Some(keyring))?);
    let (from, to) = match form {
        Form::Sealed => (&plain, &sealed),
        Form::Plain => (&sealed, &plain),
    };
    let is_copy = Cell::new(false);
    compact(&options.file.path, FileKind::ZQLITE, |file| {
        // The store is opened first, and then its copy.
        let envelope = if is_copy.replace(true) { to } else { from };
        let (open, stored) = Open::begin(file, &Connect::Embedded, envelope)?;
        let side = stored.head.side;
        if side.as_bytes() != keyring.store() {
            return Err(Error::new(
                ErrorKind::Crypto,
                "the keyring belongs to another store; make one for this store",
            )
            .with("store", side));
        }
        Ok(Reframed { open, to })
    })
}

/// A store that is written anew under another envelope, or what came of it.
struct Reframed<'e> {
    open: Open,
    to: &'e Envelope,
}

/// What has to be the same in both forms.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    head: Head,
    rows: u64,
    next_slot: u64,
    series: SeriesHead,
}

impl Compact for Reframed<'_> {
    type Content = Content;

    fn settle(&self) -> Result<()> {
        self.open.engine.settle()
    }

    fn verify(&self) -> Result<Content> {
        let Stored { head, rows, next_slot, series, .. } = verify(&self.open)?;
        Ok(Content { head, rows, next_slot, series })
    }

    /// A sealed record is longer.
    fn bytes_in_use(&self) -> Result<u64> {
        self.open.engine.bytes_in_use().map(|bytes| bytes.saturating_add(bytes / 2))
    }

    fn copy_to(&self, copy: &Path) -> Result<()> {
        let mut snapshot = self.open.engine.snapshot()?;
        let stored = self.open.head_of(&*snapshot)?;
        let envelope = self.to.of_database(stored.head.side);
        write_anew(copy, &envelope, &stored, |into: &mut Rewriter<'_>| {
            let mut reader = self.open.envelope.reader();
            snapshot.every_row(None, &mut |slot, bytes| {
                let (content, _) = reader.open(Kind::Row, slot, bytes)?;
                into.row(slot, content).map(std::ops::ControlFlow::Continue)
            })?;
            snapshot.journal(&mut |number, bytes| {
                let (content, _) = reader.open(Kind::Journal, number, bytes)?;
                into.journal_entry(number, content)
            })?;
            snapshot.blocks(0, u64::MAX, usize::MAX, &mut |stored| {
                into.block(&reader.open_block(stored, None)?)
            })?;
            for entry in self.open.versions.current().directory.entries() {
                read_data_block(&mut *snapshot, &mut reader, entry, |content| {
                    let (table, key) = (entry.table(), entry.key().to_vec());
                    into.data_block(DataBlock { table, key, content: content.to_vec() })
                })?;
            }
            Ok(())
        })
    }

    fn close(self) -> Result<()> {
        self.open.engine.close()
    }
}
