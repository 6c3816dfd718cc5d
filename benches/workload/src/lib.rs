//! What the side-by-side benchmarks have in common, with no database in it: the data, the
//! operations, callers and how they are counted, the results and their reports.
//!
//! A subject implements [`Subject`] (or one of the smaller traits below [`direct`]); everything
//! else is the same for all of them.

// What the benchmarks use among themselves; names say most of it.
#![allow(missing_docs)]

pub mod credential;
pub mod data;
pub mod direct;
mod driver;
pub mod machine;
mod operation;
pub mod report;
pub mod results;
pub mod rows;
mod session;
mod statistics;
pub mod subject;
pub mod targets;
pub mod transcript;

pub use data::Content;
pub use operation::{Kind, Operation, nearest};
pub use session::{Session, fill, needs_a_fresh_subject, run_once};
pub use statistics::{Latencies, Spread};
pub use subject::{Answer, Candidate, Read, Subject, Write};
