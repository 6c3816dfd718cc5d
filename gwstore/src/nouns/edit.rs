//! Edits: what one comes to, and how to go about it.

use std::path::PathBuf;

use clap::Args;
use ghostwire_store::Result;
use ghostwire_store::admin::protocol::Issue;
use ghostwire_store::command::{Command, EntityRecord, Precondition};
use ghostwire_store::domain::Fingerprint;

use super::{Act, Scene, name_of, revision_of};
use crate::failure::Outcome;
use crate::output::called;

/// What an edit comes to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) commands: Vec<Command>,
    /// One for each entity that was looked at, as far as there are such.
    pub(crate) requires: Vec<Precondition>,
    /// Of those that the edit is about; 0 of what is not there yet.
    pub(crate) revisions: Vec<u64>,
    /// What of the input is not taken as it is.
    pub(crate) notes: Vec<String>,
    /// What those are called.
    pub(crate) about: Vec<String>,
    /// The set of records that it replaces.
    pub(crate) set: Option<Fingerprint>,
}

impl Plan {
    /// A command that looks at nothing that is there.
    pub(crate) fn of(command: impl Into<Command>) -> Self {
        Self::default().then(command)
    }

    /// About this entity, as it is.
    pub(super) fn on(record: &EntityRecord, scene: &Scene<'_>) -> Self {
        Self::default().and(record, scene)
    }

    pub(super) fn and(mut self, record: &EntityRecord, scene: &Scene<'_>) -> Self {
        if let Some(revision) = revision_of(record) {
            self.revisions.push(revision);
            self.about.push(format!(
                "{} {}",
                called(record.entity()),
                name_of(record, scene.state)
            ));
        }
        self.requires.extend(match record {
            EntityRecord::User(user) => Some(Precondition::UserRevision(user.id, user.revision)),
            EntityRecord::Node(node) => Some(Precondition::NodeRevision(node.id, node.revision)),
            EntityRecord::Route(route) => {
                Some(Precondition::RouteRevision(route.id, route.revision))
            }
            EntityRecord::Setting(setting) => {
                Some(Precondition::SettingRevision(setting.document.kind(), Some(setting.revision)))
            }
            EntityRecord::DnsRecord(record) => {
                let set = scene.state.dns_records().set(&record.name, record.kind);
                Some(Precondition::DnsRecordSet(set.name, set.kind, set.fingerprint))
            }
            _ => None,
        });
        self
    }

    pub(super) fn then(mut self, command: impl Into<Command>) -> Self {
        self.commands.push(command.into());
        self
    }

    /// A command for each of these.
    pub(super) fn each<C: Into<Command>>(
        records: &[EntityRecord],
        scene: &Scene<'_>,
        command: impl Fn(&EntityRecord) -> Option<C>,
    ) -> Self {
        records.iter().fold(Self::default(), |plan, record| match command(record) {
            Some(command) => plan.and(record, scene).then(command),
            None => plan,
        })
    }
}

/// An edit.
pub(crate) trait Plans: std::fmt::Debug {
    /// What it comes to in this state.
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan>;
}

/// An edit that makes a secret.
pub(crate) trait Issues: std::fmt::Debug {
    fn issue(&self, scene: &Scene<'_>) -> Outcome<Issue>;
}

/// How to go about an edit.
#[derive(Debug, Args)]
#[command(next_help_heading = "Safety")]
pub(crate) struct How {
    /// Only say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Only if this is still its revision; 0 if it is not there yet. Of a policy the version in force, of a set
    /// of DNS records the `set` that JSON shows with each of them.
    #[arg(long, value_name = "NUMBER", alias = "expect-version")]
    pub(crate) expect_revision: Option<Expected>,
}

/// What somebody read, and wants to be as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Revision(u64),
    Set(Fingerprint),
}

impl std::str::FromStr for Expected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(fingerprint) = text.parse() {
            return Ok(Self::Set(fingerprint));
        }
        text.parse().map(Self::Revision).map_err(|error| error.to_string())
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Revision(number) => number.fmt(f),
            Self::Set(fingerprint) => fingerprint.fmt(f),
        }
    }
}

/// How to go about what deletes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Safety")]
pub(crate) struct Deleting {
    #[command(flatten)]
    how: How,
    /// Do it without asking.
    #[arg(short, long, alias = "force", conflicts_with = "dry_run")]
    pub(crate) yes: bool,
    /// First write what goes to this new file; `gwstore import portable FILE` brings it back, once nobody has the
    /// store open.
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub(crate) save: Option<PathBuf>,
}

/// How to go about an edit; `deleting` if it takes something away for good.
#[derive(Clone, Copy)]
pub(crate) struct Manner<'a> {
    pub(crate) how: &'a How,
    pub(crate) deleting: Option<&'a Deleting>,
}

/// An edit, and how to go about it.
#[derive(Debug, Args)]
pub(crate) struct Edit<A: Args> {
    #[command(flatten)]
    what: A,
    #[command(flatten)]
    how: How,
}

impl<A: Args + Plans> Edit<A> {
    pub(super) fn act(&self) -> Act<'_> {
        Act::Edit(&self.what, Manner { how: &self.how, deleting: None })
    }
}

impl<A: Args + Issues> Edit<A> {
    pub(super) fn issue(&self) -> Act<'_> {
        Act::Issue(&self.what, &self.how)
    }
}

/// An edit that deletes, and how to go about it.
#[derive(Debug, Args)]
pub(crate) struct Delete<A: Args> {
    #[command(flatten)]
    what: A,
    #[command(flatten)]
    deleting: Deleting,
}

impl<A: Args + Plans> Delete<A> {
    pub(super) fn act(&self) -> Act<'_> {
        let deleting = &self.deleting;
        Act::Edit(&self.what, Manner { how: &deleting.how, deleting: Some(deleting) })
    }
}
