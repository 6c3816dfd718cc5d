//! Who may connect, how the way there is protected, and what of it is ever shown.

use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, OnceLock};

use ghostwire_postgres_server::{Authority, Options, Server};
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_postgres::{Password, PostgresBackend, PostgresOptions, Tls};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::prelude::*;

use crate::support::{STORE, commit, open, options, refused, shared_server, store_next};

/// The first column of the first row.
async fn one(server: &Server, database: &str, sql: &str) -> Option<String> {
    server.sql(database, sql).await.unwrap().first()?.first()?.clone()
}

/// The blocks of SQL in the document, with other names and passwords.
fn documented_sql(database: &str, owner: &str, runtime: &str) -> Vec<String> {
    let page = include_str!("../../../../docs/postgres.md");
    let blocks = page.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks
        .map(|block| {
            let block = block.replace("ghostwire_owner", owner);
            let block = block.replace("ROLE ghostwire ", &format!("ROLE {runtime} "));
            let block = block.replace("TO ghostwire;", &format!("TO {runtime};"));
            block.replace("DATABASE ghostwire ", &format!("DATABASE {database} "))
        })
        .collect()
}

#[tokio::test]
async fn the_roles_of_the_document_have_what_they_need_and_no_more() {
    let (server, own) = shared_server().await;
    let database = format!("{}_roles", own.name());
    let (owner, runtime) = (format!("{database}_owner"), format!("{database}_runtime"));
    let sql = documented_sql(&database, &owner, &runtime);
    let [roles, grants] = sql.as_slice() else { panic!("two blocks of SQL: {sql:?}") };
    let (before, after) = roles.split_once("\\connect ghostwire\n").unwrap();
    // A database cannot be made in a transaction, as several statements at once are.
    for statement in before.split_inclusive(';').filter(|statement| !statement.trim().is_empty()) {
        server.sql("postgres", statement).await.unwrap();
    }
    server.sql(&database, after).await.unwrap();
    let login = |role: &str| {
        PostgresOptions::new(server.host(), &database, role, STORE)
            .port(server.port())
            .password(Some(Password::new("...").unwrap()))
    };
    let error = refused(login(&runtime).create(true)).await;
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "{error}");
    open(login(&owner).create(true)).await.close().await.unwrap();
    let error = refused(login(&runtime)).await;
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "before the grants: {error}");
    server.sql(&database, &format!("SET ROLE {owner}; {grants}")).await.unwrap();
    let backend = open(login(&runtime)).await;
    let head = store_next(&backend, 1).await.unwrap();
    backend.probe(head.epoch).await.unwrap();
    backend.verify().await.unwrap();
    assert_eq!(backend.reopen().await.unwrap(), head);
    backend.close().await.unwrap();
    for denied in ["DROP TABLE ghostwire.users", "CREATE TABLE ghostwire.more (id int)"] {
        let sql = format!("SET ROLE {runtime}; {denied}");
        assert!(server.sql(&database, &sql).await.is_err(), "{denied}");
    }
    server.sql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)")).await.unwrap();
    server.sql("postgres", &format!("DROP ROLE {owner}, {runtime}")).await.unwrap();
}

#[tokio::test]
async fn tls_is_verified_and_passwords_go_by_scram() {
    let server = Options::new().tls().start().await.unwrap();
    let database = server.database().await.unwrap();
    let name = database.name();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        Some(path)
    };
    let authority = file("ca.pem", server.authority().unwrap().pem());
    let stranger = file("stranger.pem", Authority::new().unwrap().pem());
    let full = || options(&server, name).tls(Some(Tls::VerifyFull));
    let backend = open(full().root_certificate(authority.clone())).await;
    store_next(&backend, 1).await.unwrap();
    let is_plain = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) \
                    WHERE application_name = 'ghostwire-store' AND NOT ssl";
    assert_eq!(one(&server, name, is_plain).await.as_deref(), Some("0"));
    let secret = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{}'", server.user());
    let secret = one(&server, name, &secret).await.unwrap();
    assert!(secret.starts_with("SCRAM-SHA-256$"), "what the server keeps of the password");
    backend.close().await.unwrap();
    for options in [
        full(),
        full().root_certificate(stranger.clone()),
        full().tls(Some(Tls::VerifyCa)).root_certificate(stranger),
    ] {
        let error = refused(options).await;
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("root_certificate"), "{error}");
    }
    let missing = directory.path().join("missing.pem");
    let error = refused(full().root_certificate(Some(missing))).await;
    assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("missing.pem"), "{error}");
}

/// Who has the port of a server that is down, and asks for the password.
#[tokio::test]
async fn whoever_asks_for_the_password_itself_is_not_told_it() {
    for question in [&b"R\0\0\0\x08\0\0\0\x03"[..], b"R\0\0\0\x0c\0\0\0\x05salt"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asking = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(question).unwrap();
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard);
            heard
        });
        let options = PostgresOptions::new("127.0.0.1", "net", "control", STORE)
            .port(port)
            .password(Some(Password::new("planted").unwrap()));
        let error = refused(options).await;
        assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("SCRAM"), "{error}");
        let heard = String::from_utf8_lossy(&asking.join().unwrap()).into_owned();
        assert!(heard.contains("control"), "it was asked: {heard:?}");
        assert!(!heard.contains("planted"), "{heard:?}");
        // Nor its hash: after the first message nothing was sent.
        assert!(heard.ends_with("net\0\0"), "{heard:?}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused_unless_only_its_authority_counts() {
    let authority = Authority::new().unwrap();
    let certificate = authority.certify(&["db.example"]).unwrap();
    let server = Options::new().certificate(certificate).start().await.unwrap();
    let database = server.database().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    let by =
        |tls| options(&server, database.name()).tls(Some(tls)).root_certificate(Some(path.clone()));
    let error = refused(by(Tls::VerifyFull)).await;
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    open(by(Tls::VerifyCa)).await.close().await.unwrap();
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let (server, database) = shared_server().await;
    for tls in [Tls::VerifyFull, Tls::VerifyCa] {
        let error = refused(options(server, database.name()).tls(Some(tls))).await;
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("has no TLS"), "{error}");
    }
}

#[tokio::test]
async fn a_full_server_is_busy_and_has_room_again() {
    let server = Options::new().max_connections(12).start().await.unwrap();
    let database = server.database().await.unwrap();
    let mut held = Vec::new();
    let error = loop {
        match PostgresBackend::open(options(&server, database.name())).await {
            Ok(backend) => held.push(backend),
            Err(error) => break error,
        }
        // The pools make their connections when they are used.
        match held.last().unwrap().head().await {
            Ok(_) => assert!(held.len() <= 12),
            Err(error) => break error,
        }
    };
    assert_eq!(*error.kind(), ErrorKind::Busy, "{error}: {}", held.len());
    for backend in held {
        backend.close().await.unwrap();
    }
    // The server is a moment behind.
    let backend = loop {
        match PostgresBackend::open(options(&server, database.name())).await {
            Ok(backend) => break backend,
            Err(error) => assert_eq!(*error.kind(), ErrorKind::Busy, "{error}"),
        }
    };
    store_next(&backend, 1).await.unwrap();
}

/// Everything that is logged by anybody in this program.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The one of all tests; what a search finds is planted by the test that searches.
    fn everything() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self::default();
            // The tests' own client and the one of the container engine show what they are asked.
            let is_ours = filter_fn(|metadata| {
                let others = ["tokio_postgres", "bollard", "testcontainers", "hyper"];
                !others.iter().any(|other| metadata.target().starts_with(other))
            });
            let written = fmt::layer().with_ansi(false).with_writer(log.clone());
            tracing_subscriber::registry().with(written.with_filter(is_ours)).init();
            log
        })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn neither_password_nor_value_is_in_a_log_or_an_error() {
    let log = Log::everything();
    let (server, database) = shared_server().await;
    let name = database.name();
    let backend = open(options(server, name)).await;
    let head = store_next(&backend, 1).await.unwrap();
    // The server says which row it refuses, and its values.
    let check = "ALTER TABLE ghostwire.users ADD CONSTRAINT planted CHECK (name <> 'user77')";
    server.sql(name, check).await.unwrap();
    let error = backend.commit(&commit(&head, 77)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    let mut shown = vec![format!("{error} {error:?}"), format!("{backend:?}")];
    assert!(
        shown.iter().any(|text| text.contains("planted") && text.contains("23514")),
        "{shown:?}"
    );
    let wrong = options(server, name).password(Some(Password::new("hunter2-planted").unwrap()));
    shown.push(format!("{wrong:?}"));
    let error = refused(wrong).await;
    shown.push(format!("{error} {error:?}"));
    let log = log.text();
    assert!(log.contains("ghostwire_store_postgres") && log.contains("the commit failed"));
    shown.push(log);
    for text in shown {
        for secret in ["user77", "hunter2-planted", server.password()] {
            let found = text.lines().find(|line| line.contains(secret));
            assert_eq!(found, None, "{secret} is shown");
        }
    }
}
