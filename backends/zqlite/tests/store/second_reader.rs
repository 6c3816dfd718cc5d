//! The reader in Python, which was written from the documents, reads a whole store that this crate wrote,
//! with its inventory, signature and pin.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use crate::common::*;
use crate::python::reader;
use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::schema::Table;
use ghostwire_store_crypto::SystemRandom;
use ghostwire_store_crypto::keyring::{Expected, Identity, Keyring, Rotation, Unlock};
use ghostwire_store_zqlite::{PinChoice, PinOptions, ZqliteBackend, ZqliteOptions};

#[tokio::test]
async fn a_second_reader_reads_a_whole_store() {
    if reader(&[Path::new("--check")]).is_none() {
        return;
    }
    let (directory, path) = directory();
    let at = |name: &str| directory.path().join(name);
    let identity = Identity::draw(&SystemRandom).unwrap();
    let written = |keyring: &Keyring| {
        let file = keyring.seal(&SystemRandom).unwrap();
        fs::write(at("keyring"), &file).unwrap();
        Keyring::open(&file, Unlock::Identity(&identity), &Expected::default()).unwrap()
    };
    fs::write(at("identity"), identity.to_text().as_bytes()).unwrap();
    let root = identity.recipient().clone();
    let mut keyring = written(&Keyring::first([9; 16], root, None, 0, &SystemRandom).unwrap());
    // Before a leak and after it, so that records are under two versions, and signers follow each other.
    for round in 0..2u32 {
        let options = |keyring: &Keyring| -> ZqliteOptions {
            options(&path).sealed(keyring.clone()).compact_series_early()
        };
        let backend = ZqliteBackend::open(options(&keyring)).await.unwrap();
        for number in 0..30u32 {
            let head = backend.head().await.unwrap();
            let block = block_after(&head, 1_000);
            let first = (round * 30 + number) * 40;
            let metrics = (0..40).map(|point| put(Table::Metrics, first + point, vec![7; 20]));
            let rows = metrics.chain([put(Table::Users, round * 20 + number, "a name")]).collect();
            let checkpoint = number.is_multiple_of(4).then_some(block.serial);
            let purge_before = checkpoint.map(|to| Serial::new(to.get().saturating_sub(9)));
            let commit =
                Commit { block: Some(block), rows, checkpoint, purge_before, ..Commit::on(&head) };
            backend.commit(&commit).await.unwrap();
        }
        backend.close().await.unwrap();
        if round == 0 {
            keyring = written(&keyring.rotate(Rotation::Leaked, 0, &SystemRandom).unwrap());
            ZqliteBackend::open(options(&keyring)).await.unwrap().close().await.unwrap();
            keyring = written(&keyring.finish_rotation().unwrap());
        }
    }
    let pin = PinChoice::Commit(PinOptions::file(at("pin")).same_device(true));
    let wanted = options(&path).sealed(keyring.clone()).pin(pin);
    let backend = ZqliteBackend::open(wanted).await.unwrap();
    let everything = read(&backend).await.unwrap();
    backend.close().await.unwrap();
    let run = || reader(&[&path, &at("keyring"), &at("identity"), &at("pin")]).unwrap();
    let output = run();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = String::from_utf8(output.stdout).unwrap();
    let state = everything.rows.iter().filter(|(table, _)| table.is_state()).count();
    for expected in [
        format!("\"serial\": {}", everything.head.serial),
        format!("\"rows\": {state}"),
        format!("\"blocks\": {}", everything.blocks.len()),
        "\"former_signers\": 1".to_owned(),
        "\"leaked_below\": 2".to_owned(),
    ] {
        assert!(found.contains(&expected), "{expected}: {found}");
    }
    assert!(!found.contains("\"data_blocks\": 0"), "{found}");
    // And it notices what it should.
    let whole = fs::read(&path).unwrap();
    for damage in [
        "UPDATE meta SET body=CAST(substr(body,1,900)||CASE substr(body,901,1) WHEN x'00' THEN x'01' \
             ELSE x'00' END||substr(body,902) AS BLOB) WHERE id=2",
        // Behind format, version and nonce: neither tag nor version.
        "UPDATE rows SET body=CAST(substr(body,1,60)||CASE substr(body,61,1) WHEN x'00' THEN x'01' \
             ELSE x'00' END||substr(body,62) AS BLOB) WHERE slot=1",
        "DELETE FROM rows WHERE slot=(SELECT max(slot) FROM rows)",
        "DELETE FROM journal WHERE number=(SELECT max(number) FROM journal)",
    ] {
        fs::write(&path, &whole).unwrap();
        let file = rusqlite::Connection::open(&path).unwrap();
        assert_eq!(file.execute(damage, []).unwrap(), 1, "{damage}");
        file.close().unwrap();
        assert!(!run().status.success(), "{damage}");
    }
}
