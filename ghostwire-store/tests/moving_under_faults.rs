//! A network that moves from one file to another and back, again and again, while it is written to, disks of either
//! side fail, and processes are killed: every answer holds, and both sides have the same.
//!
//! `GHOSTWIRE_MOVES` says how often it moves (4: two with a side that follows, two in step), `GHOSTWIRE_MOVE_KILLS` how
//! many processes are killed in each of these (1), `GHOSTWIRE_MOVE_SEED` where random choices begin (1).
#![cfg(all(feature = "libsql", feature = "zqlite", unix))]
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ghostwire_store::config::{BackendChoice, Config, LibsqlOptions, NamedStore, ZqliteOptions};
use ghostwire_store::domain::{
    Limit, MetricPoint, MetricQuery, NewUser, PageRequest, Sample, Timestamp, UserId,
};
use ghostwire_store::migration::{Migrations, Stage, Status, has_moved};
use ghostwire_store::{ErrorKind, Opener, Result, Store};
use ghostwire_store_conformance::{Disk as _, Fault};
use ghostwire_store_core::entropy::{Entropy as _, SeededEntropy};
use ghostwire_store_faulty_disk::FaultyDisk;
use tokio::time::sleep;

const JOB: &str = "GHOSTWIRE_MOVE_CHILD";
const BY: &str = "ops";
const WRITERS: usize = 3;
/// A process that runs for longer hangs.
const MOST: Duration = Duration::from_secs(600);
const FIRST_POINT: i64 = 1_700_000_000_000;

/// One process of a migration: which migration, which process of it, whether it ends it.
#[derive(Debug, Clone, Copy)]
struct Job {
    number: usize,
    round: usize,
    is_last: bool,
    seed: u64,
}

impl Job {
    fn rng(self, of: u64) -> Rng {
        let job = (self.number * 1_000 + self.round) as u64;
        Rng(SeededEntropy::new(self.seed ^ job << 32 ^ of << 24))
    }

    fn parse(text: &str) -> Self {
        let numbers: Vec<u64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
        let [number, round, is_last, seed] = numbers[..] else { panic!("{text}") };
        Self { number: number as usize, round: round as usize, is_last: is_last == 1, seed }
    }

    fn text(self) -> String {
        format!("{} {} {} {}", self.number, self.round, u8::from(self.is_last), self.seed)
    }
}

struct Rng(SeededEntropy);

impl Rng {
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes).unwrap();
        u64::from_be_bytes(bytes) % bound
    }

    fn millis(&self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound))
    }
}

/// The files of each side have a directory, and so a disk, of their own.
fn sides(directory: &Path) -> [PathBuf; 2] {
    ["libsql", "zqlite"].map(|side| directory.join(side))
}

fn backends(directory: &Path) -> [BackendChoice; 2] {
    let [libsql, zqlite] = sides(directory).map(|side| side.join("store.db"));
    [
        BackendChoice::Libsql(LibsqlOptions { path: libsql, ..LibsqlOptions::default() }),
        BackendChoice::Zqlite(ZqliteOptions { path: zqlite, ..ZqliteOptions::default() }),
    ]
}

/// Every other migration goes back, and every third and fourth keeps both sides in step.
fn config(directory: &Path, number: usize) -> Config {
    let [mut source, mut target] = backends(directory);
    if !number.is_multiple_of(2) {
        std::mem::swap(&mut source, &mut target);
    }
    let secret_key_file = Some(directory.join("key"));
    let target = NamedStore { backend: target, secret_key_file: secret_key_file.clone() };
    let mut config = Config {
        backend: source,
        secret_key_file,
        other_stores: BTreeMap::from([("next".to_owned(), target)]),
        ..Config::default()
    };
    config.migration.target = Some("next".to_owned());
    config.migration.copy_share = 100;
    config.migration.synchronous = !(number / 2).is_multiple_of(2);
    config.migration.mirror_timeout_ms = 2_000;
    // A disk that is slow is no reason not to hand over.
    config.migration.max_stall_ms = 1_000;
    config
}

/// The store that `number` migrations have led to, by itself.
fn alone(directory: &Path, number: usize) -> Config {
    let config = config(directory, number);
    Config { migration: Config::default().migration, ..config }
}

#[allow(clippy::print_stdout)]
fn tell(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "child: {what}").unwrap();
    out.flush().unwrap();
}

fn point(at: i64) -> MetricPoint {
    let at = Timestamp::from_millis(FIRST_POINT + at).unwrap();
    let value = Sample::new(1.0).unwrap();
    MetricPoint { node: None, metric: "load".parse().unwrap(), at, value }
}

/// Not a test: the process that moves the network, and is killed unless it is the last one.
#[test]
fn child() {
    let Some(job) = std::env::var_os(JOB) else { return };
    let (job, directory) = job.to_str().unwrap().split_once('\n').unwrap();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        ghostwire_store_libsql::prepare_process().await.unwrap();
        ghostwire_store_faulty_disk::install();
        let moving = move_on(Job::parse(job), Path::new(directory));
        tokio::time::timeout(MOST, moving).await.expect("it comes to its end");
    });
}

async fn move_on(job: Job, directory: &Path) {
    let sides = sides(directory);
    let disks = [FaultyDisk::under(&sides[0]).unwrap(), FaultyDisk::under(&sides[1]).unwrap()];
    let config = config(directory, job.number);
    let opener = Opener::new(&config).admin_socket_served(false);
    let (store, migrations) = opener.open_movable().await.unwrap();
    let ends = Arc::new(AtomicBool::new(false));
    let writing: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let first = ((job.number * 1_000 + job.round) * WRITERS + writer) * 1_000_000;
            tokio::spawn(write(store.clone(), first, ends.clone()))
        })
        .collect();
    if !job.is_last {
        let (of_disks, of_moves) = (job.rng(1), job.rng(2));
        tokio::join!(break_disks(sides, disks, of_disks), go_to_and_fro(&migrations, &of_moves));
    }
    serve_from(&migrations, Stage::TargetReads).await;
    ends.store(true, Ordering::Relaxed);
    for writer in writing {
        writer.await.unwrap();
    }
    let mut digests = Vec::new();
    for stage in [Stage::TargetReads, Stage::Mirror, Stage::TargetReads] {
        serve_from(&migrations, stage).await;
        while status(&migrations).await.is_none_or(|status| status.lag != Some(0)) {
            sleep(Duration::from_millis(5)).await;
        }
        store.verify().await.unwrap();
        let digest = store.digests().await.unwrap();
        digests.push(format!("{digest:?}"));
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:#?}");
    while let Err(error) = migrations.finish(BY).await {
        match has_moved(&error) {
            true => break,
            false => sleep(Duration::from_millis(5)).await,
        }
    }
    store.close().await.unwrap();
    tell("finished");
}

/// Makes users and records points, and deletes some of the users. Tells what is stored, what is not, and what may be.
async fn write(store: Arc<dyn Store>, first: usize, ends: Arc<AtomicBool>) {
    let mut users: Vec<(String, UserId)> = Vec::new();
    for number in first.. {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        // So that whoever follows can catch up.
        sleep(Duration::from_millis(2)).await;
        let name = format!("user-{number}");
        let created = store.users().create(NewUser::local(name.parse().unwrap())).await;
        if note(&created, &name, ["there", "gone"]).await
            && let Ok(user) = created
        {
            users.push((name, user.id));
        }
        let recorded = store.metrics().record(point(number as i64)).await;
        note(&recorded, &format!("point-{number}"), ["there", "gone"]).await;
        if number.is_multiple_of(5)
            && let Some((name, id)) = users.pop()
        {
            tell(&format!("unknown {name}"));
            let deleted = store.users().delete(id, false).await;
            note(&deleted, &name, ["gone", "there"]).await;
        }
    }
}

/// Tells what a call has made true: the first of `becomes` if it was carried out, the second one if it was refused.
async fn note<T>(called: &Result<T>, name: &str, becomes: [&str; 2]) -> bool {
    let is = match called.as_ref().map_err(|error| error.kind()) {
        Ok(_) => becomes[0],
        Err(ErrorKind::OutcomeUnknown) => "unknown",
        Err(_) => becomes[1],
    };
    tell(&format!("{is} {name}"));
    if called.is_err() {
        sleep(Duration::from_millis(2)).await;
    }
    called.is_ok()
}

/// One disk fails after the other, or the file on it is not there for a while.
async fn break_disks(sides: [PathBuf; 2], disks: [FaultyDisk; 2], rng: Rng) {
    loop {
        sleep(rng.millis(600)).await;
        let which = rng.below(2) as usize;
        let (side, disk) = (&sides[which], &disks[which]);
        let before = disk.met();
        let is_away = rng.below(12) == 0 && move_away(side);
        if !is_away {
            disk.fail(match rng.below(7) {
                0 => Fault::WritesFail(1 + rng.below(3) as usize),
                1 => Fault::WritesFail(usize::MAX),
                2 => Fault::SyncsFail(1 + rng.below(3) as usize),
                3 => Fault::SyncsFail(usize::MAX),
                4 => Fault::Full(rng.below(64 * 1024)),
                5 => Fault::TornWrite,
                _ => Fault::SlowSyncs(rng.millis(20)),
            });
        }
        sleep(rng.millis(if is_away || rng.below(8) == 0 { 1_000 } else { 80 })).await;
        disk.heal();
        put_back(side);
        if disk.met() > before {
            tell("met");
        }
        if is_away {
            tell("away");
        }
    }
}

fn move_away(side: &Path) -> bool {
    std::fs::rename(side.join("store.db"), side.join("away.db")).is_ok()
}

/// Puts a file back that was moved away, unless another one was made in its place.
fn put_back(side: &Path) {
    let (away, file) = (side.join("away.db"), side.join("store.db"));
    if away.exists() && !file.exists() {
        std::fs::rename(away, file).unwrap();
    }
}

/// There is room for three. Where a store is still to be made in place of the last one, that stays.
fn remove_superseded(side: &Path) {
    if !std::fs::metadata(side.join("store.db")).is_ok_and(|file| file.len() > 0) {
        return;
    }
    for entry in std::fs::read_dir(side).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().contains(".superseded-") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// Begins the migration, hands over, and back again, as often as it can.
async fn go_to_and_fro(migrations: &Migrations, rng: &Rng) {
    let mut fallbacks = 0;
    loop {
        // Now and then both stay as they are for long enough to be in step when something fails.
        sleep(rng.millis(if rng.below(4) == 0 { 2_000 } else { 60 })).await;
        let Some(status) = status(migrations).await else { continue };
        for _ in fallbacks..status.fallbacks {
            tell("fallback");
        }
        fallbacks = status.fallbacks;
        match status.stage {
            Stage::Mirror => turn(migrations, Stage::TargetReads).await,
            Stage::TargetReads => turn(migrations, Stage::Mirror).await,
            _ => {}
        }
    }
}

/// Where it stands; nothing while that cannot be told.
async fn status(migrations: &Migrations) -> Option<Status> {
    match migrations.status().await {
        Ok(status) => Some(status),
        Err(error) => {
            if *error.kind() == ErrorKind::NotFound {
                let _ = migrations.start(BY).await;
            }
            None
        }
    }
}

async fn turn(migrations: &Migrations, towards: Stage) {
    let turned = match towards {
        Stage::TargetReads => migrations.advance(BY).await,
        _ => migrations.back(BY).await,
    };
    if let Ok(status) = turned {
        tell(&format!("turn {}", status.last_stall_ms.unwrap_or_default()));
    }
}

/// Until the side of this stage is served.
async fn serve_from(migrations: &Migrations, stage: Stage) {
    loop {
        match status(migrations).await.map(|status| status.stage) {
            Some(reached) if reached == stage => return,
            Some(Stage::Mirror | Stage::TargetReads) => turn(migrations, stage).await,
            _ => {}
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// What processes have told.
#[derive(Debug, Default)]
struct Told {
    /// Whether users and points are stored, where that is known.
    is_there: BTreeMap<String, Option<bool>>,
    is_finished: bool,
    killed: usize,
    faults: usize,
    away: usize,
    fallbacks: usize,
    stalls: Vec<u64>,
}

impl Told {
    fn hear(&mut self, what: &str, job: Job) {
        match what.split_once(' ').unwrap_or((what, "")) {
            ("there", name) => drop(self.is_there.insert(name.to_owned(), Some(true))),
            ("gone", name) => drop(self.is_there.insert(name.to_owned(), Some(false))),
            ("unknown", name) => drop(self.is_there.insert(name.to_owned(), None)),
            // The last one always does.
            ("turn", _) if job.is_last => {}
            ("turn", stall) => self.stalls.push(stall.parse().unwrap()),
            ("fallback", _) => self.fallbacks += 1,
            ("met", _) => self.faults += 1,
            ("away", _) => self.away += 1,
            ("finished", _) => self.is_finished = true,
            _ => panic!("{what}"),
        }
    }

    /// Runs a process, and kills it a random time after it has told so much, unless it is the last one.
    fn run(&mut self, job: Job, directory: &Path) {
        let rng = job.rng(3);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(JOB, format!("{}\n{}", job.text(), directory.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let after = if job.is_last { u64::MAX } else { 1 + rng.below(6_000) };
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines = lines.map_while(std::result::Result::ok);
        let mut told = 0;
        for line in lines {
            let Some((_, what)) = line.split_once("child: ") else { continue };
            self.hear(what, job);
            told += 1;
            if told == after {
                std::thread::sleep(rng.millis(30));
                child.kill().unwrap();
                self.killed += 1;
            }
        }
        let ended = child.wait().unwrap();
        for side in sides(directory) {
            put_back(&side);
            remove_superseded(&side);
        }
        assert_eq!(ended.code().is_some(), job.is_last, "{job:?} ended with {ended}");
        assert!(!job.is_last || self.is_finished && ended.success(), "{job:?} ended with {ended}");
    }

    /// What is known to be stored or not is so.
    async fn check(&self, store: &dyn Store) {
        store.verify().await.unwrap();
        let mut stored: BTreeSet<String> =
            store.view().users().iter().map(|user| user.name.as_str().to_owned()).collect();
        stored.extend(points(store).await.into_iter().map(|point| format!("point-{point}")));
        let is_wrong = |(name, is_there): &(&String, &Option<bool>)| {
            is_there.is_some_and(|is_there| is_there != stored.contains(*name))
        };
        let wrong: Vec<_> = self.is_there.iter().filter(is_wrong).collect();
        assert!(wrong.is_empty(), "not as it was answered (whether it is to be there): {wrong:?}");
        let strange: Vec<_> =
            stored.iter().filter(|name| !self.is_there.contains_key(*name)).collect();
        assert!(strange.len() <= self.killed * WRITERS, "nobody was told of {strange:?}");
    }
}

async fn points(store: &dyn Store) -> Vec<i64> {
    let (from, to) = (Timestamp::EPOCH, Timestamp::MAX);
    let query = MetricQuery { node: None, metric: None, from, to };
    let mut page = PageRequest::first(Limit::MAX);
    let mut points = Vec::new();
    loop {
        let found = store.metrics().range(&query, &page).await.unwrap();
        points.extend(found.items.iter().map(|point| point.at.as_millis() - FIRST_POINT));
        match found.next {
            Some(next) => page = PageRequest::after(Limit::MAX, next),
            None => return points,
        }
    }
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout)]
async fn a_network_that_moves_while_disks_fail_and_processes_die_loses_nothing() {
    let (moves, kills) = (setting("GHOSTWIRE_MOVES", 4), setting("GHOSTWIRE_MOVE_KILLS", 1));
    let seed = setting("GHOSTWIRE_MOVE_SEED", 1) as u64;
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    for side in sides(directory) {
        std::fs::create_dir(side).unwrap();
    }
    let first = Opener::new(&alone(directory, 0)).open().await.unwrap();
    first.close().await.unwrap();
    let mut told = Told::default();
    for number in 0..moves {
        for round in 0..=kills {
            told.run(Job { number, round, is_last: round == kills, seed }, directory);
        }
        let moved = Opener::new(&alone(directory, number + 1)).open().await.unwrap();
        told.check(moved.as_ref()).await;
        moved.close().await.unwrap();
        // The next migration makes it anew.
        let left = &sides(directory)[number % 2];
        std::fs::remove_dir_all(left).unwrap();
        std::fs::create_dir(left).unwrap();
    }
    let answered = told.is_there.values().flatten().count();
    let unknown = told.is_there.len() - answered;
    let longest = told.stalls.iter().max();
    println!(
        "{moves} moves, {} kills, {} faults met, {} times a file was away, {} hand-overs (longest {longest:?} ms), {} fallbacks, {answered} answers, \
         {unknown} outcomes unknown",
        told.killed,
        told.faults,
        told.away,
        told.stalls.len(),
        told.fallbacks,
    );
    assert!(told.faults > 0 && !told.stalls.is_empty());
    assert!(told.killed < 100 || told.away > 0 && told.fallbacks > 0);
}
