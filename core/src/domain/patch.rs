//! What an update does to each field.

use serde::{Deserialize, Serialize};

/// What an update does to a field that may be unset (`Option<T>`).
///
/// 'Not given' is `Keep`, never `Clear`. In serde `"keep"`, `"clear"` or `{"set": value}`; mark the
/// field `#[serde(default, skip_serializing_if = "Patch::is_keep")]` so that `Keep` may be left out.
///
/// ```
/// use ghostwire_store::domain::Patch;
///
/// let mut comment = Some("old");
/// assert!(!Patch::Keep.apply(&mut comment));
/// assert!(Patch::Set("new").apply(&mut comment));
/// assert_eq!(comment, Some("new"));
/// assert!(Patch::Clear.apply(&mut comment));
/// assert_eq!(comment, None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Patch<T> {
    /// Leaves the field as it is.
    #[default]
    Keep,
    /// Unsets the field.
    Clear,
    /// Gives the field this value.
    Set(T),
}

impl<T> Patch<T> {
    /// Whether it leaves the field as it is.
    #[must_use]
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The value the field will have when it has `current` now.
    #[must_use]
    pub fn resolve<'a>(&'a self, current: Option<&'a T>) -> Option<&'a T> {
        match self {
            Self::Keep => current,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        }
    }

    /// The same for another type of value, if `with` can make one.
    ///
    /// # Errors
    ///
    /// Those of `with`.
    pub fn try_map<U, E>(self, with: impl FnOnce(T) -> Result<U, E>) -> Result<Patch<U>, E> {
        Ok(match self {
            Self::Keep => Patch::Keep,
            Self::Clear => Patch::Clear,
            Self::Set(value) => Patch::Set(with(value)?),
        })
    }
}

impl<T: Clone + PartialEq> Patch<T> {
    /// Changes the field; says whether its value is now another one.
    pub fn apply(&self, field: &mut Option<T>) -> bool {
        let wanted = match self {
            Self::Keep => return false,
            Self::Clear => None,
            Self::Set(value) => Some(value),
        };
        let changed = field.as_ref() != wanted;
        if changed {
            *field = wanted.cloned();
        }
        changed
    }
}

/// What an update does to a field that always has a value.
///
/// In serde `"keep"` or `{"set": value}`; see [`Patch`] for how to leave `Keep` out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Update<T> {
    /// Leaves the field as it is.
    #[default]
    Keep,
    /// Gives the field this value.
    Set(T),
}

impl<T> Update<T> {
    /// Whether it leaves the field as it is.
    #[must_use]
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// The value the field will have when it has `current` now.
    #[must_use]
    pub fn resolve<'a>(&'a self, current: &'a T) -> &'a T {
        match self {
            Self::Keep => current,
            Self::Set(value) => value,
        }
    }

    /// The same for another type of value, if `with` can make one.
    ///
    /// # Errors
    ///
    /// Those of `with`.
    pub fn try_map<U, E>(self, with: impl FnOnce(T) -> Result<U, E>) -> Result<Update<U>, E> {
        Ok(match self {
            Self::Keep => Update::Keep,
            Self::Set(value) => Update::Set(with(value)?),
        })
    }
}

impl<T: Clone + PartialEq> Update<T> {
    /// Changes the field; says whether its value is now another one.
    pub fn apply(&self, field: &mut T) -> bool {
        match self {
            Self::Set(value) if field != value => {
                field.clone_from(value);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_patch_tells_whether_it_changed_anything() {
        for (patch, before, after) in [
            (Patch::Keep, Some(1), Some(1)),
            (Patch::Keep, None, None),
            (Patch::Clear, Some(1), None),
            (Patch::Clear, None, None),
            (Patch::Set(2), Some(1), Some(2)),
            (Patch::Set(2), Some(2), Some(2)),
            (Patch::Set(2), None, Some(2)),
        ] {
            let mut field = before;
            assert_eq!(patch.apply(&mut field), before != after, "{patch:?} on {before:?}");
            assert_eq!(field, after);
            assert_eq!(patch.resolve(before.as_ref()), after.as_ref());
        }
    }

    #[test]
    fn so_does_a_change() {
        for (change, after) in [(Update::Keep, 1), (Update::Set(1), 1), (Update::Set(2), 2)] {
            let mut field = 1;
            assert_eq!(change.apply(&mut field), after != 1);
            assert_eq!(field, after);
            assert_eq!(*change.resolve(&1), after);
        }
    }

    #[test]
    fn values_are_mapped() {
        let parse = |text: &str| text.parse::<u8>();
        assert_eq!(Patch::Set("1").try_map(parse), Ok(Patch::Set(1)));
        assert_eq!(Patch::Clear.try_map(parse), Ok(Patch::Clear));
        assert!(Patch::Set("x").try_map(parse).is_err());
        assert_eq!(Update::Keep.try_map(parse), Ok(Update::Keep));
        assert!(Update::Set("x").try_map(parse).is_err());
    }

    #[test]
    fn what_is_not_given_is_kept() {
        #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        struct Example {
            #[serde(skip_serializing_if = "Update::is_keep")]
            name: Update<String>,
            #[serde(skip_serializing_if = "Patch::is_keep")]
            note: Patch<Option<u8>>,
        }

        assert_eq!(serde_json::to_string(&Example::default()).unwrap(), "{}");
        assert_eq!(serde_json::from_str::<Example>("{}").unwrap(), Example::default());
        for (text, note) in [
            (r#"{"note":"clear"}"#, Patch::Clear),
            (r#"{"note":{"set":null}}"#, Patch::Set(None)),
            (r#"{"note":{"set":1}}"#, Patch::Set(Some(1))),
        ] {
            let update = Example { note, ..Example::default() };
            assert_eq!(serde_json::to_string(&update).unwrap(), text);
            assert_eq!(serde_json::from_str::<Example>(text).unwrap(), update);
        }
        assert!(serde_json::from_str::<Example>(r#"{"note":null}"#).is_err());
    }
}
