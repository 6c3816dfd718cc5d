//! The process that is killed.

use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ghostwire_store_core::Store;
use ghostwire_store_core::domain::{ManualClock, StoreId, Timestamp};
use ghostwire_store_core::entropy::SystemEntropy;
use ghostwire_store_core::options::{Materialize, StoreOptions, WriterOptions};
use ghostwire_store_core::secrets::HashKey;

use super::process::PART;
use super::said::{Part, Play, Said};
use super::{export, import, workload};
use crate::factory::{Factory, Opening, Place};
use crate::world::BEGINNING;

/// Plays the part that this process was started for, if it was started for one.
pub(crate) fn play(backends: &[Arc<dyn Factory>]) -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    arguments.next().filter(|first| first == PART)?;
    let part = arguments.next().unwrap_or_default();
    let Ok(part) = serde_json::from_str::<Part>(&part.to_string_lossy()) else {
        eprintln!("what follows {PART} is no part of a check");
        return Some(ExitCode::from(2));
    };
    Said::Here.say();
    // Whoever was to kill this process is gone when its end of the pipe is.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let factory = backends.iter().find(|factory| factory.name() == part.factory);
    let factory = factory.expect("the parent's backends are the child's").clone();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let place = factory.at(&part.location).await.expect("the parent's place");
        run(place, part).await;
        Said::Finished.say();
        std::future::pending::<()>().await;
    });
    Some(ExitCode::SUCCESS)
}

async fn run(place: Box<dyn Place>, part: Part) {
    let materialize = part.materialize();
    match part.play {
        Play::Work { round } => {
            let store = open(place.as_ref(), at(round), materialize).await;
            Said::Opened.say();
            workload::run(store, part.seed, round).await;
        }
        Play::Open => {
            let _open = open(place.as_ref(), at(0), materialize).await;
            Said::Opened.say();
            std::future::pending::<()>().await;
        }
        Play::Import { file } => {
            let store = open(place.as_ref(), at(0), materialize).await;
            Said::Opened.say();
            import::run(&store, &file, |batches| Said::Imported { batches }.say()).await;
        }
        Play::Export { directory, round } => {
            let store = open(place.as_ref(), at(round), materialize).await;
            Said::Opened.say();
            let work = workload::run(store.clone(), part.seed, round);
            tokio::join!(work, export::run(store, &directory));
        }
    }
}

/// The time of a round. It stands still while the round lasts, so that what a command comes to
/// does not depend on when it is carried out.
pub(super) fn at(round: u32) -> Timestamp {
    Timestamp::from_micros(BEGINNING + i64::from(round) * 3_600_000_000).expect("a moment")
}

/// Opens a place so that much is folded, checkpointed and purged.
pub(super) async fn open(
    place: &dyn Place,
    now: Timestamp,
    materialize: Materialize,
) -> Arc<dyn Store> {
    let backend = place.open(Opening::new(STORE)).await.expect("the backend opens");
    let options = options(now, materialize);
    ghostwire_store_core::open(backend, options).await.expect("the store opens")
}

/// The identity of every store that is made here.
pub(super) const STORE: StoreId = StoreId::from_bytes([7; 16]);

pub(super) fn options(now: Timestamp, materialize: Materialize) -> StoreOptions {
    StoreOptions {
        clock: Arc::new(ManualClock::new(now)),
        entropy: Arc::new(SystemEntropy),
        hash_key: Some(Arc::new(hash_key())),
        materialize,
        writer: WriterOptions {
            max_fold_debt: 64,
            retain_block_bytes: 4096,
            idle_before_fold: Duration::from_millis(1),
            ..WriterOptions::default()
        },
        ..StoreOptions::default()
    }
}

pub(super) fn hash_key() -> HashKey {
    HashKey::new([3; 32])
}
