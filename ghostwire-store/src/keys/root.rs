//! The root secret of a store: the configured one, or that of a development environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_crypto::keyring::{Fingerprint, Identity};
use ghostwire_store_crypto::root::{KeySource, Place, RootSecret};
use ghostwire_store_crypto::{
    Error as CryptoError, Random as _, Result as CryptoResult, RootFault, SystemRandom,
};
use ghostwire_store_sqlite::failed;
use zeroize::Zeroizing;

use super::{Keys, error};
use crate::config::{DEFAULT_ENVIRONMENT, RootOptions};
use crate::hash_key::Part;

/// How long a root secret is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

impl Keys<'_> {
    /// Whether the root secret lies beside the store, where whoever copies the one copies the other.
    #[must_use]
    pub fn root_is_beside_store(&self) -> bool {
        self.source.is_none() && self.configured_place().is_none()
    }

    /// Where the root secret is.
    ///
    /// # Errors
    /// `InvalidArgument` if no place is configured, which only the environment `development` does
    /// without.
    pub fn place(&self) -> Result<Place> {
        if let Some(place) = self.configured_place() {
            return Ok(place);
        }
        if self.config.environment == DEFAULT_ENVIRONMENT {
            return Ok(Place::File(self.options.development_root_path()));
        }
        Err(Error::invalid(
            "a sealed store needs a root secret, and this environment does not say where it is kept",
        )
        .with("environment", &self.config.environment)
        .with("key", self.config.store_key("root_secret_file"))
        .with(
            "help",
            "make one with `gwstore keys identity new FILE`, where a copy of the store's disk does not have \
             it, and name it as root_secret_file (or root_secret_credential, root_secret_variable, \
             root_passphrase_file); or set zqlite.sealed = false",
        ))
    }

    fn configured_place(&self) -> Option<Place> {
        let RootOptions { secret_file, secret_variable, secret_credential, passphrase_file } =
            self.options.root.clone();
        secret_file
            .map(Place::File)
            .or(secret_variable.map(Place::Variable))
            .or(secret_credential.map(Place::Credential))
            .or(passphrase_file.map(Place::PassphraseFile))
    }

    pub(super) async fn root_secret(&self) -> Result<RootSecret> {
        let asked = match &self.source {
            Some(source) => ask(source.as_ref()).await,
            None => ask(&self.place()?).await,
        };
        asked.map_err(|error| error::of(&self.path(), error))
    }

    /// The root secret of a keyring that is to be made. In development it is made, too.
    pub(super) fn root_to_begin_with(&self) -> Result<RootSecret> {
        if let Some(root) = self.root_that_is_there()? {
            return Ok(root);
        }
        let identity =
            Identity::draw(&SystemRandom).map_err(|error| error::of(&self.path(), error))?;
        write_identity(&self.options.development_root_path(), &identity, self.like())?;
        Ok(RootSecret::Identity(identity))
    }

    /// `None` if it is to be made.
    fn root_that_is_there(&self) -> Result<Option<RootSecret>> {
        match self.place()?.read() {
            Err(CryptoError::Root { fault: RootFault::Missing, .. })
                if self.root_is_beside_store() =>
            {
                Ok(None)
            }
            Err(error @ CryptoError::Root { fault: RootFault::Missing, .. }) => {
                let help = "`gwstore keys identity new FILE` makes one for a new store";
                Err(error::of(&self.path(), error).with("help", help))
            }
            read => read.map(Some).map_err(|error| error::of(&self.path(), error)),
        }
    }

    /// Whether there is one to begin with, or it could be made. Makes none.
    pub(super) async fn check_root(&self) -> Result<()> {
        if self.source.is_some() {
            return self.root_secret().await.map(drop);
        }
        self.root_that_is_there().map(drop)
    }

    /// The file of the root secret that is made in development, if that is where it is.
    #[must_use]
    pub fn development_root(&self) -> Option<PathBuf> {
        self.root_is_beside_store().then(|| self.options.development_root_path())
    }
}

/// Asks once, and not for ever.
pub(super) async fn ask(source: &dyn KeySource) -> CryptoResult<RootSecret> {
    tokio::time::timeout(PATIENCE, source.root_secret()).await.unwrap_or_else(|_| {
        let why = format!("it did not answer within {} seconds", PATIENCE.as_secs());
        Err(CryptoError::Root { place: source.name(), fault: RootFault::Unavailable { why } })
    })
}

/// Writes an identity to a file that is not there yet, which only its owner may read, as `age-keygen`
/// does. It belongs to whoever owns `like`, if this process may give it away. Whenever that is broken off
/// there is the whole file or none.
///
/// # Errors
/// `AlreadyExists`, `NotFound`, `PermissionDenied` and others of the file system.
pub fn write_identity(path: &Path, identity: &Identity, like: &Path) -> Result<Fingerprint> {
    let recipient = identity.recipient();
    let line = identity.to_text();
    let public = recipient.to_string();
    // Large enough, so that no copy is left behind by growing.
    let mut text = Zeroizing::new(String::with_capacity(line.len() + public.len() + 64));
    text.push_str("# public key: ");
    text.push_str(&public);
    text.push('\n');
    text.push_str(&line);
    text.push('\n');
    let mut number = [0; 8];
    SystemRandom.fill(&mut number).map_err(|error| error::of(path, error))?;
    let name = format!("{:016x}", u64::from_be_bytes(number));
    let written = Part::begin(path, &name, like).and_then(|mut part| {
        part.fill(text.as_bytes())?;
        part.publish()
    });
    written.map_err(|error| {
        let is_there = error.kind() == std::io::ErrorKind::AlreadyExists;
        let error = failed("the identity's file cannot be made", path, error);
        match is_there {
            true => error.with("help", "it is left as it is; name another file"),
            false => error,
        }
    })?;
    Ok(recipient.fingerprint())
}
