//! All nodes, and what they are found by.

use std::ops::Bound;
use std::sync::Arc;

use super::slots::{Slot, Slots};
use crate::domain::{DnsLabel, MachineKey, Node, NodeId, NodeKey, Timestamp, UserId};
use crate::error::{EntityKind, Error, Result};
use crate::state::collection::update_set;
use crate::state::listing::{after, owned};
use crate::state::loading::at_once;
use crate::state::unique::UniqueIndex;
use crate::state::{Map, Set};

/// All nodes.
#[derive(Clone, Default, Debug)]
pub struct Nodes {
    slots: Slots,
    /// In the order of ids, for listings.
    ordered: Map<NodeId, Slot>,
    by_id: UniqueIndex<Slot>,
    by_machine_key: UniqueIndex<Slot>,
    by_node_key: UniqueIndex<Slot>,
    by_label: UniqueIndex<Slot>,
    by_user: Set<(UserId, NodeId)>,
    by_expiry: Set<(Timestamp, NodeId)>,
    ephemeral: Set<NodeId>,
}

impl Nodes {
    /// The node with this id.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.by_id.find(&id, |slot| self.slots.get(slot).filter(|node| node.id == id))
    }

    fn slot_of(&self, id: NodeId) -> Option<Slot> {
        let is_there = |slot| self.slots.get(slot).filter(|node| node.id == id).map(|_| slot);
        self.by_id.find(&id, is_there)
    }

    /// The node of this machine.
    #[must_use]
    pub fn by_machine_key(&self, key: &MachineKey) -> Option<&Arc<Node>> {
        let held = |slot| self.slots.get(slot).filter(|node| node.machine_key == *key);
        self.by_machine_key.find(key, held)
    }

    /// The node with this WireGuard key.
    #[must_use]
    pub fn by_node_key(&self, key: &NodeKey) -> Option<&Arc<Node>> {
        let held = |slot| self.slots.get(slot).filter(|node| node.node_key == *key);
        self.by_node_key.find(key, held)
    }

    /// The node with this DNS label.
    #[must_use]
    pub fn by_label(&self, label: &DnsLabel) -> Option<&Arc<Node>> {
        let held = |slot| self.slots.get(slot).filter(|node| node.label == *label);
        self.by_label.find(label, held)
    }

    /// The ids of a user's nodes, in the order of creation.
    pub fn of_user(&self, user: UserId) -> impl Iterator<Item = NodeId> + '_ {
        self.of_user_after(user, None)
    }

    /// A user's nodes after this one, by id; all of them after none.
    pub(in crate::state) fn of_user_after(
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
        self.slots.each(self.ordered.values())
    }

    /// The nodes after this one, by id; all of them after none.
    pub(crate) fn after(&self, start: Option<NodeId>) -> impl Iterator<Item = &Arc<Node>> {
        self.slots.each(self.ordered.range(after(start.as_ref())).map(|(_, slot)| slot))
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
        let numbered = || (0..).zip(nodes);
        let keys = || {
            let machine_keys = numbered().map(|(slot, node)| (&node.machine_key, slot));
            let node_keys = numbered().map(|(slot, node)| (&node.node_key, slot));
            (UniqueIndex::of(machine_keys), UniqueIndex::of(node_keys))
        };
        let names = || {
            let by_id = UniqueIndex::of(numbered().map(|(slot, node)| (&node.id, slot)));
            let by_label = UniqueIndex::of(numbered().map(|(slot, node)| (&node.label, slot)));
            (by_id, by_label)
        };
        let rest = || {
            let mut table = Self::default();
            for node in nodes {
                let slot = table.slots.insert(node.clone());
                table.ordered.insert(node.id, slot);
                table.update_sets(None, Some(node));
            }
            table
        };
        let (keys, others) = at_once(nodes.len(), keys, || at_once(nodes.len(), names, rest))?;
        let (names, mut table) = others?;
        (table.by_machine_key, table.by_node_key) = keys;
        (table.by_id, table.by_label) = names;
        Ok(table)
    }

    /// The node with this id, or `NotFound`.
    pub(in crate::state) fn require(&self, id: NodeId) -> Result<&Arc<Node>> {
        self.get(id).ok_or_else(|| Error::not_found(EntityKind::Node, id))
    }

    /// Refuses an id that is taken.
    pub(in crate::state) fn check_fresh(&self, id: NodeId) -> Result<()> {
        match self.get(id) {
            Some(_) => Err(Error::already_exists(EntityKind::Node, "id").with("id", id)),
            None => Ok(()),
        }
    }

    /// Puts a node in. Gives the one that it replaces.
    pub(crate) fn put(&mut self, node: Arc<Node>) -> Option<Arc<Node>> {
        let (slot, old) = match self.slot_of(node.id) {
            Some(slot) => (slot, self.slots.replace(slot, node.clone())),
            None => (self.slots.insert(node.clone()), None),
        };
        if old.is_none() {
            self.ordered.insert(node.id, slot);
            self.by_id.insert(&node.id, slot);
        }
        self.update_unique(slot, old.as_deref(), Some(&node));
        self.update_sets(old.as_deref(), Some(&node));
        old
    }

    /// Takes a node out.
    pub(crate) fn remove(&mut self, id: NodeId) -> Option<Arc<Node>> {
        let slot = self.slot_of(id)?;
        let old = self.slots.remove(slot)?;
        self.ordered.remove(&id);
        self.by_id.remove(&id, slot);
        self.update_unique(slot, Some(&old), None);
        self.update_sets(Some(&old), None);
        Some(old)
    }

    /// Brings up to date what finds at most one node.
    fn update_unique(&mut self, slot: Slot, old: Option<&Node>, new: Option<&Node>) {
        let machine_keys = (old.map(|node| &node.machine_key), new.map(|node| &node.machine_key));
        self.by_machine_key.update(slot, machine_keys.0, machine_keys.1);
        let node_keys = (old.map(|node| &node.node_key), new.map(|node| &node.node_key));
        self.by_node_key.update(slot, node_keys.0, node_keys.1);
        self.by_label.update(slot, old.map(|node| &node.label), new.map(|node| &node.label));
    }

    /// Brings up to date what finds more than one.
    fn update_sets(&mut self, old: Option<&Node>, new: Option<&Node>) {
        let of = |node: &Node| Some((node.user?, node.id));
        update_set(&mut self.by_user, old.and_then(of), new.and_then(of));
        let ends = |node: &Node| Some((node.expires_at?, node.id));
        update_set(&mut self.by_expiry, old.and_then(ends), new.and_then(ends));
        let ephemeral = |node: &Node| node.ephemeral.then_some(node.id);
        update_set(&mut self.ephemeral, old.and_then(ephemeral), new.and_then(ephemeral));
    }

    /// Refuses a node key that another node has.
    pub(in crate::state) fn check_node_key(&self, id: NodeId, key: &NodeKey) -> Result<()> {
        match self.by_node_key(key) {
            Some(holder) if holder.id != id => {
                Err(Error::already_exists(EntityKind::Node, "node_key")
                    .with("value", key)
                    .with("held_by", holder.id))
            }
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
                return Err(Error::already_exists(EntityKind::Node, constraint)
                    .with("value", value)
                    .with("held_by", holder.id));
            }
        }
        Ok(())
    }
}
