//! How far a store has come, and who may take it further.

use std::fmt;

/// Defines a number of 0 to `i64::MAX`.
macro_rules! count {
    ($(#[$meta:meta])* $name:ident, $zero:literal) => {
        $(#[$meta])*
        #[derive(
            Debug,
            Clone,
            Copy,
            PartialEq,
            Eq,
            PartialOrd,
            Ord,
            Hash,
            Default,
            serde::Serialize,
            serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            #[doc = $zero]
            pub const ZERO: Self = Self(0);

            /// The one with this number, cut to `i64::MAX`.
            #[must_use]
            pub const fn new(number: u64) -> Self {
                Self(if number > i64::MAX as u64 { i64::MAX as u64 } else { number })
            }

            /// As a plain integer.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self::new(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}
pub(crate) use count;

count! {
    /// How many commits changed what a store holds: blocks, rows of series, and the coming and going of
    /// consumers. Commits that only flush, purge or move a consumer do not count. At most `i64::MAX`.
    Position, "Before the first commit."
}

count! {
    /// Counts how often the right to write to a network passed from one database to another. A commit
    /// names the epoch that it believes in, and is `Fenced` in any other. At most `i64::MAX`.
    Epoch, "Of a store that was never part of a migration."
}
