//! Finding damage.

use ghostwire_store_core::backend::KeyRange;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{RowKey, Table};

use crate::link::{Link, text};
use crate::meta;
use crate::range::End;
use crate::shape::{Shape, Shapes};

/// Has SQLite check its own structures. `quick_check` would not do: it does not compare the keys of
/// rows that follow each other, and a search goes astray where they are not in order.
pub(crate) fn check_structure(link: &mut Link) -> Result<()> {
    // What it reports may quote damaged text.
    const CHECK: &str = "SELECT CAST(integrity_check AS BLOB) FROM pragma_integrity_check";
    let mut findings = Vec::new();
    link.query(CHECK, Vec::new(), |row| {
        findings.push(text(row, 0).unwrap_or_default());
        Ok(())
    })?;
    match findings.as_slice() {
        [only] if only == "ok" => Ok(()),
        findings => Err(Error::corrupt("the file is damaged; restore it from a backup")
            .with("finding", findings.first().map_or("none", String::as_str))),
    }
}

/// Reads and checks everything. Tells how many rows and blocks there are.
pub(crate) fn verify(link: &mut Link, shapes: &Shapes) -> Result<(usize, u64)> {
    check_structure(link)?;
    let mut scratch = Vec::new();
    let mut rows = 0;
    for shape in shapes.all() {
        let mut last: Option<RowKey> = None;
        link.query(&shape.select_all(), Vec::new(), |row| {
            let row = shape.read(row, &mut scratch)?;
            check_order(shape.table, last.as_ref(), &row.key, false)?;
            last = Some(row.key);
            rows += 1;
            Ok(())
        })?;
    }
    Ok((rows, meta::verify_blocks(link)?))
}

/// Reads the rows beside the given ends of a range. Were a key damaged so that its row left the range
/// and the order of keys is still right, that row would be one of them, and contradict its check.
pub(crate) fn check_beside(
    link: &mut Link,
    shape: &Shape,
    range: &KeyRange,
    ends: &[End],
) -> Result<()> {
    let mut scratch = Vec::new();
    for &end in ends {
        let key = match end {
            End::From => Some(&range.from),
            End::To => range.to.as_ref(),
        };
        if let Some((sql, parameters)) = key.and_then(|key| shape.beside(key, end)) {
            link.query(&sql, parameters, |row| shape.read(row, &mut scratch).map(drop))?;
        }
    }
    Ok(())
}

/// A row that is out of order lies in a damaged page.
pub(crate) fn check_order(
    table: Table,
    last: Option<&RowKey>,
    key: &RowKey,
    reverse: bool,
) -> Result<()> {
    if last.is_none_or(|last| if reverse { key < last } else { key > last }) {
        return Ok(());
    }
    Err(Error::corrupt("a table's rows are out of order; restore the file from a backup")
        .with("table", table.name())
        .with("key", format_args!("{key:?}")))
}
