//! Which hash key the stored credentials need.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use ghostwire_store::config::Config;
use ghostwire_store::{ErrorKind, HashKey, HashKeys, Opener, Result};
use ghostwire_store_core::state::CredentialHashes;
use serde_json::{Value, json};

/// The configured hash key, in its file or in the store's keyring; `None` if there is none.
pub(crate) async fn configured_key(config: &Config) -> Result<Option<HashKeys>> {
    match Opener::new(config).hash_keys().await {
        Err(error) if *error.kind() == ErrorKind::NotFound => Ok(None),
        found => found,
    }
}

/// Which key a store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreKey {
    /// Versions with these ids.
    Known { current: [u8; 4], former: Vec<[u8; 4]> },
    /// One that is made with the store.
    ToBeMade,
    /// The store is there, and its key is not.
    Missing,
}

impl From<&HashKeys> for StoreKey {
    fn from(keys: &HashKeys) -> Self {
        let former = keys.iter().skip(1).map(HashKey::id).collect();
        Self::Known { current: keys.current().id(), former }
    }
}

/// How credentials (API keys, pre-auth keys, sessions) relate to a hash key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyFit {
    pub(crate) hashes: CredentialHashes,
    key: StoreKey,
    /// How many were hashed with another key, by that key's id. They cannot be checked.
    others: BTreeMap<[u8; 4], u64>,
}

impl KeyFit {
    pub(crate) fn of(hashes: CredentialHashes, key: StoreKey) -> Self {
        let mut others = hashes.keyed.clone();
        if let StoreKey::Known { current, former } = &key {
            others.retain(|id, _| id != current && !former.contains(id));
        }
        Self { hashes, key, others }
    }

    /// What does not fit, in words.
    pub(crate) fn misfit(&self) -> Option<String> {
        let listed: Vec<_> = self
            .others
            .iter()
            .map(|(id, count)| format!("{count} with key {}", HEXLOWER.encode(id)))
            .collect();
        let (total, listed) = (self.hashes.total(), listed.join(", "));
        match &self.key {
            StoreKey::Missing if total > 0 => Some(format!(
                "the hash key is missing, and without it none of {total} credentials can be checked \
                 (hashed: {})",
                if listed.is_empty() { "all were imported" } else { &listed }
            )),
            _ if listed.is_empty() => None,
            _ => Some(format!("of {total} credentials, another key hashed {listed}")),
        }
    }

    /// What to do about it.
    pub(crate) fn advice(&self) -> &'static str {
        match &self.key {
            StoreKey::Missing => "put the key's file back, or name its place as secret_key_file",
            StoreKey::ToBeMade => {
                "move that key too, and name its file as secret_key_file; that of a sealed store stays in its \
                 keyring: restore a copy of file and keyring instead, or issue these credentials anew"
            }
            StoreKey::Known { .. } => {
                "name that key's file as secret_key_file, or issue these credentials anew; the key of a sealed \
                 store stays in its keyring: restore a copy of file and keyring instead"
            }
        }
    }

    /// What was imported and is yet to be used, in words.
    pub(crate) fn imported(&self) -> Option<String> {
        let CredentialHashes { bcrypt, too_costly, blake3, .. } = self.hashes;
        let with_bcrypt = format!("{bcrypt} imported with bcrypt and not used since");
        let with_bcrypt = match (bcrypt, too_costly) {
            (0, _) => None,
            (_, 0) => Some(with_bcrypt),
            _ => Some(format!("{with_bcrypt}, {too_costly} of them never usable (cost above 14)")),
        };
        let with_blake3 = format!("{blake3} imported with BLAKE3 and not used since");
        let with_blake3 = (blake3 > 0).then_some(with_blake3);
        let imported: Vec<_> = with_bcrypt.into_iter().chain(with_blake3).collect();
        (!imported.is_empty()).then(|| imported.join("; "))
    }

    pub(crate) fn object(&self) -> Value {
        let others = self.others.iter().map(|(id, count)| (HEXLOWER.encode(id), *count));
        json!({
            "total": self.hashes.total(),
            "bcrypt": self.hashes.bcrypt,
            "bcrypt_too_costly": self.hashes.too_costly,
            "blake3": self.hashes.blake3,
            "other_keys": others.collect::<BTreeMap<_, _>>(),
        })
    }
}

impl std::fmt::Display for KeyFit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.misfit() {
            Some(misfit) => f.write_str(&misfit)?,
            None if self.key == StoreKey::Missing => f.write_str("the hash key is missing")?,
            None => write!(f, "the hash key fits all {}", self.hashes.total())?,
        }
        self.imported().map_or(Ok(()), |imported| write!(f, "; {imported}"))
    }
}
