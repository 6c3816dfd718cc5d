//! Whether a path and what is there will do.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf, is_separator};

use ghostwire_store_core::error::{Error, ErrorKind, Result};

use crate::names::{
    ENGINE_FILES, LOCK_FILE, NATIVE_FILE, NATIVE_LOCK_FILE, NATIVE_OPENING_FILE, native_files_of,
    new_native_files_of,
};
use crate::opened::require_one_name;
use crate::read::fill;
use crate::{Access, FileKind, NATIVE_MARKER, directory_of, failed, has_log, lock, with_suffix};

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER: usize = 100;
/// What the engine may have written of a new store when it already says that it has a WAL.
const FIRST_PAGE: u64 = 4096;

/// Refuses a path that ends like that of a directory: what Rust takes for a file's name at its end
/// the system does not.
///
/// # Errors
/// `InvalidArgument`.
pub fn require_file_name(path: &Path) -> Result<()> {
    match path.as_os_str().as_encoded_bytes().last() {
        Some(&byte) if is_separator(byte.into()) => Err(is_a_directory(path)),
        _ => Ok(()),
    }
}

fn is_a_directory(path: &Path) -> Error {
    Error::invalid("the store's path is a directory; name a file inside it")
        .with("path", path.display())
}

/// The path without symbolic links, so that one file has one lock, and whether there is a file.
pub(crate) fn resolve(path: &Path, access: Access) -> Result<(PathBuf, bool)> {
    require_file_name(path)?;
    if let Err(error) = fs::symlink_metadata(path) {
        return match error.kind() {
            io::ErrorKind::NotFound => absent(path, access).map(|path| (path, false)),
            _ => Err(failed("the store's path cannot be looked up", path, error)),
        };
    }
    let resolved = fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => leads_nowhere(path, error),
        _ => failed("the store's path cannot be followed", path, error),
    })?;
    let metadata = fs::metadata(&resolved)
        .map_err(|error| failed("the store's path cannot be looked up", path, error))?;
    if metadata.is_dir() {
        return Err(is_a_directory(path));
    }
    if !metadata.is_file() {
        return Err(Error::invalid("the store's path is not a regular file; name another")
            .with("path", path.display()));
    }
    Ok((resolved, true))
}

fn leads_nowhere(path: &Path, error: io::Error) -> Error {
    let error = failed("the store's symbolic link leads nowhere", path, error);
    let error = match fs::read_link(path) {
        Ok(target) => error.with("leads_to", target.display()),
        Err(_) => error,
    };
    error.with(
        "help",
        "put the store's file where the link leads to; or, to begin anew, remove the link, since no \
         store is made through one",
    )
}

fn absent(path: &Path, access: Access) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(
            Error::invalid("the store's path does not name a file").with("path", path.display())
        );
    };
    let parent = directory_of(path);
    let unusable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, "the store's directory does not exist")
                .with("directory", parent.display())
                .with("path", path.display())
        }
        _ => failed("the store's directory cannot be looked up", parent, error),
    };
    let directory = fs::canonicalize(parent).map_err(unusable)?;
    if !fs::metadata(&directory).map_err(unusable)?.is_dir() {
        return Err(Error::invalid(
            "the store's path leads through something that is no directory",
        )
        .with("directory", parent.display())
        .with("path", path.display()));
    }
    let path = directory.join(name);
    if access != Access::Create {
        nothing_was_here(&path, false)?;
        return Err(Error::new(
            ErrorKind::NotFound,
            "there is no store at this path; correct the path, or allow making a new one",
        )
        .with("path", path.display()));
    }
    Ok(path)
}

/// Refuses to take the place of a store whose file is lost. A kill while one is made leaves nothing
/// of what this looks for: the lock says which store it is only once it is stored, and the log comes
/// after the file.
pub(crate) fn nothing_was_here(path: &Path, exists: bool) -> Result<()> {
    let lost = |message: &'static str, help: &'static str| {
        Error::new(ErrorKind::NotFound, message).with("path", path.display()).with("help", help)
    };
    let lock = with_suffix(path, LOCK_FILE);
    if let Some(store) = lock::last_store(&lock)? {
        return Err(lost(
            "a store was here, and its file is gone or empty",
            "restore the file; or, to begin anew, remove what lies beside it, the lock last",
        )
        .with("was", store)
        .with("lock", lock.display()));
    }
    let native = with_suffix(path, NATIVE_FILE);
    if !lock::is_absent(&native)? {
        return Err(lost(
            "here lies the database of a zqlite store on the native engine, and the store's file is gone or \
             empty",
            "restore the file; or, to begin anew, move the database away",
        )
        .with("database", native.display()));
    }
    if !exists && has_log(path) {
        return Err(lost(
            "here lies the log of a store with commits in it, and its file is gone",
            "restore the file; or, to begin anew, remove the log",
        )
        .with("log", with_suffix(path, "-wal").display()));
    }
    Ok(())
}

/// Checks the names and the header of an existing file; tells whether it is empty, and thus counts as
/// new.
pub(crate) fn content(path: &Path, kind: FileKind, access: Access) -> Result<bool> {
    require_one_name(path)?;
    engine_files(path)?;
    header(path, kind, access)
}

/// Refuses what lies beside the store's file under the name of an engine's and is none: at a pipe it
/// would wait for ever, through a link or another name it would write what is somebody else's.
pub(crate) fn engine_files(path: &Path) -> Result<()> {
    let locks = [NATIVE_LOCK_FILE, NATIVE_OPENING_FILE].map(|suffix| with_suffix(path, suffix));
    let native = native_files_of(path).chain(new_native_files_of(path)).chain(locks);
    for file in ENGINE_FILES.map(|suffix| with_suffix(path, suffix)).into_iter().chain(native) {
        match fs::symlink_metadata(&file) {
            Ok(metadata) if metadata.is_file() => require_one_name(&file)?,
            Ok(_) => {
                return Err(Error::invalid(
                    "beside the store's file lies something that is not a regular file (a link, a \
                     directory or a pipe) where SQLite's log, index or journal or the ZQLite library's database \
                     would be; move it away",
                )
                .with("path", file.display()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(failed("a file beside the store cannot be looked up", &file, error));
            }
        }
    }
    Ok(())
}

/// Refuses what an engine could not open of its files.
pub(crate) fn writable_engine_files(path: &Path) -> Result<()> {
    for file in ENGINE_FILES.map(|suffix| with_suffix(path, suffix)) {
        match may_be_written(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("a file beside the store cannot be opened", &file, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Asks only: closing the index of a log ends the locks of all connections that this process has.
#[cfg(unix)]
fn may_be_written(file: &Path) -> io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    Ok(accessat(CWD, file, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS)?)
}

#[cfg(not(unix))]
fn may_be_written(file: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(file).map(drop)
}

/// Takes from an existing file what others than its owner may do with it.
pub(crate) fn permissions(path: &Path, access: Access) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path)
            .map_err(|error| failed("the store's file cannot be looked up", path, error))?
            .permissions()
            .mode()
            & 0o777;
        if mode & 0o077 != 0 && access != Access::ReadOnly {
            tracing::warn!(
                path = %path.display(),
                mode = format_args!("{mode:o}"),
                "others may read the store's file; narrowing it to 600"
            );
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|error| {
                failed("the store's file cannot be kept from others", path, error)
            })?;
        }
    }
    #[cfg(not(unix))]
    let _ = (path, access);
    Ok(())
}

/// Checks an existing file's header; tells whether it is empty. So counts one
/// that the engine was still filling for the first time when it was broken off: its journal says
/// that there was nothing before, and the engine will begin by emptying the file. A store that was
/// put there since must not be emptied, so that is refused.
fn header(path: &Path, kind: FileKind, access: Access) -> Result<bool> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(access != Access::ReadOnly)
        .open(path)
        .map_err(|error| failed("the store's file cannot be opened", path, error))?;
    let unreadable = |error| failed("the store's file cannot be read", path, error);
    let length = file.metadata().map_err(unreadable)?.len();
    let was_empty = was_empty(path)?;
    let mut bytes = [0; HEADER];
    let filled = fill(&mut file, &mut bytes).map_err(unreadable)?;
    if was_empty && length > FIRST_PAGE && is_in_wal_mode(&bytes) {
        return Err(Error::corrupt(
            "beside the store's file lies the journal of another file, and the engine would empty \
             the store by it; move the journal away",
        )
        .with("path", path.display())
        .with("journal", with_suffix(path, "-journal").display()));
    }
    if length == 0 || was_empty {
        if access == Access::Create {
            return Ok(true);
        }
        nothing_was_here(path, true)?;
        return Err(Error::new(
            ErrorKind::NotFound,
            "there is no store at this path, but a file with nothing in it; restore the store, or \
             allow making a new one",
        )
        .with("path", path.display()));
    }
    let is_native = NATIVE_MARKER.get(..HEADER).is_some_and(|marker| bytes == *marker);
    match (is_native, kind == FileKind::ZQLITE_NATIVE) {
        (true, true) => return Ok(false),
        (true, false) => {
            return Err(Error::invalid(
                "the file belongs to a zqlite store on the native engine; set zqlite.engine to `native`, or \
                 name another file",
            )
            .with("path", path.display()));
        }
        (false, true) if bytes.starts_with(MAGIC) => {
            return Err(Error::invalid(
                "the file is a SQLite database, and not a zqlite store on the native engine; set zqlite.engine \
                 to `embedded`, or name another file",
            )
            .with("path", path.display()));
        }
        _ => {}
    }
    if filled < MAGIC.len() || !bytes.starts_with(MAGIC) {
        return Err(Error::invalid(
            "the file is not a ghostwire-store file; it was left as it is, name another",
        )
        .with("path", path.display())
        .with("expected", kind.name));
    }
    let truncated = |expected: u64| {
        Error::corrupt("the store's file is cut short; restore it from a backup")
            .with("path", path.display())
            .with("bytes", length)
            .with("expected", expected)
    };
    if kind == FileKind::ZQLITE_NATIVE {
        return Err(Error::corrupt(
            "the file does not say that it belongs to a zqlite store on the native engine; restore it from a \
             backup, or name another file",
        )
        .with("path", path.display()));
    }
    if filled < HEADER {
        return Err(truncated(HEADER as u64));
    }
    owner(number(&bytes, 68), path, kind)?;
    match expected_length(&bytes) {
        // While there is a WAL, page 1 may already tell the size that the checkpoint, when it is
        // done again, will give the file.
        Some(expected) if length < expected && !has_log(path) => Err(truncated(expected)),
        _ => Ok(false),
    }
}

fn owner(found: u32, path: &Path, kind: FileKind) -> Result<()> {
    if found == kind.application_id {
        return Ok(());
    }
    let message = match FileKind::ALL.iter().find(|other| other.application_id == found) {
        Some(other) => format!(
            "the file belongs to the {} backend, not to {}; choose that backend, or name another file",
            other.name, kind.name
        ),
        None => "the file is a SQLite database, but not a ghostwire-store file; it was left as it \
                 is, name another"
            .to_owned(),
    };
    Err(Error::invalid(message)
        .with("path", path.display())
        .with("application_id", format_args!("{found:#010x}"))
        .with("expected", format_args!("{:#010x}", kind.application_id)))
}

/// What the header says of the file's length, where that is to be trusted.
fn expected_length(header: &[u8; HEADER]) -> Option<u64> {
    let page_size = match u16::from_be_bytes([*header.get(16)?, *header.get(17)?]) {
        1 => 65_536,
        size => u64::from(size),
    };
    let pages = number(header, 28);
    (number(header, 24) == number(header, 92) && pages != 0).then(|| page_size * u64::from(pages))
}

fn number(header: &[u8; HEADER], at: usize) -> u32 {
    header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// Whether a transaction that was broken off began with an empty file. The journal says with how
/// many pages: <https://sqlite.org/fileformat2.html#the_rollback_journal>.
fn was_empty(path: &Path) -> Result<bool> {
    const JOURNAL: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let journal = with_suffix(path, "-journal");
    let mut bytes = [0; HEADER];
    match File::open(&journal).and_then(|mut journal| fill(&mut journal, &mut bytes)) {
        Ok(filled) => {
            Ok(filled == HEADER && bytes.starts_with(&JOURNAL) && number(&bytes, 16) == 0)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("the store's journal cannot be read", &journal, error)),
    }
}

/// A store is switched to WAL after its first transaction.
fn is_in_wal_mode(header: &[u8; HEADER]) -> bool {
    header.starts_with(MAGIC) && header.get(18..20) == Some(&[2, 2])
}
