//! A program that is asked which of two stores may go on without the other one.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ghostwire_store_core::domain::{SideId, StoreId};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::migration::Witness;
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::threads::may_block;

/// So long it may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Asks by running a program with three arguments: network, epoch, side. It ends with 0 if this side has
/// the epoch, with 1 if another one has it; anything else is no answer.
#[derive(Debug)]
pub(super) struct WitnessCommand {
    program: PathBuf,
}

impl WitnessCommand {
    pub(super) fn new(program: PathBuf) -> Self {
        Self { program }
    }
}

#[async_trait]
impl Witness for WitnessCommand {
    async fn grant(&self, network: StoreId, epoch: Epoch, side: SideId) -> Result<bool> {
        let program = self.program.clone();
        let arguments = [network.to_string(), epoch.to_string(), side.to_string()];
        may_block(move || ask(program, arguments, DEADLINE)).await
    }
}

fn ask(program: PathBuf, arguments: [String; 3], deadline: Duration) -> Result<bool> {
    let refused = |what: &'static str| {
        Error::new(ErrorKind::Unavailable, what)
            .with("key", "migration.witness_command")
            .with("program", program.display())
    };
    let mut child = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| refused("the witness cannot be asked").because(error))?;
    let began = Instant::now();
    loop {
        let status = child
            .try_wait()
            .map_err(|error| refused("what the witness answers cannot be read").because(error))?;
        match status.map(|status| status.code()) {
            Some(Some(0)) => return Ok(true),
            Some(Some(1)) => return Ok(false),
            Some(code) => {
                let code = code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
                return Err(refused("the witness did not answer").with("ended_with", code));
            }
            None if began.elapsed() >= deadline => {
                // It is gone, or about to be.
                let _ = child.kill();
                let _ = child.wait();
                return Err(refused("the witness did not answer in time"));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn asked(script: &str, deadline: Duration) -> Result<bool> {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("witness");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        ask(program, ["network".to_owned(), "7".to_owned(), "side".to_owned()], deadline)
    }

    #[test]
    fn how_it_ends_is_the_answer() {
        assert!(asked("test \"$1 $2 $3\" = 'network 7 side'", DEADLINE).unwrap());
        assert!(!asked("exit 1", DEADLINE).unwrap());
        for (script, deadline) in
            [("exit 2", DEADLINE), ("kill -9 $$", DEADLINE), ("exec sleep 600", Duration::ZERO)]
        {
            let error = asked(script, deadline).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
        }
        let missing = ask(PathBuf::from("/nowhere/witness"), Default::default(), DEADLINE);
        assert!(missing.unwrap_err().to_string().contains("witness_command"));
    }
}
