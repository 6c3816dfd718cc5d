//! Sign-ins that are under way. Their states are hashed here.

use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::SignInCommand;
use crate::domain::{NewSignIn, SecretHash, SignIn, SignInId, SignInPayload, Text};
use crate::error::{EntityKind, Error, Result};
use crate::handle::StoreHandle;
use crate::secrets::HashKey;
use crate::state::sign_ins::{find, refused};
use crate::view::View;

/// A shorter state could be guessed.
const LEAST_STATE: usize = 8;
/// More than any provider sends back.
const LONGEST_STATE: usize = 1024;

/// Sign-ins under way: what a control plane has to remember from the moment at which it sends a person to
/// the identity provider until the person comes back, to whichever of its processes.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use std::time::Duration;
///
/// use ghostwire_store::ErrorKind;
/// use ghostwire_store::domain::{NewSignIn, SignInPayload, Text};
///
/// let purpose: Text<64> = "oidc".parse()?;
/// let payload = SignInPayload::new(r#"{"nonce":"n-0S6_WzA2Mj","redirect":"/machines"}"#)?;
/// let expires_at = store.clock().now()?.saturating_add(Duration::from_secs(600));
/// let new = NewSignIn { purpose: purpose.clone(), payload, expires_at };
/// // The `state` of the request to the provider, from a source of random numbers.
/// let state = "af0ifjsldkj-3f7Jx0";
/// store.sign_ins().begin(state, new).await?;
///
/// // The provider sends it back.
/// let taken = store.sign_ins().take(&purpose, state).await?;
/// assert!(taken.payload.expose().contains("nonce"));
/// // Nobody can use it a second time.
/// let again = store.sign_ins().take(&purpose, state).await.unwrap_err();
/// assert_eq!(*again.kind(), ErrorKind::PermissionDenied);
/// # Ok(()) }).unwrap();
/// ```
///
/// A device that has no browser asks again and again whether somebody has said yes:
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// # use std::time::Duration;
/// # use ghostwire_store::domain::{NewSignIn, SignInPayload, Text};
/// # let expires_at = store.clock().now()?.saturating_add(Duration::from_secs(600));
/// let device: Text<64> = "device".parse()?;
/// let (pending, approved) = (SignInPayload::new("pending")?, SignInPayload::new("approved")?);
/// let new = NewSignIn { purpose: device.clone(), payload: pending.clone(), expires_at };
/// store.sign_ins().begin("GmRhmhcxhwAzkoEqiMEg", new).await?;
/// assert_eq!(store.sign_ins().peek(&device, "GmRhmhcxhwAzkoEqiMEg").await?.payload, pending);
///
/// // Somebody does, in whichever process.
/// let state = "GmRhmhcxhwAzkoEqiMEg";
/// store.sign_ins().replace(&device, state, &pending, approved.clone()).await?;
/// assert_eq!(store.sign_ins().peek(&device, state).await?.payload, approved);
/// store.sign_ins().take(&device, state).await?;
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait SignInRepository: Send + Sync {
    /// Begins a sign-in that is found by `state`, a text of 8 to 1,024 bytes which the caller draws at
    /// random.
    ///
    /// # Behavior
    /// - Of the state only a keyed hash is stored. The payload is stored as it is, and shown by nothing but
    ///   [`take`](SignInRepository::take) and exports.
    /// - At most 20,000 of a purpose are under way at once. When there are as many, one of them that has
    ///   expired makes room. At most 16 purposes are.
    /// - It leaves no line in the audit trail: anybody can begin one.
    ///
    /// # Errors
    /// `InvalidArgument` for a state that is too short or too long, or an end that is not within a day
    /// from now; `AlreadyExists` (`hash`) while another has this state; `Exhausted` if too many are under way;
    /// `Crypto` if the store has no hash key; those of any write.
    async fn begin(&self, state: &str, sign_in: NewSignIn) -> Result<Arc<SignIn>>;

    /// The sign-in with this purpose and this state, which is thereby over: of any number of calls, in
    /// whichever processes, one gets it.
    ///
    /// # Behavior
    /// - Unknown, taken and expired, and those of another purpose, are refused alike.
    /// - It leaves no line in the audit trail; what the sign-in leads to does.
    ///
    /// # Errors
    /// `PermissionDenied`; `Crypto` if the store has no hash key; those of any write.
    async fn take(&self, purpose: &Text<64>, state: &str) -> Result<Arc<SignIn>>;

    /// The sign-in with this purpose and this state as it is now. It stays.
    ///
    /// # Behavior
    /// - Refused as by [`take`](SignInRepository::take). It writes nothing.
    ///
    /// # Errors
    /// `PermissionDenied`; `Crypto` if the store has no hash key; `Unavailable` after the store was closed.
    async fn peek(&self, purpose: &Text<64>, state: &str) -> Result<Arc<SignIn>>;

    /// Gives the sign-in with this purpose and this state another payload, if it still has this one. Gives
    /// it as it is now.
    ///
    /// # Behavior
    /// - Refused as by [`take`](SignInRepository::take). Its end stays as it is.
    /// - Of any number of calls that expect the same payload, in whichever processes, one succeeds.
    /// - It leaves no line in the audit trail.
    ///
    /// # Errors
    /// `PermissionDenied`; `Conflict` if its payload is another one by now; `Crypto` if the store has no hash
    /// key; those of any write.
    async fn replace(
        &self,
        purpose: &Text<64>,
        state: &str,
        expected: &SignInPayload,
        payload: SignInPayload,
    ) -> Result<Arc<SignIn>>;

    /// Removes all that have expired. Gives how many there were.
    ///
    /// # Behavior
    /// - As [`SessionRepository::sweep`](super::SessionRepository::sweep).
    ///
    /// # Errors
    /// Those of any write.
    async fn sweep(&self) -> Result<u64>;
}

fn hash_of_state(key: &HashKey, state: &str) -> SecretHash {
    key.hash("sign_in", state)
}

impl StoreHandle {
    /// The hash under which a sign-in is there that has this state. Guesses are refused here, so that they
    /// do not occupy the writer.
    async fn known_state(&self, state: &str) -> Result<(View, SecretHash)> {
        let keys = self.hash_keys()?;
        let view = self.newest_view().await?;
        let mut hashes = keys.iter().map(|key| hash_of_state(key, state));
        let hash = hashes.find(|hash| view.sign_ins().by_hash(hash).is_some());
        hash.map(|hash| (view, hash)).ok_or_else(refused)
    }
}

#[async_trait]
impl SignInRepository for StoreHandle {
    async fn begin(&self, state: &str, sign_in: NewSignIn) -> Result<Arc<SignIn>> {
        const OPERATION: &str = SignInCommand::BEGIN;
        if !(LEAST_STATE..=LONGEST_STATE).contains(&state.len()) {
            return Err(Error::invalid("the state of a sign-in must be 8 to 1024 bytes long")
                .about(EntityKind::SignIn)
                .with("length", state.len())
                .during(OPERATION));
        }
        let keys = self.hash_keys().map_err(|error| error.during(OPERATION))?;
        let hash = hash_of_state(keys.current(), state);
        let id = self.new_id(OPERATION, SignInId::time_ordered)?;
        let command = SignInCommand::Begin { id, hash, sign_in };
        expect_reply!(self.run(command).await?, SignIn)
    }

    async fn take(&self, purpose: &Text<64>, state: &str) -> Result<Arc<SignIn>> {
        let known = self.known_state(state).await;
        let (_, hash) = known.map_err(|error| error.during(SignInCommand::TAKE))?;
        let command = SignInCommand::Take { hash, purpose: purpose.clone() };
        expect_reply!(self.run(command).await?, SignIn)
    }

    async fn peek(&self, purpose: &Text<64>, state: &str) -> Result<Arc<SignIn>> {
        let found = async {
            let (view, hash) = self.known_state(state).await?;
            let now = self.now_at_most().max(view.time());
            find(view.sign_ins(), &hash, purpose, now).cloned()
        };
        found.await.map_err(|error| error.during("sign_in.peek"))
    }

    async fn replace(
        &self,
        purpose: &Text<64>,
        state: &str,
        expected: &SignInPayload,
        payload: SignInPayload,
    ) -> Result<Arc<SignIn>> {
        let known = self.known_state(state).await;
        let (_, hash) = known.map_err(|error| error.during(SignInCommand::REPLACE))?;
        let (purpose, from) = (purpose.clone(), expected.clone());
        let command = SignInCommand::Replace { hash, purpose, from, to: payload };
        expect_reply!(self.run(command).await?, SignIn)
    }

    async fn sweep(&self) -> Result<u64> {
        self.count_in_parts(|part| SignInCommand::Sweep { part }.into()).await
    }
}
