//! A database that a child has open, as its parent sees it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ghostwire_store_core::error::{Error, ErrorKind, Result};

use crate::child::CHILD_LOCK;
use crate::codes::Category;
use crate::failure::Failure;
use crate::library_file::LibraryFile;
use crate::message::{FILL, MAX_IDS, PROGRAM, PROTOCOL, Request, Response};
use crate::process::{Lost, Process, Program};

/// How to load the library, and how long to wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What loads it.
    pub program: Program,
    /// The library's file; absolute.
    pub library: PathBuf,
    /// Of its bytes: others are not loaded.
    pub sha256: [u8; 32],
    /// How long one call may take, a commit or a page of what is read.
    pub deadline: Duration,
}

/// What the library says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its version.
    pub version: String,
    /// The number of its interface.
    pub abi: u64,
    /// How many of the interface's functions it has.
    pub functions: u64,
}

/// How long a call may take by default.
pub const DEADLINE: Duration = Duration::from_secs(30);

impl Host {
    /// For the library in this file as it is now.
    ///
    /// # Errors
    /// As [`LibraryFile::read`].
    pub fn new(program: Program, library: &Path) -> Result<Self> {
        let file = LibraryFile::read(library)?;
        let library = file.path().to_owned();
        Ok(Self { program, library, sha256: file.sha256(), deadline: DEADLINE })
    }

    /// Starts a child and lets it load the library.
    pub(crate) fn start(&self) -> Result<(Process, Loaded)> {
        let mut process = Process::start(&self.program)?;
        let path = self.library.as_os_str().as_encoded_bytes();
        let load = Request::Load {
            protocol: PROTOCOL,
            program: PROGRAM.as_bytes(),
            path,
            sha256: self.sha256,
        };
        let loaded = match process.ask(&load, self.deadline) {
            Ok(Response::Loaded { protocol, program, version, abi, functions })
                if protocol == PROTOCOL && program == PROGRAM.as_bytes() =>
            {
                Ok(Loaded {
                    version: String::from_utf8_lossy(version).into_owned(),
                    abi,
                    functions,
                })
            }
            Ok(Response::Loaded { program, .. }) => Err(Error::new(
                ErrorKind::Unavailable,
                "the program that loads the ZQLite library is of another version than this one; use the same",
            )
            .with("expected", PROGRAM)
            .with("found", String::from_utf8_lossy(program))),
            Ok(Response::Trouble { why }) => Err(trouble(why)),
            Ok(Response::Refused { is_file, why }) => {
                let why = String::from_utf8_lossy(why).into_owned();
                let what = match is_file {
                    true => "the ZQLite library's file is not used",
                    false => "the library is not one that can be used; get ZQLite 1.6.8 or later",
                };
                Err(Error::new(ErrorKind::Unsupported, what).with("because", why))
            }
            Ok(_) => Err(senseless()),
            Err(lost) => {
                let what = "the ZQLite library could not be loaded";
                Err(lost.into_error(ErrorKind::Unavailable, what))
            }
        };
        let loaded = loaded.map_err(|error| error.with("library", self.library.display()))?;
        Ok((process, loaded))
    }
}

/// What the child says of itself.
fn trouble(why: &[u8]) -> Error {
    Error::new(ErrorKind::Unavailable, "the process that loads the ZQLite library failed")
        .with("because", String::from_utf8_lossy(why))
}

fn senseless() -> Error {
    Lost::Malformed.into_error(ErrorKind::Unavailable, "the ZQLite library's process is no good")
}

/// Why an answer is not taken.
enum Refusal {
    /// It says what is wrong.
    Error(Error),
    /// It makes no sense: the child is no good.
    Senseless,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// What of a transaction comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'c> {
    /// A row that there is none of yet.
    Put(u64, &'c [u8]),
    /// A row that may be there.
    Delete(u64),
}

/// What became of a transaction.
#[derive(Debug)]
pub enum NotStored {
    /// The head is another one.
    Conflict,
    /// Nothing is stored: the library said that it undid it, or was never told to commit.
    Undone(Error),
    /// Nobody knows whether it is stored. The child is gone.
    Unknown(Error),
}

/// A database that is open. Dropped, its child is killed.
#[derive(Debug)]
pub struct Session {
    process: Process,
    loaded: Loaded,
    deadline: Duration,
    /// The child is gone, or no good.
    is_lost: bool,
}

/// A child that keeps others out, and has no database open yet.
#[derive(Debug)]
pub struct Locked(Session);

impl Locked {
    /// Opens a database, once nobody has it open, or with `shared` nobody who writes; `create`: it is made now.
    /// `shared`: others may open it to read, and nobody writes.
    ///
    /// # Errors
    /// Those of the library; `Unavailable` if it takes too long.
    pub fn open(self, path: &Path, create: bool, shared: bool) -> Result<Session> {
        let Self(mut session) = self;
        let path = path.as_os_str().as_encoded_bytes();
        session.ask(&Request::Open { path, create, shared }, |response| match response {
            Response::Done => Ok(()),
            other => Err(failed("the ZQLite library cannot open the store", other)),
        })?;
        Ok(session)
    }
}

impl Session {
    /// Starts a child, and keeps others from opening by the file with this name and the end `.opening`. It and
    /// this one, which keeps them out later, are made if they are not there, and stay.
    ///
    /// # Errors
    /// `Unsupported` if the library is not used; `Unavailable` if it takes too long, also because somebody
    /// else's child has the lock.
    pub fn lock(host: &Host, lock: &Path) -> Result<Locked> {
        let (process, loaded) = host.start()?;
        let mut session = Self { process, loaded, deadline: host.deadline, is_lost: false };
        let path = lock.as_os_str().as_encoded_bytes();
        session.ask(&Request::Lock { path }, |response| match response {
            Response::Done => Ok(()),
            other => Err(failed("the store's lock for the ZQLite library cannot be taken", other)),
        })?;
        Ok(Locked(session))
    }

    /// Opens a database whose lock is the file of its name with `.lock` appended.
    ///
    /// # Errors
    /// As [`Session::lock`] and [`Locked::open`].
    pub fn open(host: &Host, path: &Path, create: bool, shared: bool) -> Result<Self> {
        let mut lock = path.as_os_str().to_owned();
        lock.push(CHILD_LOCK);
        Self::lock(host, Path::new(&lock))?.open(path, create, shared)
    }

    /// What the library says of itself.
    #[must_use]
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// The child's number.
    #[must_use]
    pub fn child(&self) -> u32 {
        self.process.id()
    }

    /// Whether the child is gone: nothing more comes of this session.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Asks something that changes nothing.
    fn ask<T>(
        &mut self,
        request: &Request<'_>,
        take: impl FnOnce(Response<'_>) -> std::result::Result<T, Refusal>,
    ) -> Result<T> {
        self.require_alive()?;
        let answer = match self.process.require_quiet() {
            Ok(()) => self.process.ask(request, self.deadline),
            Err(lost) => Err(lost),
        };
        let lost = match answer {
            Ok(response) => match take(response) {
                Ok(taken) => return Ok(taken),
                Err(Refusal::Error(error)) => return Err(error),
                Err(Refusal::Senseless) => Lost::Malformed,
            },
            Err(lost) => lost,
        };
        self.is_lost = true;
        self.process.kill();
        let what = "the store cannot be read: the ZQLite library's process was lost";
        Err(lost.into_error(ErrorKind::Unavailable, what))
    }

    fn require_alive(&self) -> Result<()> {
        match self.is_lost {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Unavailable,
                "the ZQLite library's process was lost; reopen the store",
            )),
        }
    }

    /// Visits number, length and beginning of every row, in order.
    ///
    /// # Errors
    /// `Unavailable` if the child is lost; those of the library and of `visit`.
    pub fn scan(&mut self, mut visit: impl FnMut(u64, u32, &[u8]) -> Result<()>) -> Result<()> {
        let mut after = 0;
        loop {
            let before = after;
            self.ask(&Request::Scan { after }, |response| match response {
                Response::Scanned { rows } => rows.into_iter().try_for_each(|(id, length, it)| {
                    if id <= after {
                        return Err(Refusal::Senseless);
                    }
                    after = id;
                    Ok(visit(id, length, it)?)
                }),
                other => Err(failed("the store cannot be read", other)),
            })?;
            if after == before {
                return Ok(());
            }
        }
    }

    /// Visits the values of these rows, in this order; `None` for one that is not there.
    ///
    /// # Errors
    /// As [`Session::scan`].
    pub fn read(
        &mut self,
        ids: &[u64],
        mut visit: impl FnMut(u64, Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        let mut rest = ids;
        while !rest.is_empty() {
            let wanted = rest.get(..MAX_IDS).unwrap_or(rest);
            let count =
                self.ask(&Request::Read { ids: wanted.to_vec() }, |response| match response {
                    Response::Values { values } => {
                        if values.is_empty() || values.len() > wanted.len() {
                            return Err(Refusal::Senseless);
                        }
                        wanted
                            .iter()
                            .zip(&values)
                            .try_for_each(|(id, value)| visit(*id, *value))?;
                        Ok(values.len())
                    }
                    other => Err(failed("the store cannot be read", other)),
                })?;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Makes all changes durable, or none, if row 1 has this value; empty: if there is no such row.
    ///
    /// # Errors
    /// Which says what is stored.
    pub fn write<'c>(
        &mut self,
        expected: &[u8],
        changes: impl IntoIterator<Item = Change<'c>>,
    ) -> std::result::Result<(), NotStored> {
        self.require_alive().map_err(NotStored::Undone)?;
        let until = Instant::now() + self.deadline;
        let sent = self.process.require_quiet().and_then(|()| {
            let mut outbox = Outbox { process: &mut self.process, messages: Vec::new(), until };
            outbox.transaction(expected, changes)
        });
        let lost = match sent {
            // As the last message says to commit, the child has not been told to.
            Err(lost) => NotStored::Undone(lost.into_error(
                ErrorKind::Unavailable,
                "the commit was not stored: the ZQLite library's process was lost before it",
            )),
            Ok(()) => match self.process.receive(until) {
                Ok(Response::Done) => return Ok(()),
                Ok(Response::Conflict) => return Err(NotStored::Conflict),
                Ok(Response::Failed { is_undone, operation, code, category, message }) => {
                    let failure = failure(operation, code, category, message);
                    if is_undone {
                        let error = failure.into_error("the commit was not stored");
                        return Err(NotStored::Undone(error));
                    }
                    let cause =
                        failure.into_error("the ZQLite library failed to commit or to undo");
                    NotStored::Unknown(unknown().because(cause))
                }
                Ok(Response::Trouble { why }) => {
                    NotStored::Unknown(unknown().because(trouble(why)))
                }
                Ok(_) => NotStored::Unknown(unknown().because(senseless())),
                Err(lost) => {
                    NotStored::Unknown(lost.into_error(ErrorKind::OutcomeUnknown, UNKNOWN))
                }
            },
        };
        self.is_lost = true;
        self.process.kill();
        Err(lost)
    }

    /// Closes the database. The library does not say whether that succeeded.
    ///
    /// # Errors
    /// `Unavailable` if the child is lost.
    pub fn close(mut self) -> Result<()> {
        if self.is_lost {
            return Ok(());
        }
        self.ask(&Request::Close, |response| match response {
            Response::Done => Ok(()),
            other => Err(failed("the store cannot be closed", other)),
        })
    }
}

const UNKNOWN: &str = "it is not known whether the commit was stored";

fn unknown() -> Error {
    Error::new(ErrorKind::OutcomeUnknown, UNKNOWN)
}

/// What the child says instead of what was asked for.
fn failed(what: &'static str, response: Response<'_>) -> Refusal {
    match response {
        Response::Failed { operation, code, category, message, .. } => {
            Refusal::Error(failure(operation, code, category, message).into_error(what))
        }
        Response::Trouble { why } => Refusal::Error(trouble(why)),
        _ => Refusal::Senseless,
    }
}

fn failure(operation: &[u8], code: u64, category: u64, message: &[u8]) -> Failure {
    let number = |number: u64| i32::try_from(number).unwrap_or(-1);
    let operation = crate::raw::REQUIRED.into_iter().find(|known| known.as_bytes() == operation);
    Failure::new(
        operation.unwrap_or("a call"),
        number(code),
        Category::of(number(category)),
        &String::from_utf8_lossy(message),
    )
}

/// Messages on their way to the child: few writes, and none too long.
struct Outbox<'p> {
    process: &'p mut Process,
    messages: Vec<u8>,
    until: Instant,
}

impl Outbox<'_> {
    fn transaction<'c>(
        &mut self,
        expected: &[u8],
        changes: impl IntoIterator<Item = Change<'c>>,
    ) -> std::result::Result<(), Lost> {
        self.push(&Request::Begin { expected })?;
        let (mut put, mut size, mut delete) = (Vec::new(), 0, Vec::new());
        for change in changes {
            match change {
                Change::Put(id, value) => {
                    self.flush_deletes(&mut delete)?;
                    put.push((id, value));
                    size += value.len() + 16;
                    if size > FILL {
                        self.flush_puts(&mut put)?;
                        size = 0;
                    }
                }
                Change::Delete(id) => {
                    self.flush_puts(&mut put)?;
                    size = 0;
                    delete.push(id);
                    if delete.len() == MAX_IDS {
                        self.flush_deletes(&mut delete)?;
                    }
                }
            }
        }
        self.flush_deletes(&mut delete)?;
        self.flush_puts(&mut put)?;
        self.process.encode(&Request::Commit, &mut self.messages);
        self.send()
    }

    fn flush_puts(&mut self, rows: &mut Vec<(u64, &[u8])>) -> std::result::Result<(), Lost> {
        match std::mem::take(rows) {
            rows if rows.is_empty() => Ok(()),
            rows => self.push(&Request::Put { rows }),
        }
    }

    fn flush_deletes(&mut self, ids: &mut Vec<u64>) -> std::result::Result<(), Lost> {
        match std::mem::take(ids) {
            ids if ids.is_empty() => Ok(()),
            ids => self.push(&Request::Delete { ids }),
        }
    }

    fn push(&mut self, request: &Request<'_>) -> std::result::Result<(), Lost> {
        self.process.encode(request, &mut self.messages);
        if self.messages.len() > FILL { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> std::result::Result<(), Lost> {
        let messages = std::mem::take(&mut self.messages);
        self.process.send(&messages, self.until)
    }
}
