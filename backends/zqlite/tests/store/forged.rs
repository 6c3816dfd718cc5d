//! Records that somebody makes with a data key that leaked: another content under the tag of the record that
//! is there, which the inventory cannot tell from it.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::path::Path;

use crate::common::*;
use chacha20::XChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use ghostwire_store_core::backend::{Backend, Budget};
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind};
use ghostwire_store_core::schema::Table;
use ghostwire_store_crypto::SystemRandom;
use ghostwire_store_crypto::keyring::{Keyring, Rotation};
use ghostwire_store_zqlite::ZqliteBackend;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rusqlite::Connection;
use sha2::Sha256;

const SIDE: [u8; 16] = [9; 16];
/// What stands in front of a ciphertext: format, version, nonce.
const FRAME: usize = 1 + 4 + 24;
const TAG: usize = 16;

/// A kind of record, as the file and the associated data know it.
struct Place {
    kind: u8,
    word: &'static str,
    table: &'static str,
    column: &'static str,
}

const ROW: Place = Place { kind: 2, word: "row", table: "rows", column: "slot" };
const CHUNK: Place = Place { kind: 3, word: "chunk", table: "chunks", column: "number" };
const LEAF: Place = Place { kind: 4, word: "directory", table: "directory", column: "number" };
const ENTRY: Place = Place { kind: 7, word: "journal", table: "journal", column: "number" };

/// Below 2^130 - 5: the upper bits, and the lower 128.
type Number = (u128, u128);
const PRIME: Number = (3, u128::MAX - 4);
const ONE: Number = (0, 1);

fn reduced((high, low): Number) -> Number {
    if (high, low) < PRIME {
        return (high, low);
    }
    let (difference, borrowed) = low.overflowing_sub(PRIME.1);
    (high - PRIME.0 - u128::from(borrowed), difference)
}

fn sum(one: Number, other: Number) -> Number {
    let (low, carried) = one.1.overflowing_add(other.1);
    reduced((one.0 + other.0 + u128::from(carried), low))
}

fn negative(number: Number) -> Number {
    let (low, borrowed) = PRIME.1.overflowing_sub(number.1);
    reduced((PRIME.0 - number.0 - u128::from(borrowed), low))
}

fn bits((high, low): Number) -> impl Iterator<Item = bool> {
    let high = (0..2).rev().map(move |bit| high >> bit & 1 == 1);
    high.chain((0..128).rev().map(move |bit| low >> bit & 1 == 1))
}

fn product(one: Number, other: Number) -> Number {
    bits(other).fold((0, 0), |product, bit| {
        let doubled = sum(product, product);
        if bit { sum(doubled, one) } else { doubled }
    })
}

fn power(base: Number, exponent: Number) -> Number {
    bits(exponent).fold(ONE, |power, bit| {
        let squared = product(power, power);
        if bit { product(squared, base) } else { squared }
    })
}

fn number(bytes: &[u8]) -> u128 {
    u128::from_le_bytes(bytes.try_into().unwrap())
}

/// The blocks that Poly1305 authenticates, each with its highest bit (RFC 8439, 2.8).
fn blocks(associated: &[u8], ciphertext: &[u8]) -> Vec<Number> {
    let padded = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        bytes
    };
    let lengths = [associated, ciphertext].map(|part| (part.len() as u64).to_le_bytes());
    let all = [padded(associated), padded(ciphertext), lengths.concat()].concat();
    all.chunks(16).map(|block| (1, number(block))).collect()
}

fn subkey(key: &[u8; 32], word: &str) -> [u8; 32] {
    let mac = |key: &[u8], parts: &[&[u8]]| -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    };
    let extracted = mac(&SIDE, &[key]);
    mac(&extracted, &[b"ghostwire-store sealed 1 ", word.as_bytes(), &[1]])
}

/// Another content under the tag of this record: what `alter` makes of it, but that 16 bytes from `free` on,
/// a multiple of 16, come out by chance.
fn forged(
    keyring: &Keyring,
    place: &Place,
    stored: &[u8],
    free: usize,
    alter: impl Fn(&mut [u8]),
) -> Vec<u8> {
    let version = u32::from_be_bytes(stored[1..5].try_into().unwrap());
    let key = subkey(keyring.data_key(version).unwrap().key().expose(), place.word);
    let associated = [
        &b"ghostwire-store zqlite sealed 1"[..],
        &[2],
        &version.to_be_bytes(),
        &SIDE,
        &[place.kind],
    ]
    .concat();
    let end = stored.len() - TAG;
    let tag = number(&stored[end..]);
    let cipher = |nonce: &[u8]| {
        let mut cipher = XChaCha20::new_from_slices(&key, nonce).unwrap();
        let mut first = [0; 64];
        cipher.apply_keystream(&mut first);
        (cipher, first)
    };
    let mut content = stored[FRAME..end].to_vec();
    cipher(&stored[5..FRAME]).0.apply_keystream(&mut content);
    alter(&mut content);
    // The free block of one nonce in four is none that Poly1305 could have.
    for attempt in 0..64_u8 {
        let nonce = [attempt; 24];
        let (mut cipher, first) = cipher(&nonce);
        let mut ciphertext = content.clone();
        cipher.apply_keystream(&mut ciphertext);
        let r = (0, number(&first[..16]) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff);
        let s = (0, number(&first[16..32]));
        let blocks = blocks(&associated, &ciphertext);
        let solved = (associated.len().next_multiple_of(16) + free) / 16;
        let (mut rest, mut weight) = ((0, 0), ONE);
        for (place, block) in blocks.iter().enumerate().rev() {
            weight = product(weight, r);
            if place != solved {
                rest = sum(rest, product(*block, weight));
            }
        }
        let weight = (solved..blocks.len()).fold(ONE, |weight, _| product(weight, r));
        let inverse = power(weight, (PRIME.0, PRIME.1 - 2));
        for overflow in 0..4 {
            // The tag is the sum modulo 2^128: it may be that of any of these.
            let whole = sum(reduced((overflow, tag)), negative(s));
            let block = product(sum(whole, negative(rest)), inverse);
            if block.0 != 1 {
                continue;
            }
            ciphertext[free..free + 16].copy_from_slice(&block.1.to_le_bytes());
            let whole = [&stored[..5], &nonce, &ciphertext, &stored[end..]].concat();
            if authenticates(r, s, &associated, &ciphertext, tag) {
                return whole;
            }
        }
    }
    panic!("no nonce will do");
}

fn authenticates(r: Number, s: Number, associated: &[u8], ciphertext: &[u8], tag: u128) -> bool {
    let blocks = blocks(associated, ciphertext);
    let sum_of = blocks.iter().fold((0, 0), |total, block| product(sum(total, *block), r));
    sum_of.1.wrapping_add(s.1) == tag
}

fn stored(path: &Path, place: &Place, number: u64) -> Vec<u8> {
    let Place { table, column, .. } = place;
    let file = Connection::open(path).unwrap();
    let query = format!("SELECT body FROM {table} WHERE {column}={number}");
    file.query_row(&query, [], |row| row.get(0)).unwrap()
}

fn put_in(path: &Path, place: &Place, number: u64, record: &[u8]) {
    let Place { table, column, .. } = place;
    let file = Connection::open(path).unwrap();
    let statement = format!("UPDATE {table} SET body=?1 WHERE {column}={number}");
    assert_eq!(file.execute(&statement, [record]).unwrap(), 1);
    file.close().unwrap();
}

fn first(path: &Path, place: &Place) -> u64 {
    let Place { table, column, .. } = place;
    let file = Connection::open(path).unwrap();
    let query = format!("SELECT min({column}) FROM {table}");
    file.query_row(&query, [], |row| row.get(0)).unwrap()
}

async fn open_with(path: &Path, keyring: &Keyring) -> Result<ZqliteBackend, Error> {
    ZqliteBackend::open(options(path).sealed(keyring.clone()).compact_series_early()).await
}

/// A store with records of every kind, and its keyring.
async fn filled(path: &Path) -> Keyring {
    let keyring = keyring(StoreId::from_bytes(SIDE));
    let backend = open_with(path, &keyring).await.unwrap();
    for round in 0..20_u32 {
        let users = (0..3).map(|number| put(Table::Users, round * 3 + number, vec![7; 120]));
        let metrics = (0..60).map(|number| put(Table::Metrics, round * 60 + number, vec![7; 40]));
        commit_block(&backend, users.chain(metrics).collect()).await;
    }
    backend.close().await.unwrap();
    keyring
}

/// Rotates because of a leak, and seals nothing anew.
async fn rotate(path: &Path, keyring: &Keyring) -> Keyring {
    let rotating = written(&keyring.rotate(Rotation::Leaked, 0, &SystemRandom).unwrap());
    let backend = open_with(path, &rotating).await.unwrap();
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    written(&rotating.finish_rotation().unwrap())
}

/// Bytes of its body: what stands in front of them is shorter.
fn alter_body(content: &mut [u8]) {
    content[100] ^= 1;
}

#[tokio::test]
async fn with_the_key_in_force_another_content_goes_under_the_same_tag() {
    let (_directory, path) = directory();
    let keyring = filled(&path).await;
    let record = stored(&path, &ROW, 1);
    put_in(&path, &ROW, 1, &forged(&keyring, &ROW, &record, 64, alter_body));
    // Nothing tells them apart: this is why a key that leaked is replaced.
    let backend = open_with(&path, &keyring).await.unwrap();
    let rows = backend.scan(all(Table::Users)).await.unwrap().rows;
    assert!(rows.iter().any(|row| row.body[..] != [7; 120]));
    backend.close().await.unwrap();
}

#[tokio::test]
async fn after_a_leaked_rotation_no_record_is_replaced_under_its_tag() {
    for place in [ROW, CHUNK, LEAF, ENTRY] {
        let (_directory, path) = directory();
        let keyring = filled(&path).await;
        let finished = rotate(&path, &keyring).await;
        let number = first(&path, &place);
        let record = stored(&path, &place, number);
        let forged = forged(&keyring, &place, &record, 64, alter_body);
        assert_eq!(
            (forged.len(), &forged[forged.len() - TAG..]),
            (record.len(), &record[record.len() - TAG..])
        );
        put_in(&path, &place, number, &forged);
        let error = open_with(&path, &finished).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{}: {error}", place.word);
        assert!(error.to_string().contains("leaked"), "{}: {error}", place.word);
        put_in(&path, &place, number, &record);
        let backend = open_with(&path, &finished).await.unwrap();
        backend.verify().await.unwrap();
        backend.close().await.unwrap();
    }
}

/// Also while the store is used, opened and sealed anew.
#[tokio::test]
async fn what_is_left_of_before_a_leak_stays_bound_until_all_is_sealed_anew() {
    const SOME: Budget = Budget { time: std::time::Duration::from_secs(60), bytes: 8 * 1024 };
    let (_directory, path) = directory();
    let keyring = filled(&path).await;
    let mut newest = rotate(&path, &keyring).await;
    let mut backend = open_with(&path, &newest).await.unwrap();
    let mut round = 0;
    while backend.maintain(SOME).await.unwrap() {
        let rows = vec![
            put(Table::Users, 59 - round % 60, "anew"),
            delete(Table::Users, 30 + round % 30),
            delete(Table::Metrics, round * 7),
            put(Table::Metrics, 2_000 + round, vec![8; 40]),
        ];
        commit_block(&backend, rows).await;
        round += 1;
        if round == 2 {
            // A rotation as planned leaves that as it is; another leak takes everything down anew.
            for reason in [Rotation::Routine, Rotation::Leaked] {
                let rotating = written(&newest.rotate(reason, 0, &SystemRandom).unwrap());
                backend.take_up(rotating.clone()).await.unwrap();
                newest = written(&rotating.finish_rotation().unwrap());
                backend.take_up(newest.clone()).await.unwrap();
                commit_block(&backend, vec![put(Table::Users, 200, "anew")]).await;
            }
        }
        if round % 3 == 0 {
            let everything = read(&backend).await.unwrap();
            backend.verify().await.unwrap();
            backend.close().await.unwrap();
            backend = open_with(&path, &newest).await.unwrap();
            assert_eq!(read(&backend).await.unwrap(), everything);
        }
    }
    assert!(round > 5, "{round}");
    assert!(!backend.info().resealed.unwrap().is_under_way());
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    let backend = open_with(&path, &newest).await.unwrap();
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
}
