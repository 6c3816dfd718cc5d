//! Files that a command writes. What would be replaced is looked at before anything is opened to be
//! written; what is written stands under a name of its own until it is whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use ghostwire_store::config::{BackendChoice, Config, NamedStore};
use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::{EXPORT_PREFIX, directory_of, possible_stores_of, resolved};
use tempfile::NamedTempFile;

use crate::failure::{file_error, with_help};

const BUFFER: usize = 256 * 1024;
/// Longer files have no hash key.
const LONGEST_KEY: usize = 8192;

/// A name under which a file may be written.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    directory: PathBuf,
    replace: bool,
}

impl Target {
    /// Looks at what is there. Call it before a store is opened: SQLite loses its locks when another
    /// descriptor of its file is closed.
    ///
    /// With `replace` another file may be there already, but never one that belongs to a store,
    /// configured or not.
    pub(crate) fn check(path: &Path, replace: bool, config: Option<&Config>) -> Result<Self> {
        let named = |error: Error| error.with("path", path.display());
        let Some(name) = path.file_name() else {
            return Err(named(Error::invalid("this is a directory; name a file inside it")));
        };
        let directory = directory_of(path);
        let target = Self { path: path.to_owned(), directory: directory.to_owned(), replace };
        let resolved = directory.canonicalize().map_err(|error| target.failed(error))?.join(name);
        let found = match path.symlink_metadata() {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(target.failed(error)),
        };
        if found.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(named(Error::invalid("this is a directory; name a file inside it")));
        }
        // A link leads to what matters.
        let leads_to = path.canonicalize().unwrap_or_else(|_| resolved.clone());
        for meant in [&resolved, &leads_to] {
            if let Some(owner) = owner(meant, config) {
                let error =
                    Error::new(ErrorKind::Restricted, "this file belongs to a store; name another");
                return Err(named(error).with("store", owner.display()));
            }
        }
        if let Some(found) = found {
            target.check_existing(&found).map_err(named)?;
        }
        // What is written may be the result of hours.
        tempfile::tempfile_in(&target.directory).map_err(|error| target.failed(error))?;
        Ok(target)
    }

    fn check_existing(&self, found: &fs::Metadata) -> Result<()> {
        if !found.is_file() {
            return Err(Error::invalid("this is not a regular file; name another, or use a pipe"));
        }
        let mut beginning = Vec::new();
        let limit = LONGEST_KEY as u64 + 1;
        File::open(&self.path)
            .and_then(|file| file.take(limit).read_to_end(&mut beginning))
            .map_err(|error| {
                file_error("the file that is there cannot be looked at", None, error)
            })?;
        if let Some(what) = precious(&beginning) {
            let message = format!("this file is {what}; name another");
            return Err(Error::new(ErrorKind::Restricted, message));
        }
        if self.replace {
            return Ok(());
        }
        let kind = ErrorKind::AlreadyExists { constraint: "path" };
        Err(Error::new(kind, "there is a file already; --force replaces it"))
    }

    /// As it was named.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins to write what only its owner may read.
    pub(crate) fn begin(self) -> Result<OutputFile> {
        let file = Unnamed::begin(&self.directory).map_err(|error| self.failed(error))?;
        Ok(OutputFile { target: self, file: BufWriter::with_capacity(BUFFER, file) })
    }

    /// Writes all of it.
    pub(crate) fn fill(self, bytes: &[u8]) -> Result<()> {
        let mut file = self.begin()?;
        file.write_all(bytes).map_err(|error| file.target.failed(error))?;
        file.finish()
    }

    fn failed(&self, error: io::Error) -> Error {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "the directory has to exist: make it first",
            io::ErrorKind::PermissionDenied => "let this process's user write the directory",
            io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only; name another place",
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on the disk",
            io::ErrorKind::InvalidFilename => "the file system does not take this name: shorten it",
            _ => "name a file in a directory that can be written",
        };
        with_help(file_error("the file cannot be written", Some(&self.path), error), help)
    }
}

/// A file in the making. Dropped before it is finished, it leaves nothing; nor does a kill, where the
/// system has files without a name.
#[derive(Debug)]
pub(crate) struct OutputFile {
    target: Target,
    file: BufWriter<Unnamed>,
}

/// What is written, before it has its name.
#[derive(Debug)]
enum Unnamed {
    /// Not in the directory yet.
    #[cfg(target_os = "linux")]
    Hidden(File),
    Named(NamedTempFile),
}

impl Unnamed {
    fn begin(directory: &Path) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(file) = hidden(directory) {
            return Ok(Self::Hidden(file));
        }
        NamedTempFile::with_prefix_in(EXPORT_PREFIX, directory).map(Self::Named)
    }

    fn file(&mut self) -> &mut File {
        match self {
            #[cfg(target_os = "linux")]
            Self::Hidden(file) => file,
            Self::Named(file) => file.as_file_mut(),
        }
    }

    /// Makes it durable and gives it its name.
    fn name(mut self, target: &Target) -> io::Result<()> {
        self.file().sync_all()?;
        let path = &target.path;
        match self {
            #[cfg(target_os = "linux")]
            Self::Hidden(file) if target.replace => {
                // Nothing is linked over what is there, but renamed.
                let mut link = tempfile::Builder::new();
                link.prefix(EXPORT_PREFIX);
                let link = link.make_in(&target.directory, |path| link_to(&file, path))?;
                link.persist(path).map_err(|error| error.error)?;
            }
            #[cfg(target_os = "linux")]
            Self::Hidden(file) => link_to(&file, path)?,
            Self::Named(file) if target.replace => {
                file.persist(path).map_err(|error| error.error)?;
            }
            Self::Named(file) => {
                file.persist_noclobber(path).map_err(|error| error.error)?;
            }
        }
        Ok(())
    }
}

/// A file without a name, where it can get one later.
#[cfg(target_os = "linux")]
fn hidden(directory: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = i32::try_from(rustix::fs::OFlags::TMPFILE.bits()).ok()?;
    let mut options = File::options();
    options.read(true).write(true).mode(0o600).custom_flags(flags);
    // Not every file system has them.
    let file = options.open(directory).ok()?;
    own_link(&file).symlink_metadata().is_ok().then_some(file)
}

#[cfg(target_os = "linux")]
fn own_link(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(target_os = "linux")]
fn link_to(file: &File, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    Ok(linkat(CWD, own_link(file), CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

impl Write for Unnamed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl OutputFile {
    /// Makes it durable and gives it its name.
    pub(crate) fn finish(self) -> Result<()> {
        let Self { target, file } = self;
        let failed = |error| target.failed(error);
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.name(&target).map_err(failed)?;
        // The name must survive a loss of power, too; not every file system can promise it.
        let _ = File::open(&target.directory).and_then(|directory| directory.sync_all());
        Ok(())
    }
}

/// The store to which a file of this name belongs: a configured one, or one that is there.
fn owner(file: &Path, config: Option<&Config>) -> Option<PathBuf> {
    let stores = config.map(Config::stores).unwrap_or_default();
    let is_key = |store: &&NamedStore| keys_of(store).iter().any(|own| resolved(own) == file);
    if let Some(store) = stores.values().find(is_key) {
        return Some(store.backend.path().unwrap_or(file).to_owned());
    }
    let paths = stores.values().filter_map(|store| store.backend.path());
    let configured: Vec<_> = paths.map(resolved).collect();
    let is_store =
        |path: &PathBuf| configured.contains(path) || (path != file && is_sqlite_file(path));
    possible_stores_of(file).find(is_store)
}

/// The files of a store's keys and of what unlocks them, wherever they are configured to be.
fn keys_of(store: &NamedStore) -> Vec<PathBuf> {
    let mut files: Vec<_> = store.secret_key_path().into_iter().collect();
    if let BackendChoice::Zqlite(options) = &store.backend {
        let root = &options.root;
        files.extend([options.keyring_path(), options.development_root_path()]);
        files.extend([&root.secret_file, &root.passphrase_file].into_iter().flatten().cloned());
    }
    files
}

/// What cannot be looked at may be one.
fn is_sqlite_file(path: &Path) -> bool {
    let mut beginning = Vec::new();
    let mut read = || {
        if !path.metadata()?.is_file() {
            return Ok(false);
        }
        File::open(path)?.take(16).read_to_end(&mut beginning)?;
        Ok::<_, io::Error>(beginning == SQLITE)
    };
    read().unwrap_or_else(|error| error.kind() != io::ErrorKind::NotFound)
}

const SQLITE: &[u8] = b"SQLite format 3\0";

/// What never is replaced, whatever its name.
fn precious(beginning: &[u8]) -> Option<&'static str> {
    // https://sqlite.org/fileformat2.html has the three magic numbers.
    let magic = |bytes: &[u8]| beginning.starts_with(bytes);
    if magic(SQLITE) {
        return Some("a SQLite database, such as a store is");
    }
    if magic(&[0x37, 0x7f, 0x06, 0x82]) || magic(&[0x37, 0x7f, 0x06, 0x83]) {
        return Some("SQLite's log of a database");
    }
    if magic(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]) {
        return Some("SQLite's journal of a database");
    }
    if magic(b"age-encryption.org/v1\n") {
        return Some("a file of age, such as a keyring");
    }
    let holds = |line: &[u8]| beginning.windows(line.len()).any(|found| found == line);
    if holds(b"AGE-SECRET-KEY-") {
        return Some("an identity, such as a root secret");
    }
    let is_key = |line: &[u8]| {
        let line = line.trim_ascii();
        line.len() == 64 && line.iter().all(u8::is_ascii_hexdigit)
    };
    let mut lines = beginning.trim_ascii().split(|&byte| byte == b'\n');
    (lines.all(is_key) && beginning.len() <= LONGEST_KEY).then_some("a hash key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_precious_is_known_by_its_content() {
        let key = [b'a'; 64];
        let padded = [b" \n".as_slice(), &key, b"\n"].concat();
        for (content, is_precious) in [
            (b"SQLite format 3\0\x10".as_slice(), true),
            (b"SQLite format 3", false),
            (&[0x37, 0x7f, 0x06, 0x83, 0], true),
            (&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7, 0], true),
            (&key, true),
            (&padded, true),
            (&[key.as_slice(), b"\n", &key].concat(), true),
            (b"age-encryption.org/v1\n-> ghostwire-store/keyring 1", true),
            (b"# public key: age1pq1\nAGE-SECRET-KEY-PQ-1QQ", true),
            (key.get(1..).unwrap_or_default(), false),
            (&[b'x'; 64], false),
            (&[key.as_slice(), &[b' '; LONGEST_KEY]].concat(), false),
            (b"{\"ghostwire_store\":1}", false),
            (b"", false),
        ] {
            assert_eq!(precious(content).is_some(), is_precious, "{content:?}");
        }
    }
}
