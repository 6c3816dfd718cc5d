//! Which of several control planes does the jobs. Pure: the instances and the time are handed in.

use std::sync::Arc;

use ghostwire_store_core::domain::{Instance, InstanceId, Timestamp};

/// Who does the jobs, as seen from one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// This instance.
    Here,
    /// This one, which began before and lives.
    Elsewhere(InstanceId),
    /// Not this instance: it has not begun yet, or is over.
    Over,
}

/// Of the instances that live the one that began first does the jobs. One lives if it was seen within
/// [`Instance::LOST_AFTER`] before `now`, the store's time. `own` lives as long as it is among them: who asks
/// is there, however long ago it said so. So two may think for a while that it is their turn, and nobody never.
///
/// ```
/// use ghostwire_store::domain::{InstanceId, Timestamp};
/// use ghostwire_store::jobs::{Duty, whose_turn};
///
/// let unknown = InstanceId::from_bytes([1; 16]);
/// assert_eq!(whose_turn([], Timestamp::EPOCH, unknown), Duty::Over);
/// ```
#[must_use]
pub fn whose_turn<'i>(
    instances: impl IntoIterator<Item = &'i Arc<Instance>>,
    now: Timestamp,
    own: InstanceId,
) -> Duty {
    let mut is_there = false;
    let mut first = own;
    for instance in instances {
        is_there |= instance.id == own;
        if now.since(instance.last_seen) <= Instance::LOST_AFTER {
            first = first.min(instance.id);
        }
    }
    match is_there {
        false => Duty::Over,
        true if first == own => Duty::Here,
        true => Duty::Elsewhere(first),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MICROSECOND: Duration = Duration::from_micros(1);

    fn id(number: u8) -> InstanceId {
        InstanceId::from_bytes([number; 16])
    }

    fn begun() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    /// One that was seen so long after all of them began.
    fn seen(number: u8, after: Duration) -> Arc<Instance> {
        let name = format!("control-{number}").parse().unwrap();
        let last_seen = begun().saturating_add(after);
        Arc::new(Instance { id: id(number), name, started_at: begun(), last_seen })
    }

    #[test]
    fn the_first_of_those_that_live_does_them() {
        let all = [3, 1, 2].map(|number| seen(number, Duration::ZERO));
        assert_eq!(whose_turn(&all, begun(), id(1)), Duty::Here);
        for other in [2, 3] {
            assert_eq!(whose_turn(&all, begun(), id(other)), Duty::Elsewhere(id(1)));
        }
        assert_eq!(whose_turn(&[seen(1, Duration::ZERO)], begun(), id(1)), Duty::Here);
    }

    #[test]
    fn the_next_does_them_once_the_first_was_not_seen_for_long() {
        let all = [seen(1, Duration::ZERO), seen(2, Instance::LOST_AFTER)];
        let last = begun().saturating_add(Instance::LOST_AFTER);
        assert_eq!(whose_turn(&all, last, id(2)), Duty::Elsewhere(id(1)));
        let late = last.saturating_add(MICROSECOND);
        assert_eq!(whose_turn(&all, late, id(2)), Duty::Here);
        // It is there all the same, and does not know that it was not heard of.
        assert_eq!(whose_turn(&all, late, id(1)), Duty::Here);
        // A sign of life, and it is the first again.
        let all = [seen(1, Instance::LOST_AFTER + MICROSECOND), seen(2, Instance::LOST_AFTER)];
        assert_eq!(whose_turn(&all, late, id(2)), Duty::Elsewhere(id(1)));
    }

    #[test]
    fn who_is_over_does_nothing() {
        let all = [seen(2, Duration::ZERO)];
        for gone in [1, 3] {
            assert_eq!(whose_turn(&all, begun(), id(gone)), Duty::Over);
        }
        assert_eq!(whose_turn(&[], begun(), id(1)), Duty::Over);
    }

    #[test]
    fn a_sign_of_life_from_beyond_the_clock_is_one() {
        let all = [seen(1, Duration::from_secs(3_600)), seen(2, Duration::ZERO)];
        assert_eq!(whose_turn(&all, begun(), id(2)), Duty::Elsewhere(id(1)));
    }
}
