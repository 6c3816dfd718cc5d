//! Commands over many entities, of which each part is a commit.

use bytes::BytesMut;

use smallvec::SmallVec;

use super::decision::{Changes, Decision, Draft, EntityId, Note, Reply, StateChange};
use super::{Set, State};
use crate::command::Part;
use crate::domain::{NodeId, Timestamp, expired};
use crate::entity::StateEntity;

/// What a row takes in a block besides its body.
const ROW: u64 = 24;
/// What a line of the audit trail takes at most.
const LINE: u64 = 256;
/// What the row of a route takes at most.
const ROUTE: u64 = 192;

/// Tells when a part is full.
pub(super) struct Scales {
    limit: Option<u64>,
    bytes: u64,
    /// How many changes of the draft were weighed.
    weighed: usize,
    scratch: BytesMut,
}

impl Scales {
    pub(super) fn of(part: Part) -> Self {
        Self {
            limit: part.bytes.map(|bytes| bytes.max(1)),
            bytes: 0,
            weighed: 0,
            scratch: BytesMut::new(),
        }
    }

    /// Whether nothing more belongs into this part.
    pub(super) fn are_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.bytes >= limit)
    }

    /// Adds what the draft has changed since it was last weighed.
    pub(super) fn weigh(&mut self, draft: &Draft) {
        if self.limit.is_none() {
            return;
        }
        for change in draft.changes().get(self.weighed..).unwrap_or_default() {
            self.scratch.clear();
            if let StateChange::Put(image) = change {
                image.encode_into(&mut self.scratch);
            }
            self.bytes += ROW + self.scratch.len() as u64;
        }
        self.weighed = draft.changes().len();
    }

    /// Adds a line of the audit trail.
    pub(super) fn line(&mut self) {
        self.bytes += LINE;
    }

    /// Adds that the traffic of a prefix moves from one route to another.
    pub(super) fn handover(&mut self) {
        self.bytes += 2 * (ROW + ROUTE);
    }
}

impl Part {
    /// How many rows may be deleted.
    pub(super) fn deletions(self) -> usize {
        let most = self.bytes.map_or(u64::MAX, |bytes| (bytes / ROW).max(1));
        usize::try_from(most).unwrap_or(usize::MAX)
    }
}

/// Deletes these, each with a line in the audit trail, and counts them.
pub(super) fn delete_each<E: StateEntity>(
    state: &State,
    ids: impl Iterator<Item = E::Id>,
    part: Part,
    handle: fn(E::Id) -> EntityId,
    action: &'static str,
) -> Decision {
    let mut draft = Draft::of(state);
    let mut scales = Scales::of(part);
    let (mut notes, mut ended) = (SmallVec::new(), None);
    for id in ids {
        if scales.are_full() {
            ended = Some(None);
            break;
        }
        draft.delete(handle(id));
        scales.weigh(&draft);
        scales.line();
        notes.push(Note::new(action, E::KIND, id));
    }
    let count = notes.len() as u64;
    let mut decision = draft.finish(Reply::Count(count).of_part(ended));
    decision.audit = notes;
    decision
}

/// Deletes what has expired, and counts it.
pub(super) fn sweep<I: Copy + Ord>(
    by_expiry: &Set<(Timestamp, I)>,
    now: Timestamp,
    part: Part,
    handle: fn(I) -> EntityId,
) -> Decision {
    let mut expired = by_expiry
        .iter()
        .take_while(|(at, _)| expired(Some(*at), now))
        .map(|(_, id)| StateChange::Delete(handle(*id)));
    let changes: Changes = expired.by_ref().take(part.deletions()).collect();
    let ended = expired.next().map(|_| None);
    let count = changes.len() as u64;
    Decision::changed(changes, Reply::Count(count).of_part(ended))
}

impl Reply {
    /// The reply of a part; `ended` says where it did, if there is more.
    pub(super) fn of_part(self, ended: Option<Option<NodeId>>) -> Self {
        match ended {
            Some(after) => Self::Unfinished { so_far: Box::new(self), after },
            None => self,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::command::*;
    use crate::domain::*;
    use crate::state::testing::*;

    /// Runs a command as a whole and in parts of a few rows; gives how many parts there were.
    fn same_in_parts(world: &mut World, make: impl Fn(Part) -> Command) -> usize {
        let mut whole = world.clone();
        let expected = whole.run(make(Part::WHOLE)).unwrap();
        let mut part = Part { after: None, bytes: Some(300) };
        let (mut parts, mut count, mut nodes) = (0, 0, Vec::new());
        let mut add = |reply: Reply| match reply {
            Reply::Count(more) => count += more,
            Reply::Nodes(more) => nodes.extend(more),
            Reply::Done => {}
            other => panic!("{other:?}"),
        };
        loop {
            parts += 1;
            match world.run(make(part)).unwrap() {
                Reply::Unfinished { so_far, after } => {
                    add(*so_far);
                    part.after = after;
                }
                last => break add(last),
            }
        }
        match expected {
            Reply::Count(all) => assert_eq!(count, all),
            Reply::Nodes(all) => assert_eq!(nodes, all),
            other => assert_eq!(other, Reply::Done),
        }
        assert!(world.state.images().eq(whole.state.images()));
        parts
    }

    /// Machines that all carry one prefix and are online, and what belongs to them.
    fn network() -> (World, UserId) {
        let mut world = World::new();
        let alice = world.user("alice").id;
        let key = world.ephemeral_key(alice).id;
        for machine in 1..=9 {
            let node = world.register_with(key, machine).unwrap().id;
            world.run(connect(node, 1)).unwrap();
            let prefixes = world.prefixes(&["10.1.0.0/16", "0.0.0.0/0"]);
            world
                .run(RouteCommand::Advertise { node, prefixes: prefixes.clone(), expected: None })
                .unwrap();
            world.run(RouteCommand::Approve { node, prefixes, expected: None }).unwrap();
            let expires_at = world.now.saturating_add(std::time::Duration::from_secs(1));
            let owner = SessionOwner::User(alice);
            let session = NewSession { owner, node: Some(node), client: None, expires_at };
            let hash = SecretHash::hmac([1; 4], [2; 32]);
            let id = SessionId::from_bytes(world.id());
            world.run(SessionCommand::Begin { id, hash, session }).unwrap();
        }
        (world, alice)
    }

    #[test]
    fn parts_come_to_the_same_as_the_whole() {
        let (mut world, alice) = network();
        let mut signed_out = world.clone();
        let owner = SessionOwner::User(alice);
        let end_all = |part| SessionCommand::EndAll { owner, part }.into();
        assert!(same_in_parts(&mut signed_out, end_all) > 1);
        assert!(signed_out.state.sessions().is_empty());
        let setting = NetworkSettings { ipv6: None, ..NetworkSettings::default() };
        let document = SettingDocument::Network(setting);
        world.run(SettingCommand::Put { document, expected: None }).unwrap();
        for machine in 10..=18 {
            world.register(alice, machine).unwrap();
        }
        world.run(SettingCommand::Reset { kind: SettingKind::Network }).unwrap();
        let backfill = |part| NodeCommand::BackfillAddresses { release: false, part }.into();
        assert!(same_in_parts(&mut world, backfill) > 1);
        let mut nodes: Vec<_> = world.state.nodes().iter().map(|node| node.id).collect();
        nodes.reverse();
        let at = world.now;
        let expire = |part| NodeCommand::Expire { nodes: nodes.clone(), at, part }.into();
        assert!(same_in_parts(&mut world, expire) > 1);
        let disconnect = |part| PresenceCommand::DisconnectAll { of: None, part }.into();
        assert!(same_in_parts(&mut world, disconnect) > 1);
        assert!(world.state.routes().iter().all(|route| !route.primary));
        world.advance(std::time::Duration::from_secs(1800));
        assert!(same_in_parts(&mut world, |part| NodeCommand::ReapEphemeral { part }.into()) > 1);
        assert_eq!(world.state.nodes().len(), 9);
        let delete = |part| UserCommand::Delete { id: alice, cascade: true, part }.into();
        assert!(same_in_parts(&mut world, delete) > 1);
        let left: Vec<_> = world.state.images().map(|image| image.entity()).collect();
        assert_eq!(left, [crate::error::EntityKind::Setting], "its default");
    }

    #[test]
    fn what_is_only_deleted_is_counted() {
        let (mut world, _) = network();
        world.advance(std::time::Duration::from_secs(1));
        let few = |part: Part| Part { bytes: part.bytes.map(|_| 3 * ROW), ..part };
        let sweep = |part| SessionCommand::Sweep { part: few(part) }.into();
        assert_eq!(same_in_parts(&mut world, sweep), 3);
        assert!(world.state.sessions().is_empty());
        for version in 0..10 {
            let expected = PolicyVersion::new(version).ok();
            let document = DocumentText::empty();
            world.run(PolicyCommand::Swap { expected, document }).unwrap();
        }
        let prune = |part| PolicyCommand::Prune { keep: 1, part: few(part) }.into();
        assert_eq!(same_in_parts(&mut world, prune), 3);
        assert_eq!(world.state.policies().len(), 1);
    }

    #[test]
    fn a_part_is_one_entity_at_least() {
        let (mut world, _) = network();
        let part = Part { after: None, bytes: Some(0) };
        let reply = world.run(PresenceCommand::DisconnectAll { of: None, part }).unwrap();
        let first = world.state.presence().iter().next().unwrap().node;
        let so_far = Box::new(Reply::Count(1));
        assert_eq!(reply, Reply::Unfinished { so_far, after: Some(first) });
    }
}
