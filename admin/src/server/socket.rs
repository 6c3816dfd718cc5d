//! The socket's file: made with its owner and mode before it has its name, and removed by whoever made it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use nix::unistd::{Gid, Group};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};

use crate::address::{Address, kind_of};

/// What a socket is called until it is ready.
const UNREADY: &str = ".new";

/// How a socket is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOptions {
    /// Where.
    pub path: PathBuf,
    /// Who may use it beside its owner and root: a group's name or number.
    pub group: Option<String>,
    /// Its mode; only read and write of owner and group. By default 0600, and 0660 with a group.
    pub mode: Option<u32>,
    /// The file to whose owner the socket belongs: the store's.
    pub like: Option<PathBuf>,
    /// So many clients are served at a time; the next one is refused.
    pub max_clients: usize,
    /// How long a client may take to read an answer or to send the rest of a request.
    pub patience: std::time::Duration,
    /// How long a client may say nothing.
    pub idle: std::time::Duration,
}

impl SocketOptions {
    /// At this path: for its owner alone, 16 clients, 10 seconds for a frame, and 5 minutes between two.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            group: None,
            mode: None,
            like: None,
            max_clients: 16,
            patience: std::time::Duration::from_secs(10),
            idle: std::time::Duration::from_secs(300),
        }
    }

    fn mode(&self) -> Result<u32> {
        let mode = self.mode.unwrap_or(if self.group.is_some() { 0o660 } else { 0o600 });
        match mode & !0o660 == 0 && mode & 0o600 == 0o600 {
            true => Ok(mode),
            false => Err(Error::invalid("the admin socket's mode has to be 0600 or 0660")
                .with("mode", format_args!("{mode:04o}"))),
        }
    }
}

/// A socket that has its name. Given back, or dropped, it is gone, unless something else has its name by
/// then.
#[derive(Debug)]
pub(super) struct Bound {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// The user that it belongs to, and the group if members of it may use it.
    pub(super) owner: u32,
    pub(super) group: Option<u32>,
}

impl Bound {
    /// Only whoever keeps others out of the store may call this: what a process that died has left here is
    /// replaced.
    pub(super) fn bind(options: &SocketOptions) -> Result<(Self, UnixListener)> {
        let facts = |error: Error| error.with("socket", options.path.display());
        let mode = options.mode().map_err(facts)?;
        let group = options.group.as_deref().map(group_named).transpose().map_err(facts)?;
        require_free(&options.path)?;
        let unready = with_suffix(&options.path, UNREADY);
        remove_socket(&unready)?;
        let made = || {
            let listener = UnixListener::bind(Address::of(&unready)?.path())
                .map_err(|error| failed("the admin socket cannot be made", &options.path, error))?;
            let (owner, file_group) = settle(&unready, options, group, mode)?;
            listener
                .set_nonblocking(true)
                .and_then(|()| fs::rename(&unready, &options.path))
                .map_err(|error| failed("the admin socket cannot be made", &options.path, error))?;
            let made = fs::symlink_metadata(&options.path).map_err(|error| {
                failed("the admin socket cannot be looked up", &options.path, error)
            })?;
            let bound = Self {
                path: options.path.clone(),
                device: made.dev(),
                inode: made.ino(),
                owner,
                group: (mode & 0o060 != 0).then_some(file_group),
            };
            Ok((bound, listener))
        };
        let made = made();
        if made.is_err() {
            // Nothing of it stays. The first error is the one to tell.
            let _ = fs::remove_file(&unready);
        }
        made
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(socket = %self.path.display(), %error, "the admin socket stays");
        }
    }
}

/// Gives the socket its owner, group and mode. Gives the first two.
fn settle(
    path: &Path,
    options: &SocketOptions,
    group: Option<u32>,
    mode: u32,
) -> Result<(u32, u32)> {
    let failed = |error| failed("the admin socket cannot be made", &options.path, error);
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    let made = fs::symlink_metadata(path).map_err(failed)?;
    let like = options.like.as_deref().and_then(|like| fs::metadata(like).ok());
    // Root may look after a store of a service's.
    if let Some(like) = like
        && (made.uid(), made.gid()) != (like.uid(), like.gid())
        && let Err(error) = lchown(path, Some(like.uid()), Some(like.gid()))
    {
        tracing::debug!(socket = %options.path.display(), %error, "the socket stays this process's own");
    }
    if let Some(group) = group {
        lchown(path, None, Some(group)).map_err(|error| {
            Error::new(kind_of(&error), "the admin socket cannot be given to its group")
                .with("socket", options.path.display())
                .with("group", group)
                .with("help", "set admin.group to a group of the user that this process runs as")
                .because(error)
        })?;
    }
    let made = fs::symlink_metadata(path).map_err(failed)?;
    Ok((made.uid(), made.gid()))
}

/// Refuses a place where something is that no process that died has left.
fn require_free(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("the admin socket cannot be looked up", path, error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::invalid(
                "another file lies where the admin socket is to be, and was left as it is",
            )
            .with("socket", path.display())
            .with("help", "move it away, or set admin.path"));
        }
        Ok(_) => {}
    }
    match connect_at_once(Address::of(path)?.path()) {
        // Nobody listens.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            Err(failed("the admin socket cannot be looked up", path, error))
        }
        // Somebody listens, or has a full queue of those that he has not taken in.
        Ok(()) | Err(_) => {
            Err(Error::new(ErrorKind::Busy, "another process serves the admin socket")
                .with("socket", path.display())
                .with("help", "give each store that is open a socket of its own, by admin.path"))
        }
    }
}

/// Without waiting for whoever listens.
fn connect_at_once(path: &Path) -> io::Result<()> {
    let stream = net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::ioctl_fionbio(&stream, true)?;
    Ok(net::connect(&stream, &SocketAddrUnix::new(path)?)?)
}

fn remove_socket(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(|error| {
            failed("what is left of an admin socket cannot be removed", path, error)
        }),
        _ => Ok(()),
    }
}

fn group_named(group: &str) -> Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    match Group::from_name(group) {
        Ok(Some(found)) => Ok(Gid::as_raw(found.gid)),
        Ok(None) => Err(Error::invalid("there is no such group").with("group", group)),
        Err(error) => Err(Error::new(ErrorKind::Unavailable, "the group cannot be looked up")
            .with("group", group)
            .because(io::Error::from(error))),
    }
}

fn failed(what: &'static str, path: &Path, error: io::Error) -> Error {
    Error::new(kind_of(&error), what).with("socket", path.display()).because(error)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn place() -> (tempfile::TempDir, SocketOptions) {
        let directory = tempfile::tempdir().unwrap();
        let options = SocketOptions::new(directory.path().join("store.db.sock"));
        (directory, options)
    }

    fn names(directory: &tempfile::TempDir) -> Vec<String> {
        let names = fs::read_dir(directory.path()).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn it_is_its_owners_alone_and_gone_with_its_maker() {
        let (directory, options) = place();
        let (bound, listener) = Bound::bind(&options).unwrap();
        let found = fs::symlink_metadata(&options.path).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        assert_eq!((bound.owner, bound.group), (found.uid(), None));
        assert_eq!(names(&directory), ["store.db.sock"]);
        drop((bound, listener));
        assert!(names(&directory).is_empty());
    }

    #[test]
    fn what_a_dead_process_left_is_replaced() {
        let (directory, options) = place();
        drop(UnixListener::bind(&options.path).unwrap());
        drop(UnixListener::bind(with_suffix(&options.path, UNREADY)).unwrap());
        let _bound = Bound::bind(&options).unwrap();
        UnixStream::connect(&options.path).unwrap();
        assert_eq!(names(&directory), ["store.db.sock"]);
    }

    #[test]
    fn a_socket_that_is_served_and_other_files_are_left_alone() {
        let (_directory, options) = place();
        let first = Bound::bind(&options).unwrap();
        assert_eq!(*Bound::bind(&options).unwrap_err().kind(), ErrorKind::Busy);
        UnixStream::connect(&options.path).unwrap();
        drop(first);
        fs::write(&options.path, "mine").unwrap();
        assert_eq!(*Bound::bind(&options).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(fs::read(&options.path).unwrap(), b"mine");
    }

    #[test]
    fn one_that_takes_nobody_in_is_not_waited_for() {
        let (_directory, options) = place();
        let stalled = net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        net::bind(&stalled, &SocketAddrUnix::new(&options.path).unwrap()).unwrap();
        net::listen(&stalled, 1).unwrap();
        // Each stays in its queue, which is full at the end.
        for _ in 0..4 {
            assert_eq!(*Bound::bind(&options).unwrap_err().kind(), ErrorKind::Busy);
        }
    }

    #[test]
    fn the_next_ones_socket_is_not_removed() {
        let (_directory, options) = place();
        let first = Bound::bind(&options).unwrap();
        fs::remove_file(&options.path).unwrap();
        // Kept, so that its inode is not given to the next.
        let _second = Bound::bind(&options).unwrap();
        drop(first);
        UnixStream::connect(&options.path).unwrap();
    }

    #[test]
    fn a_group_may_be_let_in_and_nobody_else() {
        let (_directory, mut options) = place();
        for mode in [0o666, 0o606, 0o700, 0o060, 0o400] {
            options.mode = Some(mode);
            assert_eq!(*Bound::bind(&options).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        options.mode = None;
        let mine = nix::unistd::getegid().as_raw();
        options.group = Some(mine.to_string());
        let (bound, _listener) = Bound::bind(&options).unwrap();
        assert_eq!(bound.group, Some(mine));
        let found = fs::symlink_metadata(&options.path).unwrap();
        assert_eq!((found.permissions().mode() & 0o777, found.gid()), (0o660, mine));
        drop(bound);
        options.group = Some("no-such-group-here".to_owned());
        let error = Bound::bind(&options).unwrap_err();
        assert!(error.to_string().contains("no such group"), "{error}");
    }
}
