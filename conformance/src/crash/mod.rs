//! Processes that are killed, with SIGKILL, wherever they happen to be.
//!
//! A check starts this program again as a child ([`Suite::main`](crate::Suite::main) sees to that),
//! which opens a place of the parent's and works there. Before each call the child writes a line
//! with everything it asks for, and after each answer a line with what followed. The parent notes
//! each line before it counts it, and kills the child a random time after a random number of
//! answers. Then it opens the place and compares what is there with what the child said.
//!
//! # What this proves, and what not
//! - What was acknowledged is there, field by field, its line in the audit trail included, and the
//!   digest is that of an independent state which was fed with the calls from the pipe. That state
//!   obeys the same rules, since it is the same state machine: what is proved is that nothing is
//!   lost, invented or torn, not that the rules are right.
//! - Of a call that was not answered all traces are there, or none.
//! - Nothing else is there.
//!
//! The operating system survives, so everything that the process wrote before it died is there
//! for the parent to read: a missing `fsync` is not found like this. Loss of power is simulated
//! elsewhere.

mod calls;
mod child;
mod choices;
mod export;
mod import;
mod migration;
mod oracle;
mod process;
mod said;
mod survivor;
#[cfg(test)]
mod tests;
mod work;
mod workload;

use crate::case::{Check, check};

pub(crate) use child::play;

pub(crate) const CHECKS: &[Check] = &[
    check!("durable-reply", what_a_killed_process_acknowledged_is_there, work::check, true),
    check!(
        "all-or-nothing",
        what_a_killed_process_left_undone_is_not_half_there,
        work::check,
        false
    ),
    check!(
        "migrate-at-open",
        a_migration_that_is_killed_is_done_by_the_next_opening,
        migration::check
    ),
    check!("restore", an_import_that_is_killed_can_be_repeated, import::check),
    check!("view", an_export_under_way_is_of_one_moment_or_known_to_be_unfinished, export::check),
];

/// How many processes a check kills, of all that the effort allows; at least one.
fn share(kills: u32, of_25: u32) -> u32 {
    kills.saturating_mul(of_25).div_ceil(25).max(1)
}
