//! Writes to sign-ins that are under way. Only hashes of their states get this far.

use super::Part;
use crate::domain::{NewSignIn, SecretHash, SignInId, SignInPayload, Text};

commands! {
    /// A write to sign-ins under way.
    SignInCommand {
        /// One begins. If there are as many of its purpose as there may be, it takes the place of an expired
        /// one.
        BEGIN = "sign_in.begin" Begin { id: SignInId, hash: SecretHash, sign_in: NewSignIn },
        /// The one with this hash, if it has not expired, is completed: it is gone. Any other time it is
        /// refused.
        TAKE = "sign_in.take" Take { hash: SecretHash, purpose: Text<64> },
        /// The one with this hash, if it has not expired, goes on with another payload, if it still has this
        /// one.
        REPLACE = "sign_in.replace" Replace {
            hash: SecretHash,
            purpose: Text<64>,
            from: SignInPayload,
            to: SignInPayload,
        },
        /// Remove every one that has expired.
        SWEEP = "sign_in.sweep" Sweep { #[serde(default)] part: Part },
    }
}
