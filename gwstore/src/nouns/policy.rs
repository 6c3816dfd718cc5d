//! `gwstore policy`.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ghostwire_store::command::{PolicyCommand, Precondition};
use ghostwire_store::domain::{DocumentText, PolicyVersion};
use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::Table;
use serde_json::{Map, Value};

use super::{Act, Delete, Edit, Everything, ListArgs, Plan, Plans, Scene, usage};
use crate::failure::{Failure, Outcome, input_error};
use crate::headscale::hujson;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the versions, the newest first.
    #[command(visible_aliases = ["ls", "history"])]
    List(ListArgs<Everything>),
    /// Print the document in force, or another version, as it was written.
    #[command(visible_alias = "show")]
    Get(Get),
    /// Put a document in force as the next version, if it passes `policy check`.
    #[command(aliases = ["create", "edit", "put", "apply"])]
    Set(Edit<Set>),
    /// Check that a document is HuJSON: JSON, with comments and trailing commas. Needs no store.
    #[command(aliases = ["validate", "test"])]
    Check(Check),
    /// Put an earlier version in force again, as the next version.
    Rollback(Edit<Rollback>),
    /// Delete all but the newest versions.
    #[command(alias = "delete")]
    Prune(Delete<Prune>),
}

impl Verb {
    pub(super) fn act(&self) -> Act<'_> {
        match self {
            Self::List(list) => list.act(Table::Policies),
            Self::Get(get) => Act::GetPolicy(get),
            Self::Set(edit) => edit.act(),
            Self::Check(check) => Act::CheckPolicy(check),
            Self::Rollback(edit) => edit.act(),
            Self::Prune(delete) => delete.act(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Not the one in force, but this version.
    #[arg(value_name = "VERSION", value_parser = version)]
    number: Option<PolicyVersion>,
    /// The same, as an option.
    #[arg(long = "version", value_name = "NUMBER", value_parser = version, hide = true,
        conflicts_with = "number")]
    named: Option<PolicyVersion>,
}

fn version(text: &str) -> Result<PolicyVersion, String> {
    let version = text.parse::<u64>().map_err(|error| error.to_string())?;
    PolicyVersion::new(version).map_err(|error| error.to_string())
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) input: Input,
}

/// A document.
#[derive(Debug, Args)]
pub(crate) struct Input {
    /// The file that has the document, or `-` for standard input.
    #[arg(required_unless_present = "named")]
    file: Option<PathBuf>,
    /// The same, as in other tools.
    #[arg(short = 'f', long = "file", value_name = "FILE", hide = true, conflicts_with = "file")]
    named: Option<PathBuf>,
}

impl Input {
    pub(super) fn of(file: &Path) -> Self {
        Self { file: Some(file.to_owned()), named: None }
    }

    pub(super) fn read(&self) -> Outcome<String> {
        let path = self.file.as_ref().or(self.named.as_ref());
        let path = path.ok_or_else(|| usage("name a file"))?;
        let text = if path.as_os_str() == "-" {
            let mut text = String::new();
            io::stdin().lock().read_to_string(&mut text).map(|_| text)
        } else {
            fs::read_to_string(path)
        };
        Ok(text.map_err(|error| {
            input_error("the document cannot be read", Some(path.as_path()), error)
        })?)
    }

    /// Reads a policy, and checks it.
    pub(crate) fn checked(&self) -> Outcome<DocumentText> {
        let text = self.read()?;
        check(&text)?;
        Ok(DocumentText::new(text)?)
    }
}

/// A document without anything in it is a policy, too: it denies everything.
fn check(text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Ok(());
    }
    let invalid = || Error::invalid("the document is no HuJSON object");
    let json = hujson::to_json(text)
        .ok_or_else(|| invalid().with("found", "a comment or a string without an end"))?;
    serde_json::from_str::<Map<String, Value>>(&json).map(|_| ()).map_err(|error| {
        let invalid = invalid().with("line", error.line()).with("column", error.column());
        match error.is_data() {
            // Its message may repeat what is in the document.
            true => invalid.with("found", "something else than an object"),
            false => {
                let reason = error.to_string();
                let reason = reason.split_once(" at line ").map_or("", |(reason, _)| reason);
                invalid.with("found", reason)
            }
        }
    })
}

/// What a control plane may know at the top of a policy.
const KNOWN_KEYS: [&str; 16] = [
    "acls",
    "autoApprovers",
    "defaultSrcPosture",
    "derpMap",
    "disableIPv4",
    "extraDNSRecords",
    "grants",
    "groups",
    "hosts",
    "ipsets",
    "nodeAttrs",
    "oneCGNATRoute",
    "postures",
    "randomizeClientPort",
    "ssh",
    "tagOwners",
];
/// Of those nobody misspells the other.
const KNOWN_TESTS: [&str; 2] = ["tests", "sshTests"];
/// More are rather another document.
const MOST_UNKNOWN: usize = 10;

/// What is said of each key at the top of a checked document that no control plane is known to read: a
/// misspelt one is a rule less.
pub(crate) fn unknown_keys(document: &str) -> Vec<String> {
    let parsed = hujson::to_json(document).and_then(|json| serde_json::from_str(&json).ok());
    let object: Map<String, Value> = parsed.unwrap_or_default();
    let known = || KNOWN_KEYS.into_iter().chain(KNOWN_TESTS);
    let is_known = |key: &&String| known().any(|known| known.eq_ignore_ascii_case(key));
    let unknown = object.keys().filter(|key| !is_known(key)).take(MOST_UNKNOWN);
    let lower = str::to_ascii_lowercase;
    let told = unknown.map(|key| {
        let shown: String = key.chars().take(LONGEST_KEY).collect();
        let nearest = known()
            .map(|known| (strsim::osa_distance(&lower(&shown), &lower(known)), known))
            .min()
            .filter(|(distance, known)| distance * 2 <= known.len());
        match nearest {
            Some((_, nearest)) => {
                format!("`{shown}` at the top is no known part of a policy; nearest is `{nearest}`")
            }
            None => format!("`{shown}` at the top is no known part of a policy"),
        }
    });
    told.collect()
}

/// So much of a key is shown.
const LONGEST_KEY: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    input: Input,
    /// Whatever the document is: the store does not read it.
    #[arg(long)]
    unchecked: bool,
    /// An empty document is meant: it denies everything.
    #[arg(short, long)]
    yes: bool,
}

/// What a pipe gives whose first command failed is empty, too.
fn require_something(document: &DocumentText) -> Result<()> {
    if !document.as_str().trim().is_empty() {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Restricted, "the document is empty, which denies everything");
    Err(error.with("help", "say --yes if that is meant"))
}

impl Plans for Set {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let document = match self.unchecked {
            true => DocumentText::new(self.input.read()?)?,
            false => self.input.checked()?,
        };
        let expected = scene.state.policies().current().map(|policy| policy.version);
        if scene.state.policies().current().is_some_and(|policy| policy.document == document) {
            return Ok(Plan { revisions: vec![current(scene)], ..Plan::default() });
        }
        if !self.yes {
            require_something(&document)?;
        }
        Ok(on_current(scene).then(PolicyCommand::Swap { expected, document }))
    }
}

fn current(scene: &Scene<'_>) -> u64 {
    scene.state.policies().current().map_or(0, |policy| policy.version.get())
}

fn on_current(scene: &Scene<'_>) -> Plan {
    let version = scene.state.policies().current().map(|policy| policy.version);
    let requires = vec![Precondition::PolicyVersion(version)];
    let about = vec!["the policy".to_owned()];
    Plan { requires, revisions: vec![current(scene)], about, ..Plan::default() }
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The version; without one that before the one in force.
    #[arg(value_parser = version)]
    to: Option<PolicyVersion>,
}

impl Plans for Rollback {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let none = || Error::new(ErrorKind::NotFound, "there is no policy to go back from or to");
        let policies = scene.state.policies();
        let expected = policies.current().map(|policy| policy.version).ok_or_else(none)?;
        let before = || PolicyVersion::new(expected.get() - 1).map_err(|_| none());
        let to = self.to.map_or_else(before, Ok)?;
        let mut plan = on_current(scene).then(PolicyCommand::Rollback { expected, to });
        let next = expected.get().saturating_add(1);
        plan.notes.push(format!("version {to} is in force again, as version {next}"));
        Ok(plan)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// So many stay, the one in force always.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
}

impl Plans for Prune {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let part = ghostwire_store::command::Part::WHOLE;
        Ok(on_current(scene).then(PolicyCommand::Prune { keep: self.keep, part }))
    }
}

/// The document that is asked for.
pub(crate) fn get(args: &Get, scene: &Scene<'_>) -> Outcome<DocumentText> {
    let policies = scene.state.policies();
    let found = match args.number.or(args.named) {
        Some(version) => policies.get(version),
        None => policies.current(),
    };
    let missing = || Failure::from(Error::new(ErrorKind::NotFound, "there is no such policy"));
    found.map(|policy| policy.document.clone()).ok_or_else(missing)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::{check, unknown_keys};

    #[test]
    fn a_misspelt_part_of_a_policy_is_named() {
        assert!(unknown_keys("{\"acls\": [], \"TagOwners\": {}, \"tests\": []}").is_empty());
        let told = unknown_keys("{\"acl\": [], \"group\": {}, \"weather\": 1}");
        assert!(told[0].contains("`acl`") && told[0].contains("`acls`"), "{told:?}");
        assert!(told[1].contains("`groups`"), "{told:?}");
        assert!(told[2].contains("`weather`") && !told[2].contains("nearest"), "{told:?}");
        assert!(unknown_keys("").is_empty());
    }

    #[test]
    fn a_policy_is_hujson() {
        for good in ["", " \n", "{}", "{\"acls\": [], // none\n}", "/* a */ {\"a\": 1,}"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["[]", "1", "{", "{\"a\" 1}", "/* {}", "{\"a\": \"", "acls: []"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        let error = check("{\n  \"secret-word\" 1\n}").unwrap_err().to_string();
        assert!(error.contains("line=2") && !error.contains("secret-word"), "{error}");
        assert!(error.contains("found=expected `:`"), "{error}");
        let error = check("[\"secret-word\"]").unwrap_err().to_string();
        assert!(error.contains("something else") && !error.contains("secret-word"), "{error}");
    }
}
