//! The table of blocks, and that of the ids of commits that had none.

use bytes::Bytes;
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::chain::Chain;
use ghostwire_store_core::domain::CommitId;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::position::Position;
use sqlx::postgres::PgRow;

use crate::head::{META, StoredHead, selection};
use crate::wire::{Param, Storage, bytes_at, cell, count_at, fixed_at, time_at};

/// The table of blocks.
pub(crate) const BLOCKS: &str = "ghostwire_blocks";
/// The table of commits without one.
pub(crate) const COMMITS: &str = "ghostwire_commits";

/// The positions that [`COMMITS`] keeps, so that the outcome of a commit can be asked for.
pub(crate) const KEPT_COMMITS: u64 = 10_000;

/// The columns of blocks: the serial is the key.
const BLOCK_COLUMNS: [(&str, Storage); 6] = [
    ("serial", Storage::Integer),
    ("id", Storage::Id),
    ("time", Storage::Time),
    ("hash", Storage::Bytes),
    ("previous", Storage::Bytes),
    ("body", Storage::Bytes),
];

/// Those of commits: the position is the key.
const COMMIT_COLUMNS: [(&str, Storage); 2] = [("position", Storage::Integer), ("id", Storage::Id)];

/// The names and types of a table's columns, as the catalog has them.
pub(crate) fn columns(table: &str) -> impl Iterator<Item = (String, Storage, bool)> {
    let columns: &[(&str, Storage)] =
        if table == BLOCKS { &BLOCK_COLUMNS } else { &COMMIT_COLUMNS };
    columns.iter().map(|(name, storage)| ((*name).to_owned(), *storage, true))
}

/// The statements that make both tables. A block is dense already: to compress it would be in vain.
pub(crate) fn create(schema: &str) -> Vec<String> {
    let table = |name: &str, columns: &[(&str, Storage)], key: &str| {
        let columns: Vec<String> = columns
            .iter()
            .map(|(name, storage)| format!("\"{name}\" {} NOT NULL", storage.definition()))
            .collect();
        format!(
            "CREATE TABLE \"{schema}\".\"{name}\" ({}, PRIMARY KEY (\"{key}\"))",
            columns.join(", ")
        )
    };
    vec![
        table(BLOCKS, &BLOCK_COLUMNS, "serial"),
        format!("ALTER TABLE \"{schema}\".\"{BLOCKS}\" ALTER COLUMN \"body\" SET STORAGE EXTERNAL"),
        table(COMMITS, &COMMIT_COLUMNS, "position"),
    ]
}

fn names(columns: &[(&str, Storage)]) -> String {
    columns.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn marks(count: usize, first: usize) -> String {
    (first..first + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

/// The statement that stores a block, and its parameters. `from` is a FROM clause, or nothing.
pub(crate) fn insert_block(schema: &str, from: &str, first: usize) -> String {
    let count = BLOCK_COLUMNS.len();
    format!(
        "INSERT INTO \"{schema}\".\"{BLOCKS}\" ({}) SELECT {}{from}",
        names(&BLOCK_COLUMNS),
        marks(count, first)
    )
}

pub(crate) fn block_params(block: &EncodedBlock) -> Vec<Param> {
    vec![
        Param::count(block.serial.get()),
        Param::id(block.id.as_bytes()),
        Param::time(block.time.as_micros()),
        Param::bytes(block.hash.as_bytes()),
        Param::bytes(block.previous.as_bytes()),
        Param::bytes(&block.bytes),
    ]
}

/// The statement that notes a commit without a block.
pub(crate) fn insert_commit(schema: &str, from: &str, first: usize) -> String {
    format!(
        "INSERT INTO \"{schema}\".\"{COMMITS}\" ({}) SELECT {}{from}",
        names(&COMMIT_COLUMNS),
        marks(COMMIT_COLUMNS.len(), first)
    )
}

pub(crate) fn commit_params(position: Position, id: CommitId) -> Vec<Param> {
    vec![Param::count(position.get()), Param::id(id.as_bytes())]
}

/// The statement that forgets the commits up to a position. `using` is a USING clause, or nothing.
pub(crate) fn forget_commits(schema: &str, using: &str, first: usize) -> String {
    format!("DELETE FROM \"{schema}\".\"{COMMITS}\" AS t{using} WHERE t.\"position\" <= ${first}")
}

/// The last position to be forgotten once the store stands at this one.
pub(crate) fn forgotten_at(position: Position) -> Param {
    Param::count(position.get().saturating_sub(KEPT_COMMITS))
}

/// The statement that drops blocks before a serial. `using` is a USING clause, or nothing.
pub(crate) fn purge_blocks(schema: &str, using: &str, first: usize) -> String {
    format!("DELETE FROM \"{schema}\".\"{BLOCKS}\" AS t{using} WHERE t.\"serial\" < ${first}")
}

/// The query for where the store stands and at most so many blocks after a serial. There is always a row;
/// without a block its columns are null.
pub(crate) fn select(schema: &str) -> String {
    format!(
        "SELECT {}, b.* FROM \"{schema}\".\"{META}\" AS m LEFT JOIN (SELECT {} FROM \
         \"{schema}\".\"{BLOCKS}\" WHERE \"serial\" > $1 ORDER BY \"serial\" LIMIT $2) AS b ON true \
         WHERE m.\"one\" ORDER BY b.\"serial\"",
        selection("m"),
        names(&BLOCK_COLUMNS)
    )
}

/// The query for the id of a block, and for that of a commit without one.
pub(crate) fn select_id(schema: &str, of_block: bool) -> String {
    let (table, key) = if of_block { (BLOCKS, "serial") } else { (COMMITS, "position") };
    format!("SELECT \"id\" FROM \"{schema}\".\"{table}\" WHERE \"{key}\" = $1")
}

/// The query for a block that the head does not have.
pub(crate) fn select_stray(schema: &str) -> String {
    format!(
        "SELECT b.\"serial\" FROM \"{schema}\".\"{META}\" AS m JOIN \"{schema}\".\"{BLOCKS}\" AS b ON \
         b.\"serial\" < m.\"oldest_block\" OR b.\"serial\" > m.\"serial\" LIMIT 1"
    )
}

/// Reads the rows of [`select`].
pub(crate) fn read(rows: &[PgRow], after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
    let first = rows.first().ok_or_else(crate::head::damaged)?;
    let head = StoredHead::read(first, 0)?.head;
    let (mut chain, wanted) = Chain::after(&head, after, limit)?;
    let from = first.len_of_head();
    let mut blocks = Vec::with_capacity(wanted);
    for row in rows.iter().take(wanted) {
        if cell(row, from)?.is_none() {
            break;
        }
        let (serial, block) = block_at(row, from)?;
        chain.follow(serial, &block)?;
        blocks.push(block);
    }
    if blocks.len() < wanted { Err(chain.missing()) } else { Ok(blocks) }
}

/// How a row of [`select`] is divided.
trait Divided {
    fn len_of_head(&self) -> usize;
}

impl Divided for PgRow {
    fn len_of_head(&self) -> usize {
        sqlx::Row::len(self).saturating_sub(BLOCK_COLUMNS.len())
    }
}

/// A block, which its columns do not contradict, and the serial under which it is stored.
fn block_at(row: &PgRow, from: usize) -> Result<(Serial, EncodedBlock)> {
    let serial = Serial::new(count_at(row, from)?);
    let block = EncodedBlock::parse(Bytes::copy_from_slice(bytes_at(row, from + 5)?))?;
    let columns = (
        fixed_at(row, from + 1)?,
        time_at(row, from + 2)?,
        fixed_at(row, from + 3)?,
        fixed_at(row, from + 4)?,
    );
    let expected = (
        *block.id.as_bytes(),
        block.time.as_micros(),
        *block.hash.as_bytes(),
        *block.previous.as_bytes(),
    );
    if columns != expected {
        return Err(Error::corrupt("a block's columns contradict it").with("serial", serial));
    }
    Ok((serial, block))
}
