//! Measurements of this store: beside a database that is called directly, and piece by piece.

// What the benchmarks use among themselves; names say most of it.
#![allow(missing_docs)]

/// A commit is taken apart on another thread than it was put together on, which glibc's allocator
/// is slow at.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static MIMALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whose memory allocator this program runs on.
pub const ALLOCATOR: &str = if cfg!(feature = "mimalloc") { "mimalloc" } else { "the system's" };

mod fixture;
mod group;
#[cfg(feature = "postgres")]
mod postgres;
mod subjects;
pub mod suite;

pub use fixture::{StateFixture, Target, heartbeat, open, open_with, prefix, registration, route};
pub use group::apply;
pub use subjects::candidates;
