#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use std::fs;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::keyring::{Identity, Keyring, Rotation};
use crate::random::SystemRandom;
use crate::signature::SignerId;

const STORE: [u8; 16] = [7; 16];

fn keyring() -> Keyring {
    let root = Identity::draw(&SystemRandom).unwrap();
    Keyring::first(STORE, root.recipient().clone(), None, 0, &SystemRandom).unwrap()
}

fn key() -> PinKey {
    PinKey::new(keyring().authority())
}

fn mark(commit: u64) -> Mark {
    Mark {
        store: STORE,
        epoch: 1,
        commit,
        serial: commit / 2,
        head: [commit as u8; 32],
        anchor: [2; 32],
        signer: SignerId::from_bytes([3; 32]),
    }
}

/// Does to slots what a pin does to its file.
fn apply(key: &PinKey, slots: &mut Slots, from: Option<u64>, to: u64) -> Result<()> {
    match advance(key, slots, from.map(mark).as_ref(), &mark(to))? {
        Step::Write { slot, bytes } => slots[slot] = bytes,
        Step::Done => {}
    }
    Ok(())
}

#[test]
fn a_line_comes_back() {
    let key = key();
    let line = key.line(&mark(3));
    assert_eq!(key.parse(&line).unwrap(), mark(3));
    let fields: Vec<_> = line.split(' ').collect();
    assert_eq!(fields[..3], ["ghostwire-store", "pin", "1"]);
    assert_eq!(fields[3..7], ["07".repeat(16).as_str(), "1", "3", "1"]);
    assert_eq!(fields.len(), 11);
    assert!(line.len() < mark::LONGEST_LINE);
}

#[test]
fn a_line_with_any_other_field_is_refused() {
    let keyring = keyring();
    let key = PinKey::new(keyring.authority());
    let line = key.line(&mark(3));
    for place in 0..line.len() {
        let mut bytes = line.clone().into_bytes();
        bytes[place] ^= 1;
        let changed = String::from_utf8(bytes).unwrap();
        key.parse(&changed).unwrap_err();
    }
    for changed in [format!("{line} "), format!(" {line}"), line.to_uppercase(), String::new()] {
        assert!(matches!(key.parse(&changed), Err(Error::Corrupt { .. })), "{changed}");
    }
    let later = line.replacen("pin 1", "pin 2", 1);
    assert!(matches!(key.parse(&later), Err(Error::Newer { .. })));
    let renewed = keyring.rotate(Rotation::Leaked, 0, &SystemRandom).unwrap();
    // By another key: what it says is told, and vouched for by nothing.
    match PinKey::new(renewed.authority()).parse(&line) {
        Err(Error::OtherPinKey { mark: found }) => assert_eq!(*found, mark(3)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_anchor_is_of_its_block_and_key() {
    let (one, other) = (key(), key());
    assert_eq!(one.anchor(&[1; 32]), one.anchor(&[1; 32]));
    assert_ne!(one.anchor(&[1; 32]), one.anchor(&[2; 32]));
    assert_ne!(one.anchor(&[1; 32]), other.anchor(&[1; 32]));
}

#[test]
fn slots_are_written_in_turn_and_the_newest_counts() {
    let (key, mut slots) = (key(), [[0; SLOT]; 2]);
    assert_eq!(newest(&key, &slots).unwrap(), None);
    let mut from = None;
    // Also two commits at a time, which by parity would fall on the newest.
    for (to, slot) in [(1, 0), (2, 1), (4, 0), (6, 1), (8, 0)] {
        apply(&key, &mut slots, from, to).unwrap();
        assert_eq!(newest(&key, &slots).unwrap(), Some((slot, mark(to))));
        from = Some(to);
    }
    // Doing it again does nothing: an answer that was lost.
    assert_eq!(advance(&key, &slots, Some(&mark(6)), &mark(8)).unwrap(), Step::Done);
}

#[test]
fn a_pin_is_compared_and_goes_forward_only() {
    let (key, mut slots) = (key(), [[0; SLOT]; 2]);
    let fenced = |slots: &Slots, from: Option<u64>, to| match advance(
        &key,
        slots,
        from.map(mark).as_ref(),
        &mark(to),
    ) {
        Err(Error::Fenced { holds, expected }) => (holds, expected),
        other => panic!("{other:?}"),
    };
    assert_eq!(fenced(&slots, Some(1), 2), (None, Some(1)));
    apply(&key, &mut slots, None, 5).unwrap();
    assert_eq!(fenced(&slots, None, 6), (Some(5), None));
    assert_eq!(fenced(&slots, Some(4), 6), (Some(5), Some(4)));
    for to in [
        mark(4),
        Mark { head: [9; 32], ..mark(5) },
        Mark { store: [8; 16], ..mark(6) },
        Mark { epoch: 0, ..mark(6) },
    ] {
        let refused = advance(&key, &slots, Some(&mark(5)), &to);
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{to:?}");
    }
    // A later epoch may have fewer commits: a rollback that was accepted.
    let accepted = Mark { epoch: 2, ..mark(3) };
    assert!(matches!(
        advance(&key, &slots, Some(&mark(5)), &accepted),
        Ok(Step::Write { slot: 1, .. })
    ));
    // The same commit with another head is another mark.
    let other = Mark { head: [9; 32], ..mark(5) };
    let refused = advance(&key, &slots, Some(&other), &mark(6));
    assert!(matches!(refused, Err(Error::Fenced { .. })));
}

/// A write that was torn after any byte leaves the mark before or has the new one.
#[test]
fn a_torn_slot_does_not_count() {
    let (key, mut slots) = (key(), [[0; SLOT]; 2]);
    apply(&key, &mut slots, None, 1).unwrap();
    apply(&key, &mut slots, Some(1), 2).unwrap();
    let Ok(Step::Write { slot, bytes }) = advance(&key, &slots, Some(&mark(2)), &mark(3)) else {
        panic!("not written");
    };
    let length = bytes.iter().position(|&byte| byte == 0).unwrap();
    for torn in (0..=length).chain([SLOT]) {
        let mut after = slots;
        after[slot][..torn].copy_from_slice(&bytes[..torn]);
        let (_, found) = newest(&key, &after).unwrap().unwrap();
        assert!(found == mark(2) || found == mark(3), "{torn}");
        if torn >= length {
            assert_eq!(found, mark(3));
        }
        // And it goes on from there.
        let next = if found == mark(2) { mark(3) } else { mark(4) };
        advance(&key, &after, Some(&found), &next).unwrap();
    }
    // The first mark ever, torn: there is something, and it is no mark.
    let mut first = [[0; SLOT]; 2];
    first[0][0] = b'g';
    assert!(matches!(newest(&key, &first), Err(Error::Corrupt { .. })));
}

fn standing() -> Standing {
    Standing {
        store: STORE,
        epoch: 1,
        commit: 5,
        head: mark(5).head,
        pinned: true,
        overridden: None,
        signers: Signers { current: mark(5).signer, before: None, since_now: false },
    }
}

/// Every row of the table of crashes and attacks.
#[test]
fn the_decision_at_open() {
    let same = Anchor::Is(mark(5).anchor);
    let other = Anchor::Is([0; 32]);
    let verdict = |standing: Standing, pin: Option<Mark>, anchor| {
        decide(&standing, true, pin.as_ref(), anchor)
    };
    let at = |commit| Standing { commit, head: mark(commit).head, ..standing() };
    // Before COMMIT is durable; after the pin, before the answer.
    assert_eq!(verdict(at(5), Some(mark(5)), same), Verdict::Equal);
    // After COMMIT, before or within the pin; the outcome of COMMIT unknown, and it was stored.
    assert_eq!(verdict(at(6), Some(mark(5)), same), Verdict::Ahead { by: 1 });
    assert_eq!(verdict(at(9), Some(mark(5)), same), Verdict::Ahead { by: 4 });
    // A log that was cut, an old copy, an old disk.
    assert_eq!(verdict(at(3), Some(mark(5)), same), Verdict::RolledBack { by: 2 });
    assert_eq!(verdict(at(3), Some(mark(5)), Anchor::Missing), Verdict::RolledBack { by: 2 });
    // Another history: ahead without the block, with another, or equal with another head.
    assert_eq!(verdict(at(6), Some(mark(5)), other), Verdict::Forked);
    assert_eq!(verdict(at(6), Some(mark(5)), Anchor::Missing), Verdict::Forked);
    let forked = Standing { head: [0; 32], ..at(5) };
    assert_eq!(verdict(forked, Some(mark(5)), same), Verdict::Forked);
    // No pin where there should be one; none yet; none at all.
    assert_eq!(verdict(at(5), None, Anchor::Missing), Verdict::Missing);
    let unpinned = Standing { pinned: false, ..at(5) };
    assert_eq!(decide(&at(5), false, None, Anchor::Missing), Verdict::Missing);
    assert_eq!(verdict(unpinned, None, Anchor::Missing), Verdict::First);
    assert_eq!(decide(&unpinned, false, None, Anchor::Missing), Verdict::Unpinned);
    // A crash between the first mark and the head that says so.
    assert_eq!(verdict(unpinned, Some(mark(5)), same), Verdict::Equal);
    // Another store.
    let foreign = Mark { store: [8; 16], ..mark(5) };
    assert_eq!(verdict(at(5), Some(foreign), same), Verdict::OtherStore);
    // Epochs: an old copy, a new one that follows, one that does not.
    let later = Mark { epoch: 2, ..mark(3) };
    assert_eq!(verdict(at(5), Some(later), same), Verdict::Superseded { epoch: 2 });
    let next = Standing { epoch: 2, ..at(6) };
    assert_eq!(verdict(next, Some(mark(5)), same), Verdict::Ahead { by: 1 });
    assert_eq!(verdict(next, Some(mark(5)), other), Verdict::Forked);
    let next = Standing { epoch: 2, ..at(5) };
    assert_eq!(verdict(next, Some(mark(5)), same), Verdict::Forked);
    let next = Standing { epoch: 2, ..at(3) };
    assert_eq!(verdict(next, Some(mark(5)), same), Verdict::RolledBack { by: 2 });
    // A rollback that was accepted: only over the mark that was accepted, and only in a new epoch.
    let accepted = Standing { overridden: Some(mark(5).head), ..next };
    assert_eq!(verdict(accepted, Some(mark(5)), other), Verdict::Accepted);
    assert_eq!(verdict(accepted, Some(mark(6)), other), Verdict::RolledBack { by: 3 });
    let same_epoch = Standing { epoch: 1, ..accepted };
    assert_eq!(verdict(same_epoch, Some(mark(5)), other), Verdict::RolledBack { by: 2 });
}

#[test]
fn a_mark_of_another_signer_is_refused() {
    let same = Anchor::Is(mark(5).anchor);
    let verdict = |signers, signer| {
        let standing = Standing { signers, ..standing() };
        decide(&standing, true, Some(&Mark { signer, ..mark(5) }), same)
    };
    let [current, before, other] = [3, 4, 5].map(|byte| SignerId::from_bytes([byte; 32]));
    let signers = Signers { current, before: None, since_now: false };
    assert_eq!(verdict(signers, current), Verdict::Equal);
    for signer in [before, other, SignerId::NONE] {
        assert_eq!(verdict(signers, signer), Verdict::OtherSigner);
    }
    let rotating = Signers { before: Some(before), ..signers };
    assert_eq!(verdict(rotating, before), Verdict::Equal);
    assert_eq!(verdict(rotating, other), Verdict::OtherSigner);
    // A pin of before anything was signed.
    let first = Signers { since_now: true, ..signers };
    assert_eq!(verdict(first, SignerId::NONE), Verdict::Equal);
    assert_eq!(verdict(first, other), Verdict::OtherSigner);
    let unsigned = Signers { current: SignerId::NONE, before: None, since_now: false };
    assert_eq!(verdict(unsigned, SignerId::NONE), Verdict::Equal);
    assert_eq!(verdict(unsigned, current), Verdict::OtherSigner);
}

#[test]
fn only_what_agrees_is_served() {
    use Verdict::*;
    for verdict in [Unpinned, First, Equal, Ahead { by: 1 }, Accepted] {
        assert!(verdict.serves(), "{}", verdict.name());
    }
    for verdict in
        [RolledBack { by: 1 }, Superseded { epoch: 2 }, Forked, Missing, OtherStore, OtherSigner]
    {
        assert!(!verdict.serves(), "{}", verdict.name());
    }
}

#[test]
fn a_file_pin_keeps_its_mark() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pin");
    let key = key();
    assert!(FilePin::open(&path, key.clone()).unwrap().is_none());
    let mut pin = FilePin::create(&path, key.clone()).unwrap();
    assert!(FilePin::create(&path, key.clone()).is_err());
    assert!(matches!(FilePin::open(&path, key.clone()), Err(Error::Locked { .. })));
    assert_eq!(pin.read().unwrap(), None);
    for place in [&path, &folder.path().join("not there")] {
        assert_ne!(FilePin::shares_device(place, folder.path()).unwrap(), Some(false));
    }
    pin.advance(None, &mark(1)).unwrap();
    pin.advance(Some(&mark(1)), &mark(2)).unwrap();
    pin.advance(Some(&mark(1)), &mark(2)).unwrap();
    drop(pin);
    assert_eq!(fs::metadata(&path).unwrap().len(), 2 * SLOT as u64);
    let mut pin = FilePin::open(&path, key.clone()).unwrap().unwrap();
    assert_eq!(pin.read().unwrap(), Some(mark(2)));
    // Fenced once, fenced for good.
    assert!(matches!(pin.advance(Some(&mark(1)), &mark(3)), Err(Error::Fenced { .. })));
    assert!(matches!(pin.advance(Some(&mark(2)), &mark(3)), Err(Error::Fenced { .. })));
    drop(pin);
    // Cut to one slot: what is in that counts.
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(SLOT as u64).unwrap();
    let mut pin = FilePin::open(&path, key).unwrap().unwrap();
    assert_eq!(pin.read().unwrap(), Some(mark(1)));
    pin.advance(Some(&mark(1)), &mark(9)).unwrap();
    assert_eq!(pin.read().unwrap(), Some(mark(9)));
    // Of another key.
    drop(pin);
    let mut other = FilePin::open(&path, self::key()).unwrap().unwrap();
    assert!(matches!(other.read(), Err(Error::OtherPinKey { .. })));
    // Given up, whatever it holds, because somebody said so.
    other.replace(&mark(4)).unwrap();
    assert_eq!(other.read().unwrap(), Some(mark(4)));
    other.advance(Some(&mark(4)), &mark(5)).unwrap();
    assert_eq!(other.read().unwrap(), Some(mark(5)));
}

#[test]
fn lines_of_the_protocol() {
    assert_eq!(Request::Read.to_string(), "read");
    let advance = Request::Advance { from: None, to: "a b" };
    assert_eq!(advance.to_string(), "advance none a b");
    let advance = Request::Advance { from: Some("x y code"), to: "a b" };
    assert_eq!(advance.to_string(), "advance code a b");
    for (line, answer) in [
        ("none", Some(Answer::None)),
        ("mark a b", Some(Answer::Mark("a b".to_owned()))),
        ("ok 3", Some(Answer::Ok(3))),
        ("refused 3", Some(Answer::Refused(Some(3)))),
        ("refused none", Some(Answer::Refused(None))),
        ("ok", None),
        ("ok 03", None),
        ("ok +3", None),
        ("ok 3 4", None),
        ("none ", None),
        ("OK 3", None),
        ("", None),
    ] {
        assert_eq!(Answer::parse(line), answer, "{line}");
    }
    assert_eq!(Answer::parse(&"x".repeat(2000)), None);
}

/// A program of the shell that keeps its line in a file, which a real one syncs.
#[cfg(unix)]
mod commands {
    use super::*;

    const KEEPER: &str = r#"
        while read -r word rest; do
            held=none code=none commit=none
            if [ -s "$1" ]; then read -r held < "$1"; code=${held##* }; set -- "$1" $held; commit=$7; fi
            case $word in
            read) if [ "$held" = none ]; then echo none; else echo "mark $held"; fi ;;
            advance)
                from=${rest%% *} line=${rest#* }
                if [ "$from" = "$code" ]; then
                    echo "$line" > "$1"; set -- "$1" $line; echo "ok $7"
                else echo "refused $commit"; fi ;;
            esac
        done
    "#;

    fn command(script: &str, argument: &str) -> CommandPin {
        let arguments = ["-c", script, "pin", argument].map(str::to_owned);
        CommandPin::new("/bin/sh".as_ref(), &arguments, key()).unwrap()
    }

    #[test]
    fn a_program_keeps_the_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("line");
        let mut pin = command(KEEPER, path.to_str().unwrap());
        assert_eq!(pin.read().unwrap(), None);
        pin.advance(None, &mark(1)).unwrap();
        pin.advance(Some(&mark(1)), &mark(2)).unwrap();
        assert_eq!(pin.read().unwrap(), Some(mark(2)));
        match pin.advance(Some(&mark(1)), &mark(3)) {
            Err(Error::Fenced { holds: Some(2), expected: Some(1) }) => {}
            other => panic!("{other:?}"),
        }
        assert!(matches!(pin.advance(Some(&mark(2)), &mark(3)), Err(Error::Fenced { .. })));
        assert_eq!(pin.read().unwrap(), Some(mark(2)));
        // Held for another key.
        let mut other = command(KEEPER, path.to_str().unwrap());
        assert!(matches!(other.read(), Err(Error::OtherPinKey { .. })));
        other.replace(&mark(7)).unwrap();
        assert_eq!(other.read().unwrap(), Some(mark(7)));
    }

    #[test]
    fn a_program_that_fails_is_unavailable_and_started_again() {
        for script in [
            "exit 1",
            "read line; exit 0",
            "read line; echo nonsense; read line",
            "read line; printf none; exit 0",
            "read line; head -c 5000 /dev/zero; sleep 5",
            "read line; echo ok 7; read line",
        ] {
            let mut pin = command(script, "").with_patience(Duration::from_secs(2));
            for _ in 0..2 {
                assert!(matches!(pin.read(), Err(Error::PinUnavailable { .. })), "{script}");
                let refused = pin.advance(Some(&mark(1)), &mark(2));
                assert!(matches!(refused, Err(Error::PinUnavailable { .. })), "{script}");
            }
        }
        let mut missing = CommandPin::new("/nowhere/pin".as_ref(), &[], key()).unwrap();
        assert!(matches!(missing.read(), Err(Error::Io { .. })));
        assert!(CommandPin::new("pin".as_ref(), &[], key()).is_err());
    }

    /// Its late answer is not taken for that of the next question.
    #[test]
    fn a_program_that_is_late_is_given_up() {
        let script = "read line; sleep 1; echo none; read line; echo none";
        let mut pin = command(script, "").with_patience(Duration::from_millis(100));
        for _ in 0..2 {
            assert!(matches!(pin.read(), Err(Error::PinUnavailable { .. })));
        }
    }

    #[test]
    fn a_program_has_no_environment() {
        let folder = tempfile::tempdir().unwrap();
        let seen = folder.path().join("seen");
        let script = r#"read line; { echo "path=$HOME,$CARGO_MANIFEST_DIR,$USER"; } > "$1"; echo none; read line"#;
        let mut pin = command(script, seen.to_str().unwrap());
        assert_eq!(pin.read().unwrap(), None);
        assert_eq!(fs::read_to_string(seen).unwrap(), "path=,,\n");
    }
}

proptest! {
    #[test]
    fn any_flipped_bit_of_a_pin_is_refused_or_harmless(place in 0..2 * SLOT, bit in 0..8_u32) {
        let (key, mut slots) = (key(), [[0; SLOT]; 2]);
        apply(&key, &mut slots, None, 1).unwrap();
        apply(&key, &mut slots, Some(1), 2).unwrap();
        slots[place / SLOT][place % SLOT] ^= 1 << bit;
        // The slot that is hit does not count; never another mark.
        let found = newest(&key, &slots).unwrap().unwrap();
        prop_assert_eq!(found, if place < SLOT { (1, mark(2)) } else { (0, mark(1)) });
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..SLOT), line in ".*", text in "ghostwire-store pin 1( [0-9a-f]{1,64}){7,9}",
    ) {
        let (key, mut slots) = (key(), [[0; SLOT]; 2]);
        slots[0][..bytes.len()].copy_from_slice(&bytes);
        let _ = newest(&key, &slots);
        prop_assert!(key.parse(&line).is_err() && key.parse(&text).is_err());
        let _ = Answer::parse(&line);
    }
}
