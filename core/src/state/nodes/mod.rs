//! Nodes: keys, labels, owners, expiry.

mod slots;
mod table;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

pub use table::Nodes;

use super::State;
use super::addresses::unconfigured;
use super::decision::{Context, Decision, Draft, EntityId, Reply, check_revision};
use super::listing::Listing;
use super::part::Scales;
use super::registration::register;
use super::routes::{carried_by, elect_primary, electing, served_by};
use crate::command::{NodeCommand, Part};
use crate::domain::{
    DiscoKey, Id, MachineKey, Node, NodeFilter, NodeId, NodeKey, NodePatch, NodeSettings,
    NodeSettingsPatch, Page, PageRequest, Patch, Prefix, Renumbering, Revision, SessionOwner,
    Timestamp, expired, nil_id,
};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, ErrorKind, Result};

impl State {
    /// The node that has this address.
    #[must_use]
    pub fn node_by_address(&self, address: IpAddr) -> Option<&Arc<Node>> {
        self.addresses.holder(address).and_then(|id| self.nodes().get(id))
    }

    /// What leads to a node at `now`, as WireGuard's `AllowedIPs` wants it: no prefix is that of two
    /// nodes. First come its own addresses, as /32 and /128, then by prefix the routes for which it is
    /// primary, as an election at that time would have it. Empty if there is no such node.
    ///
    /// Left out is what another node is primary for, and exit routes: whoever chose the node as its exit
    /// node adds `0.0.0.0/0` and `::/0`.
    #[must_use]
    pub fn allowed_ips(&self, node: NodeId, now: Timestamp) -> Vec<Prefix> {
        let Some(node) = self.nodes().get(node) else { return Vec::new() };
        let own = [node.ipv4.map(IpAddr::V4), node.ipv6.map(IpAddr::V6)].into_iter().flatten();
        // An IPv4-mapped address, which only a restore can have brought in, is no prefix.
        let own = own.filter_map(|address| Prefix::host(address).ok());
        own.chain(served_by(self, node.id, now)).collect()
    }

    /// A page of nodes, by id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn list_nodes(&self, filter: &NodeFilter, page: &PageRequest) -> Result<Page<Arc<Node>>> {
        let listing = Listing::new(EntityKind::Node, filter);
        let start: Option<NodeId> = listing.start(page)?;
        let candidates: Box<dyn Iterator<Item = &Arc<Node>>> = match filter.user {
            Some(user) => {
                let ids = self.nodes().of_user_after(user, start);
                Box::new(ids.filter_map(|id| self.nodes().get(id)))
            }
            None => Box::new(self.nodes().after(start)),
        };
        let matching = candidates.filter(|node| {
            filter.tag.as_ref().is_none_or(|tag| node.tags.contains(tag))
                && filter.ephemeral.is_none_or(|ephemeral| node.ephemeral == ephemeral)
                && filter.online.is_none_or(|online| self.presence().is_online(node.id) == online)
                && filter
                    .expired_at
                    .is_none_or(|(wanted, now)| expired(node.expires_at, now) == wanted)
        });
        Ok(listing.take(page, matching.cloned(), |node| node.id))
    }

    /// The addresses that would not be given out any more, by node: of a family that is not configured or
    /// that the node is limited from, outside the prefix, or reserved. Not those of a node that would be
    /// left with none.
    pub fn unconfigured_addresses(&self) -> impl Iterator<Item = (NodeId, IpAddr)> + '_ {
        let network = self.settings().network();
        self.nodes().iter().flat_map(move |node| {
            unconfigured(node, network).map(move |address| (node.id, address))
        })
    }

    /// The ephemeral nodes that have been offline for at least the configured cutoff.
    pub fn reapable(&self, now: Timestamp) -> impl Iterator<Item = &Arc<Node>> + '_ {
        let cutoff = u64::from(self.settings().network().ephemeral_cutoff_seconds);
        let cutoff = std::time::Duration::from_secs(cutoff);
        self.nodes().ephemeral().filter(move |node| {
            let presence = self.presence().get(node.id);
            let online = presence.is_some_and(|presence| presence.online);
            let absent = presence.and_then(|presence| presence.absent_from());
            !online && now.since(absent.unwrap_or(node.created_at)) >= cutoff
        })
    }
}

impl Rules for Node {
    dates! { events: created_at, updated_at; ends: expires_at }

    /// The key that admitted it need not exist any more, nor need its exit node.
    fn check(&self) -> Result<()> {
        let exit_node = self.settings.as_ref().and_then(|settings| settings.exit_node);
        if self.preauth_key.is_some_and(|key| key.is_nil())
            || exit_node.is_some_and(|id| id.is_nil())
        {
            return Err(nil_id().about(EntityKind::Node));
        }
        if exit_node == Some(self.id) {
            return Err(Error::invalid("a node is not its own exit node")
                .about(EntityKind::Node)
                .with("id", self.id));
        }
        Ok(())
    }

    fn check_beside(&self, state: &State) -> Result<()> {
        check_owned(state, self)?;
        state.nodes().check_unique(self)?;
        for address in [self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6)].into_iter().flatten()
        {
            if let Some(holder) = state.addresses.holder(address) {
                return Err(Error::already_exists(EntityKind::Node, "address")
                    .with("address", address)
                    .with("held_by", holder));
            }
        }
        Ok(())
    }

    fn follow(state: &mut State, old: Option<&Self>, new: Option<&Self>) {
        state.addresses.replace(old, new);
        if let (Some(old), Some(new)) = (old, new)
            && old.expires_at != new.expires_at
        {
            state.tables.routes.expire_all_of(new.id, new.expires_at);
        }
    }
}

pub(crate) fn decide(
    state: &State,
    command: &NodeCommand,
    context: &Context<'_>,
) -> Result<Decision> {
    match command {
        NodeCommand::Register { id, registration } => register(state, *id, registration, context),
        NodeCommand::Update { id, patch, expected } => {
            update(state, *id, patch, *expected, context)
        }
        NodeCommand::UpdateSettings { id, patch, expected } => {
            update_settings(state, *id, patch, *expected, context)
        }
        NodeCommand::RotateKey { machine_key, from, to, disco_key, expires_at } => {
            rotate_key(state, machine_key, from, to, *disco_key, *expires_at, context)
        }
        NodeCommand::Expire { nodes, at, part } => expire(state, nodes, *at, *part, context),
        NodeCommand::Delete { id } => {
            let user = state.nodes().require(*id)?.user;
            let mut draft = Draft::of(state);
            delete(&mut draft, *id, context.now);
            let decision = draft.finish(Reply::Done);
            Ok(decision
                .noting(NodeCommand::DELETE, EntityKind::Node, id)
                .beside(EntityKind::User, user))
        }
        NodeCommand::ReapEphemeral { part } => Ok(reap(state, *part, context)),
        NodeCommand::BackfillAddresses { release, part } => {
            backfill(state, *release, *part, context)
        }
        NodeCommand::Renumber { id, addresses, expected } => {
            renumber(state, *id, *addresses, *expected, context)
        }
    }
}

fn update(
    state: &State,
    id: NodeId,
    patch: &NodePatch,
    expected: Option<Revision>,
    context: &Context<'_>,
) -> Result<Decision> {
    let old = state.nodes().require(id)?;
    check_revision(EntityKind::Node, id, old.revision, expected)?;
    let mut node = Node::clone(old);
    let mut changed = patch.label.apply(&mut node.label);
    changed |= patch.hostname.apply(&mut node.hostname);
    changed |= patch.tags.apply(&mut node.tags);
    changed |= patch.user.apply(&mut node.user);
    changed |= patch.host_info.apply(&mut node.host_info);
    changed |= patch.disco_key.apply(&mut node.disco_key);
    changed |= patch.expires_at.apply(&mut node.expires_at);
    changed |= patch.families.apply(&mut node.families);
    if !changed {
        return Ok(Decision::unchanged(Reply::Node(old.clone())));
    }
    check_owned(state, &node)?;
    state.nodes().check_unique(&node)?;
    node.revision = old.revision.next();
    node.updated_at = context.now;
    Ok(replacing(state, old, node, NodeCommand::UPDATE, context))
}

/// The settings count their changes by themselves, so that other changes of the node, which its client
/// makes, are no conflict. Once there, they stay, and so does their count.
fn update_settings(
    state: &State,
    id: NodeId,
    patch: &NodeSettingsPatch,
    expected: Option<Revision>,
    context: &Context<'_>,
) -> Result<Decision> {
    let old = state.nodes().require(id)?;
    match (&old.settings, expected) {
        (Some(settings), _) => check_revision(EntityKind::Node, id, settings.revision, expected)?,
        (None, Some(expected)) => {
            let message = "has no settings of its own, so they have no revision yet";
            return Err(Error::new(ErrorKind::Conflict, message)
                .about(EntityKind::Node)
                .with("id", id)
                .with("expected_revision", expected));
        }
        (None, None) => {}
    }
    if let Patch::Set(exit_node) = patch.exit_node {
        state.nodes().require(exit_node)?;
    }
    let (mut settings, revision) = match &old.settings {
        Some(settings) => (NodeSettings::clone(settings), settings.revision.next()),
        None => (NodeSettings::unset(), Revision::FIRST),
    };
    if !patch.apply(&mut settings) {
        return Ok(Decision::unchanged(Reply::Node(old.clone())));
    }
    settings.revision = revision;
    let node = Node {
        settings: Some(settings.into()),
        revision: old.revision.next(),
        updated_at: context.now,
        ..Node::clone(old)
    };
    Ok(Decision::put(node).noting(NodeCommand::UPDATE_SETTINGS, EntityKind::Node, id))
}

/// A node with what changed of it. Another expiry decides about primaries, too.
fn replacing(
    state: &State,
    old: &Node,
    new: Node,
    action: &'static str,
    context: &Context<'_>,
) -> Decision {
    let (id, expires_anew) = (old.id, new.expires_at != old.expires_at);
    let decision = Decision::put(new).noting(action, EntityKind::Node, id);
    if expires_anew { electing(state, decision, id, context) } else { decision }
}

/// A node has an owner that exists, or tags.
pub(super) fn check_owned(state: &State, node: &Node) -> Result<()> {
    match node.user {
        Some(user) => state.users().require(user).map(|_| ()),
        None if node.tags.is_empty() => {
            Err(Error::invalid("a node needs a user or at least one tag")
                .about(EntityKind::Node)
                .with("id", node.id))
        }
        None => Ok(()),
    }
}

fn rotate_key(
    state: &State,
    machine_key: &MachineKey,
    from: &NodeKey,
    to: &NodeKey,
    disco_key: Option<DiscoKey>,
    expires_at: Option<Timestamp>,
    context: &Context<'_>,
) -> Result<Decision> {
    let old = state
        .nodes()
        .by_machine_key(machine_key)
        .ok_or_else(|| Error::not_found(EntityKind::Node, machine_key))?;
    if old.node_key == *to && old.disco_key == disco_key && old.expires_at == expires_at {
        return Ok(Decision::unchanged(Reply::Node(old.clone())));
    }
    if old.node_key != *from {
        let message = "has another node key than the one to rotate from";
        return Err(Error::new(ErrorKind::Conflict, message)
            .about(EntityKind::Node)
            .with("id", old.id)
            .with("node_key", old.node_key));
    }
    if expired(old.expires_at, context.now) {
        let message = "has an expired key; it must register again";
        return Err(Error::new(ErrorKind::PermissionDenied, message)
            .about(EntityKind::Node)
            .with("id", old.id));
    }
    let node = Node {
        node_key: *to,
        disco_key,
        expires_at,
        updated_at: context.now,
        revision: old.revision.next(),
        ..Node::clone(old)
    };
    state.nodes().check_unique(&node)?;
    Ok(replacing(state, old, node, NodeCommand::ROTATE_KEY, context))
}

/// That all of them exist is made sure of at the beginning. One that is gone when its part comes has
/// gone since.
fn expire(
    state: &State,
    ids: &[NodeId],
    at: Timestamp,
    part: Part,
    context: &Context<'_>,
) -> Result<Decision> {
    if part.after.is_none() {
        ids.iter().try_for_each(|id| state.nodes().require(*id).map(|_| ()))?;
    }
    let ids: BTreeSet<_> = ids.iter().copied().filter(|id| Some(*id) > part.after).collect();
    let mut draft = Draft::of(state);
    let mut scales = Scales::of(part);
    let (mut expired, mut last, mut ended) = (Vec::new(), part.after, None);
    let mut prefixes = BTreeSet::new();
    for old in ids.into_iter().filter_map(|id| state.nodes().get(id)) {
        if scales.are_full() {
            ended = Some(last);
            break;
        }
        last = Some(old.id);
        if old.expires_at == Some(at) {
            continue;
        }
        draft.put(Node {
            expires_at: Some(at),
            updated_at: context.now,
            revision: old.revision.next(),
            ..Node::clone(old)
        });
        scales.weigh(&draft);
        scales.line();
        expired.push(old.id);
        for prefix in carried_by(state, old.id) {
            if prefixes.insert(prefix) {
                scales.handover();
            }
        }
    }
    // Not before all of them have the new expiry: none is to take over from another.
    for prefix in prefixes {
        elect_primary(&mut draft, prefix, context.now);
    }
    let decision = draft.finish(Reply::Count(expired.len() as u64).of_part(ended));
    Ok(noting_each(decision, NodeCommand::EXPIRE, &expired))
}

fn reap(state: &State, part: Part, context: &Context<'_>) -> Decision {
    let mut draft = Draft::of(state);
    let mut scales = Scales::of(part);
    let (mut reaped, mut ended) = (Vec::new(), None);
    for node in state.reapable(context.now).filter(|node| Some(node.id) > part.after) {
        if scales.are_full() {
            ended = Some(reaped.last().copied());
            break;
        }
        delete(&mut draft, node.id, context.now);
        scales.weigh(&draft);
        scales.line();
        reaped.push(node.id);
    }
    let decision = draft.finish(Reply::Nodes(reaped.clone()).of_part(ended));
    noting_each(decision, NodeCommand::REAP, &reaped)
}

/// That the addresses suffice for all is made sure of at the beginning.
fn backfill(state: &State, release: bool, part: Part, context: &Context<'_>) -> Result<Decision> {
    let network = state.settings().network();
    // Nodes that lack an address, or have one to give back, without that.
    let to_fill = |old: &Arc<Node>| {
        let (mut ipv4, mut ipv6) = (old.ipv4, old.ipv6);
        for address in unconfigured(old, network).filter(|_| release) {
            match address {
                IpAddr::V4(_) => ipv4 = None,
                IpAddr::V6(_) => ipv6 = None,
            }
        }
        let lacks = (network.ipv4.is_some() && ipv4.is_none() && old.families.has_ipv4())
            || (network.ipv6.is_some() && ipv6.is_none() && old.families.has_ipv6());
        let changes = lacks || (ipv4, ipv6) != (old.ipv4, old.ipv6);
        changes.then(|| (old.clone(), Node { ipv4, ipv6, ..Node::clone(old) }))
    };
    let mut draft = Draft::of(state);
    let mut scales = Scales::of(part);
    let mut filled = Vec::new();
    let mut lacking = state.nodes().after(part.after).filter_map(to_fill);
    for (old, mut node) in lacking.by_ref() {
        draft.state.addresses.fill(&mut node, network)?;
        node.revision = old.revision.next();
        node.updated_at = context.now;
        filled.push(node.id);
        draft.put(node);
        scales.weigh(&draft);
        scales.line();
        if scales.are_full() {
            break;
        }
    }
    let mut ended = None;
    if let Some(next) = lacking.next() {
        ended = Some(filled.last().copied());
        let mut addresses = draft.state.addresses.clone();
        let rest = std::iter::once(next).chain(lacking).filter(|_| part.after.is_none());
        for (old, mut node) in rest {
            addresses.fill(&mut node, network)?;
            addresses.replace(Some(&old), Some(&node));
        }
    }
    let decision = draft.finish(Reply::Nodes(filled.clone()).of_part(ended));
    Ok(noting_each(decision, NodeCommand::BACKFILL_ADDRESSES, &filled))
}

fn renumber(
    state: &State,
    id: NodeId,
    addresses: Renumbering,
    expected: Option<Revision>,
    context: &Context<'_>,
) -> Result<Decision> {
    let old = state.nodes().require(id)?;
    check_revision(EntityKind::Node, id, old.revision, expected)?;
    let mut node = Node::clone(old);
    state.addresses.renumber(&mut node, addresses, state.settings().network())?;
    if (node.ipv4, node.ipv6) == (old.ipv4, old.ipv6) {
        return Ok(Decision::unchanged(Reply::Node(old.clone())));
    }
    node.revision = old.revision.next();
    node.updated_at = context.now;
    Ok(Decision::put(node).noting(NodeCommand::RENUMBER, EntityKind::Node, id))
}

fn noting_each(decision: Decision, action: &'static str, nodes: &[NodeId]) -> Decision {
    nodes.iter().fold(decision, |decision, id| decision.noting(action, EntityKind::Node, id))
}

/// Deletes a node with its routes, its presence and its sessions.
pub(super) fn delete(draft: &mut Draft, id: NodeId, now: Timestamp) {
    let routes: Vec<_> = draft.state.routes().of_node(id).cloned().collect();
    let sessions: Vec<_> = draft.state.sessions().of_owner(SessionOwner::Node(id)).collect();
    for session in sessions {
        draft.delete(EntityId::Session(session));
    }
    if draft.state.presence().get(id).is_some() {
        draft.delete(EntityId::Presence(id));
    }
    for route in &routes {
        draft.delete(EntityId::Route(route.id));
    }
    draft.delete(EntityId::Node(id));
    for route in routes.iter().filter(|route| route.carries_traffic()) {
        elect_primary(draft, route.prefix, now);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::command::SettingCommand;
    use crate::domain::{Limit, NetworkSettings, NewAddress, SettingDocument};
    use crate::state::testing::*;

    fn rotate(node: &Node, to: NodeKey) -> NodeCommand {
        NodeCommand::RotateKey {
            machine_key: node.machine_key,
            from: node.node_key,
            to,
            disco_key: None,
            expires_at: None,
        }
    }

    #[test]
    fn a_key_is_rotated_once_and_from_the_key_that_is_known() {
        let mut world = World::new();
        let alice = world.user("alice");
        let (node, other) =
            (world.register(alice.id, 1).unwrap(), world.register(alice.id, 2).unwrap());
        let error = world.run(rotate(&node, other.node_key)).unwrap_err();
        assert_eq!(error.constraint(), Some("node_key"));
        world.run(rotate(&node, node_key(9))).unwrap();
        assert!(world.state.nodes().by_node_key(&node.node_key).is_none());
        // A repetition changes nothing; from a key that is no longer known it is a conflict.
        world.run(rotate(&node, node_key(9))).unwrap();
        assert_eq!(world.state.nodes().get(node.id).unwrap().revision.get(), 2);
        let error = world.run(rotate(&node, node_key(10))).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Conflict);
    }

    #[test]
    fn expiring_is_for_all_of_the_nodes_or_none() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap();
        let gone = NodeId::from_bytes(world.id());
        let at = world.now;
        let error = world
            .run(NodeCommand::Expire { nodes: vec![node.id, gone], at, part: Part::WHOLE })
            .unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound);
        assert_eq!(world.state.nodes().get(node.id).unwrap().expires_at, None);
        let expire = NodeCommand::Expire { nodes: vec![node.id, node.id], at, part: Part::WHOLE };
        assert_eq!(world.run(expire).unwrap(), Reply::Count(1));
        let before = at.saturating_sub(std::time::Duration::from_micros(1));
        assert_eq!(world.state.nodes().expiring(before, at).count(), 1);
        assert_eq!(world.state.nodes().expiring(at, at).count(), 0);
        let error = world.run(rotate(&node, node_key(9))).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn addresses_that_are_no_longer_configured_are_released_when_asked() {
        let mut world = World::new();
        let alice = world.user("alice");
        let nodes = [1, 2, 3].map(|number| world.register(alice.id, number).unwrap());
        let put = |world: &mut World, ipv4: &str| {
            let network = NetworkSettings {
                ipv4: ipv4.parse().ok(),
                ipv6: None,
                reserved: vec![],
                ..NetworkSettings::default()
            };
            let document = SettingDocument::Network(network);
            world.run(SettingCommand::Put { document, expected: None }).unwrap();
        };
        let backfill = |release| NodeCommand::BackfillAddresses { release, part: Part::WHOLE };
        let listed = |world: &World| world.state.unconfigured_addresses().count();
        assert_eq!(listed(&world), 0);
        put(&mut world, "10.1.0.0/24");
        assert_eq!(listed(&world), 6);
        // Not unasked.
        assert_eq!(world.run(backfill(false)).unwrap(), Reply::Nodes(vec![]));
        let ids: Vec<_> = nodes.iter().map(|node| node.id).collect();
        assert_eq!(world.run(backfill(true)).unwrap(), Reply::Nodes(ids));
        assert_eq!(listed(&world), 0);
        for (last, node) in (1..).zip(&nodes) {
            let found = world.state.nodes().get(node.id).unwrap();
            assert_eq!((found.ipv4, found.ipv6), (Some([10, 1, 0, last].into()), None));
            assert!(world.state.node_by_address(node.ipv4.unwrap().into()).is_none());
        }
        assert_eq!(world.state.addresses().len(), 3);
        assert_eq!(world.run(backfill(true)).unwrap(), Reply::Nodes(vec![]));
        // Too few: none changes.
        put(&mut world, "10.2.0.0/31");
        let error = world.run(backfill(true)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Exhausted);
        assert_eq!(listed(&world), 3);
    }

    #[test]
    fn a_node_is_renumbered_within_the_network_only() {
        let mut world = World::new();
        let alice = world.user("alice");
        let (one, two) =
            (world.register(alice.id, 1).unwrap(), world.register(alice.id, 2).unwrap());
        let renumber =
            |addresses, expected| NodeCommand::Renumber { id: one.id, addresses, expected };
        let four = |address: &str| Renumbering {
            ipv4: NewAddress::Given(address.parse().unwrap()),
            ..Renumbering::default()
        };
        world.run(renumber(Renumbering::BOTH, Some(one.revision))).unwrap();
        let found = world.state.nodes().get(one.id).unwrap().clone();
        assert_eq!(found.ipv4, "100.64.0.3".parse().ok());
        assert_eq!(found.ipv6, "fd7a:115c:a1e0::3".parse().ok());
        assert_eq!(found.revision.get(), 2);
        // Its former ones are free.
        world.run(renumber(four("100.64.0.1"), None)).unwrap();
        let found = world.state.nodes().get(one.id).unwrap().clone();
        assert_eq!((found.ipv4, found.revision.get()), ("100.64.0.1".parse().ok(), 3));
        let error = world.run(renumber(four("100.64.0.9"), Some(one.revision))).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Conflict);
        for bad in ["100.64.0.0", "100.127.255.255", "100.100.100.100", "10.0.0.1"] {
            let error = world.run(renumber(four(bad), None)).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{bad}");
        }
        let error = world.run(renumber(four(&two.ipv4.unwrap().to_string()), None)).unwrap_err();
        assert_eq!(error.constraint(), Some("address"));
        for idle in [Renumbering::default(), four("100.64.0.1")] {
            world.run(renumber(idle, None)).unwrap();
            assert_eq!(world.state.nodes().get(one.id), Some(&found));
        }
    }

    #[test]
    fn backfilling_gives_what_is_missing_or_nothing_at_all() {
        let mut world = World::new();
        let alice = world.user("alice");
        let network = |ipv6: Option<&str>| {
            SettingDocument::Network(NetworkSettings {
                ipv6: ipv6.map(|prefix| prefix.parse().unwrap()),
                ..NetworkSettings::default()
            })
        };
        let put = |document| SettingCommand::Put { document, expected: None };
        let backfill = || NodeCommand::BackfillAddresses { release: false, part: Part::WHOLE };
        world.run(put(network(None))).unwrap();
        let nodes: Vec<_> = (1..=3).map(|n| world.register(alice.id, n).unwrap()).collect();
        assert!(nodes.iter().all(|node| node.ipv6.is_none()));
        // Two addresses are too few for three nodes.
        world.run(put(network(Some("fd00::/127")))).unwrap();
        let error = world.run(backfill()).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Exhausted);
        assert!(world.state.nodes().iter().all(|node| node.ipv6.is_none()));
        world.run(put(network(Some("fd00::/64")))).unwrap();
        let ids: Vec<_> = nodes.iter().map(|node| node.id).collect();
        assert_eq!(world.run(backfill()).unwrap(), Reply::Nodes(ids));
        for (node, old) in world.state.nodes().iter().zip(&nodes) {
            assert!(node.ipv6.is_some());
            assert_eq!(node.ipv4, old.ipv4);
        }
        assert_eq!(world.run(backfill()).unwrap(), Reply::Nodes(vec![]));
    }

    #[test]
    fn a_node_keeps_an_owner_or_tags() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap();
        let update =
            |patch| NodeCommand::Update { id: node.id, patch: Box::new(patch), expected: None };
        let disowned = NodePatch { user: Patch::Clear, ..NodePatch::default() };
        let error = world.run(update(disowned.clone())).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
        let tagged =
            NodePatch { tags: crate::domain::Update::Set(tags(&["tag:server"])), ..disowned };
        world.run(update(tagged)).unwrap();
        assert_eq!(world.state.nodes().of_user(alice.id).count(), 0);
    }

    #[test]
    fn pages_neither_repeat_nor_skip_while_nodes_come_and_go() {
        let mut world = World::new();
        let alice = world.user("alice");
        for n in 1..=20 {
            world.register(alice.id, n).unwrap();
        }
        let all: Vec<_> = world.state.nodes().iter().map(|node| node.id).collect();
        let filter = NodeFilter { user: Some(alice.id), ..NodeFilter::default() };
        let mut page = PageRequest::first(Limit::new(7).unwrap());
        let mut seen = Vec::new();
        for round in 0.. {
            let part = world.state.list_nodes(&filter, &page).unwrap();
            seen.extend(part.items.iter().map(|node| node.id));
            let Some(cursor) = part.next else { break };
            let other = world.state.list_nodes(
                &NodeFilter::default(),
                &PageRequest::after(page.limit, cursor.clone()),
            );
            assert_eq!(*other.unwrap_err().kind(), ErrorKind::InvalidArgument);
            page = PageRequest::after(page.limit, cursor);
            // The last one seen goes, and a new one comes after all others.
            world.run(NodeCommand::Delete { id: *seen.last().unwrap() }).unwrap();
            world.register(alice.id, 100 + round).unwrap();
        }
        assert_eq!(seen.get(..20), Some(all.as_slice()));
        // Those that came while the pages were read are at the end.
        assert_eq!(seen.len(), 23);
    }
}
