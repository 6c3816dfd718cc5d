//! How long writes wait while their network moves from libsql to a sealed zqlite file.
//!
//! ```text
//! cargo run --release -p ghostwire-store-benches --example move_beside_writers -- [NODES] [HEARTBEATS A SECOND] [ROUNDS]
//! ```
//! 100,000 nodes, 1,000 heartbeats a second and 3 rounds, if nothing else is said. In each round the network is
//! first left alone, then copied, then followed; but for the last one the copy is thrown away after that. At the end
//! it is handed over and the source is left. The rounds tell what a copy costs from what the machine does by itself.

#![allow(clippy::print_stdout)]

mod beside;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use ghostwire_store::config::{BackendChoice, Config, LibsqlOptions, NamedStore, ZqliteOptions};
use ghostwire_store::migration::{Migrations, Stage};
use ghostwire_store::{ErrorKind, Opener, Result};
use ghostwire_store_benches::StateFixture;

use beside::{Beating, fill};

const BY: &str = "bench";

/// So long the network is left alone, or followed.
const QUIET: Duration = Duration::from_secs(10);

fn configuration(directory: &Path) -> Config {
    let secret_key_file = Some(directory.join("hash.key"));
    let source = LibsqlOptions { path: directory.join("source.db"), ..LibsqlOptions::default() };
    let target = ZqliteOptions { path: directory.join("target.db"), ..ZqliteOptions::default() };
    let target = NamedStore {
        backend: BackendChoice::Zqlite(target),
        secret_key_file: secret_key_file.clone(),
    };
    Config {
        backend: BackendChoice::Libsql(source),
        secret_key_file,
        other_stores: BTreeMap::from([("next".to_owned(), target)]),
        ..Config::default()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default: u64| arguments.next().map_or(Ok(default), |text| text.parse::<u64>());
    let (nodes, rate, rounds) = (number(100_000)?, number(1_000)?, number(3)?.max(1));
    let directory = tempfile::tempdir()?;
    let config = configuration(directory.path());
    let fixture = StateFixture::with_nodes(nodes)?;
    let store = Opener::new(&config).open().await?;
    fill(store.as_ref(), &fixture).await?;
    store.close().await?;
    let mut moving = config.clone();
    moving.migration.target = Some("next".to_owned());
    let (store, migrations) = Opener::new(&moving).open_movable().await?;
    let source = directory.path().join("source.db");
    let beating = Beating::of(&store, &source, &fixture, rate);
    drop(fixture);
    println!("libsql to zqlite, sealed; {nodes} nodes, {rate} heartbeats a second");
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        beating.beside("nothing", tokio::time::sleep(QUIET)).await?;
        beating.beside("copying", copied(&migrations)).await??;
        beating.beside("following", tokio::time::sleep(QUIET)).await?;
        if round < rounds {
            migrations.abort(BY).await?;
            discard_target(directory.path())?;
        }
    }
    let began = Instant::now();
    let stall = beating.beside("moving", handed_over(&migrations)).await??;
    println!(
        "  handed over in {:.2} s; nobody was served for {stall} ms of that",
        began.elapsed().as_secs_f64()
    );
    migrations.finish(BY).await?;
    store.verify().await?;
    store.close().await?;
    Ok(())
}

/// Starts a migration, and waits until the copy is complete.
async fn copied(migrations: &Migrations) -> Result<()> {
    const LOOKS_AGAIN: Duration = Duration::from_millis(50);
    let mut status = migrations.start(BY).await?;
    while status.stage != Stage::Mirror {
        tokio::time::sleep(LOOKS_AGAIN).await;
        status = migrations.status().await?;
    }
    Ok(())
}

/// Hands over, and gives how long nobody was served, in milliseconds. A busy disk may take it back a few times.
async fn handed_over(migrations: &Migrations) -> Result<u64> {
    const TRIES: usize = 20;
    const PAUSE: Duration = Duration::from_millis(100);
    let mut tries = 1;
    loop {
        match migrations.advance(BY).await {
            Ok(status) => return Ok(status.last_stall_ms.unwrap_or_default()),
            Err(error) if *error.kind() == ErrorKind::Busy && tries < TRIES => {
                println!("  taken back: {error}");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
        tries += 1;
    }
}

/// What an aborted migration leaves is of no use.
fn discard_target(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("target.db") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
