//! The store: what Ghostwire holds.

mod handle;
mod open;
mod queue;
mod shown;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::BackendInfo;
use crate::block::Serial;
use crate::changes::{ChangeStream, Place};
use crate::command::{Restore, Restored, Transaction};
use crate::digest::Digests;
use crate::domain::ActorName;
use crate::error::Result;
use crate::repository::*;
use crate::state::Reply;
use crate::view::View;
use crate::writer::Committed;

pub use handle::StoreHandle;
pub use open::open;

/// The storage of a control plane. Get one from the facade's `open`; hold it as `Arc<dyn Store>`.
///
/// No caller can tell which backend it runs on, except by speed.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Users.
    fn users(&self) -> &dyn UserRepository;
    /// Nodes.
    fn nodes(&self) -> &dyn NodeRepository;
    /// Who is online.
    fn presence(&self) -> &dyn PresenceRepository;
    /// Routes.
    fn routes(&self) -> &dyn RouteRepository;
    /// API keys.
    fn api_keys(&self) -> &dyn ApiKeyRepository;
    /// Pre-auth keys.
    fn preauth_keys(&self) -> &dyn PreAuthKeyRepository;
    /// Access policies.
    fn policies(&self) -> &dyn PolicyRepository;
    /// DNS records.
    fn dns(&self) -> &dyn DnsRepository;
    /// Sign-in sessions.
    fn sessions(&self) -> &dyn SessionRepository;
    /// Settings.
    fn settings(&self) -> &dyn SettingRepository;
    /// Metrics.
    fn metrics(&self) -> &dyn MetricRepository;
    /// The audit trail.
    fn audit(&self) -> &dyn AuditRepository;
    /// The store's time.
    fn clock(&self) -> &dyn ClockRepository;

    /// The last durable state: constant time, no lock, no disk. With a shared backend it may lag
    /// behind other processes; see [`View::age`].
    fn view(&self) -> View;

    /// A view that holds every commit which was durable when this was called, also those of other
    /// processes.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn fresh_view(&self) -> Result<View>;

    /// Commits after `after`, one by one, as they become durable; it waits at the end. The serial
    /// last seen is all that is needed to continue in another process.
    ///
    /// The stream ends when the store is closed; with `Compacted` if the blocks it needs are gone:
    /// take a view, and watch after its serial; and with `Unexpected` if the store ended by a fault
    /// of its own. It begins with `Conflict` if the store does not have that serial yet, so was put
    /// back to an older copy. One that has since passed the serial it cannot tell:
    /// [`watch_from`](Store::watch_from) can.
    fn watch(&self, after: Serial) -> ChangeStream;

    /// Like [`watch`](Store::watch), behind a place that [`CommitChanges::place`] or [`View::place`]
    /// gave. Its first item is `Conflict` if this store's history does not contain the place: it
    /// was put back to an older copy, or is another store. What the caller knows is then of a
    /// history that is gone: forget it, take a view, and watch from its place.
    ///
    /// [`CommitChanges::place`]: crate::changes::CommitChanges::place
    fn watch_from(&self, place: Place) -> ChangeStream;

    /// Several commands in one commit, all or nothing. Gives their replies in order.
    ///
    /// # Errors
    /// `Conflict` if a precondition does not hold; otherwise the error of the first command that
    /// is refused, with its `step`.
    async fn transact(&self, transaction: Transaction) -> Result<Committed<Vec<Reply>>>;

    /// Brings in whole entities, for imports and restores.
    ///
    /// # Errors
    /// As for the entities' own writes.
    async fn restore(&self, restore: Restore) -> Result<Committed<Restored>>;

    /// A handle on the same store whose writes the audit trail ascribes to `actor`.
    fn acting_as(&self, actor: ActorName) -> Arc<dyn Store>;

    /// The digests of everything stored. The state's costs time in proportion to what changed
    /// since the last one, those of the series in proportion to all of them. Under writes, the state's
    /// is of one moment and those of the series are of none.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    async fn digests(&self) -> Result<Digests>;

    /// Folds every block into rows. Gives the serial that the rows then hold.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn checkpoint(&self) -> Result<Serial>;

    /// Reads everything stored and checks it: the engine's own checks, every row, every block, the
    /// chain of blocks, and that what is stored amounts to what is in memory. Writes wait
    /// meanwhile.
    ///
    /// # Errors
    /// `Corrupt`, saying where.
    async fn verify(&self) -> Result<()>;

    /// What the store is and does.
    fn info(&self) -> StoreInfo;

    /// Completes what was accepted, folds it, and releases the files: when this returns, they are
    /// free. Every later call on any handle of this store gives `Unavailable`; closing again, also
    /// after a call that was given up, waits for the same end and has the same outcome. Dropping
    /// the future takes nothing back.
    ///
    /// # Errors
    /// `Unavailable` if the last bytes could not be written; `Unexpected` if the store had ended by
    /// a fault of its own. What was acknowledged is durable all the same.
    async fn close(&self) -> Result<()>;
}

/// What a store is and does, for people and dashboards.
#[derive(Debug, Clone, serde::Serialize)]
pub struct StoreInfo {
    /// The backend.
    pub backend: BackendInfo,
    /// The last durable commit.
    pub serial: Serial,
    /// Rows that wait to be folded.
    pub fold_debt: u64,
    /// Commands served since the store was opened.
    pub commands: u64,
    /// Those that were refused.
    pub rejected: u64,
    /// Commits that held them.
    pub groups: u64,
    /// Completed checkpoints.
    pub checkpoints: u64,
    /// Commits whose outcome had to be found out.
    pub recoveries: u64,
    /// Imported hashes that were computed to check a secret. Those that are not first uses of a key
    /// are guesses.
    pub imported_hash_checks: u64,
}
