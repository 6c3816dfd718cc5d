//! `coordinator.get_network_info`, `get_dns_config` and `get_derp_config`.

use ghostwire_store::domain::{DerpMap, DnsSettings, Mtu, SettingDocument};

use super::{Result, Store};

/// What the configuration says is brought into the store once.
pub(super) async fn configure(store: &dyn Store, relays: &str) -> Result<()> {
    let mut network = store.view().settings().network().clone();
    network.name = Some("ghostwire".parse()?);
    network.mtu = Some(Mtu::new(1280)?);
    network.keepalive_seconds = Some(25);
    store.settings().put(SettingDocument::Network(network), None).await?;
    let dns = DnsSettings {
        magic_dns: true,
        base_domain: Some("mesh.example.com".parse()?),
        split_enabled: Some(true),
        internal_domains: vec!["corp.example.com".parse()?],
        fallback_to_public: Some(false),
        cache_ttl_seconds: Some(300),
        ..DnsSettings::default()
    };
    store.settings().put(SettingDocument::Dns(dns), None).await?;
    // Fields that the store does not know stay in it.
    let relays = serde_json::from_str(relays)
        .map_err(|error| ghostwire_store::Error::invalid("relays are a DERP map").because(error))?;
    let (map, _) = DerpMap::from_tailscale(relays)?;
    store.settings().put(SettingDocument::DerpMap(map), None).await?;
    Ok(())
}

/// `get_dns_config`.
pub(super) fn resolution(store: &dyn Store) -> String {
    let view = store.view();
    let dns = view.settings().dns();
    let inside: Vec<_> = dns.internal_domains.iter().map(ToString::to_string).collect();
    let seconds = dns.cache_ttl_seconds.unwrap_or_default();
    format!("{} inside, answers kept {seconds} s", inside.join(", "))
}

/// `get_derp_config`, as it is given to clients.
pub(super) fn relays(store: &dyn Store) -> String {
    serde_json::to_string(store.view().settings().derp_map()).unwrap_or_default()
}

/// The network has no IPv6 any longer. Gives how many addresses that takes back, and from how many
/// nodes it took them.
pub(super) async fn drop_ipv6(store: &dyn Store) -> Result<(usize, usize)> {
    let mut network = store.view().settings().network().clone();
    network.ipv6 = None;
    store.settings().put(SettingDocument::Network(network), None).await?;
    let listed = store.view().unconfigured_addresses().count();
    Ok((listed, store.nodes().release_addresses().await?.len()))
}
