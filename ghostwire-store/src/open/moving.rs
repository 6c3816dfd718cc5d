//! Opening both sides of a move between two stores.

use std::sync::Arc;

use ghostwire_store_core::Store;
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::migration::{Found, Occupant, Which, find_served};
use ghostwire_store_core::schema::Schema;
use ghostwire_store_core::secrets::HashKeys;

use super::key::Key;
use super::place::is_missing;
use super::{Beneath, Opener, materialize};
use crate::config::Config;
use crate::hash_key::{hash_key_is_absent, read_hash_key};
use crate::migration::{Migrations, move_options};

impl<'c> Opener<'c> {
    /// The same for another configuration.
    pub(super) fn with_config<'o>(&self, config: &'o Config) -> Opener<'o>
    where
        'c: 'o,
    {
        Opener { config, ..self.clone() }
    }

    /// The configuration of the target, if there is one whose record may say something.
    pub(super) fn other_side(&self) -> Result<Option<Config>> {
        let Some(name) = &self.config.migration.target else { return Ok(None) };
        let target = self.config.for_store(name)?;
        Ok(target.backend.path().is_some_and(|path| !is_missing(path)).then_some(target))
    }

    /// Which of both stores is the network, by their records. Both are only read.
    ///
    /// # Errors
    /// Those of opening them; why neither can be served.
    pub async fn served_config(&self) -> Result<Config> {
        self.config.check()?;
        let Some(target) = self.other_side()? else { return Ok(self.config.clone()) };
        if self.config.backend.path().is_some_and(is_missing) {
            return Ok(target);
        }
        let mut heads = Vec::new();
        for config in [self.config, &target] {
            let opener = self.with_config(config).create(false).read_only(true);
            let backend = opener.open_backend().await?;
            let head = backend.head().await;
            backend.close().await?;
            heads.push(head?);
        }
        let is_target = match heads.as_slice() {
            [source, target] => {
                let (here, there) = (source.record(), target.record());
                let is_of_both = target.membership.is_some_and(|it| it.peer == source.side)
                    || source.membership.is_some_and(|it| it.peer == target.side);
                is_of_both && there.role.is_active() && !here.role.is_active()
            }
            _ => false,
        };
        Ok(if is_target { target } else { self.config.clone() })
    }

    /// Opens both, ends what was broken off, and serves the side that the records name.
    pub(super) async fn open_of_two(
        &self,
        target: &Config,
    ) -> Result<(Arc<dyn Store>, Migrations)> {
        if self.read_only {
            let served = self.served_config().await?;
            return self.with_config(&served).open_alone(self).await;
        }
        let there = self.with_config(target).create(false);
        if self.config.backend.path().is_some_and(is_missing) {
            // It was left, and its file removed; no new one is made in its place.
            return there.open_alone(self).await;
        }
        let here = self.clone().create(false);
        let first = here.open_side().await?;
        let second = match there.open_side().await {
            Ok(second) => second,
            Err(error) => {
                // Its files must not stay locked.
                let _ = first.0.backend.close().await;
                return Err(error);
            }
        };
        let backends = [first.0.backend.clone(), second.0.backend.clone()];
        let found = find(&backends, self.config).await;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                for backend in &backends {
                    let _ = backend.close().await;
                }
                return Err(error.during("store.open"));
            }
        };
        let (served, (opened, other), other_config) = match found.served {
            Which::First => (&here, (first, second), target),
            Which::Second => (&there, (second, first), self.config),
        };
        let beside = match found.is_followed {
            true => {
                let keys = other.0.manager(false).await;
                let materialize = materialize(&other_config.backend);
                Some(Occupant { backend: other.0.backend, keys, materialize })
            }
            false => {
                other.0.backend.close().await?;
                None
            }
        };
        served.open_seated(self, opened, beside).await
    }

    async fn open_side(&self) -> Result<(Beneath, Key)> {
        self.config.check()?;
        let key = self.key_before()?;
        let beneath = self.open_beneath(Some(&key)).await?;
        Ok((beneath, key))
    }

    /// Opens the target of a migration that begins, and makes it where there is none.
    pub(crate) async fn open_target(&self, keys: Option<&HashKeys>) -> Result<Occupant> {
        let key = self.key_of_target(keys)?;
        let made = self.prepare()?;
        let beneath = self.open_beneath(Some(&key)).await?;
        made.keep();
        let manager = beneath.manager(false).await;
        let materialize = materialize(&self.config.backend);
        let backend = beneath.backend;
        let migrated = backend.migrate(Schema::current()).await;
        if migrated.is_err() {
            let _ = backend.close().await;
        }
        migrated.map(|()| Occupant { backend, keys: manager, materialize })
    }

    /// The key that the source's credentials are hashed with has to be the target's, or nobody who has one
    /// could log in after the move.
    pub(crate) fn require_key(&self, keys: Option<&HashKeys>) -> Result<()> {
        self.key_of_target(keys).map(drop)
    }

    fn key_of_target(&self, keys: Option<&HashKeys>) -> Result<Key> {
        let name = &self.config.store;
        let help = |error: Error| {
            error.with(
                "help",
                format_args!(
                    "name the key file of the source as stores.{name}.secret_key_file, too"
                ),
            )
        };
        let Some(keys) = keys else {
            return Err(Error::new(
                ErrorKind::Crypto,
                "the hash key of the store is not at hand, so the target cannot be given the same one",
            ));
        };
        let path = match self.is_key_in_keyring() {
            true => None,
            false => self.config.secret_key_path(),
        };
        let Some(path) = path else {
            return Err(help(Error::new(
                ErrorKind::Crypto,
                "the target would have a hash key of its own in its keyring, and every credential would fail",
            )));
        };
        if hash_key_is_absent(&path)? {
            return Err(help(
                Error::new(ErrorKind::Crypto, "the hash key of the target is not there")
                    .with("secret_key_file", path.display()),
            ));
        }
        let found = read_hash_key(&path)?;
        if found.current().id() != keys.current().id() {
            return Err(help(
                Error::new(
                    ErrorKind::Crypto,
                    "the target has another hash key than the source, and every credential would fail",
                )
                .with("secret_key_file", path.display()),
            ));
        }
        Ok(Key::Known(found))
    }
}

async fn find(backends: &[Arc<dyn Backend>; 2], config: &Config) -> Result<Found> {
    let [first, second] = backends;
    // The follower is brought to the schema first: which of the two that is, is not known before. Both are
    // brought there, and what a crash leaves is completed by the next opening.
    for backend in [second, first] {
        backend.migrate(Schema::current()).await?;
    }
    find_served(first.clone(), second.clone(), move_options(config)).await
}
