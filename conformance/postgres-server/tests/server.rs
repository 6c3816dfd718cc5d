//! Servers in each way that is there.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::print_stdout)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ghostwire_postgres_server::{Authority, Options, Server, Way};

/// A server in each way that is there, and at least one.
async fn servers(options: Options) -> Vec<Server> {
    let mut servers = Vec::new();
    let mut refused = Vec::new();
    for way in Way::ALL {
        match options.clone().way(way).start().await {
            Ok(server) => servers.push(server),
            Err(error) => refused.push(error),
        }
    }
    assert!(!servers.is_empty(), "{refused:?}");
    for error in refused {
        println!("not tested: {error}");
    }
    servers
}

async fn one(server: &Server, database: &str, sql: &str) -> String {
    let rows = server.sql(database, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows[0][0].clone().unwrap()
}

#[tokio::test]
async fn databases_are_empty_apart_and_dropped() {
    for server in servers(Options::new()).await {
        let (first, second) = (server.database().await.unwrap(), server.database().await.unwrap());
        server.sql(first.name(), "CREATE TABLE here (id int)").await.unwrap();
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
        assert_eq!(one(&server, first.name(), tables).await, "1");
        assert_eq!(one(&server, second.name(), tables).await, "0");
        assert_eq!(one(&server, first.name(), "SHOW server_encoding").await, "UTF8");
        let name = first.name().to_owned();
        drop(first);
        let left = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
        assert_eq!(one(&server, "postgres", &left).await, "0");
    }
}

#[tokio::test]
async fn it_is_durable_and_what_is_stored_outlives_restarts_and_kills() {
    for server in servers(Options::new().own()).await {
        for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
            assert_eq!(one(&server, "postgres", &format!("SHOW {setting}")).await, "on");
        }
        assert!(server.fill_disk().await.unwrap_err().to_string().contains("Options::disk_mib"));
        let port = server.port();
        let database = server.database().await.unwrap();
        server.sql(database.name(), "CREATE TABLE log (what text)").await.unwrap();
        for what in ["restart", "stop", "kill"] {
            server
                .sql(database.name(), &format!("INSERT INTO log VALUES ('{what}')"))
                .await
                .unwrap();
            let began = one(&server, "postgres", "SELECT pg_postmaster_start_time()").await;
            match what {
                "restart" => server.restart().await.unwrap(),
                "stop" => server.stop().await.unwrap(),
                _ => server.kill().await.unwrap(),
            }
            if what != "restart" {
                server.sql("postgres", "SELECT 1").await.unwrap_err();
                server.start_again().await.unwrap();
            }
            assert_ne!(one(&server, "postgres", "SELECT pg_postmaster_start_time()").await, began);
        }
        assert_eq!(one(&server, database.name(), "SELECT count(*) FROM log").await, "3");
        assert_eq!(server.port(), port);
        assert!(server.log().await.unwrap().contains("database system was not properly shut down"));
    }
}

#[tokio::test]
async fn it_asks_for_a_password_sorts_by_language_and_answers_after_a_pause() {
    for server in servers(Options::new().own()).await {
        let database = server.database().await.unwrap();
        assert_eq!(one(&server, database.name(), "SELECT 'a' < 'B'").await, "t");
        let stored = "SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid \
                      WHERE rolname = current_user";
        assert_eq!(one(&server, "postgres", stored).await, "t");
        let output = psql(&server, "wrong", &format!("host={}", server.host()));
        assert_refused(&output, "password authentication failed");
        assert!(!format!("{server:?}").contains(server.password()));

        server.pause().await.unwrap();
        let asked = server.sql("postgres", "SELECT 'late'");
        tokio::pin!(asked);
        // Nothing to wait for: it would be wrong to answer at all.
        let early = tokio::time::timeout(Duration::from_millis(100), &mut asked).await;
        assert!(early.is_err(), "{early:?}");
        server.resume().await.unwrap();
        assert_eq!(asked.await.unwrap(), [[Some("late".to_owned())]]);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_rows_and_goes_on_when_there_is_room() {
    // Not its log: that one has to have room, or the server ends.
    let options = Options::new()
        .disk_mib(160)
        .setting("wal_level", "minimal")
        .setting("max_wal_senders", "0");
    for server in servers(options).await {
        let database = server.database().await.unwrap();
        let store = "CREATE TABLE rows AS SELECT repeat(md5(i::text), 100) FROM generate_series(1, 20000) i";
        // The first connection to a database writes a file.
        server.sql(database.name(), "SELECT 1").await.unwrap();
        server.fill_disk().await.unwrap();
        let error = server.sql(database.name(), store).await.unwrap_err().to_string();
        assert!(error.contains("53100") || error.contains("No space left"), "{error}");
        server.free_disk().await.unwrap();
        assert_eq!(one(&server, database.name(), "SELECT 'still here'").await, "still here");
        if server.way() == Way::Container {
            assert!(server.stop().await.unwrap_err().to_string().contains("is lost"));
        }
    }
}

#[tokio::test]
async fn memory_is_limited_in_a_container() {
    match Options::new().way(Way::Container).memory_mib(256).start().await {
        Ok(server) => {
            let limit = one(
                &server,
                "postgres",
                "SELECT coalesce(pg_read_file('/sys/fs/cgroup/memory.max', 0, 99, true), \
                 pg_read_file('/sys/fs/cgroup/memory/memory.limit_in_bytes', 0, 99, true))",
            );
            assert_eq!(limit.await.trim(), (256 << 20).to_string());
        }
        Err(error) => println!("not tested: {error}"),
    }
}

#[tokio::test]
async fn settings_are_the_servers_and_its_certificate_is_verified() {
    let directory = tempfile::tempdir().unwrap();
    let trusted = directory.path().join("trusted.pem");
    let other = directory.path().join("other.pem");
    std::fs::write(&other, Authority::new().unwrap().pem()).unwrap();
    let verify = |server: &Server, host: &str, root: &Path| {
        let how = format!(
            "host={host} hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={}",
            root.display()
        );
        psql(server, server.password(), &how)
    };
    let options = Options::new().tls().max_connections(7).setting("work_mem", "1MB");
    for server in servers(options).await {
        assert_eq!(one(&server, "postgres", "SHOW max_connections").await, "7");
        assert_eq!(one(&server, "postgres", "SHOW work_mem").await, "1MB");
        std::fs::write(&trusted, server.authority().unwrap().pem()).unwrap();
        for host in ["localhost", "127.0.0.1"] {
            let output = verify(&server, host, &trusted);
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "t", "{output:?}");
        }
        assert_refused(&verify(&server, "localhost", &other), "certificate verify failed");
        assert_refused(&verify(&server, "elsewhere", &trusted), "does not match host name");
    }
    let authority = Authority::new().unwrap();
    std::fs::write(&trusted, authority.pem()).unwrap();
    let elsewhere = Options::new().certificate(authority.certify(&["elsewhere"]).unwrap());
    let server = elsewhere.start().await.unwrap();
    assert_refused(&verify(&server, "localhost", &trusted), "does not match host name");
    assert!(verify(&server, "elsewhere", &trusted).status.success());
}

/// Asks whether the connection is encrypted.
fn psql(server: &Server, password: &str, how: &str) -> Output {
    let connection = format!("{how} port={} user={} dbname=postgres", server.port(), server.user());
    Command::new("psql")
        .args(["--no-psqlrc", "--tuples-only", "--no-align", "--command"])
        .arg("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .arg(connection)
        .env("PGPASSWORD", password)
        .stdin(Stdio::null())
        .output()
        .expect("psql is missing; run: apt-get install postgresql-client")
}

fn assert_refused(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(why), "{output:?}");
}

#[tokio::test]
async fn programs_have_one_server_for_all_their_tests() {
    let elsewhere = tokio::spawn(Server::shared());
    let (first, second) = tokio::join!(Server::shared(), elsewhere);
    assert!(std::ptr::eq(first.unwrap(), second.unwrap().unwrap()));
}

#[tokio::test]
async fn a_way_that_cannot_do_it_says_why() {
    let wrong = Options::new().setting("no_such_setting", "1").way(Way::Installed).start().await;
    assert!(wrong.unwrap_err().to_string().contains("no_such_setting"), "what the server said");
    let given = Options::new().own().way(Way::Given).start().await.unwrap_err().to_string();
    assert!(given.contains("GHOSTWIRE_TEST_POSTGRES_URL"), "{given}");
    let small = Options::new().memory_mib(256).way(Way::Installed).start().await.unwrap_err();
    assert!(small.to_string().contains("only a container"), "{small}");
}

/// What a test program leaves when it is aborted.
#[tokio::test]
async fn nothing_is_left_when_the_program_dies() {
    let mut died = 0;
    for way in Way::ALL {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "dies_with_a_server", "--ignored", "--nocapture"])
            .env("GHOSTWIRE_DIES_IN", format!("{way:?}"))
            .output()
            .unwrap();
        assert!(!output.status.success());
        let stderr = String::from_utf8_lossy(&output.stderr);
        let Some(at) = stderr.split("at 127.0.0.1:").nth(1) else {
            assert!(stderr.contains("no PostgreSQL to test on"), "{stderr}");
            continue;
        };
        died += 1;
        let port: String = at.chars().take_while(char::is_ascii_digit).collect();
        let gone = async {
            while tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the server ends");
    }
    assert!(died > 0);
}

#[tokio::test]
#[ignore = "the child of the test before it, which runs it; cargo test -p ghostwire-postgres-server --test server nothing_is_left"]
async fn dies_with_a_server() {
    let Ok(wanted) = std::env::var("GHOSTWIRE_DIES_IN") else { return };
    let way = Way::ALL.into_iter().find(|way| format!("{way:?}") == wanted).unwrap();
    let _server = Options::new().own().way(way).start().await.unwrap();
    std::process::abort();
}
