//! The sample network is as this build exports it, and the demonstration does what it says.
#![allow(clippy::unwrap_used)]

use ghostwire_store::command::{Command, Restore};
use ghostwire_store::domain::Actor;
use ghostwire_store::portable::{Item, Reader};
use ghostwire_store::{EntityKind, ErrorKind};
use ghostwire_store_core::block::BlockBuilder;
use ghostwire_store_core::digest::state_digest;
use ghostwire_store_core::state::{Context, Reply, State};

use super::{Args, run, sample};

fn args() -> Args {
    let (directory, corrupt, write_sample, page, move_child) = (None, None, None, None, None);
    // What moves is served by the program, which this is not; the tests of its calls have it.
    let (keep, force, without_move) = (false, false, true);
    let (seed, scale) = (7, 1);
    Args {
        directory,
        keep,
        seed,
        scale,
        corrupt,
        write_sample,
        page,
        force,
        without_move,
        move_child,
    }
}

#[test]
fn the_committed_sample_is_as_this_build_writes_it() {
    let mut written = Vec::new();
    sample::write(&mut written).unwrap();
    assert!(
        written == sample::FILE,
        "run `cargo run --release -- demo --write-sample examples/sample-network.jsonl --force`"
    );
    assert!(written.len() <= 1_500_000, "{} bytes", written.len());
}

#[test]
fn the_sample_is_imported_without_a_problem() {
    let mut reader = Reader::new(sample::FILE).unwrap();
    let mut images = Vec::new();
    for item in &mut reader {
        if let Item::Entity(image) = item.unwrap() {
            images.push(image);
        }
    }
    let summary = reader.summary().unwrap().clone();
    assert_eq!(summary.counts.get(&EntityKind::Node), Some(&150));
    assert_eq!(summary.counts.get(&EntityKind::User), Some(&6));
    assert_eq!(summary.counts.get(&EntityKind::Policy), Some(&2));
    assert!(summary.counts.get(&EntityKind::Metric).unwrap() > &5000);
    let mut state = State::default();
    let actor = Actor::system();
    let context = Context { now: sample::END.parse().unwrap(), actor: &actor, seed: [0; 10] };
    let count = images.len() as u64;
    let command = Command::Restore(Restore { images, skip_invalid: false });
    let reply = state.execute(&command, &context, &mut BlockBuilder::default()).unwrap();
    assert!(matches!(reply, Reply::Restored(done) if done.restored == count));
    assert_eq!(summary.state_digest.as_ref(), Some(state_digest(&state).as_bytes()));
    let shared = "10.20.0.0/16".parse().unwrap();
    assert_eq!(state.routes().of_prefix(shared).count(), 2);
    assert!(state.routes().primary(shared).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demonstration_ends_well_and_can_be_repeated() {
    let mut digests = Vec::new();
    for _ in 0..2 {
        let mut out = Vec::new();
        run(args(), &mut out, true).await.unwrap();
        let result: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(result.pointer("/kept").unwrap(), false);
        let directory = result.pointer("/directory").unwrap().as_str().unwrap();
        assert!(!std::path::Path::new(directory).exists());
        digests.push(result.pointer("/stores/0/digests").unwrap().clone());
        assert_eq!(result.pointer("/stores/1/digests"), digests.last());
    }
    assert_eq!(digests.first(), digests.last());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_byte_makes_it_fail() {
    for backend in ["libsql", "zqlite"] {
        let directory = tempfile::tempdir().unwrap();
        let args = Args {
            directory: Some(directory.path().join("demo")),
            corrupt: Some(backend.to_owned()),
            ..args()
        };
        let mut out = Vec::new();
        let error = run(args, &mut out, false).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        let text = error.to_string();
        assert!(text.contains(backend) && text.contains("stores_kept_in"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_fits_100_columns() {
    let mut out = Vec::new();
    run(args(), &mut out, false).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    for line in text.lines().filter(|line| !line.contains('/')) {
        assert!(line.chars().count() <= 100, "{line}");
    }
    for wanted in
        ["register", "heartbeat", "p99", "fsync", "flipped bytes", "not on the Zig library"]
    {
        assert!(text.contains(wanted), "{wanted}");
    }
}
