//! Whole entities, as imports and restores bring them.

use serde::{Deserialize, Serialize};

use super::EntityRecord;

/// Brings entities in as they are, with their ids, times and revisions, under the same rules as
/// any other write. One that is there already, equal in every field, counts as unchanged, so that
/// an interrupted restore can simply be run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// In an order in which what is referred to comes first.
    pub images: Vec<EntityRecord>,
    /// Leave out what breaks a rule and report it; otherwise the first such entity rejects the
    /// whole command.
    pub skip_invalid: bool,
}

impl Restore {
    /// Its name, as traces and errors have it.
    pub const NAME: &'static str = "store.restore";
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// How many entities are new.
    pub restored: u64,
    /// How many were there already.
    pub unchanged: u64,
    /// Those left out: index in [`Restore::images`], and why.
    pub skipped: Vec<(usize, String)>,
}
