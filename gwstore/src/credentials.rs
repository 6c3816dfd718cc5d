//! Which hash key the stored credentials need.

use std::collections::BTreeMap;

use ghostwire_store::config::Config;
use ghostwire_store::domain::{SecretHash, SecretScheme};
use ghostwire_store::read_hash_key;
use ghostwire_store::secrets::HashKey;
use ghostwire_store::state::State;

/// How the credentials of a store relate to a hash key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct KeyFit {
    /// All API keys, pre-auth keys and sessions.
    pub(crate) total: usize,
    /// How many were hashed with another key, by that key's id. They cannot be checked.
    strangers: BTreeMap<[u8; 4], usize>,
}

impl KeyFit {
    pub(crate) fn of(state: &State, key: &HashKey) -> Self {
        let mut fit = Self::default();
        let api_keys = state.api_keys().iter().map(|key| &key.hash);
        let preauth_keys = state.preauth_keys().iter().map(|key| &key.hash);
        let sessions = state.sessions().iter().map(|session| &session.hash);
        for hash in api_keys.chain(preauth_keys).chain(sessions) {
            fit.add(hash, key);
        }
        fit
    }

    /// As for the configured key; `None` if that cannot be read, which others report.
    pub(crate) fn of_configured(state: &State, config: &Config) -> Option<Self> {
        let key = read_hash_key(&config.secret_key_path()?).ok()?;
        Some(Self::of(state, &key))
    }

    fn add(&mut self, hash: &SecretHash, key: &HashKey) {
        self.total += 1;
        if let SecretScheme::Hmac { key_id } = hash.scheme()
            && key_id != key.id()
        {
            *self.strangers.entry(key_id).or_default() += 1;
        }
    }

    /// What does not fit, in words.
    pub(crate) fn misfit(&self) -> Option<String> {
        let listed: Vec<_> = self
            .strangers
            .iter()
            .map(|(id, count)| format!("{count} with key {}", data_encoding::HEXLOWER.encode(id)))
            .collect();
        let total = self.total;
        let found = format!("of {total} credentials, another key hashed {}", listed.join(", "));
        Some(found).filter(|_| !listed.is_empty())
    }
}
