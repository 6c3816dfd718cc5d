//! A state that is built from its rows, each of which is there once.

use std::collections::HashMap;
use std::sync::Arc;

use super::routes::learn_expiry;
use super::{Addresses, Nodes, State, StateChange};
use crate::block::RowChange;
use crate::command::EntityRecord;
use crate::domain::Node;
use crate::error::{Error, ErrorKind, Result};
use crate::schema::{Record, RowKey, Table};
use crate::threads::{STACK, no_thread};

/// Rows as they are read. Nothing is built before all are there: rows of two moments would break what
/// finds entities by unique values, and of nodes, of which there may be a million, sorting once takes
/// a fraction of the time of as many insertions.
#[derive(Default)]
pub(crate) struct Loading {
    nodes: Vec<Arc<Node>>,
    others: Vec<EntityRecord>,
}

impl Loading {
    pub(crate) fn add(&mut self, image: EntityRecord) {
        match image {
            EntityRecord::Node(node) => self.nodes.push(node),
            other => self.others.push(other),
        }
    }

    /// Adds those that blocks put in, and that were not among the rows.
    pub(crate) fn add_images(&mut self, images: HashMap<(Table, RowKey), RowChange>) -> Result<()> {
        let mut images: Vec<RowChange> = images.into_values().collect();
        images.sort_unstable_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        for change in &images {
            if let Some(body) = &change.body {
                self.add(EntityRecord::decode(change.table, &change.key, body)?);
            }
        }
        Ok(())
    }

    /// Puts later images in the place of what was added.
    pub(crate) fn replace(&mut self, images: HashMap<(Table, RowKey), RowChange>) -> Result<()> {
        let is_old = |table, key| images.contains_key(&(table, key));
        self.nodes.retain(|node| !is_old(Table::Nodes, node.key()));
        self.others.retain(|other| !is_old(other.table(), other.key()));
        self.add_images(images)
    }

    /// The state with all rows that were added.
    pub(crate) fn finish(self) -> Result<State> {
        let Self { mut nodes, others } = self;
        let mut state = State::default();
        for other in others {
            state.evolve(StateChange::Put(other));
        }
        // Mostly they are: rows are read in the order of their keys.
        nodes.sort_by_key(|node| node.id);
        let twice = nodes.windows(2).find_map(|pair| match pair {
            [one, other] if one.id == other.id => Some(one.id),
            _ => None,
        });
        if let Some(id) = twice {
            return Err(Error::corrupt("a node is stored twice; restore the store from a backup")
                .with("id", id));
        }
        let addresses = || {
            let mut addresses = Addresses::default();
            nodes.iter().for_each(|node| addresses.replace(None, Some(node)));
            addresses
        };
        let (addresses, found) = at_once(nodes.len(), addresses, || Nodes::of(&nodes))?;
        (state.addresses, state.tables.nodes) = (addresses, found?);
        let primaries = state.tables.routes.carrying().filter(|route| route.primary);
        for primary in primaries.cloned().collect::<Vec<_>>() {
            learn_expiry(&mut state, &primary);
        }
        Ok(state)
    }
}

/// Does one thing on a thread of its own while this one does the other, if there are so many nodes
/// that it pays.
pub(super) fn at_once<A: Send, B>(
    nodes: usize,
    aside: impl FnOnce() -> A + Send,
    here: impl FnOnce() -> B,
) -> Result<(A, B)> {
    const MANY: usize = 4096;
    if nodes < MANY {
        return Ok((aside(), here()));
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let aside = thread.spawn_scoped(scope, aside).map_err(no_thread)?;
        let here = here();
        let stopped = |_| Error::new(ErrorKind::Unexpected, "building the indexes stopped");
        Ok((aside.join().map_err(stopped)?, here))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{NodeCommand, Part};
    use crate::domain::Timestamp;
    use crate::state::testing::*;

    #[test]
    fn a_node_that_is_there_twice_is_damage() {
        let mut world = World::new();
        let alice = world.user("alice").id;
        let node = world.register(alice, 1).unwrap();
        let mut loading = Loading::default();
        world.state.images().for_each(|image| loading.add(image));
        loading.add(EntityRecord::Node(node.clone()));
        let error = loading.finish().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(&node.id.to_string()), "{error}");
    }

    #[test]
    fn threads_are_for_many() {
        let here = std::thread::current().id();
        let aside = |nodes| {
            let (aside, this) = at_once(nodes, || std::thread::current().id(), || here).unwrap();
            (aside == here, this == here)
        };
        assert_eq!((aside(0), aside(100_000)), ((true, true), (false, true)));
    }

    #[test]
    fn what_is_loaded_answers_like_what_came_about_change_by_change() {
        let mut world = World::new();
        let users = [world.user("alice").id, world.user("bob").id];
        let key = world.ephemeral_key(users[0]);
        let mut nodes = Vec::new();
        for n in 1..=250 {
            nodes.push(match n % 50 {
                0 => world.register_with(key.id, n).unwrap(),
                _ => world.register(users[usize::from(n % 2)], n).unwrap(),
            });
        }
        let at = world.now.saturating_add(Duration::from_secs(60));
        let expiring = nodes.iter().step_by(7).map(|node| node.id).collect();
        world.run(NodeCommand::Expire { nodes: expiring, at, part: Part::WHOLE }).unwrap();
        for node in nodes.iter().step_by(5) {
            world.run(NodeCommand::Delete { id: node.id }).unwrap();
        }
        let mut loading = Loading::default();
        world.state.images().for_each(|image| loading.add(image));
        let mut loaded = loading.finish().unwrap();

        let network = world.state.settings().network().clone();
        // They also agree after more changes.
        for round in 0..2 {
            let state = &world.state;
            let ids = |nodes: Vec<&Arc<Node>>| nodes.iter().map(|node| node.id).collect::<Vec<_>>();
            for node in &nodes {
                let answers = |state: &State| {
                    let nodes = state.nodes();
                    let holder = |address: Option<std::net::IpAddr>| {
                        address.and_then(|address| state.addresses().holder(address))
                    };
                    (
                        nodes.get(node.id).cloned(),
                        nodes.by_machine_key(&node.machine_key).map(|node| node.id),
                        nodes.by_node_key(&node.node_key).map(|node| node.id),
                        nodes.by_label(&node.label).map(|node| node.id),
                        holder(node.ipv4.map(Into::into)),
                        holder(node.ipv6.map(Into::into)),
                    )
                };
                assert_eq!(answers(&loaded), answers(state));
            }
            for user in users {
                assert!(loaded.nodes().of_user(user).eq(state.nodes().of_user(user)));
            }
            let expiring =
                |state: &State| ids(state.nodes().expiring(Timestamp::EPOCH, at).collect());
            assert_eq!(expiring(&loaded), expiring(state));
            assert!(!expiring(state).is_empty() || round == 1);
            let reapable = |state: &State| ids(state.reapable(Timestamp::MAX).collect());
            assert_eq!(reapable(&loaded), reapable(state));
            assert_eq!(loaded.addresses().len(), state.addresses().len());
            let free = |state: &State| {
                network.ipv4.and_then(|prefix| state.addresses().lowest_free(prefix, &[]))
            };
            assert_eq!(free(&loaded), free(state));

            let rest: Vec<_> = state.nodes().iter().map(|node| node.id).collect();
            for id in rest.into_iter().step_by(2) {
                let delete = || StateChange::Delete(crate::state::EntityId::Node(id));
                loaded.evolve(delete());
                world.state.evolve(delete());
            }
        }
    }
}
