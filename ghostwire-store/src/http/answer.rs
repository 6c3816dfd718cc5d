//! What is answered. Pure.

use std::fmt::Write;

use ghostwire_store_core::health::{Check, CheckName, Health, Outcome};

/// Status and text of an answer.
pub(super) type Answer = (u16, String);

/// What a request for `/readyz` asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ReadyQuery {
    is_verbose: bool,
    excluded: Vec<CheckName>,
}

impl ReadyQuery {
    /// Reads it; what it does not know is refused with what there is: a probe that asks for something else
    /// than it means to is a mistake to be seen at once.
    pub(super) fn parse(query: &str) -> Result<Self, Answer> {
        let mut parsed = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key {
                "verbose" if matches!(value, "" | "true" | "1") => parsed.is_verbose = true,
                "exclude" => match CheckName::from_name(value) {
                    Some(name) => parsed.excluded.push(name),
                    None => return Err((400, unknown_check())),
                },
                _ => return Err((400, "only ?verbose and ?exclude=CHECK are known\n".to_owned())),
            }
        }
        Ok(parsed)
    }
}

fn unknown_check() -> String {
    let names = CheckName::ALL.map(CheckName::name);
    format!("there is no such check; there are {}\n", names.join(", "))
}

/// Whether requests may be sent here.
pub(super) fn ready(health: &Health, query: &ReadyQuery) -> Answer {
    let counts = |check: &&Check| !query.excluded.contains(&check.name);
    let is_ready = !health.checks.iter().filter(counts).any(Check::has_failed);
    if is_ready && !query.is_verbose {
        return (200, "ok\n".to_owned());
    }
    let mut text = String::new();
    for check in &health.checks {
        let line = match check.outcome {
            _ if !counts(&check) => format!("[+] {} excluded", check.name.name()),
            Outcome::Failed => describe_failed(check),
            _ if !query.is_verbose => continue,
            Outcome::Passed => format!("[+] {} ok", check.name.name()),
            Outcome::NotApplicable => format!("[+] {} does not apply", check.name.name()),
            Outcome::Unknown => format!("[+] {} not looked at yet", check.name.name()),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(text, "{}", if is_ready { "ready" } else { "not ready" });
    (if is_ready { 200 } else { 503 }, text)
}

/// What came of one check.
pub(super) fn one_check(health: &Health, name: &str) -> Answer {
    let found = CheckName::from_name(name).and_then(|name| health.check(name));
    match found {
        None => (404, unknown_check()),
        Some(check) if check.has_failed() => (503, describe_failed(check) + "\n"),
        Some(_) => (200, "ok\n".to_owned()),
    }
}

fn describe_failed(check: &Check) -> String {
    let mut line = format!("[-] {} failed", check.name.name());
    if let Some(reason) = &check.reason {
        let _ = write!(line, ": {reason}");
    }
    if let Some(next_step) = check.next_step {
        let _ = write!(line, "; {next_step}");
    }
    line
}

/// Whether a restart would not help.
pub(super) fn live(health: &Health) -> Answer {
    if health.is_live() {
        return (200, "ok\n".to_owned());
    }
    let reason =
        health.reason.as_deref().unwrap_or("the writer has been at one command for a minute");
    (503, format!("a restart helps: {reason}\n"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ghostwire_store_core::health::LoadProgress;

    fn loading() -> Health {
        Health::loading(&LoadProgress::default())
    }

    fn query(text: &str) -> ReadyQuery {
        ReadyQuery::parse(text).unwrap()
    }

    #[test]
    fn whoever_is_not_ready_is_told_why() {
        let (status, text) = ready(&loading(), &query(""));
        assert_eq!(status, 503);
        assert_eq!(text, "[-] loaded failed: it is being opened: 0 rows read; wait\nnot ready\n");
        // A restart would not help.
        assert_eq!(live(&loading()), (200, "ok\n".to_owned()));
    }

    #[test]
    fn a_check_that_is_excluded_does_not_count_and_is_told() {
        let (status, text) = ready(&loading(), &query("exclude=loaded"));
        assert_eq!((status, text.as_str()), (200, "ok\n"));
        let (status, text) = ready(&loading(), &query("verbose&exclude=loaded"));
        assert_eq!(status, 200);
        assert_eq!(
            text,
            "[+] loaded excluded\n[+] writable does not apply\n[+] disk_space does not apply\n\
             [+] not_poisoned does not apply\n[+] view_fresh does not apply\n[+] not_draining ok\n\
             ready\n"
        );
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_there_is() {
        let (checks, options) = ("disk_space", "?verbose");
        for (wrong, tells) in [
            ("exclude=disk", checks),
            ("exclude", checks),
            ("verbos", options),
            ("verbose=no", options),
            ("exclude=loaded&x=1", options),
        ] {
            let (status, text) = ReadyQuery::parse(wrong).unwrap_err();
            assert_eq!(status, 400, "{wrong}");
            assert!(text.contains(tells), "{wrong}: {text}");
        }
        let (status, text) = one_check(&loading(), "lodaed");
        assert_eq!(status, 404);
        assert!(text.contains("loaded, writable"), "{text}");
        assert!(!text.contains("lodaed"), "what was asked for is not repeated");
    }

    #[test]
    fn each_check_can_be_asked_for() {
        assert_eq!(one_check(&loading(), "not_draining"), (200, "ok\n".to_owned()));
        assert_eq!(one_check(&loading(), "loaded").0, 503);
    }
}
