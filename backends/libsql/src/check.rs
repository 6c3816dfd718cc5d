//! Finding damage.

use std::ops::ControlFlow::{Break, Continue};

use ghostwire_store_core::backend::{Head, KeyRange};
use ghostwire_store_core::chain::follow_kept;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{RowKey, Table};
use ghostwire_store_sqlite::Wanted;

use crate::blocks::{blocks, check_no_others};
use crate::link::Link;
use crate::opening::Open;
use crate::range::End;
use crate::shape::{Shape, Shapes};

/// Rows that are checked at one moment: a few milliseconds.
const ROWS: usize = 512;
/// Bytes of such rows, unless one has more.
const BYTES: usize = 1 << 20;

/// Who has a store open. Between two calls it may be reopened or closed.
pub(crate) trait Opened {
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T>;

    /// Whether somebody waits for what is done with it.
    fn wanted(&self) -> Wanted {
        Wanted::default()
    }
}

/// Reads and checks everything, page by page, each of a moment of its own. Tells where the store stood,
/// and how many rows and blocks were read.
pub(crate) fn verify(store: &impl Opened) -> Result<(Head, usize, u64)> {
    let wanted = store.wanted();
    store.with_open(|open| open.database.check_structure(&wanted))?;
    let mut rows = 0;
    for table in Table::ALL {
        rows += check_rows(|from| {
            store.with_open(|open| {
                open.database.read_afresh(|link| check_page(link, &open.shapes, table, from))
            })
        })?;
    }
    let head = store.with_open(|open| {
        open.database.read_afresh(|link| {
            let head = open.shapes.meta.head(link)?;
            check_no_others(link, &head).map(|()| head)
        })
    })?;
    let blocks = follow_kept(&head, |after, limit| {
        store.with_open(|open| {
            open.database.read_afresh(|link| {
                let now = open.shapes.meta.head(link)?;
                blocks(link, &now, after, limit)
            })
        })
    })?;
    store.with_open(|open| open.database.file().require_in_place())?;
    Ok((head, rows, blocks))
}

/// Reads and checks what loading a store reads, while nobody writes: the state and the blocks.
pub(crate) fn check_state(link: &mut Link, shapes: &Shapes) -> Result<()> {
    for table in Table::STATE {
        check_rows(|from| check_page(link, shapes, table, from))?;
    }
    let head = shapes.meta.head(link)?;
    check_no_others(link, &head)?;
    follow_kept(&head, |after, limit| blocks(link, &head, after, limit)).map(drop)
}

/// How many rows a page had, and where the next one begins.
type Checked = (usize, Option<RowKey>);

fn check_rows(mut page: impl FnMut(&RowKey) -> Result<Checked>) -> Result<usize> {
    let (mut rows, mut next) = (0, Some(RowKey::new()));
    while let Some(from) = next {
        let (read, then) = page(&from)?;
        rows += read;
        next = then;
    }
    Ok(rows)
}

fn check_page(link: &mut Link, shapes: &Shapes, table: Table, from: &RowKey) -> Result<Checked> {
    let range = |from: &RowKey| KeyRange { table, from: from.clone(), to: None };
    let query = |from, limit| {
        let shape = shapes.of(table)?;
        shape.scan(&range(from), false, limit).map(|query| (shape, query))
    };
    let Some((shape, (sql, parameters))) = query(from, ROWS) else { return Ok((0, None)) };
    let (mut rows, mut bytes, mut scratch) = (0, 0, Vec::new());
    let mut last: Option<RowKey> = None;
    link.query_until(&sql, parameters, |row| {
        let row = shape.read(row, &mut scratch)?;
        check_order(table, last.as_ref(), &row.key, false)?;
        rows += 1;
        bytes += row.body.len();
        last = Some(row.key);
        Ok(if bytes < BYTES { Continue(()) } else { Break(()) })
    })?;
    let Some(last) = last.filter(|_| rows == ROWS || bytes >= BYTES) else {
        return Ok((rows, None));
    };
    // The next page begins with a search for this row. One that goes astray would pass others.
    let mut found = None;
    if let Some((shape, (sql, parameters))) = query(&last, 1) {
        link.query(&sql, parameters, |row| {
            found = Some(shape.read(row, &mut scratch)?.key);
            Ok(())
        })?;
    }
    match found {
        Some(found) if found == last => Ok((rows, Some(last.successor()))),
        _ => Err(out_of_order(table, &last)),
    }
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
    Err(out_of_order(table, key))
}

fn out_of_order(table: Table, key: &RowKey) -> Error {
    Error::corrupt("a table's rows are out of order; restore the file from a backup")
        .with("table", table.name())
        .with("key", format_args!("{key:?}"))
}
