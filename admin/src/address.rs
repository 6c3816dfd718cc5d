//! The address of a socket, which the system limits to about a hundred bytes.

use std::fs::File;
use std::path::{Path, PathBuf};

use ghostwire_store_core::error::{Error, ErrorKind, Result};

/// Bytes of a socket's path that every system takes.
const LONGEST: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// By which a socket is bound and connected to.
#[derive(Debug)]
pub(crate) struct Address {
    path: PathBuf,
    /// A longer path is reached through its directory, which has to stay open meanwhile.
    _directory: Option<File>,
}

impl Address {
    /// # Errors
    /// `InvalidArgument` if the path is too long for a socket; that of the file system.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        through_directory(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(target_os = "linux")]
fn through_directory(path: &Path) -> Result<Address> {
    use std::os::fd::AsRawFd;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(too_long(path));
    };
    let directory = File::open(parent).map_err(|error| {
        Error::new(kind_of(&error), "the socket's directory cannot be opened")
            .with("path", parent.display())
            .because(error)
    })?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    match short.as_os_str().len() <= LONGEST {
        true => Ok(Address { path: short, _directory: Some(directory) }),
        false => Err(too_long(path)),
    }
}

#[cfg(not(target_os = "linux"))]
fn through_directory(path: &Path) -> Result<Address> {
    Err(too_long(path))
}

fn too_long(path: &Path) -> Error {
    Error::invalid("the path is too long for a socket")
        .with("socket", path.display())
        .with("bytes", path.as_os_str().len())
        .with("at_most", LONGEST)
        .with("help", "set admin.path to a shorter one, such as one in /run")
}

/// What an error of the system means for whoever wanted something of a socket.
pub(crate) fn kind_of(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::PermissionDenied => ErrorKind::PermissionDenied,
        Io::NotFound => ErrorKind::NotFound,
        Io::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        Io::StorageFull | Io::QuotaExceeded => ErrorKind::Exhausted,
        Io::AddrInUse => ErrorKind::Busy,
        _ => ErrorKind::Unavailable,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_is_reached_through_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("store.sock");
        let address = Address::of(&path).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(address.path()).unwrap();
        drop(address);
        assert!(path.exists());
        let address = Address::of(&path).unwrap();
        std::os::unix::net::UnixStream::connect(address.path()).unwrap();
        drop(listener);
    }

    #[test]
    fn a_name_that_is_too_long_is_refused_with_a_remedy() {
        let error = Address::of(Path::new(&format!("/tmp/{}", "n".repeat(200)))).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("admin.path"), "{error}");
    }
}
