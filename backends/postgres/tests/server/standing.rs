//! Servers that come and go while a store is made, and that are standbys for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ghostwire_postgres_server::{Direction, Proxy, Server};
use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::block::{ChangeKind, RowChange};
use ghostwire_store_core::domain::{
    EndpointList, NewUser, NodeId, Presence, SessionNumber, Timestamp,
};
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::layer::Deadlines;
use ghostwire_store_core::open as open_store;
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::schema::{Record, Table};
use ghostwire_store_postgres::PostgresBackend;

use crate::support::{
    commit, entry, open, options, own_server, refused, shared_server, store_next, through,
};
use crate::vanished::until;

/// How far a store was made does not matter: it is there as a whole, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_while_a_store_is_made_has_a_whole_one_or_none() {
    let (server, database) = own_server().await;
    let name = database.name();
    let proxy = Proxy::to(server.host(), server.port()).unwrap();
    let address = proxy.address();
    let by_proxy = |schema: &str| {
        through(&server, name, &address.ip().to_string(), address.port()).schema_name(schema)
    };
    let sent = || proxy.counts().received(Direction::ToServer);
    let before = sent();
    open(by_proxy("whole")).await.close().await.unwrap();
    let total = sent() - before;
    for part in 1..4 {
        let schema = format!("part{part}");
        let wanted = sent() + total * part / 4;
        let making = tokio::spawn(PostgresBackend::open(by_proxy(&schema)));
        proxy.until(|counts| counts.received(Direction::ToServer) >= wanted).await.unwrap();
        server.kill().await.unwrap();
        if let Err(error) = making.await.unwrap() {
            assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains(name), "{error}");
        }
        server.start_again().await.unwrap();
        let sql = format!(
            "SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
             WHERE n.nspname = '{schema}' AND c.relname = 'ghostwire_meta'"
        );
        let made = server.sql(name, &sql).await.unwrap();
        let again = options(&server, name).schema_name(&schema);
        if made == [[Some("0".to_owned())]] {
            let error = refused(again.clone().create(false)).await;
            assert_eq!(*error.kind(), ErrorKind::NotFound, "{error}");
        }
        let backend = open(again).await;
        store_next(&backend, 1).await.unwrap();
        backend.verify().await.unwrap();
        backend.close().await.unwrap();
    }
}

/// Versions of rows that are written anew all the time stay in their pages, and no index grows.
#[tokio::test]
async fn what_is_written_most_often_is_written_in_its_page() {
    const COMMITS: u8 = 200;
    let (server, database) = shared_server().await;
    let backend = open(options(server, database.name())).await;
    let mut head = store_next(&backend, 1).await.unwrap();
    for number in 0..COMMITS {
        // Twenty nodes, which fill some of a page.
        let rows = (0..20).map(|node| {
            let presence = Presence {
                node: NodeId::from_bytes([node; 16]),
                session: SessionNumber::new(number.into()).unwrap(),
                online: true,
                last_seen: Some(Timestamp::from_secs(1_700_000_000 + i64::from(number)).unwrap()),
                endpoints: EndpointList::default(),
                absent_since: None,
                instance: None,
            };
            let (table, kind) = (Table::Presence, ChangeKind::Updated);
            RowChange { table, kind, key: presence.key(), body: Some(presence.encode()) }
        });
        let heartbeat = Commit { rows: rows.collect(), ..entry(&head, number) };
        backend.commit(&heartbeat).await.unwrap();
        head = head.after(&heartbeat).unwrap();
    }
    // What it counts a session tells when it ends.
    backend.close().await.unwrap();
    for (table, updates) in [("presence", 20 * 199), ("ghostwire_meta", 200)] {
        let counted = format!(
            "(SELECT n_tup_upd >= {updates} FROM pg_stat_user_tables WHERE relname = '{table}')"
        );
        until(server, database.name(), &counted).await;
        let sql = format!(
            "SELECT n_tup_upd - n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables WHERE relname = '{table}'"
        );
        let found = server.sql(database.name(), &sql).await.unwrap();
        let [elsewhere, all] =
            [0, 1].map(|at| found[0][at].as_ref().unwrap().parse::<u64>().unwrap());
        println!("{table}: {elsewhere} of {all} updates went to another page");
        assert!(elsewhere * 10 <= all, "{table}: {elsewhere} of {all}");
    }
}

async fn become_standby(server: &Server) {
    let sql = "DO $$ BEGIN EXECUTE format('COPY (SELECT 1 WHERE false) TO %L', \
               current_setting('data_directory') || '/standby.signal'); END $$";
    server.sql("postgres", sql).await.unwrap();
    server.restart().await.unwrap();
}

#[tokio::test]
async fn a_standby_is_read_and_not_written_until_it_is_promoted() {
    let (server, database) = own_server().await;
    let name = database.name();
    let deadlines = Deadlines { commit: Duration::from_secs(2), ..Deadlines::default() };
    let backend = open(options(&server, name).deadlines(deadlines)).await;
    let head = store_next(&backend, 1).await.unwrap();
    become_standby(&server).await;
    let error = refused(options(&server, name)).await;
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("in recovery"), "{error}");
    let reader = open(options(&server, name).read_only(true)).await;
    assert_eq!(reader.head().await.unwrap(), head);
    reader.verify().await.unwrap();
    // The connection of before is lost, and a standby cannot be asked what became of a commit.
    let error = backend.commit(&commit(&head, 2)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    let error = backend.commit(&commit(&head, 2)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("in recovery"), "{error}");
    assert_eq!(*backend.reopen().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(backend.head().await.unwrap(), head);
    server.sql("postgres", "SELECT pg_promote()").await.unwrap();
    assert_eq!(backend.reopen().await.unwrap(), head);
    let head = store_next(&backend, 2).await.unwrap();
    assert_eq!(reader.head().await.unwrap(), head);
}

/// What a standby has may be old, so nobody trusts it that nothing was revoked meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_standby_a_view_grows_old() {
    let (server, database) = own_server().await;
    let name = database.name();
    let backend = Arc::new(open(options(&server, name)).await);
    let limits = StoreOptions { max_view_age: Duration::ZERO, ..StoreOptions::default() };
    let store = open_store(backend, limits).await.unwrap();
    store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
    let read = open(options(&server, name).read_only(true)).await;
    let read_only = StoreOptions { read_only: true, ..StoreOptions::default() };
    let reader = open_store(Arc::new(read), read_only).await.unwrap();
    become_standby(&server).await;
    let since = Instant::now();
    for store in [&store, &reader] {
        // The connections of before are lost, which is said first.
        loop {
            let error = store.fresh_view().await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
            if error.to_string().contains("standby") {
                break;
            }
        }
        let elapsed = since.elapsed();
        let view = store.view();
        assert!(view.age() >= elapsed, "{:?} {elapsed:?}", view.age());
        assert_eq!(view.users().len(), 1);
    }
    let error = store.api_keys().authenticate("nothing").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    server.sql("postgres", "SELECT pg_promote()").await.unwrap();
    assert_eq!(store.fresh_view().await.unwrap().users().len(), 1);
    assert_eq!(reader.fresh_view().await.unwrap().users().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_somebody_cancels_is_not_stored_and_can_be_sent_again() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let backend = open(options(server, name)).await;
    let head = store_next(&backend, 1).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND query LIKE 'WITH cas%' AND datname = current_database()";
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
                  WHERE query LIKE 'WITH cas%' AND wait_event_type = 'Lock' AND datname = current_database()";
    let release = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE wait_event = 'PgSleep' AND datname = current_database()";
    // Somebody holds the row for as long as they are let.
    let hold = "BEGIN; SELECT 1 FROM ghostwire.ghostwire_meta FOR UPDATE; SELECT pg_sleep(600)";
    let holding = async { server.sql(name, hold).await.unwrap_err() };
    let committing = async {
        let held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
                    AND datname = current_database()";
        while server.sql(name, held).await.unwrap() != [[Some("1".to_owned())]] {
            tokio::task::yield_now().await;
        }
        let next = commit(&head, 2);
        let cancelling = async {
            while server.sql(name, waiting).await.unwrap() != [[Some("1".to_owned())]] {
                tokio::task::yield_now().await;
            }
            server.sql(name, cancel).await.unwrap();
        };
        let (sent, ()) = tokio::join!(backend.commit(&next), cancelling);
        let error = sent.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Busy, "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(backend.head().await.unwrap(), head);
        server.sql(name, release).await.unwrap();
        backend.commit(&next).await.unwrap();
    };
    tokio::join!(holding, committing);
    assert_eq!(backend.head().await.unwrap().position.get(), 2);
}
