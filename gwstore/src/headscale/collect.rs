//! Gathering what is imported, under the rules of the store it will go to.

use std::collections::{BTreeMap, HashMap, HashSet};

use ghostwire_store_core::block::BlockBuilder;
use ghostwire_store_core::command::{Command, EntityRecord, Restore};
use ghostwire_store_core::domain::{Actor, Timestamp};
use ghostwire_store_core::error::Result;
use ghostwire_store_core::state::{Context, Reply, State};

use super::Problem;

/// An entity and the row that it was made of.
pub(super) struct Candidate {
    pub(super) image: EntityRecord,
    pub(super) table: &'static str,
    pub(super) id: i64,
}

/// What became of a row that others refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate<T> {
    Imported(T),
    LeftOut,
    Deleted,
}

/// The rows of one table that others refer to.
#[derive(Debug)]
pub(super) struct Parents<T> {
    what: &'static str,
    table: &'static str,
    fates: HashMap<i64, Fate<T>>,
}

impl<T: Copy> Parents<T> {
    pub(super) fn new(what: &'static str, table: &'static str) -> Self {
        Self { what, table, fates: HashMap::new() }
    }

    pub(super) fn set(&mut self, id: i64, fate: Fate<T>) {
        self.fates.insert(id, fate);
    }

    /// The entity that the row became, or why there is none.
    pub(super) fn find(&self, id: i64) -> Result<T, String> {
        let why = match self.fates.get(&id) {
            Some(Fate::Imported(entity)) => return Ok(*entity),
            Some(Fate::LeftOut) => "was left out",
            Some(Fate::Deleted) => "was deleted",
            None => "does not exist",
        };
        Err(format!("its {} ({} {id}) {why}", self.what, self.table))
    }
}

/// The import in the making.
#[derive(Default)]
pub(super) struct Collector {
    state: State,
    pub(super) images: Vec<EntityRecord>,
    pub(super) problems: Vec<Problem>,
    /// By table and text, the rows concerned.
    remarks: BTreeMap<(&'static str, &'static str), Vec<i64>>,
    left_out: HashSet<(&'static str, i64)>,
    notes: Vec<String>,
    /// The rows of entities, by their identifiers as text.
    rows: HashMap<String, (&'static str, i64)>,
}

impl Collector {
    /// A row is left out, and with it all remarks on it.
    pub(super) fn problem(&mut self, table: &'static str, id: i64, reason: impl Into<String>) {
        self.left_out.insert((table, id));
        self.partial_problem(table, id, reason);
    }

    /// Something of a row is left out.
    pub(super) fn partial_problem(
        &mut self,
        table: &'static str,
        id: i64,
        reason: impl Into<String>,
    ) {
        self.problems.push(Problem { table, id, reason: reason.into() });
    }

    /// Something about a row that is worth knowing; rows with the same remark share one note.
    pub(super) fn remark(&mut self, table: &'static str, id: i64, remark: &'static str) {
        self.remarks.entry((table, remark)).or_default().push(id);
    }

    /// Something worth knowing about the whole.
    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Takes those candidates that break no rule, all of one kind, and reports the others. Gives
    /// for each whether it was taken.
    pub(super) fn admit(&mut self, candidates: Vec<Candidate>) -> Result<Vec<bool>> {
        let mut taken = vec![true; candidates.len()];
        for candidate in &candidates {
            if let Some(id) = identifier(&candidate.image) {
                self.rows.entry(id).or_insert((candidate.table, candidate.id));
            }
        }
        let images = candidates.iter().map(|candidate| candidate.image.clone()).collect();
        let restore = Command::Restore(Restore { images, skip_invalid: true });
        let actor = Actor::system();
        let context = Context { now: Timestamp::EPOCH, actor: &actor, seed: [0; 10] };
        let reply = self.state.execute(&restore, &context, &mut BlockBuilder::default())?;
        if let Reply::Restored(restored) = reply {
            for (index, reason) in restored.skipped {
                if let (Some(flag), Some(candidate)) = (taken.get_mut(index), candidates.get(index))
                {
                    *flag = false;
                    let reason = self.with_row(reason);
                    self.problem(candidate.table, candidate.id, reason);
                }
            }
        }
        let admitted = candidates.into_iter().zip(&taken).filter(|(_, taken)| **taken);
        self.images.extend(admitted.map(|(candidate, _)| candidate.image));
        Ok(taken)
    }

    /// Adds to a reason the row of the entity that holds what the other one wants.
    fn with_row(&self, reason: String) -> String {
        let holder = reason.split("held_by=").nth(1).and_then(|behind| behind.get(..36));
        match holder.and_then(|holder| self.rows.get(holder)) {
            Some((table, id)) => format!("{reason}; {table} {id} came first"),
            None => reason,
        }
    }

    /// What there is to say, remarks on rows first.
    pub(super) fn finish(self) -> (Vec<EntityRecord>, Vec<Problem>, Vec<String>) {
        let left_out = self.left_out;
        let remarks = self.remarks.into_iter().filter_map(|((table, remark), mut rows)| {
            rows.retain(|id| !left_out.contains(&(table, *id)));
            let first: Vec<_> = rows.iter().take(5).map(i64::to_string).collect();
            let more = if rows.len() > first.len() { ", …" } else { "" };
            let noun = if rows.len() == 1 { "row" } else { "rows" };
            let note =
                format!("{table}: {remark} ({} {noun}: {}{more})", rows.len(), first.join(", "));
            Some(note).filter(|_| !rows.is_empty())
        });
        let notes = remarks.chain(self.notes).collect();
        (self.images, self.problems, notes)
    }
}

fn identifier(image: &EntityRecord) -> Option<String> {
    Some(match image {
        EntityRecord::User(user) => user.id.to_string(),
        EntityRecord::Node(node) => node.id.to_string(),
        EntityRecord::Route(route) => route.id.to_string(),
        EntityRecord::ApiKey(key) => key.id.to_string(),
        EntityRecord::PreAuthKey(key) => key.id.to_string(),
        _ => return None,
    })
}
