//! Commands as calls of a store, and which ids the store drew for them.

use ghostwire_store_core::state::State;

use super::protocol::{Done, Op};
use crate::prelude::*;

/// Calls the store as a control plane would.
pub(super) async fn perform(store: &Opened, op: &Op) -> Result<()> {
    match op.clone() {
        Op::Write(command) => call(store, command).await.map(drop),
        Op::Transact(commands) => store.transact(transaction(commands)?).await.map(drop),
        Op::Record(points) => store.metrics().record_many(points).await,
        Op::Batch { writer, sequence, points } => {
            store.metrics().record_batch(writer, sequence, points).await
        }
        Op::Append(entries) => store.audit().append(entries).await,
        Op::PruneMetrics(before) => store.metrics().prune(before).await,
        Op::PruneAudit(before) => store.audit().prune(before).await,
        Op::Checkpoint => store.checkpoint().await.map(drop),
        Op::Verify => store.verify().await,
    }
}

pub(super) fn transaction(commands: Vec<Command>) -> Result<Transaction> {
    commands.into_iter().try_fold(Transaction::new(), Transaction::then)
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
        Command::Route(RouteCommand::Advertise { node, prefixes, expected }) => {
            let prefixes = found_routes(node, prefixes, state);
            RouteCommand::Advertise { node, prefixes, expected }.into()
        }
        Command::Route(RouteCommand::Approve { node, prefixes, expected }) => {
            let prefixes = found_routes(node, prefixes, state);
            RouteCommand::Approve { node, prefixes, expected }.into()
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
