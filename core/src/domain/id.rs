//! The identifiers: UUIDs, each kind of entity with a type of its own.

use std::fmt;
use std::hash::Hash;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use super::{Timestamp, serde_as_text, shown};
use crate::error::{Error, Result};

/// What all identifiers have in common: 16 bytes, compared bytewise, and a UUID as text form.
pub trait Id:
    Copy
    + Ord
    + Hash
    + fmt::Debug
    + fmt::Display
    + FromStr<Err = Error>
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The identifier with these bytes.
    fn from_bytes(bytes: [u8; 16]) -> Self;

    /// The 16 bytes of the UUID.
    fn as_bytes(&self) -> &[u8; 16];

    /// Whether it is the nil UUID, all zero, which identifies nothing: in keys it stands for none.
    fn is_nil(&self) -> bool {
        *self.as_bytes() == [0; 16]
    }

    /// The identifier, if it can identify something.
    ///
    /// # Errors
    /// `InvalidArgument` for the nil UUID.
    fn not_nil(self) -> Result<Self> {
        if self.is_nil() { Err(nil_id()) } else { Ok(self) }
    }
}

/// The refusal of the nil UUID.
pub(crate) fn nil_id() -> Error {
    Error::invalid("the nil UUID identifies nothing; leave the id out, or draw one")
}

/// 48 bits of milliseconds; a `Timestamp` cannot be negative nor need more.
fn millis(at: Timestamp) -> u64 {
    at.as_millis().unsigned_abs()
}

fn time_ordered_bytes(at: Timestamp, random: [u8; 10]) -> [u8; 16] {
    Builder::from_unix_timestamp_millis(millis(at), &random).into_uuid().into_bytes()
}

fn derived_bytes(at: Timestamp, name: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in name {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(millis(at).to_be_bytes().into_iter().skip(2)) {
        *to = from;
    }
    for (to, from) in bytes.iter_mut().skip(6).zip(hash) {
        *to = from;
    }
    Builder::from_custom_bytes(bytes).into_uuid().into_bytes()
}

macro_rules! entity_id {
    ($($(#[$meta:meta])* $name:ident;)+) => {$(
        $(#[$meta])*
        ///
        /// 16 bytes; the text form is a hyphenated lower-case UUID. Compared bytewise. The nil UUID,
        /// all zero, is before all others and identifies nothing: it has no text form that could be
        /// read, and is refused wherever something would be stored under it.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The identifier with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes of the UUID.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// A new identifier: a UUIDv7 (RFC 9562) of the time, in milliseconds, and 74 of the 80
            /// random bits. Identifiers of later milliseconds compare greater.
            #[must_use]
            pub fn time_ordered(at: Timestamp, random: [u8; 10]) -> Self {
                Self(time_ordered_bytes(at, random))
            }

            /// The identifier of something that has a name elsewhere, for imports: a UUIDv8 of the
            /// time, in milliseconds, and a SHA-256 hash of the parts of its name. The same input
            /// always gives the same identifier; `["ab", "c"]` and `["a", "bc"]` differ.
            #[must_use]
            pub fn derived(at: Timestamp, name: &[&[u8]]) -> Self {
                Self(derived_bytes(at, name))
            }
        }

        impl Id for $name {
            fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut buffer = Uuid::encode_buffer();
                f.pad(Uuid::from_bytes(self.0).hyphenated().encode_lower(&mut buffer))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Reads any text form of a UUID but the nil one: hyphenated or not, of either case.
            fn from_str(text: &str) -> Result<Self> {
                match Uuid::try_parse(text) {
                    Ok(uuid) => Self(uuid.into_bytes()).not_nil(),
                    Err(error) => Err(Error::invalid(concat!(
                        "a ", stringify!($name),
                        " must be a UUID such as 0190a5c8-7e1f-7000-8000-000000000000"
                    ))
                    .with("id", shown(text))
                    .because(error)),
                }
            }
        }

        serde_as_text!($name);
    )+};
}

entity_id! {
    /// Identifies a user.
    ///
    /// ```
    /// use ghostwire_store::domain::{Timestamp, UserId};
    ///
    /// let at = Timestamp::from_millis(1_645_557_742_000)?;
    /// let id = UserId::time_ordered(at, [0; 10]);
    /// assert_eq!(id.to_string(), "017f22e2-79b0-7000-8000-000000000000");
    /// assert_eq!("017F22E279B070008000000000000000".parse::<UserId>()?, id);
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    UserId;
    /// Identifies a node.
    NodeId;
    /// Identifies a route.
    RouteId;
    /// Identifies an API key.
    ApiKeyId;
    /// Identifies a pre-auth key.
    PreAuthKeyId;
    /// Identifies a DNS record.
    DnsRecordId;
    /// Identifies a session.
    SessionId;
    /// Identifies a process of the control plane.
    InstanceId;
    /// Identifies a sign-in that is under way.
    SignInId;
    /// Identifies an entry of the audit trail.
    AuditId;
    /// Identifies a network: the same in every database that holds it, and in all their copies.
    StoreId;
    /// Identifies one database of a network; drawn when it was made. That of a network's first one has
    /// the bytes of the network's id.
    SideId;
    /// Identifies a history of a network: whoever puts it back to an older copy draws a new one. The
    /// first has the bytes of the network's id.
    LineageId;
    /// Identifies a commit that changes what is stored. That of a commit with a block has the bytes of
    /// the block's id.
    CommitId;
    /// Identifies a block.
    BlockId;
    /// Identifies a writer: one opening of a store for writing.
    WriterId;
    /// Identifies a migration: one move of a network from a database to another.
    MigrationId;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    #[test]
    fn time_ordered_is_the_uuid_v7_of_the_rfc() {
        // RFC 9562, appendix A.6: rand_a = 0xCC3, rand_b = 0b01, 0x8C4DC0C0C07398F.
        let random = [0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f];
        let id = NodeId::time_ordered(at(0x017F_22E2_79B0), random);
        assert_eq!(id.to_string(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        let ones = NodeId::time_ordered(Timestamp::MAX, [0xff; 10]);
        assert_eq!(Uuid::from_bytes(*ones.as_bytes()).get_version_num(), 7);
        assert_eq!(ones.as_bytes()[8], 0xbf);
    }

    #[test]
    fn later_identifiers_compare_greater() {
        let early = UserId::time_ordered(at(1_000), [0xff; 10]);
        let late = UserId::time_ordered(at(1_001), [0; 10]);
        assert!(early < late);
        assert!(UserId::derived(at(1_000), &[b"z"]) < UserId::derived(at(1_001), &[b"a"]));
    }

    #[test]
    fn derived_is_deterministic_and_keeps_parts_apart() {
        let id = UserId::derived(at(0x017F_22E2_79B0), &[b"headscale", b"users", b"1"]);
        assert_eq!(id, UserId::derived(at(0x017F_22E2_79B0), &[b"headscale", b"users", b"1"]));
        assert!(id.to_string().starts_with("017f22e2-79b0-8"));
        assert_eq!(id.as_bytes()[8] >> 6, 0b10);
        let of = |name: &[&[u8]]| UserId::derived(at(7), name);
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"ab"]), of(&[b"ab", b""]));
    }

    #[test]
    fn derived_never_changes() {
        // Imports rely on it: a change here would import everything a second time.
        let id = UserId::derived(at(1), &[b"a"]);
        assert_eq!(id.to_string(), "00000000-0001-8b19-afd4-907bedf51c30");
    }

    #[test]
    fn text_forms() {
        let id = NodeId::from_bytes(*b"\x01\x90\xa5\xc8\x7e\x1fp\0\x80\0\0\0\0\0\0\x0a");
        let text = "0190a5c8-7e1f-7000-8000-00000000000a";
        assert_eq!(id.to_string(), text);
        for form in [text.to_owned(), text.to_uppercase(), text.replace('-', "")] {
            assert_eq!(form.parse::<NodeId>().unwrap(), id);
        }
        for bad in ["", "node", "0190a5c8", "0190a5c8-7e1f-7000-8000-00000000000g"] {
            assert!(bad.parse::<NodeId>().is_err());
        }
        assert_eq!(format!("{id:?}"), format!("NodeId({text})"));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<NodeId>(&format!("\"{text}\"")).unwrap(), id);
        assert!(serde_json::from_str::<NodeId>("\"1\"").is_err());
    }

    #[test]
    fn the_nil_uuid_identifies_nothing() {
        let nil = UserId::from_bytes([0; 16]);
        assert!(nil.is_nil() && nil.not_nil().is_err());
        for form in [nil.to_string(), nil.to_string().replace('-', "")] {
            let error = form.parse::<UserId>().unwrap_err();
            assert_eq!(*error.kind(), crate::error::ErrorKind::InvalidArgument);
            assert!(error.to_string().contains("the nil UUID"), "{error}");
            assert!(serde_json::from_str::<UserId>(&format!("\"{form}\"")).is_err());
        }
        let least = UserId::from_bytes(*b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01");
        assert_eq!(least.to_string().parse::<UserId>().unwrap(), least);
    }
}
