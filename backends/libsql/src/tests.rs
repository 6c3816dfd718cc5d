#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ghostwire_store_core::backend::{Backend, Commit, Head, KeyRange, Row, Scan};
use ghostwire_store_core::block::{BlockBuilder, ChangeKind, EncodedBlock, RowChange, Serial};
use ghostwire_store_core::domain::*;
use ghostwire_store_core::error::{Entity, Error, ErrorKind, Result};
use ghostwire_store_core::schema::{
    MIGRATIONS, Record, RowKey, Schema, Table, Value, WriterPosition, encode_values,
};
use tempfile::{TempDir, tempdir};

use crate::link::{Link, Role};
use crate::{LibsqlBackend, LibsqlOptions};

const STORE: StoreId = StoreId::from_bytes([0x5a; 16]);

fn place() -> (TempDir, PathBuf) {
    let directory = tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("store.db");
    (directory, path)
}

async fn open(path: &Path) -> Result<LibsqlBackend> {
    LibsqlBackend::open(LibsqlOptions::new(path, STORE)).await
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
    }
}

fn user(number: u32) -> User {
    User {
        id: UserId::from_bytes(bytes(2, number)),
        name: UserName::new(format!("user{number}")).unwrap(),
        display_name: Some(Text::new("Zoë \u{1f980} O'Brien \"x\"").unwrap()),
        email: None,
        identity: Identity::Local {},
        picture_url: None,
        created_at: at(1),
        updated_at: at(1),
        revision: Revision::FIRST,
    }
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
        node: NodeId::from_bytes(bytes(1, number)),
        session: SessionNumber::new(7).unwrap(),
        online: true,
        last_seen: Some(at(9)),
        endpoints: EndpointList::empty(),
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
    AuditEntry {
        id: AuditId::from_bytes(bytes(8, number)),
        at: at(i64::from(number / 4)),
        actor: ActorName::system(),
        action: Text::new("node.register").unwrap(),
        entity: Entity::Node,
        subject: Text::new("n").unwrap(),
    }
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
    Commit {
        expected: head.serial,
        block: Some(closed.block),
        rows,
        checkpoint: Some(serial),
        ..Commit::default()
    }
}

fn rows_only(head: &Head, rows: Vec<RowChange>) -> Commit {
    Commit { expected: head.serial, rows, ..Commit::default() }
}

async fn all(backend: &LibsqlBackend, table: Table) -> Result<Vec<Row>> {
    backend.scan(Scan { range: KeyRange::all(table), reverse: false, limit: usize::MAX }).await
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

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let empty = backend.head().await.unwrap();
    assert_eq!(
        (empty.store, empty.serial, empty.oldest_block),
        (STORE, Serial::ZERO, Serial::new(1))
    );
    backend.verify().await.unwrap();
    let stored = fill(&backend).await;
    let before = content(&backend).await.unwrap();
    for (table, rows) in &before.rows {
        assert_eq!(*rows, expected(&stored, *table), "{table:?}");
    }
    assert_eq!(before.blocks.len(), 4);
    assert_eq!(before.head.hash, before.blocks[3].hash);
    assert_eq!(backend.reopen().await.unwrap(), before.head);
    assert_eq!(content(&backend).await.unwrap(), before);
    let info = backend.info();
    assert!(info.engine.contains("3.47"), "{}", info.engine);
    assert_eq!((info.counters.commits, info.counters.blocks), (5, 4));
    assert!(info.bytes.unwrap() > 100_000);
    backend.close().await.unwrap();
    assert_eq!(*backend.head().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!path.with_extension("db-wal").exists());
    // Another identity is only for a new file.
    let other = LibsqlOptions::new(&path, StoreId::from_bytes([1; 16]));
    let backend = LibsqlBackend::open(other).await.unwrap();
    assert_eq!(content(&backend).await.unwrap(), before);
    backend.verify().await.unwrap();
    let Row { key, body } = &before.rows[1].1[5];
    assert_eq!(Node::decode(key, body).unwrap(), node(5));
}

#[tokio::test]
async fn a_stale_or_strange_block_changes_nothing() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let genesis = backend.head().await.unwrap();
    backend
        .commit(&commit(&genesis, |block| block.put(ChangeKind::Created, &node(1))))
        .await
        .unwrap();
    let before = content(&backend).await.unwrap();
    let stale = commit(&genesis, |block| block.put(ChangeKind::Created, &node(2)));
    let error = backend.commit(&stale).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("expected=0, serial=1"), "{error}");
    let fork = Head { serial: before.head.serial, ..genesis };
    let fork = commit(&fork, |block| block.put(ChangeKind::Created, &node(2)));
    assert_eq!(*backend.commit(&fork).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(content(&backend).await.unwrap(), before);
    assert_eq!(backend.info().counters.failed_commits, 2);
    // A row that does not fit rolls everything back.
    let mut unfit = commit(&before.head, |block| block.put(ChangeKind::Created, &node(2)));
    unfit
        .rows
        .push(RowChange { body: Some(encode_values(2, [Value::Integer(1)])), ..put(&node(3)) });
    let error = backend.commit(&unfit).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt);
    assert_eq!(content(&backend).await.unwrap(), before);
}

#[tokio::test]
async fn the_later_row_wins_and_deletions_repeat() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let head = backend.head().await.unwrap();
    let renamed = |name: &str| Node { hostname: Hostname::new(name).unwrap(), ..node(1) };
    let key = node(1).key();
    let rows = vec![
        put(&renamed("a")),
        delete(Table::Nodes, key.clone()),
        put(&node(2)),
        put(&renamed("b")),
        delete(Table::Nodes, node(2).key()),
        delete(Table::Nodes, node(3).key()),
    ];
    for _ in 0..2 {
        backend.commit(&rows_only(&head, rows.clone())).await.unwrap();
        let rows = all(&backend, Table::Nodes).await.unwrap();
        assert_eq!(rows, [Row { key: key.clone(), body: renamed("b").encode() }]);
    }
    backend.verify().await.unwrap();
}

/// Positions between keys of all shapes: whole keys, their prefixes, successors, bounds of
/// prefixes, and bytes that no key has.
fn positions(keys: &[RowKey]) -> Vec<RowKey> {
    let mut positions = vec![RowKey::new()];
    for key in keys {
        let bytes = key.as_bytes();
        positions.push(key.clone().successor());
        for end in [1, 3, 8, 15, 16, 17, 19, 24, 25, 30, 31, 33, 38, bytes.len()] {
            let Some(prefix) = bytes.get(..end) else { continue };
            let prefix = RowKey::from_bytes(prefix).unwrap();
            positions.extend(prefix.clone().after_prefix());
            positions.push(prefix.clone().successor());
            let high = [prefix.as_bytes(), &[0xff, 0xfe]].concat();
            positions.push(RowKey::from_bytes(&high).unwrap());
            positions.push(prefix);
        }
    }
    positions
}

async fn ranges_agree(backend: &LibsqlBackend, rows: Vec<RowChange>) {
    let table = rows[0].table;
    let model: BTreeMap<RowKey, Bytes> =
        rows.iter().map(|row| (row.key.clone(), row.body.clone().unwrap())).collect();
    let head = backend.head().await.unwrap();
    backend.commit(&rows_only(&head, rows)).await.unwrap();
    let keys: Vec<RowKey> = model.keys().step_by(7).cloned().collect();
    let positions = positions(&keys);
    for (index, from) in positions.iter().enumerate() {
        let to = &positions[(index * 31 + 7) % positions.len()];
        for to in [None, Some(to.clone())] {
            let upper = to.clone().map_or(Bound::Unbounded, Bound::Excluded);
            let is_empty = to.as_ref().is_some_and(|to| to <= from);
            let mut wanted: Vec<&RowKey> = if is_empty {
                Vec::new()
            } else {
                model.range((Bound::Included(from.clone()), upper)).map(|(key, _)| key).collect()
            };
            let range = KeyRange { table, from: from.clone(), to };
            for (reverse, limit) in [(false, 1000), (true, 1000), (false, 5), (true, 3)] {
                let scan = Scan { range: range.clone(), reverse, limit };
                let found = backend.scan(scan.clone()).await.unwrap();
                let found: Vec<&RowKey> = found.iter().map(|row| &row.key).collect();
                if reverse {
                    wanted.reverse();
                }
                assert_eq!(found, wanted[..limit.min(wanted.len())], "{scan:?}");
                if reverse {
                    wanted.reverse();
                }
            }
        }
    }
}

#[tokio::test]
async fn ranges_compare_like_bytes() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let mut rows = Vec::new();
    for node in [None, Some(0), Some(1), Some(300)] {
        for name in ["a", "cpu", "cpu_load", "rx_bytes_total"] {
            rows.extend((0..8).map(|second| put(&metric(node, name, second * 1000))));
        }
    }
    ranges_agree(&backend, rows).await;
    ranges_agree(&backend, (0..60).map(|number| put(&audit(number))).collect()).await;
    ranges_agree(&backend, (0..60).map(|number| put(&node(number))).collect()).await;
}

#[tokio::test]
async fn pruning_deletes_a_range_before_rows_are_written() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let head = backend.head().await.unwrap();
    let points = |seconds: std::ops::Range<i64>| {
        seconds.map(|second| put(&metric(Some(1), "cpu", second))).collect::<Vec<_>>()
    };
    let mut rows = points(0..50);
    rows.extend([put(&metric(Some(2), "cpu", 3)), put(&metric(None, "cpu", 3))]);
    backend.commit(&rows_only(&head, rows)).await.unwrap();
    let prefix = || RowKey::new().id(&bytes(1, 1)).text("cpu");
    let range = KeyRange {
        table: Table::Metrics,
        from: prefix(),
        to: Some(prefix().integer(at(40).as_micros())),
    };
    let nothing = KeyRange { to: Some(RowKey::new()), ..range.clone() };
    let mut commit = rows_only(&head, points(7..8));
    commit.prune = vec![range, nothing];
    backend.commit(&commit).await.unwrap();
    let mut wanted = points(40..50);
    wanted.extend(points(7..8));
    wanted.extend([put(&metric(Some(2), "cpu", 3)), put(&metric(None, "cpu", 3))]);
    assert_eq!(all(&backend, Table::Metrics).await.unwrap(), expected(&wanted, Table::Metrics));
}

#[tokio::test]
async fn purged_blocks_are_compacted() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let head = backend.head().await.unwrap();
    let purge =
        Commit { expected: head.serial, purge_before: Some(Serial::new(3)), ..Commit::default() };
    backend.commit(&purge).await.unwrap();
    assert_eq!(backend.head().await.unwrap().oldest_block, Serial::new(3));
    let error = backend.blocks(Serial::new(1), 10).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Compacted { oldest: 3 });
    let blocks = backend.blocks(Serial::new(2), 1).await.unwrap();
    assert_eq!(blocks.iter().map(|block| block.serial.get()).collect::<Vec<_>>(), [3]);
    assert_eq!(backend.blocks(Serial::new(4), 10).await.unwrap(), []);
    backend.verify().await.unwrap();
    // Blocks that were not folded yet stay.
    let unfolded = commit(&head, |block| block.put(ChangeKind::Created, &node(900)));
    let purge = Commit {
        rows: Vec::new(),
        checkpoint: None,
        purge_before: Some(Serial::new(u64::MAX)),
        ..unfolded
    };
    backend.commit(&purge).await.unwrap();
    let head = backend.head().await.unwrap();
    assert_eq!((head.checkpoint.get(), head.oldest_block.get(), head.serial.get()), (4, 5, 5));
    assert_eq!(backend.blocks(Serial::new(4), 10).await.unwrap().len(), 1);
    backend.verify().await.unwrap();
}

#[tokio::test]
async fn a_second_open_is_busy_and_readers_only_read() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let before = content(&backend).await.unwrap();
    assert_eq!(*open(&path).await.unwrap_err().kind(), ErrorKind::Busy);
    backend.close().await.unwrap();
    let options = LibsqlOptions { read_only: true, ..LibsqlOptions::new(&path, STORE) };
    let one = LibsqlBackend::open(options.clone()).await.unwrap();
    let two = LibsqlBackend::open(options).await.unwrap();
    assert_eq!(content(&one).await.unwrap(), before);
    assert_eq!(content(&two).await.unwrap(), before);
    let error = one.commit(&rows_only(&before.head, Vec::new())).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::ReadOnly);
    assert_eq!(*open(&path).await.unwrap_err().kind(), ErrorKind::Busy);
    drop((one, two));
    open(&path).await.unwrap();
}

#[tokio::test]
async fn missing_foreign_and_short_files_are_refused() {
    let (directory, path) = place();
    let mut options = LibsqlOptions::new(&path, STORE);
    options.create = false;
    let error = LibsqlBackend::open(options).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    let foreign = directory.path().join("foreign.db");
    std::fs::write(&foreign, "").unwrap();
    {
        crate::prepare_process().await.unwrap();
        let mut link = Link::open(&foreign.canonicalize().unwrap(), Role::Writer).unwrap();
        link.run("CREATE TABLE users (id)").unwrap();
    }
    let before = std::fs::read(&foreign).unwrap();
    let error = open(&foreign).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(std::fs::read(&foreign).unwrap(), before);
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    backend.close().await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in [50, 4096, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(*open(&path).await.unwrap_err().kind(), ErrorKind::Corrupt, "{length}");
    }
    std::fs::write(&path, &whole).unwrap();
    open(&path).await.unwrap().verify().await.unwrap();
}

#[tokio::test]
async fn a_flipped_byte_is_never_read_as_other_data() {
    let (directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let before = content(&backend).await.unwrap();
    backend.close().await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    // Every byte of the header, the beginning of every page, and a sample of the rest.
    let offsets = (0..whole.len())
        .filter(|offset| *offset < 100 || offset % 4096 < 12 || offset % 509 == 0)
        .collect::<Vec<_>>();
    let damaged = directory.path().join("damaged.db");
    let (mut refused, mut harmless) = (0, 0);
    for offset in offsets {
        for flip in [0x01, 0x80] {
            let mut bytes = whole.clone();
            bytes[offset] ^= flip;
            std::fs::write(&damaged, bytes).unwrap();
            let read = async {
                let backend = open(&damaged).await?;
                content(&backend).await
            };
            match read.await {
                Err(error) => {
                    let kinds = [ErrorKind::Corrupt, ErrorKind::InvalidArgument];
                    assert!(kinds.contains(error.kind()), "at {offset}: {error}");
                    refused += 1;
                }
                Ok(content) => {
                    assert_eq!(content, before, "at {offset}");
                    harmless += 1;
                }
            }
            let _ = std::fs::remove_file(directory.path().join("damaged.db-wal"));
            let _ = std::fs::remove_file(directory.path().join("damaged.db-shm"));
        }
    }
    assert!(refused > harmless, "{refused} refused, {harmless} harmless");
}

async fn edit(path: &Path, sql: &str) {
    let mut link = Link::open(path, Role::Writer).unwrap();
    link.run(sql).unwrap();
}

#[tokio::test]
async fn rows_edited_by_hand_are_refused() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    backend.close().await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    for (sql, word) in [
        ("UPDATE nodes SET hostname = 'evil' WHERE hostname = 'host-7'", "nodes"),
        ("UPDATE nodes SET hostname = CAST(x'ff00fe' AS TEXT) WHERE hostname = 'host-7'", "nodes"),
        ("UPDATE metrics SET value = value + 1 WHERE node = ''", "metrics"),
        ("UPDATE audit SET id = replace(id, '-', '')", "audit"),
        ("UPDATE ghostwire_meta SET serial = 2", "ghostwire_meta"),
        ("UPDATE ghostwire_blocks SET body = zeroblob(400) WHERE serial = 2", "block"),
        ("DELETE FROM ghostwire_blocks WHERE serial = 2", "block"),
        ("DROP TABLE routes", "routes"),
        ("ALTER TABLE routes RENAME COLUMN prefix TO net", "routes"),
        ("PRAGMA user_version = 77", "schema"),
    ] {
        std::fs::write(&path, &whole).unwrap();
        edit(&path, sql).await;
        let error = async {
            let backend = open(&path).await?;
            content(&backend).await?;
            Ok::<_, Error>(())
        };
        let error = error.await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{sql}: {error}");
        assert!(error.to_string().contains(word), "{sql}: {error}");
        assert!(!error.to_string().contains("evil"), "{error}");
    }
}

#[tokio::test]
async fn columns_are_readable_with_plain_sql() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let database = libsql::Builder::new_local(&path).build().await.unwrap();
    let connection = database.connect().unwrap();
    let mut rows = connection
        .query(
            "SELECT id, ipv4, node_key, disco_key, ephemeral, created_at, user, host_info \
             FROM nodes WHERE hostname = 'host-9'",
            (),
        )
        .await
        .unwrap();
    let row = rows.next().await.unwrap().unwrap();
    assert_eq!(row.get::<String>(0).unwrap(), "01010101-0101-0101-0101-010100000009");
    assert_eq!(row.get::<String>(1).unwrap(), "100.64.0.9");
    assert_eq!(row.get::<String>(2).unwrap(), node(9).node_key.to_string());
    assert_eq!(row.get::<Option<String>>(3).unwrap(), None);
    assert_eq!(row.get::<i64>(4).unwrap(), 0);
    assert_eq!(row.get::<i64>(5).unwrap(), at(1).as_micros());
    assert_eq!(row.get::<Option<String>>(6).unwrap(), None);
    assert_eq!(row.get::<String>(7).unwrap(), "{}");
    let mut rows = connection
        .query(
            "SELECT (SELECT count(*) FROM metrics WHERE node = ''), \
             (SELECT serial FROM ghostwire_meta), (SELECT count(*) FROM ghostwire_blocks), \
             (SELECT value FROM metrics WHERE at % 8000000 = 0 LIMIT 1)",
            (),
        )
        .await
        .unwrap();
    let row = rows.next().await.unwrap().unwrap();
    assert_eq!((row.get::<i64>(0).unwrap(), row.get::<i64>(1).unwrap()), (30, 4));
    assert_eq!(row.get::<i64>(2).unwrap(), 4);
}

#[tokio::test]
async fn a_version_1_file_is_carried_forward_and_backed_up() {
    let (_directory, path) = place();
    let first = Schema::at(1).unwrap();
    let options = LibsqlOptions { schema: Some(first), ..LibsqlOptions::new(&path, STORE) };
    let backend = LibsqlBackend::open(options).await.unwrap();
    fill(&backend).await;
    let before = content(&backend).await.unwrap();
    assert_eq!(before.head.schema, first.version());
    let (_, records) = before.rows.iter().find(|(table, _)| *table == Table::DnsRecords).unwrap();
    // The time to live came with version 2.
    let wanted = first.fit(Table::DnsRecords, &record(0, Some(0)).encode()).unwrap();
    assert_eq!(records[0].body, wanted);
    backend.migrate(first).await.unwrap();
    backend.migrate(Schema::current()).await.unwrap();
    backend.migrate(Schema::current()).await.unwrap();
    let after = content(&backend).await.unwrap();
    assert_eq!(after.head, Head { schema: Schema::current().version(), ..before.head });
    assert_eq!(after.blocks, before.blocks);
    for ((table, before), (_, after)) in before.rows.iter().zip(&after.rows) {
        let fitted = before.iter().map(|row| Row {
            key: row.key.clone(),
            body: Schema::current().fit(*table, &row.body).unwrap(),
        });
        assert!(fitted.eq(after.iter().cloned()), "{table:?}");
    }
    backend.verify().await.unwrap();
    backend.commit(&rows_only(&after.head, vec![put(&record(3, Some(60)))])).await.unwrap();
    let rows = all(&backend, Table::DnsRecords).await.unwrap();
    assert_eq!(rows[3].body, record(3, Some(60)).encode());
    assert_eq!(rows[4].body, record(4, None).encode());
    backend.close().await.unwrap();
    open(&path).await.unwrap().verify().await.unwrap();
    let backup = PathBuf::from(format!("{}.v1.bak", path.display()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let backup = open(&backup).await.unwrap();
    assert_eq!(content(&backup).await.unwrap(), before);
    backup.verify().await.unwrap();
}

#[tokio::test]
async fn a_migration_that_fails_leaves_the_old_schema() {
    let (_directory, path) = place();
    let options =
        LibsqlOptions { schema: Some(Schema::at(1).unwrap()), ..LibsqlOptions::new(&path, STORE) };
    let backend = LibsqlBackend::open(options).await.unwrap();
    fill(&backend).await;
    let before = content(&backend).await.unwrap();
    backend.close().await.unwrap();
    edit(&path, "ALTER TABLE dns_records ADD COLUMN ttl INTEGER").await;
    let backend = open(&path).await.unwrap();
    backend.migrate(Schema::current()).await.unwrap_err();
    assert_eq!(content(&backend).await.unwrap(), before);
    assert_eq!(backend.reopen().await.unwrap(), before.head);
}

#[tokio::test]
async fn a_newer_schema_is_read_by_name_if_it_admits_this_build() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let before = content(&backend).await.unwrap();
    backend.close().await.unwrap();
    let newer = u32::try_from(MIGRATIONS.len()).unwrap() + 1;
    let set = |oldest_reader: u32| {
        let mut link = Link::open(&path, Role::Writer).unwrap();
        let mut head = crate::meta::head(&mut link).unwrap();
        head.schema.version = newer;
        head.schema.oldest_reader = oldest_reader;
        crate::meta::move_head(&mut link, head.serial, &head).unwrap();
        link.run(&format!("PRAGMA user_version = {newer}")).unwrap();
    };
    edit(&path, "ALTER TABLE nodes ADD COLUMN colour TEXT").await;
    edit(&path, "ALTER TABLE nodes ADD COLUMN weight INTEGER").await;
    set(1);
    let backend = open(&path).await.unwrap();
    assert_eq!(content(&backend).await.unwrap().rows, before.rows);
    let head = backend.head().await.unwrap();
    let renamed = Node { hostname: Hostname::new("new").unwrap(), ..node(4) };
    backend.commit(&rows_only(&head, vec![put(&renamed)])).await.unwrap();
    assert_eq!(all(&backend, Table::Nodes).await.unwrap()[4].body, renamed.encode());
    backend.migrate(Schema::current()).await.unwrap();
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    // What the newer build stores is covered by its check too.
    edit(&path, "UPDATE nodes SET colour = 'red' WHERE hostname = 'host-9'").await;
    let backend = open(&path).await.unwrap();
    let error = all(&backend, Table::Nodes).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt);
    backend.close().await.unwrap();
    set(newer);
    let error = open(&path).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::SchemaMismatch { found: newer, supported: newer - 1 });
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_passes() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let before = content(&backend).await.unwrap();
    backend.limit_pages(1).unwrap();
    let big = commit(&before.head, |block| {
        (200..2000).for_each(|number| block.put(ChangeKind::Created, &node(number)));
    });
    let error = backend.commit(&big.clone()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Exhausted, "{error}");
    assert_eq!(content(&backend).await.unwrap(), before);
    backend.limit_pages(1_000_000).unwrap();
    backend.commit(&big).await.unwrap();
    assert_eq!(all(&backend, Table::Nodes).await.unwrap().len(), 160 + 1800);
    backend.verify().await.unwrap();
}

#[tokio::test]
async fn a_crash_leaves_a_commit_whole_or_absent() {
    let (directory, path) = place();
    let backend = open(&path).await.unwrap();
    let mut states = vec![content(&backend).await.unwrap()];
    for round in 0..4 {
        let head = backend.head().await.unwrap();
        let commit = commit(&head, |block| {
            (round * 8..round * 8 + 8).for_each(|n| block.put(ChangeKind::Created, &node(n)));
        });
        backend.commit(&commit).await.unwrap();
        states.push(content(&backend).await.unwrap());
    }
    // What a crash leaves: the file as it is, and the WAL up to anywhere.
    let wal_of = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    let (file, wal) = (std::fs::read(&path).unwrap(), std::fs::read(wal_of(&path)).unwrap());
    let copy = directory.path().canonicalize().unwrap().join("copy.db");
    let mut seen = 0;
    for length in (0..wal.len()).step_by(3001).chain([wal.len()]) {
        for read_only in [true, false] {
            std::fs::write(&copy, &file).unwrap();
            std::fs::write(wal_of(&copy), &wal[..length]).unwrap();
            let options = LibsqlOptions { read_only, ..LibsqlOptions::new(&copy, STORE) };
            let found = LibsqlBackend::open(options).await.unwrap();
            let found = content(&found).await.unwrap();
            let serial = usize::try_from(found.head.serial.get()).unwrap();
            assert_eq!(found, states[serial], "{length}");
            assert!(serial >= seen);
            seen = serial;
            let _ = std::fs::remove_file(wal_of(&copy));
            let _ = std::fs::remove_file(format!("{}-shm", copy.display()));
        }
    }
    assert_eq!(seen, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_see_whole_commits_while_others_are_written() {
    let (_directory, path) = place();
    let backend = std::sync::Arc::new(open(&path).await.unwrap());
    let reader = {
        let backend = std::sync::Arc::clone(&backend);
        tokio::spawn(async move {
            let mut last = 0;
            while last < 640 {
                let count = all(&backend, Table::Nodes).await.unwrap().len();
                assert!(count >= last && count.is_multiple_of(16), "{count} after {last}");
                last = count;
            }
        })
    };
    for round in 0..40 {
        let head = backend.head().await.unwrap();
        let commit = commit(&head, |block| {
            (round * 16..round * 16 + 16)
                .for_each(|number| block.put(ChangeKind::Created, &node(number)));
        });
        backend.commit(&commit).await.unwrap();
    }
    reader.await.unwrap();
    assert_eq!(backend.blocks(Serial::ZERO, 1000).await.unwrap().len(), 40);
}

#[test]
fn works_where_there_is_no_runtime() {
    use futures_util::FutureExt;
    let (_directory, path) = place();
    let backend = open(&path).now_or_never().unwrap().unwrap();
    assert_eq!(backend.head().now_or_never().unwrap().unwrap().serial, Serial::ZERO);
}
