//! `gwstore clock`: the store's time beside the machine's, and what to do if they do not agree.

use std::io::{self, BufRead, IsTerminal};
use std::time::Duration;

use ghostwire_store::config::Config;
use ghostwire_store::domain::Timestamp;
use ghostwire_store::repository::ClockReport;
use ghostwire_store::{Error, ErrorKind};
use serde_json::json;

use crate::cli::{ClockCommand, ConfirmArgs};
use crate::failure::{Failure, Outcome};
use crate::output::Shell;
use crate::session::{Reading, open_accepting_clock, open_to_write};

/// The beginning of 2024, in seconds: this program did not exist before.
pub(super) const YEAR_2024: i64 = 1_704_067_200;

pub(super) async fn run(config: &Config, command: &ClockCommand, shell: &mut Shell<'_>) -> Outcome {
    let report = read(config).await?;
    match command {
        ClockCommand::Show => {
            if shell.json {
                return shell.object(&as_json(&report));
            }
            print(&report, shell)
        }
        ClockCommand::Accept(args) => accept(config, &report, args, shell).await,
        ClockCommand::Repair(args) => repair(config, &report, args, shell).await,
    }
}

async fn read(config: &Config) -> Outcome<ClockReport> {
    let reading = Reading::open(config).await?;
    let report = reading.store.clock().report().await;
    reading.close().await?;
    Ok(report?)
}

async fn accept(
    config: &Config,
    report: &ClockReport,
    args: &ConfirmArgs,
    shell: &mut Shell<'_>,
) -> Outcome {
    let gap = Duration::from_secs(config.clock.max_gap_days.saturating_mul(86_400));
    let is_needed = report.store.is_some_and(|store| report.clock.since(store) > gap);
    let question = "Is the clock right, and was nothing written for so long?";
    let accepted = is_needed && confirmed(report, args, question, shell)?;
    if accepted {
        let store = open_accepting_clock(config).await?;
        let accepted = store.clock().accept().await;
        let closed = store.close().await;
        accepted?;
        closed?;
    }
    if shell.json {
        let plan = as_json(report);
        return shell.object(&json!({ "plan": plan, "needed": is_needed, "accepted": accepted }));
    }
    shell.say(match (is_needed, accepted) {
        (false, _) => "There is nothing to do: the store can be opened under this clock.",
        (true, false) => "Nothing was changed.",
        (true, true) => "Accepted. The store can be opened under this clock.",
    })
}

async fn repair(
    config: &Config,
    report: &ClockReport,
    args: &ConfirmArgs,
    shell: &mut Shell<'_>,
) -> Outcome {
    let is_needed = report.is_ahead();
    let question = "Is the clock right, and should these times be brought back to it, and these \
                    metrics be removed?";
    let mut repaired = None;
    if is_needed && confirmed(report, args, question, shell)? {
        let store = open_to_write(config).await?;
        let repair = store.clock().repair().await;
        let closed = store.close().await;
        repaired = Some(repair?);
        closed?;
    }
    if shell.json {
        let plan = as_json(report);
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

/// Shows what is at stake, and asks whether to go on; a dry run does not.
fn confirmed(
    report: &ClockReport,
    args: &ConfirmArgs,
    question: &str,
    shell: &mut Shell<'_>,
) -> Outcome<bool> {
    if Timestamp::from_secs(YEAR_2024).is_ok_and(|earliest| report.clock < earliest) {
        let error = Error::new(ErrorKind::InvalidArgument, "the clock is not set");
        return Err(error.with("clock", report.clock).with("help", "set the clock first").into());
    }
    if !shell.json {
        print(report, shell)?;
    }
    if args.dry_run || args.yes {
        return Ok(args.yes);
    }
    if shell.json || !io::stdin().is_terminal() {
        let error = Error::new(ErrorKind::InvalidArgument, "this needs a confirmation");
        return Err(error.with("help", "look at it with --dry-run, then say --yes").into());
    }
    shell.out.flush()?;
    write!(shell.notes, "{question} [y/N] ")?;
    shell.notes.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(true),
        _ => {
            shell.say("Nothing was changed.")?;
            Err(Failure::Told)
        }
    }
}

fn print(report: &ClockReport, shell: &mut Shell<'_>) -> Outcome {
    let never = || "never".to_owned();
    let mut pairs = vec![
        ("last commit", report.store.map_or_else(never, |store| store.to_string())),
        ("clock", report.clock.to_string()),
    ];
    if let Some(store) = report.store {
        pairs.push(("the store is", difference(store, report.clock)));
    }
    let beyond = |count: u64| format!("{count} beyond the clock");
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

/// Seconds are negative if the store is behind the clock.
fn as_json(report: &ClockReport) -> serde_json::Value {
    let seconds = |store: Timestamp| (store.as_micros() - report.clock.as_micros()) / 1_000_000;
    json!({
        "store": report.store,
        "clock": report.clock,
        "store_ahead_seconds": report.store.map(seconds),
        "entities_beyond": report.entities,
        "audit_beyond": report.audit,
        "metrics_beyond": report.metrics,
    })
}
