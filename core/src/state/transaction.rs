//! Transactions: several commands, all or nothing.

use smallvec::SmallVec;

use super::decision::{Context, Decision, Draft, Reply, check_revision};
use super::{State, dns_records, policies, routes};
use crate::command::{Command, Precondition, Transaction};
use crate::error::{EntityKind, Error, ErrorKind, Result};

pub(crate) fn decide(
    state: &State,
    transaction: &Transaction,
    context: &Context<'_>,
) -> Result<Decision> {
    // One that was deserialised has not been counted yet.
    transaction.check_steps()?;
    for precondition in &transaction.preconditions {
        check(state, precondition)?;
    }
    let mut draft = Draft::of(state);
    let mut audit = SmallVec::new();
    let mut replies = Vec::with_capacity(transaction.commands.len());
    for (step, command) in transaction.commands.iter().enumerate() {
        if matches!(command, Command::Transaction(_)) {
            return Err(
                Error::invalid("a transaction cannot contain a transaction").with("step", step)
            );
        }
        let mut part = draft
            .state
            .decide(command, context)
            .map_err(|error| error.with("step", step).with("command", command.name()))?;
        draft.apply(&mut part);
        audit.extend(part.audit);
        replies.push(part.reply);
    }
    let mut decision = draft.finish(Reply::All(replies));
    decision.audit = audit;
    Ok(decision)
}

fn check(state: &State, precondition: &Precondition) -> Result<()> {
    // Whatever it is about, one that does not hold is a `Conflict`.
    let unmet = |error: Error| {
        Error::new(ErrorKind::Conflict, "a transaction's precondition does not hold")
            .with("precondition", format_args!("{precondition:?}"))
            .because(error)
    };
    let conflict = |message: &'static str| Error::new(ErrorKind::Conflict, message);
    match precondition {
        Precondition::SerialIs(expected) if *expected != state.serial => {
            Err(conflict("something was written in between")
                .with("expected_serial", expected)
                .with("serial", state.serial))
        }
        Precondition::SerialIs(_) => Ok(()),
        Precondition::UserExists(id) => state.users().require(*id).map(|_| ()).map_err(unmet),
        Precondition::UserRevision(id, revision) => {
            let user = state.users().require(*id).map_err(unmet)?;
            check_revision(EntityKind::User, id, user.revision, Some(*revision))
        }
        Precondition::UserMetadataRevision(id, expected) => {
            let user = state.users().require(*id).map_err(unmet)?;
            if user.metadata_revision == *expected {
                return Ok(());
            }
            Err(conflict("its metadata have another revision; read it again")
                .about(EntityKind::User)
                .with("id", id))
        }
        Precondition::NodeExists(id) => state.nodes().require(*id).map(|_| ()).map_err(unmet),
        Precondition::NodeAbsent(id) => match state.nodes().get(*id) {
            None => Ok(()),
            Some(_) => {
                Err(conflict("exists, and should not").about(EntityKind::Node).with("id", id))
            }
        },
        Precondition::NodeRevision(id, revision) => {
            let node = state.nodes().require(*id).map_err(unmet)?;
            check_revision(EntityKind::Node, id, node.revision, Some(*revision))
        }
        Precondition::PolicyVersion(expected) => policies::check_version(state, *expected),
        Precondition::SettingRevision(kind, expected) => {
            let found = state.settings().get(*kind).map(|setting| setting.revision);
            if found == *expected {
                return Ok(());
            }
            Err(conflict("has another revision; read it again")
                .about(EntityKind::Setting)
                .with("kind", kind))
        }
        Precondition::DnsRecordSet(name, kind, expected) => {
            dns_records::check_set(state, name, *kind, Some(*expected)).map(|_| ())
        }
        Precondition::RouteRevision(id, revision) => {
            let route = state.routes().require(*id).map_err(unmet)?;
            check_revision(EntityKind::Route, id, route.revision, Some(*revision))
        }
        Precondition::NodeRoutes(node, expected) => {
            state.nodes().require(*node).map_err(unmet)?;
            routes::check_fingerprint(state, *node, Some(*expected))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::command::{NodeCommand, Part, UserCommand};
    use crate::domain::{NewUser, UserId};
    use crate::state::testing::*;

    #[test]
    fn all_or_nothing() {
        let mut world = World::new();
        let alice = world.user("alice");
        let (a, b) = (UserId::from_bytes(world.id()), UserId::from_bytes(world.id()));
        let create = |id, name: &str| UserCommand::Create {
            id,
            user: NewUser::local(name.parse().unwrap()),
        };
        let bad =
            Transaction::new().then(create(a, "bob")).unwrap().then(create(b, "alice")).unwrap();
        let error = world.run(bad).unwrap_err();
        assert!(error.to_string().contains("step=1"), "{error}");
        assert_eq!(world.state.users().len(), 1);
        // Later steps see what earlier ones did.
        let good = Transaction::new()
            .require(Precondition::UserExists(alice.id))
            .unwrap()
            .then(UserCommand::Delete { id: alice.id, cascade: true, part: Part::WHOLE })
            .unwrap()
            .then(create(b, "alice"))
            .unwrap();
        let Reply::All(replies) = world.run(good).unwrap() else { panic!() };
        assert_eq!(replies.len(), 2);
        assert_eq!(world.state.users().iter().next().unwrap().id, b);
    }

    #[test]
    fn an_unmet_precondition_is_a_conflict_and_nothing_happens() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap();
        let transaction = Transaction::new()
            .require(Precondition::NodeAbsent(node.id))
            .unwrap()
            .then(NodeCommand::Delete { id: node.id })
            .unwrap();
        assert_eq!(*world.run(transaction).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(world.state.nodes().len(), 1);
        let gone = UserId::from_bytes(world.id());
        let transaction = Transaction::new().require(Precondition::UserExists(gone)).unwrap();
        assert_eq!(*world.run(transaction).unwrap_err().kind(), ErrorKind::Conflict);
    }
}
