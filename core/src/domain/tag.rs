//! Tags of nodes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{check_length, is_visible, shown, text_newtype};
use crate::error::{Error, Result};

const MARK: &str = "tag:";

fn is_lower(character: char) -> bool {
    let mut lower = character.to_lowercase();
    lower.next() == Some(character) && lower.next().is_none()
}

fn is_of_a_tag(character: char) -> bool {
    character != ' ' && is_visible(character) && is_lower(character)
}

fn tag(text: &str) -> Result<Box<str>> {
    let refused = |message: &'static str| Err(Error::invalid(message).with("tag", shown(text)));
    let Some(name) = text.strip_prefix(MARK) else {
        return refused("a tag must begin with `tag:`, such as tag:server");
    };
    check_length("a tag", text, MARK.len() + 1, Tag::MAX_BYTES)?;
    if !name.chars().all(is_lower) {
        return refused("a tag must be in lower case, such as tag:server");
    }
    if !name.chars().all(is_of_a_tag) {
        return refused(
            "a tag must consist of characters that show, without blanks, such as tag:web-1",
        );
    }
    Ok(text.into())
}

text_newtype! {
    /// A tag that owns nodes: `tag:` and at least one character; at most 255 bytes of characters that
    /// show ([`is_visible`]), none of them a blank or a capital. Byte-exact.
    ///
    /// ```
    /// use ghostwire_store::domain::Tag;
    ///
    /// assert_eq!(Tag::new("tag:location:site1")?.name(), "location:site1");
    /// assert!(Tag::new("web").is_err());
    /// assert!(Tag::new("tag:Web").is_err());
    /// assert_eq!(Tag::from_outside("tag:Web server")?.name(), "web-server");
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    Tag, tag
}

impl Tag {
    /// The greatest length, in bytes, with `tag:`.
    pub const MAX_BYTES: usize = 255;

    /// The tag in what somebody else takes for one: in lower case, each run of characters that a tag
    /// cannot have one hyphen, cut to 255 bytes. `tag:` is put in front where it is missing.
    ///
    /// # Errors
    /// `InvalidArgument` when nothing is left.
    pub fn from_outside(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref().trim().to_lowercase();
        let mut kept = String::from(MARK);
        for character in text.strip_prefix(MARK).unwrap_or(&text).chars() {
            let is_kept = is_of_a_tag(character);
            if !is_kept && (kept.ends_with('-') || kept == MARK) {
                continue;
            }
            let character = if is_kept { character } else { '-' };
            if kept.len() + character.len_utf8() > Self::MAX_BYTES {
                break;
            }
            kept.push(character);
        }
        Self::new(kept)
    }

    /// The part after `tag:`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.strip_prefix(MARK).unwrap_or_default()
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
        for good in [
            "tag:a",
            "tag:web-1",
            "tag:1a",
            "tag:location:site1",
            "tag:prod_db",
            "tag:a.b/c@d",
            "tag:büro",
            &format!("tag:{}", "x".repeat(251)),
        ] {
            assert_eq!(Tag::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "a",
            "tag:",
            "tag:a b",
            "tag:a\tb",
            "tag:a\n",
            "tag:a\0",
            "tag:a\u{a0}b",
            "tag:a\u{200b}",
            "tag:É",
            "tag:ǅ",
            "TAG:a",
            &format!("tag:{}", "x".repeat(252)),
        ] {
            assert!(Tag::new(bad).is_err(), "{bad}");
        }
        let error = Tag::new("tag:Web").unwrap_err().to_string();
        assert!(error.contains("lower case"), "{error}");
    }

    #[test]
    fn tags_from_outside() {
        for (given, taken) in [
            ("tag:web", "tag:web"),
            ("Tag:WEB", "tag:web"),
            ("web", "tag:web"),
            (" tag:a", "tag:a"),
            ("tag: a \t b ", "tag:a-b"),
            ("tag:a--b", "tag:a--b"),
        ] {
            let tag = Tag::from_outside(given).unwrap();
            assert_eq!(tag.as_str(), taken);
            assert_eq!(Tag::new(tag.as_str()).unwrap(), tag);
        }
        let long = Tag::from_outside("é".repeat(200)).unwrap();
        assert_eq!(long.as_str().len(), 254);
        for bad in ["", "tag:", "tag: ", "tag:\u{200b}"] {
            assert!(Tag::from_outside(bad).is_err(), "{bad}");
        }
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
