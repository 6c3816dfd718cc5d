//! Changes of the keys that fail, and counts of what is sealed under which that are wrong.

use ghostwire_store_crypto::keyring::{Expected, Rotation, Unlock};

use super::*;
use crate::resealing::{Counts, Cursor, Resealing, Stage};

struct Site {
    _directory: tempfile::TempDir,
    path: std::path::PathBuf,
    root: Identity,
    first: Keyring,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let root = Identity::draw(&SystemRandom).unwrap();
        let recipient = root.recipient().clone();
        let drawn = Keyring::first([1; 16], recipient, None, 0, &SystemRandom).unwrap();
        let first = written(&root, &drawn);
        Self { _directory: directory, path, root, first }
    }

    fn rotated(&self, reason: Rotation) -> Keyring {
        written(&self.root, &self.first.rotate(reason, 0, &SystemRandom).unwrap())
    }

    fn finished(&self, rotating: &Keyring) -> Keyring {
        written(&self.root, &rotating.finish_rotation().unwrap())
    }

    fn options(&self, keyring: &Keyring) -> ZqliteOptions {
        let pin = PinOptions::file(self.path.with_file_name("pin")).same_device(true);
        compacting(&self.path).sealed(keyring.clone()).pin(PinChoice::Commit(pin))
    }

    async fn open(&self, keyring: &Keyring) -> ZqliteBackend {
        ZqliteBackend::open(self.options(keyring)).await.unwrap()
    }

    /// With some rows, flushed and signed.
    async fn filled(&self) -> ZqliteBackend {
        let backend = self.open(&self.first).await;
        for round in 0..20 {
            let rows = vec![put(Table::Users, round, b"a"), put(Table::Metrics, round, b"b")];
            backend.commit(&Commit { rows, ..Commit::default() }).await.unwrap();
        }
        backend.confirm().await.unwrap();
        backend
    }
}

fn written(root: &Identity, keyring: &Keyring) -> Keyring {
    let file = keyring.seal(&SystemRandom).unwrap();
    Keyring::open(&file, Unlock::Identity(root), &Expected::default()).unwrap()
}

fn stored(backend: &ZqliteBackend) -> Stored {
    backend.0.status().unwrap().stored
}

async fn commit(backend: &ZqliteBackend, number: u8) {
    let rows = vec![put(Table::Users, number, b"c")];
    backend.commit(&Commit { rows, ..Commit::default() }).await.unwrap();
    backend.confirm().await.unwrap();
}

async fn reseal(backend: &ZqliteBackend) {
    while backend.maintain(Budget::default()).await.unwrap() {}
}

#[tokio::test]
async fn keys_whose_commit_is_not_known_to_be_stored_are_in_force_after_all() {
    for reason in [Rotation::Routine, Rotation::Leaked] {
        for stores in [false, true] {
            let site = Site::new();
            let backend = site.filled().await;
            let rotating = site.rotated(reason);
            backend.make_forgetful(stores);
            // Nobody writes for long, so it has to find out by itself where it stands.
            backend.take_up(rotating.clone()).await.unwrap();
            backend.take_up(site.finished(&rotating)).await.unwrap();
            reseal(&backend).await;
            commit(&backend, 30).await;
            assert_eq!(stored(&backend).resealing.counts.single(), Some(2));
            backend.verify().await.unwrap();
            backend.close().await.unwrap();
            site.open(&site.finished(&rotating)).await.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn keys_whose_commit_is_surely_not_stored_leave_everything_as_it_was() {
    for reason in [Rotation::Routine, Rotation::Leaked] {
        let site = Site::new();
        let backend = site.filled().await;
        let before = stored(&backend);
        backend.make_failing(ErrorKind::Exhausted);
        let error = backend.take_up(site.rotated(reason)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Exhausted, "{error}");
        assert_eq!(stored(&backend), before);
        // Its marks are by the key from before again.
        backend.reopen().await.unwrap();
        commit(&backend, 30).await;
        backend.close().await.unwrap();
        let report = ZqliteBackend::compare_with_pin(site.options(&site.first)).await.unwrap();
        assert_eq!(report.verdict, "equal");
        site.open(&site.first).await.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_known_of_records_from_before_a_leak_goes_with_the_last_of_them() {
    let site = Site::new();
    let backend = site.filled().await;
    let rotating = site.rotated(Rotation::Leaked);
    backend.take_up(rotating.clone()).await.unwrap();
    backend.take_up(site.finished(&rotating)).await.unwrap();
    let knows = || {
        let open = backend.0.open.read().unwrap();
        !open.as_ref().unwrap().envelope.contents().unwrap().is_empty()
    };
    commit(&backend, 30).await;
    assert!(knows());
    reseal(&backend).await;
    let commit = |number| {
        let rows = vec![put(Table::Users, number, b"d")];
        backend.0.commit(&Commit { rows, ..Commit::default() }).unwrap();
    };
    // Who reads may have begun before.
    let reads = backend.0.open.read().unwrap();
    commit(31);
    drop(reads);
    assert!(knows());
    commit(32);
    assert!(!knows());
    backend.verify().await.unwrap();
}

#[tokio::test]
async fn what_stands_beside_the_head_is_sealed_anew_with_the_last_record() {
    let site = Site::new();
    let backend = site.filled().await;
    let rotating = site.rotated(Rotation::Routine);
    backend.take_up(rotating.clone()).await.unwrap();
    let finished = site.finished(&rotating);
    backend.take_up(finished.clone()).await.unwrap();
    commit(&backend, 30).await;
    reseal(&backend).await;
    let is_signed = {
        let open = backend.0.open.read().unwrap();
        let open: &Open = open.as_ref().unwrap();
        open.is_signed(&stored(&backend)).unwrap()
    };
    assert!(is_signed);
    // Nothing names the version before, without closing the store first.
    let destroyed = written(&site.root, &finished.destroy(1).unwrap());
    backend.take_up(destroyed.clone()).await.unwrap();
    drop(backend);
    site.open(&destroyed).await.close().await.unwrap();
}

fn with_counts(backend: &ZqliteBackend, resealing: Resealing) {
    let open = backend.0.open.read().unwrap();
    let open: &Open = open.as_ref().unwrap();
    let stored = stored(backend);
    let wrong = Stored { resealing, ..stored.moved_to(stored.head) };
    open.write_head(&wrong).unwrap();
    backend.0.set_stored(wrong);
}

#[tokio::test]
async fn counts_that_are_wrong_are_made_anew_and_everything_is_sealed_anew() {
    let site = Site::new();
    let backend = site.filled().await;
    let rotating = site.rotated(Rotation::Routine);
    backend.take_up(rotating.clone()).await.unwrap();
    let finished = site.finished(&rotating);
    backend.take_up(finished.clone()).await.unwrap();
    let right = stored(&backend).resealing;
    // One too many under the version before, so that it seems never to be done with.
    let mut counts = right.counts;
    counts.add(1);
    with_counts(&backend, Resealing { counts, ..right });
    reseal(&backend).await;
    let now = stored(&backend);
    assert_eq!(now.resealing.counts, Counts::only(2, now.records()));
    backend.require_unused(1).await.unwrap();
    // It was passed and is under the version before all the same.
    let cursor = Cursor { stage: Stage::Done, number: 0 };
    let mut counts = now.resealing.counts;
    counts.take(2);
    counts.add(1);
    with_counts(&backend, Resealing { counts, cursor, ..now.resealing });
    // Once was enough: it does not go round in circles.
    reseal(&backend).await;
    drop(backend);
    // A total that is wrong shows when it is opened.
    let backend = site.open(&finished).await;
    with_counts(&backend, Resealing { counts: Counts::only(2, 3), ..Resealing::default() });
    drop(backend);
    let backend = site.open(&finished).await;
    let now = stored(&backend);
    assert_eq!(now.resealing.counts, Counts::only(2, now.records()));
    reseal(&backend).await;
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
}

/// It keeps nobody from anything but following from one signer to the next.
#[tokio::test]
async fn former_signers_that_cannot_be_read_do_not_keep_a_key_that_leaked_in_force() {
    let site = Site::new();
    site.filled().await.close().await.unwrap();
    let file = rusqlite::Connection::open(&site.path).unwrap();
    let record = [&[2][..], &[0; 60]].concat();
    file.execute("INSERT INTO meta(id,body) VALUES(3,?1)", [record]).unwrap();
    drop(file);
    let backend = site.open(&site.first).await;
    let error = backend.verify().await.unwrap_err();
    assert!(error.to_string().contains("record=signature"), "{error}");
    let rotating = site.rotated(Rotation::Leaked);
    backend.take_up(rotating.clone()).await.unwrap();
    backend.take_up(site.finished(&rotating)).await.unwrap();
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
}
