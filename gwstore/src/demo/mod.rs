//! `gwstore demo`: the same day of a control plane on libsql and on zqlite, and the proof that both
//! hold the same afterwards; then a network that moves from the one to the other while it is served.

mod damage;
mod day;
mod disk;
mod lanes;
mod measure;
mod moving;
mod sample;
mod stores;
mod table;

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ghostwire_store::config::{BackendKind, Config};
use ghostwire_store::domain::ManualClock;
use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_core::digest::{Digests, state_digest};
use ghostwire_store_core::store::StoreInfo;

use damage::{Flips, Victim};
use disk::Disk;
use lanes::as_caller;
use stores::Environment;
use table::say;

use crate::output_file::Target;

/// Runs the same control-plane day on libsql and on zqlite, compares them, and moves a network from the one to the
/// other while it is served.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where the two stores are made; kept afterwards. Without it a fresh temporary directory, which
    /// is removed if all went well.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Keep the temporary directory.
    #[arg(long)]
    pub keep: bool,
    /// What the day's identifiers and keys are drawn from; the same seed gives the same digests.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// So many times as many machines and calls.
    #[arg(long, value_name = "FACTOR", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub scale: u32,
    /// Flips a byte of this store's closed file, inside a live row: the demonstration must fail.
    #[arg(long, value_name = "BACKEND", value_parser = ["libsql", "zqlite"])]
    pub corrupt: Option<String>,
    /// Writes the sample network to this file and does nothing else.
    #[arg(long, value_name = "FILE", group = "written", conflicts_with_all = ["directory", "keep", "seed", "scale", "corrupt", "without_move"])]
    pub write_sample: Option<PathBuf>,
    /// Writes the timeline of the move to this file, as a page.
    #[arg(long, value_name = "FILE", group = "written", conflicts_with_all = ["corrupt", "without_move"])]
    pub page: Option<PathBuf>,
    /// Replaces that file if there is one.
    #[arg(long, requires = "written")]
    pub force: bool,
    /// Compares the stores only: no network moves.
    #[arg(long)]
    pub without_move: bool,
    /// Serves the network that moves in this directory, as the demonstration asks on standard input.
    #[arg(long, value_name = "DIR", hide = true, conflicts_with_all = ["directory", "keep", "corrupt", "write_sample", "page", "without_move"])]
    pub move_child: Option<PathBuf>,
}

/// What the demonstration found out.
struct Results {
    stores: Vec<Ran>,
    disk: Disk,
    directory: PathBuf,
    kept: bool,
    seed: u64,
    scale: u32,
    moved: Option<moving::Moved>,
}

impl Results {
    fn flips(&self) -> Flips {
        self.stores.iter().fold(Flips::default(), |sum, ran| Flips {
            tried: sum.tried + ran.flips.tried,
            detected: sum.detected + ran.flips.detected,
            harmless: sum.harmless + ran.flips.harmless,
        })
    }
}

/// One store, after its day.
struct Ran {
    kind: BackendKind,
    config: Config,
    path: PathBuf,
    clock: ManualClock,
    report: day::Report,
    info: StoreInfo,
    /// Before it was closed, then after it was reopened.
    digests: Digests,
    bytes: u64,
    /// The median fsync of its directory, tried before its day and after: disks have moods.
    fsync: Duration,
    reopened_in: Duration,
    flips: Flips,
}

/// Runs the demonstration and prints its table, or one JSON object.
///
/// # Errors
/// `Corrupt` if the stores do not hold the same, or not what they held before they were closed or moved;
/// `Unexpected` if a call did not do what it must; those of the stores.
pub async fn run(args: Args, out: &mut dyn io::Write, json: bool) -> Result<()> {
    if let Some(path) = &args.write_sample {
        let mut file = Target::check(path, args.force, None)?.begin()?;
        sample::write(&mut file)?;
        return file.finish();
    }
    if let Some(place) = &args.move_child {
        let scale = usize::try_from(args.scale).unwrap_or(1);
        return moving::serve(place, args.seed, scale, out).await;
    }
    let page = args.page.as_deref().map(|path| Target::check(path, args.force, None));
    let page = page.transpose()?;
    let (directory, temporary) = match &args.directory {
        Some(directory) => {
            make_directory(directory).map_err(|error| disk::failed(directory, error))?;
            (directory.clone(), false)
        }
        None => {
            let mut made = tempfile::Builder::new();
            made.prefix("gwstore-demo-");
            #[cfg(unix)]
            made.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
            let made =
                made.tempdir().map_err(|error| disk::failed(&std::env::temp_dir(), error))?;
            (made.keep(), true)
        }
    };
    let kept = !temporary || args.keep;
    match demonstrate(&args, &directory, (kept, page), out, json).await {
        Ok(()) if kept => Ok(()),
        Ok(()) => fs::remove_dir_all(&directory).map_err(|error| disk::failed(&directory, error)),
        // What went wrong can be looked at.
        Err(error) => Err(error.with("stores_kept_in", directory.display())),
    }
}

/// With those above it, for its owner only. What is there stays as it is.
fn make_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(directory)
}

async fn demonstrate(
    args: &Args,
    directory: &Path,
    (kept, page): (bool, Option<Target>),
    out: &mut dyn io::Write,
    json: bool,
) -> Result<()> {
    let environment = Environment::find()?;
    let hash_key = stores::write_hash_key(directory)?;
    stores::write_root_secret(directory)?;
    match &environment.file {
        Some(file) => say(out, json, format_args!("[development] of {}", file.display()))?,
        None => say(out, json, format_args!("The built-in development environment"))?,
    }
    let moves = args.corrupt.is_none() && !args.without_move;
    let place = moves.then(|| moving::place_in(directory)).transpose()?;
    let disk = disk::examine(directory)?;
    let mut all = Vec::new();
    for kind in stores::KINDS {
        say(out, json, format_args!("{}: running the day ...", kind.name()))?;
        let path = stores::path_of(directory, kind)?;
        let config = environment.config(kind, path.clone(), &hash_key);
        let mut fsyncs = disk::time_fsync(directory)?;
        let ran = live(kind, config.clone(), path, args).await;
        let mut ran = ran.map_err(|error| stores::in_store(&config, error))?;
        fsyncs.extend(disk::time_fsync(directory)?);
        ran.fsync = measure::median(fsyncs);
        all.push(ran);
    }
    same(all.iter().map(|ran| (ran.kind, &ran.digests)), "before closing")?;
    if let Some(name) = &args.corrupt {
        for ran in all.iter().filter(|ran| ran.kind.name() == name) {
            let at = ran.victim(&hash_key).corrupt_row(b"day-777").await?;
            let path = ran.path.display();
            say(out, json, format_args!("{name}: flipped a bit of byte {at} of {path}"))?;
        }
    }
    for ran in &mut all {
        say(out, json, format_args!("{}: reopening and verifying ...", ran.kind.name()))?;
        let reopened = ran.reopen(args.seed).await;
        reopened.map_err(|error| stores::in_store(&ran.config, error))?;
    }
    same(all.iter().map(|ran| (ran.kind, &ran.digests)), "after reopening")?;
    for ran in &mut all {
        say(out, json, format_args!("{}: flipping bytes of copies ...", ran.kind.name()))?;
        ran.flips = ran.victim(&hash_key).flip_bytes(args.seed).await?;
    }
    let moved = match &place {
        Some(place) => Some(moving::run(place, args, page, out, json).await?),
        None => None,
    };
    let directory = directory.to_owned();
    let (seed, scale) = (args.seed, args.scale);
    let results = Results { stores: all, disk, directory, kept, seed, scale, moved };
    if json { table::print_json(out, &results) } else { table::print(out, &results) }
}

/// Opens a new store, lives through the day and closes it.
async fn live(kind: BackendKind, config: Config, path: PathBuf, args: &Args) -> Result<Ran> {
    let clock = ManualClock::new(sample::END.parse()?);
    let scale = usize::try_from(args.scale).unwrap_or(1);
    let store = as_caller(stores::open(&config, true, &clock, args.seed)).await?;
    let report = day::run(store.as_ref(), &clock, args.seed, scale).await?;
    let digests = store.digests().await?;
    let info = store.info();
    store.close().await?;
    let bytes = disk::bytes_of(&path);
    let (fsync, reopened_in, flips) = (Duration::ZERO, Duration::ZERO, Flips::default());
    Ok(Ran { kind, config, path, clock, report, info, digests, bytes, fsync, reopened_in, flips })
}

impl Ran {
    /// Opens the closed store as a new process would, and reads everything in it.
    async fn reopen(&mut self, seed: u64) -> Result<()> {
        let begun = Instant::now();
        let store = stores::open(&self.config, false, &self.clock, seed).await?;
        self.reopened_in = begun.elapsed();
        let read = async {
            store.verify().await?;
            // Nothing was cached in this opening; the state is hashed entity by entity all the same.
            let view = store.view();
            let state = state_digest(&view);
            let digests = Digests { state, ..store.digests().await? };
            if digests != self.digests {
                return Err(differ("what was stored is not what is read after reopening")
                    .with("state_before", self.digests.state)
                    .with("state_after", digests.state));
            }
            Ok(())
        };
        let read = read.await;
        store.close().await?;
        read
    }

    fn victim<'a>(&'a self, hash_key: &'a Path) -> Victim<'a> {
        Victim {
            config: &self.config,
            path: &self.path,
            hash_key,
            clock: &self.clock,
            expected: self.digests,
        }
    }
}

/// All stores hold the same.
fn same<'a>(
    digests: impl IntoIterator<Item = (BackendKind, &'a Digests)>,
    when: &'static str,
) -> Result<()> {
    let mut digests = digests.into_iter();
    let Some((first, expected)) = digests.next() else { return Ok(()) };
    for (kind, found) in digests {
        for (series, a, b) in [
            ("state", expected.state, found.state),
            ("metrics", expected.metrics, found.metrics),
            ("audit", expected.audit, found.audit),
        ] {
            if a != b {
                return Err(differ("the stores do not hold the same")
                    .with("what", series)
                    .with("when", when)
                    .with(first.name(), a)
                    .with(kind.name(), b));
            }
        }
    }
    Ok(())
}

fn differ(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, what).during("demo.compare")
}
