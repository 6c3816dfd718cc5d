//! What a write costs that two databases have to have, beside the same write on either of them alone.
//!
//! ```text
//! cargo run --release -p ghostwire-store-benches --example write_in_step -- [WRITES] [ROUNDS] [DIRECTORY]
//! ```
//! 200 writes of one caller, one after the other, and 10 rounds, in a temporary directory, if nothing else is said. A
//! round is a libsql file, a sealed zqlite file, and both in step, so that whatever the disk does meets all three.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ghostwire_store::config::{BackendChoice, Config, LibsqlOptions, NamedStore, ZqliteOptions};
use ghostwire_store::domain::NewUser;
use ghostwire_store::migration::Migrations;
use ghostwire_store::{Opener, Result, Store};
use ghostwire_store_bench_workload::Latencies;

fn libsql(path: PathBuf) -> BackendChoice {
    BackendChoice::Libsql(LibsqlOptions { path, ..LibsqlOptions::default() })
}

fn zqlite(path: PathBuf) -> BackendChoice {
    BackendChoice::Zqlite(ZqliteOptions { path, ..ZqliteOptions::default() })
}

async fn alone(backend: BackendChoice, key: &Path) -> Result<Arc<dyn Store>> {
    let secret_key_file = Some(key.to_owned());
    Opener::new(&Config { backend, secret_key_file, ..Config::default() }).open().await
}

/// A libsql file, and a zqlite file that has every write before it is answered.
async fn in_step(directory: &Path) -> Result<(Arc<dyn Store>, Migrations)> {
    const LOOKS_AGAIN: Duration = Duration::from_millis(20);
    let secret_key_file = Some(directory.join("both.key"));
    let source = libsql(directory.join("source.db"));
    let target = NamedStore {
        backend: zqlite(directory.join("target.db")),
        secret_key_file: secret_key_file.clone(),
    };
    let mut config = Config {
        backend: source,
        secret_key_file,
        other_stores: BTreeMap::from([("next".to_owned(), target)]),
        ..Config::default()
    };
    let store = Opener::new(&config).open().await?;
    // There is nothing to be moved otherwise.
    write(store.as_ref(), "first", 1, &mut Latencies::default()).await?;
    store.close().await?;
    config.migration.target = Some("next".to_owned());
    config.migration.synchronous = true;
    let (store, migrations) = Opener::new(&config).open_movable().await?;
    migrations.start("bench").await?;
    while !migrations.status().await?.in_step {
        tokio::time::sleep(LOOKS_AGAIN).await;
    }
    Ok((store, migrations))
}

/// Notes how long each of these writes took.
async fn write(store: &dyn Store, name: &str, writes: u32, took: &mut Latencies) -> Result<()> {
    for number in 0..writes {
        let user = NewUser::local(format!("{name}-{number}").parse()?);
        let began = Instant::now();
        store.users().create(user).await?;
        took.record(began.elapsed());
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u32| arguments.next().map_or(Ok(default), |text| text.parse());
    let (writes, rounds) = (number(200)?, number(10)?);
    let directory = match arguments.next() {
        Some(directory) => tempfile::tempdir_in(directory)?,
        None => tempfile::tempdir()?,
    };
    let directory = directory.path();
    let (both, migrations) = in_step(directory).await?;
    let stores = [
        (
            "libsql alone",
            alone(libsql(directory.join("libsql.db")), &directory.join("one.key")).await?,
        ),
        (
            "zqlite alone",
            alone(zqlite(directory.join("zqlite.db")), &directory.join("two.key")).await?,
        ),
        ("both in step", both),
    ];
    let mut took = [(); 3].map(|()| Latencies::default());
    for round in 0..rounds {
        for ((_, store), took) in stores.iter().zip(&mut took) {
            write(store.as_ref(), &format!("round-{round}"), writes, took).await?;
        }
    }
    if !migrations.status().await?.in_step {
        return Err("they did not stay in step".into());
    }
    println!("{} writes each, one caller", writes * rounds);
    println!("{:<14}{:>10}{:>10}{:>10}", "", "median", "p99", "most");
    for ((name, _), took) in stores.iter().zip(&took) {
        let millis = |share| took.quantile(share).unwrap_or_default() / 1e3;
        println!(
            "{name:<14}{:>7.2} ms{:>7.2} ms{:>7.2} ms",
            millis(0.5),
            millis(0.99),
            millis(1.0)
        );
    }
    for (_, store) in stores {
        store.close().await?;
    }
    Ok(())
}
