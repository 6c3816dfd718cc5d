//! Opening: the rows at the checkpoint, and the blocks after it.
//!
//! Rows may be newer than the checkpoint, where folding was interrupted. So the blocks are not
//! replayed over them one by one; only the last image of each changed row counts, and it replaces
//! the stored one. The state is built from final images alone.

use std::collections::HashMap;
use std::sync::Arc;

use crate::backend::{Backend, Head, KeyRange, Row, Scan};
use crate::block::{BlockHash, RowChange, Serial};
use crate::command::Image;
use crate::domain::WriterId;
use crate::error::{Error, ErrorKind, Result};
use crate::fold::FoldDebt;
use crate::schema::{Record, RowKey, Schema, Table, WriterPosition};
use crate::state::{Loading, State, decode_image};
use crate::threads::{may_block, no_thread};
use crate::unfolded::UnfoldedAudit;
use crate::writer::{Retained, audit_row, check_follows, read_blocks};

/// Rows are read this many at a time.
const ROWS_PER_READ: usize = 4096;

/// A store as it was found.
pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) fold: FoldDebt,
    pub(crate) audit: UnfoldedAudit,
    pub(crate) positions: HashMap<WriterId, u64>,
    pub(crate) retained: Retained,
    pub(crate) checkpoint: Serial,
}

/// Loads everything but the series.
pub(crate) async fn load(backend: &Arc<dyn Backend>, retain_block_bytes: u64) -> Result<Loaded> {
    let head = backend.head().await?;
    let retained = read_retained(backend.as_ref(), &head, retain_block_bytes).await?;
    let debt = read_debt(backend.as_ref(), &head).await?;
    let mut loading = Loading::default();
    let mut replaced = debt.images;
    for table in Table::STATE {
        load_table(backend, table, &mut loading, &mut replaced).await?;
    }
    // What is left is new since the checkpoint.
    let mut created: Vec<RowChange> = replaced.into_values().collect();
    created.sort_unstable_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    for change in &created {
        if let Some(body) = &change.body {
            loading.add(decode_image(change.table, &change.key, body)?);
        }
    }
    let mut state = may_block(move || loading.finish()).await?;
    state.advance(head.serial, head.hash, head.time);
    Ok(Loaded {
        state,
        fold: debt.fold,
        audit: debt.audit,
        positions: read_positions(backend.as_ref()).await?,
        retained,
        checkpoint: head.checkpoint,
    })
}

/// What the blocks after the checkpoint say.
#[derive(Default)]
struct Debt {
    images: HashMap<(Table, RowKey), RowChange>,
    fold: FoldDebt,
    audit: UnfoldedAudit,
}

async fn read_debt(backend: &dyn Backend, head: &Head) -> Result<Debt> {
    let mut debt = Debt::default();
    let mut last: Option<(Serial, BlockHash)> = None;
    read_blocks(backend, head.checkpoint, |encoded| {
        if let Some((serial, hash)) = last {
            check_follows(serial, hash, &encoded)?;
        }
        last = Some((encoded.serial, encoded.hash));
        let block = encoded.decode()?;
        let entries = block.audit.unwrap_or_default();
        let audit_rows = entries.iter().map(audit_row).collect();
        debt.audit.extend(entries.into_iter().map(Arc::new));
        for change in &block.changes {
            debt.images.insert((change.table, change.key.clone()), change.clone());
        }
        debt.fold.add(block.serial, block.changes, audit_rows);
        Ok(())
    })
    .await?;
    let expected = (head.checkpoint != head.serial).then_some((head.serial, head.hash));
    if last != expected {
        return Err(Error::corrupt(
            "blocks after the checkpoint are missing or do not fit the head",
        )
        .with("serial", head.serial)
        .with("checkpoint", head.checkpoint)
        .with("last_block", last.map_or(head.checkpoint, |(serial, _)| serial)));
    }
    Ok(debt)
}

async fn load_table(
    backend: &Arc<dyn Backend>,
    table: Table,
    loading: &mut Loading,
    replaced: &mut HashMap<(Table, RowKey), RowChange>,
) -> Result<()> {
    let mut from = RowKey::new();
    let mut next = read_ahead(backend, table, from);
    loop {
        let rows = next.await.map_err(|error| {
            Error::new(ErrorKind::Unexpected, "reading rows stopped").because(error)
        })??;
        let Some(last) = rows.last().map(|row| row.key.clone()) else { return Ok(()) };
        let complete = rows.len() < ROWS_PER_READ;
        from = last.successor();
        // The next page is read while this one is decoded.
        next = read_ahead(backend, table, from);
        let mut kept = Vec::with_capacity(rows.len());
        for row in rows {
            match replaced.remove(&(table, row.key.clone())) {
                Some(RowChange { body: Some(body), .. }) => kept.push(Row { key: row.key, body }),
                Some(_) => {}
                None => kept.push(row),
            }
        }
        decode_on_all_cores(table, &kept)?.into_iter().for_each(|image| loading.add(image));
        if complete {
            next.abort();
            return Ok(());
        }
    }
}

fn read_ahead(
    backend: &Arc<dyn Backend>,
    table: Table,
    from: RowKey,
) -> tokio::task::JoinHandle<Result<Vec<Row>>> {
    let backend = backend.clone();
    tokio::spawn(async move {
        let range = KeyRange { table, from, to: None };
        backend.scan(Scan { range, reverse: false, limit: ROWS_PER_READ }).await
    })
}

fn decode_on_all_cores(table: Table, rows: &[Row]) -> Result<Vec<Image>> {
    let decode = |rows: &[Row]| -> Result<Vec<Image>> {
        let mut images = Vec::with_capacity(rows.len());
        for row in rows {
            images.push(decode_image(table, &row.key, &row.body)?);
        }
        Ok(images)
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if rows.len() < 512 || cores == 1 {
        return decode(rows);
    }
    let share = rows.len().div_ceil(cores);
    std::thread::scope(|scope| {
        let spawn = |part| std::thread::Builder::new().spawn_scoped(scope, move || decode(part));
        let parts: Vec<_> = rows.chunks(share).map(spawn).collect();
        let mut images = Vec::with_capacity(rows.len());
        for part in parts {
            let part = part
                .map_err(no_thread)?
                .join()
                .map_err(|_| Error::new(ErrorKind::Unexpected, "decoding rows stopped"))?;
            images.extend(part?);
        }
        Ok(images)
    })
}

/// Adds up the blocks that earlier runs left. They are at most a little more than the limit.
async fn read_retained(backend: &dyn Backend, head: &Head, limit: u64) -> Result<Retained> {
    let mut retained = Retained::new(head.oldest_block);
    let before = Serial::new(head.oldest_block.get().saturating_sub(1));
    read_blocks(backend, before, |block| {
        retained.add(block.serial, block.bytes.len() as u64, limit);
        Ok(())
    })
    .await?;
    Ok(retained)
}

pub(crate) async fn read_positions(backend: &dyn Backend) -> Result<HashMap<WriterId, u64>> {
    let mut positions = HashMap::new();
    let mut from = RowKey::new();
    loop {
        let range = KeyRange { table: Table::WriterPositions, from, to: None };
        let rows = backend.scan(Scan { range, reverse: false, limit: ROWS_PER_READ }).await?;
        let Some(last) = rows.last() else { return Ok(positions) };
        from = last.key.clone().successor();
        for row in &rows {
            let position = WriterPosition::decode(&row.key, &row.body)?;
            positions.insert(position.writer, position.sequence.get());
        }
    }
}

/// Brings what is stored to the current schema. A reader takes an older one as it is: every row
/// says by which version it was written.
pub(crate) async fn migrate(backend: &dyn Backend, read_only: bool) -> Result<()> {
    let head = backend.head().await?;
    let schema = Schema::current();
    let steps = schema.steps_from(head.schema)?;
    if read_only {
        return Ok(());
    }
    for step in steps {
        tracing::info!(to = step.to.version, summary = step.summary, "migrating the schema");
    }
    if steps.is_empty() { Ok(()) } else { backend.migrate(schema).await }
}
