//! What a log holds before an engine opens it, and whether commits are missing at its end.
//!
//! SQLite takes a log up to the last commit before the first frame that is not whole, and drops the
//! rest: that is how a commit looks during which power was lost. So a log that lost acknowledged
//! commits opens as an older store. It cannot look like this by a loss of power alone:
//!
//! - Commits are synchronised before the next one is begun. So behind the last whole commit there
//!   may be parts of one transaction, and at most one mark of a commit.
//! - The header is synchronised before the first frame is written.
//! - The index is told of a commit once that is synchronised.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ghostwire_store_core::backend::LogIndex;

use super::format::{FRAME_HEADER, FrameHeader, INDEX_HEADERS, Index, LOG_HEADER, LogHeader};
use super::keeper::is_used_by_nobody;
use crate::read::fill;

/// What a log holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Frames of whole commits: what SQLite will take.
    pub(crate) frames: u64,
    /// Why commits must be missing behind them.
    pub(crate) missing: Option<Missing>,
}

/// Why commits must be missing at the end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Its header is damaged, and frames follow.
    Header,
    /// Commits follow a frame that is damaged.
    CommitsBehind,
    /// The index knows of more frames.
    Indexed(u64),
}

impl Missing {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Header => "its header is damaged",
            Self::CommitsBehind => "commits follow a frame that is damaged",
            Self::Indexed(_) => "its index knows of more frames",
        }
    }
}

/// What a log's index says. It only adds to what the log says by itself.
#[derive(Debug)]
pub(crate) struct Indexed {
    pub(crate) index: LogIndex,
    known: Option<Index>,
    headers: Vec<u8>,
}

impl Indexed {
    pub(crate) const UNREAD: Self =
        Self { index: LogIndex::Unread, known: None, headers: Vec::new() };

    /// Before an engine opens it: the first that does writes it anew.
    pub(crate) fn read(path: &Path) -> Self {
        let read = || {
            let mut bytes = [0; INDEX_HEADERS];
            let Some(mut file) = existing(path)? else { return Ok(None) };
            let filled = fill(&mut file, &mut bytes)?;
            Ok::<_, io::Error>(Some(bytes).filter(|bytes| filled == bytes.len()))
        };
        match read() {
            Ok(None) => Self { index: LogIndex::Absent, ..Self::UNREAD },
            Ok(Some(bytes)) => {
                let (known, headers) = (Index::read(&bytes), bytes.to_vec());
                Self { index: LogIndex::Compared, known, headers }
            }
            Err(_) => Self::UNREAD,
        }
    }
}

/// What an index said of missing commits, for those who come after a reader.
#[derive(Debug)]
pub(crate) struct Sign {
    index: PathBuf,
    headers: Vec<u8>,
}

impl Sign {
    /// The sign that this index was, if it was one.
    pub(crate) fn of(found: &Survey, index: PathBuf, indexed: Indexed) -> Option<Self> {
        let is_sign = matches!(found.missing, Some(Missing::Indexed(_)));
        is_sign.then_some(Self { index, headers: indexed.headers })
    }

    /// Writes again what SQLite wrote anew. SQLite takes no index that nobody has open for what the log
    /// holds. Call it while no process has the store open.
    pub(crate) fn put_back(&self) -> io::Result<()> {
        if is_used_by_nobody(&self.index) {
            File::options().write(true).open(&self.index)?.write_all(&self.headers)?;
        }
        Ok(())
    }
}

/// Looks at the log in this file, which is empty if it is not there.
pub(crate) fn survey(log: &Path, indexed: &Indexed) -> io::Result<Survey> {
    let Some(mut log) = existing(log)? else { return Ok(Survey::default()) };
    of_log(&mut io::BufReader::with_capacity(1 << 16, &mut log), indexed.known)
}

fn existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn of_log(log: &mut (impl Read + Seek), index: Option<Index>) -> io::Result<Survey> {
    let mut bytes = [0; LOG_HEADER];
    if fill(log, &mut bytes)? < bytes.len() {
        return Ok(Survey::default());
    }
    let Some(header) = LogHeader::read(&bytes) else {
        // A log is as long as this before its first frame is written.
        let has_frame = fill(log, &mut [0; FRAME_HEADER])? == FRAME_HEADER;
        return Ok(Survey { frames: 0, missing: has_frame.then_some(Missing::Header) });
    };
    let (mut chain, mut frame) = (header.chain(), vec![0; header.frame_size()]);
    let (mut read, mut committed) = (0, 0);
    while fill(log, &mut frame)? == frame.len()
        && let Some(fields) = chain.take(&frame)
    {
        read += 1;
        if fields.commits {
            committed = read;
        }
    }
    let known = index.filter(|index| index.salts == header.salts).map_or(0, |index| index.frames);
    let missing = if known > committed {
        Some(Missing::Indexed(known))
    } else if marks_behind(log, &header, committed)? > 1 {
        Some(Missing::CommitsBehind)
    } else {
        None
    };
    Ok(Survey { frames: committed, missing })
}

/// How many frames behind the last whole commit end a transaction of this log; two are enough.
fn marks_behind(
    log: &mut (impl Read + Seek),
    header: &LogHeader,
    committed: u64,
) -> io::Result<u32> {
    let size = header.frame_size() as u64;
    let (mut next, mut marks) = (LOG_HEADER as u64 + committed * size, 0);
    let mut bytes = [0; FRAME_HEADER];
    while marks < 2 {
        log.seek(SeekFrom::Start(next))?;
        if fill(log, &mut bytes)? < bytes.len() {
            break;
        }
        let is_mark = FrameHeader::read(&bytes)
            .is_some_and(|frame| frame.commits && frame.salts == header.salts);
        marks += u32::from(is_mark);
        next += size;
    }
    Ok(marks)
}
