//! What is named may be anything.

use super::budget::Budget;
use super::*;

#[test]
fn hostile_statements_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.db");
    for (statement, parts) in [
        ("ATTACH 'FILE' AS x;", &["ATTACH", "line="][..]),
        ("DETACH main;", &["DETACH"]),
        ("SELECT load_extension('/tmp/x.so');", &["SELECT"]),
        ("INSERT INTO users(id, name) VALUES(9, load_extension('x'));", &["line="]),
        ("INSERT INTO users(id, name) VALUES(9, hex(randomblob(9)));", &["line="]),
        ("INSERT INTO users(name) SELECT readfile('/etc/passwd');", &["line="]),
        ("PRAGMA writable_schema = 1;", &["PRAGMA"]),
        ("PRAGMA writable_schema(1);", &["PRAGMA"]),
        (
            "INSERT INTO sqlite_master VALUES('table', 'x', 'x', 2, 'CREATE TABLE x(a)');",
            &["line="],
        ),
        ("DELETE FROM sqlite_sequence WHERE name = 'x';", &["DELETE"]),
        ("ANALYZE users;", &["ANALYZE"]),
        (".read /etc/passwd\n;", &["line="]),
        ("PRAGMA temp_store_directory='/etc';", &["PRAGMA"]),
        ("CREATE TRIGGER t AFTER INSERT ON users BEGIN SELECT 1; END;", &["CREATE"]),
        ("CREATE VIEW v AS SELECT 1;", &["CREATE"]),
        ("CREATE VIRTUAL TABLE v USING fts5(a);", &["CREATE"]),
        ("CREATE TEMP TABLE v(a);", &["CREATE"]),
        ("VACUUM INTO 'FILE';", &["VACUUM"]),
        ("UPDATE users SET name = 'x';", &["UPDATE"]),
        ("DROP TABLE users;", &["DROP"]),
        ("DELETE FROM users;", &["DELETE"]),
        ("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r) SELECT * FROM r;", &["WITH"]),
        (
            "INSERT INTO users(name) WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r) \
             SELECT n FROM r;",
            &["does what no dump"],
        ),
        ("INSERT INTO users(id) VALUES((SELECT 9));", &["does what no dump"]),
        ("CREATE TABLE a AS SELECT * FROM users;", &["does what no dump"]),
        ("CREATE INDEX a ON users(replace(name, 'a', 'b'));", &["line="]),
        (
            "CREATE TABLE a(x); INSERT INTO a VALUES(1), (2), (3), (4), (5), (6), (7), (8); \
             INSERT INTO a SELECT 1 FROM a, a b, a c, a d, a e, a f, a g, a h, a i, a j, a k, a l;",
            &["does what no dump"],
        ),
        ("INSERT INTO users(id) VALUES(9) RETURNING name;", &["does what no dump"]),
        (
            "INSERT INTO users(id) VALUES(9) ON CONFLICT(id) DO UPDATE SET name = 'x';",
            &["does what no dump"],
        ),
        ("ROLLBACK; -- due to errors", &["damaged file"]),
    ] {
        let statement = statement.replace("FILE", file.to_str().unwrap());
        assert_refused(read_text(&dump(&statement)), parts);
    }
    assert!(!file.exists());
}

/// Doubles a text again and again.
fn doubled(times: usize) -> String {
    let text = (0..times).fold("'aa'".to_owned(), |text, _| format!("replace({text},'a','aa')"));
    format!("INSERT INTO users(name) VALUES({text});")
}

#[test]
fn a_short_dump_cannot_become_large() {
    // One text is longer than the file by far, and many shorter ones are together.
    let allowed = ["too much memory", "line=", "bytes_allowed=16", "longest_text_allowed=1048576"];
    assert_refused(read_text(&dump(&doubled(24))), &allowed);
    assert_refused(read_text(&dump(&doubled(18).repeat(200))), &["too much memory", "line="]);
    // What a dump is for does not come near it.
    assert!(read_text(&dump(&"INSERT INTO users(name) VALUES('x');".repeat(20_000))).is_ok());
}

#[test]
fn work_ends_after_a_time_however_few_steps_it_has() {
    let connection = Connection::open_in_memory().unwrap();
    let past = std::time::Instant::now();
    while std::time::Instant::now() <= past {}
    let refused = dump::execute(&connection, dump("").into_bytes(), &Budget::spent(5 << 20, past));
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("too much work") && error.contains("line=1"), "{error}");
    assert!(error.contains("seconds_allowed=65, steps_allowed=204857600"), "{error}");
}

#[test]
fn errors_repeat_nothing_of_the_dump() {
    for statement in [
        "INSERT INTO pre_auth_keys(key) VALUES('s3cret",
        "INSERT INTO pre_auth_keys(s3cret) VALUES('s3cret');",
        "INSERT INTO pre_auth_keys(key) VALUES(s3cret);",
        "INSERT INTO pre_auth_keys(id, key) VALUES(1, 's3cret'), (1, 's3cret');",
        "INSERT INTO pre_auth_keys(id) VALUES('s3cret'); INSERT INTO pre_auth_keys(id) VALUES('s3cret');",
        "s3cret;",
        "'s3cret';",
    ] {
        let error = read_text(&dump(statement)).map(|_| ()).unwrap_err();
        for text in [format!("{error}"), format!("{error:?}")] {
            assert!(text.contains("line=") && !text.contains("s3cret"), "{text}");
        }
    }
}

#[test]
fn a_dump_that_was_cut_off() {
    let whole = dump(&node_row(1, &[]));
    let cut = |keep: usize| read_text(&whole[..keep]);
    assert_refused(cut(whole.len() - "COMMIT;\n".len()), &["cut off", "never committed"]);
    assert_refused(cut(whole.find("'100.64").unwrap() + 3), &["cut off", "line=", "no end"]);
    assert_refused(cut(40), &["cut off"]);
    // Wherever it is cut, it is not taken for whole.
    for keep in (1..whole.len() - 2).step_by(7) {
        assert!(cut(keep).is_err(), "{keep}");
    }
}

fn database(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("db.sqlite");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(&dump(&node_row(1, &[]))).unwrap();
    path
}

#[test]
fn a_database_that_was_cut_off_or_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path());
    let whole = std::fs::read(&path).unwrap();
    for keep in [20, 99, 100, 4096, whole.len() - 1] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        assert_refused(read_file(&path), &["cut off", "bytes=", "db.sqlite"]);
    }
    for at in [4096 + 3, 4096 * 3 + 1, 60] {
        let mut damaged = whole.clone();
        damaged[at..at + 40].fill(0xff);
        std::fs::write(&path, &damaged).unwrap();
        assert!(read_file(&path).is_err(), "{at}");
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(read_file(&path).unwrap().nodes().len(), 1);
}

#[test]
fn a_write_ahead_log_is_not_overlooked() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path());
    std::fs::write(dir.path().join("db.sqlite-wal"), "x").unwrap();
    assert_refused(read_file(&path), &["write-ahead log", "stop Headscale"]);
    std::fs::write(dir.path().join("db.sqlite-wal"), "").unwrap();
    assert!(read_file(&path).is_ok());
}

#[test]
fn views_do_not_pass_for_tables() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db.sqlite");
    let connection = Connection::open(&path).unwrap();
    let view = "CREATE TABLE users(id integer); CREATE VIEW nodes AS WITH RECURSIVE r(id) AS \
                (SELECT 1 UNION ALL SELECT id FROM r) SELECT id FROM r;";
    connection.execute_batch(view).unwrap();
    assert_refused(read_file(&path), &["not a database of Headscale", "table=nodes"]);
    let generated = "DROP VIEW nodes; CREATE TABLE nodes(id integer, \
                     hostname text AS (hex(zeroblob(id))) VIRTUAL); INSERT INTO nodes VALUES(9);";
    connection.execute_batch(generated).unwrap();
    assert_refused(read_file(&path), &["column that is computed"]);
}

#[test]
fn other_things() {
    let dir = tempfile::tempdir().unwrap();
    assert_refused(read_file(dir.path()), &["a directory"]);
    assert_refused(read_file(&dir.path().join("absent")), &["cannot be read", "absent"]);
    assert_refused(read_file(Path::new("-")), &["standard input"]);
    let large = std::fs::File::create(dir.path().join("large")).unwrap();
    large.set_len((1 << 30) + 1).unwrap();
    assert_refused(read_file(&dir.path().join("large")), &["too large", "limit=1073741824"]);
    let with = |bytes: &[u8]| {
        let path = dir.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        read_file(&path)
    };
    assert_refused(with(b""), &["empty"]);
    assert_refused(with(b"\x1f\x8b\x08rest"), &["gzip"]);
    assert_refused(with(b"PGDMP\x01"), &["PostgreSQL"]);
    assert_refused(with(b"--\n-- PostgreSQL database dump\n--\nSET x = 1;\n"), &["PostgreSQL"]);
    assert_refused(with(b"{\"ghostwire_store\":1}\n"), &["portable"]);
    assert_refused(with(b"BEGIN;\xff"), &["UTF-8", "at_byte=6"]);
    assert_refused(with(b"BEGIN;\0"), &["NUL"]);
    assert_refused(with(b"hello world"), &["cut off"]);
    assert_refused(with(b"hello world;"), &["not an SQL dump of Headscale", "line=1"]);
    assert_refused(with(b"  "), &["not a database of Headscale"]);
    let tables = |sql: &str| read_text(&format!("BEGIN;{sql}COMMIT;"));
    assert_refused(
        tables("CREATE TABLE namespaces(id); CREATE TABLE machines(id);"),
        &["0.22 or older", "upgrade"],
    );
    assert_refused(tables("CREATE TABLE users(id);"), &["not a database of Headscale", "nodes"]);
    assert_refused(tables("CREATE TABLE nodes(id);"), &["not a database of Headscale", "users"]);
    let odd = "CREATE TABLE users(name); CREATE TABLE nodes(id);";
    assert_refused(tables(odd), &["lacks a column", "table=users", "column=id"]);
    let odd = "CREATE TABLE users(id text); INSERT INTO users VALUES('x'); CREATE TABLE nodes(id);";
    assert_refused(tables(odd), &["no integer as its id", "table=users"]);
}

/// The frames in which shells put a dump; what is in them is taken.
#[test]
fn frames_of_dumps() {
    let (head, tail) = ("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n", "COMMIT;\n");
    let plain = dump(&node_row(1, &[]));
    let inner = plain.strip_prefix(head).unwrap().strip_suffix(tail).unwrap();
    let recovered = inner.replace("INSERT INTO", "INSERT OR IGNORE INTO");
    for (before, inner, after) in [
        (
            head,
            inner,
            "PRAGMA writable_schema=ON;\nCREATE TABLE IF NOT EXISTS sqlite_sequence(name,seq);\n\
             DELETE FROM sqlite_sequence;\nINSERT INTO sqlite_sequence VALUES('users',1);\n\
             ANALYZE sqlite_schema;\nINSERT INTO sqlite_stat1 VALUES('users',NULL,'1');\n\
             CREATE INDEX u ON users(name);\nPRAGMA writable_schema=OFF;\nCOMMIT;\n",
        ),
        ("BEGIN TRANSACTION;\n", inner, "DELETE FROM \"sqlite_sequence\";\nCOMMIT;\n"),
        (
            ".dbconfig defensive off\nBEGIN;\nPRAGMA writable_schema = on;\n\
             PRAGMA encoding = 'UTF-8';\nPRAGMA page_size = '4096';\nPRAGMA auto_vacuum = '0';\n\
             PRAGMA user_version = '0';\nPRAGMA application_id = '0';\n",
            recovered.as_str(),
            "PRAGMA writable_schema = off;\nCOMMIT;\n",
        ),
    ] {
        let import = read_text(&format!("{before}{inner}{after}")).unwrap();
        assert_eq!((import.users().len(), import.nodes().len()), (1, 1));
        assert!(import.said().is_empty());
    }
}

#[test]
fn a_migration_that_was_not_completed_is_refused_by_name() {
    let aside = "CREATE TABLE nodes_old(id integer); INSERT INTO nodes_old VALUES(1);
                 CREATE TABLE users__temp(id integer); INSERT INTO users__temp VALUES(1);";
    assert_refused(
        read_text(&dump(aside)),
        &["middle of a migration", "tables=users__temp, nodes_old", "start Headscale"],
    );
    // Even if the new table is not there yet.
    assert_refused(
        read_text(&dump(aside).replace("CREATE TABLE nodes(", "CREATE TABLE other(")),
        &["middle of a migration"],
    );
    // What a migration could not drop once it had moved all rows is left over.
    let aside = "CREATE TABLE nodes_old(id integer); INSERT INTO nodes_old VALUES(1);
                 INSERT INTO migrations VALUES('202507021200');";
    let import = import(&(aside.to_owned() + &node_row(1, &[])));
    assert!(import.has_note("nodes_old: 1 row ignored") && import.nodes().len() == 1);
    assert_refused(read_text(&dump(aside)), &["tables=nodes_old"]);
    let machines = "CREATE TABLE machines(id integer); INSERT INTO machines VALUES(1);";
    assert_refused(read_text(&dump(machines)), &["tables=machines"]);
}

#[test]
fn a_log_that_may_be_missing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(dir.path());
    Connection::open(&path).unwrap().pragma_update(None, "journal_mode", "wal").unwrap();
    let import = read_file(&path).unwrap();
    assert!(import.has_note("keeps a write-ahead log") && import.nodes().len() == 1);
    let empty = dir.path().join("empty.sqlite");
    let connection = Connection::open(&empty).unwrap();
    connection.pragma_update(None, "journal_mode", "wal").unwrap();
    connection.execute_batch("CREATE TABLE other(id);").unwrap();
    drop(connection);
    assert_refused(read_file(&empty), &["table=users", "`-wal` that was not copied", ".dump"]);
}

#[test]
fn dumps_of_newer_shells() {
    let policy = r#"INSERT INTO policies(id, data) VALUES(1, unistr('{\u000a "a": "\\"}'));"#;
    let import = import(policy);
    assert_eq!(import.policies()[0].document.as_str(), "{\n \"a\": \"\\\"}");
    let policy = "INSERT INTO policies(id, data) VALUES(1, replace('{\\n}','\\n',char(10)));";
    assert_eq!(super::import(policy).policies()[0].document.as_str(), "{\n}");
}
