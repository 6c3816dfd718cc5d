//! The store: what Ghostwire holds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use crate::backend::{Backend, BackendInfo, KeyRange};
use crate::block::{EncodedBlock, Serial};
use crate::changes::{self, ChangeStream};
use crate::command::{Command, Restore, Restored, Submission, Transaction};
use crate::digest::{DigestCache, Digests};
use crate::domain::{ActorName, Timestamp};
use crate::entropy::{Entropy, draw};
use crate::error::{Error, ErrorKind, Result};
use crate::loader;
use crate::options::StoreOptions;
use crate::repository::*;
use crate::schema::Table;
use crate::secrets::HashKey;
use crate::series;
use crate::state::Reply;
use crate::view::{Published, View};
use crate::writer::{
    Committed, Progress, Request, SeriesBatch, Shared, Start, Writer, WriterCounters, closed,
};

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
    /// The stream ends with `Compacted` if the blocks it needs are gone: take a view, and watch
    /// after its serial.
    fn watch(&self, after: Serial) -> ChangeStream;

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
    /// since the last one, those of the series in proportion to all of them. Under writes, each is
    /// of its own moment.
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

    /// Completes what was accepted, folds it, and releases the files. Every later call on any
    /// handle of this store gives `Unavailable`. Closing twice is fine.
    ///
    /// # Errors
    /// `Unavailable` if the last bytes could not be written; what was acknowledged is durable all
    /// the same.
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
}

/// Opens a store on a backend: migrates what is stored, loads it, and starts the writer.
///
/// # Errors
/// `SchemaMismatch`, `Corrupt`, `Unavailable`, and `InvalidArgument` for options out of range.
pub async fn open(backend: Arc<dyn Backend>, options: StoreOptions) -> Result<Arc<dyn Store>> {
    const OPERATION: &str = "store.open";
    let opened = async {
        check_options(&options)?;
        loader::migrate(backend.as_ref(), options.read_only).await?;
        let loaded = loader::load(&backend, options.writer.retain_block_bytes).await?;
        start(backend, options, loaded)
    };
    let span = tracing::info_span!("store.open");
    opened.instrument(span).await.map_err(|error| error.during(OPERATION))
}

fn check_options(options: &StoreOptions) -> Result<()> {
    let writer = &options.writer;
    let ranges = [
        ("queue_capacity", writer.queue_capacity, 1_000_000),
        ("max_group", writer.max_group, 65_536),
        ("max_fold_debt", writer.max_fold_debt, 1_000_000_000),
    ];
    for (name, value, most) in ranges {
        if value == 0 || value > most {
            return Err(Error::invalid("a writer option is out of range")
                .with("option", name)
                .with("value", value)
                .with("allowed", format_args!("1 to {most}")));
        }
    }
    Ok(())
}

fn start(
    backend: Arc<dyn Backend>,
    options: StoreOptions,
    loaded: loader::Loaded,
) -> Result<Arc<dyn Store>> {
    let info = backend.info();
    let serial = loaded.state.serial();
    let fold_debt = loaded.fold.len() as u64;
    let counters = WriterCounters::default();
    counters.fold_debt.store(fold_debt, Ordering::Relaxed);
    let shared = Arc::new(Shared {
        published: arc_swap::ArcSwap::from_pointee(Published::new(loaded.state, loaded.audit)),
        progress: tokio::sync::watch::Sender::new(Progress { serial, closed: false }),
        digests: DigestCache::new(),
        counters,
    });
    let start = Start {
        positions: loaded.positions,
        fold: loaded.fold,
        retained: loaded.retained,
        checkpoint: loaded.checkpoint,
    };
    let writer = Writer::new(backend.clone(), shared.clone(), &options, start);
    let (sender, receiver) = mpsc::channel(options.writer.queue_capacity);
    // Commits block their thread while the disk works, so the writer has one of its own, and one
    // for commits that are stored while the next group is carried out.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("ghostwire-disk")
        .enable_all()
        .build()
        .map_err(cannot_start)?;
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    std::thread::Builder::new()
        .name("ghostwire-store".to_owned())
        .spawn(move || {
            tracing::dispatcher::with_default(&dispatch, || {
                runtime.block_on(writer.run(receiver));
            });
        })
        .map_err(cannot_start)?;
    let actor = options.actor.clone();
    let core = Arc::new(Core {
        backend,
        shared,
        queue: sender,
        options,
        closed: AtomicBool::new(false),
        is_shared: info.shared,
    });
    Ok(Arc::new(StoreHandle { core, actor }))
}

fn cannot_start(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the writer's thread cannot be started").because(error)
}

#[derive(Debug)]
struct Core {
    backend: Arc<dyn Backend>,
    shared: Arc<Shared>,
    queue: mpsc::Sender<Request>,
    options: StoreOptions,
    closed: AtomicBool,
    is_shared: bool,
}

/// The one implementation of [`Store`] and of every repository.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    core: Arc<Core>,
    actor: ActorName,
}

/// Bounded by a queue that gives `Busy`, and by nothing the caller does: a request that was
/// accepted is served even if nobody waits for it any longer.
impl StoreHandle {
    async fn send<T>(&self, make: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        if self.core.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let (answer, answered) = oneshot::channel();
        let timeout = self.core.options.writer.queue_timeout;
        self.core.queue.send_timeout(make(answer), timeout).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => {
                Error::new(ErrorKind::Busy, "the write queue stayed full; try again later")
                    .with("queue_capacity", self.core.options.writer.queue_capacity)
                    .with("waited", format_args!("{timeout:?}"))
            }
            mpsc::error::SendTimeoutError::Closed(_) => closed(),
        })?;
        answered.await.map_err(|_| {
            Error::new(ErrorKind::OutcomeUnknown, "the writer stopped; reopen the store")
        })?
    }

    fn submission(&self, command: Command) -> Result<Submission> {
        Ok(Submission {
            at: self.now(),
            actor: self.actor.clone(),
            seed: draw(self.entropy())?,
            command,
        })
    }

    async fn commit(&self, operation: &'static str, command: Command) -> Result<Committed> {
        let span = tracing::debug_span!("store.write", db.operation.name = operation);
        let committed = async {
            let submission = Box::new(self.submission(command)?);
            self.send(|answer| Request::Submit(submission, answer)).await
        };
        committed.instrument(span).await.map_err(|error| error.during(operation))
    }

    pub(crate) async fn run(
        &self,
        operation: &'static str,
        command: impl Into<Command> + Send,
    ) -> Result<Reply> {
        self.commit(operation, command.into()).await.map(|committed| committed.value)
    }

    /// For what a caller should not wait for and may be lost, such as the time of a last use.
    pub(crate) fn run_in_background(&self, command: impl Into<Command>) {
        let Ok(submission) = self.submission(command.into()) else { return };
        let (answer, _) = oneshot::channel();
        let _ = self.core.queue.try_send(Request::Submit(Box::new(submission), answer));
    }

    pub(crate) async fn append_series(
        &self,
        operation: &'static str,
        batch: SeriesBatch,
    ) -> Result<()> {
        self.send(|answer| Request::Series(batch, answer))
            .await
            .map_err(|error| error.during(operation))
    }

    pub(crate) async fn prune_series(
        &self,
        operation: &'static str,
        ranges: Vec<KeyRange>,
    ) -> Result<()> {
        // A commit for each part, so that writers get their turn.
        const RANGES_PER_COMMIT: usize = 1000;
        for part in ranges.chunks(RANGES_PER_COMMIT) {
            self.send(|answer| Request::Prune(part.to_vec(), answer))
                .await
                .map_err(|error| error.during(operation))?;
        }
        Ok(())
    }

    /// Of the time that its command will have: a clock that was set back makes no older ids.
    pub(crate) fn new_id<I>(&self, make: fn(Timestamp, [u8; 10]) -> I) -> Result<I> {
        let at = self.now().max(self.current_view().time());
        Ok(make(at, draw(self.entropy())?))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.core.options.clock.now()
    }

    pub(crate) fn entropy(&self) -> &dyn Entropy {
        self.core.options.entropy.as_ref()
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        self.core.backend.as_ref()
    }

    pub(crate) fn hash_key(&self) -> Result<&HashKey> {
        self.core.options.hash_key.as_deref().ok_or_else(|| {
            Error::new(
                ErrorKind::Crypto,
                "the store was opened without a hash key; configure `secret_key_file`",
            )
        })
    }

    /// The last durable state, unless the store was closed.
    pub(crate) fn open_view(&self, operation: &'static str) -> Result<View> {
        if self.core.closed.load(Ordering::Acquire) {
            return Err(closed().during(operation));
        }
        Ok(self.current_view())
    }

    fn current_view(&self) -> View {
        View::new(self.core.shared.published.load_full(), self.core.is_shared)
    }

    /// A view that is fresh enough to trust that a revoked credential is revoked.
    pub(crate) async fn credential_view(&self, operation: &'static str) -> Result<View> {
        let view = self.open_view(operation)?;
        if view.age() <= self.core.options.max_view_age {
            return Ok(view);
        }
        self.fresh_view().await.map_err(|error| error.during(operation))
    }
}

#[async_trait]
impl Store for StoreHandle {
    fn users(&self) -> &dyn UserRepository {
        self
    }

    fn nodes(&self) -> &dyn NodeRepository {
        self
    }

    fn presence(&self) -> &dyn PresenceRepository {
        self
    }

    fn routes(&self) -> &dyn RouteRepository {
        self
    }

    fn api_keys(&self) -> &dyn ApiKeyRepository {
        self
    }

    fn preauth_keys(&self) -> &dyn PreAuthKeyRepository {
        self
    }

    fn policies(&self) -> &dyn PolicyRepository {
        self
    }

    fn dns(&self) -> &dyn DnsRepository {
        self
    }

    fn sessions(&self) -> &dyn SessionRepository {
        self
    }

    fn settings(&self) -> &dyn SettingRepository {
        self
    }

    fn metrics(&self) -> &dyn MetricRepository {
        self
    }

    fn audit(&self) -> &dyn AuditRepository {
        self
    }

    fn view(&self) -> View {
        self.current_view()
    }

    async fn fresh_view(&self) -> Result<View> {
        const OPERATION: &str = "store.fresh_view";
        if self.core.is_shared {
            self.send(Request::Refresh).await.map_err(|error| error.during(OPERATION))?;
        }
        self.open_view(OPERATION)
    }

    fn watch(&self, after: Serial) -> ChangeStream {
        let following = Following {
            backend: self.core.backend.clone(),
            progress: self.core.shared.progress.subscribe(),
            after,
            read: VecDeque::new(),
        };
        Box::pin(futures_util::stream::unfold(Some(following), |following| async move {
            let mut following = following?;
            match following.next().await {
                Ok(Some(commit)) => Some((Ok(commit), Some(following))),
                Ok(None) => None,
                Err(error) => Some((Err(error.during("store.watch")), None)),
            }
        }))
    }

    async fn transact(&self, transaction: Transaction) -> Result<Committed<Vec<Reply>>> {
        let committed = self.commit("store.transact", Command::Transaction(transaction)).await?;
        let value = expect_reply!(committed.value, All)?;
        Ok(Committed { value, serial: committed.serial })
    }

    async fn restore(&self, restore: Restore) -> Result<Committed<Restored>> {
        let committed = self.commit("store.restore", Command::Restore(restore)).await?;
        let value = expect_reply!(committed.value, Restored)?;
        Ok(Committed { value, serial: committed.serial })
    }

    fn acting_as(&self, actor: ActorName) -> Arc<dyn Store> {
        Arc::new(Self { core: self.core.clone(), actor })
    }

    async fn digests(&self) -> Result<Digests> {
        const OPERATION: &str = "store.digests";
        let view = self.open_view(OPERATION)?;
        let computed = async {
            let range = KeyRange::all(Table::Audit);
            let unfolded = view.unfolded_audit();
            let audit =
                series::AuditReader::new(self.backend(), unfolded, range, false, usize::MAX);
            // Hashing a large state takes seconds of CPU.
            let (shared, hashed) = (self.core.shared.clone(), view.clone());
            let state = tokio::task::spawn_blocking(move || shared.digests.digest(&hashed));
            let state = state.await.map_err(|error| {
                Error::new(ErrorKind::Unexpected, "hashing the state stopped").because(error)
            })?;
            Ok(Digests {
                state,
                metrics: series::metrics_digest(self.backend()).await?,
                audit: series::audit_digest(audit).await?,
            })
        };
        computed.await.map_err(|error: Error| error.during(OPERATION))
    }

    async fn checkpoint(&self) -> Result<Serial> {
        self.send(Request::Checkpoint).await.map_err(|error| error.during("store.checkpoint"))
    }

    async fn verify(&self) -> Result<()> {
        const OPERATION: &str = "store.verify";
        self.open_view(OPERATION)?;
        self.send(Request::Verify).await.map_err(|error| error.during(OPERATION))
    }

    fn info(&self) -> StoreInfo {
        let counters = &self.core.shared.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        StoreInfo {
            backend: self.core.backend.info(),
            serial: self.current_view().serial(),
            fold_debt: read(&counters.fold_debt),
            commands: read(&counters.commands),
            rejected: read(&counters.rejected),
            groups: read(&counters.groups),
            checkpoints: read(&counters.checkpoints),
            recoveries: read(&counters.recoveries),
        }
    }

    async fn close(&self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        if self.core.closed.load(Ordering::Acquire)
            || self.core.queue.send(Request::Close(answer)).await.is_err()
        {
            self.core.closed.store(true, Ordering::Release);
            return Ok(());
        }
        self.core.closed.store(true, Ordering::Release);
        // No answer means that the writer had ended already.
        answered.await.unwrap_or(Ok(())).map_err(|error| error.during("store.close"))
    }
}

/// A watcher's place in the chain of blocks.
struct Following {
    backend: Arc<dyn Backend>,
    progress: tokio::sync::watch::Receiver<Progress>,
    after: Serial,
    read: VecDeque<EncodedBlock>,
}

impl Following {
    /// The next commit; `None` once the store is closed and everything was told.
    async fn next(&mut self) -> Result<Option<changes::CommitChanges>> {
        const BLOCKS_PER_READ: usize = 64;
        loop {
            if let Some(block) = self.read.pop_front() {
                self.after = block.serial;
                return changes::of_block(&block).map(Some);
            }
            // Blocks beyond the published serial may belong to a commit that is under way.
            let Progress { serial: published, closed } = *self.progress.borrow_and_update();
            if published > self.after {
                let blocks = self.backend.blocks(self.after, BLOCKS_PER_READ).await?;
                self.read = blocks.into_iter().filter(|block| block.serial <= published).collect();
                if self.read.is_empty() {
                    return Err(
                        Error::corrupt("a durable block is missing").with("after", self.after)
                    );
                }
                continue;
            }
            if closed || self.progress.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}
