//! `gwstore native`: whether a ZQLite library is to be trusted with a store.

use std::ffi::OsString;

use ghostwire_store::config::Config;
use ghostwire_store::native::{
    Effort, Examination, Outcome as Found, Program, Report, SCRATCH_STORE, STEPS, SUITE_LIMIT,
    Step, Suite, SuiteRun, examination, examine, is_chosen, require,
};
use ghostwire_store::{Error, ErrorKind, Result};
use serde_json::json;

use crate::cli::NativeCheckArgs;
use crate::failure::{Ending, Failure, Outcome};
use crate::output::{Shell, printable, shown};

/// Tests a library, and keeps the verdict if it is the configured one's.
pub(super) fn check(config: &Config, args: &NativeCheckArgs, shell: &mut Shell<'_>) -> Outcome {
    let NativeCheckArgs { kills_in_transaction, kills_in_commit, rows, .. } = *args;
    let effort = Effort { kills_in_transaction, kills_in_commit, rows };
    let mut wanted = examination(config, args.library.as_deref(), effort)?;
    wanted.suite = match args.without_conformance {
        true => Suite::LeftOut,
        false => suite(&wanted, args.conformance_filter.as_deref())?,
    };
    let is_configured = is_chosen(config)
        && examination(config, None, effort).is_ok_and(|own| own.library == wanted.library);
    let lacks_suite = matches!(wanted.suite, Suite::NotBuilt);
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
                false if !is_configured =>
                    " It is not the configured store's, so no verdict is kept.",
                false if lacks_suite =>
                    " The conformance suite was not run, so no verdict is kept; build gwstore with \
                     --features zqlite-native,conformance, or leave the suite out with \
                     --without-conformance.",
                false =>
                    " Less was tried than a store needs, so no verdict is kept; leave the numbers and \
                     the filter out.",
            }
        ))?;
    }
    match report.require() {
        // The line of the step says what is missing.
        Ok(_) if lacks_suite => Err(Failure::Told(Ending::Partly)),
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::As(Ending::Found, error)),
    }
}

/// The last step: this program runs the conformance suite for the scratch store, if it has it.
fn suite(wanted: &Examination, filter: Option<&str>) -> Result<Suite> {
    if !cfg!(feature = "conformance") {
        return Ok(Suite::NotBuilt);
    }
    let path = std::env::current_exe().map_err(|error| {
        Error::invalid(
            "it cannot be told where this program is, and so not what runs the conformance suite; \
             --without-conformance leaves the suite out",
        )
        .because(error)
    })?;
    let fixed = ["--backend", "zqlite", "--path", SCRATCH_STORE, "--set", "zqlite.engine=native"];
    let mut arguments: Vec<OsString> = fixed.map(OsString::from).into();
    let files = [("zqlite.library=", &wanted.library), ("zqlite.program=", &wanted.program.path)];
    for (key, file) in files {
        let mut setting = OsString::from(key);
        setting.push(file);
        arguments.extend(["--set".into(), setting]);
    }
    arguments.push("conformance".into());
    // Behind the mark it is no option, however it begins.
    arguments.extend(filter.into_iter().flat_map(|filter| ["--", filter]).map(OsString::from));
    let program = Program { path, arguments };
    Ok(Suite::Run(SuiteRun { program, is_whole: filter.is_none(), limit: SUITE_LIMIT }))
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
    let mut wanted = examination(config, None, Effort::FULL)?;
    let untested = match require(&wanted) {
        Err(error) if *error.kind() == ErrorKind::Unsupported => error,
        other => return other.map(drop),
    };
    wanted.suite = suite(&wanted, None)?;
    if matches!(wanted.suite, Suite::NotBuilt) {
        return Err(untested.with(
            "help",
            "this gwstore lacks the test's last step: build it with --features zqlite-native,conformance, \
             or run `gwstore native check --without-conformance`",
        ));
    }
    tracing::info!(library = %wanted.library.display(), "testing the ZQLite library");
    let report = examine(&wanted, |step| {
        tracing::info!(step = step.name, outcome = step.outcome.name(), detail = %step.detail);
    })?;
    report.require()?.keep(&wanted.store)
}
