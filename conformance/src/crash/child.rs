//! The process that is killed.

use std::io::Read as _;
use std::process::ExitCode;

use ghostwire_store_core::entropy::SystemEntropy;
use ghostwire_store_core::secrets::HashKey;

use super::process::CHILD;
use super::protocol::{Job, Message, Task};
use super::{export, import, workload};
use crate::prelude::*;

/// Does the job that a check started this process for, if it was started by one.
pub(crate) fn run_child(backends: &[Arc<dyn Factory>]) -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    arguments.next().filter(|first| first == CHILD)?;
    let job = arguments.next().unwrap_or_default();
    let Ok(job) = serde_json::from_str::<Job>(&job.to_string_lossy()) else {
        eprintln!("what follows {CHILD} is not a job of a check");
        return Some(ExitCode::from(2));
    };
    Message::Here.send();
    // If the parent is gone, its end of the pipe is closed, and nobody is left to kill this
    // process.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let factory = backends.iter().find(|factory| factory.name() == job.factory);
    let factory = factory.expect("the parent's backends are the child's").clone();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let place = factory.at(&job.location).await.expect("the parent's place");
        run(place, job).await;
        Message::Finished.send();
        std::future::pending::<()>().await;
    });
    Some(ExitCode::SUCCESS)
}

async fn run(place: Box<dyn Place>, job: Job) {
    let materialize = job.materialize();
    match job.task {
        Task::Work { round } => {
            let store = open(place.as_ref(), at(round), materialize).await;
            Message::Opened.send();
            workload::run(store, job.seed, round).await;
        }
        Task::Share { round, first, loses_server } => {
            let store = open_beside(place.as_ref(), at(round), materialize).await;
            Message::Opened.send();
            workload::run_beside(store, job.seed, round, (first, loses_server)).await;
        }
        Task::Open => {
            let _open = open(place.as_ref(), at(0), materialize).await;
            Message::Opened.send();
            std::future::pending::<()>().await;
        }
        Task::Import { file } => {
            let store = open(place.as_ref(), at(0), materialize).await;
            Message::Opened.send();
            import::run(&store, &file, |batches| Message::Imported { batches }.send()).await;
        }
        Task::Export { directory, round } => {
            let store = open(place.as_ref(), at(round), materialize).await;
            Message::Opened.send();
            let work = workload::run(store.clone(), job.seed, round);
            tokio::join!(work, export::run(store, &directory));
        }
    }
}

/// The time of a round. It does not move during the round, so that the result of a command does not
/// depend on when it is executed.
pub(super) fn at(round: u32) -> Timestamp {
    Timestamp::from_micros(BEGINNING + i64::from(round) * 3_600_000_000).expect("a moment")
}

/// Opens a place with limits so small that rows are often flushed and blocks purged.
pub(super) async fn open(
    place: &dyn Place,
    now: Timestamp,
    materialize: Materialize,
) -> Arc<dyn Store> {
    let backend = place.open(Opening::new(STORE)).await.expect("the backend opens");
    let options = options(now, materialize);
    ghostwire_store_core::open(backend, options).await.expect("the store opens")
}

/// Opens it beside other processes: who is behind learns from blocks, so they have to be there.
pub(super) async fn open_beside(
    place: &dyn Place,
    now: Timestamp,
    materialize: Materialize,
) -> Arc<dyn Store> {
    let backend = place.open(Opening::new(STORE)).await.expect("the backend opens");
    let options = StoreOptions { writer: WriterOptions::default(), ..options(now, materialize) };
    ghostwire_store_core::open(backend, options).await.expect("the store opens")
}

/// The identity of every store that is made here.
pub(super) const STORE: StoreId = StoreId::from_bytes([7; 16]);

pub(super) fn options(now: Timestamp, materialize: Materialize) -> StoreOptions {
    StoreOptions {
        clock: Arc::new(ManualClock::new(now)),
        entropy: Arc::new(SystemEntropy),
        hash_key: Some(Arc::new(hash_key().into())),
        materialize,
        writer: WriterOptions {
            max_dirty_rows: 64,
            retain_block_bytes: 4096,
            idle_before_flush: Duration::from_millis(1),
            ..WriterOptions::default()
        },
        ..StoreOptions::default()
    }
}

pub(super) fn hash_key() -> HashKey {
    HashKey::new([3; 32])
}
