//! All nodes, and what they are found by.

use std::ops::Bound;
use std::sync::Arc;

use crate::domain::{DnsLabel, MachineKey, Node, NodeId, NodeKey, Timestamp, UserId};
use crate::error::{Entity, Error, Result};
use crate::state::listing::behind;
use crate::state::loading::stopped;
use crate::state::unique::UniqueIndex;
use crate::state::{Map, Set};

/// All nodes.
#[derive(Clone, Default, Debug)]
pub struct Nodes {
    by_id: Map<NodeId, Arc<Node>>,
    by_machine_key: UniqueIndex<NodeId>,
    by_node_key: UniqueIndex<NodeId>,
    by_label: UniqueIndex<NodeId>,
    by_user: Set<(UserId, NodeId)>,
    by_expiry: Set<(Timestamp, NodeId)>,
    ephemeral: Set<NodeId>,
}

impl Nodes {
    /// The node with this id.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.by_id.get(&id)
    }

    /// The node of this machine.
    #[must_use]
    pub fn by_machine_key(&self, key: &MachineKey) -> Option<&Arc<Node>> {
        let held = |id| self.by_id.get(&id).filter(|node| node.machine_key == *key);
        self.by_machine_key.find(key, held)
    }

    /// The node with this WireGuard key.
    #[must_use]
    pub fn by_node_key(&self, key: &NodeKey) -> Option<&Arc<Node>> {
        let held = |id| self.by_id.get(&id).filter(|node| node.node_key == *key);
        self.by_node_key.find(key, held)
    }

    /// The node with this DNS label.
    #[must_use]
    pub fn by_label(&self, label: &DnsLabel) -> Option<&Arc<Node>> {
        let held = |id| self.by_id.get(&id).filter(|node| node.label == *label);
        self.by_label.find(label, held)
    }

    /// The ids of a user's nodes, in the order of creation.
    pub fn of_user(&self, user: UserId) -> impl Iterator<Item = NodeId> + '_ {
        self.by_user
            .range((user, NodeId::from_bytes([0; 16]))..=(user, NodeId::from_bytes([0xff; 16])))
            .map(|(_, node)| *node)
    }

    /// The nodes whose key expires at `after < expires_at <= until`, by that time.
    pub fn expiring(
        &self,
        after: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = &Arc<Node>> + '_ {
        let last = NodeId::from_bytes([0xff; 16]);
        let range = if after < until {
            (Bound::Excluded((after, last)), Bound::Included((until, last)))
        } else {
            (Bound::Excluded((until, last)), Bound::Included((until, last)))
        };
        self.by_expiry.range(range).filter_map(|(_, id)| self.by_id.get(id))
    }

    /// All nodes by id, which is the order of creation.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.by_id.values()
    }

    /// The nodes behind this one, by id; all of them behind none.
    pub(in crate::state) fn behind(
        &self,
        start: Option<NodeId>,
    ) -> impl Iterator<Item = &Arc<Node>> {
        self.by_id.range(behind(start.as_ref())).map(|(_, node)| node)
    }

    /// The ephemeral nodes, by id.
    pub(in crate::state) fn ephemeral(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.ephemeral.iter().filter_map(|id| self.by_id.get(id))
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

    /// The nodes of `by_id`. Their indexes are built at once, on several cores.
    pub(in crate::state) fn of(by_id: Map<NodeId, Arc<Node>>) -> Result<Self> {
        let nodes = || by_id.values();
        std::thread::scope(|scope| {
            let keys = scope.spawn(|| {
                let machine_keys = nodes().map(|node| (&node.machine_key, node.id));
                let node_keys = nodes().map(|node| (&node.node_key, node.id));
                (UniqueIndex::of(machine_keys), UniqueIndex::of(node_keys))
            });
            let by_label = UniqueIndex::of(nodes().map(|node| (&node.label, node.id)));
            let by_user = nodes().filter_map(|node| Some((node.user?, node.id))).collect();
            let by_expiry = nodes().filter_map(|node| Some((node.expires_at?, node.id))).collect();
            let ephemeral = nodes().filter(|node| node.ephemeral).map(|node| node.id).collect();
            let (by_machine_key, by_node_key) = keys.join().map_err(|_| stopped())?;
            let by_id = by_id.clone();
            Ok(Self { by_id, by_machine_key, by_node_key, by_label, by_user, by_expiry, ephemeral })
        })
    }

    pub(in crate::state) fn put(&mut self, node: Arc<Node>) -> bool {
        let old = self.by_id.insert(node.id, node.clone());
        if let Some(old) = &old {
            self.unindex(old, Some(&node));
        }
        if old.as_ref().is_none_or(|old| old.machine_key != node.machine_key) {
            self.by_machine_key.insert(&node.machine_key, node.id);
        }
        if old.as_ref().is_none_or(|old| old.node_key != node.node_key) {
            self.by_node_key.insert(&node.node_key, node.id);
        }
        if old.as_ref().is_none_or(|old| old.label != node.label) {
            self.by_label.insert(&node.label, node.id);
        }
        if let Some(user) = node.user {
            self.by_user.insert((user, node.id));
        }
        if let Some(expires_at) = node.expires_at {
            self.by_expiry.insert((expires_at, node.id));
        }
        if node.ephemeral {
            self.ephemeral.insert(node.id);
        }
        old.is_some()
    }

    pub(in crate::state) fn remove(&mut self, id: NodeId) {
        if let Some(old) = self.by_id.remove(&id) {
            self.unindex(&old, None);
        }
    }

    /// Removes the index entries of `old` that `new` does not have.
    fn unindex(&mut self, old: &Node, new: Option<&Node>) {
        let gone = |same: fn(&Node, &Node) -> bool| new.is_none_or(|new| !same(old, new));
        if gone(|old, new| old.machine_key == new.machine_key) {
            self.by_machine_key.remove(&old.machine_key, old.id);
        }
        if gone(|old, new| old.node_key == new.node_key) {
            self.by_node_key.remove(&old.node_key, old.id);
        }
        if gone(|old, new| old.label == new.label) {
            self.by_label.remove(&old.label, old.id);
        }
        if let Some(user) = old.user
            && gone(|old, new| old.user == new.user)
        {
            self.by_user.remove(&(user, old.id));
        }
        if let Some(expires_at) = old.expires_at
            && gone(|old, new| old.expires_at == new.expires_at)
        {
            self.by_expiry.remove(&(expires_at, old.id));
        }
        if old.ephemeral && gone(|old, new| old.ephemeral == new.ephemeral) {
            self.ephemeral.remove(&old.id);
        }
    }

    /// Refuses a node key that another node has.
    pub(in crate::state) fn check_node_key(&self, id: NodeId, key: &NodeKey) -> Result<()> {
        match self.by_node_key(key) {
            Some(holder) if holder.id != id => Err(Error::already_exists(Entity::Node, "node_key")
                .with("value", key)
                .with("held_by", holder.id)),
            _ => Ok(()),
        }
    }

    /// Refuses a node that breaks a uniqueness rule beside the others.
    pub(in crate::state) fn check_unique(&self, node: &Node) -> Result<()> {
        let holders = [
            (self.by_machine_key(&node.machine_key), "machine_key"),
            (self.by_node_key(&node.node_key), "node_key"),
            (self.by_label(&node.label), "label"),
        ];
        for (holder, constraint) in holders {
            if let Some(holder) = holder
                && holder.id != node.id
            {
                let value: &dyn std::fmt::Display = match constraint {
                    "machine_key" => &node.machine_key,
                    "node_key" => &node.node_key,
                    _ => &node.label,
                };
                return Err(Error::already_exists(Entity::Node, constraint)
                    .with("value", value)
                    .with("held_by", holder.id));
            }
        }
        Ok(())
    }
}
