//! Measures databases that cannot be linked into one binary with the `libsql` crate. `gwstore bench
//! --others` calls it; by hand it works, too.

mod fjall_crate;
mod keyed;
mod redb_crate;
mod rusqlite_crate;
mod sqlx_crate;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ghostwire_store_bench_workload::direct::{Direct, Engine};
use ghostwire_store_bench_workload::results::Case;
use ghostwire_store_bench_workload::subject::{About, Candidate, Result};
use ghostwire_store_bench_workload::{Content, Operation, nearest, run_once};

/// As the benchmarks of the store itself.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static MIMALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ALLOCATOR: &str = if cfg!(feature = "mimalloc") { "mimalloc" } else { "the system's" };

/// SQLite reads on two connections of their own, the others from any thread.
const READERS: usize = 2;

/// Measures rusqlite, sqlx, redb and fjall as `gwstore bench` measures this store.
#[derive(Debug, Parser)]
#[command(name = "ghostwire-bench-others", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say who can be measured, as JSON.
    List,
    /// Measure one once, and print what it came to as one line of JSON.
    Run(RunArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Who is measured, as `list` names it.
    #[arg(long)]
    subject: String,
    /// What is done, such as register or node-by-id.
    #[arg(long)]
    operation: Operation,
    /// By how many callers at once; for reads, on how many threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    callers: u32,
    /// How long, at least.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Below which directory files are made.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
    /// How many nodes there are before, each with its presence.
    #[arg(long, default_value_t = 0)]
    nodes: u64,
    /// How many routes.
    #[arg(long, default_value_t = 0)]
    routes: u32,
    /// How many rules the policy has.
    #[arg(long, default_value_t = 0)]
    rules: u32,
    /// How many API keys.
    #[arg(long, default_value_t = 0)]
    api_keys: u64,
    /// How many pre-auth keys; a registration uses one up.
    #[arg(long, default_value_t = 0)]
    preauth_keys: u64,
    /// How many points of a metric.
    #[arg(long, default_value_t = 0)]
    points: u64,
    /// How many audit lines.
    #[arg(long, default_value_t = 0)]
    audit: u64,
}

/// One on an engine that `open` opens: with a transaction for each write, or with shared ones.
fn of<E, F>(
    (name, backend): (&str, &str),
    shares: bool,
    open: impl Fn(PathBuf) -> F + Send + Sync + Copy + 'static,
) -> Candidate
where
    E: Engine,
    F: Future<Output = Result<E>> + Send + 'static,
{
    let about = About {
        name: if shares { format!("{name}-batched") } else { name.to_owned() },
        backend: backend.to_owned(),
        materialize: "-".to_owned(),
        durability: if shares { "fsync each batch" } else { "fsync each write" }.to_owned(),
        shares_commits: shares,
        allocator: ALLOCATOR.to_owned(),
    };
    Candidate::new(about, move |directory| async move {
        let engine = open(directory).await?;
        if shares { Direct::batched(engine).await } else { Direct::alone(engine).await }
    })
}

fn candidates() -> Vec<Candidate> {
    let of_sharing =
        |shares| {
            [
                of(("rusqlite", "rusqlite 0.39"), shares, |directory| async move {
                    rusqlite_crate::open(&directory, READERS).await
                }),
                of(("sqlx", "sqlx 0.9 sqlite"), shares, |directory| async move {
                    sqlx_crate::open(&directory, READERS).await
                }),
                of(("redb", "redb 4.6"), shares, |directory| async move {
                    redb_crate::open(&directory)
                }),
                of(("fjall", "fjall 3.1"), shares, |directory| async move {
                    fjall_crate::open(&directory)
                }),
            ]
        };
    [false, true].into_iter().flat_map(of_sharing).collect()
}

fn known(name: &str) -> Result<Candidate> {
    let all = candidates();
    let names = all.iter().map(|one| one.about.name.as_str());
    let meant = nearest(name, names).unwrap_or_default().to_owned();
    let found = all.into_iter().find(|one| one.about.name == name);
    Ok(found.ok_or_else(|| format!("there is no subject {name:?}; did you mean {meant:?}?"))?)
}

fn case(args: &RunArgs) -> Case {
    Case {
        operation: args.operation,
        callers: args.callers as usize,
        content: Content {
            nodes: args.nodes,
            routes: args.routes,
            rules: args.rules,
            api_keys: args.api_keys,
            preauth_keys: args.preauth_keys,
            points: args.points,
            audit: args.audit,
        },
        seconds: args.seconds,
        checkpoints: 0,
    }
}

async fn said(command: Command) -> Result<String> {
    Ok(match command {
        Command::List => {
            let all: Vec<About> = candidates().into_iter().map(|one| one.about).collect();
            serde_json::to_string(&all)?
        }
        Command::Run(args) => {
            let candidate = known(&args.subject)?;
            serde_json::to_string(&run_once(&candidate, &case(&args), &args.directory).await?)?
        }
    })
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(said(cli.command)),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests;
