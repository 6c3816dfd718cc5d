//! DNS records.

use std::sync::Arc;

use super::decision::{Changes, Context, Decision, Handle, Reply, check_fresh, check_revision};
use super::listing::{Listing, behind};
use super::{Change, Map, State};
use crate::command::{DnsCommand, Image};
use crate::domain::{
    DnsName, DnsRecord, DnsRecordFilter, DnsRecordId, DnsRecordKind, Page, PageRequest, Revision,
    Text,
};
use crate::error::{Entity, Error, Result};

/// All DNS records.
#[derive(Clone, Default, Debug)]
pub struct DnsRecords {
    by_id: Map<DnsRecordId, Arc<DnsRecord>>,
    by_content: Map<(DnsName, DnsRecordKind, Text<1024>), DnsRecordId>,
}

impl DnsRecords {
    /// The record with this id.
    #[must_use]
    pub fn get(&self, id: DnsRecordId) -> Option<&Arc<DnsRecord>> {
        self.by_id.get(&id)
    }

    /// The records of a name, by kind and value.
    pub fn of_name(&self, name: &DnsName) -> impl Iterator<Item = &Arc<DnsRecord>> + '_ {
        let name = name.clone();
        let first = Text::new("").ok().map(|empty| (name.clone(), DnsRecordKind::A, empty));
        first
            .map(|first| self.by_content.range(first..))
            .into_iter()
            .flatten()
            .take_while(move |((owner, _, _), _)| *owner == name)
            .filter_map(|(_, id)| self.by_id.get(id))
    }

    /// All records, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<DnsRecord>> {
        self.by_id.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// A page of records, by id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn list(
        &self,
        filter: &DnsRecordFilter,
        page: &PageRequest,
    ) -> Result<Page<Arc<DnsRecord>>> {
        let listing = Listing::new(Entity::DnsRecord, filter);
        let start: Option<DnsRecordId> = listing.start(page)?;
        let matching =
            self.by_id.range(behind(start.as_ref())).map(|(_, record)| record).filter(|record| {
                filter.name.as_ref().is_none_or(|name| record.name == *name)
                    && filter.kind.is_none_or(|kind| record.kind == kind)
            });
        Ok(listing.take(page, matching.cloned(), |record| record.id))
    }

    pub(super) fn put(&mut self, record: Arc<DnsRecord>) -> bool {
        let old = self.by_id.insert(record.id, record.clone());
        if let Some(old) = &old {
            self.by_content.remove(&content(old));
        }
        self.by_content.insert(content(&record), record.id);
        old.is_some()
    }

    pub(super) fn remove(&mut self, id: DnsRecordId) {
        if let Some(old) = self.by_id.remove(&id) {
            self.by_content.remove(&content(&old));
        }
    }

    pub(super) fn check_unique(&self, record: &DnsRecord) -> Result<()> {
        match self.by_content.get(&content(record)) {
            Some(holder) if *holder != record.id => {
                Err(Error::already_exists(Entity::DnsRecord, "content")
                    .with("name", &record.name)
                    .with("held_by", holder))
            }
            _ => Ok(()),
        }
    }
}

fn content(record: &DnsRecord) -> (DnsName, DnsRecordKind, Text<1024>) {
    (record.name.clone(), record.kind, record.value.clone())
}

impl State {
    pub(super) fn decide_dns(
        &self,
        command: &DnsCommand,
        context: &Context<'_>,
    ) -> Result<Decision> {
        let found =
            |id| self.dns_records.get(id).ok_or_else(|| Error::not_found(Entity::DnsRecord, id));
        match command {
            DnsCommand::Create { id, record } => {
                check_fresh(Entity::DnsRecord, id, self.dns_records.get(*id).is_some())?;
                let record = DnsRecord {
                    id: *id,
                    name: record.name.clone(),
                    kind: record.kind,
                    value: record.value.clone(),
                    ttl: record.ttl,
                    created_at: context.now,
                    updated_at: context.now,
                    revision: Revision::FIRST,
                };
                self.put_record(record, DnsCommand::CREATE)
            }
            DnsCommand::Update { id, patch, expected } => {
                let old = found(*id)?;
                check_revision(Entity::DnsRecord, id, old.revision, *expected)?;
                let mut record = DnsRecord::clone(old);
                let mut changed = patch.value.apply(&mut record.value);
                changed |= patch.ttl.apply(&mut record.ttl);
                if !changed {
                    return Ok(Decision::unchanged(Reply::DnsRecord(old.clone())));
                }
                record.revision = old.revision.next();
                record.updated_at = context.now;
                self.put_record(record, DnsCommand::UPDATE)
            }
            DnsCommand::Delete { id } => {
                found(*id)?;
                let mut changes = Changes::new();
                changes.push(Change::Delete(Handle::DnsRecord(*id)));
                Ok(Decision::changed(changes, Reply::Done).noting(
                    DnsCommand::DELETE,
                    Entity::DnsRecord,
                    id,
                ))
            }
        }
    }

    fn put_record(&self, record: DnsRecord, action: &'static str) -> Result<Decision> {
        record.kind.check(record.value.as_str())?;
        self.dns_records.check_unique(&record)?;
        let record = Arc::new(record);
        let mut changes = Changes::new();
        changes.push(Change::Put(Image::DnsRecord(record.clone())));
        let id = record.id;
        Ok(Decision::changed(changes, Reply::DnsRecord(record)).noting(
            action,
            Entity::DnsRecord,
            id,
        ))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::{Change, DnsRecordPatch, NewDnsRecord};
    use crate::error::ErrorKind;
    use crate::state::testing::*;

    fn create(world: &mut World, kind: DnsRecordKind, value: &str) -> Result<DnsRecordId> {
        let id = DnsRecordId::from_bytes(world.id());
        let record = NewDnsRecord {
            name: "Wiki.Example.COM.".parse().unwrap(),
            kind,
            value: value.parse().unwrap(),
            ttl: None,
        };
        world.run(DnsCommand::Create { id, record })?;
        Ok(id)
    }

    #[test]
    fn the_same_record_cannot_exist_twice() {
        let mut world = World::new();
        create(&mut world, DnsRecordKind::A, "10.0.0.1").unwrap();
        let other = create(&mut world, DnsRecordKind::A, "10.0.0.2").unwrap();
        let error = create(&mut world, DnsRecordKind::A, "10.0.0.1").unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::AlreadyExists { constraint: "content" });
        let value = Change::Set("10.0.0.1".parse().unwrap());
        let patch = DnsRecordPatch { value, ..DnsRecordPatch::default() };
        let update = DnsCommand::Update { id: other, patch, expected: None };
        assert!(world.run(update).is_err());
        let name = "wiki.example.com".parse().unwrap();
        assert_eq!(world.state.dns_records().of_name(&name).count(), 2);
    }

    #[test]
    fn a_value_fits_its_kind() {
        let mut world = World::new();
        for (kind, value) in [
            (DnsRecordKind::A, "fd00::1"),
            (DnsRecordKind::Aaaa, "10.0.0.1"),
            (DnsRecordKind::Cname, "not a name"),
        ] {
            let error = create(&mut world, kind, value).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
        }
        create(&mut world, DnsRecordKind::Txt, "any text; at all").unwrap();
    }
}
