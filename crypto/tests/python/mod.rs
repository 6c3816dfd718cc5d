//! Runs the reader in Python, for the tests of this crate and of those that store what it seals.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::print_stderr)]

use std::path::Path;
use std::process::{Command, Output};

/// What the reader says of these arguments; `None` where there is no Python with what it needs.
pub fn reader(arguments: &[&Path]) -> Option<Output> {
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/", "tests/reader.py"));
    let beside = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../crypto/tests/reader.py"));
    let script = if script.exists() { script } else { beside };
    let output = match Command::new("python3").arg(script).args(arguments).output() {
        Ok(output) if output.status.code() != Some(77) => return Some(output),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("skipped: the reader in Python cannot run ({output})");
    // Where it has to run, skipping is a failure.
    assert!(std::env::var_os("SEALED_READER_REQUIRED").is_none(), "{output}");
    None
}
