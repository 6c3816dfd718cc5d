//! Logs made by hand: what is noticed of damage, and that a loss of power is never taken for it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::Cursor;

use ghostwire_store_core::backend::LogIndex;
use ghostwire_store_core::error::{Error, ErrorKind, Result};

use super::format::{Checksum, FRAME_HEADER, INDEX_HEADERS, Index, LOG_HEADER, Salts};
use super::keeper::{Checkpointer, LogKeeper, Mode};
use super::policy::{Checkpoint, LogLimits};
use super::survey::{Missing, Survey, of_log};
use super::tail::Tail;

const PAGE: usize = 512;
const FRAME: usize = FRAME_HEADER + PAGE;
const SALTS: Salts = *b"salt one";

/// A log in the making, as SQLite writes one.
struct Log {
    bytes: Vec<u8>,
    /// Where the next frame goes; behind it there may be those of an earlier log.
    end: usize,
    checksum: Checksum,
    salts: Salts,
}

impl Log {
    /// Begun at the front of `bytes`.
    fn over(mut bytes: Vec<u8>, salts: Salts, is_big_endian: bool) -> Self {
        let mut header = Vec::new();
        let magic = 0x377f_0682 | u32::from(is_big_endian);
        for word in [magic, 3_007_000, PAGE as u32, 1] {
            header.extend(word.to_be_bytes());
        }
        header.extend(salts);
        let checksum = Checksum::new(is_big_endian).over(&header);
        header.extend(checksum.0.to_be_bytes());
        header.extend(checksum.1.to_be_bytes());
        bytes.resize(bytes.len().max(LOG_HEADER), 0);
        bytes[..LOG_HEADER].copy_from_slice(&header);
        Self { bytes, end: LOG_HEADER, checksum, salts }
    }

    fn new() -> Self {
        Self::over(Vec::new(), SALTS, false)
    }

    /// A transaction of so many frames.
    fn commit(mut self, frames: u32) -> Self {
        for number in 1..=frames {
            let size = if number == frames { 9 } else { 0u32 };
            let mut frame: Vec<u8> = [number.to_be_bytes(), size.to_be_bytes()].concat();
            let page = vec![(number + self.end as u32) as u8; PAGE];
            self.checksum = self.checksum.over(&frame).over(&page);
            frame.extend(self.salts);
            frame.extend(self.checksum.0.to_be_bytes());
            frame.extend(self.checksum.1.to_be_bytes());
            frame.extend(page);
            let next = self.end + FRAME;
            self.bytes.resize(self.bytes.len().max(next), 0);
            self.bytes[self.end..next].copy_from_slice(&frame);
            self.end = next;
        }
        self
    }
}

fn found(bytes: &[u8], index: Option<Index>) -> Survey {
    of_log(&mut Cursor::new(bytes), index).unwrap()
}

fn whole(frames: u64) -> Survey {
    Survey { frames, missing: None }
}

/// The index's two headers, as SQLite fills them on this machine.
fn index(frames: u32, salts: Salts) -> [u8; INDEX_HEADERS] {
    let mut header = vec![0; 40];
    header[..4].copy_from_slice(&3_007_000u32.to_ne_bytes());
    header[12] = 1;
    header[16..20].copy_from_slice(&frames.to_ne_bytes());
    header[32..40].copy_from_slice(&salts);
    let checksum = Checksum::new(cfg!(target_endian = "big")).over(&header);
    header.extend(checksum.0.to_ne_bytes());
    header.extend(checksum.1.to_ne_bytes());
    header.repeat(2).try_into().unwrap()
}

#[test]
fn a_log_is_read_up_to_its_last_commit() {
    for is_big_endian in [false, true] {
        let log = Log::over(Vec::new(), SALTS, is_big_endian).commit(3).commit(1).commit(2);
        assert_eq!(found(&log.bytes, None), whole(6));
    }
    for nothing in [&[][..], &[0; 31], &[0; 32], b"short"] {
        assert_eq!(found(nothing, None), whole(0));
    }
    // Not begun anew, but written over.
    let older = Log::new().commit(20).bytes;
    let log = Log::over(older, *b"salt two", false).commit(2).commit(3);
    assert_eq!(found(&log.bytes, None), whole(5));
}

/// Whatever part of the last transaction is there: nobody was told that it is stored.
#[test]
fn a_loss_of_power_during_a_commit_is_not_taken_for_damage() {
    for behind in [0, 20] {
        let older = Log::new().commit(behind.max(1)).bytes;
        let older = if behind == 0 { Vec::new() } else { older };
        let before = Log::over(older, *b"salt two", false).commit(3).commit(2);
        let from = before.end;
        let (without, known) = (before.bytes.clone(), Index::read(&index(5, *b"salt two")));
        let with = before.commit(4).bytes;
        // Any of its sectors may have reached the disk.
        let sectors = (with.len().min(from + 4 * FRAME) - from).div_ceil(512);
        for mask in 0..1u32 << sectors {
            let mut bytes = without.clone();
            for sector in (0..sectors).filter(|sector| mask & (1 << sector) != 0) {
                let range = from + sector * 512..(from + sector * 512 + 512).min(with.len());
                bytes.resize(bytes.len().max(range.end), 0);
                bytes[range.clone()].copy_from_slice(&with[range]);
            }
            let found = found(&bytes, known);
            assert_eq!(found.missing, None, "{mask:b}");
            assert!([5, 9].contains(&found.frames), "{mask:b}");
        }
        for length in from..with.len() {
            assert_eq!(found(&with[..length], known).missing, None, "{length}");
        }
    }
}

#[test]
fn damage_before_two_commits_is_noticed() {
    let log = Log::new().commit(2).commit(3).commit(1).commit(2).bytes;
    let third = LOG_HEADER + 5 * FRAME;
    for at in 0..third {
        let mut damaged = log.clone();
        damaged[at] ^= 4;
        let found = found(&damaged, None);
        let expected = if at < LOG_HEADER { Missing::Header } else { Missing::CommitsBehind };
        assert_eq!(found.missing, Some(expected), "{at}");
        assert!(found.frames < 5, "{at}");
    }
    // From here on it looks like the commit during which power was lost.
    let mut damaged = log;
    damaged[third + 2 * FRAME] ^= 4;
    assert_eq!(found(&damaged, None), whole(6));
}

#[test]
fn an_index_that_knows_of_more_shows_any_missing_commit() {
    let log = Log::new().commit(2).commit(3).bytes;
    let known = Index::read(&index(5, SALTS));
    assert_eq!(known, Some(Index { frames: 5, salts: SALTS }));
    assert_eq!(found(&log, known), whole(5));
    for length in LOG_HEADER..log.len() {
        let frames = if length < LOG_HEADER + 2 * FRAME { 0 } else { 2 };
        let missing = Some(Missing::Indexed(5));
        assert_eq!(found(&log[..length], known), Survey { frames, missing }, "{length}");
    }
    // Of another log, cut short itself, or torn.
    let other = Index::read(&index(9, *b"salt two"));
    assert_eq!(found(&log, other), whole(5));
    assert_eq!(found(&log, Index::read(&index(4, SALTS))), whole(5));
    for at in 0..INDEX_HEADERS {
        let mut damaged = index(9, SALTS);
        damaged[at] ^= 1;
        assert_eq!(Index::read(&damaged), None, "{at}");
    }
    assert_eq!(Index::read(&[0; INDEX_HEADERS]), None);
}

#[test]
fn the_end_of_a_log_in_use_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db-wal");
    let mut tail = Tail::new(path.clone());
    assert!(tail.measure().is_err());
    let bytes = |frames: usize| (LOG_HEADER + frames * FRAME) as u64;
    std::fs::write(&path, []).unwrap();
    assert_eq!(tail.measure().unwrap(), 0);
    let mut log = Log::new();
    for (commit, total) in [(1, 1), (1, 2), (7, 9), (300, 309), (2, 311)] {
        log = log.commit(commit);
        std::fs::write(&path, &log.bytes).unwrap();
        assert_eq!(tail.measure().unwrap(), bytes(total));
        assert_eq!(tail.measure().unwrap(), bytes(total));
        let reached = [bytes(0), bytes(total) - 1, bytes(total)];
        assert!(reached.into_iter().all(|bytes| tail.reaches(bytes).unwrap()));
        assert!(!tail.reaches(bytes(total) + 1).unwrap());
    }
    // Begun anew over what is there.
    let mut log = Log::over(log.bytes, *b"salt two", false);
    for total in [3, 6, 9, 12] {
        log = log.commit(3);
        std::fs::write(&path, &log.bytes).unwrap();
        assert!(!tail.reaches(bytes(total + 1)).unwrap());
        assert_eq!(tail.measure().unwrap(), bytes(total));
    }
    std::fs::write(&path, []).unwrap();
    assert_eq!(tail.measure().unwrap(), 0);
}

/// A connection whose checkpoints come to what is asked for.
struct Fake {
    outcome: fn() -> Result<Checkpoint>,
    modes: Vec<Mode>,
}

impl Checkpointer for Fake {
    fn checkpoint(&mut self, mode: Mode) -> Result<Checkpoint> {
        self.modes.push(mode);
        (self.outcome)()
    }
}

fn complete() -> Result<Checkpoint> {
    Ok(Checkpoint::of_columns(0, 9, 9))
}

fn part() -> Result<Checkpoint> {
    Ok(Checkpoint::of_columns(0, 9, 3))
}

fn failed(kind: ErrorKind) -> Result<Checkpoint> {
    Err(Error::new(kind, "the disk is in a mood"))
}

/// What the kernel dropped may count as moved: nothing is moved or written until the log is read
/// anew.
#[test]
fn after_a_checkpoint_that_fails_nothing_is_moved_until_the_log_is_read_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    std::fs::write(directory.path().join("store.db-wal"), Log::new().commit(9).bytes).unwrap();
    let log = LogKeeper::new(&path, Survey::default(), LogIndex::Absent);
    log.set_limits(LogLimits { checkpoint: 1, hold_out: 1 << 20, warn: 1 << 30 });
    let mut writer = Fake { outcome: || failed(ErrorKind::Exhausted), modes: Vec::new() };
    // A full disk says at once what it does not take.
    log.after_commit(&mut writer);
    log.require_trusted().unwrap();
    assert_eq!(log.info().failed_checkpoints, 1);

    writer.outcome = || failed(ErrorKind::Unavailable);
    log.after_commit(&mut writer);
    assert_eq!(log.info().failed_checkpoints, 2);
    assert_eq!(writer.modes, [Mode::Passive; 2]);
    for _ in 0..2 {
        assert_eq!(*log.require_trusted().unwrap_err().kind(), ErrorKind::Unavailable);
        log.after_commit(&mut writer);
        assert_eq!(*log.finish(|| unreachable!()).unwrap_err().kind(), ErrorKind::Unavailable);
        writer.outcome = complete;
        // A connection that was there all the time does not make it better.
        assert_eq!(*log.settle(&mut writer).unwrap_err().kind(), ErrorKind::Busy);
        assert_eq!(writer.modes.len(), 2);
    }
    log.all_closed();
    writer.outcome = || failed(ErrorKind::Unavailable);
    assert_eq!(*log.settle(&mut writer).unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!log.is_trusted());
    log.all_closed();
    writer.outcome = complete;
    log.settle(&mut writer).unwrap();
    log.require_trusted().unwrap();
    log.finish(|| Ok(())).unwrap();
    assert_eq!(
        *log.finish(|| failed(ErrorKind::Unavailable).map(drop)).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert!(!log.is_trusted());
}

/// A reader that takes its time is not waited for for ever, and one that is done is not in the way.
#[test]
fn own_readers_are_held_out_while_the_log_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    std::fs::write(directory.path().join("store.db-wal"), Log::new().commit(9).bytes).unwrap();
    let log = LogKeeper::new(&path, Survey::default(), LogIndex::Absent);
    log.set_limits(LogLimits { checkpoint: 1, hold_out: 1, warn: 2 });
    let mut writer = Fake { outcome: part, modes: Vec::new() };
    let inside = log.enter();
    log.after_commit(&mut writer);
    assert_eq!(writer.modes, [Mode::Passive]);
    assert_eq!((log.info().held, log.info().held_commits), (1, 1));
    drop(inside);
    writer.outcome = complete;
    log.after_commit(&mut writer);
    assert_eq!(writer.modes, [Mode::Passive, Mode::Passive, Mode::TruncateAtOnce]);
    assert_eq!((log.info().held, log.info().held_commits), (1, 0));
}
