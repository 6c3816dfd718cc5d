//! Migrations that are killed.

use std::fs;
use std::path::Path;
use std::time::Instant;

use ghostwire_store_core::digest::Digest;
use ghostwire_store_core::state::{self, State};

use super::child::{STORE, at, open};
use super::process::{Moment, run_and_kill};
use super::protocol::{Job, Message, Task};
use super::share;
use super::work::NO_LOCATION;
use crate::prelude::*;

const BLOCKS: u32 = 30;
const RECORDS_IN_A_BLOCK: u32 = 100;
/// The last blocks, whose rows are not flushed yet.
const FLUSHED: u32 = 25;

pub(super) async fn check(factory: Arc<dyn Factory>, effort: Effort) -> Verdict {
    let old = factory.create().await.expect("a place can be made");
    if old.location().is_none() {
        return NO_LOCATION;
    }
    let expected = write_version_1(old.as_ref()).await;
    // How long it takes if nobody kills it.
    let began = Instant::now();
    let place = old.after_crash().await.expect("a place can be copied");
    let store = open(place.as_ref(), at(0), Materialize::Checkpoint).await;
    store.close().await.expect("the store closes");
    let takes = u64::try_from(began.elapsed().as_micros()).expect("some moments");

    let rng = Rng::new(effort.seed);
    let mut kills = share(effort.kills, 3);
    while kills > 0 {
        let place = old.after_crash().await.expect("a place can be copied");
        let location = place.location().expect("as before");
        let job = Job::new(&*factory, &location, rng.one_in(2), effort, Task::Open);
        let times = kills.min(1 + u32::from(rng.one_in(3)));
        kills -= times;
        for _ in 0..times {
            let moment = Moment { lines: 1, micros: rng.number() % takes };
            run_and_kill(job.clone(), moment, |said| matches!(said, Message::Here)).await;
            check_backups(factory.as_ref(), place.as_ref()).await;
        }
        let store = open(place.as_ref(), at(0), job.materialize()).await;
        store.verify().await.expect("nothing is wrong with what was migrated");
        let digests = store.digests().await.expect("the digests can be computed");
        assert_eq!(digests.state, expected);
        store.close().await.expect("the store closes");
        let backend = place.open(Opening::new(STORE)).await.expect("the backend opens");
        let head = backend.head().await.expect("the head can be read");
        assert_eq!(head.schema, Schema::current().version());
        backend.close().await.expect("the backend closes");
        drop(backend);
        let copies = check_backups(factory.as_ref(), place.as_ref()).await;
        assert!(copies > 0 || place.files().is_empty(), "there is no copy of the old file");
        let unfinished =
            place.files().into_iter().find(|path| path.extension() == Some("part".as_ref()));
        assert_eq!(unfinished, None, "what a killed migration left is still there");
    }
    Verdict::Passed
}

/// Writes thousands of rows in the first schema. Returns the digest of their state.
async fn write_version_1(place: &dyn Place) -> Digest {
    let schema = Schema::at(1).expect("there was a first schema");
    let opening = Opening::new(STORE).schema(schema);
    let backend = place.open(opening).await.expect("the backend opens");
    let mut state = State::default();
    for number in 0..BLOCKS {
        let mut builder = BlockBuilder::default();
        for index in 0..RECORDS_IN_A_BLOCK {
            let record = record(number * RECORDS_IN_A_BLOCK + index);
            builder.put(ChangeKind::Created, &record);
            state.evolve(state::StateChange::Put(EntityRecord::DnsRecord(record.into())));
        }
        let head = backend.head().await.expect("the head can be read");
        let mut random = [1; 10];
        random[..4].copy_from_slice(&number.to_be_bytes());
        let id = BlockId::time_ordered(at(0), random);
        let closed = builder.finish(head.serial.next(), id, head.hash, at(0)).expect("a block");
        let rows = closed.changes.into_iter().map(|change| RowChange {
            body: change.body.map(|body| schema.fit(change.table, &body).expect("a body")),
            ..change
        });
        let is_flushed = number < FLUSHED;
        let commit = Commit {
            checkpoint: is_flushed.then_some(closed.block.serial),
            block: Some(closed.block),
            rows: if is_flushed { rows.collect() } else { Vec::new() },
            ..Commit::on(&head)
        };
        backend.commit(&commit).await.expect("a commit is stored");
    }
    backend.close().await.expect("the backend closes");
    state_digest(&state)
}

fn record(number: u32) -> DnsRecord {
    let mut random = [2; 10];
    random[..4].copy_from_slice(&number.to_be_bytes());
    DnsRecord {
        id: DnsRecordId::time_ordered(at(0), random),
        name: format!("host-{number}.example.com").parse().unwrap(),
        kind: DnsRecordKind::Txt,
        value: format!("{number}").repeat(20).parse().unwrap(),
        ttl: None,
        created_at: at(0),
        updated_at: at(0),
        revision: Revision::FIRST,
    }
}

/// A copy that has its name, `<file>.v1.bak` as backends in local files give it, is a whole store
/// of the old schema. Gives how many there are.
async fn check_backups(factory: &dyn Factory, place: &dyn Place) -> usize {
    let mut copies = 0;
    for path in place.files() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((name, _)) = name.split_once(".v1.bak").filter(|(_, rest)| is_finished(rest))
        else {
            continue;
        };
        let (_directory, copy) = restored(factory, &path, name).await;
        let backend = copy.open(Opening::new(STORE)).await.expect("the copy opens");
        check_version_1(backend.as_ref()).await;
        backend.close().await.expect("the copy closes");
        copies += 1;
    }
    copies
}

/// Further copies are numbered.
fn is_finished(rest: &str) -> bool {
    rest.is_empty() || rest.strip_prefix('.').is_some_and(|rest| rest.parse::<u32>().is_ok())
}

async fn restored(
    factory: &dyn Factory,
    backup: &Path,
    name: &str,
) -> (tempfile::TempDir, Box<dyn Place>) {
    let directory = crate::local_files::scratch().expect("a scratch directory");
    fs::copy(backup, directory.path().join(name)).expect("a copy can be copied");
    let location = directory.path().to_str().expect("a readable path");
    let place = factory.at(location).await.expect("a directory is a place");
    (directory, place)
}

async fn check_version_1(backend: &dyn Backend) {
    backend.verify().await.expect("nothing is wrong with the copy");
    let head = backend.head().await.expect("the head can be read");
    assert_eq!((head.schema.version, head.serial.get()), (1, u64::from(BLOCKS)));
    let limit = usize::try_from(BLOCKS * RECORDS_IN_A_BLOCK).expect("some thousands");
    let scan = Scan { range: KeyRange::all(Table::DnsRecords), reverse: false, limit };
    let rows = backend.scan(scan).await.expect("rows can be read").rows;
    assert_eq!(rows.len(), usize::try_from(FLUSHED * RECORDS_IN_A_BLOCK).expect("some thousands"));
    let blocks = backend.blocks(head.checkpoint, limit).await.expect("blocks can be read");
    assert_eq!(blocks.len(), usize::try_from(BLOCKS - FLUSHED).expect("a few"));
}
