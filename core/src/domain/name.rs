//! Names: of users, machines, metrics and actors, and of the DNS.

use super::visible::{canonical, check_canonical};
use super::{Stored, check_length, shown, text_newtype};
use crate::error::{Error, Result};

/// The rule of earlier releases.
fn no_control(what: &'static str, text: &str) -> Result<()> {
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(format!("{what} must not contain control characters"))
            .with("name", shown(text)));
    }
    Ok(())
}

fn user_name(text: &str) -> Result<Box<str>> {
    check_length("a user name", text, 1, UserName::MAX_BYTES)?;
    check_canonical("a user name", text)?;
    Ok(text.into())
}

text_newtype! {
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
    UserName, user_name
}

impl UserName {
    /// The greatest length, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// The name in what somebody else calls a user, such as an identity provider: what does not show
    /// is left out, white space becomes single blanks, and it is cut to 255 bytes.
    ///
    /// # Errors
    /// `InvalidArgument` when nothing is left.
    pub fn from_outside(text: impl AsRef<str>) -> Result<Self> {
        Self::new(canonical(text.as_ref(), Self::MAX_BYTES))
    }
}

impl Stored for UserName {
    fn stored(text: &str) -> Result<Self> {
        check_length("a user name", text, 1, Self::MAX_BYTES)?;
        no_control("a user name", text)?;
        Ok(Self(text.into()))
    }
}

fn hostname(text: &str) -> Result<Box<str>> {
    check_length("a host name", text, 1, Hostname::MAX_BYTES)?;
    check_canonical("a host name", text)?;
    Ok(text.into())
}

text_newtype! {
    /// The host name as the machine itself reports it: 1 to 255 bytes, of characters as in
    /// [`UserName`]. [`DnsLabel::from_hostname`] makes a label of it.
    ///
    /// ```
    /// use ghostwire_store::domain::Hostname;
    ///
    /// assert_eq!(Hostname::from_outside("Ann's\u{a0}Mac\n").as_str(), "Ann's Mac");
    /// assert_eq!(Hostname::from_outside("\u{200b}").as_str(), "node");
    /// ```
    Hostname, hostname
}

impl Hostname {
    /// The greatest length, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// The host name in whatever a machine reports: as [`UserName::from_outside`], and `node` when
    /// nothing is left, so that no machine is kept out by its name.
    #[must_use]
    pub fn from_outside(text: impl AsRef<str>) -> Self {
        Self::new(canonical(text.as_ref(), Self::MAX_BYTES)).unwrap_or_else(|_| Self("node".into()))
    }
}

impl Stored for Hostname {
    fn stored(text: &str) -> Result<Self> {
        check_length("a host name", text, 1, Self::MAX_BYTES)?;
        no_control("a host name", text)?;
        Ok(Self(text.into()))
    }
}

/// Checks letters, digits, hyphens and, where allowed, underscores; lengths and the ends.
fn is_label(text: &str, underscore: bool) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || byte == b'-' || (underscore && byte == b'_')
        })
}

fn dns_label(text: &str) -> Result<Box<str>> {
    if is_label(text, false) {
        return Ok(text.to_ascii_lowercase().into());
    }
    Err(Error::invalid(
        "a DNS label must be 1 to 63 ASCII letters, digits and hyphens, with no hyphen at either end",
    )
    .with("name", shown(text)))
}

text_newtype! {
    /// One label of a DNS name: 1 to 63 ASCII letters, digits and hyphens, with no hyphen at either
    /// end; stored in lower case.
    ///
    /// ```
    /// use ghostwire_store::domain::DnsLabel;
    ///
    /// let label = DnsLabel::from_hostname("Ann's Laptop.local");
    /// assert_eq!(label.as_str(), "ann-s-laptop");
    /// assert_eq!(label.with_suffix("2").as_str(), "ann-s-laptop-2");
    /// assert_eq!(DnsLabel::new("WEB")?.as_str(), "web");
    /// assert!(DnsLabel::new("web.example").is_err());
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    DnsLabel, dns_label
}

/// Lower-cases, turns every run of other characters into one hyphen, none at either end, and cuts
/// to `max` bytes. The result is empty or a label.
fn sanitised(text: &str, max: usize) -> String {
    let mut label = String::with_capacity(text.len().min(max));
    for character in text.chars() {
        if label.len() >= max {
            break;
        }
        if character.is_ascii_alphanumeric() {
            label.push(character.to_ascii_lowercase());
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(label.trim_end_matches('-').len());
    label
}

impl DnsLabel {
    /// The greatest length, in bytes.
    pub const MAX_BYTES: usize = 63;

    /// The label for a machine that reports this host name: the part before the first dot in lower
    /// case, each run of characters that a label cannot have as one hyphen, cut to 63 bytes. `node`
    /// when nothing is left.
    #[must_use]
    pub fn from_hostname(hostname: &str) -> Self {
        let first = hostname.split('.').next().unwrap_or_default();
        let label = sanitised(first, Self::MAX_BYTES);
        if label.is_empty() { Self("node".into()) } else { Self(label.into()) }
    }

    /// This label, a hyphen and the suffix, for one that is taken. The suffix is sanitised as in
    /// [`DnsLabel::from_hostname`] and cut to 61 bytes, then this label is cut so that both fit. An
    /// empty suffix changes nothing.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let suffix = sanitised(suffix, Self::MAX_BYTES - 2);
        if suffix.is_empty() {
            return self.clone();
        }
        let room = Self::MAX_BYTES - 1 - suffix.len();
        // Labels are ASCII, so that every index is the boundary of a character.
        let base = self.0.get(..room).unwrap_or(&self.0).trim_end_matches('-');
        Self(format!("{base}-{suffix}").into())
    }
}

fn dns_name(text: &str) -> Result<Box<str>> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let labels = name.strip_prefix("*.").unwrap_or(name);
    if (1..=253).contains(&name.len()) && labels.split('.').all(|label| is_label(label, true)) {
        return Ok(name.to_ascii_lowercase().into());
    }
    Err(Error::invalid(
        "a DNS name must be at most 253 bytes: labels of 1 to 63 ASCII letters, digits, hyphens \
         (not at either end) and underscores, joined by dots; `*` only as the leftmost label",
    )
    .with("name", shown(text)))
}

text_newtype! {
    /// A fully qualified DNS name: 1 to 253 bytes, labels as in [`DnsLabel`] that may also contain
    /// underscores (`_acme-challenge`), joined by dots. The leftmost of several may be `*`. One dot
    /// at the end is accepted and removed; stored in lower case.
    ///
    /// ```
    /// use ghostwire_store::domain::DnsName;
    ///
    /// assert_eq!(DnsName::new("Grafana.Example.COM.")?.as_str(), "grafana.example.com");
    /// assert!(DnsName::new("*.example.com").is_ok());
    /// assert!(DnsName::new("a.*.example.com").is_err());
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    DnsName, dns_name
}

impl DnsName {
    /// The labels, the leftmost first.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// Whether the leftmost label is `*`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }
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

fn actor_name(text: &str) -> Result<Box<str>> {
    check_length("the name of an actor", text, 1, ActorName::MAX_BYTES)?;
    check_canonical("the name of an actor", text)?;
    Ok(text.into())
}

text_newtype! {
    /// Who did something, for the audit trail: 1 to 128 bytes, of characters as in [`UserName`].
    ActorName, actor_name
}

impl Stored for ActorName {
    fn stored(text: &str) -> Result<Self> {
        check_length("the name of an actor", text, 1, Self::MAX_BYTES)?;
        no_control("the name of an actor", text)?;
        Ok(Self(text.into()))
    }
}

impl ActorName {
    /// The greatest length, in bytes.
    pub const MAX_BYTES: usize = 128;

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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

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
    fn labels() {
        assert_eq!(DnsLabel::new("Web-01").unwrap().as_str(), "web-01");
        assert!(DnsLabel::new("x".repeat(63)).is_ok());
        for bad in ["", "-a", "a-", "a_b", "a.b", "a b", "é", "*", &"x".repeat(64)] {
            assert!(DnsLabel::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn labels_of_hostnames() {
        for (hostname, label) in [
            ("", "node"),
            (".local", "node"),
            ("---", "node"),
            ("日本", "node"),
            ("Ann's MacBook Pro.lan", "ann-s-macbook-pro"),
            ("DESKTOP_7", "desktop-7"),
            ("-a--b-", "a-b"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(DnsLabel::from_hostname(hostname).as_str(), label, "{hostname}");
        }
        assert_eq!(DnsLabel::from_hostname(&"x".repeat(99)).as_str(), "x".repeat(63));
        let cut_at_hyphen = "x".repeat(62) + "--y";
        assert_eq!(DnsLabel::from_hostname(&cut_at_hyphen).as_str(), "x".repeat(62));
    }

    #[test]
    fn suffixes_fit() {
        let long = DnsLabel::new("x".repeat(63)).unwrap();
        assert_eq!(long.with_suffix("12").as_str(), "x".repeat(60) + "-12");
        assert_eq!(long.with_suffix(""), long);
        assert_eq!(long.with_suffix("."), long);
        assert_eq!(long.with_suffix(&"y".repeat(99)).as_str(), format!("x-{}", "y".repeat(61)));
        let hyphen = DnsLabel::new("x".repeat(59) + "-yyy").unwrap();
        assert_eq!(hyphen.with_suffix("12").as_str(), "x".repeat(59) + "-12");
        assert_eq!(DnsLabel::new("a").unwrap().with_suffix("B.c").as_str(), "a-b-c");
    }

    #[test]
    fn names() {
        for (text, name) in [
            ("localhost", "localhost"),
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("_acme-challenge.example.com", "_acme-challenge.example.com"),
            ("*.example.com", "*.example.com"),
        ] {
            assert_eq!(DnsName::new(text).unwrap().as_str(), name);
        }
        let label = "x".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "x".repeat(61));
        assert_eq!(DnsName::new(longest.clone() + ".").unwrap().as_str(), longest);
        let too_long = longest + "x";
        let long_label = "x".repeat(64) + ".com";
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "a b",
            "*",
            "*.",
            "*.*.a",
            "a.*.b",
            "*a.b",
            "-a.b",
            "a-.b",
            "é.com",
            "a/b",
            &too_long,
            &long_label,
        ] {
            assert!(DnsName::new(bad).is_err(), "{bad}");
        }
        let name = DnsName::new("*.a.b").unwrap();
        assert!(name.is_wildcard());
        assert_eq!(name.labels().collect::<Vec<_>>(), ["*", "a", "b"]);
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
    fn actors_and_key_prefixes() {
        assert_eq!(ActorName::system(), ActorName::new("system").unwrap());
        assert!(ActorName::new("ann@example.com via gwstore").is_ok());
        for bad in ["", "a\nb", &"x".repeat(129)] {
            assert!(ActorName::new(bad).is_err());
        }
        assert!(KeyPrefix::new("hskey-api_0aZ").is_ok());
        assert!(KeyPrefix::new("x".repeat(64)).is_ok());
        for bad in ["", "a.b", "a b", "é", &"x".repeat(65)] {
            assert!(KeyPrefix::new(bad).is_err());
        }
        let error = KeyPrefix::new("abcd.SECRET").unwrap_err().to_string();
        assert!(!error.contains("SECRET"), "{error}");
    }

    #[test]
    fn serde_brings_names_to_their_stored_form() {
        let label: DnsLabel = serde_json::from_str("\"WEB\"").unwrap();
        assert_eq!(serde_json::to_string(&label).unwrap(), "\"web\"");
        assert!(serde_json::from_str::<DnsLabel>("\"a.b\"").is_err());
    }

    proptest! {
        #[test]
        fn every_hostname_gives_a_label(hostname in ".{0,90}", suffix in ".{0,90}") {
            let label = DnsLabel::from_hostname(&hostname);
            prop_assert_eq!(&DnsLabel::new(label.as_str()).unwrap(), &label);
            prop_assert_eq!(&DnsLabel::from_hostname(label.as_str()), &label);
            let suffixed = label.with_suffix(&suffix);
            prop_assert_eq!(DnsLabel::new(suffixed.as_str()).unwrap(), suffixed);
        }
    }
}
