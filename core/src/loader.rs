//! Opening: the rows at the checkpoint, and the blocks after it.
//!
//! Rows may be newer than the checkpoint, where a flush was interrupted. So the blocks are not
//! replayed one by one; of each row that they changed only the last image counts, and it replaces the
//! stored one. The state is built from those final images alone.

use std::collections::HashMap;
use std::sync::Arc;

use crate::backend::{Backend, Head, KeyRange, Row, Scan};
use crate::block::{ChangeKind, RowChange};
use crate::checkpoint::{Checkpointer, FlushBacklog, UnflushedAudit};
use crate::command::EntityRecord;
use crate::domain::WriterId;
use crate::error::{Error, ErrorKind, Result};
use crate::log::chain::{Chain, read_chain};
use crate::log::retention::Retained;
use crate::schema::{Record, RowKey, Schema, Table, WriterPosition};
use crate::state::{Loading, State};
use crate::threads::{STACK, may_block, no_thread};

/// Rows are read this many at a time.
const ROWS_PER_READ: usize = 4096;

/// A store as it was found.
pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) audit: UnflushedAudit,
    pub(crate) positions: HashMap<WriterId, u64>,
    pub(crate) checkpointer: Checkpointer,
}

/// Loads everything but the series.
pub(crate) async fn load(backend: &Arc<dyn Backend>, retain_block_bytes: u64) -> Result<Loaded> {
    let head = backend.head().await?;
    let retained = read_retained(backend.as_ref(), &head, retain_block_bytes).await?;
    let unflushed = read_unflushed(backend.as_ref(), &head).await?;
    let mut loading = Loading::default();
    let mut replaced = unflushed.images;
    for table in Table::STATE {
        load_table(backend, table, &mut loading, &mut replaced).await?;
    }
    // What is left is new since the checkpoint.
    let mut created: Vec<RowChange> = replaced.into_values().collect();
    created.sort_unstable_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    for change in &created {
        if let Some(body) = &change.body {
            loading.add(EntityRecord::decode(change.table, &change.key, body)?);
        }
    }
    let mut state = may_block(move || loading.finish()).await?;
    state.advance(head.serial, head.hash, head.time);
    Ok(Loaded {
        state,
        audit: unflushed.audit,
        positions: read_positions(backend.as_ref()).await?,
        checkpointer: Checkpointer::new(unflushed.backlog, retained, head.checkpoint),
    })
}

/// What the blocks after the checkpoint changed.
#[derive(Default)]
struct Unflushed {
    images: HashMap<(Table, RowKey), RowChange>,
    backlog: FlushBacklog,
    audit: UnflushedAudit,
}

async fn read_unflushed(backend: &dyn Backend, head: &Head) -> Result<Unflushed> {
    let mut unflushed = Unflushed::default();
    let chain = read_chain(backend, Chain::up_to(head, head.checkpoint), |encoded| {
        let block = encoded.decode()?;
        let entries = block.audit.unwrap_or_default();
        let audit_rows =
            entries.iter().map(|entry| RowChange::put(ChangeKind::Created, entry)).collect();
        unflushed.audit.extend(entries.into_iter().map(Arc::new));
        for change in &block.changes {
            unflushed.images.insert((change.table, change.key.clone()), change.clone());
        }
        unflushed.backlog.add(block.serial, block.changes, audit_rows);
        Ok(())
    })
    .await?;
    chain.require_whole()?;
    Ok(unflushed)
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

fn decode_on_all_cores(table: Table, rows: &[Row]) -> Result<Vec<EntityRecord>> {
    let decode = |rows: &[Row]| -> Result<Vec<EntityRecord>> {
        let mut images = Vec::with_capacity(rows.len());
        for row in rows {
            images.push(EntityRecord::decode(table, &row.key, &row.body)?);
        }
        Ok(images)
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if rows.len() < 512 || cores == 1 {
        return decode(rows);
    }
    let share = rows.len().div_ceil(cores);
    std::thread::scope(|scope| {
        let spawn = |part| {
            let thread = std::thread::Builder::new().stack_size(STACK);
            thread.spawn_scoped(scope, move || decode(part))
        };
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

/// The blocks that earlier runs left: at most a little more than the limit.
async fn read_retained(backend: &dyn Backend, head: &Head, limit: u64) -> Result<Retained> {
    let mut retained = Retained::new(head.oldest_block);
    read_chain(backend, Chain::kept(head), |block| {
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
