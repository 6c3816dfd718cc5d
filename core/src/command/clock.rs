//! Writes about the store's time.

use serde::{Deserialize, Serialize};

use super::Part;

/// A write about the store's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockCommand {
    /// The clock is right, however long nothing was written.
    Accept,
    /// The store's time, and all times beyond the caller's clock, go back to that. It is the only
    /// command whose time may be before that of the last commit.
    Repair {
        /// How much of it.
        #[serde(default)]
        part: Part,
    },
}

names! {
    ClockCommand {
        Accept = ACCEPT "clock.accept",
        Repair = REPAIR "clock.repair",
    }
}
