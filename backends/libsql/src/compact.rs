//! A smaller file: SQLite keeps free pages, and gives none back by itself.

use ghostwire_store_core::backend::Compacted;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::{Access, FileKind, StoreFile};

use crate::LibsqlOptions;
use crate::check::verify;
use crate::link::{Link, integer, set_up_engine};
use crate::opening::{Connected, connect};

/// Writes the store anew without free pages, checks the copy, and puts it in the store's place.
pub(crate) fn compact(options: &LibsqlOptions) -> Result<Compacted> {
    set_up_engine()?;
    let file = StoreFile::open(&options.path, FileKind::LIBSQL, Access::Existing)?;
    let named = |error: Error| error.with("path", file.path().display());
    let mut connected = connect(file.path(), false).map_err(named)?;
    let Connected { link, shapes, head, .. } = &mut connected;
    file.log().settle(link).map_err(named)?;
    // Of a damaged file no copy is made: it might look whole.
    let found = verify(link, shapes).map_err(named)?;
    let replacement = file.begin_replacement(bytes_in_use(link)?)?;
    let part = replacement.part().to_str().ok_or_else(|| {
        Error::invalid("the store's path must be UTF-8").with("path", replacement.part().display())
    })?;
    link.run_with("VACUUM INTO ?1", vec![part.to_owned().into()])?;
    let copied = {
        let copy = StoreFile::open(replacement.part(), FileKind::LIBSQL, Access::ReadOnly)?;
        let Connected { mut link, shapes, head, .. } = connect(copy.path(), true)?;
        (head, verify(&mut link, &shapes)?)
    };
    if copied != (*head, found) {
        return Err(Error::new(
            ErrorKind::Unexpected,
            "the copy does not hold what the store does; the store stays as it is",
        ));
    }
    file.log().finish(|| link.run("PRAGMA wal_checkpoint(TRUNCATE)")).map_err(named)?;
    drop(connected);
    replacement.finish()
}

fn bytes_in_use(link: &mut Link) -> Result<u64> {
    let mut bytes = 0;
    let sql = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, \
               pragma_freelist_count, pragma_page_size";
    link.query(sql, Vec::new(), |row| {
        bytes = u64::try_from(integer(row, 0)?).unwrap_or(0);
        Ok(())
    })?;
    Ok(bytes)
}
