//! A backend on real files.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod commits;
mod damage;
mod files;
mod layout;
mod migrations;
mod positions;
mod ranges;
mod verify;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ghostwire_store_core::backend::{Backend, Commit, Head, KeyRange, Row, Scan};
use ghostwire_store_core::block::{BlockBuilder, ChangeKind, EncodedBlock, RowChange, Serial};
use ghostwire_store_core::domain::*;
use ghostwire_store_core::error::{EntityKind, Error, ErrorKind, Result};
use ghostwire_store_core::schema::{
    MIGRATIONS, Record, RowKey, Schema, Table, Value, WriterPosition, encode_values,
};
use tempfile::{TempDir, tempdir};

use crate::link::Link;
use crate::{LibsqlBackend, LibsqlOptions};
use ghostwire_store_sqlite::{Connection, Role, check_structure, connect};

const STORE: StoreId = StoreId::from_bytes([0x5a; 16]);

fn place() -> (TempDir, PathBuf) {
    let directory = tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("store.db");
    (directory, path)
}

async fn open(path: &Path) -> Result<LibsqlBackend> {
    LibsqlBackend::open(LibsqlOptions::new(path, STORE).create(true)).await
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + seconds).unwrap()
}

fn bytes<const N: usize>(kind: u8, number: u32) -> [u8; N] {
    let mut bytes = [kind; N];
    bytes[N - 4..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn node(number: u32) -> Node {
    Node {
        id: NodeId::from_bytes(bytes(1, number)),
        user: (!number.is_multiple_of(3)).then(|| UserId::from_bytes(bytes(2, number % 7))),
        tags: TagSet::empty(),
        hostname: Hostname::new(format!("host-{number}")).unwrap(),
        label: DnsLabel::new(format!("host-{number}")).unwrap(),
        machine_key: MachineKey::from_bytes(bytes(3, number)).unwrap(),
        node_key: NodeKey::from_bytes(bytes(4, number)).unwrap(),
        disco_key: number
            .is_multiple_of(2)
            .then(|| DiscoKey::from_bytes(bytes(5, number)).unwrap()),
        ipv4: Some(std::net::Ipv4Addr::from(0x6440_0000 + number)),
        ipv6: Some(std::net::Ipv6Addr::from(
            0xfd7a_115c_a1e0_0000_0000_0000_0000_0000 + u128::from(number),
        )),
        host_info: HostInfo::default(),
        register_method: RegisterMethod::Cli,
        preauth_key: None,
        ephemeral: number.is_multiple_of(5),
        expires_at: None,
        created_at: at(1),
        updated_at: at(2),
        revision: Revision::FIRST,
        families: AddressFamilies::Both,
        settings: None,
    }
}

fn user(number: u32) -> User {
    let display_name = Some(Text::new("Zoë \u{1f980} O'Brien \"x\"").unwrap());
    let name = UserName::new(format!("user{number}")).unwrap();
    let new = NewUser { display_name, ..NewUser::local(name) };
    new.created(UserId::from_bytes(bytes(2, number)), at(1))
}

fn record(number: u32, ttl: Option<u32>) -> DnsRecord {
    DnsRecord {
        id: DnsRecordId::from_bytes(bytes(6, number)),
        name: DnsName::new(format!("r{number}.example.org")).unwrap(),
        kind: DnsRecordKind::Txt,
        value: Text::new("v=1").unwrap(),
        ttl,
        created_at: at(1),
        updated_at: at(1),
        revision: Revision::FIRST,
    }
}

fn presence(number: u32) -> Presence {
    Presence {
        session: SessionNumber::new(7).unwrap(),
        online: true,
        last_seen: Some(at(9)),
        ..Presence::new(NodeId::from_bytes(bytes(1, number)))
    }
}

fn metric(node: Option<u32>, name: &str, seconds: i64) -> MetricPoint {
    MetricPoint {
        node: node.map(|number| NodeId::from_bytes(bytes(1, number))),
        metric: MetricName::new(name).unwrap(),
        at: at(seconds),
        value: Sample::new(seconds as f64 * 0.25 + 0.1).unwrap(),
    }
}

fn audit(number: u32) -> AuditEntry {
    AuditEntry::new(
        (at(i64::from(number / 4)), AuditId::from_bytes(bytes(8, number))),
        Actor::system(),
        Text::new("node.register").unwrap(),
        EntityKind::Node,
        Text::new("n").unwrap(),
    )
}

fn put<R: Record>(record: &R) -> RowChange {
    RowChange {
        table: R::SCHEMA.table,
        kind: ChangeKind::Created,
        key: record.key(),
        body: Some(record.encode()),
    }
}

fn delete(table: Table, key: RowKey) -> RowChange {
    RowChange { table, kind: ChangeKind::Deleted, key, body: None }
}

/// A commit of a block with these rows, which it also folds.
fn commit(head: &Head, build: impl FnOnce(&mut BlockBuilder)) -> Commit {
    let mut builder = BlockBuilder::default();
    build(&mut builder);
    let serial = head.serial.next();
    let id = BlockId::from_bytes(bytes(9, u32::try_from(serial.get()).unwrap()));
    let closed = builder.finish(serial, id, head.hash, at(100)).unwrap();
    let rows = closed.changes.into_iter().chain(closed.audit_rows).collect();
    Commit { block: Some(closed.block), rows, checkpoint: Some(serial), ..Commit::on(head) }
}

fn rows_only(head: &Head, rows: Vec<RowChange>) -> Commit {
    Commit { rows, ..Commit::on(head) }
}

async fn all(backend: &LibsqlBackend, table: Table) -> Result<Vec<Row>> {
    let scan = Scan { range: KeyRange::all(table), reverse: false, limit: usize::MAX };
    backend.scan(scan).await.map(|page| page.rows)
}

/// Everything that can be read.
#[derive(Debug, PartialEq)]
struct Content {
    head: Head,
    rows: Vec<(Table, Vec<Row>)>,
    blocks: Vec<EncodedBlock>,
}

async fn content(backend: &LibsqlBackend) -> Result<Content> {
    let head = backend.head().await?;
    let mut rows = Vec::new();
    for table in Table::ALL {
        rows.push((table, all(backend, table).await?));
    }
    let after = Serial::new(head.oldest_block.get() - 1);
    let blocks = backend.blocks(after, usize::MAX).await?;
    Ok(Content { head, rows, blocks })
}

/// A few commits over most tables.
async fn fill(backend: &LibsqlBackend) -> Vec<RowChange> {
    let mut stored = Vec::new();
    for round in 0..4 {
        let head = backend.head().await.unwrap();
        let mut commit = commit(&head, |block| {
            for number in round * 40..round * 40 + 40 {
                block.put(ChangeKind::Created, &node(number));
                block.put(ChangeKind::Created, &presence(number));
                block.put(ChangeKind::Created, &record(number, Some(number)));
                block.audit(audit(number));
            }
            block.put(ChangeKind::Created, &user(round));
        });
        commit.rows.extend((0..30).map(|second| {
            put(&metric((round > 0).then_some(round), "rx_bytes_total", i64::from(second)))
        }));
        stored.extend(commit.rows.iter().cloned());
        backend.commit(&commit).await.unwrap();
    }
    let head = backend.head().await.unwrap();
    let setting = Setting {
        document: SettingDocument::Network(NetworkSettings::default()),
        revision: Revision::FIRST,
        updated_at: at(3),
    };
    let position = WriterPosition {
        writer: WriterId::from_bytes([3; 16]),
        sequence: Revision::new(77).unwrap(),
    };
    let rows = vec![put(&setting), put(&position)];
    stored.extend(rows.iter().cloned());
    backend.commit(&rows_only(&head, rows)).await.unwrap();
    stored
}

fn expected(stored: &[RowChange], table: Table) -> Vec<Row> {
    let rows: BTreeMap<RowKey, Bytes> = stored
        .iter()
        .filter(|change| change.table == table)
        .map(|change| (change.key.clone(), change.body.clone().unwrap()))
        .collect();
    rows.into_iter().map(|(key, body)| Row { key, body }).collect()
}

async fn edit(path: &Path, sql: &str) {
    let mut link = connect::<Link>(path, Role::Writer).unwrap();
    link.run(sql).unwrap();
}
