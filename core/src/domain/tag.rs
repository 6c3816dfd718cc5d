//! Tags of nodes.

use super::{BoundedSet, Element, check_length, is_visible, shown, text_newtype};
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
}
