//! What other programs put into a file's schema.

use super::*;

/// A trigger that drops what is written: the worst there is, since every other check stays content.
const SWALLOW: &str =
    "CREATE TRIGGER swallow BEFORE INSERT ON users BEGIN SELECT RAISE(IGNORE); END";

async fn filled() -> (TempDir, PathBuf, Content) {
    let (directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let content = content(&backend).await.unwrap();
    backend.close().await.unwrap();
    (directory, path, content)
}

#[tokio::test]
async fn what_would_run_or_restrict_is_refused_by_name() {
    let (_directory, path, before) = filled().await;
    for (sql, undo) in [
        (SWALLOW, "DROP TRIGGER \"swallow\""),
        (
            "CREATE TRIGGER hush AFTER INSERT ON users BEGIN DELETE FROM audit; END",
            "DROP TRIGGER \"hush\"",
        ),
        (
            "CREATE TRIGGER keep BEFORE UPDATE ON api_keys BEGIN SELECT RAISE(IGNORE); END",
            "DROP TRIGGER \"keep\"",
        ),
        (
            "CREATE TRIGGER again AFTER UPDATE ON ghostwire_meta BEGIN DELETE FROM users; END",
            "DROP TRIGGER \"again\"",
        ),
        ("CREATE UNIQUE INDEX \"o\"\"ne\" ON users(name)", "DROP INDEX \"o\"\"ne\""),
        ("CREATE INDEX slow ON Nodes(hostname) WHERE 1", "DROP INDEX \"slow\""),
        ("CREATE INDEX blocks ON ghostwire_blocks(id)", "DROP INDEX \"blocks\""),
        ("CREATE VIEW everybody AS SELECT * FROM users", "DROP VIEW \"everybody\""),
        ("CREATE VIRTUAL TABLE found USING fts5(x)", "DROP TABLE \"found\""),
    ] {
        edit(&path, sql).await;
        for read_only in [false, true] {
            let options = LibsqlOptions::new(&path, STORE).read_only(read_only);
            let error = LibsqlBackend::open(options).await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{sql}: {error}");
            assert!(error.to_string().contains(undo), "{sql}: {error}");
        }
        edit(&path, undo).await;
        let backend = open(&path).await.unwrap();
        assert_eq!(content(&backend).await.unwrap(), before, "{sql}");
    }
}

#[tokio::test]
async fn altered_tables_are_refused_by_name() {
    let (_directory, path, _) = filled().await;
    let whole = std::fs::read(&path).unwrap();
    for (table, edits) in [
        ("users", &["ALTER TABLE users ADD COLUMN note TEXT"][..]),
        ("users", &["ALTER TABLE users RENAME TO people"]),
        ("routes", &["DROP TABLE routes"]),
        ("ghostwire_blocks", &["DROP TABLE ghostwire_blocks"]),
        ("ghostwire_blocks", &["ALTER TABLE ghostwire_blocks ADD COLUMN note TEXT"]),
        (
            "metrics",
            &[
                "PRAGMA writable_schema = ON",
                "UPDATE sqlite_schema SET sql = replace(sql, '\"value\" REAL NOT NULL', \
                 '\"value\" REAL NOT NULL CHECK (value < 5)') WHERE name = 'metrics'",
            ],
        ),
        (
            "users",
            &[
                "DROP TABLE users",
                "CREATE TABLE users (id TEXT PRIMARY KEY, name TEXT, row_check INTEGER)",
            ],
        ),
        ("users", &["DROP TABLE users", "CREATE VIEW users AS SELECT 1 AS id"]),
    ] {
        std::fs::write(&path, &whole).unwrap();
        {
            let mut link = connect::<Link>(&path, Role::Writer).unwrap();
            edits.iter().for_each(|sql| link.run(sql).unwrap());
        }
        let error = open(&path).await.unwrap_err();
        let expected = match edits.last() {
            Some(sql) if sql.contains("VIEW") => ErrorKind::InvalidArgument,
            _ => ErrorKind::Corrupt,
        };
        assert_eq!(*error.kind(), expected, "{edits:?}: {error}");
        assert!(error.to_string().contains(table), "{edits:?}: {error}");
    }
}

#[tokio::test]
async fn tables_of_others_are_let_be_and_restrict_nothing() {
    let (_directory, path, before) = filled().await;
    edit(&path, "CREATE TABLE notes (user TEXT REFERENCES users(id), text TEXT UNIQUE)").await;
    edit(&path, "CREATE INDEX notes_by_user ON notes(user)").await;
    edit(&path, "INSERT INTO notes SELECT id, 'a note' FROM users LIMIT 1").await;
    edit(&path, "ANALYZE").await;
    let backend = open(&path).await.unwrap();
    assert_eq!(content(&backend).await.unwrap(), before);
    let users = all(&backend, Table::Users).await.unwrap();
    let deletions = users.iter().map(|user| delete(Table::Users, user.key.clone())).collect();
    backend.commit(&rows_only(&before.head, deletions)).await.unwrap();
    assert_eq!(all(&backend, Table::Users).await.unwrap(), []);
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    let mut link = connect::<Link>(&path, Role::Writer).unwrap();
    let mut notes = 0;
    link.query("SELECT 1 FROM notes", Vec::new(), |_| {
        notes += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(notes, 1);
}

#[tokio::test]
async fn what_appears_while_the_store_is_open_loses_nothing() {
    let (_directory, path, before) = filled().await;
    let backend = open(&path).await.unwrap();
    let more = |numbers: std::ops::Range<u32>| {
        rows_only(&before.head, numbers.map(|number| put(&user(number))).collect())
    };
    for (sql, undo) in [
        (SWALLOW, "DROP TRIGGER swallow"),
        // One of the three that come fits, the others do not.
        ("CREATE UNIQUE INDEX one ON users(length(name)) WHERE length(name) > 5", "DROP INDEX one"),
    ] {
        edit(&path, sql).await;
        let error = backend.commit(&more(100..103)).await.unwrap_err();
        assert_ne!(*error.kind(), ErrorKind::OutcomeUnknown, "{sql}: {error}");
        assert_eq!(content(&backend).await.unwrap(), before, "{sql}");
        edit(&path, undo).await;
    }
    backend.commit(&more(100..103)).await.unwrap();
    assert_eq!(all(&backend, Table::Users).await.unwrap().len(), 7);
}
