//! Commands as calls of a store, and which ids the store drew for them.

use ghostwire_store_core::command::*;
use ghostwire_store_core::domain::*;
use ghostwire_store_core::state::State;
use ghostwire_store_core::{Error, ErrorKind, Result, Store};

use super::said::{Done, Op};

/// Calls the store as a control plane would.
pub(super) async fn perform(store: &dyn Store, op: &Op) -> Result<()> {
    match op.clone() {
        Op::Write(command) => write(store, command).await,
        Op::Transact(commands) => store.transact(transaction(commands)?).await.map(|_| ()),
        Op::Record(points) => store.metrics().record_many(points).await,
        Op::Batch { writer, sequence, points } => {
            store.metrics().record_batch(writer, sequence, points).await
        }
        Op::Append(entries) => store.audit().append(entries).await,
        Op::PruneMetrics(before) => store.metrics().prune(before).await,
        Op::PruneAudit(before) => store.audit().prune(before).await,
        Op::Checkpoint => store.checkpoint().await.map(|_| ()),
        Op::Verify => store.verify().await,
    }
}

pub(super) fn transaction(commands: Vec<Command>) -> Result<Transaction> {
    commands.into_iter().try_fold(Transaction::new(), Transaction::then)
}

async fn write(store: &dyn Store, command: Command) -> Result<()> {
    match command {
        Command::User(command) => user(store, command).await,
        Command::Node(command) => node(store, command).await,
        Command::Presence(command) => presence(store, command).await,
        Command::Route(command) => route(store, command).await,
        Command::ApiKey(ApiKeyCommand::Create { key, .. }) => {
            store.api_keys().create(key).await.map(|_| ())
        }
        Command::ApiKey(ApiKeyCommand::Revoke { id }) => {
            store.api_keys().revoke(id).await.map(|_| ())
        }
        Command::ApiKey(ApiKeyCommand::Delete { id }) => store.api_keys().delete(id).await,
        Command::PreAuthKey(PreAuthKeyCommand::Create { key, .. }) => {
            store.preauth_keys().create(key).await.map(|_| ())
        }
        Command::PreAuthKey(PreAuthKeyCommand::Revoke { id }) => {
            store.preauth_keys().revoke(id).await.map(|_| ())
        }
        Command::PreAuthKey(PreAuthKeyCommand::Delete { id }) => {
            store.preauth_keys().delete(id).await
        }
        Command::Session(command) => session(store, command).await,
        Command::Policy(command) => policy(store, command).await,
        Command::DnsRecord(command) => dns(store, command).await,
        Command::Setting(SettingCommand::Put { document, expected }) => {
            store.settings().put(document, expected).await.map(|_| ())
        }
        Command::Setting(SettingCommand::Reset { kind }) => store.settings().reset(kind).await,
        other => Err(Error::new(ErrorKind::Unsupported, "no call makes this command")
            .with("command", other.name())),
    }
}

async fn user(store: &dyn Store, command: UserCommand) -> Result<()> {
    let users = store.users();
    match command {
        UserCommand::Create { user, .. } => users.create(user).await.map(|_| ()),
        UserCommand::Update { id, patch, expected } => {
            users.update(id, patch, expected).await.map(|_| ())
        }
        UserCommand::UpsertOidc { profile, .. } => users.upsert_oidc(profile).await.map(|_| ()),
        UserCommand::Delete { id, cascade, .. } => users.delete(id, cascade).await,
    }
}

async fn node(store: &dyn Store, command: NodeCommand) -> Result<()> {
    let nodes = store.nodes();
    match command {
        NodeCommand::Register { registration, .. } => {
            nodes.register(*registration).await.map(|_| ())
        }
        NodeCommand::Update { id, patch, expected } => {
            nodes.update(id, *patch, expected).await.map(|_| ())
        }
        NodeCommand::RotateKey { machine_key, from, to, disco_key, expires_at } => {
            nodes.rotate_key(machine_key, from, to, disco_key, expires_at).await.map(|_| ())
        }
        NodeCommand::Expire { nodes: ids, at, .. } => nodes.expire(ids, at).await.map(|_| ()),
        NodeCommand::Delete { id } => nodes.delete(id).await,
        NodeCommand::ReapEphemeral { .. } => nodes.reap_ephemeral().await.map(|_| ()),
        NodeCommand::BackfillAddresses { .. } => nodes.backfill_addresses().await.map(|_| ()),
    }
}

async fn presence(store: &dyn Store, command: PresenceCommand) -> Result<()> {
    let presence = store.presence();
    match command {
        PresenceCommand::Connect { node, session, endpoints } => {
            presence.connect(node, session, endpoints).await.map(|_| ())
        }
        PresenceCommand::Heartbeat { node, session, endpoints } => {
            presence.heartbeat(node, session, endpoints).await.map(|_| ())
        }
        PresenceCommand::Disconnect { node, session } => {
            presence.disconnect(node, session).await.map(|_| ())
        }
        PresenceCommand::DisconnectAll { .. } => presence.disconnect_all().await.map(|_| ()),
    }
}

async fn route(store: &dyn Store, command: RouteCommand) -> Result<()> {
    let only = |prefixes: Vec<(RouteId, Prefix)>| prefixes.into_iter().map(|(_, of)| of).collect();
    match command {
        RouteCommand::Advertise { node, prefixes } => {
            store.routes().advertise(node, only(prefixes)).await.map(|_| ())
        }
        RouteCommand::Approve { node, prefixes } => {
            store.routes().approve(node, only(prefixes)).await.map(|_| ())
        }
        RouteCommand::Delete { id } => store.routes().delete(id).await,
    }
}

async fn session(store: &dyn Store, command: SessionCommand) -> Result<()> {
    let sessions = store.sessions();
    match command {
        SessionCommand::Begin { session, .. } => sessions.begin(session).await.map(|_| ()),
        SessionCommand::Touch { id, expires_at } => {
            sessions.touch(id, expires_at).await.map(|_| ())
        }
        SessionCommand::End { id } => sessions.end(id).await,
        SessionCommand::Sweep { .. } => sessions.sweep().await.map(|_| ()),
    }
}

async fn policy(store: &dyn Store, command: PolicyCommand) -> Result<()> {
    let policies = store.policies();
    match command {
        PolicyCommand::Swap { expected, document } => {
            policies.swap(expected, document).await.map(|_| ())
        }
        PolicyCommand::Rollback { expected, to } => {
            policies.rollback(expected, to).await.map(|_| ())
        }
        PolicyCommand::Prune { keep, .. } => policies.prune(keep).await.map(|_| ()),
    }
}

async fn dns(store: &dyn Store, command: DnsCommand) -> Result<()> {
    match command {
        DnsCommand::Create { record, .. } => store.dns().create(record).await.map(|_| ()),
        DnsCommand::Update { id, patch, expected } => {
            store.dns().update(id, patch, expected).await.map(|_| ())
        }
        DnsCommand::Delete { id } => store.dns().delete(id).await,
    }
}

/// What followed from a call, as `state` shows it.
pub(super) fn done(op: &Op, state: &State) -> Done {
    let commands = match op {
        Op::Write(command) => std::slice::from_ref(command),
        Op::Transact(commands) => commands,
        _ => return Done::default(),
    };
    let machines = commands.iter().filter_map(|command| match command {
        Command::Node(NodeCommand::Register { registration, .. }) => {
            state.nodes().by_machine_key(&registration.machine_key)
        }
        _ => None,
    });
    let addresses = machines.map(|node| (node.id, (node.ipv4, node.ipv6))).collect();
    let command = match op {
        Op::Write(command) => Some(identified(command.clone(), state)),
        _ => None,
    };
    Done { command, addresses }
}

/// The command with the ids and hashes that the store drew for what it made. Everything that is
/// made has a mark of its own by which it is found. What is not there keeps the ids it had.
fn identified(command: Command, state: &State) -> Command {
    match command {
        Command::User(UserCommand::Create { id, user }) => {
            let found = state.users().by_name(&user.name).map(|user| user.id);
            UserCommand::Create { id: found.unwrap_or(id), user }.into()
        }
        Command::Node(NodeCommand::Register { id, registration }) => {
            let found = state.nodes().by_machine_key(&registration.machine_key);
            let id = found.map_or(id, |node| node.id);
            NodeCommand::Register { id, registration }.into()
        }
        Command::Route(RouteCommand::Advertise { node, prefixes }) => {
            let prefixes = found_routes(node, prefixes, state);
            RouteCommand::Advertise { node, prefixes }.into()
        }
        Command::Route(RouteCommand::Approve { node, prefixes }) => {
            let prefixes = found_routes(node, prefixes, state);
            RouteCommand::Approve { node, prefixes }.into()
        }
        Command::ApiKey(ApiKeyCommand::Create { id, prefix, hash, key }) => {
            let mut keys = state.api_keys().iter();
            match keys.find(|found| found.description == key.description).cloned() {
                Some(found) => ApiKeyCommand::Create {
                    id: found.id,
                    prefix: found.prefix.clone(),
                    hash: found.hash.clone(),
                    key,
                }
                .into(),
                None => ApiKeyCommand::Create { id, prefix, hash, key }.into(),
            }
        }
        Command::PreAuthKey(PreAuthKeyCommand::Create { id, prefix, hash, key }) => {
            let mut keys = state.preauth_keys().iter();
            match keys.find(|found| found.tags == key.tags).cloned() {
                Some(found) => PreAuthKeyCommand::Create {
                    id: found.id,
                    prefix: found.prefix.clone().expect("a key that was made here has one"),
                    hash: found.hash.clone(),
                    key,
                }
                .into(),
                None => PreAuthKeyCommand::Create { id, prefix, hash, key }.into(),
            }
        }
        Command::Session(SessionCommand::Begin { id, hash, session }) => {
            let mut sessions = state.sessions().iter();
            match sessions.find(|found| found.client == session.client).cloned() {
                Some(found) => {
                    SessionCommand::Begin { id: found.id, hash: found.hash.clone(), session }.into()
                }
                None => SessionCommand::Begin { id, hash, session }.into(),
            }
        }
        Command::DnsRecord(DnsCommand::Create { id, record }) => {
            let found = state.dns_records().of_name(&record.name).next();
            let id = found.map_or(id, |record| record.id);
            DnsCommand::Create { id, record }.into()
        }
        other => other,
    }
}

fn found_routes(
    node: NodeId,
    prefixes: Vec<(RouteId, Prefix)>,
    state: &State,
) -> Vec<(RouteId, Prefix)> {
    let found = |(id, prefix)| (state.routes().find(node, prefix).map_or(id, |it| it.id), prefix);
    prefixes.into_iter().map(found).collect()
}
