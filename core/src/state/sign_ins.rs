//! Sign-ins that are under way.

use std::sync::Arc;

use super::collection::{Collection, Index, update_set};
use super::decision::{Context, Decision, Draft, EntityId};
use super::part::sweep;
use super::unique::UniqueIndex;
use super::{Set, State};
use crate::command::SignInCommand;
use crate::domain::{
    NewSignIn, Page, PageRequest, SecretHash, SecretScheme, SignIn, SignInId, Text, Timestamp,
    expired,
};
use crate::entity::{Rules, dates};
use crate::error::{EntityKind, Error, ErrorKind, Result};

/// Whoever asks for a sign-in makes one, so there are at most so many at once.
const MAX_SIGN_INS: usize = 20_000;

/// All sign-ins under way, also those that have expired but were not swept yet.
pub type SignIns = Collection<SignIn, SignInIndex>;

#[derive(Clone, Default, Debug)]
pub struct SignInIndex {
    by_hash: UniqueIndex<SignInId>,
    by_expiry: Set<(Timestamp, SignInId)>,
}

impl Index<SignIn> for SignInIndex {
    fn update(&mut self, id: SignInId, old: Option<&SignIn>, new: Option<&Arc<SignIn>>) {
        let ends = |sign_in: &SignIn| (sign_in.expires_at, id);
        let new = new.map(AsRef::as_ref);
        self.by_hash.update(id, old.map(|it| &it.hash), new.map(|it| &it.hash));
        update_set(&mut self.by_expiry, old.map(ends), new.map(ends));
    }
}

impl SignIns {
    /// The one whose state has this hash.
    #[must_use]
    pub fn by_hash(&self, hash: &SecretHash) -> Option<&Arc<SignIn>> {
        self.index.by_hash.find(hash, |id| self.get(id).filter(|it| it.hash == *hash))
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
    if sign_ins.len() < MAX_SIGN_INS {
        return Ok(Decision::put(sign_in));
    }
    let first = sign_ins.index.by_expiry.get_min();
    let Some((_, gone)) = first.filter(|(at, _)| expired(Some(*at), context.now)) else {
        let message = "too many are under way; try again when some have ended or expired";
        return Err(Error::new(ErrorKind::Exhausted, message)
            .about(EntityKind::SignIn)
            .with("limit", MAX_SIGN_INS));
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

fn take(state: &State, hash: &SecretHash, purpose: &Text<64>, now: Timestamp) -> Result<Decision> {
    let found = state.sign_ins().by_hash(hash);
    let valid = |it: &&Arc<SignIn>| it.purpose == *purpose && !expired(Some(it.expires_at), now);
    let taken = found.filter(valid).ok_or_else(refused)?;
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
        let id = SignInId::from_bytes(world.id());
        let sign_in = NewSignIn {
            purpose: "oidc".parse().unwrap(),
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
    fn there_are_so_many_at_most_and_expired_ones_make_room() {
        let mut world = World::new();
        let most = u32::try_from(MAX_SIGN_INS).unwrap();
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
        world.advance(Duration::from_secs(60));
        begin(&mut world, most, 60).unwrap();
        assert_eq!(world.state.sign_ins().len(), MAX_SIGN_INS);
        assert!(world.state.sign_ins().by_hash(&hash(0)).is_none());
        assert_eq!(*begin(&mut world, most + 1, 60).unwrap_err().kind(), ErrorKind::Exhausted);
    }
}
