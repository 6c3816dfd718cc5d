//! Writes about the store's time.

use super::Part;

commands! {
    /// A write about the store's time.
    ClockCommand {
        /// The clock is right, however long nothing was written.
        ACCEPT = "clock.accept" Accept,
        /// The store's time, and all times beyond the caller's clock, go back to that. It is the only
        /// command whose time may be before that of the last commit.
        REPAIR = "clock.repair" Repair { #[serde(default)] part: Part },
    }
}
