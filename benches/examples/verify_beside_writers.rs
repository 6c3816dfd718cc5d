//! How long writes wait while `verify` and `digests` read everything, and how long SQLite's log gets.
//!
//! ```text
//! cargo run --release -p ghostwire-store-benches --example verify_beside_writers -- [NODES] [HEARTBEATS A SECOND] [STORE]
//! ```
//! 100,000 nodes and 1,000 heartbeats a second, if nothing else is said, on each store whose name contains
//! STORE. Each phase shows how many
//! heartbeats were answered, the median wait, the wait of 999 in 1,000, the longest, and the most bytes that the log had on disk.

#![allow(clippy::print_stdout)]

mod beside;

use std::error::Error;
use std::time::Duration;

use ghostwire_store::Result;
use ghostwire_store_benches::{StateFixture, Target, open};

use beside::{Beating, fill};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default: u64| arguments.next().map_or(Ok(default), |text| text.parse::<u64>());
    let (nodes, rate) = (number(100_000)?, number(1_000)?);
    let only = arguments.next().unwrap_or_default();
    let fixture = StateFixture::with_nodes(nodes)?;
    let targets =
        [Target::Zqlite, Target::ZqliteSealed, Target::LibsqlCheckpoint, Target::LibsqlCommit];
    for target in targets.into_iter().filter(|target| target.name().contains(&only)) {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("store.db");
        let store = open(target, &path).await?;
        fill(store.as_ref(), &fixture).await?;
        println!("{}, {nodes} nodes, {rate} heartbeats a second", target.name());
        let beating = Beating::of(&store, &path, &fixture, rate);
        beating.beside("nothing", tokio::time::sleep(Duration::from_secs(10))).await?;
        let verify = async { show("verify", store.verify().await) };
        beating.beside("verify", verify).await?;
        let digests = async { show("digests", store.digests().await.map(drop)) };
        beating.beside("digests", digests).await?;
        store.close().await?;
    }
    Ok(())
}

fn show(what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        println!("  {what} failed: {error}");
    }
}
