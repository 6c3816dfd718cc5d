//! Every column of every table, whatever is in it.

use std::collections::BTreeMap;

use ghostwire_store_core::backend::{Backend, Commit, KeyRange, Scan};
use ghostwire_store_core::block::{ChangeKind, RowChange};
use ghostwire_store_core::schema::{
    ColumnKind, KeyKind, RowKey, Schema, Table, Value, encode_values,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{entry, open, options, shared_server};

/// The end of the year 9999, in microseconds.
const LAST_TIME: i64 = 253_402_300_799_999_999;

#[derive(Debug, Clone, PartialEq)]
enum Owned {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Owned {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Integer(integer) => Value::Integer(*integer),
            Self::Real(real) => Value::Real(*real),
            Self::Text(text) => Value::Text(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
        }
    }
}

fn bytes(count: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Owned> {
    prop::collection::vec(any::<u8>(), count).prop_map(Owned::Bytes)
}

/// What a column of a kind may hold, as the core's types allow it.
fn column(kind: ColumnKind, nullable: bool) -> BoxedStrategy<Owned> {
    let value = match kind {
        ColumnKind::Bool => (0..=1_i64).prop_map(Owned::Integer).boxed(),
        ColumnKind::Integer => any::<i64>().prop_map(Owned::Integer).boxed(),
        ColumnKind::Time => (0..=LAST_TIME).prop_map(Owned::Integer).boxed(),
        ColumnKind::Real => any::<f64>()
            .prop_filter("a finite one", |real| real.is_finite())
            .prop_map(Owned::Real)
            .boxed(),
        ColumnKind::Text => "[^\0]{0,40}".prop_map(Owned::Text).boxed(),
        // Its text is kept as it is, spaces and all.
        ColumnKind::Json => ("[a-z\u{e9}\u{1f980} ]{0,20}", any::<i64>(), " {0,3}")
            .prop_map(|(text, number, space)| {
                Owned::Text(format!("{{\"b\":{space}[{number}, \"{text}\"], \"a\": null}}"))
            })
            .boxed(),
        ColumnKind::Id => bytes(16).boxed(),
        ColumnKind::Key(_) => bytes(32).boxed(),
        ColumnKind::Bytes => bytes(0..60).boxed(),
    };
    match nullable {
        true => prop_oneof![1 => Just(Owned::Null), 3 => value].boxed(),
        false => value,
    }
}

/// A key of a table.
fn key(table: Table) -> BoxedStrategy<RowKey> {
    let mut keys = Just(RowKey::new()).boxed();
    for column in Schema::current().key(table) {
        keys = match column.kind {
            KeyKind::Id => (keys, any::<[u8; 16]>()).prop_map(|(key, id)| key.id(&id)).boxed(),
            KeyKind::OptionalId => (keys, any::<Option<[u8; 16]>>())
                .prop_map(|(key, id)| key.optional_id(id.as_ref()))
                .boxed(),
            KeyKind::Integer => {
                (keys, 0..i64::MAX).prop_map(|(key, number)| key.integer(number)).boxed()
            }
            KeyKind::Text => (keys, "[^\0]{1,20}").prop_map(|(key, text)| key.text(&text)).boxed(),
        };
    }
    keys
}

fn row(table: Table) -> impl Strategy<Value = RowChange> {
    let schema = Schema::current();
    let columns: Vec<_> = schema.columns(table).map(|it| column(it.kind, it.nullable)).collect();
    (key(table), columns).prop_map(move |(key, columns)| {
        let values = columns.iter().map(Owned::value);
        let body = Some(encode_values(Schema::current().version().version, values));
        RowChange { table, kind: ChangeKind::Updated, key, body }
    })
}

#[test]
fn every_column_of_every_table_comes_back_whatever_is_in_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (backend, _database) = runtime.block_on(async {
        let (server, database) = shared_server().await;
        (open(options(server, database.name())).await, database)
    });
    let all: Vec<_> = Table::ALL.into_iter().map(row).collect();
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let check = async |rows: Vec<RowChange>| {
        let head = backend.head().await?;
        backend.commit(&Commit { rows: rows.clone(), ..entry(&head, 1) }).await?;
        for row in rows {
            let range = KeyRange {
                table: row.table,
                from: row.key.clone(),
                to: Some(row.key.clone().successor()),
            };
            let found = backend.scan(Scan { range, reverse: false, limit: 2 }).await?.rows;
            let found: BTreeMap<_, _> = found.into_iter().map(|it| (it.key, it.body)).collect();
            assert_eq!(found, BTreeMap::from([(row.key, row.body.unwrap())]), "{:?}", row.table);
        }
        Ok::<_, ghostwire_store_core::error::Error>(())
    };
    let ran = TestRunner::new(config).run(&all, |rows| {
        runtime.block_on(check(rows)).unwrap();
        Ok(())
    });
    ran.unwrap();
    runtime.block_on(backend.verify()).unwrap();
    runtime.block_on(backend.close()).unwrap();
}
