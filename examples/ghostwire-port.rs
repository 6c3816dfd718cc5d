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

/// `operations::UserOperations`.
mod users {
    use ghostwire_store::domain::{
        GroupSet, NewUser, OidcProfile, Update, User, UserId, UserPatch, UserRole,
    };
    use ghostwire_store::{Error, ErrorKind};

    use super::{Arc, Result, Store};

    /// `create`.
    pub(super) async fn create(
        store: &dyn Store,
        name: &str,
        email: Option<&str>,
    ) -> Result<Arc<User>> {
        let email = email.map(str::parse).transpose()?;
        store.users().create(NewUser { email, ..NewUser::local(name.parse()?) }).await
    }

    /// `get_by_identifier`: an id or a name.
    pub(super) async fn find(store: &dyn Store, identifier: &str) -> Result<Arc<User>> {
        let found = match identifier.parse::<UserId>() {
            Ok(id) => store.users().get(id).await?,
            Err(_) => store.users().get_by_name(&identifier.parse()?).await?,
        };
        let missing = || Error::new(ErrorKind::NotFound, "no such user").with("user", identifier);
        found.ok_or_else(missing)
    }

    /// `list_all`, by name. A snapshot is sorted where it is shown.
    pub(super) fn list_all(store: &dyn Store) -> Vec<Arc<User>> {
        let mut users: Vec<_> = store.view().users().iter().cloned().collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }

    /// `update_last_seen`, at a sign-in that no provider tells of.
    pub(super) async fn signed_in(store: &dyn Store, user: UserId) -> Result<()> {
        store.users().record_sign_in(user).await?;
        Ok(())
    }

    /// `role` and `metadata`.
    pub(super) async fn describe(
        store: &dyn Store,
        user: UserId,
        role: UserRole,
        metadata: &str,
    ) -> Result<Arc<User>> {
        let patch = UserPatch { role: Update::Set(role), ..UserPatch::default() };
        store.users().update(user, patch, None).await?;
        store.users().set_metadata(user, Some(metadata.parse()?), None).await
    }

    /// `delete`, with all that the user owns.
    pub(super) async fn delete(store: &dyn Store, identifier: &str) -> Result<()> {
        let user = find(store, identifier).await?;
        store.users().delete(user.id, true).await
    }

    /// `coordinator.upsert_user_from_oidc`. The issuer is part of who somebody is.
    pub(super) async fn upsert_from_oidc(
        store: &dyn Store,
        issuer: &str,
        subject: &str,
        name: &str,
    ) -> Result<Arc<User>> {
        let profile = OidcProfile {
            provider: issuer.parse()?,
            subject: subject.parse()?,
            // What does not show is left out.
            name: ghostwire_store::domain::UserName::from_outside(name)?,
            display_name: None,
            email: None,
            email_verified: false,
            picture_url: None,
            groups: GroupSet::empty(),
        };
        store.users().upsert_oidc(profile).await
    }
}

/// `auth::oidc`: what the server remembers while somebody is at the identity provider.
mod sign_ins {
    use ghostwire_store::domain::{NewSignIn, SignInPayload};

    use super::{Duration, Result, Store};

    const PURPOSE: &str = "oidc";

    /// The state goes along with the browser; what it stands for stays here.
    pub(super) async fn begin(store: &dyn Store, state: &str, payload: &str) -> Result<()> {
        let expires_at = store.clock().now()?.saturating_add(Duration::from_secs(600));
        let (purpose, payload) = (PURPOSE.parse()?, SignInPayload::new(payload)?);
        store.sign_ins().begin(state, NewSignIn { purpose, payload, expires_at }).await?;
        Ok(())
    }

    /// The browser is back, at whichever server. It is given out once.
    pub(super) async fn complete(store: &dyn Store, state: &str) -> Result<SignInPayload> {
        Ok(store.sign_ins().take(&PURPOSE.parse()?, state).await?.payload.clone())
    }
}

/// Several servers beside each other, which the original does not know.
mod instances {
    use ghostwire_store::domain::{InstanceId, InstanceName};

    use super::{Arc, Duration, Result, Store};

    /// A server that starts: what it held before is disconnected, what others hold is not. The handle
    /// opens connections in its name.
    pub(super) async fn begin(
        store: &dyn Store,
        name: InstanceName,
    ) -> Result<(InstanceId, Arc<dyn Store>)> {
        let id = store.instances().begin(name).await?.id;
        Ok((id, store.as_instance(id)))
    }

    /// From a timer: it is there, and what a server held that was not seen for so long is disconnected.
    pub(super) async fn keep(store: &dyn Store, id: InstanceId, cutoff: Duration) -> Result<u64> {
        store.instances().beat(id).await?;
        let unseen_since = store.clock().now()?.saturating_sub(cutoff);
        store.presence().disconnect_lost(unseen_since).await
    }
}

/// `operations::NodeOperations`, `coordinator::NodeManager` and `HeartbeatMonitor`.
mod nodes {
    use std::net::Ipv4Addr;

    use ghostwire_store::domain::{
        Admission, ByteRate, DnsLabel, Endpoint, Hostname, MachineKey, NewAddress, Node,
        NodeFilter, NodeId, NodeKey, NodePatch, NodeSettingsPatch, PageRequest, Patch,
        RegisterMethod, Registration, Renumbering, SessionNumber, Tag, TagSet, Update, UserId,
    };

    use super::{Arc, Result, SocketAddr, Store};

    /// `create`: addresses and the name in DNS are the store's to choose. Ghostwire has one key for each
    /// machine, which stands for both.
    pub(super) async fn create(
        store: &dyn Store,
        user: UserId,
        name: &str,
        public_key: [u8; 32],
    ) -> Result<Arc<Node>> {
        let key = NodeKey::from_bytes(public_key)?;
        let known = store.view().nodes().by_node_key(&key).map(|node| node.machine_key);
        let machine = known.unwrap_or_else(|| MachineKey::of_node_key(&key));
        let admission = Admission::User { user, method: RegisterMethod::Cli };
        let hostname = Hostname::from_outside(name);
        store.nodes().register(Registration::new(machine, key, hostname, admission)).await
    }

    /// `get_by_identifier`: an id or a name.
    pub(super) fn find(store: &dyn Store, identifier: &str) -> Option<Arc<Node>> {
        let view = store.view();
        let node = match identifier.parse::<NodeId>() {
            Ok(id) => view.nodes().get(id),
            Err(_) => view.nodes().by_label(&identifier.parse::<DnsLabel>().ok()?),
        };
        node.cloned()
    }

    /// `is_key_registered`.
    pub(super) fn is_key_registered(store: &dyn Store, public_key: [u8; 32]) -> Result<bool> {
        let key = NodeKey::from_bytes(public_key)?;
        Ok(store.view().nodes().by_node_key(&key).is_some())
    }

    /// `get_online_nodes`.
    pub(super) async fn online(store: &dyn Store) -> Result<Vec<Arc<Node>>> {
        let filter = NodeFilter { online: Some(true), ..NodeFilter::default() };
        let (mut nodes, mut request) = (Vec::new(), PageRequest::default());
        loop {
            let page = store.nodes().list(&filter, &request).await?;
            nodes.extend(page.items);
            match page.next {
                Some(next) => request.cursor = Some(next),
                None => return Ok(nodes),
            }
        }
    }

    /// `move_to_user`.
    pub(super) async fn move_to_user(
        store: &dyn Store,
        node: NodeId,
        user: UserId,
    ) -> Result<Arc<Node>> {
        let patch = NodePatch { user: Patch::Set(user), ..NodePatch::default() };
        store.nodes().update(node, patch, None).await
    }

    /// Tags are free text there; what a tag cannot have becomes a hyphen.
    pub(super) async fn set_tags(
        store: &dyn Store,
        node: NodeId,
        texts: &[&str],
    ) -> Result<Arc<Node>> {
        let tags = texts.iter().map(Tag::from_outside).collect::<Result<Vec<_>>>()?;
        let patch = NodePatch { tags: Update::Set(TagSet::new(tags)?), ..NodePatch::default() };
        store.nodes().update(node, patch, None).await
    }

    /// `NodeSettings` and the limits of a bandwidth: what an administrator sets.
    pub(super) async fn limit(
        store: &dyn Store,
        node: NodeId,
        keepalive: u16,
        upload: u64,
    ) -> Result<Arc<Node>> {
        let patch = NodeSettingsPatch {
            persistent_keepalive_seconds: Patch::Set(keepalive),
            upload_limit: Patch::Set(ByteRate::new(upload)?),
            ..NodeSettingsPatch::default()
        };
        store.nodes().update_settings(node, patch, None).await
    }

    /// `allowed_ips`: its addresses, and the prefixes for which it is primary.
    pub(super) async fn allowed_ips(store: &dyn Store, node: NodeId) -> Result<Vec<String>> {
        let prefixes = store.nodes().allowed_ips(node).await?.unwrap_or_default();
        Ok(prefixes.iter().map(ToString::to_string).collect())
    }

    /// `allocate_ip` for a node that has an address: this one, and no other.
    pub(super) async fn renumber(
        store: &dyn Store,
        node: NodeId,
        ipv4: Ipv4Addr,
    ) -> Result<Arc<Node>> {
        let wanted = Renumbering { ipv4: NewAddress::Given(ipv4), ..Renumbering::default() };
        store.nodes().renumber(node, wanted, None).await
    }

    /// `update_online_status(true)`. The number of the connection is drawn.
    pub(super) async fn connect(store: &dyn Store, node: NodeId) -> Result<SessionNumber> {
        Ok(store.presence().open(node, Update::Keep).await?.session)
    }

    /// `record_heartbeat`.
    pub(super) async fn heartbeat(
        store: &dyn Store,
        node: NodeId,
        connection: SessionNumber,
    ) -> Result<bool> {
        Ok(store.presence().heartbeat(node, connection, Update::Keep).await?.online)
    }

    /// `update_endpoint`: one more, or one that was seen again.
    pub(super) async fn add_endpoint(
        store: &dyn Store,
        node: NodeId,
        connection: SessionNumber,
        addr: SocketAddr,
    ) -> Result<()> {
        let seen = Endpoint::new(addr, store.clock().now()?);
        store.presence().put_endpoint(node, connection, seen).await?;
        Ok(())
    }

    /// One that is no more; the others stay.
    pub(super) async fn remove_endpoint(
        store: &dyn Store,
        node: NodeId,
        connection: SessionNumber,
        addr: SocketAddr,
    ) -> Result<usize> {
        Ok(store.presence().remove_endpoint(node, connection, addr).await?.endpoints.len())
    }

    /// `update_online_status(false)`.
    pub(super) async fn disconnect(
        store: &dyn Store,
        node: NodeId,
        connection: SessionNumber,
    ) -> Result<()> {
        store.presence().disconnect(node, connection).await?;
        Ok(())
    }
}

/// `operations::RouteOperations`.
mod routes {
    use ghostwire_store::domain::{NodeId, Patch, Prefix, Route, RouteMetric, RoutePatch, Update};

    use super::{Arc, Result, Store};

    /// `metric` and description.
    pub(super) async fn describe(
        store: &dyn Store,
        route: &Route,
        metric: u32,
        description: &str,
    ) -> Result<Arc<Route>> {
        let (metric, description) =
            (Update::Set(RouteMetric::new(metric)), Patch::Set(description.parse()?));
        let patch = RoutePatch { metric, description };
        store.routes().update(route.id, patch, Some(route.revision)).await
    }

    /// `create`: one more that the node offers.
    pub(super) async fn add(store: &dyn Store, node: NodeId, prefix: Prefix) -> Result<()> {
        store.routes().advertise_one(node, prefix).await?;
        Ok(())
    }

    /// `set_enabled`.
    pub(super) async fn set_enabled(store: &dyn Store, route: &Route, enabled: bool) -> Result<()> {
        store.routes().set_approved(route.id, enabled).await?;
        Ok(())
    }

    /// `list_enabled`: advertised and approved.
    pub(super) fn enabled(store: &dyn Store) -> Vec<Arc<Route>> {
        store.view().routes().carrying().cloned().collect()
    }
}

/// `operations::ApiKeyOperations`, `PreAuthKeyOperations` and `auth::session`.
mod credentials {
    use ghostwire_store::domain::{
        ApiKey, NewApiKey, NewPreAuthKey, NewSession, PreAuthKey, Secret, SessionOwner, UserId,
    };

    use super::{Arc, Duration, Result, Store};

    /// `ApiKeyOperations::create`. The text of the key is shown once.
    pub(super) async fn create_api_key(
        store: &dyn Store,
        user: UserId,
        description: &str,
    ) -> Result<(Arc<ApiKey>, Secret)> {
        let description = Some(description.parse()?);
        store
            .api_keys()
            .create(NewApiKey { user: Some(user), description, ..NewApiKey::default() })
            .await
    }

    /// `PreAuthKeyOperations::create`.
    pub(super) async fn create_preauth_key(
        store: &dyn Store,
        user: UserId,
        reusable: bool,
    ) -> Result<(Arc<PreAuthKey>, Secret)> {
        let new = NewPreAuthKey { user: Some(user), reusable, ..NewPreAuthKey::default() };
        store.preauth_keys().create(new).await
    }

    /// `insert_session`. The token is the store's to make.
    pub(super) async fn sign_in(
        store: &dyn Store,
        user: UserId,
        for_how_long: Duration,
    ) -> Result<Secret> {
        let expires_at = store.clock().now()?.saturating_add(for_how_long);
        let owner = SessionOwner::User(user);
        Ok(store
            .sessions()
            .begin(NewSession { owner, node: None, client: None, expires_at })
            .await?
            .1)
    }

    /// `coordinator.validate_session`, with `update_session_last_used` in it.
    pub(super) async fn validate_session(store: &dyn Store, token: &str) -> Result<SessionOwner> {
        Ok(store.sessions().authenticate(token).await?.owner)
    }

    /// `revoke_user_sessions`.
    pub(super) async fn revoke_sessions(store: &dyn Store, user: UserId) -> Result<u64> {
        store.sessions().end_all(SessionOwner::User(user)).await
    }

    /// `cleanup_expired_keys`, `delete_expired_sessions` and the states of sign-ins, from a timer.
    pub(super) async fn sweep(store: &dyn Store) -> Result<u64> {
        let now = store.clock().now()?;
        let keys = store.api_keys().sweep_expired(now).await?
            + store.preauth_keys().sweep_expired(now).await?;
        Ok(keys + store.sessions().sweep().await? + store.sign_ins().sweep().await?)
    }
}

/// `operations::AclOperations`.
mod policies {
    use ghostwire_store::Result;
    use ghostwire_store::domain::{DocumentText, PolicyVersion};

    use super::Store;

    /// `update_policy`: all rules are one document, whose version is the store's. Whoever edited another
    /// version is refused (`Conflict`).
    pub(super) async fn update(
        store: &dyn Store,
        edited: Option<PolicyVersion>,
        document: &str,
    ) -> Result<PolicyVersion> {
        Ok(store.policies().swap(edited, DocumentText::new(document)?).await?.version)
    }
}

/// `operations::DnsOperations`.
mod dns {
    use ghostwire_store::domain::{DnsName, DnsRecordKind, NewDnsRecordSet};

    use super::{Result, Store};

    /// `upsert_record`: whatever the name had of the kind is replaced.
    pub(super) async fn upsert(
        store: &dyn Store,
        name: &str,
        kind: DnsRecordKind,
        value: &str,
        ttl: u32,
    ) -> Result<()> {
        let (name, values) = (name.parse()?, vec![value.parse()?]);
        store.dns().put(NewDnsRecordSet { name, kind, values, ttl: Some(ttl) }, None).await?;
        Ok(())
    }

    /// `query_records`.
    pub(super) fn query(store: &dyn Store, name: &DnsName) -> Vec<String> {
        let view = store.view();
        view.dns_records().of_name(name).map(|it| format!("{} {}", it.kind, it.value)).collect()
    }

    /// `delete_record`.
    pub(super) async fn delete(
        store: &dyn Store,
        name: &DnsName,
        kind: DnsRecordKind,
    ) -> Result<u64> {
        store.dns().delete_set(name, kind, None).await
    }
}

/// `coordinator.get_network_info`, `get_dns_config` and `get_derp_config`.
mod network {
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
        let map: DerpMap = serde_json::from_str(relays).map_err(|error| {
            ghostwire_store::Error::invalid("relays are a DERP map").because(error)
        })?;
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
}

/// `audit::record_event`, of what the store does not see itself.
mod audit {
    use ghostwire_store::domain::{Actor, AuditEntry, AuditId, AuditResult, ResourceKind};

    use super::{Result, Store};

    /// A sign-in that was refused.
    pub(super) async fn denied(store: &dyn Store, who: Actor, random: [u8; 10]) -> Result<()> {
        let at = store.clock().now()?;
        let (id, kind) = (AuditId::time_ordered(at, random), "auth".parse::<ResourceKind>()?);
        let line = AuditEntry::new((at, id), who, "auth.login".parse()?, kind, "console".parse()?);
        let details = Some(r#"{"reason":"unknown user"}"#.parse()?);
        let line = AuditEntry { result: AuditResult::Denied, details, ..line };
        store.audit().append(vec![line]).await
    }
}

/// `operations::MetricsOperations`.
mod metrics {
    use ghostwire_store::domain::{
        MetricPoint, MetricQuery, NodeId, PageRequest, Sample, Timestamp,
    };

    use super::{Result, Store};

    /// `record_metrics`: a row of several values becomes as many points of one time.
    pub(super) async fn record(
        store: &dyn Store,
        node: NodeId,
        at: Timestamp,
        values: &[(&str, f64)],
    ) -> Result<()> {
        let point = |(metric, value): &(&str, f64)| -> Result<MetricPoint> {
            let (metric, value) = (metric.parse()?, Sample::new(*value)?);
            Ok(MetricPoint { node: Some(node), metric, at, value })
        };
        store.metrics().record_many(values.iter().map(point).collect::<Result<_>>()?).await
    }

    fn query(node: NodeId, metric: Option<&str>, end: Timestamp) -> Result<MetricQuery> {
        let metric = metric.map(str::parse).transpose()?;
        Ok(MetricQuery { node: Some(Some(node)), metric, from: Timestamp::EPOCH, to: end })
    }

    /// `get_node_metrics`. The end is exclusive.
    pub(super) async fn of_node(
        store: &dyn Store,
        node: NodeId,
        end: Timestamp,
    ) -> Result<Vec<MetricPoint>> {
        let query = query(node, None, end)?;
        Ok(store.metrics().range(&query, &PageRequest::default()).await?.items)
    }

    /// `get_aggregate_metrics`, of one metric.
    pub(super) async fn sum(
        store: &dyn Store,
        node: NodeId,
        metric: &str,
        end: Timestamp,
    ) -> Result<f64> {
        let query = query(node, Some(metric), end)?;
        Ok(store.metrics().aggregate(&query).await?.map_or(0.0, |all| all.sum))
    }
}

/// What the browser takes along to the identity provider, and brings back.
const STATE: &str = "af0ifjsldkj-3f7Jx0";

/// What relays the configuration names.
const RELAYS: &str = r#"{"regions": {"900": {"code": "fra", "name": "Frankfurt",
    "location": {"latitude": 50.11, "longitude": 8.68}, "servers": [
        {"host": "derp.example.com", "stun_port": 3478, "can_port_80": true, "force_http": true}
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
