//! A pin kept by a program: one process that lives as long as the store, a line in, a line out.
//!
//! | line to the program | its answer |
//! |---|---|
//! | `read` | `none`, or `mark LINE` with the line that it was given last |
//! | `advance FROM LINE` | `ok COMMIT` once LINE is durable and is the one it holds; `refused COMMIT` if it holds another than FROM |
//!
//! FROM is the code at the end of the line that the program should hold, or `none`; LINE is that of
//! [`PinKey::line`]. COMMIT is LINE's commit in `ok`, and that of the line it holds (or `none`) in
//! `refused`. Every other answer is an error. The program needs no key: it compares and keeps text.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::keyring::io;
use crate::pin::Pin;
use crate::pin::mark::{LONGEST_LINE, Mark, PinKey};
use crate::wire::from_decimal;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A line to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// What it holds.
    Read,
    /// To hold `to` instead of `from`; both are lines.
    Advance {
        /// What it should hold now.
        from: Option<&'a str>,
        /// What it should hold then.
        to: &'a str,
    },
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Advance { from, to } => {
                let code = from.and_then(|line| line.rsplit(' ').next()).unwrap_or("none");
                write!(f, "advance {code} {to}")
            }
        }
    }
}

/// A line of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It holds nothing.
    None,
    /// It holds this line.
    Mark(String),
    /// It holds the new line now, of this commit.
    Ok(u64),
    /// It holds another line than it should, of this commit.
    Refused(Option<u64>),
}

impl Answer {
    /// Reads a line, without its end; `None` if it is no answer.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        if line.len() > LONGEST_LINE {
            return None;
        }
        match line.split_once(' ') {
            None if line == "none" => Some(Self::None),
            Some(("mark", mark)) => Some(Self::Mark(mark.to_owned())),
            Some(("ok", commit)) => from_decimal(commit).map(Self::Ok),
            Some(("refused", "none")) => Some(Self::Refused(None)),
            Some(("refused", commit)) => {
                from_decimal(commit).map(|commit| Self::Refused(Some(commit)))
            }
            _ => None,
        }
    }
}

/// A pin kept by a program. It is started when first needed, with an empty environment, and again
/// after it failed.
pub struct CommandPin {
    program: PathBuf,
    arguments: Vec<String>,
    key: PinKey,
    patience: Duration,
    running: Option<Running>,
    fenced: bool,
}

struct Running {
    child: Child,
    input: ChildStdin,
    lines: Receiver<std::io::Result<String>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is collected.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl CommandPin {
    /// Kept by this program, which is looked up nowhere: the path has to be whole.
    ///
    /// # Errors
    /// `Invalid` if it is not.
    pub fn new(program: &Path, arguments: &[String], key: PinKey) -> Result<Self> {
        if !program.is_absolute() {
            return Err(Error::invalid("command of the pin", "it is no absolute path"));
        }
        Ok(Self {
            program: program.to_owned(),
            arguments: arguments.to_vec(),
            key,
            patience: PATIENCE,
            running: None,
            fenced: false,
        })
    }

    #[cfg(test)]
    pub(crate) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn start(&self) -> Result<Running> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(io("start the command of the pin", &self.program))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(unavailable("its command has no input or output"));
        };
        let (sender, lines) = mpsc::sync_channel(1);
        // Ends with the process, whose output it reads, or with whoever waits for its lines.
        let reader = thread::Builder::new().name("pin".to_owned()).spawn(move || {
            let mut output = BufReader::new(output);
            loop {
                let mut line = String::new();
                let most = LONGEST_LINE as u64 + 1;
                let read = output.by_ref().take(most).read_line(&mut line).map(|_| line);
                let ended = !read.as_ref().is_ok_and(|line| line.ends_with('\n'));
                if sender.send(read).is_err() || ended {
                    return;
                }
            }
        });
        let running = Running { child, input, lines };
        reader.map_err(io("start a thread for", &self.program))?;
        Ok(running)
    }

    /// The line that it holds if it holds this mark: after a rotation that may be one by the key before.
    fn held_line(&mut self, mark: &Mark) -> Result<String> {
        if self.key.succeeds_another()
            && let Answer::Mark(line) = self.ask(Request::Read)?
            && self.key.parse(&line)? == *mark
        {
            return Ok(line);
        }
        Ok(self.key.line(mark))
    }

    fn ask(&mut self, request: Request<'_>) -> Result<Answer> {
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.start()?,
        };
        // A process that answered wrongly or late is not asked again: its next line could be the
        // answer to this one.
        let answer = running.ask(request, self.patience)?;
        self.running = Some(running);
        Ok(answer)
    }
}

impl Running {
    fn ask(&mut self, request: Request<'_>, patience: Duration) -> Result<Answer> {
        // Shorter than what any pipe takes, and never more than one on its way.
        let sent = self.input.write_all(format!("{request}\n").as_bytes());
        sent.and_then(|()| self.input.flush())
            .map_err(|error| unavailable(&format!("its command takes no line: {error}")))?;
        let line = match self.lines.recv_timeout(patience) {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return Err(unavailable(&format!("its command's answer: {error}"))),
            Err(RecvTimeoutError::Timeout) => {
                let why = format!("its command did not answer within {} ms", patience.as_millis());
                return Err(unavailable(&why));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(unavailable("its command has ended"));
            }
        };
        let Some(line) = line.strip_suffix('\n') else {
            return Err(unavailable("its command has ended, or its line is too long"));
        };
        let line = line.strip_suffix('\r').unwrap_or(line);
        Answer::parse(line)
            .ok_or_else(|| unavailable("its command's answer is none of the protocol's"))
    }
}

impl Pin for CommandPin {
    fn read(&mut self) -> Result<Option<Mark>> {
        match self.ask(Request::Read)? {
            Answer::None => Ok(None),
            Answer::Mark(line) => self.key.parse(&line).map(Some),
            Answer::Ok(_) | Answer::Refused(_) => {
                self.running = None;
                Err(unavailable("its command answers another question"))
            }
        }
    }

    fn rekey(&mut self, key: PinKey) {
        self.key = key;
    }

    fn replace(&mut self, to: &Mark) -> Result<()> {
        let held = match self.ask(Request::Read)? {
            Answer::Mark(line) => Some(line),
            _ => None,
        };
        let line = self.key.line(to);
        match self.ask(Request::Advance { from: held.as_deref(), to: &line })? {
            Answer::Ok(commit) if commit == to.commit => Ok(()),
            _ => {
                self.running = None;
                Err(unavailable("its command does not take another mark"))
            }
        }
    }

    fn advance(&mut self, from: Option<&Mark>, to: &Mark) -> Result<()> {
        let expected = from.map(|mark| mark.commit);
        if self.fenced {
            return Err(Error::Fenced { holds: None, expected });
        }
        if from.is_some_and(|from| !to.follows(from)) {
            let why = "the mark to advance to does not follow the one to advance from";
            return Err(Error::invalid("pin", why));
        }
        let from = from.map(|mark| self.held_line(mark)).transpose()?;
        let line = self.key.line(to);
        match self.ask(Request::Advance { from: from.as_deref(), to: &line })? {
            Answer::Ok(commit) if commit == to.commit => Ok(()),
            Answer::Refused(holds) => {
                self.fenced = true;
                Err(Error::Fenced { holds, expected })
            }
            Answer::None | Answer::Mark(_) | Answer::Ok(_) => {
                self.running = None;
                Err(unavailable("its command answers another question"))
            }
        }
    }
}

impl fmt::Debug for CommandPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandPin({})", self.program.display())
    }
}

fn unavailable(why: &str) -> Error {
    Error::PinUnavailable { why: why.to_owned() }
}
