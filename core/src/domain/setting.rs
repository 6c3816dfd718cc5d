//! Settings: the few documents that shape the whole network, each with a revision.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{DerpMap, DnsName, Mtu, NetworkName, Prefix, Revision, Text, Timestamp};
use crate::error::{Error, Result};

/// A settings document has at most this many bytes as JSON.
const MAX_DOCUMENT: usize = 1024 * 1024;

/// One settings document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The document; its kind is its key.
    pub document: SettingDocument,
    /// Counts changes, from 1.
    pub revision: Revision,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Which settings document. In the order of their names, which is that of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingKind {
    /// Relay servers.
    DerpMap,
    /// Resolvers and search domains.
    Dns,
    /// Addresses, lifetimes, and what every node is told.
    Network,
}

impl SettingKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Network, Self::DerpMap, Self::Dns];

    /// The name in snake case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::DerpMap => "derp_map",
            Self::Dns => "dns",
        }
    }
}

impl std::fmt::Display for SettingKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A settings document's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingDocument {
    /// Addresses, lifetimes, and what every node is told.
    Network(NetworkSettings),
    /// Relay servers.
    DerpMap(DerpMap),
    /// Resolvers and search domains.
    Dns(DnsSettings),
}

impl SettingDocument {
    /// Which document this is.
    #[must_use]
    pub fn kind(&self) -> SettingKind {
        match self {
            Self::Network(_) => SettingKind::Network,
            Self::DerpMap(_) => SettingKind::DerpMap,
            Self::Dns(_) => SettingKind::Dns,
        }
    }

    /// The document of this kind that is in force while none was set, and after a reset.
    #[must_use]
    pub fn default_of(kind: SettingKind) -> Self {
        match kind {
            SettingKind::Network => Self::Network(NetworkSettings::default()),
            SettingKind::DerpMap => Self::DerpMap(DerpMap::default()),
            SettingKind::Dns => Self::Dns(DnsSettings::default()),
        }
    }

    /// Whether it says what would be in force without it.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default_of(self.kind())
    }

    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// `InvalidArgument` naming the field.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Network(network) => network.check()?,
            Self::DerpMap(map) => map.check()?,
            Self::Dns(dns) => dns.check()?,
        }
        let bytes = serde_json::to_vec(self).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_DOCUMENT {
            return Err(Error::invalid("a settings document has at most 1048576 bytes as JSON")
                .with("kind", self.kind().name())
                .with("bytes", bytes));
        }
        Ok(())
    }
}

/// Where node addresses come from, how long things live, and what every node is told. The store
/// acts on the first four; the rest, since schema version 4, is for the control plane, and `None`
/// leaves it to its defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSettings {
    /// IPv4 addresses of nodes; `None` gives nodes no IPv4 address.
    pub ipv4: Option<Prefix>,
    /// IPv6 addresses of nodes; `None` gives nodes no IPv6 address.
    pub ipv6: Option<Prefix>,
    /// Addresses never given to a node, at most 1,024 prefixes.
    #[serde(default)]
    pub reserved: Vec<Prefix>,
    /// Seconds after which an ephemeral node that is offline may be removed.
    pub ephemeral_cutoff_seconds: u32,
    /// How many API keys a user may have that are neither expired nor revoked; `None` is any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_api_keys_per_user: Option<u32>,
    /// How many pre-auth keys a user may have that can still admit a node; `None` is any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_preauth_keys_per_user: Option<u32>,
    /// What the network is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NetworkName>,
    /// The longest packet in the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
    /// Seconds between the packets that keep a path open; 0 sends none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_seconds: Option<u16>,
    /// Prefixes that every node sends into the mesh, at most 1,024.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub default_routes: Vec<Prefix>,
    /// Whether nodes may be reached by the mesh's own SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<bool>,
    /// A heartbeat that says nothing new is recorded only if the last one was at least so many seconds
    /// ago, at most a day. 0, the default, records each.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub heartbeat_interval_seconds: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Default for NetworkSettings {
    /// `100.64.0.0/10` (RFC 6598) and `fd7a:115c:a1e0::/48` (RFC 4193), as in Tailscale and
    /// Headscale, without the resolver's addresses and the range that ChromeOS uses itself; 30
    /// minutes for ephemeral nodes.
    fn default() -> Self {
        let v4 = Prefix::new(IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10).ok();
        let v6 =
            Prefix::new(IpAddr::V6(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0)), 48).ok();
        Self {
            ipv4: v4,
            ipv6: v6,
            reserved: [
                Prefix::new(IpAddr::V4(Ipv4Addr::new(100, 100, 100, 100)), 32),
                Prefix::new(IpAddr::V4(Ipv4Addr::new(100, 115, 92, 0)), 23),
                Prefix::new(
                    IpAddr::V6(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0x53)),
                    128,
                ),
            ]
            .into_iter()
            .flatten()
            .collect(),
            ephemeral_cutoff_seconds: 1800,
            name: None,
            mtu: None,
            keepalive_seconds: None,
            default_routes: Vec::new(),
            ssh: None,
            heartbeat_interval_seconds: 0,
            max_api_keys_per_user: None,
            max_preauth_keys_per_user: None,
        }
    }
}

impl NetworkSettings {
    fn check(&self) -> Result<()> {
        if self.ipv4.is_none() && self.ipv6.is_none() {
            return Err(Error::invalid("a network needs an IPv4 or an IPv6 prefix"));
        }
        if let Some(prefix) = self.ipv4.filter(|prefix| !prefix.is_ipv4()) {
            return Err(Error::invalid("`ipv4` wants an IPv4 prefix").with("ipv4", prefix));
        }
        if let Some(prefix) = self.ipv6.filter(Prefix::is_ipv4) {
            return Err(Error::invalid("`ipv6` wants an IPv6 prefix").with("ipv6", prefix));
        }
        if self.heartbeat_interval_seconds > 86_400 {
            return Err(Error::invalid("heartbeats are recorded once a day at least")
                .with("heartbeat_interval_seconds", self.heartbeat_interval_seconds)
                .with("limit", 86_400));
        }
        if self.reserved.len() > 1024 {
            return Err(Error::invalid("at most 1024 prefixes can be reserved")
                .with("reserved", self.reserved.len()));
        }
        if self.default_routes.len() > 1024 {
            return Err(Error::invalid("a network has at most 1024 default routes")
                .with("default_routes", self.default_routes.len()));
        }
        Ok(())
    }
}

/// How names are resolved in the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsSettings {
    /// Node labels are served beneath this domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_domain: Option<DnsName>,
    /// Whether node names are served at all.
    #[serde(default)]
    pub magic_dns: bool,
    /// Resolvers for everything else, in order, at most 16.
    #[serde(default)]
    pub nameservers: Vec<Text<255>>,
    /// Resolvers for single domains, at most 256.
    #[serde(default)]
    pub split: BTreeMap<DnsName, Vec<Text<255>>>,
    /// Search domains, at most 64.
    #[serde(default)]
    pub search_domains: Vec<DnsName>,
    /// Whether `split` counts. This and what follows came with schema version 4; `None` leaves it to
    /// the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_enabled: Option<bool>,
    /// Domains that are resolved in the mesh and never outside, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub internal_domains: Vec<DnsName>,
    /// Whether public resolvers are asked when `nameservers` do not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_to_public: Option<bool>,
    /// Seconds for which answers may be kept; 0 keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_ttl_seconds: Option<u32>,
}

impl DnsSettings {
    fn check(&self) -> Result<()> {
        let too_many = |what: &'static str, limit: usize, found: usize| {
            Err(Error::invalid("too many entries in the DNS settings")
                .with("field", what)
                .with("limit", limit)
                .with("found", found))
        };
        if self.nameservers.len() > 16 {
            return too_many("nameservers", 16, self.nameservers.len());
        }
        if self.split.len() > 256 {
            return too_many("split", 256, self.split.len());
        }
        if self.search_domains.len() > 64 {
            return too_many("search_domains", 64, self.search_domains.len());
        }
        if self.internal_domains.len() > 64 {
            return too_many("internal_domains", 64, self.internal_domains.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn documents_of_earlier_releases_read_as_before() {
        for older in [
            r#"{"network":{"ipv4":"100.64.0.0/10","ipv6":null,"reserved":[],"ephemeral_cutoff_seconds":60}}"#,
            r#"{"derp_map":{"regions":{"900":{"code":"fra","name":"Frankfurt","servers":[{"host":"derp.example.com","derp_port":8443}]}}}}"#,
            r#"{"dns":{"magic_dns":true,"nameservers":["9.9.9.9"],"split":{},"search_domains":["example.com"]}}"#,
        ] {
            let document: SettingDocument = serde_json::from_str(older).unwrap();
            document.check().unwrap();
            assert_eq!(serde_json::to_string(&document).unwrap(), older);
        }
    }

    #[test]
    fn documents_have_what_every_node_is_told() {
        for newer in [
            r#"{"network":{"ipv4":"100.64.0.0/10","ipv6":null,"reserved":[],"ephemeral_cutoff_seconds":60,"name":"Example GmbH","mtu":1280,"keepalive_seconds":25,"default_routes":["10.0.0.0/8"],"ssh":false}}"#,
            r#"{"dns":{"magic_dns":true,"nameservers":[],"split":{},"search_domains":[],"split_enabled":true,"internal_domains":["corp.example.com"],"fallback_to_public":false,"cache_ttl_seconds":300}}"#,
        ] {
            let document: SettingDocument = serde_json::from_str(newer).unwrap();
            document.check().unwrap();
            assert_eq!(serde_json::to_string(&document).unwrap(), newer);
        }
        let unknown = r#"{"dns":{"cache_ttl":300}}"#;
        assert!(serde_json::from_str::<SettingDocument>(unknown).is_err());
        let small =
            r#"{"network":{"ipv4":null,"ipv6":null,"ephemeral_cutoff_seconds":60,"mtu":60}}"#;
        assert!(serde_json::from_str::<SettingDocument>(small).is_err());
    }
}
