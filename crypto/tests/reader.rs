//! The reader in Python, which was written from `docs/cryptography.md`, reads what this crate
//! writes.
#![allow(clippy::unwrap_used)]

mod python;

use std::fs;
use std::path::Path;

use data_encoding::HEXLOWER;
use ghostwire_store_crypto::SystemRandom;
use ghostwire_store_crypto::keyring::{Expected, Identity, Keyring, Rotation, Stretch, Unlock};
use ghostwire_store_crypto::pin::{FilePin, Mark, Pin, PinKey};
use ghostwire_store_crypto::sealing::{CommitSealer, Inventory, Kind, SealingKeys, Sum};
use ghostwire_store_crypto::signature::{
    Attestation, Attested, Counts, Manifest, Purpose, SignedManifest, Successions,
};
use python::reader;
use serde_json::{Value, json};

const STORE: [u8; 16] = [0x5a; 16];

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

fn opened(keyring: &Keyring, identity: &Identity, path: &Path) -> Keyring {
    let file = keyring.seal(&SystemRandom).unwrap();
    fs::write(path, &file).unwrap();
    Keyring::open(&file, Unlock::Identity(identity), &Expected::default()).unwrap()
}

#[test]
fn a_second_reader_reads_everything() {
    if reader(&[Path::new("--check")]).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let sha256 = |bytes: &[u8]| Mark::head(bytes);

    // A keyring of two generations, with a rotation under way and two recipients.
    let (root, escrow) =
        (Identity::draw(&SystemRandom).unwrap(), Identity::draw(&SystemRandom).unwrap());
    let first = Keyring::first(STORE, root.recipient().clone(), None, 1, &SystemRandom).unwrap();
    let first = opened(&first, &root, &at("keyring"));
    let before = sha256(&fs::read(at("keyring")).unwrap());
    let old_keys = SealingKeys::new(&first).unwrap();
    let keyring = first.add_recipient(escrow.recipient().clone(), "escrow").unwrap();
    let keyring = keyring.rotate(Rotation::Leaked, 2, &SystemRandom).unwrap();
    let keyring = keyring.rotate_hash_key(3, &SystemRandom).unwrap();
    let keyring = opened(&keyring, &root, &at("keyring"));
    let passphrase = "correct horse battery staple";
    let stretch = Stretch::draw(&SystemRandom).unwrap();
    let stretched = stretch.identity(passphrase.as_bytes()).unwrap();
    let locked =
        Keyring::first(STORE, stretched.recipient().clone(), Some(stretch), 1, &SystemRandom);
    opened(&locked.unwrap(), &stretched, &at("keyring.passphrase"));

    // Records of every kind and of both versions.
    let keys = SealingKeys::new(&keyring).unwrap();
    let inventory = Inventory::new(keyring.authority());
    let (mut sum, mut records, mut contents) = (Sum::default(), Vec::new(), Vec::new());
    let mut head = Vec::new();
    for keys in [&old_keys, &keys] {
        let mut sealer = CommitSealer::new(keys, &[1; 32], 2, &SystemRandom).unwrap();
        for (number, kind) in (1_u64 << 40..).zip(Kind::ALL) {
            for length in [0_usize, 1, 700, 1013, 4000, 5000, 100_000] {
                let content: Vec<u8> =
                    (0..length).map(|place| (place * 7 % 251).try_into().unwrap()).collect();
                let prefix =
                    if kind == Kind::Head { b"store and epoch".as_slice() } else { b"".as_slice() };
                let mut stored = Vec::new();
                let tag = sealer.seal(kind, number, prefix, &[&content], &mut stored).unwrap();
                inventory.toggle(&mut sum, kind, number, tag);
                contents.push(hex(&sha256(&content)));
                records.push(json!({
                    "kind": kind.name(), "number": number, "prefix": hex(prefix), "stored": hex(&stored),
                }));
                head = stored;
            }
        }
    }

    // What is signed.
    let manifest = Manifest {
        store: STORE,
        epoch: 1,
        commit: 2,
        serial: 3,
        block: [4; 16],
        block_hash: [5; 32],
        checkpoint: 6,
        time: 7,
        counts: Counts { rows: 8, blocks: 9, journal: 10, leaves: 11 },
        inventory: *sum.as_bytes(),
        before: [12; 32],
    };
    let signer = keyring.authority().signer(Purpose::Manifest).unwrap();
    let signed = SignedManifest::sign(manifest, &signer).unwrap();
    fs::write(at("manifest"), signed.to_bytes()).unwrap();
    let attested = Attested {
        store: STORE,
        epoch: 1,
        commit: 2,
        serial: 3,
        block_hash: [5; 32],
        time: 13,
        digest: [14; 32],
    };
    // Known is the signer before the rotation, who signed the one that follows.
    let successions = keyring.successions().unwrap();
    let succession = successions.into_iter().find(|it| it.to.purpose() == Purpose::Manifest);
    let succession = succession.unwrap();
    let known = succession.from.id();
    let mut former = Successions::default();
    former.note(succession);
    fs::write(at("former"), former.to_bytes()).unwrap();
    let attestation = Attestation::sign(attested, &signer, former).unwrap();
    fs::write(at("attestation"), attestation.to_string()).unwrap();

    // A pin that was advanced.
    let pin_key = PinKey::new(keyring.authority());
    let anchor = pin_key.anchor(&[5; 32]);
    let mark = |commit| Mark {
        store: STORE,
        epoch: 1,
        commit,
        serial: 3,
        head: Mark::head(&head),
        anchor,
        signer: signer.public().id(),
    };
    let mut pin = FilePin::create(&at("pin"), pin_key).unwrap();
    pin.advance(None, &mark(9)).unwrap();
    pin.advance(Some(&mark(9)), &mark(10)).unwrap();
    pin.advance(Some(&mark(10)), &mark(12)).unwrap();

    let case = json!({
        "identity": *root.to_text(),
        "recipient": escrow.recipient().to_string(),
        "passphrase": passphrase,
        "records": records,
        "signer": hex(signer.public().id().as_bytes()),
        "known_signer": hex(known.as_bytes()),
        "head": hex(&head),
        "block_hash": hex(&[5; 32]),
    });
    fs::write(at("case.json"), case.to_string()).unwrap();
    let output = reader(&[folder.path()]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ids: Vec<_> = keyring.hash_keys().iter().map(|key| hex(&key.id())).collect();
    let expected = json!({
        "generation": 2,
        "before": hex(&before),
        "recipient": escrow.recipient().fingerprint().to_string(),
        "versions": [1, 2],
        "next_version": 3,
        "leaving": 1,
        "hash_key_ids": ids,
        "passphrase_generation": 1,
        "contents": contents,
        "inventory": hex(sum.as_bytes()),
        "manifest": {
            "store": hex(&STORE), "epoch": 1, "commit": 2, "serial": 3,
            "block": hex(&[4; 16]), "block_hash": hex(&[5; 32]), "checkpoint": 6, "time": 7,
            "rows": 8, "blocks": 9, "journal": 10, "leaves": 11,
            "inventory": hex(sum.as_bytes()), "before": hex(&[12; 32]),
        },
        "attestation": [hex(&[14; 32]), 1],
        "former_signers": 1,
        "pin": [
            hex(&STORE), "1", "12", "3", hex(&Mark::head(&head)), hex(&anchor),
            signer.public().id().to_string(),
        ],
        "head_mark": hex(&Mark::head(&head)),
        "anchor": hex(&anchor),
    });
    assert_eq!(found, expected);
}
