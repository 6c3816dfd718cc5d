//! The two stores, and how they are opened.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ghostwire_store::config::{
    self, BackendChoice, BackendKind, Config, FlagFile, LibsqlOptions, LoadRequest, RootOptions,
    ZqliteOptions,
};
use ghostwire_store::domain::{Clock, ManualClock};
use ghostwire_store::{Error, ErrorKind, Opener, Result, Store};

use super::disk::failed;
use super::lanes::Lanes;
use super::sample;

/// The backends that are compared, in the order of the table.
pub(super) const KINDS: [BackendKind; 2] = [BackendKind::Libsql, BackendKind::Zqlite];

const FLAG_FILE: &str = "feature-flags.toml";

/// The root secret's file.
const ROOT: &str = "demo.root";

/// The configuration of the default environment.
#[derive(Debug)]
pub(super) struct Environment {
    config: Config,
    /// Where it was found; otherwise it is the built-in one.
    pub(super) file: Option<PathBuf>,
}

impl Environment {
    /// This configuration, wherever it came from.
    pub(super) fn of(config: Config) -> Self {
        Self { config, file: None }
    }

    /// Looks for the flag file here and in the directories above.
    pub(super) fn find() -> Result<Self> {
        let here = std::env::current_dir().map_err(|error| failed(Path::new("."), error))?;
        let path = here
            .ancestors()
            .map(|above| above.join(FLAG_FILE))
            .find(|path| path.symlink_metadata().is_ok());
        Self::read(path)
    }

    fn read(path: Option<PathBuf>) -> Result<Self> {
        // No environment is chosen, so that it runs without a flag file, too.
        let request = LoadRequest::default();
        // No variables: two runs are to be comparable.
        let none = std::collections::BTreeMap::new();
        let Some(path) = path else {
            return Ok(Self { config: config::resolve(None, &request, &none)?, file: None });
        };
        let file = FlagFile::read(&path)?;
        match config::resolve(Some(&file), &request, &none) {
            Ok(config) => Ok(Self { config, file: Some(path) }),
            // The file is about other environments only.
            Err(error) if *error.kind() == ErrorKind::NotFound => {
                Ok(Self { config: config::resolve(None, &request, &none)?, file: None })
            }
            Err(error) => Err(error),
        }
    }

    /// The environment's configuration with another backend and file, and nothing else.
    pub(super) fn config(&self, kind: BackendKind, path: PathBuf, hash_key: &Path) -> Config {
        let backend = match (kind, &self.config.backend) {
            (BackendKind::Libsql, BackendChoice::Libsql(options)) => {
                BackendChoice::Libsql(LibsqlOptions { path, ..options.clone() })
            }
            (BackendKind::Zqlite, BackendChoice::Zqlite(options)) => {
                BackendChoice::Zqlite(sealed(path, options.clone()))
            }
            (BackendKind::Zqlite, _) => {
                BackendChoice::Zqlite(sealed(path, ZqliteOptions::default()))
            }
            _ => BackendChoice::Libsql(LibsqlOptions { path, ..LibsqlOptions::default() }),
        };
        Config { backend, secret_key_file: Some(hash_key.to_owned()), ..self.config.clone() }
    }
}

/// The store and its copies in one directory have one keyring.
fn sealed(path: PathBuf, options: ZqliteOptions) -> ZqliteOptions {
    let keyring_file = Some(path.with_file_name("demo.keyring"));
    let secret_file = Some(path.with_file_name(ROOT));
    let root = RootOptions { secret_file, ..RootOptions::default() };
    ZqliteOptions { path, keyring_file, root, ..options }
}

/// Puts a root secret beside the stores. One from an earlier run is as good.
#[cfg(feature = "zqlite")]
pub(super) fn write_root_secret(directory: &Path) -> Result<()> {
    use ghostwire_store::keys::crypto::SystemRandom;
    use ghostwire_store::keys::crypto::keyring::Identity;
    let path = directory.join(ROOT);
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let identity = Identity::draw(&SystemRandom)
        .map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
    ghostwire_store::keys::write_identity(&path, &identity, directory).map(|_| ())
}

#[cfg(not(feature = "zqlite"))]
pub(super) fn write_root_secret(_: &Path) -> Result<()> {
    Ok(())
}

/// Opens the store that a configuration describes, with nothing taken over from an earlier opening.
pub(super) async fn open(
    config: &Config,
    create: bool,
    clock: &ManualClock,
    seed: u64,
) -> Result<Arc<dyn Store>> {
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    Opener::new(config).create(create).clock(clock).entropy(Arc::new(Lanes::new(seed))).open().await
}

/// Says which of the stores it was.
pub(super) fn in_store(config: &Config, error: Error) -> Error {
    error.with("store", config.backend.kind().name())
}

/// Puts the sample's hash key beside the stores, so that its credentials can be checked. One from an
/// earlier run is the same; anything else is in the way.
pub(super) fn write_hash_key(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("sample.key");
    let mut text: String = sample::HASH_KEY.iter().map(|byte| format!("{byte:02x}")).collect();
    text.push('\n');
    if fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(path);
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| failed(&path, error))?;
    Ok(path)
}

/// The file of a store in the demonstration's directory. One from an earlier run is in the way.
pub(super) fn path_of(directory: &Path, kind: BackendKind) -> Result<PathBuf> {
    let path = directory.join(Path::new("demo").with_extension(match kind {
        BackendKind::Zqlite => OsStr::new("zqlite"),
        _ => OsStr::new("db"),
    }));
    if path.symlink_metadata().is_ok() {
        return Err(Error::new(
            ErrorKind::AlreadyExists { constraint: "path" },
            "there is a store from an earlier run; remove it or name another directory",
        )
        .with("path", path.display()));
    }
    Ok(path)
}
