//! What of an item is shown, to people and to programs. Never a secret or a hash of one: a list is read
//! over shoulders and pasted into tickets.

use std::fmt::Display;

use ghostwire_store::command::EntityRecord;
use ghostwire_store::domain::{
    ApiKey, AuditEntry, BoundedSet, DnsRecord, Endpoint, Identity, Instance, InstanceId,
    MetricPoint, Node, NodeId, Policy, PreAuthKey, Presence, Route, Session, SessionOwner, Setting,
    SettingDocument, SignIn, Timestamp, User, UserId, expired,
};
use ghostwire_store::portable::Item;
use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::Table;
use serde_json::{Map, Value};

use crate::nouns::{Scene, label_of};
use crate::output::moment;

/// A column: its title for people, its name for programs, and what is in it.
struct Column<E>(&'static str, &'static str, fn(&E, &Scene<'_>) -> Cell);

/// What is in a column.
enum Cell {
    Text(String),
    /// A moment, which people see as so long ago.
    Time(Option<Timestamp>),
    /// When something ends.
    Ends(Option<Timestamp>),
    /// A moment of which people want to know exactly when.
    Exact(Timestamp),
    Is(bool),
    List(Vec<String>),
    None,
}

use Cell::{Ends, Exact, Is, Time};

static USERS: &[Column<User>] = &[
    Column("ID", "id", |user, _| text(user.id)),
    Column("NAME", "name", |user, _| text(&user.name)),
    Column("DISPLAY NAME", "display_name", |user, _| optional(user.display_name.as_ref())),
    Column("EMAIL", "email", |user, _| optional(user.email.as_ref())),
    Column("IDENTITY", "identity", |user, _| match &user.identity {
        Identity::Local {} => text("local"),
        Identity::Oidc { provider, .. } => text(provider),
        Identity::PreAuth {} => text("pre-auth"),
    }),
    Column("ROLE", "role", |user, _| text(user.role)),
    Column("GROUPS", "groups", |user, _| set(&user.groups)),
    Column("CREATED", "created_at", |user, _| Time(Some(user.created_at))),
    Column("LAST SIGN-IN", "last_sign_in_at", |user, _| Time(user.last_sign_in_at)),
];

static NODES: &[Column<Node>] = &[
    Column("ID", "id", |node, _| text(node.id)),
    Column("LABEL", "label", |node, _| text(&node.label)),
    Column("USER", "user_name", |node, scene| owner(node.user, scene)),
    Column("TAGS", "tags", |node, _| set(&node.tags)),
    Column("IPV4", "ipv4", |node, _| optional(node.ipv4)),
    Column("IPV6", "ipv6", |node, _| optional(node.ipv6)),
    Column("FAMILIES", "families", |node, _| text(node.families)),
    Column("EPHEMERAL", "ephemeral", |node, _| Is(node.ephemeral)),
    Column("ONLINE", "online", |node, scene| Is(scene.state.presence().is_online(node.id))),
    Column("LAST SEEN", "last_seen", |node, scene| {
        Time(scene.state.presence().get(node.id).and_then(|presence| presence.last_seen))
    }),
    Column("EXPIRES", "expires_at", |node, _| Ends(node.expires_at)),
    Column("EXPIRED", "expired", |node, scene| Is(expired(node.expires_at, scene.now))),
    Column("SETTINGS", "settings", |node, _| {
        optional(node.settings.as_ref().and_then(|settings| serde_json::to_string(settings).ok()))
    }),
];

static INSTANCES: &[Column<Instance>] = &[
    Column("ID", "id", |instance, _| text(instance.id)),
    Column("NAME", "name", |instance, _| text(&instance.name)),
    Column("STARTED", "started_at", |instance, _| Time(Some(instance.started_at))),
    Column("LAST SEEN", "last_seen", |instance, _| Time(Some(instance.last_seen))),
    Column("NODES", "nodes", |instance, scene| {
        let held = |presence: &&std::sync::Arc<Presence>| presence.instance == Some(instance.id);
        text(scene.state.presence().iter().filter(held).count())
    }),
];

static PRESENCE: &[Column<Presence>] = &[
    Column("NODE", "node", |presence, _| text(presence.node)),
    Column("LABEL", "label", |presence, scene| label(presence.node, scene)),
    Column("ONLINE", "online", |presence, _| Is(presence.online)),
    Column("SESSION", "session", |presence, _| text(presence.session)),
    Column("LAST SEEN", "last_seen", |presence, _| Time(presence.last_seen)),
    Column("ENDPOINTS", "endpoints", |presence, _| {
        Cell::List(presence.endpoints.iter().map(endpoint).collect())
    }),
    Column("INSTANCE", "instance_name", |presence, scene| match presence.instance {
        Some(id) => text(name_of_instance(id, scene)),
        None => Cell::None,
    }),
    Column("ABSENT SINCE", "absent_since", |presence, _| Time(presence.absent_since)),
];

static ROUTES: &[Column<Route>] = &[
    Column("ID", "id", |route, _| text(route.id)),
    Column("NODE", "node_label", |route, scene| label(route.node, scene)),
    Column("PREFIX", "prefix", |route, _| text(route.prefix)),
    Column("ADVERTISED", "advertised", |route, _| Is(route.advertised)),
    Column("APPROVED", "approved", |route, _| Is(route.approved)),
    Column("PRIMARY", "primary", |route, _| Is(route.primary)),
    Column("METRIC", "metric", |route, _| text(route.metric)),
    Column("DESCRIPTION", "description", |route, _| optional(route.description.as_ref())),
];

static API_KEYS: &[Column<ApiKey>] = &[
    Column("ID", "id", |key, _| text(key.id)),
    Column("PREFIX", "prefix", |key, _| text(&key.prefix)),
    Column("USER", "user_name", |key, scene| owner(key.user, scene)),
    Column("DESCRIPTION", "description", |key, _| optional(key.description.as_ref())),
    Column("PERMISSIONS", "permissions", |key, _| set(&key.permissions)),
    Column("STATE", "state", |key, scene| standing(key.revoked_at, key.expires_at, false, scene)),
    Column("CREATED BY", "created_by", |key, _| optional(key.created_by.as_ref())),
    Column("CREATED", "created_at", |key, _| Time(Some(key.created_at))),
    Column("EXPIRES", "expires_at", |key, _| Ends(key.expires_at)),
    Column("LAST USED", "last_used_at", |key, _| Time(key.last_used_at)),
];

static PREAUTH_KEYS: &[Column<PreAuthKey>] = &[
    Column("ID", "id", |key, _| text(key.id)),
    Column("PREFIX", "prefix", |key, _| optional(key.prefix.as_ref())),
    Column("USER", "user_name", |key, scene| owner(key.user, scene)),
    Column("TAGS", "tags", |key, _| set(&key.tags)),
    Column("REUSABLE", "reusable", |key, _| Is(key.reusable)),
    Column("EPHEMERAL", "ephemeral", |key, _| Is(key.ephemeral)),
    Column("STATE", "state", |key, scene| {
        let is_used_up = !key.reusable && key.used_at.is_some();
        standing(key.revoked_at, key.expires_at, is_used_up, scene)
    }),
    Column("CREATED", "created_at", |key, _| Time(Some(key.created_at))),
    Column("EXPIRES", "expires_at", |key, _| Ends(key.expires_at)),
    Column("USED", "used_at", |key, _| Time(key.used_at)),
];

static POLICIES: &[Column<Policy>] = &[
    Column("VERSION", "version", |policy, _| text(policy.version)),
    Column("IN FORCE", "in_force", |policy, scene| {
        let current = scene.state.policies().current();
        Is(current.is_some_and(|current| current.version == policy.version))
    }),
    Column("AUTHOR", "author", |policy, _| text(&policy.author)),
    Column("CREATED", "created_at", |policy, _| Time(Some(policy.created_at))),
    Column("BYTES", "bytes", |policy, _| text(policy.document.as_str().len())),
];

static DNS_RECORDS: &[Column<DnsRecord>] = &[
    Column("ID", "id", |record, _| text(record.id)),
    Column("NAME", "name", |record, _| text(&record.name)),
    Column("KIND", "kind", |record, _| text(record.kind)),
    Column("VALUE", "value", |record, _| text(&record.value)),
    Column("TTL", "ttl", |record, _| optional(record.ttl)),
];

static SESSIONS: &[Column<Session>] = &[
    Column("ID", "id", |session, _| text(session.id)),
    Column("OWNER", "owner_name", |session, scene| match session.owner {
        SessionOwner::User(user) => owner(Some(user), scene),
        SessionOwner::Node(node) => label(node, scene),
    }),
    Column("FROM NODE", "node_label", |session, scene| match session.node {
        Some(node) => label(node, scene),
        None => Cell::None,
    }),
    Column("CLIENT", "client", |session, _| optional(session.client.as_ref())),
    Column("CREATED", "created_at", |session, _| Time(Some(session.created_at))),
    Column("EXPIRES", "expires_at", |session, _| Ends(Some(session.expires_at))),
    Column("LAST SEEN", "last_seen", |session, _| Time(Some(session.last_seen))),
];

static SIGN_INS: &[Column<SignIn>] = &[
    Column("ID", "id", |sign_in, _| text(sign_in.id)),
    Column("PURPOSE", "purpose", |sign_in, _| text(&sign_in.purpose)),
    Column("CREATED", "created_at", |sign_in, _| Time(Some(sign_in.created_at))),
    Column("EXPIRES", "expires_at", |sign_in, _| Ends(Some(sign_in.expires_at))),
];

static SETTINGS: &[Column<Setting>] = &[
    Column("DOCUMENT", "name", |setting, _| text(setting.document.kind())),
    Column("REVISION", "revision", |setting, _| text(setting.revision)),
    Column("UPDATED", "updated_at", |setting, _| Time(Some(setting.updated_at))),
    Column("CONTENT", "document", |setting, _| {
        text(
            match &setting.document {
                SettingDocument::Network(network) => serde_json::to_string(network),
                SettingDocument::DerpMap(map) => serde_json::to_string(map),
                SettingDocument::Dns(dns) => serde_json::to_string(dns),
            }
            .unwrap_or_default(),
        )
    }),
];

static METRICS: &[Column<MetricPoint>] = &[
    Column("NODE", "node_label", |point, scene| {
        point.node.map_or_else(|| text("(network)"), |node| label(node, scene))
    }),
    Column("METRIC", "metric", |point, _| text(&point.metric)),
    Column("AT", "at", |point, _| Exact(point.at)),
    Column("VALUE", "value", |point, _| text(point.value.get())),
];

static AUDIT: &[Column<AuditEntry>] = &[
    Column("AT", "at", |entry, _| Exact(entry.at)),
    Column("ACTOR", "actor", |entry, _| text(&entry.actor)),
    Column("ACTION", "action", |entry, _| text(&entry.action)),
    Column("ENTITY", "entity", |entry, _| text(&entry.entity)),
    Column("SUBJECT", "subject", |entry, _| text(&entry.subject)),
    Column("SECOND", "second", |entry, _| optional(entry.second.as_ref())),
    Column("RESULT", "result", |entry, _| text(entry.result)),
    Column("ADDRESS", "address", |entry, _| optional(entry.address)),
    Column("USER AGENT", "user_agent", |entry, _| optional(entry.user_agent.as_ref())),
    Column("DETAILS", "details", |entry, _| optional(entry.details.as_ref())),
];

/// The titles of a table for people.
pub(super) fn titles(table: Table) -> Vec<&'static str> {
    fn of<E>(columns: &[Column<E>]) -> Vec<&'static str> {
        columns.iter().map(|Column(title, ..)| *title).collect()
    }
    match table {
        Table::Users => of(USERS),
        Table::Nodes => of(NODES),
        Table::Instances => of(INSTANCES),
        Table::Presence => of(PRESENCE),
        Table::Routes => of(ROUTES),
        Table::ApiKeys => of(API_KEYS),
        Table::PreAuthKeys => of(PREAUTH_KEYS),
        Table::Policies => of(POLICIES),
        Table::DnsRecords => of(DNS_RECORDS),
        Table::Sessions => of(SESSIONS),
        Table::SignIns => of(SIGN_INS),
        Table::Settings => of(SETTINGS),
        Table::Metrics => of(METRICS),
        Table::Audit => of(AUDIT),
        _ => Vec::new(),
    }
}

/// A row, with the names that the columns have for programs.
fn row(item: &Item, scene: &Scene<'_>) -> Vec<(&'static str, Cell)> {
    fn of<E>(columns: &[Column<E>], item: &E, scene: &Scene<'_>) -> Vec<(&'static str, Cell)> {
        columns.iter().map(|Column(_, name, cell)| (*name, cell(item, scene))).collect()
    }
    match item {
        Item::Entity(record) => match record {
            EntityRecord::User(user) => of(USERS, user, scene),
            EntityRecord::Node(node) => of(NODES, node, scene),
            EntityRecord::Instance(instance) => of(INSTANCES, instance, scene),
            EntityRecord::Presence(presence) => of(PRESENCE, presence, scene),
            EntityRecord::Route(route) => of(ROUTES, route, scene),
            EntityRecord::ApiKey(key) => of(API_KEYS, key, scene),
            EntityRecord::PreAuthKey(key) => of(PREAUTH_KEYS, key, scene),
            EntityRecord::Policy(policy) => of(POLICIES, policy, scene),
            EntityRecord::DnsRecord(record) => of(DNS_RECORDS, record, scene),
            EntityRecord::Session(session) => of(SESSIONS, session, scene),
            EntityRecord::SignIn(sign_in) => of(SIGN_INS, sign_in, scene),
            EntityRecord::Setting(setting) => of(SETTINGS, setting, scene),
        },
        Item::Metric(point) => of(METRICS, point, scene),
        Item::Audit(entry) => of(AUDIT, entry, scene),
    }
}

/// A row for people. With `since` times are told as so long before or after that.
pub(super) fn cells(item: &Item, scene: &Scene<'_>, since: Option<Timestamp>) -> Vec<String> {
    let cells = row(item, scene).into_iter();
    cells.map(|(_, cell)| cell.shown(since)).collect()
}

impl Cell {
    fn shown(self, since: Option<Timestamp>) -> String {
        match self {
            Self::Text(text) => text,
            Self::Exact(at) => at.to_string(),
            Self::Time(Some(at)) | Self::Ends(Some(at)) => moment(at, since),
            Self::Ends(None) => "never".to_owned(),
            Self::Is(true) => "yes".to_owned(),
            Self::Is(false) => "no".to_owned(),
            Self::List(list) if !list.is_empty() => list.join(" "),
            Self::List(_) | Self::Time(None) | Self::None => "-".to_owned(),
        }
    }

    fn value(self) -> Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Exact(at) | Self::Time(Some(at)) | Self::Ends(Some(at)) => at.to_string().into(),
            Self::Is(is) => is.into(),
            Self::List(list) => list.into(),
            Self::Time(None) | Self::Ends(None) | Self::None => Value::Null,
        }
    }
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

fn text(value: impl Display) -> Cell {
    Cell::Text(value.to_string())
}

fn optional(value: Option<impl Display>) -> Cell {
    value.map_or(Cell::None, text)
}

fn set<T: Display, const MAX: usize>(set: &BoundedSet<T, MAX>) -> Cell {
    Cell::List(set.iter().map(ToString::to_string).collect())
}

fn owner(user: Option<UserId>, scene: &Scene<'_>) -> Cell {
    let Some(id) = user else { return Cell::None };
    scene.state.users().get(id).map_or_else(|| text(id), |user| text(&user.name))
}

fn label(node: NodeId, scene: &Scene<'_>) -> Cell {
    Cell::Text(label_of(node, scene.state))
}

fn name_of_instance(id: InstanceId, scene: &Scene<'_>) -> String {
    let instance = scene.state.instances().get(id);
    instance.map_or_else(|| id.to_string(), |instance| instance.name.to_string())
}

fn standing(
    revoked_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    is_used_up: bool,
    scene: &Scene<'_>,
) -> Cell {
    text(match (revoked_at.is_some(), expired(expires_at, scene.now), is_used_up) {
        (true, _, _) => "revoked",
        (_, true, _) => "expired",
        (_, _, true) => "used",
        _ => "active",
    })
}

/// The item for programs: all of it and every column, but for hashes of secrets, of which only the scheme
/// is left, and for what completes a sign-in.
pub(crate) fn object(item: &Item, scene: &Scene<'_>) -> Result<Map<String, Value>> {
    let value = match item {
        Item::Entity(record) => match record {
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
    let Ok(Value::Object(mut object)) = value else {
        return Err(Error::new(ErrorKind::Unexpected, "an item has no JSON form"));
    };
    if let Item::Entity(record) = item {
        redact(&mut object, record);
    }
    if let Item::Entity(EntityRecord::DnsRecord(record)) = item {
        let set = scene.state.dns_records().set(&record.name, record.kind);
        object.insert("set".to_owned(), set.fingerprint.to_string().into());
    }
    for (name, cell) in row(item, scene) {
        if !object.contains_key(name) {
            object.insert(name.to_owned(), cell.value());
        }
    }
    Ok(object)
}

fn redact(object: &mut Map<String, Value>, record: &EntityRecord) {
    let has_hash = matches!(
        record,
        EntityRecord::ApiKey(_)
            | EntityRecord::PreAuthKey(_)
            | EntityRecord::Session(_)
            | EntityRecord::SignIn(_)
    );
    if has_hash && let Some(hash) = object.get_mut("hash") {
        let scheme = hash.as_str().and_then(|hash| hash.split(':').next()).unwrap_or_default();
        *hash = Value::String(format!("{scheme}:…redacted"));
    }
    if let EntityRecord::SignIn(_) = record
        && let Some(payload) = object.get_mut("payload")
    {
        *payload = Value::String("…redacted".to_owned());
    }
}
