//! What has to be stored, according to the messages of a process.
//!
//! This does not test the rules, so the oracle takes them from the state machine: it executes every
//! acknowledged command in the order of the acknowledgements. For different callers this need not
//! be the store's order, but their commands change different entities, so it makes no difference,
//! with one exception: which addresses are free. Those are taken from the acknowledgement.

use std::collections::HashMap;

use ghostwire_store_core::schema::Record as _;
use ghostwire_store_core::state::{Context, Decision, State, StateChange};

use super::calls::{done, transaction};
use super::child::at;
use super::protocol::{Addresses, Done, Message, Op};
use super::recovered::Recovered;
use crate::prelude::*;

/// A line of the audit trail, but for its id, which the store draws.
pub(super) type AuditLine = (Timestamp, String, String, EntityKind, String);

pub(super) fn audit_line(entry: &AuditEntry) -> AuditLine {
    let [actor, action, subject] =
        [entry.actor.as_str(), entry.action.as_str(), entry.subject.as_str()].map(str::to_owned);
    (entry.at, actor, action, entry.entity.entity().unwrap(), subject)
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) state: State,
    /// How often each line is there.
    pub(super) audit: BTreeMap<AuditLine, usize>,
    pub(super) points: BTreeMap<RowKey, MetricPoint>,
    /// The last acknowledged sequence of each writer.
    pub(super) sequences: HashMap<WriterId, u64>,
    pub(super) acknowledged: usize,
    /// How often a process was killed before.
    pub(super) round: u32,
    /// Calls that were in doubt: how many happened, and how many did not.
    pub(super) doubts: [usize; 2],
}

impl Oracle {
    /// Adds the messages of a process, and what is found of the calls that were not answered when
    /// it was killed.
    pub(super) fn learn(&mut self, said: Vec<Message>, round: u32, found: &Recovered) {
        self.round = round;
        let now = at(round);
        let mut open: BTreeMap<u8, Op> = BTreeMap::new();
        for said in said {
            match said {
                Message::Intent { caller, op } => assert!(open.insert(caller, op).is_none()),
                Message::Done { caller, done } => {
                    let op = open.remove(&caller).expect("what was done was intended");
                    self.acknowledged += 1;
                    self.happened(&op, &done, now);
                }
                Message::Refused { caller, kind } => {
                    let op = open.remove(&caller).expect("what was refused was intended");
                    let refusal = self.decide(&op, &Done::default(), now);
                    let refusal = refusal.expect("only commands are refused").map(|_| ());
                    let expected = refusal.map_err(|error| error.kind().name().to_owned());
                    assert_eq!(Err(kind), expected, "{op:?}");
                }
                _ => {}
            }
        }
        for op in open.into_values() {
            let done = done(&op, &found.state);
            let happened = self.is_found(&op, &done, now, found);
            self.doubts[usize::from(!happened)] += 1;
            if happened {
                self.happened(&op, &done, now);
            }
        }
    }

    /// The effect of a command, with the ids and addresses that the store chose. `None` for an
    /// operation that is not a command.
    fn decide(&self, op: &Op, done: &Done, now: Timestamp) -> Option<Result<Decision>> {
        let command = match op {
            Op::Write(command) => done.command.as_ref().unwrap_or(command).clone(),
            Op::Transact(commands) => match transaction(commands.clone()) {
                Ok(transaction) => Command::Transaction(transaction),
                Err(error) => return Some(Err(error)),
            },
            _ => return None,
        };
        let actor = Actor::system();
        let decision = self.state.decide(&command, &Context { now, actor: &actor, seed: [0; 10] });
        Some(decision.map(|mut decision| {
            for change in &mut decision.changes {
                if let StateChange::Put(EntityRecord::Node(node)) = change
                    && self.state.nodes().get(node.id).is_none()
                    && let Some((ipv4, ipv6)) = addresses_of(node.id, done)
                {
                    *node = Node { ipv4, ipv6, ..Node::clone(node) }.into();
                }
            }
            decision
        }))
    }

    fn happened(&mut self, op: &Op, done: &Done, now: Timestamp) {
        if let Some(decision) = self.decide(op, done, now) {
            let decision = decision.unwrap_or_else(|error| panic!("{op:?} was done: {error}"));
            for change in decision.changes {
                self.state.evolve(change);
            }
            for note in decision.audit {
                let actor = ActorName::system().as_str().to_owned();
                let line = (now, actor, note.action.to_owned(), note.entity, note.subject);
                *self.audit.entry(line).or_default() += 1;
            }
            return;
        }
        match op {
            Op::Batch { writer, sequence, points } => {
                self.sequences.insert(*writer, *sequence);
                self.points.extend(points.iter().map(|point| (point.key(), point.clone())));
            }
            Op::Record(points) => {
                self.points.extend(points.iter().map(|point| (point.key(), point.clone())));
            }
            Op::Append(entries) => {
                for entry in entries {
                    *self.audit.entry(audit_line(entry)).or_default() += 1;
                }
            }
            Op::PruneMetrics(before) => self.points.retain(|_, point| point.at >= *before),
            Op::PruneAudit(before) => self.audit.retain(|(at, ..), _| at >= before),
            Op::Checkpoint | Op::Verify | Op::Write(_) | Op::Transact(_) => {}
        }
    }

    /// Whether a call in doubt happened. All of its changes have to be there, or none.
    fn is_found(&self, op: &Op, done: &Done, now: Timestamp, found: &Recovered) -> bool {
        let traces: Vec<bool> = match op {
            Op::Write(_) | Op::Transact(_) => match self.decide(op, done, now) {
                Some(Ok(decision)) => self.traces(decision, found),
                _ => Vec::new(),
            },
            Op::Record(points) | Op::Batch { points, .. } => {
                let last: BTreeMap<_, _> = points.iter().map(|it| (it.key(), it)).collect();
                let changed =
                    last.into_iter().filter(|(key, new)| self.points.get(key) != Some(new));
                changed.map(|(key, new)| found.points.get(&key) == Some(new)).collect()
            }
            Op::Append(entries) => {
                let lines = entries.iter().map(audit_line);
                lines.map(|line| found.audit.contains_key(&line)).collect()
            }
            Op::PruneMetrics(before) => {
                let old = self.points.iter().filter(|(_, point)| point.at < *before);
                old.map(|(key, _)| !found.points.contains_key(key)).collect()
            }
            Op::PruneAudit(before) => {
                let old = self.audit.keys().filter(|(at, ..)| at < before);
                old.map(|line| !found.audit.contains_key(line)).collect()
            }
            Op::Checkpoint | Op::Verify => Vec::new(),
        };
        let there = traces.iter().filter(|there| **there).count();
        assert!(
            there == 0 || there == traces.len(),
            "half done in round {}, {traces:?}: {op:?}, {done:?}",
            self.round
        );
        there > 0
    }

    /// For each row that a decision changes: whether what is stored is its new image.
    fn traces(&self, decision: Decision, found: &Recovered) -> Vec<bool> {
        let mut last: BTreeMap<(Table, RowKey), Option<EntityRecord>> = BTreeMap::new();
        for change in decision.changes {
            match change {
                StateChange::Put(image) => last.insert((image.table(), image.key()), Some(image)),
                StateChange::Delete(handle) => last.insert((handle.table(), handle.key()), None),
            };
        }
        let before = by_key(&self.state);
        let changed = last.into_iter().filter(|(key, image)| before.get(key) != image.as_ref());
        changed.map(|(key, image)| found.images.get(&key) == image.as_ref()).collect()
    }

    /// What is expected is stored, and nothing else.
    pub(super) fn check(&self, found: &Recovered) {
        let expected = by_key(&self.state);
        let round = self.round;
        assert_same(round, "an entity", &expected, &found.images);
        assert_same(round, "a line of the audit trail", &self.audit, &found.audit);
        assert_same(round, "a point", &self.points, &found.points);
        assert_eq!(state_digest(&self.state), found.digest);
    }
}

/// Every entity, by where it is stored.
pub(super) fn by_key(state: &State) -> BTreeMap<(Table, RowKey), EntityRecord> {
    state.images().map(|image| ((image.table(), image.key()), image)).collect()
}

fn addresses_of(node: NodeId, done: &Done) -> Option<Addresses> {
    let mut given = done.addresses.iter();
    given.find(|(id, _)| *id == node).map(|(_, addresses)| *addresses)
}

fn assert_same<K: Ord + Debug, V: PartialEq + Debug>(
    round: u32,
    what: &str,
    expected: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
) {
    for (key, value) in expected {
        assert_eq!(
            found.get(key),
            Some(value),
            "{what} that is stored, at {key:?}, in round {round}"
        );
    }
    for (key, value) in found {
        assert!(
            expected.contains_key(key),
            "{what} that nobody stored, in round {round}: {key:?}: {value:?}"
        );
    }
}
