//! Where a file is read from, which has to be read twice.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use ghostwire_store::{Error, Result};

use crate::failure::{file_error, input_error};

/// The file, for the first reading. What can be read only once goes to a file of our own meanwhile,
/// which has no name; no more of it than was read, so that nonsense without an end fills no disk.
pub(super) enum Source {
    File(File),
    Once { from: Box<dyn Read>, kept: File },
}

impl Source {
    /// Opens it; `-` is standard input.
    pub(super) fn open(path: &Path) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Self::once(io::stdin(), path);
        }
        let failed = |error| input_error("the file cannot be opened", Some(path), error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            let error = Error::invalid("this is a directory; name a file");
            return Err(error.with("path", path.display()));
        }
        if metadata.is_file() { Ok(Self::File(file)) } else { Self::once(file, path) }
    }

    fn once(from: impl Read + 'static, path: &Path) -> Result<Self> {
        let kept = tempfile::tempfile().map_err(|error| {
            file_error("the input cannot be kept in a temporary file", Some(path), error)
                .with("help", HELP)
        })?;
        Ok(Self::Once { from: Box::new(from), kept })
    }

    /// What was read, to be read again from its beginning.
    pub(super) fn again(self) -> io::Result<File> {
        let (Self::File(mut file) | Self::Once { kept: mut file, .. }) = self;
        file.rewind()?;
        Ok(file)
    }
}

const HELP: &str = "TMPDIR names another directory for temporary files";

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Once { from, kept } => {
                let count = from.read(buffer)?;
                let read = buffer.get(..count).unwrap_or_default();
                kept.write_all(read).map_err(|error| {
                    let what = "the input cannot be kept in a temporary file";
                    io::Error::new(error.kind(), format!("{what}: {error}; {HELP}"))
                })?;
                Ok(count)
            }
        }
    }
}
