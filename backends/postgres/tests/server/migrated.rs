//! Stores that are migrated while others write to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::block::{ChangeKind, RowChange};
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::schema::{Schema, Table};

use crate::support::{entry, key_of, open, options, own_server, refused};

/// A commit has its tables locked while it waits for the row of the head.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_and_commits_wait_for_each_other_and_none_is_a_victim() {
    const WRITERS: u8 = 3;
    let (server, database) = own_server().await;
    let name = database.name();
    let old = Schema::at(3).unwrap();
    let migrating = open(options(&server, name).schema(old)).await;
    let (ends, stored) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let backend = open(options(&server, name)).await;
        let (ends, stored) = (ends.clone(), stored.clone());
        writers.push(tokio::spawn(async move {
            while !ends.load(Ordering::SeqCst) {
                let head = backend.head().await.unwrap();
                // In every table that gets a column.
                let tables = [Table::Users, Table::Nodes, Table::Routes, Table::Presence];
                let rows = tables.map(|table| {
                    let kind = ChangeKind::Deleted;
                    RowChange { table, kind, key: key_of(writer), body: None }
                });
                let commit = Commit { rows: rows.into(), ..entry(&head, writer) };
                match backend.commit(&commit).await {
                    Ok(()) => drop(stored.fetch_add(1, Ordering::SeqCst)),
                    Err(error) => {
                        assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
                    }
                }
            }
        }));
    }
    let more = async |than: usize| {
        while stored.load(Ordering::SeqCst) < than {
            tokio::task::yield_now().await;
        }
    };
    more(30).await;
    migrating.migrate(Schema::current()).await.unwrap();
    more(stored.load(Ordering::SeqCst) + 30).await;
    ends.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    migrating.verify().await.unwrap();
    let log = server.log().await.unwrap();
    assert!(!log.contains("deadlock detected"), "{log}");
}

/// Altering a table is for its owner.
#[tokio::test]
async fn the_runtime_role_is_refused_a_migration_and_the_owner_makes_it() {
    let (server, database) = own_server().await;
    let name = database.name();
    let old = Schema::at(3).unwrap();
    open(options(&server, name).schema(old)).await.close().await.unwrap();
    let sql = "CREATE ROLE runtime LOGIN PASSWORD 'secret'; GRANT USAGE ON SCHEMA ghostwire TO runtime; \
               GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ghostwire TO runtime; \
               ALTER DEFAULT PRIVILEGES IN SCHEMA ghostwire \
               GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO runtime";
    server.sql(name, sql).await.unwrap();
    let login = || {
        ghostwire_store_postgres::PostgresOptions::new(
            server.host(),
            name,
            "runtime",
            crate::support::STORE,
        )
        .port(server.port())
        .password(Some(ghostwire_store_postgres::Password::new("secret").unwrap()))
    };
    let runtime = open(login()).await;
    let error = runtime.migrate(Schema::current()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "{error}");
    let owner = open(options(&server, name)).await;
    owner.migrate(Schema::current()).await.unwrap();
    runtime.migrate(Schema::current()).await.unwrap();
    let head = runtime.head().await.unwrap();
    assert_eq!(head.schema, Schema::current().version());
    runtime.commit(&entry(&head, 1)).await.unwrap();
    runtime.verify().await.unwrap();
    let error = refused(login().only_new(true)).await;
    assert_eq!(*error.kind(), ErrorKind::AlreadyExists { constraint: "schema" }, "{error}");
}
