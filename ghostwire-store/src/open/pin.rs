//! The pin of a zqlite store, as it is configured.

use ghostwire_store_core::backend::Backend as _;
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::domain::Actor;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::store;
use ghostwire_store_crypto::Secret;
use ghostwire_store_zqlite::{PinChoice, PinOptions, PinReport, ZqliteBackend, ZqliteOptions};

use super::key::Key;
use super::{NO_STORE, Opener, prepare_process};
use crate::config::{self, BackendChoice, PinMode};

impl Opener<'_> {
    /// Makes a new pin for a store whose own is lost. What was put back while there was none is not
    /// noticed.
    #[must_use]
    pub fn accept_missing_pin(mut self) -> Self {
        self.accepts_missing_pin = true;
        self
    }

    /// Compares a store that nobody has open to write with its pin, and changes neither.
    ///
    /// # Errors
    /// `InvalidArgument` if no pin is configured; `Unsupported` for another backend than zqlite;
    /// otherwise those of opening, but for what the pin says of the store.
    pub async fn compare_with_pin(&self) -> Result<PinReport> {
        self.config.check()?;
        prepare_process().await?;
        let options = self.pinned_options(None).await?;
        ZqliteBackend::compare_with_pin(options).await
    }

    /// Goes on from an older copy of a store that was put back, without what it lacks: `serial`, which
    /// has to be its last one, says which copy is meant. That is one commit, which begins a new epoch and
    /// lineage, and a line in the audit trail; then the pin stands there. Gives how far it was.
    ///
    /// # Errors
    /// `Restricted` if the pin has nothing against the store, or `serial` is not its own; otherwise as
    /// [`Opener::compare_with_pin`] and [`Opener::open_backend`].
    pub async fn accept_rollback(&self, serial: Serial, actor: Actor) -> Result<PinReport> {
        let report = self.compare_with_pin().await?;
        let refused = |message| Err(Error::new(ErrorKind::Restricted, message));
        let Some(pin) = report.pin else {
            return refused("there is no pin whose mark could be given up");
        };
        if report.refusal.is_none() {
            return refused("there is nothing to accept: the store is where its pin is");
        }
        let backend = ZqliteBackend::open(self.pinned_options(Some(serial)).await?).await?;
        let epoch = Epoch::new(report.store.epoch.max(pin.epoch)).next();
        let (clock, entropy) = (self.clock.as_ref(), self.entropy.as_ref());
        let begun = store::begin_timeline(&backend, epoch, actor, clock, entropy).await;
        let closed = backend.close().await;
        begun?;
        closed?;
        Ok(report)
    }

    /// What an existing store is opened with; `accepted` is the serial of a copy that was put back.
    async fn pinned_options(&self, accepted: Option<Serial>) -> Result<ZqliteOptions> {
        let BackendChoice::Zqlite(options) = &self.config.backend else {
            return Err(Error::new(ErrorKind::Unsupported, "only zqlite stores have pins")
                .with("backend", self.config.backend.kind().name())
                .with("source", self.config.origin_of(&self.config.store_key("backend"))));
        };
        let Some(mut pin) = self.pin_options(options, None)? else {
            return Err(Error::invalid("no pin is configured")
                .with("key", self.config.store_key("pin"))
                .with("help", "set it to `commit`, and name the pin's place"));
        };
        if let Some(serial) = accepted {
            pin = pin.accept_rollback(serial);
        }
        let wanted = ZqliteOptions::new(&options.path, NO_STORE).pin(PinChoice::Commit(pin));
        Ok(match self.clone().create(false).unlock(options, NO_STORE).await? {
            Some(unlocked) => wanted.sealed(unlocked.keyring),
            None => wanted,
        })
    }

    /// Whether the store is opened with a pin. The key is that of its credentials.
    pub(super) fn pin_choice(
        &self,
        options: &config::ZqliteOptions,
        key: Option<&Key>,
    ) -> Result<PinChoice> {
        Ok(self.pin_options(options, key)?.map_or(PinChoice::Off, PinChoice::Commit))
    }

    fn pin_options(
        &self,
        options: &config::ZqliteOptions,
        key: Option<&Key>,
    ) -> Result<Option<PinOptions>> {
        if options.pin == PinMode::Off {
            return Ok(None);
        }
        let pin = match (&options.pin_file, &options.pin_command) {
            (Some(path), None) => PinOptions::file(path),
            (None, Some(program)) => PinOptions::command(program, Vec::new()),
            (places, _) => {
                return Err(Error::invalid(match places {
                    None => "a pin needs a place: a file or a program",
                    Some(_) => "a pin has one place: either a file or a program",
                })
                .with("pin_file", self.config.store_key("pin_file"))
                .with("pin_command", self.config.store_key("pin_command"))
                .with("source", self.config.origin_of(&self.config.store_key("pin"))));
            }
        };
        let mut pin = pin.same_device(options.pin_same_device);
        // That of a sealed store is in its keyring.
        if !options.sealed {
            let of_file = self.config.secret_key_path().map(Key::OfStore);
            let Some(key) = key.or(of_file.as_ref()) else { return Ok(None) };
            pin = pin.key(Secret::take(&mut key.subkey("pin")?));
        }
        Ok(Some(if self.accepts_missing_pin { pin.accept_missing() } else { pin }))
    }
}
