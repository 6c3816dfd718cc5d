//! Where a log that is in use ends. The file's length does not tell: SQLite begins a log anew at
//! its front and lets the file be, and says how much is in use only when it checkpoints.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::PathBuf;

use super::format::{FRAME_HEADER, FrameHeader, LOG_HEADER, LogHeader, Salts};
use super::survey::fill;

/// Follows the end of a log. Nobody locks a log's file, so it may be opened and closed at will.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    file: Option<File>,
    header: Option<LogHeader>,
    /// Of this many frames it is known that they belong to that header.
    frames: u64,
}

impl Tail {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, header: None, frames: 0 }
    }

    /// Looks anew, at whatever file has the name then.
    pub(super) fn forget(&mut self) {
        (self.file, self.header, self.frames) = (None, None, 0);
    }

    /// Bytes of the log that are in use.
    pub(super) fn measure(&mut self) -> io::Result<u64> {
        if self.file.is_none() {
            self.file = Some(File::open(&self.path)?);
        }
        let Some(file) = self.file.as_ref() else { return Ok(0) };
        let goes_on = match &self.header {
            Some(header) => has_frame(file, header, self.frames)?,
            None => false,
        };
        // If it goes on behind the end that was known, it was not begun anew.
        if !goes_on {
            let header = read_header(file)?;
            if header.map(|header| header.salts) != self.header.map(|header| header.salts) {
                self.frames = 0;
            }
            self.header = header;
        }
        let Some(header) = self.header else { return Ok(0) };
        // Frames of this header stand before those that an earlier one left: gallop, then halve.
        let mut step = 1;
        while has_frame(file, &header, self.frames + step - 1)? {
            self.frames += step;
            step *= 2;
        }
        let mut beyond = self.frames + step;
        while beyond - self.frames > 1 {
            let middle = self.frames + (beyond - self.frames) / 2;
            match has_frame(file, &header, middle - 1)? {
                true => self.frames = middle,
                false => beyond = middle,
            }
        }
        Ok(LOG_HEADER as u64 + self.frames * header.frame_size() as u64)
    }
}

fn read_header(mut file: &File) -> io::Result<Option<LogHeader>> {
    let mut bytes = [0; LOG_HEADER];
    file.seek(SeekFrom::Start(0))?;
    let filled = fill(&mut file, &mut bytes)?;
    Ok(LogHeader::read(&bytes).filter(|_| filled == bytes.len()))
}

/// Whether the frame with this number, from 0, belongs to the header.
fn has_frame(mut file: &File, header: &LogHeader, number: u64) -> io::Result<bool> {
    let mut bytes = [0; FRAME_HEADER];
    file.seek(SeekFrom::Start(LOG_HEADER as u64 + number * header.frame_size() as u64))?;
    let filled = fill(&mut file, &mut bytes)?;
    let salts: Option<Salts> = FrameHeader::read(&bytes).map(|frame| frame.salts);
    Ok(filled == bytes.len() && salts == Some(header.salts))
}
