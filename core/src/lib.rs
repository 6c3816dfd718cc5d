//! The heart of ghostwire-store: entities, the pure state machine, the group-commit writer, and
//! the traits on either side of them. It names no backend and does no I/O but what it is handed.

pub mod backend;
pub mod block;
pub mod command;
pub mod domain;
pub mod error;
pub mod schema;
pub mod state;
