//! Whether what is stored amounts to the state in memory, while others write.
//!
//! Rows are read page by page, each of a moment of its own, and compared with one snapshot of the state. A row
//! that differs is no damage if a block after the checkpoint changed it: then it was not flushed, or it
//! was written later than the snapshot. So the blocks are followed at the same time, and at the end the
//! last image of each row in them is compared with the state at the last of them.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::StoreHandle;
use crate::backend::{Head, KeyRange, Row, Scan};
use crate::block::{RowChange, Serial};
use crate::command::EntityRecord;
use crate::error::{Error, ErrorKind, Result};
use crate::log::chain::{Chain, read_chain_to};
use crate::log::hold::StoredHold;
use crate::schema::{RowKey, Table, content_of};
use crate::state::State;
use crate::threads::may_block;
use crate::view::View;
use crate::writer::Request;

/// Rows are read this many at a time; comparing them takes a few milliseconds of CPU.
const ROWS_PER_READ: usize = 1024;

/// Names a row.
type RowName = (Table, RowKey);

impl StoreHandle {
    /// Compares everything that is stored with the state. Nobody waits meanwhile.
    pub(crate) async fn verify_stored(&self) -> Result<()> {
        const ATTEMPTS: usize = 3;
        for attempt in 0..ATTEMPTS {
            // What another process has committed is no damage; and a commit of unknown outcome, which
            // keeps the backend from being read, has to be found out about.
            if self.core.is_shared || attempt > 0 {
                self.send(0, Request::Refresh).await?;
            }
            match self.check_stored().await {
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Compacted { .. } | ErrorKind::Unavailable
                    ) =>
                {
                    tracing::info!(%error, "the store changed while it was verified; again");
                }
                checked => return checked,
            }
        }
        self.verify_holding_blocks().await.map_err(|error| match error.kind() {
            ErrorKind::Compacted { .. } => Error::new(
                ErrorKind::Busy,
                "others purge blocks faster than they can be verified; try again",
            )
            .because(error),
            _ => error,
        })
    }

    /// The same while no block is purged.
    async fn verify_holding_blocks(&self) -> Result<()> {
        let hold = self.core.shared.holds.hold();
        let mut stored = None;
        // Others do not know of that.
        if self.core.is_shared && !self.core.options.read_only {
            let epoch = self.core.head().epoch;
            stored = Some(StoredHold::register(self.backend(), self.entropy(), epoch).await?);
        }
        // It is answered between commits, so what is committed later was prepared later.
        self.send(0, Request::Refresh).await?;
        let checked = self.check_stored().await;
        drop(hold);
        if let Some(stored) = stored
            && let Err(error) = stored.release(self.backend(), self.entropy()).await
        {
            tracing::warn!(%error, "a consumer that held blocks for `verify` could not be removed");
        }
        checked
    }

    async fn check_stored(&self) -> Result<()> {
        self.backend().verify().await?;
        self.compare_rows().await
    }

    async fn compare_rows(&self) -> Result<()> {
        let head = self.backend().head().await?;
        let view = self.view_of(head.serial).await?;
        let mut log = Log::of(&head);
        log.read_to(self, head.serial).await?;
        let (mut newest, mut suspects) = (head.serial, Vec::new());
        for table in Table::STATE {
            let mut last: Option<RowKey> = None;
            loop {
                let from = last.clone().map_or_else(RowKey::new, RowKey::successor);
                let range = KeyRange { table, from, to: None };
                let page =
                    self.backend().scan(Scan { range, reverse: false, limit: ROWS_PER_READ });
                let page = page.await?;
                newest = newest.max(page.serial);
                // Read at once, before they are purged.
                log.read_to(self, newest).await?;
                let (view, rows) = (view.clone(), page.rows);
                let compared = may_block(move || compare_page(&view, table, last, rows)).await?;
                suspects.extend(compared.differing.into_iter().map(|key| (table, key)));
                match compared.next {
                    Some(next) => last = Some(next),
                    None => break,
                }
            }
        }
        let view = self.view_of(newest).await?;
        log.read_to(self, view.serial()).await?;
        may_block(move || log.check(&view, suspects)).await
    }

    /// A view that holds at least what was durable at this serial.
    async fn view_of(&self, serial: Serial) -> Result<View> {
        if self.current_view().serial() < serial {
            // The writer answers between commits, and has published all before.
            self.send(0, Request::Refresh).await?;
        }
        let view = self.current_view();
        if view.serial() < serial {
            return Err(Error::corrupt(
                "the backend holds commits that this store did not make, though nobody else may write \
                 to it; restore a backup",
            )
            .with("stored_serial", serial)
            .with("serial", view.serial()));
        }
        Ok(view)
    }
}

struct Compared {
    /// The keys of rows that differ, are missing, or should not be there.
    differing: Vec<RowKey>,
    /// The last key of the page; `None` if there are no more rows.
    next: Option<RowKey>,
}

/// Compares a page of rows with what the state has of that range.
fn compare_page(
    state: &State,
    table: Table,
    after: Option<RowKey>,
    rows: Vec<Row>,
) -> Result<Compared> {
    let next = rows.last().filter(|_| rows.len() == ROWS_PER_READ).map(|row| row.key.clone());
    let mut differing = Vec::new();
    let expected = state.images_after(table, after.as_ref())?.map(|image| (image.key(), image));
    let mut expected =
        expected.take_while(|(key, _)| next.as_ref().is_none_or(|next| key <= next)).peekable();
    let mut before = after;
    for row in rows {
        if before.as_ref().is_some_and(|before| *before >= row.key) {
            return Err(Error::corrupt("rows are out of order; restore the store from a backup")
                .with("table", table.name())
                .with("key", format_args!("{:?}", row.key)));
        }
        while let Some((key, _)) = expected.next_if(|(key, _)| *key < row.key) {
            differing.push(key);
        }
        let stored = EntityRecord::decode(table, &row.key, &row.body)?;
        let same = expected.next_if(|(key, _)| *key == row.key).is_some_and(|(_, it)| it == stored);
        if !same {
            differing.push(row.key.clone());
        }
        before = Some(row.key);
    }
    differing.extend(expected.map(|(key, _)| key));
    Ok(Compared { differing, next })
}

/// What the blocks that are kept say of rows.
struct Log {
    chain: Chain,
    checkpoint: Serial,
    /// The last image of each row; `None` if it was deleted.
    images: HashMap<RowName, Option<Bytes>>,
    /// The rows that changed since the checkpoint.
    unflushed: HashSet<RowName>,
}

impl Log {
    fn of(head: &Head) -> Self {
        let chain = Chain::from(Serial::new(head.oldest_block.get().saturating_sub(1)), None);
        let checkpoint = head.checkpoint;
        Self { chain, checkpoint, images: HashMap::new(), unflushed: HashSet::new() }
    }

    async fn read_to(&mut self, handle: &StoreHandle, last: Serial) -> Result<()> {
        while let Err(error) = self.read_kept(handle, last).await {
            let ErrorKind::Compacted { oldest } = *error.kind() else { return Err(error) };
            let purged = Serial::new(oldest.saturating_sub(1));
            // Only what the checkpoint has is told by the rows, too.
            if purged > self.checkpoint || purged <= self.chain.last() {
                return Err(error);
            }
            self.chain = Chain::from(purged, None);
            // Between these and the next ones a row may have changed again.
            self.images.clear();
        }
        Ok(())
    }

    async fn read_kept(&mut self, handle: &StoreHandle, last: Serial) -> Result<()> {
        let Self { chain, checkpoint, images, unflushed } = self;
        read_chain_to(handle.backend(), chain, last, |encoded| {
            let is_unflushed = encoded.serial > *checkpoint;
            for RowChange { table, key, body, .. } in encoded.decode()?.changes {
                if is_unflushed {
                    unflushed.insert((table, key.clone()));
                }
                // A slice would keep the bytes of its whole block.
                images.insert((table, key), body.map(|body| Bytes::copy_from_slice(&body)));
            }
            Ok(())
        })
        .await
    }

    /// Compares the rows that the blocks changed with the state at the last of them: a row that is older
    /// than its last block, or newer than every block, may be intact by itself.
    fn check(self, state: &State, suspects: Vec<RowName>) -> Result<()> {
        if self.chain.last() < state.serial() {
            return Err(self.chain.missing());
        }
        if self.chain.hash().is_some_and(|hash| hash != state.hash()) {
            return Err(Error::corrupt(
                "the last block that is stored is not the one in memory; restore a backup",
            )
            .with("serial", state.serial()));
        }
        if let Some((table, key)) = suspects.iter().find(|row| !self.unflushed.contains(row)) {
            return Err(Error::corrupt("what is stored differs from what is in memory")
                .with("table", table.name())
                .with("key", format_args!("{key:?}"))
                .with("serial", state.serial()));
        }
        for ((table, key), body) in &self.images {
            let in_memory = state.image(*table, key)?;
            let same = match (&in_memory, body) {
                (Some(image), Some(body)) => content_of(body)? == content_of(&image.encode())?,
                (None, None) => true,
                _ => false,
            };
            if !same {
                return Err(Error::corrupt(
                    "a row differs from the last block that changed it: a write was lost, or the files \
                     are of different times; restore the store from a backup",
                )
                .with("table", table.name())
                .with("key", format_args!("{key:?}")));
            }
        }
        Ok(())
    }
}
