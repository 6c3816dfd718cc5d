//! Which file to open, and how.

use std::path::PathBuf;

use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::schema::Schema;
use ghostwire_store_crypto::keyring::Keyring;
use ghostwire_store_sqlite::{FileOptions, LogLimits};

#[cfg(feature = "native")]
use crate::engine::native::NativeOptions;
use crate::pinning::PinChoice;
use crate::series::memtable::Limits;

/// What stores the blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EngineChoice {
    /// The SQLite that is linked into the program.
    #[default]
    Embedded,
    /// The ZQLite library, in a process of its own. Without the feature `native`, and with a library that did not
    /// pass its self-test, opening gives `Unsupported`.
    Native,
}

/// Which file to open, and how.
#[derive(Debug, Clone)]
pub struct ZqliteOptions {
    pub(crate) file: FileOptions,
    pub(crate) engine: EngineChoice,
    #[cfg(feature = "native")]
    pub(crate) native: Option<NativeOptions>,
    /// `None`: the store is plain.
    pub(crate) keyring: Option<Keyring>,
    pub(crate) pin: PinChoice,
    /// When series are compacted; others are for tests.
    pub(crate) limits: Limits,
}

impl ZqliteOptions {
    /// An existing file, to read and write, with the embedded engine. A new store gets the identity
    /// `store`, random bytes; one that exists keeps its own.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, store: StoreId) -> Self {
        let file = FileOptions::new(path, store);
        let (engine, limits) = (EngineChoice::default(), Limits::default());
        Self {
            file,
            engine,
            #[cfg(feature = "native")]
            native: None,
            keyring: None,
            pin: PinChoice::default(),
            limits,
        }
    }

    /// Chooses the native engine, with this library.
    #[cfg(feature = "native")]
    #[must_use]
    pub fn native(mut self, native: NativeOptions) -> Self {
        (self.engine, self.native) = (EngineChoice::Native, Some(native));
        self
    }

    /// Chooses what stores the blobs.
    #[must_use]
    pub fn engine(mut self, engine: EngineChoice) -> Self {
        self.engine = engine;
        self
    }

    /// Seals a new store with this keyring, or opens one that is sealed with it. Without one a store is
    /// plain. The keyring names the store that it belongs to, so a new store gets that identity.
    #[must_use]
    pub fn sealed(mut self, keyring: Keyring) -> Self {
        self.file.store = StoreId::from_bytes(*keyring.store());
        self.keyring = Some(keyring);
        self
    }

    /// Whether the store has a pin, and where; by default it has none.
    #[must_use]
    pub fn pin(mut self, pin: PinChoice) -> Self {
        self.pin = pin;
        self
    }

    /// Whether to make a new store if there is none; not by default. Otherwise that is `NotFound`.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.file.create = create;
        self
    }

    /// Whether to leave the file as it is; not by default. Several processes may read it at once, beside
    /// no writer.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.file.read_only = read_only;
        self
    }

    /// The schema of a new store, which is the current one by default; older ones are for tests.
    #[must_use]
    pub fn schema(mut self, schema: Schema) -> Self {
        self.file.schema = schema;
        self
    }

    /// Other limits for the log, so that tests reach them.
    #[doc(hidden)]
    #[must_use]
    pub fn log_limits(mut self, limits: LogLimits) -> Self {
        self.file.log_limits = limits;
        self
    }

    /// Compacts series after a few rows instead of some megabytes, so that tests meet every place where
    /// a row may lie.
    #[doc(hidden)]
    #[must_use]
    pub fn compact_series_early(mut self) -> Self {
        self.limits = Limits { immutable: 2_500, slice: 300, data_blocks: 6_000 };
        self
    }
}
