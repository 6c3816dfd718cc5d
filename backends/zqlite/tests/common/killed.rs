//! Processes that are killed: this test's own program, which runs a child instead of a test.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

/// What the child says, one line.
#[allow(clippy::print_stdout)]
pub fn tell(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "child: {what}").unwrap();
    out.flush().unwrap();
}

/// Runs the test `child` of this program with these variables, gives every line that it tells to `heard`, and
/// kills it once that says so.
pub fn run_and_kill(variables: &[(&str, &OsStr)], mut heard: impl FnMut(&str) -> bool) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut killed = false;
    // After the kill what is left in the pipe is heard: it was told.
    while let Some(Ok(line)) = lines.next() {
        let Some((_, what)) = line.split_once("child: ") else { continue };
        if heard(what) && !killed {
            child.kill().unwrap();
            killed = true;
        }
    }
    assert!(killed, "the child ended by itself: {variables:?}");
    child.wait().unwrap();
}
