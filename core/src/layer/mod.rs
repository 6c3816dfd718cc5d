//! Layers: each is a [`Backend`](crate::backend::Backend) on top of another one, and keeps its
//! promises.

mod chaos;
mod faults;

pub use chaos::Chaos;
pub use faults::{CommitHold, FaultKind, Faults};
