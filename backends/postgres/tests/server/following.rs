//! Following what another process commits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ghostwire_postgres_server::{Direction, Proxy, Server};
use ghostwire_store_core::domain::NewUser;
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::{Store, open as open_store};
use ghostwire_store_postgres::PostgresOptions;

use crate::support::{open, options, shared_server};

const DAY: Duration = Duration::from_secs(86_400);

/// A store that looks by itself only so often.
async fn looking(options: PostgresOptions, every: Duration) -> Arc<dyn Store> {
    let looks = StoreOptions { max_view_age: 2 * every, ..StoreOptions::default() };
    open_store(Arc::new(open(options).await), looks).await.unwrap()
}

/// One writes, and the other one has it by itself. Tells how long that took.
async fn arrives(writer: &Arc<dyn Store>, follower: &Arc<dyn Store>, name: &str) -> Duration {
    let mut changes = follower.watch(follower.view().serial());
    let made = writer.users().create(NewUser::local(name.parse().unwrap())).await.unwrap();
    let since = Instant::now();
    while follower.view().users().get(made.id).is_none() {
        changes.next().await.unwrap().unwrap();
    }
    since.elapsed()
}

/// How many connections of stores there are to a database.
async fn connections(server: &Server, database: &str) -> Vec<Vec<Option<String>>> {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ghostwire-store' \
               AND datname = current_database()";
    server.sql(database, sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_heard_of_by_notification_alone() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let one = looking(options(server, name), DAY).await;
    let two = looking(options(server, name), DAY).await;
    let mut took = Vec::new();
    for number in 0..50 {
        took.push(arrives(&one, &two, &format!("one-{number}")).await);
        took.push(arrives(&two, &one, &format!("two-{number}")).await);
    }
    took.sort();
    println!("a commit arrives after {:?} in the median, {:?} at most", took[50], took[99]);
    // What others send there is not believed, and does no harm.
    for payload in ["", "18446744073709551615 18446744073709551615 x", "nonsense"] {
        let sql = format!("SELECT pg_notify('ghostwire_ghostwire', '{payload}')");
        server.sql(name, &sql).await.unwrap();
    }
    arrives(&one, &two, "last").await;
    assert_eq!(one.view().hash(), two.view().hash());
    // Nothing is left that listens.
    one.close().await.unwrap();
    two.close().await.unwrap();
    while connections(server, name).await != [[Some("0".to_owned())]] {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_notifications_a_commit_is_found_by_looking() {
    let (server, database) = shared_server().await;
    let quiet = || options(server, database.name()).notify(false);
    let one = looking(quiet(), DAY).await;
    let two = looking(quiet(), Duration::from_millis(100)).await;
    for number in 0..5 {
        arrives(&one, &two, &format!("user-{number}")).await;
    }
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%LISTEN%' \
               AND datname = current_database() AND pid <> pg_backend_pid()";
    assert_eq!(server.sql(database.name(), sql).await.unwrap(), [[Some("0".to_owned())]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_listened_and_was_lost_is_made_anew() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let proxy = Proxy::to(server.host(), server.port()).unwrap();
    let address = proxy.address();
    let listens = options(server, name).listen(address.ip().to_string(), address.port());
    let writer = looking(options(server, name), DAY).await;
    let follower = looking(listens, DAY).await;
    arrives(&writer, &follower, "before").await;
    for round in 0..3 {
        let accepted = proxy.counts().accepted;
        proxy.reset().unwrap();
        proxy.until(|counts| counts.accepted > accepted).await.unwrap();
        arrives(&writer, &follower, &format!("reset-{round}")).await;
        let accepted = proxy.counts().accepted;
        proxy.close().unwrap();
        // What is stored before it listens again is found, too.
        arrives(&writer, &follower, &format!("closed-{round}")).await;
        proxy.until(|counts| counts.accepted > accepted).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_says_nothing_is_noticed() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let proxy = Proxy::to(server.host(), server.port()).unwrap();
    let address = proxy.address();
    let listens = options(server, name).listen(address.ip().to_string(), address.port());
    let writer = looking(options(server, name), DAY).await;
    let follower = looking(listens, Duration::from_millis(100)).await;
    arrives(&writer, &follower, "before").await;
    let accepted = proxy.counts().accepted;
    for direction in Direction::BOTH {
        proxy.cut(direction).unwrap();
    }
    // It goes on looking, and tries to listen by another connection.
    arrives(&writer, &follower, "silent").await;
    proxy.until(|counts| counts.accepted > accepted).await.unwrap();
    for direction in Direction::BOTH {
        proxy.mend(direction).unwrap();
    }
    arrives(&writer, &follower, "mended").await;
}
