//! `gwstore health` and `gwstore metrics`: what a served store says of itself, without a port.

use std::io::Write;
use std::path::Path;

use clap::Args;
use ghostwire_store::Result;
use ghostwire_store::admin::Client;
use ghostwire_store::config::Config;
use serde_json::Value;

use crate::failure::{Ending, Failure, Outcome, file_error};
use crate::live;
use crate::output::{Shell, printable, shown};
use crate::top::Numbers;

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Whether every check passes; so by default.
    #[arg(long, conflicts_with = "live")]
    ready: bool,
    /// Whether a restart would not help.
    #[arg(long)]
    live: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// Write them to this file, in one step; for the textfile collector of node_exporter its name ends in
    /// .prom.
    #[arg(long, value_name = "FILE")]
    file: Option<std::path::PathBuf>,
}

/// A line about the store, and an exit code.
pub(super) async fn health(config: &Config, args: &HealthArgs, shell: &mut Shell<'_>) -> Outcome {
    let client = live::require(config, shell).await?;
    let health = client.health().await?;
    let is_so = |name: &str| health.get(name).and_then(Value::as_bool).unwrap_or(false);
    let asks_live = args.live && !args.ready;
    let is_well = if asks_live { is_so("live") } else { is_so("ready") };
    if shell.json {
        shell.object(&health)?;
    } else {
        shell.line(printable(&line(&health, asks_live)))?;
    }
    if is_well { Ok(()) } else { Err(Failure::Told(Ending::Found)) }
}

fn line(health: &Value, live: bool) -> String {
    let text = |name: &str| health.get(name).and_then(Value::as_str);
    let is_so = |name: &str| health.get(name).and_then(Value::as_bool).unwrap_or(false);
    let word = match (live, is_so("live"), is_so("ready")) {
        (true, true, _) => "live",
        (true, false, _) => "not live",
        (false, _, true) => "ready",
        (false, _, false) => "not ready",
    };
    let mut line = word.to_owned();
    let state = text("state").filter(|state| *state != word);
    for part in [state, text("reason"), text("next_step")].into_iter().flatten() {
        line.push_str(if line == word { ": " } else { "; " });
        line.push_str(part);
    }
    line
}

/// The metrics, as text.
pub(super) async fn metrics(config: &Config, args: &MetricsArgs, shell: &mut Shell<'_>) -> Outcome {
    let text = live::require(config, shell).await?.metrics().await?;
    match &args.file {
        None => Ok(shell.out.write_all(text.as_bytes())?),
        Some(path) => {
            replace(path, &text)?;
            shell.say(format_args!("Wrote the metrics to {}", shown(path)))
        }
    }
}

/// A collector never sees half a file.
fn replace(path: &Path, text: &str) -> Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let failed = |error| file_error("the file cannot be written", Some(path), error);
    let mut file = tempfile::Builder::new()
        .prefix(".gwstore-metrics-")
        .tempfile_in(directory.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    // Others read it: nothing in it is secret.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(mode).map_err(failed)?;
    }
    file.persist(path).map(drop).map_err(|error| failed(error.error))
}

impl Numbers for Client {
    async fn metrics(&self) -> Result<String> {
        Self::metrics(self).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_line_says_it() {
        let ready = json!({"state": "ready", "ready": true, "live": true});
        assert_eq!(line(&ready, false), "ready");
        assert_eq!(line(&ready, true), "live: ready");
        let full = json!({
            "state": "degraded", "ready": false, "live": true,
            "reason": "no room", "next_step": "make room",
        });
        assert_eq!(line(&full, false), "not ready: degraded; no room; make room");
    }
}
