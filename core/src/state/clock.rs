//! Bringing back what was dated by a clock that was ahead.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::State;
use super::decision::{Context, Decision, Draft, Reply};
use super::part::Scales;
use crate::command::{ClockCommand, Image, Part};
use crate::domain::{
    ApiKey, DnsRecord, Node, Policy, PreAuthKey, Presence, Route, Session, Setting, Timestamp, User,
};
use crate::error::Entity;
use crate::schema::Table;

impl State {
    /// How many entities of each table have a time beyond `now` at which something happened to
    /// them.
    #[must_use]
    pub fn dated_after(&self, now: Timestamp) -> BTreeMap<Table, u64> {
        let mut counts = BTreeMap::new();
        for image in self.images() {
            if image.brought_back(now).is_some() {
                *counts.entry(image.table()).or_default() += 1;
            }
        }
        counts
    }

    pub(super) fn decide_clock(&self, command: &ClockCommand, context: &Context<'_>) -> Decision {
        match command {
            ClockCommand::Accept => Decision::unchanged(Reply::Done).noting(
                ClockCommand::ACCEPT,
                Entity::Setting,
                format_args!("clock from {}", self.time()),
            ),
            ClockCommand::Repair { part } => self.repair_clock(*part, context),
        }
    }

    fn repair_clock(&self, part: Part, context: &Context<'_>) -> Decision {
        let mut draft = Draft::of(self);
        let mut scales = Scales::of(part);
        let (mut count, mut ended) = (0, None);
        for image in self.images().filter_map(|image| image.brought_back(context.now)) {
            if scales.are_full() {
                ended = Some(None);
                break;
            }
            draft.put(image);
            scales.weigh(&draft);
            count += 1;
        }
        let decision = draft.finish(Reply::Count(count).of_part(ended));
        if count == 0 && self.time() <= context.now {
            return decision;
        }
        let subject = format_args!("clock from {}", self.time());
        decision.noting(ClockCommand::REPAIR, Entity::Setting, subject)
    }
}

impl Image {
    /// The latest time at which something happened to the entity.
    fn latest_event(&self) -> Option<Timestamp> {
        let latest = |times: &[Option<Timestamp>]| times.iter().copied().flatten().max();
        match self {
            Self::User(user) => latest(&[Some(user.created_at), Some(user.updated_at)]),
            Self::Node(node) => latest(&[Some(node.created_at), Some(node.updated_at)]),
            Self::Presence(presence) => presence.last_seen,
            Self::Route(route) => latest(&[Some(route.created_at), Some(route.updated_at)]),
            Self::ApiKey(key) => latest(&[Some(key.created_at), key.revoked_at, key.last_used_at]),
            Self::PreAuthKey(key) => latest(&[Some(key.created_at), key.revoked_at, key.used_at]),
            Self::Policy(policy) => Some(policy.created_at),
            Self::DnsRecord(record) => latest(&[Some(record.created_at), Some(record.updated_at)]),
            Self::Session(session) => latest(&[Some(session.created_at), Some(session.last_seen)]),
            Self::Setting(setting) => Some(setting.updated_at),
        }
    }

    /// The entity with what happened after `now` dated to it; `None` if nothing did. An end that is
    /// later still was counted from then, so it keeps its distance.
    fn brought_back(&self, now: Timestamp) -> Option<Self> {
        let latest = self.latest_event().filter(|latest| *latest > now)?;
        let back = |at: Timestamp| at.min(now);
        let end = |end: Timestamp| match end >= latest {
            true => now.saturating_add(end.since(latest)),
            false => end,
        };
        Some(match self {
            Self::User(user) => Self::User(Arc::new(User {
                created_at: back(user.created_at),
                updated_at: back(user.updated_at),
                ..User::clone(user)
            })),
            Self::Node(node) => Self::Node(Arc::new(Node {
                created_at: back(node.created_at),
                updated_at: back(node.updated_at),
                expires_at: node.expires_at.map(end),
                ..Node::clone(node)
            })),
            Self::Presence(presence) => Self::Presence(Arc::new(Presence {
                last_seen: presence.last_seen.map(back),
                ..Presence::clone(presence)
            })),
            Self::Route(route) => Self::Route(Arc::new(Route {
                created_at: back(route.created_at),
                updated_at: back(route.updated_at),
                ..Route::clone(route)
            })),
            Self::ApiKey(key) => Self::ApiKey(Arc::new(ApiKey {
                created_at: back(key.created_at),
                revoked_at: key.revoked_at.map(back),
                last_used_at: key.last_used_at.map(back),
                expires_at: key.expires_at.map(end),
                ..ApiKey::clone(key)
            })),
            Self::PreAuthKey(key) => Self::PreAuthKey(Arc::new(PreAuthKey {
                created_at: back(key.created_at),
                revoked_at: key.revoked_at.map(back),
                used_at: key.used_at.map(back),
                expires_at: key.expires_at.map(end),
                ..PreAuthKey::clone(key)
            })),
            Self::Policy(policy) => Self::Policy(Arc::new(Policy {
                created_at: back(policy.created_at),
                ..Policy::clone(policy)
            })),
            Self::DnsRecord(record) => Self::DnsRecord(Arc::new(DnsRecord {
                created_at: back(record.created_at),
                updated_at: back(record.updated_at),
                ..DnsRecord::clone(record)
            })),
            Self::Session(session) => Self::Session(Arc::new(Session {
                created_at: back(session.created_at),
                last_seen: back(session.last_seen),
                expires_at: end(session.expires_at),
                ..Session::clone(session)
            })),
            Self::Setting(setting) => Self::Setting(Arc::new(Setting {
                updated_at: back(setting.updated_at),
                ..Setting::clone(setting)
            })),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{NodeCommand, PresenceCommand, SessionCommand};
    use crate::domain::{Change, NewSession, SecretHash, SessionId, SessionNumber, SessionOwner};
    use crate::state::testing::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const YEARS: Duration = Duration::from_secs(60 * 365 * 86_400);

    fn repair() -> ClockCommand {
        ClockCommand::Repair { part: Part::WHOLE }
    }

    #[test]
    fn what_happened_later_is_dated_back_and_ends_keep_their_distance() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap().id;
        let soon = world.now.saturating_add(90 * DAY);
        world.run(NodeCommand::Expire { nodes: vec![node], at: soon, part: Part::WHOLE }).unwrap();
        let right = world.now;
        world.advance(YEARS);
        let session = SessionNumber::new(1).unwrap();
        world.run(PresenceCommand::Connect { node, session, endpoints: Change::Keep }).unwrap();
        let bob = world.user("bob");
        let id = SessionId::from_bytes(world.id());
        let owner = SessionOwner::User(bob.id);
        let expires_at = world.now.saturating_add(DAY);
        let session = NewSession { owner, client: None, expires_at };
        let hash = SecretHash::hmac([1; 4], [2; 32]);
        world.run(SessionCommand::Begin { id, hash, session }).unwrap();
        let counts = world.state.dated_after(right);
        assert_eq!(counts, [(Table::Users, 1), (Table::Presence, 1), (Table::Sessions, 1)].into());

        world.now = right.saturating_add(DAY);
        let now = world.now;
        assert_eq!(world.run(repair()).unwrap(), Reply::Count(3));
        let state = &world.state;
        assert_eq!(state.time(), now);
        assert!(state.dated_after(now).is_empty());
        let bob = state.users().get(bob.id).unwrap();
        assert_eq!((bob.created_at, bob.updated_at, bob.revision.get()), (now, now, 1));
        assert_eq!(state.users().get(alice.id), Some(&alice));
        assert_eq!(state.presence().get(node).unwrap().last_seen, Some(now));
        assert_eq!(state.nodes().get(node).unwrap().expires_at, Some(soon));
        let session = state.sessions().get(id).unwrap();
        assert_eq!((session.created_at, session.expires_at), (now, now.saturating_add(DAY)));
        assert_eq!(world.run(repair()).unwrap(), Reply::Count(0));
    }

    #[test]
    fn an_end_that_was_set_under_the_right_clock_stays() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap();
        let right = world.now;
        let soon = right.saturating_add(90 * DAY);
        world.advance(YEARS);
        let nodes = vec![node.id];
        world.run(NodeCommand::Expire { nodes, at: soon, part: Part::WHOLE }).unwrap();
        world.now = right;
        world.run(repair()).unwrap();
        let node = world.state.nodes().get(node.id).unwrap();
        assert_eq!((node.updated_at, node.expires_at), (right, Some(soon)));
    }
}
