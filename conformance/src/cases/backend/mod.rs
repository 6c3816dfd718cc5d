//! What a backend promises to the layers above it. These cases call the backend itself, with
//! commits made by hand.

pub(super) mod adopt;
pub(super) mod atomic;
pub(super) mod blocks;
pub(super) mod checkpoint;
pub(super) mod close;
pub(super) mod concurrent;
pub(super) mod epoch;
mod fixtures;
pub(super) mod head;
pub(super) mod identity;
pub(super) mod maintain;
pub(super) mod migrate;
pub(super) mod position;
pub(super) mod probe;
pub(super) mod prune;
pub(super) mod record;
pub(super) mod rows;
pub(super) mod scan;
pub(super) mod serial;
pub(super) mod values;
