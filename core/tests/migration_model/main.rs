//! Explores `migration::step` and `migration::settle`: every order in which two databases, one process,
//! its messages and clients can do what they do, within bounds. docs/migration.md has the bounds and what
//! is not explored.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod properties;
mod protocol;
mod state;

use std::time::Instant;

use protocol::{Mutation, Protocol};
use stateright::{Checker, HasDiscoveries, Model};

/// Explores everything within the bounds, and says how much that was.
fn holds(protocol: Protocol) {
    let began = Instant::now();
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    println!(
        "{:?}: {} states, {} steps deep, {:.1} s",
        checker.model(),
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    checker.assert_properties();
}

/// What a protocol that was changed must break.
fn breaks(protocol: Protocol, property: &'static str) {
    let wanted = HasDiscoveries::AllOf([property].into());
    let checker = protocol.checker().finish_when(wanted).spawn_bfs().join();
    let path = checker.discovery(property);
    let path = path.unwrap_or_else(|| panic!("{:?} keeps that {property}", checker.model()));
    println!("{:?} breaks that {property}:", checker.model());
    path.into_actions().iter().for_each(|action| println!("  {action:?}"));
}

#[test]
fn by_a_process_that_holds_both() {
    holds(Protocol { commits: 3, epochs: 6, ..Protocol::default() });
}

#[test]
fn with_a_witness() {
    holds(Protocol { commits: 1, epochs: 3, witness: true, ..Protocol::default() });
}

#[test]
fn with_blocks_that_arrive_late() {
    holds(Protocol { commits: 2, epochs: 2, late: true, ..Protocol::default() });
}

/// Tightened at the follower first, it may be promoted without what only the authority has.
#[test]
fn tightening_the_follower_first_loses_what_was_answered() {
    let mutation = Mutation::TightenFollowerFirst;
    let protocol = Protocol { mutation, witness: true, ..Protocol::default() };
    breaks(protocol, properties::SURVIVES);
}

#[test]
fn loosening_the_authority_first_loses_what_was_answered() {
    let mutation = Mutation::LoosenAuthorityFirst;
    let protocol = Protocol { mutation, witness: true, ..Protocol::default() };
    breaks(protocol, properties::SURVIVES);
}

#[test]
fn activating_before_fencing_makes_two_writers() {
    let mutation = Mutation::ActivateBeforeFence;
    breaks(Protocol { mutation, ..Protocol::default() }, properties::ONE_WRITER);
}

#[test]
fn answering_after_one_side_loses_what_was_answered() {
    let mutation = Mutation::AnswerAfterOneSide;
    breaks(Protocol { mutation, ..Protocol::default() }, properties::SURVIVES);
}

/// Both moves by records alone: the first by a process that sees only one side.
#[test]
fn going_on_alone_without_having_been_in_sync_makes_two_writers() {
    let mutation = Mutation::GoOnWithoutSync;
    breaks(Protocol { mutation, ..Protocol::default() }, properties::ONE_WRITER);
}
