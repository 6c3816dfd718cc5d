//! Pins: whatever older state of a store is put back, it is refused, and nothing else is.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;

use crate::common::pinned::*;
use crate::common::*;
use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::error::{ErrorKind, Result};
use ghostwire_store_core::schema::{Schema, Table};
use ghostwire_store_crypto::Secret;
use ghostwire_store_zqlite::{PinChoice, PinOptions, ZqliteBackend, ZqliteOptions};

#[tokio::test]
async fn a_store_gets_its_pin_and_is_where_it_is() {
    for site in Site::both() {
        gets_its_pin(site).await;
    }
}

async fn gets_its_pin(site: Site) {
    let backend = site.open().await;
    assert!(backend.info().pinned);
    for number in 0..5 {
        work(&backend, number).await;
    }
    let head = backend.head().await.unwrap();
    backend.close().await.unwrap();
    let report = site.compared().await;
    assert_eq!((report.verdict, report.pin), ("equal", Some(report.store)));
    assert_eq!(report.store.serial, head.serial);
    // Whoever only reads compares, too, and moves nothing.
    let reading = ZqliteBackend::open(site.options().read_only(true)).await.unwrap();
    assert!(reading.info().pinned);
    reading.close().await.unwrap();
    let error = ZqliteBackend::open((site.base)(&site.store)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("none is configured"), "{error}");
    site.open().await.close().await.unwrap();
}

#[tokio::test]
async fn every_older_copy_is_refused_with_what_it_lacks() {
    for site in Site::both() {
        refuses_older_copies(site).await;
    }
}

async fn refuses_older_copies(site: Site) {
    let mut copies = Vec::new();
    for number in 0..9 {
        let backend = site.open().await;
        work(&backend, number).await;
        // As a crash leaves it, and as closing does.
        copies.push(site.copy());
        backend.close().await.unwrap();
        copies.push(site.copy());
    }
    let newest = copies.pop().unwrap();
    let pin = fs::read(&site.pin).unwrap();
    // Closing signs a sealed store, and flushes nothing here: the state of a plain one is the same.
    let mut same = vec![newest];
    if !site.is_sealed() {
        same.extend(copies.pop());
    }
    for (age, copy) in copies.iter().rev().enumerate() {
        site.put_back(copy);
        for error in [
            site.refusal().await,
            ZqliteBackend::open(site.options().read_only(true)).await.unwrap_err(),
        ] {
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
            let text = error.to_string();
            assert!(text.contains("rolled back"), "{age}: {text}");
            assert!(text.contains("gwstore pin accept --serial"), "{text}");
        }
        let report = site.compared().await;
        assert_eq!(report.verdict, "rolled back");
        assert!(report.store.commit < report.pin.unwrap().commit);
        assert_eq!(fs::read(&site.pin).unwrap(), pin, "{age}");
    }
    for copy in same.iter().rev() {
        site.put_back(copy);
        site.open().await.close().await.unwrap();
    }
}

/// The rows of the damage table that were "an older state, unnoticed".
#[tokio::test]
async fn a_log_that_was_cut_or_changed_is_no_older_state_unnoticed() {
    for site in Site::both() {
        notices_a_cut_log(site).await;
    }
}

async fn notices_a_cut_log(site: Site) {
    let backend = site.open().await;
    for number in 0..12 {
        work(&backend, number).await;
    }
    let expected = read(&backend).await.unwrap();
    let copy = site.copy();
    backend.close().await.unwrap();
    let log = copy.0[1].1.clone().unwrap();
    let with_log = |log: Option<Vec<u8>>| {
        let mut copy = copy.clone();
        copy.0[1].1 = log;
        // Without the index, which would tell.
        copy.0[2].1 = None;
        copy
    };
    let mut damaged = vec![with_log(None)];
    for step in 0..24 {
        let at = log.len() * step / 24;
        damaged.push(with_log(Some(log[..at].to_vec())));
        let mut flipped = log.clone();
        flipped[at] ^= 0x10;
        damaged.push(with_log(Some(flipped)));
    }
    let (mut refused, mut whole) = (0, 0);
    for damaged in damaged {
        site.put_back(&damaged);
        match ZqliteBackend::open(site.options()).await {
            Err(error) => {
                let kind = error.kind();
                assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::Unsupported), "{error}");
                refused += 1;
            }
            Ok(backend) => {
                assert_eq!(read(&backend).await.unwrap(), expected);
                backend.close().await.unwrap();
                whole += 1;
            }
        }
    }
    assert!(refused > 30, "{refused} refused, {whole} whole");
}

#[tokio::test]
async fn what_was_stored_and_not_confirmed_is_accepted_and_pinned_before_it_is_served() {
    for site in Site::both() {
        is_pinned_before_it_serves(site).await;
    }
}

async fn is_pinned_before_it_serves(site: Site) {
    let backend = site.open().await;
    work(&backend, 1).await;
    let pin = fs::read(&site.pin).unwrap();
    // The second lands, and a third; nobody is told.
    for number in [2, 4, 3] {
        work(&backend, number).await;
    }
    let (copy, head) = (site.copy(), backend.head().await.unwrap());
    backend.close().await.unwrap();
    site.put_back(&copy);
    fs::write(&site.pin, &pin).unwrap();
    let report = site.compared().await;
    assert_eq!((report.verdict, report.refusal.is_none()), ("ahead", true));
    let backend = site.open().await;
    assert_eq!(backend.head().await.unwrap(), head);
    let advanced = fs::read(&site.pin).unwrap();
    assert_ne!(advanced, pin);
    backend.close().await.unwrap();
}

/// Whatever part of a slot reached the disk, the store is served, and goes on from there.
#[tokio::test]
async fn a_slot_that_was_torn_at_any_byte_does_no_harm() {
    for site in Site::both() {
        bears_torn_slots(site).await;
    }
}

async fn bears_torn_slots(site: Site) {
    let backend = site.open().await;
    work(&backend, 1).await;
    work(&backend, 2).await;
    let before = fs::read(&site.pin).unwrap();
    work(&backend, 4).await;
    let (after, copy) = (fs::read(&site.pin).unwrap(), site.copy());
    backend.close().await.unwrap();
    let places: Vec<_> = (0..before.len()).filter(|&at| before[at] != after[at]).collect();
    let (first, last) = (places[0], places[places.len() - 1]);
    for torn in first..=last + 1 {
        let mut pin = before.clone();
        pin[first..torn].copy_from_slice(&after[first..torn]);
        fs::write(&site.pin, &pin).unwrap();
        site.put_back(&copy);
        let backend = site.open().await;
        backend.close().await.unwrap();
        assert_eq!(site.compared().await.verdict, "equal", "{torn}");
    }
}

#[tokio::test]
async fn another_history_is_forked() {
    for site in Site::both() {
        is_forked(site).await;
    }
}

async fn is_forked(site: Site) {
    let backend = site.open().await;
    work(&backend, 1).await;
    backend.close().await.unwrap();
    let (copy, pin) = (site.copy(), fs::read(&site.pin).unwrap());
    let backend = site.open().await;
    work(&backend, 2).await;
    backend.close().await.unwrap();
    let theirs = fs::read(&site.pin).unwrap();
    // The same place, gone on from otherwise: as far, and further.
    site.put_back(&copy);
    fs::write(&site.pin, &pin).unwrap();
    for number in [4, 5] {
        let backend = site.open().await;
        let head = backend.head().await.unwrap();
        let block = Some(block_after(&head, 300));
        backend.commit(&Commit { block, ..Commit::on(&head) }).await.unwrap();
        if number == 5 {
            record(&backend, number).await;
        }
        backend.close().await.unwrap();
        let ours = fs::read(&site.pin).unwrap();
        fs::write(&site.pin, &theirs).unwrap();
        let error = site.refusal().await;
        assert_eq!(*error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("forked"), "{error}");
        fs::write(&site.pin, &ours).unwrap();
    }
}

#[tokio::test]
async fn of_two_clones_one_is_fenced_and_answers_nothing_more() {
    let (site, clone) = (Site::new(), Site::new());
    let backend = site.open().await;
    work(&backend, 1).await;
    // A clone of the machine, whose pin is the same.
    clone.put_back(&site.copy());
    fs::copy(&site.pin, &clone.pin).unwrap();
    let other = clone.open().await;
    work(&other, 2).await;
    fs::write(&site.pin, fs::read(&clone.pin).unwrap()).unwrap();
    commit_block(&backend, vec![put(Table::Users, 4, [4; 30])]).await;
    let error = backend.confirm().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Fenced { .. }), "{error}");
    assert!(error.to_string().contains("a copy of this store runs"), "{error}");
    let head = backend.head().await.unwrap();
    let answers: [Result<()>; 5] = [
        backend.confirm().await,
        backend.commit(&Commit::on(&head)).await,
        backend.probe(head.epoch).await,
        backend.scan(all(Table::Users)).await.map(drop),
        backend.blocks(Serial::ZERO, 9).await.map(drop),
    ];
    for answer in answers {
        assert!(matches!(answer.unwrap_err().kind(), ErrorKind::Fenced { .. }));
    }
    backend.close().await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test]
async fn a_probe_looks_at_the_pin() {
    let site = Site::new();
    let backend = site.open().await;
    work(&backend, 1).await;
    let epoch = backend.head().await.unwrap().epoch;
    backend.probe(epoch).await.unwrap();
    fs::write(&site.pin, [0; 8192]).unwrap();
    let error = backend.probe(epoch).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Fenced { .. }), "{error}");
    backend.close().await.unwrap();
}

#[tokio::test]
async fn a_missing_pin_is_refused_until_that_is_accepted() {
    let site = Site::new();
    let backend = site.open().await;
    work(&backend, 1).await;
    backend.close().await.unwrap();
    fs::remove_file(&site.pin).unwrap();
    let error = site.refusal().await;
    assert_eq!(*error.kind(), ErrorKind::Restricted);
    assert!(error.to_string().contains("--accept-missing"), "{error}");
    assert!(!site.pin.exists());
    let accepting = site.options_with(site.pin().accept_missing());
    ZqliteBackend::open(accepting).await.unwrap().close().await.unwrap();
    assert_eq!(site.compared().await.verdict, "equal");
    // What is there and is no mark is not taken for a missing one.
    fs::write(&site.pin, [b'x'; 8192]).unwrap();
    let accepting = site.options_with(site.pin().accept_missing());
    for options in [site.options(), accepting] {
        let error = ZqliteBackend::open(options).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[tokio::test]
async fn pins_that_are_no_good_are_refused() {
    let site = Site::new();
    // On the store's device: before the store has one, and after.
    let same_device = || site.options_with(PinOptions::file(&site.pin).key(pin_key()));
    let error = ZqliteBackend::open(same_device()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("device"), "{error}");
    assert!(!site.pin.exists());
    let backend = site.open().await;
    work(&backend, 1).await;
    // In use.
    let other = Site::new();
    let borrowed = options(&other.store).pin(PinChoice::Commit(site.pin()));
    assert_eq!(*ZqliteBackend::open(borrowed.clone()).await.unwrap_err().kind(), ErrorKind::Busy);
    backend.close().await.unwrap();
    assert!(ZqliteBackend::open(same_device()).await.is_err());
    // Of a store with another id.
    let another = ghostwire_store_core::domain::StoreId::from_bytes([8; 16]);
    let third = Site::new();
    let strange = ZqliteOptions::new(&third.store, another).create(true);
    let error = ZqliteBackend::open(strange.pin(PinChoice::Commit(site.pin()))).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("another store's"), "{error}");
    // With another key, and with none.
    let wrong = PinOptions::file(&site.pin).same_device(true).key(Secret::take(&mut [8; 32]));
    let error = ZqliteBackend::open(site.options_with(wrong)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    let without = PinOptions::file(&site.pin).same_device(true);
    let error = ZqliteBackend::open(site.options_with(without)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{error}");
    site.open().await.close().await.unwrap();
}

#[tokio::test]
async fn purging_keeps_what_follows_from_the_pin() {
    for site in Site::both() {
        keeps_what_follows(site).await;
    }
}

async fn keeps_what_follows(site: Site) {
    let backend = site.open().await;
    for number in [1, 2, 4] {
        work(&backend, number).await;
    }
    let pinned = backend.head().await.unwrap().serial;
    let pin = fs::read(&site.pin).unwrap();
    // Each is flushed and purged by its own commit, and none is confirmed.
    for _ in 0..3 {
        let head = backend.head().await.unwrap();
        let block = block_after(&head, 100);
        let (checkpoint, purge_before) = (Some(block.serial), Some(block.serial.next()));
        let commit = Commit { block: Some(block), checkpoint, purge_before, ..Commit::on(&head) };
        backend.commit(&commit).await.unwrap();
    }
    assert_eq!(backend.head().await.unwrap().oldest_block, pinned);
    let copy = site.copy();
    backend.confirm().await.unwrap();
    backend.close().await.unwrap();
    site.put_back(&copy);
    fs::write(&site.pin, pin).unwrap();
    assert_eq!(site.compared().await.verdict, "ahead");
    site.open().await.close().await.unwrap();
}

#[tokio::test]
async fn a_store_of_an_older_schema_is_pinned_when_it_is_migrated() {
    let site = Site::new();
    let old = options(&site.store).schema(Schema::at(2).unwrap());
    ZqliteBackend::open(old).await.unwrap().close().await.unwrap();
    let backend = site.open().await;
    assert_eq!(fs::metadata(&site.pin).unwrap().len(), 8192);
    backend.migrate(Schema::current()).await.unwrap();
    work(&backend, 1).await;
    let copy = site.copy();
    backend.close().await.unwrap();
    site.open().await.close().await.unwrap();
    fs::remove_file(&site.pin).unwrap();
    site.put_back(&copy);
    assert_eq!(*site.refusal().await.kind(), ErrorKind::Restricted);
}

#[tokio::test]
async fn an_empty_store_with_a_pin_becomes_a_copy() {
    let (source, site) = (Site::new(), Site::new());
    let backend = source.open().await;
    for number in [1, 2] {
        work(&backend, number).await;
    }
    let head = backend.head().await.unwrap();
    backend.close().await.unwrap();
    let empty = ghostwire_store_core::domain::StoreId::from_bytes([3; 16]);
    let empty =
        || ZqliteOptions::new(&site.store, empty).create(true).pin(PinChoice::Commit(site.pin()));
    let backend = ZqliteBackend::open(empty()).await.unwrap();
    let pin = fs::read(&site.pin).unwrap();
    backend.adopt(&head).await.unwrap();
    let (copy, adopted) = (site.copy(), backend.head().await.unwrap());
    assert_eq!(adopted.store, head.store);
    backend.close().await.unwrap();
    // Killed before the pin had it.
    site.put_back(&copy);
    fs::write(&site.pin, pin).unwrap();
    let backend = ZqliteBackend::open(empty()).await.unwrap();
    assert_eq!(backend.head().await.unwrap(), adopted);
    record(&backend, 3).await;
    backend.close().await.unwrap();
    ZqliteBackend::open(empty()).await.unwrap().close().await.unwrap();
}
