//! Policies: versions, swapped by compare-and-set.

use std::sync::Arc;

use super::decision::{Changes, Context, Decision, Handle, Reply};
use super::listing::Listing;
use super::{Change, Map, State};
use crate::command::{Image, PolicyCommand};
use crate::domain::{DocumentText, Page, PageRequest, Policy, PolicyVersion};
use crate::error::{Entity, Error, ErrorKind, Result};

/// All kept policy versions.
#[derive(Clone, Default, Debug)]
pub struct Policies {
    by_version: Map<PolicyVersion, Arc<Policy>>,
}

impl Policies {
    /// The policy in force; `None` if there never was one. An empty document is a policy.
    #[must_use]
    pub fn current(&self) -> Option<&Arc<Policy>> {
        self.by_version.get_max().map(|(_, policy)| policy)
    }

    /// One version.
    #[must_use]
    pub fn get(&self, version: PolicyVersion) -> Option<&Arc<Policy>> {
        self.by_version.get(&version)
    }

    /// All kept versions, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.by_version.values()
    }

    /// How many versions are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_version.len()
    }

    /// Whether there never was a policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_version.is_empty()
    }

    /// A page of versions, newest first.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn history(&self, page: &PageRequest) -> Result<Page<Arc<Policy>>> {
        let listing = Listing::new(Entity::Policy, &());
        let start: Option<PolicyVersion> = listing.start(page)?;
        let versions: Box<dyn Iterator<Item = &Arc<Policy>>> = match start {
            Some(start) => Box::new(self.by_version.range(..start).rev().map(|(_, policy)| policy)),
            None => Box::new(self.by_version.iter().rev().map(|(_, policy)| policy)),
        };
        Ok(listing.take(page, versions.cloned(), |policy| policy.version))
    }

    pub(super) fn put(&mut self, policy: Arc<Policy>) -> bool {
        self.by_version.insert(policy.version, policy).is_some()
    }

    pub(super) fn remove(&mut self, version: PolicyVersion) {
        self.by_version.remove(&version);
    }
}

impl State {
    pub(super) fn decide_policy(
        &self,
        command: &PolicyCommand,
        context: &Context<'_>,
    ) -> Result<Decision> {
        match command {
            PolicyCommand::Swap { expected, document } => {
                self.swap_policy(*expected, document.clone(), PolicyCommand::SWAP, context)
            }
            PolicyCommand::Rollback { expected, to } => {
                let document = self
                    .policies
                    .get(*to)
                    .ok_or_else(|| Error::not_found(Entity::Policy, to))?
                    .document
                    .clone();
                self.swap_policy(Some(*expected), document, PolicyCommand::ROLLBACK, context)
            }
            PolicyCommand::Prune { keep, part } => {
                let all = self.policies.len().saturating_sub((*keep).max(1) as usize);
                let gone = all.min(part.deletions());
                let changes: Changes = self
                    .policies
                    .iter()
                    .take(gone)
                    .map(|policy| Change::Delete(Handle::Policy(policy.version)))
                    .collect();
                let ended = (gone < all).then_some(None);
                let reply = Reply::Count(gone as u64).of_part(ended);
                let decision = Decision::changed(changes, reply);
                if gone == 0 {
                    return Ok(decision);
                }
                Ok(decision.noting(PolicyCommand::PRUNE, Entity::Policy, keep))
            }
        }
    }

    /// The version in force is the expected one.
    pub(super) fn check_policy_version(&self, expected: Option<PolicyVersion>) -> Result<()> {
        let current = self.policies.current().map(|policy| policy.version);
        if current == expected {
            return Ok(());
        }
        let shown = |version: Option<PolicyVersion>| {
            version.map_or_else(|| "none".to_owned(), |version| version.to_string())
        };
        Err(Error::new(ErrorKind::Conflict, "in force is another version; read it again")
            .about(Entity::Policy)
            .with("expected_version", shown(expected))
            .with("version", shown(current)))
    }

    fn swap_policy(
        &self,
        expected: Option<PolicyVersion>,
        document: DocumentText,
        action: &'static str,
        context: &Context<'_>,
    ) -> Result<Decision> {
        self.check_policy_version(expected)?;
        let version = match expected {
            Some(version) => PolicyVersion::new(version.get() + 1).map_err(|error| {
                Error::new(ErrorKind::Exhausted, "has no further version numbers").because(error)
            })?,
            None => PolicyVersion::FIRST,
        };
        let policy = Arc::new(Policy {
            version,
            document,
            author: context.actor.clone(),
            created_at: context.now,
        });
        let mut changes = Changes::new();
        changes.push(Change::Put(Image::Policy(policy.clone())));
        Ok(Decision::changed(changes, Reply::Policy(policy)).noting(
            action,
            Entity::Policy,
            version,
        ))
    }
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
