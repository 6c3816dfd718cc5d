//! The child: it alone has the library in it, and answers by its standard output what its standard
//! input asks for.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit, umask};

use crate::failure::Failure;
use crate::library::{Connection, Library, Transaction};
use crate::library_file::LibraryFile;
use crate::message::{FILL, MAX_IDS, PROGRAM, PROTOCOL, Request, Response, VALUE_HEADER, read};
use crate::rows::{Rows, create};
use crate::trial;

/// How long one that lost its parent may take to end what it does.
const GRACE: Duration = Duration::from_secs(10);

/// The row whose value says whether a transaction builds on what is stored.
pub const HEAD: u64 = 1;

/// What is appended to a database's name for the lock of the child that has it open: one that lost its
/// parent may still be writing when the next one comes.
pub const CHILD_LOCK: &str = ".lock";

/// Serves until the parent is gone or wants no more. The process should do nothing else, and have done
/// nothing before: what the library breaks, it breaks here, and files that are open are closed.
#[must_use]
pub fn run() -> ExitCode {
    // A panic must not close the database either.
    std::panic::set_hook(Box::new(|_| end_now()));
    let Ok(mut pipes) = Pipes::take() else { end_now() };
    match serve(&mut pipes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there any more to hear it.
            let _ = pipes.answer(&Response::Trouble { why: error.to_string().as_bytes() });
            end_now()
        }
    }
}

/// Ends this process without a destructor and without an exit handler of the library's: to close a
/// database is to flush it, and so may store what is to be undone.
fn end_now() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    // It is not said that the signal is there before the call is over.
    loop {
        std::thread::park();
    }
}

/// The pipes to the parent, under numbers that the library does not know.
pub(crate) struct Pipes {
    input: BufReader<File>,
    output: File,
    message: Vec<u8>,
    answer: Vec<u8>,
    /// Of the last request.
    number: u64,
}

impl Pipes {
    fn take() -> io::Result<Self> {
        crate::raw::close_inherited()?;
        // What the library makes is for nobody else, and what is in memory when it fails is not for a disk.
        umask(Mode::RWXG | Mode::RWXO);
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        rustix::thread::set_no_new_privs(true)?;
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let nothing = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        rustix::stdio::dup2_stdout(&nothing)?;
        let watched = input.try_clone()?;
        std::thread::spawn(move || end_with_parent(&watched));
        let input = BufReader::with_capacity(64 << 10, input);
        Ok(Self { input, output, message: Vec::new(), answer: Vec::new(), number: 0 })
    }

    pub(crate) fn answer(&mut self, response: &Response<'_>) -> io::Result<()> {
        self.answer.clear();
        response.encode(self.number, &mut self.answer);
        self.output.write_all(&self.answer)
    }

    fn failed(&mut self, failure: &Failure, is_undone: bool) -> io::Result<()> {
        self.answer(&Response::Failed {
            is_undone,
            operation: failure.operation.as_bytes(),
            code: u64::from(failure.code.cast_unsigned()),
            category: u64::from(failure.category.number().cast_unsigned()),
            message: failure.message.as_bytes(),
        })
    }

    /// The next request; `None` if the parent is gone or wants no more.
    fn next<'m>(&mut self, message: &'m mut Vec<u8>) -> io::Result<Option<Request<'m>>> {
        if !read(&mut self.input, message)? {
            return Ok(None);
        }
        match Request::decode(message) {
            Ok((number, request)) if self.number.checked_add(1) == Some(number) => {
                self.number = number;
                Ok(Some(request))
            }
            _ => Err(protocol()),
        }
    }

    /// Waits for the parent's word, in a part of the self-test.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        let mut message = std::mem::take(&mut self.message);
        match self.next(&mut message)? {
            Some(Request::Continue) => Ok(()),
            _ => Err(protocol()),
        }
    }
}

/// Ends the process once the parent is gone, also if the library never returns.
fn end_with_parent(input: &File) {
    // Only the end is waited for: what there is to read is somebody else's.
    while poll(&mut [PollFd::new(input, PollFlags::empty())], None).is_err() {}
    std::thread::sleep(GRACE);
    end_now();
}

fn protocol() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the parent asks for what makes no sense now")
}

fn serve(pipes: &mut Pipes) -> io::Result<()> {
    let Some(library) = load(pipes)? else { return Ok(()) };
    let mut message = Vec::new();
    let mut opening = None;
    while let Some(request) = pipes.next(&mut message)? {
        match request {
            Request::Lock { path } if opening.is_none() => {
                opening = Some(Opening::begin(path_of(path)?)?);
                pipes.answer(&Response::Done)?;
            }
            Request::Open { path, create, shared } => {
                let Some(opening) = opening else { return Err(protocol()) };
                let _kept = opening.keep(shared)?;
                return store(pipes, &library, &path_of(path)?, create, opening);
            }
            Request::Test { part, path, argument } => {
                let (path, part) = (path_of(path)?, std::str::from_utf8(part));
                let part = part.map_err(|_| protocol())?;
                let outcome = trial::run(pipes, &library, part, &path, argument);
                let (passed, text) = match outcome {
                    Ok(text) => (true, text),
                    Err(text) => (false, text),
                };
                pipes.answer(&Response::Tested { passed, text: text.as_bytes() })?;
            }
            _ => return Err(protocol()),
        }
    }
    Ok(())
}

fn path_of(bytes: &[u8]) -> io::Result<PathBuf> {
    std::str::from_utf8(bytes).map(PathBuf::from).map_err(|_| protocol())
}

/// Loads what the first message names. The library stays as it is from then on.
fn load(pipes: &mut Pipes) -> io::Result<Option<Library>> {
    let mut message = Vec::new();
    let (protocol, program, path, sha256) = match pipes.next(&mut message)? {
        Some(Request::Load { protocol, program, path, sha256 }) => {
            (protocol, program, path, sha256)
        }
        None => return Ok(None),
        Some(_) => return Err(protocol()),
    };
    if protocol != PROTOCOL || program != PROGRAM.as_bytes() {
        // The parent says so.
        pipes.answer(&Response::Loaded {
            protocol: PROTOCOL,
            program: PROGRAM.as_bytes(),
            version: b"",
            abi: 0,
            functions: 0,
        })?;
        return Ok(None);
    }
    let mut refuse = |is_file, why: &str| {
        pipes.answer(&Response::Refused { is_file, why: why.as_bytes() }).map(|()| None)
    };
    let file = match LibraryFile::read(&path_of(path)?) {
        Ok(file) if file.sha256() == sha256 => file,
        Ok(_) => {
            return refuse(true, "the library's file was replaced since it was looked at");
        }
        Err(error) => return refuse(true, &error.to_string()),
    };
    match file.load() {
        Ok(library) => {
            pipes.answer(&Response::Loaded {
                protocol: PROTOCOL,
                program: PROGRAM.as_bytes(),
                version: library.version().as_bytes(),
                abi: u64::try_from(library.abi()).unwrap_or_default(),
                functions: library.functions() as u64,
            })?;
            Ok(Some(library))
        }
        Err(error) => refuse(false, &error.to_string()),
    }
}

/// Keeps the children of other parents away while this one opens a database: two at once would both repair
/// it. One that lost its parent is waited for: it ends soon.
struct Opening {
    path: PathBuf,
    _lock: File,
}

impl Opening {
    /// Its file is the lock's, with another end.
    fn begin(path: PathBuf) -> io::Result<Self> {
        let lock = locked(&path.with_extension("opening"), FlockOperation::LockExclusive)?;
        Ok(Self { path, _lock: lock })
    }

    /// Keeps those away who write, and if this one writes everybody else, for as long as the file is there.
    fn keep(&self, shared: bool) -> io::Result<File> {
        let share = FlockOperation::LockShared;
        locked(&self.path, if shared { share } else { FlockOperation::LockExclusive })
    }
}

fn locked(path: &Path, how: FlockOperation) -> io::Result<File> {
    // A pipe would be waited for, and through a link somebody else's file would be made.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() > 1 {
        let why = "the lock is no regular file, or has several names";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    flock(&file, how)?;
    Ok(file)
}

/// What was not even opened must not be closed either.
fn end_refusing(pipes: &mut Pipes, failure: &Failure) -> ! {
    let _ = pipes.failed(failure, true);
    end_now()
}

/// Serves one database. Only [`Request::Close`] closes it: whatever else ends this, ends the process.
fn store(
    pipes: &mut Pipes,
    library: &Library,
    path: &Path,
    is_new: bool,
    opening: Opening,
) -> io::Result<()> {
    let connection = match library.open(path) {
        Ok(connection) => connection,
        Err(failure) => end_refusing(pipes, &failure),
    };
    if is_new && let Err(failure) = create(&connection) {
        end_refusing(pipes, &failure);
    }
    let mut rows = match Rows::prepare(&connection) {
        Ok(rows) => rows,
        Err(failure) => end_refusing(pipes, &failure),
    };
    let mut transaction = Under::None;
    drop(opening);
    if pipes.answer(&Response::Done).is_err() {
        end_now();
    }
    while let Ok(true) = one(pipes, &connection, &mut rows, &mut transaction) {}
    if !matches!(transaction, Under::Closed) {
        end_now();
    }
    drop(transaction);
    drop(rows);
    drop(connection);
    pipes.answer(&Response::Done)
}

/// Does what the parent asks for next; `false` if that is nothing more.
fn one<'c>(
    pipes: &mut Pipes,
    connection: &'c Connection<'c>,
    rows: &mut Rows<'_>,
    transaction: &mut Under<'c>,
) -> io::Result<bool> {
    let mut message = Vec::new();
    let Some(request) = pipes.next(&mut message)? else { return Ok(false) };
    let is_idle = matches!(transaction, Under::None);
    match (request, is_idle) {
        (Request::Scan { after }, true) => scan(pipes, rows, after)?,
        (Request::Read { ids }, true) => values(pipes, rows, &ids)?,
        (Request::Begin { expected }, true) => *transaction = begin(connection, rows, expected),
        (Request::Close, true) => {
            *transaction = Under::Closed;
            return Ok(false);
        }
        (Request::Put { rows: put }, false) => transaction
            .work(|| put.iter().try_for_each(|(id, value)| rows.insert(signed(*id), value))),
        (Request::Delete { ids }, false) => {
            transaction.work(|| ids.iter().try_for_each(|id| rows.delete(signed(*id))));
        }
        (Request::Commit, false) => {
            return commit(pipes, std::mem::replace(transaction, Under::None));
        }
        _ => return Err(protocol()),
    }
    Ok(true)
}

/// The transaction that is under way.
enum Under<'c> {
    None,
    Way(Transaction<'c>),
    /// It was given up, because of this; `true`: and undone.
    Failed(Failure, bool),
    Conflict,
    /// There is none, and none to come.
    Closed,
}

impl Under<'_> {
    /// Does a part of it, unless it was given up.
    fn work(&mut self, work: impl FnOnce() -> Result<(), Failure>) {
        if let Self::Way(_) = self
            && let Err(failure) = work()
        {
            self.give_up(failure);
        }
    }

    fn give_up(&mut self, failure: Failure) {
        let is_undone = match std::mem::replace(self, Self::None) {
            Self::Way(transaction) => transaction.rollback().is_ok(),
            _ => true,
        };
        *self = Self::Failed(failure, is_undone);
    }
}

fn begin<'c>(connection: &'c Connection<'c>, rows: &mut Rows<'_>, expected: &[u8]) -> Under<'c> {
    let mut under = match connection.begin() {
        Ok(transaction) => Under::Way(transaction),
        Err(failure) => return Under::Failed(failure, true),
    };
    match rows.get(signed(HEAD), |found| found.unwrap_or_default() == expected) {
        Ok(true) => under,
        Ok(false) => match std::mem::replace(&mut under, Under::None) {
            Under::Way(transaction) => match transaction.rollback() {
                Ok(()) => Under::Conflict,
                Err(failure) => Under::Failed(failure, false),
            },
            other => other,
        },
        Err(failure) => {
            under.give_up(failure);
            under
        }
    }
}

/// Ends the transaction, and says whether this process can be used any more.
fn commit(pipes: &mut Pipes, under: Under<'_>) -> io::Result<bool> {
    match under {
        Under::None | Under::Closed => Err(protocol()),
        Under::Conflict => pipes.answer(&Response::Conflict).map(|()| true),
        // What is not undone is perhaps undone by whoever opens the database next.
        Under::Failed(failure, is_undone) => pipes.failed(&failure, is_undone).map(|()| is_undone),
        Under::Way(transaction) => match transaction.commit() {
            Ok(()) => pipes.answer(&Response::Done).map(|()| true),
            Err(failure) => pipes.failed(&failure, false).map(|()| false),
        },
    }
}

fn scan(pipes: &mut Pipes, rows: &mut Rows<'_>, after: u64) -> io::Result<()> {
    let mut found: Vec<(u64, u32, Vec<u8>)> = Vec::new();
    let scanned = rows.scan(signed(after), |id, value| {
        let beginning = value.get(..VALUE_HEADER).unwrap_or(value).to_vec();
        found.push((id.cast_unsigned(), u32::try_from(value.len()).unwrap_or(u32::MAX), beginning));
    });
    match scanned {
        Ok(_) => {
            let rows = found.iter().map(|(id, length, it)| (*id, *length, &it[..])).collect();
            pipes.answer(&Response::Scanned { rows })
        }
        Err(failure) => pipes.failed(&failure, true),
    }
}

fn values(pipes: &mut Pipes, rows: &mut Rows<'_>, ids: &[u64]) -> io::Result<()> {
    let (mut found, mut size) = (Vec::new(), 0);
    for id in ids.iter().take(MAX_IDS) {
        match rows.get(signed(*id), |value| value.map(<[u8]>::to_vec)) {
            Ok(value) => {
                size += value.as_ref().map_or(0, Vec::len);
                found.push(value);
            }
            Err(failure) => return pipes.failed(&failure, true),
        }
        if size > FILL {
            break;
        }
    }
    pipes.answer(&Response::Values { values: found.iter().map(Option::as_deref).collect() })
}

/// Numbers of rows are at most `i64::MAX`.
fn signed(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}
