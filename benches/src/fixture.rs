//! Stores and entities.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use ghostwire_store::command::{Command, EntityRecord, NodeCommand, PresenceCommand, UserCommand};
use ghostwire_store::config::{
    BackendChoice, Config, LibsqlOptions, Materialize, PinMode, ZqliteOptions,
};
use ghostwire_store::domain::{
    Actor, Admission, Endpoint, EndpointList, NewUser, Node, NodeId, Prefix, RegisterMethod,
    Registration, Revision, Route, RouteId, RouteMetric, SessionNumber, Timestamp, Update as Field,
    UserId,
};
use ghostwire_store::observe::Recorder;
use ghostwire_store::{Opener, Result, Store};
use ghostwire_store_bench_workload::data::{self, key_bytes};
use ghostwire_store_core::block::{BlockBuilder, BlockHash, ChangeKind};
use ghostwire_store_core::state::{Context, Reply, State, StateChange};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// zqlite, plain; rows are flushed in the background.
    Zqlite,
    /// The same, sealed.
    ZqliteSealed,
    /// The same, sealed and with a pin beside it.
    ZqlitePinned,
    /// libsql; rows are flushed in the background.
    LibsqlCheckpoint,
    /// libsql; rows are written with every commit.
    LibsqlCommit,
    /// Nothing on disk.
    Memory,
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Self::Zqlite => "zqlite, checkpoint",
            Self::ZqliteSealed => "zqlite, sealed",
            Self::ZqlitePinned => "zqlite, sealed, with a pin",
            Self::LibsqlCheckpoint => "libsql, checkpoint",
            Self::LibsqlCommit => "libsql, commit",
            Self::Memory => "memory",
        }
    }

    pub(crate) fn backend(self, path: &Path) -> BackendChoice {
        let path = path.to_owned();
        let libsql = |path, materialize| BackendChoice::Libsql(LibsqlOptions { path, materialize });
        let zqlite = |path| ZqliteOptions { path, ..ZqliteOptions::default() };
        match self {
            Self::Zqlite => BackendChoice::Zqlite(ZqliteOptions { sealed: false, ..zqlite(path) }),
            Self::ZqliteSealed => BackendChoice::Zqlite(zqlite(path)),
            Self::ZqlitePinned => BackendChoice::Zqlite(ZqliteOptions {
                pin: PinMode::Commit,
                pin_file: Some(path.with_extension("pin")),
                pin_same_device: true,
                ..zqlite(path)
            }),
            Self::LibsqlCheckpoint => libsql(path, Materialize::Checkpoint),
            Self::LibsqlCommit => libsql(path, Materialize::Commit),
            Self::Memory => BackendChoice::Memory,
        }
    }
}

/// Opens a store as a program would, with its default options.
pub async fn open(target: Target, path: &Path) -> Result<Arc<dyn Store>> {
    open_with(target, path, None).await
}

/// The same, with a recorder.
pub async fn open_with(
    target: Target,
    path: &Path,
    recorder: Option<Arc<dyn Recorder>>,
) -> Result<Arc<dyn Store>> {
    let config = Config { backend: target.backend(path), ..Config::default() };
    let opener = Opener::new(&config);
    match recorder {
        Some(recorder) => opener.recorder(recorder).open().await,
        None => opener.open().await,
    }
}

/// What machine `number` presents for a user who signed in.
pub fn registration(user: UserId, number: u64) -> Result<Registration> {
    let admission = Admission::User { user, method: RegisterMethod::Oidc };
    crate::subjects::registration(data::machine(number), admission)
}

/// A sign of life of a node, with two endpoints.
pub fn heartbeat(node: NodeId, number: u64, at: Timestamp) -> Result<PresenceCommand> {
    let host = u32::try_from(number % 0xffff_ffff).unwrap_or_default();
    let endpoint = |first: u8| {
        let address = Ipv4Addr::from((u32::from(first) << 24) | (host & 0x00ff_ffff));
        Endpoint::new((IpAddr::V4(address), 41641).into(), at)
    };
    Ok(PresenceCommand::Heartbeat {
        node,
        session: SessionNumber::new(1)?,
        endpoints: Field::Set(EndpointList::new([endpoint(10), endpoint(203)])?),
        instance: None,
    })
}

/// The `number`th of many prefixes with lengths from /16 to /28.
pub fn prefix(number: u32) -> Result<Prefix> {
    let (network, length) = data::prefix(number);
    Prefix::new(network.into(), length)
}

/// A route that is in use.
pub fn route(node: NodeId, number: u32, prefix: Prefix, at: Timestamp) -> Result<Route> {
    Ok(Route {
        id: RouteId::time_ordered(at, key_bytes(5, u64::from(number))),
        node,
        prefix,
        advertised: true,
        approved: true,
        primary: !prefix.is_exit(),
        metric: RouteMetric::default(),
        description: None,
        created_at: at,
        updated_at: at,
        revision: Revision::FIRST,
    })
}

/// A state that is driven directly, without a store.
#[derive(Debug, Clone)]
pub struct StateFixture {
    pub state: State,
    pub users: Vec<UserId>,
    /// The nodes, in the order of registration.
    pub nodes: Vec<Arc<Node>>,
    pub now: Timestamp,
    actor: Actor,
}

/// Of audit lines, which nobody reads.
const SEED: [u8; 10] = [9; 10];

impl StateFixture {
    /// A hundred users and this many nodes.
    pub fn with_nodes(count: u64) -> Result<Self> {
        let mut fixture = Self {
            state: State::default(),
            users: Vec::new(),
            nodes: Vec::new(),
            now: Timestamp::from_secs(1_700_000_000)?,
            actor: Actor::system(),
        };
        for number in 0..100 {
            let id = UserId::time_ordered(fixture.now, key_bytes(7, number));
            let user = NewUser::local(format!("user-{number}").parse()?);
            fixture.run(&UserCommand::Create { id, user }.into())?;
            fixture.users.push(id);
        }
        for number in 0..count {
            let (_, command) = fixture.register(number)?;
            if let Reply::Node(node) = fixture.run(&command)? {
                fixture.nodes.push(node);
            }
        }
        Ok(fixture)
    }

    /// The command that registers machine `number`, and the id of its node.
    pub fn register(&self, number: u64) -> Result<(NodeId, Command)> {
        // Ids are time-ordered: 20 machines a millisecond.
        let at = self.now.saturating_add(std::time::Duration::from_micros(number * 50));
        let id = NodeId::time_ordered(at, key_bytes(6, number));
        let owner = self.users.get((number % 100) as usize).copied();
        let owner = owner.unwrap_or_else(|| UserId::from_bytes([0; 16]));
        let registration = Box::new(registration(owner, number)?);
        Ok((id, NodeCommand::Register { id, registration }.into()))
    }

    /// The circumstances of every command.
    pub fn context(&self) -> Context<'_> {
        Context { now: self.now, actor: &self.actor, seed: SEED }
    }

    pub fn run(&mut self, command: &Command) -> Result<Reply> {
        let context = Context { now: self.now, actor: &self.actor, seed: SEED };
        let reply = self.state.execute(command, &context, &mut BlockBuilder::default())?;
        self.state.advance(self.state.serial().next(), BlockHash::GENESIS, self.now);
        Ok(reply)
    }

    /// Puts an entity in as it is.
    pub fn put(&mut self, image: EntityRecord) -> ChangeKind {
        self.state.evolve(StateChange::Put(image))
    }

    /// Everything but the serial.
    pub fn images(&self) -> Vec<EntityRecord> {
        self.state.images().collect()
    }
}
