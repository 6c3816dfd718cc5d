//! DNS records.

use std::sync::Arc;

use super::collection::{Collection, Index, update_map};
use super::decision::{Context, Decision, EntityId, Reply, check_revision};
use super::{Map, State};
use crate::command::DnsCommand;
use crate::domain::{
    DnsName, DnsRecord, DnsRecordFilter, DnsRecordId, DnsRecordKind, Page, PageRequest, Revision,
    Text,
};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, Result};

/// All DNS records.
pub type DnsRecords = Collection<DnsRecord, DnsIndex>;

#[derive(Clone, Default, Debug)]
pub struct DnsIndex {
    by_content: Map<(DnsName, DnsRecordKind, Text<1024>), DnsRecordId>,
}

fn content(record: &DnsRecord) -> (DnsName, DnsRecordKind, Text<1024>) {
    (record.name.clone(), record.kind, record.value.clone())
}

impl Index<DnsRecord> for DnsIndex {
    fn update(&mut self, id: DnsRecordId, old: Option<&DnsRecord>, new: Option<&Arc<DnsRecord>>) {
        let (old, new) = (old.map(content), new.map(|record| content(record)));
        update_map(&mut self.by_content, old, new, id);
    }
}

impl DnsRecords {
    /// The records of a name, by kind and value.
    pub fn of_name(&self, name: &DnsName) -> impl Iterator<Item = &Arc<DnsRecord>> + '_ {
        let name = name.clone();
        let first = Text::new("").ok().map(|empty| (name.clone(), DnsRecordKind::A, empty));
        first
            .map(|first| self.index.by_content.range(first..))
            .into_iter()
            .flatten()
            .take_while(move |((owner, _, _), _)| *owner == name)
            .filter_map(|(_, id)| self.get(*id))
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
        self.page(filter, page, |record| {
            filter.name.as_ref().is_none_or(|name| record.name == *name)
                && filter.kind.is_none_or(|kind| record.kind == kind)
        })
    }
}

impl Rules for DnsRecord {
    dates! { events: created_at, updated_at; ends: }

    /// The value is one of its kind, and no other record says the same.
    fn check_beside(&self, state: &State) -> Result<()> {
        self.kind.check(self.value.as_str())?;
        match state.dns_records().index.by_content.get(&content(self)) {
            Some(holder) if *holder != self.id => {
                Err(Error::already_exists(EntityKind::DnsRecord, "content")
                    .with("name", &self.name)
                    .with("held_by", holder))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn decide(
    state: &State,
    command: &DnsCommand,
    context: &Context<'_>,
) -> Result<Decision> {
    let records = state.dns_records();
    match command {
        DnsCommand::Create { id, record } => {
            records.check_fresh(*id)?;
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
            record.check_beside(state)?;
            Ok(Decision::put(record).noting(DnsCommand::CREATE, EntityKind::DnsRecord, id))
        }
        DnsCommand::Update { id, patch, expected } => {
            let old = records.require(*id)?;
            check_revision(EntityKind::DnsRecord, id, old.revision, *expected)?;
            let mut record = DnsRecord::clone(old);
            let mut changed = patch.value.apply(&mut record.value);
            changed |= patch.ttl.apply(&mut record.ttl);
            if !changed {
                return Ok(Decision::unchanged(Reply::DnsRecord(old.clone())));
            }
            record.revision = old.revision.next();
            record.updated_at = context.now;
            record.check_beside(state)?;
            Ok(Decision::put(record).noting(DnsCommand::UPDATE, EntityKind::DnsRecord, id))
        }
        DnsCommand::Delete { id } => {
            records.require(*id)?;
            let decision = Decision::delete(EntityId::DnsRecord(*id));
            Ok(decision.noting(DnsCommand::DELETE, EntityKind::DnsRecord, id))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::{DnsRecordPatch, NewDnsRecord, Update};
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
        let value = Update::Set("10.0.0.1".parse().unwrap());
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
