#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use proptest::prelude::*;

use super::*;
use crate::random::SystemRandom;

fn signer(purpose: Purpose) -> Signer {
    Signer::new(purpose, &Seeds::draw(&SystemRandom).unwrap()).unwrap()
}

fn manifest() -> Manifest {
    Manifest {
        store: [1; 16],
        epoch: 2,
        commit: 3,
        serial: 4,
        block: [5; 16],
        block_hash: [6; 32],
        checkpoint: 7,
        time: 8,
        counts: Counts { rows: 9, blocks: 10, journal: 11, leaves: 12 },
        inventory: [13; 32],
        before: [14; 32],
    }
}

fn attested() -> Attested {
    let Manifest { store, epoch, commit, serial, block_hash, time, .. } = manifest();
    Attested { store, epoch, commit, serial, block_hash, time, digest: [15; 32] }
}

#[test]
fn a_manifest_comes_back() {
    let signer = signer(Purpose::Manifest);
    let signed = SignedManifest::sign(manifest(), &signer).unwrap();
    let bytes = signed.to_bytes();
    assert_eq!(bytes.len(), SignedManifest::LENGTH);
    let parsed = SignedManifest::parse(&bytes).unwrap();
    assert_eq!(parsed, signed);
    assert_eq!(parsed.hash(), signed.hash());
    assert_eq!(parsed.verify(signer.public()).unwrap(), &manifest());
}

/// Each field is in what was signed.
#[test]
fn a_manifest_with_any_other_field_is_refused() {
    let signer = signer(Purpose::Manifest);
    let mut signed = SignedManifest::sign(manifest(), &signer).unwrap();
    let changes: [fn(&mut Manifest); 14] = [
        |manifest| manifest.store[0] ^= 1,
        |manifest| manifest.epoch += 1,
        |manifest| manifest.commit += 1,
        |manifest| manifest.serial += 1,
        |manifest| manifest.block[15] ^= 1,
        |manifest| manifest.block_hash[31] ^= 1,
        |manifest| manifest.checkpoint += 1,
        |manifest| manifest.time += 1,
        |manifest| manifest.counts.rows += 1,
        |manifest| manifest.counts.blocks += 1,
        |manifest| manifest.counts.journal += 1,
        |manifest| manifest.counts.leaves += 1,
        |manifest| manifest.inventory[0] ^= 1,
        |manifest| manifest.before[0] ^= 1,
    ];
    for change in changes {
        signed.manifest = manifest();
        change(&mut signed.manifest);
        assert!(matches!(signed.verify(signer.public()), Err(Error::Unsigned { .. })));
    }
}

#[test]
fn both_signatures_must_hold() {
    let (one, other) = (signer(Purpose::Store), signer(Purpose::Store));
    let sign = |signer: &Signer| signer.sign(Subject::Keyring, b"body").unwrap();
    let (right, wrong) = (sign(&one), sign(&other));
    let verify = |signature: &Signature| {
        one.public().verify("keyring", Subject::Keyring, b"body", signature)
    };
    verify(&right).unwrap();
    let half = Signature { ed25519: right.ed25519, ml_dsa: wrong.ml_dsa.clone() };
    assert!(matches!(verify(&half), Err(Error::Unsigned { why: "ML-DSA-65", .. })));
    let half = Signature { ed25519: wrong.ed25519, ml_dsa: right.ml_dsa };
    assert!(matches!(verify(&half), Err(Error::Unsigned { why: "Ed25519", .. })));
}

/// A pair of which one key is replaced signs other bytes, so neither of its halves is of use.
#[test]
fn a_signature_does_not_hold_under_a_pair_with_another_partner() {
    let (one, other) = (signer(Purpose::Store), signer(Purpose::Store));
    let signature = one.sign(Subject::Keyring, b"body").unwrap();
    let mut keys = one.public().clone();
    keys.ml_dsa = other.public().ml_dsa.clone();
    let refused = keys.verify("keyring", Subject::Keyring, b"body", &signature);
    assert!(matches!(refused, Err(Error::Unsigned { why: "Ed25519", .. })));
}

#[test]
fn a_signature_holds_for_its_purpose_and_subject_only() {
    let seeds = Seeds::draw(&SystemRandom).unwrap();
    let [one, other] =
        [Purpose::Store, Purpose::Manifest].map(|purpose| Signer::new(purpose, &seeds).unwrap());
    let signature = one.sign(Subject::Keyring, b"body").unwrap();
    one.public().verify("", Subject::Keyring, b"body", &signature).unwrap();
    other.public().verify("", Subject::Keyring, b"body", &signature).unwrap_err();
    one.public().verify("", Subject::Manifest, b"body", &signature).unwrap_err();
    one.public().verify("", Subject::Keyring, b"bod", &signature).unwrap_err();
    assert_ne!(one.public().id(), other.public().id());
}

#[test]
fn a_new_key_is_signed_by_the_old() {
    let (old, new) = (signer(Purpose::Store), signer(Purpose::Store));
    let signature = old.sign_successor(new.public()).unwrap();
    old.public().verify_successor(new.public(), &signature).unwrap();
    old.public().verify_successor(old.public(), &signature).unwrap_err();
    new.public().verify_successor(new.public(), &signature).unwrap_err();
}

#[test]
fn public_keys_and_their_fingerprint_come_back_as_text() {
    let keys = signer(Purpose::Manifest).public().clone();
    assert_eq!(keys.to_string().parse::<PublicKeys>().unwrap(), keys);
    assert_eq!(keys.id().to_string().parse::<SignerId>().unwrap(), keys.id());
    for text in ["", "ghostwire-store signer 1", "ghostwire-store signer 2 manifest AAAA"] {
        assert!(text.parse::<PublicKeys>().is_err(), "{text}");
        assert!(text.parse::<SignerId>().is_err(), "{text}");
    }
    assert!(keys.id().to_string().to_uppercase().parse::<SignerId>().is_err());
}

#[test]
fn an_attestation_comes_back_as_text() {
    let signer = signer(Purpose::Manifest);
    let id = signer.public().id();
    let text = Attestation::sign(attested(), &signer, Successions::default()).unwrap().to_string();
    let read: Attestation = text.parse().unwrap();
    let attested = attested();
    let verified = Verified { attested: &attested, signer: id, successions: 0 };
    assert_eq!(read.verify(id).unwrap(), verified);
    assert_eq!(read.to_string(), text);
    let windows: Attestation = text.replace('\n', "\r\n").parse().unwrap();
    assert_eq!(windows, read);
    let other = SignerId::from_bytes([0; 32]);
    assert!(matches!(read.verify(other), Err(Error::Unsigned { .. })));
}

#[test]
fn an_attestation_with_another_line_is_refused() {
    let signer = signer(Purpose::Manifest);
    let id = signer.public().id();
    let text = Attestation::sign(attested(), &signer, Successions::default()).unwrap().to_string();
    for line in ["epoch 2", "commit 3", "serial 4", "time 8"] {
        for other in
            [format!("{line}0"), line.replace(' ', " 0"), line.replace(' ', " +"), String::new()]
        {
            let changed = text.replace(&format!("{line}\n"), &format!("{other}\n"));
            assert!(
                changed.parse::<Attestation>().is_err_and(|_| true)
                    || changed.parse::<Attestation>().unwrap().verify(id).is_err(),
                "{other}"
            );
        }
    }
    for (from, to) in [("0101", "0102"), ("0606", "0607"), ("0f0f", "0f0e"), ("manifest", "store")]
    {
        let changed: Attestation = text.replacen(from, to, 1).parse().unwrap();
        changed.verify(id).unwrap_err();
    }
    assert!((text + "more\n").parse::<Attestation>().is_err());
}

fn succession(from: &Signer, to: &Signer) -> Succession {
    let signature = from.sign_successor(to.public()).unwrap();
    Succession { from: from.public().clone(), to: to.public().clone(), signature }
}

#[test]
fn who_knows_a_former_signer_follows_to_the_one_that_signed() {
    let [first, second, third] = [(); 3].map(|()| signer(Purpose::Manifest));
    let mut former = Successions::default();
    assert!(former.note(succession(&first, &second)));
    assert!(former.note(succession(&second, &third)));
    assert!(!former.note(succession(&second, &third)));
    assert_eq!(Successions::parse(&former.to_bytes()).unwrap(), former);
    let text = Attestation::sign(attested(), &third, former.clone()).unwrap().to_string();
    let read: Attestation = text.parse().unwrap();
    assert_eq!(read.to_string(), text);
    for (steps, known) in [(0, &third), (1, &second), (2, &first)] {
        let verified = read.verify(known.public().id()).unwrap();
        assert_eq!((verified.successions, verified.signer), (steps, third.public().id()));
    }
    let stranger = signer(Purpose::Manifest);
    assert!(matches!(read.verify(stranger.public().id()), Err(Error::Unsigned { .. })));
    // A link that somebody put in, and one that leads elsewhere.
    let mut forged = Successions::default();
    forged.note(Succession { from: first.public().clone(), ..succession(&stranger, &third) });
    let forged = Attestation::sign(attested(), &third, forged).unwrap();
    assert!(matches!(forged.verify(first.public().id()), Err(Error::Unsigned { .. })));
    let elsewhere = Attestation::sign(attested(), &stranger, former.clone()).unwrap();
    assert!(matches!(elsewhere.verify(first.public().id()), Err(Error::Unsigned { .. })));
    let torn = former.to_bytes();
    assert!(Successions::parse(torn.get(1..).unwrap()).is_err());
}

#[test]
fn the_oldest_of_too_many_signers_are_forgotten() {
    let keys: Vec<_> = (0..=Successions::MOST).map(|_| signer(Purpose::Manifest)).collect();
    let last = signer(Purpose::Manifest);
    let mut former = Successions::default();
    for (from, to) in keys.iter().zip(keys.iter().skip(1).chain([&last])) {
        former.note(succession(from, to));
    }
    assert_eq!(former.len(), Successions::MOST);
    assert!(former.follow(keys[0].public().id(), last.public()).is_err());
    assert_eq!(former.follow(keys[1].public().id(), last.public()).unwrap(), Successions::MOST);
    let text = Attestation::sign(attested(), &last, former).unwrap().to_string();
    text.parse::<Attestation>().unwrap();
}

/// Keys and signature, too; only the end of the last line may be another one.
#[test]
fn an_attestation_with_any_other_character_is_refused() {
    let signer = signer(Purpose::Manifest);
    let id = signer.public().id();
    let signed = Attestation::sign(attested(), &signer, Successions::default()).unwrap();
    let text = signed.to_string();
    for place in 0..text.len() - 1 {
        let mut changed = text.clone().into_bytes();
        changed[place] ^= 1;
        let changed = String::from_utf8(changed).unwrap().parse::<Attestation>();
        assert!(changed.is_err() || changed.unwrap().verify(id).is_err(), "{place}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_flipped_bit_of_a_signature_record_is_refused(
        place: prop::sample::Index, bit in 0..8_u32,
    ) {
        let signer = signer(Purpose::Manifest);
        let mut bytes = SignedManifest::sign(manifest(), &signer).unwrap().to_bytes();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let parsed = SignedManifest::parse(&bytes).unwrap();
        prop_assert!(parsed.verify(signer.public()).is_err());
    }

    #[test]
    fn any_bytes_parse_or_do_not(bytes in prop::collection::vec(any::<u8>(), 0..5000), text in ".*") {
        let _ = SignedManifest::parse(&bytes);
        let _ = text.parse::<Attestation>();
    }
}
