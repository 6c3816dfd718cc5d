//! Sign-ins that are under way.

use std::sync::Arc;

use super::collection::{Collection, Index, update_set};
use super::decision::{Context, Decision, Draft, EntityId};
use super::part::sweep;
use super::unique::UniqueIndex;
use super::{Map, Set, State};
use crate::command::SignInCommand;
use crate::domain::{
    NewSignIn, Page, PageRequest, SecretHash, SecretScheme, SignIn, SignInId, Text, Timestamp,
    expired,
};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, ErrorKind, Result};

/// Whoever asks for a sign-in makes one, so there are at most so many of a purpose at once. Those of one
/// purpose take no room from the others: a flood of one kind of sign-in stops that kind only.
const MAX_OF_PURPOSE: usize = 20_000;
/// Purposes are the control plane's words, so there are few.
const MAX_PURPOSES: usize = 16;

/// All sign-ins under way, also those that have expired but were not swept yet.
pub type SignIns = Collection<SignIn, SignInIndex>;

#[derive(Clone, Default, Debug)]
pub struct SignInIndex {
    by_hash: UniqueIndex<SignInId>,
    by_expiry: Set<(Timestamp, SignInId)>,
    of_purpose: Map<Text<64>, Set<(Timestamp, SignInId)>>,
}

impl Index<SignIn> for SignInIndex {
    fn update(&mut self, id: SignInId, old: Option<&SignIn>, new: Option<&Arc<SignIn>>) {
        let ends = |sign_in: &SignIn| (sign_in.expires_at, id);
        let new = new.map(AsRef::as_ref);
        self.by_hash.update(id, old.map(|it| &it.hash), new.map(|it| &it.hash));
        update_set(&mut self.by_expiry, old.map(ends), new.map(ends));
        if let Some(old) = old
            && let Some(of_purpose) = self.of_purpose.get_mut(&old.purpose)
        {
            of_purpose.remove(&ends(old));
            if of_purpose.is_empty() {
                self.of_purpose.remove(&old.purpose);
            }
        }
        if let Some(new) = new {
            self.of_purpose.entry(new.purpose.clone()).or_default().insert(ends(new));
        }
    }
}

impl SignIns {
    /// The one whose state has this hash.
    #[must_use]
    pub fn by_hash(&self, hash: &SecretHash) -> Option<&Arc<SignIn>> {
        self.index.by_hash.find(hash, |id| self.get(id).filter(|it| it.hash == *hash))
    }

    /// Those of a purpose, if there are as many as there may be. `Exhausted` for another purpose than
    /// there may be.
    fn full(&self, purpose: &Text<64>) -> Result<Option<&Set<(Timestamp, SignInId)>>> {
        let purposes = &self.index.of_purpose;
        match purposes.get(purpose) {
            Some(of_purpose) => Ok(Some(of_purpose).filter(|all| all.len() >= MAX_OF_PURPOSE)),
            None if purposes.len() >= MAX_PURPOSES => {
                let message = "sign-ins of too many purposes are under way; use few words for them";
                Err(Error::new(ErrorKind::Exhausted, message)
                    .about(EntityKind::SignIn)
                    .with("limit", MAX_PURPOSES))
            }
            None => Ok(None),
        }
    }

    /// A page of them, by id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn list(&self, page: &PageRequest) -> Result<Page<Arc<SignIn>>> {
        self.page(&(), page, |_| true)
    }
}

impl Rules for SignIn {
    dates! { events: created_at; ends: expires_at }

    fn check(&self) -> Result<()> {
        let refused = |message: &'static str| {
            Err(Error::invalid(message).about(EntityKind::SignIn).with("id", self.id))
        };
        if !matches!(self.hash.scheme(), SecretScheme::Hmac { .. }) {
            return refused("a sign-in's state is hashed with the store's key");
        }
        let latest = self.created_at.saturating_add(Self::MAX_LIFETIME);
        if self.expires_at <= self.created_at || self.expires_at > latest {
            return refused("a sign-in has to expire within a day of its beginning, and after it");
        }
        Ok(())
    }

    /// No other has its state.
    fn check_beside(&self, state: &State) -> Result<()> {
        match state.sign_ins().by_hash(&self.hash) {
            Some(holder) if holder.id != self.id => {
                Err(Error::already_exists(EntityKind::SignIn, "hash")
                    .with("id", self.id)
                    .with("held_by", holder.id))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn decide(
    state: &State,
    command: &SignInCommand,
    context: &Context<'_>,
) -> Result<Decision> {
    match command {
        SignInCommand::Begin { id, hash, sign_in } => begin(state, *id, hash, sign_in, context),
        SignInCommand::Take { hash, purpose } => take(state, hash, purpose, context.now),
        SignInCommand::Replace { hash, purpose, from, to } => {
            let old = find(state.sign_ins(), hash, purpose, context.now)?;
            if old.payload != *from {
                let message = "went on meanwhile; look at it again";
                return Err(Error::new(ErrorKind::Conflict, message).about(EntityKind::SignIn));
            }
            if from == to {
                return Ok(Decision::unchanged(old.clone().into()));
            }
            Ok(Decision::put(SignIn { payload: to.clone(), ..SignIn::clone(old) }))
        }
        SignInCommand::Sweep { part } => {
            Ok(sweep(&state.sign_ins().index.by_expiry, context.now, *part, EntityId::SignIn))
        }
    }
}

fn begin(
    state: &State,
    id: SignInId,
    hash: &SecretHash,
    new: &NewSignIn,
    context: &Context<'_>,
) -> Result<Decision> {
    let sign_ins = state.sign_ins();
    sign_ins.check_fresh(id)?;
    let sign_in = SignIn {
        id,
        purpose: new.purpose.clone(),
        hash: hash.clone(),
        payload: new.payload.clone(),
        created_at: context.now,
        expires_at: new.expires_at,
    };
    sign_in.check_beside(state)?;
    let Some(full) = sign_ins.full(&new.purpose)? else { return Ok(Decision::put(sign_in)) };
    let first = full.get_min();
    let Some((_, gone)) = first.filter(|(at, _)| expired(Some(*at), context.now)) else {
        let message =
            "too many of its purpose are under way; try again when some have ended or expired";
        return Err(Error::new(ErrorKind::Exhausted, message)
            .about(EntityKind::SignIn)
            .with("limit", MAX_OF_PURPOSE));
    };
    let sign_in = Arc::new(sign_in);
    let mut draft = Draft::of(state);
    draft.delete(EntityId::SignIn(*gone));
    draft.put(sign_in.clone());
    Ok(draft.finish(sign_in.into()))
}

/// One refusal for every reason, so that it tells nothing about which sign-ins there are.
pub(crate) fn refused() -> Error {
    Error::new(ErrorKind::PermissionDenied, "is not valid").about(EntityKind::SignIn)
}

/// The one that a caller with this state may see, of this purpose, if it has not expired.
pub(crate) fn find<'s>(
    sign_ins: &'s SignIns,
    hash: &SecretHash,
    purpose: &Text<64>,
    now: Timestamp,
) -> Result<&'s Arc<SignIn>> {
    let valid = |it: &&Arc<SignIn>| it.purpose == *purpose && !expired(Some(it.expires_at), now);
    sign_ins.by_hash(hash).filter(valid).ok_or_else(refused)
}

fn take(state: &State, hash: &SecretHash, purpose: &Text<64>, now: Timestamp) -> Result<Decision> {
    let taken = find(state.sign_ins(), hash, purpose, now)?;
    let mut decision = Decision::delete(EntityId::SignIn(taken.id));
    decision.reply = taken.clone().into();
    Ok(decision)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::super::Reply;
    use super::*;
    use crate::command::Part;
    use crate::domain::SignInPayload;
    use crate::state::testing::*;

    fn hash(number: u32) -> SecretHash {
        let mut mac = [0; 32];
        mac.first_chunk_mut::<4>().unwrap().copy_from_slice(&number.to_be_bytes());
        SecretHash::hmac([1; 4], mac)
    }

    fn begin(world: &mut World, number: u32, seconds: u64) -> Result<Reply> {
        begin_as(world, number, seconds, "oidc")
    }

    fn begin_as(world: &mut World, number: u32, seconds: u64, purpose: &str) -> Result<Reply> {
        let id = SignInId::from_bytes(world.id());
        let sign_in = NewSignIn {
            purpose: purpose.parse().unwrap(),
            payload: SignInPayload::new("verifier").unwrap(),
            expires_at: world.now.saturating_add(Duration::from_secs(seconds)),
        };
        world.run(SignInCommand::Begin { id, hash: hash(number), sign_in })
    }

    fn take(world: &mut World, number: u32, purpose: &str) -> Result<Reply> {
        let purpose = purpose.parse().unwrap();
        world.run(SignInCommand::Take { hash: hash(number), purpose })
    }

    #[test]
    fn it_is_taken_once_for_its_purpose_and_before_it_expires() {
        let mut world = World::new();
        let begun = begin(&mut world, 1, 60).unwrap();
        begin(&mut world, 2, 60).unwrap();
        let denied = |taken: Result<Reply>| {
            assert_eq!(*taken.unwrap_err().kind(), ErrorKind::PermissionDenied);
        };
        denied(take(&mut world, 1, "device"));
        assert_eq!(take(&mut world, 1, "oidc").unwrap(), begun);
        denied(take(&mut world, 1, "oidc"));
        world.advance(Duration::from_secs(60));
        denied(take(&mut world, 2, "oidc"));
        let sweep = SignInCommand::Sweep { part: Part::WHOLE };
        assert_eq!(world.run(sweep).unwrap(), Reply::Count(1));
        assert!(world.state.sign_ins().is_empty());
    }

    #[test]
    fn it_ends_within_a_day_and_its_state_is_its_own() {
        let mut world = World::new();
        for (seconds, fits) in [(0, false), (1, true), (86_400, true), (86_401, false)] {
            assert_eq!(begin(&mut world, u32::MAX - u32::from(fits), seconds).is_ok(), fits);
            let _ = take(&mut world, u32::MAX - 1, "oidc");
        }
        begin(&mut world, 1, 60).unwrap();
        let error = begin(&mut world, 1, 60).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::AlreadyExists { constraint: "hash" });
    }

    #[test]
    fn it_goes_on_only_from_what_it_was() {
        let mut world = World::new();
        begin(&mut world, 1, 60).unwrap();
        let replace = |from: &str, to: &str, purpose: &str| SignInCommand::Replace {
            hash: hash(1),
            purpose: purpose.parse().unwrap(),
            from: SignInPayload::new(from).unwrap(),
            to: SignInPayload::new(to).unwrap(),
        };
        let kind = |reply: Result<Reply>| reply.unwrap_err().kind().clone();
        let payload = |world: &World| {
            world.state.sign_ins().by_hash(&hash(1)).unwrap().payload.expose().to_owned()
        };
        assert_eq!(
            kind(world.run(replace("verifier", "a", "device"))),
            ErrorKind::PermissionDenied
        );
        assert_eq!(kind(world.run(replace("a", "b", "oidc"))), ErrorKind::Conflict);
        world.run(replace("verifier", "a", "oidc")).unwrap();
        assert_eq!(payload(&world), "a");
        assert_eq!(kind(world.run(replace("verifier", "b", "oidc"))), ErrorKind::Conflict);
        world.advance(Duration::from_secs(60));
        assert_eq!(kind(world.run(replace("a", "b", "oidc"))), ErrorKind::PermissionDenied);
        assert_eq!(payload(&world), "a");
    }

    #[test]
    fn purposes_are_few() {
        let mut world = World::new();
        let most = u32::try_from(MAX_PURPOSES).unwrap();
        for number in 0..most {
            begin_as(&mut world, number, 60, &format!("purpose {number}")).unwrap();
        }
        let error = begin_as(&mut world, most, 60, "another").unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Exhausted);
        begin_as(&mut world, most, 60, "purpose 3").unwrap();
        take(&mut world, 5, "purpose 5").unwrap();
        begin_as(&mut world, most + 1, 60, "another").unwrap();
    }

    #[test]
    fn there_are_so_many_of_a_purpose_and_expired_ones_make_room() {
        let mut world = World::new();
        let most = u32::try_from(MAX_OF_PURPOSE).unwrap();
        let mut state = State::default();
        let now = world.now;
        for number in 0..most {
            let mut id = [1; 16];
            id.first_chunk_mut::<4>().unwrap().copy_from_slice(&number.to_be_bytes());
            let sign_in = SignIn {
                id: SignInId::from_bytes(id),
                purpose: "oidc".parse().unwrap(),
                hash: hash(number),
                payload: SignInPayload::new("").unwrap(),
                created_at: now,
                expires_at: now.saturating_add(Duration::from_secs(60 + u64::from(number))),
            };
            state.put(sign_in.into());
        }
        world.state = state;
        assert_eq!(*begin(&mut world, most, 60).unwrap_err().kind(), ErrorKind::Exhausted);
        // A flood of one kind stops no other.
        begin_as(&mut world, most + 7, 3_600, "device").unwrap();
        take(&mut world, most + 7, "device").unwrap();
        world.advance(Duration::from_secs(60));
        begin(&mut world, most, 60).unwrap();
        assert_eq!(world.state.sign_ins().len(), MAX_OF_PURPOSE);
        assert!(world.state.sign_ins().by_hash(&hash(0)).is_none());
        assert_eq!(*begin(&mut world, most + 1, 60).unwrap_err().kind(), ErrorKind::Exhausted);
    }
}
