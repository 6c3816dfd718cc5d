//! What an administrator sets for one node.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Mtu, NodeId, Patch, Revision};
use crate::error::{Error, Result};

/// Settings of one node, which an administrator makes and the node's client applies. What is not set
/// is up to the client. The store interprets none of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSettings {
    /// The largest packet that its tunnel takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
    /// Seconds between the packets that keep its way through a NAT open; 0 sends none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_keepalive_seconds: Option<u16>,
    /// Whether it uses the routes of other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_routes: Option<bool>,
    /// Whether it uses the network's resolvers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_dns: Option<bool>,
    /// The node through which it reaches everything else. It was another node when it was set, and
    /// may be gone since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_node: Option<NodeId>,
    /// How much it may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_limit: Option<ByteRate>,
    /// How much it may receive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_limit: Option<ByteRate>,
    /// Counts changes of the settings, from 1.
    pub revision: Revision,
}

impl NodeSettings {
    /// Settings in which nothing is set, as they are before their first change.
    pub(crate) fn unset() -> Self {
        Self {
            mtu: None,
            persistent_keepalive_seconds: None,
            accept_routes: None,
            accept_dns: None,
            exit_node: None,
            upload_limit: None,
            download_limit: None,
            revision: Revision::FIRST,
        }
    }
}

/// A change to a node's settings; fields left at `Keep` stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSettingsPatch {
    /// The largest packet that its tunnel takes.
    pub mtu: Patch<Mtu>,
    /// Seconds between keepalives; `Set(0)` sends none, `Clear` leaves it to the client.
    pub persistent_keepalive_seconds: Patch<u16>,
    /// Whether it uses the routes of other nodes.
    pub accept_routes: Patch<bool>,
    /// Whether it uses the network's resolvers.
    pub accept_dns: Patch<bool>,
    /// The node through which it reaches everything else.
    pub exit_node: Patch<NodeId>,
    /// How much it may send.
    pub upload_limit: Patch<ByteRate>,
    /// How much it may receive.
    pub download_limit: Patch<ByteRate>,
}

impl NodeSettingsPatch {
    /// Changes the settings, but not their revision; says whether any value is now another one.
    pub(crate) fn apply(&self, settings: &mut NodeSettings) -> bool {
        let mut changed = self.mtu.apply(&mut settings.mtu);
        changed |=
            self.persistent_keepalive_seconds.apply(&mut settings.persistent_keepalive_seconds);
        changed |= self.accept_routes.apply(&mut settings.accept_routes);
        changed |= self.accept_dns.apply(&mut settings.accept_dns);
        changed |= self.exit_node.apply(&mut settings.exit_node);
        changed |= self.upload_limit.apply(&mut settings.upload_limit);
        changed |= self.download_limit.apply(&mut settings.download_limit);
        changed
    }
}

/// How much may pass: 1 to `i64::MAX` bytes per second. No limit is none, not zero.
///
/// ```
/// use ghostwire_store::domain::ByteRate;
///
/// let ten_megabits = ByteRate::new(10_000_000 / 8)?;
/// assert_eq!(ten_megabits.get(), 1_250_000);
/// assert!(ByteRate::new(0).is_err());
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct ByteRate(u64);

impl ByteRate {
    /// # Errors
    /// `InvalidArgument` for zero and above `i64::MAX`.
    pub fn new(bytes_per_second: u64) -> Result<Self> {
        if bytes_per_second == 0 || i64::try_from(bytes_per_second).is_err() {
            return Err(Error::invalid("a limit is 1 to 9223372036854775807 bytes per second")
                .with("limit", bytes_per_second));
        }
        Ok(Self(bytes_per_second))
    }

    /// In bytes per second.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for ByteRate {
    type Error = Error;

    fn try_from(bytes_per_second: u64) -> Result<Self> {
        Self::new(bytes_per_second)
    }
}

impl From<ByteRate> for u64 {
    fn from(rate: ByteRate) -> Self {
        rate.0
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_what_it_names() {
        let mut settings = NodeSettings::unset();
        assert!(!NodeSettingsPatch::default().apply(&mut settings));
        assert_eq!(settings, NodeSettings::unset());
        let patch = NodeSettingsPatch {
            mtu: Patch::Set(Mtu::new(1280).unwrap()),
            accept_dns: Patch::Set(false),
            ..NodeSettingsPatch::default()
        };
        assert!(patch.apply(&mut settings));
        assert!(!patch.apply(&mut settings));
        assert_eq!((settings.mtu.unwrap().get(), settings.accept_dns), (1280, Some(false)));
        let clear = NodeSettingsPatch { mtu: Patch::Clear, ..NodeSettingsPatch::default() };
        assert!(clear.apply(&mut settings));
        assert_eq!((settings.mtu, settings.accept_dns), (None, Some(false)));
    }

    #[test]
    fn json_has_what_is_set_and_refuses_what_breaks_a_rule() {
        let text = r#"{"mtu":1420,"upload_limit":1250000,"revision":3}"#;
        let settings: NodeSettings = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&settings).unwrap(), text);
        for bad in [
            r#"{"mtu":575,"revision":1}"#,
            r#"{"mtu":65536,"revision":1}"#,
            r#"{"upload_limit":0,"revision":1}"#,
            r#"{"download_limit":9223372036854775808,"revision":1}"#,
            r#"{"exit_node":"00000000-0000-0000-0000-000000000000","revision":1}"#,
            r#"{"colour":"red","revision":1}"#,
        ] {
            assert!(serde_json::from_str::<NodeSettings>(bad).is_err(), "{bad}");
        }
    }
}
