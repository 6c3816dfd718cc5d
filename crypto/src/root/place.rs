//! Places on this machine.

use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::{Content, KeySource, LONGEST, RootSecret, identity_in, malformed, passphrase_in};
use crate::error::{Error, Result, RootFault};
use crate::secret::{Locked, on_cleared_stack};

/// systemd names the directory of a service's credentials here.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Where on this machine the root secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file with an identity: nobody else's to read, or root's and readable for a group of this
    /// process, as Kubernetes mounts secrets with `fsGroup`.
    File(PathBuf),
    /// An environment variable with an identity. It stays in the environment of this process, where
    /// its user can read it.
    Variable(String),
    /// A systemd credential of this name with an identity.
    Credential(String),
    /// A file with a passphrase, readable as [`Place::File`] is. Line ends behind it do not belong
    /// to it.
    PassphraseFile(PathBuf),
}

#[async_trait]
impl KeySource for Place {
    fn name(&self) -> String {
        match self {
            Self::File(path) => format!("the file {}", path.display()),
            Self::Variable(name) => format!("the environment variable {name}"),
            Self::Credential(name) => format!("the systemd credential {name}"),
            Self::PassphraseFile(path) => format!("the passphrase's file {}", path.display()),
        }
    }

    async fn root_secret(&self) -> Result<RootSecret> {
        self.read()
    }
}

impl Place {
    /// What is there now.
    ///
    /// # Errors
    /// [`Error::Root`]: missing, open to others, malformed or not to be read.
    pub fn read(&self) -> Result<RootSecret> {
        on_cleared_stack(|| self.read_here())
    }

    fn read_here(&self) -> Result<RootSecret> {
        let (content, length) = match self {
            Self::File(path) | Self::PassphraseFile(path) => {
                self.read_file(path, is_private_or_of_our_group)?
            }
            Self::Credential(name) => self.read_file(&self.credential(name)?, is_credential)?,
            Self::Variable(name) => self.read_variable(name)?,
        };
        let secret = match self {
            Self::PassphraseFile(_) => passphrase_in(content, length).map(RootSecret::Passphrase),
            _ => identity_in(content.bytes().get(..length).unwrap_or_default())
                .map(RootSecret::Identity),
        };
        secret.map_err(|why| malformed(self, why))
    }

    fn fault(&self, fault: RootFault) -> Error {
        Error::Root { place: self.name(), fault }
    }

    fn read_file(
        &self,
        path: &Path,
        is_closed: impl Fn(&Metadata) -> bool,
    ) -> Result<(Content, usize)> {
        let cannot_read = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => self.fault(RootFault::Missing),
            _ => self.fault(RootFault::Unavailable { why: error.to_string() }),
        };
        // Before it is opened: a pipe would wait for somebody to write.
        if !fs::metadata(path).map_err(cannot_read)?.is_file() {
            return Err(malformed(self, "it is not a regular file"));
        }
        let mut file = File::open(path).map_err(cannot_read)?;
        let metadata = file.metadata().map_err(cannot_read)?;
        if !is_closed(&metadata) {
            let (path, mode) = (path.to_owned(), mode(&metadata));
            return Err(self.fault(RootFault::Exposed { path, mode }));
        }
        let mut content = Locked::zeros();
        let length = fill(&mut file, content.bytes_mut()).map_err(cannot_read)?;
        if length == LONGEST {
            return Err(malformed(self, "it is longer than 4095 bytes"));
        }
        Ok((content, length))
    }

    fn read_variable(&self, name: &str) -> Result<(Content, usize)> {
        let value = std::env::var_os(name).ok_or_else(|| self.fault(RootFault::Missing))?;
        let value = Zeroizing::new(value.into_encoded_bytes());
        let mut content: Content = Locked::zeros();
        let room = content.bytes_mut().get_mut(..value.len());
        room.ok_or_else(|| malformed(self, "it is longer than 4096 bytes"))?
            .copy_from_slice(&value);
        Ok((content, value.len()))
    }

    fn credential(&self, name: &str) -> Result<PathBuf> {
        let mut parts = Path::new(name).components();
        let is_name = matches!(
            (parts.next(), parts.next()),
            (Some(std::path::Component::Normal(only)), None) if only == name
        );
        if !is_name {
            return Err(malformed(
                self,
                "a credential's name is that of a file, without a directory",
            ));
        }
        let directory = std::env::var_os(CREDENTIALS).ok_or_else(|| {
            let why = format!("{CREDENTIALS} is not set: systemd gave this service no credentials");
            self.fault(RootFault::Unavailable { why })
        })?;
        Ok(Path::new(&directory).join(name))
    }
}

/// Reads until the end or until `into` is full; gives how many bytes there were.
fn fill(file: &mut File, into: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while let Some(room) = into.get_mut(length..).filter(|room| !room.is_empty()) {
        match file.read(room) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(unix)]
fn mode(metadata: &Metadata) -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    metadata.mode() & 0o7777
}

#[cfg(not(unix))]
fn mode(_: &Metadata) -> u32 {
    0
}

/// Only its owner may read it; or root owns it and it is read by a group that is ours.
#[cfg(unix)]
fn is_private_or_of_our_group(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let is_ours = || {
        let group = metadata.gid();
        rustix::process::getegid().as_raw() == group
            || rustix::process::getgroups()
                .is_ok_and(|groups| groups.iter().any(|found| found.as_raw() == group))
    };
    let open_to = mode(metadata) & 0o077;
    open_to == 0 || (open_to == 0o040 && metadata.uid() == 0 && is_ours())
}

#[cfg(not(unix))]
fn is_private_or_of_our_group(_: &Metadata) -> bool {
    true
}

/// systemd lets a service's user read by an access list, which shows as the group's permission.
#[cfg(unix)]
fn is_credential(metadata: &Metadata) -> bool {
    mode(metadata) & 0o037 == 0
}

#[cfg(not(unix))]
fn is_credential(_: &Metadata) -> bool {
    true
}
