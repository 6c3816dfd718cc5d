//! Names of the DNS, and the labels that machines get in it.

use data_encoding::HEXLOWER;

use super::{NodeId, shown, text_newtype};
use crate::error::{Error, Result};

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

    /// This label if it is free, or else the first free one with 4, 8, 16 or 32 of the last hexadecimal
    /// digits of the node's id behind it: those are random, which keeps the search short however many
    /// nodes report one name. `None` if all of them are taken.
    pub fn free_for(&self, node: NodeId, is_free: impl Fn(&Self) -> bool) -> Option<Self> {
        if is_free(self) {
            return Some(self.clone());
        }
        let digits = HEXLOWER.encode(node.as_bytes());
        let mut suffixed = [4, 8, 16, 32].into_iter().filter_map(|length| {
            let suffix = digits.get(digits.len().checked_sub(length)?..)?;
            Some(self.with_suffix(suffix))
        });
        suffixed.find(is_free)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

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
