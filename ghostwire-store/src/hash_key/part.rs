//! A file that appears whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ghostwire_store_sqlite::{create_private, directory_of, with_suffix};

/// A file in the making, under a name of its own. Dropped before it is published, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Part {
    file: File,
    part: PathBuf,
    path: PathBuf,
}

impl Part {
    /// An empty file beside `path` that only its owner may read: whoever owns `like`, if it may be
    /// given away. Nobody else may use `name`.
    pub(crate) fn begin(path: &Path, name: &str, like: &Path) -> io::Result<Self> {
        let part = with_suffix(path, &format!(".{name}.part"));
        Ok(Self { file: create_private(&part, like)?, part, path: path.to_owned() })
    }

    /// Writes its content.
    pub(crate) fn fill(&mut self, content: &[u8]) -> io::Result<()> {
        self.file.write_all(content)?;
        self.file.sync_all()
    }

    /// Gives it its name, durably, unless something has that name already.
    pub(crate) fn publish(self) -> io::Result<()> {
        rename_new(&self.part, &self.path)?;
        #[cfg(unix)]
        File::open(directory_of(&self.path))?.sync_all()?;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It is gone if it was published.
        if let Err(error) = fs::remove_file(&self.part)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.part.display(), %error, "an unfinished file stays");
        }
    }
}

/// Renames without replacing.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system can.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            renamed => return renamed.map_err(io::Error::from),
        }
    }
    link_new(from, to)
}

/// The same where that cannot be done in one step: for a moment the file has two names.
fn link_new(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_rename_once_and_replace_nothing() {
        for rename in [rename_new, link_new] {
            let directory = tempfile::tempdir().unwrap();
            let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
            fs::write(&from, "new").unwrap();
            rename(&from, &to).unwrap();
            assert!(!from.exists());
            fs::write(&from, "newer").unwrap();
            assert_eq!(rename(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read_to_string(&to).unwrap(), "new");
            assert_eq!(fs::read_to_string(&from).unwrap(), "newer");
        }
    }

    #[test]
    fn one_that_is_given_up_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let mut part = Part::begin(&path, "1", directory.path()).unwrap();
        part.fill(b"half").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        drop(part);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
