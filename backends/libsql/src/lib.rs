//! The libsql backend of ghostwire-store: one local file with real tables and columns, which any
//! SQLite tool can read.
//!
//! # What is in the file
//! One table for each of the core's: identifiers as hyphenated UUIDs, keys as in
//! `nodekey:<64 hexadecimal digits>`, times as microseconds since the epoch, lists and documents
//! as JSON. `ghostwire_meta` tells where the store stands, `ghostwire_blocks` keeps the recent
//! blocks. `.schema` in the `sqlite3` shell explains the columns.
//!
//! # Read with other tools, never write
//! Reading while the store is open is fine, as long as no transaction is left open: that keeps the
//! store's log growing. Writing is not: a row that was changed by hand is refused as `Corrupt`, on
//! purpose. Every row carries 63 bits of a SHA-256 hash of its columns in `row_check`, and
//! [`LibsqlBackend::open`] has SQLite check the structure of the file, so that a flipped bit is found
//! and never read as data. This is a check against damage, not against an attacker, who can compute
//! the hash as well, and whoever reads the file reads its content. A `-wal` file that lost its end is
//! an older state of the store; opening notices some of that (`LogInfo::ended_early`).
//!
//! # How it works
//! A commit is one transaction (WAL, `synchronous = FULL`) on a connection of its own, and blocks
//! the thread that asks for it. Reads go over other connections on tokio's blocking threads, or
//! inline where there is no runtime. Connections, transactions and the log are those of
//! [`ghostwire_store_sqlite`].
//!
//! libsql panics if another crate used the same SQLite before it: see [`prepare_process`].

mod backend;
mod blocks;
mod check;
mod commit;
mod layout;
mod link;
mod meta;
mod opening;
mod options;
mod process;
mod range;
mod shape;

pub use backend::LibsqlBackend;
pub use options::LibsqlOptions;
pub use process::prepare_process;

/// The name in configuration, logs and `BackendInfo`.
const NAME: &str = "libsql";

#[cfg(test)]
mod tests;
