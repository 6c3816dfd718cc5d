//! The credentials that an import puts in force.

use ghostwire_store::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::credentials::{KeyFit, StoreKey};
use crate::failure::Outcome;
use crate::output::Shell;
use crate::restore::Rehearsal;

/// Those that it brings, and those that the store then has.
pub(super) struct Credentials {
    new: KeyFit,
    all: KeyFit,
    key: StoreKey,
}

impl Credentials {
    /// With the key under which the store knows them.
    pub(super) fn of(rehearsal: &Rehearsal, key: StoreKey) -> Self {
        let (before, after) = rehearsal.hashes();
        let new = KeyFit::of(after.since(&before), key.clone());
        Self { new, all: KeyFit::of(after, key.clone()), key }
    }

    /// A bcrypt or BLAKE3 hash can be made by anybody, of a secret of their own: whoever edits an export may
    /// give themselves a key. Those of a file that a holder of the store's key wrote are as good as
    /// the store's.
    pub(super) fn check_writer(&self, is_known: bool, is_accepted: bool) -> Result<()> {
        if self.new.hashes.imported() == 0 || is_known || is_accepted {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Restricted,
            "the file brings keys with bcrypt or BLAKE3 hashes, which anybody can make who edits it, \
             and nobody known wrote it; nothing was written",
        )
        .with("bcrypt_keys", self.new.hashes.bcrypt)
        .with("blake3_keys", self.new.hashes.blake3)
        .with(
            "help",
            "name the file of the key with which the store that wrote it was opened as \
             secret_key_file; or, if you know where the file comes from, --unsigned admits them",
        ))
    }

    /// Keys that are hashed while they are imported ought to fit the store's others: under another
    /// key than those it is likely that the wrong one is configured.
    pub(super) fn check_hashed(&self, is_accepted: bool) -> Result<()> {
        let [others, new] = [&self.all, &self.new].map(|fit| &fit.hashes.keyed);
        let StoreKey::Known { current, .. } = &self.key else { return Ok(()) };
        let hashed = new.get(current).copied().unwrap_or_default();
        let is_first = hashed > 0 && others.get(current) == Some(&hashed);
        match self.all.misfit() {
            Some(misfit) if is_first && !is_accepted => Err(Error::new(
                ErrorKind::Restricted,
                "the configured hash key is not the one of the store's credentials; nothing was \
                 written",
            )
            .with("found", misfit)
            .with("would_be_hashed", hashed)
            .with("help", "name the right key's file as secret_key_file; --other-key goes on")),
            _ => Ok(()),
        }
    }

    pub(super) fn object(&self) -> Value {
        json!({ "new": self.new.object(), "all": self.all.object() })
    }

    /// Says what there is, and what of it cannot be used.
    pub(super) fn tell(&self, shell: &mut Shell<'_>) -> Outcome {
        let new = self.new.hashes.total();
        match self.new.imported() {
            Some(imported) => shell.say(format_args!("new credentials: {new}; {imported}"))?,
            None if new > 0 => shell.say(format_args!("new credentials: {new}"))?,
            None => {}
        }
        if let Some(misfit) = self.all.misfit() {
            shell.note(format_args!("{misfit}; {}", self.all.advice()));
        }
        Ok(())
    }
}
