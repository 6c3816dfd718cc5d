//! Nodes: registering, keys, labels, addresses, and their end.

pub(super) mod addresses;
pub(super) mod backfill;
pub(super) mod labels;
pub(super) mod machines;
pub(super) mod node_keys;
pub(super) mod registration;
pub(super) mod removal;
pub(super) mod repetitions;
pub(super) mod settings;
