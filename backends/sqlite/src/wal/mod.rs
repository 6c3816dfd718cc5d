//! SQLite's write-ahead log, where SQLite leaves something to be desired: it grows without a bound
//! while somebody reads, nobody hears of a checkpoint that failed, and of a log whose end is
//! missing SQLite takes what is left without a word.

mod format;
mod gate;
mod keeper;
mod policy;
mod survey;
mod tail;

#[cfg(fuzzing)]
pub use format::fuzzing;
pub(crate) use gate::Inside;
pub use gate::Interrupt;
pub use keeper::LogKeeper;
pub(crate) use keeper::{Checkpointer, Mode};
pub(crate) use policy::Checkpoint;
pub use policy::LogLimits;
pub(crate) use survey::{Indexed, Sign, survey};

#[cfg(test)]
mod tests;
