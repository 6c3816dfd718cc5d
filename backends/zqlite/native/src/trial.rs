//! The child's side of the self-test: parts that are done in a scratch database, with the same
//! statements as a store's.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::child::Pipes;
use crate::codes::{ERROR, OK, code_name};
use crate::failure::Failure;
use crate::library::{Connection, Library, Value};
use crate::message::Response;
use crate::rows::{MAX_VALUE, Rows, create};

/// What a part found: a text for the report, or what is wrong.
pub(crate) type Outcome = Result<String, String>;

/// Lengths of blobs: where earlier versions broke, and what the store needs.
const LENGTHS: [usize; 7] = [0, 1, 52, 53, 1_000, 3_000, MAX_VALUE];

/// How many rows of [`MAX_VALUE`] bytes a commit changes that is killed: each takes a page.
pub(crate) const COMMIT_ROWS: i64 = 220;

/// The rows of small parts, and how long each is: no longer than the oldest versions took.
const FEW: i64 = 50;
const SHORT: usize = 40;

/// What [`replace`] leaves: rows of the length of a head.
const REPLACED: (i64, usize) = (20, 700);

/// Does a part of the self-test.
pub(crate) fn run(
    pipes: &mut Pipes,
    library: &Library,
    part: &str,
    path: &Path,
    argument: u64,
) -> Outcome {
    let open = |it: &str| library.open(path).map_err(|failure| format!("{it}: {failure}"));
    let number = i64::try_from(argument).unwrap_or(i64::MAX);
    if part == "create" {
        let connection = open("a new database cannot be opened")?;
        create(&connection).map_err(|failure| format!("the table cannot be made: {failure}"))?;
        return Ok(String::new());
    }
    if part == "damaged-log" {
        return damaged_log(library, path);
    }
    if part == "intrude" {
        return intrude(library, path, number);
    }
    if part == "full-disk" {
        limit_files(path, 256 << 10)?;
    }
    let connection = open("the database cannot be opened")?;
    match part {
        "codes" => return codes(&connection),
        "long-row" => return long_row(&connection),
        "keys" => return keys(&connection),
        _ => {}
    }
    let rows = &mut Rows::prepare(&connection).map_err(said)?;
    match part {
        "write" => write(&connection, rows, number),
        "write-and-wait" => {
            write(&connection, rows, number)?;
            progress(pipes)?;
            pipes.wait().map_err(|error| error.to_string())?;
            Ok(String::new())
        }
        "read" => same(rows, number, (FEW, SHORT)).map(|_| String::new()),
        "read-replaced" => same(rows, REPLACED.0, (FEW, REPLACED.1)).map(|_| String::new()),
        "blobs" => blobs(&connection, rows),
        "read-blobs" => read_blobs(rows),
        "rollback" => rollback(&connection, rows),
        "replace" => replace(&connection, rows),
        "volume" => volume(&connection, rows, number),
        "read-volume" => read_volume(rows, number),
        "transaction" => transaction(pipes, &connection, rows),
        "commit" => commit(pipes, &connection, rows, number),
        "open-and-wait" => {
            let transaction = connection.begin().map_err(said)?;
            replace_all(rows, number).map_err(said)?;
            progress(pipes)?;
            pipes.wait().map_err(|error| error.to_string())?;
            transaction.rollback().map_err(said)?;
            Ok(String::new())
        }
        "commit-and-wait" => {
            fill(&connection, rows, number, (COMMIT_ROWS, MAX_VALUE)).map_err(said)?;
            progress(pipes)?;
            pipes.wait().map_err(|error| error.to_string())?;
            Ok(String::new())
        }
        "generation" => generation(rows).map(|it| it.to_string()),
        "full-disk" => full_disk(&connection, rows),
        "count" => count(rows),
        "hold" => hold(pipes, &connection, rows, number),
        "has" => has(rows, number),
        other => Err(format!("there is no part {other}")),
    }
}

fn said(failure: Failure) -> String {
    failure.to_string()
}

fn progress(pipes: &mut Pipes) -> Result<(), String> {
    pipes.answer(&Response::Progress).map_err(|error: io::Error| error.to_string())
}

/// What a row of a generation has: its number, and so many bytes that tell both.
fn value(id: i64, generation: i64, length: usize) -> Vec<u8> {
    let seed = [generation.to_be_bytes(), id.to_be_bytes()].concat();
    seed.iter().copied().cycle().take(length).collect()
}

/// Replaces rows 1 to `count` by those of a generation, in one transaction.
fn fill(
    connection: &Connection<'_>,
    rows: &mut Rows<'_>,
    generation: i64,
    (count, length): (i64, usize),
) -> Result<(), Failure> {
    let transaction = connection.begin()?;
    for id in 1..=count {
        rows.delete(id)?;
        rows.insert(id, &value(id, generation, length))?;
    }
    transaction.commit()
}

/// Refuses unless there are these rows of this generation, and no others.
fn same(
    rows: &mut Rows<'_>,
    generation: i64,
    (count, length): (i64, usize),
) -> Result<usize, String> {
    let mut next = 1;
    let mut wrong = None;
    let found = rows
        .all(|id, bytes| {
            if wrong.is_none() && (id != next || bytes != value(id, generation, length)) {
                wrong = Some(id);
            }
            next += 1;
        })
        .map_err(said)?;
    match wrong {
        Some(id) => Err(format!("row {id} is not what was written")),
        None if i64::try_from(found) != Ok(count) => {
            Err(format!("{found} of {count} rows are there"))
        }
        None => Ok(found),
    }
}

fn write(connection: &Connection<'_>, rows: &mut Rows<'_>, generation: i64) -> Outcome {
    fill(connection, rows, generation, (FEW, SHORT)).map_err(said)?;
    same(rows, generation, (FEW, SHORT)).map(|_| String::new())
}

/// That results are told by the numbers of ABI 1.0.0.
fn codes(connection: &Connection<'_>) -> Outcome {
    let known = |what: &str, failure: Failure| match code_name(failure.code) {
        Some("OK" | "ROW" | "DONE") | None => {
            Err(format!("{what} gives {}, which no failure has in ABI 1.0.0", failure.code))
        }
        Some(_) => Ok(()),
    };
    connection.execute("CREATE TABLE codes (id INTEGER PRIMARY KEY, value BLOB)").map_err(said)?;
    let mut insert =
        connection.prepare("INSERT INTO codes (id, value) VALUES (?, ?)").map_err(said)?;
    insert
        .execute(&[Value::Integer(1), Value::Blob(b"one")])
        .map_err(|failure| format!("a row cannot be inserted: {failure}"))?;
    match insert.bind(7, Value::Null) {
        Ok(()) => return Err("a parameter that there is none of can be bound".to_owned()),
        Err(failure) => known("binding a parameter that there is none of", failure)?,
    }
    // The second one is not there: a library that gives rows of something else shows.
    let mut select = connection.prepare("SELECT value FROM codes WHERE id = ?").map_err(said)?;
    for (id, expected) in [(1, true), (2, false)] {
        select.begin(&[Value::Integer(id)]).map_err(said)?;
        let found = select.step().map_err(|failure| format!("a row cannot be read: {failure}"))?;
        if found.is_some() != expected {
            return Err(format!("row {id} is {}there", if expected { "not " } else { "" }));
        }
        if let Some(mut row) = found
            && row.blob(0).map_err(said)? != b"one"
        {
            return Err("a row has another value".to_owned());
        }
    }
    match connection.execute("SELEKT 1") {
        Ok(()) => return Err("what is no SQL succeeds".to_owned()),
        Err(failure) => known("what is no SQL", failure)?,
    }
    match connection.begin().and_then(|_open| connection.begin().map(drop)) {
        // Whether a transaction in a transaction is refused is not said; how it is refused, is.
        Ok(()) => {}
        Err(failure) => known("a transaction in a transaction", failure)?,
    }
    Ok(String::new())
}

/// That a step which fails says so: a row that is too long is stored whole, or refused.
fn long_row(connection: &Connection<'_>) -> Outcome {
    let mut rows = Rows::prepare(connection).map_err(said)?;
    let long = value(1, 1, 8_000);
    let told = rows.insert(1, &long);
    let is_there = rows.get(1, |found| found.is_some_and(|found| found == long)).map_err(said)?;
    match (told, is_there) {
        (Ok(()), true) => Ok("a row of 8,000 bytes is stored".to_owned()),
        (Err(failure), false) if failure.code != OK => {
            let is_told = if failure.code == ERROR { "without a code" } else { "with a code" };
            Ok(format!("a row of 8,000 bytes is refused, {is_told}"))
        }
        (Ok(()), false) => {
            Err("a step says that a row of 8,000 bytes is stored, and it is not there".to_owned())
        }
        (Err(_), _) => Err("a step fails, and what it should store is there".to_owned()),
    }
}

/// Information only: the store has no need of it.
fn keys(connection: &Connection<'_>) -> Outcome {
    let mut rows = Rows::prepare(connection).map_err(said)?;
    rows.insert(1, b"one").map_err(said)?;
    let primary = rows.insert(1, b"two").is_err();
    drop(rows);
    connection
        .execute("CREATE TABLE keyed (id INTEGER PRIMARY KEY, name INTEGER UNIQUE)")
        .map_err(said)?;
    let mut insert =
        connection.prepare("INSERT INTO keyed (id, name) VALUES (?, ?)").map_err(said)?;
    insert.execute(&[Value::Integer(1), Value::Integer(5)]).map_err(said)?;
    let unique = insert.execute(&[Value::Integer(2), Value::Integer(5)]).is_err();
    let is = |enforced| if enforced { "enforced" } else { "not enforced" };
    Ok(format!("PRIMARY KEY is {}, UNIQUE is {}", is(primary), is(unique)))
}

fn blobs(connection: &Connection<'_>, rows: &mut Rows<'_>) -> Outcome {
    let transaction = connection.begin().map_err(said)?;
    for (id, length) in (1..).zip(LENGTHS) {
        rows.insert(id, &value(id, 1, length))
            .map_err(|failure| format!("a blob of {length} bytes: {failure}"))?;
    }
    transaction.commit().map_err(said)?;
    read_blobs(rows)
}

fn read_blobs(rows: &mut Rows<'_>) -> Outcome {
    for (id, length) in (1..).zip(LENGTHS) {
        // Before it is read: made afterwards it could get the memory that the library has freed.
        let written = value(id, 1, length);
        let is_same = rows
            .get(id, |found| found.is_some_and(|found| found == written))
            .map_err(|failure| format!("a blob of {length} bytes: {failure}"))?;
        if !is_same {
            return Err(format!("a blob of {length} bytes is not what was written"));
        }
    }
    Ok(String::new())
}

/// Undoes insertions and deletions.
fn rollback(connection: &Connection<'_>, rows: &mut Rows<'_>) -> Outcome {
    fill(connection, rows, 1, (FEW, SHORT)).map_err(said)?;
    let transaction = connection.begin().map_err(said)?;
    for id in 1..=FEW / 2 {
        rows.delete(id).map_err(said)?;
    }
    for id in FEW + 1..=2 * FEW {
        rows.insert(id, &value(id, 2, 100)).map_err(said)?;
    }
    transaction.rollback().map_err(said)?;
    same(rows, 1, (FEW, SHORT))
        .map(|_| String::new())
        .map_err(|wrong| format!("after a rollback {wrong}"))
}

/// What a store does with its head at each commit.
fn replace(connection: &Connection<'_>, rows: &mut Rows<'_>) -> Outcome {
    let (last, length) = REPLACED;
    for generation in 1..=last {
        fill(connection, rows, generation, (FEW, length)).map_err(said)?;
    }
    same(rows, last, (FEW, length)).map(|_| String::new())
}

/// Rows of the size of a small record.
fn volume(connection: &Connection<'_>, rows: &mut Rows<'_>, count: i64) -> Outcome {
    const AT_ONCE: usize = 1_000;
    let ids: Vec<i64> = (1..=count).collect();
    for ids in ids.chunks(AT_ONCE) {
        let transaction = connection.begin().map_err(said)?;
        for id in ids {
            rows.insert(*id, &value(*id, 1, 100)).map_err(said)?;
        }
        transaction.commit().map_err(said)?;
    }
    read_volume(rows, count)?;
    let peak = peak_memory();
    const BOUND: u64 = 512 << 20;
    match peak {
        Some(peak) if peak > BOUND => {
            Err(format!("{} MiB of memory are used, more than {}", peak >> 20, BOUND >> 20))
        }
        Some(peak) => Ok(format!("{count} rows, {} MiB", peak >> 20)),
        None => Ok(format!("{count} rows, memory unknown")),
    }
}

fn read_volume(rows: &mut Rows<'_>, count: i64) -> Outcome {
    same(rows, 1, (count, 100))?;
    // Spread over the table, by a step that has no factor in common with its size.
    for at in 0..1_000_i64 {
        let id = at * 7_919 % count + 1;
        let is_there = rows.get(id, |found| found.is_some()).map_err(said)?;
        if !is_there {
            return Err(format!("row {id} is not found by its number"));
        }
    }
    Ok(String::new())
}

/// The most memory that this process ever had in use.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Writes in a transaction until it is killed, or for as long as that may take.
fn transaction(pipes: &mut Pipes, connection: &Connection<'_>, rows: &mut Rows<'_>) -> Outcome {
    same(rows, 1, (FEW, SHORT))?;
    let transaction = connection.begin().map_err(said)?;
    let change = |rows: &mut Rows<'_>, at: i64| {
        rows.delete(at % FEW + 1)?;
        rows.insert(FEW + 1 + at, &value(at, 3, 1_000))
    };
    for at in 0..10 {
        change(rows, at).map_err(said)?;
    }
    progress(pipes)?;
    for at in 10..400 {
        change(rows, at).map_err(said)?;
    }
    progress(pipes)?;
    transaction.rollback().map_err(said)?;
    Ok(String::new())
}

/// Replaces every row of many pages by that of a generation.
fn replace_all(rows: &mut Rows<'_>, generation: i64) -> Result<(), Failure> {
    (1..=COMMIT_ROWS).try_for_each(|id| {
        rows.delete(id)?;
        rows.insert(id, &value(id, generation, MAX_VALUE))
    })
}

/// Commits the next generation of many pages; is killed meanwhile, or not.
fn commit(
    pipes: &mut Pipes,
    connection: &Connection<'_>,
    rows: &mut Rows<'_>,
    next: i64,
) -> Outcome {
    let transaction = connection.begin().map_err(said)?;
    replace_all(rows, next).map_err(said)?;
    progress(pipes)?;
    transaction.commit().map_err(said)?;
    // What comes after that, closing the database, is no part of it.
    progress(pipes)?;
    Ok(String::new())
}

/// Of which generation all rows are; 0 if there is none.
fn generation(rows: &mut Rows<'_>) -> Result<i64, String> {
    let mut found = None;
    let (mut next, mut wrong) = (1, None);
    let count = rows
        .all(|id, bytes| {
            let generation = bytes.first_chunk().copied().map_or(-1, i64::from_be_bytes);
            let first = *found.get_or_insert(generation);
            let is_right = id == next && bytes == value(id, generation, MAX_VALUE);
            if wrong.is_none() && (!is_right || generation != first) {
                wrong = Some((id, generation, first));
            }
            next += 1;
        })
        .map_err(said)?;
    match (wrong, i64::try_from(count)) {
        (Some((id, generation, first)), _) => Err(format!(
            "row {id} is of commit {generation}, and row 1 of commit {first}: a commit is there in part"
        )),
        (None, Ok(0 | COMMIT_ROWS)) => Ok(found.unwrap_or(0)),
        (None, _) => Err(format!("{count} of {COMMIT_ROWS} rows are there")),
    }
}

/// A database whose log was damaged: it is refused, or all rows are of one commit.
fn damaged_log(library: &Library, path: &Path) -> Outcome {
    let Ok(connection) = library.open(path) else { return Ok("refused".to_owned()) };
    // Where that fails the damage was noticed.
    let Ok(mut rows) = Rows::prepare(&connection) else { return Ok("refused".to_owned()) };
    match rows.scan(0, |_, _| {}) {
        Ok(_) => generation(&mut rows).map(|generation| generation.to_string()),
        Err(_) => Ok("refused".to_owned()),
    }
}

/// Lets no file of this process become longer than the database is, and this much.
fn limit_files(path: &Path, more: u64) -> Result<(), String> {
    crate::raw::ignore_file_limit_signal();
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    let limit = Some(length + more);
    setrlimit(Resource::Fsize, Rlimit { current: limit, maximum: limit })
        .map_err(|error| error.to_string())
}

/// Writes until there is no room; says how many rows were acknowledged.
fn full_disk(connection: &Connection<'_>, rows: &mut Rows<'_>) -> Outcome {
    const AT_ONCE: i64 = 10;
    const TRANSACTIONS: i64 = 100;
    for acknowledged in 0..TRANSACTIONS {
        let mut store = || {
            let transaction = connection.begin()?;
            for at in 1..=AT_ONCE {
                let id = acknowledged * AT_ONCE + at;
                rows.insert(id, &value(id, 1, 3_000))?;
            }
            transaction.commit()
        };
        if store().is_err() {
            return Ok((acknowledged * AT_ONCE).to_string());
        }
    }
    Err("writing never failed, beyond the limit for files: it was not tried".to_owned())
}

/// How many whole transactions of [`full_disk`] are there, in rows.
fn count(rows: &mut Rows<'_>) -> Outcome {
    let (mut next, mut wrong) = (1, false);
    let found = rows.all(|id, bytes| {
        wrong |= id != next || bytes != value(id, 1, 3_000);
        next += 1;
    });
    match (found.map_err(said)?, wrong) {
        (found, false) => Ok(found.to_string()),
        (_, true) => Err("rows are missing among others, or not what was written".to_owned()),
    }
}

/// Writes a row in a transaction, and commits it when it is told to.
fn hold(pipes: &mut Pipes, connection: &Connection<'_>, rows: &mut Rows<'_>, id: i64) -> Outcome {
    let transaction = connection.begin().map_err(said)?;
    rows.insert(id, &value(id, 1, 100)).map_err(said)?;
    progress(pipes)?;
    pipes.wait().map_err(|error| error.to_string())?;
    match transaction.commit() {
        Ok(()) => Ok("stored".to_owned()),
        Err(_) => Ok("refused".to_owned()),
    }
}

/// Writes a row while somebody else does. A call that fails is a refusal, from opening on.
fn intrude(library: &Library, path: &Path, id: i64) -> Outcome {
    let store = || {
        let connection = library.open(path)?;
        let mut rows = Rows::prepare(&connection)?;
        let transaction = connection.begin()?;
        rows.insert(id, &value(id, 1, 100))?;
        transaction.commit()
    };
    match store() {
        Ok(()) => Ok("stored".to_owned()),
        Err(_) => Ok("refused".to_owned()),
    }
}

/// Whether a row is there, in the words of those who wrote it.
fn has(rows: &mut Rows<'_>, id: i64) -> Outcome {
    let is_there = rows
        .get(id, |found| found.is_some_and(|found| found == value(id, 1, 100)))
        .map_err(said)?;
    Ok(if is_there { "stored" } else { "refused" }.to_owned())
}
