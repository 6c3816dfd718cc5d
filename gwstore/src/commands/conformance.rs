//! `gwstore conformance`.

#[cfg(feature = "zqlite-native")]
mod native;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use ghostwire_store::config::{BackendChoice, BackendKind, Config};
use ghostwire_store::domain::{Clock, StoreId, SystemClock};
use ghostwire_store::entropy::Entropy;
use ghostwire_store::{COMPILED_BACKENDS, Error, ErrorKind, Opener, Result};
use ghostwire_store_conformance::{
    Effort, InMemory, LocalFiles, Opening, Outcome, Report, Suite, Trial,
};
use ghostwire_store_core::backend::Backend;
use ghostwire_store_sqlite::{SCRATCH_PREFIX, directory_of};
use serde_json::json;
use tempfile::TempDir;

use crate::cli::ConformanceArgs;
use crate::failure::{Ending, Failure, Outcome as Ended, file_error};
use crate::output::{Shell, Table};
use crate::output_file::Target;

/// What the backends of this program may skip, and what this command cannot try.
const EXCEPTIONS: [&str; 2] = [
    include_str!("../../../conformance/tests/exceptions.toml"),
    include_str!("conformance-exceptions.toml"),
];

/// The scratch store that shows whether one can be opened at all.
const PROBE: &str = "store.db";

/// Does the job of a child that is to be killed, if this process was started as one.
pub(crate) fn run_child() -> Option<ExitCode> {
    let on_all = |suite: Suite, kind: &BackendKind| {
        let config = Config::with_backend(*kind);
        match files(&config, std::env::temp_dir()) {
            Some(files) => suite.backend(files),
            None => suite,
        }
    };
    let suite = COMPILED_BACKENDS.iter().fold(Suite::new(), on_all);
    #[cfg(feature = "zqlite-native")]
    let suite = suite.backend(native::files());
    suite.run_child()
}

/// The suite on the configured backend, where its scratch stores lie, and what is to be removed after it.
async fn suite(config: &Config) -> Result<(Suite, Option<PathBuf>, Option<TempDir>)> {
    let suite = EXCEPTIONS.iter().fold(Suite::new(), |suite, text| suite.exceptions(text));
    let Some(path) = config.backend.path() else {
        // A backend that is not there says so.
        Opener::new(config).open_backend().await?.close().await?;
        return Ok((suite.backend(InMemory::new()), None, None));
    };
    let directory = scratch_directory(path)?;
    let mut scratch = tempfile::Builder::new();
    scratch.prefix(SCRATCH_PREFIX);
    #[cfg(unix)]
    scratch.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    let scratch = scratch
        .tempdir_in(&directory)
        .map_err(|error| file_error("no scratch store can be made", Some(&directory), error))?;
    // One that cannot be opened at all is not worth two thousand trials.
    let probe = moved(config, scratch.path().join(PROBE));
    Opener::new(&probe).open_backend().await?.close().await?;
    #[cfg(feature = "zqlite-native")]
    if ghostwire_store::native::is_chosen(config) {
        let files = native::files_in(config, scratch.path())?;
        return Ok((suite.backend(files), Some(directory), Some(scratch)));
    }
    let files = files(config, directory.clone());
    Ok((files.into_iter().fold(suite, Suite::backend), Some(directory), Some(scratch)))
}

fn files(config: &Config, directory: PathBuf) -> Option<LocalFiles> {
    config.backend.path()?;
    let name = config.backend.kind().name();
    let config = config.clone();
    let files = LocalFiles::new(name, move |path, opening| {
        let config = moved(&config, path);
        async move { open(&config, opening).await }
    });
    Some(files.within(directory))
}

async fn open(config: &Config, opening: Opening) -> Result<Arc<dyn Backend>> {
    let opener = Opener::new(config).create(!opening.read_only).schema(opening.schema);
    let identity = Arc::new(Identity(opening.store));
    opener.read_only(opening.read_only).entropy(identity).open_backend().await
}

/// What a new store's identity is drawn from, where it is known already.
struct Identity(StoreId);

impl Entropy for Identity {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        for (byte, of_identity) in bytes.iter_mut().zip(self.0.as_bytes().iter().cycle()) {
            *byte = *of_identity;
        }
        Ok(())
    }
}

/// Scratch stores lie on the disk that the deployment uses, or nowhere.
fn scratch_directory(path: &Path) -> Result<PathBuf> {
    let directory = directory_of(path);
    let help = "`gwstore init` makes it; `--path FILE` tries another disk";
    match std::fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => Ok(directory.to_owned()),
        Ok(_) => {
            Err(Error::invalid("the store's path leads through something that is no directory")
                .with("directory", directory.display()))
        }
        Err(error) => {
            let what = "the store's directory cannot be used";
            Err(file_error(what, Some(directory), error).with("help", help))
        }
    }
}

fn moved(config: &Config, path: PathBuf) -> Config {
    let mut config = config.clone();
    match &mut config.backend {
        BackendChoice::Zqlite(options) => {
            let earlier = std::mem::replace(&mut options.path, path);
            lend_verdict(&earlier, &options.path);
            // Cases copy stores without what lies beside them.
            options.sealed = false;
        }
        BackendChoice::Libsql(options) => options.path = path,
        _ => {}
    }
    config
}

/// A scratch store on the native engine is opened by the verdict on the configured one's library.
#[cfg(feature = "zqlite-native")]
fn lend_verdict(from: &Path, to: &Path) {
    use ghostwire_store::native::verdict_path;
    let to = verdict_path(to);
    // Without one it is refused, and the refusal says why.
    if !to.exists() {
        let _ = std::fs::copy(verdict_path(from), to);
    }
}

#[cfg(not(feature = "zqlite-native"))]
fn lend_verdict(_: &Path, _: &Path) {}

/// Runs it, and says what was found.
pub(super) async fn run(
    config: &Config,
    args: &ConformanceArgs,
    verbose: bool,
    shell: &mut Shell<'_>,
) -> Ended {
    let filter = filter(args);
    let mut effort = Effort::default();
    effort.kills = args.kills.unwrap_or(effort.kills);
    effort.sequences = args.sequences.unwrap_or(effort.sequences);
    effort.seed = args.seed.unwrap_or(effort.seed);
    // A run takes minutes, so a page that cannot be written is found first.
    let page = args.html.as_deref().map(|path| Target::check(path, args.force, Some(config)));
    let page = page.transpose()?;
    ghostwire_store::prepare_process().await?;
    let (suite, directory, _scratch) = suite(config).await?;
    if !verbose {
        // A case fails by panicking, and the report has the message.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let report = run_aside(suite.effort(effort), filter.clone(), shell)?;
    if report.trials.is_empty() {
        return Err(nothing_named(&filter).into());
    }
    if shell.json {
        shell.object(&report)?
    } else {
        print(&report, shell)?
    }
    if let Some(page) = page {
        let directory = directory.map_or_else(|| "none".to_owned(), |at| at.display().to_string());
        let facts = [
            ("program", format!("gwstore {}", env!("CARGO_PKG_VERSION"))),
            ("time", SystemClock.now().to_string()),
            ("scratch stores in", directory),
            ("sequences, kills, seed", format!("{effort}")),
            ("only with this in its name", filter),
        ];
        let text = report.to_html(config.backend.kind().name(), &facts);
        page.fill(text.as_bytes())?;
    }
    let (passed, failed, _) = report.counts();
    if failed > 0 {
        return Err(Failure::Told(Ending::Found));
    }
    if passed == 0 {
        return Err(Error::invalid("nothing was tried: every trial is excepted").into());
    }
    Ok(())
}

fn nothing_named(filter: &str) -> Error {
    Error::new(ErrorKind::NotFound, "nothing has this in its name").with("filter", filter).with(
        "help",
        "`gwstore conformance --list` shows the names, such as \
         zqlite/bare/rows/one-time-key/a_revoked_or_expired_key_admits_nobody",
    )
}

/// The suite starts runtimes of its own, which it cannot do on a thread of this one.
fn run_aside(suite: Suite, filter: String, shell: &mut Shell<'_>) -> Ended<Report> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let run = move || {
        suite.run(&filter, &mut |trial, done, all| {
            // Whoever does not listen any more does not want to know.
            let _ = sender.send((trial.clone(), done, all));
        })
    };
    let running = std::thread::Builder::new()
        .stack_size(crate::STACK)
        .spawn(run)
        .map_err(|error| file_error("no thread can be started", None, error))?;
    let mut bar = None;
    for (trial, _, all) in receiver {
        let bar = bar.get_or_insert_with(|| shell.progress("trials", Some(all as u64)));
        bar.advance(1);
        if let Outcome::Failed(message) = &trial.outcome {
            shell.note(format_args!("{} failed: {}", place(&trial), first_line(message)));
        }
    }
    running.join().map_err(|_| Failure::from(Error::invalid("the suite stopped unexpectedly")))
}

fn place(trial: &Trial) -> String {
    let mode = trial.mode.map_or("check", |mode| mode.name());
    format!("{}/{}/{mode}/{}", trial.backend, trial.stack, trial.case())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn print(report: &Report, shell: &mut Shell<'_>) -> Ended {
    let mut table = Table::new(&["RULE", "TRIALS", "PASSED", "EXCEPTED", "FAILED"]);
    let mut rules: Vec<&str> = report.trials.iter().map(|trial| trial.rule.as_str()).collect();
    rules.dedup();
    rules.sort_by_key(|rule| {
        ghostwire_store_conformance::contract::rules().position(|r| r == *rule)
    });
    rules.dedup();
    let rows: Vec<_> = rules.into_iter().map(|rule| row(report, rule)).collect();
    table.rows(shell, &rows)?;
    let mut reasons: Vec<&str> = Vec::new();
    for trial in &report.trials {
        if let Outcome::Excepted(reason) = &trial.outcome
            && !reasons.contains(&reason.as_str())
        {
            reasons.push(reason);
        }
    }
    for reason in reasons {
        shell.line(format_args!("excepted: {reason}"))?;
    }
    let (passed, failed, excepted) = report.counts();
    let all = report.trials.len();
    shell.line(format_args!(
        "{all} trials: {passed} passed, {failed} failed, {excepted} excepted"
    ))?;
    for trial in report.failures() {
        if let Outcome::Failed(message) = &trial.outcome {
            shell.line(format_args!("\n{} failed:\n{message}", place(trial)))?;
        }
    }
    Ok(())
}

fn row(report: &Report, rule: &str) -> Vec<String> {
    let trials: Vec<_> = report.trials.iter().filter(|trial| trial.rule == rule).collect();
    let count = |wanted: fn(&Outcome) -> bool| {
        trials.iter().filter(|trial| wanted(&trial.outcome)).count().to_string()
    };
    vec![
        rule.to_owned(),
        trials.len().to_string(),
        count(|outcome| *outcome == Outcome::Passed),
        count(|outcome| matches!(outcome, Outcome::Excepted(_))),
        count(|outcome| matches!(outcome, Outcome::Failed(_))),
    ]
}

/// A person may write a name as words.
fn filter(args: &ConformanceArgs) -> String {
    args.filter.as_deref().unwrap_or_default().replace(' ', "_")
}

/// Which case proves which line.
pub(super) fn list(args: &ConformanceArgs, shell: &mut Shell<'_>) -> Ended {
    let filter = filter(args);
    let mut found = false;
    for (rule, proofs) in Suite::proofs() {
        let proofs: Vec<_> = proofs.into_iter().filter(|name| name.contains(&filter)).collect();
        if proofs.is_empty() {
            continue;
        }
        found = true;
        if shell.json {
            shell.object(&json!({ "rule": rule, "proofs": proofs }))?;
            continue;
        }
        shell.line(rule)?;
        for proof in proofs {
            shell.line(format_args!("  {}", proof.split_once('/').map_or("", |(_, name)| name)))?;
        }
    }
    if found { Ok(()) } else { Err(nothing_named(&filter).into()) }
}
