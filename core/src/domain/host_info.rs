//! What a machine tells about itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{JsonObject, Prefix, Tag};
use crate::error::{Error, Result};

/// What a machine tells about itself: a JSON object with the field names of Tailscale's `Hostinfo`,
/// stored unmodified. A clone shares the text.
///
/// Nothing in it can be trusted; each accessor parses the text, and gives `None` (or leaves an
/// element out) when the field is absent or not of its type.
///
/// ```
/// use ghostwire_store::domain::HostInfo;
///
/// let info: HostInfo = r#"{"OS":"linux","RoutableIPs":["10.0.0.0/8","nonsense"]}"#.parse()?;
/// assert_eq!(info.os().as_deref(), Some("linux"));
/// assert_eq!(info.routable_prefixes(), ["10.0.0.0/8".parse()?]);
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostInfo(JsonObject);

impl HostInfo {
    /// The host info in this object.
    #[must_use]
    pub fn new(object: JsonObject) -> Self {
        Self(object)
    }

    /// The JSON object, as the client sent it.
    #[must_use]
    pub fn object(&self) -> &JsonObject {
        &self.0
    }

    /// The text of the object.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The operating system, such as `linux` (`OS`).
    #[must_use]
    pub fn os(&self) -> Option<String> {
        self.text("OS")
    }

    /// The version of the operating system (`OSVersion`).
    #[must_use]
    pub fn os_version(&self) -> Option<String> {
        self.text("OSVersion")
    }

    /// The version of the client (`IPNVersion`).
    #[must_use]
    pub fn client_version(&self) -> Option<String> {
        self.text("IPNVersion")
    }

    /// The host name (`Hostname`), not checked.
    #[must_use]
    pub fn hostname(&self) -> Option<String> {
        self.text("Hostname")
    }

    /// The tags the machine asks for (`RequestTags`), in its order; invalid ones are left out.
    #[must_use]
    pub fn requested_tags(&self) -> Vec<Tag> {
        self.list("RequestTags")
    }

    /// The prefixes the machine offers to route (`RoutableIPs`), in its order; invalid ones are
    /// left out.
    #[must_use]
    pub fn routable_prefixes(&self) -> Vec<Prefix> {
        self.list("RoutableIPs")
    }

    fn text(&self, key: &str) -> Option<String> {
        match self.0.get(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    fn list<T: FromStr>(&self, key: &str) -> Vec<T> {
        match self.0.get(key) {
            Some(Value::Array(values)) => {
                values.iter().filter_map(|value| value.as_str()?.parse().ok()).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl From<JsonObject> for HostInfo {
    fn from(object: JsonObject) -> Self {
        Self(object)
    }
}

impl fmt::Display for HostInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for HostInfo {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        JsonObject::new(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn reads_the_fields() {
        let info: HostInfo = r#"{
            "IPNVersion": "1.80.0", "OS": "linux", "OSVersion": "6.1", "Hostname": "",
            "RequestTags": ["tag:b", "Tag:X", 3, "tag:a"],
            "RoutableIPs": ["10.0.0.1/8", "::/0", "10.0.0.0/8"]
        }"#
        .parse()
        .unwrap();
        assert_eq!(info.os().unwrap(), "linux");
        assert_eq!(info.os_version().unwrap(), "6.1");
        assert_eq!(info.client_version().unwrap(), "1.80.0");
        assert_eq!(info.hostname().unwrap(), "");
        let tags = info.requested_tags();
        assert_eq!(tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["tag:b", "tag:a"]);
        let prefixes: Vec<_> = info.routable_prefixes().iter().map(Prefix::to_string).collect();
        assert_eq!(prefixes, ["::/0", "10.0.0.0/8"]);
    }

    #[test]
    fn survives_fields_of_other_types() {
        let info: HostInfo =
            r#"{"OS":1,"RequestTags":"tag:a","RoutableIPs":null}"#.parse().unwrap();
        assert_eq!(info.os(), None);
        assert!(info.requested_tags().is_empty() && info.routable_prefixes().is_empty());
        assert_eq!(HostInfo::default().as_str(), "{}");
        assert_eq!(HostInfo::default().hostname(), None);
        assert!("[]".parse::<HostInfo>().is_err());
    }

    #[test]
    fn is_a_string_in_serde() {
        let info: HostInfo = serde_json::from_str(r#""{ \"OS\": \"x\" }""#).unwrap();
        assert_eq!(info.as_str(), r#"{ "OS": "x" }"#);
        assert!(serde_json::from_str::<HostInfo>(r#""{""#).is_err());
    }
}
