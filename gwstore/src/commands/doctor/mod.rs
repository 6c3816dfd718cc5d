//! `gwstore doctor`: looks at everything that a store depends on, changes nothing, and says what to
//! do about what it finds.

mod disk;
mod files;
mod keyring;
mod leftovers;
mod owners;
#[cfg(feature = "zqlite")]
mod pin;
mod stored;

use std::fmt::Display;
use std::{fs, io};

use ghostwire_store::config::{BackendKind, Config};
use ghostwire_store::{COMPILED_BACKENDS, Error, ErrorKind};
use serde::Serialize;
use serde_json::json;

use crate::failure::{Ending, Failure, Outcome, one_line};
use crate::live::{self, Found};
use crate::output::{Shell, printable};
use crate::permissions::{owner, this_user};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warn,
    /// The check could not be made: nobody knows.
    Unchecked,
    Fail,
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    /// It can be made once nobody uses the store.
    #[serde(skip)]
    is_busy: bool,
}

impl Finding {
    fn ok(check: &'static str, found: impl Display) -> Self {
        let found = found.to_string();
        Self { check, verdict: Verdict::Ok, found, advice: None, is_busy: false }
    }

    fn warn(check: &'static str, found: impl Display, advice: impl Display) -> Self {
        let advice = Some(advice.to_string());
        Self { verdict: Verdict::Warn, advice, ..Self::ok(check, found) }
    }

    fn unchecked(check: &'static str, found: impl Display, advice: impl Display) -> Self {
        Self { verdict: Verdict::Unchecked, ..Self::warn(check, found, advice) }
    }

    fn fail(check: &'static str, found: impl Display, advice: impl Display) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(check, found, advice) }
    }

    /// An error is a failure, unless only the store is in use; its own help is the better advice.
    fn error(check: &'static str, error: &Error, advice: impl Display) -> Self {
        if *error.kind() == ErrorKind::Busy {
            let advice = "this was not checked: try again once nobody uses the store";
            return Self { is_busy: true, ..Self::unchecked(check, one_line(error), advice) };
        }
        let help = error.context().iter().find(|(key, _)| *key == "help");
        match help {
            Some((_, help)) => Self::fail(check, one_line(error), help),
            None => Self::fail(check, one_line(error), advice),
        }
    }
}

/// The findings so far; people see each as it is made, since some take time.
struct Checkup<'s, 'o> {
    shell: &'s mut Shell<'o>,
    findings: Vec<Finding>,
}

impl Checkup<'_, '_> {
    fn add(&mut self, finding: Finding) -> Outcome {
        let is_news = finding.verdict != Verdict::Ok || !self.shell.quiet;
        if is_news && !self.shell.json {
            let verdict = match finding.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Unchecked => "skip",
                Verdict::Fail => "FAIL",
            };
            let Finding { check, found, .. } = &finding;
            self.shell.line(format_args!("{verdict}  {check}: {}", printable(found)))?;
            if let Some(advice) = &finding.advice {
                self.shell.line(format_args!("      {}", printable(advice)))?;
            }
            self.shell.out.flush()?;
        }
        self.findings.push(finding);
        Ok(())
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    fn end(self) -> Outcome {
        let verdicts = [Verdict::Ok, Verdict::Warn, Verdict::Unchecked, Verdict::Fail];
        let [ok, warn, unchecked, fail] = verdicts.map(|verdict| self.count(verdict));
        let is_busy = self.findings.iter().any(|finding| finding.is_busy);
        if self.shell.json {
            let worst = self.findings.iter().map(|finding| finding.verdict).max();
            self.shell.object(&json!({ "verdict": worst, "findings": self.findings }))?;
        } else {
            self.shell.say(format_args!(
                "\n{ok} in order, {warn} to look at, {unchecked} not checked, {fail} failed"
            ))?;
        }
        match (fail, unchecked) {
            (0, 0) => Ok(()),
            (0, _) if is_busy => Err(Failure::Told(Ending::Busy)),
            (0, _) => Err(Failure::Told(Ending::Partly)),
            _ => Err(Failure::Told(Ending::Found)),
        }
    }
}

/// Whom the admin socket answers though the store's files are another user's, to whom they say nothing.
async fn guest(config: &Config, shell: &mut Shell<'_>) -> Option<String> {
    let path = config.backend.path()?;
    let own = this_user().filter(|user| *user != 0)?;
    let is_closed = match fs::metadata(path) {
        Ok(metadata) => owner(&metadata).is_some_and(|owner| owner != own),
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    };
    let Ok(Found::Served(client)) = live::find(config, shell).await else { return None };
    let pid = client.welcome().pid;
    is_closed.then(|| {
        format!(
            "only the store's user can judge them; this is user {own}, whom process {pid} answers"
        )
    })
}

/// Runs every check. A configuration that cannot be loaded is a finding, the last one then.
pub(super) async fn run(config: Outcome<Config>, shell: &mut Shell<'_>) -> Outcome {
    let mut checkup = Checkup { shell, findings: Vec::new() };
    let config = match config {
        Ok(config) => config,
        Err(Failure::Error(error)) => {
            let advice = "correct the flag file, the variable or the option; docs/configuration.md \
                          lists every key";
            checkup.add(Finding::error("configuration", &error, advice))?;
            return checkup.end();
        }
        Err(failure) => return Err(failure),
    };
    let kind = config.backend.kind();
    let loaded = format!(
        "environment {}, store {}, backend {kind}, {}",
        config.environment,
        config.store,
        match &config.flag_file {
            Some(path) => format!("flag file {}", path.display()),
            None => "no flag file: built-in defaults, variables and options hold".to_owned(),
        }
    );
    checkup.add(Finding::ok("configuration", loaded))?;
    if !COMPILED_BACKENDS.contains(&kind) {
        let lasting = COMPILED_BACKENDS.iter().filter(|kind| **kind != BackendKind::Memory);
        let known: Vec<_> = lasting.map(|kind| kind.name()).collect();
        let found = format!("{kind} is not compiled in");
        let advice = format!("choose one of {}", known.join(", "));
        checkup.add(Finding::fail("backend", found, advice))?;
        return checkup.end();
    }
    if kind == BackendKind::Memory {
        let advice = "choose another for anything but tests";
        let found = format!("{kind} keeps nothing beyond the process");
        checkup.add(Finding::warn("backend", found, advice))?;
    }
    if let Some(found) = guest(&config, checkup.shell).await {
        let advice = "run the doctor as the store's user for directory, files and keys";
        checkup.add(Finding::unchecked("files", found, advice))?;
    } else {
        if let Some(path) = config.backend.path() {
            files::check(&config, path, &mut checkup).await?;
        }
        keyring::check(&config, &mut checkup).await?;
        #[cfg(feature = "zqlite")]
        pin::check(&config, &mut checkup).await?;
    }
    stored::check(&config, &mut checkup).await?;
    checkup.end()
}
