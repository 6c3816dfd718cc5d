//! The backend on a real server, and what can happen on the way there.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod access;
mod altered;
mod following;
mod lost;
mod migrated;
mod pool;
mod refused;
mod standing;
mod support;
mod turns;
mod values;
mod vanished;
