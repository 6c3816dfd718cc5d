//! Which condition follows from what is known. Pure.

use std::time::Duration;

use crate::backend::{Displaced, FilePart};

use super::{Check, CheckName, Condition, Health, Outcome};

/// Fewer free bytes than this are not enough for the log, which grows to 4 MiB before it is moved into the
/// file, and for the room that is kept for a full disk.
const LEAST_FREE: u64 = 16 * 1024 * 1024;
/// The writer may decide one command for so long. The largest takes a second.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// How a store ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    Closed,
    /// The writer panicked.
    Failed,
    /// Another copy of the store runs.
    Overtaken(String),
    /// It was never open.
    NotOpened(String),
}

/// What came of the newest probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProbeFact {
    Stored,
    Refused(String),
    /// It has been under way for longer than it may.
    Overdue(Duration),
}

/// What is known of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The rows that were read, while it is opened.
    pub(crate) loading: Option<u64>,
    pub(crate) ended: Option<Ended>,
    pub(crate) is_closing: bool,
    /// Why, if it is.
    pub(crate) poisoned: Option<String>,
    /// Why another database may write and this one may not.
    pub(crate) fenced: Option<String>,
    /// It was opened so.
    pub(crate) is_read_only: bool,
    pub(crate) probe: Option<ProbeFact>,
    /// Of a view of a shared backend, and how old it may be.
    pub(crate) view_age: Option<(Duration, Duration)>,
    pub(crate) free_bytes: Option<u64>,
    /// For how long the writer has been deciding one and the same command.
    pub(crate) deciding_for: Option<Duration>,
    /// What became of one of its files, if something did, and of which.
    pub(crate) displaced: Option<(Displaced, FilePart)>,
}

/// What a condition is told with.
type Told = (String, &'static str);

/// Judges what is known. What is not about the judgement is left empty.
pub(crate) fn assess(facts: &Facts) -> Health {
    let checks = CheckName::ALL.map(|name| check(name, facts));
    let ready = !checks.iter().any(Check::has_failed);
    let (state, told) = condition(facts, &checks);
    let (reason, next_step) = told.unzip();
    Health {
        state,
        ready,
        live: is_live(facts),
        reason,
        next_step,
        checks: checks.into(),
        loaded_rows: None,
        store: None,
        last_error: None,
        probe: None,
    }
}

/// Whether a restart would not help.
fn is_live(facts: &Facts) -> bool {
    let is_stuck = facts.deciding_for.is_some_and(|time| time >= STUCK_AFTER);
    let is_better_opened_anew = match facts.displaced {
        // While its file is away it would not be opened again, or another one would.
        Some((Displaced::Away, FilePart::Store)) => false,
        // Whoever restarts it may kill it, and what only the log has would be lost.
        Some((Displaced::Away, FilePart::Log)) => false,
        Some((Displaced::Away, FilePart::Lock) | (Displaced::Back, _)) => true,
        None => false,
    };
    facts.ended != Some(Ended::Failed) && !is_stuck && !is_better_opened_anew
}

/// The gravest that holds.
fn condition(facts: &Facts, checks: &[Check]) -> (Condition, Option<Told>) {
    if let Some(ended) = &facts.ended {
        return (Condition::Stopped, Some(told_of_end(ended)));
    }
    if facts.loading.is_some() {
        let told = told_of(checks, CheckName::Loaded);
        return (Condition::Loading, told);
    }
    if facts.is_closing {
        return (Condition::Draining, told_of(checks, CheckName::NotDraining));
    }
    if facts.poisoned.is_some() {
        return (Condition::Poisoned, told_of(checks, CheckName::NotPoisoned));
    }
    if let Some(why) = &facts.fenced {
        return (Condition::ReadOnly, Some((why.clone(), FENCED)));
    }
    if let Some(failed) = checks.iter().find(|check| check.has_failed()) {
        return (Condition::Degraded, told_of(checks, failed.name));
    }
    if facts.is_read_only {
        let told = ("it was opened for reading only".to_owned(), "open it anew to write");
        return (Condition::ReadOnly, Some(told));
    }
    (Condition::Ready, None)
}

const FENCED: &str = "use the database that has taken over; to go on with this one, open it anew when that has ended";
const WAIT: &str = "wait";
const REOPENS: &str = "the next write reopens the backend by itself; if this lasts, look at the disk and \
                       at the last error, and open the store anew";
const MAKE_ROOM: &str =
    "make room on the file system; pruning series frees pages of the file for later writes";
const REOPENS_ON_SERVER: &str = "the next write reopens the backend by itself; if this lasts, look at the database \
                                 server and at the last error, and open the store anew";
const LOOK_AT_DISK: &str = "look at the disk and at the last error; it is tried again by itself";
const LOOK_AT_SERVER: &str = "look at the database server, the way to it and the last error; it is tried again by \
                              itself";
const SLOW_DISK: &str = "a disk that is slow, or a queue that is full: wait, and look at the disk";
const SLOW_SERVER: &str =
    "a database server that is slow or away, or a queue that is full: wait, and look at the server";

/// What several processes write to is a server's, unless a file system of this machine is known under it.
fn is_on_a_server(facts: &Facts) -> bool {
    facts.view_age.is_some() && facts.free_bytes.is_none()
}

/// A store whose file was moved is written again only once it is opened anew.
fn put_right(displaced: (Displaced, FilePart)) -> &'static str {
    match displaced {
        (Displaced::Away, FilePart::Store) => {
            "put the store's files back in their place, then open the store anew: until then nothing is written"
        }
        (Displaced::Away, FilePart::Log) => {
            "end this process in order (SIGTERM, never kill -9: it moves what the log held into the file) and start \
             it again: until then nothing is written"
        }
        (Displaced::Away, FilePart::Lock) => {
            "look whether another process has the store open, end this one in order (SIGTERM, never kill -9) and \
             start it again: until then nothing is written"
        }
        (Displaced::Back, _) => {
            "the files are back; open the store anew: others may have had them, so nothing is written before"
        }
    }
}

fn told_of_end(ended: &Ended) -> Told {
    match ended {
        Ended::Closed => ("it is closed".to_owned(), "open it"),
        Ended::Failed => (
            "its writer panicked; what was acknowledged is stored".to_owned(),
            "open it again, and report what the process said",
        ),
        Ended::Overtaken(why) => {
            (why.clone(), "end the other copy of the store, or go on with that one")
        }
        Ended::NotOpened(why) => (why.clone(), "mend what the error says, and start anew"),
    }
}

fn told_of(checks: &[Check], name: CheckName) -> Option<Told> {
    let check = checks.iter().find(|check| check.name == name)?;
    Some((check.reason.clone()?, check.next_step?))
}

fn check(name: CheckName, facts: &Facts) -> Check {
    let is_open = facts.loading.is_none() && facts.ended.is_none();
    let judged = match name {
        CheckName::Loaded => loaded(facts),
        CheckName::NotDraining => draining(facts),
        _ if !is_open => Judged::Nothing,
        CheckName::Writable => writable(facts),
        CheckName::DiskSpace => disk_space(facts),
        CheckName::NotPoisoned => match &facts.poisoned {
            Some(why) => {
                let helps = if is_on_a_server(facts) { REOPENS_ON_SERVER } else { REOPENS };
                Judged::Failed(why.clone(), facts.displaced.map_or(helps, put_right))
            }
            None => Judged::Passed,
        },
        CheckName::ViewFresh => view_fresh(facts),
    };
    let (outcome, told) = match judged {
        Judged::Passed => (Outcome::Passed, None),
        Judged::Nothing => (Outcome::NotApplicable, None),
        Judged::Unknown => (Outcome::Unknown, None),
        Judged::Failed(reason, next_step) => (Outcome::Failed, Some((reason, next_step))),
    };
    let (reason, next_step) = told.unzip();
    Check { name, outcome, reason, next_step }
}

enum Judged {
    Passed,
    /// There is nothing to judge.
    Nothing,
    Unknown,
    Failed(String, &'static str),
}

fn loaded(facts: &Facts) -> Judged {
    match (&facts.ended, facts.loading) {
        (Some(ended @ Ended::NotOpened(_)), _) => {
            let (why, next_step) = told_of_end(ended);
            Judged::Failed(why, next_step)
        }
        (None, Some(rows)) => Judged::Failed(format!("it is being opened: {rows} rows read"), WAIT),
        _ => Judged::Passed,
    }
}

fn draining(facts: &Facts) -> Judged {
    match &facts.ended {
        Some(Ended::NotOpened(_)) => Judged::Nothing,
        Some(ended) => {
            let (why, next_step) = told_of_end(ended);
            Judged::Failed(why, next_step)
        }
        None if facts.is_closing => Judged::Failed("it is being closed".to_owned(), WAIT),
        None => Judged::Passed,
    }
}

fn writable(facts: &Facts) -> Judged {
    if let Some(why) = &facts.fenced {
        return Judged::Failed(why.clone(), FENCED);
    }
    match &facts.probe {
        _ if facts.is_read_only => Judged::Nothing,
        Some(ProbeFact::Stored) => Judged::Passed,
        Some(ProbeFact::Refused(why)) => {
            let helps = if is_on_a_server(facts) { LOOK_AT_SERVER } else { LOOK_AT_DISK };
            Judged::Failed(why.clone(), facts.displaced.map_or(helps, put_right))
        }
        Some(ProbeFact::Overdue(time)) => Judged::Failed(
            format!("a write has been waiting for {} seconds", time.as_secs()),
            if is_on_a_server(facts) { SLOW_SERVER } else { SLOW_DISK },
        ),
        None => Judged::Unknown,
    }
}

fn disk_space(facts: &Facts) -> Judged {
    match facts.free_bytes {
        _ if facts.is_read_only => Judged::Nothing,
        None => Judged::Nothing,
        Some(free) if free >= LEAST_FREE => Judged::Passed,
        Some(free) => Judged::Failed(
            format!("the file system has {free} bytes left, and should have {LEAST_FREE}"),
            MAKE_ROOM,
        ),
    }
}

fn view_fresh(facts: &Facts) -> Judged {
    match facts.view_age {
        None => Judged::Nothing,
        Some((age, most)) if age <= most => Judged::Passed,
        Some((age, most)) => Judged::Failed(
            format!("the view is {} ms old, and may be {} ms", age.as_millis(), most.as_millis()),
            "look whether the backend can be reached",
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn healthy() -> Facts {
        Facts { probe: Some(ProbeFact::Stored), free_bytes: Some(LEAST_FREE), ..Facts::default() }
    }

    fn why() -> String {
        "unavailable: the disk fails".to_owned()
    }

    /// What each set of facts comes to: condition, ready, live, and the checks that fail.
    fn judged(facts: &Facts) -> (Condition, bool, bool, Vec<CheckName>) {
        let health = assess(facts);
        let failed = health.checks.iter().filter(|check| check.has_failed());
        let failed = failed.map(|check| check.name).collect();
        (health.state, health.ready, health.live, failed)
    }

    #[test]
    fn the_gravest_condition_is_told_and_every_check_that_fails() {
        use CheckName as C;
        use Condition as S;
        let poisoned = Facts { poisoned: Some(why()), ..healthy() };
        let refused = Facts { probe: Some(ProbeFact::Refused(why())), ..healthy() };
        let fenced = Facts { fenced: Some("fenced".into()), ..healthy() };
        let cases = [
            (healthy(), (S::Ready, true, true, vec![])),
            (
                Facts { loading: Some(7), ..Facts::default() },
                (S::Loading, false, true, vec![C::Loaded]),
            ),
            (
                Facts { is_closing: true, ..poisoned.clone() },
                (S::Draining, false, true, vec![C::NotPoisoned, C::NotDraining]),
            ),
            (
                Facts { ended: Some(Ended::Closed), is_closing: true, ..healthy() },
                (S::Stopped, false, true, vec![C::NotDraining]),
            ),
            (
                Facts { ended: Some(Ended::Failed), is_closing: true, ..healthy() },
                (S::Stopped, false, false, vec![C::NotDraining]),
            ),
            (
                Facts { ended: Some(Ended::Overtaken(why())), ..healthy() },
                (S::Stopped, false, true, vec![C::NotDraining]),
            ),
            (
                Facts { ended: Some(Ended::NotOpened(why())), ..Facts::default() },
                (S::Stopped, false, true, vec![C::Loaded]),
            ),
            (poisoned, (S::Poisoned, false, true, vec![C::NotPoisoned])),
            (
                Facts { displaced: Some((Displaced::Away, FilePart::Store)), ..refused.clone() },
                (S::Degraded, false, true, vec![C::Writable]),
            ),
            (
                Facts { displaced: Some((Displaced::Away, FilePart::Log)), ..refused.clone() },
                (S::Degraded, false, true, vec![C::Writable]),
            ),
            (
                Facts { displaced: Some((Displaced::Away, FilePart::Lock)), ..refused.clone() },
                (S::Degraded, false, false, vec![C::Writable]),
            ),
            (
                Facts { displaced: Some((Displaced::Back, FilePart::Log)), ..refused.clone() },
                (S::Degraded, false, false, vec![C::Writable]),
            ),
            (refused, (S::Degraded, false, true, vec![C::Writable])),
            (fenced, (S::ReadOnly, false, true, vec![C::Writable])),
            (
                Facts { free_bytes: Some(LEAST_FREE - 1), ..healthy() },
                (S::Degraded, false, true, vec![C::DiskSpace]),
            ),
            (
                Facts { is_read_only: true, free_bytes: Some(0), ..Facts::default() },
                (S::ReadOnly, true, true, vec![]),
            ),
        ];
        for (facts, expected) in cases {
            assert_eq!(judged(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn whoever_is_not_ready_says_why_and_what_helps() {
        let facts = Facts { free_bytes: Some(1), ..healthy() };
        let health = assess(&facts);
        assert_eq!(
            health.reason.as_deref(),
            Some("the file system has 1 bytes left, and should have 16777216")
        );
        assert!(health.next_step.is_some());
        let check = health.check(CheckName::DiskSpace).unwrap();
        assert_eq!((&check.reason, check.next_step), (&health.reason, health.next_step));
        assert_eq!(assess(&healthy()).reason, None);
    }

    #[test]
    fn what_is_going_to_be_closed_is_not_ready_any_more() {
        let closing = assess(&Facts { is_closing: true, ..healthy() });
        assert_eq!(assess(&healthy()).draining(), closing);
        let ended = Facts { ended: Some(Ended::Closed), ..healthy() };
        assert_eq!(assess(&ended).draining(), assess(&ended));
    }

    #[test]
    fn a_store_whose_file_was_moved_does_not_promise_to_reopen_by_itself() {
        for (displaced, words) in [
            ((Displaced::Away, FilePart::Store), "put the store's files back"),
            ((Displaced::Away, FilePart::Log), "in order (SIGTERM, never kill -9"),
            ((Displaced::Away, FilePart::Lock), "in order (SIGTERM, never kill -9"),
            ((Displaced::Back, FilePart::Log), "open the store anew"),
        ] {
            let facts = Facts {
                poisoned: Some(why()),
                displaced: Some(displaced),
                probe: Some(ProbeFact::Refused(why())),
                ..healthy()
            };
            for check in assess(&facts).checks.iter().filter(|check| check.has_failed()) {
                let next_step = check.next_step.unwrap();
                assert!(
                    next_step.contains(words) && !next_step.contains("by itself"),
                    "{next_step}"
                );
            }
        }
    }

    #[test]
    fn of_a_store_on_a_server_the_server_is_named_and_no_disk() {
        let second = Duration::from_secs(1);
        let on_server = Facts { view_age: Some((second, second)), free_bytes: None, ..healthy() };
        let refused = Some(ProbeFact::Refused("unavailable: it does not answer".to_owned()));
        for (facts, names) in [(healthy(), "disk"), (on_server, "server")] {
            for failing in [
                Facts { poisoned: Some(why()), ..facts.clone() },
                Facts { probe: refused.clone(), ..facts.clone() },
                Facts { probe: Some(ProbeFact::Overdue(second)), ..facts.clone() },
            ] {
                let next_step = assess(&failing).next_step.unwrap();
                assert_eq!(next_step.contains("disk"), names == "disk", "{next_step}");
                assert_eq!(next_step.contains("server"), names == "server", "{next_step}");
            }
        }
    }

    #[test]
    fn what_was_not_probed_yet_does_not_fail() {
        let unknown = Facts { probe: None, ..healthy() };
        assert_eq!(judged(&unknown).0, Condition::Ready);
        let check = assess(&unknown).check(CheckName::Writable).unwrap().clone();
        assert_eq!(check.outcome, Outcome::Unknown);
    }

    #[test]
    fn only_a_writer_that_is_dead_or_stuck_is_better_after_a_restart() {
        let deciding = |time| Facts { deciding_for: Some(time), ..healthy() };
        assert!(judged(&deciding(STUCK_AFTER - Duration::from_secs(1))).2);
        assert!(!judged(&deciding(STUCK_AFTER)).2);
        // A disk that does not answer is no reason, however long it takes.
        let hour = Duration::from_secs(3600);
        let slow = Facts { probe: Some(ProbeFact::Overdue(hour)), ..healthy() };
        assert_eq!(judged(&slow), (Condition::Degraded, false, true, vec![CheckName::Writable]));
    }

    #[test]
    fn a_view_may_be_as_old_as_a_credential_check_lets_it_be() {
        let second = Duration::from_secs(1);
        let aged = |age| Facts { view_age: Some((age, second)), ..healthy() };
        assert_eq!(judged(&aged(second)).0, Condition::Ready);
        assert_eq!(judged(&aged(second * 2)).3, [CheckName::ViewFresh]);
    }
}
