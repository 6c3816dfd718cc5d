//! A backend whose rows and blocks another process reads.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_store_core::backend::{
    Attestation, AttestedState, Backend, BackendInfo, Commit, Head, Row, Scan, ScanPage,
};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::schema::Schema;

use super::connection::Piece;
use super::{Client, read, unexpected};
use crate::protocol::{Decoder, Method, ScanRequest, Scanned, Wire};

/// What lies beneath a store that another process has open, to be read. A store that is opened on it, to
/// be read, is a copy in memory of how that one stood when it was opened.
///
/// Rows and blocks come as they are stored, page by page. Nothing of the store is held between two
/// pages, so they may be of different moments; opening a store knows how to deal with that.
#[derive(Clone)]
pub struct RemoteBackend {
    client: Client,
    info: BackendInfo,
}

impl fmt::Debug for RemoteBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteBackend")
            .field("socket", &self.client.socket())
            .finish_non_exhaustive()
    }
}

impl RemoteBackend {
    /// The backend of the store that this client talks to.
    ///
    /// # Errors
    /// Those of [`Client::info`].
    pub async fn new(client: Client) -> Result<Self> {
        let info = client.info().await?;
        Ok(Self { client, info })
    }

    pub(super) async fn items<T: Wire>(&self, method: Method) -> Result<(Vec<T>, bytes::Bytes)> {
        let mut answer = self.client.ask(method).await?;
        let (mut decoder, mut items) = (Decoder::default(), Vec::new());
        loop {
            match answer.next().await? {
                Piece::Working(_) => {}
                Piece::Data(data) => items.append(&mut decoder.push(&data)?),
                Piece::Done(value) => {
                    decoder.finish()?;
                    return Ok((items, value));
                }
                Piece::Item(_) => return Err(unexpected()),
            }
        }
    }
}

pub(super) fn read_only() -> Error {
    Error::new(
        ErrorKind::ReadOnly,
        "another process has the store open, and it alone writes; ask it, by its admin socket",
    )
}

#[async_trait]
impl Backend for RemoteBackend {
    fn info(&self) -> BackendInfo {
        self.info.clone()
    }

    async fn head(&self) -> Result<Head> {
        self.client.head().await
    }

    async fn migrate(&self, _: Schema) -> Result<()> {
        Err(read_only())
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        let Scan { range, reverse, limit } = scan;
        let request = ScanRequest {
            table: range.table.number(),
            from: range.from.as_bytes().to_vec(),
            to: range.to.map(|to| to.as_bytes().to_vec()),
            reverse,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        };
        let (rows, scanned) = self.items::<Row>(Method::Scan(request)).await?;
        if rows.len() > limit {
            return Err(unexpected());
        }
        let Scanned { position, serial } = read(&scanned)?;
        Ok(ScanPage { rows, position, serial })
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        self.items(Method::Blocks { after, limit }).await.map(|(blocks, _)| blocks)
    }

    async fn commit(&self, _: &Commit) -> Result<()> {
        Err(read_only())
    }

    async fn probe(&self, _: Epoch) -> Result<()> {
        self.client.probe().await.map(|_: Duration| ())
    }

    async fn adopt(&self, _: &Head) -> Result<()> {
        Err(read_only())
    }

    async fn reopen(&self) -> Result<Head> {
        self.client.head().await
    }

    /// The whole of [`Store::verify`](ghostwire_store_core::Store::verify), there.
    async fn verify(&self) -> Result<()> {
        self.client.verify(|_| ()).await
    }

    /// Of the state there, which may have gone on: nothing is signed that a client says.
    async fn attest(&self, _: &AttestedState) -> Result<Attestation> {
        self.client.attest().await
    }

    /// The connection ends with the last handle of it.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
