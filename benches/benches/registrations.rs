//! Durable node registrations by many callers at once, beside the bare libsql crate.
//!
//! `cargo bench -p ghostwire-store-benches --bench registrations -- [--quick] [--callers 256]
//! [--rounds 3] [--seconds 5] [--only "zqlite, checkpoint"] [--json FILE]`; `GHOSTWIRE_BENCH_DIR`
//! says on which disk.
//!
//! All stores run in this process, one after the other, in rounds. A store's run is counted from
//! the completion of one checkpoint to that of a later one, at least three further on, at which no
//! more rows wait to be folded than at the first: work that is put off is not counted as done.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ghostwire_store::domain::{NewUser, Node, UserId};
use ghostwire_store::schema::Record;
use ghostwire_store::store::StoreInfo;
use ghostwire_store::{Result, Store};
use ghostwire_store_benches::{
    Spread, Target, World, cpu_model, fdatasync, files_in, kernel, open, registration, scratch,
    thread_cpu,
};
use tokio::sync::Mutex;

const RAW: &str = "bare libsql crate";

#[derive(Debug, Clone)]
struct Settings {
    callers: usize,
    rounds: usize,
    least: Duration,
    checkpoints: u64,
    only: Option<String>,
    json: Option<String>,
}

impl Settings {
    fn from_arguments() -> Self {
        let mut settings = Self {
            callers: 256,
            rounds: 3,
            least: Duration::from_secs(5),
            checkpoints: 3,
            only: None,
            json: None,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap();
            match argument.as_str() {
                "--quick" => {
                    (settings.rounds, settings.least) = (1, Duration::from_millis(500));
                    settings.checkpoints = 1;
                }
                "--callers" => settings.callers = value().parse().unwrap(),
                "--rounds" => settings.rounds = value().parse().unwrap(),
                "--seconds" => settings.least = Duration::from_secs_f64(value().parse().unwrap()),
                "--only" => settings.only = Some(value()),
                "--json" => settings.json = Some(value()),
                _ => {}
            }
        }
        settings
    }
}

/// What one run came to.
#[derive(Debug, Clone, Default)]
struct Run {
    seconds: f64,
    registrations: u64,
    checkpoints: u64,
    debt_before: u64,
    debt_after: u64,
    groups: u64,
    writer_cpu: Duration,
    callers_cpu: Duration,
    bytes: u64,
    median_latency: Duration,
    p99_latency: Duration,
}

impl Run {
    fn rate(&self) -> f64 {
        self.registrations as f64 / self.seconds
    }
}

/// A reading of the counters at one moment.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    registrations: u64,
    groups: u64,
    checkpoints: u64,
    debt: u64,
    writer_cpu: Duration,
    callers_cpu: Duration,
}

/// What the callers have in common.
#[derive(Debug, Default)]
struct Callers {
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

impl Callers {
    fn running(&self) -> Option<u64> {
        let running = !self.stop.load(Ordering::Relaxed);
        running.then(|| self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Lets `callers` tasks register nodes until `watch` returns.
async fn drive<C, F>(
    callers: usize,
    common: &Arc<Callers>,
    call: C,
    watch: impl Future<Output = (Reading, Reading)>,
) -> (Reading, Reading, Vec<Duration>)
where
    C: Fn(u64) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (common, call) = (common.clone(), call.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while let Some(number) = common.running() {
                    let began = Instant::now();
                    call(number).await;
                    latencies.push(began.elapsed());
                    common.done.fetch_add(1, Ordering::Relaxed);
                }
                latencies
            })
        })
        .collect();
    let (first, last) = watch.await;
    common.stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    latencies.sort_unstable();
    (first, last, latencies)
}

fn finish((first, last, latencies): (Reading, Reading, Vec<Duration>), directory: &Path) -> Run {
    let percentile = |of: usize| latencies.get(latencies.len() * of / 100).copied();
    Run {
        seconds: (last.at - first.at).as_secs_f64(),
        registrations: last.registrations - first.registrations,
        checkpoints: last.checkpoints - first.checkpoints,
        debt_before: first.debt,
        debt_after: last.debt,
        groups: last.groups - first.groups,
        writer_cpu: last.writer_cpu - first.writer_cpu,
        callers_cpu: last.callers_cpu - first.callers_cpu,
        bytes: files_in(directory),
        median_latency: percentile(50).unwrap_or_default(),
        p99_latency: percentile(99).unwrap_or_default(),
    }
}

async fn of_store(target: Target, settings: &Settings) -> Result<Run> {
    let directory = scratch().unwrap();
    let store = open(target, &directory.path().join("store.db")).await?;
    let mut users = Vec::new();
    for number in 0..100 {
        let user = NewUser::local(format!("user-{number}").parse()?);
        users.push(store.users().create(user).await?.id);
    }
    let users: Arc<[UserId]> = users.into();
    let common = Arc::new(Callers::default());
    let register = {
        let store = store.clone();
        move |number: u64| {
            let store = store.clone();
            let user = users[(number % 100) as usize];
            async move {
                let registration = registration(user, number).unwrap();
                store.nodes().register(registration).await.unwrap();
            }
        }
    };
    let watched = watch(target, store.as_ref(), &common, settings);
    let run = finish(drive(settings.callers, &common, register, watched).await, directory.path());
    store.close().await?;
    Ok(run)
}

/// From one completed checkpoint to another; a store that folds with every commit has no others.
async fn watch(
    target: Target,
    store: &dyn Store,
    common: &Callers,
    settings: &Settings,
) -> (Reading, Reading) {
    let checkpoints = |info: &StoreInfo| match target {
        Target::LibsqlCommit => info.groups,
        _ => info.checkpoints,
    };
    let read = || {
        let info = store.info();
        let (writer_cpu, callers_cpu) = thread_cpu("ghostwire-store");
        Reading {
            at: Instant::now(),
            registrations: common.done.load(Ordering::Relaxed),
            groups: info.groups,
            checkpoints: checkpoints(&info),
            debt: info.fold_debt,
            writer_cpu,
            callers_cpu,
        }
    };
    // A store that folds with every commit is warm after a while, the others after a checkpoint.
    let started = read();
    let warm = settings.least.min(Duration::from_secs(1));
    let mut first = None;
    let mut seen = started.checkpoints;
    loop {
        tokio::time::sleep(Duration::from_micros(500)).await;
        let completed = checkpoints(&store.info());
        if completed == seen {
            continue;
        }
        seen = completed;
        let now = read();
        match first {
            None if now.at - started.at >= warm => first = Some(now),
            None => {}
            Some(first) => {
                let enough = now.at - first.at >= settings.least
                    && now.checkpoints >= first.checkpoints + settings.checkpoints
                    && now.debt <= first.debt;
                if enough || now.at - first.at > Duration::from_secs(60) {
                    return (first, now);
                }
            }
        }
    }
}

/// What a schema by hand would have: the same columns, and an index for each uniqueness.
const TABLE: &str = "CREATE TABLE nodes (
    id BLOB NOT NULL PRIMARY KEY,
    user BLOB, tags TEXT NOT NULL, hostname TEXT NOT NULL,
    label TEXT NOT NULL UNIQUE,
    machine_key BLOB NOT NULL UNIQUE,
    node_key BLOB NOT NULL UNIQUE,
    disco_key BLOB,
    ipv4 TEXT UNIQUE,
    ipv6 TEXT UNIQUE,
    host_info TEXT NOT NULL, register_method TEXT NOT NULL, preauth_key BLOB,
    ephemeral INTEGER NOT NULL, expires_at INTEGER, created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL, revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID";

const INSERT: &str =
    "INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

fn values(node: &Node) -> Vec<libsql::Value> {
    use libsql::Value;
    let blob = |bytes: &[u8]| Value::Blob(bytes.to_vec());
    let text = |text: &dyn std::fmt::Display| Value::Text(text.to_string());
    vec![
        blob(node.id.as_bytes()),
        node.user.map_or(Value::Null, |user| blob(user.as_bytes())),
        Value::Text("[]".to_owned()),
        text(&node.hostname),
        text(&node.label),
        blob(node.machine_key.as_bytes()),
        blob(node.node_key.as_bytes()),
        node.disco_key.map_or(Value::Null, |key| blob(key.as_bytes())),
        node.ipv4.map_or(Value::Null, |address| text(&address)),
        node.ipv6.map_or(Value::Null, |address| text(&address)),
        text(&node.host_info),
        Value::Text("oidc".to_owned()),
        Value::Null,
        Value::Integer(0),
        node.expires_at.map_or(Value::Null, |at| Value::Integer(at.as_micros())),
        Value::Integer(node.created_at.as_micros()),
        Value::Integer(node.updated_at.as_micros()),
        Value::Integer(1),
    ]
}

/// One durable INSERT for each call, over one connection, with a prepared statement.
async fn of_raw(settings: &Settings, nodes: &Arc<[Arc<Node>]>) -> Run {
    let directory = scratch().unwrap();
    let path = directory.path().join("raw.db");
    let database = libsql::Builder::new_local(&path).build().await.unwrap();
    let connection = database.connect().unwrap();
    for pragma in ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"] {
        connection.query(pragma, ()).await.unwrap().next().await.unwrap();
    }
    let mut modes = connection.query("PRAGMA synchronous", ()).await.unwrap();
    assert_eq!(modes.next().await.unwrap().unwrap().get::<i64>(0).unwrap(), 2);
    let mut modes = connection.query("PRAGMA journal_mode", ()).await.unwrap();
    assert_eq!(modes.next().await.unwrap().unwrap().get::<String>(0).unwrap(), "wal");
    drop(modes);
    connection.execute(TABLE, ()).await.unwrap();
    let statement = connection.prepare(INSERT).await.unwrap();
    let statement = Arc::new(Mutex::new(statement));
    let common = Arc::new(Callers::default());
    let insert = {
        let nodes = nodes.clone();
        move |number: u64| {
            let (nodes, statement) = (nodes.clone(), statement.clone());
            async move {
                let values = values(&nodes[number as usize]);
                let statement = statement.lock().await;
                statement.execute(values).await.unwrap();
                statement.reset();
            }
        }
    };
    let watched = async {
        let read = || Reading {
            at: Instant::now(),
            registrations: common.done.load(Ordering::Relaxed),
            groups: common.done.load(Ordering::Relaxed),
            checkpoints: 0,
            debt: 0,
            writer_cpu: Duration::ZERO,
            callers_cpu: thread_cpu("ghostwire-store").1,
        };
        tokio::time::sleep(settings.least.min(Duration::from_secs(1))).await;
        let first = read();
        tokio::time::sleep(settings.least).await;
        (first, read())
    };
    finish(drive(settings.callers, &common, insert, watched).await, directory.path())
}

async fn measure(settings: Settings) -> Result<()> {
    let wanted = |name: &str| settings.only.as_deref().is_none_or(|only| only == name);
    // More than the bare crate can insert in the time.
    let world = World::with_nodes(if wanted(RAW) { 400_000 } else { 0 })?;
    let nodes: Arc<[Arc<Node>]> = world.nodes.clone().into();
    drop(world);
    let bytes_of_row = nodes.first().map_or(0, |node| node.encode().len());
    let directory = scratch().unwrap();
    let mut syncs = Vec::new();
    let mut runs: Vec<(&'static str, Vec<Run>)> = vec![(RAW, Vec::new())];
    runs.extend(Target::DURABLE.map(|target| (target.name(), Vec::new())));
    runs.retain(|(name, _)| wanted(name));
    for _ in 0..settings.rounds {
        for (name, runs) in &mut runs {
            syncs.extend(fdatasync(directory.path(), 200).unwrap());
            runs.push(match Target::named(name) {
                Some(target) => of_store(target, &settings).await?,
                None => of_raw(&settings, &nodes).await,
            });
        }
    }
    let sync = Spread::of(syncs.iter().map(|time| time.as_secs_f64() * 1e6));
    report(&settings, &runs, sync, bytes_of_row);
    Ok(())
}

fn report(settings: &Settings, runs: &[(&'static str, Vec<Run>)], sync: Spread, row: usize) {
    println!("{}; {} processors; Linux {}", cpu_model(), processors(), kernel());
    println!(
        "4 KiB write and fdatasync: median {:.0} us ({:.0} to {:.0}); a node's row: {row} bytes",
        sync.median, sync.least, sync.most
    );
    println!(
        "{} callers, {} rounds, at least {:?} each\n",
        settings.callers, settings.rounds, settings.least
    );
    println!(
        "| store | registrations/s | range | ratio | range | checkpoints | debt before, after | group | writer CPU us | all CPU us | latency ms, median and p99 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let raw = runs.iter().find(|(name, _)| *name == RAW).map(|(_, runs)| runs.as_slice());
    let mut figures = Vec::new();
    for (name, runs) in runs {
        let rate = Spread::of(runs.iter().map(Run::rate));
        let ratios = raw
            .map(|raw| Spread::of(runs.iter().zip(raw).map(|(run, raw)| run.rate() / raw.rate())));
        let ratio = ratios.map_or_else(String::new, |ratio| format!("{:.1}", ratio.median));
        let ratio_range = ratios
            .map_or_else(String::new, |ratio| format!("{:.1} to {:.1}", ratio.least, ratio.most));
        let each = |figure: fn(&Run) -> f64| Spread::of(runs.iter().map(figure)).median;
        let per = |time: Duration, run: &Run| time.as_secs_f64() * 1e6 / run.registrations as f64;
        let writer = Spread::of(runs.iter().map(|run| per(run.writer_cpu, run))).median;
        let all =
            Spread::of(runs.iter().map(|run| per(run.writer_cpu + run.callers_cpu, run))).median;
        let checkpoints: Vec<String> = runs.iter().map(|run| run.checkpoints.to_string()).collect();
        let debts: Vec<String> =
            runs.iter().map(|run| format!("{}, {}", run.debt_before, run.debt_after)).collect();
        println!(
            "| {name} | {:.0} | {:.0} to {:.0} | {ratio} | {ratio_range} | {} | {} | {:.0} | {writer:.1} | {all:.1} | {:.1}, {:.1} |",
            rate.median,
            rate.least,
            rate.most,
            checkpoints.join(" "),
            debts.join("; "),
            each(|run| run.registrations as f64 / run.groups.max(1) as f64),
            each(|run| run.median_latency.as_secs_f64() * 1e3),
            each(|run| run.p99_latency.as_secs_f64() * 1e3),
        );
        figures.push(serde_json::json!({
            "store": name,
            "rate": { "median": rate.median, "least": rate.least, "most": rate.most },
            "ratio": ratios.map(|ratio| ratio.median),
            "writer_cpu_us": writer,
            "all_cpu_us": all,
            "runs": runs.iter().map(|run| serde_json::json!({
                "seconds": run.seconds,
                "registrations": run.registrations,
                "checkpoints": run.checkpoints,
                "debt_before": run.debt_before,
                "debt_after": run.debt_after,
                "groups": run.groups,
                "bytes_on_disk": run.bytes,
            })).collect::<Vec<_>>(),
        }));
    }
    let document = serde_json::json!({
        "callers": settings.callers,
        "processors": processors(),
        "cpu": cpu_model(),
        "kernel": kernel(),
        "fdatasync_us": { "median": sync.median, "least": sync.least, "most": sync.most },
        "stores": figures,
    });
    if let Some(path) = &settings.json {
        std::fs::write(path, format!("{document:#}\n")).unwrap();
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn main() {
    let settings = Settings::from_arguments();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::spawn(measure(settings)).await.unwrap() }).unwrap();
}
