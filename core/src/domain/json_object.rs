//! JSON objects, kept as text.

use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{check_length, text_newtype};
use crate::error::{Error, Result};

static EMPTY: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("{}"));

fn json_object(text: &str) -> Result<Arc<str>> {
    if text == "{}" {
        return Ok(Arc::clone(&EMPTY));
    }
    check_length("a JSON object", text, 2, JsonObject::MAX_BYTES)?;
    // The source names line, column and fault, but quotes nothing of the text.
    serde_json::from_str::<CheckedObject>(text).map_err(|error| {
        Error::invalid("the text must be one JSON object, nested at most 127 deep").because(error)
    })?;
    Ok(text.into())
}

text_newtype! {
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
    JsonObject(Arc<str>), json_object
}

impl JsonObject {
    /// The greatest length, in bytes.
    pub const MAX_BYTES: usize = 65_536;

    /// The object without members, `{}`.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::clone(&EMPTY))
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
}
