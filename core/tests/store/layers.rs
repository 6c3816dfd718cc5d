//! What the layers do to a backend.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_store_core::backend::{
    Attestation, AttestedState, Backend, BackendInfo, Budget, Commit, Head, KeyRange, Scan,
    ScanPage,
};
use ghostwire_store_core::block::{BlockBuilder, BlockHash, EncodedBlock, Serial};
use ghostwire_store_core::digest::state_digest;
use ghostwire_store_core::domain::*;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::layer::{Chaos, FaultKind, Observe};
use ghostwire_store_core::observe::{Event, Recorder};
use ghostwire_store_core::position::{Epoch, Position};
use ghostwire_store_core::schema::{Schema, Table};
use ghostwire_store_core::state::State;
use ghostwire_store_memory::MemoryBackend;

fn chaos() -> Chaos {
    Chaos::new(Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16]))))
}

fn block_after(head: &Head) -> EncodedBlock {
    let id = BlockId::from_bytes([1; 16]);
    let builder = BlockBuilder::default();
    builder.finish(head.serial.next(), id, head.hash, head.time).unwrap().block
}

#[tokio::test]
async fn commits_fail_as_told() {
    let chaos = chaos();
    chaos.faults().fail_next_commits(1, FaultKind::Before);
    chaos.faults().fail_next_commits(2, FaultKind::DiskFull);
    chaos.faults().fail_next_commits(1, FaultKind::After);
    let head = chaos.head().await.unwrap();
    let commit = Commit { block: Some(block_after(&head)), ..Commit::default() };
    for (kind, serial) in [
        (ErrorKind::Unavailable, 0),
        (ErrorKind::Exhausted, 0),
        (ErrorKind::Exhausted, 0),
        (ErrorKind::OutcomeUnknown, 1),
        (ErrorKind::Conflict, 1),
    ] {
        assert_eq!(*chaos.commit(&commit).await.unwrap_err().kind(), kind);
        assert_eq!(chaos.head().await.unwrap().serial.get(), serial);
    }
    chaos.faults().fail_next_reopens(1);
    assert_eq!(*chaos.reopen().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(chaos.reopen().await.unwrap().serial.get(), 1);
}

#[tokio::test]
async fn commits_wait_while_held() {
    let chaos = chaos();
    let hold = chaos.faults().hold_commits();
    let second = chaos.faults().hold_commits();
    let handle = chaos.clone();
    let waiting = tokio::spawn(async move { handle.commit(&Commit::default()).await });
    while chaos.faults().held_commits() == 0 {
        tokio::task::yield_now().await;
    }
    drop(hold);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(second);
    waiting.await.unwrap().unwrap();
    assert_eq!(chaos.faults().held_commits(), 0);
}

/// Fails as told, whatever is called, and counts the calls. Each takes some time.
#[derive(Debug)]
struct Scripted {
    memory: MemoryBackend,
    failures: Mutex<VecDeque<ErrorKind>>,
    calls: Mutex<Vec<&'static str>>,
    took: Mutex<Duration>,
}

impl Scripted {
    fn new(failures: &[ErrorKind]) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryBackend::new(StoreId::from_bytes([1; 16])),
            failures: Mutex::new(failures.iter().cloned().collect()),
            calls: Mutex::default(),
            took: Mutex::default(),
        })
    }

    fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    async fn call(&self, operation: &'static str) -> Result<()> {
        self.calls.lock().unwrap().push(operation);
        let took = *self.took.lock().unwrap();
        tokio::time::sleep(took).await;
        match self.failures.lock().unwrap().pop_front() {
            Some(kind) => Err(Error::new(kind, "as told").with("key", "mkey:secret")),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Backend for Scripted {
    fn info(&self) -> BackendInfo {
        self.memory.info()
    }

    async fn head(&self) -> Result<Head> {
        self.call("head").await?;
        self.memory.head().await
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.call("migrate").await?;
        self.memory.migrate(target).await
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        self.call("scan").await?;
        self.memory.scan(scan).await
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.call("blocks").await?;
        self.memory.blocks(after, limit).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.call("commit").await?;
        self.memory.commit(commit).await
    }

    async fn maintain(&self, _: Budget) -> Result<bool> {
        self.call("maintain").await.map(|()| false)
    }

    async fn confirm(&self) -> Result<()> {
        self.call("confirm").await
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        self.call("probe").await?;
        self.memory.probe(epoch).await
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        self.call("adopt").await?;
        self.memory.adopt(head).await
    }

    async fn reopen(&self) -> Result<Head> {
        self.call("reopen").await?;
        self.memory.reopen().await
    }

    async fn verify(&self) -> Result<()> {
        self.call("verify").await?;
        self.memory.verify().await
    }

    async fn attest(&self, state: &AttestedState) -> Result<Attestation> {
        self.call("attest").await?;
        Ok(Attestation { state: *state, signer: "somebody".into(), text: "signed".into() })
    }

    async fn close(&self) -> Result<()> {
        self.call("close").await
    }
}

fn state() -> AttestedState {
    AttestedState {
        epoch: Epoch::ZERO,
        position: Position::new(1),
        serial: Serial::new(1),
        hash: BlockHash::GENESIS,
        time: Timestamp::EPOCH,
        digest: state_digest(&State::default()),
    }
}

fn users() -> Scan {
    Scan { range: KeyRange::all(Table::Users), reverse: false, limit: 9 }
}

/// Calls one operation by its name.
async fn call(backend: &dyn Backend, operation: &str) -> Result<()> {
    match operation {
        "head" => backend.head().await.map(drop),
        "migrate" => backend.migrate(Schema::current()).await,
        "scan" => backend.scan(users()).await.map(drop),
        "blocks" => backend.blocks(Serial::ZERO, 9).await.map(drop),
        "commit" => backend.commit(&Commit::default()).await,
        "maintain" => backend.maintain(Budget::default()).await.map(drop),
        "confirm" => backend.confirm().await,
        "probe" => backend.probe(Commit::default().epoch).await,
        "reopen" => backend.reopen().await.map(drop),
        "verify" => backend.verify().await,
        "attest" => {
            let attested = backend.attest(&state()).await?;
            assert_eq!((attested.state, &attested.text[..]), (state(), "signed"));
            Ok(())
        }
        _ => backend.close().await,
    }
}

/// A call as a recorder is told of it.
type Called = (&'static str, Option<&'static str>, Duration, Option<&'static str>);

/// Remembers calls.
#[derive(Debug, Default)]
struct Calls(Mutex<Vec<Called>>);

impl Calls {
    fn take(&self) -> Vec<Called> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Recorder for Calls {
    fn record(&self, event: &Event<'_>) {
        if let Event::Call { backend, operation, collection, took, error } = *event {
            assert_eq!(backend, "memory");
            self.0.lock().unwrap().push((operation, collection, took, error));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_is_told_once_with_its_time() {
    let (scripted, calls) = (Scripted::new(&[]), Arc::new(Calls::default()));
    let observe = Observe::new(scripted.clone(), calls.clone());
    let operations = [
        "attest", "blocks", "close", "commit", "confirm", "head", "maintain", "migrate", "probe",
        "reopen", "scan", "verify",
    ];
    let took = Duration::from_millis(3);
    *scripted.took.lock().unwrap() = took;
    for operation in operations {
        call(&observe.clone(), operation).await.unwrap();
        let table = (operation == "scan").then_some("users");
        assert_eq!(calls.take(), [(operation, table, took, None)]);
    }
    assert_eq!(scripted.calls().len(), operations.len());
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_by_their_kind() {
    let compacted = ErrorKind::Compacted { oldest: 3 };
    let failures = [ErrorKind::Busy, compacted, ErrorKind::Conflict];
    let (scripted, calls) = (Scripted::new(&failures), Arc::new(Calls::default()));
    let observe = Observe::new(scripted.clone(), calls.clone());
    for failure in failures {
        let error = observe.blocks(Serial::ZERO, 1).await.unwrap_err();
        assert_eq!(*error.kind(), failure);
        assert_eq!(error.message(), "as told");
    }
    // A call that was given up counts, too.
    *scripted.took.lock().unwrap() = Duration::from_secs(3);
    let patience = Duration::from_secs(2);
    tokio::time::timeout(patience, observe.blocks(Serial::ZERO, 1)).await.unwrap_err();
    let told: Vec<_> = calls.take().iter().map(|call| (call.0, call.3)).collect();
    let wanted = ["busy", "compacted", "conflict", "cancelled"];
    assert_eq!(told, wanted.map(|error| ("blocks", Some(error))));
}
