//! Removes what a test started, however the test ends.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use crate::{Error, Result};

/// A process that waits until this one ends or drops it, and then cleans up. It sees the end of its
/// standard input, so neither a panic, nor `abort`, nor a signal keeps it from that; and statics,
/// which are never dropped, are covered as well.
#[derive(Debug)]
pub(crate) struct Guard {
    process: Child,
}

impl Guard {
    /// `script` is for the shell; `arguments` are its `$1` and so on.
    pub(crate) fn start(
        script: &str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Self> {
        // Ctrl-C at a terminal is for the test; what it started is removed after it.
        let script = format!("trap '' HUP INT TERM\ncat >/dev/null\n{script}");
        let process = Command::new("/bin/sh")
            .args(["-c", &script, "guard"])
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| Error::of("cannot start /bin/sh, which removes servers", error))?;
        Ok(Self { process })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // It cannot be reported, and the next guard has other things to remove.
        let _ = self.process.wait();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_its_script_when_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("removed");
        let guard = Guard::start("echo \"$1\" >\"$2\"", [OsStr::new("this"), mark.as_os_str()]);
        assert!(!mark.exists(), "not before");
        drop(guard.unwrap());
        assert_eq!(std::fs::read_to_string(&mark).unwrap(), "this\n");
    }
}
