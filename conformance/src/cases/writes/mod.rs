//! Writes: durable, whole, in order, and what happens when a commit fails.

pub(super) mod block_size;
pub(super) mod clock;
pub(super) mod closing;
pub(super) mod commits;
pub(super) mod durable;
pub(super) mod failures;
pub(super) mod opening;
pub(super) mod parts;
pub(super) mod probing;
pub(super) mod revisions;
pub(super) mod transactions;
