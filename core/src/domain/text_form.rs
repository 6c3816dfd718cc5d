//! The text form of newtypes: the traits that all of them have, and serde.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::error::{Error, Result};

/// Reads a value from its text form, without an allocation of its own.
pub(crate) fn deserialize_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = Error>,
{
    deserialize_with(deserializer, str::parse)
}

fn deserialize_with<'de, D, T>(deserializer: D, read: fn(&str) -> Result<T>) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    struct TextVisitor<T>(fn(&str) -> Result<T>);

    impl<T> Visitor<'_> for TextVisitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.0)(text).map_err(E::custom)
        }
    }

    deserializer.deserialize_str(TextVisitor(read))
}

/// A text whose rules have become stricter. What was stored before stays readable: a store that does
/// not open would be worse than a name that does not show.
pub(crate) trait Stored: Sized {
    /// Takes text that a store has, by the rules that held when it was stored.
    fn stored(text: &str) -> Result<Self>;
}

/// Reads what a store has from its text form.
pub(crate) fn deserialize_stored<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Stored,
{
    deserialize_with(deserializer, T::stored)
}

/// As [`deserialize_stored`], where there may be none.
pub(crate) fn deserialize_stored_option<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Stored,
{
    struct AsStored<T>(T);

    impl<'de, T: Stored> Deserialize<'de> for AsStored<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserialize_stored(deserializer).map(Self)
        }
    }

    let stored = Option::<AsStored<T>>::deserialize(deserializer)?;
    Ok(stored.map(|stored| stored.0))
}

/// Gives a type with `Display` and `FromStr<Err = Error>` its text as its serde form.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                $crate::domain::deserialize_text(deserializer)
            }
        }
    };
}
pub(crate) use serde_as_text;

/// Gives a type with `new` and `as_str` the traits of a text, among them its serde form. The generic
/// parameters stand in front.
macro_rules! text_traits {
    ([$($generics:tt)*] $type:ty) => {
        impl<$($generics)*> ::std::fmt::Display for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl<$($generics)*> ::std::str::FromStr for $type {
            type Err = $crate::error::Error;

            fn from_str(text: &str) -> $crate::error::Result<Self> {
                Self::new(text)
            }
        }

        impl<$($generics)*> TryFrom<&str> for $type {
            type Error = $crate::error::Error;

            fn try_from(text: &str) -> $crate::error::Result<Self> {
                Self::new(text)
            }
        }

        impl<$($generics)*> TryFrom<String> for $type {
            type Error = $crate::error::Error;

            fn try_from(text: String) -> $crate::error::Result<Self> {
                Self::new(text)
            }
        }

        impl<$($generics)*> From<$type> for String {
            fn from(value: $type) -> Self {
                value.as_str().to_owned()
            }
        }

        impl<$($generics)*> AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl<$($generics)*> ::std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl<$($generics)*> ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de, $($generics)*> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                $crate::domain::deserialize_text(deserializer)
            }
        }
    };
}
pub(crate) use text_traits;

/// Declares a newtype over `Box<str>`, or over another pointer to text, checked and brought to its
/// stored form by a function `fn(&str) -> Result<Box<str>>`.
macro_rules! text_newtype {
    ($(#[$meta:meta])* $name:ident, $check:path) => {
        $crate::domain::text_newtype! { $(#[$meta])* $name(Box<str>), $check }
    };
    ($(#[$meta:meta])* $name:ident($pointer:ty), $check:path) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($pointer);

        impl $name {
            /// Checks the text and takes it in its stored form.
            ///
            /// # Errors
            ///
            /// `InvalidArgument` when the text breaks the rules of this type.
            pub fn new(text: impl AsRef<str>) -> $crate::error::Result<Self> {
                $check(text.as_ref()).map(Self)
            }

            /// The stored text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        $crate::domain::text_traits!([] $name);
    };
}
pub(crate) use text_newtype;
