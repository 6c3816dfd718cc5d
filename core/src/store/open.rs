//! Opening a store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::Store;
use crate::attest::Attester;
use crate::backend::{Backend, Commit, Head, HeadChange, KeyChange};
use crate::block::{MAX_BLOCK, Serial};
use crate::clock::{ClockGuard, Reading};
use crate::digest::DigestCache;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::{Core, Queue, Refreshes, StoreHandle, follow};
use crate::health::{Prober, Vital};
use crate::imported::ImportedHashes;
use crate::layer::{Deadline, Observe};
use crate::loader;
use crate::log::hold::Holds;
use crate::observe::{ConnectionEvents, Readings};
use crate::options::StoreOptions;
use crate::schema::Schema;
use crate::secrets::HashKeys;
use crate::state::{CredentialHashes, State};
use crate::threads::{self, Waits};
use crate::view::Published;
use crate::writer::{Closing, CommitThread, Observed, Progress, Shared, Writer, WriterCounters};

/// Opens a store on a backend: migrates what is stored, loads it, and starts the writer. If that
/// does not work, the backend is closed.
///
/// # Errors
/// `SchemaMismatch`, `Corrupt`; `InvalidArgument` for options out of range; `Unavailable`, also if
/// the system gives no thread or no memory for one, or if the clock is further ahead of the last
/// commit than [`ClockOptions::max_gap`](crate::options::ClockOptions).
pub async fn open(backend: Arc<dyn Backend>, options: StoreOptions) -> Result<Arc<dyn Store>> {
    const OPERATION: &str = "store.open";
    let opened_at = Instant::now();
    // Before anything is read.
    let fresh_at = options.clock.elapsed();
    // A file is waited for by the system; a server could keep everybody waiting for ever.
    let backend: Arc<dyn Backend> = match backend.info().shared {
        true => Arc::new(Deadline::new(backend, options.deadlines)),
        false => backend,
    };
    let backend: Arc<dyn Backend> = match &options.recorder {
        Some(recorder) => {
            backend.observe_connections(Arc::new(ConnectionEvents(recorder.clone())));
            Arc::new(Observe::new(backend, recorder.clone()))
        }
        None => backend,
    };
    let lagging = backend.lagging_answers();
    let opened = async {
        check_options(&options)?;
        let head = backend.head().await?;
        head.require_served(options.read_only)?;
        let guard = watch_clock(&head, &options)?;
        loader::migrate(backend.as_ref(), options.read_only).await?;
        let (entropy, retain) = (&options.entropy, options.writer.retain_block_bytes);
        let writes_in = (!options.read_only).then_some(head.epoch);
        let loaded =
            loader::load(&backend, entropy.as_ref(), retain, writes_in, &options.progress).await?;
        if let Some(keys) = &options.hash_key {
            let is_needed = warn_of_other_keys(&loaded.state, keys);
            let found = (loaded.found.head, is_needed);
            check_key(backend.as_ref(), found, keys, options.read_only).await?;
        }
        // What may be old is of no moment.
        let lags = backend.lagging_answers() != lagging;
        let fresh_at = if lags { Duration::ZERO } else { fresh_at };
        start(backend.clone(), options, loaded, (guard, opened_at, fresh_at)).await
    };
    let span = tracing::info_span!("store.open");
    let opened = opened.instrument(span).await.map_err(|error| error.during(OPERATION));
    if opened.is_err()
        && let Err(error) = backend.close().await
    {
        tracing::warn!(%error, "the backend of a store that cannot be opened is not closed");
    }
    opened
}

/// Refuses other keys than those that credentials are hashed with. The first one is remembered; one that
/// comes with it, as its successor; and one that takes its place while no credential needs it, but not
/// where others may have the store open.
async fn check_key(
    backend: &dyn Backend,
    (mut head, another_is_needed): (Head, bool),
    keys: &HashKeys,
    read_only: bool,
) -> Result<()> {
    const ATTEMPTS: usize = 32;
    let check = keys.current().check(head.store);
    let may_replace = !another_is_needed && !backend.info().shared;
    for _ in 0..ATTEMPTS {
        let follows = |stored| keys.iter().any(|key| key.check(head.store) == stored);
        match head.credential_key {
            Some(stored) if stored == check => return Ok(()),
            Some(stored) if follows(stored) && read_only => return Ok(()),
            Some(stored) if follows(stored) => {}
            Some(_) if !may_replace => {
                return Err(Error::new(
                    ErrorKind::Crypto,
                    "the store's credentials were hashed with another key than the configured one; set \
                     `secret_key_file` to the file of that key. If it is lost, export the store without a \
                     key file and import it into a new one, and issue the credentials anew",
                )
                .with("configured_key", data_encoding::HEXLOWER.encode(&keys.current().id())));
            }
            None if another_is_needed => return Ok(()),
            _ if read_only => return Ok(()),
            _ => {}
        }
        let key = KeyChange { before: head.credential_key, after: check };
        let change = HeadChange { credential_key: Some(key), ..HeadChange::default() };
        match backend.commit(&Commit { head: change, ..Commit::on(&head) }).await {
            Err(error) if *error.kind() == ErrorKind::Conflict => head = backend.head().await?,
            stored => return stored,
        }
    }
    Err(Error::new(ErrorKind::Busy, "other processes kept writing first; try again"))
}

/// Such credentials are refused one by one, which looks like many people with wrong secrets. Tells
/// whether there are some.
fn warn_of_other_keys(state: &State, keys: &HashKeys) -> bool {
    let mut hashes = CredentialHashes::of(state);
    let credentials = hashes.total();
    for key in keys.iter() {
        hashes.keyed.remove(&key.id());
    }
    let others: u64 = hashes.keyed.values().sum();
    if others > 0 {
        let key_id = data_encoding::HEXLOWER.encode(&keys.current().id());
        tracing::warn!(
            credentials,
            others,
            configured_key = key_id,
            "some credentials were hashed with another key than the configured one, and are refused"
        );
    }
    others > 0
}

/// Before anything is written: a migration, too, would be dated by a clock that is wrong.
fn watch_clock(head: &Head, options: &StoreOptions) -> Result<ClockGuard> {
    // Opened read-only, a wrong clock does no harm.
    let last = (head.serial > Serial::ZERO && !options.read_only).then_some(head.time);
    ClockGuard::start(Reading::of(options.clock.as_ref()), last, &options.clock_bounds)
}

fn check_options(options: &StoreOptions) -> Result<()> {
    let writer = &options.writer;
    let ranges = [
        ("queue_capacity", writer.queue_capacity as u64, 1, 1_000_000),
        ("queue_bytes", writer.queue_bytes, 1, 1 << 40),
        ("max_group", writer.max_group as u64, 1, 65_536),
        ("max_dirty_rows", writer.max_dirty_rows as u64, 1, 1_000_000_000),
        ("max_block_bytes", writer.max_block_bytes as u64, 65_536, MAX_BLOCK as u64),
    ];
    for (name, value, least, most) in ranges {
        if !(least..=most).contains(&value) {
            return Err(Error::invalid("a writer option is out of range")
                .with("option", name)
                .with("value", value)
                .with("allowed", format_args!("{least} to {most}")));
        }
    }
    Ok(())
}

async fn start(
    backend: Arc<dyn Backend>,
    options: StoreOptions,
    loaded: loader::Loaded,
    (guard, opened_at, fresh_at): (ClockGuard, Instant, Duration),
) -> Result<Arc<dyn Store>> {
    let info = backend.info();
    let serial = loaded.state.serial();
    let head = loaded.found.head;
    let counters = WriterCounters::default();
    let dirty = loaded.found.checkpointer.backlog.len() as u64;
    counters.dirty_rows.store(dirty, Ordering::Relaxed);
    let shared = Arc::new(Shared {
        head: arc_swap::ArcSwap::from_pointee(head),
        published: arc_swap::ArcSwap::from_pointee(Published::new(
            loaded.state,
            loaded.audit,
            fresh_at,
        )),
        progress: tokio::sync::watch::Sender::new(Progress { serial, end: None }),
        closing: Closing::default(),
        submitted: AtomicU64::new(serial.get()),
        digests: DigestCache::new(),
        holds: Holds::default(),
        vital: Vital::new(head.checkpoint, dirty == 0),
        counters,
        observed: Observed::default(),
    });
    // A commit blocks its thread while the disk works. So the writer has a thread of its own, and
    // one for the commits that are in flight while it decides the next batch.
    let waits = if info.shared { Waits::Everything } else { Waits::Timers };
    let commits = CommitThread::start(waits).await?;
    let writer = Writer::new(backend.clone(), shared.clone(), &options, loaded.found, commits);
    let (queue, receiver) = Queue::new(&options.writer, options.recorder.clone());
    let attester = Arc::new(Attester::new(
        backend.clone(),
        shared.clone(),
        options.clock.clone(),
        options.attestations.clone().filter(|_| !options.read_only),
    ));
    attester.require_keys()?;
    let at_end = attester.clone();
    threads::start("ghostwire-store", waits, move |runtime| {
        runtime.block_on(writer.serve_all(receiver, &at_end));
    })
    .await?;
    let actor = Arc::new(options.actor.clone());
    let prober = Prober::new(options.health);
    let by_itself = attester.clone();
    let core = Arc::new(Core {
        backend,
        shared,
        attester,
        imported_hashes: ImportedHashes::new(options.writer.queue_timeout),
        queue,
        options,
        is_shared: info.shared,
        guard,
        prober,
        refreshes: Refreshes::default(),
        own_instances: Mutex::default(),
    });
    if let Some(recorder) = &core.options.recorder {
        recorder.opened(Readings::of(&core));
    }
    let opened = opened_at.elapsed();
    tracing::info!(
        name: "store_opened",
        backend = info.name,
        engine = %info.engine,
        location = info.location.as_deref(),
        schema = Schema::current().version().version,
        serial = serial.get(),
        nodes = core.shared.published.load().state.nodes().len(),
        read_only = core.options.read_only,
        took_ms = u64::try_from(opened.as_millis()).unwrap_or(u64::MAX),
        "the store is open"
    );
    let handle = StoreHandle { core, actor, instance: None };
    // If there is no thread for it, the writer ends with the handle.
    by_itself.start().await?;
    if info.shared && handle.core.options.follows {
        follow(&handle.core).await?;
    }
    Ok(Arc::new(handle))
}
