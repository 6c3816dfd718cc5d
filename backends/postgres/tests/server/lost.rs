//! Connections that are lost, and what becomes of a commit then.

use std::sync::Arc;
use std::time::Duration;

use ghostwire_postgres_server::{Direction, Options, Proxy, Server};
use ghostwire_store_core::backend::{Backend, Commit, Head};
use ghostwire_store_core::block::{ChangeKind, RowChange, Serial};
use ghostwire_store_core::domain::{NewUser, Timestamp, UserId, UserName};
use ghostwire_store_core::error::{ErrorKind, Result};
use ghostwire_store_core::layer::Deadlines;
use ghostwire_store_core::schema::{Record, Table};
use ghostwire_store_postgres::{Password, PostgresBackend, PostgresOptions};
use tokio::task::JoinHandle;

use crate::support::{
    STORE, block, commit, entry, open, options, own_server, shared_server, store_next, through,
};

/// A backend behind a proxy, one beside it, and where they stand.
pub(crate) struct Pair {
    pub(crate) far: Arc<PostgresBackend>,
    pub(crate) near: PostgresBackend,
    pub(crate) proxy: Proxy,
    pub(crate) head: Head,
}

impl Pair {
    pub(crate) async fn open(server: &Server, database: &str) -> Self {
        Self::open_as(server, database, (server.user(), server.password())).await
    }

    /// The far one by this user and password.
    pub(crate) async fn open_as(
        server: &Server,
        database: &str,
        (user, password): (&str, &str),
    ) -> Self {
        let near = open(options(server, database)).await;
        let proxy = Proxy::to(server.host(), server.port()).unwrap();
        let address = proxy.address();
        let host = address.ip().to_string();
        let deadlines = Deadlines { commit: Duration::from_secs(30), ..Deadlines::default() };
        let far = PostgresOptions::new(host, database, user, STORE)
            .port(address.port())
            .password(Some(Password::new(password).unwrap()))
            .deadlines(deadlines);
        let far = Arc::new(open(far).await);
        // So that the connection is there.
        let head = store_next(&far, 1).await.unwrap();
        Self { far, near, proxy, head }
    }

    /// Stores one, so that its statement is prepared: a lost answer to that would be one to nothing.
    pub(crate) async fn prepare(&mut self, next: fn(&Head, u8) -> Commit, number: u8) {
        self.far.commit(&next(&self.head, number)).await.unwrap();
        self.head = self.near.head().await.unwrap();
    }

    pub(crate) fn send(&self, commit: Commit) -> JoinHandle<Result<()>> {
        let far = self.far.clone();
        tokio::spawn(async move { far.commit(&commit).await })
    }

    /// Waits until the store stands at this position.
    pub(crate) async fn until(&self, position: u64) {
        while self.near.head().await.unwrap().position.get() < position {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_found() {
    let (server, database) = shared_server().await;
    let mut pair = Pair::open(server, database.name()).await;
    for (number, next) in [(20, commit as fn(&Head, u8) -> Commit), (30, entry), (40, commit)] {
        pair.prepare(next, number).await;
        pair.proxy.cut(Direction::ToClient).unwrap();
        let sent = pair.send(next(&pair.head, number + 1));
        pair.until(pair.head.position.get() + 1).await;
        pair.proxy.reset().unwrap();
        pair.proxy.mend(Direction::ToClient).unwrap();
        sent.await.unwrap().unwrap();
        pair.head = pair.near.head().await.unwrap();
        assert_eq!(pair.head.commit.as_bytes(), &[number + 1; 16]);
    }
    assert_eq!(pair.head.position.get(), 7, "each is stored once");
    pair.near.verify().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_arrived_is_sent_again() {
    let (server, database) = shared_server().await;
    let pair = Pair::open(server, database.name()).await;
    let before = pair.proxy.counts().received(Direction::ToServer);
    pair.proxy.cut(Direction::ToServer).unwrap();
    let sent = pair.send(commit(&pair.head, 2));
    pair.proxy.until(|counts| counts.received(Direction::ToServer) > before).await.unwrap();
    pair.proxy.reset().unwrap();
    pair.proxy.mend(Direction::ToServer).unwrap();
    sent.await.unwrap().unwrap();
    assert_eq!(pair.near.head().await.unwrap().position.get(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_lost_commit_that_another_overtook_it_is_said_so() {
    let (server, database) = shared_server().await;
    let pair = Pair::open(server, database.name()).await;
    let mut head = pair.head;
    for next in [commit as fn(&Head, u8) -> Commit, entry] {
        let before = pair.proxy.counts().received(Direction::ToServer);
        pair.proxy.cut(Direction::ToServer).unwrap();
        let sent = pair.send(next(&head, 9));
        pair.proxy.until(|counts| counts.received(Direction::ToServer) > before).await.unwrap();
        for number in 2..5 {
            store_next(&pair.near, number).await.unwrap();
        }
        pair.proxy.reset().unwrap();
        pair.proxy.mend(Direction::ToServer).unwrap();
        let error = sent.await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
        head = pair.near.head().await.unwrap();
    }
    pair.near.verify().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_commit_is_found_though_others_went_on() {
    let (server, database) = shared_server().await;
    let mut pair = Pair::open(server, database.name()).await;
    for (number, next) in [(20, commit as fn(&Head, u8) -> Commit), (30, entry)] {
        pair.prepare(next, number).await;
        pair.proxy.cut(Direction::ToClient).unwrap();
        let sent = pair.send(next(&pair.head, number + 1));
        pair.until(pair.head.position.get() + 1).await;
        for more in 2..5 {
            store_next(&pair.near, number + more).await.unwrap();
        }
        pair.proxy.reset().unwrap();
        pair.proxy.mend(Direction::ToClient).unwrap();
        sent.await.unwrap().unwrap();
        pair.head = pair.near.head().await.unwrap();
    }
}

/// A commit that waits for a standby cannot be seen, and holds the lock of the head.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_standby_is_not_taken_for_absent() {
    let (server, database) = own_server().await;
    let name = database.name();
    let pair = Pair::open(&server, name).await;
    let set = "ALTER SYSTEM SET synchronous_standby_names TO 'nowhere'";
    server.sql("postgres", set).await.unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()").await.unwrap();
    // The server takes a moment to wait for it.
    let first = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'CREATE%'";
    let waits = async {
        while server.sql("postgres", first).await.unwrap() != [[Some("1".to_owned())]] {
            tokio::task::yield_now().await;
        }
    };
    let write = async {
        for number in 0.. {
            server.sql("postgres", &format!("CREATE TABLE t{number} ()")).await.unwrap();
        }
    };
    tokio::select! { () = waits => {}, () = write => {} }
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'WITH cas%'";
    let is_waiting = async || server.sql(name, waiting).await.unwrap() == [[Some("1".to_owned())]];
    let sent = pair.send(commit(&pair.head, 2));
    while !is_waiting().await {
        tokio::task::yield_now().await;
    }
    pair.proxy.reset().unwrap();
    assert_eq!(pair.near.head().await.unwrap(), pair.head, "a plain read does not see it");
    // Whoever asks for the outcome waits for the lock.
    let asking = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE%'";
    while server.sql(name, asking).await.unwrap() != [[Some("1".to_owned())]] {
        tokio::task::yield_now().await;
    }
    server.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()").await.unwrap();
    sent.await.unwrap().unwrap();
    let head = pair.near.head().await.unwrap();
    assert_eq!((head.position.get(), *head.commit.as_bytes()), (2, [2; 16]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_without_an_answer_ends_by_its_deadline() {
    let (server, database) = shared_server().await;
    let near = open(options(server, database.name())).await;
    let proxy = Proxy::to(server.host(), server.port()).unwrap();
    let address = proxy.address();
    let short = Duration::from_secs(1);
    let far = through(server, database.name(), &address.ip().to_string(), address.port())
        .deadlines(Deadlines { connect: short, read: short, commit: short });
    let far = open(far).await;
    let head = store_next(&far, 1).await.unwrap();
    proxy.cut(Direction::ToClient).unwrap();
    let error = far.commit(&commit(&head, 2)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(*far.head().await.unwrap_err().kind(), ErrorKind::Unavailable);
    proxy.mend(Direction::ToClient).unwrap();
    // The connections of before are gone, and new ones work.
    let found = far.reopen().await.unwrap();
    assert_eq!(found, near.head().await.unwrap());
    store_next(&far, 3).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_given_up_is_whole_or_absent_and_its_connection_is_not_used_again() {
    let (server, database) = shared_server().await;
    let pair = Pair::open(server, database.name()).await;
    pair.proxy.cut(Direction::ToClient).unwrap();
    let sent = pair.send(commit(&pair.head, 2));
    pair.until(2).await;
    sent.abort();
    assert!(sent.await.unwrap_err().is_cancelled());
    pair.proxy.mend(Direction::ToClient).unwrap();
    let head = store_next(&pair.far, 3).await.unwrap();
    assert_eq!(head.position.get(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_ended_is_replaced() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let backend = open(options(server, name)).await;
    store_next(&backend, 1).await.unwrap();
    for number in 2..5 {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE application_name = 'ghostwire-store' AND datname = current_database()";
        server.sql(name, sql).await.unwrap();
        store_next(&backend, number).await.unwrap();
    }
    assert_eq!(backend.head().await.unwrap().position.get(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_has_what_it_acknowledged() {
    let (server, database) = own_server().await;
    let name = database.name();
    let backend = Arc::new(open(options(&server, name)).await);
    let mut acknowledged = vec![store_next(&backend, 1).await.unwrap()];
    for round in 0..3_u8 {
        let writing = backend.clone();
        let writer = tokio::spawn(async move {
            let mut stored = Vec::new();
            for number in 0..u8::MAX {
                let stored_now = async {
                    let head = writing.head().await?;
                    let commit = commit(&head, number);
                    writing.commit(&commit).await?;
                    head.after(&commit)
                };
                match stored_now.await {
                    Ok(head) => stored.push(head),
                    Err(error) => return (stored, error),
                }
            }
            panic!("the server was to be killed before");
        });
        let wanted = acknowledged.last().unwrap().position.get() + 5 + u64::from(round);
        while backend.head().await.is_ok_and(|head| head.position.get() < wanted) {
            tokio::task::yield_now().await;
        }
        server.kill().await.unwrap();
        let (stored, error) = writer.await.unwrap();
        assert!(error.to_string().contains(name), "{error}");
        assert!(!stored.is_empty());
        acknowledged.extend(stored);
        server.start_again().await.unwrap();
        backend.reopen().await.unwrap();
        backend.verify().await.unwrap();
        let blocks = backend.blocks(Serial::ZERO, 1000).await.unwrap();
        for head in &acknowledged {
            let found = blocks.iter().find(|block| block.serial == head.serial).unwrap();
            assert_eq!((found.id, found.hash), (head.block, head.hash), "{head:?}");
        }
        acknowledged.push(store_next(&backend, 100 + round).await.unwrap());
    }
}

#[tokio::test]
async fn a_clock_that_is_fast_is_refused_and_others_go_on() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let (fast, right) = (open(options(server, name)).await, open(options(server, name)).await);
    let head = store_next(&right, 1).await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let ahead = i64::try_from(now.as_secs()).unwrap() + 600;
    let id = ghostwire_store_core::domain::BlockId::from_bytes([9; 16]);
    let dated = ghostwire_store_core::block::BlockBuilder::default()
        .finish(head.serial.next(), id, head.hash, Timestamp::from_secs(ahead).unwrap())
        .unwrap()
        .block;
    let error = fast.commit(&Commit { block: Some(dated), ..Commit::on(&head) }).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(
        error.to_string().contains("clock") && error.to_string().contains("ahead_ms"),
        "{error}"
    );
    assert_eq!(right.head().await.unwrap(), head);
    right.commit(&Commit { block: Some(block(&head, 2)), ..Commit::on(&head) }).await.unwrap();
}

/// A commit of many users, from this number on.
fn many(head: &Head, first: u32) -> Commit {
    let user = |number: u32| {
        let name = UserName::new(format!("user-{number}")).unwrap();
        let mut id = [0x77; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let time = Timestamp::from_secs(1_700_000_000).unwrap();
        let user = NewUser::local(name).created(UserId::from_bytes(id), time);
        let (table, kind) = (Table::Users, ChangeKind::Created);
        RowChange { table, kind, key: user.key(), body: Some(user.encode()) }
    };
    let rows = (first..first + 500).map(user);
    Commit { rows: rows.collect(), ..commit(head, 1) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_nothing_is_half_done() {
    let server = Options::new().disk_mib(128).start().await.unwrap();
    let database = server.database().await.unwrap();
    let backend = open(options(&server, database.name())).await;
    let mut head = store_next(&backend, 1).await.unwrap();
    server.fill_disk().await.unwrap();
    // What the server has set aside is used up first.
    let mut first = 0;
    let error = loop {
        match backend.commit(&many(&head, first)).await {
            Ok(()) => head = backend.head().await.unwrap(),
            Err(error) => break error,
        }
        first += 500;
        assert!(first < 1_000_000);
    };
    assert_eq!(*error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(error.to_string().contains("53100"), "{error}");
    assert_eq!(backend.reopen().await.unwrap(), head);
    server.free_disk().await.unwrap();
    backend.verify().await.unwrap();
    backend.commit(&many(&head, first)).await.unwrap();
    backend.verify().await.unwrap();
}
