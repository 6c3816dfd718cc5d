//! Small sets of texts: tags, groups, permissions.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A text of which there are sets.
pub trait Element: Ord + fmt::Display {
    /// What several of them are called.
    const PLURAL: &'static str;
}

/// At most `MAX` different texts, sorted. In serde a list; a clone shares the texts.
///
/// ```
/// use ghostwire_store::domain::GroupSet;
///
/// let groups = GroupSet::new(["staff".parse()?, "admins".parse()?, "staff".parse()?])?;
/// assert_eq!(format!("{groups:?}"), r#"{"admins", "staff"}"#);
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<T>", bound(deserialize = "T: Element + Deserialize<'de>"))]
pub struct BoundedSet<T, const MAX: usize>(Arc<[T]>);

impl<T, const MAX: usize> Default for BoundedSet<T, MAX> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T, const MAX: usize> BoundedSet<T, MAX> {
    /// The greatest number of elements.
    pub const MAX_LEN: usize = MAX;

    /// The set without elements.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The elements in ascending order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// The elements in ascending order.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        &self.0
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

impl<T: Element, const MAX: usize> BoundedSet<T, MAX> {
    /// The set of these elements.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when there are more than [`BoundedSet::MAX_LEN`] different ones.
    pub fn new(elements: impl IntoIterator<Item = T>) -> Result<Self> {
        let mut set = BTreeSet::new();
        for element in elements {
            set.insert(element);
            if set.len() > MAX {
                let message = format!("there must be at most {MAX} different {}", T::PLURAL);
                return Err(Error::invalid(message));
            }
        }
        if set.is_empty() {
            return Ok(Self::empty());
        }
        Ok(Self(set.into_iter().collect()))
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn contains(&self, element: &T) -> bool {
        self.0.binary_search(element).is_ok()
    }
}

impl<T: fmt::Display, const MAX: usize> fmt::Debug for BoundedSet<T, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(ToString::to_string)).finish()
    }
}

impl<T: Element, const MAX: usize> TryFrom<Vec<T>> for BoundedSet<T, MAX> {
    type Error = Error;

    fn try_from(elements: Vec<T>) -> Result<Self> {
        Self::new(elements)
    }
}

impl<'a, T, const MAX: usize> IntoIterator for &'a BoundedSet<T, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::domain::{Tag, TagSet};

    fn numbered(count: usize) -> impl Iterator<Item = Tag> {
        (0..count).map(|number| Tag::new(format!("tag:t{number}")).unwrap())
    }

    #[test]
    fn a_set_is_sorted_and_has_each_element_once() {
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
        let error = TagSet::new(numbered(65)).unwrap_err();
        assert_eq!(error.to_string(), "there must be at most 64 different tags");
    }

    #[test]
    fn the_empty_set() {
        assert!(TagSet::empty().is_empty());
        assert_eq!(TagSet::new([]).unwrap(), TagSet::default());
        assert_eq!(serde_json::to_string(&TagSet::empty()).unwrap(), "[]");
    }
}
