//! `seal` and `unseal` that are killed at any moment: the store is what it was or what it was to become, whole,
//! and the next call goes on.
//!
//! `GHOSTWIRE_SEAL_KILLS` says how many; there are some in any case.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Place, command_in, portable, user};

/// What a conversion shows of itself; it is killed as soon as it does.
#[derive(Debug, Clone, Copy)]
enum Sign {
    Lock,
    Keyring,
    /// So many KiB of the new file are written.
    Copy(u64),
    /// The new file took the place of the old one.
    Replaced,
    /// The hash key's file comes or goes.
    Key,
    /// So many looks later than the start.
    Looks(u32),
}

const SIGNS: [Sign; 10] = [
    Sign::Looks(0),
    Sign::Lock,
    Sign::Keyring,
    Sign::Copy(0),
    Sign::Copy(64),
    Sign::Copy(200),
    Sign::Replaced,
    Sign::Key,
    Sign::Looks(2_000),
    Sign::Looks(20_000),
];

const PLANTED: &str = "planted-name-7";
const PLAIN: &str = "--set zqlite.sealed=false";

#[cfg(unix)]
fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// Runs the program, and kills it once it shows this, unless it ends before. Tells whether it was killed.
fn kill(place: &Place, command: &str, sign: Sign) -> bool {
    let file = |name: &str| place.file(name);
    let before = inode(&file("zqlite.db"));
    let had_key = file("zqlite.db.key").exists();
    let arguments = ["--backend", "zqlite", "--path", "zqlite.db", command];
    let mut child = command_in(&place.file(""), &arguments).spawn().unwrap();
    let mut looks = 0;
    let is_killed = loop {
        if child.try_wait().unwrap().is_some() {
            break false;
        }
        let is_there = match sign {
            Sign::Lock => file("zqlite.db.keyring.lock").exists(),
            Sign::Keyring => file("zqlite.db.keyring").exists(),
            Sign::Copy(kibibytes) => fs::metadata(file("zqlite.db.compact.part"))
                .is_ok_and(|metadata| metadata.len() >= kibibytes << 10),
            Sign::Replaced => inode(&file("zqlite.db")) != before,
            Sign::Key => file("zqlite.db.key").exists() != had_key,
            Sign::Looks(least) => looks >= least,
        };
        if is_there {
            child.kill().unwrap();
            break true;
        }
        looks += 1;
    };
    child.wait().unwrap();
    is_killed
}

/// The digest of a store that is plain or sealed, and whether it is sealed.
fn look(place: &Place) -> (Value, bool) {
    let plain = place.on("zqlite", &format!("{PLAIN} digest --json"));
    if plain.code == 0 {
        return (plain.json(), false);
    }
    (place.on("zqlite", "digest --json").ok().json(), true)
}

#[test]
fn a_conversion_that_is_killed_leaves_one_form_or_the_other() {
    let kills: usize =
        std::env::var("GHOSTWIRE_SEAL_KILLS").map_or(40, |kills| kills.parse().unwrap());
    let place = Place::new();
    place.on("zqlite", &format!("{PLAIN} init")).ok();
    let sample = place.sample();
    place.on("zqlite", &format!("{PLAIN} import portable {}", sample.display())).ok();
    place.write("more.jsonl", portable(&[&user(1, PLANTED)]));
    place.on("zqlite", &format!("{PLAIN} import portable more.jsonl")).ok();
    let (digest, is_sealed) = look(&place);
    assert!(!is_sealed);
    let (mut killed, mut sealed) = (0, false);
    for round in 0..kills {
        let command = if sealed { "unseal --yes" } else { "seal" };
        let sign = SIGNS[round / 2 % SIGNS.len()];
        killed += usize::from(kill(&place, command, sign));
        let (found, is_sealed) = look(&place);
        assert_eq!(found, digest, "{command} at {sign:?}");
        // Called again, it ends what was begun; what is done already is refused.
        if is_sealed == sealed {
            place.on("zqlite", command).ok();
        }
        let (found, is_sealed) = look(&place);
        assert_eq!((found, is_sealed), (digest.clone(), !sealed), "{command} after {sign:?}");
        sealed = !sealed;
        let set = if sealed { "" } else { PLAIN };
        place.on("zqlite", &format!("{set} doctor")).hides(&["corrupt"]);
        assert!(!place.file("zqlite.db.compact.part").exists(), "{command} after {sign:?}");
        // What was planted is in a plain store's files and in none of a sealed one's.
        let shows = |name: &str| {
            let bytes = fs::read(place.file(name)).unwrap_or_default();
            bytes.windows(PLANTED.len()).any(|window| window == PLANTED.as_bytes())
        };
        let files = ["zqlite.db", "zqlite.db-wal", "zqlite.db-shm"];
        assert_eq!(files.into_iter().any(shows), !sealed, "{command} after {sign:?}");
    }
    assert!(killed * 2 > kills, "{killed} of {kills} were killed");
}
