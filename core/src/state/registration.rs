//! Registering a node: consume the key, allocate addresses, create or re-key the node.

use std::sync::Arc;

use super::State;
use super::addresses::require_some;
use super::decision::{Context, Decision, Reply, StateChange};
use super::nodes::check_owned;
use super::preauth_keys::check_usable;
use super::routes::electing;
use crate::command::NodeCommand;
use crate::domain::{
    Admission, DnsLabel, HostInfo, Node, NodeId, PreAuthKey, RegisterMethod, Registration,
    Revision, TagSet, UserId, expired,
};
use crate::error::{EntityKind, Error, ErrorKind, Result};

/// What an admission grants.
struct Grant<'a> {
    user: Option<UserId>,
    tags: TagSet,
    ephemeral: bool,
    method: RegisterMethod,
    key: Option<&'a Arc<PreAuthKey>>,
}

pub(super) fn register(
    state: &State,
    id: NodeId,
    registration: &Registration,
    context: &Context<'_>,
) -> Result<Decision> {
    let existing = state.nodes().by_machine_key(&registration.machine_key);
    if let Some(node) = existing
        && is_repetition(node, registration, context)
    {
        return Ok(repeat(state, node, registration, context));
    }
    let grant = grant(state, &registration.admission, context)?;
    let node = match existing {
        Some(old) => rekey(old, registration, &grant, context)?,
        None => admit(state, id, registration, &grant, context)?,
    };
    check_owned(state, &node)?;
    // The machine key and the label were looked up on the way here.
    state.nodes().check_node_key(node.id, &node.node_key)?;
    let id = node.id;
    let user = node.user;
    let mut decision = Decision::put(node)
        .noting(NodeCommand::REGISTER, EntityKind::Node, id)
        .beside(EntityKind::User, user);
    if let Some(key) = grant.key
        && key.used_at.is_none()
    {
        decision.changes.push(first_use(key, context));
    }
    match existing {
        Some(old) if old.expires_at != registration.expires_at => {
            Ok(electing(state, decision, id, context))
        }
        _ => Ok(decision),
    }
}

fn first_use(key: &PreAuthKey, context: &Context<'_>) -> StateChange {
    let used = PreAuthKey {
        used_at: Some(context.now),
        revision: key.revision.next(),
        ..PreAuthKey::clone(key)
    };
    StateChange::Put(used.into())
}

/// A client that starts again, or did not hear the answer, shows the node key that its node has and the
/// pre-auth key that admitted it. It asks for nothing that a key grants, so what became of key, tags and
/// owner since does not matter.
fn is_repetition(node: &Node, registration: &Registration, context: &Context<'_>) -> bool {
    let Admission::PreAuthKey(key) = registration.admission else { return false };
    node.preauth_key == Some(key)
        && node.node_key == registration.node_key
        && !expired(node.expires_at, context.now)
}

/// The node as it is, with what its client says of itself by now. A key that admitted it elsewhere, before
/// both were brought in, may not be marked as used; it is now, or it would admit another machine.
fn repeat(
    state: &State,
    node: &Arc<Node>,
    registration: &Registration,
    context: &Context<'_>,
) -> Decision {
    let mut decision = match brought_up_to_date(node, registration, context) {
        Some(node) => {
            let (id, user) = (node.id, node.user);
            Decision::put(node)
                .noting(NodeCommand::REGISTER, EntityKind::Node, id)
                .beside(EntityKind::User, user)
        }
        None => Decision::unchanged(Reply::Node(node.clone())),
    };
    let key = node.preauth_key.and_then(|key| state.preauth_keys().get(key));
    if let Some(key) = key
        && key.used_at.is_none()
        && key.is_usable(context.now)
    {
        decision.changes.push(first_use(key, context));
        if decision.audit.is_empty() {
            return decision.noting(NodeCommand::REGISTER, EntityKind::Node, node.id);
        }
    }
    decision
}

/// The node with what is its client's to say and is not what it was; `None` if there is nothing. What the
/// client leaves out stays, and so does the expiry, which a repetition could put off for ever.
fn brought_up_to_date(
    old: &Arc<Node>,
    registration: &Registration,
    context: &Context<'_>,
) -> Option<Node> {
    let said = &registration.host_info;
    let host_info = if *said == HostInfo::default() { &old.host_info } else { said };
    let disco_key = registration.disco_key.or(old.disco_key);
    let families = registration.families.unwrap_or(old.families);
    let is_same = registration.hostname == old.hostname
        && *host_info == old.host_info
        && disco_key == old.disco_key
        && families == old.families;
    (!is_same).then(|| Node {
        hostname: registration.hostname.clone(),
        host_info: host_info.clone(),
        disco_key,
        families,
        updated_at: context.now,
        revision: old.revision.next(),
        ..Node::clone(old)
    })
}

fn grant<'s>(state: &'s State, admission: &Admission, context: &Context<'_>) -> Result<Grant<'s>> {
    match admission {
        Admission::PreAuthKey(id) => {
            let key = state.preauth_keys().require(*id)?;
            check_usable(key, context.now)?;
            Ok(Grant {
                user: key.user,
                tags: key.tags.clone(),
                ephemeral: key.ephemeral,
                method: RegisterMethod::AuthKey,
                key: Some(key),
            })
        }
        Admission::User { user, method } => {
            if *method == RegisterMethod::AuthKey {
                return Err(Error::invalid("a user is admitted by `oidc` or `cli`")
                    .about(EntityKind::Node)
                    .with("user", user));
            }
            state.users().require(*user)?;
            Ok(Grant {
                user: Some(*user),
                tags: TagSet::empty(),
                ephemeral: false,
                method: *method,
                key: None,
            })
        }
    }
}

fn admit(
    state: &State,
    id: NodeId,
    registration: &Registration,
    grant: &Grant<'_>,
    context: &Context<'_>,
) -> Result<Node> {
    state.nodes().check_fresh(id)?;
    let mut node = Node {
        id,
        user: grant.user,
        tags: grant.tags.clone(),
        hostname: registration.hostname.clone(),
        label: free_label(state, registration, id)?,
        machine_key: registration.machine_key,
        node_key: registration.node_key,
        disco_key: registration.disco_key,
        ipv4: None,
        ipv6: None,
        host_info: registration.host_info.clone(),
        register_method: grant.method,
        preauth_key: grant.key.map(|key| key.id),
        ephemeral: grant.ephemeral,
        expires_at: registration.expires_at,
        families: registration.families.unwrap_or_default(),
        settings: None,
        created_at: context.now,
        updated_at: context.now,
        revision: Revision::FIRST,
    };
    state.addresses.fill(&mut node, state.settings().network())?;
    require_some(&node)?;
    Ok(node)
}

fn free_label(state: &State, registration: &Registration, id: NodeId) -> Result<DnsLabel> {
    let base = DnsLabel::from_hostname(registration.hostname.as_str());
    base.free_for(id, |label| state.nodes().by_label(label).is_none())
        .ok_or_else(|| Error::already_exists(EntityKind::Node, "label").with("label", base))
}

/// The machine is known: it gets new keys and keeps its id, label and addresses.
fn rekey(
    old: &Arc<Node>,
    registration: &Registration,
    grant: &Grant<'_>,
    context: &Context<'_>,
) -> Result<Node> {
    if old.user != grant.user {
        return Err(Error::already_exists(EntityKind::Node, "machine_key")
            .with("id", old.id)
            .with("help", "the machine belongs to another owner; move or delete its node first"));
    }
    let tags = if grant.tags.is_empty() { old.tags.clone() } else { grant.tags.clone() };
    let ephemeral = if grant.key.is_some() { grant.ephemeral } else { old.ephemeral };
    Ok(Node {
        tags,
        hostname: registration.hostname.clone(),
        node_key: registration.node_key,
        disco_key: registration.disco_key,
        host_info: registration.host_info.clone(),
        register_method: grant.method,
        preauth_key: grant.key.map_or(old.preauth_key, |key| Some(key.id)),
        ephemeral,
        expires_at: registration.expires_at,
        families: registration.families.unwrap_or(old.families),
        updated_at: context.now,
        revision: old.revision.next(),
        ..Node::clone(old)
    })
}

/// Says why a pre-auth key is refused.
pub(super) fn refused(id: impl std::fmt::Display, why: &'static str) -> Error {
    Error::new(ErrorKind::PermissionDenied, why).about(EntityKind::PreAuthKey).with("id", id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::command::PreAuthKeyCommand;
    use crate::state::testing::*;

    #[test]
    fn a_one_time_key_admits_exactly_one_machine() {
        let mut world = World::new();
        let alice = world.user("alice");
        let key = world.preauth_key(alice.id, false);
        let first = world.register_with(key.id, 1).unwrap();
        let error = world.register_with(key.id, 2).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
        assert_eq!(world.state.nodes().len(), 1);
        // The same client, repeating itself, hears the same answer.
        let again = world.register_with(key.id, 1).unwrap();
        assert_eq!(again, first);
    }

    #[test]
    fn a_repetition_takes_what_the_client_says_of_itself() {
        let mut world = World::new();
        let alice = world.user("alice");
        let key = world.preauth_key(alice.id, false);
        let first = world.register_with(key.id, 1).unwrap();
        let again = Registration {
            disco_key: crate::domain::DiscoKey::from_bytes([9; 32]).ok(),
            host_info: r#"{"OS":"linux"}"#.parse().unwrap(),
            expires_at: Some(world.now.saturating_add(std::time::Duration::from_secs(60))),
            ..world.registration(Admission::PreAuthKey(key.id), 1)
        };
        let mut repeat = |registration: &Registration| {
            let (id, registration) = (first.id, Box::new(registration.clone()));
            let reply = world.run(NodeCommand::Register { id, registration }).unwrap();
            let Reply::Node(node) = reply else { panic!() };
            node
        };
        let second = repeat(&again);
        let wanted = Node {
            disco_key: again.disco_key,
            host_info: again.host_info.clone(),
            updated_at: second.updated_at,
            revision: first.revision.next(),
            ..Node::clone(&first)
        };
        assert_eq!(*second, wanted, "and the expiry stays");
        assert_eq!(repeat(&again), second);
        // What is left out is not taken back.
        let bare = Registration { disco_key: None, host_info: HostInfo::default(), ..again };
        assert_eq!(repeat(&bare), second);
    }

    #[test]
    fn a_refused_registration_consumes_nothing() {
        let mut world = World::new();
        let alice = world.user("alice");
        let taken = world.register(alice.id, 1).unwrap();
        let key = world.preauth_key(alice.id, false);
        let mut registration = world.registration(Admission::PreAuthKey(key.id), 2);
        registration.node_key = taken.node_key;
        let id = NodeId::from_bytes(world.id());
        let error = world
            .run(NodeCommand::Register { id, registration: Box::new(registration) })
            .unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::AlreadyExists { constraint: "node_key" });
        assert!(world.state.preauth_keys().get(key.id).unwrap().used_at.is_none());
        assert_eq!(world.state.addresses().len(), 2);
    }

    #[test]
    fn a_known_machine_keeps_its_id_label_and_addresses() {
        let mut world = World::new();
        let alice = world.user("alice");
        let first = world.register(alice.id, 1).unwrap();
        let mut registration = world.registration(world.by(alice.id), 1);
        registration.node_key = node_key(77);
        registration.hostname = "renamed".parse().unwrap();
        let id = NodeId::from_bytes(world.id());
        let Reply::Node(second) =
            world.run(NodeCommand::Register { id, registration: Box::new(registration) }).unwrap()
        else {
            panic!()
        };
        assert_eq!(
            (second.id, &second.label, second.ipv4, second.ipv6),
            (first.id, &first.label, first.ipv4, first.ipv6)
        );
        assert_eq!(second.node_key, node_key(77));
        assert!(world.state.nodes().by_node_key(&first.node_key).is_none());
    }

    #[test]
    fn a_machine_of_another_owner_is_refused() {
        let mut world = World::new();
        let (alice, bob) = (world.user("alice"), world.user("bob"));
        world.register(alice.id, 1).unwrap();
        let error = world.register(bob.id, 1).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::AlreadyExists { constraint: "machine_key" });
    }

    #[test]
    fn addresses_of_deleted_nodes_are_given_again_without_collision() {
        let mut world = World::new();
        let alice = world.user("alice");
        let nodes: Vec<_> = (1..=5).map(|n| world.register(alice.id, n).unwrap()).collect();
        world.run(NodeCommand::Delete { id: nodes.get(1).unwrap().id }).unwrap();
        let sixth = world.register(alice.id, 6).unwrap();
        assert_eq!(sixth.ipv4, nodes.get(1).unwrap().ipv4);
        let seventh = world.register(alice.id, 7).unwrap();
        assert!(nodes.iter().all(|node| node.ipv4 != seventh.ipv4));
        assert_ne!(sixth.ipv4, seventh.ipv4);
    }

    #[test]
    fn labels_stay_unique_when_hostnames_repeat() {
        let mut world = World::new();
        let alice = world.user("alice");
        for n in 1..=20 {
            let mut registration = world.registration(world.by(alice.id), n);
            registration.hostname = "localhost".parse().unwrap();
            let id = NodeId::from_bytes(world.id());
            world.run(NodeCommand::Register { id, registration: Box::new(registration) }).unwrap();
        }
        let labels: std::collections::BTreeSet<_> =
            world.state.nodes().iter().map(|node| node.label.clone()).collect();
        assert_eq!(labels.len(), 20);
    }

    #[test]
    fn a_revoked_or_expired_key_admits_nobody() {
        let mut world = World::new();
        let alice = world.user("alice");
        let key = world.preauth_key(alice.id, true);
        world.register_with(key.id, 1).unwrap();
        world.run(PreAuthKeyCommand::Revoke { id: key.id }).unwrap();
        let error = world.register_with(key.id, 2).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("revoked"));
    }
}
