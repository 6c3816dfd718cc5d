//! Where a case takes place.

use ghostwire_store_core::observe::Recorder;

use crate::prelude::*;
use ghostwire_store_core::entropy::SeededEntropy;
use ghostwire_store_core::layer::{Chaos, Faults};
use ghostwire_store_core::secrets::HashKey;

/// What happens to a store between what a case does and what it checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing: it is checked as it is.
    Live,
    /// The process dies before anything was flushed; the store is rebuilt from its blocks.
    Blocks,
    /// Everything is flushed, blocks are purged, and the store is closed; it is rebuilt from rows.
    Rows,
    /// Rows are written with each commit; the process dies.
    AtOnce,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Live, Self::Blocks, Self::Rows, Self::AtOnce];

    /// Its name, as reports have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Blocks => "blocks",
            Self::Rows => "rows",
            Self::AtOnce => "at_once",
        }
    }
}

/// When every case begins: 2023-11-14 22:13:20 UTC.
pub(crate) const BEGINNING: i64 = 1_700_000_000_000_000;

/// A place for one store, with a clock and random numbers that are the same in every run.
#[derive(Debug)]
pub struct TestEnv {
    place: Box<dyn Place>,
    /// Where it was before it crashed; its writer may not have ended yet.
    former: Vec<Box<dyn Place>>,
    stack: Stack,
    mode: Mode,
    clock: ManualClock,
    entropy: Arc<SeededEntropy>,
    faults: Arc<Faults>,
    recorder: Option<Arc<dyn Recorder>>,
    reloads: usize,
}

impl TestEnv {
    /// An empty one. Equal seeds give equal random numbers.
    ///
    /// # Errors
    /// Those of the factory.
    pub async fn create(
        factory: &dyn Factory,
        stack: &Stack,
        mode: Mode,
        seed: u64,
    ) -> Result<Self> {
        Ok(Self {
            place: factory.create().await?,
            former: Vec::new(),
            stack: stack.clone(),
            mode,
            clock: ManualClock::new(Timestamp::from_micros(BEGINNING)?),
            entropy: Arc::new(SeededEntropy::new(seed)),
            faults: Arc::default(),
            recorder: factory.recorder(),
            reloads: 0,
        })
    }

    /// The clock of every store that is opened here.
    #[must_use]
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Moves the clock forward.
    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Makes commits fail or wait, below every layer.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Where the store is kept.
    #[must_use]
    pub fn place(&self) -> &dyn Place {
        self.place.as_ref()
    }

    /// What stores are opened with here: the clock, random numbers and key of this environment, and
    /// the flushing of its mode.
    #[must_use]
    pub fn options(&self) -> StoreOptions {
        let never = Duration::from_secs(3600);
        let writer = match self.mode {
            Mode::Blocks => WriterOptions {
                idle_before_flush: never,
                max_dirty_rows: 1_000_000_000,
                ..WriterOptions::default()
            },
            Mode::Rows => WriterOptions { retain_block_bytes: 0, ..WriterOptions::default() },
            Mode::Live | Mode::AtOnce => WriterOptions::default(),
        };
        StoreOptions {
            clock: Arc::new(self.clock.clone()),
            // Cases let years pass without a commit; those about that say so.
            clock_bounds: ClockOptions { max_gap: Duration::MAX, ..ClockOptions::default() },
            // A case that is about that says so: elsewhere a process is behind until it has to learn.
            follows: false,
            entropy: self.entropy.clone(),
            hash_key: Some(Arc::new(HashKey::new([3; 32]).into())),
            materialize: match self.mode {
                Mode::AtOnce => Materialize::Commit,
                _ => Materialize::Checkpoint,
            },
            writer,
            recorder: self.recorder.clone(),
            ..StoreOptions::default()
        }
    }

    /// How the place is opened.
    #[must_use]
    pub fn opening(&self) -> Opening {
        Opening::new(StoreId::from_bytes([7; 16]))
    }

    /// Opens the backend, with its layers, and a place for faults below them.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn try_open_backend(&self, opening: Opening) -> Result<Arc<dyn Backend>> {
        let backend = self.place.open(opening).await?;
        Ok(self.stack.on(Arc::new(Chaos::with(backend, self.faults.clone()))))
    }

    /// Opens the backend, which has to work.
    pub async fn open_backend(&self) -> Arc<dyn Backend> {
        self.try_open_backend(self.opening()).await.expect("the backend opens")
    }

    /// Opens the store, which has to work.
    pub async fn open(&self) -> Arc<dyn Store> {
        self.open_with(self.options()).await
    }

    /// Opens the store with other options, which has to work.
    pub async fn open_with(&self, options: StoreOptions) -> Arc<dyn Store> {
        let backend = self.open_backend().await;
        ghostwire_store_core::open(backend, options).await.expect("the store opens")
    }

    /// What the mode says, between what a case does and what it checks. Whatever happens, the
    /// store has to hold the same afterwards, and to find nothing wrong with itself.
    pub async fn reload(&mut self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        self.reloads += 1;
        let before = Standing::of(&store).await;
        let store = match self.mode {
            Mode::Live => store,
            Mode::Blocks | Mode::AtOnce => self.crash(store).await,
            Mode::Rows => {
                store.checkpoint().await.expect("everything flushes");
                store.close().await.expect("the store closes");
                drop(store);
                let backend = self.open_backend().await;
                let head = backend.head().await.expect("the head can be read");
                // Opening reads no block up to here, whether or not it was purged.
                assert_eq!(head.checkpoint, head.serial, "everything is in rows");
                ghostwire_store_core::open(backend, self.options()).await.expect("the store opens")
            }
        };
        assert_eq!(Standing::of(&store).await, before, "after the reload: {:?}", self.mode);
        match self.mode {
            // It flushes, and what follows is to be rebuilt from blocks again.
            Mode::Blocks => self.verify_copy().await,
            _ => store.verify().await.expect("nothing is wrong with what is stored"),
        }
        store
    }

    /// Reads everything in a copy, where the place can be copied.
    async fn verify_copy(&self) {
        if self.place.location().is_none() {
            return;
        }
        let copy = self.place.after_crash().await.expect("the crash can be simulated");
        let backend = copy.open(self.opening()).await.expect("the copy opens");
        let store = ghostwire_store_core::open(backend, self.options()).await;
        let store = store.expect("the store opens");
        store.verify().await.expect("nothing is wrong with what is stored");
        store.close().await.expect("the store closes");
    }

    /// Closes the store and opens it again, in every mode.
    pub async fn reopen(&mut self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        store.close().await.expect("the store closes");
        drop(store);
        self.open().await
    }

    /// The store as a new process finds it after this one died, in every mode.
    pub async fn crash(&mut self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        self.crash_place().await;
        drop(store);
        self.open().await
    }

    /// As [`TestEnv::reload`], for a case about a backend alone, which knows of no rows and blocks
    /// that wait: it is left as it is, found after a crash, closed and opened, or reopened in
    /// place.
    pub async fn reload_backend(&mut self, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        self.reloads += 1;
        let before = backend.head().await.expect("the head can be read");
        let backend = match self.mode {
            Mode::Live => backend,
            Mode::AtOnce => {
                backend.reopen().await.expect("the backend reopens");
                backend
            }
            Mode::Blocks => {
                self.crash_place().await;
                drop(backend);
                self.open_backend().await
            }
            Mode::Rows => {
                backend.close().await.expect("the backend closes");
                drop(backend);
                self.open_backend().await
            }
        };
        assert_eq!(backend.head().await.expect("the head can be read"), before);
        backend.verify().await.expect("nothing is wrong with what is stored");
        backend
    }

    /// Moves to where a new process would find the store if this one died now.
    pub async fn crash_place(&mut self) {
        let place = self.place.after_crash().await.expect("the crash can be simulated");
        self.former.push(std::mem::replace(&mut self.place, place));
    }

    pub(crate) fn reloads(&self) -> usize {
        self.reloads
    }
}

/// Where a store stands, and what it holds.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    position: Position,
    serial: Serial,
    hash: BlockHash,
    digests: Digests,
}

impl Standing {
    async fn of(store: &Opened) -> Self {
        let view = store.view();
        let digests = store.digests().await.expect("the digests can be computed");
        Self { position: view.position(), serial: view.serial(), hash: view.hash(), digests }
    }
}
