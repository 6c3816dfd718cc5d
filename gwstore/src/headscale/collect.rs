//! Gathering what is imported, under the rules of the store it will go to.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use ghostwire_store_core::block::BlockBuilder;
use ghostwire_store_core::command::{Command, EntityRecord, Restore};
use ghostwire_store_core::domain::{Actor, Timestamp};
use ghostwire_store_core::error::Result;
use ghostwire_store_core::state::{Context, Reply, State};

use super::findings::{Finding, Findings};
use super::tables::Reason;

/// An entity and the row that it was made of.
pub(super) struct Candidate {
    pub(super) image: EntityRecord,
    pub(super) table: &'static str,
    pub(super) id: i64,
    pub(super) rank: Rank,
}

/// Which of two candidates stays that cannot both come in: the lesser one. Whether it has expired, and
/// when it was last seen.
pub(super) type Rank = (bool, Reverse<Option<Timestamp>>);

/// For what nothing ranks: the first row stays.
pub(super) const UNRANKED: Rank = (false, Reverse(None));

/// Why a row does not come in.
#[derive(Debug)]
pub(super) enum Unfit {
    /// Something is lost with it.
    Problem(Reason),
    /// Nothing is.
    LeftOver(Reason),
}

impl From<Reason> for Unfit {
    fn from(reason: Reason) -> Self {
        Self::Problem(reason)
    }
}

impl From<&str> for Unfit {
    fn from(reason: &str) -> Self {
        Self::Problem(reason.into())
    }
}

/// What became of a row that others refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate<T> {
    Imported(T),
    LeftOut,
    Deleted,
}

/// A row that another one refers to, and that was not imported.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) reason: Reason,
    /// Whether Headscale does not have it either.
    pub(super) is_gone: bool,
}

impl Missing {
    /// Of a row that means nothing without the one that is missing.
    pub(super) fn left_over(self) -> Unfit {
        if self.is_gone { Unfit::LeftOver(self.reason) } else { Unfit::Problem(self.reason) }
    }
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
    pub(super) fn find(&self, id: i64) -> Result<T, Missing> {
        let (why, is_gone) = match self.fates.get(&id) {
            Some(Fate::Imported(entity)) => return Ok(*entity),
            Some(Fate::LeftOut) => ("was left out", false),
            Some(Fate::Deleted) => ("was deleted", true),
            None => ("does not exist", true),
        };
        let reason = format!("its {} ({} {id}) {why}", self.what, self.table);
        Err(Missing { reason, is_gone })
    }
}

/// The import in the making.
#[derive(Default)]
pub(super) struct Collector {
    state: State,
    images: Vec<EntityRecord>,
    findings: Findings,
    left_out: HashSet<(&'static str, i64)>,
    /// The rows of entities, by their identifiers as text.
    rows: HashMap<String, (&'static str, i64)>,
}

impl Collector {
    /// A row is left out, and with it all that was repaired of it.
    pub(super) fn unfit(&mut self, table: &'static str, id: i64, unfit: Unfit) {
        self.left_out.insert((table, id));
        match unfit {
            Unfit::Problem(reason) => self.findings.problems.push(Finding { table, id, reason }),
            Unfit::LeftOver(reason) => self.findings.left_over.push(Finding { table, id, reason }),
        }
    }

    /// Something of a row was mapped, or left out.
    pub(super) fn repaired(&mut self, table: &'static str, id: i64, reason: impl Into<String>) {
        self.findings.repaired.push(Finding { table, id, reason: reason.into() });
    }

    /// What was read, or else, with a remark, what stands in for it.
    pub(super) fn or_repaired<T, E>(
        &mut self,
        (table, id): (&'static str, i64),
        read: Result<T, E>,
        otherwise: T,
        reason: &'static str,
    ) -> T {
        read.unwrap_or_else(|_| {
            self.repaired(table, id, reason);
            otherwise
        })
    }

    /// Something worth knowing about the whole.
    pub(super) fn note(&mut self, note: String) {
        self.findings.notes.push(note);
    }

    /// Takes those candidates that break no rule, all of one kind, and reports the others. Gives
    /// for each whether it was taken.
    pub(super) fn admit(&mut self, candidates: Vec<Candidate>) -> Result<Vec<bool>> {
        let mut ranked: Vec<(usize, &Candidate)> = candidates.iter().enumerate().collect();
        ranked.sort_by_key(|(_, candidate)| candidate.rank);
        for (_, candidate) in &ranked {
            if let Some(id) = identifier(&candidate.image) {
                self.rows.entry(id).or_insert((candidate.table, candidate.id));
            }
        }
        let images = ranked.iter().map(|(_, candidate)| candidate.image.clone()).collect();
        let restore = Command::Restore(Restore { images, skip_invalid: true });
        let actor = Actor::system();
        let context = Context { now: Timestamp::EPOCH, actor: &actor, seed: [0; 10] };
        let reply = self.state.execute(&restore, &context, &mut BlockBuilder::default())?;
        let mut taken = vec![true; candidates.len()];
        if let Reply::Restored(restored) = reply {
            for (place, reason) in restored.skipped {
                let Some((index, candidate)) = ranked.get(place) else { continue };
                if let Some(flag) = taken.get_mut(*index) {
                    *flag = false;
                }
                self.refused(candidate, reason);
            }
        }
        let admitted = candidates.into_iter().zip(&taken).filter(|(_, taken)| **taken);
        self.images.extend(admitted.map(|(candidate, _)| candidate.image));
        Ok(taken)
    }

    fn refused(&mut self, candidate: &Candidate, reason: Reason) {
        let reason = self.with_row(reason);
        match candidate.image {
            EntityRecord::Route(_) | EntityRecord::Presence(_) => {
                let what = candidate.image.entity().name();
                let reason = format!("a {what} of it was left out: {reason}");
                self.repaired(candidate.table, candidate.id, reason);
            }
            _ => self.unfit(candidate.table, candidate.id, reason.into()),
        }
    }

    /// Adds to a reason the row of the entity that holds what the other one wants.
    fn with_row(&self, reason: String) -> String {
        let holder = reason.split("held_by=").nth(1).and_then(|behind| behind.get(..36));
        match holder.and_then(|holder| self.rows.get(holder)) {
            Some((table, id)) => format!("{reason}; {table} {id} stays"),
            None => reason,
        }
    }

    /// The entities, and all that there is to say.
    pub(super) fn finish(self) -> (Vec<EntityRecord>, Findings) {
        let Self { images, mut findings, left_out, .. } = self;
        findings.repaired.retain(|found| !left_out.contains(&(found.table, found.id)));
        (images, findings)
    }

    /// What was taken so far.
    pub(super) fn images(&self) -> &[EntityRecord] {
        &self.images
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
