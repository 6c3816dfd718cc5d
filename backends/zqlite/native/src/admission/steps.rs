//! The steps, from the parent's side: which parts are done in which child, and when that is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ghostwire_store_core::error::ErrorKind;

use super::Effort;
use crate::message::{Request, Response};
use crate::process::{Lost, Process};
use crate::session::{Host, Loaded};

/// A step: a property, and how to try it.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// The property.
    pub name: &'static str,
    /// What it says, for the report.
    pub says: &'static str,
    pub(crate) how: How,
}

/// What tries a part of the library in children that load it.
type Run = fn(&mut Trial<'_>) -> Result<String, String>;

/// How a step is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    /// It has to hold.
    Property(Run),
    /// Nothing depends on it.
    Information(Run),
    /// By the conformance suite, which is a program's own.
    Suite,
}

const fn step(name: &'static str, says: &'static str, run: Run) -> Named {
    Named { name, says, how: How::Property(run) }
}

/// The last step, and the only one that may be left out.
pub(super) const CONFORMANCE: &str = "conformance";

/// All steps, the cheapest first.
pub const STEPS: [Named; 17] = [
    step("interface", "it loads, and has every function of ABI 1.x", interface),
    step("codes", "results and failures have the numbers of ABI 1.0.0", |it| it.alone("codes")),
    step("reopen", "rows are there after closing, in another process", reopen),
    step("without-close", "rows are there after a kill without closing", without_close),
    step("blobs", "blobs of 0 to 3,072 bytes come back as they are", blobs),
    step("long-row", "a step that fails says so", |it| it.on_table("long-row")),
    step("rollback", "a rollback undoes, also after reopening", rollback),
    step("replace", "a row can be replaced in a transaction", replace),
    Named {
        name: "keys",
        says: "which keys are enforced",
        how: How::Information(|it| it.on_table("keys")),
    },
    step("volume", "many rows, within bounds of time and memory", volume),
    step(
        "kills-in-transaction",
        "nothing of a transaction is there before its commit",
        kills_in_transaction,
    ),
    step(
        "kills-in-commit",
        "a commit that is killed is there whole or not at all",
        kills_in_commit,
    ),
    step(
        "log-tail",
        "zeros and garbage behind the log, as after a loss of power, cost nothing",
        log_tail,
    ),
    step(
        "log-damage",
        "a log that is cut gives a whole commit, one that is altered the last; or it is refused",
        log_damage,
    ),
    step("full-disk", "without room a write fails, and what was stored stays", full_disk),
    step("second-opener", "of two writers none loses what it was told is stored", second_opener),
    Named { name: CONFORMANCE, says: "scratch stores on it keep the contract", how: How::Suite },
];

/// The self-test under way.
pub(crate) struct Trial<'h> {
    host: &'h Host,
    scratch: &'h Path,
    effort: Effort,
    pub(crate) loaded: Option<Loaded>,
    /// What counted of it.
    pub(crate) done: Effort,
    databases: u32,
}

/// How a part ended.
enum Ended {
    /// By itself.
    Told(String),
    /// It said that it is on its way; the child is to go on, or not.
    Way(Process),
}

impl<'h> Trial<'h> {
    pub(crate) fn new(host: &'h Host, scratch: &'h Path, effort: Effort) -> Self {
        let done = Effort { kills_in_transaction: 0, kills_in_commit: 0, rows: 0 };
        Self { host, scratch, effort, loaded: None, done, databases: 0 }
    }

    /// The path of a new database.
    fn database(&mut self) -> PathBuf {
        self.databases += 1;
        self.scratch.join(format!("{}.db", self.databases))
    }

    /// The path of a new database with a table.
    fn table(&mut self) -> Result<PathBuf, String> {
        let path = self.database();
        self.part("create", &path, 0)?;
        Ok(path)
    }

    fn alone(&mut self, part: &str) -> Result<String, String> {
        let path = self.database();
        self.part(part, &path, 0)
    }

    fn on_table(&mut self, part: &str) -> Result<String, String> {
        let path = self.table()?;
        self.part(part, &path, 0)
    }

    /// Does a part in a child of its own, which closes the database.
    fn part(&self, part: &str, path: &Path, argument: u64) -> Result<String, String> {
        match self.begin(part, path, argument)? {
            Ended::Told(text) => Ok(text),
            Ended::Way(_) => Err("a part of the self-test says more than it should".to_owned()),
        }
    }

    /// Begins a part in a child of its own; it may say that it is on its way.
    fn begin(&self, part: &str, path: &Path, argument: u64) -> Result<Ended, String> {
        let (mut child, _) = self.host.start().map_err(|error| error.to_string())?;
        let path = path.as_os_str().as_encoded_bytes();
        let request = Request::Test { part: part.as_bytes(), path, argument };
        match child.ask(&request, self.host.deadline) {
            Ok(Response::Progress) => Ok(Ended::Way(child)),
            response => told(response).map(Ended::Told),
        }
    }

    /// Begins a part that says that it is on its way.
    fn on_the_way(&self, part: &str, path: &Path, argument: u64) -> Result<Process, String> {
        match self.begin(part, path, argument)? {
            Ended::Way(child) => Ok(child),
            Ended::Told(text) => Err(format!("a part of the self-test ended too early: {text}")),
        }
    }

    /// Does a part in a child of its own to its end; how long its second stretch takes, from its way on.
    fn duration(&self, part: &str, path: &Path, argument: u64) -> Result<Duration, String> {
        let mut child = self.on_the_way(part, path, argument)?;
        let began = Instant::now();
        came_so_far(child.receive(began + self.host.deadline))?;
        let took = began.elapsed();
        told(child.receive(Instant::now() + self.host.deadline))?;
        Ok(took)
    }
}

/// That a part came to its next stretch.
fn came_so_far(response: Result<Response<'_>, Lost>) -> Result<(), String> {
    match response {
        Ok(Response::Progress) => Ok(()),
        response => match told(response) {
            Ok(text) => Err(format!("a part of the self-test ended too early: {text}")),
            Err(wrong) => Err(wrong),
        },
    }
}

/// What a child says at the end of a part.
fn told(response: Result<Response<'_>, Lost>) -> Result<String, String> {
    match response {
        Ok(Response::Tested { passed: true, text }) => {
            Ok(String::from_utf8_lossy(text).into_owned())
        }
        Ok(Response::Tested { text, .. }) => Err(String::from_utf8_lossy(text).into_owned()),
        Ok(Response::Trouble { why }) => {
            Err(format!("the library's process failed: {}", String::from_utf8_lossy(why)))
        }
        Ok(_) => Err("the library's process says what makes no sense".to_owned()),
        Err(lost) => Err(why(lost)),
    }
}

fn why(lost: Lost) -> String {
    match lost {
        Lost::Ended(Some(status)) => format!("the library ended its process: {status}"),
        Lost::Late => "the library takes too long".to_owned(),
        lost => {
            lost.into_error(ErrorKind::Unavailable, "the library's process was lost").to_string()
        }
    }
}

fn interface(trial: &mut Trial<'_>) -> Result<String, String> {
    let (_, loaded) = trial.host.start().map_err(|error| error.to_string())?;
    let Loaded { version, abi, functions } = &loaded;
    let text = format!("version {version}, ABI {abi}, {functions} functions");
    trial.loaded = Some(loaded);
    Ok(text)
}

fn reopen(trial: &mut Trial<'_>) -> Result<String, String> {
    let path = trial.table()?;
    trial.part("write", &path, 1)?;
    trial.part("read", &path, 1)
}

fn without_close(trial: &mut Trial<'_>) -> Result<String, String> {
    let path = trial.table()?;
    let mut child = trial.on_the_way("write-and-wait", &path, 1)?;
    child.kill();
    trial.part("read", &path, 1)
}

fn blobs(trial: &mut Trial<'_>) -> Result<String, String> {
    let path = trial.table()?;
    trial.part("blobs", &path, 0)?;
    trial.part("read-blobs", &path, 0)
}

fn rollback(trial: &mut Trial<'_>) -> Result<String, String> {
    let path = trial.table()?;
    trial.part("rollback", &path, 0)?;
    trial.part("read", &path, 1)
}

fn replace(trial: &mut Trial<'_>) -> Result<String, String> {
    let path = trial.table()?;
    trial.part("replace", &path, 0)?;
    trial.part("read-replaced", &path, 0)
}

fn volume(trial: &mut Trial<'_>) -> Result<String, String> {
    let path = trial.table()?;
    let rows = trial.effort.rows.into();
    let found = trial.part("volume", &path, rows)?;
    trial.part("read-volume", &path, rows)?;
    trial.done.rows = trial.effort.rows;
    Ok(found)
}

/// Moments within a duration, spread evenly however many are taken.
fn moments(duration: Duration) -> impl Iterator<Item = Duration> {
    /// The golden ratio's fraction: its multiples never come close to each other.
    const STEP: f64 = 0.618_033_988_749_895;
    (0u32..).map(move |at| duration.mul_f64((f64::from(at) * STEP).fract()))
}

/// How many kills are tried so that this many come in time.
fn attempts(wanted: u32) -> usize {
    usize::try_from(wanted).unwrap_or(usize::MAX).saturating_mul(4).saturating_add(20)
}

fn too_few(done: u32, wanted: u32) -> String {
    format!(
        "only {done} of {wanted} kills came in time, of {} that were tried: it was not tried enough",
        attempts(wanted)
    )
}

/// Kills a child at its moment; whether it had not come to its next stretch by then.
fn kill_in_time(child: &mut Process, moment: Duration) -> Result<bool, String> {
    let response = child.receive(Instant::now() + moment);
    let is_in_time = match response {
        Err(Lost::Late) => Ok(true),
        response => came_so_far(response).map(|()| false),
    };
    child.kill();
    is_in_time
}

fn kills_in_transaction(trial: &mut Trial<'_>) -> Result<String, String> {
    let path = trial.table()?;
    trial.part("write", &path, 1)?;
    let duration = trial.duration("transaction", &path, 0)?;
    let wanted = trial.effort.kills_in_transaction;
    for (at, moment) in (1..=attempts(wanted)).zip(moments(duration)) {
        if trial.done.kills_in_transaction == wanted {
            break;
        }
        let find = |wrong| format!("before kill {at}: {wrong}");
        let mut child = trial.on_the_way("transaction", &path, 0).map_err(find)?;
        let is_in_time = kill_in_time(&mut child, moment).map_err(find)?;
        trial.done.kills_in_transaction += u32::from(is_in_time);
    }
    trial.part("read", &path, 1)?;
    match trial.done.kills_in_transaction {
        done if done < wanted => Err(too_few(done, wanted)),
        done => Ok(format!("{done} kills")),
    }
}

fn kills_in_commit(trial: &mut Trial<'_>) -> Result<String, String> {
    let path = trial.table()?;
    let mut stored = 0;
    let mut duration = Duration::MAX;
    for _ in 0..3 {
        stored += 1;
        let took = trial.duration("commit", &path, stored)?;
        // The first commit has nothing to replace.
        duration = if stored == 1 { duration } else { duration.min(took) };
    }
    let wanted = trial.effort.kills_in_commit;
    let mut tried = 0;
    for moment in moments(duration).take(attempts(wanted)) {
        if trial.done.kills_in_commit == wanted {
            break;
        }
        tried += 1;
        let next = stored + 1;
        let mut child = trial.on_the_way("commit", &path, next)?;
        let is_in_time = kill_in_time(&mut child, moment)?;
        let found = trial.part("generation", &path, 0);
        let found = found.map_err(|wrong| format!("after kill {tried}: {wrong}"))?;
        match found.parse() {
            Ok(found) if found == next || (found == stored && is_in_time) => stored = found,
            _ => {
                return Err(format!(
                    "after kill {tried} commit {found} is there, and commit {stored} was acknowledged"
                ));
            }
        }
        trial.done.kills_in_commit += u32::from(is_in_time);
    }
    match trial.done.kills_in_commit {
        done if done < wanted => Err(too_few(done, wanted)),
        done => Ok(format!("{done} kills before the commit was acknowledged, of {tried}")),
    }
}

/// What the names of logs end with. Zeros and garbage are also put where there is none of the first.
const LOGS: [&str; 2] = ["-wal", "-journal"];

/// Files of a database after a kill, by what is appended to its name; which commits may be found in it.
struct Killed {
    when: &'static str,
    files: Vec<(String, Vec<u8>)>,
    stored: u64,
    /// It was killed while the next one was committed.
    or_next: bool,
}

impl Killed {
    /// Reads them.
    fn read(when: &'static str, path: &Path, stored: u64, or_next: bool) -> Result<Self, String> {
        let failed = |error: std::io::Error| error.to_string();
        let stem = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut files = Vec::new();
        for entry in fs::read_dir(path.parent().unwrap_or(path)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(suffix) = name.strip_prefix(&stem) {
                files.push((suffix.to_owned(), fs::read(entry.path()).map_err(failed)?));
            }
        }
        Ok(Self { when, files, stored, or_next })
    }

    fn is_log(suffix: &str) -> bool {
        LOGS.contains(&suffix)
    }

    fn has_log(&self) -> bool {
        self.files.iter().any(|(suffix, bytes)| Self::is_log(suffix) && !bytes.is_empty())
    }

    /// A copy in a new place, with each log altered; an empty one, too, and one that is not there.
    fn copy(
        &self,
        trial: &mut Trial<'_>,
        damage: &dyn Fn(&mut Vec<u8>),
    ) -> Result<PathBuf, String> {
        let copy = trial.database();
        let place = |suffix: &str| {
            let mut name = copy.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let write = |suffix: &str, bytes: &[u8]| {
            fs::write(place(suffix), bytes).map_err(|error| error.to_string())
        };
        for (suffix, bytes) in &self.files {
            let mut bytes = bytes.clone();
            if Self::is_log(suffix) {
                damage(&mut bytes);
            }
            write(suffix, &bytes)?;
        }
        if !self.files.iter().any(|(suffix, _)| Self::is_log(suffix)) {
            let mut bytes = Vec::new();
            damage(&mut bytes);
            write(LOGS[0], &bytes)?;
        }
        Ok(copy)
    }

    fn may_find(&self, commit: u64) -> bool {
        commit == self.stored || (self.or_next && commit == self.stored + 1)
    }
}

/// How many kills during commits leave a log that is looked at.
const DURING: usize = 4;

/// A database that was killed in a transaction, during commits, and after one.
fn killed(trial: &mut Trial<'_>) -> Result<Vec<Killed>, String> {
    let mut all = Vec::new();
    let begin = |trial: &mut Trial<'_>| {
        let path = trial.table()?;
        trial.duration("commit", &path, 1)?;
        let duration = trial.duration("commit", &path, 2)?;
        Ok::<_, String>((path, duration))
    };
    let (path, duration) = begin(trial)?;
    let mut child = trial.on_the_way("open-and-wait", &path, 3)?;
    child.kill();
    all.push(Killed::read("in a transaction", &path, 2, false)?);
    let mut moments = moments(duration);
    let mut during = 0;
    for _ in 0..attempts(u32::try_from(DURING).unwrap_or(u32::MAX)) {
        if during == DURING {
            break;
        }
        let path = trial.table()?;
        trial.duration("commit", &path, 1)?;
        let mut child = trial.on_the_way("commit", &path, 2)?;
        if kill_in_time(&mut child, moments.next().unwrap_or_default())? {
            during += 1;
            all.push(Killed::read("during a commit", &path, 1, true)?);
        }
    }
    if during < DURING {
        return Err(format!("only {during} of {DURING} kills came during a commit"));
    }
    let (path, _) = begin(trial)?;
    let mut child = trial.on_the_way("commit-and-wait", &path, 3)?;
    // It has the database still open, and never closes it.
    child.kill();
    all.push(Killed::read("after a commit", &path, 3, false)?);
    Ok(all)
}

/// Bytes that nobody wrote, the same each time.
fn garbage(length: usize) -> impl Iterator<Item = u8> {
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let states = std::iter::successors(Some(7_u32), next);
    states.map(|state| state.to_be_bytes()[0]).take(length)
}

fn log_tail(trial: &mut Trial<'_>) -> Result<String, String> {
    let states = killed(trial)?;
    let (mut tried, mut with_log) = (0, 0);
    for state in &states {
        with_log += u32::from(state.has_log());
        for length in [1, 4_096, 64 << 10] {
            let zeros = &|log: &mut Vec<u8>| log.resize(log.len() + length, 0);
            let noise = &|log: &mut Vec<u8>| log.extend(garbage(length));
            for (name, damage) in [("zeros", zeros as &dyn Fn(&mut Vec<u8>)), ("garbage", noise)] {
                let copy = state.copy(trial, damage)?;
                let wrong = |wrong: String| {
                    format!(
                        "killed {}, {length} bytes of {name} behind the log: {wrong}",
                        state.when
                    )
                };
                let found = trial.part("generation", &copy, 0).map_err(wrong)?;
                if !found.parse::<u64>().is_ok_and(|found| state.may_find(found)) {
                    let stored = state.stored;
                    return Err(wrong(format!("commit {found} is there instead of {stored}")));
                }
                tried += 1;
            }
        }
    }
    Ok(format!("{tried} logs, {with_log} of {} kills left one with something in it", states.len()))
}

/// What an interior damage does to a log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Damage {
    Cut,
    Flipped,
    Zeroed,
}

impl Damage {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Cut, "cut"), (Self::Flipped, "flipped"), (Self::Zeroed, "filled with zeros")];

    /// At a fraction of a log.
    fn at(self, log: &mut Vec<u8>, place: usize, places: usize) {
        let at = log.len() * place / places;
        match self {
            Self::Cut => log.truncate(at),
            Self::Flipped => log.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0x40),
            Self::Zeroed => log.iter_mut().skip(at).take(4_096).for_each(|byte| *byte = 0),
        }
    }

    /// Whether that commit may be found then. What is cut off cannot be missed; what is altered before
    /// more of the log can.
    fn may_find(self, state: &Killed, commit: u64) -> bool {
        match self {
            Self::Cut => (1..=state.stored).contains(&commit),
            Self::Flipped | Self::Zeroed => commit == state.stored,
        }
    }
}

fn log_damage(trial: &mut Trial<'_>) -> Result<String, String> {
    const PLACES: usize = 5;
    let (mut refused, mut tried) = (0, 0);
    // During a commit a log of undo images is all there is: nothing outlives damage to it.
    let states = killed(trial)?.into_iter().filter(|state| !state.or_next && state.has_log());
    for state in states {
        for place in 0..PLACES {
            for (damage, name) in Damage::ALL {
                let copy = state.copy(trial, &|log| damage.at(log, place, PLACES))?;
                let wrong = |wrong| {
                    format!("killed {}, a log {name} at {place}/{PLACES}: {wrong}", state.when)
                };
                tried += 1;
                match &*trial.part("damaged-log", &copy, 0).map_err(wrong)? {
                    "refused" => refused += 1,
                    found
                        if found
                            .parse::<u64>()
                            .is_ok_and(|found| damage.may_find(&state, found)) => {}
                    found => {
                        let stored = state.stored;
                        return Err(wrong(format!("commit {found} is there instead of {stored}")));
                    }
                }
            }
        }
    }
    match tried {
        0 => Err("no kill left a log with something in it: it was not tried".to_owned()),
        _ => Ok(format!("{refused} of {tried} refused, the others whole")),
    }
}

fn full_disk(trial: &mut Trial<'_>) -> Result<String, String> {
    let path = trial.table()?;
    let number = |text: String| text.parse::<u64>().map_err(|_| text);
    let acknowledged = trial.part("full-disk", &path, 0).and_then(number)?;
    let found = trial.part("count", &path, 0).and_then(number)?;
    match found {
        _ if acknowledged == 0 => Err("no row was stored while there was room".to_owned()),
        // The one that failed may be there, as a whole.
        found if found == acknowledged || found == acknowledged + 10 => {
            Ok(format!("{acknowledged} rows fitted; by a limit for files"))
        }
        _ => Err(format!("{acknowledged} rows were acknowledged, and {found} are there")),
    }
}

fn second_opener(trial: &mut Trial<'_>) -> Result<String, String> {
    let path = trial.table()?;
    let mut first = trial.on_the_way("hold", &path, 1_000)?;
    let second =
        trial.part("intrude", &path, 2_000).map_err(|wrong| format!("the second: {wrong}"))?;
    let first = told(first.ask(&Request::Continue, trial.host.deadline))?;
    for (id, told) in [(1_000, &first), (2_000, &second)] {
        let found = trial.part("has", &path, id)?;
        if found != *told {
            return Err(format!("a writer was told {told}, and its row is {found}"));
        }
    }
    Ok(format!("the first is {first}, the second is {second}"))
}
