//! A disk that is full in earnest: a small file system in memory. Mounting one takes rights that an
//! ordinary user does not have. Who has none says so in `GHOSTWIRE_CONFORMANCE_SKIP`; the simulated
//! disk of `backend-faults` shows the same everywhere.
#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::domain::{
    MetricName, MetricPoint, NewUser, Sample, StoreId, Timestamp, WriterId,
};
use ghostwire_store_core::error::{ErrorKind, Result};
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::{Store, open};
use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions, prepare_process};
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};

struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let size = format!("size={size}");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path());
        let status = mount.stderr(Stdio::null()).status().ok()?;
        status.success().then(|| Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A directory in use by nobody; if this fails, a mount is left behind and the test is not
        // wrong.
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// What may be skipped here, by name: as for cases, what is skipped unasked fails.
const SKIP: &str = "GHOSTWIRE_CONFORMANCE_SKIP";

/// Whether a file system that cannot be mounted is to be expected.
fn may_be_skipped() -> bool {
    std::env::var(SKIP).is_ok_and(|names| names.split(',').any(|name| name == "full-disk"))
}

const STORE: StoreId = StoreId::from_bytes([7; 16]);

async fn backend(name: &str, directory: &Path) -> Result<Arc<dyn Backend>> {
    let path = directory.join("store.db");
    Ok(match name {
        "libsql" => {
            Arc::new(LibsqlBackend::open(LibsqlOptions::new(path, STORE).create(true)).await?)
        }
        _ => Arc::new(ZqliteBackend::open(ZqliteOptions::new(path, STORE).create(true)).await?),
    })
}

async fn create_user(store: &dyn Store, number: u32) -> Result<()> {
    let mut user = NewUser::local(format!("user-{number}").parse()?);
    user.picture_url = Some("x".repeat(2000).parse()?);
    store.users().create(user).await.map(|_| ())
}

/// A disk, unless none can be had here and that is allowed.
fn small_disk(size: &str) -> Option<SmallDisk> {
    let disk = SmallDisk::mount(size);
    if disk.is_none() {
        assert!(
            may_be_skipped(),
            "no file system can be mounted here; run this as root, or with {SKIP}=full-disk"
        );
        eprintln!("skipped: no file system can be mounted here, and {SKIP} allows that");
    }
    disk
}

/// A copy needs room; without it the store stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn compacting_without_room_changes_nothing() {
    prepare_process().await.unwrap();
    for name in ["libsql", "zqlite"] {
        let Some(disk) = small_disk("16m") else { return };
        let directory = disk.0.path();
        let store =
            open(backend(name, directory).await.unwrap(), StoreOptions::default()).await.unwrap();
        for number in 0..200 {
            create_user(store.as_ref(), number).await.unwrap();
        }
        let digests = store.digests().await.unwrap();
        store.close().await.unwrap();
        let path = directory.join("store.db");
        let before = std::fs::read(&path).unwrap();
        let ballast = directory.join("ballast");
        // So small a disk has no room to set aside.
        assert!(!directory.join("store.db.reserve").exists());
        let taken = (16 << 20) - before.len() * 3 / 2;
        std::fs::write(&ballast, vec![1; taken]).unwrap();
        let compact = || async {
            match name {
                "libsql" => LibsqlBackend::compact(LibsqlOptions::new(&path, STORE)).await,
                _ => ZqliteBackend::compact(ZqliteOptions::new(&path, STORE)).await,
            }
        };
        let error = compact().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Exhausted, "{name}: {error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::remove_file(&ballast).unwrap();
        compact().await.unwrap();
        let store =
            open(backend(name, directory).await.unwrap(), StoreOptions::default()).await.unwrap();
        assert_eq!(store.digests().await.unwrap(), digests);
        store.close().await.unwrap();
    }
}

fn points(batch: i64) -> Vec<MetricPoint> {
    let point = |number: i64| MetricPoint {
        node: None,
        metric: MetricName::new("rx_bytes_total").unwrap(),
        at: Timestamp::from_secs(batch * 1_000 + number).unwrap(),
        value: Sample::new(number as f64 * 0.37).unwrap(),
    };
    (0..1_000).map(point).collect()
}

/// Nothing but retention makes room, and the disk stays as full as it is.
#[tokio::test(flavor = "multi_thread")]
async fn retention_relieves_a_full_disk() {
    prepare_process().await.unwrap();
    for name in ["libsql", "zqlite"] {
        let Some(disk) = small_disk("24m") else { return };
        let directory = disk.0.path();
        let store =
            open(backend(name, directory).await.unwrap(), StoreOptions::default()).await.unwrap();
        create_user(store.as_ref(), 0).await.unwrap();
        let writer = WriterId::from_bytes([9; 16]);
        let record = |batch: i64| {
            let metrics = store.metrics();
            async move { metrics.record_batch(writer, batch.cast_unsigned(), points(batch)).await }
        };
        let mut batch = 1;
        let error = loop {
            match record(batch).await {
                Ok(()) => batch += 1,
                Err(error) => break error,
            }
            assert!(batch < 10_000, "{name}: the disk is never full");
        };
        assert_eq!(*error.kind(), ErrorKind::Exhausted, "{name}: {error:?}");
        let error = record(batch).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Exhausted, "{name}: {error:?}");
        let ballast = directory.join("ballast");
        // Nobody else has left anything either.
        let _ = std::fs::write(&ballast, vec![1; 24 << 20]);
        // In steps, so that each fits into the room that is kept.
        for step in 1..=10 {
            let before = Timestamp::from_secs(batch * 1_000 * step / 20).unwrap();
            let pruned = store.metrics().prune(before).await;
            pruned.unwrap_or_else(|error| panic!("{name}, step {step}: {error:?}"));
        }
        for more in batch..batch + batch / 4 {
            let stored = record(more).await;
            stored.unwrap_or_else(|error| panic!("{name}, {more} of {batch}: {error:?}"));
        }
        store.verify().await.unwrap();
        std::fs::remove_file(&ballast).unwrap();
        store.close().await.unwrap();
        let store =
            open(backend(name, directory).await.unwrap(), StoreOptions::default()).await.unwrap();
        assert_eq!(store.view().users().len(), 1);
        store.close().await.unwrap();
    }
}

/// Bytes of the store's file and its log.
fn bytes(directory: &Path) -> u64 {
    let length = |name| std::fs::metadata(directory.join(name)).map_or(0, |found| found.len());
    length("store.db") + length("store.db-wal")
}

/// Blocks that cannot be folded for want of room are in nobody's way, and use up no kept room.
#[tokio::test(flavor = "multi_thread")]
async fn retention_relieves_a_disk_that_is_full_of_blocks() {
    prepare_process().await.unwrap();
    for name in ["libsql", "zqlite"] {
        let Some(disk) = small_disk("24m") else { return };
        let directory = disk.0.path();
        let store =
            open(backend(name, directory).await.unwrap(), StoreOptions::default()).await.unwrap();
        let mut batches = 0;
        while bytes(directory) < 12 << 20 {
            batches += 1;
            store.metrics().record_many(points(batches)).await.unwrap();
        }
        let mut users = 0;
        let error = loop {
            match create_user(store.as_ref(), users).await {
                Ok(()) => users += 1,
                Err(error) => break error,
            }
            assert!(users < 20_000, "{name}: the disk is never full");
        };
        assert_eq!(*error.kind(), ErrorKind::Exhausted, "{name}: {error:?}");
        let error = store.checkpoint().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Exhausted, "{name}: {error:?}");
        // Nobody else has left anything either.
        let _ = std::fs::write(directory.join("ballast"), vec![1; 24 << 20]);
        for step in 1..=10 {
            let before = Timestamp::from_secs((batches + 1) * 1_000 * step / 10).unwrap();
            let pruned = store.metrics().prune(before).await;
            pruned.unwrap_or_else(|error| panic!("{name}, step {step}: {error:?}"));
        }
        for more in users..users + 50 {
            let created = create_user(store.as_ref(), more).await;
            created.unwrap_or_else(|error| panic!("{name}, {more}: {error:?}"));
        }
        // Whether there is room by now to fold all of it does not matter here.
        let _ = store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_once_there_is_room() {
    prepare_process().await.unwrap();
    for name in ["libsql", "zqlite"] {
        let Some(disk) = small_disk("6m") else { return };
        let directory = disk.0.path();
        let ballast = directory.join("ballast");
        std::fs::write(&ballast, vec![1; 4 << 20]).unwrap();
        let store =
            open(backend(name, directory).await.unwrap(), StoreOptions::default()).await.unwrap();
        let mut stored = 0;
        let error = loop {
            match create_user(store.as_ref(), stored).await {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
            assert!(stored < 10_000, "{name}: the disk is never full");
        };
        assert_eq!(*error.kind(), ErrorKind::Exhausted, "{name}: {error:?}");
        assert!(stored > 50, "{name}: {stored}");
        for again in 0..5 {
            let error = create_user(store.as_ref(), 20_000 + again).await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Exhausted, "{name}: {error:?}");
        }
        assert_eq!(store.view().users().len(), stored as usize);
        let digests = store.digests().await.unwrap();

        std::fs::remove_file(&ballast).unwrap();
        for number in stored..stored + 20 {
            create_user(store.as_ref(), number).await.unwrap();
        }
        assert_ne!(store.digests().await.unwrap(), digests);
        let digests = store.digests().await.unwrap();
        store.verify().await.unwrap();
        store.close().await.unwrap();
        let store =
            open(backend(name, directory).await.unwrap(), StoreOptions::default()).await.unwrap();
        assert_eq!(store.digests().await.unwrap(), digests);
        assert_eq!(store.view().users().len(), stored as usize + 20);
        store.close().await.unwrap();
    }
}
