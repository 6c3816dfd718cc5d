//! The admin socket of an open store: a Unix socket by which the store is looked at and managed while a
//! process has it open.
//!
//! | to | see |
//! |---|---|
//! | serve a store | [`AdminSocket`], [`SocketOptions`], [`Hooks`] |
//! | talk to one | [`Client`] |
//! | read one as if its files were at hand | [`RemoteBackend`] |
//! | read some of its entities | [`Excerpt`], [`select`] |
//! | know what goes over the socket | [`protocol`], and `docs/admin-protocol.md` |
//!
//! Only its owner, root and whoever is in the configured group get an answer. A client holds nothing of
//! the store between two frames: no snapshot, no lock, no place in the queue of writes.

#[cfg(unix)]
mod address;
mod client;
pub mod protocol;
pub mod select;
#[cfg(unix)]
mod server;

#[cfg(fuzzing)]
pub mod fuzzing;

pub use client::{Client, Excerpt, RemoteBackend, Watch};
#[cfg(unix)]
pub use server::{
    AdminEvent, AdminSocket, Hooks, Migrations, NoHooks, Served, SocketOptions, note_migration,
};
