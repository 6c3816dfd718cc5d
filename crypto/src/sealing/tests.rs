#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use proptest::prelude::*;

use super::*;
use crate::keyring::{Identity, Rotation};
use crate::random::SystemRandom;

const STORE: [u8; 16] = [7; 16];

fn keyring_of(store: [u8; 16]) -> Keyring {
    let root = Identity::draw(&SystemRandom).unwrap().recipient().clone();
    Keyring::first(store, root, None, 0, &SystemRandom).unwrap()
}

fn sealer(keys: &SealingKeys) -> CommitSealer {
    CommitSealer::new(keys, &[0; 32], 0, &SystemRandom).unwrap()
}

fn seal(keys: &SealingKeys, kind: Kind, number: u64, prefix: &[u8], content: &[u8]) -> Vec<u8> {
    let mut into = Vec::new();
    sealer(keys).seal(kind, number, prefix, &[content], &mut into).unwrap();
    into
}

/// What is wrong with a record where it is looked for.
fn damage(keys: &SealingKeys, kind: Kind, number: u64, prefix: &[u8], stored: &[u8]) -> Damage {
    match Opener::new(keys).open(kind, number, prefix, stored, &mut Vec::new()) {
        Err(Error::Record { damage, .. }) => damage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_of_each_kind_comes_back() {
    let keys = SealingKeys::new(&keyring_of(STORE)).unwrap();
    let (mut sealer, mut opener) = (sealer(&keys), Opener::new(&keys));
    for kind in Kind::ALL {
        for length in [0, 1, 51, 52, 53, 1012, 1013, 4000, 4001, 70_000] {
            let content: Vec<u8> = (0..length).map(|place| place as u8).collect();
            let (one, other) = content.split_at(length / 3);
            let mut stored = b"before".to_vec();
            let tag = sealer.seal(kind, 9, b"prefix", &[one, other], &mut stored).unwrap();
            let stored = stored.strip_prefix(b"before").unwrap();
            assert_eq!(stored.len(), sealed_length(kind, length));
            assert_eq!(tag_of(stored), Some(tag));
            assert_eq!(version_of(stored), Some(1));
            let mut plain = vec![0xff; 100];
            assert_eq!(opener.open(kind, 9, b"prefix", stored, &mut plain).unwrap(), content);
        }
    }
}

#[test]
fn what_a_record_is_bound_to_is_checked_and_named() {
    let keyring = keyring_of(STORE);
    let keys = SealingKeys::new(&keyring).unwrap();
    let stored = seal(&keys, Kind::Row, 3, b"prefix", b"content");
    assert_eq!(damage(&keys, Kind::Row, 4, b"prefix", &stored), Damage::Moved { from: 3 });
    assert_eq!(damage(&keys, Kind::Row, 3, b"prefiy", &stored), Damage::Altered);
    assert_eq!(damage(&keys, Kind::Row, 3, b"", &stored), Damage::Altered);
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Row) {
        assert_eq!(damage(&keys, kind, 3, b"prefix", &stored), Damage::Altered);
    }
    // Another store with the same data key: its subkeys are others.
    let other = Keys {
        store: [8; 16],
        active: 1,
        next_version: 2,
        versions: vec![Subkeys {
            version: 1,
            keys: Box::new(Kind::ALL.map(|kind| *keys.subkey(1, kind).unwrap())),
        }],
    };
    let other = SealingKeys(Arc::new(other));
    assert_eq!(damage(&other, Kind::Row, 3, b"prefix", &stored), Damage::Altered);
    let other = SealingKeys::new(&keyring_of(STORE)).unwrap();
    assert_eq!(damage(&other, Kind::Row, 3, b"prefix", &stored), Damage::Altered);
}

/// Renaming a version does not help even if both have one key.
#[test]
fn a_version_is_bound_and_not_only_used_to_find_the_key() {
    let keys = SealingKeys::new(&keyring_of(STORE)).unwrap();
    let subkeys = || Box::new(Kind::ALL.map(|kind| *keys.subkey(1, kind).unwrap()));
    let twice = SealingKeys(Arc::new(Keys {
        store: STORE,
        active: 1,
        next_version: 3,
        versions: vec![
            Subkeys { version: 1, keys: subkeys() },
            Subkeys { version: 2, keys: subkeys() },
        ],
    }));
    let mut stored = seal(&twice, Kind::Row, 3, b"", b"content");
    stored[4] = 2;
    assert_eq!(damage(&twice, Kind::Row, 3, b"", &stored), Damage::Altered);
}

#[test]
fn an_unknown_version_is_destroyed_or_foreign() {
    let keyring = keyring_of(STORE);
    let old = SealingKeys::new(&keyring).unwrap();
    let stored = seal(&old, Kind::Row, 3, b"", b"content");
    let rotated = keyring.rotate(Rotation::Routine, 1, &SystemRandom).unwrap();
    let keys = SealingKeys::new(&rotated).unwrap();
    let mut plain = Vec::new();
    assert_eq!(
        Opener::new(&keys).open(Kind::Row, 3, b"", &stored, &mut plain).unwrap(),
        b"content"
    );
    let under_new = seal(&keys, Kind::Row, 3, b"", b"content");
    assert_eq!(version_of(&under_new), Some(2));
    assert_eq!(damage(&old, Kind::Row, 3, b"", &under_new), Damage::Foreign { version: 2 });
    let destroyed = rotated.finish_rotation().unwrap().destroy(1).unwrap();
    let keys = SealingKeys::new(&destroyed).unwrap();
    let missing = Opener::new(&keys).open(Kind::Row, 3, b"", &stored, &mut plain).unwrap_err();
    assert!(matches!(missing, Error::MissingVersion { version: 1 }));
}

#[test]
fn what_is_cut_or_plain_is_named() {
    let keys = SealingKeys::new(&keyring_of(STORE)).unwrap();
    let stored = seal(&keys, Kind::Row, 3, b"", b"content");
    for length in 0..FRAME + frame::PLACE {
        assert_eq!(damage(&keys, Kind::Row, 3, b"", &stored[..length]), Damage::Truncated);
    }
    for length in FRAME + frame::PLACE..stored.len() {
        assert_eq!(damage(&keys, Kind::Row, 3, b"", &stored[..length]), Damage::Altered);
    }
    let mut plain = stored;
    plain[0] = 1;
    assert_eq!(damage(&keys, Kind::Row, 3, b"", &plain), Damage::UnknownFormat { format: 1 });
    assert_eq!(version_of(&plain), None);
}

/// Only somebody with the key can write these, so a fault of a program is found.
#[test]
fn what_was_sealed_in_another_shape_is_refused() {
    let keys = SealingKeys::new(&keyring_of(STORE)).unwrap();
    let seal = |plain: &[u8]| {
        let prefix = [5; 16];
        let key = crate::aead::Key::extended(keys.subkey(1, Kind::Row).unwrap(), &prefix).unwrap();
        let mut stored = Vec::new();
        frame::write_before(1, &prefix, 0, &mut stored);
        let mut sealed = plain.to_vec();
        let mut bound = frame::Bound::new(&STORE);
        let aad = bound.set(1, Kind::Row, b"");
        let tag = key.seal([0; 12], aad, &mut sealed).unwrap();
        [stored, sealed, tag.to_vec()].concat()
    };
    let shape = |length: u32, filled: usize, last: u8| {
        let mut plain = [3_u64.to_be_bytes().as_slice(), &length.to_be_bytes()].concat();
        plain.resize(filled, 0);
        *plain.last_mut().unwrap() = last;
        seal(&plain)
    };
    let open = |stored: Vec<u8>| {
        Opener::new(&keys).open(Kind::Row, 3, b"", &stored, &mut Vec::new()).map(<[u8]>::len)
    };
    assert_eq!(open(shape(7, 64, 0)).unwrap(), 7);
    for stored in [
        shape(7, 64, 1),
        shape(7, 63, 0),
        shape(7, 128, 0),
        shape(53, 64, 0),
        shape(u32::MAX, 64, 0),
    ] {
        assert!(matches!(open(stored), Err(Error::Record { damage: Damage::Misshapen, .. })));
    }
}

#[test]
fn nonces_of_a_commit_count_up_behind_what_was_drawn() {
    let keys = SealingKeys::new(&keyring_of(STORE)).unwrap();
    let mut sealer = sealer(&keys);
    let mut prefixes = Vec::new();
    for number in 0..300_u64 {
        let mut stored = Vec::new();
        let kind = Kind::ALL[usize::try_from(number % 8).unwrap()];
        sealer.seal(kind, 1, b"", &[b"same"], &mut stored).unwrap();
        let frame = frame::Frame::of(&stored).unwrap();
        assert_eq!(u64::from_be_bytes(frame.counter), number);
        prefixes.push(*frame.prefix);
    }
    prefixes.dedup();
    assert_eq!(prefixes.len(), 1);
    let other = seal(&keys, Kind::Row, 1, b"", b"same");
    assert_ne!(frame::Frame::of(&other).unwrap().prefix, &prefixes[0]);
}

/// Randomness that repeats itself, as on a machine that is resumed twice from one image.
struct Repeating;

impl crate::Random for Repeating {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(1);
        Ok(())
    }
}

#[test]
fn block_and_clock_part_nonces_where_randomness_repeats_itself() {
    let keys = SealingKeys::new(&keyring_of(STORE)).unwrap();
    let prefix = |block: u8, clock: u64| {
        let mut sealer = CommitSealer::new(&keys, &[block; 32], clock, &Repeating).unwrap();
        let mut stored = Vec::new();
        sealer.seal(Kind::Row, 1, b"", &[], &mut stored).unwrap();
        *frame::Frame::of(&stored).unwrap().prefix
    };
    assert_eq!(prefix(1, 1), prefix(1, 1));
    assert_ne!(prefix(1, 1), prefix(2, 1));
    assert_ne!(prefix(1, 1), prefix(1, 2));
}

struct Dry;

impl crate::Random for Dry {
    fn fill(&self, _: &mut [u8]) -> Result<()> {
        Err(Error::Random("dry".to_owned()))
    }
}

#[test]
fn without_randomness_nothing_is_sealed() {
    let keyring = keyring_of(STORE);
    let keys = SealingKeys::new(&keyring).unwrap();
    assert!(matches!(CommitSealer::new(&keys, &[0; 32], 0, &Dry), Err(Error::Random(_))));
    assert!(matches!(keyring.seal(&Dry), Err(Error::Random(_))));
    assert!(matches!(keyring.rotate(Rotation::Routine, 0, &Dry), Err(Error::Random(_))));
}

#[test]
fn an_opener_forgets_keys_and_makes_them_again() {
    let keys = SealingKeys::new(&keyring_of(STORE)).unwrap();
    let stored: Vec<_> =
        (0..30).map(|number| seal(&keys, Kind::Row, number, b"", &[1; 40])).collect();
    let mut opener = Opener::new(&keys);
    for _ in 0..2 {
        for (number, stored) in (0..).zip(&stored) {
            assert_eq!(
                opener.open(Kind::Row, number, b"", stored, &mut Vec::new()).unwrap(),
                [1; 40]
            );
        }
    }
}

#[test]
fn an_inventory_tells_sets_of_records_apart() {
    let keyring = keyring_of(STORE);
    let inventory = Inventory::new(keyring.authority());
    let sum = |records: &[(Kind, u64, u8)]| {
        let mut sum = Sum::default();
        for &(kind, number, tag) in records {
            inventory.toggle(&mut sum, kind, number, Tag([tag; 16]));
        }
        sum
    };
    let all = sum(&[(Kind::Row, 1, 1), (Kind::Row, 2, 2)]);
    assert_eq!(all, sum(&[(Kind::Row, 2, 2), (Kind::Row, 1, 1)]));
    for other in [
        vec![(Kind::Row, 1, 1)],
        vec![(Kind::Row, 1, 1), (Kind::Row, 2, 3)],
        vec![(Kind::Row, 1, 2), (Kind::Row, 2, 1)],
        vec![(Kind::Row, 1, 1), (Kind::Journal, 2, 2)],
        vec![(Kind::Row, 1, 1), (Kind::Row, 2, 2), (Kind::Row, 3, 3)],
        vec![],
    ] {
        assert_ne!(all, sum(&other));
    }
    // Replaced and put back.
    let mut moved = all;
    inventory.toggle(&mut moved, Kind::Row, 2, Tag([2; 16]));
    assert_eq!(moved, sum(&[(Kind::Row, 1, 1)]));
    inventory.toggle(&mut moved, Kind::Row, 2, Tag([2; 16]));
    assert_eq!(moved, all);
    let renewed = keyring.rotate(Rotation::Leaked, 0, &SystemRandom).unwrap();
    let mut other = Sum::default();
    Inventory::new(renewed.authority()).toggle(&mut other, Kind::Row, 1, Tag([1; 16]));
    assert_ne!(other, sum(&[(Kind::Row, 1, 1)]));
}

#[test]
fn nothing_secret_is_shown() {
    let keyring = keyring_of(STORE);
    let keys = SealingKeys::new(&keyring).unwrap();
    let mut shown =
        format!("{keyring:?} {:?} {keys:?} {:?}", keyring.authority(), Opener::new(&keys));
    shown += &format!("{:?} {:?}", keyring.data_keys(), keyring.hash_keys());
    for key in keyring.data_keys() {
        assert!(!shown.contains(&crate::wire::hex(key.key().expose())));
        assert!(!shown.contains(&format!("{:?}", key.key().expose())));
    }
    assert!(shown.contains("Secret(..)"));
}

proptest! {
    #[test]
    fn any_flipped_bit_of_a_record_is_refused(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        content in prop::collection::vec(any::<u8>(), 0..1500),
        place: prop::sample::Index,
        bit in 0..8_u32,
    ) {
        let keys = SealingKeys::new(&keyring_of(STORE)).unwrap();
        let mut stored = seal(&keys, kind, 5, b"", &content);
        let place = place.index(stored.len());
        stored[place] ^= 1 << bit;
        let mut plain = Vec::new();
        prop_assert!(Opener::new(&keys).open(kind, 5, b"", &stored, &mut plain).is_err());
    }

    #[test]
    fn any_bytes_are_refused(stored in prop::collection::vec(any::<u8>(), 0..300)) {
        let keys = SealingKeys::new(&keyring_of(STORE)).unwrap();
        let _ = (tag_of(&stored), version_of(&stored));
        let opened = Opener::new(&keys).open(Kind::Row, 0, b"", &stored, &mut Vec::new()).is_ok();
        prop_assert!(!opened);
    }
}
