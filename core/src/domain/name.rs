//! Names: of users, machines, actors, metrics, and the prefixes of keys.

use super::visible::{canonical, check_canonical};
use super::{Element, Stored, check_length, shown, text_newtype};
use crate::error::{Error, Result};

/// Takes a name in the form in which [`canonical`] leaves it.
fn canonical_name(what: &'static str, text: &str, max: usize) -> Result<Box<str>> {
    check_length(what, text, 1, max)?;
    check_canonical(what, text)?;
    Ok(text.into())
}

/// Takes a name by the rules of earlier releases.
fn stored_name(what: &'static str, text: &str, max: usize) -> Result<Box<str>> {
    check_length(what, text, 1, max)?;
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(format!("{what} must not contain control characters"))
            .with("name", shown(text)));
    }
    Ok(text.into())
}

/// Declares a name: what it is called in errors, and its greatest length in bytes.
macro_rules! canonical_newtype {
    ($(#[$meta:meta])* $name:ident, $what:literal, $max:literal) => {
        text_newtype! { $(#[$meta])* $name, $name::canonical }

        impl $name {
            /// The greatest length, in bytes.
            pub const MAX_BYTES: usize = $max;

            fn canonical(text: &str) -> Result<Box<str>> {
                canonical_name($what, text, $max)
            }
        }

        impl Stored for $name {
            fn stored(text: &str) -> Result<Self> {
                stored_name($what, text, $max).map(Self)
            }
        }
    };
}

canonical_newtype! {
    /// The name of a user: 1 to 255 bytes of characters that show ([`is_visible`](super::is_visible)),
    /// with single blanks between them, not beginning with a mark. Byte-exact: `Ann` and `ann` are two
    /// names, and so are names that only look alike because of other letters.
    ///
    /// ```
    /// use ghostwire_store::domain::UserName;
    ///
    /// assert_eq!(UserName::new("Ann Ångström")?.as_str(), "Ann Ångström");
    /// assert!(UserName::new(" ann").is_err());
    /// assert!(UserName::new("ann\u{200b}").is_err());
    /// assert_eq!(UserName::from_outside(" ann\u{200b}")?.as_str(), "ann");
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    UserName, "a user name", 255
}

impl UserName {
    /// The name in what somebody else calls a user, such as an identity provider: what does not show
    /// is left out, white space becomes single blanks, and it is cut to 255 bytes.
    ///
    /// # Errors
    /// `InvalidArgument` when nothing is left.
    pub fn from_outside(text: impl AsRef<str>) -> Result<Self> {
        Self::new(canonical(text.as_ref(), Self::MAX_BYTES))
    }
}

canonical_newtype! {
    /// The host name as the machine itself reports it: 1 to 255 bytes, of characters as in
    /// [`UserName`]. [`super::DnsLabel::from_hostname`] makes a label of it.
    ///
    /// ```
    /// use ghostwire_store::domain::Hostname;
    ///
    /// assert_eq!(Hostname::from_outside("Ann's\u{a0}Mac\n").as_str(), "Ann's Mac");
    /// assert_eq!(Hostname::from_outside("\u{200b}").as_str(), "node");
    /// ```
    Hostname, "a host name", 255
}

impl Hostname {
    /// The host name in whatever a machine reports: as [`UserName::from_outside`], and `node` when
    /// nothing is left, so that no machine is kept out by its name.
    #[must_use]
    pub fn from_outside(text: impl AsRef<str>) -> Self {
        Self::new(canonical(text.as_ref(), Self::MAX_BYTES)).unwrap_or_else(|_| Self("node".into()))
    }
}

canonical_newtype! {
    /// Who did something, for the audit trail: 1 to 128 bytes, of characters as in [`UserName`].
    ActorName, "the name of an actor", 128
}

impl ActorName {
    /// The name in what somebody else calls an actor: as [`UserName::from_outside`], cut to 128 bytes.
    ///
    /// # Errors
    /// `InvalidArgument` when nothing is left.
    pub fn from_outside(text: impl AsRef<str>) -> Result<Self> {
        Self::new(canonical(text.as_ref(), Self::MAX_BYTES))
    }

    /// The store itself, for what nobody asked for, such as an expiry.
    #[must_use]
    pub fn system() -> Self {
        Self("system".into())
    }
}

fn network_name(text: &str) -> Result<Box<str>> {
    canonical_name("the name of a network", text, 63)
}

text_newtype! {
    /// What people call a network: 1 to 63 bytes, of characters as in [`UserName`].
    NetworkName, network_name
}

canonical_newtype! {
    /// What a program that sends requests calls itself, in characters that show: 1 to 255 bytes.
    UserAgent, "a user agent", 255
}

impl UserAgent {
    /// What shows of a header, cut at 255 bytes.
    ///
    /// # Errors
    /// `InvalidArgument` if nothing is left.
    pub fn from_outside(text: impl AsRef<str>) -> Result<Self> {
        Self::new(canonical(text.as_ref(), Self::MAX_BYTES))
    }
}

fn group_name(text: &str) -> Result<Box<str>> {
    canonical_name("the name of a group", text, GroupName::MAX_BYTES)
}

text_newtype! {
    /// The name of a group of users, as an identity provider says it: 1 to 255 bytes, of characters as
    /// in [`UserName`]. Byte-exact.
    GroupName, group_name
}

impl GroupName {
    /// The greatest length, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// The name in a claim of an identity provider: as [`UserName::from_outside`].
    ///
    /// # Errors
    /// `InvalidArgument` when nothing is left.
    pub fn from_outside(text: impl AsRef<str>) -> Result<Self> {
        Self::new(canonical(text.as_ref(), Self::MAX_BYTES))
    }
}

impl Element for GroupName {
    const PLURAL: &'static str = "groups";
}

fn metric_name(text: &str) -> Result<Box<str>> {
    let first = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':');
    let rest = |byte: u8| first(byte) || byte.is_ascii_digit() || byte == b'.';
    let mut bytes = text.bytes();
    if text.len() <= 63 && bytes.next().is_some_and(first) && bytes.all(rest) {
        return Ok(text.into());
    }
    Err(Error::invalid(
        "a metric name must be 1 to 63 ASCII letters, digits, `_`, `:` and `.`, and begin with a \
         letter, `_` or `:`",
    )
    .with("name", shown(text)))
}

text_newtype! {
    /// The name of a metric: 1 to 63 bytes that match `[a-zA-Z_:][a-zA-Z0-9_:.]*`. Byte-exact.
    MetricName, metric_name
}

fn program_name(what: &'static str, text: &str) -> Result<Box<str>> {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.into());
    }
    Err(Error::invalid(format!(
        "the name of {what} must be 1 to 64 ASCII letters, digits, `-`, `_`, `.` and `:`"
    ))
    .with("name", shown(text)))
}

fn consumer_name(text: &str) -> Result<Box<str>> {
    program_name("a consumer", text)
}

fn instance_name(text: &str) -> Result<Box<str>> {
    program_name("an instance", text)
}

text_newtype! {
    /// The name of a consumer of the log: 1 to 64 bytes of `[A-Za-z0-9_.:-]`. Byte-exact.
    ConsumerName, consumer_name
}

text_newtype! {
    /// The name of a process of the control plane, the same after a restart: 1 to 64 ASCII letters,
    /// digits, `-`, `_`, `.` and `:`.
    InstanceName, instance_name
}

fn key_prefix(text: &str) -> Result<Box<str>> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.into());
    }
    // The text is not repeated: it may be a whole key given by mistake.
    Err(Error::invalid("the prefix of a key must be 1 to 64 ASCII letters, digits, `_` and `-`")
        .with("length", text.len()))
}

text_newtype! {
    /// The public part of an API key or pre-auth key, by which it is looked up: 1 to 64 bytes of
    /// `[A-Za-z0-9_-]`. Byte-exact, and no part of the secret.
    KeyPrefix, key_prefix
}

impl KeyPrefix {
    /// The public part of a key that was imported with the BLAKE3 hash of its whole text, which has none:
    /// `b3-` and the first 24 hexadecimal digits of the hash.
    ///
    /// ```
    /// use ghostwire_store::domain::KeyPrefix;
    ///
    /// assert_eq!(KeyPrefix::of_blake3([0xab; 32]).as_str(), "b3-abababababababababababab");
    /// ```
    #[must_use]
    pub fn of_blake3(hash: [u8; 32]) -> Self {
        let digits = data_encoding::HEXLOWER.encode(hash.first_chunk::<12>().unwrap_or(&[0; 12]));
        Self(format!("b3-{digits}").into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn user_names() {
        let longest = "x".repeat(255);
        for good in ["a", "Ann", "Ann B", "日本", "ann@example.com", &longest] {
            assert_eq!(UserName::new(good).unwrap().as_str(), good);
        }
        let too_long = "é".repeat(128);
        for bad in ["", " a", "a ", "\u{a0}a", "a\nb", "a\0b", "a\u{7f}", "a\u{85}b", &too_long] {
            assert!(UserName::new(bad).is_err(), "{bad:?}");
        }
        for hidden in ["admin\u{200b}", "ad\u{ad}min", "\u{3164}", "a  b", "\u{301}a"] {
            let error = UserName::new(hidden).unwrap_err().to_string();
            assert!(
                !error.contains(hidden) || hidden.is_ascii() || hidden == "\u{3164}",
                "{error}"
            );
        }
        assert_eq!(UserName::from_outside("\u{2028}admin\u{200b}").unwrap().as_str(), "admin");
        assert_eq!(UserName::from_outside("x".repeat(999)).unwrap().as_str(), longest);
        assert!(UserName::from_outside("\u{200d}\u{2800} ").is_err());
        assert_ne!(UserName::new("ann").unwrap(), UserName::new("Ann").unwrap());
    }

    #[test]
    fn hostnames() {
        for good in ["Ann's MacBook.local", "x y", "ノート"] {
            assert_eq!(Hostname::new(good).unwrap().as_str(), good);
            assert_eq!(Hostname::from_outside(good).as_str(), good);
        }
        for (bad, left) in [("", "node"), ("a\tb", "a b"), ("a\0", "a"), (" x ", "x")] {
            assert!(Hostname::new(bad).is_err(), "{bad:?}");
            assert_eq!(Hostname::from_outside(bad).as_str(), left);
        }
        assert!(Hostname::new("x".repeat(256)).is_err());
    }

    #[test]
    fn what_an_earlier_release_stored_is_read() {
        let odd = "admin\u{200b}";
        assert_eq!(UserName::stored(odd).unwrap().as_str(), odd);
        assert_eq!(Hostname::stored(" x ").unwrap().as_str(), " x ");
        assert_eq!(ActorName::stored("\u{2028}").unwrap().as_str(), "\u{2028}");
        for bad in ["", "a\nb", &"x".repeat(256)] {
            assert!(UserName::stored(bad).is_err() && Hostname::stored(bad).is_err());
            assert!(ActorName::stored(bad).is_err());
        }
    }

    #[test]
    fn metric_names() {
        for good in ["a", "_x", ":x", "node.rx_bytes:rate5m", &"x".repeat(63)] {
            assert_eq!(MetricName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "1a", ".a", "a-b", "a b", "é", &"x".repeat(64)] {
            assert!(MetricName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_programs() {
        for good in ["a", "control-1.eu_west:8080", &"x".repeat(64)] {
            assert_eq!(ConsumerName::new(good).unwrap().as_str(), good);
            assert_eq!(InstanceName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "é", "a\n", &"x".repeat(65)] {
            assert!(ConsumerName::new(bad).is_err(), "{bad}");
            let error = InstanceName::new(bad).unwrap_err().to_string();
            assert!(error.contains("an instance"), "{error}");
        }
    }

    #[test]
    fn actors_and_key_prefixes() {
        assert_eq!(ActorName::system(), ActorName::new("system").unwrap());
        assert!(ActorName::new("ann@example.com via gwstore").is_ok());
        for bad in ["", "a\nb", &"x".repeat(129)] {
            assert!(ActorName::new(bad).is_err());
        }
        assert_eq!(NetworkName::new("Example GmbH").unwrap().as_str(), "Example GmbH");
        for bad in ["", " a", "a\nb", &"x".repeat(64)] {
            assert!(NetworkName::new(bad).is_err());
        }
        assert!(KeyPrefix::new("hskey-api_0aZ").is_ok());
        assert!(KeyPrefix::new("x".repeat(64)).is_ok());
        for bad in ["", "a.b", "a b", "é", &"x".repeat(65)] {
            assert!(KeyPrefix::new(bad).is_err());
        }
        let error = KeyPrefix::new("abcd.SECRET").unwrap_err().to_string();
        assert!(!error.contains("SECRET"), "{error}");
    }
}
