//! Which write or read comes next.

use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::credential::{self, Purpose};
use crate::data::{self, Content};
use crate::rows::{Id, Key};
use crate::subject::{Read, Write};
use crate::{Operation, data::POINT_INTERVAL, data::POINTS_PER_MONTH};

/// Reads go to at most so many different rows, spread over all.
const MOST_TARGETS: u64 = 65_536;
/// Metric batches are of so many nodes at one moment.
const BATCH: u64 = 1_000;

/// Now, in microseconds since the epoch.
pub fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}

/// What the operations of a case aim at.
#[derive(Debug)]
pub struct Targets {
    content: Content,
    nodes: Vec<(Id, Key, String)>,
    api_keys: Vec<String>,
    /// Where the numbers of new rows begin, so that no run repeats those of another.
    base: u64,
}

impl Targets {
    /// For a subject that holds this.
    pub fn new(content: Content) -> Self {
        let count = content.nodes.min(MOST_TARGETS);
        // In no order that a cache could foresee; the factor is prime, so none comes twice.
        let spread = |index: u64| index.wrapping_mul(2_654_435_761) % content.nodes.max(1);
        let nodes = (0..count)
            .map(spread)
            .map(|number| (data::node_id(number), data::key_bytes(2, number), data::label(number)));
        let api_keys = (0..content.api_keys)
            .map(|number| credential::text(Purpose::ApiKey, &data::api_key(number)));
        Self {
            content,
            nodes: nodes.collect(),
            api_keys: api_keys.collect(),
            base: u64::try_from(now()).unwrap_or_default(),
        }
    }

    fn node(&self, turn: u64) -> Option<&(Id, Key, String)> {
        nth(&self.nodes, turn)
    }

    /// The `turn`th read of a run; `None` if the subject holds nothing to read.
    pub fn read(&self, operation: Operation, turn: u64) -> Option<Read<'_>> {
        let month = i64::try_from(POINTS_PER_MONTH).unwrap_or_default() * POINT_INTERVAL;
        Some(match operation {
            Operation::NodeById | Operation::ReadsWhileWriting => {
                Read::NodeById(self.node(turn)?.0)
            }
            Operation::NodeByKey => Read::NodeByKey(&self.node(turn)?.1),
            Operation::NodeByLabel => Read::NodeByLabel(&self.node(turn)?.2),
            Operation::ListOnline => Read::OnlineNodes,
            Operation::NetMap | Operation::NetMapUnchanged => Read::NetMap(self.node(turn)?.0),
            Operation::PolicyInput => Read::PolicyInput,
            Operation::RouteLookup => {
                let address = u32::try_from(turn & u64::from(u32::MAX)).unwrap_or_default();
                Read::Route(Ipv4Addr::from(address.wrapping_mul(2_654_435_761)))
            }
            Operation::ApiKey => Read::ApiKey(nth(&self.api_keys, turn)?),
            Operation::MetricRange => {
                let number = turn.wrapping_mul(2_654_435_761) % self.content.measured_nodes();
                let (from, to) = (data::EPOCH, data::EPOCH + month);
                Read::MetricRange { node: data::node_id(number), from, to }
            }
            Operation::AuditQuery => Read::AuditPage { from: data::EPOCH, to: data::EPOCH + month },
            Operation::Nothing => Read::Nothing,
            _ => return None,
        })
    }

    /// The `turn`th write of a run; `None` if there is no further one.
    pub fn write(&self, operation: Operation, turn: u64) -> Option<Write> {
        let fresh = self.base + turn;
        Some(match operation {
            Operation::Register | Operation::ReadsWhileWriting => {
                (turn < self.content.preauth_keys).then(|| self.registration(turn, true))?
            }
            Operation::SignIn => self.registration(turn, false),
            Operation::Heartbeat | Operation::Endpoints => {
                let at = now();
                let with_endpoints = operation == Operation::Endpoints;
                let endpoints = with_endpoints.then(|| data::endpoints(turn, fresh, at));
                // Only those with an even number are online.
                let number = (turn.wrapping_mul(2_654_435_761) % self.content.nodes.max(1)) & !1;
                Write::Heartbeat { node: data::node_id(number), at, endpoints }
            }
            Operation::Audit => {
                let at = now();
                let mut line = data::audit(fresh);
                (line.at, line.id) = (at, data::time_ordered(at, 13, fresh));
                Write::Audit(line)
            }
            Operation::Metrics => {
                let points = turn * BATCH..(turn + 1) * BATCH;
                Write::Metrics(points.map(|number| data::point(number, BATCH)).collect())
            }
            _ => return None,
        })
    }

    fn registration(&self, turn: u64, with_key: bool) -> Write {
        let number = self.content.nodes + turn;
        let preauth_key =
            with_key.then(|| credential::text(Purpose::PreAuthKey, &data::preauth_key(number)));
        let machine = Box::new(data::machine(number));
        Write::Register { machine, preauth_key, user: data::user_id(number) }
    }
}

/// How many operations one write counts as.
pub fn weight(operation: Operation) -> u64 {
    if operation == Operation::Metrics { BATCH } else { 1 }
}

fn nth<T>(of: &[T], turn: u64) -> Option<&T> {
    let count = of.len() as u64;
    let index = turn.checked_rem(count)?;
    of.get(usize::try_from(index).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_a_key_of_its_own_until_they_run_out() {
        let content = Content { nodes: 3, preauth_keys: 2, ..Content::default() };
        let targets = Targets::new(content);
        let key_of = |turn| match targets.write(Operation::Register, turn) {
            Some(Write::Register { preauth_key, .. }) => preauth_key,
            _ => None,
        };
        assert_ne!(key_of(0), key_of(1));
        assert_eq!(key_of(2), None);
        assert!(targets.write(Operation::SignIn, 2).is_some());
    }

    #[test]
    fn an_empty_subject_has_nothing_to_read() {
        let empty = Targets::new(Content::default());
        assert!(empty.read(Operation::NodeById, 0).is_none());
        assert!(empty.read(Operation::Nothing, 0).is_some());
    }

    #[test]
    fn heartbeats_come_from_nodes_that_are_online() {
        let targets = Targets::new(Content { nodes: 101, ..Content::default() });
        let online: Vec<_> = (0..101).step_by(2).map(data::node_id).collect();
        for turn in 0..1_000 {
            let beat = targets.write(Operation::Heartbeat, turn);
            assert!(matches!(beat, Some(Write::Heartbeat { node, .. }) if online.contains(&node)));
        }
    }
}
