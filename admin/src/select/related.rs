//! What is shown beside an entity, and so has to come with it.

use std::collections::{BTreeMap, HashSet};

use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::domain::{InstanceId, NodeId, SessionOwner, UserId};
use ghostwire_store_core::schema::{RowKey, Table};
use ghostwire_store_core::state::State;

/// Entities that are none of `chosen`, and that a listing of those names: owners, nodes, who is online; the policy in
/// force; the other records of a DNS name.
pub(crate) fn related(chosen: &[EntityRecord], state: &State) -> Vec<EntityRecord> {
    let mut found = Found { state, records: BTreeMap::new() };
    let mut instances = HashSet::new();
    for record in chosen {
        match record {
            EntityRecord::Node(node) => {
                found.user(node.user);
                found.presence(node.id);
            }
            EntityRecord::Presence(presence) => {
                found.node(Some(presence.node));
                found.instance(presence.instance);
            }
            EntityRecord::Instance(instance) => drop(instances.insert(instance.id)),
            EntityRecord::Route(route) => found.node(Some(route.node)),
            EntityRecord::ApiKey(key) => found.user(key.user),
            EntityRecord::PreAuthKey(key) => found.user(key.user),
            EntityRecord::Session(session) => {
                match session.owner {
                    SessionOwner::User(user) => found.user(Some(user)),
                    SessionOwner::Node(node) => found.node(Some(node)),
                }
                found.node(session.node);
            }
            EntityRecord::Policy(_) => {
                found.add(state.policies().current().cloned().map(EntityRecord::Policy));
            }
            EntityRecord::DnsRecord(record) => {
                for other in state.dns_records().of_name(&record.name) {
                    found.add(Some(EntityRecord::DnsRecord(other.clone())));
                }
            }
            EntityRecord::User(_) | EntityRecord::SignIn(_) | EntityRecord::Setting(_) => {}
        }
    }
    if !instances.is_empty() {
        for presence in state.presence().iter() {
            if presence.instance.is_some_and(|instance| instances.contains(&instance)) {
                found.add(Some(EntityRecord::Presence(presence.clone())));
            }
        }
    }
    let chosen: HashSet<_> = chosen.iter().map(place).collect();
    found.records.into_values().filter(|record| !chosen.contains(&place(record))).collect()
}

fn place(record: &EntityRecord) -> (Table, RowKey) {
    (record.table(), record.key())
}

struct Found<'s> {
    state: &'s State,
    records: BTreeMap<(Table, RowKey), EntityRecord>,
}

impl Found<'_> {
    fn add(&mut self, record: Option<EntityRecord>) {
        if let Some(record) = record {
            self.records.insert(place(&record), record);
        }
    }

    fn user(&mut self, id: Option<UserId>) {
        let user = id.and_then(|id| self.state.users().get(id));
        self.add(user.cloned().map(EntityRecord::User));
    }

    fn node(&mut self, id: Option<NodeId>) {
        let node = id.and_then(|id| self.state.nodes().get(id));
        self.add(node.cloned().map(EntityRecord::Node));
    }

    fn presence(&mut self, id: NodeId) {
        let presence = self.state.presence().get(id);
        self.add(presence.cloned().map(EntityRecord::Presence));
    }

    fn instance(&mut self, id: Option<InstanceId>) {
        let instance = id.and_then(|id| self.state.instances().get(id));
        self.add(instance.cloned().map(EntityRecord::Instance));
    }
}
