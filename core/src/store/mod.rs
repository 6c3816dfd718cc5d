//! The store: what Ghostwire holds.

mod companion;
mod implementation;
mod open;
mod timeline;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{Attestation, BackendInfo};
use crate::block::Serial;
use crate::changes::{ChangeStream, LogPosition};
use crate::command::{Restore, Restored, Transaction};
use crate::digest::Digests;
use crate::domain::{Actor, InstanceId, LineageId, SideId, StoreId};
use crate::error::Result;
use crate::health::Health;
use crate::keys::StoreKeys;
use crate::migration::MigrationInfo;
use crate::position::{Epoch, Position};
use crate::repository::*;
use crate::state::Reply;
use crate::view::View;
use crate::writer::Committed;

pub use companion::{Companion, WeakStore};
pub use open::open;
pub use timeline::begin_timeline;

/// The storage of a control plane: typed repositories, snapshots, and a feed of changes.
///
/// A handle is an `Arc<dyn Store>`, which is cheap to clone; all handles of one opening share its
/// writer. No caller can tell which backend it runs on, except by speed.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// use ghostwire_store::command::{Part, Precondition, Transaction, UserCommand};
/// use ghostwire_store::domain::{NewUser, UserId};
///
/// // A write answers when it is durable.
/// let alice = store.users().create(NewUser::local("alice".parse()?)).await?;
///
/// // Reads are plain functions on a snapshot, which never changes.
/// let before = store.view();
/// assert_eq!(before.users().get(alice.id), Some(&alice));
///
/// // Several writes in one commit, all or none; what they rely on is checked in the same step.
/// let bob = UserId::time_ordered(store.clock().now()?, [7; 10]);
/// let replace = Transaction::new()
///     .require(Precondition::UserRevision(alice.id, alice.revision))?
///     .then(UserCommand::Delete { id: alice.id, cascade: true, part: Part::WHOLE })?
///     .then(UserCommand::Create { id: bob, user: NewUser::local("bob".parse()?) })?;
/// store.transact(replace).await?;
/// assert!(before.users().get(alice.id).is_some());
/// assert!(store.view().users().get(alice.id).is_none());
///
/// // Completes what was accepted and releases the files.
/// store.close().await?;
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// People and service accounts.
    fn users(&self) -> &dyn UserRepository;
    /// The machines of the mesh.
    fn nodes(&self) -> &dyn NodeRepository;
    /// Who is online, and where.
    fn presence(&self) -> &dyn PresenceRepository;
    /// The processes of the control plane that hold connections.
    fn instances(&self) -> &dyn InstanceRepository;
    /// Prefixes outside the mesh that nodes lead to.
    fn routes(&self) -> &dyn RouteRepository;
    /// What lets programs use the control plane's API.
    fn api_keys(&self) -> &dyn ApiKeyRepository;
    /// What admits nodes without a person at the keyboard.
    fn preauth_keys(&self) -> &dyn PreAuthKeyRepository;
    /// Versions of the access policy.
    fn policies(&self) -> &dyn PolicyRepository;
    /// DNS records beside the labels of nodes.
    fn dns(&self) -> &dyn DnsRepository;
    /// Sign-ins that last.
    fn sessions(&self) -> &dyn SessionRepository;
    /// Sign-ins that have begun and are not complete.
    fn sign_ins(&self) -> &dyn SignInRepository;
    /// The documents that hold for the whole network.
    fn settings(&self) -> &dyn SettingRepository;
    /// What nodes and the network measure.
    fn metrics(&self) -> &dyn MetricRepository;
    /// Who did what.
    fn audit(&self) -> &dyn AuditRepository;
    /// The store's time.
    fn clock(&self) -> &dyn ClockRepository;
    /// Who follows the log from elsewhere, and the log itself.
    fn consumers(&self) -> &dyn ConsumerRepository;

    /// The keys of a sealed store.
    ///
    /// # Errors
    /// `Unsupported` for a store that has none.
    fn keys(&self) -> Result<StoreKeys>;

    /// The last durable state.
    ///
    /// # Behavior
    /// - Takes constant time, no lock and no disk. It never changes, however long it is kept, and keeps
    ///   its memory alive.
    /// - A write whose `Ok` came before is in it. On a shared backend it may lag behind other
    ///   processes: [`View::age`] says how far.
    /// - After `close` it still gives the last state.
    fn view(&self) -> View;

    /// A view that holds every commit which was durable when this was called, also those of other
    /// processes.
    ///
    /// # Behavior
    /// - Asks the backend only if that is shared; otherwise it is [`view`](Store::view).
    ///
    /// # Errors
    /// `Unavailable`.
    async fn fresh_view(&self) -> Result<View>;

    /// Commits after `after`, one by one, as they become durable; it waits at the end. The serial
    /// last seen is all that is needed to continue in another process.
    ///
    /// # Behavior
    /// - Every commit comes once, in order. Metrics make no commit.
    /// - It ends when the store is closed; with `Compacted` if the blocks it needs are gone: take a
    ///   view, and watch after its serial; with `Unexpected` if the store ended by a fault of its own.
    /// - It begins with `Conflict` if the store does not have that serial yet, so was put back to an
    ///   older copy. One that has since passed the serial it cannot tell:
    ///   [`watch_from`](Store::watch_from) can.
    fn watch(&self, after: Serial) -> ChangeStream;

    /// Like [`watch`](Store::watch), after a position that [`CommitChanges::log_position`] or [`View::log_position`]
    /// gave.
    ///
    /// # Behavior
    /// - Its first item is `Conflict` if this store's history does not contain the position: it was put
    ///   back to an older copy, or is another store. What the caller knows is then of a history that is
    ///   gone: forget it, take a view, and watch from its position.
    ///
    /// [`CommitChanges::log_position`]: crate::changes::CommitChanges::log_position
    fn watch_from(&self, position: LogPosition) -> ChangeStream;

    /// Several commands in one commit, all or nothing. Gives their replies in order.
    ///
    /// # Behavior
    /// - At most 10,000 preconditions and commands, and 256 MiB. Each command sees those before it.
    /// - Preconditions are checked first, in the same step: no other write comes in between.
    ///
    /// # Errors
    /// `Conflict` if a precondition does not hold; otherwise the error of the first command that
    /// is refused, with its `step`, counted from 0; `Exhausted` if it is too large for one commit;
    /// those of any write.
    async fn transact(&self, transaction: Transaction) -> Result<Committed<Vec<Reply>>>;

    /// Brings in whole entities, for imports and restores, with their ids, times and revisions.
    ///
    /// # Behavior
    /// - What is referred to comes first.
    /// - One that is there already, equal in every field, counts as unchanged, so an interrupted import
    ///   can be run again. Nothing is overwritten.
    /// - With `skip_invalid` what breaks a rule is left out and reported; otherwise the first such
    ///   entity rejects all of them.
    /// - It leaves no lines in the audit trail.
    ///
    /// # Errors
    /// As for the entities' own writes; `AlreadyExists` (`id`) for another entity of the same id;
    /// `Exhausted` if it is too large for one commit.
    async fn restore(&self, restore: Restore) -> Result<Committed<Restored>>;

    /// A handle on the same store whose writes the audit trail ascribes to `actor`, with the address and the
    /// user agent of the request. Making one is cheap; a name alone makes an actor, too.
    fn acting_as(&self, actor: Actor) -> Arc<dyn Store>;

    /// A handle on the same store whose connections are held by this instance: so say the presences of nodes
    /// that connect through it. Making one is cheap.
    ///
    /// # Behavior
    /// - Once the instance is over, [`connect`](PresenceRepository::connect),
    ///   [`open`](PresenceRepository::open) and [`heartbeat`](PresenceRepository::heartbeat) give `NotFound`.
    fn as_instance(&self, instance: InstanceId) -> Arc<dyn Store>;

    /// A handle that does not keep the store open, for what serves it to others and has to end with it.
    fn downgrade(&self) -> WeakStore;

    /// The digests of everything stored. Equal digests mean equal content, on any backend.
    ///
    /// # Behavior
    /// - The state's costs time in proportion to what changed since the last one, those of the series
    ///   in proportion to all of them.
    /// - Under writes, the state's is of one moment and those of the series are of none.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    async fn digests(&self) -> Result<Digests>;

    /// The digest of the state, signed, for somebody who has no key and no access.
    ///
    /// # Behavior
    /// - It is of one moment, whose serial it names, and costs what [`digests`](Store::digests) does for
    ///   the state. Nobody waits meanwhile.
    /// - Nothing is written, so a store that was opened to be read signs, too.
    ///
    /// # Errors
    /// `Unsupported` if the store is not sealed, so has no keys; `Unavailable`, also if the clock is not
    /// to be trusted.
    async fn attest(&self) -> Result<Attestation>;

    /// Brings every block into rows. Gives the serial that the rows then hold.
    ///
    /// # Errors
    /// `Unavailable`, `ReadOnly`.
    async fn checkpoint(&self) -> Result<Serial>;

    /// Reads everything stored and checks it: the engine's own checks, every row, every block, the
    /// chain of blocks, and that what is stored amounts to what is in memory.
    ///
    /// # Behavior
    /// - Nobody waits meanwhile: rows are read page by page while others write, and compared with a
    ///   snapshot and the blocks since.
    /// - It takes time in proportion to what is stored, and memory in proportion to the blocks that are
    ///   kept and to what changes meanwhile.
    ///
    /// # Errors
    /// `Corrupt`, saying where; `Unavailable`.
    async fn verify(&self) -> Result<()>;

    /// Proves that a write would be durable now, and gives how long that took, as a write would have. For
    /// health checks; views and `info` show nothing of a disk that is full.
    ///
    /// ```
    /// # ghostwire_store_memory::example(async |store| {
    /// let before = store.view().position();
    /// let took = store.probe().await?;
    /// assert!(took < std::time::Duration::from_secs(60));
    /// assert_eq!(store.view().position(), before);
    /// # Ok(()) }).unwrap();
    /// ```
    ///
    /// # Behavior
    /// - It goes the way of a write: through the queue, the writer and the disk, which is synchronised. On a
    ///   file it costs what the smallest commit does. It makes no block, changes nothing and moves no position.
    /// - A failed one is dealt with like a failed write: the backend is reopened, and compared with what was
    ///   acknowledged. Once it succeeds, writes do.
    ///
    /// # Errors
    /// Those of any write, but for the clock's.
    async fn probe(&self) -> Result<Duration>;

    /// Whether the store can do its work, from what is in memory: for dashboards, and for whoever asks often.
    /// Of the disk it knows what the last commit and the last probe came to.
    ///
    /// # Behavior
    /// - Constant time; asks the file system for its free space and touches nothing that is stored.
    /// - After `close` it says so.
    fn health(&self) -> Health;

    /// Whether the store can do its work, after a [`probe`](Store::probe): for readiness checks.
    ///
    /// ```
    /// # ghostwire_store_memory::example(async |store| {
    /// use ghostwire_store_core::health::{CheckName, Condition};
    ///
    /// let health = store.check_health().await;
    /// assert_eq!(health.state, Condition::Ready);
    /// assert!(health.check(CheckName::Writable).is_some_and(|check| !check.has_failed()));
    /// store.close().await?;
    /// assert_eq!(store.check_health().await.state, Condition::Stopped);
    /// # Ok(()) }).unwrap();
    /// ```
    ///
    /// # Behavior
    /// - However many ask, there is one probe at a time, and one in 5 seconds at most
    ///   ([`HealthOptions`](crate::options::HealthOptions)).
    /// - It takes 2 seconds at most. A probe that takes longer goes on, and the store counts as not writable
    ///   until it ends.
    async fn check_health(&self) -> Health;

    /// What the store is and does, as numbers for people and dashboards. Takes no lock that a write
    /// holds for long, and reads nothing that is stored.
    fn info(&self) -> StoreInfo;

    /// Completes what was accepted, brings it into rows, and releases the files: when this returns,
    /// they are free.
    ///
    /// # Behavior
    /// - Every later call on any handle of this store gives `Unavailable`, except [`view`](Store::view);
    ///   every `watch` ends.
    /// - Closing again, also after a call that was given up, waits for the same end and has the same
    ///   outcome. Dropping the future takes nothing back.
    /// - Dropping every handle instead also ends the writer, and loses nothing; the next opening then
    ///   reads more blocks.
    ///
    /// # Errors
    /// `Unavailable` if the last bytes could not be written; `Unexpected` if the store had ended by
    /// a fault of its own. What was acknowledged is durable all the same.
    async fn close(&self) -> Result<()>;
}

/// What a store is and does, for people and dashboards.
#[derive(Debug, Clone, serde::Serialize)]
pub struct StoreInfo {
    /// What the backend says about itself.
    pub backend: BackendInfo,
    /// The network.
    pub store: StoreId,
    /// The database that was opened.
    pub side: SideId,
    /// The history of the network.
    pub lineage: LineageId,
    /// The epoch in which this writes.
    pub epoch: Epoch,
    /// How many commits changed what is stored.
    pub position: Position,
    /// The last durable block.
    pub serial: Serial,
    /// Dirty rows that wait to be flushed.
    pub dirty_rows: u64,
    /// Commands served since the store was opened.
    pub commands: u64,
    /// Those that were refused.
    pub rejected: u64,
    /// Commits that held them.
    pub groups: u64,
    /// Checkpoints that were completed since the store was opened.
    pub checkpoints: u64,
    /// Commits whose outcome had to be found out.
    pub recoveries: u64,
    /// Imported hashes that were computed to check a secret. Those that are not first uses of a key
    /// are guesses.
    pub imported_hash_checks: u64,
    /// Of a store that can move to another database; `None` of any other.
    pub migration: Option<MigrationInfo>,
}
