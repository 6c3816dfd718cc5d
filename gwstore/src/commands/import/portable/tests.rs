#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{Seek, SeekFrom, Write};

use ghostwire_store::Opener;
use ghostwire_store::command::EntityRecord;
use ghostwire_store::config::BackendKind;
use ghostwire_store::portable::Writer;
use ghostwire_store_core::state::State;

use super::*;

fn user(number: u32) -> EntityRecord {
    let json = json!({ "user": {
        "id": format!("0190a5c8-7e1f-7000-8000-{number:012x}"),
        "name": format!("user-{number:04}"),
        "identity": { "kind": "local" },
        "created_at": "2024-02-29T12:00:00.000000Z",
        "updated_at": "2024-02-29T12:00:00.000000Z",
        "revision": 1,
    }});
    serde_json::from_value(json).unwrap()
}

/// A file of 2,500 users.
fn file() -> File {
    let mut writer = Writer::new(tempfile::tempfile().unwrap()).unwrap();
    (0..2500).for_each(|number| writer.image(&user(number)).unwrap());
    let (mut file, _) = writer.finish(None).unwrap();
    file.rewind().unwrap();
    file
}

async fn first_reading(file: &File, state: State) -> Tried {
    let present = Present { state, reading: None };
    let bar = Progress::new("", None, false);
    attempt(file, &present, bar).await.unwrap()
}

async fn second_reading(file: &mut File, tried: &Tried, store: &dyn Store) -> Result<Digests> {
    file.rewind().unwrap();
    let bar = Progress::new("", None, false);
    write(file, tried, tried.rehearsal.digest(), store, bar).await
}

/// Writes over what was there, as long as that.
fn change(file: &mut File, from: &str, to: &str) {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    let at = text.find(from).unwrap() as u64;
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(to.as_bytes()).unwrap();
}

/// Whoever took the store meanwhile costs a remark, and not the report.
#[test]
fn a_store_that_is_in_use_again_is_not_counted_once_more() {
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let mut shell = Shell {
        out: &mut out,
        notes: &mut notes,
        json: false,
        is_array: false,
        is_terminal: false,
        is_coloured: false,
        quiet: false,
        is_interactive: false,
    };
    let summary = Summary { counts: [(EntityKind::Metric, 3)].into(), ..Summary::default() };
    let counted = |count| {
        let counted = |count| SeriesCount { count, is_exact: true };
        Ok([(EntityKind::Metric, counted(count)), (EntityKind::Audit, counted(0))])
    };
    tell_of_repeated(Err(Error::new(ErrorKind::Busy, "it is in use")), &summary, &mut shell);
    tell_of_repeated(counted(3), &summary, &mut shell);
    tell_of_repeated(counted(2), &summary, &mut shell);
    let told = String::from_utf8(notes).unwrap();
    let told: Vec<_> = told.lines().collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("not counted once more: it is in use"), "{told:?}");
    assert!(told[1].contains("3 lines of kind metric, but only 2 different keys"), "{told:?}");
}

#[tokio::test]
async fn nothing_is_written_that_was_not_read_so_before() {
    let config = Config::with_backend(BackendKind::Memory);
    let store = Opener::new(&config).create(true).open().await.unwrap();
    let mut file = file();
    let tried = first_reading(&file, State::default()).await;
    change(&mut file, "user-1700", "user-evil");
    let error = second_reading(&mut file, &tried, store.as_ref()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
    let written = store.view().users().iter().map(|user| user.name.to_string()).collect::<Vec<_>>();
    assert!(written.len() <= 1000, "only what came before the change: {}", written.len());
    assert!(!written.contains(&"user-evil".to_owned()));
    // The file as it was can still be imported.
    change(&mut file, "user-evil", "user-1700");
    file.rewind().unwrap();
    let tried = first_reading(&file, State::clone(&store.view())).await;
    assert!(tried.refusals.is_empty());
    second_reading(&mut file, &tried, store.as_ref()).await.unwrap();
    assert_eq!(store.view().users().len(), 2500);
}

#[tokio::test]
async fn a_file_that_was_cut_meanwhile_is_not_written_to_its_end() {
    let config = Config::with_backend(BackendKind::Memory);
    let store = Opener::new(&config).create(true).open().await.unwrap();
    let mut file = file();
    let tried = first_reading(&file, State::default()).await;
    let length = file.metadata().unwrap().len();
    file.set_len(length * 3 / 4).unwrap();
    let error = second_reading(&mut file, &tried, store.as_ref()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
    assert!(store.view().users().len() <= 1000);
}
