//! Sign-ins that have begun and are not complete: what a control plane has to remember while a person is
//! at the identity provider.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::text::check_length;
use super::{Secret, SecretHash, SignInId, Text, Timestamp};
use crate::error::Result;

/// A sign-in under way. It is found by its state, such as OpenID Connect's `state` parameter or a device
/// code, of which only a keyed hash is kept; it is taken once, by whoever presents the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// Time-ordered identifier.
    pub id: SignInId,
    /// What kind of sign-in, in the control plane's words, such as `oidc` or `device`.
    pub purpose: Text<64>,
    /// Proof of the state; unique.
    pub hash: SecretHash,
    /// What is needed to complete it.
    pub payload: SignInPayload,
    /// When it began.
    pub created_at: Timestamp,
    /// When it can no longer be completed; at most a day after it began.
    pub expires_at: Timestamp,
}

impl SignIn {
    /// How long one lasts at most.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(86_400);
}

/// What is needed to begin a sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSignIn {
    /// What kind of sign-in.
    pub purpose: Text<64>,
    /// What is needed to complete it.
    pub payload: SignInPayload,
    /// When it can no longer be completed; at most a day from now.
    pub expires_at: Timestamp,
}

/// What a control plane needs to complete a sign-in, such as the nonce, the PKCE verifier and where to go
/// then: text of a form of its own, at most 4,096 bytes, without NUL.
///
/// It has no `Display`, and `Debug` does not show it. A clone shares the text, which is overwritten when
/// the last one is dropped, as far as [`Secret`] can.
///
/// ```
/// use ghostwire_store::domain::SignInPayload;
///
/// let payload = SignInPayload::new(r#"{"nonce":"n-0S6_WzA2Mj"}"#)?;
/// assert!(payload.expose().contains("nonce"));
/// assert_eq!(format!("{payload:?}"), "SignInPayload(…)");
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Clone)]
pub struct SignInPayload(Arc<Secret>);

impl SignInPayload {
    /// The greatest length, in bytes.
    pub const MAX_BYTES: usize = 4096;

    /// Takes the text into custody.
    ///
    /// # Errors
    /// `InvalidArgument`, without the text, if it is longer than [`SignInPayload::MAX_BYTES`] or contains
    /// NUL.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let secret = Secret::new(text.into());
        check_length("the payload of a sign-in", secret.expose(), 0, Self::MAX_BYTES)?;
        Ok(Self(Arc::new(secret)))
    }

    /// The text. Do not log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl fmt::Debug for SignInPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignInPayload(…)")
    }
}

impl PartialEq for SignInPayload {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for SignInPayload {}

impl Serialize for SignInPayload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for SignInPayload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_payload_is_limited_and_never_shown() {
        let longest = "x".repeat(SignInPayload::MAX_BYTES);
        assert_eq!(SignInPayload::new(longest.clone()).unwrap().expose(), longest);
        for bad in [longest + "hunter2", "hunter2\0".to_owned()] {
            let error = format!("{:?}", SignInPayload::new(bad).unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
        }
        let payload = SignInPayload::new("hunter2").unwrap();
        assert!(!format!("{payload:#?}").contains("hunter2"));
        let json = serde_json::to_string(&payload).unwrap();
        assert_eq!(serde_json::from_str::<SignInPayload>(&json).unwrap(), payload);
    }
}
