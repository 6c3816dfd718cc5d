//! The least that a backend has to do: remember rows and blocks, all of a commit or nothing of it.
//!
//! Every rule lives above it. This one keeps everything in a map; where it says `self.content`, yours
//! has a transaction of its database. The conformance suite says whether it keeps the promises:
//! docs/conformance.md.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ghostwire_store_core::backend::{
    Backend, BackendInfo, Commit, Head, KeyRange, Row, Scan, ScanPage,
};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::domain::{NewUser, StoreId};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::schema::{RowKey, Schema, Table};

#[derive(Debug)]
struct MapBackend {
    content: Mutex<Content>,
}

#[derive(Debug, Clone)]
struct Content {
    head: Head,
    rows: BTreeMap<(Table, RowKey), bytes::Bytes>,
    blocks: BTreeMap<Serial, EncodedBlock>,
}

impl MapBackend {
    fn new(store: StoreId) -> Self {
        let head = Head::genesis(store, Schema::current());
        let content = Content { head, rows: BTreeMap::new(), blocks: BTreeMap::new() };
        Self { content: Mutex::new(content) }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Backend for MapBackend {
    fn info(&self) -> BackendInfo {
        BackendInfo {
            name: "map",
            engine: "BTreeMap".to_owned(),
            location: None,
            durable: false,
            shared: false,
            sealed: false,
            pinned: false,
            signer: None,
            resealed: None,
            bytes: None,
            file: None,
            filesystem: None,
            clock_ahead_ms: None,
            pool: None,
            log: None,
            counters: Default::default(),
        }
    }

    async fn head(&self) -> Result<Head> {
        Ok(self.content().head)
    }

    async fn migrate(&self, _: Schema) -> Result<()> {
        // Everything here was made by this program. A stored schema goes through `Schema::migrate`.
        Ok(())
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        // The page and its place in the history are of one moment: in a database, of one transaction.
        let content = self.content();
        let Head { position, serial, .. } = content.head;
        let row = |((_, key), body): (&(Table, RowKey), &bytes::Bytes)| Row {
            key: key.clone(),
            body: body.clone(),
        };
        let KeyRange { table, from, to } = &scan.range;
        let rows = content.rows.range((*table, from.clone())..);
        let rows =
            rows.take_while(|((of, key), _)| of == table && to.as_ref().is_none_or(|to| key < to));
        let mut rows: Vec<Row> = rows.map(row).collect();
        if scan.reverse {
            rows.reverse();
        }
        rows.truncate(scan.limit);
        Ok(ScanPage { rows, position, serial })
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        let content = self.content();
        let Head { serial, oldest_block, .. } = content.head;
        if after < serial && after.next() < oldest_block {
            let kind = ErrorKind::Compacted { oldest: oldest_block.get() };
            return Err(Error::new(kind, "the blocks after this serial are gone"));
        }
        Ok(content
            .blocks
            .range(after.next()..)
            .take(limit)
            .map(|(_, block)| block.clone())
            .collect())
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let mut content = self.content();
        // Refuses what does not follow, before anything changes.
        let head = content.head.after(commit)?;
        for range in &commit.prune {
            content.rows.retain(|(table, key), _| *table != range.table || !range.contains(key));
        }
        for row in &commit.rows {
            let key = (row.table, row.key.clone());
            match &row.body {
                Some(body) => content.rows.insert(key, body.clone()),
                None => content.rows.remove(&key),
            };
        }
        if let Some(block) = &commit.block {
            content.blocks.insert(block.serial, block.clone());
        }
        content.blocks.retain(|serial, _| *serial >= head.oldest_block);
        content.head = head;
        Ok(())
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        // On a disk: a transaction that is synchronised, and leaves everything as it was.
        self.content().head.require_epoch(epoch)
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        let mut content = self.content();
        content.head = content.head.adopt(head)?;
        Ok(())
    }

    async fn reopen(&self) -> Result<Head> {
        self.head().await
    }

    async fn verify(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let backend = Arc::new(MapBackend::new(StoreId::from_bytes([1; 16])));
    let store = ghostwire_store_core::open(backend.clone(), StoreOptions::default()).await?;
    store.users().create(NewUser::local("alice".parse()?)).await?;
    let serial = store.checkpoint().await?;
    store.close().await?;
    let users = Scan { range: KeyRange::all(Table::Users), reverse: false, limit: 100 };
    println!("rows of users up to commit {serial}: {}", backend.scan(users).await?.rows.len());

    // Opened again, it has what was acknowledged.
    let store = ghostwire_store_core::open(backend, StoreOptions::default()).await?;
    for user in store.view().users().iter() {
        println!("{}", user.name);
    }
    store.close().await
}
