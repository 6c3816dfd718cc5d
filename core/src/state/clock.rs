//! Bringing back what was dated by a clock that was ahead.

use std::collections::BTreeMap;

use super::State;
use super::decision::{Context, Decision, Draft, Reply};
use super::part::Scales;
use crate::command::{ClockCommand, Part};
use crate::domain::Timestamp;
use crate::error::EntityKind;
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
}

pub(crate) fn decide(state: &State, command: &ClockCommand, context: &Context<'_>) -> Decision {
    match command {
        ClockCommand::Accept => Decision::unchanged(Reply::Done).noting(
            ClockCommand::ACCEPT,
            EntityKind::Setting,
            format_args!("clock from {}", state.time()),
        ),
        ClockCommand::Repair { part } => repair(state, *part, context),
    }
}

fn repair(state: &State, part: Part, context: &Context<'_>) -> Decision {
    let mut draft = Draft::of(state);
    let mut scales = Scales::of(part);
    let (mut count, mut ended) = (0, None);
    for image in state.images().filter_map(|image| image.brought_back(context.now)) {
        if scales.are_full() {
            ended = Some(None);
            break;
        }
        draft.put(image);
        scales.weigh(&draft);
        count += 1;
    }
    let decision = draft.finish(Reply::Count(count).of_part(ended));
    if count == 0 && state.time() <= context.now {
        return decision;
    }
    let subject = format_args!("clock from {}", state.time());
    decision.noting(ClockCommand::REPAIR, EntityKind::Setting, subject)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{NodeCommand, SessionCommand};
    use crate::domain::{NewSession, SecretHash, SessionId, SessionOwner};
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
        world.run(connect(node, 1)).unwrap();
        let bob = world.user("bob");
        let id = SessionId::from_bytes(world.id());
        let owner = SessionOwner::User(bob.id);
        let expires_at = world.now.saturating_add(DAY);
        let session = NewSession { owner, node: None, client: None, expires_at };
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
