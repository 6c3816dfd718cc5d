//! Commands as calls of a store, and which ids the store drew for them.

use ghostwire_store_core::command::*;
use ghostwire_store_core::domain::*;
use ghostwire_store_core::state::State;
use ghostwire_store_core::{Error, ErrorKind, Result};

use super::protocol::{Done, Op};
use crate::fixtures::Opened;

/// Calls the store as a control plane would.
pub(super) async fn perform(store: &Opened, op: &Op) -> Result<()> {
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

/// Whether a call worked, whatever it gave.
async fn unit<T>(call: impl Future<Output = Result<T>>) -> Result<()> {
    call.await.map(drop)
}

async fn write(store: &Opened, command: Command) -> Result<()> {
    match command {
        Command::User(command) => user(store, command).await,
        Command::Node(command) => node(store, command).await,
        Command::Presence(command) => presence(store, command).await,
        Command::Route(command) => route(store, command).await,
        Command::ApiKey(ApiKeyCommand::Create { key, .. }) => {
            unit(store.api_keys().create(key)).await
        }
        Command::ApiKey(ApiKeyCommand::Revoke { id }) => unit(store.api_keys().revoke(id)).await,
        Command::ApiKey(ApiKeyCommand::Delete { id }) => store.api_keys().delete(id).await,
        Command::PreAuthKey(PreAuthKeyCommand::Create { key, .. }) => {
            unit(store.preauth_keys().create(key)).await
        }
        Command::PreAuthKey(PreAuthKeyCommand::Revoke { id }) => {
            unit(store.preauth_keys().revoke(id)).await
        }
        Command::PreAuthKey(PreAuthKeyCommand::Delete { id }) => {
            store.preauth_keys().delete(id).await
        }
        Command::Session(command) => session(store, command).await,
        Command::Policy(command) => policy(store, command).await,
        Command::DnsRecord(command) => dns(store, command).await,
        Command::Setting(SettingCommand::Put { document, expected }) => {
            unit(store.settings().put(document, expected)).await
        }
        Command::Setting(SettingCommand::Reset { kind }) => store.settings().reset(kind).await,
        other => Err(Error::new(ErrorKind::Unsupported, "no call makes this command")
            .with("command", other.name())),
    }
}

async fn user(store: &Opened, command: UserCommand) -> Result<()> {
    use UserCommand::{Create, Delete, Update, UpsertOidc};
    let users = store.users();
    match command {
        Create { user, .. } => unit(users.create(user)).await,
        Update { id, patch, expected } => unit(users.update(id, patch, expected)).await,
        UpsertOidc { profile, .. } => unit(users.upsert_oidc(profile)).await,
        Delete { id, cascade, .. } => users.delete(id, cascade).await,
    }
}

async fn node(store: &Opened, command: NodeCommand) -> Result<()> {
    use NodeCommand::{
        BackfillAddresses, Delete, Expire, ReapEphemeral, Register, RotateKey, Update,
    };
    let nodes = store.nodes();
    match command {
        Register { registration, .. } => unit(nodes.register(*registration)).await,
        Update { id, patch, expected } => unit(nodes.update(id, *patch, expected)).await,
        RotateKey { machine_key, from, to, disco_key, expires_at } => {
            unit(nodes.rotate_key(machine_key, from, to, disco_key, expires_at)).await
        }
        Expire { nodes: ids, at, .. } => unit(nodes.expire(ids, at)).await,
        Delete { id } => nodes.delete(id).await,
        ReapEphemeral { .. } => unit(nodes.reap_ephemeral()).await,
        BackfillAddresses { .. } => unit(nodes.backfill_addresses()).await,
    }
}

async fn presence(store: &Opened, command: PresenceCommand) -> Result<()> {
    use PresenceCommand::{Connect, Disconnect, DisconnectAll, Heartbeat};
    let presence = store.presence();
    match command {
        Connect { node, session, endpoints } => {
            unit(presence.connect(node, session, endpoints)).await
        }
        Heartbeat { node, session, endpoints } => {
            unit(presence.heartbeat(node, session, endpoints)).await
        }
        Disconnect { node, session } => unit(presence.disconnect(node, session)).await,
        DisconnectAll { .. } => unit(presence.disconnect_all()).await,
    }
}

async fn route(store: &Opened, command: RouteCommand) -> Result<()> {
    use RouteCommand::{Advertise, Approve, Delete};
    let only = |prefixes: Vec<(RouteId, Prefix)>| prefixes.into_iter().map(|(_, of)| of).collect();
    let routes = store.routes();
    match command {
        Advertise { node, prefixes } => unit(routes.advertise(node, only(prefixes))).await,
        Approve { node, prefixes } => unit(routes.approve(node, only(prefixes))).await,
        Delete { id } => routes.delete(id).await,
    }
}

async fn session(store: &Opened, command: SessionCommand) -> Result<()> {
    use SessionCommand::{Begin, End, Sweep, Touch};
    let sessions = store.sessions();
    match command {
        Begin { session, .. } => unit(sessions.begin(session)).await,
        Touch { id, expires_at } => unit(sessions.touch(id, expires_at)).await,
        End { id } => sessions.end(id).await,
        Sweep { .. } => unit(sessions.sweep()).await,
    }
}

async fn policy(store: &Opened, command: PolicyCommand) -> Result<()> {
    use PolicyCommand::{Prune, Rollback, Swap};
    let policies = store.policies();
    match command {
        Swap { expected, document } => unit(policies.swap(expected, document)).await,
        Rollback { expected, to } => unit(policies.rollback(expected, to)).await,
        Prune { keep, .. } => unit(policies.prune(keep)).await,
    }
}

async fn dns(store: &Opened, command: DnsCommand) -> Result<()> {
    use DnsCommand::{Create, Delete, Update};
    match command {
        Create { record, .. } => unit(store.dns().create(record)).await,
        Update { id, patch, expected } => unit(store.dns().update(id, patch, expected)).await,
        Delete { id } => store.dns().delete(id).await,
    }
}

/// The result of a call, as `state` shows it.
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
