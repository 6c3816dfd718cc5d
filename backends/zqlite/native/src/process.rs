//! A child process, and messages to and from it within a time.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::message::{Request, Response, length_of};

/// The program that loads the library, which is to call [`child::run`](crate::child::run).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// What makes it do so.
    pub arguments: Vec<OsString>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The child ended.
    Ended(Option<ExitStatus>),
    /// It takes too long.
    Late,
    /// What it says makes no sense.
    Malformed,
    /// The pipe cannot be used.
    Pipe(io::Error),
}

impl Lost {
    /// As an error of this kind.
    pub(crate) fn into_error(self, kind: ErrorKind, what: &'static str) -> Error {
        let why = match self {
            Self::Ended(None) => "the process of the ZQLite library ended".to_owned(),
            Self::Ended(Some(status)) => {
                format!("the process of the ZQLite library ended: {status}")
            }
            Self::Late => "the ZQLite library takes too long, and was ended".to_owned(),
            Self::Malformed => "what the library's process says makes no sense".to_owned(),
            Self::Pipe(error) => return Error::new(kind, what).because(error),
        };
        Error::new(kind, what).with("because", why)
    }
}

/// A child. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    /// `None` once it ended, or somebody else waits for it.
    child: Option<Child>,
    number_of_process: u32,
    input: ChildStdin,
    output: ChildStdout,
    /// What was read and not asked for yet.
    inbox: Vec<u8>,
    /// How much of that was given out.
    given: usize,
    /// Of the last request.
    number: u64,
}

impl Process {
    /// Starts the program. It gets nothing of this process's surroundings, which may hold secrets.
    pub(crate) fn start(program: &Program) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::new(
                ErrorKind::Unavailable,
                "the program that loads the ZQLite library cannot be started",
            )
            .with("program", program.path.display())
            .because(error)
        };
        let mut child = Command::new(&program.path)
            .args(&program.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What a library says there may be content.
            .stderr(Stdio::null())
            // What a terminal sends to this process is not for that one.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let Some((input, output)) = pipes else {
            let _ = child.kill().and_then(|()| child.wait());
            return Err(Error::new(ErrorKind::Unexpected, "a child has no pipes"));
        };
        let number_of_process = child.id();
        let child = Some(child);
        let process = Self {
            child,
            number_of_process,
            input,
            output,
            inbox: Vec::new(),
            given: 0,
            number: 0,
        };
        fcntl_getfl(&process.input)
            .and_then(|flags| fcntl_setfl(&process.input, flags | OFlags::NONBLOCK))
            .map_err(|error| failed(error.into()))?;
        Ok(process)
    }

    /// Writes a request behind others that are to be sent.
    pub(crate) fn encode(&mut self, request: &Request<'_>, into: &mut Vec<u8>) {
        self.number += 1;
        request.encode(self.number, into);
    }

    /// Refuses a child that said something that it was not asked for: it would be taken for an answer.
    pub(crate) fn require_quiet(&mut self) -> std::result::Result<(), Lost> {
        self.inbox.drain(..self.given);
        self.given = 0;
        if !self.inbox.is_empty() {
            return Err(Lost::Malformed);
        }
        let mut output = [PollFd::new(&self.output, PollFlags::IN)];
        let events = match poll(&mut output, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
            Ok(_) => output.map(|output| output.revents()),
            Err(error) => return Err(Lost::Pipe(error.into())),
        };
        match events.into_iter().any(|events| events.contains(PollFlags::IN)) {
            true => Err(Lost::Malformed),
            false => Err(self.ended()),
        }
    }

    /// Writes all of it. After an error the child has seen no more than a beginning.
    pub(crate) fn send(
        &mut self,
        messages: &[u8],
        until: Instant,
    ) -> std::result::Result<(), Lost> {
        let mut rest = messages;
        while !rest.is_empty() {
            match self.input.write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready(&self.input, PollFlags::OUT, until)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(self.ended()),
                Err(error) => return Err(Lost::Pipe(error)),
            }
        }
        Ok(())
    }

    /// Waits for the next message.
    pub(crate) fn receive(&mut self, until: Instant) -> std::result::Result<Response<'_>, Lost> {
        const AT_ONCE: usize = 64 << 10;
        self.inbox.drain(..self.given);
        self.given = 0;
        let length = loop {
            let length = length_of(&self.inbox).map_err(|_| Lost::Malformed)?;
            match length {
                Some(length) if self.inbox.len() >= length + 4 => break length,
                _ => {}
            }
            ready(&self.output, PollFlags::IN, until)?;
            let begin = self.inbox.len();
            self.inbox.resize(begin + AT_ONCE, 0);
            let place = self.inbox.get_mut(begin..).unwrap_or_default();
            let read = self.output.read(place);
            self.inbox.truncate(begin + read.as_ref().map_or(0, |read| *read));
            match read {
                Ok(0) => return Err(self.ended()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Lost::Pipe(error)),
            }
        };
        self.given = length + 4;
        let message = self.inbox.get(4..self.given).ok_or(Lost::Malformed)?;
        match Response::decode(message) {
            Ok((number, response)) if number == self.number => Ok(response),
            _ => Err(Lost::Malformed),
        }
    }

    /// Sends a message and waits for the answer.
    pub(crate) fn ask(
        &mut self,
        request: &Request<'_>,
        within: Duration,
    ) -> std::result::Result<Response<'_>, Lost> {
        let (mut message, until) = (Vec::new(), Instant::now() + within);
        self.encode(request, &mut message);
        self.send(&message, until)?;
        self.receive(until)
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.end();
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.number_of_process
    }

    fn ended(&mut self) -> Lost {
        // Its pipes are closed: it is at its end, or no good.
        Lost::Ended(self.end())
    }

    /// Kills it, and waits for its end for a while. A process that hangs in the kernel, at a disk that does
    /// not answer, is left to a thread.
    fn end(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        let _ = child.kill();
        if ends_before(&child, Instant::now() + END) {
            return child.wait().ok();
        }
        tracing::warn!(child = child.id(), "the ZQLite library's process does not end yet");
        let reap = move || {
            let _ = child.wait();
        };
        // Without a thread it stays a zombie until this process ends.
        let _ = std::thread::Builder::new().name("zqlite-reaper".to_owned()).spawn(reap);
        None
    }
}

/// How long the end of a child is waited for that was killed.
const END: Duration = Duration::from_secs(2);

/// Waits for a child's end; whether it came in time.
pub(crate) fn ends_before(child: &Child, until: Instant) -> bool {
    let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let opened = number.and_then(|number| pidfd_open(number, PidfdFlags::empty()).ok());
    // One that cannot be looked at counts as late.
    opened.is_some_and(|process| ready(&process, PollFlags::IN, until).is_ok())
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until a pipe can be used.
fn ready(
    pipe: &impl std::os::fd::AsFd,
    wanted: PollFlags,
    until: Instant,
) -> std::result::Result<(), Lost> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| Lost::Late)?;
        match poll(&mut [PollFd::new(pipe, wanted)], Some(&timeout)) {
            Ok(0) if left.is_zero() => return Err(Lost::Late),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(Lost::Pipe(error.into())),
        }
    }
}
