//! Finding damage.

use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{RowKey, Table};

use crate::link::{Link, text};
use crate::meta;
use crate::shape::Shapes;

/// Runs one of SQLite's own checks: `quick_check` or `integrity_check`.
pub(crate) fn check_structure(link: &mut Link, check: &'static str) -> Result<()> {
    let mut findings = Vec::new();
    // What it reports may quote damaged text.
    let sql = format!("SELECT CAST({check} AS BLOB) FROM pragma_{check}");
    link.query(&sql, Vec::new(), |row| {
        findings.push(text(row, 0).unwrap_or_default());
        Ok(())
    })?;
    match findings.as_slice() {
        [only] if only == "ok" => Ok(()),
        findings => Err(Error::corrupt("the file is damaged; restore it from a backup")
            .with("check", check)
            .with("finding", findings.first().map_or("none", String::as_str))),
    }
}

/// Reads and checks everything. Tells how many rows and blocks there are.
pub(crate) fn verify(link: &mut Link, shapes: &Shapes) -> Result<(usize, u64)> {
    check_structure(link, "integrity_check")?;
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
