//! What was done to files, and what of it is there after a loss of power.
//!
//! # The model
//! It is what SQLite says it expects of a disk, and no better:
//! <https://sqlite.org/atomiccommit.html> (2.0, hardware assumptions) and
//! <https://sqlite.org/psow.html> (power-safe overwrite).
//!
//! - What was written before a synchronisation of its file that was confirmed is there.
//! - Of what was written later, any part may be there, in any order: writes that came first may be
//!   missing while later ones are there. A write may have reached the disk in part: some of the
//!   512-byte sectors that it touches. Bytes outside of it are as they were (power-safe overwrite,
//!   which SQLite assumes of every disk by default).
//! - A file may have been made longer without what was to be written there: zeros or garbage then.
//! - A truncation that was not synchronised may or may not have happened.
//! - That a file was made or deleted is certain only once the directory was synchronised, which
//!   SQLite asks for by deleting with `syncDir`, and by synchronising a new journal or log for the
//!   first time. Until then the name means what it meant before, or what it means now.
//! - A synchronisation that failed settles nothing: one that is confirmed later makes what was
//!   written durable. A kernel that forgets what it could not write is not part of the model.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ghostwire_store_conformance::{Disk, Frozen};

use crate::FaultyDisk;
use crate::plan::Plan;
use crate::random::Random;

const SECTOR: usize = 512;

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

/// Everything that was ever done to one file, whatever its name. Only ever appended to, so that
/// a moment is a number.
#[derive(Debug, Default)]
struct File(Mutex<Vec<Arc<Change>>>);

impl File {
    fn changes(&self) -> MutexGuard<'_, Vec<Arc<Change>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file, and how far it is synchronised.
#[derive(Debug, Clone)]
struct Logged {
    file: Arc<File>,
    synced: usize,
    length: usize,
}

impl Logged {
    fn holding(content: Vec<u8>) -> Self {
        let length = content.len();
        let file = Arc::new(File::default());
        file.changes().push(Arc::new(Change::Write { offset: 0, bytes: content }));
        Self { file, synced: 1, length }
    }

    fn log(&mut self, change: Change) {
        self.length = match &change {
            Change::Write { offset, bytes } => self.length.max(offset + bytes.len()),
            Change::Truncate(length) => *length,
        };
        self.file.changes().push(Arc::new(change));
    }
}

/// What a name means: a number of a file, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    stored: Option<usize>,
    now: Option<usize>,
}

/// The files of a directory.
#[derive(Debug, Default)]
pub(crate) struct Log {
    files: Vec<Logged>,
    names: BTreeMap<String, Entry>,
}

impl Log {
    /// A file was opened; `content` reads what it holds, for one that was never seen.
    pub(crate) fn opened(
        &mut self,
        name: &str,
        existed: bool,
        content: impl FnOnce() -> Vec<u8>,
    ) -> usize {
        let entry = self.names.get(name).copied();
        if let Some(number) = entry.and_then(|entry| entry.now).filter(|_| existed) {
            return number;
        }
        let number = self.files.len();
        let now = Some(number);
        if existed {
            self.files.push(Logged::holding(content()));
            self.names.insert(name.to_owned(), Entry { stored: now, now });
        } else {
            self.files.push(Logged::holding(Vec::new()));
            let stored = entry.and_then(|entry| entry.stored);
            self.names.insert(name.to_owned(), Entry { stored, now });
        }
        number
    }

    /// A name was deleted, and the directory synchronised or not.
    pub(crate) fn deleted(&mut self, name: &str, synced: bool) {
        if let Some(entry) = self.names.get_mut(name) {
            entry.now = None;
        }
        if synced {
            self.directory_synced();
        }
    }

    pub(crate) fn directory_synced(&mut self) {
        self.names.values_mut().for_each(|entry| entry.stored = entry.now);
    }

    pub(crate) fn wrote(&mut self, file: usize, offset: usize, bytes: &[u8]) {
        if let Some(file) = self.files.get_mut(file)
            && !bytes.is_empty()
        {
            file.log(Change::Write { offset, bytes: bytes.to_vec() });
        }
    }

    pub(crate) fn truncated(&mut self, file: usize, length: usize) {
        if let Some(file) = self.files.get_mut(file) {
            file.log(Change::Truncate(length));
        }
    }

    pub(crate) fn synced(&mut self, file: usize) {
        if let Some(file) = self.files.get_mut(file) {
            file.synced = file.file.changes().len();
        }
    }

    pub(crate) fn length(&self, file: usize) -> usize {
        self.files.get(file).map_or(0, |file| file.length)
    }

    pub(crate) fn freeze(&self) -> Moment {
        let logged = |number: Option<usize>| {
            let logged = self.files.get(number?)?;
            let until = logged.file.changes().len();
            Some(FileThen { file: logged.file.clone(), synced: logged.synced, until })
        };
        let names = self.names.iter().map(|(name, entry)| NameThen {
            name: name.clone(),
            stored: logged(entry.stored),
            now: logged(entry.now),
            settled: entry.stored == entry.now,
        });
        Moment { names: names.collect() }
    }
}

/// What a disk held at one moment.
#[derive(Debug)]
pub(crate) struct Moment {
    names: Vec<NameThen>,
}

#[derive(Debug)]
struct NameThen {
    name: String,
    stored: Option<FileThen>,
    now: Option<FileThen>,
    settled: bool,
}

#[derive(Debug)]
struct FileThen {
    file: Arc<File>,
    synced: usize,
    until: usize,
}

/// How much of what was not synchronised reached the disk.
#[derive(Debug, Clone, Copy)]
enum Luck {
    None,
    All,
    /// The first so many.
    Until(usize),
    /// Each by itself.
    Any,
}

impl Frozen for Moment {
    fn after_power_loss(&self, seed: u64, directory: &Path) -> io::Result<()> {
        let mut random = Random::new(seed);
        for name in &self.names {
            let is_now = name.settled || random.one_in(2);
            if let Some(file) = if is_now { &name.now } else { &name.stored } {
                std::fs::write(directory.join(&name.name), file.content(&mut random))?;
            }
        }
        Ok(())
    }

    fn after_process_death(&self, directory: &Path) -> io::Result<Box<dyn Disk>> {
        let mut log = Log::default();
        for name in &self.names {
            let mut add = |file: &Option<FileThen>| {
                log.files.push(file.as_ref()?.copy());
                Some(log.files.len() - 1)
            };
            let now = add(&name.now);
            let stored = if name.settled { now } else { add(&name.stored) };
            log.names.insert(name.name.clone(), Entry { stored, now });
            if let Some(file) = &name.now {
                std::fs::write(directory.join(&name.name), file.written())?;
            }
        }
        Ok(Box::new(FaultyDisk::with_plan(directory, Plan::after(log))?))
    }
}

impl FileThen {
    fn changes(&self) -> Vec<Arc<Change>> {
        self.file.changes().iter().take(self.until).cloned().collect()
    }

    /// A file of its own with the same past.
    fn copy(&self) -> Logged {
        let file = Arc::new(File(Mutex::new(self.changes())));
        Logged { file, synced: self.synced, length: self.written().len() }
    }

    /// What everybody reads while there is power.
    fn written(&self) -> Vec<u8> {
        let mut content = Vec::new();
        self.changes().iter().for_each(|change| apply(&mut content, change));
        content
    }

    fn content(&self, random: &mut Random) -> Vec<u8> {
        let changes = self.changes();
        let (synced, later) = changes.split_at(self.synced.min(changes.len()));
        let mut content = Vec::new();
        for change in synced {
            apply(&mut content, change);
        }
        let luck = match random.below(6) {
            0 => Luck::None,
            1 => Luck::All,
            2 | 3 => Luck::Until(random.below(later.len() + 1)),
            _ => Luck::Any,
        };
        for (index, change) in later.iter().enumerate() {
            match luck {
                Luck::All => apply(&mut content, change),
                Luck::Until(end) if index < end => apply(&mut content, change),
                Luck::Until(end) if index == end => tear(&mut content, change, random),
                Luck::Any => match random.below(5) {
                    0 | 1 => apply(&mut content, change),
                    2 => tear(&mut content, change, random),
                    3 => only_grow(&mut content, change, random),
                    _ => {}
                },
                Luck::None | Luck::Until(_) => {}
            }
        }
        content
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => put(content, *offset, bytes),
        Change::Truncate(length) => content.resize(*length, 0),
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(place) = content.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

/// Some sectors of a write: those before a random one, those behind it, or a random choice.
fn tear(content: &mut Vec<u8>, change: &Change, random: &mut Random) {
    let Change::Write { offset, bytes } = change else { return };
    let first = SECTOR - offset % SECTOR;
    let sectors = bytes.len().saturating_sub(first).div_ceil(SECTOR) + 1;
    let (way, border) = (random.below(3), random.below(sectors));
    let (mut offset, mut rest, mut size) = (*offset, bytes.as_slice(), first);
    for sector in 0..sectors {
        let (part, remaining) = rest.split_at(size.min(rest.len()));
        let reached = match way {
            0 => sector < border,
            1 => sector >= border,
            _ => random.one_in(2),
        };
        if reached {
            put(content, offset, part);
        }
        (offset, rest, size) = (offset + part.len(), remaining, SECTOR);
    }
}

/// The file has its new length, and not what was written there.
fn only_grow(content: &mut Vec<u8>, change: &Change, random: &mut Random) {
    let Change::Write { offset, bytes } = change else { return };
    let (old, new) = (content.len(), offset + bytes.len());
    if new <= old {
        return;
    }
    let garbage = random.one_in(2);
    content.resize_with(new, || if garbage { random.next() as u8 } else { 0 });
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Everything that may be in the file of this name after power was lost.
    fn outcomes(log: &Log, name: &str) -> BTreeSet<Option<Vec<u8>>> {
        let moment = log.freeze();
        let outcome = |seed| {
            let directory = tempfile::tempdir().unwrap();
            moment.after_power_loss(seed, directory.path()).unwrap();
            std::fs::read(directory.path().join(name)).ok()
        };
        (0..200).map(outcome).collect()
    }

    #[test]
    fn what_was_synced_is_there_and_what_was_not_may_be() {
        let mut log = Log::default();
        let file = log.opened("a", true, || b"old".to_vec());
        log.wrote(file, 0, b"new");
        assert_eq!(outcomes(&log, "a"), [Some(b"old".to_vec()), Some(b"new".to_vec())].into());
        log.synced(file);
        assert_eq!(outcomes(&log, "a"), [Some(b"new".to_vec())].into());
        log.truncated(file, 1);
        assert_eq!(outcomes(&log, "a"), [Some(b"new".to_vec()), Some(b"n".to_vec())].into());
    }

    #[test]
    fn a_write_is_torn_at_sectors_and_the_order_is_not_kept() {
        let mut log = Log::default();
        let file = log.opened("a", true, || vec![0; 2048]);
        log.wrote(file, 0, &[1; 1024]);
        log.wrote(file, 1024, &[2; 1024]);
        let seen: BTreeSet<_> = outcomes(&log, "a")
            .into_iter()
            .map(|content| {
                let content = content.unwrap();
                content
                    .chunks(SECTOR)
                    .for_each(|sector| assert!(sector.iter().all(|byte| *byte == sector[0])));
                content.chunks(SECTOR).map(|sector| sector[0]).collect::<Vec<_>>()
            })
            .collect();
        for expected in [[0, 0, 0, 0], [1, 1, 2, 2], [0, 0, 2, 2], [0, 1, 2, 2], [1, 0, 0, 0]] {
            assert!(seen.contains(expected.as_slice()), "{expected:?} of {seen:?}");
        }
    }

    #[test]
    fn names_are_certain_once_the_directory_is_synced() {
        let mut log = Log::default();
        let file = log.opened("a", false, || unreachable!());
        log.wrote(file, 0, b"x");
        log.synced(file);
        assert_eq!(outcomes(&log, "a"), [None, Some(b"x".to_vec())].into());
        log.directory_synced();
        assert_eq!(outcomes(&log, "a"), [Some(b"x".to_vec())].into());
        log.deleted("a", false);
        assert_eq!(outcomes(&log, "a"), [None, Some(b"x".to_vec())].into());
        log.opened("a", false, || unreachable!());
        assert_eq!(outcomes(&log, "a"), [Some(Vec::new()), Some(b"x".to_vec())].into());
        log.deleted("a", true);
        assert_eq!(outcomes(&log, "a"), [None].into());
    }
}
