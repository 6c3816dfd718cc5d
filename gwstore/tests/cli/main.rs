//! Drives the real program, as a person or a script would.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

mod advice;
mod after_import;
mod attestations;
mod away;
mod bad_inputs;
mod bench;
mod clock;
mod configurations;
mod conformance;
mod credentials;
mod damage;
mod edits;
mod everyday;
mod exit_codes;
mod field;
mod files;
mod imports;
mod intentions;
mod keys;
mod listings;
mod live;
mod looking;
#[cfg(unix)]
mod migrations;
mod names;
#[cfg(target_os = "linux")]
mod native;
mod outputs;
mod owners;
mod pins;
#[cfg(unix)]
mod postgres;
mod rotations;
mod round_trips;
mod seal_killed;
#[cfg(unix)]
mod serve;
mod snippets;
mod support;
mod trust;
