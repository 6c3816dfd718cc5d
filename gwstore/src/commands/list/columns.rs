//! What of an item is shown, to people and to programs. Never a secret or a hash of one: a list is read
//! over shoulders and pasted into tickets.

use std::fmt::Display;

use ghostwire_store::command::EntityRecord;
use ghostwire_store::domain::{
    ApiKey, BoundedSet, DnsRecord, Endpoint, Identity, Instance, MetricPoint, Node, NodeId, Policy,
    PreAuthKey, Presence, Route, Session, SessionOwner, Setting, SettingDocument, SignIn,
    Timestamp, User, UserId,
};
use ghostwire_store::portable::Item;
use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_core::state::State;
use serde_json::Value;

use crate::cli::Listing;

/// The columns of a table for people.
pub(super) fn titles(listing: Listing) -> &'static [&'static str] {
    match listing {
        Listing::Users => &[
            "ID",
            "NAME",
            "DISPLAY NAME",
            "EMAIL",
            "IDENTITY",
            "ROLE",
            "GROUPS",
            "CREATED",
            "LAST SIGN-IN",
        ],
        Listing::Nodes => &[
            "ID",
            "LABEL",
            "USER",
            "TAGS",
            "IPV4",
            "IPV6",
            "FAMILIES",
            "ONLINE",
            "LAST SEEN",
            "EXPIRES",
            "SETTINGS",
        ],
        Listing::Instances => &["ID", "NAME", "STARTED", "LAST SEEN", "NODES"],
        Listing::Presence => &[
            "NODE",
            "LABEL",
            "ONLINE",
            "SESSION",
            "LAST SEEN",
            "ENDPOINTS",
            "INSTANCE",
            "ABSENT SINCE",
        ],
        Listing::Routes => {
            &["ID", "NODE", "PREFIX", "ADVERTISED", "APPROVED", "PRIMARY", "METRIC", "DESCRIPTION"]
        }
        Listing::ApiKeys => &[
            "ID",
            "PREFIX",
            "USER",
            "DESCRIPTION",
            "PERMISSIONS",
            "STATE",
            "CREATED BY",
            "CREATED",
            "EXPIRES",
        ],
        Listing::PreauthKeys => {
            &["ID", "PREFIX", "USER", "TAGS", "REUSABLE", "EPHEMERAL", "STATE", "EXPIRES"]
        }
        Listing::Policies => &["VERSION", "IN FORCE", "AUTHOR", "CREATED", "BYTES"],
        Listing::DnsRecords => &["ID", "NAME", "KIND", "VALUE", "TTL"],
        Listing::Sessions => {
            &["ID", "OWNER", "FROM NODE", "CLIENT", "CREATED", "EXPIRES", "LAST SEEN"]
        }
        Listing::SignIns => &["ID", "PURPOSE", "CREATED", "EXPIRES"],
        Listing::Settings => &["DOCUMENT", "REVISION", "UPDATED", "CONTENT"],
        Listing::Metrics => &["NODE", "METRIC", "AT", "VALUE"],
        Listing::Audit => &[
            "AT",
            "ACTOR",
            "ACTION",
            "ENTITY",
            "SUBJECT",
            "SECOND",
            "RESULT",
            "ADDRESS",
            "USER AGENT",
            "DETAILS",
        ],
    }
}

/// A row of such a table.
pub(super) fn cells(item: &Item, state: &State, now: Timestamp) -> Vec<String> {
    match item {
        Item::Entity(image) => match image {
            EntityRecord::User(user) => user_cells(user),
            EntityRecord::Node(node) => node_cells(node, state),
            EntityRecord::Instance(instance) => instance_cells(instance, state),
            EntityRecord::Presence(presence) => presence_cells(presence, state),
            EntityRecord::Route(route) => route_cells(route, state),
            EntityRecord::ApiKey(key) => api_key_cells(key, state, now),
            EntityRecord::PreAuthKey(key) => preauth_key_cells(key, state, now),
            EntityRecord::Policy(policy) => policy_cells(policy, state),
            EntityRecord::DnsRecord(record) => dns_cells(record),
            EntityRecord::Session(session) => session_cells(session, state),
            EntityRecord::SignIn(sign_in) => sign_in_cells(sign_in),
            EntityRecord::Setting(setting) => setting_cells(setting),
        },
        Item::Metric(MetricPoint { node, metric, at, value }) => vec![
            node.map_or_else(|| "(network)".to_owned(), |node| label_of(node, state)),
            metric.to_string(),
            at.to_string(),
            value.get().to_string(),
        ],
        Item::Audit(entry) => vec![
            entry.at.to_string(),
            entry.actor.to_string(),
            entry.action.to_string(),
            entry.entity.to_string(),
            entry.subject.to_string(),
            optional(entry.second.as_ref()),
            entry.result.to_string(),
            optional(entry.address),
            optional(entry.user_agent.as_ref()),
            optional(entry.details.as_ref()),
        ],
    }
}

fn user_cells(user: &User) -> Vec<String> {
    let identity = match &user.identity {
        Identity::Local {} => "local".to_owned(),
        Identity::Oidc { provider, .. } => provider.to_string(),
        Identity::PreAuth {} => "pre-auth".to_owned(),
    };
    vec![
        user.id.to_string(),
        user.name.to_string(),
        optional(user.display_name.as_ref()),
        optional(user.email.as_ref()),
        identity,
        user.role.to_string(),
        set(&user.groups),
        user.created_at.to_string(),
        optional(user.last_sign_in_at),
    ]
}

fn node_cells(node: &Node, state: &State) -> Vec<String> {
    let last_seen = state.presence().get(node.id).and_then(|presence| presence.last_seen);
    vec![
        node.id.to_string(),
        node.label.to_string(),
        owner(node.user, state),
        set(&node.tags),
        optional(node.ipv4),
        optional(node.ipv6),
        node.families.to_string(),
        yes_or_no(state.presence().is_online(node.id)),
        optional(last_seen),
        expiry(node.expires_at),
        optional(node.settings.as_ref().and_then(|settings| serde_json::to_string(settings).ok())),
    ]
}

fn presence_cells(presence: &Presence, state: &State) -> Vec<String> {
    let addresses: Vec<_> = presence.endpoints.iter().map(endpoint).collect();
    vec![
        presence.node.to_string(),
        label_of(presence.node, state),
        yes_or_no(presence.online),
        presence.session.to_string(),
        optional(presence.last_seen),
        addresses.join(" "),
        optional(presence.instance.map(|id| {
            let instance = state.instances().get(id);
            instance.map_or_else(|| id.to_string(), |instance| instance.name.to_string())
        })),
        optional(presence.absent_since),
    ]
}

fn instance_cells(instance: &Instance, state: &State) -> Vec<String> {
    let held = state.presence().iter().filter(|it| it.instance == Some(instance.id)).count();
    vec![
        instance.id.to_string(),
        instance.name.to_string(),
        instance.started_at.to_string(),
        instance.last_seen.to_string(),
        held.to_string(),
    ]
}

/// An address with what more is known of it, such as `192.0.2.1:41641 (stun, 10)`.
fn endpoint(endpoint: &Endpoint) -> String {
    let Endpoint { addr, kind, preference, .. } = endpoint;
    match (kind.is_unknown(), preference) {
        (true, 0) => addr.to_string(),
        (_, 0) => format!("{addr} ({kind})"),
        _ => format!("{addr} ({kind}, {preference})"),
    }
}

fn route_cells(route: &Route, state: &State) -> Vec<String> {
    vec![
        route.id.to_string(),
        label_of(route.node, state),
        route.prefix.to_string(),
        yes_or_no(route.advertised),
        yes_or_no(route.approved),
        yes_or_no(route.primary),
        route.metric.to_string(),
        optional(route.description.as_ref()),
    ]
}

fn api_key_cells(key: &ApiKey, state: &State, now: Timestamp) -> Vec<String> {
    vec![
        key.id.to_string(),
        key.prefix.to_string(),
        owner(key.user, state),
        optional(key.description.as_ref()),
        set(&key.permissions),
        standing(key.revoked_at, key.expires_at, false, now),
        optional(key.created_by.as_ref()),
        key.created_at.to_string(),
        expiry(key.expires_at),
    ]
}

fn preauth_key_cells(key: &PreAuthKey, state: &State, now: Timestamp) -> Vec<String> {
    vec![
        key.id.to_string(),
        optional(key.prefix.as_ref()),
        owner(key.user, state),
        set(&key.tags),
        yes_or_no(key.reusable),
        yes_or_no(key.ephemeral),
        standing(key.revoked_at, key.expires_at, !key.reusable && key.used_at.is_some(), now),
        expiry(key.expires_at),
    ]
}

fn policy_cells(policy: &Policy, state: &State) -> Vec<String> {
    let current = state.policies().current().map(|current| current.version);
    vec![
        policy.version.to_string(),
        yes_or_no(current == Some(policy.version)),
        policy.author.to_string(),
        policy.created_at.to_string(),
        policy.document.as_str().len().to_string(),
    ]
}

fn dns_cells(record: &DnsRecord) -> Vec<String> {
    vec![
        record.id.to_string(),
        record.name.to_string(),
        record.kind.to_string(),
        record.value.to_string(),
        optional(record.ttl),
    ]
}

fn session_cells(session: &Session, state: &State) -> Vec<String> {
    let whose = match session.owner {
        SessionOwner::User(user) => owner(Some(user), state),
        SessionOwner::Node(node) => label_of(node, state),
    };
    vec![
        session.id.to_string(),
        whose,
        optional(session.node.map(|node| label_of(node, state))),
        optional(session.client.as_ref()),
        session.created_at.to_string(),
        session.expires_at.to_string(),
        session.last_seen.to_string(),
    ]
}

fn sign_in_cells(sign_in: &SignIn) -> Vec<String> {
    vec![
        sign_in.id.to_string(),
        sign_in.purpose.to_string(),
        sign_in.created_at.to_string(),
        sign_in.expires_at.to_string(),
    ]
}

fn setting_cells(setting: &Setting) -> Vec<String> {
    let (name, content) = match &setting.document {
        SettingDocument::Network(network) => ("network", serde_json::to_string(network)),
        SettingDocument::DerpMap(map) => ("derp_map", serde_json::to_string(map)),
        SettingDocument::Dns(dns) => ("dns", serde_json::to_string(dns)),
    };
    vec![
        name.to_owned(),
        setting.revision.to_string(),
        setting.updated_at.to_string(),
        content.unwrap_or_default(),
    ]
}

fn optional(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn expiry(expires_at: Option<Timestamp>) -> String {
    expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string())
}

fn yes_or_no(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

fn set<T: Display, const MAX: usize>(set: &BoundedSet<T, MAX>) -> String {
    if set.is_empty() {
        return "-".to_owned();
    }
    set.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn owner(user: Option<UserId>, state: &State) -> String {
    let Some(id) = user else { return "-".to_owned() };
    state.users().get(id).map_or_else(|| id.to_string(), |user| user.name.to_string())
}

fn label_of(node: NodeId, state: &State) -> String {
    state.nodes().get(node).map_or_else(|| node.to_string(), |node| node.label.to_string())
}

fn standing(
    revoked_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    is_used_up: bool,
    now: Timestamp,
) -> String {
    let is_expired = ghostwire_store::domain::expired(expires_at, now);
    let standing = match (revoked_at.is_some(), is_expired, is_used_up) {
        (true, _, _) => "revoked",
        (_, true, _) => "expired",
        (_, _, true) => "used",
        _ => "active",
    };
    standing.to_owned()
}

/// The item for programs: all of it, but for hashes of secrets, of which only the scheme is left, and
/// for what completes a sign-in.
pub(super) fn object(item: &Item) -> Result<Value> {
    let object = match item {
        Item::Entity(image) => match image {
            EntityRecord::User(user) => serde_json::to_value(user),
            EntityRecord::Node(node) => serde_json::to_value(node),
            EntityRecord::Instance(instance) => serde_json::to_value(instance),
            EntityRecord::Presence(presence) => serde_json::to_value(presence),
            EntityRecord::Route(route) => serde_json::to_value(route),
            EntityRecord::ApiKey(key) => serde_json::to_value(key),
            EntityRecord::PreAuthKey(key) => serde_json::to_value(key),
            EntityRecord::Policy(policy) => serde_json::to_value(policy),
            EntityRecord::DnsRecord(record) => serde_json::to_value(record),
            EntityRecord::Session(session) => serde_json::to_value(session),
            EntityRecord::SignIn(sign_in) => serde_json::to_value(sign_in),
            EntityRecord::Setting(setting) => serde_json::to_value(setting),
        },
        Item::Metric(point) => serde_json::to_value(point),
        Item::Audit(entry) => serde_json::to_value(entry),
    };
    let mut object = object.map_err(|error| {
        Error::new(ErrorKind::Unexpected, "an item has no JSON form").because(error)
    })?;
    let has_hash = matches!(
        item,
        Item::Entity(
            EntityRecord::ApiKey(_)
                | EntityRecord::PreAuthKey(_)
                | EntityRecord::Session(_)
                | EntityRecord::SignIn(_)
        )
    );
    if has_hash && let Some(hash) = object.get_mut("hash") {
        let scheme = hash.as_str().and_then(|hash| hash.split(':').next()).unwrap_or_default();
        *hash = Value::String(format!("{scheme}:…redacted"));
    }
    if let Item::Entity(EntityRecord::SignIn(_)) = item
        && let Some(payload) = object.get_mut("payload")
    {
        *payload = Value::String("…redacted".to_owned());
    }
    Ok(object)
}
