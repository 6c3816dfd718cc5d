//! Damage that leaves SQLite's structures and every row sound.

use super::*;

/// Replaces every occurrence; a page keeps bytes of rows that moved.
fn replace(path: &Path, from: &[u8], to: &[u8]) {
    let mut content = std::fs::read(path).unwrap();
    let found: Vec<usize> = content
        .windows(from.len())
        .enumerate()
        .filter_map(|(at, bytes)| (bytes == from).then_some(at))
        .collect();
    assert!(!found.is_empty());
    for at in found {
        content[at..at + to.len()].copy_from_slice(to);
    }
    std::fs::write(path, content).unwrap();
}

fn series(name: &str) -> Scan {
    let from = RowKey::new().optional_id(Some(&bytes(1, 1))).text(name);
    let range = KeyRange { table: Table::Metrics, to: from.clone().after_prefix(), from };
    Scan { range, reverse: false, limit: 1000 }
}

#[tokio::test]
async fn a_row_whose_key_left_its_range_is_missed_there() {
    const POINTS: i64 = 600;
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let head = backend.head().await.unwrap();
    let points = ["aaa", "bbb", "ddd"]
        .into_iter()
        .flat_map(|name| (0..POINTS).map(move |seconds| put(&metric(Some(1), name, seconds))));
    backend.commit(&rows_only(&head, points.collect())).await.unwrap();
    backend.close().await.unwrap();
    // The last point of a series, and the first: the order stays as it is.
    for (seconds, other) in [(POINTS - 1, b"ccc"), (0, b"abb")] {
        let whole = std::fs::read(&path).unwrap();
        let time = at(seconds).as_micros().to_be_bytes();
        let with = |name: &[u8; 3]| [&name[..], &time[..]].concat();
        replace(&path, &with(b"bbb"), &with(other));
        let backend = open(&path).await.unwrap();
        for reverse in [false, true] {
            let scan = Scan { reverse, ..series("bbb") };
            let error = backend.scan(scan).await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "{seconds}: {error}");
        }
        // A page that ends within the series meets one end of it.
        let scan = Scan { limit: 10, reverse: seconds == 0, ..series("bbb") };
        assert_eq!(backend.scan(scan).await.unwrap().rows.len(), 10);
        let untouched = if seconds == 0 { "ddd" } else { "aaa" };
        assert_eq!(backend.scan(series(untouched)).await.unwrap().rows.len(), POINTS as usize);
        backend.close().await.unwrap();
        std::fs::write(&path, whole).unwrap();
    }
}

#[tokio::test]
async fn keys_out_of_order_are_refused_at_open() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let head = backend.head().await.unwrap();
    let points = (0..5_000).map(|seconds| put(&metric(None, "rx", seconds)));
    backend.commit(&rows_only(&head, points.collect())).await.unwrap();
    backend.close().await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    // The first row of each inner page of a table WITHOUT ROWID, moved far back.
    let is_inner = |page: &usize| whole[*page] == 0x02;
    let inner: Vec<usize> = (4096..whole.len()).step_by(4096).filter(is_inner).collect();
    assert!(!inner.is_empty());
    for page in inner {
        let cell = page + usize::from(u16::from_be_bytes([whole[page + 12], whole[page + 13]]));
        let name = whole[cell..].windows(2).position(|bytes| bytes == b"rx").unwrap();
        let mut damaged = whole.clone();
        damaged[cell + name] = b'z';
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(*open(&path).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[tokio::test]
async fn a_log_of_an_earlier_moment_than_the_file_is_refused() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    backend.close().await.unwrap();
    let backend = open(&path).await.unwrap();
    let rename = async |number| {
        let head = backend.head().await.unwrap();
        let user = User { display_name: None, ..user(number) };
        let commit = commit(&head, |block| {
            block.put(ChangeKind::Updated, &user);
        });
        backend.commit(&commit).await.unwrap();
    };
    rename(0).await;
    let log = path.with_extension("db-wal");
    let (earlier, before) = (std::fs::read(&log).unwrap(), content(&backend).await.unwrap());
    rename(1).await;
    backend.close().await.unwrap();
    let file = std::fs::read(&path).unwrap();
    std::fs::write(&log, &earlier).unwrap();
    for read_only in [true, false] {
        let options = LibsqlOptions::new(&path, STORE).read_only(read_only);
        let error = LibsqlBackend::open(options).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    }
    // What is refused is left as it is, and the file alone is whole.
    assert_eq!(std::fs::read(&path).unwrap(), file);
    std::fs::remove_file(&log).unwrap();
    let after = content(&open(&path).await.unwrap()).await.unwrap();
    assert_eq!(after.head.serial, before.head.serial.next());
}

/// What is wrong may be the log: it is not moved before everything was read that loading reads.
#[tokio::test]
async fn a_store_whose_loading_would_fail_keeps_its_log() {
    let (directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    backend.close().await.unwrap();
    let backend = open(&path).await.unwrap();
    let head = backend.head().await.unwrap();
    backend.commit(&rows_only(&head, vec![put(&metric(None, "rx", 1))])).await.unwrap();
    // As a process that was killed leaves it, with a row of the state damaged in the file.
    let left = directory.path().join("left.db");
    let log = directory.path().join("left.db-wal");
    std::fs::copy(&path, &left).unwrap();
    std::fs::copy(path.with_extension("db-wal"), &log).unwrap();
    replace(&left, b"host-77", b"host-7X");
    let before = (std::fs::read(&left).unwrap(), std::fs::read(&log).unwrap());
    for _ in 0..2 {
        let error = open(&left).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        assert!((std::fs::read(&left).unwrap(), std::fs::read(&log).unwrap()) == before);
    }
    replace(&left, b"host-7X", b"host-77");
    open(&left).await.unwrap().verify().await.unwrap();
}
