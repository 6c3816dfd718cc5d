//! A disk that is full in earnest: a small file system in memory. Mounting one takes rights that an
//! ordinary user does not have. Who has none says so in `GHOSTWIRE_CONFORMANCE_SKIP`; the simulated
//! disk of `backend-faults` shows the same everywhere.
#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod stores;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use ghostwire_store_core::domain::{MetricName, MetricPoint, Sample, Timestamp, WriterId};
use ghostwire_store_core::error::{ErrorKind, Result};
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::{Store, open};
use ghostwire_store_libsql::prepare_process;
use ghostwire_store_sqlite::LogLimits;
use stores::{BACKENDS, backend, compact, create_user};

/// A mounted file system of this many MiB.
struct SmallDisk(tempfile::TempDir, usize);

impl SmallDisk {
    fn mount(mebibytes: usize) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let size = format!("size={mebibytes}m");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path());
        let status = mount.stderr(Stdio::null()).status().ok()?;
        status.success().then(|| Self(directory, mebibytes))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    async fn open(&self, name: &str) -> Arc<dyn Store> {
        let backend = backend(name, &self.path("store.db"), LogLimits::default()).await.unwrap();
        open(backend, StoreOptions::default()).await.unwrap()
    }

    /// Leaves no room to anybody.
    fn fill(&self) {
        let _ = std::fs::write(self.path("ballast"), vec![1; self.1 << 20]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // If somebody still uses the directory, a mount is left behind, and the test is not wrong.
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// What may be skipped here, by name: as for cases, what is skipped unasked fails.
const SKIP: &str = "GHOSTWIRE_CONFORMANCE_SKIP";

/// A disk for each backend, by the backend's name, unless none can be had here and that is allowed.
async fn small_disks(mebibytes: usize) -> Vec<(&'static str, SmallDisk)> {
    prepare_process().await.unwrap();
    let disks = BACKENDS.map(|name| Some((name, SmallDisk::mount(mebibytes)?)));
    let mounted: Vec<_> = disks.into_iter().flatten().collect();
    if mounted.len() < BACKENDS.len() {
        let allowed = std::env::var(SKIP);
        assert!(
            allowed.is_ok_and(|names| names.split(',').any(|name| name == "full-disk")),
            "no file system can be mounted here; run this as root, or with {SKIP}=full-disk"
        );
        eprintln!("skipped: no file system can be mounted here, and {SKIP} allows that");
        return Vec::new();
    }
    mounted
}

fn assert_full<T: std::fmt::Debug>(name: &str, outcome: Result<T>) {
    let error = outcome.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Exhausted, "{name}: {error:?}");
}

/// Writes by increasing numbers until the disk is full. Gives the number that found no room.
async fn until_full(name: &str, from: u32, write: impl AsyncFn(u32) -> Result<()>) -> u32 {
    for number in from..20_000 {
        if let Err(error) = write(number).await {
            assert_full(name, Err::<(), _>(error));
            return number;
        }
    }
    panic!("{name}: the disk is never full");
}

/// Removes the oldest points in ten steps, each of which fits into the room that is kept, up to this
/// batch.
async fn prune_in_steps(name: &str, store: &dyn Store, to: i64) {
    for step in 1..=10 {
        let before = Timestamp::from_secs(to * 100 * step).unwrap();
        let pruned = store.metrics().prune(before).await;
        pruned.unwrap_or_else(|error| panic!("{name}, step {step}: {error:?}"));
    }
}

/// A copy needs room; without it the store stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn compacting_without_room_changes_nothing() {
    for (name, disk) in small_disks(16).await {
        let store = disk.open(name).await;
        for number in 0..200 {
            create_user(&*store, number).await.unwrap();
        }
        let digests = store.digests().await.unwrap();
        store.close().await.unwrap();
        let path = disk.path("store.db");
        let before = std::fs::read(&path).unwrap();
        // So small a disk has no room to set aside.
        assert!(!disk.path("store.db.reserve").exists());
        let taken = (16 << 20) - before.len() * 3 / 2;
        std::fs::write(disk.path("ballast"), vec![1; taken]).unwrap();
        assert_full(name, compact(name, &path).await);
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::remove_file(disk.path("ballast")).unwrap();
        compact(name, &path).await.unwrap();
        let store = disk.open(name).await;
        assert_eq!(store.digests().await.unwrap(), digests);
        store.close().await.unwrap();
    }
}

fn points(batch: u32) -> Vec<MetricPoint> {
    let point = |number: u32| MetricPoint {
        node: None,
        metric: MetricName::new("rx_bytes_total").unwrap(),
        at: Timestamp::from_secs(i64::from(batch) * 1_000 + i64::from(number)).unwrap(),
        value: Sample::new(f64::from(number) * 0.37).unwrap(),
    };
    (0..1_000).map(point).collect()
}

/// Nothing but retention makes room, and the disk stays as full as it is.
#[tokio::test(flavor = "multi_thread")]
async fn retention_relieves_a_full_disk() {
    for (name, disk) in small_disks(24).await {
        let store = disk.open(name).await;
        create_user(&*store, 0).await.unwrap();
        let writer = WriterId::from_bytes([9; 16]);
        let record = async |batch: u32| {
            store.metrics().record_batch(writer, batch.into(), points(batch)).await
        };
        let batch = until_full(name, 1, &record).await;
        assert_full(name, record(batch).await);
        disk.fill();
        prune_in_steps(name, &*store, i64::from(batch) / 2).await;
        for more in batch..batch + batch / 4 {
            let stored = record(more).await;
            stored.unwrap_or_else(|error| panic!("{name}, {more} of {batch}: {error:?}"));
        }
        store.verify().await.unwrap();
        std::fs::remove_file(disk.path("ballast")).unwrap();
        store.close().await.unwrap();
        let store = disk.open(name).await;
        assert_eq!(store.view().users().len(), 1);
        store.close().await.unwrap();
    }
}

/// Bytes of the store's file and its log.
fn bytes(disk: &SmallDisk) -> u64 {
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
    length(&disk.path("store.db")) + length(&disk.path("store.db-wal"))
}

/// Blocks that cannot be flushed for want of room are in nobody's way, and use up no kept room.
#[tokio::test(flavor = "multi_thread")]
async fn retention_relieves_a_disk_that_is_full_of_blocks() {
    for (name, disk) in small_disks(24).await {
        let store = disk.open(name).await;
        let mut batches = 0;
        while bytes(&disk) < 12 << 20 {
            batches += 1;
            store.metrics().record_many(points(batches)).await.unwrap();
        }
        let users = until_full(name, 0, async |number| create_user(&*store, number).await).await;
        assert_full(name, store.checkpoint().await);
        disk.fill();
        prune_in_steps(name, &*store, i64::from(batches) + 1).await;
        for more in users..users + 50 {
            let created = create_user(&*store, more).await;
            created.unwrap_or_else(|error| panic!("{name}, {more}: {error:?}"));
        }
        // Whether there is room by now to flush all of it does not matter here.
        let _ = store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_once_there_is_room() {
    for (name, disk) in small_disks(6).await {
        std::fs::write(disk.path("ballast"), vec![1; 4 << 20]).unwrap();
        let store = disk.open(name).await;
        let stored = until_full(name, 0, async |number| create_user(&*store, number).await).await;
        assert!(stored > 50, "{name}: {stored}");
        for again in 0..5 {
            assert_full(name, create_user(&*store, 20_000 + again).await);
        }
        assert_eq!(store.view().users().len(), stored as usize);
        let digests = store.digests().await.unwrap();

        std::fs::remove_file(disk.path("ballast")).unwrap();
        for number in stored..stored + 20 {
            create_user(&*store, number).await.unwrap();
        }
        assert_ne!(store.digests().await.unwrap(), digests);
        let digests = store.digests().await.unwrap();
        store.verify().await.unwrap();
        store.close().await.unwrap();
        let store = disk.open(name).await;
        assert_eq!(store.digests().await.unwrap(), digests);
        assert_eq!(store.view().users().len(), stored as usize + 20);
        store.close().await.unwrap();
    }
}
