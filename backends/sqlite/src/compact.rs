//! A smaller file: SQLite keeps free pages, and gives none back by itself.

use std::path::Path;
use std::sync::Arc;

use ghostwire_store_core::backend::Compacted;
use ghostwire_store_core::error::{Error, ErrorKind, Result};

use crate::{Access, FileKind, StoreFile};

/// An open store, as far as compacting goes. Where nothing is said, a method is that of
/// [`Database`](crate::Database).
#[allow(missing_docs)]
pub trait Compact: Sized {
    /// What tells one content from another.
    type Content: PartialEq;

    fn settle(&self) -> Result<()>;

    /// Reads and checks everything.
    fn verify(&self) -> Result<Self::Content>;

    fn bytes_in_use(&self) -> Result<u64>;

    fn copy_to(&self, copy: &Path) -> Result<()>;

    fn close(self) -> Result<()>;
}

/// Writes the store at this path anew without free pages, checks the copy, and puts it in the store's
/// place. `open` connects to a file.
///
/// # Errors
/// As [`StoreFile::open`]; `Corrupt` if the store is damaged, of which no copy is made: it might look
/// whole; `Exhausted` if the disk has no room for the copy; `Busy` if another program has the store open.
pub fn compact<O: Compact>(
    path: &Path,
    kind: FileKind,
    open: impl Fn(&Arc<StoreFile>) -> Result<O>,
) -> Result<Compacted> {
    let file = Arc::new(StoreFile::open(path, kind, Access::Existing)?);
    let store = open(&file)?;
    store.settle()?;
    let content = store.verify()?;
    let replacement = file.begin_replacement(store.bytes_in_use()?)?;
    store.copy_to(replacement.part())?;
    let copy = Arc::new(StoreFile::open(replacement.part(), kind, Access::ReadOnly)?);
    let copied = open(&copy)?.verify()?;
    drop(copy);
    if copied != content {
        return Err(Error::new(
            ErrorKind::Unexpected,
            "the copy does not hold what the store does; the store stays as it is",
        ));
    }
    store.close()?;
    replacement.finish()
}
