//! The state machine: what a command changes follows from the state and the command alone. `State` is
//! every entity except the series, in persistent maps with all indexes. [`State::decide`] reads it and
//! says what a command would change; [`State::evolve`] carries a change out. Deciding takes `&self`,
//! so a rejected command cannot leave a trace; the same `evolve` serves live commands, blocks that are
//! replayed and rows that are loaded (all but nodes, see `loading`), so they cannot disagree. Nothing
//! here does I/O or reads a clock. Indexes hash under a key that is random for each process, on which
//! no result depends. Loading many nodes starts threads.
//!
//! The maps are those of the `imbl` crate: B-trees with structural sharing, so that a snapshot is one
//! reference count per map and a change after it copies one path (docs/adr/0002-state-in-memory.md).

mod addresses;
mod api_keys;
mod clock;
mod decision;
mod dns;
mod execute;
mod hashes;
mod holders;
mod listing;
mod loading;
mod nodes;
mod part;
mod policies;
mod preauth_keys;
mod presence;
mod registration;
mod restore;
mod routes;
mod sessions;
mod settings;
mod transaction;
mod unique;
mod users;

#[cfg(test)]
pub(crate) mod testing;

pub use addresses::Addresses;
pub use api_keys::ApiKeys;
pub use decision::{Change, ChangeKinds, Changes, Context, Decision, Handle, Note, Reply};
pub use dns::DnsRecords;
pub use hashes::CredentialHashes;
pub(crate) use loading::Loading;
pub use nodes::Nodes;
pub use policies::Policies;
pub use preauth_keys::PreAuthKeys;
pub use presence::Presences;
pub use routes::Routes;
pub use sessions::Sessions;
pub use settings::Settings;
pub use users::Users;

use crate::block::{BlockHash, ChangeKind, RowChange, Serial};
use crate::command::{Command, Image};
use crate::domain::{
    ApiKey, DnsRecord, Id, Node, Policy, PreAuthKey, Presence, Route, SecretScheme, Session,
    Setting, Timestamp, User, nil_id,
};
use crate::error::{Entity, Error, Result};
use crate::schema::{Record, RowKey, Table};

type Map<K, V> = imbl::OrdMap<K, V>;
type Set<K> = imbl::OrdSet<K>;

/// Every entity except the series, at one moment. Cloning takes constant time and shares
/// everything.
#[derive(Clone, Default, Debug)]
pub struct State {
    serial: Serial,
    hash: Option<BlockHash>,
    time: Timestamp,
    users: Users,
    nodes: Nodes,
    addresses: Addresses,
    presence: Presences,
    routes: Routes,
    api_keys: ApiKeys,
    preauth_keys: PreAuthKeys,
    policies: Policies,
    dns_records: DnsRecords,
    sessions: Sessions,
    settings: Settings,
}

impl State {
    /// The last commit that this state contains.
    #[must_use]
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// The hash of the last block.
    #[must_use]
    pub fn hash(&self) -> BlockHash {
        self.hash.unwrap_or(BlockHash::GENESIS)
    }

    /// The effective time of the last block. Only the repair of a clock that was ahead moves it
    /// back.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Users.
    #[must_use]
    pub fn users(&self) -> &Users {
        &self.users
    }

    /// Nodes.
    #[must_use]
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Which addresses are taken, and by which node.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Who is online, and where.
    #[must_use]
    pub fn presence(&self) -> &Presences {
        &self.presence
    }

    /// Routes.
    #[must_use]
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// API keys.
    #[must_use]
    pub fn api_keys(&self) -> &ApiKeys {
        &self.api_keys
    }

    /// Pre-auth keys.
    #[must_use]
    pub fn preauth_keys(&self) -> &PreAuthKeys {
        &self.preauth_keys
    }

    /// Policy versions.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// DNS records.
    #[must_use]
    pub fn dns_records(&self) -> &DnsRecords {
        &self.dns_records
    }

    /// Sign-in sessions.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What `command` would change, or why it is refused. Changes nothing.
    ///
    /// # Errors
    /// The rules of docs/contract.md, as the kinds they name.
    pub fn decide(&self, command: &Command, context: &Context<'_>) -> Result<Decision> {
        let decision = match command {
            Command::User(command) => self.decide_user(command, context),
            Command::Node(command) => self.decide_node(command, context),
            Command::Presence(command) => self.decide_presence(command, context),
            Command::Route(command) => self.decide_route(command, context),
            Command::ApiKey(command) => self.decide_api_key(command, context),
            Command::PreAuthKey(command) => self.decide_preauth_key(command, context),
            Command::Session(command) => self.decide_session(command, context),
            Command::Policy(command) => self.decide_policy(command, context),
            Command::Dns(command) => self.decide_dns(command, context),
            Command::Setting(command) => self.decide_setting(command, context),
            Command::Clock(command) => Ok(self.decide_clock(command, context)),
            Command::Restore(restore) => self.decide_restore(restore),
            Command::Transaction(transaction) => self.decide_transaction(transaction, context),
        }?;
        for change in &decision.changes {
            if let Change::Put(image) = change {
                image.check()?;
            }
        }
        Ok(decision)
    }

    /// Carries out one change. Cannot fail: whether it may happen was decided before.
    pub fn evolve(&mut self, change: Change) -> ChangeKind {
        let existed = match change {
            Change::Put(image) => match image {
                Image::User(user) => self.users.put(user),
                Image::Node(node) => {
                    self.addresses.replace(self.nodes.get(node.id).map(AsRef::as_ref), Some(&node));
                    self.nodes.put(node)
                }
                Image::Presence(presence) => self.put_presence(presence),
                Image::Route(route) => {
                    let online = self.presence.is_online(route.node);
                    self.routes.put(route, online)
                }
                Image::ApiKey(key) => self.api_keys.put(key),
                Image::PreAuthKey(key) => self.preauth_keys.put(key),
                Image::Policy(policy) => self.policies.put(policy),
                Image::DnsRecord(record) => self.dns_records.put(record),
                Image::Session(session) => self.sessions.put(session),
                Image::Setting(setting) => self.settings.put(setting),
            },
            Change::Delete(handle) => {
                match handle {
                    Handle::User(id) => self.users.remove(id),
                    Handle::Node(id) => {
                        self.addresses.replace(self.nodes.get(id).map(AsRef::as_ref), None);
                        self.nodes.remove(id);
                    }
                    Handle::Presence(id) => self.remove_presence(id),
                    Handle::Route(id) => self.routes.remove(id),
                    Handle::ApiKey(id) => self.api_keys.remove(id),
                    Handle::PreAuthKey(id) => self.preauth_keys.remove(id),
                    Handle::Policy(version) => self.policies.remove(version),
                    Handle::DnsRecord(id) => self.dns_records.remove(id),
                    Handle::Session(id) => self.sessions.remove(id),
                    Handle::Setting(kind) => self.settings.remove(kind),
                }
                return ChangeKind::Deleted;
            }
        };
        if existed { ChangeKind::Updated } else { ChangeKind::Created }
    }

    /// Carries out a change that a block or a row describes.
    ///
    /// # Errors
    /// `Corrupt` if the row cannot be read.
    pub fn evolve_row(&mut self, change: &RowChange) -> Result<()> {
        let change = match &change.body {
            Some(body) => Change::Put(decode_image(change.table, &change.key, body)?),
            None => Change::Delete(Handle::from_key(change.table, &change.key)?),
        };
        self.evolve(change);
        Ok(())
    }

    /// Marks that everything up to this block has been carried out.
    pub fn advance(&mut self, serial: Serial, hash: BlockHash, time: Timestamp) {
        self.serial = serial;
        self.hash = Some(hash);
        self.time = time;
    }

    /// Every entity, in the order of tables and keys.
    pub fn images(&self) -> impl Iterator<Item = Image> + '_ {
        Table::STATE.into_iter().flat_map(|table| self.images_of(table))
    }

    /// Every entity of one table, in the order of keys.
    pub fn images_of(&self, table: Table) -> Box<dyn Iterator<Item = Image> + '_> {
        match table {
            Table::Users => Box::new(self.users.iter().cloned().map(Image::User)),
            Table::Nodes => Box::new(self.nodes.iter().cloned().map(Image::Node)),
            Table::Presence => Box::new(self.presence.iter().cloned().map(Image::Presence)),
            Table::Routes => Box::new(self.routes.iter().cloned().map(Image::Route)),
            Table::ApiKeys => Box::new(self.api_keys.iter().cloned().map(Image::ApiKey)),
            Table::PreAuthKeys => {
                Box::new(self.preauth_keys.iter().cloned().map(Image::PreAuthKey))
            }
            Table::Policies => Box::new(self.policies.iter().cloned().map(Image::Policy)),
            Table::DnsRecords => Box::new(self.dns_records.iter().cloned().map(Image::DnsRecord)),
            Table::Sessions => Box::new(self.sessions.iter().cloned().map(Image::Session)),
            Table::Settings => Box::new(self.settings.iter().cloned().map(Image::Setting)),
            Table::Metrics | Table::Audit | Table::WriterPositions => Box::new(std::iter::empty()),
        }
    }
}

/// Decodes a row of the state into its entity.
///
/// # Errors
/// `Corrupt` if the row cannot be read or is not part of the state.
pub fn decode_image(table: Table, key: &RowKey, body: &[u8]) -> Result<Image> {
    Ok(match table {
        Table::Users => Image::User(User::decode(key, body)?.into()),
        Table::Nodes => Image::Node(Node::decode(key, body)?.into()),
        Table::Presence => Image::Presence(Presence::decode(key, body)?.into()),
        Table::Routes => Image::Route(Route::decode(key, body)?.into()),
        Table::ApiKeys => Image::ApiKey(ApiKey::decode(key, body)?.into()),
        Table::PreAuthKeys => Image::PreAuthKey(PreAuthKey::decode(key, body)?.into()),
        Table::Policies => Image::Policy(Policy::decode(key, body)?.into()),
        Table::DnsRecords => Image::DnsRecord(DnsRecord::decode(key, body)?.into()),
        Table::Sessions => Image::Session(Session::decode(key, body)?.into()),
        Table::Settings => Image::Setting(Setting::decode(key, body)?.into()),
        Table::Metrics | Table::Audit | Table::WriterPositions => {
            return Err(Error::corrupt("a series row stands among the rows of the state")
                .with("table", table.name()));
        }
    })
}

/// Calls `$body` with the entity of an image, whatever its type.
macro_rules! with_record {
    ($image:expr, $record:ident => $body:expr) => {
        match $image {
            Image::User($record) => $body,
            Image::Node($record) => $body,
            Image::Presence($record) => $body,
            Image::Route($record) => $body,
            Image::ApiKey($record) => $body,
            Image::PreAuthKey($record) => $body,
            Image::Policy($record) => $body,
            Image::DnsRecord($record) => $body,
            Image::Session($record) => $body,
            Image::Setting($record) => $body,
        }
    };
}

impl Image {
    /// Refuses what no entity may be, whoever brings it in.
    fn check(&self) -> Result<()> {
        // Callers choose ids, and nothing could be read again that is stored under none.
        self.check_ids()?;
        match self {
            // No store makes one, and anybody can: it proves nothing but who made it up.
            Self::Session(session) if session.hash.scheme() == SecretScheme::Bcrypt => {
                let message = "a session's token is hashed with the store's key, not with bcrypt";
                Err(Error::invalid(message).about(Entity::Session).with("id", session.id))
            }
            _ => Ok(()),
        }
    }

    /// Refuses the nil id, as its own and as one that need not exist; others do not exist.
    fn check_ids(&self) -> Result<()> {
        let is_nil = match self {
            Self::User(user) => user.id.is_nil(),
            Self::Node(node) => {
                node.id.is_nil() || node.preauth_key.is_some_and(|key| key.is_nil())
            }
            Self::Presence(presence) => presence.node.is_nil(),
            Self::Route(route) => route.id.is_nil(),
            Self::ApiKey(key) => key.id.is_nil(),
            Self::PreAuthKey(key) => key.id.is_nil(),
            Self::Policy(_) | Self::Setting(_) => false,
            Self::DnsRecord(record) => record.id.is_nil(),
            Self::Session(session) => session.id.is_nil(),
        };
        if is_nil { Err(nil_id().about(self.entity())) } else { Ok(()) }
    }

    /// The row's table.
    #[must_use]
    pub fn table(&self) -> Table {
        fn of<R: Record>(_: &R) -> Table {
            R::SCHEMA.table
        }
        with_record!(self, record => of(record.as_ref()))
    }

    /// The row's key.
    #[must_use]
    pub fn key(&self) -> RowKey {
        with_record!(self, record => record.key())
    }

    /// The row's body.
    #[must_use]
    pub fn encode(&self) -> bytes::Bytes {
        with_record!(self, record => record.encode())
    }

    /// Appends the row's body to `buffer`.
    pub fn encode_into(&self, buffer: &mut bytes::BytesMut) {
        with_record!(self, record => record.encode_into(buffer));
    }

    /// Adds the row to a block.
    pub fn put_into(&self, block: &mut crate::block::BlockBuilder, kind: ChangeKind) {
        with_record!(self, record => block.put(kind, record.as_ref()));
    }
}
