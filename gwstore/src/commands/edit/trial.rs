//! An edit on a copy of the state, and how it is told.

use std::collections::HashSet;

use ghostwire_store::command::{Command, EntityRecord, UserCommand};
use ghostwire_store::domain::{Actor, DnsRecordId, Fingerprint, Timestamp};
use ghostwire_store::portable::Item;
use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::{RowKey, Table};
use ghostwire_store_core::state::{Context, EntityId, State, StateChange};
use serde_json::{Map, Value, json};

use super::object;
use crate::failure::{Failure, Outcome, with_help};
use crate::nouns::{Expected, How, Plan, Scene, id_of, name_of};
use crate::output::{Shell, called, plain, printable};

/// So many changes are told one by one.
const MOST_TOLD: usize = 50;
/// What every change changes.
const COUNTERS: [&str; 3] = ["updated_at", "revision", "set"];

/// What an edit comes to.
pub(super) struct Trial {
    pub(super) plan: Plan,
    pub(super) changes: Vec<Change>,
    before: State,
    pub(super) after: State,
    now: Timestamp,
}

/// An entity that is not what it was.
pub(super) struct Change {
    before: Option<EntityRecord>,
    after: Option<EntityRecord>,
}

impl Trial {
    /// Carries the plan out on a copy of the state.
    pub(super) fn of(plan: Plan, how: &How, scene: &Scene<'_>) -> Outcome<Self> {
        check_expected(&plan, how)?;
        let (before, mut after) = (scene.state.clone(), scene.state.clone());
        let actor = Actor::system();
        let context = Context { now: scene.now, actor: &actor, seed: [0; 10] };
        let mut touched: Vec<(Table, RowKey)> = Vec::new();
        for command in &plan.commands {
            let decided = after.decide(command, &context);
            let mut decision =
                decided.map_err(|error| advised(command, error).during(command.name()))?;
            touched.extend(decision.changes.iter().map(|change| match change {
                StateChange::Put(record) => (record.table(), record.key()),
                StateChange::Delete(id) => (id.table(), id.key()),
            }));
            after.apply(&mut decision);
        }
        let changes = changes(touched, &before, &after)?;
        Ok(Self { plan, changes, before, after, now: scene.now })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether it shall be done, to whom and to how many.
    pub(super) fn question(&self) -> String {
        let told: Vec<_> = self.told().collect();
        let name = |change: &&Change| {
            let record = change.record()?;
            let state = if change.before.is_some() { &self.before } else { &self.after };
            Some(format!("{} {}", called(record.entity()), name_of(record, state)))
        };
        let first = told.first().and_then(name).unwrap_or_default();
        printable(&match told.len() {
            0 | 1 => format!("Shall this be done to {first}?"),
            count => format!("Shall this be done to these {count}, the first of them {first}?"),
        })
    }

    /// That a node's presence goes with it goes without saying.
    fn told(&self) -> impl Iterator<Item = &Change> {
        let changes = self.changes.iter();
        changes.filter(|change| !matches!(change.record(), Some(EntityRecord::Presence(_))))
    }

    /// Says what was done, or would be.
    pub(super) fn tell(&self, is_dry_run: bool, shell: &mut Shell<'_>) -> Outcome {
        for note in &self.plan.notes {
            shell.note(printable(note));
        }
        if self.is_empty() {
            shell.note("there is nothing to do");
        }
        if shell.json {
            let mut items = shell.items();
            for change in &self.changes {
                items.item(shell, &self.object(change, is_dry_run)?)?;
            }
            return items.end(shell);
        }
        let told: Vec<_> = self.told().collect();
        for change in told.iter().take(MOST_TOLD) {
            shell.say(printable(&self.line(change, is_dry_run)?))?;
        }
        match told.len().saturating_sub(MOST_TOLD) {
            0 => Ok(()),
            more => shell.say(format_args!("and {more} more; --json lists all")),
        }
    }

    fn line(&self, change: &Change, is_dry_run: bool) -> Result<String> {
        let Some(record) = change.record() else { return Ok(String::new()) };
        let verb = match (change.kind(), is_dry_run) {
            ("created", true) => "would create",
            ("updated", true) => "would change",
            ("deleted", true) => "would delete",
            ("updated", false) => "changed",
            (kind, _) => kind,
        };
        // It is called what it was called until now.
        let state = if change.before.is_some() { &self.before } else { &self.after };
        let (kind, name, id) = (called(record.entity()), name_of(record, state), id_of(record));
        let mut line = format!("{verb} {kind} {name} ({id})");
        let mut separator = ": ";
        for (name, from, to) in self.differences(change)? {
            if !COUNTERS.contains(&name.as_str()) {
                line.push_str(&format!("{separator}{name}: {} -> {}", plain(&from), plain(&to)));
                separator = ", ";
            }
        }
        Ok(line)
    }

    fn object(&self, change: &Change, is_dry_run: bool) -> Result<Value> {
        let Some(record) = change.record() else { return Ok(Value::Null) };
        let state = if change.after.is_some() { &self.after } else { &self.before };
        let scene = Scene { state, now: self.now };
        let fields = self.differences(change)?.into_iter();
        let fields = fields.map(|(name, from, to)| (name, json!({ "from": from, "to": to })));
        Ok(json!({
            "id": id_of(record),
            "name": name_of(record, state),
            "entity": record.entity().name(),
            "change": change.kind(),
            "fields": fields.collect::<Map<_, _>>(),
            "item": object(&Item::Entity(record.clone()), &scene)?,
            "dry_run": is_dry_run,
        }))
    }

    /// What is different about an entity that stays: field, before, after.
    fn differences(&self, change: &Change) -> Result<Vec<(String, Value, Value)>> {
        let (Some(before), Some(after)) = (&change.before, &change.after) else {
            return Ok(Vec::new());
        };
        let of = |record: &EntityRecord, state| {
            object(&Item::Entity(record.clone()), &Scene { state, now: self.now })
        };
        let (mut from, to) = (of(before, &self.before)?, of(after, &self.after)?);
        let mut differences: Vec<_> = to
            .into_iter()
            .map(|(name, to)| (from.remove(&name).unwrap_or_default(), name, to))
            .filter(|(from, _, to)| from != to)
            .map(|(from, name, to)| (name, from, to))
            .collect();
        differences.extend(from.into_iter().map(|(name, from)| (name, from, Value::Null)));
        Ok(differences)
    }
}

impl Change {
    /// What was there, if it is no longer. Of a document that was reset its default is there.
    pub(super) fn gone(&self) -> Option<&EntityRecord> {
        let is_gone = match &self.after {
            Some(EntityRecord::Setting(setting)) => setting.document.is_default(),
            Some(_) => false,
            None => true,
        };
        self.before.as_ref().filter(|_| is_gone)
    }

    fn record(&self) -> Option<&EntityRecord> {
        self.after.as_ref().or(self.before.as_ref())
    }

    fn kind(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "created",
            (Some(_), Some(_)) => "updated",
            (Some(_), None) => "deleted",
        }
    }
}

/// What became of the entities that were touched, each once, in the order in which they were.
fn changes(touched: Vec<(Table, RowKey)>, before: &State, after: &State) -> Result<Vec<Change>> {
    let mut seen = HashSet::new();
    let mut changes = Vec::new();
    for (table, key) in touched {
        let id = EntityId::from_key(table, &key)?;
        if !seen.insert((table.number(), key.as_bytes().to_vec())) {
            continue;
        }
        let change = Change { before: record(id, before), after: record(id, after) };
        if change.before != change.after {
            changes.push(change);
        }
    }
    Ok(changes)
}

/// What of a refusal this program has an option for.
fn advised(command: &Command, error: Error) -> Error {
    match (command, error.kind()) {
        (Command::User(UserCommand::Delete { cascade: false, .. }), ErrorKind::Restricted) => {
            with_help(error, "--cascade deletes them, too; --dry-run shows what that is")
        }
        _ => error,
    }
}

fn record(id: EntityId, state: &State) -> Option<EntityRecord> {
    match id {
        EntityId::User(id) => state.users().get(id).cloned().map(Into::into),
        EntityId::Node(id) => state.nodes().get(id).cloned().map(Into::into),
        EntityId::Instance(id) => state.instances().get(id).cloned().map(Into::into),
        EntityId::Presence(id) => state.presence().get(id).cloned().map(Into::into),
        EntityId::Route(id) => state.routes().get(id).cloned().map(Into::into),
        EntityId::ApiKey(id) => state.api_keys().get(id).cloned().map(Into::into),
        EntityId::PreAuthKey(id) => state.preauth_keys().get(id).cloned().map(Into::into),
        EntityId::Policy(id) => state.policies().get(id).cloned().map(Into::into),
        EntityId::DnsRecord(id) => state.dns_records().get(id).cloned().map(Into::into),
        EntityId::Session(id) => state.sessions().get(id).cloned().map(Into::into),
        EntityId::SignIn(id) => state.sign_ins().get(id).cloned().map(Into::into),
        EntityId::Setting(id) => state.settings().get(id).cloned().map(Into::into),
    }
}

/// Nobody's change is overwritten without having been seen.
fn check_expected(plan: &Plan, how: &How) -> Outcome {
    let Some(expected) = how.expect_revision else { return Ok(()) };
    let changed = |found: &dyn std::fmt::Display| -> Outcome {
        let message = "was changed by somebody else; look at it again";
        let mut error = Error::new(ErrorKind::Conflict, message);
        if let [about] = plan.about.as_slice() {
            error = error.with("target", about);
        }
        Err(error.with("expected_revision", expected).with("revision", found).into())
    };
    if let Some(found) = plan.set {
        let nothing = Fingerprint::of::<DnsRecordId>([]);
        return match expected {
            Expected::Set(wanted) if wanted == found => Ok(()),
            Expected::Revision(0) if found == nothing => Ok(()),
            Expected::Set(_) | Expected::Revision(0) => changed(&found),
            Expected::Revision(_) => {
                let message =
                    "a set of records has no revision: give the `set` that `dns list --json` shows";
                Err(Failure::usage(Error::invalid(message).with("option", "--expect-revision")))
            }
        };
    }
    match plan.revisions.as_slice() {
        [found] if expected == Expected::Revision(*found) => Ok(()),
        [found] => changed(found),
        _ => {
            let message = "--expect-revision needs one entity that has a revision";
            Err(Failure::usage(Error::invalid(message).with("found", plan.revisions.len())))
        }
    }
}
