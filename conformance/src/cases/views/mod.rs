//! Views, and watching what changes.

pub(super) mod snapshots;
pub(super) mod watching;
