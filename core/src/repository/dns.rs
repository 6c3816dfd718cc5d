//! DNS records.

use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::DnsCommand;
use crate::domain::{
    DnsRecord, DnsRecordFilter, DnsRecordId, DnsRecordPatch, NewDnsRecord, Page, PageRequest,
    Revision,
};
use crate::error::Result;
use crate::store::StoreHandle;

/// Extra DNS records that the mesh serves.
#[async_trait]
pub trait DnsRepository: Send + Sync {
    /// Creates a record.
    ///
    /// # Errors
    /// `AlreadyExists` (`content`) for the same name, kind and value; `InvalidArgument` if the
    /// value does not fit the kind.
    async fn create(&self, record: NewDnsRecord) -> Result<Arc<DnsRecord>>;

    /// The record with this id.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, id: DnsRecordId) -> Result<Option<Arc<DnsRecord>>>;

    /// A page of records, by id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    async fn list(
        &self,
        filter: &DnsRecordFilter,
        page: &PageRequest,
    ) -> Result<Page<Arc<DnsRecord>>>;

    /// Changes a record; with `expected`, only if that is still its revision.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`, `AlreadyExists`, `InvalidArgument`.
    async fn update(
        &self,
        id: DnsRecordId,
        patch: DnsRecordPatch,
        expected: Option<Revision>,
    ) -> Result<Arc<DnsRecord>>;

    /// Removes a record.
    ///
    /// # Errors
    /// `NotFound`, also the second time.
    async fn delete(&self, id: DnsRecordId) -> Result<()>;
}

#[async_trait]
impl DnsRepository for StoreHandle {
    async fn create(&self, record: NewDnsRecord) -> Result<Arc<DnsRecord>> {
        let id = self.new_id("dns.create", DnsRecordId::time_ordered)?;
        let reply = self.run("dns.create", DnsCommand::Create { id, record }).await?;
        expect_reply!(reply, DnsRecord)
    }

    async fn get(&self, id: DnsRecordId) -> Result<Option<Arc<DnsRecord>>> {
        Ok(self.open_view("dns.get")?.dns_records().get(id).cloned())
    }

    async fn list(
        &self,
        filter: &DnsRecordFilter,
        page: &PageRequest,
    ) -> Result<Page<Arc<DnsRecord>>> {
        let view = self.open_view("dns.list")?;
        view.dns_records().list(filter, page).map_err(|error| error.during("dns.list"))
    }

    async fn update(
        &self,
        id: DnsRecordId,
        patch: DnsRecordPatch,
        expected: Option<Revision>,
    ) -> Result<Arc<DnsRecord>> {
        let command = DnsCommand::Update { id, patch, expected };
        expect_reply!(self.run("dns.update", command).await?, DnsRecord)
    }

    async fn delete(&self, id: DnsRecordId) -> Result<()> {
        self.run("dns.delete", DnsCommand::Delete { id }).await.map(|_| ())
    }
}
