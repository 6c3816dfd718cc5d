//! A child of its own for the library, over the double.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ghostwire_store_core::error::{ErrorKind, Result};
use ghostwire_store_zqlite_native::{Change, Host, NotStored, Program, Session};
use ghostwire_zqlite_double::{ABORT, Switch, install};

fn program() -> Program {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_ghostwire-zqlite-native"));
    Program { path, arguments: Vec::new() }
}

fn host(directory: &Path, switch: Option<Switch>) -> Host {
    Host::new(program(), &install(directory, switch).unwrap()).unwrap()
}

fn database(directory: &Path) -> PathBuf {
    directory.join("one.db")
}

fn kill(session: &Session) {
    use rustix::process::{Pid, Signal, kill_process};
    let child = Pid::from_raw(session.child().try_into().unwrap()).unwrap();
    kill_process(child, Signal::KILL).unwrap();
}

fn value(session: &mut Session, id: u64) -> Result<Option<Vec<u8>>> {
    let mut found = None;
    session.read(&[id], |_, value| {
        found = value.map(<[u8]>::to_vec);
        Ok(())
    })?;
    Ok(found)
}

#[test]
fn what_is_written_is_read_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let (host, path) = (host(directory.path(), None), database(directory.path()));
    let mut session = Session::open(&host, &path, true, false).unwrap();
    assert_eq!(session.loaded().functions, 51);
    let long = vec![7; 3_000];
    let rows: Vec<u64> = (2..=1_300).collect();
    let puts = rows.iter().map(|id| Change::Put(*id, &long));
    let head = [Change::Put(1, b"one")];
    session.write(b"", head.into_iter().chain(puts)).unwrap();
    session.close().unwrap();
    let mut session = Session::open(&host, &path, false, false).unwrap();
    let mut found = Vec::new();
    session
        .scan(|id, length, beginning| {
            if id > 1 {
                assert_eq!((length, beginning), (3_000, &long[..17]));
                found.push(id);
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(found, rows);
    let mut read = 0;
    session
        .read(&rows, |id, value| {
            assert_eq!(id, rows[read]);
            assert_eq!(value, Some(&long[..]));
            read += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(read, rows.len());
    let changes =
        [Change::Delete(1), Change::Put(1, b"two"), Change::Delete(2), Change::Delete(9_999)];
    session.write(b"one", changes).unwrap();
    assert_eq!(value(&mut session, 2).unwrap(), None);
    assert_eq!(value(&mut session, 1).unwrap().unwrap(), b"two");
}

#[test]
fn another_head_is_a_conflict_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (host, path) = (host(directory.path(), None), database(directory.path()));
    let mut session = Session::open(&host, &path, true, false).unwrap();
    session.write(b"", [Change::Put(1, b"one")]).unwrap();
    let changes = [Change::Delete(1), Change::Put(1, b"three"), Change::Put(2, b"row")];
    let refused = session.write(b"two", changes).unwrap_err();
    assert!(matches!(refused, NotStored::Conflict), "{refused:?}");
    assert_eq!(value(&mut session, 1).unwrap().unwrap(), b"one");
    session.write(b"one", changes).unwrap();
    assert_eq!(value(&mut session, 2).unwrap().unwrap(), b"row");
}

#[test]
fn what_the_library_refuses_is_undone_and_the_next_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (host, path) = (host(directory.path(), None), database(directory.path()));
    let mut session = Session::open(&host, &path, true, false).unwrap();
    session.write(b"", [Change::Put(1, b"one")]).unwrap();
    let long = vec![7; 5_000];
    let changes = [Change::Put(2, b"row"), Change::Put(3, &long), Change::Put(4, b"row")];
    match session.write(b"one", changes).unwrap_err() {
        NotStored::Undone(error) => assert!(error.to_string().contains("not stored"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(!session.is_lost());
    assert_eq!(value(&mut session, 2).unwrap(), None);
    session.write(b"one", [Change::Put(2, b"row")]).unwrap();
    assert_eq!(value(&mut session, 2).unwrap().unwrap(), b"row");
}

#[test]
fn what_cannot_be_undone_is_not_stored_by_closing() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(directory.path(), Some(Switch::RollbackFails));
    let path = database(directory.path());
    let mut session = Session::open(&host, &path, true, false).unwrap();
    session.write(b"", [Change::Put(1, b"one")]).unwrap();
    let long = vec![7; 5_000];
    let refused = session.write(b"one", [Change::Put(2, b"row"), Change::Put(3, &long)]);
    assert!(matches!(refused, Err(NotStored::Unknown(_))), "{refused:?}");
    assert!(session.is_lost());
    // Undone for certain now: it was never sent.
    let refused = session.write(b"one", [Change::Put(2, b"row")]);
    assert!(matches!(refused, Err(NotStored::Undone(_))), "{refused:?}");
    session.close().unwrap();
    let mut session = Session::open(&host, &path, false, false).unwrap();
    assert_eq!(value(&mut session, 2).unwrap(), None);
    session.write(b"one", [Change::Put(2, b"other")]).unwrap();
    // A conflict is undone, too, or not known to be.
    let refused = session.write(b"two", [Change::Put(4, b"row")]);
    assert!(matches!(refused, Err(NotStored::Unknown(_))), "{refused:?}");
    let mut session = Session::open(&host, &path, false, false).unwrap();
    assert_eq!(value(&mut session, 2).unwrap().unwrap(), b"other");
    assert_eq!(value(&mut session, 4).unwrap(), None);
}

#[test]
fn a_child_that_is_killed_is_an_error_and_the_next_has_everything() {
    let directory = tempfile::tempdir().unwrap();
    let (host, path) = (host(directory.path(), None), database(directory.path()));
    let mut session = Session::open(&host, &path, true, false).unwrap();
    session.write(b"", [Change::Put(1, b"one")]).unwrap();
    kill(&session);
    let error = value(&mut session, 1).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("was lost"), "{error}");
    assert!(session.is_lost());
    assert!(matches!(session.write(b"one", []), Err(NotStored::Undone(_))));
    let mut session = Session::open(&host, &path, false, false).unwrap();
    assert_eq!(value(&mut session, 1).unwrap().unwrap(), b"one");
    kill(&session);
    // Whether the message was read before the child's end, it is not known to be stored.
    match session.write(b"one", [Change::Put(2, b"row")]).unwrap_err() {
        NotStored::Undone(error) => assert_eq!(*error.kind(), ErrorKind::Unavailable),
        NotStored::Unknown(error) => assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown),
        NotStored::Conflict => panic!("a conflict with nobody"),
    }
}

/// How many rows a generation has, each of the generation's number: enough for a commit of some length.
const GENERATION: std::ops::RangeInclusive<u64> = 2..=400;

/// Commits generation after generation, and never ends by itself.
fn write_generations(host: &Host, path: &Path) -> ! {
    let mut session = Session::open(host, path, true, false).unwrap();
    let mut head = Vec::new();
    for generation in 0_u64.. {
        let next = generation.to_be_bytes();
        let value = next.repeat(300);
        let deleted = std::iter::once(1).chain(GENERATION).map(Change::Delete);
        let put = GENERATION.map(|id| Change::Put(id, &value));
        let changes = deleted.chain([Change::Put(1, &next)]).chain(put);
        session.write(&head, changes).unwrap();
        head = next.to_vec();
        println!("\ncommitted {generation}");
    }
    panic!("there are no more numbers");
}

/// The parent that [`after_a_parent_that_was_killed_the_next_opens_at_once`] kills.
#[test]
#[ignore = "the child of the next test, which runs it; cargo test -p ghostwire-store-zqlite-native --test process after_a_parent"]
fn parent_that_writes() {
    let directory = PathBuf::from(std::env::var_os("GHOSTWIRE_NATIVE_DIRECTORY").unwrap());
    let host = Host::new(program(), &directory.join("libzqlite_c.so")).unwrap();
    write_generations(&host, &database(&directory));
}

#[test]
fn after_a_parent_that_was_killed_the_next_opens_at_once() {
    use std::io::BufRead;
    let directory = tempfile::tempdir().unwrap();
    let (host, path) = (host(directory.path(), None), database(directory.path()));
    let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["parent_that_writes", "--exact", "--ignored", "--nocapture"])
        .env("GHOSTWIRE_NATIVE_DIRECTORY", directory.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let said = std::io::BufReader::new(parent.stdout.take().unwrap());
    let committed = said.lines().map(Result::unwrap);
    let committed = committed.filter(|line| line.starts_with("committed ")).nth(2).unwrap();
    // The next commit is under way by now, and its child goes on for a moment.
    parent.kill().unwrap();
    let mut session = Session::open(&host, &path, false, false).unwrap();
    parent.wait().unwrap();
    let head = value(&mut session, 1).unwrap().unwrap();
    let found = u64::from_be_bytes(head[..].try_into().unwrap());
    assert!(found >= committed.strip_prefix("committed ").unwrap().parse().unwrap());
    let mut rows = 0;
    let ids: Vec<u64> = GENERATION.collect();
    session
        .read(&ids, |_, value| {
            assert_eq!(value.unwrap(), head.repeat(300));
            rows += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(rows, ids.len());
    session.write(&head, [Change::Delete(1), Change::Put(1, b"next")]).unwrap();
}

#[test]
fn a_library_that_aborts_takes_only_its_child_along() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(directory.path(), Some(Switch::Aborts));
    let mut session = Session::open(&host, &database(directory.path()), true, false).unwrap();
    session.write(b"", [Change::Put(1, b"one")]).unwrap();
    match session.write(b"one", [Change::Put(2, &[0; 100])]).unwrap_err() {
        NotStored::Undone(error) | NotStored::Unknown(error) => {
            assert!(error.to_string().contains("process of the ZQLite library ended"), "{error}");
        }
        NotStored::Conflict => panic!("a conflict with nobody"),
    }
    assert!(session.is_lost());
}

#[test]
fn a_commit_that_ends_its_process_is_unknown_and_then_told_by_what_is_stored() {
    for (switch, is_stored) in
        [(Switch::AbortsBeforeCommit, false), (Switch::AbortsAfterCommit, true)]
    {
        let directory = tempfile::tempdir().unwrap();
        let host = host(directory.path(), Some(switch));
        let path = database(directory.path());
        let mut session = Session::open(&host, &path, true, false).unwrap();
        session.write(b"", [Change::Put(1, b"one")]).unwrap();
        let changes = [Change::Delete(1), Change::Put(1, b"two"), Change::Put(2, ABORT)];
        match session.write(b"one", changes).unwrap_err() {
            NotStored::Unknown(error) => assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown),
            other => panic!("{switch:?}: {other:?}"),
        }
        let mut session = Session::open(&host, &path, false, false).unwrap();
        let (head, row) = (value(&mut session, 1).unwrap(), value(&mut session, 2).unwrap());
        let expected = if is_stored { (&b"two"[..], Some(ABORT)) } else { (&b"one"[..], None) };
        assert_eq!((head.as_deref().unwrap(), row.as_deref()), expected, "{switch:?}");
    }
}

#[test]
fn a_library_that_hangs_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    let mut host = host(directory.path(), Some(Switch::Hangs));
    host.deadline = Duration::from_secs(20);
    let mut session = Session::open(&host, &database(directory.path()), true, false).unwrap();
    let puts = (1..=31_500).map(|id| Change::Put(id, b"row"));
    match session.write(b"", puts).unwrap_err() {
        NotStored::Unknown(error) => assert!(error.to_string().contains("too long"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(session.is_lost());
}

#[test]
fn a_library_that_was_replaced_is_not_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let (host, path) = (host(directory.path(), None), database(directory.path()));
    let mut session = Session::open(&host, &path, true, false).unwrap();
    session.write(b"", [Change::Put(1, b"one")]).unwrap();
    install(directory.path(), Some(Switch::OldCodes)).unwrap();
    // What is loaded stays.
    assert_eq!(value(&mut session, 1).unwrap().unwrap(), b"one");
    drop(session);
    let error = Session::open(&host, &path, false, false).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("was replaced"), "{error}");
}

#[test]
fn what_a_child_must_not_load_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(directory.path(), Some(Switch::WrongAbi));
    let error = Session::open(&host, &database(directory.path()), true, false).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("the number 20000"), "{error}");
    let absent = Program { path: "/absent/program".into(), arguments: Vec::new() };
    let host = Host { program: absent, ..host };
    let error = Session::open(&host, &database(directory.path()), true, false).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("program=/absent/program"), "{error}");
}

#[test]
fn a_child_that_is_lost_while_it_loads_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let host = host(directory.path(), Some(Switch::AbortsAtOnce));
    let error = Session::open(&host, &database(directory.path()), true, false).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("process of the ZQLite library ended"), "{error}");
}

#[test]
fn a_lock_that_is_none_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (host, path) = (host(directory.path(), None), database(directory.path()));
    let lock = directory.path().join("one.db.lock");
    let refused = || {
        let error = Session::open(&host, &path, true, false).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("library failed"), "{error}");
        assert!(!path.exists());
    };
    std::os::unix::fs::symlink(directory.path().join("elsewhere"), &lock).unwrap();
    refused();
    assert!(!directory.path().join("elsewhere").exists());
    fs::remove_file(&lock).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &lock, rustix::fs::Mode::RWXU).unwrap();
    refused();
    fs::remove_file(&lock).unwrap();
    fs::write(&lock, "").unwrap();
    fs::hard_link(&lock, directory.path().join("other")).unwrap();
    refused();
    fs::remove_file(directory.path().join("other")).unwrap();
    Session::open(&host, &path, true, false).unwrap();
}

#[test]
fn a_program_that_is_not_the_child_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let program = Program { path: "/bin/cat".into(), arguments: Vec::new() };
    let host = Host { program, ..host(directory.path(), None) };
    let error = Session::open(&host, &database(directory.path()), true, false).unwrap_err();
    assert!(error.to_string().contains("makes no sense"), "{error}");
}

#[test]
fn a_child_has_no_file_that_it_inherited() {
    let directory = tempfile::tempdir().unwrap();
    let (host, path) = (host(directory.path(), None), database(directory.path()));
    let secret = directory.path().join("secret");
    let file = fs::File::create(&secret).unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let session = Session::open(&host, &path, true, false).unwrap();
    let files = fs::read_dir(format!("/proc/{}/fd", session.child())).unwrap();
    let files: Vec<_> = files.map(|it| fs::read_link(it.unwrap().path()).unwrap()).collect();
    assert!(files.contains(&path.canonicalize().unwrap()), "{files:?}");
    assert!(!files.contains(&secret.canonicalize().unwrap()), "{files:?}");
}

#[test]
fn what_a_child_makes_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let (host, path) = (host(directory.path(), None), database(directory.path()));
    let mut session = Session::open(&host, &path, true, false).unwrap();
    session.write(b"", [Change::Put(1, b"one")]).unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(directory.path()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("one.db") {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o077;
            assert_eq!(mode, 0, "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 2);
}
