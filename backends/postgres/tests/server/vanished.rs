//! Who vanishes in the midst of a transaction, and what is asked of a server that will not answer.

use ghostwire_postgres_server::{Database, Direction, Server};
use ghostwire_store_core::backend::{Backend, Commit, HeadChange, KeyRange, RecordChange};
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::migration::{Record, Role};
use ghostwire_store_core::schema::Table;
use tokio::task::JoinHandle;

use crate::lost::Pair;
use crate::support::{block, commit, entry, open, options, shared_server};

/// Waits until something is so.
pub(crate) async fn until(server: &Server, database: &str, is_so: &str) {
    while server.sql(database, &format!("SELECT {is_so}")).await.unwrap()
        != [[Some("t".to_owned())]]
    {
        tokio::task::yield_now().await;
    }
}

/// Whether a session of a store is in this state.
fn store_is(what: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'ghostwire-store' \
         AND datname = current_database() AND {what})"
    )
}

/// Somebody else's transaction, which holds a lock until it is let go.
pub(crate) struct Held {
    server: &'static Server,
    database: String,
    holding: JoinHandle<()>,
}

impl Held {
    pub(crate) async fn by(server: &'static Server, database: &Database, lock: &str) -> Self {
        let name = database.name().to_owned();
        let (hold, of) = (format!("BEGIN; {lock}; SELECT pg_sleep(600)"), name.clone());
        let holding = tokio::spawn(async move { drop(server.sql(&of, &hold).await.unwrap_err()) });
        let sleeps = "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' \
                      AND datname = current_database())";
        until(server, &name, sleeps).await;
        Self { server, database: name, holding }
    }

    pub(crate) async fn let_go(self) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE wait_event = 'PgSleep' AND datname = current_database()";
        self.server.sql(&self.database, sql).await.unwrap();
        self.holding.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_vanishes_within_a_commit_does_not_keep_others_from_writing() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let pair = Pair::open(server, name).await;
    // With a prune it is a transaction of several statements, of which the first changes the head.
    let pruning = Commit { prune: vec![KeyRange::all(Table::Audit)], ..entry(&pair.head, 2) };
    let held = Held::by(server, &database, "LOCK TABLE ghostwire.audit").await;
    let sent = pair.send(pruning);
    until(server, name, &store_is("wait_event_type = 'Lock' AND query LIKE 'DELETE%'")).await;
    for direction in Direction::BOTH {
        pair.proxy.cut(direction).unwrap();
    }
    held.let_go().await;
    until(server, name, &store_is("state = 'idle in transaction'")).await;
    pair.near.commit(&commit(&pair.head, 3)).await.unwrap();
    assert_eq!(pair.near.head().await.unwrap().commit.as_bytes(), &[3; 16]);
    sent.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_vanishes_while_it_asks_does_not_keep_others_from_writing() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let pair = Pair::open(server, name).await;
    let row = "SELECT 1 FROM ghostwire.ghostwire_meta FOR UPDATE";
    let held = Held::by(server, &database, row).await;
    let far = pair.far.clone();
    let asking = tokio::spawn(async move { far.reopen().await });
    until(server, name, &store_is("wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE'")).await;
    for direction in Direction::BOTH {
        pair.proxy.cut(direction).unwrap();
    }
    held.let_go().await;
    // It has the lock, unless it has just given up waiting for it.
    until(server, name, &store_is("state LIKE 'idle in transaction%'")).await;
    pair.near.commit(&commit(&pair.head, 2)).await.unwrap();
    asking.abort();
}

/// A pair that connects as a role with no rights but those of the document.
async fn by_role(server: &'static Server, database: &Database) -> (Pair, String) {
    let name = database.name();
    let role = format!("{name}_runtime");
    open(options(server, name)).await.close().await.unwrap();
    for sql in [
        format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'"),
        format!("GRANT USAGE ON SCHEMA ghostwire TO {role}"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ghostwire TO {role}"),
    ] {
        server.sql(name, &sql).await.unwrap();
    }
    (Pair::open_as(server, name, (&role, "secret")).await, role)
}

async fn drop_role(server: &Server, database: &str, role: &str) {
    server.sql(database, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_asking_is_not_taken_for_one_of_the_commit() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let (mut pair, role) = by_role(server, &database).await;
    pair.prepare(commit, 2).await;
    pair.proxy.cut(Direction::ToClient).unwrap();
    let sent = pair.send(commit(&pair.head, 3));
    pair.until(pair.head.position.get() + 1).await;
    server
        .sql(name, &format!("REVOKE SELECT ON ghostwire.ghostwire_meta FROM {role}"))
        .await
        .unwrap();
    pair.proxy.reset().unwrap();
    pair.proxy.mend(Direction::ToClient).unwrap();
    let error = sent.await.unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert!(error.to_string().contains("42501"), "{error}");
    assert_eq!(pair.near.head().await.unwrap().commit.as_bytes(), &[3; 16], "it is stored");
    drop_role(server, name, &role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_arrived_and_is_refused_when_it_is_sent_again_is_refused() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let (mut pair, role) = by_role(server, &database).await;
    pair.prepare(commit, 2).await;
    let before = pair.proxy.counts().received(Direction::ToServer);
    pair.proxy.cut(Direction::ToServer).unwrap();
    let sent = pair.send(commit(&pair.head, 3));
    pair.proxy.until(|counts| counts.received(Direction::ToServer) > before).await.unwrap();
    server.sql(name, &format!("REVOKE INSERT ON ghostwire.users FROM {role}")).await.unwrap();
    pair.proxy.reset().unwrap();
    pair.proxy.mend(Direction::ToServer).unwrap();
    let error = sent.await.unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert_eq!(pair.near.head().await.unwrap(), pair.head);
    // What was sent first would find another head, and the next one knows it.
    let revision = "(SELECT revision FROM ghostwire.ghostwire_meta)";
    let found = server.sql(name, &format!("SELECT {revision}")).await.unwrap();
    let only_block = Commit { block: Some(block(&pair.head, 4)), ..Commit::on(&pair.head) };
    pair.far.commit(&only_block).await.unwrap();
    let after = server.sql(name, &format!("SELECT {revision} - 1")).await.unwrap();
    assert_eq!(found, after);
    assert_eq!(found, [[Some("4".to_owned())]], "made, two commits, and the refusal");
    drop_role(server, name, &role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_record_whose_answer_is_lost_is_found() {
    let (server, database) = shared_server().await;
    let pair = Pair::open(server, database.name()).await;
    let before = pair.head.record();
    let step = |after: Record, before: Record| {
        let record = Some(RecordChange { before, after });
        Commit { head: HeadChange { record, ..HeadChange::default() }, ..Commit::on(&pair.head) }
    };
    // One to prepare the statement.
    let alone = Record { role: Role::ActiveAlone, ..before };
    pair.far.commit(&step(alone, before)).await.unwrap();
    let retired = Record { role: Role::Retired, ..before };
    let revision = "(SELECT revision FROM ghostwire.ghostwire_meta)";
    let found = server.sql(database.name(), &format!("SELECT {revision}")).await.unwrap();
    let found = found[0][0].clone().unwrap();
    pair.proxy.cut(Direction::ToClient).unwrap();
    let sent = pair.send(step(retired, alone));
    until(server, database.name(), &format!("{revision} > {found}")).await;
    pair.proxy.reset().unwrap();
    pair.proxy.mend(Direction::ToClient).unwrap();
    sent.await.unwrap().unwrap();
    assert_eq!(pair.near.head().await.unwrap().record(), retired);
    // Of one that never arrived it is said that another came first.
    let error = pair.far.commit(&step(alone, alone)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
}
