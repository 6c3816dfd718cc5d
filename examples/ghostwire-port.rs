//! The database calls of a Ghostwire server, on a store. What each stands for is in its first line;
//! docs/porting.md has all of them.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ghostwire_store::config::{BackendChoice, Config, LibsqlOptions};
use ghostwire_store::domain::DnsRecordKind::{A, Mx};
use ghostwire_store::domain::{
    Actor, AuditQuery, AuditResult, PageRequest, SessionOwner, UserRole,
};
use ghostwire_store::{Opener, Result, Store};

#[path = "ghostwire-port/audit.rs"]
mod audit;
#[path = "ghostwire-port/credentials.rs"]
mod credentials;
#[path = "ghostwire-port/dns.rs"]
mod dns;
#[path = "ghostwire-port/instances.rs"]
mod instances;
#[path = "ghostwire-port/metrics.rs"]
mod metrics;
#[path = "ghostwire-port/network.rs"]
mod network;
#[path = "ghostwire-port/nodes.rs"]
mod nodes;
#[path = "ghostwire-port/policies.rs"]
mod policies;
#[path = "ghostwire-port/routes.rs"]
mod routes;
#[path = "ghostwire-port/sign_ins.rs"]
mod sign_ins;
#[path = "ghostwire-port/users.rs"]
mod users;

/// What the browser takes along to the identity provider, and brings back.
const STATE: &str = "af0ifjsldkj-3f7Jx0";
/// What a device without a browser asks with.
const CODE: &str = "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNh";

/// What relays the configuration names, as the field writes it.
const RELAYS: &str = r#"{"Regions": {"900": {"RegionID": 900, "RegionCode": "fra",
    "RegionName": "Frankfurt", "Latitude": 50.11, "Longitude": 8.68, "Nodes": [
        {"Name": "900a", "RegionID": 900, "HostName": "derp.example.com", "STUNPort": -1,
         "CanPort80": true, "force_http": true}
    ]}}}"#;

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("ghostwire.db");
    let libsql = LibsqlOptions { path, ..LibsqlOptions::default() };
    let config = Config { backend: BackendChoice::Libsql(libsql), ..Config::default() };
    // `DatabaseManager::new`, migrations included. Every part of the server has a clone of it.
    let store: Arc<dyn Store> = Opener::new(&config).open().await?;
    let (instance, server) = instances::begin(&*store, "control-1".parse()?).await?;
    // `health_check`: a write would be durable now.
    println!("healthy: {}", store.probe().await? < Duration::from_secs(60));
    // The audit trail names the administrator for what goes through this.
    let admin = store.acting_as("ann@example.com".parse()?);

    let alice = users::create(&*admin, "alice", Some("alice@example.com")).await?;
    let bob = users::upsert_from_oidc(&*store, "https://id.example.com", "7", "Bob").await?;
    let names: Vec<_> = users::list_all(&*store).iter().map(|user| user.name.to_string()).collect();
    println!("users: {}", names.join(", "));
    users::signed_in(&*store, alice.id).await?;
    let alice = users::describe(&*admin, alice.id, UserRole::Admin, r#"{"team":"net"}"#).await?;
    println!("{} is {}, signed in: {}", alice.name, alice.role, alice.last_sign_in_at.is_some());
    sign_ins::begin(&*store, STATE, r#"{"verifier":"dBjftJeZ4CVP"}"#).await?;
    let verifier = sign_ins::complete(&*store, STATE).await?.expose().contains("dBjftJeZ4CVP");
    let again = sign_ins::complete(&*store, STATE).await.map_err(|error| error.kind().clone());
    println!("back from the provider: {verifier}, and again: {:?}", again.err());

    sign_ins::begin_device(&*store, CODE).await?;
    let waits = sign_ins::poll_device(&*store, CODE).await?.is_none();
    sign_ins::approve_device(&*store, CODE, "alice").await?;
    let approved = sign_ins::poll_device(&*store, CODE).await?.unwrap_or_default();
    println!("a device waits: {waits}, and was approved by {approved}");

    network::configure(&*admin, RELAYS).await?;
    println!("DNS: {}", network::resolution(&*store));
    // A field that the store does not know.
    println!("force_http is kept: {}", network::relays(&*store).contains("force_http"));
    let node = nodes::create(&*admin, alice.id, "Alice's Laptop", [7; 32]).await?;
    println!("{}: {}", node.label, node.ipv4.map(|ip| ip.to_string()).unwrap_or_default());
    println!("its key is known: {}", nodes::is_key_registered(&*store, [7; 32])?);
    let node = nodes::set_tags(&*admin, node.id, &["env:prod_1"]).await?;
    println!("tags: {}", node.tags.iter().map(|tag| tag.name()).collect::<Vec<_>>().join(", "));
    let limited = nodes::limit(&*admin, node.id, 25, 1_250_000).await?;
    println!("settings, revision {:?}", limited.settings.as_ref().map(|it| it.revision.get()));
    let moved = nodes::renumber(&*admin, node.id, [100, 64, 0, 9].into()).await?;
    println!("moved to {}", moved.ipv4.map(|ip| ip.to_string()).unwrap_or_default());
    let connection = nodes::connect(&*server, node.id).await?;
    for addr in ["192.0.2.1:41641", "[2001:db8::1]:41641"] {
        nodes::add_endpoint(&*server, node.id, connection, addr.parse()?).await?;
    }
    println!("heard: {}", nodes::heartbeat(&*server, node.id, connection).await?);
    let view = store.view();
    let presence = view.presence().get(node.id).ok_or("the node was never heard of")?;
    println!(
        "online: {}, endpoints: {}",
        nodes::online(&*store).await?.len(),
        presence.endpoints.len()
    );
    let lost = instances::keep(&*store, instance, Duration::from_secs(30)).await?;
    println!("held by this server: {}, lost: {lost}", presence.instance == Some(instance));
    let gone = "192.0.2.1:41641".parse()?;
    let left = nodes::remove_endpoint(&*server, node.id, connection, gone).await?;
    println!("endpoints left: {left}");
    let node = nodes::move_to_user(&*admin, node.id, bob.id).await?;
    let owner = node.user.map(|id| id.to_string()).unwrap_or_default();
    println!("its owner: {}", users::find(&*store, &owner).await?.name);

    for prefix in ["10.20.0.0/16", "10.30.0.0/16"] {
        routes::add(&*store, node.id, prefix.parse()?).await?;
    }
    let offered: Vec<_> = store.view().routes().of_node(node.id).cloned().collect();
    for route in &offered {
        routes::set_enabled(&*admin, route, true).await?;
    }
    let first = offered.first().ok_or("no route is offered")?;
    routes::set_enabled(&*admin, first, false).await?;
    let enabled: Vec<_> =
        routes::enabled(&*store).iter().map(|route| route.prefix.to_string()).collect();
    println!("enabled: {}", enabled.join(", "));
    let last = offered.last().ok_or("no route is offered")?;
    let last = store.routes().get(last.id).await?.ok_or("the route is gone")?;
    let last = routes::describe(&*admin, &last, 10, "the office").await?;
    println!("{}: metric {}", last.prefix, last.metric.get());
    println!("allowed: {}", nodes::allowed_ips(&*store, node.id).await?.join(", "));
    let (listed, released) = network::drop_ipv6(&*admin).await?;
    println!("addresses to take back: {listed}, nodes that lost one: {released}");

    let (key, secret) = credentials::create_api_key(&*admin, bob.id, "dashboard").await?;
    let known = store.api_keys().authenticate(secret.expose()).await?;
    println!("the API key is known: {}", known.id == key.id);
    let (_, secret) = credentials::create_preauth_key(&*admin, bob.id, false).await?;
    let key = store.preauth_keys().authenticate(secret.expose()).await?;
    println!("the pre-auth key admits one: {}", !key.reusable);
    let token = credentials::sign_in(&*store, bob.id, Duration::from_secs(86_400)).await?;
    let owner = credentials::validate_session(&*store, token.expose()).await?;
    println!("signed in: {}", owner == SessionOwner::User(bob.id));
    println!("sessions ended: {}", credentials::revoke_sessions(&*admin, bob.id).await?);
    println!("swept: {}", credentials::sweep(&*store).await?);

    let version = policies::update(&*admin, None, r#"{"rules": []}"#).await?;
    let stale = policies::update(&*admin, None, "{}").await.map_err(|error| error.kind().clone());
    println!("policy {version}, a stale edit: {stale:?}");

    dns::upsert(&*admin, "wiki.example.com", A, "10.20.0.7", 300).await?;
    dns::upsert(&*admin, "wiki.example.com", A, "10.20.0.8", 300).await?;
    dns::upsert(&*admin, "wiki.example.com", Mx, "10 Mail.Example.COM.", 300).await?;
    let name = "wiki.example.com".parse()?;
    println!("records: {}", dns::query(&*store, &name).join(", "));
    println!("deleted: {}", dns::delete(&*admin, &name, Mx).await?);

    let (now, second) = (store.clock().now()?, Duration::from_secs(1));
    for (at, bytes) in [(now, 1.0), (now.saturating_add(second), 2.0)] {
        let values = [("rx_bytes", bytes), ("tx_bytes", 2.0 * bytes)];
        metrics::record(&*store, node.id, at, &values).await?;
    }
    let end = now.saturating_add(2 * second);
    let points = metrics::of_node(&*store, node.id, end).await?.len();
    println!("points: {points}, sent: {}", metrics::sum(&*store, node.id, "tx_bytes", end).await?);

    // `get_network_map`, with the settings that a node is told. No cache is needed.
    let view = store.view();
    let map = view.netmap(node.id).ok_or("the node is gone")?;
    let relays = map.derp_map.regions.values().map(|region| region.servers.len()).sum::<usize>();
    let name = map.settings.name.as_ref().map_or("", |name| name.as_str());
    println!("map of {name}: MTU {:?}, {relays} relay", map.settings.mtu.map(|mtu| mtu.get()));

    // `audit::query_events`, newest first.
    let actor = Some("ann@example.com".parse()?);
    let query = AuditQuery { actor, newest_first: true, ..AuditQuery::default() };
    let trail = store.audit().query(&query, &PageRequest::default()).await?;
    let last = trail.items.first().map(|entry| entry.action.to_string());
    println!("last: {}", last.unwrap_or_default());
    let visitor = "eve@example.com".parse::<Actor>()?.at([192, 0, 2, 7].into());
    audit::denied(&*store, visitor, [7; 10]).await?;
    let query = AuditQuery { result: Some(AuditResult::Denied), ..AuditQuery::default() };
    let denied = store.audit().query(&query, &PageRequest::default()).await?.items;
    println!("denied: {}", denied.len());

    nodes::disconnect(&*server, node.id, connection).await?;
    println!("online: {}", nodes::online(&*store).await?.len());
    users::delete(&*admin, &bob.id.to_string()).await?;
    println!("nodes left: {}", store.view().nodes().len());
    println!("found by label: {}", nodes::find(&*store, "alice-s-laptop").is_some());
    store.instances().end(instance).await?;
    store.close().await?;
    Ok(())
}
