//! Commands that a build may leave out.

#[cfg(not(all(feature = "bench", feature = "conformance")))]
use std::ffi::OsString;
#[cfg(any(feature = "bench", feature = "conformance"))]
use std::path::PathBuf;

use clap::Args;

/// Whatever is given to a command that this build leaves out.
#[cfg(not(all(feature = "bench", feature = "conformance")))]
#[derive(Debug, Args)]
pub(crate) struct NotBuiltArgs {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<OsString>,
}

#[cfg(not(feature = "conformance"))]
pub(crate) type ConformanceArgs = NotBuiltArgs;
#[cfg(not(feature = "bench"))]
pub(crate) type BenchArgs = NotBuiltArgs;

#[cfg(feature = "conformance")]
#[derive(Debug, Args)]
pub(crate) struct ConformanceArgs {
    /// Run only what has this in its name, such as a rule of the contract.
    pub(crate) filter: Option<String>,
    /// Write the results as a page, too: every case on every layer and in every mode.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Replace the page if there is one.
    #[arg(long, requires = "html")]
    pub(crate) force: bool,
    /// Only say which case proves which line of the contract.
    #[arg(long, conflicts_with_all = ["html", "sequences", "kills", "seed"])]
    pub(crate) list: bool,
    /// Compare this many random sequences of calls with the model.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) sequences: Option<u32>,
    /// Kill this many processes.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) kills: Option<u32>,
    /// Where random choices begin.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
}

/// Every subject holds the same data, does the same work and, but for `memory`, is as durable. In
/// each round each subject runs each case once; the table has the medians of the rounds, their
/// range, and how many times as many operations a second as the `libsql` crate called directly.
/// docs/benchmarks.md says what each subject does, and what is not equal.
#[cfg(feature = "bench")]
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// With --json: write the results to this file, and print the table all the same.
    #[arg(value_name = "FILE")]
    pub(crate) results: Option<PathBuf>,
    /// Under a minute, with small sizes: whether everything works. The figures mean little.
    #[arg(long, conflicts_with = "full")]
    pub(crate) quick: bool,
    /// All sizes (a million nodes, ten million points) and numbers of callers: a quarter of an
    /// hour, and 4 GB of memory and of disk. Without --quick and --full it takes a few minutes.
    #[arg(long)]
    pub(crate) full: bool,
    /// Only this subject: zqlite, zqlite-sealed, zqlite-pinned, zqlite-pinned-elsewhere,
    /// libsql-checkpoint, libsql-commit, memory, libsql-crate, libsql-crate-batched; with a server
    /// postgres, sqlx-postgres-16, sqlx-postgres-1; and those of --others; may be repeated.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) subject: Vec<String>,
    /// Only this operation, such as register or node-by-id; may be repeated.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = operation)]
    pub(crate) operation: Vec<ghostwire_store_bench_workload::Operation>,
    /// So many callers at once for durable writes; may be repeated. [default: 1, 256, 2048]
    #[arg(long, value_name = "NUMBER", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) callers: Vec<u32>,
    /// How often each subject runs each case. [default: 3, with --quick 1]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) rounds: Option<u32>,
    /// How long each run takes at least.
    #[arg(long, value_name = "NUMBER", value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
    /// The directory below which files are made, and so the disk that is measured [default:
    /// $GHOSTWIRE_BENCH_DIR, else the directory for temporary files].
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) dir: Option<PathBuf>,
    /// Write a page with charts, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Replace these files if they are there.
    #[arg(long)]
    pub(crate) force: bool,
    /// Also measure rusqlite, sqlx, redb and fjall, with this program: the one that
    /// `cargo build --release` makes in benches/others.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) others: Option<PathBuf>,
    /// Also measure the store on this PostgreSQL server, and the sqlx crate beside it. It is one on
    /// this machine, named as postgres://USER:PASSWORD@HOST:PORT by a user that may make
    /// databases. A password is better named by the variable, since others can see the command
    /// line. Needs the Cargo feature `postgres`. [default: $GHOSTWIRE_TEST_POSTGRES_URL]
    #[arg(long, value_name = "URL")]
    pub(crate) postgres: Option<String>,
}

#[cfg(feature = "bench")]
fn operation(name: &str) -> Result<ghostwire_store_bench_workload::Operation, String> {
    name.parse()
}

#[cfg(feature = "bench")]
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.01..=3_600.0).contains(seconds));
    seconds.ok_or_else(|| "it is a number of seconds, 0.01 to 3600".to_owned())
}
