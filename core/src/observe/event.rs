//! What happens in a store.

use std::time::Duration;

/// What a [`Recorder`](super::Recorder) is told. `error` is the name of an
/// [`ErrorKind`](crate::ErrorKind) or [`CANCELLED`](super::CANCELLED), and missing where all went well. No
/// field holds an id, a name, a key or the text of an error: each has few values, so that it can be a
/// label.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A method of the backend ended; told by [`Observe`](crate::layer::Observe) and nobody else.
    Call {
        /// The backend's name in the configuration.
        backend: &'static str,
        /// The method's name.
        operation: &'static str,
        /// The table that it was about, if one.
        collection: Option<&'static str>,
        /// From call to end.
        took: Duration,
        /// How it failed.
        error: Option<&'static str>,
    },
    /// A write was answered, or given up by its caller.
    Command {
        /// Its name, as [`Command::name`](crate::command::Command::name) gives it.
        command: &'static str,
        /// From call to answer.
        took: Duration,
        /// Why it was refused or failed.
        error: Option<&'static str>,
    },
    /// A write was refused because the queue stayed full.
    QueueFull,
    /// The writer took a write from the queue.
    Waited(Duration),
    /// A commit of the writer ended.
    Commit {
        /// Writes that share it; none if it only flushes.
        commands: usize,
        /// Bytes of its block.
        bytes: usize,
        /// Points and entries of series that it brings.
        points: usize,
        /// What the backend took for it.
        took: Duration,
        /// Of that, what it took to make it durable, where the backend says so.
        synced: Option<Duration>,
        /// What it took to merge rows of series along with it, where the backend says so.
        compacted: Option<Duration>,
        /// How it failed.
        error: Option<&'static str>,
    },
    /// It was not known how a commit ended.
    UnknownOutcome,
    /// The backend is reopened, to be compared with what was acknowledged.
    Recovery,
    /// A write took longer than [`Recorder::slow_after`](super::Recorder::slow_after).
    Slow {
        /// Its name.
        command: &'static str,
        /// From when it was queued until it could be answered.
        took: Duration,
        /// How that was spent.
        phases: &'a Phases,
        /// Writes that shared its commit.
        batch: usize,
        /// Dirty rows that waited to be flushed.
        backlog: u64,
    },
    /// A checkpoint was completed: the rows are those of a serial.
    Checkpoint {
        /// From its first slice to its last; `None` for one that came with a commit.
        took: Option<Duration>,
    },
    /// A credential was checked.
    Verification {
        /// `api_key`, `preauth_key` or `session`.
        kind: &'static str,
        /// How long it took, with the wait for other checks of imported hashes.
        took: Duration,
        /// Why it was refused.
        error: Option<&'static str>,
    },
    /// A watcher left, or was ended.
    WatchEnded {
        /// `dropped`, `closed`, or the name of an error.
        reason: &'static str,
    },
    /// Rows of series were removed, and others perhaps written in their place.
    SeriesReplaced {
        /// How long it took.
        took: Duration,
        /// Ranges of keys that were removed.
        ranges: usize,
        /// How it failed.
        error: Option<&'static str>,
    },
    /// Rows of series were removed because they were old, or dated by a wrong clock.
    SeriesRemoved {
        /// How many.
        points: u64,
    },
    /// A job in the background ended.
    Job {
        /// Its name.
        job: &'static str,
        /// How long it took.
        took: Duration,
        /// What it dealt with.
        items: u64,
        /// How it failed.
        error: Option<&'static str>,
    },
    /// The configuration was read anew.
    Reload {
        /// Why it was refused.
        error: Option<&'static str>,
    },
    /// A request of the admin socket was answered.
    AdminRequest {
        /// Its method.
        method: &'static str,
        /// From when it was read until its answer was sent.
        took: Duration,
        /// How it failed.
        error: Option<&'static str>,
    },
    /// A connection of the admin socket began or ended.
    AdminConnection {
        /// Whether it began.
        opened: bool,
    },
    /// A connection or a message of the admin socket was refused.
    AdminRejected {
        /// Why, in a word.
        reason: &'static str,
    },
    /// A connection to what a backend stores in was made, waited for or given back.
    Connection {
        /// Which of the three.
        step: ConnectionStep,
        /// How long that took; of one that is given back, how long somebody had it.
        took: Duration,
    },
    /// A request over HTTP was answered.
    HttpRequest {
        /// `GET`, or another known method, or `_OTHER`.
        method: &'static str,
        /// The route, never the path that was asked for.
        route: &'static str,
        /// The status of the answer.
        status: u16,
        /// From request to answer.
        took: Duration,
    },
}

/// What happened to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionStep {
    /// A new one was made.
    Created,
    /// There was room for somebody who wanted one.
    Waited,
    /// Somebody gave one back.
    Used,
}

/// How the time of a write was spent. All writes of a batch share everything after the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// Until the writer took it.
    pub queue: Duration,
    /// From then until its batch took no more: its own turn and that of others.
    pub decide: Duration,
    /// Encoding the block.
    pub encode: Duration,
    /// Storing it.
    pub commit: Duration,
    /// Of that, making it durable, where the backend says so.
    pub synced: Option<Duration>,
    /// From stored to visible.
    pub publish: Duration,
}
