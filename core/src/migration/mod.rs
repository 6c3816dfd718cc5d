//! Moving a live network from one database to another, and back.
//!
//! Each of the two databases, the *sides*, has a [`Record`] of its part in the network. Whoever opens
//! them compares both records and knows what was under way and what to do next, wherever it was
//! interrupted. [`step`] is all of that: a pure function from what is seen of both sides, and what is wanted, to
//! the next durable writes, in their order. [`settle`] says what follows from the outcomes of a commit
//! that goes to both sides. `tests/migration_model` explores these two functions.
//!
//! Three rules make the order of writes what it is:
//!
//! - Tighten at the authority first, loosen at the follower first. Between the two writes nothing is
//!   answered.
//! - Fence one side before the other is activated.
//! - The record of the active side is the stage. No process has to remember anything but whether it has
//!   been in sync with both sides since it looked at them.

mod apply;
mod copy;
mod detached;
mod driver;
mod hand_over;
mod live;
mod mirror;
mod mover;
mod pace;
mod plan;
mod record;
mod refusal;
mod seat;
mod settle;
mod side;
mod status;
mod step;
mod witness;

pub use copy::{CopyOptions, CopyProgress};
pub(crate) use hand_over::Gate;
pub use live::Migration;
pub use mover::{Found, MoveOptions, Mover, Next, Standing, find_served, follow, go_on_alone};
pub use plan::check_start;
pub use record::{Membership, Part, Record, Role};
pub use refusal::Refusal;
pub use seat::{Occupant, Renewal, Seat, SeatOptions};
pub(crate) use settle::is_there;
pub use settle::{Outcome, Verdict, settle};
pub use side::Side;
pub use status::{CopyStatus, MigrationInfo, Running, SideStatus, Stage, Status};
pub use step::{Event, Grounds, Pair, Place, Seen, Service, Step, Which, Write, step};
pub use witness::Witness;

#[cfg(test)]
mod tests;
