//! Writes to users.

use serde::{Deserialize, Serialize};

use super::Part;
use crate::domain::{NewUser, OidcProfile, Revision, UserId, UserPatch};

/// A write to users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserCommand {
    /// A new user.
    Create {
        /// Its id.
        id: UserId,
        /// What it is.
        user: NewUser,
    },
    /// A change to a user.
    Update {
        /// Which.
        id: UserId,
        /// What changes.
        patch: UserPatch,
        /// Only if this is still the user's revision.
        expected: Option<Revision>,
    },
    /// A sign-in through an identity provider: creates the user or brings it up to date.
    UpsertOidc {
        /// The id, should the user be new.
        id: UserId,
        /// What the provider says.
        profile: OidcProfile,
    },
    /// Removal.
    Delete {
        /// Which.
        id: UserId,
        /// Also remove the user's nodes, keys and sessions; otherwise their nodes and keys forbid
        /// the removal.
        cascade: bool,
        /// How much of it. The user itself goes last.
        #[serde(default)]
        part: Part,
    },
}

names! {
    UserCommand {
        Create = CREATE "user.create",
        Update = UPDATE "user.update",
        UpsertOidc = UPSERT_OIDC "user.upsert_oidc",
        Delete = DELETE "user.delete",
    }
}
