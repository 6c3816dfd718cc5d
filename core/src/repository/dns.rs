//! DNS records.

use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::DnsCommand;
use crate::domain::{
    DnsName, DnsRecord, DnsRecordFilter, DnsRecordId, DnsRecordKind, DnsRecordPatch, DnsRecordSet,
    Fingerprint, NewDnsRecord, NewDnsRecordSet, Page, PageRequest, Revision,
};
use crate::error::Result;
use crate::handle::StoreHandle;

/// DNS records that the mesh serves beside the labels of its nodes.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use ghostwire_store::domain::{Update, DnsRecordKind, DnsRecordPatch, NewDnsRecord};
///
/// let new = NewDnsRecord {
///     name: "wiki.example.com".parse()?,
///     kind: DnsRecordKind::A,
///     value: "10.20.0.7".parse()?,
///     ttl: Some(300),
/// };
/// let record = store.dns().create(new).await?;
///
/// let patch = DnsRecordPatch { value: Update::Set("10.20.0.8".parse()?), ..Default::default() };
/// store.dns().update(record.id, patch, Some(record.revision)).await?;
/// assert_eq!(store.view().dns_records().of_name(&record.name).count(), 1);
/// # Ok(()) }).unwrap();
/// ```
///
/// What a name has of one kind can be read and replaced as a whole:
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use ghostwire_store::domain::{DnsRecordKind, NewDnsRecordSet};
///
/// let (name, kind) = ("example.com".parse()?, DnsRecordKind::Mx);
/// let before = store.dns().get_set(&name, kind).await?;
/// let values = vec!["10 mail.example.com".parse()?, "20 backup.example.com".parse()?];
/// let wanted = NewDnsRecordSet { name: name.clone(), kind, values, ttl: Some(3600) };
/// let set = store.dns().put(wanted, Some(before.fingerprint)).await?;
/// assert_eq!(set.records.len(), 2);
///
/// assert!(store.dns().delete_set(&name, kind, Some(before.fingerprint)).await.is_err());
/// assert_eq!(store.dns().delete_set(&name, kind, Some(set.fingerprint)).await?, 2);
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait DnsRepository: Send + Sync {
    /// Creates a record.
    ///
    /// # Behavior
    /// - (name, kind, value) is unique; a name may have several values of one kind.
    /// - A CNAME beside other records of its name is not refused.
    ///
    /// # Errors
    /// `AlreadyExists` (`content`); `InvalidArgument` if the value does not fit the kind; those of
    /// any write.
    async fn create(&self, record: NewDnsRecord) -> Result<Arc<DnsRecord>>;

    /// The record with this id; `None` if there is none.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, id: DnsRecordId) -> Result<Option<Arc<DnsRecord>>>;

    /// A page of records, in the order of their ids, which is that of their creation.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing; `Unavailable` after the store was closed.
    async fn list(
        &self,
        filter: &DnsRecordFilter,
        page: &PageRequest,
    ) -> Result<Page<Arc<DnsRecord>>>;

    /// Changes the value or time to live of a record; its name and kind stay.
    ///
    /// # Behavior
    /// - With `expected`, only if that is still the record's revision.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for another revision; `AlreadyExists` (`content`); `InvalidArgument` if
    /// the value does not fit the kind; those of any write.
    async fn update(
        &self,
        id: DnsRecordId,
        patch: DnsRecordPatch,
        expected: Option<Revision>,
    ) -> Result<Arc<DnsRecord>>;

    /// Removes a record.
    ///
    /// # Errors
    /// `NotFound`, also the second time; those of any write.
    async fn delete(&self, id: DnsRecordId) -> Result<()>;

    /// The records that a name has of one kind, by value, with their fingerprint; none if it has none.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get_set(&self, name: &DnsName, kind: DnsRecordKind) -> Result<DnsRecordSet>;

    /// Makes exactly these values what a name has of one kind; no values take the set away.
    ///
    /// # Behavior
    /// - A record whose value and time to live stay keeps its id, its times and its revision.
    /// - A value that is given twice counts once.
    /// - With `expected`, only if that is still the set's fingerprint. That of a set without records
    ///   makes sure that nobody else began one.
    ///
    /// # Errors
    /// `Conflict` for another fingerprint; `InvalidArgument` if a value does not fit the kind, and above
    /// 1,024 values; those of any write.
    async fn put(
        &self,
        set: NewDnsRecordSet,
        expected: Option<Fingerprint>,
    ) -> Result<DnsRecordSet>;

    /// Removes whatever a name has of one kind. Gives how many records that were, which may be 0.
    ///
    /// # Behavior
    /// - With `expected`, only if that is still the set's fingerprint.
    ///
    /// # Errors
    /// `Conflict` for another fingerprint; those of any write.
    async fn delete_set(
        &self,
        name: &DnsName,
        kind: DnsRecordKind,
        expected: Option<Fingerprint>,
    ) -> Result<u64>;
}

#[async_trait]
impl DnsRepository for StoreHandle {
    async fn create(&self, record: NewDnsRecord) -> Result<Arc<DnsRecord>> {
        let id = self.new_id(DnsCommand::CREATE, DnsRecordId::time_ordered)?;
        let reply = self.run(DnsCommand::Create { id, record }).await?;
        expect_reply!(reply, DnsRecord)
    }

    async fn get(&self, id: DnsRecordId) -> Result<Option<Arc<DnsRecord>>> {
        Ok(self.open_view("dns_record.get")?.dns_records().get(id).cloned())
    }

    async fn list(
        &self,
        filter: &DnsRecordFilter,
        page: &PageRequest,
    ) -> Result<Page<Arc<DnsRecord>>> {
        let view = self.open_view("dns_record.list")?;
        view.dns_records().list(filter, page).map_err(|error| error.during("dns_record.list"))
    }

    async fn update(
        &self,
        id: DnsRecordId,
        patch: DnsRecordPatch,
        expected: Option<Revision>,
    ) -> Result<Arc<DnsRecord>> {
        let command = DnsCommand::Update { id, patch, expected };
        expect_reply!(self.run(command).await?, DnsRecord)
    }

    async fn delete(&self, id: DnsRecordId) -> Result<()> {
        self.run(DnsCommand::Delete { id }).await.map(|_| ())
    }

    async fn get_set(&self, name: &DnsName, kind: DnsRecordKind) -> Result<DnsRecordSet> {
        Ok(self.open_view("dns_record.get_set")?.dns_records().set(name, kind))
    }

    async fn put(
        &self,
        set: NewDnsRecordSet,
        expected: Option<Fingerprint>,
    ) -> Result<DnsRecordSet> {
        let NewDnsRecordSet { name, kind, values, ttl } = set;
        let ids = self.new_ids(DnsCommand::PUT, values.len(), DnsRecordId::time_ordered)?;
        let values = ids.into_iter().zip(values).collect();
        let command = DnsCommand::Put { name: name.clone(), kind, values, ttl, expected };
        let records = expect_reply!(self.run(command).await?, DnsRecords)?;
        Ok(DnsRecordSet::new(name, kind, records))
    }

    async fn delete_set(
        &self,
        name: &DnsName,
        kind: DnsRecordKind,
        expected: Option<Fingerprint>,
    ) -> Result<u64> {
        let command = DnsCommand::DeleteSet { name: name.clone(), kind, expected };
        expect_reply!(self.run(command).await?, Count)
    }
}
