//! `gwstore clock`: the store's time beside the machine's, and what to do if they do not agree.

use std::time::Duration;

use ghostwire_store::admin::Client;
use ghostwire_store::config::Config;
use ghostwire_store::domain::{Clock, SystemClock, Timestamp};
use ghostwire_store::repository::ClockReport;
use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_core::backend::Head;
use ghostwire_store_core::block::Serial;
use serde_json::json;

use crate::actor::actor;
use crate::cli::{ClockCommand, ConfirmArgs};
use crate::confirm;
use crate::failure::Outcome;
use crate::live::{self, Found};
use crate::output::Shell;
use crate::session::{Reading, open_accepting_clock, open_to_read, open_to_write};

/// The beginning of 2024, in seconds: this program did not exist before.
pub(super) const YEAR_2024: i64 = 1_704_067_200;
/// The beginning of 2100: nobody will use this release then.
const YEAR_2100: i64 = 4_102_444_800;
/// Clocks of two machines may differ by so much.
pub(super) const TOLERANCE: Duration = Duration::from_secs(5);

/// Refuses a clock that cannot be right: what is written is dated by it, and a store that was written
/// under a later one takes its time from that.
pub(super) fn require_plausible(clock: Timestamp) -> Result<()> {
    if (YEAR_2024 * 1_000_000..YEAR_2100 * 1_000_000).contains(&clock.as_micros()) {
        return Ok(());
    }
    let error = Error::invalid("the clock cannot be right, and what is written is dated by it");
    Err(error.with("clock", clock).with("help", "set the clock first"))
}

/// Refuses a clock under which the store could not be opened to be written.
pub(super) fn require_openable(standing: Standing, config: &Config) -> Result<()> {
    if !standing.is_beyond_gap(config) {
        return Ok(());
    }
    let message =
        "the clock is too far ahead of the last commit: the store cannot be opened to be written";
    let error = Error::new(ErrorKind::Unavailable, message).with("clock", standing.clock);
    let error = error.with("max_gap_days", config.clock.max_gap_days);
    Err(error.with(
        "help",
        "if the clock is right and the store was not used for so long, run `gwstore clock accept`; \
         otherwise set the clock",
    ))
}

/// Why what is written now gets another time than the clock's.
pub(super) fn doubt(clock: Timestamp, last_commit: Option<Timestamp>) -> Option<String> {
    let last = last_commit.filter(|last| last.since(clock) > TOLERANCE)?;
    Some(format!(
        "the store's last commit is from {last}, {}, and what is written is dated by that; \
         `gwstore clock show` says more",
        difference(last, clock)
    ))
}

pub(super) async fn run(config: &Config, command: &ClockCommand, shell: &mut Shell<'_>) -> Outcome {
    match command {
        ClockCommand::Show => {
            let report = report(config, shell).await?;
            let need = Need::of(&report, config);
            if shell.json {
                let mut object = as_json(&report);
                if let serde_json::Value::Object(fields) = &mut object {
                    fields.insert("needs".to_owned(), need.map(Need::command).into());
                }
                return shell.object(&object);
            }
            print(&report, shell)?;
            need.map_or(Ok(()), |need| shell.say(need))
        }
        ClockCommand::Accept(args) => accept(config, args, shell).await,
        ClockCommand::Repair(args) => repair(config, args, shell).await,
    }
}

/// The time of the last commit, if there is one, and what the clock says.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    store: Option<Timestamp>,
    clock: Timestamp,
}

impl Standing {
    /// Only the head is read: a store that needs a migration can be opened after this.
    async fn read(config: &Config) -> Outcome<Self> {
        let backend = open_to_read(config).await?;
        let head = backend.head().await;
        backend.close().await?;
        Ok(Self::of_head(&head?))
    }

    /// Now.
    pub(super) fn of_head(head: &Head) -> Self {
        let store = (head.serial > Serial::ZERO).then_some(head.time);
        Self { store, clock: SystemClock.now() }
    }

    fn of(report: &ClockReport) -> Self {
        Self { store: report.store, clock: report.clock }
    }

    fn pairs(self) -> Vec<(&'static str, String)> {
        let last = self.store.map_or_else(|| "never".to_owned(), |store| store.to_string());
        let mut pairs = vec![("last commit", last), ("clock", self.clock.to_string())];
        pairs.extend(self.store.map(|store| ("the store is", difference(store, self.clock))));
        pairs
    }

    /// Whether opening the store to write would be refused.
    pub(super) fn is_beyond_gap(self, config: &Config) -> bool {
        let gap = Duration::from_secs(config.clock.max_gap_days.saturating_mul(86_400));
        self.store.is_some_and(|store| self.clock.since(store) > gap)
    }

    /// Seconds are negative if the store is behind the clock.
    fn ahead_seconds(self) -> Option<i64> {
        Some((self.store?.as_micros() - self.clock.as_micros()) / 1_000_000)
    }
}

async fn report(config: &Config, shell: &mut Shell<'_>) -> Outcome<ClockReport> {
    let reading = Reading::open(config, shell).await?;
    let report = reading.store.clock().report().await;
    reading.close().await?;
    Ok(report?)
}

/// What has to be done before the store can be opened, or be written without harm.
#[derive(Clone, Copy)]
enum Need {
    Accept { days: u64 },
    Repair,
}

impl Need {
    fn of(report: &ClockReport, config: &Config) -> Option<Self> {
        if report.is_ahead() {
            return Some(Self::Repair);
        }
        let is_needed = Standing::of(report).is_beyond_gap(config);
        is_needed.then_some(Self::Accept { days: config.clock.max_gap_days })
    }

    fn command(self) -> &'static str {
        match self {
            Self::Accept { .. } => "accept",
            Self::Repair => "repair",
        }
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accept { days } => write!(
                f,
                "\nThe last commit is more than {days} days old (clock.max_gap_days), so the store cannot be \
                 opened\nto be written. If the clock is wrong, set it. If it is right, run `gwstore clock accept`."
            ),
            Self::Repair => f.write_str(
                "\nThe store has times that are still to come. If the clock is wrong, set it. If it is right, \
                 run\n`gwstore clock repair`.",
            ),
        }
    }
}

/// Whoever has the store open, if somebody has: that process then has the clock put right.
async fn served(config: &Config, shell: &mut Shell<'_>) -> Outcome<Option<Client>> {
    match live::find(config, shell).await? {
        Found::Served(client) => Ok(Some(client.acting_as(actor()))),
        Found::Denied(_) | Found::Nobody => Ok(None),
    }
}

async fn accept(config: &Config, args: &ConfirmArgs, shell: &mut Shell<'_>) -> Outcome {
    let client = served(config, shell).await?;
    let standing = match &client {
        Some(client) => Standing::of_head(&client.head().await?),
        None => Standing::read(config).await?,
    };
    // An open store refuses a clock by how it went meanwhile, which cannot be told from outside.
    let is_needed = client.is_some() || standing.is_beyond_gap(config);
    if is_needed && !shell.json {
        shell.pairs(&standing.pairs())?;
    }
    let question = "Is the clock right, and was nothing written for so long?";
    let is_accepted = is_needed && confirmed(standing.clock, args, question, shell)?;
    if let Some(client) = client.filter(|_| is_accepted) {
        client.accept_clock().await?;
    } else if is_accepted {
        let store = open_accepting_clock(config).await?;
        let accepted = store.clock().accept().await;
        let closed = store.close().await;
        accepted?;
        closed?;
    }
    if shell.json {
        let plan = json!({
            "store": standing.store,
            "clock": standing.clock,
            "store_ahead_seconds": standing.ahead_seconds(),
        });
        return shell
            .object(&json!({ "plan": plan, "needed": is_needed, "accepted": is_accepted }));
    }
    shell.say(match (is_needed, is_accepted) {
        (false, _) => "There is nothing to do: the store can be opened under this clock.",
        (true, false) => "Nothing was changed.",
        (true, true) => "Accepted. The store can be opened under this clock.",
    })
}

async fn repair(config: &Config, args: &ConfirmArgs, shell: &mut Shell<'_>) -> Outcome {
    let client = served(config, shell).await?;
    let report = report(config, shell).await?;
    let is_needed = report.is_ahead();
    if is_needed && !shell.json {
        print(&report, shell)?;
    }
    let question = "Is the clock right, and should these times be brought back to it, and these \
                    metrics be removed?";
    let mut repaired = None;
    if is_needed && confirmed(report.clock, args, question, shell)? {
        repaired = Some(match client {
            Some(client) => client.repair_clock().await?,
            None => {
                let store = open_to_write(config).await?;
                let repair = store.clock().repair().await;
                let closed = store.close().await;
                let repair = repair?;
                closed?;
                repair
            }
        });
    }
    if shell.json {
        let plan = as_json(&report);
        return shell.object(&json!({ "plan": plan, "needed": is_needed, "repaired": repaired }));
    }
    match repaired {
        Some(done) => shell.line(format_args!(
            "Brought back: {} entities, {} audit entries. Removed: {} metrics.",
            done.entities, done.audit, done.metrics
        )),
        None if is_needed => shell.say("Nothing was changed."),
        None => shell.say("There is nothing to do: nothing is beyond the clock."),
    }
}

/// Whether to go on with what was shown; a dry run does not.
fn confirmed(
    clock: Timestamp,
    args: &ConfirmArgs,
    question: &str,
    shell: &mut Shell<'_>,
) -> Outcome<bool> {
    require_plausible(clock)?;
    if args.dry_run || args.yes {
        return Ok(args.yes);
    }
    confirm::ask(question, shell).map(|()| true)
}

fn print(report: &ClockReport, shell: &mut Shell<'_>) -> Outcome {
    let beyond = |count: u64| format!("{count} beyond the clock");
    let mut pairs = Standing::of(report).pairs();
    pairs.extend(report.entities.iter().map(|(table, count)| (*table, beyond(*count))));
    pairs.push(("audit", beyond(report.audit)));
    pairs.push(("metrics", beyond(report.metrics)));
    shell.pairs(&pairs)
}

fn difference(store: Timestamp, clock: Timestamp) -> String {
    let shown = |duration: Duration, direction| {
        let seconds = duration.as_secs();
        match seconds / 86_400 {
            0 => format!("{seconds} seconds {direction}"),
            days => format!("{days} days {direction}"),
        }
    };
    if store > clock {
        shown(store.since(clock), "ahead of the clock")
    } else {
        shown(clock.since(store), "behind the clock")
    }
}

fn as_json(report: &ClockReport) -> serde_json::Value {
    json!({
        "store": report.store,
        "clock": report.clock,
        "store_ahead_seconds": Standing::of(report).ahead_seconds(),
        "entities_beyond": report.entities,
        "audit_beyond": report.audit,
        "metrics_beyond": report.metrics,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_that_cannot_be_right_are_doubted() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-28T12:00:00Z");
        for (clock, last, is_doubted) in [
            (now, None, false),
            (now, Some(at("2020-01-01T00:00:00Z")), false),
            (now, Some(at("2026-11-28T12:00:05Z")), false),
            (now, Some(at("2026-11-28T12:00:06Z")), true),
        ] {
            assert_eq!(doubt(clock, last).is_some(), is_doubted, "{clock} {last:?}");
        }
        for (clock, is_plausible) in [
            (Timestamp::EPOCH, false),
            (at("2023-12-31T23:59:59Z"), false),
            (now, true),
            (at("2100-01-01T00:00:00Z"), false),
            (at("9999-12-31T00:00:00Z"), false),
        ] {
            assert_eq!(require_plausible(clock).is_ok(), is_plausible, "{clock}");
        }
    }
}
