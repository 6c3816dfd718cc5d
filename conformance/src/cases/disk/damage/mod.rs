//! Files that are not what was written.

mod contents;
mod injury;
mod pages;

use std::ffi::OsString;
use std::fs;

use super::workload::{Workload, clock, open, opening, options};
use crate::prelude::*;
use contents::{Contents, populate};
use injury::{Aim, Damage};

const NO_FILES: Verdict = Verdict::Skipped("the place has no files");
/// So many damages for each process that the checks kill.
const DAMAGES_PER_KILL: usize = 6;
const STEPS: usize = 40;
/// What there was at one of so many steps is kept, to be mixed with what came later.
const STEPS_PER_MOMENT: usize = 5;
/// Of so many damages of a kind at least one is noticed.
const ENOUGH: usize = 10;

/// The files of a store, by their names.
type Files = BTreeMap<OsString, Vec<u8>>;

fn files_of(place: &dyn Place) -> Files {
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    };
    place.files().into_iter().map(read).filter(|(_, content)| content.len() > 1).collect()
}

/// A place of its own with these files in it.
async fn place_with(place: &dyn Place, files: &Files) -> Box<dyn Place> {
    let copy = place.after_crash().await.unwrap();
    let paths = copy.files();
    let directory = paths[0].parent().unwrap().to_owned();
    paths.iter().for_each(|path| fs::remove_file(path).unwrap());
    for (name, content) in files {
        fs::write(directory.join(name), content).unwrap();
    }
    copy
}

/// Opens a store and reads everything. Whoever opens it would give a new store another identity, so
/// that one which was made anew in place of the damaged one does not pass for an early state of it.
async fn read(place: &dyn Place, materialize: Materialize) -> Result<Contents> {
    // Asked for before it is opened, so that nothing waits for this machine's disk.
    place.disk();
    let before = files_of(place);
    let backend = match place.open(Opening::new(StoreId::from_bytes([8; 16]))).await {
        Ok(backend) => backend,
        Err(error) => {
            // Whoever put the wrong files together can put the right ones together.
            let is_same = place.is_opaque() || files_of(place) == before;
            assert!(is_same, "refused, and changed: {error}");
            return Err(error);
        }
    };
    assert_eq!(backend.head().await?.store, opening().store, "another store is in its place");
    let store = ghostwire_store_core::open(backend, options(materialize, &clock(), 99)).await?;
    let contents = Contents::read(&store).await;
    // What was found is what counts.
    let _ = store.close().await;
    contents
}

/// How damages ended: how many were refused, and how many did no harm.
#[derive(Debug, Default)]
struct Counts(BTreeMap<Aim, (usize, usize)>);

impl Counts {
    fn count(&mut self, aim: Aim, was_refused: bool) {
        let (refused, harmless) = self.0.entry(aim).or_default();
        *(if was_refused { refused } else { harmless }) += 1;
    }

    /// A check that damages only what nobody reads would pass idly.
    fn require_some_of_each_refused(&self) {
        for (aim, (refused, harmless)) in &self.0 {
            let enough = refused + harmless < ENOUGH || *refused > 0;
            assert!(enough, "none of {harmless} damages of this kind was noticed: {aim:?}");
        }
    }
}

/// A closed store that was written twice, and what it holds.
struct Sample {
    place: Box<dyn Place>,
    older: Files,
    files: Files,
    expected: Contents,
}

impl Sample {
    /// `None` if the place has no files.
    async fn make(factory: &dyn Factory, effort: Effort) -> Option<Self> {
        let place = factory.create().await.unwrap();
        let mut workload = Workload::new(effort.seed);
        let (mut older, mut files, mut expected) = (Files::new(), Files::new(), None);
        for time in 0..2 {
            let options = options(Materialize::Commit, &workload.clock, effort.seed + time);
            let (_, store) = open(place.as_ref(), options).await.unwrap();
            if place.files().is_empty() {
                return None;
            }
            if time == 0 {
                populate(&store).await.unwrap();
            }
            for _ in 0..STEPS {
                workload.step(&store).await.unwrap();
            }
            expected = Some(Contents::read(&store).await.unwrap());
            store.close().await.unwrap();
            older = std::mem::replace(&mut files, files_of(place.as_ref()));
        }
        Some(Self { place, older, files, expected: expected.unwrap() })
    }

    /// Damages a file and tells what is then read, unless the file has nothing of the kind.
    async fn damage(&self, aim: Aim, rng: &Rng) -> Option<(Damage, Result<Contents>)> {
        let (name, whole) = self.files.iter().nth(rng.below(self.files.len())).unwrap();
        let older = self.older.get(name).map_or(&[][..], Vec::as_slice);
        let damage = Damage::aimed(aim, rng, whole, older)?;
        let mut damaged = self.files.clone();
        damage.apply(damaged.get_mut(name).unwrap(), older);
        let copy = place_with(self.place.as_ref(), &damaged).await;
        let read = read(copy.as_ref(), Materialize::Commit).await;
        if let Err(error) = &read {
            let is_fit = damage.may_give(error) || self.place.is_opaque();
            assert!(is_fit, "{damage:?} gives {error:?}");
        }
        Some((damage, read))
    }
}

pub(super) async fn a_damaged_file_is_refused_or_reads_the_same(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    let rng = Rng::new(effort.seed);
    let Some(sample) = Sample::make(factory.as_ref(), effort).await else { return NO_FILES };
    let (mut counts, mut keys_of) = (Counts::default(), BTreeSet::new());
    let count = effort.kills as usize * DAMAGES_PER_KILL;
    for aim in Aim::OF_BYTES.into_iter().cycle().take(count) {
        let Some((damage, read)) = sample.damage(aim, &rng).await else { continue };
        counts.count(aim, read.is_err());
        if let Ok(found) = read {
            assert!(
                found == sample.expected,
                "read as other data: {damage:?}: {found:?}, not {:?}; {counts:?}",
                sample.expected
            );
        }
        if let Damage::Flip { key_of: Some(kind), .. } = damage {
            keys_of.insert(kind);
        }
    }
    counts.require_some_of_each_refused();
    if sample.files.values().any(|content| pages::is_sqlite(content)) && count >= 150 {
        assert_eq!(counts.0.len(), Aim::OF_BYTES.len(), "of each kind: {counts:?}");
        let kinds: BTreeSet<_> =
            sample.files.values().flat_map(|content| pages::kinds_of(content)).collect();
        assert!(kinds.len() >= 2, "trees of several levels: {kinds:?}");
        assert_eq!(keys_of, kinds, "keys of each kind of page");
    }
    Verdict::Passed
}

/// What a disk leaves that lost a write and said nothing. A series may be older, then: only
/// `verify` may tell.
pub(super) async fn an_older_page_is_refused_or_entities_read_the_same(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    let rng = Rng::new(effort.seed ^ 0x01d);
    let Some(sample) = Sample::make(factory.as_ref(), effort).await else { return NO_FILES };
    let mut counts = Counts::default();
    let mut unnoticed = 0;
    for _ in 0..effort.kills as usize * DAMAGES_PER_KILL / 3 {
        let Some((_, read)) = sample.damage(Aim::OlderPage, &rng).await else { continue };
        counts.count(Aim::OlderPage, read.is_err());
        let differs = |found: Contents| found.entities() != sample.expected.entities();
        unnoticed += usize::from(read.is_ok_and(differs));
    }
    counts.require_some_of_each_refused();
    match unnoticed {
        0 => Verdict::Passed,
        _ => Verdict::Skipped("a page of entities that is an older one is not noticed"),
    }
}

/// Files that a process left which died may hold less than the store did; but only a state that
/// it had.
pub(super) async fn damage_after_a_crash_gives_an_earlier_state_or_none(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    let rng = Rng::new(effort.seed ^ 0xda);
    for materialize in [Materialize::Commit, Materialize::Checkpoint] {
        let place = factory.create().await.unwrap();
        let mut workload = Workload::new(effort.seed);
        let Some((history, moments)) =
            live_and_remember(place.as_ref(), materialize, &mut workload, effort).await
        else {
            return NO_FILES;
        };
        let (crashed, closed) = (&moments[moments.len() - 2], &moments[moments.len() - 1]);
        let (mut older, mut refused) = (0, 0);
        let last = history.last();
        let count = effort.kills as usize * DAMAGES_PER_KILL / 2;
        let aims = [Aim::AnyByte, Aim::PageHeader, Aim::Cut, Aim::ZeroPage, Aim::FileHeader];
        for aim in aims.into_iter().cycle().take(count) {
            let (name, whole) = crashed.iter().nth(rng.below(crashed.len())).unwrap();
            let Some(damage) = Damage::aimed(aim, &rng, whole, &[]) else { continue };
            let when = format!("{materialize:?}, {}, {damage:?}", name.display());
            let mut damaged = crashed.clone();
            damage.apply(damaged.get_mut(name).unwrap(), &[]);
            let copy = place_with(place.as_ref(), &damaged).await;
            match read(copy.as_ref(), materialize).await {
                Ok(found) => {
                    assert!(history.contains(&found), "read as other data: {when}: {found:?}");
                    older += usize::from(last != Some(&found));
                }
                Err(_) if place.is_opaque() => {}
                Err(error) => assert!(damage.may_give(&error), "{when} gives {error:?}"),
            }
        }
        assert!(older > 0 || count < ENOUGH, "no damage gave an earlier state");
        // A copy that took the file and its log at different moments.
        for _ in 0..count {
            let (one, other) = (rng.below(moments.len()), rng.below(moments.len()));
            let when = format!("{materialize:?}, the file of moment {one}, the log of {other}");
            let mut mixed = moments[other].clone();
            mixed.retain(|name, _| !closed.contains_key(name));
            mixed.extend(moments[one].clone().into_iter().filter(|(n, _)| closed.contains_key(n)));
            let copy = place_with(place.as_ref(), &mixed).await;
            match read(copy.as_ref(), materialize).await {
                Ok(found) => {
                    let mut states = history.iter().map(Contents::entities);
                    let existed = states.any(|state| state == found.entities());
                    assert!(existed, "a state that never was: {when}: {found:?}");
                }
                Err(error) => {
                    let is_fit = *error.kind() == Corrupt || place.is_opaque();
                    assert!(is_fit, "{when} gives {error:?}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0 || count < ENOUGH, "no mixture was refused");
    }
    Verdict::Passed
}

/// What there was after each step, and the files at some of them. The last of those are of a store
/// that was not closed, and of that store when it was.
async fn live_and_remember(
    place: &dyn Place,
    materialize: Materialize,
    workload: &mut Workload,
    effort: Effort,
) -> Option<(Vec<Contents>, Vec<Files>)> {
    let (_, store) = open(place, options(materialize, &workload.clock, effort.seed)).await.unwrap();
    if place.files().is_empty() {
        return None;
    }
    populate(&store).await.unwrap();
    let mut history = vec![Contents::read(&store).await.unwrap()];
    // As closing does, this purges blocks.
    store.checkpoint().await.unwrap();
    history.push(Contents::read(&store).await.unwrap());
    store.close().await.unwrap();
    let mut moments = vec![files_of(place)];
    // Twice, so that there are logs of which each begins on a file of its own.
    for time in 1..=2 {
        let options = options(materialize, &workload.clock, effort.seed + time);
        let (_, store) = open(place, options).await.unwrap();
        for step in 1..=STEPS / 2 {
            workload.step(&store).await.unwrap();
            history.push(Contents::read(&store).await.unwrap());
            if step % STEPS_PER_MOMENT == 0 {
                moments.push(files_of(place));
            }
        }
        store.checkpoint().await.unwrap();
        history.push(Contents::read(&store).await.unwrap());
        store.close().await.unwrap();
        moments.push(files_of(place));
    }
    Some((history, moments))
}
