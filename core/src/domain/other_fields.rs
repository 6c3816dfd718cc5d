//! Fields that a release does not know.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::Value;

use super::shown;
use crate::error::{Error, Result};

/// Fields of a document that this release does not know, as JSON. They are kept and given back, and
/// mean nothing to the store. At most 64, of 4,096 bytes together, nested at most 8 deep; their
/// names have 1 to 64 bytes.
///
/// ```
/// use ghostwire_store::domain::OtherFields;
///
/// let other = OtherFields::new([("cost".to_owned(), 7.into())])?;
/// assert_eq!(other.get("cost"), Some(&7.into()));
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OtherFields(BTreeMap<String, Value>);

impl OtherFields {
    /// The most fields.
    pub const MAX_FIELDS: usize = 64;
    /// The most bytes as a JSON object.
    pub const MAX_BYTES: usize = 4096;
    /// How deep lists and objects may be nested in a field.
    pub const MAX_DEPTH: usize = 8;

    /// These fields.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the field or the limit.
    pub fn new(fields: impl IntoIterator<Item = (String, Value)>) -> Result<Self> {
        let mut kept = BTreeMap::new();
        for (name, value) in fields {
            if !(1..=64).contains(&name.len()) {
                return Err(Error::invalid("the name of a further field has 1 to 64 bytes")
                    .with("field", shown(&name)));
            }
            if kept.len() >= Self::MAX_FIELDS {
                return Err(Error::invalid("at most 64 further fields can be kept"));
            }
            if !is_flat(&value, Self::MAX_DEPTH) {
                return Err(Error::invalid("a further field is nested at most 8 deep")
                    .with("field", shown(&name)));
            }
            if kept.insert(name.clone(), value).is_some() {
                return Err(Error::invalid("a field is given twice").with("field", shown(&name)));
            }
        }
        let other = Self(kept);
        let bytes = serde_json::to_vec(&other).map_or(usize::MAX, |json| json.len());
        if bytes > Self::MAX_BYTES {
            return Err(Error::invalid("further fields have at most 4096 bytes as JSON")
                .with("bytes", bytes));
        }
        Ok(other)
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The names of the fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first name of a field, at any depth, for which `is_it`.
    pub(super) fn find_name(&self, is_it: impl Fn(&str) -> bool + Copy) -> Option<&str> {
        self.0.iter().find_map(|(name, value)| named(name, value, is_it))
    }

    /// Refuses fields of the names that a document has itself.
    pub(super) fn check_beside(&self, known: &[&str]) -> Result<()> {
        match self.names().find(|name| known.contains(name)) {
            Some(name) => Err(Error::invalid("a field is given twice").with("field", name)),
            None => Ok(()),
        }
    }
}

/// Whether nothing is nested deeper than `depth`. Takes no more levels of the stack than that.
fn is_flat(value: &Value, depth: usize) -> bool {
    match (value, depth.checked_sub(1)) {
        (Value::Array(_) | Value::Object(_), None) => false,
        (Value::Array(items), Some(depth)) => items.iter().all(|item| is_flat(item, depth)),
        (Value::Object(fields), Some(depth)) => fields.values().all(|it| is_flat(it, depth)),
        _ => true,
    }
}

/// As deep as fields may be nested.
fn named<'v>(
    name: &'v str,
    value: &'v Value,
    is_it: impl Fn(&str) -> bool + Copy,
) -> Option<&'v str> {
    fn within(value: &Value, is_it: impl Fn(&str) -> bool + Copy) -> Option<&str> {
        match value {
            Value::Array(items) => items.iter().find_map(|item| within(item, is_it)),
            Value::Object(fields) => {
                fields.iter().find_map(|(name, value)| named(name, value, is_it))
            }
            _ => None,
        }
    }

    if is_it(name) { Some(name) } else { within(value, is_it) }
}

impl Serialize for OtherFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(&self.0)
    }
}

impl<'de> Deserialize<'de> for OtherFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = OtherFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OtherFields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, Value>()? {
                    fields.push(field);
                }
                OtherFields::new(fields).map_err(A::Error::custom)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(text: &str) -> Result<OtherFields, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn fields_come_back() {
        let text = r#"{"a":[1,-2,3.5,true,null,"x"],"b":{"c":18446744073709551615},"é":""}"#;
        let other = read(text).unwrap();
        assert_eq!(serde_json::to_string(&other).unwrap(), text);
        assert_eq!(other.names().collect::<Vec<_>>(), ["a", "b", "é"]);
        assert!(!other.is_empty() && read("{}").unwrap().is_empty());
    }

    #[test]
    fn fields_are_limited() {
        let nested =
            |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(8)).is_ok());
        assert!(read(&nested(9)).unwrap_err().to_string().contains("8 deep"));
        let many = |count: usize| {
            let fields: Vec<_> = (0..count).map(|number| format!("\"{number}\":0")).collect();
            format!("{{{}}}", fields.join(","))
        };
        assert!(read(&many(64)).is_ok());
        assert!(read(&many(65)).unwrap_err().to_string().contains("64"));
        let long = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
        assert!(read(&long(4096)).is_ok());
        assert!(read(&long(4097)).unwrap_err().to_string().contains("bytes=4097"));
        for bad in
            [r#"{"":1}"#, r#"{"a":1,"a":1}"#, "[]", &format!(r#"{{"{}":1}}"#, "n".repeat(65))]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
