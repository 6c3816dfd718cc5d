//! Instances: the processes of a control plane, each of which holds connections.

use std::sync::Arc;
use std::time::Duration;

use super::State;
use super::collection::Collection;
use super::decision::{Context, Decision, Draft, EntityId, Reply};
use super::part::Scales;
use super::presence::disconnect;
use crate::command::{InstanceCommand, Part, PresenceCommand};
use crate::domain::{Instance, InstanceId, InstanceName};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, Result};

/// All instances. There are few.
pub type Instances = Collection<Instance, ()>;

impl Instances {
    /// The instance with this name.
    #[must_use]
    pub fn by_name(&self, name: &InstanceName) -> Option<&Arc<Instance>> {
        self.iter().find(|instance| instance.name == *name)
    }
}

impl Rules for Instance {
    dates! { events: started_at, last_seen; ends: }

    /// Nobody else has its name.
    fn check_beside(&self, state: &State) -> Result<()> {
        match state.instances().by_name(&self.name) {
            Some(holder) if holder.id != self.id => {
                Err(Error::already_exists(EntityKind::Instance, "name")
                    .with("name", &self.name)
                    .with("held_by", holder.id))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn decide(
    state: &State,
    command: &InstanceCommand,
    context: &Context<'_>,
) -> Result<Decision> {
    match command {
        InstanceCommand::Begin { id, name, part } => {
            state.instances().check_fresh(*id)?;
            let former = state.instances().by_name(name).map(|former| former.id);
            let mut over = Over::of(state, former.into_iter().collect(), *part, context);
            if over.ended.is_some() {
                return Ok(over.finish());
            }
            let (started_at, last_seen) = (context.now, context.now);
            let instance =
                Arc::new(Instance { id: *id, name: name.clone(), started_at, last_seen });
            over.draft.put(instance.clone());
            let decision = over.draft.finish(Reply::Instance(instance));
            Ok(decision.noting(InstanceCommand::BEGIN, EntityKind::Instance, id))
        }
        InstanceCommand::Beat { id } => {
            let old = state.instances().require(*id)?;
            if context.now.since(old.last_seen) < Duration::from_secs(Instance::BEAT_SECONDS) {
                return Ok(Decision::unchanged(Reply::Instance(old.clone())));
            }
            Ok(Decision::put(Instance { last_seen: context.now, ..Instance::clone(old) }))
        }
        InstanceCommand::End { id, part } => {
            state.instances().require(*id)?;
            let over = Over::of(state, vec![*id], *part, context);
            let is_whole = over.ended.is_none();
            let decision = over.finish();
            Ok(match is_whole {
                true => decision.noting(InstanceCommand::END, EntityKind::Instance, id),
                false => decision,
            })
        }
    }
}

/// Takes out the instances that were not seen for longer than `unseen_for`, but for the caller's own, and
/// disconnects what they held. Both ends of that time are the store's.
pub(super) fn disconnect_lost(
    state: &State,
    unseen_for: Duration,
    own: Option<InstanceId>,
    part: Part,
    context: &Context<'_>,
) -> Result<Decision> {
    if unseen_for < Instance::LEAST_UNSEEN {
        let message = "instances are recorded as seen every 5 seconds, so wait for 10 at least";
        return Err(Error::invalid(message)
            .about(EntityKind::Instance)
            .with("unseen_for_seconds", unseen_for.as_secs_f64()));
    }
    let is_lost = |instance: &&Arc<Instance>| {
        Some(instance.id) != own && context.now.since(instance.last_seen) > unseen_for
    };
    let lost: Vec<_> = state.instances().iter().filter(is_lost).map(|it| it.id).collect();
    if lost.is_empty() {
        return Ok(Decision::unchanged(Reply::Count(0)));
    }
    let over = Over::of(state, lost.clone(), part, context);
    let is_whole = over.ended.is_none();
    let noted = lost.iter().filter(|_| is_whole);
    Ok(noted.fold(over.finish(), |decision, id| {
        decision.noting(PresenceCommand::DISCONNECT_LOST, EntityKind::Instance, id)
    }))
}

/// Instances that are over, as far as a part deals with them.
struct Over {
    draft: Draft,
    count: u64,
    /// Where the part ended, if there is more.
    ended: Option<Option<crate::domain::NodeId>>,
}

impl Over {
    fn of(state: &State, instances: Vec<InstanceId>, part: Part, context: &Context<'_>) -> Self {
        let mut draft = Draft::of(state);
        let is_held = |holder: Option<InstanceId>| holder.is_some_and(|it| instances.contains(&it));
        let mut scales = Scales::of(part);
        let (count, mut ended) = match instances.is_empty() {
            true => (0, None),
            false => disconnect(&mut draft, part.after, &mut scales, is_held, context),
        };
        // An instance that is over may not know, and connect what an earlier part has passed.
        let is_left = || draft.state.presence().iter().any(|it| is_held(it.instance));
        if ended.is_none() && part.after.is_some() && is_left() {
            ended = Some(None);
        }
        if ended.is_none() {
            instances.iter().for_each(|id| draft.delete(EntityId::Instance(*id)));
        }
        Self { draft, count, ended }
    }

    fn finish(self) -> Decision {
        self.draft.finish(Reply::Count(self.count).of_part(self.ended))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::domain::{NodeId, Update};
    use crate::error::ErrorKind;
    use crate::state::testing::*;

    fn begin(world: &mut World, name: &str) -> InstanceId {
        let id = InstanceId::from_bytes(world.id());
        let begin = InstanceCommand::Begin { id, name: name.parse().unwrap(), part: Part::WHOLE };
        let Reply::Instance(instance) = world.run(begin).unwrap() else { panic!() };
        assert_eq!((instance.id, instance.last_seen), (id, world.now));
        id
    }

    fn open(node: NodeId, instance: InstanceId) -> PresenceCommand {
        let endpoints = Update::Keep;
        PresenceCommand::Connect { node, session: None, endpoints, instance: Some(instance) }
    }

    fn holder(world: &World, node: NodeId) -> Option<InstanceId> {
        world.state.presence().get(node).unwrap().instance
    }

    /// Two instances with a node each, and one that nobody named holds.
    fn network() -> (World, [InstanceId; 2], [NodeId; 3]) {
        let mut world = World::new();
        let alice = world.user("alice").id;
        let nodes = [1, 2, 3].map(|number| world.register(alice, number).unwrap().id);
        let instances = ["one", "two"].map(|name| begin(&mut world, name));
        for (node, instance) in nodes.into_iter().zip(instances) {
            world.run(open(node, instance)).unwrap();
        }
        let [.., last] = nodes;
        let (session, endpoints) = (None, Update::Keep);
        let connect = PresenceCommand::Connect { node: last, session, endpoints, instance: None };
        world.run(connect).unwrap();
        (world, instances, nodes)
    }

    #[test]
    fn a_restart_ends_its_former_self_and_nobody_else() {
        let (mut world, [one, two], [a, b, c]) = network();
        assert_eq!((holder(&world, a), holder(&world, b)), (Some(one), Some(two)));
        let again = begin(&mut world, "one");
        assert_eq!(world.state.instances().get(one), None);
        let presences = world.state.presence();
        assert!(!presences.is_online(a) && presences.is_online(b) && presences.is_online(c));
        let gone = presences.get(a).unwrap();
        assert_eq!((gone.instance, gone.absent_since), (None, Some(world.now)));
        // The former self does not know yet.
        for late in [open(a, one), open(b, one)] {
            assert_eq!(*world.run(late).unwrap_err().kind(), ErrorKind::NotFound);
        }
        world.run(open(a, again)).unwrap();
        assert_eq!(holder(&world, a), Some(again));
        let end = InstanceCommand::End { id: again, part: Part::WHOLE };
        assert_eq!(world.run(end.clone()).unwrap(), Reply::Count(1));
        assert_eq!(*world.run(end).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(world.state.instances().len(), 1);
    }

    #[test]
    fn who_was_not_seen_is_lost_with_what_it_holds() {
        let (mut world, [one, two], [a, b, c]) = network();
        let lost = |world: &mut World| {
            let (unseen_for, part) = (Duration::from_secs(30), Part::WHOLE);
            world.run(PresenceCommand::DisconnectLost { unseen_for, own: None, part }).unwrap()
        };
        world.advance(Duration::from_secs(4));
        world.run(InstanceCommand::Beat { id: two }).unwrap();
        world.advance(Duration::from_secs(26));
        assert_eq!(lost(&mut world), Reply::Count(0));
        world.run(InstanceCommand::Beat { id: two }).unwrap();
        world.advance(Duration::from_secs(1));
        assert_eq!(lost(&mut world), Reply::Count(1));
        let state = &world.state;
        assert_eq!((state.instances().get(one), state.instances().len()), (None, 1));
        let presences = state.presence();
        assert!(!presences.is_online(a) && presences.is_online(b) && presences.is_online(c));
        assert_eq!(lost(&mut world), Reply::Count(0));
        // Who asks is there, however long ago it said so.
        world.advance(Duration::from_secs(3_600));
        let (part, minute) = (Part::WHOLE, Duration::from_secs(60));
        let own = PresenceCommand::DisconnectLost { unseen_for: minute, own: Some(two), part };
        assert_eq!(world.run(own).unwrap(), Reply::Count(0));
        assert!(world.state.presence().is_online(b));
        let unseen_for = Instance::LEAST_UNSEEN - Duration::from_micros(1);
        let hasty = PresenceCommand::DisconnectLost { unseen_for, own: None, part };
        assert_eq!(*world.run(hasty).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn a_sign_of_life_is_a_write_once_in_a_while() {
        let (mut world, [one, _], _) = network();
        let begun = world.now;
        world.advance(Duration::from_secs(Instance::BEAT_SECONDS) - Duration::from_micros(1));
        world.run(InstanceCommand::Beat { id: one }).unwrap();
        assert_eq!(world.state.instances().get(one).unwrap().last_seen, begun);
        world.advance(Duration::from_micros(1));
        world.run(InstanceCommand::Beat { id: one }).unwrap();
        assert_eq!(world.state.instances().get(one).unwrap().last_seen, world.now);
        let unknown = InstanceId::from_bytes(world.id());
        let error = world.run(InstanceCommand::Beat { id: unknown }).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn what_it_connects_behind_a_part_is_found() {
        let (mut world, [one, _], [a, b, _]) = network();
        world.run(open(b, one)).unwrap();
        let bytes = Some(1);
        let first =
            world.run(InstanceCommand::End { id: one, part: Part { after: None, bytes } }).unwrap();
        let so_far = Box::new(Reply::Count(1));
        assert_eq!(first, Reply::Unfinished { so_far, after: Some(a) });
        world.run(open(a, one)).unwrap();
        let second = world
            .run(InstanceCommand::End { id: one, part: Part { after: Some(a), bytes } })
            .unwrap();
        assert_eq!(second, Reply::Unfinished { so_far: Box::new(Reply::Count(1)), after: None });
        let last = InstanceCommand::End { id: one, part: Part { after: None, bytes } };
        assert_eq!(world.run(last).unwrap(), Reply::Count(1));
        assert_eq!(world.state.instances().get(one), None);
    }
}
