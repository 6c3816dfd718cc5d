//! Finding damage.

use ghostwire_store_core::backend::KeyRange;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{RowKey, Table};
use ghostwire_store_sqlite::check_structure;

use crate::blocks::verify_blocks;
use crate::link::Link;
use crate::range::End;
use crate::shape::{Shape, Shapes};

/// Reads and checks everything. Tells how many rows and blocks there are.
pub(crate) fn verify(link: &mut Link, shapes: &Shapes) -> Result<(usize, u64)> {
    check_structure(link)?;
    let rows =
        shapes.all().try_fold(0, |rows, shape| check_rows(link, shape).map(|more| rows + more))?;
    let head = shapes.meta.head(link)?;
    Ok((rows, verify_blocks(link, &head)?))
}

/// Reads and checks what loading a store reads: the state and the blocks.
pub(crate) fn check_state(link: &mut Link, shapes: &Shapes) -> Result<()> {
    let mut state = shapes.all().filter(|shape| shape.table.is_state());
    state.try_for_each(|shape| check_rows(link, shape).map(drop))?;
    let head = shapes.meta.head(link)?;
    verify_blocks(link, &head).map(drop)
}

fn check_rows(link: &mut Link, shape: &Shape) -> Result<usize> {
    let (mut rows, mut scratch) = (0, Vec::new());
    let mut last: Option<RowKey> = None;
    link.query(&shape.select_all(), Vec::new(), |row| {
        let row = shape.read(row, &mut scratch)?;
        check_order(shape.table, last.as_ref(), &row.key, false)?;
        last = Some(row.key);
        rows += 1;
        Ok(())
    })?;
    Ok(rows)
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
