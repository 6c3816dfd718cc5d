//! Keeps something of one's own up to date with the store: here a host table.
//!
//! The position in the history is all that has to be remembered to go on later, also in another process.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::net::Ipv4Addr;

use futures_util::StreamExt;
use ghostwire_store::changes::{EntityId, LogPosition};
use ghostwire_store::config::{BackendChoice, Config, LibsqlOptions};
use ghostwire_store::domain::{
    Admission, DnsLabel, MachineKey, NewUser, NodeId, NodeKey, NodePatch, RegisterMethod,
    Registration, Update,
};
use ghostwire_store::{ErrorKind, Opener, Store, View};

/// Who is where, by node.
type Hosts = BTreeMap<NodeId, (DnsLabel, Ipv4Addr)>;

fn read(view: &View, id: NodeId) -> Option<(DnsLabel, Ipv4Addr)> {
    let node = view.nodes().get(id)?;
    Some((node.label.clone(), node.ipv4?))
}

/// Brings `hosts` from `position` to what the store holds now, and tells the position where that is.
async fn follow(
    store: &dyn Store,
    position: LogPosition,
    hosts: &mut Hosts,
) -> Result<LogPosition, ghostwire_store::Error> {
    let view = store.view();
    let mut changes = store.watch_from(position);
    let mut position = position;
    while position.serial < view.serial() {
        match changes.next().await {
            Some(Ok(commit)) => {
                position = commit.log_position();
                // A commit names the entities that changed; a view has what they are now.
                for change in commit.changes {
                    let EntityId::Node(id) = change.handle else { continue };
                    println!("commit {}: {:?}", commit.serial, change.kind);
                    match read(&view, id) {
                        Some(host) => hosts.insert(id, host),
                        None => hosts.remove(&id),
                    };
                }
            }
            // The blocks are no longer kept, or the store was put back to an older copy: begin anew.
            Some(Err(error))
                if matches!(error.kind(), ErrorKind::Compacted { .. } | ErrorKind::Conflict) =>
            {
                println!("beginning anew");
                let all =
                    view.nodes().iter().filter_map(|node| Some((node.id, read(&view, node.id)?)));
                *hosts = all.collect();
                return Ok(view.log_position());
            }
            Some(Err(error)) => return Err(error),
            // The store was closed.
            None => break,
        }
    }
    Ok(position)
}

fn machine(
    number: u8,
    hostname: &str,
    admission: Admission,
) -> Result<Registration, Box<dyn Error>> {
    let (machine, key) =
        (MachineKey::from_bytes([number; 32])?, NodeKey::from_bytes([number; 32])?);
    Ok(Registration::new(machine, key, hostname.parse()?, admission))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("ghostwire.db");
    let libsql = LibsqlOptions { path, ..LibsqlOptions::default() };
    let config = Config { backend: BackendChoice::Libsql(libsql), ..Config::default() };
    let store = Opener::new(&config).open().await?;

    let mut hosts = Hosts::new();
    let start = store.view().log_position();

    let alice = store.users().create(NewUser::local("alice".parse()?)).await?;
    let admission = Admission::User { user: alice.id, method: RegisterMethod::Cli };
    let laptop = store.nodes().register(machine(1, "laptop", admission.clone())?).await?;
    store.nodes().register(machine(2, "phone", admission)?).await?;
    let position = follow(store.as_ref(), start, &mut hosts).await?;

    let patch = NodePatch { label: Update::Set("desk".parse()?), ..NodePatch::default() };
    store.nodes().update(laptop.id, patch, None).await?;

    // The position outlives the process.
    store.close().await?;
    let store = Opener::new(&config).open().await?;
    follow(store.as_ref(), position, &mut hosts).await?;

    let mut table: Vec<_> = hosts.into_values().collect();
    table.sort();
    for (label, address) in table {
        println!("{address} {label}");
    }
    store.close().await?;
    Ok(())
}
