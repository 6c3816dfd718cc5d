//! Tags of nodes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{shown, text_newtype};
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

/// At most 64 tags, sorted, each once. In serde a list; a clone shares the tags.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<Tag>")]
pub struct TagSet(Arc<[Tag]>);

impl TagSet {
    /// The greatest number of tags.
    pub const MAX_TAGS: usize = 64;

    /// The set of these tags.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when there are more than [`TagSet::MAX_TAGS`] different ones.
    pub fn new(tags: impl IntoIterator<Item = Tag>) -> Result<Self> {
        let mut set = BTreeSet::new();
        for tag in tags {
            set.insert(tag);
            if set.len() > Self::MAX_TAGS {
                return Err(Error::invalid("there must be at most 64 different tags"));
            }
        }
        if set.is_empty() {
            return Ok(Self::empty());
        }
        Ok(Self(set.into_iter().collect()))
    }

    /// The set without tags.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The tags in ascending order.
    pub fn iter(&self) -> std::slice::Iter<'_, Tag> {
        self.0.iter()
    }

    /// The tags in ascending order.
    #[must_use]
    pub fn as_slice(&self) -> &[Tag] {
        &self.0
    }

    /// Whether the tag is one of them.
    #[must_use]
    pub fn contains(&self, tag: &Tag) -> bool {
        self.0.binary_search(tag).is_ok()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for TagSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Tag::as_str)).finish()
    }
}

impl TryFrom<Vec<Tag>> for TagSet {
    type Error = Error;

    fn try_from(tags: Vec<Tag>) -> Result<Self> {
        Self::new(tags)
    }
}

impl<'a> IntoIterator for &'a TagSet {
    type Item = &'a Tag;
    type IntoIter = std::slice::Iter<'a, Tag>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn numbered(count: usize) -> impl Iterator<Item = Tag> {
        (0..count).map(|number| Tag::new(format!("tag:t{number}")).unwrap())
    }

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

    #[test]
    fn a_set_is_sorted_and_has_each_tag_once() {
        let set: TagSet = serde_json::from_str(r#"["tag:b","tag:a","tag:b"]"#).unwrap();
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["tag:a","tag:b"]"#);
        assert_eq!(set.len(), 2);
        assert!(set.contains(&Tag::new("tag:a").unwrap()));
        assert!(!set.contains(&Tag::new("tag:c").unwrap()));
        assert_eq!(set, TagSet::new(set.iter().rev().cloned()).unwrap());
        assert_eq!(format!("{set:?}"), r#"{"tag:a", "tag:b"}"#);
        assert!(serde_json::from_str::<TagSet>(r#"["a"]"#).is_err());
    }

    #[test]
    fn a_set_is_limited() {
        assert_eq!(TagSet::new(numbered(64)).unwrap().len(), 64);
        assert_eq!(TagSet::new(numbered(64).chain(numbered(64))).unwrap().len(), 64);
        assert!(TagSet::new(numbered(65)).is_err());
    }

    #[test]
    fn the_empty_set() {
        assert!(TagSet::empty().is_empty());
        assert_eq!(TagSet::new([]).unwrap(), TagSet::default());
        assert_eq!(serde_json::to_string(&TagSet::empty()).unwrap(), "[]");
    }
}
