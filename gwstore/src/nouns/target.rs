//! Which entity is meant. Nobody guesses: what names several is refused, and they are listed.

use clap::Args;
use ghostwire_store::admin::select::{
    LEAST_PART, candidates, credential_in, id_of, is_called, public_part,
};
use ghostwire_store::command::EntityRecord;
use ghostwire_store::domain::{NodeId, SessionOwner};
use ghostwire_store::{Error, ErrorKind};
use ghostwire_store_core::schema::Table;
use ghostwire_store_core::state::State;

use super::{Named, Scene, Selection, nonempty, usage};
use crate::failure::{Ending, Failure, Outcome};

/// So many candidates are listed.
const MOST_LISTED: usize = 10;
/// No public part of a key, and no id, is longer.
const LONGEST_SHOWN: usize = 36;

/// One entity.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Which: an id or a unique part of one, a name, label, address, e-mail address or prefix.
    #[arg(value_name = "TARGET", value_parser = nonempty(), required_unless_present = "identifier")]
    target: Option<String>,
    /// The same, as in other tools.
    #[arg(short, long, short_alias = 'n', aliases = ["id", "name"], value_name = "TARGET",
        value_parser = nonempty(), hide = true)]
    identifier: Option<String>,
}

impl Target {
    /// The text that names it.
    pub(crate) fn text(&self) -> Option<&str> {
        self.identifier.as_deref().or(self.target.as_deref())
    }

    /// What names it, and the words behind that.
    pub(super) fn split<'a>(&'a self, rest: &'a [String]) -> Outcome<(&'a str, Vec<&'a str>)> {
        let words = self.target.iter().chain(rest).map(String::as_str);
        let mut words = self.identifier.as_deref().into_iter().chain(words);
        let target = words.next().ok_or_else(|| usage("say which one"))?;
        Ok((target, words.collect()))
    }

    pub(crate) fn find(&self, table: Table, scene: &Scene<'_>) -> Outcome<EntityRecord> {
        match self.split(&[])? {
            (target, rest) if rest.is_empty() => find(table, target, scene),
            _ => Err(usage("too many arguments: --identifier names it already")),
        }
    }
}

/// Any number of entities.
#[derive(Debug, Args)]
pub(crate) struct Chosen<S: Args> {
    /// Which: an id or a unique part of one, a name, label, address, e-mail address or prefix; may be
    /// repeated. With options that select, only among those; without a target, all of those. Up to 5,000
    /// change in one commit, all or none; more go in parts of as many.
    #[arg(value_name = "TARGET", value_parser = nonempty())]
    targets: Vec<String>,
    /// The same, as in other tools.
    #[arg(short, long, alias = "id", value_name = "TARGET", value_parser = nonempty(), hide = true)]
    identifier: Vec<String>,
    #[command(flatten, next_help_heading = "Selection")]
    selection: S,
}

impl<S: Args + Selection> Chosen<S> {
    pub(super) fn find(&self, table: Table, scene: &Scene<'_>) -> Outcome<Vec<EntityRecord>> {
        let mut targets = self.targets.iter().chain(&self.identifier).peekable();
        if targets.peek().is_none() && !self.selection.is_given() {
            return Err(usage("say which: name them, or give options that select"));
        }
        let admits = self.selection.admits(scene)?;
        if targets.peek().is_none() {
            if let Some(Named { option, name, is_it }) = self.selection.names()
                && !scene.state.images_of(table).any(|record| is_it(&record))
            {
                let error = absence(table).with("option", option);
                return Err(error.with("value", showable(table, &name)).into());
            }
            return Ok(scene.state.images_of(table).filter(|record| admits(record)).collect());
        }
        let mut found: Vec<EntityRecord> = Vec::new();
        for target in targets {
            let record = find_among(table, target, scene, &admits)?;
            if !found.contains(&record) {
                found.push(record);
            }
        }
        Ok(found)
    }
}

/// The entity that a text names.
pub(crate) fn find(table: Table, text: &str, scene: &Scene<'_>) -> Outcome<EntityRecord> {
    find_among(table, text, scene, &|_| true)
}

/// By id, else by what it is called, else by a part of its id.
fn find_among(
    table: Table,
    text: &str,
    scene: &Scene<'_>,
    admits: &dyn Fn(&EntityRecord) -> bool,
) -> Outcome<EntityRecord> {
    let mut found = candidates(scene.state.images_of(table).filter(admits), text);
    match found.len() {
        0 => Err(missing(table, text, scene.state)),
        1 => Ok(found.remove(0)),
        _ => Err(ambiguous(table, text, &found, scene.state)),
    }
}

fn missing(table: Table, text: &str, state: &State) -> Failure {
    let mut error = absence(table).with("target", showable(table, text));
    let is_node = || state.images_of(Table::Nodes).any(|node| is_called(&node, text));
    if table == Table::Routes && is_node() {
        error = error.with("help", "this is a node; --node selects its routes");
    } else if matches!(table, Table::Users | Table::Nodes) && is_number(text) {
        let list = if table == Table::Users { "user" } else { "node" };
        let help = format!(
            "ids that are numbers are Headscale's, and were not kept; `gwstore {list} list` has the ids \
             and names"
        );
        error = error.with("help", help);
    }
    error.into()
}

fn absence(table: Table) -> Error {
    let error = Error::new(ErrorKind::NotFound, "does not exist");
    match table.entity() {
        Some(kind) => error.about(kind),
        None => error,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A word of the command line, without what follows the public part of a credential in it.
pub(crate) fn without_secret(word: &str) -> String {
    match credential_in(word).map(|at| word.split_at(at)) {
        Some((before, key)) if public_part(key).len() < key.len() => {
            format!("{before}{}", public_part(key))
        }
        _ => word.to_owned(),
    }
}

/// What of a name may be repeated: whoever names a key may have pasted all of it.
fn showable(table: Table, text: &str) -> String {
    let part = public_part(text);
    if part.len() < text.len() {
        return part.chars().take(LONGEST_SHOWN).collect();
    }
    let is_of_credentials = matches!(table, Table::ApiKeys | Table::PreAuthKeys | Table::Sessions);
    let part = match part.split_once('.') {
        // API keys of Headscale before 0.28.
        Some((part, _)) if is_of_credentials => part,
        _ => part,
    };
    match is_of_credentials && part.chars().count() > LONGEST_SHOWN {
        true => part.chars().take(LEAST_PART).chain(['…']).collect(),
        false => part.to_owned(),
    }
}

fn ambiguous(table: Table, text: &str, found: &[EntityRecord], state: &State) -> Failure {
    let shown = found.iter().take(MOST_LISTED);
    let mut candidates: Vec<_> =
        shown.map(|record| format!("{} ({})", id_of(record), name_of(record, state))).collect();
    if found.len() > MOST_LISTED {
        candidates.push(format!("and {} more", found.len() - MOST_LISTED));
    }
    let error = Error::invalid("several have this name")
        .with("target", showable(table, text))
        .with("candidates", candidates.join(", "))
        .with("help", "give an id, or enough of its end");
    Failure::As(Ending::Ambiguous, error)
}

/// What people call it.
pub(crate) fn name_of(record: &EntityRecord, state: &State) -> String {
    match record {
        EntityRecord::User(user) => user.name.to_string(),
        EntityRecord::Node(node) => node.label.to_string(),
        EntityRecord::Instance(instance) => instance.name.to_string(),
        EntityRecord::Presence(presence) => label_of(presence.node, state),
        EntityRecord::Route(route) => {
            format!("{} of {}", route.prefix, label_of(route.node, state))
        }
        EntityRecord::ApiKey(key) => key.prefix.to_string(),
        EntityRecord::PreAuthKey(key) => {
            key.prefix.as_ref().map_or_else(|| key.id.to_string(), ToString::to_string)
        }
        EntityRecord::Policy(policy) => format!("version {}", policy.version),
        EntityRecord::DnsRecord(record) => {
            format!("{} {} {}", record.name, record.kind, record.value)
        }
        EntityRecord::Session(session) => match session.owner {
            SessionOwner::User(user) => state
                .users()
                .get(user)
                .map_or_else(|| user.to_string(), |user| format!("of {}", user.name)),
            SessionOwner::Node(node) => format!("of {}", label_of(node, state)),
        },
        EntityRecord::SignIn(sign_in) => sign_in.purpose.to_string(),
        EntityRecord::Setting(setting) => setting.document.kind().to_string(),
    }
}

pub(crate) fn label_of(node: NodeId, state: &State) -> String {
    state.nodes().get(node).map_or_else(|| node.to_string(), |node| node.label.to_string())
}

/// What counts its changes; of a policy its version.
pub(crate) fn revision_of(record: &EntityRecord) -> Option<u64> {
    let revision = match record {
        EntityRecord::User(user) => user.revision,
        EntityRecord::Node(node) => node.revision,
        EntityRecord::Route(route) => route.revision,
        EntityRecord::ApiKey(key) => key.revision,
        EntityRecord::PreAuthKey(key) => key.revision,
        EntityRecord::DnsRecord(record) => record.revision,
        EntityRecord::Setting(setting) => setting.revision,
        EntityRecord::Policy(policy) => return Some(policy.version.get()),
        _ => return None,
    };
    Some(revision.get())
}
