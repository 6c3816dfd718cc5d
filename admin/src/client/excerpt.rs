//! Some entities of a store that another process has open.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use bytes::Bytes;
use ghostwire_store_core::backend::{
    Attestation, AttestedState, Backend, BackendInfo, Commit, Head, Row, Scan, ScanPage,
};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::error::Result;
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::schema::{RowKey, Schema, Table};

use super::backend::{RemoteBackend, read_only};
use super::{Client, read};
use crate::protocol::{Method, SelectRequest, Selected, SelectedRow};
use crate::select::Selection;

/// What lies beneath a store of which only some entities are wanted: those that were [taken](Self::take), with what
/// is shown beside them. A store that is opened on it, to be read, answers for these as the whole one does, and for
/// no others. Series are read where the store is open.
#[derive(Debug, Clone)]
pub struct Excerpt {
    remote: RemoteBackend,
    head: Head,
    rows: BTreeMap<(Table, RowKey), Bytes>,
    meant: BTreeSet<(Table, RowKey)>,
}

impl Excerpt {
    /// Of nothing yet. `with_log` also reads blocks there that are not in rows yet: the newest lines of the audit trail
    /// are only in those.
    ///
    /// # Errors
    /// Those of [`Client::head`].
    pub async fn new(client: Client, with_log: bool) -> Result<Self> {
        let remote = RemoteBackend::new(client).await?;
        let mut head = remote.head().await?;
        if !with_log {
            // What is taken is as new as it is there.
            head.checkpoint = head.serial;
            head.oldest_block = head.serial.next();
        }
        Ok(Self { remote, head, rows: BTreeMap::new(), meant: BTreeSet::new() })
    }

    /// Takes entities of a table after a [position](crate::select::position), `limit` at most; the server may have
    /// fewer for one call. Gives them in the order of positions, and whether there are more.
    ///
    /// # Errors
    /// `Unsupported` by a server of an earlier release; those of [`Client::status`].
    pub async fn take(
        &mut self,
        table: Table,
        selection: &Selection,
        (after, limit): (Option<Vec<u8>>, u32),
    ) -> Result<(Vec<EntityRecord>, bool)> {
        let selection = selection.clone();
        let request = SelectRequest { table: table.number(), selection, after, limit };
        let asked = self.remote.items::<SelectedRow>(Method::Select(request));
        let (rows, end) = asked.await?;
        let Selected { more } = read(&end)?;
        let mut records = Vec::new();
        for SelectedRow { is_meant, table, row: Row { key, body } } in rows {
            if is_meant {
                records.push(EntityRecord::decode(table, &key, &body)?);
                self.meant.insert((table, key.clone()));
            }
            self.rows.insert((table, key), body);
        }
        Ok((records, more))
    }

    /// What was taken, without what is shown beside it.
    #[must_use]
    pub fn meant(&self) -> &BTreeSet<(Table, RowKey)> {
        &self.meant
    }

    /// Forgets that these were meant; they stay for what is shown beside others.
    pub fn keep_aside(&mut self) {
        self.meant.clear();
    }
}

#[async_trait]
impl Backend for Excerpt {
    fn info(&self) -> BackendInfo {
        self.remote.info()
    }

    async fn head(&self) -> Result<Head> {
        Ok(self.head)
    }

    async fn migrate(&self, _: Schema) -> Result<()> {
        Err(read_only())
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        let Scan { range, reverse, limit } = &scan;
        if matches!(range.table, Table::Metrics | Table::Audit) {
            return self.remote.scan(scan).await;
        }
        let from = (range.table, range.from.clone());
        let found = self
            .rows
            .range(from..)
            .take_while(|((table, key), _)| *table == range.table && range.contains(key));
        let mut rows: Vec<_> =
            found.map(|((_, key), body)| Row { key: key.clone(), body: body.clone() }).collect();
        if *reverse {
            rows.reverse();
        }
        rows.truncate(*limit);
        Ok(ScanPage { rows, position: self.head.position, serial: self.head.serial })
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.remote.blocks(after, limit).await
    }

    async fn commit(&self, _: &Commit) -> Result<()> {
        Err(read_only())
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        self.remote.probe(epoch).await
    }

    async fn adopt(&self, _: &Head) -> Result<()> {
        Err(read_only())
    }

    async fn reopen(&self) -> Result<Head> {
        self.head().await
    }

    async fn verify(&self) -> Result<()> {
        self.remote.verify().await
    }

    async fn attest(&self, state: &AttestedState) -> Result<Attestation> {
        self.remote.attest(state).await
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
