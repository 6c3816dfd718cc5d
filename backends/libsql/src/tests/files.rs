//! The file: who may open it, what damage shows, what other tools see.

use super::*;

#[tokio::test]
async fn a_second_open_is_busy_and_readers_only_read() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let before = content(&backend).await.unwrap();
    assert_eq!(*open(&path).await.unwrap_err().kind(), ErrorKind::Busy);
    backend.close().await.unwrap();
    let options = LibsqlOptions::new(&path, STORE).read_only(true);
    let one = LibsqlBackend::open(options.clone()).await.unwrap();
    let two = LibsqlBackend::open(options).await.unwrap();
    assert_eq!(content(&one).await.unwrap(), before);
    assert_eq!(content(&two).await.unwrap(), before);
    let error = one.commit(&rows_only(&before.head, Vec::new())).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::ReadOnly);
    assert_eq!(*open(&path).await.unwrap_err().kind(), ErrorKind::Busy);
    drop((one, two));
    open(&path).await.unwrap();
}

/// Whoever removes the lock lets a writer in beside a reader.
#[tokio::test]
async fn a_reader_takes_no_log_from_a_writer() {
    let (directory, path) = place();
    open(&path).await.unwrap().close().await.unwrap();
    let options = LibsqlOptions::new(&path, STORE).read_only(true);
    let reader = LibsqlBackend::open(options).await.unwrap();
    std::fs::remove_file(directory.path().join("store.db.lock")).unwrap();
    let writer = open(&path).await.unwrap();
    fill(&writer).await;
    let before = content(&writer).await.unwrap();
    assert_eq!(*reader.verify().await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(*reader.close().await.unwrap_err().kind(), ErrorKind::Corrupt);
    drop(reader);
    for beside in ["store.db-wal", "store.db-shm"] {
        assert!(directory.path().join(beside).exists(), "{beside}");
    }
    writer.commit(&rows_only(&before.head, Vec::new())).await.unwrap();
    assert_eq!(content(&writer).await.unwrap(), before);
}

#[tokio::test]
async fn closing_moves_the_log_into_the_file_wherever_that_is() {
    let (directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let before = content(&backend).await.unwrap();
    let aside = directory.path().join("aside.db");
    std::fs::rename(&path, &aside).unwrap();
    let error = backend.commit(&rows_only(&before.head, Vec::new())).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(*backend.close().await.unwrap_err().kind(), ErrorKind::Corrupt);
    drop(backend);
    // Without the log.
    assert_eq!(content(&open(&aside).await.unwrap()).await.unwrap(), before);
}

#[tokio::test]
async fn missing_foreign_and_short_files_are_refused() {
    let (directory, path) = place();
    let options = LibsqlOptions::new(&path, STORE);
    let error = LibsqlBackend::open(options).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    let foreign = directory.path().join("foreign.db");
    std::fs::write(&foreign, "").unwrap();
    {
        crate::prepare_process().await.unwrap();
        let mut link = connect::<Link>(&foreign.canonicalize().unwrap(), Role::Writer).unwrap();
        link.run("CREATE TABLE users (id)").unwrap();
    }
    let before = std::fs::read(&foreign).unwrap();
    let error = open(&foreign).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(std::fs::read(&foreign).unwrap(), before);
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    backend.close().await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    for length in [50, 4096, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(*open(&path).await.unwrap_err().kind(), ErrorKind::Corrupt, "{length}");
    }
    std::fs::write(&path, &whole).unwrap();
    open(&path).await.unwrap().verify().await.unwrap();
}

#[tokio::test]
async fn a_flipped_byte_is_never_read_as_other_data() {
    let (directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let before = content(&backend).await.unwrap();
    backend.close().await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    // Every byte of the header, the beginning of every page, and a sample of the rest.
    let offsets = (0..whole.len())
        .filter(|offset| *offset < 100 || offset % 4096 < 12 || offset % 509 == 0)
        .collect::<Vec<_>>();
    let damaged = directory.path().join("damaged.db");
    let (mut refused, mut harmless) = (0, 0);
    for offset in offsets {
        for flip in [0x01, 0x80] {
            let mut bytes = whole.clone();
            bytes[offset] ^= flip;
            std::fs::write(&damaged, bytes).unwrap();
            let read = async {
                let backend = open(&damaged).await?;
                content(&backend).await
            };
            match read.await {
                Err(error) => {
                    let kinds = [ErrorKind::Corrupt, ErrorKind::InvalidArgument];
                    assert!(kinds.contains(error.kind()), "at {offset}: {error}");
                    refused += 1;
                }
                Ok(content) => {
                    assert_eq!(content, before, "at {offset}");
                    harmless += 1;
                }
            }
            let _ = std::fs::remove_file(directory.path().join("damaged.db-wal"));
            let _ = std::fs::remove_file(directory.path().join("damaged.db-shm"));
        }
    }
    assert!(refused > harmless, "{refused} refused, {harmless} harmless");
}

#[tokio::test]
async fn rows_edited_by_hand_are_refused() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    backend.close().await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    for (sql, word) in [
        ("UPDATE nodes SET hostname = 'evil' WHERE hostname = 'host-7'", "nodes"),
        ("UPDATE nodes SET hostname = CAST(x'ff00fe' AS TEXT) WHERE hostname = 'host-7'", "nodes"),
        ("UPDATE metrics SET value = value + 1 WHERE node = ''", "metrics"),
        ("UPDATE audit SET id = replace(id, '-', '')", "audit"),
        ("UPDATE ghostwire_meta SET serial = 2", "ghostwire_meta"),
        ("UPDATE ghostwire_blocks SET body = zeroblob(400) WHERE serial = 2", "block"),
        ("DELETE FROM ghostwire_blocks WHERE serial = 2", "block"),
        ("DROP TABLE routes", "routes"),
        ("ALTER TABLE routes RENAME COLUMN prefix TO net", "routes"),
        ("PRAGMA user_version = 77", "schema"),
    ] {
        std::fs::write(&path, &whole).unwrap();
        edit(&path, sql).await;
        let error = async {
            let backend = open(&path).await?;
            content(&backend).await?;
            Ok::<_, Error>(())
        };
        let error = error.await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{sql}: {error}");
        assert!(error.to_string().contains(word), "{sql}: {error}");
        assert!(!error.to_string().contains("evil"), "{error}");
    }
}

#[tokio::test]
async fn columns_are_readable_with_plain_sql() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let database = libsql::Builder::new_local(&path).build().await.unwrap();
    let connection = database.connect().unwrap();
    let mut rows = connection
        .query(
            "SELECT id, ipv4, node_key, disco_key, ephemeral, created_at, user, host_info \
             FROM nodes WHERE hostname = 'host-9'",
            (),
        )
        .await
        .unwrap();
    let row = rows.next().await.unwrap().unwrap();
    assert_eq!(row.get::<String>(0).unwrap(), "01010101-0101-0101-0101-010100000009");
    assert_eq!(row.get::<String>(1).unwrap(), "100.64.0.9");
    assert_eq!(row.get::<String>(2).unwrap(), node(9).node_key.to_string());
    assert_eq!(row.get::<Option<String>>(3).unwrap(), None);
    assert_eq!(row.get::<i64>(4).unwrap(), 0);
    assert_eq!(row.get::<i64>(5).unwrap(), at(1).as_micros());
    assert_eq!(row.get::<Option<String>>(6).unwrap(), None);
    assert_eq!(row.get::<String>(7).unwrap(), "{}");
    let mut rows = connection
        .query(
            "SELECT (SELECT count(*) FROM metrics WHERE node = ''), \
             (SELECT serial FROM ghostwire_meta), (SELECT count(*) FROM ghostwire_blocks), \
             (SELECT value FROM metrics WHERE at % 8000000 = 0 LIMIT 1)",
            (),
        )
        .await
        .unwrap();
    let row = rows.next().await.unwrap().unwrap();
    assert_eq!((row.get::<i64>(0).unwrap(), row.get::<i64>(1).unwrap()), (30, 4));
    assert_eq!(row.get::<i64>(2).unwrap(), 4);
}
