//! Where a log that is in use ends. The file's length does not tell: SQLite begins a log anew at
//! its front and lets the file be, and says how much is in use only when it checkpoints.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::format::{FRAME_HEADER, FrameHeader, LOG_HEADER, LogHeader, Salts};

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
        *self = Self::new(std::mem::take(&mut self.path));
    }

    /// Whether at least so many bytes of the log are in use, which two looks tell.
    pub(super) fn reaches(&mut self, bytes: u64) -> io::Result<bool> {
        let file = self.take_file()?;
        let reaches = match read_header(&file)? {
            Some(header) => {
                let frames = bytes.saturating_sub(LOG_HEADER as u64);
                let frames = frames.div_ceil(header.frame_size() as u64);
                frames == 0 || has_frame(&file, &header, frames - 1)?
            }
            None => false,
        };
        self.file = Some(file);
        Ok(reaches)
    }

    /// Bytes of the log that are in use.
    pub(super) fn measure(&mut self) -> io::Result<u64> {
        let file = self.take_file()?;
        self.search(&file)?;
        self.file = Some(file);
        let Some(header) = &self.header else { return Ok(0) };
        Ok(LOG_HEADER as u64 + self.frames * header.frame_size() as u64)
    }

    fn take_file(&mut self) -> io::Result<File> {
        self.file.take().map_or_else(|| File::open(&self.path), Ok)
    }

    fn search(&mut self, file: &File) -> io::Result<()> {
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
        let Some(header) = self.header else { return Ok(()) };
        // Gallop, then halve.
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
        Ok(())
    }
}

fn read_header(file: &File) -> io::Result<Option<LogHeader>> {
    let mut bytes = [0; LOG_HEADER];
    let filled = read_at(file, &mut bytes, 0)?;
    Ok(LogHeader::read(&bytes).filter(|_| filled == bytes.len()))
}

/// Whether the frame with this number, from 0, belongs to the header.
fn has_frame(file: &File, header: &LogHeader, number: u64) -> io::Result<bool> {
    let mut bytes = [0; FRAME_HEADER];
    let filled =
        read_at(file, &mut bytes, LOG_HEADER as u64 + number * header.frame_size() as u64)?;
    let salts: Option<Salts> = FrameHeader::read(&bytes).map(|frame| frame.salts);
    Ok(filled == bytes.len() && salts == Some(header.salts))
}

/// Reads without moving a position, which costs a call of the system of its own. Headers are short
/// enough to be read whole or not at all.
#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, at)
}

#[cfg(windows)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, at)
}
