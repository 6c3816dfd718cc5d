//! How long what one control plane has committed takes to be in the view of another one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ghostwire_store::Store;
use ghostwire_store::domain::NewUser;
use ghostwire_store_bench_workload::machine::scratch;
use ghostwire_store_bench_workload::results::OfFollowing;
use ghostwire_store_bench_workload::subject::{Result, Subject};
use ghostwire_store_bench_workload::{Latencies, Spread};

use super::Server;
use crate::subjects::OfStore;

/// How many commits a round has.
const COMMITS: u64 = 200;

/// Two stores in one schema, by default options. Each commits in turn, once the other one has seen what was committed
/// before: what is measured is the way, and not the load.
pub(crate) async fn measure_following(
    server: &Server,
    rounds: usize,
    within: &Path,
) -> Result<OfFollowing> {
    let directory = scratch(within)?;
    let schema = server.new_schema();
    let open = || {
        let (config, directory) = (server.config(&schema), directory.path().to_owned());
        OfStore::on_server(config, directory, server.postmaster())
    };
    // One after the other: the first one makes the store.
    let one = open().await?;
    let other = open().await?;
    let mut quantiles = Vec::new();
    for round in 0..rounds {
        let mut took = Latencies::default();
        for number in 0..COMMITS {
            let (writer, follower) = if number % 2 == 0 { (&one, &other) } else { (&other, &one) };
            let name = format!("user-{round}-{number}");
            took.record(arrival(writer.store(), follower.store(), &name).await?);
        }
        quantiles.push((took.quantile(0.5), took.quantile(0.99)));
    }
    one.close().await?;
    other.close().await?;
    Ok(OfFollowing {
        commits: COMMITS,
        p50_us: Spread::of(quantiles.iter().filter_map(|(p50, _)| *p50)),
        p99_us: Spread::of(quantiles.iter().filter_map(|(_, p99)| *p99)),
    })
}

/// From the acknowledgement here to the view there.
async fn arrival(
    writer: &Arc<dyn Store>,
    follower: &Arc<dyn Store>,
    name: &str,
) -> Result<Duration> {
    let mut changes = follower.watch(follower.view().serial());
    let made = writer.users().create(NewUser::local(name.parse()?)).await?;
    let acknowledged = Instant::now();
    while follower.view().users().get(made.id).is_none() {
        let change = changes.next().await.ok_or("the store that follows has ended")?;
        change?;
    }
    Ok(acknowledged.elapsed())
}
