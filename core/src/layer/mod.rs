//! Layers: each is a [`Backend`](crate::backend::Backend) on top of another one, and keeps its
//! promises.

mod chaos;
mod faults;
mod observe;
mod retry;

pub use chaos::Chaos;
pub use faults::{CommitHold, FaultKind, Faults};
pub use observe::{DURATION_BOUNDS, Durations, Observations, Observe, OperationStats};
pub use retry::{Retry, RetryPolicy};
