//! All nodes, and what they are found by.

use std::ops::Bound;
use std::sync::Arc;

use super::places::{Place, Places};
use crate::domain::{DnsLabel, MachineKey, Node, NodeId, NodeKey, Timestamp, UserId};
use crate::error::{Entity, Error, Result};
use crate::state::listing::{behind, owned};
use crate::state::loading::at_once;
use crate::state::unique::UniqueIndex;
use crate::state::{Map, Set};

/// All nodes.
#[derive(Clone, Default, Debug)]
pub struct Nodes {
    places: Places,
    /// In the order of ids, for listings.
    ordered: Map<NodeId, Place>,
    by_id: UniqueIndex<Place>,
    by_machine_key: UniqueIndex<Place>,
    by_node_key: UniqueIndex<Place>,
    by_label: UniqueIndex<Place>,
    by_user: Set<(UserId, NodeId)>,
    by_expiry: Set<(Timestamp, NodeId)>,
    ephemeral: Set<NodeId>,
}

impl Nodes {
    /// The node with this id.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.by_id.find(&id, |place| self.places.get(place).filter(|node| node.id == id))
    }

    fn place_of(&self, id: NodeId) -> Option<Place> {
        let is_there = |place| self.places.get(place).filter(|node| node.id == id).map(|_| place);
        self.by_id.find(&id, is_there)
    }

    /// The node of this machine.
    #[must_use]
    pub fn by_machine_key(&self, key: &MachineKey) -> Option<&Arc<Node>> {
        let held = |place| self.places.get(place).filter(|node| node.machine_key == *key);
        self.by_machine_key.find(key, held)
    }

    /// The node with this WireGuard key.
    #[must_use]
    pub fn by_node_key(&self, key: &NodeKey) -> Option<&Arc<Node>> {
        let held = |place| self.places.get(place).filter(|node| node.node_key == *key);
        self.by_node_key.find(key, held)
    }

    /// The node with this DNS label.
    #[must_use]
    pub fn by_label(&self, label: &DnsLabel) -> Option<&Arc<Node>> {
        let held = |place| self.places.get(place).filter(|node| node.label == *label);
        self.by_label.find(label, held)
    }

    /// The ids of a user's nodes, in the order of creation.
    pub fn of_user(&self, user: UserId) -> impl Iterator<Item = NodeId> + '_ {
        self.of_user_behind(user, None)
    }

    /// A user's nodes behind this one, by id; all of them behind none.
    pub(in crate::state) fn of_user_behind(
        &self,
        user: UserId,
        start: Option<NodeId>,
    ) -> impl Iterator<Item = NodeId> + '_ {
        self.by_user.range(owned(user, start)).map(|(_, node)| *node)
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
        self.by_expiry.range(range).filter_map(|(_, id)| self.get(*id))
    }

    /// All nodes by id, which is the order of creation.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.places.each(self.ordered.values())
    }

    /// The nodes behind this one, by id; all of them behind none.
    pub(in crate::state) fn behind(
        &self,
        start: Option<NodeId>,
    ) -> impl Iterator<Item = &Arc<Node>> {
        self.places.each(self.ordered.range(behind(start.as_ref())).map(|(_, place)| place))
    }

    /// The ephemeral nodes, by id.
    pub(in crate::state) fn ephemeral(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.ephemeral.iter().filter_map(|id| self.get(*id))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ordered.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ordered.is_empty()
    }

    /// These nodes, which are in the order of their ids. Their indexes are built at once, on several
    /// threads.
    pub(in crate::state) fn of(nodes: &[Arc<Node>]) -> Result<Self> {
        let placed = || (0..).zip(nodes);
        let keys = || {
            let machine_keys = placed().map(|(place, node)| (&node.machine_key, place));
            let node_keys = placed().map(|(place, node)| (&node.node_key, place));
            (UniqueIndex::of(machine_keys), UniqueIndex::of(node_keys))
        };
        let names = || {
            let by_id = UniqueIndex::of(placed().map(|(place, node)| (&node.id, place)));
            let by_label = UniqueIndex::of(placed().map(|(place, node)| (&node.label, place)));
            (by_id, by_label)
        };
        let rest = || {
            let mut table = Self::default();
            for node in nodes {
                let place = table.places.insert(node.clone());
                table.ordered.insert(node.id, place);
                table.list(node);
            }
            table
        };
        let (keys, others) = at_once(nodes.len(), keys, || at_once(nodes.len(), names, rest))?;
        let (names, mut table) = others?;
        (table.by_machine_key, table.by_node_key) = keys;
        (table.by_id, table.by_label) = names;
        Ok(table)
    }

    pub(in crate::state) fn put(&mut self, node: Arc<Node>) -> bool {
        let (place, old) = match self.place_of(node.id) {
            Some(place) => (place, self.places.replace(place, node.clone())),
            None => (self.places.insert(node.clone()), None),
        };
        match &old {
            Some(old) => self.unindex(place, old, Some(&node)),
            None => {
                self.ordered.insert(node.id, place);
                self.by_id.insert(&node.id, place);
            }
        }
        if old.as_ref().is_none_or(|old| old.machine_key != node.machine_key) {
            self.by_machine_key.insert(&node.machine_key, place);
        }
        if old.as_ref().is_none_or(|old| old.node_key != node.node_key) {
            self.by_node_key.insert(&node.node_key, place);
        }
        if old.as_ref().is_none_or(|old| old.label != node.label) {
            self.by_label.insert(&node.label, place);
        }
        self.list(&node);
        old.is_some()
    }

    /// Adds what is found by more than one node.
    fn list(&mut self, node: &Node) {
        if let Some(user) = node.user {
            self.by_user.insert((user, node.id));
        }
        if let Some(expires_at) = node.expires_at {
            self.by_expiry.insert((expires_at, node.id));
        }
        if node.ephemeral {
            self.ephemeral.insert(node.id);
        }
    }

    pub(in crate::state) fn remove(&mut self, id: NodeId) {
        if let Some(place) = self.place_of(id)
            && let Some(old) = self.places.remove(place)
        {
            self.ordered.remove(&id);
            self.by_id.remove(&id, place);
            self.unindex(place, &old, None);
        }
    }

    /// Removes the index entries of `old` that `new` does not have.
    fn unindex(&mut self, place: Place, old: &Node, new: Option<&Node>) {
        let gone = |same: fn(&Node, &Node) -> bool| new.is_none_or(|new| !same(old, new));
        if gone(|old, new| old.machine_key == new.machine_key) {
            self.by_machine_key.remove(&old.machine_key, place);
        }
        if gone(|old, new| old.node_key == new.node_key) {
            self.by_node_key.remove(&old.node_key, place);
        }
        if gone(|old, new| old.label == new.label) {
            self.by_label.remove(&old.label, place);
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
