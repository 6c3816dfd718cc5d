//! The PostgreSQL backend of ghostwire-store: one database that several control planes share.
//!
//! # What is in the database
//! A schema of its own (`ghostwire` unless told otherwise) with one table for each of the core's, with
//! typed columns: identifiers as `uuid`, times as `timestamptz`, documents as `json`, keys as in
//! `nodekey:<64 hexadecimal digits>`. `ghostwire_meta` tells where the store stands, `ghostwire_blocks`
//! keeps the recent blocks, `ghostwire_commits` the ids of recent commits that had none.
//!
//! # Read with other tools, never write
//! A row that was changed by hand is refused as `Corrupt`, on purpose: every row carries 63 bits of a
//! SHA-256 hash of its columns in `row_check`. This is a check against damage and mistakes, not against
//! an attacker, who can compute the hash as well.
//!
//! # How it works
//! A commit is one statement, which changes the row of `ghostwire_meta` if that is still as this process
//! knows it, and everything else only if that succeeded. So of several processes exactly one wins, and the
//! others learn what it wrote. When the connection is lost during a commit, its outcome is asked for under
//! the lock of that row.
//!
//! Connections live on a runtime of their own, so that they work whichever runtime calls.

mod backend;
mod blocks;
mod commit;
mod connection;
mod errors;
mod guard;
mod head;
mod layout;
mod listen;
mod outcome;
mod range;
mod server;
mod settings;
mod shape;
mod sqlstate;
mod turn;
#[cfg(test)]
mod upgraded;
mod verify;
mod wire;

pub use backend::PostgresBackend;
pub use settings::{Durability, Password, PoolOptions, PostgresOptions, Tls};

/// The name in configuration, logs and `BackendInfo`.
const NAME: &str = "postgres";
