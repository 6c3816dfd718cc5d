//! Tests whether a backend of ghostwire-store keeps [the contract](contract).
//!
//! One state machine serves all backends, so a backend cannot get a rule wrong by itself; it can
//! lose, reorder, cut or invent what it was given. Hence every case runs in several [`Mode`]s: on
//! the live store, on one that was rebuilt from its blocks, and on one that was rebuilt from its
//! rows with the blocks gone. Beside the cases there are checks that take longer: random commands
//! against a model, recorded histories, killed processes and failing disks.
//!
//! # Testing a backend
//! A test without the standard harness (`harness = false` in Cargo.toml) is all it takes:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use ghostwire_store_conformance::{LocalFiles, Opening, Suite};
//! use ghostwire_store_core::backend::Backend;
//! # use ghostwire_store_core::Result;
//! # use ghostwire_store_memory::MemoryBackend;
//! # struct MyBackend;
//! # impl MyBackend {
//! #     async fn open(_: &std::path::Path, opening: Opening) -> Result<MemoryBackend> {
//! #         Ok(MemoryBackend::at_schema(opening.store, opening.schema))
//! #     }
//! # }
//!
//! fn main() -> std::process::ExitCode {
//!     let mine = LocalFiles::new("mine", |path, opening: Opening| async move {
//!         Ok(Arc::new(MyBackend::open(&path, opening).await?) as Arc<dyn Backend>)
//!     });
//!     Suite::new().backend(mine).main()
//! }
//! ```
//!
//! `cargo test` then runs it; arguments are those of the standard harness. A backend that keeps no
//! local files implements [`Factory`] and [`Place`]. What a backend cannot do is listed, with a
//! reason, in a file that [`Suite::exceptions`] reads: a case that is skipped and not listed there
//! fails, and so does one that is listed and not skipped.

// A case fails by panicking: the message and the place are what its reader needs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// Its `main` and its children are programs of their own.
#![allow(clippy::print_stderr)]

pub mod broken;
mod case;
mod cases;
pub mod contract;
mod crash;
mod disk;
mod exceptions;
mod factory;
mod fixtures;
mod history;
mod in_memory;
mod local_files;
mod model;
mod moving;
mod prelude;
mod report;
mod rng;
mod stack;
mod suite;
mod test_env;

pub use case::Verdict;
pub use disk::{Disk, Fault, Frozen, Watcher};
pub use factory::{Factory, Opening, Place};
pub use in_memory::InMemory;
pub use local_files::LocalFiles;
pub use moving::Migrating;
pub use report::{Outcome, Report, Trial};
pub use stack::Stack;
pub use suite::{Effort, Progress, Suite};
pub use test_env::{Mode, TestEnv};
