//! The relay servers of the mesh.

mod tailscale;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Not;

use serde::{Deserialize, Serialize};

use super::{DerpRegionCode, DerpRegionId, DnsName, Location, OtherFields, Text};
use crate::error::{Error, Result};

/// The relay servers of the mesh, by region. Fields of a map, region or server that are not listed
/// here are kept as they are (`other`).
///
/// ```
/// use ghostwire_store::domain::DerpMap;
///
/// let text = r#"{"regions":{"900":{"code":"fra","name":"Frankfurt","servers":[
///     {"host":"derp.example.com","stun_only":true,"relay_cost":7}]}}}"#;
/// let map: DerpMap = serde_json::from_str(text)?;
/// let server = map.regions.values().flat_map(|region| &region.servers).next();
/// assert_eq!(server.and_then(|server| server.other.get("relay_cost")), Some(&7.into()));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerpMap {
    /// At most 512 regions.
    pub regions: BTreeMap<DerpRegionId, DerpRegion>,
    /// Whatever else was given.
    #[serde(flatten)]
    pub other: OtherFields,
}

/// One region of relay servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerpRegion {
    /// A short code, unique in the map.
    pub code: DerpRegionCode,
    /// What a person reads.
    pub name: Text<255>,
    /// At most 64 servers.
    pub servers: Vec<DerpServer>,
    /// Clients take it for their home only if there is no other.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub avoid: bool,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Whatever else was given.
    #[serde(flatten)]
    pub other: OtherFields,
}

/// One relay server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DerpServer {
    /// Its name in DNS.
    pub host: DnsName,
    /// Its IPv4 address, if DNS shall not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address, if DNS shall not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// HTTPS port; 443 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derp_port: Option<u16>,
    /// STUN port; 3478 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stun_port: Option<u16>,
    /// It answers no STUN, on whatever port. (Tailscale writes that as STUN port -1.)
    #[serde(default, skip_serializing_if = "Not::not")]
    pub no_stun: bool,
    /// It answers STUN and relays nothing.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub stun_only: bool,
    /// It listens on port 80, too.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub can_port_80: bool,
    /// What it can do besides, at most 64 words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Text<64>>,
    /// Whatever else was given.
    #[serde(flatten)]
    pub other: OtherFields,
}

impl DerpRegion {
    /// A region with these servers, and nothing else said about it.
    #[must_use]
    pub fn new(code: DerpRegionCode, name: Text<255>, servers: Vec<DerpServer>) -> Self {
        Self { code, name, servers, avoid: false, location: None, other: OtherFields::default() }
    }
}

impl DerpServer {
    /// The server of this name, found in DNS, on the usual ports.
    #[must_use]
    pub fn new(host: DnsName) -> Self {
        Self {
            host,
            ipv4: None,
            ipv6: None,
            derp_port: None,
            stun_port: None,
            no_stun: false,
            stun_only: false,
            can_port_80: false,
            capabilities: Vec::new(),
            other: OtherFields::default(),
        }
    }
}

impl DerpMap {
    pub(super) fn check(&self) -> Result<()> {
        self.other.check_beside(&["regions"])?;
        check_secure(&self.other)?;
        if self.regions.len() > 512 {
            return Err(Error::invalid("a DERP map has at most 512 regions")
                .with("regions", self.regions.len()));
        }
        let mut codes = BTreeSet::new();
        for (id, region) in &self.regions {
            region.check().map_err(|error| error.with("region", id))?;
            if !codes.insert(&region.code) {
                return Err(
                    Error::invalid("two DERP regions share a code").with("code", &region.code)
                );
            }
        }
        Ok(())
    }
}

impl DerpRegion {
    fn check(&self) -> Result<()> {
        self.other.check_beside(&["code", "name", "servers", "avoid", "location"])?;
        check_secure(&self.other)?;
        if self.servers.len() > 64 {
            return Err(Error::invalid("a DERP region has at most 64 servers")
                .with("servers", self.servers.len()));
        }
        self.servers
            .iter()
            .try_for_each(|server| server.check().map_err(|error| error.with("host", &server.host)))
    }
}

impl DerpServer {
    fn check(&self) -> Result<()> {
        self.other.check_beside(&[
            "host",
            "ipv4",
            "ipv6",
            "derp_port",
            "stun_port",
            "no_stun",
            "stun_only",
            "can_port_80",
            "capabilities",
        ])?;
        check_secure(&self.other)?;
        if self.capabilities.len() > 64 {
            return Err(Error::invalid("a relay server has at most 64 capabilities")
                .with("capabilities", self.capabilities.len()));
        }
        Ok(())
    }
}

/// Refuses, at any depth, the field that makes a client check no certificate.
fn check_secure(other: &OtherFields) -> Result<()> {
    let insecure = |name: &str| {
        let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
        letters.map(|byte| byte.to_ascii_lowercase()).eq(*b"insecurefortests")
    };
    match other.find_name(insecure) {
        Some(field) => {
            Err(Error::invalid("a relay server is not stored with its certificate unchecked")
                .with("field", field))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn region(rest: &str) -> String {
        format!(r#"{{"regions":{{"900":{{"code":"fra","name":"Frankfurt","servers":[{rest}]}}}}}}"#)
    }

    fn map(text: &str) -> Result<DerpMap> {
        let map: DerpMap =
            serde_json::from_str(text).map_err(|error| Error::invalid("JSON").because(error))?;
        map.check().map(|()| map)
    }

    #[test]
    fn unknown_fields_survive_at_every_level() {
        let text = concat!(
            r#"{"regions":{"900":{"code":"fra","name":"Frankfurt","servers":[{"host":"a.example","#,
            r#""stun_only":true,"can_port_80":true,"capabilities":["relay"],"bandwidth":{"up":1.5}}],"#,
            r#""avoid":true,"location":{"latitude":50.11,"longitude":-8.68},"cost":[7,null]}},"omit":false}"#
        );
        let map = map(text).unwrap();
        assert_eq!(map.other.get("omit"), Some(&false.into()));
        assert_eq!(serde_json::to_string(&map).unwrap(), text);
        let server = map.regions.values().next().unwrap().servers.first().unwrap();
        assert!(server.stun_only && server.can_port_80 && server.capabilities.len() == 1);
    }

    #[test]
    fn a_certificate_is_always_checked() {
        for name in ["insecure_for_tests", "InsecureForTests", "insecure-for-tests"] {
            let server = format!(r#"{{"host":"a.example","{name}":true}}"#);
            let error = map(&region(&server)).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("host=a.example"), "{error}");
        }
    }

    #[test]
    fn a_field_is_there_once() {
        for twice in
            [r#"{"host":"a.example","host":"b.example"}"#, r#"{"host":"a.example","x":1,"x":2}"#]
        {
            assert!(map(&region(twice)).is_err(), "{twice}");
        }
        // What is put together by hand, too.
        let mut server = DerpServer::new("a.example".parse().unwrap());
        server.other = OtherFields::new([("host".to_owned(), "b.example".into())]).unwrap();
        assert!(server.check().unwrap_err().to_string().contains("field=host"));
    }
}
