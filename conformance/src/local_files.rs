//! Backends that keep a store in one file, with others beside it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::error::{Error, ErrorKind, Result};

use crate::factory::{Factory, Opening, Place};

type Opened = Pin<Box<dyn Future<Output = Result<Arc<dyn Backend>>> + Send>>;
type Open = Arc<dyn Fn(PathBuf, Opening) -> Opened + Send + Sync>;

/// What makes a lock or an index of other processes is not part of the data.
const TRANSIENT: [&str; 2] = ["-shm", ".lock"];

/// Makes a directory for each store, and a file `store.db` in it. A crash is a copy of everything
/// in that directory, as it is while the store is open.
#[derive(Clone)]
pub struct LocalFiles {
    name: String,
    open: Open,
    within: PathBuf,
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
        Self { name: name.into(), open, within: std::env::temp_dir() }
    }

    /// Makes its directories in this one, which has to exist, instead of the one for temporary
    /// files: for a suite that is to run on a certain disk.
    #[must_use]
    pub fn within(self, directory: impl Into<PathBuf>) -> Self {
        Self { within: directory.into(), ..self }
    }

    fn place(&self, directory: Directory) -> Box<dyn Place> {
        Box::new(Files { directory, open: self.open.clone() })
    }
}

impl fmt::Debug for LocalFiles {
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
        Ok(self.place(Directory::Foreign(location.into())))
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
        let made = tempfile::Builder::new().prefix("ghostwire-conformance-").tempdir_in(within);
        made.map(Self::Own).map_err(cannot_copy)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Own(directory) => directory.path(),
            Self::Foreign(path) => path,
        }
    }
}

struct Files {
    directory: Directory,
    open: Open,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Files").field(&self.directory.path()).finish()
    }
}

#[async_trait]
impl Place for Files {
    async fn open(&self, opening: Opening) -> Result<Arc<dyn Backend>> {
        (self.open)(self.directory.path().join("store.db"), opening).await
    }

    async fn after_crash(&self) -> Result<Box<dyn Place>> {
        let beside = self.directory.path().parent().unwrap_or(Path::new("."));
        let directory = Directory::create(beside)?;
        for from in self.files() {
            let name = from.file_name().unwrap_or_default();
            fs::copy(&from, directory.path().join(name)).map_err(cannot_copy)?;
        }
        Ok(Box::new(Self { directory, open: self.open.clone() }))
    }

    fn location(&self) -> Option<String> {
        self.directory.path().to_str().map(str::to_owned)
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
    Error::new(ErrorKind::Unavailable, "a scratch directory cannot be filled").because(error)
}
