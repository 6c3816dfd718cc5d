//! The core of ghostwire-store: entities, the state machine, the group-commit writer, and the traits
//! on either side of them. It names no backend, and opens no file and no connection: backend, clock
//! and random numbers are handed in.
//!
//! How a write travels:
//!
//! 1. a [`repository`] method makes a [`command`] of it: a value with ids, time and hashes chosen;
//! 2. the writer takes it from its queue and lets [`state`] decide what it changes;
//! 3. the changes of all waiting commands become one [`block`], which a [`backend`] makes durable;
//! 4. the new state is published as a [`view`], and every caller is answered.
//!
//! Reads are plain functions on a view.

pub mod attest;
pub mod backend;
pub mod changes;
mod checkpoint;
mod clock;
pub mod command;
pub mod digest;
pub mod domain;
mod entity;
pub mod entropy;
pub mod error;
mod handle;
pub mod health;
mod imported;
pub mod keys;
pub mod layer;
mod loader;
mod log;
pub mod migration;
pub mod netmap;
pub mod observe;
pub mod options;
pub mod portable;
pub mod position;
pub mod repository;
pub mod schema;
pub mod secrets;
mod series;
pub mod state;
pub mod store;
pub mod threads;
pub mod view;
mod writer;

pub use log::{block, chain, feed};

pub use error::{EntityKind, Error, ErrorKind, Result};
pub use store::{Store, open};
pub use writer::Committed;
