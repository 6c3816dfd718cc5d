//! A double of the ZQLite library: its C interface, ABI 1.0.0, on SQLite.
//!
//! It proves what is built on that interface, and nothing of ZQLite: no figure of it is ZQLite's. It
//! keeps to the interface's habits: parameters and columns count from 0, a statement makes its whole
//! result at the first step, a failing step gives 1 and no code, an empty blob is null.
//!
//! A copy of the file is broken in one way by writing the name of a [`Switch`] into [`SWITCH`]:
//! whoever tests with it finds that by the text that stands there, [`UNBROKEN`].

#![allow(clippy::missing_safety_doc)]

mod file;
mod handles;
mod interface;
mod statement;
mod switch;
mod verdict;

pub use file::{built, install, install_without};
pub use switch::{ABORT, SWITCH, Switch, UNBROKEN};
pub use verdict::vouch;

/// The number of the interface: 1.0.0.
pub const ABI: i32 = 10_000;
