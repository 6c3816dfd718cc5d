//! Policies: versions, swapped by compare-and-set.

use std::sync::Arc;

use super::State;
use super::collection::Collection;
use super::decision::{Changes, Context, Decision, EntityId, Reply, StateChange};
use super::listing::Listing;
use crate::command::PolicyCommand;
use crate::domain::{DocumentText, Page, PageRequest, Policy, PolicyVersion};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, ErrorKind, Result};

/// All kept policy versions, oldest first.
pub type Policies = Collection<Policy, ()>;

impl Policies {
    /// The policy in force; `None` if there never was one. An empty document is a policy.
    #[must_use]
    pub fn current(&self) -> Option<&Arc<Policy>> {
        self.last()
    }

    /// A page of versions, newest first.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn history(&self, page: &PageRequest) -> Result<Page<Arc<Policy>>> {
        let listing = Listing::new(EntityKind::Policy, &());
        let versions = self.before(listing.start(page)?);
        Ok(listing.take(page, versions.cloned(), |policy| policy.version))
    }
}

impl Rules for Policy {
    dates! { events: created_at; ends: }

    fn check_beside(&self, _: &State) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn decide(
    state: &State,
    command: &PolicyCommand,
    context: &Context<'_>,
) -> Result<Decision> {
    let policies = state.policies();
    match command {
        PolicyCommand::Swap { expected, document } => {
            swap(state, *expected, document.clone(), PolicyCommand::SWAP, context)
        }
        PolicyCommand::Rollback { expected, to } => {
            let document = policies.require(*to)?.document.clone();
            swap(state, Some(*expected), document, PolicyCommand::ROLLBACK, context)
        }
        PolicyCommand::Prune { keep, part } => {
            let all = policies.len().saturating_sub((*keep).max(1) as usize);
            let gone = all.min(part.deletions());
            let oldest = policies.iter().take(gone);
            let changes: Changes = oldest
                .map(|policy| StateChange::Delete(EntityId::Policy(policy.version)))
                .collect();
            let ended = (gone < all).then_some(None);
            let reply = Reply::Count(gone as u64).of_part(ended);
            let decision = Decision::changed(changes, reply);
            if gone == 0 {
                return Ok(decision);
            }
            Ok(decision.noting(PolicyCommand::PRUNE, EntityKind::Policy, keep))
        }
    }
}

/// The version in force is the expected one.
pub(super) fn check_version(state: &State, expected: Option<PolicyVersion>) -> Result<()> {
    let current = state.policies().current().map(|policy| policy.version);
    if current == expected {
        return Ok(());
    }
    let shown = |version: Option<PolicyVersion>| {
        version.map_or_else(|| "none".to_owned(), |version| version.to_string())
    };
    Err(Error::new(ErrorKind::Conflict, "in force is another version; read it again")
        .about(EntityKind::Policy)
        .with("expected_version", shown(expected))
        .with("version", shown(current)))
}

fn swap(
    state: &State,
    expected: Option<PolicyVersion>,
    document: DocumentText,
    action: &'static str,
    context: &Context<'_>,
) -> Result<Decision> {
    check_version(state, expected)?;
    let version = match expected {
        Some(version) => PolicyVersion::new(version.get() + 1).map_err(|error| {
            Error::new(ErrorKind::Exhausted, "has no further version numbers").because(error)
        })?,
        None => PolicyVersion::FIRST,
    };
    let (author, created_at) = (context.actor.name.clone(), context.now);
    let decision = Decision::put(Policy { version, document, author, created_at });
    Ok(decision.noting(action, EntityKind::Policy, version))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::command::Part;
    use crate::state::testing::*;

    fn version(number: u64) -> PolicyVersion {
        PolicyVersion::new(number).unwrap()
    }

    fn swap(expected: Option<u64>, text: &str) -> PolicyCommand {
        PolicyCommand::Swap {
            expected: expected.map(version),
            document: DocumentText::new(text).unwrap(),
        }
    }

    fn current(world: &World) -> Option<String> {
        world.state.policies().current().map(|policy| policy.document.as_str().to_owned())
    }

    #[test]
    fn swapping_needs_the_expected_version() {
        let mut world = World::new();
        world.run(swap(None, "{}")).unwrap();
        for stale in [None, Some(2)] {
            let error = world.run(swap(stale, "other")).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Conflict);
        }
        world.run(swap(Some(1), "second")).unwrap();
        assert_eq!(current(&world).as_deref(), Some("second"));
    }

    #[test]
    fn an_empty_policy_is_a_policy_and_not_none() {
        let mut world = World::new();
        assert_eq!(current(&world), None);
        world.run(swap(None, "")).unwrap();
        assert_eq!(current(&world).as_deref(), Some(""));
    }

    #[test]
    fn rolling_back_makes_a_new_version_of_the_old_text() {
        let mut world = World::new();
        world.run(swap(None, "one")).unwrap();
        world.run(swap(Some(1), "two")).unwrap();
        world.run(PolicyCommand::Rollback { expected: version(2), to: version(1) }).unwrap();
        assert_eq!(current(&world).as_deref(), Some("one"));
        assert_eq!(world.state.policies().current().unwrap().version, version(3));
        let missing = PolicyCommand::Rollback { expected: version(3), to: version(9) };
        assert_eq!(*world.run(missing).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn pruning_keeps_the_policy_in_force() {
        let mut world = World::new();
        world.run(swap(None, "one")).unwrap();
        world.run(swap(Some(1), "two")).unwrap();
        assert_eq!(
            world.run(PolicyCommand::Prune { keep: 0, part: Part::WHOLE }).unwrap(),
            Reply::Count(1)
        );
        assert_eq!(current(&world).as_deref(), Some("two"));
        world.run(swap(Some(2), "three")).unwrap();
    }
}
