//! Opening: the rows at the checkpoint, and the blocks after it.
//!
//! Each page of rows is of a moment of its own, since no snapshot outlives a page, and rows may be newer
//! than the checkpoint, where a flush was interrupted or somebody else writes meanwhile. So blocks are
//! not replayed one by one: of each row that they changed since the checkpoint only the last image
//! counts, up to the moment at which the last page was read, and it replaces the stored one. The state,
//! with its indexes, is built from those final images alone.

use std::collections::HashMap;
use std::sync::Arc;

use crate::backend::{Backend, Head, KeyRange, Row, Scan, ScanPage};
use crate::block::{ChangeKind, RowChange, Serial};
use crate::changes::LogPosition;
use crate::checkpoint::{Checkpointer, FlushBacklog, UnflushedAudit};
use crate::command::EntityRecord;
use crate::domain::{Revision, WriterId};
use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind, Result};
use crate::health::LoadProgress;
use crate::log::chain::{Chain, read_chain, read_chain_to};
use crate::log::consumers::Consumers;
use crate::log::hold::StoredHold;
use crate::log::retention::Retained;
use crate::position::{Epoch, Position};
use crate::schema::{Record, RowKey, Schema, Table, WriterPosition};
use crate::state::{Loading, State};
use crate::threads::{STACK, may_block, no_thread};
use crate::writer::Found;

/// Rows are read this many at a time.
const ROWS_PER_READ: usize = 4096;

/// The last image of each row that blocks changed.
type Images = HashMap<(Table, RowKey), RowChange>;

/// A store as it was found.
pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) audit: UnflushedAudit,
    pub(crate) found: Found,
}

/// Loads everything but the series. If the blocks that are needed are purged meanwhile, again; if that
/// happens again and again, a consumer holds them, which is written in the epoch `writes_in`.
///
/// # Errors
/// `Busy` if others keep purging what is needed, and nothing may be written here.
pub(crate) async fn load(
    backend: &Arc<dyn Backend>,
    entropy: &dyn Entropy,
    retain_block_bytes: u64,
    writes_in: Option<Epoch>,
    progress: &LoadProgress,
) -> Result<Loaded> {
    const ATTEMPTS: usize = 3;
    for _ in 0..ATTEMPTS {
        match try_load(backend, retain_block_bytes, progress).await {
            Err(error) if matches!(error.kind(), ErrorKind::Compacted { .. }) => {
                tracing::info!(%error, "blocks were purged while the store was loaded; again");
            }
            loaded => return loaded,
        }
    }
    let Some(epoch) = writes_in else {
        return Err(Error::new(
            ErrorKind::Busy,
            "others purge blocks faster than they can be read here; try again",
        ));
    };
    let hold = StoredHold::register(backend.as_ref(), entropy, epoch).await?;
    let loaded = try_load(backend, retain_block_bytes, progress).await;
    let released = hold.release(backend.as_ref(), entropy).await;
    let mut loaded = loaded?;
    let head = released?;
    // Nothing but the consumer has changed if nobody else has committed; otherwise the next commit is
    // in conflict, and catches up.
    if head.position.get() == loaded.state.position().get() + 1 {
        loaded.state.set_position(head.position);
        loaded.found.consumers = Consumers::read(backend.as_ref(), &head).await?;
    }
    Ok(loaded)
}

async fn try_load(
    backend: &Arc<dyn Backend>,
    retain_block_bytes: u64,
    progress: &LoadProgress,
) -> Result<Loaded> {
    let mut head = backend.head().await?;
    let retained = read_retained(backend.as_ref(), &head, retain_block_bytes).await?;
    let mut unflushed = read_unflushed(backend.as_ref(), &head).await?;
    let mut images = std::mem::take(&mut unflushed.images);
    let mut loading = Loading::default();
    let mut newest = head.position;
    for table in Table::STATE {
        let read = load_table(backend, table, &mut loading, &mut images, progress).await?;
        newest = newest.max(read);
    }
    loading.add_images(images)?;
    let mut retained = retained;
    if newest > head.position {
        let later = backend.head().await?;
        let from = LogPosition { serial: head.serial, hash: head.hash };
        let mut images = Images::new();
        read_chain(backend.as_ref(), Chain::between(from, &later), |encoded| {
            retained.add(encoded.serial, encoded.bytes.len() as u64, retain_block_bytes);
            let changes = encoded.decode()?.changes.into_iter();
            images.extend(changes.map(|change| ((change.table, change.key.clone()), change)));
            Ok(())
        })
        .await?
        .require_whole()?;
        loading.replace(images)?;
        // What the other process has flushed by now is no backlog of this one.
        unflushed = read_unflushed(backend.as_ref(), &later).await?;
        head = later;
    }
    let mut state = may_block(move || loading.finish()).await?;
    state.advance(head.serial, head.hash, head.time);
    state.set_position(head.position);
    let checkpointer = Checkpointer::new(unflushed.backlog, retained, &head);
    let sequences = read_sequences(backend.as_ref()).await?;
    let consumers = Consumers::read(backend.as_ref(), &head).await?;
    let found = Found { head, checkpointer, sequences, consumers };
    Ok(Loaded { state, audit: unflushed.audit, found })
}

/// What the blocks after the checkpoint changed.
#[derive(Default)]
struct Unflushed {
    images: Images,
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

/// Gives the newest position that a page was read at.
async fn load_table(
    backend: &Arc<dyn Backend>,
    table: Table,
    loading: &mut Loading,
    images: &mut Images,
    progress: &LoadProgress,
) -> Result<Position> {
    let mut from = RowKey::new();
    let mut next = read_ahead(backend, table, from);
    loop {
        let ScanPage { rows, position, .. } = next.await.map_err(|error| {
            Error::new(ErrorKind::Unexpected, "reading rows stopped").because(error)
        })??;
        let Some(last) = rows.last().map(|row| row.key.clone()) else { return Ok(position) };
        let complete = rows.len() < ROWS_PER_READ;
        progress.add(rows.len());
        from = last.successor();
        // The next page is read while this one is decoded.
        next = read_ahead(backend, table, from);
        let mut kept = Vec::with_capacity(rows.len());
        for row in rows {
            match images.remove(&(table, row.key.clone())) {
                Some(RowChange { body: Some(body), .. }) => kept.push(Row { key: row.key, body }),
                Some(_) => {}
                None => kept.push(row),
            }
        }
        decode_on_all_cores(table, &kept)?.into_iter().for_each(|image| loading.add(image));
        if complete {
            next.abort();
            return Ok(position);
        }
    }
}

fn read_ahead(
    backend: &Arc<dyn Backend>,
    table: Table,
    from: RowKey,
) -> tokio::task::JoinHandle<Result<ScanPage>> {
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

/// The blocks that earlier runs left. They are read from the newest back until they are a little more
/// than the limit: for a consumer many more may be kept.
async fn read_retained(backend: &dyn Backend, head: &Head, limit: u64) -> Result<Retained> {
    const BLOCKS_PER_READ: u64 = 64;
    let (mut newest, mut bytes) = (Vec::new(), 0);
    let (mut last, purged) = (head.serial.get(), head.oldest_block.get().saturating_sub(1));
    while last > purged && bytes <= limit {
        let before = last.saturating_sub(BLOCKS_PER_READ).max(purged);
        let mut chain = Chain::up_to(head, Serial::new(before));
        let mut read = Vec::new();
        read_chain_to(backend, &mut chain, Serial::new(last), |block| {
            read.push((block.serial, block.bytes.len() as u64));
            Ok(())
        })
        .await?;
        bytes += read.iter().map(|(_, bytes)| bytes).sum::<u64>();
        newest.extend(read.into_iter().rev());
        last = before;
    }
    let mut retained = Retained::new(Serial::new(last).next());
    newest.into_iter().rev().for_each(|(serial, bytes)| retained.add(serial, bytes, limit));
    Ok(retained)
}

async fn read_sequences(backend: &dyn Backend) -> Result<HashMap<WriterId, u64>> {
    let mut sequences = HashMap::new();
    let mut from = RowKey::new();
    loop {
        let range = KeyRange { table: Table::WriterPositions, from, to: None };
        let page = backend.scan(Scan { range, reverse: false, limit: ROWS_PER_READ }).await?;
        let Some(last) = page.rows.last() else { return Ok(sequences) };
        from = last.key.clone().successor();
        for row in &page.rows {
            let position = WriterPosition::decode(&row.key, &row.body)?;
            sequences.insert(position.writer, position.sequence.get());
        }
    }
}

/// The last sequence of one writer.
pub(crate) async fn read_sequence(backend: &dyn Backend, writer: WriterId) -> Result<Option<u64>> {
    let key = WriterPosition { writer, sequence: Revision::FIRST }.key();
    let range =
        KeyRange { table: Table::WriterPositions, from: key.clone(), to: Some(key.successor()) };
    let page = backend.scan(Scan { range, reverse: false, limit: 1 }).await?;
    let row = page.rows.first();
    row.map(|row| Ok(WriterPosition::decode(&row.key, &row.body)?.sequence.get())).transpose()
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
