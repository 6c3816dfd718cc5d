//! The child's program, for whoever does not bring one of his own.

use std::process::ExitCode;

fn main() -> ExitCode {
    ghostwire_store_zqlite_native::child::run()
}
