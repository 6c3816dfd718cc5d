//! API keys, pre-auth keys and sessions. Secrets are made here, shown once, and only their keyed
//! hashes go into commands.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use data_encoding::HEXLOWER;

use super::expect_reply;
use crate::command::{ApiKeyCommand, PreAuthKeyCommand, SessionCommand};
use crate::domain::{
    ApiKey, ApiKeyId, KeyFilter, KeyPrefix, NewApiKey, NewPreAuthKey, NewSession, Page,
    PageRequest, PreAuthKey, PreAuthKeyId, Secret, SecretHash, SecretScheme, Session, SessionId,
    SessionOwner, Timestamp, expired,
};
use crate::entropy::draw;
use crate::error::{EntityKind, Error, ErrorKind, Result};
use crate::handle::StoreHandle;
use crate::observe::Event;
use crate::secrets::{HashKey, Verdict, blake3_of};
use crate::view::View;

const API_KEY: Purpose = Purpose {
    name: "api_key",
    mark: "gwapi-",
    imported_mark: "hskey-api-",
    entity: EntityKind::ApiKey,
};
const PREAUTH_KEY: Purpose = Purpose {
    name: "preauth_key",
    mark: "gwauth-",
    imported_mark: "hskey-auth-",
    entity: EntityKind::PreAuthKey,
};
const SESSION: Purpose = Purpose {
    name: "session",
    mark: "gwsession-",
    imported_mark: "gwsession-",
    entity: EntityKind::Session,
};

/// Hashes the text of a pre-auth key that has no public part, as imports of such keys need it.
#[must_use]
pub fn preauth_key_hash(key: &HashKey, text: &str) -> SecretHash {
    key.hash(PREAUTH_KEY.name, text)
}

/// What a credential is for, and how its text begins.
struct Purpose {
    name: &'static str,
    mark: &'static str,
    /// Keys that were imported from Headscale 0.28 or later begin like this.
    imported_mark: &'static str,
    entity: EntityKind,
}

impl Purpose {
    /// One refusal for every reason, so that it tells nothing about which keys exist.
    fn refused(&self) -> Error {
        Error::new(ErrorKind::PermissionDenied, "is not valid").about(self.entity)
    }

    /// Splits a credential into its public part and its secret. The public part of an imported key
    /// is 12 characters long and may contain the separator.
    fn split<'t>(&self, text: &'t str) -> Option<(&'t str, &'t str)> {
        if let Some(rest) = text.strip_prefix(self.mark) {
            return rest.split_once('-');
        }
        if let Some(rest) = text.strip_prefix(self.imported_mark) {
            let (prefix, rest) = rest.split_at_checked(12)?;
            return Some((prefix, rest.strip_prefix('-')?));
        }
        // API keys of Headscale before 0.28.
        text.split_once('.')
    }

    /// What `known` has under the public part of a credential, and its secret, which of a key that was
    /// imported with a BLAKE3 hash is all of its text.
    fn find<'t, C>(
        &self,
        text: &'t str,
        known: impl Fn(&KeyPrefix) -> Option<C>,
    ) -> Option<(KeyPrefix, &'t str, C)> {
        let split = || {
            let (prefix, secret) = self.split(text)?;
            let prefix: KeyPrefix = prefix.parse().ok()?;
            known(&prefix).map(|found| (prefix, secret, found))
        };
        let whole = || {
            let prefix = KeyPrefix::of_blake3(blake3_of(text));
            known(&prefix).map(|found| (prefix, text, found))
        };
        split().or_else(whole)
    }
}

/// API keys: what lets programs use the control plane's API.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use ghostwire_store::ErrorKind;
/// use ghostwire_store::domain::NewApiKey;
///
/// let (key, secret) = store.api_keys().create(NewApiKey::default()).await?;
/// // Shown once, and stored nowhere.
/// let text = secret.expose();
/// assert_eq!(store.api_keys().authenticate(text).await?.id, key.id);
///
/// store.api_keys().revoke(key.id).await?;
/// let refused = store.api_keys().authenticate(text).await.unwrap_err();
/// assert_eq!(*refused.kind(), ErrorKind::PermissionDenied);
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait ApiKeyRepository: Send + Sync {
    /// Makes a key. Its secret is in the answer and nowhere else.
    ///
    /// # Behavior
    /// - `created_by` is the actor of the handle ([`Store::acting_as`](crate::store::Store::acting_as)).
    /// - The network's settings may limit how many live keys a user has
    ///   ([`NetworkSettings::max_api_keys_per_user`](crate::domain::NetworkSettings::max_api_keys_per_user));
    ///   however many are made at once, there are never more.
    ///
    /// # Errors
    /// `NotFound` for an unknown user; `Exhausted` if the user has as many live keys as the settings
    /// allow; `Crypto` if the store has no hash key; those of any write.
    async fn create(&self, key: NewApiKey) -> Result<(Arc<ApiKey>, Secret)>;

    /// The key that `text` is, if it is one and neither expired nor revoked.
    ///
    /// # Behavior
    /// - Wrong, unknown, expired and revoked are refused alike. Secrets are compared in constant time.
    /// - A use is recorded in the background, at most once a minute.
    /// - An imported bcrypt hash is checked on a thread of its own and replaced at its first success;
    ///   that takes tens of milliseconds or more. Calls with one such key are served one after the
    ///   other. An imported BLAKE3 hash is replaced, too.
    ///
    /// # Errors
    /// `PermissionDenied`; `Crypto` if it was hashed with another key; `Busy` if too many check the
    /// same imported key; `Unavailable` after the store was closed, or if a shared backend's view is
    /// too old and cannot be refreshed.
    async fn authenticate(&self, text: &str) -> Result<Arc<ApiKey>>;

    /// The key with this id; `None` if there is none.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, id: ApiKeyId) -> Result<Option<Arc<ApiKey>>>;

    /// A page of keys, in the order of their ids, which is that of their creation.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing; `Unavailable` after the store was closed.
    async fn list(&self, filter: &KeyFilter, page: &PageRequest) -> Result<Page<Arc<ApiKey>>>;

    /// Withdraws a key: it works no longer, and stays listed.
    ///
    /// # Errors
    /// `NotFound`, also the second time; those of any write.
    async fn revoke(&self, id: ApiKeyId) -> Result<Arc<ApiKey>>;

    /// Removes a key.
    ///
    /// # Errors
    /// `NotFound`, also the second time; those of any write.
    async fn delete(&self, id: ApiKeyId) -> Result<()>;

    /// Removes all keys that had expired or were revoked before this moment. Gives how many there were.
    ///
    /// # Behavior
    /// - A key that still works is never removed, however late the moment is.
    /// - Each has its line in the audit trail, as with [`delete`](ApiKeyRepository::delete).
    /// - Beyond what one commit holds it goes on in the next one.
    ///
    /// # Errors
    /// Those of any write.
    async fn sweep_expired(&self, before: Timestamp) -> Result<u64>;
}

/// Pre-auth keys: what admits nodes without a person at the keyboard.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use ghostwire_store::ErrorKind;
/// use ghostwire_store::domain::{
///     Admission, MachineKey, NewPreAuthKey, NodeKey, Registration, TagSet,
/// };
///
/// let tags = TagSet::new(["tag:ci".parse()?])?;
/// let new = NewPreAuthKey { tags, ephemeral: true, ..NewPreAuthKey::default() };
/// let (_, secret) = store.preauth_keys().create(new).await?;
///
/// // A machine presents the secret.
/// let key = store.preauth_keys().authenticate(secret.expose()).await?;
/// let machine = |number: u8| -> ghostwire_store::Result<Registration> {
///     let keys = (MachineKey::from_bytes([number; 32])?, NodeKey::from_bytes([number; 32])?);
///     Ok(Registration::new(keys.0, keys.1, "runner".parse()?, Admission::PreAuthKey(key.id)))
/// };
/// let node = store.nodes().register(machine(1)?).await?;
/// assert!(node.ephemeral && node.user.is_none());
///
/// // It admits one machine, since it is not reusable.
/// let refused = store.nodes().register(machine(2)?).await.unwrap_err();
/// assert_eq!(*refused.kind(), ErrorKind::PermissionDenied);
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait PreAuthKeyRepository: Send + Sync {
    /// Makes a key. Its secret is in the answer and nowhere else.
    ///
    /// # Behavior
    /// - The network's settings may limit how many usable keys a user has, as with API keys
    ///   ([`NetworkSettings::max_preauth_keys_per_user`](crate::domain::NetworkSettings::max_preauth_keys_per_user)).
    ///
    /// # Errors
    /// `NotFound` for an unknown user; `InvalidArgument` without user and tags; `Exhausted` if the user has
    /// as many usable keys as the settings allow; `Crypto` if the store has no hash key; those of any
    /// write.
    async fn create(&self, key: NewPreAuthKey) -> Result<(Arc<PreAuthKey>, Secret)>;

    /// The key that `text` is.
    ///
    /// # Behavior
    /// - Whether it may still admit a node is not decided here, but by
    ///   [`NodeRepository::register`](super::NodeRepository::register), which uses it up in the same
    ///   step.
    /// - An imported bcrypt hash costs what it costs for an API key; it is not computed for a key
    ///   that can admit nobody, which is refused here.
    ///
    /// # Errors
    /// `PermissionDenied` for an unknown key; `Crypto`, `Busy`, `Unavailable` as for API keys.
    async fn authenticate(&self, text: &str) -> Result<Arc<PreAuthKey>>;

    /// The key with this id; `None` if there is none.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, id: PreAuthKeyId) -> Result<Option<Arc<PreAuthKey>>>;

    /// A page of keys, in the order of their ids, which is that of their creation.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing; `Unavailable` after the store was closed.
    async fn list(&self, filter: &KeyFilter, page: &PageRequest) -> Result<Page<Arc<PreAuthKey>>>;

    /// Withdraws a key: it admits nobody any longer, and stays listed. Nodes that it admitted stay.
    ///
    /// # Errors
    /// `NotFound`, also the second time; those of any write.
    async fn revoke(&self, id: PreAuthKeyId) -> Result<Arc<PreAuthKey>>;

    /// Removes a key. Nodes that it admitted stay.
    ///
    /// # Errors
    /// `NotFound`, also the second time; those of any write.
    async fn delete(&self, id: PreAuthKeyId) -> Result<()>;

    /// Removes all keys that had expired or were revoked before this moment. Gives how many there were.
    ///
    /// # Behavior
    /// - As [`ApiKeyRepository::sweep_expired`]. One that was only used up stays.
    /// - Nodes that they admitted stay. A machine that used up one of them can no longer repeat its
    ///   registration.
    ///
    /// # Errors
    /// Those of any write.
    async fn sweep_expired(&self, before: Timestamp) -> Result<u64>;
}

/// Sessions: sign-ins that last.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use std::time::Duration;
///
/// use ghostwire_store::domain::{NewSession, NewUser, SessionOwner};
///
/// let alice = store.users().create(NewUser::local("alice".parse()?)).await?;
/// let day = Duration::from_secs(86_400);
/// let expires_at = store.clock().now()?.saturating_add(day);
/// let owner = SessionOwner::User(alice.id);
/// let new = NewSession { owner, node: None, client: None, expires_at };
///
/// let (session, token) = store.sessions().begin(new).await?;
/// let found = store.sessions().authenticate(token.expose()).await?;
/// assert_eq!(found.owner, owner);
///
/// // She is still there: another day.
/// store.sessions().touch(session.id, Some(expires_at.saturating_add(day))).await?;
/// store.sessions().end(session.id).await?;
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait SessionRepository: Send + Sync {
    /// Begins a session. Its token is in the answer and nowhere else.
    ///
    /// # Behavior
    /// - A user's session can name the node that it is begun from. It is then the session of both: it is
    ///   listed for either, and ends when either is deleted. That the node is the user's is not asked for,
    ///   nor looked after later: whoever authenticates gets both and compares.
    ///
    /// # Errors
    /// `NotFound` for an unknown owner or node; `InvalidArgument` if it would end at once, and for a node's
    /// own session with a node; `Crypto` if the store has no hash key; those of any write.
    async fn begin(&self, session: NewSession) -> Result<(Arc<Session>, Secret)>;

    /// The session that this token is for, if it has not expired.
    ///
    /// # Behavior
    /// - Wrong, unknown, ended and expired are refused alike. Secrets are compared in constant time.
    /// - A use is recorded at most once a minute.
    ///
    /// # Errors
    /// `PermissionDenied`; `Crypto`, `Unavailable` as for API keys.
    async fn authenticate(&self, token: &str) -> Result<Arc<Session>>;

    /// Records a use, and moves the end, if another one is given.
    ///
    /// # Behavior
    /// - A use is recorded at most once a minute; a new end always.
    ///
    /// # Errors
    /// `NotFound` if it ended or expired; `InvalidArgument` if it would end at once; those of any
    /// write.
    async fn touch(&self, id: SessionId, expires_at: Option<Timestamp>) -> Result<Arc<Session>>;

    /// A page of sessions, in the order of their ids, which is that of their beginning; of one owner,
    /// if given: of a node also those that users began from it. Expired ones are listed until they are
    /// swept.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing; `Unavailable` after the store was closed.
    async fn list(
        &self,
        owner: Option<SessionOwner>,
        page: &PageRequest,
    ) -> Result<Page<Arc<Session>>>;

    /// Ends a session, and removes it.
    ///
    /// # Errors
    /// `NotFound`, also the second time; those of any write.
    async fn end(&self, id: SessionId) -> Result<()>;

    /// Ends all sessions of an owner, those included that users began from it, if it is a node. Gives how
    /// many there were.
    ///
    /// # Behavior
    /// - Beyond what one commit holds it goes on in the next one. A session that is begun meanwhile may
    ///   stay.
    /// - Each that ends has a line in the audit trail, as with [`end`](SessionRepository::end).
    /// - An owner that has none, or does not exist, gives 0.
    ///
    /// # Errors
    /// Those of any write.
    async fn end_all(&self, owner: SessionOwner) -> Result<u64>;

    /// Removes all expired sessions. Gives how many there were.
    ///
    /// # Behavior
    /// - Nothing calls it by itself; the control plane does, once in a while.
    /// - Beyond what one commit holds it goes on in the next one.
    /// - It leaves no lines in the audit trail.
    ///
    /// # Errors
    /// Those of any write.
    async fn sweep(&self) -> Result<u64>;
}

/// What is proved by a secret.
trait Credential: Send + Sync {
    const PURPOSE: &'static Purpose;

    fn id(&self) -> [u8; 16];

    fn hash(&self) -> &SecretHash;
}

macro_rules! credentials {
    ($($type:ty: $purpose:expr),*) => {$(
        impl Credential for $type {
            const PURPOSE: &'static Purpose = &$purpose;

            fn id(&self) -> [u8; 16] {
                *self.id.as_bytes()
            }

            fn hash(&self) -> &SecretHash {
                &self.hash
            }
        }
    )*};
}
credentials!(ApiKey: API_KEY, PreAuthKey: PREAUTH_KEY, Session: SESSION);

/// A fresh credential: its public part, the hash of its secret, and its text.
struct Minted {
    prefix: KeyPrefix,
    hash: SecretHash,
    text: Secret,
}

impl StoreHandle {
    fn mint(&self, purpose: &Purpose, prefix: Option<String>) -> Result<Minted> {
        let key = self.hash_keys()?.current();
        let entropy = self.entropy();
        let prefix = match prefix {
            Some(prefix) => prefix,
            None => HEXLOWER.encode(&draw::<6>(entropy)?),
        };
        let secret = Secret::new(HEXLOWER.encode(&draw::<32>(entropy)?));
        let hash = key.hash(purpose.name, secret.expose());
        let text = Secret::new(format!("{}{prefix}-{}", purpose.mark, secret.expose()));
        Ok(Minted { prefix: prefix.parse()?, hash, text })
    }

    /// Tells how the check of a credential went.
    async fn verification<T>(
        &self,
        purpose: &Purpose,
        check: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Some(recorder) = &self.core.options.recorder else { return check.await };
        let began = Instant::now();
        let outcome = check.await;
        let error = outcome.as_ref().err().map(|error| error.kind().name());
        let took = began.elapsed();
        recorder.record(&Event::Verification { kind: purpose.name, took, error });
        outcome
    }

    /// What was found, if `secret` is its secret, and the hash to replace an imported one or one of a
    /// former key with. Found is nothing that no secret could make valid. `again` finds it in a later view.
    async fn check<C: Credential>(
        &self,
        found: Option<Arc<C>>,
        secret: &str,
        again: impl Fn(&View) -> Option<Arc<C>> + Send + Sync,
    ) -> Result<(Arc<C>, Option<SecretHash>)> {
        let (keys, purpose) = (self.hash_keys()?, C::PURPOSE);
        let keyed = || keys.current().hash(purpose.name, secret);
        // Whose secret it is, and, if that is known already, whether a keyed hash is to replace its own.
        let judge = |found: Option<Arc<C>>| {
            let found = found.ok_or_else(|| purpose.refused())?;
            match keys.verify(purpose.name, secret, found.hash())? {
                Verdict::Wrong => Err(purpose.refused()),
                Verdict::Right => Ok((found, Some(None))),
                Verdict::RightByAnother => Ok((found, Some(Some(keyed())))),
                Verdict::NeedsBcrypt => Ok((found, None)),
            }
        };
        let (found, known) = judge(found)?;
        if let Some(rehashed) = known {
            return Ok((found, rehashed));
        }
        let turn = self.imported_hashes().turn((purpose.entity, found.id())).await?;
        // Those in front may have replaced the hash, and the credential may have ended.
        let (found, known) = judge(again(&self.current_view()))?;
        if let Some(rehashed) = known {
            return Ok((found, rehashed));
        }
        if turn.check(secret, found.hash()).await? {
            Ok((found, Some(keyed())))
        } else {
            Err(purpose.refused())
        }
    }
}

#[async_trait]
impl ApiKeyRepository for StoreHandle {
    async fn create(&self, key: NewApiKey) -> Result<(Arc<ApiKey>, Secret)> {
        const OPERATION: &str = ApiKeyCommand::CREATE;
        let minted = self.mint(&API_KEY, None).map_err(|error| error.during(OPERATION))?;
        let id = self.new_id(OPERATION, ApiKeyId::time_ordered)?;
        let command = ApiKeyCommand::Create { id, prefix: minted.prefix, hash: minted.hash, key };
        let key = expect_reply!(self.run(command).await?, ApiKey)?;
        Ok((key, minted.text))
    }

    async fn authenticate(&self, text: &str) -> Result<Arc<ApiKey>> {
        const OPERATION: &str = "api_key.authenticate";
        let view = self.credential_view(OPERATION).await?;
        let checked = async {
            let known = |prefix: &KeyPrefix| view.api_keys().by_prefix(prefix);
            let found = API_KEY.find(text, known).ok_or_else(|| API_KEY.refused())?;
            let (prefix, secret, key) = found;
            let live = |key: &Arc<ApiKey>, view: &View| {
                let now = self.now_at_most().max(view.time());
                key.is_active(now).then(|| Arc::clone(key))
            };
            let again = |view: &View| live(view.api_keys().by_prefix(&prefix)?, view);
            self.check(live(key, &view), secret, again).await
        };
        let checked = self.verification(&API_KEY, checked).await;
        let (key, rehashed) = checked.map_err(|error| error.during(OPERATION))?;
        if let Some(to) = rehashed {
            let command = ApiKeyCommand::Rehash { id: key.id, from: key.hash.clone(), to };
            self.run_in_background(command);
        }
        if key
            .last_used_at
            .is_none_or(|last| self.now_at_most().since(last) >= std::time::Duration::from_secs(60))
        {
            self.run_in_background(ApiKeyCommand::Touch { id: key.id });
        }
        Ok(key)
    }

    async fn get(&self, id: ApiKeyId) -> Result<Option<Arc<ApiKey>>> {
        Ok(self.open_view("api_key.get")?.api_keys().get(id).cloned())
    }

    async fn list(&self, filter: &KeyFilter, page: &PageRequest) -> Result<Page<Arc<ApiKey>>> {
        let view = self.open_view("api_key.list")?;
        view.api_keys().list(filter, page).map_err(|error| error.during("api_key.list"))
    }

    async fn revoke(&self, id: ApiKeyId) -> Result<Arc<ApiKey>> {
        expect_reply!(self.run(ApiKeyCommand::Revoke { id }).await?, ApiKey)
    }

    async fn delete(&self, id: ApiKeyId) -> Result<()> {
        self.run(ApiKeyCommand::Delete { id }).await.map(|_| ())
    }

    async fn sweep_expired(&self, before: Timestamp) -> Result<u64> {
        self.count_in_parts(|part| ApiKeyCommand::SweepExpired { before, part }.into()).await
    }
}

#[async_trait]
impl PreAuthKeyRepository for StoreHandle {
    async fn create(&self, key: NewPreAuthKey) -> Result<(Arc<PreAuthKey>, Secret)> {
        const OPERATION: &str = PreAuthKeyCommand::CREATE;
        let minted = self.mint(&PREAUTH_KEY, None).map_err(|error| error.during(OPERATION))?;
        let id = self.new_id(OPERATION, PreAuthKeyId::time_ordered)?;
        let command =
            PreAuthKeyCommand::Create { id, prefix: minted.prefix, hash: minted.hash, key };
        let key = expect_reply!(self.run(command).await?, PreAuthKey)?;
        Ok((key, minted.text))
    }

    async fn authenticate(&self, text: &str) -> Result<Arc<PreAuthKey>> {
        const OPERATION: &str = "preauth_key.authenticate";
        let view = self.credential_view(OPERATION).await?;
        let checked = async {
            let known = |prefix: &KeyPrefix| view.preauth_keys().by_prefix(prefix);
            match PREAUTH_KEY.find(text, known) {
                Some((prefix, secret, key)) => {
                    let worth_checking = |key: &Arc<PreAuthKey>, view: &View| {
                        let now = || self.now_at_most().max(view.time());
                        let worth = key.hash.scheme() != SecretScheme::Bcrypt
                            || key.is_worth_checking(now());
                        worth.then(|| Arc::clone(key))
                    };
                    let again =
                        |view: &View| worth_checking(view.preauth_keys().by_prefix(&prefix)?, view);
                    self.check(worth_checking(key, &view), secret, again).await
                }
                // An imported key without a public part is found by its keyed hash, which nobody
                // can compute without the hash key.
                None => {
                    let keys = self.hash_keys()?;
                    let found = keys.iter().find_map(|key| {
                        let hash = preauth_key_hash(key, text);
                        view.preauth_keys().by_hash(&hash).map(|found| (found.clone(), key.id()))
                    });
                    let (found, by) = found.ok_or_else(|| PREAUTH_KEY.refused())?;
                    let current = keys.current();
                    let is_former = by != current.id();
                    Ok((found, is_former.then(|| preauth_key_hash(current, text))))
                }
            }
        };
        let checked = self.verification(&PREAUTH_KEY, checked).await;
        let (key, rehashed) = checked.map_err(|error| error.during(OPERATION))?;
        if let Some(to) = rehashed {
            let command = PreAuthKeyCommand::Rehash { id: key.id, from: key.hash.clone(), to };
            self.run_in_background(command);
        }
        Ok(key)
    }

    async fn get(&self, id: PreAuthKeyId) -> Result<Option<Arc<PreAuthKey>>> {
        Ok(self.open_view("preauth_key.get")?.preauth_keys().get(id).cloned())
    }

    async fn list(&self, filter: &KeyFilter, page: &PageRequest) -> Result<Page<Arc<PreAuthKey>>> {
        let view = self.open_view("preauth_key.list")?;
        view.preauth_keys().list(filter, page).map_err(|error| error.during("preauth_key.list"))
    }

    async fn revoke(&self, id: PreAuthKeyId) -> Result<Arc<PreAuthKey>> {
        let command = PreAuthKeyCommand::Revoke { id };
        expect_reply!(self.run(command).await?, PreAuthKey)
    }

    async fn delete(&self, id: PreAuthKeyId) -> Result<()> {
        self.run(PreAuthKeyCommand::Delete { id }).await.map(|_| ())
    }

    async fn sweep_expired(&self, before: Timestamp) -> Result<u64> {
        self.count_in_parts(|part| PreAuthKeyCommand::SweepExpired { before, part }.into()).await
    }
}

#[async_trait]
impl SessionRepository for StoreHandle {
    async fn begin(&self, session: NewSession) -> Result<(Arc<Session>, Secret)> {
        const OPERATION: &str = SessionCommand::BEGIN;
        let id: SessionId = self.new_id(OPERATION, SessionId::time_ordered)?;
        let public = HEXLOWER.encode(id.as_bytes());
        let minted = self.mint(&SESSION, Some(public)).map_err(|error| error.during(OPERATION))?;
        let command = SessionCommand::Begin { id, hash: minted.hash, session };
        let session = expect_reply!(self.run(command).await?, Session)?;
        Ok((session, minted.text))
    }

    async fn authenticate(&self, token: &str) -> Result<Arc<Session>> {
        const OPERATION: &str = "session.authenticate";
        let view = self.credential_view(OPERATION).await?;
        let checked = async {
            let parts = SESSION.split(token).and_then(|(public, secret)| {
                let id = HEXLOWER.decode(public.as_bytes()).ok()?;
                Some((SessionId::from_bytes(id.try_into().ok()?), secret))
            });
            let (id, secret) = parts.ok_or_else(|| SESSION.refused())?;
            let find = |view: &View| {
                let now = self.now_at_most().max(view.time());
                let session = view.sessions().get(id);
                session.filter(|session| !expired(Some(session.expires_at), now)).cloned()
            };
            self.check(find(&view), secret, find).await.map(|(session, _)| session)
        };
        let checked = self.verification(&SESSION, checked).await;
        checked.map_err(|error| error.during(OPERATION))
    }

    async fn touch(&self, id: SessionId, expires_at: Option<Timestamp>) -> Result<Arc<Session>> {
        let command = SessionCommand::Touch { id, expires_at };
        expect_reply!(self.run(command).await?, Session)
    }

    async fn list(
        &self,
        owner: Option<SessionOwner>,
        page: &PageRequest,
    ) -> Result<Page<Arc<Session>>> {
        let view = self.open_view("session.list")?;
        view.sessions().list(owner, page).map_err(|error| error.during("session.list"))
    }

    async fn end(&self, id: SessionId) -> Result<()> {
        self.run(SessionCommand::End { id }).await.map(|_| ())
    }

    async fn end_all(&self, owner: SessionOwner) -> Result<u64> {
        self.count_in_parts(|part| SessionCommand::EndAll { owner, part }.into()).await
    }

    async fn sweep(&self) -> Result<u64> {
        self.count_in_parts(|part| SessionCommand::Sweep { part }.into()).await
    }
}
