#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::random::SystemRandom;
use crate::secret::Secret;

const STORE: [u8; 16] = [7; 16];
const ANY: Expected = Expected { store: None, generation: 0 };

struct Fixture {
    root: Identity,
    keyring: Keyring,
    file: Vec<u8>,
}

fn open(file: &[u8], identity: &Identity) -> Result<Keyring> {
    Keyring::open(file, Unlock::Identity(identity), &ANY)
}

/// Writes a change and opens it.
fn stored(changed: &Keyring, identity: &Identity) -> (Keyring, Vec<u8>) {
    let file = changed.seal(&SystemRandom).unwrap();
    (open(&file, identity).unwrap(), file)
}

fn fixture() -> Fixture {
    let root = Identity::draw(&SystemRandom).unwrap();
    let first = Keyring::first(STORE, root.recipient().clone(), None, 5, &SystemRandom).unwrap();
    let (keyring, file) = stored(&first, &root);
    assert_eq!(keyring.content, first.content);
    Fixture { root, keyring, file }
}

#[test]
fn a_keyring_comes_back() {
    let Fixture { root, keyring, file } = fixture();
    assert_eq!((keyring.store(), keyring.generation(), keyring.before()), (&STORE, 1, &[0; 32]));
    assert_eq!(keyring.file_hash(), Some(&sha256(&[&file])));
    assert_eq!(keyring.active().unwrap().version(), 1);
    assert_eq!(keyring.active().unwrap().since(), 5);
    assert!(file.len() < LONGEST_FILE);
    let header = Keyring::header(&file).unwrap();
    assert_eq!((header.store, header.generation), (STORE, 1));
    assert_eq!(header.versions, [1]);
    assert_eq!(header.recipients, [root.recipient().fingerprint()]);
    let signer = keyring.authority().signer(Purpose::Store).unwrap();
    assert_eq!(header.signer, signer.public().id());
    // Never twice the same bytes.
    assert_ne!(keyring.seal(&SystemRandom).unwrap(), file);
}

#[test]
fn a_full_keyring_fits() {
    let Fixture { root, mut keyring, .. } = fixture();
    for number in 1..MOST_RECIPIENTS {
        let recipient = Identity::draw(&SystemRandom).unwrap().recipient().clone();
        keyring = keyring.add_recipient(recipient, &format!("{number:064}")).unwrap();
    }
    for _ in 1..MOST_HASH_KEYS {
        keyring = keyring.rotate_hash_key(6, &SystemRandom).unwrap();
    }
    for version in 1..MOST_DATA_KEYS {
        let rotated = keyring.rotate(Rotation::Routine, version as u64, &SystemRandom).unwrap();
        keyring = rotated.finish_rotation().unwrap();
    }
    let one_more = Identity::draw(&SystemRandom).unwrap().recipient().clone();
    assert!(matches!(keyring.add_recipient(one_more, ""), Err(Error::Refused { .. })));
    assert!(matches!(keyring.rotate_hash_key(6, &SystemRandom), Err(Error::Refused { .. })));
    let rotated = keyring.rotate(Rotation::Leaked, 6, &SystemRandom);
    assert!(matches!(rotated, Err(Error::Refused { .. })));
    let (opened, file) = stored(&keyring, &root);
    assert_eq!(opened.content, keyring.content);
    assert!(file.len() <= LONGEST_FILE, "{}", file.len());
}

#[test]
fn what_is_expected_is_looked_at_first() {
    let Fixture { root, file, .. } = fixture();
    let open = |expected| Keyring::open(&file, Unlock::Identity(&root), &expected).map(|_| ());
    open(Expected { store: Some(STORE), generation: 1 }).unwrap();
    let foreign = open(Expected { store: Some([8; 16]), generation: 0 });
    assert!(matches!(foreign, Err(Error::Foreign { found: Some(STORE), .. })));
    let older = open(Expected { store: Some(STORE), generation: 2 });
    assert!(matches!(older, Err(Error::Older { found: 1, needed: 2 })));
}

#[test]
fn another_identity_or_passphrase_is_named() {
    let Fixture { root, file, .. } = fixture();
    let other = Identity::draw(&SystemRandom).unwrap();
    match open(&file, &other) {
        Err(Error::WrongRecipient { presented, recipients }) => {
            assert_eq!(presented, other.recipient().fingerprint());
            assert_eq!(recipients, [root.recipient().fingerprint()]);
        }
        other => panic!("{other:?}"),
    }
    let without = Keyring::open(&file, Unlock::Passphrase(b"secret"), &ANY);
    assert!(matches!(without, Err(Error::Invalid { .. })));
    let stretch = Stretch::draw(&SystemRandom).unwrap();
    let root = stretch.identity(b"secret").unwrap();
    let recipient = root.recipient().clone();
    let keyring = Keyring::first(STORE, recipient, Some(stretch), 5, &SystemRandom).unwrap();
    let file = keyring.seal(&SystemRandom).unwrap();
    Keyring::open(&file, Unlock::Passphrase(b"secret"), &ANY).unwrap();
    open(&file, &root).unwrap();
    let wrong = Keyring::open(&file, Unlock::Passphrase(b"Secret"), &ANY).unwrap_err();
    assert!(matches!(wrong, Error::WrongKey { .. }));
    assert!(!wrong.to_string().contains("Secret"));
}

#[test]
fn a_rotation_adds_a_version_and_keeps_the_one_before() {
    let Fixture { root, keyring, file } = fixture();
    let rotated = keyring.rotate(Rotation::Routine, 9, &SystemRandom).unwrap();
    assert_eq!(rotated.generation(), 2);
    assert_eq!(rotated.before(), &sha256(&[&file]));
    assert_eq!(rotated.active().unwrap().version(), 2);
    assert_eq!(rotated.leaving().unwrap().version(), 1);
    assert!(rotated.accepts_head_under(1) && rotated.accepts_head_under(2));
    assert!(!rotated.accepts_head_under(3) && !keyring.accepts_head_under(2));
    assert!(rotated.leaving().unwrap().authority().is_none());
    assert_eq!(rotated.authority(), keyring.authority());
    assert_eq!(rotated.data_key(1).unwrap(), keyring.data_key(1).unwrap());
    assert!(rotated.rotate(Rotation::Routine, 9, &SystemRandom).is_err());
    assert!(rotated.destroy(1).is_err());
    let (rotated, _) = stored(&rotated, &root);
    let (finished, _) = stored(&rotated.finish_rotation().unwrap(), &root);
    assert_eq!(finished.generation(), 3);
    assert!(finished.leaving().is_none());
    assert!(finished.accepts_head_under(2) && !finished.accepts_head_under(1));
    assert!(finished.finish_rotation().is_err());
    assert!(finished.destroy(2).is_err());
    let (destroyed, _) = stored(&finished.destroy(1).unwrap(), &root);
    assert!(matches!(destroyed.data_key(1), Err(Error::MissingVersion { version: 1 })));
    assert!(matches!(destroyed.data_key(3), Err(Error::Foreign { .. })));
    assert!(matches!(destroyed.data_key(0), Err(Error::Foreign { .. })));
    assert!(matches!(destroyed.destroy(1), Err(Error::MissingVersion { version: 1 })));
    // Its number is not given again.
    let again = destroyed.rotate(Rotation::Routine, 9, &SystemRandom).unwrap();
    assert_eq!(again.active().unwrap().version(), 3);
}

#[test]
fn a_leak_renews_everything_that_a_forger_needs() {
    let Fixture { root, keyring, .. } = fixture();
    assert!(keyring.successions().unwrap().is_empty());
    let rotated = keyring.rotate(Rotation::Leaked, 9, &SystemRandom).unwrap();
    let (rotated, _) = stored(&rotated, &root);
    let (old, new) = (keyring.authority(), rotated.authority());
    assert_ne!(old.inventory(), new.inventory());
    assert_ne!(old.pin(), new.pin());
    assert_eq!(rotated.leaving().unwrap().authority(), Some(old));
    let successions = rotated.successions().unwrap();
    assert_eq!(successions.len(), 3);
    for (succession, purpose) in successions.iter().zip(Purpose::ALL) {
        assert_eq!(&succession.from, old.signer(purpose).unwrap().public());
        assert_eq!(&succession.to, new.signer(purpose).unwrap().public());
        assert_ne!(succession.from, succession.to);
        succession.from.verify_successor(&succession.to, &succession.signature).unwrap();
    }
    let finished = rotated.finish_rotation().unwrap();
    assert!(finished.successions().unwrap().is_empty());
}

#[test]
fn recipients_come_and_go() {
    let Fixture { root, keyring, file } = fixture();
    let escrow = Identity::draw(&SystemRandom).unwrap();
    let fingerprint = escrow.recipient().fingerprint();
    assert!(open(&file, &escrow).is_err());
    let added = keyring.add_recipient(escrow.recipient().clone(), "escrow").unwrap();
    let (added, file) = stored(&added, &root);
    assert_eq!(added.members()[1].label(), "escrow");
    assert!(!added.members()[1].is_root());
    assert_eq!(open(&file, &escrow).unwrap().content, added.content);
    assert!(added.add_recipient(escrow.recipient().clone(), "again").is_err());
    for label in ["x".repeat(65), "a\nb".to_owned()] {
        let other = Identity::draw(&SystemRandom).unwrap();
        let refused = keyring.add_recipient(other.recipient().clone(), &label);
        assert!(matches!(refused, Err(Error::Invalid { .. })));
    }
    let removed = added.remove_recipient(fingerprint, 9, &SystemRandom).unwrap();
    let (removed, file) = stored(&removed, &root);
    assert!(matches!(open(&file, &escrow), Err(Error::WrongRecipient { .. })));
    assert_eq!(removed.active().unwrap().version(), 2);
    assert_ne!(removed.authority(), added.authority());
    let gone = removed.finish_rotation().unwrap();
    assert!(gone.remove_recipient(fingerprint, 9, &SystemRandom).is_err());
    let of_root = root.recipient().fingerprint();
    assert!(gone.remove_recipient(of_root, 9, &SystemRandom).is_err());
}

#[test]
fn a_root_is_replaced() {
    let Fixture { root, keyring, .. } = fixture();
    let new = Identity::draw(&SystemRandom).unwrap();
    let changed = keyring.change_root(new.recipient().clone(), None).unwrap();
    let file = changed.seal(&SystemRandom).unwrap();
    assert!(matches!(open(&file, &root), Err(Error::WrongRecipient { .. })));
    let opened = open(&file, &new).unwrap();
    assert_eq!(opened.data_keys(), keyring.data_keys());
    assert!(opened.members()[0].is_root());
    assert_eq!(opened.members().len(), 1);
    assert!(opened.change_root(new.recipient().clone(), None).is_err());
}

#[test]
fn keys_that_hash_credentials_have_versions() {
    let Fixture { root, keyring, .. } = fixture();
    let taken = keyring.take_hash_key(Secret::copy_of(&[9; 32]), 6).unwrap();
    let (taken, _) = stored(&taken, &root);
    let newest = taken.hash_keys().last().unwrap();
    assert_eq!((newest.number(), newest.since(), newest.key().expose()), (2, 6, &[9; 32]));
    assert!(matches!(
        taken.take_hash_key(Secret::copy_of(&[9; 32]), 6),
        Err(Error::Invalid { .. })
    ));
    assert!(taken.retire_hash_key(2).is_err());
    assert!(taken.retire_hash_key(3).is_err());
    let retired = taken.retire_hash_key(1).unwrap();
    assert_eq!(retired.hash_keys().len(), 1);
    let again = retired.rotate_hash_key(6, &SystemRandom).unwrap();
    assert_eq!(again.hash_keys().last().unwrap().number(), 3);
}

#[test]
fn changes_before_one_is_written_are_one_generation() {
    let Fixture { keyring, file, .. } = fixture();
    let changed = keyring.rotate_hash_key(6, &SystemRandom).unwrap();
    let changed = changed.rotate(Rotation::Routine, 6, &SystemRandom).unwrap();
    assert_eq!(changed.generation(), 2);
    assert_eq!(changed.before(), &sha256(&[&file]));
    assert_eq!(changed.file_hash(), None);
}

/// A file from parts of others, under any file key that the attacker likes.
struct Splice<'a> {
    content: &'a Content,
    header: Vec<u8>,
    recipients: Vec<&'a Recipient>,
    signer: &'a Authority,
}

impl Splice<'_> {
    fn seal(&self) -> Vec<u8> {
        let file_key = [1; FILE_KEY];
        let payload = age::seal(&file_key, &self.content.encode().unwrap(), &SystemRandom).unwrap();
        let mut draft = Draft::new();
        draft.push(&Stanza::new(&[HEADER, FORM], &self.header));
        for recipient in &self.recipients {
            draft.push_recipient(recipient, &file_key, &SystemRandom).unwrap();
        }
        let body = sha256(&[draft.as_bytes(), &payload]);
        let signer = self.signer.signer(Purpose::Store).unwrap();
        let signature = signer.sign(Subject::Keyring, &body).unwrap();
        draft.push(&Stanza::new(&[SIGNATURE, FORM], &signature.to_bytes()));
        draft.finish(&file_key, &payload).unwrap()
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let Fixture { root, keyring, .. } = fixture();
    let other = fixture();
    let signer =
        |keyring: &Keyring| keyring.authority().signer(Purpose::Store).unwrap().public().id();
    let header = keyring.content.header(signer(&keyring));
    let splice = || Splice {
        content: &keyring.content,
        header: header.clone(),
        recipients: vec![root.recipient()],
        signer: keyring.authority(),
    };
    open(&splice().seal(), &root).unwrap();
    // Sealed to one more, whom the content does not name.
    let recipients = vec![root.recipient(), other.root.recipient()];
    let refused = open(&Splice { recipients, ..splice() }.seal(), &root);
    assert!(matches!(refused, Err(Error::Spliced { .. })));
    // A header of another generation, store, version, passphrase, signer or recipient.
    let mut contents = vec![keyring.content.clone(); 5];
    contents[0].generation += 1;
    contents[1].store = [8; 16];
    contents[2].data_keys[0].version = 9;
    contents[3].passphrase = Some(Stretch::draw(&SystemRandom).unwrap());
    contents[4].members.push(other.keyring.content.members[0].clone());
    let mut headers: Vec<_> =
        contents.iter().map(|content| content.header(signer(&keyring))).collect();
    headers.push(keyring.content.header(signer(&other.keyring)));
    for header in headers {
        let refused = open(&Splice { header, ..splice() }.seal(), &root);
        assert!(matches!(refused, Err(Error::Spliced { .. })), "{refused:?}");
    }
    // Signed by somebody else.
    let refused = open(&Splice { signer: other.keyring.authority(), ..splice() }.seal(), &root);
    assert!(matches!(refused, Err(Error::Unsigned { .. })));
}

/// What the attacker of whole files has: public keys, and files that he saw.
#[test]
fn a_file_made_by_somebody_without_the_keys_is_of_no_use_to_him() {
    let victim = fixture();
    // He seals a keyring of his own to the victim: it opens, and holds none of the victim's keys.
    let root = victim.root.recipient().clone();
    let forged = Keyring::first(STORE, root, None, 0, &SystemRandom).unwrap();
    let opened = open(&forged.seal(&SystemRandom).unwrap(), &victim.root).unwrap();
    assert_ne!(opened.data_key(1).unwrap().key(), victim.keyring.data_key(1).unwrap().key());
    let signer =
        |keyring: &Keyring| keyring.authority().signer(Purpose::Store).unwrap().public().id();
    assert_ne!(signer(&opened), signer(&victim.keyring));
    // He takes the victim's header or payload for his own file.
    let forged = forged.seal(&SystemRandom).unwrap();
    let cut = |file: &[u8]| {
        let end = file.windows(5).position(|bytes| bytes == b"\n--- ").unwrap();
        let end = end + 1 + file[end + 1..].iter().position(|&byte| byte == b'\n').unwrap() + 1;
        (file[..end].to_vec(), file[end..].to_vec())
    };
    let ((header, payload), (other_header, other_payload)) = (cut(&victim.file), cut(&forged));
    for file in [[header, other_payload].concat(), [other_header, payload].concat()] {
        assert!(matches!(open(&file, &victim.root), Err(Error::Corrupt { .. })));
    }
}

#[test]
fn a_key_that_was_not_committed_to_is_refused() {
    let Fixture { keyring, .. } = fixture();
    let mut bytes = keyring.content.encode().unwrap();
    let key = *keyring.active().unwrap().key().expose();
    let at = bytes.windows(32).position(|window| window == key).unwrap();
    bytes[at] ^= 1;
    assert!(matches!(Content::decode(&bytes), Err(Error::Spliced { .. })));
}

#[test]
fn later_forms_and_other_files_are_named() {
    let Fixture { root, file, .. } = fixture();
    let replace = |from: &str, to: &str| {
        let at = file.windows(from.len()).position(|bytes| bytes == from.as_bytes()).unwrap();
        [&file[..at], to.as_bytes(), &file[at + from.len()..]].concat()
    };
    let later = replace("ghostwire-store/keyring 1", "ghostwire-store/keyring 2 more");
    assert!(matches!(open(&later, &root), Err(Error::Newer { .. })));
    let later = replace("ghostwire-store/signature 1", "ghostwire-store/signature 2");
    assert!(matches!(open(&later, &root), Err(Error::Newer { .. })));
    for other in [Vec::new(), b"age-encryption.org/v1\n".to_vec(), vec![0; LONGEST_FILE + 1]] {
        assert!(matches!(open(&other, &root), Err(Error::Corrupt { .. })));
    }
    let stanza =
        replace("\n-> ghostwire-store/signature", "\n-> grease\n\n-> ghostwire-store/signature");
    assert!(matches!(open(&stanza, &root), Err(Error::Corrupt { .. })));
}

#[test]
fn figures_of_a_passphrase_are_refused_before_they_cost_anything() {
    let stretch = Stretch::new([0; 16], 64 * 1024, 3, 4).unwrap();
    let root = Identity::draw(&SystemRandom).unwrap();
    let recipient = root.recipient().clone();
    let keyring = Keyring::first(STORE, recipient, Some(stretch), 5, &SystemRandom).unwrap();
    let mut header = keyring.content.header(crate::signature::SignerId::from_bytes([0; 32]));
    assert!(Header::decode(&header).is_some());
    let memory = 64_u32 * 1024;
    let at = header.windows(4).position(|window| window == memory.to_be_bytes()).unwrap();
    header[at] = 0xff;
    assert!(Header::decode(&header).is_none());
}

#[test]
fn a_file_is_replaced_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.keyring");
    let Fixture { root, keyring, file } = fixture();
    let lock = KeyringFile::lock(&path, &path).unwrap();
    assert!(matches!(KeyringFile::lock(&path, &path), Err(Error::Locked { .. })));
    assert_eq!(KeyringFile::read(&path).unwrap(), None);
    // Left by somebody who was killed.
    std::fs::write(folder.path().join("store.keyring.new"), b"half").unwrap();
    let opened = lock.replace(None, &file, |bytes| open(bytes, &root)).unwrap();
    assert_eq!(opened.content, keyring.content);
    assert_eq!(KeyringFile::read(&path).unwrap().as_deref(), Some(file.as_slice()));
    // None is overwritten that was not read.
    let next = keyring.rotate(Rotation::Routine, 9, &SystemRandom).unwrap();
    let next = next.seal(&SystemRandom).unwrap();
    for expected in [None, Some(&[0; 32])] {
        let refused = lock.replace(expected, &next, |bytes| open(bytes, &root));
        assert!(matches!(refused, Err(Error::Refused { .. })));
    }
    // What does not open takes nothing's place.
    let other = Identity::draw(&SystemRandom).unwrap();
    lock.replace(keyring.file_hash(), &next, |bytes| open(bytes, &other)).unwrap_err();
    assert_eq!(KeyringFile::read(&path).unwrap().as_deref(), Some(file.as_slice()));
    lock.replace(keyring.file_hash(), &next, |bytes| open(bytes, &root)).unwrap();
    assert_eq!(KeyringFile::read(&path).unwrap().as_deref(), Some(next.as_slice()));
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["store.keyring", "store.keyring.lock"]);
    drop(lock);
    KeyringFile::lock(&path, &path).unwrap();
    std::fs::write(&path, vec![0; LONGEST_FILE + 1]).unwrap();
    assert!(matches!(KeyringFile::read(&path), Err(Error::Corrupt { .. })));
    assert!(KeyringFile::read(Path::new("/nowhere/at/all")).unwrap().is_none());
}

#[cfg(unix)]
#[test]
fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyring");
    KeyringFile::lock(&path, &path).unwrap().replace(None, b"bytes", |_| Ok(())).unwrap();
    for name in ["keyring", "keyring.lock"] {
        let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn no_error_shows_a_secret() {
    let Fixture { root, file, .. } = fixture();
    let text = root.to_text();
    let shown = format!("{root:?} {:?}", Unlock::Passphrase(b"hunter2"));
    assert!(!shown.contains(&*text) && !shown.contains("hunter2"));
    let refused = Identity::from_text(text.replace('Q', "q")).unwrap_err().to_string();
    assert!(!refused.contains(&text[20..40]));
    let refused = Keyring::open(&file, Unlock::Passphrase(b"hunter2"), &ANY).unwrap_err();
    assert!(!format!("{refused} {refused:?}").contains("hunter2"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_flipped_bit_of_a_keyring_is_refused(place: prop::sample::Index, bit in 0..8_u32) {
        thread_local!(static FIXTURE: Fixture = fixture());
        let refused = FIXTURE.with(|Fixture { root, file, .. }| {
            let mut file = file.clone();
            let place = place.index(file.len());
            file[place] ^= 1 << bit;
            open(&file, root).is_err()
        });
        prop_assert!(refused);
    }

    #[test]
    fn a_keyring_cut_anywhere_is_refused(place: prop::sample::Index) {
        thread_local!(static FIXTURE: Fixture = fixture());
        let refused = FIXTURE.with(|Fixture { root, file, .. }| {
            open(&file[..place.index(file.len())], root).is_err()
        });
        prop_assert!(refused);
    }

    #[test]
    fn any_content_decodes_or_does_not(mut bytes in prop::collection::vec(any::<u8>(), 0..300), titled: bool) {
        if titled {
            bytes.splice(0..0, *b"ghostwire-store keyring 1\n");
        }
        let _ = Content::decode(&bytes);
        let _ = Header::decode(&bytes);
        let _ = File::parse(&bytes);
    }
}
