use super::{Oracle, Predicted};
use crate::prelude::*;

/// The settings that are in force as long as nobody set others.
fn default_network() -> NetworkSettings {
    let prefix = |text: &str| text.parse().expect("a prefix");
    NetworkSettings {
        ipv4: Some(prefix("100.64.0.0/10")),
        ipv6: Some(prefix("fd7a:115c:a1e0::/48")),
        reserved: vec![
            prefix("100.100.100.100/32"),
            prefix("100.115.92.0/23"),
            prefix("fd7a:115c:a1e0::53/128"),
        ],
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

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// First and last address.
fn ends(prefix: Prefix) -> (u128, u128) {
    let bits = if prefix.is_ipv4() { 32 } else { 128 };
    let host_bits = bits - u32::from(prefix.prefix_len());
    let hosts = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
    (number(prefix.addr()), number(prefix.addr()) + hosts)
}

impl Oracle {
    pub(in super::super) fn network(&self) -> NetworkSettings {
        match self.setting(SettingKind::Network).map(|setting| &setting.document) {
            Some(SettingDocument::Network(network)) => network.clone(),
            _ => default_network(),
        }
    }

    /// The lowest address of a prefix that is neither special, reserved nor given.
    fn free_address(&self, prefix: Prefix) -> Predicted<u128> {
        let (first, last) = ends(prefix);
        let is_special = |address: u128| {
            let is_broadcast = prefix.is_ipv4() && address == last;
            address == first || is_broadcast
        };
        let has_others = last - first >= 2;
        let reserved = self.network().reserved;
        let is_reserved = |address: u128| {
            reserved.iter().any(|reserved| {
                let (first, last) = ends(*reserved);
                reserved.is_ipv4() == prefix.is_ipv4() && first <= address && address <= last
            })
        };
        let is_given = |address: u128| {
            self.nodes.iter().any(|node| {
                let given = if prefix.is_ipv4() {
                    node.ipv4.map(IpAddr::V4)
                } else {
                    node.ipv6.map(IpAddr::V6)
                };
                given.map(number) == Some(address)
            })
        };
        let mut address = first;
        while address <= last {
            let skipped = has_others && is_special(address);
            if !skipped && !is_reserved(address) && !is_given(address) {
                return Ok(address);
            }
            address += 1;
        }
        Err(Exhausted)
    }

    pub(super) fn free_ipv4(&self) -> Predicted<Option<Ipv4Addr>> {
        let Some(prefix) = self.network().ipv4 else { return Ok(None) };
        let address = u32::try_from(self.free_address(prefix)?).expect("an IPv4 address");
        Ok(Some(address.into()))
    }

    pub(super) fn free_ipv6(&self) -> Predicted<Option<Ipv6Addr>> {
        let Some(prefix) = self.network().ipv6 else { return Ok(None) };
        Ok(Some(self.free_address(prefix)?.into()))
    }
}
