//! Backends that keep a store in one file, with others beside it.

use crate::prelude::*;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::OnceLock;

use ghostwire_store_sqlite::SCRATCH_PREFIX;

type Opened = Pin<Box<dyn Future<Output = Result<Arc<dyn Backend>>> + Send>>;
type Open = Arc<dyn Fn(PathBuf, Opening) -> Opened + Send + Sync>;
type MakeDisk = fn(&Path) -> std::io::Result<Box<dyn Disk>>;

/// What makes a lock or an index of other processes, or only keeps room, is not part of the data.
const TRANSIENT: [&str; 3] = ["-shm", ".lock", ".reserve"];

/// A directory that places of other processes may lie in.
pub(crate) fn scratch() -> std::io::Result<tempfile::TempDir> {
    scratch_in(&LocalFiles::directory())
}

fn scratch_in(directory: &Path) -> std::io::Result<tempfile::TempDir> {
    let mut scratch = tempfile::Builder::new();
    scratch.prefix(SCRATCH_PREFIX);
    #[cfg(unix)]
    scratch.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    scratch.tempdir_in(directory)
}

/// Makes a directory for each store, and a file `store.db` in it. A crash is a copy of everything
/// in that directory, as it is while the store is open.
#[derive(Clone)]
pub struct LocalFiles {
    name: String,
    open: Open,
    within: PathBuf,
    disk: Option<MakeDisk>,
    is_opaque: bool,
}

impl LocalFiles {
    /// `open` opens the store in the file of this path, or makes it.
    pub fn new<F>(
        name: impl Into<String>,
        open: impl Fn(PathBuf, Opening) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Arc<dyn Backend>>> + Send + 'static,
    {
        let open: Open = Arc::new(move |path, opening| Box::pin(open(path, opening)));
        let within = Self::directory();
        Self { name: name.into(), open, within, disk: None, is_opaque: false }
    }

    /// Where stores are made unless something else is said: the directory that `GHOSTWIRE_CONFORMANCE_DIRECTORY` names, or
    /// that for temporary files.
    #[must_use]
    pub fn directory() -> PathBuf {
        let chosen = std::env::var_os("GHOSTWIRE_CONFORMANCE_DIRECTORY");
        chosen.map_or_else(std::env::temp_dir, PathBuf::from)
    }

    /// Makes its directories in this one, which has to exist, instead of
    /// [`directory`](Self::directory): for a suite that is to run on a certain disk.
    #[must_use]
    pub fn within(self, directory: impl Into<PathBuf>) -> Self {
        Self { within: directory.into(), ..self }
    }

    /// Puts a disk under the files of a directory, so that it can be made to fail.
    #[must_use]
    pub fn disk(self, disk: MakeDisk) -> Self {
        Self { disk: Some(disk), ..self }
    }

    /// Somebody else's library opens the files; see [`Place::is_opaque`].
    #[must_use]
    pub fn opaque(self) -> Self {
        Self { is_opaque: true, ..self }
    }

    fn place(&self, directory: Directory) -> Box<dyn Place> {
        let files = Files::new(directory, self.open.clone(), self.disk);
        Box::new(Files { is_opaque: self.is_opaque, ..files })
    }
}

impl Debug for LocalFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalFiles").field(&self.name).finish()
    }
}

#[async_trait]
impl Factory for LocalFiles {
    fn name(&self) -> &str {
        &self.name
    }

    async fn create(&self) -> Result<Box<dyn Place>> {
        Ok(self.place(Directory::create(&self.within)?))
    }

    async fn at(&self, location: &str) -> Result<Box<dyn Place>> {
        let location = PathBuf::from(location);
        let name = location.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(SCRATCH_PREFIX) {
            return Err(Error::new(InvalidArgument, "this is no scratch directory")
                .with("directory", location.display()));
        }
        Ok(self.place(Directory::Foreign(location)))
    }
}

/// Where a store's files lie.
enum Directory {
    /// Removed when dropped.
    Own(tempfile::TempDir),
    /// Another process's.
    Foreign(PathBuf),
}

impl Directory {
    fn create(within: &Path) -> Result<Self> {
        scratch_in(within).map(Self::Own).map_err(cannot_copy)
    }

    fn beside(&self) -> Result<Self> {
        Self::create(self.path().parent().unwrap_or(Path::new(".")))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Own(directory) => directory.path(),
            Self::Foreign(path) => path,
        }
    }
}

struct Files {
    // Before the directory: it watches that.
    disk: OnceLock<Option<Box<dyn Disk>>>,
    make_disk: Option<MakeDisk>,
    directory: Directory,
    open: Open,
    is_opaque: bool,
}

impl Files {
    fn new(directory: Directory, open: Open, make_disk: Option<MakeDisk>) -> Self {
        Self { disk: OnceLock::new(), make_disk, directory, open, is_opaque: false }
    }

    /// Another place of this kind.
    fn beside(&self, directory: Directory) -> Self {
        let files = Self::new(directory, self.open.clone(), self.make_disk);
        Self { is_opaque: self.is_opaque, ..files }
    }

    fn store_file(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }
}

impl Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Files").field(&self.directory.path()).finish()
    }
}

#[async_trait]
impl Place for Files {
    async fn open(&self, opening: Opening) -> Result<Arc<dyn Backend>> {
        (self.open)(self.store_file(), opening).await
    }

    async fn after_crash(&self) -> Result<Box<dyn Place>> {
        let directory = self.directory.beside()?;
        for from in self.files() {
            let name = from.file_name().unwrap_or_default();
            fs::copy(&from, directory.path().join(name)).map_err(cannot_copy)?;
        }
        Ok(Box::new(self.beside(directory)))
    }

    async fn after_power_loss(&self, disk: &dyn Frozen, seed: u64) -> Result<Box<dyn Place>> {
        let directory = self.directory.beside()?;
        disk.after_power_loss(seed, directory.path()).map_err(cannot_copy)?;
        Ok(Box::new(self.beside(directory)))
    }

    async fn after_process_death(&self, disk: &dyn Frozen) -> Result<Box<dyn Place>> {
        let directory = self.directory.beside()?;
        let disk = disk.after_process_death(directory.path()).map_err(cannot_copy)?;
        let place = Self { disk: OnceLock::from(Some(disk)), ..self.beside(directory) };
        Ok(Box::new(place))
    }

    fn disk(&self) -> Option<&dyn Disk> {
        let make = || {
            let make = self.make_disk?;
            Some(make(self.directory.path()).expect("a disk can be put under a directory"))
        };
        self.disk.get_or_init(make).as_deref()
    }

    fn location(&self) -> Option<String> {
        self.directory.path().to_str().map(str::to_owned)
    }

    fn file(&self) -> Option<PathBuf> {
        Some(self.store_file())
    }

    fn is_opaque(&self) -> bool {
        self.is_opaque
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.path()).into_iter().flatten().flatten();
        let is_data = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !TRANSIENT.iter().any(|ending| name.ends_with(ending))
        };
        let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(is_data).collect();
        files.sort();
        files
    }
}

fn cannot_copy(error: std::io::Error) -> Error {
    Error::new(Unavailable, "a scratch directory cannot be filled").because(error)
}
