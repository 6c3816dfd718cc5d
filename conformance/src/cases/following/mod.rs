//! Who follows the log from elsewhere, and what the log tells them.

pub(super) mod away;
pub(super) mod feed;
pub(super) mod migrating;
pub(super) mod outcomes;
