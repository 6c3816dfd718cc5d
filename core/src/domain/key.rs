//! The public keys of machines and nodes.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest as _, Sha256};

use super::serde_as_text;
use crate::error::{Error, Result};

/// What is hashed before a node key to make a machine key, so that no other hash of it is one. It
/// stays: machines that are known would become unknown.
const MACHINE_KEY_DOMAIN: &[u8] = b"ghostwire-store machine key of node key 1";

/// Decodes hex of either case, after the prefix or alone, or the base64 of WireGuard alone.
fn parse(prefix: &str, text: &str) -> Option<[u8; 32]> {
    let (encoding, digits) = match (text.strip_prefix(prefix), text.len()) {
        (Some(digits), _) => (HEXLOWER_PERMISSIVE, digits),
        (None, 44) => (BASE64, text),
        (None, _) => (HEXLOWER_PERMISSIVE, text),
    };
    // Longer input is not worth decoding.
    if digits.len() > 64 {
        return None;
    }
    encoding.decode(digits.as_bytes()).ok()?.try_into().ok()
}

macro_rules! public_key {
    ($($(#[$meta:meta])* $name:ident, $prefix:literal;)+) => {$(
        $(#[$meta])*
        ///
        #[doc = concat!("32 bytes, not all zero. The text form is `", $prefix, "` and 64 lower-case hex")]
        /// digits; reading also accepts upper-case hex, hex without the prefix, and the base64 form
        /// that WireGuard prints (44 characters). Compared bytewise.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// What the text form begins with.
            pub const PREFIX: &'static str = $prefix;

            /// The key with these bytes.
            ///
            /// # Errors
            ///
            /// `InvalidArgument` when all bytes are zero: that is a key that was never set.
            pub fn from_bytes(bytes: [u8; 32]) -> Result<Self> {
                if bytes == [0; 32] {
                    return Err(Error::invalid(concat!(
                        "a ", stringify!($name), " must not be all zero"
                    )));
                }
                Ok(Self(bytes))
            }

            /// The 32 bytes of the key.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The form that WireGuard's tools use: 44 characters of base64.
            #[must_use]
            pub fn to_base64(&self) -> String {
                BASE64.encode(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), HEXLOWER.encode_display(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// The error does not repeat the text, which might be a private key given by mistake.
            fn from_str(text: &str) -> Result<Self> {
                match parse($prefix, text) {
                    Some(bytes) => Self::from_bytes(bytes),
                    None => Err(Error::invalid(concat!(
                        "a ", stringify!($name), " must be `", $prefix,
                        "` and 64 hex digits, or 44 characters of base64"
                    ))
                    .with("length", text.len())),
                }
            }
        }

        serde_as_text!($name);
    )+};
}

public_key! {
    /// The public key of a machine, which names it for as long as it is installed.
    MachineKey, "mkey:";
    /// The public WireGuard key of a node, which changes when it is rotated.
    ///
    /// ```
    /// use ghostwire_store::domain::NodeKey;
    ///
    /// let key = NodeKey::from_bytes([0xab; 32])?;
    /// assert_eq!(key.to_string(), format!("nodekey:{}", "ab".repeat(32)));
    /// assert_eq!(key.to_base64().parse::<NodeKey>()?, key);
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    NodeKey, "nodekey:";
    /// The public key with which a node finds paths to its peers.
    DiscoKey, "discokey:";
}

impl MachineKey {
    /// A machine key for a client that has one WireGuard key and nothing else: a hash of that key.
    ///
    /// It names the machine, and proves nothing: a node key is public, and whoever knows it can compute
    /// this. So a server registers or rotates only after the client has shown in another way, such as a
    /// handshake or a session, that the node key is its own.
    ///
    /// It is derived once, of the first node key, and then belongs to the node. When the client rotates
    /// its key the node keeps this one: take it from the node that has the present key
    /// ([`NodeRepository::get_by_node_key`](crate::repository::NodeRepository::get_by_node_key)), and
    /// do not derive it anew, which would name another machine.
    ///
    /// ```
    /// use ghostwire_store::domain::{MachineKey, NodeKey};
    ///
    /// let first = NodeKey::from_bytes([0xab; 32])?;
    /// let machine = MachineKey::of_node_key(&first);
    /// assert_eq!(machine, MachineKey::of_node_key(&first));
    /// assert_ne!(machine.as_bytes(), first.as_bytes());
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    #[must_use]
    pub fn of_node_key(key: &NodeKey) -> Self {
        // No key gives a hash of zeros, as far as anybody knows.
        Self(Sha256::new_with_prefix(MACHINE_KEY_DOMAIN).chain_update(key.0).finalize().into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn reads_every_form_and_writes_one() {
        let key = NodeKey::from_bytes([0xfb; 32]).unwrap();
        let hex = "fb".repeat(32);
        let text = format!("nodekey:{hex}");
        assert_eq!(key.to_string(), text);
        assert_eq!(key.to_base64(), "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=");
        for form in [
            text.clone(),
            hex.clone(),
            hex.to_uppercase(),
            format!("nodekey:{}", hex.to_uppercase()),
        ] {
            assert_eq!(form.parse::<NodeKey>().unwrap(), key, "{form}");
        }
        assert_eq!(key.to_base64().parse::<NodeKey>().unwrap(), key);
        assert_eq!(serde_json::to_string(&key).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<NodeKey>(&format!("\"{text}\"")).unwrap(), key);
        assert_eq!(format!("{key:?}"), format!("NodeKey({text})"));
    }

    #[test]
    fn refuses_other_text() {
        let hex = "fb".repeat(32);
        for bad in [
            String::new(),
            "nodekey:".into(),
            format!("mkey:{hex}"),
            format!("NODEKEY:{hex}"),
            format!("nodekey:nodekey:{hex}"),
            format!("nodekey: {hex}"),
            hex[1..].to_owned(),
            hex.clone() + "fb",
            hex.replace('f', "g"),
            // URL-safe alphabet, no padding, trailing bits set, line break.
            "-_v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=".into(),
            "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s".into(),
            "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/t=".into(),
            "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s\n".into(),
            "nodekey:+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=".into(),
        ] {
            let error = bad.parse::<NodeKey>().unwrap_err().to_string();
            assert!(!error.contains("fbfb") && !error.contains("v7+"), "{error}");
        }
    }

    #[test]
    fn a_derived_machine_key_stays_the_same() {
        let key = NodeKey::from_bytes([1; 32]).unwrap();
        let text = MachineKey::of_node_key(&key).to_string();
        assert_eq!(text, "mkey:3866185a39e1f238402ae94589eeec5936a7f99c36dd002803c5c0b86148fad4");
        assert_ne!(
            MachineKey::of_node_key(&NodeKey::from_bytes([2; 32]).unwrap()).to_string(),
            text
        );
    }

    #[test]
    fn refuses_zero() {
        assert!(MachineKey::from_bytes([0; 32]).is_err());
        assert!("00".repeat(32).parse::<DiscoKey>().is_err());
        assert!(format!("{}=", "A".repeat(43)).parse::<DiscoKey>().is_err());
    }

    #[test]
    fn each_kind_has_its_prefix() {
        assert!(MachineKey::from_bytes([1; 32]).unwrap().to_string().starts_with("mkey:0101"));
        assert!(DiscoKey::from_bytes([1; 32]).unwrap().to_string().starts_with("discokey:0101"));
    }
}
