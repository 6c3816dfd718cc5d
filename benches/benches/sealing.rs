//! What sealing and opening cost beside the bare AEAD: records of one commit, and a record by
//! itself.
//!
//! `cargo bench -p ghostwire-store-benches --bench sealing`. The goals: within 20 % of the AEAD at 1 KiB for the
//! records of one commit, 40 % for a lone one.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ghostwire_store_crypto::SystemRandom;
use ghostwire_store_crypto::keyring::{Identity, Keyring};
use ghostwire_store_crypto::sealing::{
    CommitSealer, Inventory, Kind, Opener, SealingKeys, Sum, tag_of,
};

/// Of the associated data.
const BOUND: usize = 53;

fn sealing(criterion: &mut Criterion) {
    let root = Identity::draw(&SystemRandom).unwrap().recipient().clone();
    let keyring = Keyring::first([7; 16], root, None, 0, &SystemRandom).unwrap();
    let keys = SealingKeys::new(&keyring).unwrap();
    for length in [52_usize, 1012, 65_536] {
        let content = vec![5; length];
        let mut group = criterion.benchmark_group(format!("{length} bytes"));
        group.throughput(Throughput::Elements(1));
        let bare = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[1; 32]).unwrap());
        let nonce = || Nonce::assume_unique_for_key([2; 12]);
        let mut buffer = vec![0; length + 12];
        group.bench_function("bare AEAD, seal", |bencher| {
            bencher.iter(|| {
                bare.seal_in_place_separate_tag(nonce(), Aad::from([3; BOUND]), &mut buffer)
            });
        });
        let mut sealer = CommitSealer::new(&keys, &[0; 32], 0, &SystemRandom).unwrap();
        let mut into = Vec::with_capacity(2 * length + 128);
        group.bench_function("seal, of one commit", |bencher| {
            bencher.iter(|| {
                into.clear();
                sealer.seal(Kind::Row, 9, &[], &[black_box(&content)], &mut into).unwrap()
            });
        });
        let mut plain = Vec::new();
        let mut opener = Opener::new(&keys);
        group.bench_function("open, of one commit", |bencher| {
            bencher.iter(|| {
                opener.open(Kind::Row, 9, &[], black_box(&into), &mut plain).unwrap().len()
            });
        });
        group.bench_function("open, by itself", |bencher| {
            bencher.iter_batched_ref(
                || Opener::new(&keys),
                |opener| {
                    opener.open(Kind::Row, 9, &[], black_box(&into), &mut plain).unwrap().len()
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
    let inventory = Inventory::new(keyring.authority());
    let mut stored = Vec::new();
    let mut sealer = CommitSealer::new(&keys, &[0; 32], 0, &SystemRandom).unwrap();
    sealer.seal(Kind::Row, 9, &[], &[b"row"], &mut stored).unwrap();
    let tag = tag_of(&stored).unwrap();
    criterion.bench_function("inventory, one record", |bencher| {
        let mut sum = Sum::default();
        bencher.iter(|| inventory.toggle(&mut sum, Kind::Row, 9, black_box(tag)));
    });
}

criterion_group!(benches, sealing);
criterion_main!(benches);
