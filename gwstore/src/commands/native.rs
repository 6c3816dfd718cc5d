//! `gwstore native`: whether a ZQLite library is to be trusted with a store.

use ghostwire_store::config::Config;
use ghostwire_store::native::{
    Effort, Examination, Outcome as Found, Report, STEPS, Step, examination, examine, is_chosen,
    require,
};
use ghostwire_store::{ErrorKind, Result};
use serde_json::json;

use crate::cli::NativeCheckArgs;
use crate::failure::{Ending, Failure, Outcome};
use crate::output::{Shell, printable, shown};

/// Tests a library, and keeps the verdict if it is the configured one's.
pub(super) fn check(config: &Config, args: &NativeCheckArgs, shell: &mut Shell<'_>) -> Outcome {
    let NativeCheckArgs { kills_in_transaction, kills_in_commit, rows, .. } = *args;
    let effort = Effort { kills_in_transaction, kills_in_commit, rows };
    let wanted = examination(config, args.library.as_deref(), effort)?;
    let is_configured = is_chosen(config)
        && examination(config, None, effort).is_ok_and(|own| own.library == wanted.library);
    let mut said = Ok(());
    let report = examine(&wanted, |step| {
        if said.is_ok() && !shell.json {
            said = tell(step, shell);
        }
    })?;
    said?;
    let kept = match report.require() {
        Ok(verdict) if is_configured && verdict.is_full() => {
            verdict.keep(&wanted.store).map(|()| true)?
        }
        _ => false,
    };
    if shell.json {
        shell.object(&summary(&report, &wanted, kept))?;
    } else if report.verdict.is_some() {
        shell.say(format_args!(
            "\nThe library at {} passed.{}",
            shown(&wanted.library),
            match kept {
                true => " The store can be opened with it.",
                false if is_configured =>
                    " Less was tried than a store needs, so no verdict is kept; leave the numbers out.",
                false => " It is not the configured store's, so no verdict is kept.",
            }
        ))?;
    }
    match report.require() {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::As(Ending::Found, error)),
    }
}

fn tell(step: &Step, shell: &mut Shell<'_>) -> Outcome {
    let says = STEPS.iter().find(|known| known.name == step.name).map_or("", |known| known.says);
    let Step { name, outcome, detail, milliseconds } = step;
    let detail = match detail.is_empty() {
        true => String::new(),
        false => format!("; {}", printable(detail)),
    };
    match outcome {
        Found::Skipped => shell.line(format_args!("{name:<21} {}", outcome.name())),
        _ => shell.line(format_args!(
            "{name:<21} {:<12}{says}{detail} ({milliseconds} ms)",
            outcome.name()
        )),
    }
}

fn summary(report: &Report, wanted: &Examination, kept: bool) -> serde_json::Value {
    json!({
        "library": wanted.library,
        "sha256": report.verdict.as_ref().map(|verdict| &verdict.sha256),
        "version": report.loaded.as_ref().map(|loaded| &loaded.version),
        "passed": report.verdict.is_some(),
        "verdict_kept": kept,
        "steps": report.steps,
    })
}

/// Before a store is made on the native engine: tests its library, unless that was done.
pub(super) fn admit(config: &Config) -> Result<()> {
    if !is_chosen(config) {
        return Ok(());
    }
    let wanted = examination(config, None, Effort::FULL)?;
    match require(&wanted) {
        Err(error) if *error.kind() == ErrorKind::Unsupported => {}
        other => return other.map(drop),
    }
    tracing::info!(library = %wanted.library.display(), "testing the ZQLite library");
    let report = examine(&wanted, |step| {
        tracing::info!(step = step.name, outcome = step.outcome.name(), detail = %step.detail);
    })?;
    report.require()?.keep(&wanted.store)
}
