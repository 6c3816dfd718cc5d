//! Text of limited length, JSON objects and documents, and the helpers of all newtypes with a text
//! form.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

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
pub(super) fn deserialize_stored<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Stored,
{
    deserialize_with(deserializer, T::stored)
}

/// As [`deserialize_stored`], where there may be none.
pub(super) fn deserialize_stored_option<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
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

/// Refused input as it may appear in an error: on one line, without control characters, and short.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(201).flat_map(char::escape_debug).collect()
}

/// Refuses text that is empty (when `min` is 1), too long, or that contains NUL.
pub(crate) fn check_length(what: &'static str, text: &str, min: usize, max: usize) -> Result<()> {
    if text.len() < min || text.len() > max {
        return Err(Error::invalid(format!("{what} must be {min} to {max} bytes long"))
            .with("length", text.len()));
    }
    if text.contains('\0') {
        return Err(Error::invalid(format!("{what} must not contain NUL")));
    }
    Ok(())
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

/// Declares a newtype over `Box<str>`, checked and brought to its stored form by a function
/// `fn(&str) -> Result<Box<str>>`.
macro_rules! text_newtype {
    ($(#[$meta:meta])* $name:ident, $check:path) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

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

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::error::Error;

            fn from_str(text: &str) -> $crate::error::Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $crate::error::Error;

            fn try_from(text: &str) -> $crate::error::Result<Self> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::error::Error;

            fn try_from(text: String) -> $crate::error::Result<Self> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0.into()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl ::std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                $crate::domain::deserialize_text(deserializer)
            }
        }
    };
}
pub(crate) use text_newtype;

/// Free text of at most `MAX` bytes: any valid UTF-8 without NUL, stored unmodified; may be empty.
///
/// ```
/// use ghostwire_store::domain::Text;
///
/// let comment: Text<32> = "office router".parse()?;
/// assert_eq!(comment.as_str(), "office router");
/// assert!(Text::<4>::new("too long").is_err());
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text<const MAX: usize>(Box<str>);

impl<const MAX: usize> Text<MAX> {
    /// The greatest length, in bytes.
    pub const MAX_BYTES: usize = MAX;

    /// Checks the text and takes it unmodified.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the text is longer than `MAX` bytes or contains NUL.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check_length("the text", text, 0, MAX)?;
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the text has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<const MAX: usize> FromStr for Text<MAX> {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl<const MAX: usize> TryFrom<&str> for Text<MAX> {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(text)
    }
}

impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> Self {
        text.0.into()
    }
}

impl<const MAX: usize> AsRef<str> for Text<MAX> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Serialize for Text<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer)
    }
}

/// A document such as an access policy (HuJSON): UTF-8 without NUL, at most 4 MiB, stored
/// unmodified; may be empty. What it means is not checked here. A clone shares the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentText(Arc<str>);

impl DocumentText {
    /// The greatest length, in bytes: 4 MiB.
    pub const MAX_BYTES: usize = 4 * 1024 * 1024;

    /// Checks the text and takes it unmodified.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the text is longer than [`DocumentText::MAX_BYTES`] or contains NUL.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        check_length("a document", text, 0, Self::MAX_BYTES)?;
        Ok(Self(text.into()))
    }

    /// The document without text.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::default())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the document has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for DocumentText {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Display for DocumentText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for DocumentText {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl AsRef<str> for DocumentText {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for DocumentText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DocumentText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer)
    }
}

/// The text of a JSON object, at most 65,536 bytes, stored unmodified, white space and order of
/// keys included. A clone shares the text.
///
/// Two objects are equal when their texts are. In serde it is a string that holds the text.
///
/// ```
/// use ghostwire_store::domain::JsonObject;
///
/// let object = JsonObject::new(r#"{ "OS": "linux" }"#)?;
/// assert_eq!(object.as_str(), r#"{ "OS": "linux" }"#);
/// assert_eq!(object.get("OS"), Some("linux".into()));
/// assert!(JsonObject::new("[]").is_err());
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JsonObject(Arc<str>);

static EMPTY_OBJECT: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("{}"));

impl JsonObject {
    /// The greatest length, in bytes.
    pub const MAX_BYTES: usize = 65_536;

    /// Checks that the text is one JSON object and takes it unmodified.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the text is longer than [`JsonObject::MAX_BYTES`], is not valid JSON,
    /// is JSON but not an object, or nests deeper than 127 levels.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        if text == "{}" {
            return Ok(Self::empty());
        }
        check_length("a JSON object", text, 2, Self::MAX_BYTES)?;
        // The source names line, column and fault, but quotes nothing of the text.
        serde_json::from_str::<CheckedObject>(text).map_err(|error| {
            Error::invalid("the text must be one JSON object, nested at most 127 deep")
                .because(error)
        })?;
        Ok(Self(text.into()))
    }

    /// The object without members, `{}`.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::clone(&EMPTY_OBJECT))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value of a member; of several with the same key the last. Parses the text each time.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<serde_json::Value> {
        struct Lookup<'k>(&'k str);

        impl<'de> Visitor<'de> for Lookup<'_> {
            type Value = Option<serde_json::Value>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key == self.0 {
                        found = Some(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(found)
            }
        }

        if self.0.len() == 2 {
            return None;
        }
        let mut deserializer = serde_json::Deserializer::from_str(&self.0);
        (&mut deserializer).deserialize_map(Lookup(key)).ok().flatten()
    }
}

impl Default for JsonObject {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Display for JsonObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for JsonObject {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl AsRef<str> for JsonObject {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for JsonObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize_text(deserializer)
    }
}

/// Walks a JSON value as `serde_json::Value` would, so that it finds the same faults (depth,
/// escapes, numbers out of range), but keeps nothing. `IgnoredAny` checks less.
struct CheckedValue;

/// The same, for an object at the top.
struct CheckedObject;

impl<'de> Deserialize<'de> for CheckedValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CheckVisitor)?;
        Ok(Self)
    }
}

impl<'de> Deserialize<'de> for CheckedObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(CheckVisitor)?;
        Ok(Self)
    }
}

struct CheckVisitor;

impl<'de> Visitor<'de> for CheckVisitor {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<CheckedValue>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<CheckedValue, CheckedValue>()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn text_is_kept_unmodified_up_to_its_limit() {
        let text = Text::<8>::new(" \u{7f}\n é").unwrap();
        assert_eq!(text.as_str(), " \u{7f}\n é");
        assert!(Text::<8>::new("").unwrap().is_empty());
        assert!(Text::<8>::new("12345678").is_ok());
        assert!(Text::<8>::new("éééé1").is_err());
        assert!(Text::<8>::new("a\0b").is_err());
        let error = Text::<8>::new("123456789").unwrap_err().to_string();
        assert_eq!(error, "the text must be 0 to 8 bytes long [length=9]");
    }

    #[test]
    fn serde_checks_what_it_reads() {
        let text: Text<3> = serde_json::from_str(r#""abc""#).unwrap();
        assert_eq!(serde_json::to_string(&text).unwrap(), r#""abc""#);
        assert!(serde_json::from_str::<Text<3>>(r#""abcd""#).is_err());
        assert!(serde_json::from_str::<Text<3>>(r#""\u0000""#).is_err());
        assert!(serde_json::from_str::<Text<3>>("3").is_err());
    }

    #[test]
    fn documents_have_a_limit() {
        let document = DocumentText::new("// hujson\n{}").unwrap();
        assert_eq!(document.as_str(), "// hujson\n{}");
        assert!(DocumentText::empty().is_empty());
        assert!(DocumentText::new("a\0").is_err());
        let longest = "x".repeat(DocumentText::MAX_BYTES);
        assert!(DocumentText::new(&longest).is_ok());
        assert!(DocumentText::new(longest + "x").is_err());
    }

    #[test]
    fn json_must_be_one_object() {
        for good in ["{}", " {\n} ", r#"{"a":[1,-2,3.5,true,null,"x\u0000"],"b":{}}"#] {
            assert_eq!(JsonObject::new(good).unwrap().as_str(), good);
        }
        let out_of_range = r#"{"a":1e999}"#;
        let half_a_pair = r#"{"a":"\ud800"}"#;
        for bad in ["", "[]", "null", "{", "{}{}", "{a:1}", "{}\0", out_of_range, half_a_pair] {
            let error = JsonObject::new(bad).unwrap_err();
            assert_eq!(*error.kind(), crate::error::ErrorKind::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn json_is_limited_in_depth_and_length() {
        let nested = |levels: usize| {
            format!(r#"{{"a":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1))
        };
        let deepest = JsonObject::new(nested(127)).unwrap();
        assert!(deepest.get("a").is_some());
        assert!(JsonObject::new(nested(128)).is_err());
        assert!(JsonObject::new(nested(20_000)).is_err());
        let wide = |length: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(length - 8));
        assert!(JsonObject::new(wide(JsonObject::MAX_BYTES)).is_ok());
        assert!(JsonObject::new(wide(JsonObject::MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn json_members_are_found() {
        let object = JsonObject::new(r#"{"a":1,"b":{"a":2},"c":[],"a":3}"#).unwrap();
        assert_eq!(object.get("a"), Some(3.into()));
        assert_eq!(object.get("b"), Some(serde_json::json!({"a": 2})));
        assert_eq!(object.get("x"), None);
        assert_eq!(JsonObject::empty().get("a"), None);
        assert_eq!(JsonObject::default().as_str(), "{}");
    }

    #[test]
    fn json_is_a_string_in_serde() {
        let object = JsonObject::new(r#"{ "a": 1 }"#).unwrap();
        let text = serde_json::to_string(&object).unwrap();
        assert_eq!(text, r#""{ \"a\": 1 }""#);
        assert_eq!(serde_json::from_str::<JsonObject>(&text).unwrap(), object);
        assert!(serde_json::from_str::<JsonObject>(r#""[]""#).is_err());
    }

    #[test]
    fn refused_input_is_shown_on_one_line() {
        assert_eq!(shown("a\nb"), "a\\nb");
        assert_eq!(shown(&"x".repeat(5000)).len(), 201);
    }
}
