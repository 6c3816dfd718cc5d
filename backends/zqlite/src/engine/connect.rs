//! Which engine a store is opened with.

use std::sync::Arc;

#[cfg(not(feature = "native"))]
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_sqlite::{Database, FileKind, StoreFile};

use super::Engine;
use super::embedded::{self, Embedded, First, Layout, layout1};
#[cfg(feature = "native")]
use super::native::{self, Native, NativeOptions};
use crate::envelope::Envelope;
use crate::options::{EngineChoice, ZqliteOptions};

/// An engine, with what it needs.
#[derive(Debug, Clone)]
pub(crate) enum Connect {
    Embedded,
    #[cfg(feature = "native")]
    Native(NativeOptions),
}

impl Connect {
    pub(crate) fn of(options: &ZqliteOptions) -> Result<Self> {
        match options.engine {
            EngineChoice::Embedded => Ok(Self::Embedded),
            #[cfg(feature = "native")]
            EngineChoice::Native => options.native.clone().map(Self::Native).ok_or_else(|| {
                Error::invalid(
                    "the native engine needs the ZQLite library's path: set zqlite.library",
                )
            }),
            #[cfg(not(feature = "native"))]
            EngineChoice::Native => Err(Error::new(
                ErrorKind::Unsupported,
                "the native engine of zqlite is not compiled in; build with the feature `zqlite-native`, or \
                 set the engine to `embedded`",
            )),
        }
    }

    /// Refuses what only works on the embedded engine's one file.
    pub(crate) fn require_embedded(options: &ZqliteOptions) -> Result<()> {
        match Self::of(options)? {
            Self::Embedded => Ok(()),
            #[cfg(feature = "native")]
            Self::Native(_) => Err(Error::new(
                ghostwire_store_core::error::ErrorKind::Unsupported,
                "this is not done on the native engine; export the store, and import it into a new one",
            )),
        }
    }

    pub(crate) fn kind(&self) -> FileKind {
        match self {
            Self::Embedded => FileKind::ZQLITE,
            #[cfg(feature = "native")]
            Self::Native(_) => FileKind::ZQLITE_NATIVE,
        }
    }

    /// Makes the store in a new file; in another one it does nothing.
    pub(crate) fn create(
        &self,
        file: &StoreFile,
        first: impl FnOnce() -> Result<First>,
    ) -> Result<()> {
        match self {
            Self::Embedded => embedded::create(file, first),
            #[cfg(feature = "native")]
            Self::Native(options) => native::create(file, options, first),
        }
    }

    /// Connects to a store that was made. The envelope is one for heads.
    pub(crate) fn open(
        &self,
        file: &Arc<StoreFile>,
        envelope: &Envelope,
    ) -> Result<Box<dyn Engine>> {
        let moment = |layout, head: &[u8]| match layout {
            Layout::First => layout1::moment(head),
            Layout::Current => envelope.open_head(head).map(|stored| stored.moment()),
        };
        let carry = |database: &Database<_>| layout1::carry_forward(database, envelope);
        match self {
            Self::Embedded => Ok(Box::new(Embedded::open(file, moment, carry)?)),
            #[cfg(feature = "native")]
            Self::Native(options) => Ok(Box::new(Native::open(file, options)?)),
        }
    }
}
