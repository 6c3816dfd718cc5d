//! Who may open a store, and what opening an older one does.

use std::path::PathBuf;

use crate::prelude::*;

cases! {
    stored_unopened {
        "migrate-at-open" => [an_older_store_is_migrated_when_it_is_opened],
    }
    once {
        "migrate-at-open" => [a_store_of_this_schema_is_opened_without_a_copy],
    }
    once_unopened {
        "one-process" => [
            a_second_writer_is_busy_at_once,
            readers_share_a_store_and_a_writer_does_not,
        ],
        "migrate-at-open" => [a_reader_reads_an_older_store_as_it_is],
    }
}

const ALONE: Verdict = Verdict::Skipped("no other process can open this backend");
const SHARED: Verdict = Verdict::Skipped("several processes may have it open");

async fn a_second_writer_is_busy_at_once(env: &mut TestEnv) -> Verdict {
    let Some(location) = env.place().location() else { return ALONE };
    let store = env.open().await;
    if store.info().backend.shared {
        return SHARED;
    }
    create(&store, "alice").await;
    for opening in [env.opening(), env.opening().read_only()] {
        let error = fails(env.try_open_backend(opening).await, Busy);
        assert!(error.is_retryable());
        let fact = |name| {
            let mut facts = error.context().iter();
            facts.find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
        };
        assert!(fact("path").is_some_and(|path| path.starts_with(&location)), "{error}");
        assert_eq!(fact("pid"), Some(std::process::id().to_string().as_str()), "{error}");
    }
    // Who was refused did not disturb the one who has it.
    create(&store, "bob").await;
    let store = env.reopen(store).await;
    assert_eq!(store.view().users().len(), 2);
    Verdict::Passed
}

async fn readers_share_a_store_and_a_writer_does_not(env: &mut TestEnv) -> Verdict {
    if env.place().location().is_none() {
        return ALONE;
    }
    let store = env.open().await;
    if store.info().backend.shared {
        return SHARED;
    }
    create(&store, "alice").await;
    close(store).await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let reading = env.try_open_backend(env.opening().read_only()).await.unwrap();
        let options = StoreOptions { read_only: true, ..env.options() };
        readers.push(ghostwire_store_core::open(reading, options).await.unwrap());
    }
    for reader in &readers {
        assert_eq!(reader.view().users().len(), 1);
        fails(reader.users().create(local("bob")).await, ReadOnly);
    }
    fails(env.try_open_backend(env.opening()).await, Busy);
    for reader in readers {
        reader.close().await.unwrap();
    }
    let store = env.open().await;
    create(&store, "bob").await;
    store.close().await.unwrap();
    Verdict::Passed
}

async fn an_older_store_is_migrated_when_it_is_opened(env: &mut TestEnv) {
    let old = write_as_version_1(env).await;
    let before = files(env);
    let store = env.open().await;
    // In one step, whatever lies in between, and after a copy of what was there.
    let copies: Vec<_> = files(env)
        .into_iter()
        .filter(|(path, _)| !before.iter().any(|(old, _)| old == path))
        .collect();
    let (file, is_opaque) = (env.place().file(), env.place().is_opaque());
    for (path, content) in &before {
        let name = path.file_name().unwrap().to_str().unwrap();
        // One copy holds what the library keeps in files of its own.
        if name.ends_with("-wal") || (is_opaque && Some(path) != file.as_ref()) {
            continue;
        }
        let copy = copies.iter().find(|(copy, _)| {
            let copy = copy.file_name().unwrap().to_str().unwrap();
            copy.starts_with(name) && copy.ends_with(".v1.bak")
        });
        let (_, copied) = copy.unwrap_or_else(|| panic!("no copy of {name}: {copies:?}"));
        let is_whole = copied.len() == content.len() || is_opaque && copied.len() > content.len();
        assert!(is_whole, "a copy of {name}");
    }
    let found = store.dns().get(old.id).await.unwrap().unwrap();
    assert_eq!(*found, old);
    let store = env.reload(store).await;
    // It can hold what the older schema could not.
    let patch = DnsRecordPatch { ttl: Patch::Set(60), ..DnsRecordPatch::default() };
    store.dns().update(old.id, patch, Some(old.revision)).await.unwrap();
    let store = env.reload(store).await;
    let found = store.dns().get(old.id).await.unwrap().unwrap();
    assert_eq!((found.ttl, found.revision.get()), (Some(60), 2));
    close(store).await;
    let backend = env.open_backend().await;
    assert_eq!(backend.head().await.unwrap().schema, Schema::current().version());
    backend.close().await.unwrap();
}

async fn a_reader_reads_an_older_store_as_it_is(env: &mut TestEnv) {
    let old = write_as_version_1(env).await;
    let before = files(env);
    let backend = env.try_open_backend(env.opening().read_only()).await.unwrap();
    let options = StoreOptions { read_only: true, ..env.options() };
    let reader = ghostwire_store_core::open(backend.clone(), options).await.unwrap();
    assert_eq!(*reader.dns().get(old.id).await.unwrap().unwrap(), old);
    let patch = DnsRecordPatch { ttl: Patch::Set(60), ..DnsRecordPatch::default() };
    fails(reader.dns().update(old.id, patch, None).await, ReadOnly);
    assert_eq!(backend.head().await.unwrap().schema, Schema::at(1).unwrap().version());
    reader.close().await.unwrap();
    drop((reader, backend));
    assert!(files(env) == before, "nothing was written");
    let store = env.open().await;
    assert_eq!(*store.dns().get(old.id).await.unwrap().unwrap(), old);
    store.close().await.unwrap();
}

async fn a_store_of_this_schema_is_opened_without_a_copy(env: &mut TestEnv, store: Opened) {
    create(&store, "alice").await;
    close(store).await;
    let names = |env: &TestEnv| files(env).into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    let before = names(env);
    let store = env.open().await;
    store.close().await.unwrap();
    assert_eq!(names(env), before);
}

/// The files of the store, and what is in them.
fn files(env: &TestEnv) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = env.place().files().into_iter();
    paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Makes a store of the first schema, with a record that lacks the later columns.
async fn write_as_version_1(env: &TestEnv) -> DnsRecord {
    let schema = Schema::at(1).unwrap();
    let backend = env.try_open_backend(env.opening().schema(schema)).await.unwrap();
    assert_eq!(backend.head().await.unwrap().schema, schema.version());
    let record = DnsRecord {
        id: DnsRecordId::time_ordered(at(0), [1; 10]),
        name: "wiki.example.com".parse().unwrap(),
        kind: DnsRecordKind::A,
        value: "10.0.0.1".parse().unwrap(),
        ttl: None,
        created_at: at(0),
        updated_at: at(0),
        revision: Revision::FIRST,
    };
    let mut builder = BlockBuilder::default();
    builder.put(ChangeKind::Created, &record);
    let serial = Serial::ZERO.next();
    let id = BlockId::time_ordered(at(0), [2; 10]);
    let closed = builder.finish(serial, id, BlockHash::GENESIS, at(0)).unwrap();
    let fit = |change: RowChange| RowChange {
        body: change.body.map(|body| schema.fit(change.table, &body).unwrap()),
        ..change
    };
    let rows = closed.changes.into_iter().map(fit).collect();
    let block = Some(closed.block);
    let commit = Commit { block, rows, checkpoint: Some(serial), ..Commit::default() };
    backend.commit(&commit).await.unwrap();
    backend.close().await.unwrap();
    record
}
