//! Moves a control plane's own tables into a store, keeping addresses, keys and times.
//!
//! Identifiers are derived from the old ones, so a second run finds everything in place and changes
//! nothing: run it as often as it takes, the last time with the old control plane stopped.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use ghostwire_store::command::{EntityRecord, Restore, Restored};
use ghostwire_store::config::{BackendChoice, Config, LibsqlOptions};
use ghostwire_store::domain::{
    AddressFamilies, DnsLabel, HostInfo, Hostname, NewUser, Node, NodeId, RegisterMethod, Revision,
    TagSet, Timestamp, UserId, UserName,
};
use ghostwire_store::{Opener, prepare_process};
use rusqlite::{Connection, OpenFlags, Row};

/// What the hand-written schema looked like.
const OLD: &str = "
CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT UNIQUE, email TEXT, created INTEGER);
CREATE TABLE nodes (id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users, name TEXT, machine_key TEXT,
                    node_key TEXT, ipv4 TEXT UNIQUE, created INTEGER);
INSERT INTO users VALUES (1, 'alice', 'Alice@Example.com', 1756000000), (2, 'bob', NULL, 1756000100);
INSERT INTO nodes VALUES
  (7, 1, 'laptop', printf('%.64c', '1'), printf('%.64c', '2'), '100.64.0.9', 1756000200),
  (8, 2, 'Bob''s phone', printf('%.64c', '3'), printf('%.64c', '4'), '100.64.0.4', 1756000300);
";

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Which user the old number stands for. `created` orders the new identifiers as the old ones.
fn user_id(created: Timestamp, old: i64) -> UserId {
    UserId::derived(created, &[b"old", b"users", old.to_string().as_bytes()])
}

fn user(row: &Row<'_>) -> Outcome<EntityRecord> {
    let created_at = Timestamp::from_secs(row.get("created")?)?;
    let email: Option<String> = row.get("email")?;
    // Leaves out what does not show, and cuts what is too long.
    let name = UserName::from_outside(&row.get::<_, String>("name")?)?;
    let email = email.map(|email| email.parse()).transpose()?;
    let user = NewUser { email, ..NewUser::local(name) };
    Ok(EntityRecord::User(Arc::new(user.created(user_id(created_at, row.get("id")?), created_at))))
}

fn node(row: &Row<'_>) -> Outcome<EntityRecord> {
    let created_at = Timestamp::from_secs(row.get("created")?)?;
    let old: i64 = row.get("id")?;
    let owner = user_id(Timestamp::from_secs(row.get("user_created")?)?, row.get("user_id")?);
    let hostname = Hostname::from_outside(&row.get::<_, String>("name")?);
    Ok(EntityRecord::Node(Arc::new(Node {
        id: NodeId::derived(created_at, &[b"old", b"nodes", old.to_string().as_bytes()]),
        user: Some(owner),
        tags: TagSet::empty(),
        // Two machines of one name need two labels; the old table did not ask for that.
        label: DnsLabel::from_hostname(hostname.as_str()).with_suffix(&old.to_string()),
        hostname,
        machine_key: format!("mkey:{}", row.get::<_, String>("machine_key")?).parse()?,
        node_key: format!("nodekey:{}", row.get::<_, String>("node_key")?).parse()?,
        disco_key: None,
        ipv4: Some(row.get::<_, String>("ipv4")?.parse()?),
        ipv6: None,
        host_info: HostInfo::default(),
        register_method: RegisterMethod::Cli,
        preauth_key: None,
        ephemeral: false,
        expires_at: None,
        created_at,
        updated_at: created_at,
        revision: Revision::FIRST,
        families: AddressFamilies::Both,
        settings: None,
    })))
}

/// Everything, in an order in which what is referred to comes first.
fn read_old(path: &Path) -> Outcome<Vec<EntityRecord>> {
    let old = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut images = Vec::new();
    let mut users = old.prepare("SELECT * FROM users ORDER BY id")?;
    let mut rows = users.query([])?;
    while let Some(row) = rows.next()? {
        images.push(user(row)?);
    }
    let mut nodes = old.prepare(
        "SELECT nodes.*, users.created AS user_created FROM nodes JOIN users ON users.id = user_id ORDER BY nodes.id",
    )?;
    let mut rows = nodes.query([])?;
    while let Some(row) = rows.next()? {
        images.push(node(row)?);
    }
    Ok(images)
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    // Before anything else uses the SQLite that the store links, too.
    prepare_process().await?;
    let old = directory.path().join("old.db");
    Connection::open(&old)?.execute_batch(OLD)?;

    let path = directory.path().join("ghostwire.db");
    let libsql = LibsqlOptions { path, ..LibsqlOptions::default() };
    let config = Config { backend: BackendChoice::Libsql(libsql), ..Config::default() };
    let store = Opener::new(&config).open().await?;

    for run in ["first", "second"] {
        // One commit; a large table goes in parts of some thousand entities.
        let restore = Restore { images: read_old(&old)?, skip_invalid: false };
        let Restored { restored, unchanged, .. } = store.restore(restore).await?.value;
        println!("{run} run: {restored} brought in, {unchanged} there already");
    }

    // The families that the old control plane did not know.
    let added = store.nodes().backfill_addresses().await?.len();
    println!("{added} nodes got an IPv6 address");
    for node in store.view().nodes().iter() {
        println!("{} ({}): {}", node.label, node.hostname.as_str(), node.ipv4.ok_or("no address")?);
    }
    store.close().await?;
    Ok(())
}
