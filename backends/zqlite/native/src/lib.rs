//! The ZQLite library, written in Zig, loaded at run time in a process of its own.
//!
//! A fault in that library ends its process, so it is only loaded by a child ([`child::run`]), which
//! answers its parent ([`Session`]) over a pipe. Whether a library is to be trusted at all is decided by a
//! self-test ([`admission`]), whose verdict is kept beside the store.
//!
//! [`Library`], [`Connection`], [`Statement`] and [`Transaction`] are the library's interface, ABI 1.0.0,
//! made safe. They are what the child uses.
//!
//! **None of this was ever run with the ZQLite library itself**: no build of it with that interface could
//! be had. It was run with a double that has the same interface, on SQLite.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "the native engine of zqlite is for Linux; build without the feature `zqlite-native`"
);

pub mod admission;
pub mod child;
mod codes;
mod failure;
mod library;
mod library_file;
pub mod message;
mod process;
mod raw;
mod rows;
mod session;
mod trial;

pub use codes::{Category, code_name};
pub use failure::{Failure, LoadError};
pub use library::{Connection, Library, Row, Statement, Transaction, Value, ValueRef};
pub use library_file::LibraryFile;
pub use process::Program;
pub use rows::MAX_VALUE;
pub use session::{Change, DEADLINE, Host, Loaded, Locked, NotStored, Session};
