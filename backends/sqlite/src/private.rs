//! Files that only their owner may read, and who that is.
//!
//! Root may look after a store of a service's. What it made there with its own name would keep the
//! service out, so it gives each file to whoever owns the store, as SQLite does with its own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

/// Makes an empty file of mode 0600, open to be read and written. It belongs to whoever owns `like`,
/// if this process may give it away.
///
/// # Errors
/// Those of the file system; `AlreadyExists` if the path names anything.
pub fn create_private(path: &Path, like: &Path) -> io::Result<File> {
    let file = options().read(true).write(true).create_new(true).open(path)?;
    give(&file, path, like);
    Ok(file)
}

/// Makes a directory of mode 0700, but none above it. It belongs to whoever owns the one above it, if
/// this process may give it away.
///
/// # Errors
/// Those of the file system; `AlreadyExists` if the path names anything.
pub fn create_private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    #[cfg(unix)]
    if let Some(made) = empty_directory(path)? {
        give(&made, path, directory_of(path));
    }
    Ok(())
}

/// The directory of this name, if it is one and empty: whoever owns the one above may have put
/// another in its place, which must not become his.
#[cfg(unix)]
fn empty_directory(path: &Path) -> io::Result<Option<File>> {
    use rustix::fs::{Dir, Mode, OFlags, open};
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = open(path, flags, Mode::empty())?;
    for entry in Dir::read_from(&directory)? {
        if ![b".".as_slice(), b".."].contains(&entry?.file_name().to_bytes()) {
            return Ok(None);
        }
    }
    Ok(Some(directory.into()))
}

/// The directory that a path leads through last.
#[must_use]
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn options() -> OpenOptions {
    #[allow(unused_mut)]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(unix)]
pub(crate) fn give(file: &File, path: &Path, like: &Path) {
    use std::os::unix::fs::{MetadataExt, fchown};
    let given = || {
        let wanted = fs::metadata(like)?;
        if file.metadata()?.uid() == wanted.uid() {
            return Ok(());
        }
        fchown(file, Some(wanted.uid()), Some(wanted.gid()))
    };
    if let Err(error) = given() {
        tracing::debug!(path = %path.display(), %error, "the file stays this process's own");
    }
}

#[cfg(not(unix))]
pub(crate) fn give(_: &File, _: &Path, _: &Path) {}
