//! Writes to API keys, pre-auth keys and sessions. Only hashes of secrets get this far.

use super::Part;
use crate::domain::{
    ApiKeyId, KeyPrefix, NewApiKey, NewPreAuthKey, NewSession, PreAuthKeyId, SecretHash, SessionId,
    SessionOwner, Timestamp,
};

commands! {
    /// A write to API keys.
    ApiKeyCommand {
        /// A new key.
        CREATE = "api_key.create" Create { id: ApiKeyId, prefix: KeyPrefix, hash: SecretHash, key: NewApiKey },
        /// Withdraw a key; it stays listed. A second time is `NotFound`.
        REVOKE = "api_key.revoke" Revoke { id: ApiKeyId },
        /// Record a use. Less than a minute after the last one nothing changes, so that a busy key
        /// does not become a busy row.
        TOUCH = "api_key.touch" Touch { id: ApiKeyId },
        /// Replace the hash, if it is still the one that was verified.
        REHASH = "api_key.rehash" Rehash { id: ApiKeyId, from: SecretHash, to: SecretHash },
        /// Removes it; `NotFound` if it is not there.
        DELETE = "api_key.delete" Delete { id: ApiKeyId },
        /// Remove every key that had expired or was revoked before this moment.
        SWEEP_EXPIRED = "api_key.sweep_expired" SweepExpired {
            before: Timestamp,
            #[serde(default)]
            part: Part,
        },
    }

    /// A write to pre-auth keys. They are used up by registrations, see `NodeCommand::Register`.
    PreAuthKeyCommand {
        /// A new key.
        CREATE = "preauth_key.create" Create { id: PreAuthKeyId, prefix: KeyPrefix, hash: SecretHash, key: NewPreAuthKey },
        /// Withdraw a key; it stays listed. A second time is `NotFound`.
        REVOKE = "preauth_key.revoke" Revoke { id: PreAuthKeyId },
        /// Replace the hash, if it is still the one that was verified.
        REHASH = "preauth_key.rehash" Rehash { id: PreAuthKeyId, from: SecretHash, to: SecretHash },
        /// Removal. Nodes that it admitted stay.
        DELETE = "preauth_key.delete" Delete { id: PreAuthKeyId },
        /// As `ApiKeyCommand::SweepExpired`. Nodes that they admitted stay.
        SWEEP_EXPIRED = "preauth_key.sweep_expired" SweepExpired {
            before: Timestamp,
            #[serde(default)]
            part: Part,
        },
    }

    /// A write to sessions.
    SessionCommand {
        /// A sign-in.
        BEGIN = "session.begin" Begin { id: SessionId, hash: SecretHash, session: NewSession },
        /// Record a use and, if given, prolong it. Like `ApiKeyCommand::Touch`, at most once a minute
        /// unless the end moves.
        TOUCH = "session.touch" Touch { id: SessionId, expires_at: Option<Timestamp> },
        /// A sign-out.
        END = "session.end" End { id: SessionId },
        /// End every session of a user or a node, those included that a user began from the node.
        END_ALL = "session.end_all" EndAll {
            owner: SessionOwner,
            #[serde(default)]
            part: Part,
        },
        /// Remove every session that has expired.
        SWEEP = "session.sweep" Sweep { #[serde(default)] part: Part },
    }
}
