//! The place of a store's backend, in which a migration puts another one while the store is open.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;

use super::detached::Detached;
use super::mirror::Mirror;
use super::pace::Pace;
use super::status::MigrationInfo;
use super::step::{Event, Pair, Seen, Service, Step, Which, step};
use super::witness::Witness;
use crate::backend::{
    Attestation, AttestedState, Backend, BackendInfo, Budget, Commit, ConnectionObserver, Head,
    Scan, ScanPage,
};
use crate::block::{EncodedBlock, Serial};
use crate::domain::SideId;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::KeyManager;
use crate::options::Materialize;
use crate::position::{Epoch, Position};
use crate::schema::Schema;

/// A position that nobody has looked at.
const NOT_KNOWN: u64 = u64::MAX;

/// A database, and what a store needs to know of it.
#[derive(Debug, Clone)]
pub struct Occupant {
    /// The database.
    pub backend: Arc<dyn Backend>,
    /// What changes its keys, if it is sealed.
    pub keys: Option<Arc<dyn KeyManager>>,
    /// When rows are written to its tables.
    pub materialize: Materialize,
}

impl Occupant {
    /// One without keys, whose rows are written in the background.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, keys: None, materialize: Materialize::default() }
    }
}

/// What stands beside the store. Nobody waits without an end for what it is asked there.
#[derive(Debug)]
struct Beside {
    occupant: Occupant,
    detached: Arc<Detached>,
}

impl Beside {
    fn new(occupant: Occupant, options: &SeatOptions) -> Self {
        let detached = Detached::new(occupant.backend.clone(), options.answers_within);
        Self { occupant, detached: Arc::new(detached) }
    }

    /// Whether this is it, or what it is asked by.
    fn is(&self, backend: &dyn Backend) -> bool {
        let asked: *const Detached = Arc::as_ptr(&self.detached);
        std::ptr::addr_eq(asked, backend)
            || std::ptr::addr_eq(Arc::as_ptr(&self.occupant.backend), backend)
    }

    fn detached(&self) -> Occupant {
        Occupant { backend: self.detached.clone(), ..self.occupant.clone() }
    }
}

/// Opens databases for the place beside a store.
#[async_trait]
pub trait Renewal: Send + Sync + std::fmt::Debug {
    /// Sets aside what is there, which was superseded while it was away and may have commits that were never answered,
    /// and makes an empty database in its place. `epoch` is the one in which it was left.
    ///
    /// # Errors
    /// Those of the file system, and of making a database.
    async fn renew(&self, superseded: &Occupant, epoch: Epoch) -> Result<Occupant>;

    /// Whether that can be done, as far as it can be told before.
    ///
    /// # Errors
    /// Why it cannot.
    fn check(&self, superseded: &Occupant) -> Result<()>;

    /// Closes a database whose file was [away](crate::backend::Displaced) and is back, and has something stand in its
    /// place that opens it when it is reopened. `side` is what it has to be.
    ///
    /// # Errors
    /// `NotFound` if it is not known where it came from.
    async fn open_again(&self, displaced: &Occupant, side: SideId) -> Result<()>;
}

/// What holds of a seat, whichever database sits in it.
#[derive(Debug, Clone)]
pub struct SeatOptions {
    /// Neither side goes on without the other one unless this grants it.
    pub witness: Option<Arc<dyn Witness>>,
    /// Whether other processes may write to one of the databases that may sit here. The store then looks for what they
    /// commit whichever of them sits.
    pub is_shared: bool,
    /// How long anybody waits for what the side beside the store is asked. After that the call is `Busy`, or its outcome
    /// unknown, and nothing else is asked there before it has ended.
    pub answers_within: Duration,
}

impl Default for SeatOptions {
    /// No witness, not shared, 5 seconds.
    fn default() -> Self {
        Self { witness: None, is_shared: false, answers_within: Duration::from_secs(5) }
    }
}

/// That one side went on without the other one.
#[derive(Debug)]
pub(crate) struct Fallback {
    /// Which one was lost: the first was served.
    pub(crate) lost: Which,
    /// Why.
    pub(crate) reason: String,
}

impl std::fmt::Display for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lost = match self.lost {
            Which::First => "the side that was served",
            Which::Second => "the side that followed",
        };
        write!(f, "{lost} was lost: {}", self.reason)
    }
}

/// A backend that is the one which sits in it. A store that is opened on a seat, and told so by
/// [`StoreOptions::seat`](crate::options::StoreOptions::seat), can be moved to another database while it is
/// open. The other side of a migration stands beside it, and is closed with it.
#[derive(Debug)]
pub struct Seat {
    sitting: ArcSwap<Occupant>,
    beside: Mutex<Option<Beside>>,
    /// Every commit goes to both.
    mirror: ArcSwapOption<Mirror>,
    /// How far apart commits begin while the other side falls behind.
    pace: Arc<Pace>,
    options: SeatOptions,
    /// Who is told of the connections of whichever sits.
    observer: OnceLock<Arc<dyn ConnectionObserver>>,
    renewal: OnceLock<Arc<dyn Renewal>>,
    fallback: ArcSwapOption<Fallback>,
    fallbacks: AtomicU64,
    /// How many commits the other side had when somebody looked.
    followed_to: AtomicU64,
    /// The writer refuses writes until somebody has it settle which side is written.
    is_unsettled: AtomicBool,
    is_closed: AtomicBool,
}

impl Seat {
    /// With this in it.
    #[must_use]
    pub fn new(occupant: Occupant) -> Arc<Self> {
        Self::with_options(occupant, SeatOptions::default())
    }

    /// The same, with options.
    #[must_use]
    pub fn with_options(occupant: Occupant, options: SeatOptions) -> Arc<Self> {
        Arc::new(Self {
            sitting: ArcSwap::from_pointee(occupant),
            beside: Mutex::default(),
            mirror: ArcSwapOption::empty(),
            pace: Arc::default(),
            options,
            observer: OnceLock::new(),
            renewal: OnceLock::new(),
            fallback: ArcSwapOption::empty(),
            fallbacks: AtomicU64::new(0),
            followed_to: AtomicU64::new(NOT_KNOWN),
            is_unsettled: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        })
    }

    /// What sits in it.
    #[must_use]
    pub fn sitting(&self) -> Arc<Occupant> {
        self.sitting.load_full()
    }

    fn backend(&self) -> Arc<dyn Backend> {
        self.sitting.load().backend.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Beside>> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other side. What it is asked is done on a thread of its own, and nobody waits for longer than
    /// [`answers_within`](SeatOptions::answers_within).
    #[must_use]
    pub fn beside(&self) -> Option<Occupant> {
        self.lock().as_ref().map(Beside::detached)
    }

    /// Has this be the other side. Gives what stood there.
    pub fn put_beside(&self, other: Option<Occupant>) -> Option<Occupant> {
        let before = std::mem::replace(
            &mut *self.lock(),
            other.map(|other| Beside::new(other, &self.options)),
        );
        before.as_ref().map(Beside::detached)
    }

    /// Has this be the other side in place of `before`. If that is not the other side any more, as after the end of the
    /// migration or of the store, this is closed.
    ///
    /// # Errors
    /// `Unavailable` if it was closed.
    pub async fn take_place_of(&self, before: &dyn Backend, other: Occupant) -> Result<()> {
        let refused = {
            let mut beside = self.lock();
            match beside.as_ref().is_some_and(|it| it.is(before)) {
                false => Some(other),
                true => {
                    *beside = Some(Beside::new(other, &self.options));
                    None
                }
            }
        };
        let Some(refused) = refused else { return Ok(()) };
        refused.backend.close().await?;
        Err(Error::new(
            ErrorKind::Unavailable,
            "what was opened is not the other side of a migration any more; it was closed again",
        ))
    }

    /// Whether this is the other side still.
    #[must_use]
    pub fn is_beside(&self, backend: &dyn Backend) -> bool {
        self.lock().as_ref().is_some_and(|it| it.is(backend))
    }

    /// What stands beside it, by which it is known wherever it stands.
    pub(super) fn known_beside(&self) -> Option<Arc<dyn Backend>> {
        self.lock().as_ref().map(|it| it.occupant.backend.clone())
    }

    /// With the lock held it stays so: whoever closes the seat says so before they look who stands beside it.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    async fn close_beside(&self) {
        if let Some(other) = self.put_beside(None)
            && let Err(error) = other.backend.close().await
        {
            tracing::warn!(%error, "the other side of a migration is not closed in order");
        }
    }

    /// Has this be the other side unless there is one. Tells whether it is.
    pub(crate) fn put_if_free(&self, other: Occupant) -> bool {
        let mut beside = self.lock();
        let is_free = beside.is_none() && !self.is_closed();
        if is_free {
            self.followed_to.store(NOT_KNOWN, Ordering::Relaxed);
            *beside = Some(Beside::new(other, &self.options));
        }
        is_free
    }

    pub(crate) fn set_settled(&self, is_settled: bool) {
        self.is_unsettled.store(!is_settled, Ordering::Release);
    }

    pub(crate) fn is_settled(&self) -> bool {
        !self.is_unsettled.load(Ordering::Acquire)
    }

    pub(super) fn answers_within(&self) -> Duration {
        self.options.answers_within
    }

    pub(crate) fn witness(&self) -> Option<Arc<dyn Witness>> {
        self.options.witness.clone()
    }

    /// Has this open what stands beside the store. The first one stays.
    pub fn set_renewal(&self, renewal: Arc<dyn Renewal>) {
        let _ = self.renewal.set(renewal);
    }

    pub(crate) fn renewal(&self) -> Option<Arc<dyn Renewal>> {
        self.renewal.get().cloned()
    }

    pub(super) fn pace(&self) -> Arc<Pace> {
        self.pace.clone()
    }

    pub(crate) fn mirror(&self) -> Option<Arc<Mirror>> {
        self.mirror.load_full()
    }

    /// Has every commit go to both from now on, whose records say so.
    ///
    /// # Errors
    /// `Restricted` without another side; those of [`Mirror::new`].
    pub(crate) async fn begin_mirror(&self, timeout: Duration) -> Result<()> {
        let follower = self.lock().as_ref().map(|it| it.detached.clone());
        let follower = follower.ok_or_else(|| {
            Error::new(ErrorKind::Restricted, "no other database stands beside the store")
        })?;
        self.mirror.store(Some(Arc::new(Mirror::new(&follower, timeout).await?)));
        Ok(())
    }

    /// Has every commit go to the one that sits alone.
    pub(crate) fn end_mirror(&self) {
        self.mirror.store(None);
    }

    /// Has every commit go to both sides, whose records say so already: for whoever holds both without a
    /// [`Migration`](super::Migration), which does that by itself for an open store. A store cannot be opened on such
    /// a seat, as its record asks for the other side, unless a layer shows it another role.
    ///
    /// # Errors
    /// `Restricted` without another side, or if the records say something else; those of any write.
    pub async fn keep_in_step(&self, timeout: Duration) -> Result<()> {
        let (served, other) = (self.backend(), self.beside());
        let refused =
            || Error::new(ErrorKind::Restricted, "the two databases of this seat are not in step");
        let other = other.ok_or_else(refused)?.backend;
        let pair = Pair {
            first: Some(Seen::of(&served.head().await?)),
            second: Some(Seen::of(&other.head().await?)),
        };
        if step(&pair, Event::Resume) != Step::Serve(Service::Both { authority: Which::First }) {
            return Err(refused().with("served", served.head().await?.record()));
        }
        self.begin_mirror(timeout).await
    }

    /// The two are not in step any more, and one of them goes on alone.
    pub(crate) fn fell_back(&self, lost: Which, reason: &Error) {
        let fallback = Fallback { lost, reason: reason.to_string() };
        self.fallback.store(Some(Arc::new(fallback)));
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
    }

    /// How often one side went on without the other one by itself, and the last time.
    pub(crate) fn fallbacks(&self) -> (u64, Option<Arc<Fallback>>) {
        (self.fallbacks.load(Ordering::Relaxed), self.fallback.load_full())
    }

    /// The other side has so many commits.
    pub(crate) fn set_followed_to(&self, position: Position) {
        self.followed_to.store(position.get(), Ordering::Relaxed);
    }

    pub(crate) fn is_in_step(&self) -> bool {
        self.is_settled() && self.mirror().is_some_and(|mirror| !mirror.is_troubled())
    }

    /// Where the store stands at a position.
    pub(crate) fn migration_info(&self, position: Position) -> MigrationInfo {
        let under_way = self.lock().is_some();
        let other = self.followed_to.load(Ordering::Relaxed);
        let is_known = under_way && other != NOT_KNOWN;
        MigrationInfo {
            under_way,
            in_step: self.is_in_step(),
            lag: is_known.then(|| position.get().saturating_sub(other)),
            fallbacks: self.fallbacks().0,
        }
    }

    /// The two change places. Does nothing if nothing stands beside it.
    pub(crate) fn change_places(&self) {
        let mut beside = self.lock();
        if let Some(Beside { occupant: other, .. }) = beside.take() {
            if let Some(observer) = self.observer.get() {
                other.backend.observe_connections(observer.clone());
            }
            let before = self.sitting.swap(Arc::new(other));
            *beside = Some(Beside::new(Occupant::clone(&before), &self.options));
        }
    }
}

#[async_trait]
impl Backend for Seat {
    fn info(&self) -> BackendInfo {
        let info = self.backend().info();
        BackendInfo { shared: info.shared || self.options.is_shared, ..info }
    }

    fn lagging_answers(&self) -> u64 {
        self.backend().lagging_answers()
    }

    async fn revision(&self) -> Result<Option<u64>> {
        self.backend().revision().await
    }

    async fn head(&self) -> Result<Head> {
        self.backend().head().await
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.backend().migrate(target).await
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        self.backend().scan(scan).await
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.backend().blocks(after, limit).await
    }

    async fn await_change(&self, at_most: Duration) -> Result<()> {
        let sitting = self.sitting();
        match sitting.backend.await_change(at_most).await {
            // It was left, and may be closed: whoever waited looks at the one that sits now.
            Err(_) if !Arc::ptr_eq(&sitting, &self.sitting()) => Ok(()),
            waited => waited,
        }
    }

    async fn take_turn(&self) -> Result<bool> {
        self.backend().take_turn().await
    }

    async fn end_turn(&self) -> Result<()> {
        self.backend().end_turn().await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        if commit.id().is_some() {
            self.pace.turn().await;
        }
        let backend = self.backend();
        match self.mirror() {
            Some(mirror) => mirror.commit(backend.as_ref(), commit).await,
            None => backend.commit(commit).await,
        }
    }

    async fn confirm(&self) -> Result<()> {
        self.backend().confirm().await
    }

    async fn maintain(&self, budget: Budget) -> Result<bool> {
        self.backend().maintain(budget).await
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        self.backend().probe(epoch).await
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        self.backend().adopt(head).await
    }

    async fn reopen(&self) -> Result<Head> {
        let backend = self.backend();
        match self.mirror() {
            Some(mirror) => mirror.reopen(backend.as_ref()).await,
            None => backend.reopen().await,
        }
    }

    async fn verify(&self) -> Result<()> {
        self.backend().verify().await
    }

    async fn attest(&self, state: &AttestedState) -> Result<Attestation> {
        self.backend().attest(state).await
    }

    fn observe_connections(&self, observer: Arc<dyn ConnectionObserver>) {
        let _ = self.observer.set(observer.clone());
        self.backend().observe_connections(observer);
    }

    fn announce_close(&self) {
        self.backend().announce_close();
        if let Some(other) = self.beside() {
            other.backend.announce_close();
        }
    }

    async fn close(&self) -> Result<()> {
        self.end_mirror();
        self.is_closed.store(true, Ordering::SeqCst);
        let sitting = self.backend();
        let (closed, ()) = tokio::join!(sitting.close(), self.close_beside());
        closed
    }
}
