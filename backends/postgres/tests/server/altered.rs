//! Tables that somebody changed by hand.

use ghostwire_store_core::backend::{Backend, KeyRange, Scan};
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::schema::Table;

use crate::support::{key_of, open, options, refused, shared_server, store_next};

fn all_users() -> Scan {
    Scan { range: KeyRange::all(Table::Users), reverse: false, limit: 10 }
}

#[tokio::test]
async fn a_row_that_was_edited_is_refused_and_named() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let backend = open(options(server, name)).await;
    store_next(&backend, 1).await.unwrap();
    let head = store_next(&backend, 2).await.unwrap();
    assert_eq!(backend.scan(all_users()).await.unwrap().rows.len(), 2);
    for (change, undo) in [
        ("name = 'mallory'", "name = 'user2'"),
        ("revision = revision + 1", "revision = revision - 1"),
        (
            "created_at = created_at + interval '1 second'",
            "created_at = created_at - interval '1 second'",
        ),
    ] {
        let at = "WHERE id = '02020202-0202-0202-0202-020202020202'";
        server.sql(name, &format!("UPDATE ghostwire.users SET {change} {at}")).await.unwrap();
        for error in [
            backend.scan(all_users()).await.map(drop).unwrap_err(),
            backend.verify().await.unwrap_err(),
        ] {
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
            let key = format!("{:?}", key_of(2));
            assert!(error.to_string().contains(&key), "{error}");
            assert!(!error.to_string().contains("mallory"), "{error}");
        }
        server.sql(name, &format!("UPDATE ghostwire.users SET {undo} {at}")).await.unwrap();
        backend.verify().await.unwrap();
    }
    server.sql(name, "UPDATE ghostwire.ghostwire_meta SET position = position + 1").await.unwrap();
    for error in [
        backend.head().await.map(drop).unwrap_err(),
        backend.commit(&crate::support::commit(&head, 3)).await.unwrap_err(),
        refused(options(server, name)).await,
    ] {
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("ghostwire_meta"), "{error}");
    }
}

#[tokio::test]
async fn a_table_that_is_not_as_it_was_made_is_refused() {
    let (server, database) = shared_server().await;
    let name = database.name();
    open(options(server, name)).await.close().await.unwrap();
    for (change, undo, kind, names) in [
        (
            "ALTER TABLE ghostwire.users ALTER COLUMN name DROP NOT NULL",
            "ALTER TABLE ghostwire.users ALTER COLUMN name SET NOT NULL",
            ErrorKind::Corrupt,
            "users",
        ),
        (
            "ALTER TABLE ghostwire.users ADD COLUMN more int",
            "ALTER TABLE ghostwire.users DROP COLUMN more",
            ErrorKind::Corrupt,
            "users",
        ),
        (
            "ALTER TABLE ghostwire.routes SET UNLOGGED",
            "ALTER TABLE ghostwire.routes SET LOGGED",
            ErrorKind::Corrupt,
            "routes",
        ),
        (
            "ALTER TABLE ghostwire.nodes ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE ghostwire.nodes DISABLE ROW LEVEL SECURITY",
            ErrorKind::Corrupt,
            "nodes",
        ),
        (
            "ALTER TABLE ghostwire.nodes ALTER COLUMN hostname TYPE text COLLATE \"default\"",
            "ALTER TABLE ghostwire.nodes ALTER COLUMN hostname TYPE text COLLATE \"C\"",
            ErrorKind::Corrupt,
            "nodes",
        ),
        (
            "CREATE UNIQUE INDEX one_name ON ghostwire.users (name)",
            "DROP INDEX ghostwire.one_name",
            ErrorKind::InvalidArgument,
            "one_name",
        ),
        (
            "ALTER TABLE ghostwire.users ADD CONSTRAINT short CHECK (length(name) < 9)",
            "ALTER TABLE ghostwire.users DROP CONSTRAINT short",
            ErrorKind::InvalidArgument,
            "short",
        ),
        (
            "CREATE TRIGGER quiet BEFORE UPDATE ON ghostwire.users FOR EACH ROW EXECUTE FUNCTION \
             suppress_redundant_updates_trigger()",
            "DROP TRIGGER quiet ON ghostwire.users",
            ErrorKind::InvalidArgument,
            "quiet",
        ),
        (
            "ALTER TABLE ghostwire.users ADD CONSTRAINT ghostwire_meta_one_check CHECK (name <> '')",
            "ALTER TABLE ghostwire.users DROP CONSTRAINT ghostwire_meta_one_check",
            ErrorKind::InvalidArgument,
            "ghostwire_meta_one_check",
        ),
        (
            "CREATE TABLE public.badges (of uuid CONSTRAINT has_badge REFERENCES ghostwire.users)",
            "DROP TABLE public.badges",
            ErrorKind::InvalidArgument,
            "has_badge",
        ),
        (
            "CREATE RULE silent AS ON DELETE TO ghostwire.users DO INSTEAD NOTHING",
            // The catalog goes on saying that the table has rules, until it is vacuumed.
            "DROP RULE silent ON ghostwire.users",
            ErrorKind::Corrupt,
            "users",
        ),
        (
            "ALTER TABLE ghostwire.feed RENAME TO fed",
            "ALTER TABLE ghostwire.fed RENAME TO feed",
            ErrorKind::Corrupt,
            "feed",
        ),
    ] {
        server.sql(name, change).await.unwrap();
        let error = refused(options(server, name)).await;
        assert_eq!(*error.kind(), kind, "{change}: {error}");
        assert!(error.to_string().contains(names), "{change}: {error}");
        server.sql(name, undo).await.unwrap();
        open(options(server, name)).await.close().await.unwrap();
    }
    // A table of somebody else's in the schema is let be.
    server.sql(name, "CREATE TABLE ghostwire.notes (id int UNIQUE)").await.unwrap();
    open(options(server, name)).await.close().await.unwrap();
}

/// Statements that do not fit any more are told for what they are.
#[tokio::test]
async fn tables_that_are_changed_or_dropped_under_an_open_store_are_named() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let backend = open(options(server, name)).await;
    let head = store_next(&backend, 1).await.unwrap();
    let next = crate::support::commit(&head, 2);
    for (change, undo) in [
        (
            "ALTER TABLE ghostwire.users RENAME TO people",
            "ALTER TABLE ghostwire.people RENAME TO users",
        ),
        (
            "ALTER TABLE ghostwire.users RENAME COLUMN name TO called",
            "ALTER TABLE ghostwire.users RENAME COLUMN called TO name",
        ),
    ] {
        server.sql(name, change).await.unwrap();
        for error in [
            backend.scan(all_users()).await.map(drop).unwrap_err(),
            backend.commit(&next).await.unwrap_err(),
        ] {
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "{change}: {error}");
            assert!(error.to_string().contains("table=users"), "{change}: {error}");
        }
        server.sql(name, undo).await.unwrap();
    }
    // Nothing of it was stored, and it goes on.
    assert_eq!(backend.head().await.unwrap(), head);
    backend.commit(&next).await.unwrap();
    server.sql(name, "DROP SCHEMA ghostwire CASCADE").await.unwrap();
    for error in [
        backend.head().await.map(drop).unwrap_err(),
        backend.scan(all_users()).await.map(drop).unwrap_err(),
        backend.commit(&crate::support::commit(&head, 3)).await.unwrap_err(),
    ] {
        assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    }
    server.sql(name, "CREATE SCHEMA ghostwire; CREATE TABLE ghostwire.orders ()").await.unwrap();
    let error = backend.head().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("something else"), "{error}");
}

#[tokio::test]
async fn a_store_that_was_halted_is_written_by_nobody() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let backend = open(options(server, name)).await;
    let head = store_next(&backend, 1).await.unwrap();
    server.sql(name, "UPDATE ghostwire.ghostwire_meta SET halted = 'by hand'").await.unwrap();
    for error in [
        backend.commit(&crate::support::commit(&head, 2)).await.unwrap_err(),
        backend.probe(head.epoch).await.unwrap_err(),
    ] {
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("by hand"), "{error}");
    }
    assert_eq!(backend.head().await.unwrap(), head);
    server.sql(name, "UPDATE ghostwire.ghostwire_meta SET halted = NULL").await.unwrap();
    store_next(&backend, 2).await.unwrap();
}
