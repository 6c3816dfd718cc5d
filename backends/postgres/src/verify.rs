//! Reading everything, and checking it.

use std::sync::Arc;

use ghostwire_store_core::backend::{KeyRange, Row, Scan, ScanPage};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::chain::follow_kept;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::position::Position;
use ghostwire_store_core::schema::{RowKey, Table};
use sqlx::postgres::PgRow;
use tokio::runtime::Handle;

use crate::blocks;
use crate::head::META;
use crate::layout;
use crate::server::Server;
use crate::wire::{Param, cell, count_at};

/// Rows that are checked at one moment.
const ROWS: usize = 512;

/// The rows of a page, which are not decoded yet: that is for the caller's thread.
pub(crate) struct RawPage {
    rows: Vec<PgRow>,
    shapes: Arc<crate::shape::Shapes>,
    scan: Scan,
}

/// Where the store stood, before the columns of a page's rows.
const STAND: usize = 2;

impl Server {
    /// Reads a page, rows and stand of one moment.
    pub(crate) async fn scan(&self, scan: Scan) -> Result<RawPage> {
        let shapes = self.shapes();
        let (namespace, table) = (self.namespace(), scan.range.table);
        let stand =
            format!("SELECT m.\"position\", m.\"serial\"{{}} FROM \"{namespace}\".\"{META}\" AS m");
        let query = shapes.of(table).and_then(|shape| {
            shape.scan(&scan.range, scan.reverse, scan.limit).map(|q| (shape, q))
        });
        let (sql, params) = match query {
            // No row can be there, and where the store stands is asked all the same.
            None => (format!("{} WHERE m.\"one\"", stand.replace("{}", "")), Vec::new()),
            Some((shape, (sql, params))) => {
                let order = shape.order("r", scan.reverse);
                let stand = stand.replace("{}", ", r.*");
                (
                    format!(
                        "{stand} LEFT JOIN ({sql}) AS r ON true WHERE m.\"one\" ORDER BY {order}"
                    ),
                    params,
                )
            }
        };
        let rows = self.read(&sql, &params).await?;
        Ok(RawPage { rows, shapes, scan })
    }

    /// At most `limit` blocks after a serial.
    pub(crate) async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<PgRow>> {
        let params = [Param::count(after.get()), Param::count(limit as u64)];
        self.read(&blocks::select(self.namespace()), &params).await
    }
}

impl RawPage {
    /// Decodes and checks the rows.
    pub(crate) fn decode(self) -> Result<ScanPage> {
        let Self { rows, shapes, scan } = self;
        let first = rows.first().ok_or_else(crate::head::damaged)?;
        let position = Position::new(count_at(first, 0)?);
        let serial = Serial::new(count_at(first, 1)?);
        let mut page = ScanPage { rows: Vec::with_capacity(rows.len()), position, serial };
        let Some(shape) = shapes.of(scan.range.table) else { return Ok(page) };
        for row in &rows {
            // Without a row there is one of nulls.
            if sqlx::Row::len(row) == STAND || cell(row, STAND)?.is_none() {
                break;
            }
            let row = shape.read(row, STAND)?;
            check_order(scan.range.table, page.rows.last(), &row.key, scan.reverse)?;
            page.rows.push(row);
        }
        Ok(page)
    }
}

/// A row that is out of order was found by a damaged index, or compared by another collation.
fn check_order(table: Table, last: Option<&Row>, key: &RowKey, reverse: bool) -> Result<()> {
    if last.is_none_or(|last| if reverse { *key < last.key } else { *key > last.key }) {
        return Ok(());
    }
    Err(Error::corrupt("a table's rows are out of order; rebuild its index, or restore a backup")
        .with("table", table.name())
        .with("key", format_args!("{key:?}")))
}

/// Reads and checks everything, each page and each block of a moment of its own; tells how many rows and
/// blocks. To be called on a thread that may block.
pub(crate) fn verify(server: &Server, runtime: &Handle) -> Result<(usize, u64)> {
    let namespace = server.namespace();
    let head = runtime.block_on(server.read_head())?.head;
    let layout = async {
        let mut connection = server.connect().await?;
        layout::check(&mut connection, namespace, head.schema).await.map(drop)
    };
    runtime.block_on(layout)?;
    let mut rows = 0;
    for table in Table::ALL {
        let mut next = Some(RowKey::new());
        while let Some(from) = next {
            let range = KeyRange { table, from, to: None };
            let scan = Scan { range, reverse: false, limit: ROWS };
            let page = runtime.block_on(server.scan(scan))?.decode()?;
            rows += page.rows.len();
            let is_last = page.rows.len() < ROWS;
            next = page.rows.last().filter(|_| !is_last).map(|row| row.key.clone().successor());
        }
    }
    let stray = runtime.block_on(server.read(&blocks::select_stray(namespace), &[]))?;
    if let Some(row) = stray.first() {
        return Err(Error::corrupt(
            "a block is stored that the head does not have; restore from a backup",
        )
        .with("serial", count_at(row, 0)?));
    }
    let head = runtime.block_on(server.read_head())?.head;
    let blocks = follow_kept(&head, |after, limit| -> Result<Vec<EncodedBlock>> {
        let rows = runtime.block_on(server.blocks(after, limit))?;
        blocks::read(&rows, after, limit)
    })?;
    Ok((rows, blocks))
}
