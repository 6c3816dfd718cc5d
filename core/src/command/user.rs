//! Writes to users.

use super::Part;
use crate::domain::{JsonObject, LinkBy, NewUser, OidcProfile, Revision, UserId, UserPatch};

commands! {
    /// A write to users.
    UserCommand {
        /// A new user.
        CREATE = "user.create" Create { id: UserId, user: NewUser },
        /// A change to a user; with `expected`, only if that is still its revision.
        UPDATE = "user.update" Update { id: UserId, patch: UserPatch, expected: Option<Revision> },
        /// A sign-in through an identity provider: creates the user, with this id, or brings it up to date.
        UPSERT_OIDC = "user.upsert_oidc" UpsertOidc {
            id: UserId,
            profile: OidcProfile,
            #[serde(default)]
            link: LinkBy,
        },
        /// Record a sign-in. Less than a minute after the last one nothing changes.
        SIGN_IN = "user.sign_in" SignIn { id: UserId },
        /// Replace the metadata, or clear them; with `expected`, only if that is still their revision.
        SET_METADATA = "user.set_metadata" SetMetadata {
            id: UserId,
            metadata: Option<JsonObject>,
            expected: Option<Revision>,
        },
        /// Removal. With `cascade`, the user's nodes, keys and sessions go, too, and the user last;
        /// otherwise nodes and keys forbid the removal.
        DELETE = "user.delete" Delete {
            id: UserId,
            cascade: bool,
            #[serde(default)]
            part: Part,
        },
    }
}
