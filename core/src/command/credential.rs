//! Writes to API keys, pre-auth keys and sessions. Only hashes of secrets get this far.

use serde::{Deserialize, Serialize};

use super::Part;
use crate::domain::{
    ApiKeyId, KeyPrefix, NewApiKey, NewPreAuthKey, NewSession, PreAuthKeyId, SecretHash, SessionId,
    Timestamp,
};

/// A write to API keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ApiKeyCommand {
    /// A new key.
    Create { id: ApiKeyId, prefix: KeyPrefix, hash: SecretHash, key: NewApiKey },
    /// Withdraw a key; it stays listed. A second time is `NotFound`.
    Revoke { id: ApiKeyId },
    /// Record a use. Less than a minute after the last one nothing changes, so that a busy key
    /// does not become a busy row.
    Touch { id: ApiKeyId },
    /// Replace the hash, if it is still the one that was verified.
    Rehash { id: ApiKeyId, from: SecretHash, to: SecretHash },
    /// Removal.
    Delete { id: ApiKeyId },
}

/// A write to pre-auth keys. They are used up by registrations, see `NodeCommand::Register`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum PreAuthKeyCommand {
    /// A new key.
    Create { id: PreAuthKeyId, prefix: KeyPrefix, hash: SecretHash, key: NewPreAuthKey },
    /// Withdraw a key; it stays listed. A second time is `NotFound`.
    Revoke { id: PreAuthKeyId },
    /// Replace the hash, if it is still the one that was verified.
    Rehash { id: PreAuthKeyId, from: SecretHash, to: SecretHash },
    /// Removal. Nodes that it admitted stay.
    Delete { id: PreAuthKeyId },
}

/// A write to sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum SessionCommand {
    /// A sign-in.
    Begin { id: SessionId, hash: SecretHash, session: NewSession },
    /// Record a use and, if given, prolong it. Like `ApiKeyCommand::Touch`, at most once a minute
    /// unless the end moves.
    Touch { id: SessionId, expires_at: Option<Timestamp> },
    /// A sign-out.
    End { id: SessionId },
    /// Remove every session that has expired.
    Sweep {
        #[serde(default)]
        part: Part,
    },
}

names! {
    ApiKeyCommand {
        Create = CREATE "api_key.create",
        Revoke = REVOKE "api_key.revoke",
        Touch = TOUCH "api_key.touch",
        Rehash = REHASH "api_key.rehash",
        Delete = DELETE "api_key.delete",
    }
    PreAuthKeyCommand {
        Create = CREATE "preauth_key.create",
        Revoke = REVOKE "preauth_key.revoke",
        Rehash = REHASH "preauth_key.rehash",
        Delete = DELETE "preauth_key.delete",
    }
    SessionCommand {
        Begin = BEGIN "session.begin",
        Touch = TOUCH "session.touch",
        End = END "session.end",
        Sweep = SWEEP "session.sweep",
    }
}
