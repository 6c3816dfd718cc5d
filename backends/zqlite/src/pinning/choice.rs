//! Whether a store has a pin, and where.

use std::path::{Path, PathBuf};

use ghostwire_store_core::block::Serial;
use ghostwire_store_core::domain::SideId;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_crypto::keyring::Keyring;
use ghostwire_store_crypto::pin::{CommandPin, FilePin, Mark, Pin, PinKey};
use ghostwire_store_crypto::{Error as CryptoError, Secret};

use super::errors::unusable;

/// Whether a pin is kept: a mark outside of the store that says how far it has come, by which an older
/// copy that was put back is noticed.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum PinChoice {
    /// None. A store that has one is refused.
    #[default]
    Off,
    /// Moved after each commit, before anybody is answered. A store that has no pin gets one.
    Commit(PinOptions),
}

/// Where a pin is kept.
#[derive(Debug, Clone)]
pub struct PinOptions {
    pub(super) place: PinPlace,
    same_device: bool,
    key: Option<Secret>,
    pub(super) accepts: Accepts,
}

#[derive(Debug, Clone)]
pub(super) enum PinPlace {
    File(PathBuf),
    Command { program: PathBuf, arguments: Vec<String> },
}

/// What somebody takes upon himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepts {
    Nothing,
    /// That the pin is lost.
    MissingPin,
    /// That the store was put back to a state with this serial.
    Rollback(Serial),
}

impl PinOptions {
    /// In a file, which belongs on another device than the store.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::at(PinPlace::File(path.into()))
    }

    /// By a program, which runs as long as the store is open and speaks the protocol of
    /// [`CommandPin`](ghostwire_store_crypto::pin::CommandPin). The path has to be absolute.
    #[must_use]
    pub fn command(program: impl Into<PathBuf>, arguments: Vec<String>) -> Self {
        Self::at(PinPlace::Command { program: program.into(), arguments })
    }

    fn at(place: PinPlace) -> Self {
        Self { place, same_device: false, key: None, accepts: Accepts::Nothing }
    }

    /// Takes a file on the store's own device, too; not by default. It notices accidents, such as a
    /// backup that was put back over the store, and nothing that brings back the whole device.
    #[must_use]
    pub fn same_device(mut self, same_device: bool) -> Self {
        self.same_device = same_device;
        self
    }

    /// The secret from which the pin of a store that is not sealed has its key. It has to be the same
    /// as long as the store has this pin. That of a sealed store is in its keyring.
    #[must_use]
    pub fn key(mut self, key: Secret) -> Self {
        self.key = Some(key);
        self
    }

    /// Makes a new pin for a store whose own is lost; not by default. What was put back while there was
    /// none is not noticed.
    #[must_use]
    pub fn accept_missing(mut self) -> Self {
        self.accepts = Accepts::MissingPin;
        self
    }

    /// Opens a store although it was put back to a state whose last serial is this one. It then takes a
    /// single commit: one that begins a new epoch above the pin's, which gives up the pin's mark.
    #[must_use]
    pub fn accept_rollback(mut self, serial: Serial) -> Self {
        self.accepts = Accepts::Rollback(serial);
        self
    }

    pub(super) fn pin_key(&self, side: SideId, keyring: Option<&Keyring>) -> Result<PinKey> {
        if let Some(keyring) = keyring {
            return Ok(PinKey::of_keyring(keyring));
        }
        let Some(key) = &self.key else {
            return Err(Error::invalid("the pin of a store that is not sealed needs a key"));
        };
        PinKey::of_plain_store(key, side.as_bytes()).map_err(unusable)
    }

    /// Refuses a file on the device of the store at `path`.
    pub(super) fn require_other_device(&self, path: &Path) -> Result<()> {
        let PinPlace::File(pin) = &self.place else { return Ok(()) };
        if self.same_device || FilePin::shares_device(pin, path).map_err(unusable)? != Some(true) {
            return Ok(());
        }
        Err(Error::invalid(
            "the pin lies on the store's own device: what puts back the one puts back the other",
        )
        .with("pin_file", pin.display())
        .with("path", path.display())
        .with(
            "help",
            "put it elsewhere, or set `pin_same_device`: then it notices accidents, and nothing else",
        ))
    }

    /// What is there to be moved. `None` if a file is not there yet.
    pub(super) fn open(&self, key: &PinKey) -> Result<Option<Box<dyn Pin>>, CryptoError> {
        Ok(match &self.place {
            PinPlace::File(path) => {
                FilePin::open(path, key.clone())?.map(|pin| Box::new(pin) as Box<dyn Pin>)
            }
            PinPlace::Command { program, arguments } => {
                Some(Box::new(CommandPin::new(program, arguments, key.clone())?))
            }
        })
    }

    /// Makes the file that was not there.
    pub(super) fn create(&self, key: &PinKey) -> Result<Box<dyn Pin>, CryptoError> {
        Ok(match &self.place {
            PinPlace::File(path) => Box::new(FilePin::create(path, key.clone())?),
            PinPlace::Command { program, arguments } => {
                Box::new(CommandPin::new(program, arguments, key.clone())?)
            }
        })
    }

    /// The mark, without the right to move it.
    pub(super) fn look(&self, key: &PinKey) -> Result<Option<Mark>, CryptoError> {
        match &self.place {
            PinPlace::File(path) => FilePin::look(path, key),
            PinPlace::Command { program, arguments } => {
                CommandPin::new(program, arguments, key.clone())?.read()
            }
        }
    }

    /// For messages.
    pub(super) fn place(&self) -> String {
        let path = match &self.place {
            PinPlace::File(path) => path,
            PinPlace::Command { program, .. } => program,
        };
        path.display().to_string()
    }
}
