//! Processes that are killed with SIGKILL at random moments.
//!
//! A check starts this program again as a child ([`Suite::main`](crate::Suite::main) sees to that),
//! which opens a place of the parent's and works there. Before each call the child writes a message
//! with the call, and after each answer a message with the result. The parent records each message
//! before it counts it, and kills the child a random time after a random number of answers. Then it
//! opens the place and compares what is stored with the messages.
//!
//! # What this proves, and what not
//! - What was acknowledged is stored, field by field, with its line in the audit trail, and the
//!   digest is that of an independent state to which the calls from the pipe were applied. That
//!   state obeys the same rules, since it is the same state machine: this proves that nothing is
//!   lost, invented or torn, not that the rules are right.
//! - A call that was not answered has left all of its changes, or none.
//! - Nothing else is stored.
//! - Where several processes may write, this holds for two that write at once and of which either is killed; the other
//!   one goes on. It holds as well if the server under both is killed, where the backend has one that can be.
//!
//! The operating system survives, so the parent can read everything that the process wrote before
//! it died: this does not find a missing `fsync`. Loss of power is simulated elsewhere.

mod calls;
mod child;
mod choices;
mod export;
mod import;
mod migration;
mod oracle;
mod process;
mod protocol;
mod recovered;
#[cfg(test)]
mod tests;
mod together;
mod work;
mod workload;

use crate::case::{Check, check};

pub(crate) use child::run_child;

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

/// The share of the effort's kills that a check gets; at least one.
fn share(kills: u32, of_25: u32) -> u32 {
    kills.saturating_mul(of_25).div_ceil(25).max(1)
}
