//! A store that is migrated while others have it open.
#![allow(clippy::unwrap_used)]

use ghostwire_postgres_server::{Database, Server};
use ghostwire_store_core::backend::{Backend, Commit, Head};
use ghostwire_store_core::block::BlockBuilder;
use ghostwire_store_core::domain::{BlockId, StoreId, Timestamp};
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::schema::{Schema, SchemaVersion};

use crate::connection::{connect, read};
use crate::server::head_on;
use crate::sqlstate::During;
use crate::{Password, PostgresBackend, PostgresOptions, head};

const OLDER_WRITER: &str = include_str!("older_writer.sql");

async fn database() -> (&'static Server, Database) {
    let server = Server::shared().await.unwrap();
    (server, server.database().await.unwrap())
}

fn options(server: &Server, database: &Database) -> PostgresOptions {
    let store = StoreId::from_bytes([0x5a; 16]);
    PostgresOptions::new(server.host(), database.name(), server.user(), store)
        .port(server.port())
        .password(Some(Password::new(server.password()).unwrap()))
        .create(true)
}

fn next(head: &Head) -> Commit {
    let (serial, time) = (head.serial.next(), Timestamp::from_secs(1_700_000_000).unwrap());
    let id = BlockId::from_bytes([u8::try_from(serial.get()).unwrap(); 16]);
    let closed = BlockBuilder::default().finish(serial, id, head.hash, time).unwrap();
    Commit { block: Some(closed.block), ..Commit::on(head) }
}

/// Whether the older writer's statement would store something, which is then undone.
async fn older_writer_stores(server: &Server, database: &Database) -> bool {
    // What a sequence gives is not undone.
    let sql = OLDER_WRITER.replace(
        "SELECT cas.stored FROM cas",
        "SELECT setval('public.stored', 1 + count(*)) FROM cas",
    );
    assert_ne!(sql, OLDER_WRITER);
    server.sql(database.name(), &format!("BEGIN; {sql}; ROLLBACK")).await.unwrap();
    let told = server.sql(database.name(), "SELECT last_value FROM public.stored").await.unwrap();
    told == [[Some("2".to_owned())]]
}

#[tokio::test]
async fn a_writer_of_the_schema_before_stores_nothing_once_the_store_was_migrated() {
    let (server, database) = database().await;
    let before = Schema::at(4).unwrap();
    let old = PostgresBackend::open(options(server, &database).schema(before)).await.unwrap();
    old.commit(&next(&old.head().await.unwrap())).await.unwrap();
    let head = old.head().await.unwrap();
    assert_eq!(head.schema, before.version());
    let remember = "CREATE TABLE public.known AS SELECT * FROM ghostwire.ghostwire_meta; \
                    CREATE SEQUENCE public.stored";
    server.sql(database.name(), remember).await.unwrap();
    assert!(older_writer_stores(server, &database).await, "it is the statement that it was");
    let new = PostgresBackend::open(options(server, &database)).await.unwrap();
    new.migrate(Schema::current()).await.unwrap();
    assert!(!older_writer_stores(server, &database).await);
    let migrated = new.head().await.unwrap();
    assert_eq!(migrated, Head { schema: Schema::current().version(), ..head });
    // One that knows the schema finds out by itself.
    old.commit(&next(&head)).await.unwrap();
    assert_eq!(new.head().await.unwrap().serial, head.serial.next());
    new.verify().await.unwrap();
}

/// As a release that does not exist yet would.
async fn migrate_further(options: &PostgresOptions, to: SchemaVersion) {
    let connect_options = options.connect_options().unwrap();
    let mut connection = connect(&connect_options, None, options.deadlines.connect).await.unwrap();
    let namespace = options.schema_name.as_str();
    let add =
        format!("ALTER TABLE \"{namespace}\".\"users\" ADD COLUMN \"later\" text COLLATE \"C\"");
    crate::connection::change(&mut connection, &add).await.unwrap();
    let known = head_on(&mut connection, namespace, false, During::Read).await.unwrap().unwrap();
    let params = known.to(&Head { schema: to, ..known.head }, None, None);
    let moved = read(&mut connection, &head::update(namespace), &params).await.unwrap();
    assert_eq!(moved.len(), 1);
}

#[tokio::test]
async fn a_later_schema_is_read_and_not_written_or_refused_as_it_says() {
    let (server, database) = database().await;
    let options = options(server, &database);
    let open = PostgresBackend::open(options.clone()).await.unwrap();
    open.commit(&next(&open.head().await.unwrap())).await.unwrap();
    let head = open.head().await.unwrap();
    let SchemaVersion { version, .. } = Schema::current().version();
    let admits = SchemaVersion { version: version + 1, oldest_reader: version };
    migrate_further(&options, admits).await;
    let is_mismatch = |kind: &ErrorKind| matches!(kind, ErrorKind::SchemaMismatch { .. });
    for backend in [&open, &PostgresBackend::open(options.clone()).await.unwrap()] {
        let error = backend.commit(&next(&head)).await.unwrap_err();
        assert!(is_mismatch(error.kind()), "{error}");
        assert_eq!(backend.head().await.unwrap(), Head { schema: admits, ..head });
        backend.verify().await.unwrap();
    }
    // One whose columns went, too, and that says so.
    let refuses = SchemaVersion { version: version + 2, oldest_reader: version + 1 };
    let drop_column = "ALTER TABLE ghostwire.users DROP COLUMN name";
    server.sql(database.name(), drop_column).await.unwrap();
    let users = ghostwire_store_core::backend::Scan {
        range: ghostwire_store_core::backend::KeyRange::all(
            ghostwire_store_core::schema::Table::Users,
        ),
        reverse: false,
        limit: 1,
    };
    let add_again = "ALTER TABLE ghostwire.users DROP COLUMN later";
    server.sql(database.name(), add_again).await.unwrap();
    migrate_further(&options, refuses).await;
    for error in [
        open.scan(users).await.map(drop).unwrap_err(),
        open.commit(&next(&head)).await.unwrap_err(),
        PostgresBackend::open(options).await.map(drop).unwrap_err(),
    ] {
        assert!(is_mismatch(error.kind()), "{error}");
    }
}
