//! Exports that are killed while others write.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;
use std::sync::Arc;

use ghostwire_store_core::portable::Reader;
use ghostwire_store_core::{ErrorKind, Store};

use super::process::{Moment, run_and_kill};
use super::said::{Part, Play, Said};
use super::work::NO_LOCATION;
use super::{import, share};
use crate::case::Verdict;
use crate::dice::Dice;
use crate::factory::Factory;
use crate::fixtures;
use crate::suite::Effort;

/// Exports again and again, until the process is killed.
pub(super) async fn run(store: Arc<dyn Store>, directory: &str) {
    for number in 0.. {
        Said::Exporting { number }.say();
        let file = File::create(file_of(directory, number)).expect("a file can be made");
        // A small buffer, so that a file that is not finished is not empty either.
        fixtures::export(&store, BufWriter::with_capacity(512, file)).await;
        Said::Exported { number }.say();
    }
}

fn file_of(directory: impl AsRef<Path>, number: u32) -> std::path::PathBuf {
    directory.as_ref().join(format!("{number}.jsonl"))
}

pub(super) async fn check(factory: Arc<dyn Factory>, effort: Effort) -> Verdict {
    let place = factory.create().await.expect("a place can be made");
    let Some(location) = place.location() else { return NO_LOCATION };
    let dice = Dice::new(effort.seed);
    let mut finished = 0;
    for round in 0..share(effort.kills, 3) {
        let directory = crate::local_files::scratch().expect("a scratch directory");
        let file = directory.path().to_str().expect("a readable path").to_owned();
        let play = Play::Export { directory: file, round };
        let part = Part::new(&*factory, &location, dice.once_in(2), effort, play);
        let moment = Moment { lines: 2 + dice.below(6), micros: dice.number() % 20_000 };
        let begun = |said: &Said| matches!(said, Said::Exporting { .. });
        let said = run_and_kill(part, moment, begun).await;
        for said in &said {
            if let Said::Exported { number } = said {
                finished += 1;
                assert!(is_whole(&file_of(&directory, *number)).await, "export {number}");
            }
        }
        let last = said.iter().rev().find_map(|said| match said {
            Said::Exporting { number } => Some(*number),
            _ => None,
        });
        let last = file_of(&directory, last.expect("it was waited for"));
        // It may be whole already, or not have begun; it is never taken for more than it is.
        let _ = !last.exists() || is_whole(&last).await;
    }
    assert!(finished > 0, "no export was completed");
    Verdict::Passed
}

/// Whether an export is complete, and then what it holds is what was there at one moment.
async fn is_whole(path: &Path) -> bool {
    let open = || BufReader::new(File::open(path).expect("an export can be read"));
    let summary = match Reader::new(open()).and_then(Reader::verify) {
        Ok(summary) => summary,
        Err(error) => {
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
            return false;
        }
    };
    let store = import::scratch_store().await;
    import::run(&store, path, |_| ()).await;
    let state = store.digests().await.expect("the digests can be computed").state;
    assert_eq!(summary.state_digest, Some(*state.as_bytes()));
    true
}
