//! DNS records.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::collection::{Collection, Index, update_map};
use super::decision::{
    Changes, Context, Decision, Draft, EntityId, Reply, StateChange, check_revision,
};
use super::{Map, State};
use crate::command::DnsCommand;
use crate::domain::{
    DnsName, DnsRecord, DnsRecordFilter, DnsRecordId, DnsRecordKind, DnsRecordSet, Fingerprint,
    NewDnsRecord, Page, PageRequest, Revision, Text,
};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, ErrorKind, Result};

/// A call puts at most this many values.
const MAX_VALUES: usize = 1024;

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
        let records = self.from(name.clone(), DnsRecordKind::FIRST);
        records.take_while(move |record| record.name == name)
    }

    /// The records that a name has of one kind, with what tells whether somebody changes them.
    #[must_use]
    pub fn set(&self, name: &DnsName, kind: DnsRecordKind) -> DnsRecordSet {
        let of_set = |record: &&Arc<DnsRecord>| record.name == *name && record.kind == kind;
        let records = self.from(name.clone(), kind).take_while(of_set).cloned().collect();
        DnsRecordSet::new(name.clone(), kind, records)
    }

    /// The records from the first that a name could have of a kind on, by name, kind and value.
    fn from(&self, name: DnsName, kind: DnsRecordKind) -> impl Iterator<Item = &Arc<DnsRecord>> {
        let first = (name, kind, Text::default());
        self.index.by_content.range(first..).filter_map(|(_, id)| self.get(*id))
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

    /// The value is one of its kind, in its one form unless an older release stored it, and no other record says the same.
    fn check_beside(&self, state: &State) -> Result<()> {
        let canonical = self.kind.canonical(&self.value)?;
        // An older release kept addresses and names as they were given.
        let is_older = matches!(self.kind, DnsRecordKind::Aaaa | DnsRecordKind::Cname);
        if canonical != self.value && !is_older {
            return Err(Error::invalid("a record's value is written in another form")
                .about(EntityKind::DnsRecord)
                .with("kind", self.kind)
                .with("value", &self.value)
                .with("canonical", canonical));
        }
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
            let value = record.kind.canonical(&record.value)?;
            let record = new(*id, &NewDnsRecord { value, ..record.clone() }, context);
            record.check_beside(state)?;
            Ok(Decision::put(record).noting(DnsCommand::CREATE, EntityKind::DnsRecord, id))
        }
        DnsCommand::Update { id, patch, expected } => {
            let old = records.require(*id)?;
            check_revision(EntityKind::DnsRecord, id, old.revision, *expected)?;
            let mut record = DnsRecord::clone(old);
            let mut changed = patch.ttl.apply(&mut record.ttl);
            if patch.value.apply(&mut record.value) {
                record.value = record.kind.canonical(&record.value)?;
                changed |= record.value != old.value;
            }
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
        DnsCommand::Put { name, kind, values, ttl, expected } => {
            let wanted = wanted(*kind, values)?;
            let set = check_set(state, name, *kind, *expected)?;
            put(state, &set, wanted, *ttl, context)
        }
        DnsCommand::DeleteSet { name, kind, expected } => {
            let set = check_set(state, name, *kind, *expected)?;
            let gone = set.records.iter().map(|it| StateChange::Delete(EntityId::DnsRecord(it.id)));
            let changes: Changes = gone.collect();
            let reply = Reply::Count(changes.len() as u64);
            if changes.is_empty() {
                return Ok(Decision::unchanged(reply));
            }
            let decision = Decision::changed(changes, reply);
            Ok(decision.noting(DnsCommand::DELETE_SET, EntityKind::DnsRecord, name))
        }
    }
}

fn new(id: DnsRecordId, record: &NewDnsRecord, context: &Context<'_>) -> DnsRecord {
    DnsRecord {
        id,
        name: record.name.clone(),
        kind: record.kind,
        value: record.value.clone(),
        ttl: record.ttl,
        created_at: context.now,
        updated_at: context.now,
        revision: Revision::FIRST,
    }
}

/// What a name has of a kind, if that is what the caller expects.
pub(super) fn check_set(
    state: &State,
    name: &DnsName,
    kind: DnsRecordKind,
    expected: Option<Fingerprint>,
) -> Result<DnsRecordSet> {
    let set = state.dns_records().set(name, kind);
    match expected {
        Some(expected) if expected != set.fingerprint => Err(Error::new(
            ErrorKind::Conflict,
            "the name's records were changed by somebody else; read them again",
        )
        .about(EntityKind::DnsRecord)
        .with("name", name)
        .with("kind", kind)
        .with("expected_fingerprint", expected)
        .with("fingerprint", set.fingerprint)),
        _ => Ok(set),
    }
}

/// The values in the form in which they are kept, each once.
fn wanted(
    kind: DnsRecordKind,
    values: &[(DnsRecordId, Text<1024>)],
) -> Result<BTreeMap<Text<1024>, DnsRecordId>> {
    if values.len() > MAX_VALUES {
        return Err(Error::invalid("a call takes at most 1024 values")
            .about(EntityKind::DnsRecord)
            .with("values", values.len()));
    }
    values.iter().map(|(id, value)| Ok((kind.canonical(value)?, *id))).collect()
}

/// Makes exactly `wanted` the values of a set. A record whose value stays is the one it was.
fn put(
    state: &State,
    set: &DnsRecordSet,
    mut wanted: BTreeMap<Text<1024>, DnsRecordId>,
    ttl: Option<u32>,
    context: &Context<'_>,
) -> Result<Decision> {
    let mut draft = Draft::of(state);
    for old in &set.records {
        if wanted.remove(&old.value).is_none() {
            draft.delete(EntityId::DnsRecord(old.id));
        } else if old.ttl != ttl {
            let (updated_at, revision) = (context.now, old.revision.next());
            draft.put(DnsRecord { ttl, updated_at, revision, ..DnsRecord::clone(old) });
        }
    }
    // What is left has no record yet.
    for (value, id) in wanted {
        draft.state.dns_records().check_fresh(id)?;
        let record = NewDnsRecord { name: set.name.clone(), kind: set.kind, value, ttl };
        draft.put(new(id, &record, context));
    }
    let reply = Reply::DnsRecords(draft.state.dns_records().set(&set.name, set.kind).records);
    if draft.changes().is_empty() {
        return Ok(Decision::unchanged(reply));
    }
    Ok(draft.finish(reply).noting(DnsCommand::PUT, EntityKind::DnsRecord, &set.name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::domain::{DnsRecordPatch, Update};
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

    fn name() -> DnsName {
        "wiki.example.com".parse().unwrap()
    }

    fn put_command(
        world: &mut World,
        kind: DnsRecordKind,
        values: &[&str],
        ttl: Option<u32>,
        expected: Option<Fingerprint>,
    ) -> DnsCommand {
        let mut value = |text: &&str| (DnsRecordId::from_bytes(world.id()), text.parse().unwrap());
        let values = values.iter().map(&mut value).collect();
        DnsCommand::Put { name: name(), kind, values, ttl, expected }
    }

    fn put(
        world: &mut World,
        kind: DnsRecordKind,
        values: &[&str],
        ttl: Option<u32>,
    ) -> Result<Vec<Arc<DnsRecord>>> {
        let command = put_command(world, kind, values, ttl, None);
        let Reply::DnsRecords(records) = world.run(command)? else { panic!("another reply") };
        assert_eq!(records, world.state.dns_records().set(&name(), kind).records);
        Ok(records)
    }

    #[test]
    fn a_put_keeps_what_stays() {
        let mut world = World::new();
        let a = DnsRecordKind::A;
        create(&mut world, DnsRecordKind::Txt, "10.0.0.1").unwrap();
        let first = put(&mut world, a, &["10.0.0.2", "10.0.0.1", "10.0.0.2"], None).unwrap();
        let values: Vec<_> = first.iter().map(|record| record.value.as_str()).collect();
        assert_eq!(values, ["10.0.0.1", "10.0.0.2"]);
        world.advance(std::time::Duration::from_secs(1));
        let second = put(&mut world, a, &["10.0.0.3", "10.0.0.2"], None).unwrap();
        assert_eq!(second[0], first[1], "what stays is as it was");
        assert_eq!((second[1].value.as_str(), second.len()), ("10.0.0.3", 2));
        let third = put(&mut world, a, &["10.0.0.3", "10.0.0.2"], Some(60)).unwrap();
        for (new, old) in third.iter().zip(&second) {
            let revision = old.revision.next();
            let expected = DnsRecord { ttl: Some(60), revision, ..DnsRecord::clone(old) };
            assert_eq!(DnsRecord { updated_at: old.updated_at, ..DnsRecord::clone(new) }, expected);
        }
        let idle = put_command(&mut world, a, &["10.0.0.3", "10.0.0.2"], Some(60), None);
        let actor = crate::domain::Actor::system();
        let context = Context { now: world.now, actor: &actor, seed: [0; 10] };
        let decision = decide(&world.state, &idle, &context).unwrap();
        assert!(decision.changes.is_empty() && decision.audit.is_empty());
        assert_eq!(put(&mut world, a, &[], None).unwrap(), []);
        assert_eq!(world.state.dns_records().len(), 1, "another kind is another set");
    }

    #[test]
    fn of_two_who_read_a_set_one_replaces_it() {
        let mut world = World::new();
        let a = DnsRecordKind::A;
        let fingerprint = |world: &World| world.state.dns_records().set(&name(), a).fingerprint;
        let read = Some(fingerprint(&world));
        for (values, wins) in [(["10.0.0.1"], true), (["10.0.0.2"], false)] {
            let command = put_command(&mut world, a, &values, None, read);
            let ended = world.run(command).map(|_| ()).map_err(|error| error.kind().clone());
            assert_eq!(ended, if wins { Ok(()) } else { Err(ErrorKind::Conflict) });
        }
        let read = Some(fingerprint(&world));
        put(&mut world, a, &["10.0.0.1"], Some(9)).unwrap();
        let delete = |expected| DnsCommand::DeleteSet { name: name(), kind: a, expected };
        assert_eq!(*world.run(delete(read)).unwrap_err().kind(), ErrorKind::Conflict);
        let read = Some(fingerprint(&world));
        assert_eq!(world.run(delete(read)).unwrap(), Reply::Count(1));
        assert_eq!(world.run(delete(None)).unwrap(), Reply::Count(0));
    }

    #[test]
    fn a_put_makes_no_two_records_of_one_id() {
        let mut world = World::new();
        let id = DnsRecordId::from_bytes(world.id());
        let values = ["10.0.0.1", "10.0.0.2"].map(|value| (id, value.parse().unwrap()));
        let (kind, ttl, expected) = (DnsRecordKind::A, None, None);
        let put = DnsCommand::Put { name: name(), kind, values: values.into(), ttl, expected };
        let error = world.run(put).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::AlreadyExists { constraint: "id" });
        assert!(world.state.dns_records().is_empty());
    }

    #[test]
    fn what_is_created_has_its_one_form() {
        let mut world = World::new();
        let mx = create(&mut world, DnsRecordKind::Mx, "010 Mail.example.").unwrap();
        let kept = world.state.dns_records().get(mx).unwrap().clone();
        assert_eq!(kept.value.as_str(), "10 mail.example");
        let error = create(&mut world, DnsRecordKind::Mx, "10 mail.example").unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::AlreadyExists { constraint: "content" });
        let value = Update::Set("10  MAIL.example".parse().unwrap());
        let patch = DnsRecordPatch { value, ..DnsRecordPatch::default() };
        let same = world.run(DnsCommand::Update { id: mx, patch, expected: None }).unwrap();
        assert_eq!(same, Reply::DnsRecord(kept.clone()));
        let odd =
            DnsRecord { value: "10 MAIL.example".parse().unwrap(), ..DnsRecord::clone(&kept) };
        let error = odd.check_beside(&State::default()).unwrap_err().to_string();
        assert!(error.contains("canonical=10 mail.example"), "{error}");
    }

    #[test]
    fn a_value_fits_its_kind() {
        let mut world = World::new();
        for (kind, value) in [
            (DnsRecordKind::A, "fd00::1"),
            (DnsRecordKind::Aaaa, "10.0.0.1"),
            (DnsRecordKind::Cname, "not a name"),
            (DnsRecordKind::Mx, "mail.example.com"),
            (DnsRecordKind::Ptr, "*.example.com"),
            (DnsRecordKind::Srv, "5060 sip.example.com"),
        ] {
            let error = create(&mut world, kind, value).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
        }
        create(&mut world, DnsRecordKind::Txt, "any text; at all").unwrap();
    }
}
