use ghostwire_postgres_server::Server as TestServer;
use ghostwire_store_bench_workload::subject::Result;
use ghostwire_store_bench_workload::transcript::compare;

use super::*;

fn url(server: &TestServer) -> String {
    let password = server.password().replace(' ', "%20");
    format!("postgres://{}:{password}@{}:{}", server.user(), server.host(), server.port())
}

/// The first candidate is what the others are compared with.
#[tokio::test(flavor = "multi_thread")]
async fn every_subject_on_a_server_stores_and_answers_as_zqlite_does() -> Result<()> {
    let test_server = TestServer::shared().await?;
    let server = Server::start(&url(test_server)).await?;
    let zqlite = crate::candidates().into_iter().next();
    let all: Vec<_> = zqlite.into_iter().chain(candidates(&server)).collect();
    assert_eq!(all.len(), 4);
    let compared = compare(&all).await;
    server.end().await?;
    compared
}

/// How long that took is for the report.
#[tokio::test(flavor = "multi_thread")]
async fn what_two_stores_commit_in_turn_arrives_and_is_told() -> Result<()> {
    let test_server = TestServer::shared().await?;
    let server = Server::start(&url(test_server)).await?;
    let scratch = tempfile::tempdir()?;
    let found = measure_following(&server, 1, scratch.path()).await;
    server.end().await?;
    let found = found?;
    assert_eq!(found.commits, 200);
    assert!(found.p50_us.median > 0.0 && found.p50_us.median <= found.p99_us.median, "{found:?}");
    Ok(())
}

#[tokio::test]
async fn a_url_that_will_not_do_is_refused_and_never_shown() {
    for url in ["hunter2", "postgres://me:hunter2@a,b", "postgres://me:hunter2@db.example"] {
        let error = Server::start(url).await.map(drop).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| !error.contains("hunter2")), "{url}");
    }
}
