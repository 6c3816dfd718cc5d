//! Files that are not what was written.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use ghostwire_store_core::digest::Digests;
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind};
use ghostwire_store_core::options::Materialize;
use ghostwire_store_core::{Result, Store};

use super::life::{Life, clock, open, opening, options};
use crate::case::Verdict;
use crate::dice::Dice;
use crate::factory::{Factory, Opening, Place};
use crate::suite::Effort;

const NO_FILES: Verdict = Verdict::Skipped("the place has no files");
/// So many damages for each process that the checks kill.
const DAMAGES_PER_KILL: usize = 12;
const STEPS: usize = 60;
const PAGE: usize = 4096;
/// What SQLite keeps about a file at its beginning.
const HEADER: usize = 100;

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip {
        at: usize,
        bit: u8,
    },
    /// Only so many bytes are left; never none, since an empty file is where a store may be made.
    Cut {
        length: usize,
    },
    ZeroPage {
        at: usize,
    },
}

impl Damage {
    fn random(dice: &Dice, length: usize) -> Self {
        match dice.below(10) {
            // Headers of the file and of pages say more than the rest.
            0 => Self::Flip { at: dice.below(HEADER.min(length)), bit: dice.below(8) as u8 },
            1 | 2 => {
                let at = dice.below(length.div_ceil(PAGE)) * PAGE + dice.below(16);
                Self::Flip { at: at.min(length - 1), bit: dice.below(8) as u8 }
            }
            3..=6 => Self::Flip { at: dice.below(length), bit: dice.below(8) as u8 },
            7 => Self::Cut { length: 1 + dice.below(length - 1) },
            _ => Self::ZeroPage { at: dice.below(length.div_ceil(PAGE)) * PAGE },
        }
    }

    fn apply(self, content: &mut Vec<u8>) {
        match self {
            Self::Flip { at, bit } => content[at] ^= 1 << bit,
            Self::Cut { length } => content.truncate(length),
            Self::ZeroPage { at } => {
                let end = (at + PAGE).min(content.len());
                content[at..end].fill(0);
            }
        }
    }

    /// Whether it is about what says whose file it is, and which.
    fn is_of_header(self) -> bool {
        match self {
            Self::Flip { at, .. } | Self::ZeroPage { at } => at < HEADER,
            Self::Cut { length } => length < HEADER,
        }
    }

    fn may_give(self, error: &Error) -> bool {
        use ErrorKind::{Corrupt, InvalidArgument, ReadOnly, SchemaMismatch, Unsupported};
        match error.kind() {
            Corrupt => true,
            // It looks like a file of somebody else, of another release, or one that only others
            // may write.
            InvalidArgument | ReadOnly | SchemaMismatch { .. } | Unsupported => self.is_of_header(),
            _ => false,
        }
    }
}

/// Opens a store and reads everything. Whoever opens it would give a new store another identity, so
/// that one which was made anew in place of the damaged one does not pass for an early state of it.
async fn read(place: &dyn Place, materialize: Materialize) -> Result<Digests> {
    // Asked for before it is opened, so that nothing waits for this machine's disk.
    place.disk();
    let backend = place.open(Opening::new(StoreId::from_bytes([8; 16]))).await?;
    assert_eq!(backend.head().await?.store, opening().store, "another store is in its place");
    let options = options(materialize, &clock(), 99);
    let store = ghostwire_store_core::open(backend, options).await?;
    let digests = read_all(store.as_ref()).await;
    // What was found is what counts.
    let _ = store.close().await;
    digests
}

async fn read_all(store: &dyn Store) -> Result<Digests> {
    let digests = store.digests().await?;
    store.verify().await?;
    Ok(digests)
}

fn contents(files: &[PathBuf]) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: &PathBuf| (path.clone(), fs::read(path).unwrap());
    files.iter().map(read).filter(|(_, content)| content.len() > 1).collect()
}

pub(super) async fn a_damaged_file_is_refused_or_reads_the_same(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    let dice = Dice::new(effort.seed);
    for materialize in [Materialize::Commit, Materialize::Checkpoint] {
        let place = factory.create().await.unwrap();
        let mut life = Life::new(effort.seed);
        let made = options(materialize, &life.clock, effort.seed);
        let (_, store) = open(place.as_ref(), made).await.unwrap();
        if place.files().is_empty() {
            return NO_FILES;
        }
        for _ in 0..STEPS {
            life.step(store.as_ref()).await.unwrap();
        }
        let expected = store.digests().await.unwrap();
        store.close().await.unwrap();
        let (mut refused, mut harmless) = (0, 0);
        let count = effort.kills as usize * DAMAGES_PER_KILL / 2;
        for _ in 0..count {
            let copy = place.after_crash().await.unwrap();
            let files = contents(&copy.files());
            let (path, whole) = files.iter().nth(dice.below(files.len())).unwrap();
            let damage = Damage::random(&dice, whole.len());
            let mut damaged = whole.clone();
            damage.apply(&mut damaged);
            fs::write(path, damaged).unwrap();
            match read(copy.as_ref(), materialize).await {
                Ok(found) => {
                    assert_eq!(found, expected, "read as other data: {materialize:?}, {damage:?}");
                    harmless += 1;
                }
                Err(error) => {
                    let allowed = damage.may_give(&error);
                    assert!(allowed, "{materialize:?}, {damage:?} gives {error:?}");
                    refused += 1;
                }
            }
        }
        assert!(refused * 3 > harmless, "{refused} refused, {harmless} harmless");
    }
    Verdict::Passed
}

/// Files that a process left which died may hold less than the store did; but only a state that
/// it had.
pub(super) async fn damage_after_a_crash_gives_an_earlier_state_or_none(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    let dice = Dice::new(effort.seed ^ 0xda);
    for materialize in [Materialize::Commit, Materialize::Checkpoint] {
        let place = factory.create().await.unwrap();
        let mut life = Life::new(effort.seed);
        let made = options(materialize, &life.clock, effort.seed);
        let (_, store) = open(place.as_ref(), made).await.unwrap();
        if place.files().is_empty() {
            return NO_FILES;
        }
        let mut history = vec![store.digests().await.unwrap()];
        for _ in 0..STEPS {
            life.step(store.as_ref()).await.unwrap();
            history.push(store.digests().await.unwrap());
        }
        let mut older = 0;
        let count = effort.kills as usize * DAMAGES_PER_KILL / 2;
        for _ in 0..count {
            let copy = place.after_crash().await.unwrap();
            let files = contents(&copy.files());
            let (path, whole) = files.iter().nth(dice.below(files.len())).unwrap();
            let damage = Damage::random(&dice, whole.len());
            let when = format!("{materialize:?}, {}, {damage:?}", path.display());
            let mut damaged = whole.clone();
            damage.apply(&mut damaged);
            fs::write(path, damaged).unwrap();
            match read(copy.as_ref(), materialize).await {
                Ok(found) => {
                    assert!(history.contains(&found), "read as other data: {when}");
                    older += usize::from(history.last() != Some(&found));
                }
                Err(error) => {
                    assert!(damage.may_give(&error), "{when} gives {error:?}");
                }
            }
        }
        assert!(older > 0, "no damage gave an earlier state");
        store.close().await.unwrap();
    }
    Verdict::Passed
}
