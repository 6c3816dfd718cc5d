//! What telemetry costs: registrations and reads with everything on (metrics, log, one trace of a hundred, a
//! collector, a scrape a second) beside the same with nothing, in alternating runs of one process.
//!
//! `cargo bench -p ghostwire-store-benches --bench telemetry`, with `-- --quick` to see that it works, and with
//! `-- --without traces` (`log`, `export`, `scrapes`) to see what a part of it costs.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ghostwire_store::Store;
use ghostwire_store::command::Restore;
use ghostwire_store::domain::NewUser;
use ghostwire_store_benches::{StateFixture, Target, open_with, registration};
use ghostwire_store_telemetry::logs::{self, LogOptions};
use ghostwire_store_telemetry::{Options, Telemetry};
use tokio::runtime::Builder;

const CALLERS: u64 = 256;

/// How much of what is measured.
struct Plan {
    pairs: usize,
    registrations: u64,
    nodes: u64,
    reads: u64,
    without: Vec<String>,
}

impl Plan {
    fn has(&self, part: &str) -> bool {
        !self.without.iter().any(|left_out| left_out == part)
    }
}

const FULL: Plan =
    Plan { pairs: 15, registrations: 60_000, nodes: 10_000, reads: 1_000_000, without: Vec::new() };
const QUICK: Plan =
    Plan { pairs: 2, registrations: 512, nodes: 100, reads: 1_000, without: Vec::new() };

/// Takes whatever it is sent, and answers that all is well.
fn collector() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 20];
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = connection.set_read_timeout(Some(Duration::from_millis(50)));
                while connection.read(&mut buffer).is_ok_and(|count| count > 0) {}
                let _ = connection.write_all(answer);
            });
        }
    });
    endpoint
}

/// Does `work` with everything on, or with nothing.
fn measured<T>(
    plan: &Plan,
    endpoint: Option<&str>,
    work: impl FnOnce(Option<&Telemetry>) -> T,
) -> T {
    let Some(endpoint) = endpoint else {
        // Nothing remembers the subscriber of the run before.
        tracing::callsite::rebuild_interest_cache();
        return work(None);
    };
    let options = Options {
        endpoint: plan.has("export").then(|| endpoint.to_owned()),
        sampled: if plan.has("traces") { Options::default().sampled } else { 0.0 },
        interval: Duration::from_secs(1),
        ..Options::default()
    };
    let telemetry = Telemetry::start(options).unwrap();
    let log = LogOptions::default();
    let (dispatch, _) = logs::dispatch(&log, Some(&telemetry), std::io::sink).unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let (scraped, until) = (telemetry.clone(), ended.clone());
    let scrapes = plan.has("scrapes");
    let scraper = std::thread::spawn(move || {
        while scrapes && !until.load(Ordering::Relaxed) {
            black_box(scraped.text());
            std::thread::park_timeout(Duration::from_secs(1));
        }
    });
    let done = match plan.has("log") {
        true => tracing::dispatcher::with_default(&dispatch, || work(Some(&telemetry))),
        false => work(Some(&telemetry)),
    };
    ended.store(true, Ordering::Relaxed);
    scraper.thread().unpark();
    scraper.join().unwrap();
    let _ = telemetry.shutdown(Duration::from_millis(100));
    done
}

async fn open(target: Target, path: &Path, telemetry: Option<&Telemetry>) -> Arc<dyn Store> {
    let recorder = telemetry.map(|telemetry| telemetry.recorder("main"));
    open_with(target, path, recorder).await.unwrap()
}

/// What one operation took.
#[derive(Clone, Copy)]
struct Cost {
    /// By the clock, in nanoseconds.
    time: f64,
    /// Of processors, those of every thread together.
    processor: f64,
}

/// Measures from its making on.
struct Stopwatch(Instant, Duration);

impl Stopwatch {
    fn start() -> Self {
        Self(Instant::now(), processor_time())
    }

    fn of(&self, operations: u64) -> Cost {
        let each = |took: Duration| took.as_nanos() as f64 / operations as f64;
        Cost { time: each(self.0.elapsed()), processor: each(processor_time() - self.1) }
    }
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap())
}

/// A registration, in an empty store.
fn register(target: Target, plan: &Plan, telemetry: Option<&Telemetry>) -> Cost {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(target, &directory.path().join("store"), telemetry).await;
        let alice = NewUser::local("alice".parse().unwrap());
        let user = store.users().create(alice).await.unwrap().id;
        let next = Arc::new(AtomicU64::new(0));
        let count = plan.registrations;
        let watch = Stopwatch::start();
        let tasks = tokio::task::LocalSet::new();
        for _ in 0..CALLERS {
            let (store, next) = (store.clone(), next.clone());
            tasks.spawn_local(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    store.nodes().register(registration(user, number).unwrap()).await.unwrap();
                }
            });
        }
        tasks.await;
        let cost = watch.of(count);
        store.close().await.unwrap();
        cost
    })
}

/// A read by id.
fn read(plan: &Plan, telemetry: Option<&Telemetry>) -> Cost {
    let fixture = StateFixture::with_nodes(plan.nodes).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(Target::Memory, Path::new(""), telemetry).await;
        let restore = Restore { images: fixture.images(), skip_invalid: false };
        store.restore(restore).await.unwrap();
        let ids: Vec<_> = fixture.nodes.iter().map(|node| node.id).collect();
        let watch = Stopwatch::start();
        for id in ids.iter().cycle().step_by(7).take(plan.reads as usize) {
            black_box(store.nodes().get(*id).await.unwrap());
        }
        let cost = watch.of(plan.reads);
        store.close().await.unwrap();
        cost
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Runs that take turns, without and with telemetry.
fn compare(plan: &Plan, endpoint: &str, run: impl Fn(Option<&Telemetry>) -> Cost) -> String {
    let mut costs = Vec::new();
    for pair in 0..plan.pairs {
        let without = || measured(plan, None, &run);
        let with = || measured(plan, Some(endpoint), &run);
        costs.push(if pair % 2 == 0 {
            let a = without();
            (a, with())
        } else {
            let b = with();
            (without(), b)
        });
    }
    let row = |of: fn(Cost) -> f64| {
        let off = median(costs.iter().map(|(off, _)| of(*off)).collect());
        let on = median(costs.iter().map(|(_, on)| of(*on)).collect());
        let ratio = median(costs.iter().map(|(off, on)| of(*on) / of(*off)).collect());
        format!("{off:.0} ns | {on:.0} ns | {:+.1} %", (ratio - 1.0) * 100.0)
    };
    format!("{} | {}", row(|cost| cost.time), row(|cost| cost.processor))
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mut plan =
        if arguments.iter().any(|argument| argument == "--quick") { QUICK } else { FULL };
    let named = arguments.iter().skip_while(|argument| *argument != "--without").skip(1);
    plan.without = named.cloned().collect();
    let endpoint = collector();
    println!(
        "| operation | time, nothing | everything | more | processors, nothing | everything | more |"
    );
    println!("|---|---|---|---|---|---|---|");
    let targets = [
        ("register, memory", Target::Memory),
        ("register, zqlite", Target::Zqlite),
        ("register, libsql", Target::LibsqlCommit),
    ];
    for (name, target) in targets {
        let run = |telemetry: Option<&Telemetry>| register(target, &plan, telemetry);
        println!("| {name}, {CALLERS} callers | {} |", compare(&plan, &endpoint, run));
    }
    let run = |telemetry: Option<&Telemetry>| read(&plan, telemetry);
    println!("| node by id | {} |", compare(&plan, &endpoint, run));
}
