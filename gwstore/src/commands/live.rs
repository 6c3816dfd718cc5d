//! What is asked of a store that is open: `checkpoint`, `verify`, `watch`, `config reload`, `log level`.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures_util::StreamExt;
use ghostwire_store::admin::protocol::Watched;
use ghostwire_store::changes::Serial;
use ghostwire_store::config::Config;
use ghostwire_store::domain::{Clock, SystemClock};
use ghostwire_store::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::failure::{Ending, Failure, Outcome};
use crate::live::{self, Found};
use crate::nouns::Moment;
use crate::output::{Shell, counted, printable};
use crate::session::{Reading, open_to_write, refuse_to_forget};

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Begin after this commit, such as the last one that was seen [default: the newest].
    #[arg(long, value_name = "SERIAL")]
    after: Option<u64>,
    /// End after so many commits.
    #[arg(long, value_name = "NUMBER")]
    count: Option<NonZeroU64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Log more or less from now on.
    Level(LevelArgs),
}

#[derive(Debug, Args)]
pub(crate) struct LevelArgs {
    /// error, warn, info, debug, trace or off; also for a part of the program, as in
    /// info,ghostwire_store_core::writer=debug.
    level: String,
    /// Only so long, such as 10m; then as before.
    #[arg(long = "for", value_name = "TIME")]
    period: Option<Moment>,
}

/// Brings every block into rows.
pub(super) async fn checkpoint(config: &Config, shell: &mut Shell<'_>) -> Outcome {
    let serial = match live::find(config, shell).await? {
        Found::Served(client) => client.checkpoint().await?,
        Found::Denied(error) => live::denied(checkpoint_files(config).await, error)?,
        Found::Nobody => live::explained(checkpoint_files(config).await, config)?,
    };
    if shell.json {
        return shell.object(&json!({ "checkpoint": serial }));
    }
    shell.tell(format_args!("The tables hold everything up to serial {serial}."))
}

async fn checkpoint_files(config: &Config) -> Result<Serial> {
    refuse_to_forget(config)?;
    let store = open_to_write(config).await?;
    let checkpoint = store.checkpoint().await;
    store.close().await?;
    checkpoint
}

/// Reads everything stored and checks it.
pub(super) async fn verify(config: &Config, shell: &mut Shell<'_>) -> Outcome {
    let mut progress = shell.progress("verifying", None);
    let verified = match live::find(config, shell).await? {
        Found::Served(client) => {
            let mut seen = 0;
            let told = |working: ghostwire_store::admin::protocol::Working| {
                progress.advance(working.pages.saturating_sub(seen));
                seen = working.pages;
            };
            client.verify(told).await
        }
        Found::Denied(error) => live::denied(verify_files(config).await, error),
        Found::Nobody => live::explained(verify_files(config).await, config),
    };
    drop(progress);
    verified.map_err(|error| match error.kind() {
        ErrorKind::Corrupt => Failure::As(Ending::Found, error),
        _ => error.into(),
    })?;
    if shell.json {
        return shell.object(&json!({ "verified": true }));
    }
    shell.tell("Everything stored is whole.")
}

async fn verify_files(config: &Config) -> Result<()> {
    let reading = Reading::of_files(config).await?;
    let verified = reading.verify().await;
    reading.close().await?;
    verified
}

/// Prints commits as they come, until the store is closed.
pub(super) async fn watch(config: &Config, args: &WatchArgs, shell: &mut Shell<'_>) -> Outcome {
    let client = live::require(config, shell).await?;
    let commits = client.watch(args.after.map(Serial::new)).await?;
    let most = args.count.map_or(u64::MAX, NonZeroU64::get);
    let mut commits = commits.take(usize::try_from(most).unwrap_or(usize::MAX));
    while let Some(commit) = commits.next().await {
        let commit = commit?;
        if shell.json {
            shell.object(&commit)?;
        } else {
            shell.line(line(&commit))?;
        }
        // Whoever reads waits for each.
        shell.out.flush()?;
    }
    Ok(())
}

/// So many changes are told one by one; JSON has all of them.
const MOST_TOLD: usize = 10;

fn line(commit: &Watched) -> String {
    let told = commit.changes.iter().take(MOST_TOLD).map(|change| {
        let kind = match change.change {
            ghostwire_store::changes::ChangeKind::Created => "created",
            ghostwire_store::changes::ChangeKind::Updated => "updated",
            ghostwire_store::changes::ChangeKind::Deleted => "deleted",
        };
        format!("{kind} {} {}", change.entity, change.id)
    });
    let mut told: Vec<_> = told.collect();
    let more = commit.changes.len().saturating_sub(MOST_TOLD);
    if more > 0 {
        told.push(format!("and {}", counted(more as u64, "more change")));
    }
    printable(&format!("{}  {}  {}", commit.serial, commit.at, told.join(", ")))
}

/// Has the program that has the store open read its configuration again.
pub(super) async fn reload(config: &Config, shell: &mut Shell<'_>) -> Outcome {
    let changed = live::require(config, shell).await?.reload().await?;
    if shell.json {
        return shell.object(&changed);
    }
    for line in reloaded(&changed) {
        shell.line(printable(&line))?;
    }
    Ok(())
}

/// What a program says of a reload, for people. One may say something of its own.
fn reloaded(changed: &Value) -> Vec<String> {
    let changes = |name: &str| changed.get(name).and_then(Value::as_array);
    let (Some(applied), Some(deferred)) = (changes("applied"), changes("refused")) else {
        return vec![format!("Reloaded: {changed}")];
    };
    let text = |change: &Value, name: &str| {
        change.get(name).and_then(Value::as_str).unwrap_or("none").to_owned()
    };
    let told = |change: &Value, when: &str| {
        let [key, before, after] = ["key", "before", "after"].map(|name| text(change, name));
        format!("{key}: {before} -> {after}, {when}")
    };
    if applied.is_empty() && deferred.is_empty() {
        return vec!["Nothing in the configuration has changed.".to_owned()];
    }
    let now = applied.iter().map(|change| told(change, "holds from now on"));
    let later =
        deferred.iter().map(|change| told(change, "holds once that program is started anew"));
    now.chain(later).collect()
}

/// Has it log more or less.
pub(super) async fn log(config: &Config, command: &LogCommand, shell: &mut Shell<'_>) -> Outcome {
    let LogCommand::Level(LevelArgs { level, period }) = command;
    let period = period.map(from_now).transpose()?;
    let client = live::require(config, shell).await?;
    client.set_log_level(level, period).await.map_err(|error| match error.kind() {
        ErrorKind::InvalidArgument => Failure::usage(error),
        _ => error.into(),
    })?;
    if shell.json {
        let seconds = period.map(|period| period.as_secs());
        return shell.object(&json!({ "level": level, "seconds": seconds }));
    }
    let level = printable(level);
    match period {
        Some(period) => {
            shell.say(format_args!("Logs at {level} for {} seconds.", period.as_secs()))
        }
        None => shell.say(format_args!("Logs at {level}.")),
    }
}

fn from_now(moment: Moment) -> Result<Duration> {
    let now = SystemClock.now();
    let period = moment.ahead(now)?.since(now);
    match period.as_secs() {
        0 => Err(Error::invalid("the level would be back at once; name a longer time")),
        _ => Ok(period),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_told_line_by_line() {
        let changed = json!({
            "applied": [{"key": "jobs.reap_seconds", "before": "60", "after": "30"}],
            "refused": [{"key": "http.listen", "before": null, "after": "127.0.0.1:9655"}],
        });
        let now = "jobs.reap_seconds: 60 -> 30, holds from now on";
        let later = "http.listen: none -> 127.0.0.1:9655, holds once that program is started anew";
        assert_eq!(reloaded(&changed), [now, later]);
        assert_eq!(reloaded(&json!({"applied": [], "refused": []})).len(), 1);
        assert_eq!(reloaded(&json!({"own": 1})), ["Reloaded: {\"own\":1}"]);
    }
}
