//! When which job is due. Pure: the time is handed in, as what a monotonic clock says.

use std::time::Duration;

use super::{Job, Plan};

/// A job that failed is tried again after this, and then after twice as long each time, up to its interval.
const FIRST_RETRY: Duration = Duration::from_secs(10);

/// One that another instance does is looked at again after this, or its interval: so long, at most, nobody does it
/// once that one is gone.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// When each job is done next.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    job: Job,
    every: Duration,
    due: Duration,
    /// How often in a row it failed.
    failures: u32,
}

impl Entry {
    /// A clock that was set back, or stood still, may not put a job off for longer than its interval.
    fn wait(&self, now: Duration) -> Duration {
        self.due.saturating_sub(now).min(self.every)
    }
}

impl Schedule {
    /// Each job comes first after a tenth of its interval, so that a process that is started often does them
    /// all the same.
    pub(super) fn new(plan: &Plan, now: Duration) -> Self {
        let entry = |job| {
            let every = plan.every(job)?;
            Some(Entry { job, every, due: now.saturating_add(every / 10), failures: 0 })
        };
        Self { entries: Job::ALL.into_iter().filter_map(entry).collect() }
    }

    /// Follows another plan. What is due before its new interval stays so.
    pub(super) fn follow(&mut self, plan: &Plan, now: Duration) {
        let mut next = Self::new(plan, now);
        for entry in &mut next.entries {
            let known = self.entries.iter().find(|known| known.job == entry.job);
            if let Some(known) = known {
                entry.due = known.due.min(now.saturating_add(entry.every));
                entry.failures = known.failures;
            }
        }
        *self = next;
    }

    /// The job that is due first, and how long until then; zero if it is due.
    pub(super) fn next(&self, now: Duration) -> Option<(Job, Duration)> {
        let first = self.entries.iter().min_by_key(|entry| (entry.wait(now), entry.job))?;
        Some((first.job, first.wait(now)))
    }

    /// How long until this job is due.
    #[cfg(test)]
    pub(super) fn wait(&self, job: Job, now: Duration) -> Option<Duration> {
        self.entries.iter().find(|entry| entry.job == job).map(|entry| entry.wait(now))
    }

    /// It ended at this time. What a machine that slept has missed is done once.
    pub(super) fn ended(&mut self, job: Job, now: Duration, succeeded: bool) {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.job == job) else { return };
        entry.failures = if succeeded { 0 } else { entry.failures.saturating_add(1) };
        let pause = match entry.failures {
            0 => entry.every,
            failures => FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(entry.every),
        };
        entry.due = now.saturating_add(pause);
    }

    /// It was due at this time, and left to another instance.
    pub(super) fn skipped(&mut self, job: Job, now: Duration) {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.job == job) else { return };
        entry.failures = 0;
        entry.due = now.saturating_add(entry.every.min(LOOK_AGAIN));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn plan() -> Plan {
        Plan {
            reap: Some(seconds(60)),
            sweep: Some(seconds(600)),
            retention: None,
            checkpoint: Some(seconds(300)),
            ..Plan::default()
        }
    }

    /// What is done until then, if each job takes no time.
    fn done_until(schedule: &mut Schedule, from: u64, to: u64) -> Vec<(u64, Job)> {
        let mut done = Vec::new();
        let mut now = seconds(from);
        while let Some((job, wait)) = schedule.next(now) {
            now += wait;
            if now >= seconds(to) {
                break;
            }
            done.push((now.as_secs(), job));
            schedule.ended(job, now, true);
        }
        done
    }

    #[test]
    fn each_job_is_done_in_its_interval() {
        let mut schedule = Schedule::new(&plan(), Duration::ZERO);
        let done = done_until(&mut schedule, 0, 700);
        let of = |job| done.iter().filter(move |(_, done)| *done == job).map(|(at, _)| *at);
        assert_eq!(of(Job::Reap).take(3).collect::<Vec<_>>(), [6, 66, 126]);
        assert_eq!(of(Job::Sweep).collect::<Vec<_>>(), [60, 660]);
        assert_eq!(of(Job::Checkpoint).collect::<Vec<_>>(), [30, 330, 630]);
        assert_eq!(of(Job::Retention).count(), 0);
    }

    #[test]
    fn what_a_machine_that_slept_has_missed_is_done_once() {
        let mut schedule = Schedule::new(&plan(), Duration::ZERO);
        // Eight hours later.
        let done = done_until(&mut schedule, 28_800, 28_830);
        assert_eq!(done, [(28_800, Job::Reap), (28_800, Job::Sweep), (28_800, Job::Checkpoint)]);
    }

    #[test]
    fn a_clock_that_goes_back_puts_nothing_off_for_longer_than_its_interval() {
        let mut schedule = Schedule::new(&plan(), seconds(1_000_000));
        let (_, wait) = schedule.next(seconds(5)).unwrap();
        assert_eq!(wait, seconds(60));
        schedule.ended(Job::Reap, Duration::MAX, true);
        assert!(schedule.wait(Job::Reap, Duration::ZERO) <= Some(seconds(60)));
    }

    #[test]
    fn what_failed_is_tried_again_soon_and_then_less_often() {
        let mut schedule = Schedule::new(&plan(), Duration::ZERO);
        let mut waits = Vec::new();
        for _ in 0..40 {
            schedule.ended(Job::Sweep, Duration::ZERO, false);
            waits.push(schedule.wait(Job::Sweep, Duration::ZERO).unwrap().as_secs());
        }
        assert_eq!(waits.get(..8).unwrap(), [10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(waits.last(), Some(&600));
        schedule.ended(Job::Sweep, Duration::ZERO, true);
        assert_eq!(schedule.wait(Job::Sweep, Duration::ZERO), Some(seconds(600)));
        // One that is done more often than that is not put off.
        schedule.ended(Job::Reap, Duration::ZERO, false);
        assert_eq!(schedule.wait(Job::Reap, Duration::ZERO), Some(seconds(10)));
    }

    #[test]
    fn what_another_one_does_is_looked_at_again_within_a_minute() {
        let plan = Plan { reap: Some(seconds(20)), ..plan() };
        let mut schedule = Schedule::new(&plan, Duration::ZERO);
        for (job, wait) in [(Job::Reap, 20), (Job::Sweep, 60)] {
            schedule.ended(job, seconds(100), false);
            schedule.skipped(job, seconds(200));
            assert_eq!(schedule.wait(job, seconds(200)), Some(seconds(wait)));
        }
        // How often it failed here before is forgotten.
        schedule.ended(Job::Sweep, seconds(300), false);
        assert_eq!(schedule.wait(Job::Sweep, seconds(300)), Some(FIRST_RETRY));
        schedule.ended(Job::Sweep, seconds(400), true);
        assert_eq!(schedule.wait(Job::Sweep, seconds(400)), Some(seconds(600)));
        schedule.skipped(Job::Retention, seconds(400));
        assert_eq!(schedule.wait(Job::Retention, seconds(400)), None);
    }

    #[test]
    fn another_plan_holds_at_once() {
        let mut schedule = Schedule::new(&plan(), Duration::ZERO);
        schedule.ended(Job::Checkpoint, Duration::ZERO, true);
        let other = Plan { sweep: None, checkpoint: Some(seconds(20)), ..plan() };
        schedule.follow(&other, seconds(10));
        assert_eq!(schedule.wait(Job::Checkpoint, seconds(10)), Some(seconds(20)));
        assert_eq!(schedule.wait(Job::Sweep, seconds(10)), None);
        let back = Plan { checkpoint: Some(seconds(9000)), ..plan() };
        schedule.follow(&back, seconds(11));
        // A longer interval does not put off what was due before.
        assert_eq!(schedule.wait(Job::Checkpoint, seconds(11)), Some(seconds(19)));
    }

    #[test]
    fn nothing_is_due_where_nothing_is_planned() {
        let none = Plan { reap: None, sweep: None, retention: None, checkpoint: None, ..plan() };
        assert_eq!(Schedule::new(&none, Duration::ZERO).next(Duration::ZERO), None);
    }
}
