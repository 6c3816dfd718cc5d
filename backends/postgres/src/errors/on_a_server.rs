//! Each code that docs and `sqlstate.rs` name, as a real server gives it, and what is made of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use ghostwire_postgres_server::{Database, Options, Server};
use ghostwire_store_core::domain::StoreId;
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::*;
use crate::connection::{connect, query, run};
use crate::{Password, PostgresOptions};

const LIMIT: Duration = Duration::from_secs(30);

fn options(server: &Server, database: &str) -> PostgresOptions {
    let store = StoreId::from_bytes([0x5a; 16]);
    PostgresOptions::new(server.host(), database, server.user(), store)
        .port(server.port())
        .password(Some(Password::new(server.password()).unwrap()))
}

async fn connected(server: &Server, database: &Database) -> PgConnection {
    let options = options(server, database.name()).connect_options().unwrap();
    connect(&options, None, LIMIT).await.unwrap()
}

async fn done(connection: &mut PgConnection, statements: &str) {
    run(connection, statements, During::Read).await.unwrap();
}

/// Runs statements, one at a time, of which the last one fails.
async fn failure(connection: &mut PgConnection, statements: &str, during: During) -> Failure {
    let mut failed = None;
    for statement in statements.split("; ") {
        assert!(failed.is_none(), "{statements}: not the last one failed: {failed:?}");
        failed = run(connection, statement, during).await.err();
    }
    failed.unwrap_or_else(|| panic!("{statements}: nothing failed"))
}

fn code(failure: &Failure) -> &str {
    let context = failure.error.context();
    let code = context.iter().find(|(key, _)| *key == "sqlstate");
    code.map(|(_, code)| code.as_str()).unwrap_or_else(|| panic!("no code: {failure:?}"))
}

fn kind(failure: &Failure) -> ErrorKind {
    assert!(matches!(failure.verdict, Verdict::Refused(..)), "{failure:?}");
    failure.error.kind().clone()
}

#[tokio::test]
async fn what_one_session_brings_about_is_what_its_code_means() {
    let server = Options::new().own().start().await.unwrap();
    let database = server.database().await.unwrap();
    for (statements, expected, means) in [
        ("SELECT FROM no_such_table", "42P01", ErrorKind::Corrupt),
        ("SELECT no_such_column FROM pg_class", "42703", ErrorKind::Corrupt),
        ("CREATE TABLE no_such_schema.t ()", "3F000", ErrorKind::Corrupt),
        (
            "CREATE TABLE public.a (n int); INSERT INTO public.a (n) VALUES (true)",
            "42804",
            ErrorKind::Corrupt,
        ),
        ("SELECT no_such_function()", "42883", ErrorKind::Corrupt),
        (
            "CREATE TABLE public.a (n int); INSERT INTO public.a VALUES (1) ON CONFLICT (n) DO NOTHING",
            "42P10",
            ErrorKind::Corrupt,
        ),
        (
            "CREATE TABLE public.a (n int PRIMARY KEY); INSERT INTO public.a VALUES (1), (1)",
            "23505",
            ErrorKind::Corrupt,
        ),
        (
            "CREATE TABLE public.a (n int CHECK (n > 0)); INSERT INTO public.a VALUES (0)",
            "23514",
            ErrorKind::Corrupt,
        ),
        (
            "CREATE TABLE public.a (n int NOT NULL); INSERT INTO public.a VALUES (null)",
            "23502",
            ErrorKind::Corrupt,
        ),
        (
            "SET default_transaction_read_only TO on; CREATE TABLE public.a ()",
            "25006",
            ErrorKind::Unavailable,
        ),
        ("SET statement_timeout TO '10ms'; SELECT pg_sleep(60)", "57014", ErrorKind::Busy),
        ("SELECT repeat('four', 1000000000)", "54000", ErrorKind::Exhausted),
        ("SELECT 'no number'::int", "22P02", ErrorKind::InvalidArgument),
        (
            "CREATE ROLE nobody_else; CREATE TABLE public.a (); SET ROLE nobody_else; SELECT FROM public.a",
            "42501",
            ErrorKind::PermissionDenied,
        ),
        // A damaged index is not to be had by statements alone, so it is said for it.
        ("DO $$BEGIN RAISE USING ERRCODE = 'XX002';END$$", "XX002", ErrorKind::Corrupt),
    ] {
        for during in [During::Commit, During::Read] {
            let mut connection = connected(&server, &database).await;
            let failed = failure(&mut connection, statements, during).await;
            assert_eq!(code(&failed), expected, "{statements}");
            assert_eq!(kind(&failed), means, "{statements}: {failed:?}");
            drop(connection);
            let clean = "DROP TABLE IF EXISTS public.a; DROP ROLE IF EXISTS nobody_else";
            server.sql(database.name(), clean).await.unwrap();
        }
    }
}

/// Alone on its server, which does not get all of that memory back.
#[tokio::test]
async fn a_server_whose_memory_ran_out_says_so() {
    let server = Options::new().own().start().await.unwrap();
    let database = server.database().await.unwrap();
    let lock = "SELECT count(pg_advisory_xact_lock(n)) FROM generate_series(1, 10000000) AS n";
    let both = [connected(&server, &database).await, connected(&server, &database).await];
    for (mut connection, during) in both.into_iter().zip([During::Commit, During::Read]) {
        let failed = failure(&mut connection, lock, during).await;
        assert_eq!((code(&failed), kind(&failed)), ("53200", ErrorKind::Exhausted));
    }
}

/// One of them is undone, and may be sent again.
#[tokio::test]
async fn what_others_bring_about_is_undone_and_may_be_sent_again() {
    let server = Server::shared().await.unwrap();
    let database = server.database().await.unwrap();
    let setup = "CREATE TABLE public.a (n int); INSERT INTO public.a VALUES (1), (2)";
    server.sql(database.name(), setup).await.unwrap();
    let mut one = connected(server, &database).await;
    let mut two = connected(server, &database).await;
    // 40001: the row is another one than the transaction saw.
    done(&mut one, "BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    done(&mut one, "SELECT n FROM public.a").await;
    done(&mut two, "UPDATE public.a SET n = n").await;
    let failed = failure(&mut one, "UPDATE public.a SET n = n", During::Commit).await;
    assert_eq!((code(&failed), failed.verdict.clone()), ("40001", Verdict::Again));
    done(&mut one, "ROLLBACK").await;
    // 40P01: each waits for the other.
    for (connection, number) in [(&mut one, 1), (&mut two, 2)] {
        done(connection, "SET deadlock_timeout TO '10ms'; BEGIN").await;
        let lock = format!("SELECT FROM public.a WHERE n = {number} FOR UPDATE");
        done(connection, &lock).await;
    }
    let ask = async |connection: &mut PgConnection, number: u8| {
        let lock = format!("SELECT FROM public.a WHERE n = {number} FOR UPDATE");
        let asked = run(connection, &lock, During::Commit).await;
        // Lets the other one go on.
        run(connection, "ROLLBACK", During::Commit).await.unwrap();
        asked
    };
    let (first, second) = tokio::join!(ask(&mut one, 2), ask(&mut two, 1));
    let failed = first.err().or(second.err()).unwrap();
    assert_eq!((code(&failed), failed.verdict.clone()), ("40P01", Verdict::Again));
    // 55P03: it is not given back in time.
    done(&mut one, "BEGIN; SELECT FROM public.a FOR UPDATE").await;
    done(&mut two, "SET lock_timeout TO '10ms'").await;
    let failed = failure(&mut two, "UPDATE public.a SET n = n", During::Commit).await;
    assert_eq!((code(&failed), kind(&failed)), ("55P03", ErrorKind::Busy));
}

#[tokio::test]
async fn a_session_that_is_ended_leaves_its_commit_open() {
    let server = Server::shared().await.unwrap();
    let database = server.database().await.unwrap();
    let gone = async |connection: &mut PgConnection, before: &str| {
        done(connection, before).await;
        let session = "SELECT pid FROM pg_stat_activity WHERE application_name = 'ghostwire-store' \
                       AND datname = current_database()";
        while !server.sql(database.name(), session).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    for (ends, expected) in [
        ("SELECT pg_terminate_backend(pg_backend_pid())", "57P01"),
        ("SET idle_session_timeout TO '10ms'", "57P05"),
        ("BEGIN; SET LOCAL idle_in_transaction_session_timeout TO '10ms'", "25P03"),
    ] {
        for during in [During::Commit, During::Read] {
            let mut connection = connected(server, &database).await;
            let failed = if expected == "57P01" {
                failure(&mut connection, ends, during).await
            } else {
                gone(&mut connection, ends).await;
                failure(&mut connection, "SELECT 1", during).await
            };
            // Of a session that ended while nothing was asked of it, the system may say so first.
            let told = failed.error.context().iter().find(|(key, _)| *key == "sqlstate").cloned();
            if let Some((_, told)) = told {
                assert_eq!(told, expected);
            }
            match during {
                During::Commit => assert_eq!(failed.verdict, Verdict::Unknown, "{ends}"),
                _ => assert_eq!(kind(&failed), ErrorKind::Unavailable, "{ends}"),
            }
            drop(connection);
        }
    }
}

#[tokio::test]
async fn statements_that_the_server_does_not_have_were_not_executed() {
    let server = Server::shared().await.unwrap();
    let database = server.database().await.unwrap();
    let mut connection = connected(server, &database).await;
    for (statements, expected) in [
        ("EXECUTE no_such_statement", "26000"),
        ("PREPARE twice AS SELECT 1; PREPARE twice AS SELECT 1", "42P05"),
    ] {
        let failed = failure(&mut connection, statements, During::Commit).await;
        assert_eq!((code(&failed), failed.verdict.clone()), (expected, Verdict::Reprepare));
    }
    let create = "CREATE TABLE public.a (n int)";
    server.sql(database.name(), create).await.unwrap();
    let select = "SELECT * FROM public.a";
    query(&mut connection, select, &[], During::Read).await.unwrap();
    let alter = "ALTER TABLE public.a ADD COLUMN m int";
    server.sql(database.name(), alter).await.unwrap();
    let failed = query(&mut connection, select, &[], During::Commit).await.unwrap_err();
    assert_eq!((code(&failed), failed.verdict.clone()), ("0A000", Verdict::Reprepare));
}

#[tokio::test]
async fn whoever_may_not_connect_is_told_why() {
    let server = Server::shared().await.unwrap();
    let database = server.database().await.unwrap();
    let name = database.name();
    let make = format!(
        "CREATE ROLE {name}_full LOGIN PASSWORD 'x' CONNECTION LIMIT 0; CREATE ROLE {name}_no PASSWORD 'x'"
    );
    server.sql(name, &make).await.unwrap();
    let by = |role: &str, password: &str, database: &str| {
        let store = StoreId::from_bytes([0x5a; 16]);
        PostgresOptions::new(server.host(), database, role, store)
            .port(server.port())
            .password(Some(Password::new(password).unwrap()))
    };
    for (options, expected, means) in [
        (by(&format!("{name}_full"), "x", name), "53300", ErrorKind::Busy),
        (by(&format!("{name}_no"), "x", name), "28000", ErrorKind::PermissionDenied),
        (by(server.user(), "wrong", name), "28P01", ErrorKind::PermissionDenied),
        (by(server.user(), server.password(), "no_such_database"), "3D000", ErrorKind::NotFound),
    ] {
        let options = options.connect_options().unwrap();
        let error = connect(&options, None, LIMIT).await.map(drop).unwrap_err();
        assert_eq!(*error.kind(), means, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    server.sql(name, &format!("DROP ROLE {name}_full, {name}_no")).await.unwrap();
}

/// A page that is not one, as a disk that fails leaves it.
#[tokio::test]
async fn a_damaged_file_is_damage() {
    let server = Options::new().own().start().await.unwrap();
    let database = server.database().await.unwrap();
    let name = database.name();
    let fill = "CREATE TABLE public.a AS SELECT generate_series(1, 1000) AS n; CHECKPOINT";
    for statement in fill.split("; ") {
        server.sql(name, statement).await.unwrap();
    }
    // Nothing of it is in memory then.
    server.restart().await.unwrap();
    let overwrite = "DO $$ BEGIN EXECUTE format('COPY (SELECT repeat(''x'', 40000)) TO %L', \
                     current_setting('data_directory') || '/' || pg_relation_filepath('public.a')); END $$";
    server.sql(name, overwrite).await.unwrap();
    for during in [During::Commit, During::Read] {
        let mut connection = connected(&server, &database).await;
        let failed = failure(&mut connection, "SELECT count(*) FROM public.a", during).await;
        assert_eq!((code(&failed), kind(&failed)), ("XX001", ErrorKind::Corrupt));
        connection.close().await.unwrap();
    }
}

/// One that has begun to start and does not take anybody yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_up_says_so() {
    let server = Options::new().own().start().await.unwrap();
    let database = server.database().await.unwrap();
    let options = options(&server, database.name()).connect_options().unwrap();
    for setting in
        ["ALTER SYSTEM SET hot_standby TO off", "ALTER SYSTEM SET restore_command TO 'false'"]
    {
        server.sql("postgres", setting).await.unwrap();
    }
    let standby = "DO $$ BEGIN EXECUTE format('COPY (SELECT 1 WHERE false) TO %L', \
                   current_setting('data_directory') || '/standby.signal'); END $$";
    server.sql("postgres", standby).await.unwrap();
    server.stop().await.unwrap();
    let starting = server.start_again();
    let asking = async {
        loop {
            let error = connect(&options, None, LIMIT).await.map(drop).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
            if error.to_string().contains("57P03") {
                return;
            }
        }
    };
    tokio::select! {
        started = starting => panic!("a standby that takes nobody answers: {started:?}"),
        () = asking => {}
    }
}
