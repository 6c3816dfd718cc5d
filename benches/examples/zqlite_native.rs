//! What a commit costs on zqlite's native engine beside the embedded one, and what of that is the pipe to the
//! process of the library. **The library is the double on SQLite: no figure is ZQLite's.**
//!
//! ```text
//! cargo run --release -p ghostwire-store-benches --example zqlite_native -- [DIRECTORY] [COMMITS]
//! ```
//! In a directory of memory (`/dev/shm`) the disk does not hide the pipe. Both of a pair take turns, 100 commits
//! each; shown are medians, and how many commits in a hundred were slower than the second figure.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::block::{BlockBuilder, ChangeKind, RowChange};
use ghostwire_store_core::domain::{BlockId, StoreId, Timestamp};
use ghostwire_store_core::schema::{RowKey, Table};
use ghostwire_store_zqlite::{NativeOptions, ZqliteBackend, ZqliteOptions};
use ghostwire_store_zqlite_native::admission::{
    Effort, Examination, LIMIT, Suite, examine, verdict_path,
};
use ghostwire_store_zqlite_native::{Change, Host, LibraryFile, Program, Session, Value};

const CHILD: &str = "--zqlite-native";

/// As a child: answers, and does nothing else.
const ECHO: &str = "--echo";

/// Bytes of a message there, as long as a commit's, and back.
const THERE: usize = 600;
const BACK: usize = 10;

/// Commits of one before the other's turn.
const TURN: usize = 100;

/// Bytes of a row.
const ROW: usize = 500;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(CHILD) => return ghostwire_store_zqlite_native::child::run(),
        Some(ECHO) => return echo(),
        _ => {}
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("it cannot be measured: {error}");
            ExitCode::FAILURE
        }
    }
}

fn echo() -> ExitCode {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut message = [0; THERE];
    while input.read_exact(&mut message).is_ok() {
        if output.write_all(&[0; BACK]).and_then(|()| output.flush()).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// What this machine takes for a message to another process and one back.
fn bare_pipe(program: &Path, times: usize) -> Result<Figures, Box<dyn Error>> {
    let mut child =
        Command::new(program).arg(ECHO).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().ok_or("the child has no pipe")?;
    let mut output = child.stdout.take().ok_or("the child has no pipe")?;
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        input.write_all(&[0; THERE])?;
        output.read_exact(&mut [0; BACK])?;
        took.push(began.elapsed());
    }
    drop(input);
    child.wait()?;
    Ok(Figures::of(took))
}

fn measure() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let within = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let commits = arguments.next().map_or(Ok(2_000), |text| text.parse::<usize>())?;
    let directory = tempfile::tempdir_in(within)?;
    let at = directory.path();
    let library = ghostwire_zqlite_double::install(at, None)?;
    let program = Program { path: std::env::current_exe()?, arguments: vec![CHILD.into()] };
    println!("{commits} commits of a row of {ROW} bytes in {}", at.display());

    let (mut direct, mut piped) = (Vec::new(), Vec::new());
    let loaded = LibraryFile::read(&library)?.load()?;
    let connection = loaded.open(&at.join("direct.db"))?;
    connection.execute("CREATE TABLE store (id INTEGER PRIMARY KEY, value BLOB NOT NULL)")?;
    let mut insert = connection.prepare("INSERT INTO store (id, value) VALUES (?, ?)")?;
    let mut delete = connection.prepare("DELETE FROM store WHERE id = ?")?;
    let mut get = connection.prepare("SELECT value FROM store WHERE id = ?")?;
    let host = Host::new(program.clone(), &library)?;
    let mut session = Session::open(&host, &at.join("piped.db"), true, false)?;
    let row = vec![7; ROW];
    let head = Value::Integer(1);
    insert.execute(&[head, Value::Blob(b"head")])?;
    session.write(b"", [Change::Put(1, b"head")]).map_err(|error| format!("{error:?}"))?;
    let ids: Vec<i64> = (2..).take(commits).collect();
    for ids in ids.chunks(TURN) {
        for id in ids {
            let began = Instant::now();
            let transaction = connection.begin()?;
            get.begin(&[head])?;
            get.step()?;
            delete.execute(&[head])?;
            insert.execute(&[head, Value::Blob(b"head")])?;
            insert.execute(&[Value::Integer(*id), Value::Blob(&row)])?;
            transaction.commit()?;
            direct.push(began.elapsed());
        }
        for id in ids {
            let began = Instant::now();
            let changes =
                [Change::Delete(1), Change::Put(1, b"head"), Change::Put(id.cast_unsigned(), &row)];
            session.write(b"head", changes).map_err(|error| format!("{error:?}"))?;
            piped.push(began.elapsed());
        }
    }
    let (direct, piped) = (Figures::of(direct), Figures::of(piped));
    println!("a bare pipe, there and back   {}", bare_pipe(&program.path, commits)?);
    println!("the library called directly   {direct}");
    println!("the library over the pipe     {piped}");
    println!(
        "the pipe costs                {:?} a commit",
        piped.median.saturating_sub(direct.median)
    );

    let store = at.join("native.db");
    let effort = Effort { kills_in_transaction: 1, kills_in_commit: 1, rows: 1_000 };
    let wanted = Examination {
        program: program.clone(),
        library: library.clone(),
        store: store.clone(),
        effort,
        limit: LIMIT,
        suite: Suite::LeftOut,
    };
    // A verdict is kept of the full test alone, which takes minutes; what is measured is the same after a short one.
    let report = examine(&wanted, |_| {})?;
    ghostwire_zqlite_double::vouch(report.require()?, &verdict_path(&store))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let options =
            |path: &Path| ZqliteOptions::new(path, StoreId::from_bytes([9; 16])).create(true);
        let embedded = ZqliteBackend::open(options(&at.join("embedded.db"))).await?;
        let native = options(&store).native(NativeOptions::new(&library, program));
        let native = ZqliteBackend::open(native).await?;
        let (mut of_embedded, mut of_native) = (Vec::new(), Vec::new());
        for _ in 0..commits / TURN {
            for (backend, took) in [(&embedded, &mut of_embedded), (&native, &mut of_native)] {
                for _ in 0..TURN {
                    took.push(commit(backend, &row).await?);
                }
            }
        }
        let (embedded, native) = (Figures::of(of_embedded), Figures::of(of_native));
        println!("zqlite on the embedded engine {embedded}");
        println!("zqlite on the double          {native}");
        println!(
            "ratio                         {:.2}",
            native.median.div_duration_f64(embedded.median)
        );
        Ok(())
    })
}

async fn commit(backend: &ZqliteBackend, row: &[u8]) -> Result<Duration, Box<dyn Error>> {
    let head = backend.head().await?;
    let serial = head.serial.next();
    let mut id = [1; 16];
    id.iter_mut().zip(serial.get().to_be_bytes()).for_each(|(to, from)| *to = from);
    let time = Timestamp::from_micros(1_000_000 + i64::try_from(serial.get())?)?;
    let finished =
        BlockBuilder::default().finish(serial, BlockId::from_bytes(id), head.hash, time)?;
    let key = RowKey::new().id(&[0; 16]).integer(i64::try_from(serial.get())?);
    let (table, kind) = (Table::Users, ChangeKind::Updated);
    let rows = vec![RowChange { table, kind, key, body: Some(Bytes::copy_from_slice(row)) }];
    let commit = Commit { block: Some(finished.block), rows, ..Commit::on(&head) };
    let began = Instant::now();
    backend.commit(&commit).await?;
    Ok(began.elapsed())
}

struct Figures {
    median: Duration,
    slow: Duration,
}

impl Figures {
    fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default();
        Self { median: at(50), slow: at(99) }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "median {:?}, one in a hundred above {:?}", self.median, self.slow)
    }
}
