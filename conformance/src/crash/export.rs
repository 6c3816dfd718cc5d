//! Exports that are killed while others write.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use ghostwire_store_core::portable::Reader;

use super::process::{Moment, run_and_kill};
use super::protocol::{Job, Message, Task};
use super::work::NO_LOCATION;
use super::{import, share};
use crate::prelude::*;

/// Exports again and again, until the process is killed.
pub(super) async fn run(store: Arc<dyn Store>, directory: &str) {
    for number in 0.. {
        Message::Exporting { number }.send();
        let file = File::create(file_of(directory, number)).expect("a file can be made");
        // A small buffer, so that an unfinished file is not empty.
        export(&store, BufWriter::with_capacity(512, file)).await;
        Message::Exported { number }.send();
    }
}

fn file_of(directory: impl AsRef<Path>, number: u32) -> std::path::PathBuf {
    directory.as_ref().join(format!("{number}.jsonl"))
}

pub(super) async fn check(factory: Arc<dyn Factory>, effort: Effort) -> Verdict {
    let place = factory.create().await.expect("a place can be made");
    let Some(location) = place.location() else { return NO_LOCATION };
    let rng = Rng::new(effort.seed);
    let mut finished = 0;
    for round in 0..share(effort.kills, 3) {
        let directory = crate::local_files::scratch().expect("a scratch directory");
        let file = directory.path().to_str().expect("a readable path").to_owned();
        let task = Task::Export { directory: file, round };
        let job = Job::new(&*factory, &location, rng.one_in(2), effort, task);
        let moment = Moment { lines: 2 + rng.below(6), micros: rng.number() % 20_000 };
        let begun = |said: &Message| matches!(said, Message::Exporting { .. });
        let said = run_and_kill(job, moment, begun).await;
        for said in &said {
            if let Message::Exported { number } = said {
                finished += 1;
                assert!(is_whole(&file_of(&directory, *number)).await, "export {number}");
            }
        }
        let last = said.iter().rev().find_map(|said| match said {
            Message::Exporting { number } => Some(*number),
            _ => None,
        });
        let last = file_of(&directory, last.expect("it was waited for"));
        // The export may be complete, or not have begun. An incomplete one must not pass as
        // complete.
        let _ = !last.exists() || is_whole(&last).await;
    }
    assert!(finished > 0, "no export was completed");
    Verdict::Passed
}

/// Whether an export is complete. If it is, it must hold the state of one moment.
async fn is_whole(path: &Path) -> bool {
    let open = || BufReader::new(File::open(path).expect("an export can be read"));
    let summary = match Reader::new(open()).and_then(Reader::verify) {
        Ok(summary) => summary,
        Err(error) => {
            assert_eq!(*error.kind(), Corrupt, "{error}");
            return false;
        }
    };
    let store = import::scratch_store().await;
    import::run(&store, path, |_| ()).await;
    let state = store.digests().await.expect("the digests can be computed").state;
    assert_eq!(summary.state_digest, Some(*state.as_bytes()));
    true
}
