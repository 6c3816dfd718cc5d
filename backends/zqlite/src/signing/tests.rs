//! What is signed, and when; and that nothing but that is taken for it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::block::{BlockBuilder, ChangeKind, RowChange};
use ghostwire_store_core::domain::{BlockId, StoreId, Timestamp};
use ghostwire_store_core::schema::{RowKey, Table};
use ghostwire_store_crypto::keyring::{Expected, Identity, Keyring, Rotation, Unlock};
use ghostwire_store_crypto::pin::{FilePin, Mark, Pin, PinKey};
use ghostwire_store_crypto::signature::{Purpose, SignerId};
use ghostwire_store_crypto::{Error as CryptoError, SystemRandom};
use tempfile::TempDir;

use super::*;
use crate::open::Open;
use crate::{PinChoice, PinOptions, ZqliteBackend, ZqliteOptions};

const STORE: [u8; 16] = [1; 16];
/// Of a head of the build before signatures.
const UNSIGNED_HEAD: usize = 425;

static ROOT: LazyLock<Identity> = LazyLock::new(|| Identity::draw(&SystemRandom).unwrap());

static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
    let root = ROOT.recipient().clone();
    written(&Keyring::first(STORE, root, None, 0, &SystemRandom).unwrap())
});

fn written(keyring: &Keyring) -> Keyring {
    let file = keyring.seal(&SystemRandom).unwrap();
    Keyring::open(&file, Unlock::Identity(&ROOT), &Expected::default()).unwrap()
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    (directory, path)
}

fn plain(path: &Path) -> ZqliteOptions {
    ZqliteOptions::new(path, StoreId::from_bytes(STORE)).create(true)
}

fn sealed(path: &Path) -> ZqliteOptions {
    plain(path).sealed(KEYRING.clone())
}

async fn open(path: &Path) -> ZqliteBackend {
    ZqliteBackend::open(sealed(path)).await.unwrap()
}

/// A block with rows of the state and of a series, which becomes the checkpoint or does not.
async fn commit(backend: &ZqliteBackend, is_checkpoint: bool) {
    let head = backend.head().await.unwrap();
    let serial = head.serial.next();
    let mut id = [1; 16];
    id[..8].copy_from_slice(&serial.get().to_be_bytes());
    let time = Timestamp::from_micros(i64::try_from(serial.get()).unwrap()).unwrap();
    let block = BlockBuilder::default();
    let block = block.finish(serial, BlockId::from_bytes(id), head.hash, time).unwrap().block;
    let row = |table, number: u64| RowChange {
        table,
        kind: ChangeKind::Updated,
        key: RowKey::new().id(&[7; 16]).integer(i64::try_from(number).unwrap()),
        body: Some(bytes::Bytes::from_static(b"body")),
    };
    let rows = vec![row(Table::Users, serial.get()), row(Table::Metrics, serial.get())];
    let checkpoint = is_checkpoint.then_some(serial);
    let commit = Commit { block: Some(block), rows, checkpoint, ..Commit::on(&head) };
    backend.commit(&commit).await.unwrap();
}

fn stored(backend: &ZqliteBackend) -> Stored {
    backend.0.status().unwrap().stored
}

/// The newest signature record, opened.
fn record(backend: &ZqliteBackend) -> SignedManifest {
    let signed = stored(backend).signature.unwrap();
    let open = backend.0.open.read().unwrap();
    let open = open.as_ref().unwrap();
    let bytes = open.engine.snapshot().unwrap().beside_head(SIGNATURE).unwrap().unwrap();
    let mut reader = open.envelope.reader();
    let record = SignedManifest::parse(reader.open_signature(signed.number, &bytes).unwrap());
    let record = record.unwrap();
    assert_eq!(record.hash(), signed.hash);
    record
}

fn manifest_of(backend: &ZqliteBackend) -> Manifest {
    let signer = KEYRING.authority().signer(Purpose::Manifest).unwrap();
    record(backend).verify(signer.public()).unwrap().clone()
}

#[tokio::test]
async fn a_checkpoint_and_the_end_are_signed_and_each_signature_names_the_one_before() {
    let (_directory, path) = place();
    let backend = open(&path).await;
    let first = record(&backend);
    assert_eq!(manifest_of(&backend).before, [0; 32]);
    // The newest one stays while nothing is flushed.
    commit(&backend, false).await;
    assert_eq!(record(&backend), first);
    let mut before = first.hash();
    for number in 2..6 {
        commit(&backend, true).await;
        let (stored, manifest) = (stored(&backend), manifest_of(&backend));
        assert_eq!(stored.signature.unwrap().number, number);
        assert_eq!(manifest, super::manifest(&stored, before));
        assert_eq!((manifest.commit, manifest.serial), (number, number));
        assert_eq!((manifest.counts.rows, manifest.counts.journal), (number, number));
        before = record(&backend).hash();
        backend.verify().await.unwrap();
    }
    commit(&backend, false).await;
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    // What came after the last checkpoint was signed at the end, and is not again.
    for _ in 0..2 {
        let backend = open(&path).await;
        let (stored, manifest) = (stored(&backend), manifest_of(&backend));
        assert_eq!((stored.signature.unwrap().number, manifest.commit), (6, stored.commits));
        assert_eq!(manifest.before, before);
        backend.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_plain_store_is_not_signed() {
    let (_directory, path) = place();
    let backend = ZqliteBackend::open(plain(&path)).await.unwrap();
    commit(&backend, true).await;
    assert_eq!(stored(&backend).signature, None);
    backend.close().await.unwrap();
    assert_eq!(rows_of_meta(&path), [1]);
    // Sealed it is, and made plain again it is not.
    ZqliteBackend::seal(sealed(&path)).await.unwrap();
    assert_eq!(rows_of_meta(&path), [1, 2]);
    let backend = open(&path).await;
    assert_eq!(manifest_of(&backend).commit, stored(&backend).commits);
    backend.close().await.unwrap();
    ZqliteBackend::compact(sealed(&path)).await.unwrap();
    open(&path).await.close().await.unwrap();
    ZqliteBackend::unseal(sealed(&path)).await.unwrap();
    assert_eq!(rows_of_meta(&path), [1]);
    let backend = ZqliteBackend::open(plain(&path)).await.unwrap();
    assert_eq!(stored(&backend).signature, None);
}

fn rows_of_meta(path: &Path) -> Vec<i64> {
    let file = rusqlite::Connection::open(path).unwrap();
    let mut statement = file.prepare("SELECT id FROM meta ORDER BY id").unwrap();
    let ids = statement.query_map([], |row| row.get(0)).unwrap();
    ids.collect::<rusqlite::Result<_>>().unwrap()
}

/// Runs a statement on the file of a store that nobody has open.
fn run(path: &Path, statement: &str) {
    let file = rusqlite::Connection::open(path).unwrap();
    assert_eq!(file.execute(statement, []).unwrap(), 1, "{statement}");
    file.close().unwrap();
}

async fn refusal(options: ZqliteOptions) -> String {
    let error = ZqliteBackend::open(options).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_signature_that_is_missing_altered_older_or_too_many_is_refused() {
    let (_directory, path) = place();
    let backend = open(&path).await;
    commit(&backend, true).await;
    backend.close().await.unwrap();
    let older = path.with_file_name("older.db");
    std::fs::copy(&path, &older).unwrap();
    let backend = open(&path).await;
    commit(&backend, true).await;
    backend.close().await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut seen = Vec::new();
    for (statement, words) in [
        ("DELETE FROM meta WHERE id=2".to_owned(), "missing"),
        ("UPDATE meta SET body=zeroblob(10) WHERE id=2".to_owned(), "truncated"),
        (
            "UPDATE meta SET body=CAST(substr(body,1,900)||CASE substr(body,901,1) WHEN x'00' THEN x'01' \
             ELSE x'00' END||substr(body,902) AS BLOB) WHERE id=2"
                .to_owned(),
            "altered",
        ),
        ("UPDATE meta SET body=(SELECT body FROM rows LIMIT 1) WHERE id=2".to_owned(), "altered"),
        (
            format!(
                "UPDATE meta SET body=(SELECT body FROM old.meta WHERE id=2) WHERE id=2 -- {}",
                older.display()
            ),
            "moment",
        ),
    ] {
        std::fs::write(&path, &whole).unwrap();
        if let Some((_, attached)) = statement.split_once(" -- ") {
            let file = rusqlite::Connection::open(&path).unwrap();
            file.execute("ATTACH ?1 AS old", [attached]).unwrap();
            assert_eq!(file.execute(&statement, []).unwrap(), 1);
        } else {
            run(&path, &statement);
        }
        let text = refusal(sealed(&path)).await;
        assert!(text.contains(words) && text.contains("signature"), "{statement}: {text}");
        seen.push(words);
    }
    seen.dedup();
    assert_eq!(seen.len(), 4);
    // One that is put beside a head which knows of none.
    let unsigned = path.with_file_name("unsigned.db");
    earlier_build(&unsigned).await;
    let file = rusqlite::Connection::open(&unsigned).unwrap();
    file.execute("ATTACH ?1 AS old", [older.to_str().unwrap()]).unwrap();
    file.execute("INSERT INTO meta SELECT * FROM old.meta WHERE id=2", []).unwrap();
    file.close().unwrap();
    assert!(refusal(sealed(&unsigned)).await.contains("put back"));
}

/// Writes a head that names a signature over `change`d statements by `signer`, as only somebody could who
/// has the data key and the inventory's.
async fn forge(path: &Path, signer: &Signer, change: impl FnOnce(&mut Manifest)) {
    let backend = open(path).await;
    {
        let open = backend.0.open.read().unwrap();
        let open = open.as_ref().unwrap();
        let stored = stored(&backend);
        let mut after = stored.moved_to(stored.head);
        let Signed { number, hash } = stored.signature.unwrap();
        let mut statement = manifest(&after, hash);
        change(&mut statement);
        let record = SignedManifest::sign(statement, signer).unwrap();
        let mut sealer = open.envelope.sealer(None).unwrap();
        let mut batch = Batch::new(open.stored_head(), Vec::new());
        let content = record.to_bytes();
        sealer.seal(Kind::Signature, number + 1, &[&content], &mut batch.bytes).unwrap();
        let body = 0..batch.bytes.len();
        batch.writes.push(Write::BesideHead { id: SIGNATURE, body });
        after.signature = Some(Signed { number: number + 1, hash: record.hash() });
        batch.head = sealer.seal_head(&after).unwrap();
        open.write(&batch).unwrap();
    }
    drop(backend);
}

#[tokio::test]
async fn a_signature_by_a_stranger_or_over_another_statement_is_refused() {
    let (_directory, path) = place();
    let backend = open(&path).await;
    for is_checkpoint in [true, true, false] {
        commit(&backend, is_checkpoint).await;
    }
    backend.close().await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    let own = KEYRING.authority().signer(Purpose::Manifest).unwrap();
    let again = || std::fs::write(&path, &whole).unwrap();
    let clean = || {
        for suffix in ["-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            let _ = std::fs::remove_file(PathBuf::from(name));
        }
        again();
    };
    // As it is signed it opens.
    forge(&path, &own, |_| {}).await;
    open(&path).await.close().await.unwrap();
    let strangers =
        written(&Keyring::first(STORE, ROOT.recipient().clone(), None, 0, &SystemRandom).unwrap());
    for stranger in [
        strangers.authority().signer(Purpose::Manifest).unwrap(),
        KEYRING.authority().signer(Purpose::Store).unwrap(),
    ] {
        clean();
        forge(&path, &stranger, |_| {}).await;
        assert!(refusal(sealed(&path)).await.contains("other keys"));
    }
    let changes: [(&str, fn(&mut Manifest)); 13] = [
        ("store", |manifest| manifest.store[0] ^= 1),
        ("epoch", |manifest| manifest.epoch += 1),
        ("commit", |manifest| manifest.commit += 1),
        ("serial", |manifest| manifest.serial += 1),
        ("serial", |manifest| manifest.serial -= 1),
        ("block", |manifest| manifest.block[0] ^= 1),
        ("block", |manifest| manifest.block_hash[0] ^= 1),
        ("checkpoint", |manifest| manifest.checkpoint += 1),
        ("checkpoint", |manifest| manifest.checkpoint -= 1),
        ("time", |manifest| manifest.time += 1),
        ("counts", |manifest| manifest.counts.rows += 1),
        ("counts", |manifest| manifest.counts.blocks += 1),
        ("inventory", |manifest| manifest.inventory[0] ^= 1),
    ];
    for (field, change) in changes {
        clean();
        forge(&path, &own, change).await;
        let text = refusal(sealed(&path)).await;
        assert!(text.contains("signed to be") && text.contains(field), "{field}: {text}");
    }
    // An older statement: the block after the one that it names does not follow from it, or it was never
    // of this store.
    let older: [(&str, fn(&mut Manifest)); 4] = [
        ("block", |manifest| {
            (manifest.commit, manifest.serial, manifest.checkpoint) = (2, 2, 2);
        }),
        ("checkpoint", |manifest| {
            (manifest.commit, manifest.checkpoint) = (2, 99);
        }),
        ("time", |manifest| {
            (manifest.commit, manifest.time) = (2, 99);
        }),
        ("epoch", |manifest| {
            (manifest.commit, manifest.epoch) = (2, 99);
        }),
    ];
    for (field, change) in older {
        clean();
        forge(&path, &own, change).await;
        let text = refusal(sealed(&path)).await;
        assert!(text.contains("signed to be") && text.contains(field), "{field}: {text}");
    }
    clean();
    open(&path).await.close().await.unwrap();
}

/// Makes a store as the build before signatures left it.
async fn earlier_build(path: &Path) -> Stored {
    let backend = open(path).await;
    commit(&backend, true).await;
    commit(&backend, false).await;
    let earlier = {
        let open = backend.0.open.read().unwrap();
        let open = open.as_ref().unwrap();
        let stored = stored(&backend);
        let after = Stored { signature: None, ..stored.moved_to(stored.head) };
        let mut sealer = open.envelope.sealer(None).unwrap();
        let head = sealer.seal_shorter_head(&after, UNSIGNED_HEAD).unwrap();
        open.write(&Batch::new(open.stored_head(), head)).unwrap();
        after
    };
    drop(backend);
    run(path, "DELETE FROM meta WHERE id=2");
    earlier
}

#[tokio::test]
async fn a_store_of_the_build_before_is_read_and_signed_when_it_is_opened_to_write() {
    let (_directory, path) = place();
    let earlier = earlier_build(&path).await;
    let content = std::fs::read(&path).unwrap();
    let reading = ZqliteBackend::open(sealed(&path).read_only(true)).await.unwrap();
    assert_eq!(stored(&reading), earlier);
    reading.verify().await.unwrap();
    reading.close().await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), content);
    let backend = open(&path).await;
    assert_eq!(stored(&backend).signature.unwrap().number, 1);
    assert_eq!(stored(&backend).head, earlier.head);
    assert_eq!(manifest_of(&backend).commit, earlier.commits + 1);
    backend.verify().await.unwrap();
    commit(&backend, true).await;
    backend.close().await.unwrap();
    open(&path).await.close().await.unwrap();
}

fn pinned(path: &Path) -> ZqliteOptions {
    let pin = PinOptions::file(path.with_file_name("pin")).same_device(true);
    sealed(path).pin(PinChoice::Commit(pin))
}

fn key() -> PinKey {
    PinKey::new(KEYRING.authority())
}

fn mark(path: &Path) -> Mark {
    FilePin::look(&path.with_file_name("pin"), &key()).unwrap().unwrap()
}

/// A pin that holds this mark and no other.
fn put(path: &Path, mark: &Mark) {
    let pin = path.with_file_name("pin");
    let _ = std::fs::remove_file(&pin);
    FilePin::create(&pin, key()).unwrap().advance(None, mark).unwrap();
}

fn signer() -> SignerId {
    KEYRING.authority().signer(Purpose::Manifest).unwrap().public().id()
}

#[tokio::test]
async fn a_pin_names_the_signer_and_one_of_before_is_accepted_once() {
    let (_directory, path) = place();
    let earlier = earlier_build(&path).await;
    // As that build left the pin.
    let head = {
        let file = rusqlite::Connection::open(&path).unwrap();
        let head = file.query_row("SELECT body FROM meta", [], |row| row.get::<_, Vec<u8>>(0));
        head.unwrap()
    };
    let unsigned = Mark {
        store: STORE,
        epoch: 0,
        commit: earlier.commits,
        serial: earlier.head.serial.get(),
        head: Mark::head(&head),
        anchor: key().anchor(earlier.head.hash.as_bytes()),
        signer: SignerId::NONE,
    };
    put(&path, &unsigned);
    let report = ZqliteBackend::compare_with_pin(pinned(&path)).await.unwrap();
    assert_eq!(report.verdict, "equal");
    let backend = ZqliteBackend::open(pinned(&path)).await.unwrap();
    assert_eq!(stored(&backend).signature.unwrap().number, 1);
    backend.close().await.unwrap();
    let advanced = mark(&path);
    assert_eq!(advanced.signer, signer());
    assert!(advanced.commit > unsigned.commit);
    let backend = ZqliteBackend::open(pinned(&path)).await.unwrap();
    assert_eq!(advanced.commit, stored(&backend).commits);
    commit(&backend, true).await;
    backend.confirm().await.unwrap();
    backend.close().await.unwrap();
    let last = mark(&path);
    ZqliteBackend::open(pinned(&path)).await.unwrap().close().await.unwrap();
    assert_eq!(mark(&path), last);
    // From then on it is not: such a mark is an older one.
    for strange in [SignerId::NONE, SignerId::from_bytes([9; 32])] {
        put(&path, &Mark { signer: strange, ..last });
        for options in [pinned(&path), pinned(&path).read_only(true)] {
            let text = refusal(options).await;
            assert!(text.contains("other keys signed"), "{text}");
        }
        let report = ZqliteBackend::compare_with_pin(pinned(&path)).await.unwrap();
        assert_eq!(report.verdict, "other signer");
    }
    put(&path, &last);
    ZqliteBackend::open(pinned(&path)).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn while_a_rotation_is_under_way_the_signature_before_it_holds() {
    let (_directory, path) = place();
    let backend = open(&path).await;
    commit(&backend, true).await;
    backend.close().await.unwrap();
    let before = std::fs::read(&path).unwrap();
    let rotated = written(&KEYRING.rotate(Rotation::Leaked, 0, &SystemRandom).unwrap());
    let with = |keyring: &Keyring| plain(&path).sealed(keyring.clone());
    let reading = ZqliteBackend::open(with(&rotated).read_only(true)).await.unwrap();
    reading.verify().await.unwrap();
    reading.close().await.unwrap();
    // Opened to write, it is signed by the new keys, and the old ones are remembered.
    let backend = ZqliteBackend::open(with(&rotated)).await.unwrap();
    let new = rotated.authority().signer(Purpose::Manifest).unwrap();
    record(&backend).verify(new.public()).unwrap();
    let former = |backend: &ZqliteBackend| {
        let open = backend.0.open.read().unwrap();
        let open: &Open = open.as_ref().unwrap();
        former_signers(&mut *open.engine.snapshot().unwrap(), &open.envelope).unwrap()
    };
    let first = former(&backend);
    commit(&backend, true).await;
    let former = former(&backend);
    assert_eq!(first, former);
    assert_eq!(former.follow(signer(), new.public()).unwrap(), 1);
    backend.close().await.unwrap();
    let finished = written(&rotated.finish_rotation().unwrap());
    let backend = ZqliteBackend::open(with(&finished)).await.unwrap();
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    // The old signature does not outlive the rotation: neither does the old head.
    std::fs::write(&path, before).unwrap();
    assert!(refusal(with(&finished)).await.contains("given up"));
    let unknown = former.follow(SignerId::NONE, new.public());
    assert!(matches!(unknown, Err(CryptoError::Unsigned { .. })));
}

#[test]
fn a_record_under_a_version_that_has_none_left_is_refused() {
    use ghostwire_store_core::schema::Schema;

    use crate::resealing::Counts;

    let envelope = |keyring: &Keyring| {
        Envelope::new(Some(keyring)).unwrap().of_database(SideId::from_bytes(STORE))
    };
    let (mut record, leaked) = (Vec::new(), envelope(&KEYRING));
    let tag = leaked.sealer(None).unwrap().seal(Kind::Row, 1, &[b"a row"], &mut record).unwrap();
    let rotated = written(&KEYRING.rotate(Rotation::Leaked, 0, &SystemRandom).unwrap());
    let envelope = envelope(&rotated);
    let mut stored = Stored::empty(StoreId::from_bytes(STORE), Schema::current());
    let open = |stored: &Stored| {
        let mut reader = envelope.reader_of(stored);
        reader.open_current(Kind::Row, 1, tag, &record).map(<[u8]>::to_vec)
    };
    // Whoever has the leaked key can give a record any tag, that of the current one included.
    stored.resealing.counts = Counts::only(2, 1);
    let error = open(&stored).unwrap_err();
    assert!(error.to_string().contains("none left"), "{error}");
    stored.resealing.counts.add(1);
    assert_eq!(open(&stored).unwrap(), b"a row");
}

#[tokio::test]
async fn an_altered_or_foreign_record_beside_the_head_is_refused() {
    for foreign in [3, 4] {
        let (_directory, path) = place();
        open(&path).await.close().await.unwrap();
        let file = rusqlite::Connection::open(&path).unwrap();
        let record = [&[2][..], &[0; 60]].concat();
        file.execute("INSERT INTO meta(id,body) VALUES(?1,?2)", (foreign, record)).unwrap();
        drop(file);
        let error = match ZqliteBackend::open(sealed(&path)).await {
            // Nothing but following depends on that one.
            Ok(backend) if foreign == 3 => backend.verify().await.unwrap_err(),
            opened => opened.unwrap_err(),
        };
        assert!(error.to_string().contains("record=signature"), "{error}");
    }
}
