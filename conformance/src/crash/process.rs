//! Processes that are started to be killed.

use std::io::{BufRead, BufReader, Read, Seek};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::protocol::{Job, Message};

/// The first argument of a child that does a job instead of running cases; the job follows. It is
/// not an environment variable, because every descendant would inherit that.
pub(super) const CHILD: &str = "__child-of-conformance";

/// When to kill.
pub(super) struct Moment {
    /// After this many messages of the kind that is counted.
    pub(super) lines: usize,
    /// And this many microseconds later.
    pub(super) micros: u64,
}

/// Starts a process, kills it, and returns its messages. Each message is recorded before it is
/// counted. Messages that were written before the kill and read after it are included.
pub(super) async fn run_and_kill(
    job: Job,
    moment: Moment,
    counts: fn(&Message) -> bool,
) -> Vec<Message> {
    let killed = move || {
        let (mut process, mut lines) = Process::start(&job);
        let mut noted = Vec::new();
        let mut counted = 0;
        while counted < moment.lines {
            let Some(said) = lines.next() else { break };
            let counts = counts(&said);
            noted.push(said);
            counted += usize::from(counts);
        }
        std::thread::sleep(Duration::from_micros(moment.micros));
        process.kill(&job);
        noted.extend(std::iter::from_fn(|| lines.next()));
        noted
    };
    tokio::task::spawn_blocking(killed).await.expect("a process is started and killed")
}

/// What several processes say, in the order in which it is read.
pub(super) type Said = Arc<Mutex<Vec<Message>>>;

/// One of several processes that work at the same time. What it says is noted as it comes, until it is killed.
pub(super) struct Member {
    job: Job,
    process: Process,
    answers: watch::Receiver<usize>,
    reading: JoinHandle<()>,
}

impl Member {
    pub(super) fn start(job: Job, counts: fn(&Message) -> bool, said: &Said) -> Self {
        let (process, mut lines) = Process::start(&job);
        let (counted, answers) = watch::channel(0);
        let said = said.clone();
        let reading = std::thread::spawn(move || {
            while let Some(message) = lines.next() {
                let counts = counts(&message);
                said.lock().expect("nobody panics while it is locked").push(message);
                counted.send_modify(|count| *count += usize::from(counts));
            }
        });
        Self { job, process, answers, reading }
    }

    /// Waits for so many further messages that are counted.
    pub(super) async fn answered(&mut self, more: usize) {
        let wanted = *self.answers.borrow() + more;
        // One that has ended by itself is told of when it is killed.
        let _ = self.answers.wait_for(|count| *count >= wanted).await;
    }

    /// Messages that were written before the kill and read after it are noted, too.
    pub(super) async fn kill(mut self) {
        let killed = move || {
            self.process.kill(&self.job);
            self.reading.join().expect("its messages can be read");
        };
        tokio::task::spawn_blocking(killed).await.expect("a process is killed");
    }
}

struct Process {
    child: Child,
    errors: std::fs::File,
}

impl Process {
    fn start(job: &Job) -> (Self, Lines) {
        let errors = tempfile::tempfile().expect("a scratch file");
        let program = std::env::current_exe().expect("this program has a path");
        let mut child = Command::new(program)
            .arg(CHILD)
            .arg(serde_json::to_string(job).expect("a job has a JSON form"))
            // Stays open as long as this process lives, and no longer.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors.try_clone().expect("a second handle"))
            .spawn()
            .expect("this program can be started again");
        let lines = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        (Self { child, errors }, Lines(lines))
    }

    fn kill(&mut self, job: &Job) {
        let ended = self.child.try_wait().expect("a child can be waited for");
        self.child.kill().expect("a child can be killed");
        let status = self.child.wait().expect("a child can be waited for");
        if ended.is_some() || (cfg!(unix) && status.code().is_some()) {
            let mut told = String::new();
            self.errors.rewind().expect("a scratch file can be read again");
            let _ = self.errors.read_to_string(&mut told);
            panic!("{job:?} ended before it was killed, with {status}: {told}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process says.
struct Lines(BufReader<ChildStdout>);

impl Lines {
    /// The next whole message. One that was cut off by the kill does not count.
    fn next(&mut self) -> Option<Message> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).expect("a pipe can be read");
        if line.last() != Some(&b'\n') {
            return None;
        }
        let said = serde_json::from_slice(&line);
        Some(said.unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&line));
        }))
    }
}
