//! The suite, on PostgreSQL.
#![allow(missing_docs, clippy::expect_used)]

mod places;

use std::process::ExitCode;

use ghostwire_store_conformance::Suite;
use places::Schemas;

fn main() -> ExitCode {
    Suite::new().backend(Schemas::new()).exceptions(include_str!("exceptions.toml")).main()
}
