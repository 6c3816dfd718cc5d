//! The library's file, before anything in it runs.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sha2::{Digest, Sha256};

use crate::failure::LoadError;
use crate::library::Library;

/// Larger than any build of it.
const MAX_SIZE: u64 = 256 << 20;

/// A library's bytes, and their sum.
pub struct LibraryFile {
    path: PathBuf,
    bytes: Vec<u8>,
    sha256: [u8; 32],
}

impl std::fmt::Debug for LibraryFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, length) = (&self.path, self.bytes.len());
        f.debug_struct("LibraryFile").field("path", path).field("length", &length).finish()
    }
}

impl LibraryFile {
    /// Reads a library's file, which nobody but root and this process's user may write.
    ///
    /// # Errors
    /// `Unsupported`, saying what is wrong with it; `NotFound`; those of the file system.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_unnamed(path).map_err(|error| error.with("library", path.display()))
    }

    fn read_unnamed(path: &Path) -> Result<Self> {
        if !path.is_absolute() {
            return Err(Error::invalid("the path of the ZQLite library is not absolute"));
        }
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, "there is no ZQLite library at this path")
            }
            io::ErrorKind::PermissionDenied => Error::new(
                ErrorKind::PermissionDenied,
                "the ZQLite library cannot be read; let this process's user read it",
            ),
            _ => Error::new(ErrorKind::Unavailable, "the ZQLite library cannot be read")
                .because(error),
        };
        if fs::symlink_metadata(path).map_err(failed)?.is_symlink() {
            return Err(refused(
                "the path of the ZQLite library is a symbolic link, and whoever changes that changes the \
                 library; name the file itself",
            ));
        }
        // A pipe would be waited for; what was put in place of the file since is not followed either.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let mut file = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(refused("the path of the ZQLite library is not a regular file"));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(refused(
                "others than its owner may write the ZQLite library, and so could run anything here; \
                 take that from them: chmod go-w",
            )
            .with("mode", format_args!("{mode:o}")));
        }
        let user = rustix::process::geteuid().as_raw();
        if metadata.uid() != 0 && metadata.uid() != user {
            return Err(refused(
                "the ZQLite library belongs to somebody else than root and this process's user; give it \
                 to one of them",
            )
            .with("owner", metadata.uid()));
        }
        if metadata.len() > MAX_SIZE {
            return Err(refused("the ZQLite library is larger than any build of it")
                .with("bytes", metadata.len()));
        }
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(MAX_SIZE).read_to_end(&mut bytes).map_err(failed)?;
        require_machine(&bytes)?;
        let sha256 = Sha256::digest(&bytes).into();
        Ok(Self { path: path.to_owned(), bytes, sha256 })
    }

    /// Where it was read.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Of its bytes.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Loads exactly these bytes into this process, in which nothing else should be: what the library does
    /// when it is loaded, and what it loads itself (`DT_NEEDED`), nobody checked.
    ///
    /// # Errors
    /// If the system does not load it, or its interface is not ABI 1.x.
    pub fn load(&self) -> std::result::Result<Library, LoadError> {
        let pinned = self.pinned().map_err(|error| LoadError::NotLoaded(error.to_string()));
        let (pinned, path) = pinned?;
        // Never closed, as the library is never unloaded: the system takes a path that it has loaded already
        // for the same library, and another file would get this one's number.
        let _ = pinned.into_raw_fd();
        Library::load(&path)
    }

    /// A path by which this process can load exactly these bytes, as long as the file that is given lives:
    /// whoever writes to the library's own file meanwhile changes nothing.
    fn pinned(&self) -> io::Result<(File, PathBuf)> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create("zqlite", flags)?);
        file.write_all(&self.bytes)?;
        // Nobody has it mapped yet. The seal against writing by mappings that there are, too, is refused (EBUSY)
        // while the kernel holds a page of it for a moment, which happens under load.
        fcntl_add_seals(&file, SealFlags::FUTURE_WRITE | SealFlags::GROW | SealFlags::SHRINK)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok((file, path.into()))
    }
}

fn refused(message: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

/// Refuses what is no shared library for this machine: <https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html>.
fn require_machine(bytes: &[u8]) -> Result<()> {
    const SHARED: u16 = 3;
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else {
        return Err(refused("the ZQLite library's file is too short"));
    };
    if magic != b"\x7fELF" {
        return Err(refused(
            "the ZQLite library's file is not in the ELF format of shared libraries",
        ));
    }
    let (class, order) = (rest.first().copied(), rest.get(1).copied());
    let (own_class, own_order) = (
        if cfg!(target_pointer_width = "64") { 2 } else { 1 },
        if cfg!(target_endian = "little") { 1 } else { 2 },
    );
    let number = |at: usize| {
        let bytes = bytes.get(at..)?.first_chunk::<2>()?;
        Some(if order == Some(1) { u16::from_le_bytes(*bytes) } else { u16::from_be_bytes(*bytes) })
    };
    if number(16) != Some(SHARED) {
        return Err(refused(
            "the ZQLite library's file is in the ELF format, but no shared library",
        ));
    }
    let machine = number(18);
    let own = own_machine();
    if class != Some(own_class)
        || order != Some(own_order)
        || own.is_some_and(|own| machine != Some(own))
    {
        return Err(refused("the ZQLite library is built for another type of machine")
            .with("machine", machine.unwrap_or_default())
            .with("expected", own.unwrap_or_default()));
    }
    Ok(())
}

/// What ELF calls the machine that this program is built for.
fn own_machine() -> Option<u16> {
    let known = [("x86_64", 62), ("aarch64", 183), ("riscv64", 243), ("x86", 3), ("arm", 40)];
    known.into_iter().find(|(name, _)| *name == std::env::consts::ARCH).map(|(_, number)| number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The beginning of a shared library for this machine.
    fn header() -> Vec<u8> {
        let mut header = vec![0; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[16] = 3;
        header[18..20].copy_from_slice(&own_machine().unwrap().to_le_bytes());
        header
    }

    fn library(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("libzqlite_c.so");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        (directory, path)
    }

    fn refusal(path: &Path) -> String {
        let error = LibraryFile::read(path).unwrap_err();
        assert!(error.to_string().contains(&format!("library={}", path.display())), "{error}");
        error.to_string()
    }

    #[test]
    fn a_library_is_pinned_with_its_sum() {
        let (_directory, path) = library(&header());
        let file = LibraryFile::read(&path).unwrap();
        assert_eq!(file.sha256(), <[u8; 32]>::from(Sha256::digest(header())));
        let (_kept, pinned) = file.pinned().unwrap();
        fs::write(&path, b"something else").unwrap();
        assert_eq!(fs::read(&pinned).unwrap(), header());
        assert!(fs::write(&pinned, b"something else").is_err());
        let mut opened = File::options().write(true).open(&pinned).unwrap();
        assert!(opened.write_all(b"x").is_err());
    }

    #[test]
    fn what_others_may_change_is_refused() {
        let (directory, path) = library(&header());
        for mode in [0o664, 0o646, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(refusal(&path).contains("may write"), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let link = directory.path().join("link.so");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(refusal(&link).contains("symbolic link"));
        assert!(refusal(directory.path()).contains("not a regular file"));
        assert!(refusal(&directory.path().join("absent")).contains("no ZQLite library"));
    }

    #[test]
    fn a_path_that_is_not_absolute_is_refused() {
        assert!(refusal(Path::new("libzqlite_c.so")).contains("not absolute"));
    }

    #[test]
    fn what_is_no_library_for_this_machine_is_refused() {
        let changed = |at: usize, byte: u8| {
            let mut header = header();
            header[at] = byte;
            header
        };
        for (bytes, expected) in [
            (Vec::new(), "too short"),
            (b"#!/bin/sh\n".to_vec(), "not in the ELF format"),
            (changed(16, 2), "no shared library"),
            (changed(18, 8), "another type of machine"),
            (changed(4, 1), "another type of machine"),
            (changed(5, 2), "no shared library"),
            (header()[..17].to_vec(), "no shared library"),
        ] {
            let (_directory, path) = library(&bytes);
            assert!(refusal(&path).contains(expected), "{expected}");
        }
    }
}
