//! A smaller file: SQLite keeps free pages, and gives none back by itself.

use std::sync::Arc;

use ghostwire_store_core::backend::Compacted;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::{Access, FileKind, StoreFile};

use crate::inner::Inner;
use crate::open::Open;
use crate::options::ZqliteOptions;

/// Writes the store anew without free pages, checks the copy, and puts it in the store's place.
pub(crate) fn compact(options: &ZqliteOptions) -> Result<Compacted> {
    let file = Arc::new(StoreFile::open(&options.path, FileKind::ZQLITE, Access::Existing)?);
    let (open, stored) = Open::begin(options, file.clone(), false)?;
    open.engine.settle()?;
    // Of a damaged file no copy is made: it might look whole.
    open.verify()?;
    let replacement = file.begin_replacement(open.engine.bytes_in_use()?)?;
    open.engine.copy_to(replacement.part())?;
    let copy = ZqliteOptions::new(replacement.part(), options.store).read_only(true);
    let copy = Inner::open(copy)?;
    copy.with_open(Open::verify)?;
    // The head counts rows and chunks, and names the journal's entries.
    let is_same = copy.status()?.stored == stored;
    copy.close()?;
    if !is_same {
        return Err(Error::new(
            ErrorKind::Unexpected,
            "the copy does not hold what the store does; the store stays as it is",
        ));
    }
    open.engine.close()?;
    replacement.finish()
}
