//! What the benchmarks share: stores to open, nodes to fill them with, and what the machine tells
//! about itself.

/// A commit is taken apart on another thread than it was put together on, which glibc's allocator
/// is slow at.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod fixture;
mod group;
mod machine;

pub use fixture::{
    Target, World, files_in, heartbeat, key_bytes, open, policy, prefix, registration, route,
};
pub use group::{apply, encode};
pub use machine::{
    Spread, cpu_model, directory, fdatasync, kernel, resident_bytes, scratch, thread_cpu,
};
