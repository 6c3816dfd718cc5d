//! Which entity is a row of which table, and its columns in order.

use bytes::{Bytes, BytesMut};

use super::field::Field;
use super::key::{KeyKind, RowKey};
use super::table::{Column, KeyColumn, Schema, Table, TableSchema};
use super::value::{RowReader, RowWriter, Value};
use crate::block::Serial;
use crate::domain::*;
use crate::error::{Error, Result};
use crate::log::feed::{Consumer, FeedRow};
use crate::position::Position;

/// An entity that is a row of a table.
pub trait Record: Sized {
    /// The table's name, key and columns.
    const SCHEMA: TableSchema;

    /// The row's key.
    fn key(&self) -> RowKey;

    /// Appends the row's body to `buffer`.
    fn encode_into(&self, buffer: &mut BytesMut);

    /// The row's body.
    fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(256);
        self.encode_into(&mut buffer);
        buffer.freeze()
    }

    /// The inverse of [`Record::key`] and [`Record::encode_into`]. Columns that a newer schema
    /// appended are ignored; columns that an older one lacked are null.
    ///
    /// # Errors
    /// `Corrupt`, naming table, key and column.
    fn decode(key: &RowKey, body: &[u8]) -> Result<Self>;
}

/// How far a writer's metric batches got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterPosition {
    /// The writer that numbers its batches.
    pub writer: WriterId,
    /// The sequence number of its last stored batch.
    pub sequence: Revision,
}

/// A type that is a column of a key.
pub trait KeyField: Sized {
    /// How it looks there.
    const KIND: KeyKind;

    /// Appends it to a key.
    fn push(&self, key: RowKey) -> RowKey;

    /// The inverse of [`KeyField::push`].
    ///
    /// # Errors
    /// `Corrupt` for what the type does not admit.
    fn read(value: Value<'_>) -> Result<Self>;

    /// Whether it names nothing.
    fn is_nil(&self) -> bool {
        false
    }
}

impl RowKey {
    /// The value of a key of one column.
    pub(crate) fn only<K: KeyField>(&self) -> Result<K> {
        let column = KeyColumn { name: "", kind: K::KIND };
        let value = self.values(&[column])?.pop().ok_or_else(unfit_key)?;
        K::read(value)
    }
}

fn unfit_key() -> Error {
    Error::corrupt("a stored key does not fit its column")
}

impl<I: Id> KeyField for I {
    const KIND: KeyKind = KeyKind::Id;

    fn push(&self, key: RowKey) -> RowKey {
        key.id(self.as_bytes())
    }

    fn read(value: Value<'_>) -> Result<Self> {
        let Value::Bytes(bytes) = value else { return Err(unfit_key()) };
        let id = bytes.try_into().map(Self::from_bytes).map_err(|_| unfit_key())?;
        id.not_nil().map_err(|error| unfit_key().because(error))
    }

    fn is_nil(&self) -> bool {
        Id::is_nil(self)
    }
}

impl KeyField for Option<NodeId> {
    const KIND: KeyKind = KeyKind::OptionalId;

    fn push(&self, key: RowKey) -> RowKey {
        key.optional_id(self.as_ref().map(NodeId::as_bytes))
    }

    fn read(value: Value<'_>) -> Result<Self> {
        if value == Value::Null { Ok(None) } else { KeyField::read(value).map(Some) }
    }
}

impl KeyField for Timestamp {
    const KIND: KeyKind = KeyKind::Integer;

    fn push(&self, key: RowKey) -> RowKey {
        key.integer(self.as_micros())
    }

    fn read(value: Value<'_>) -> Result<Self> {
        let Value::Integer(micros) = value else { return Err(unfit_key()) };
        Self::from_micros(micros).map_err(|error| unfit_key().because(error))
    }
}

/// Numbers of 0 to `i64::MAX`.
macro_rules! number_keys {
    ($($type:ty: $get:expr, $new:expr;)+) => {$(
        impl KeyField for $type {
            const KIND: KeyKind = KeyKind::Integer;

            fn push(&self, key: RowKey) -> RowKey {
                key.integer(i64::try_from($get(*self)).unwrap_or(i64::MAX))
            }

            fn read(value: Value<'_>) -> Result<Self> {
                let Value::Integer(number) = value else { return Err(unfit_key()) };
                u64::try_from(number).ok().and_then($new).ok_or_else(unfit_key)
            }
        }
    )+};
}
number_keys! {
    PolicyVersion: PolicyVersion::get, |number| PolicyVersion::new(number).ok();
    Position: Position::get, |number| Some(Position::new(number));
    u32: u64::from, |number| u32::try_from(number).ok();
}

macro_rules! text_keys {
    ($($type:ty),+) => {$(
        impl KeyField for $type {
            const KIND: KeyKind = KeyKind::Text;

            fn push(&self, key: RowKey) -> RowKey {
                key.text(self.as_str())
            }

            fn read(value: Value<'_>) -> Result<Self> {
                let Value::Text(text) = value else { return Err(unfit_key()) };
                text.parse().map_err(|error: Error| unfit_key().because(error))
            }
        }
    )+};
}
text_keys!(MetricName, ConsumerName);

impl KeyField for SettingKind {
    const KIND: KeyKind = KeyKind::Text;

    fn push(&self, key: RowKey) -> RowKey {
        key.text(self.name())
    }

    fn read(value: Value<'_>) -> Result<Self> {
        let known = |kind: &Self| value == Value::Text(kind.name());
        Self::ALL.into_iter().find(known).ok_or_else(unfit_key)
    }
}

/// The columns of an entity: its key, then its body in stored order. A column or table that came later
/// says with which schema version (`= 2`).
macro_rules! record {
    ($entity:ident in $table:ident $(= $table_since:literal)? {
        key { $($key:ident: $key_type:ty),+ }
        $($field:ident: $type:ty $(= $since:literal)?),* $(,)?
    }) => {
        impl Record for $entity {
            const SCHEMA: TableSchema = TableSchema {
                table: Table::$table,
                key: &[$(KeyColumn {
                    name: stringify!($key),
                    kind: <$key_type as KeyField>::KIND,
                }),+],
                columns: &[$(Column {
                    name: stringify!($field),
                    kind: <$type as Field>::KIND,
                    nullable: <$type as Field>::NULLABLE,
                    since: record!(@since $($since)?),
                }),*],
                since: record!(@since $($table_since)?),
            };

            fn key(&self) -> RowKey {
                let key = RowKey::new();
                $(let key = KeyField::push(&self.$key, key);)+
                key
            }

            fn encode_into(&self, buffer: &mut BytesMut) {
                let version = Schema::current().version().version;
                let mut row = RowWriter::begin(buffer, version);
                $(Field::write(&self.$field, &mut row);)*
                let _ = &mut row;
            }

            fn decode(key: &RowKey, body: &[u8]) -> Result<Self> {
                let misfit = |error: Error, column: &'static str| {
                    error
                        .with("table", Table::$table.name())
                        .with("column", column)
                        .with("key", format_args!("{key:?}"))
                };
                let mut keys = key
                    .values(Self::SCHEMA.key)
                    .map_err(|error| misfit(error, "key"))?
                    .into_iter();
                let mut row = RowReader::new(body).map_err(|error| misfit(error, "body"))?;
                let entity = Self {
                    $($key: keys
                        .next()
                        .ok_or_else(unfit_key)
                        .and_then(<$key_type as KeyField>::read)
                        .map_err(|error| misfit(error, stringify!($key)))?,)+
                    $($field: row
                        .next_value()
                        .and_then(|value| <$type as Field>::read(value.unwrap_or(Value::Null)))
                        .map_err(|error| misfit(error, stringify!($field)))?,)*
                };
                Ok(entity)
            }
        }
    };
    (@since) => { 1 };
    (@since $since:literal) => { $since };
}

record! { User in Users {
    key { id: UserId }
    name: UserName,
    display_name: Option<Text<255>>,
    email: Option<Email>,
    identity: Identity,
    picture_url: Option<Text<2048>>,
    created_at: Timestamp,
    updated_at: Timestamp,
    revision: Revision,
    last_sign_in_at: Option<Timestamp> = 4,
    role: UserRole = 4,
    groups: GroupSet = 4,
    metadata: Option<JsonObject> = 4,
    metadata_revision: Option<Revision> = 4,
}}

record! { Node in Nodes {
    key { id: NodeId }
    user: Option<UserId>,
    tags: TagSet,
    hostname: Hostname,
    label: DnsLabel,
    machine_key: MachineKey,
    node_key: NodeKey,
    disco_key: Option<DiscoKey>,
    ipv4: Option<std::net::Ipv4Addr>,
    ipv6: Option<std::net::Ipv6Addr>,
    host_info: HostInfo,
    register_method: RegisterMethod,
    preauth_key: Option<PreAuthKeyId>,
    ephemeral: bool,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    revision: Revision,
    families: AddressFamilies = 4,
    settings: Option<std::sync::Arc<NodeSettings>> = 4,
}}

record! { Presence in Presence {
    key { node: NodeId }
    session: SessionNumber,
    online: bool,
    last_seen: Option<Timestamp>,
    endpoints: EndpointList,
    absent_since: Option<Timestamp> = 4,
    instance: Option<InstanceId> = 4,
}}

record! { Instance in Instances = 4 {
    key { id: InstanceId }
    name: InstanceName = 4,
    started_at: Timestamp = 4,
    last_seen: Timestamp = 4,
}}

record! { Route in Routes {
    key { id: RouteId }
    node: NodeId,
    prefix: Prefix,
    advertised: bool,
    approved: bool,
    primary: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
    revision: Revision,
    metric: RouteMetric = 4,
    description: Option<Text<255>> = 4,
}}

record! { ApiKey in ApiKeys {
    key { id: ApiKeyId }
    prefix: KeyPrefix,
    hash: SecretHash,
    user: Option<UserId>,
    description: Option<Text<255>>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
    revision: Revision,
    permissions: PermissionSet = 4,
    created_by: Option<ActorName> = 4,
}}

record! { PreAuthKey in PreAuthKeys {
    key { id: PreAuthKeyId }
    prefix: Option<KeyPrefix>,
    hash: SecretHash,
    user: Option<UserId>,
    tags: TagSet,
    reusable: bool,
    ephemeral: bool,
    used_at: Option<Timestamp>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    revision: Revision,
}}

record! { Policy in Policies {
    key { version: PolicyVersion }
    document: DocumentText,
    author: ActorName,
    created_at: Timestamp,
}}

record! { DnsRecord in DnsRecords {
    key { id: DnsRecordId }
    name: DnsName,
    kind: DnsRecordKind,
    value: Text<1024>,
    created_at: Timestamp,
    updated_at: Timestamp,
    revision: Revision,
    ttl: Option<u32> = 2,
}}

record! { Session in Sessions {
    key { id: SessionId }
    owner: SessionOwner,
    hash: SecretHash,
    client: Option<Text<255>>,
    created_at: Timestamp,
    expires_at: Timestamp,
    last_seen: Timestamp,
    node: Option<NodeId> = 4,
}}

record! { SignIn in SignIns = 4 {
    key { id: SignInId }
    purpose: Text<64> = 4,
    hash: SecretHash = 4,
    payload: SignInPayload = 4,
    created_at: Timestamp = 4,
    expires_at: Timestamp = 4,
}}

record! { MetricPoint in Metrics {
    key { node: Option<NodeId>, metric: MetricName, at: Timestamp }
    value: Sample,
}}

record! { AuditEntry in Audit {
    key { at: Timestamp, id: AuditId }
    actor: ActorName,
    action: Text<64>,
    entity: ResourceKind,
    subject: Text<255>,
    address: Option<PeerAddress> = 4,
    user_agent: Option<UserAgent> = 4,
    result: AuditResult = 4,
    details: Option<AuditDetails> = 4,
    second: Option<AuditSubject> = 4,
}}

record! { WriterPosition in WriterPositions {
    key { writer: WriterId }
    sequence: Revision,
}}

record! { FeedRow in Feed = 3 {
    key { position: Position, part: u32 }
    commit: CommitId = 3,
    serial: Serial = 3,
    has_block: bool = 3,
    parts: u32 = 3,
    total: u64 = 3,
    body: Bytes = 3,
}}

record! { Consumer in Consumers = 3 {
    key { name: ConsumerName }
    position: Position = 3,
    serial: Serial = 3,
    total: u64 = 3,
    max_bytes: u64 = 3,
    resync: bool = 3,
    registered_at: Timestamp = 3,
}}

/// The document's kind is its key, so that there is at most one of each.
impl Record for Setting {
    const SCHEMA: TableSchema = TableSchema {
        table: Table::Settings,
        key: &[KeyColumn { name: "kind", kind: KeyKind::Text }],
        columns: &[
            Column {
                name: "document",
                kind: <SettingDocument as Field>::KIND,
                nullable: false,
                since: 1,
            },
            Column { name: "revision", kind: <Revision as Field>::KIND, nullable: false, since: 1 },
            Column {
                name: "updated_at",
                kind: <Timestamp as Field>::KIND,
                nullable: false,
                since: 1,
            },
        ],
        since: 1,
    };

    fn key(&self) -> RowKey {
        self.document.kind().push(RowKey::new())
    }

    fn encode_into(&self, buffer: &mut BytesMut) {
        let mut row = RowWriter::begin(buffer, Schema::current().version().version);
        self.document.write(&mut row);
        self.revision.write(&mut row);
        self.updated_at.write(&mut row);
    }

    fn decode(key: &RowKey, body: &[u8]) -> Result<Self> {
        let mut row = RowReader::new(body)?;
        let mut next = || row.next_value().map(|value| value.unwrap_or(Value::Null));
        let setting = Self {
            document: Field::read(next()?)?,
            revision: Field::read(next()?)?,
            updated_at: Field::read(next()?)?,
        };
        if setting.key() != *key {
            return Err(Error::corrupt("a settings document is stored under another kind's key")
                .with("kind", setting.document.kind().name()));
        }
        Ok(setting)
    }
}
