//! The process that serves the network, as its parent sees it.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ghostwire_store::{Error, ErrorKind, Result};
use tokio::sync::mpsc;

use super::broken;
use super::child::{Ask, Told};
use super::timeline::Timeline;

/// How long an answer may take; a day of an unoptimised build is the longest.
const PATIENCE: Duration = Duration::from_secs(120);

/// Killed when it is dropped.
#[derive(Debug)]
pub(super) struct Served {
    process: Child,
    lines: mpsc::UnboundedReceiver<(Instant, Told)>,
}

impl Served {
    /// Starts this program once more, to serve the network in this directory.
    pub(super) fn start(directory: &Path, seed: u64, scale: u32) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::new(
                ErrorKind::Unavailable,
                "the process that serves the network cannot be started; `--without-move` goes without it",
            )
            .because(error)
        };
        let program = std::env::current_exe().map_err(failed)?;
        let mut place = OsString::from("--move-child=");
        place.push(directory);
        let mut command = Command::new(program);
        command.arg("demo").arg(place);
        command.arg(format!("--seed={seed}")).arg(format!("--scale={scale}"));
        let process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (sends, lines) = mpsc::unbounded_channel();
        // From here on it is killed if something goes wrong.
        let mut served = Self { process, lines };
        let Some(output) = served.process.stdout.take() else {
            return Err(broken("what the process that serves the network tells cannot be read"));
        };
        let thread = std::thread::Builder::new().name("gwstore-demo-told".to_owned());
        let started = thread.spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { return };
                let told = serde_json::from_str(&line)
                    .unwrap_or_else(|error| Told::Failed { why: format!("{error}: {line}") });
                if sends.send((Instant::now(), told)).is_err() {
                    return;
                }
            }
        });
        started.map_err(failed)?;
        Ok(served)
    }

    /// What is told next, apart from what is acknowledged.
    pub(super) async fn answer(&mut self, timeline: &mut Timeline) -> Result<Told> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (at, told) = self.next(deadline).await?;
            match told {
                Told::Acknowledged { name, serial, micros } => {
                    timeline.acknowledge(at, name, serial, micros);
                }
                Told::Failed { why } => {
                    return Err(broken("the process that serves the network failed").because(why));
                }
                told => return Ok(told),
            }
        }
    }

    /// Waits until so many more writes are acknowledged.
    pub(super) async fn writes(&mut self, more: usize, timeline: &mut Timeline) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let wanted = timeline.acknowledged() + more;
        while timeline.acknowledged() < wanted {
            match self.next(deadline).await? {
                (at, Told::Acknowledged { name, serial, micros }) => {
                    timeline.acknowledge(at, name, serial, micros);
                }
                (_, Told::Failed { why }) => {
                    return Err(broken("a write was refused while the network moves").because(why));
                }
                (_, told) => {
                    return Err(broken("something was told that nobody asked for")
                        .with("told", format_args!("{told:?}")));
                }
            }
        }
        Ok(())
    }

    async fn next(&mut self, deadline: Instant) -> Result<(Instant, Told)> {
        let next = tokio::time::timeout_at(deadline.into(), self.lines.recv());
        match next.await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => Err(broken("the process that serves the network ended by itself")),
            Err(_) => Err(broken("the process that serves the network does not answer")
                .with("seconds", PATIENCE.as_secs())),
        }
    }

    /// What it answers, once it has.
    pub(super) async fn ask(&mut self, ask: Ask, timeline: &mut Timeline) -> Result<Told> {
        let line = serde_json::to_string(&ask).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "a question has no JSON form").because(error)
        })?;
        let failed = || broken("the process that serves the network cannot be asked");
        let input = self.process.stdin.as_mut().ok_or_else(failed)?;
        writeln!(input, "{line}").map_err(|error| failed().because(error))?;
        self.answer(timeline).await
    }

    /// Kills it, and takes what it still had told.
    pub(super) async fn kill(&mut self, timeline: &mut Timeline) -> Result<()> {
        let killed = self.process.kill().and_then(|()| self.process.wait());
        let status = killed.map_err(|error| {
            broken("the process that serves the network cannot be killed").because(error)
        })?;
        if !was_killed(status) {
            return Err(broken("the process that serves the network ended before it was killed")
                .with("status", status));
        }
        // The last line may be cut short: that was acknowledged to nobody.
        while let Some((at, told)) = self.lines.recv().await {
            if let Told::Acknowledged { name, serial, micros } = told {
                timeline.acknowledge(at, name, serial, micros);
            }
        }
        Ok(())
    }

    /// Closes the store, and waits for the end of the process.
    pub(super) async fn end(&mut self, timeline: &mut Timeline) -> Result<()> {
        let told = self.ask(Ask::End, timeline).await?;
        let Told::Ended = told else { return Err(unasked(&told)) };
        let ended = self.process.wait().map_err(|error| {
            broken("the process that serves the network cannot be waited for").because(error)
        })?;
        match ended.success() {
            true => Ok(()),
            false => Err(broken("the process that serves the network did not end in order")
                .with("status", ended)),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // One that has ended already needs no more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Something else was told than was asked for.
pub(super) fn unasked(told: &Told) -> Error {
    broken("the process that serves the network gave another answer than it was asked for")
        .with("told", format_args!("{told:?}"))
}

#[cfg(unix)]
fn was_killed(status: ExitStatus) -> bool {
    const SIGKILL: i32 = 9;
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(SIGKILL)
}

#[cfg(not(unix))]
fn was_killed(status: ExitStatus) -> bool {
    !status.success()
}
