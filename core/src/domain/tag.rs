//! Tags of nodes.

use super::{BoundedSet, Element, shown, text_newtype};
use crate::error::{Error, Result};

fn tag(text: &str) -> Result<Box<str>> {
    let name = text.strip_prefix("tag:").unwrap_or_default();
    let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.len() <= 63
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
        && name.bytes().all(rest)
    {
        return Ok(text.into());
    }
    let message = if !text.starts_with("tag:") {
        "a tag must begin with `tag:`, such as tag:server"
    } else if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        "a tag must be in lower case, such as tag:server"
    } else {
        "a tag must be `tag:`, a lower-case letter, and at most 62 lower-case letters, digits and \
         hyphens, such as tag:web-1"
    };
    Err(Error::invalid(message).with("tag", shown(text)))
}

text_newtype! {
    /// A tag that owns nodes: `tag:`, a lower-case ASCII letter, and at most 62 lower-case letters,
    /// digits and hyphens.
    ///
    /// ```
    /// use ghostwire_store::domain::Tag;
    ///
    /// assert_eq!(Tag::new("tag:web-1")?.name(), "web-1");
    /// assert!(Tag::new("web").is_err());
    /// assert!(Tag::new("tag:Web").is_err());
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    Tag, tag
}

impl Tag {
    /// The part after `tag:`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.strip_prefix("tag:").unwrap_or_default()
    }
}

impl Element for Tag {
    const PLURAL: &'static str = "tags";
}

/// At most 64 tags.
pub type TagSet = BoundedSet<Tag, 64>;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn tags() {
        for good in ["tag:a", "tag:web-1", "tag:a-", &format!("tag:{}", "x".repeat(63))] {
            assert_eq!(Tag::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "a",
            "tag:",
            "tag:1a",
            "tag:-a",
            "tag:a_b",
            "tag:a b",
            "tag:é",
            "TAG:a",
            "tag:tag:a",
            &format!("tag:{}", "x".repeat(64)),
        ] {
            assert!(Tag::new(bad).is_err(), "{bad}");
        }
        let error = Tag::new("tag:Web").unwrap_err().to_string();
        assert!(error.contains("lower case"), "{error}");
    }
}
