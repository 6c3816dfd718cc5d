//! That no key is left in the memory of a process that had a sealed store open: neither on the heap nor in
//! any other mapping. What is left on stacks is counted.
//!
//! A child opens the store, works and closes it; its parent, which made the keyring and so knows every
//! secret in it, searches the child's memory (`/proc/PID/mem`). Names of users and nodes are not searched
//! for: they lie in maps and texts that nobody overwrites.
#![cfg(all(feature = "zqlite", target_os = "linux"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod search;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use chacha20::R20;
use ghostwire_store::Opener;
use ghostwire_store::config::{BackendChoice, Config, RootOptions, ZqliteOptions};
use ghostwire_store::domain::*;
use ghostwire_store::keys::crypto::keyring::{Identity, Keyring, Rotation, Stretch};
use ghostwire_store::keys::crypto::sealing::Kind;
use ghostwire_store::keys::crypto::{Random, Result as CryptoResult, SystemRandom};
use ghostwire_store::keys::{Keys, write_identity};
use hmac::{Hmac, KeyInit as _, Mac as _};
use search::Search;
use sha2::Sha256;
use shake::{ExtendableOutput as _, Update as _, XofReader as _};

const DIRECTORY: &str = "GHOSTWIRE_MEMORY_CHILD";
const CARELESS: &str = "GHOSTWIRE_MEMORY_CARELESS";
const SIDE: [u8; 16] = *b"store in memory!";

fn config(directory: &Path) -> Config {
    let at = |name: &str| Some(directory.join(name)).filter(|path| path.exists());
    let root = RootOptions {
        secret_file: at("root"),
        passphrase_file: at("passphrase"),
        ..RootOptions::default()
    };
    let options = ZqliteOptions { path: directory.join("s.db"), root, ..ZqliteOptions::default() };
    let environment = "production".to_owned();
    Config { backend: BackendChoice::Zqlite(options), environment, ..Config::default() }
}

fn tell(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "child: {what}").unwrap();
    out.flush().unwrap();
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
}

/// Not a test: the child.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let config = config(&directory);
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).enable_all().build().unwrap()
    };
    let work = runtime();
    let store = work.block_on(async {
        let store = Opener::new(&config).open().await.unwrap();
        for number in 0..20 {
            let name = format!("user-{number}").parse().unwrap();
            store.users().create(NewUser::local(name)).await.unwrap();
        }
        let (_, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
        store.api_keys().authenticate(secret.expose()).await.unwrap();
        let points = (0..200).map(|second| MetricPoint {
            node: None,
            metric: "rx_bytes".parse().unwrap(),
            at: Timestamp::from_secs(second).unwrap(),
            value: Sample::new(1.0).unwrap(),
        });
        store.metrics().record_many(points.collect()).await.unwrap();
        store.verify().await.unwrap();
        store
    });
    tell("open");
    work.block_on(store.close()).unwrap();
    drop((store, work));
    if std::env::var_os(CARELESS).is_some() {
        let keyring = runtime().block_on(Keys::of(&config).unwrap().open()).unwrap();
        std::mem::forget(keyring.active().unwrap().key().expose().to_vec());
    }
    tell("closed");
}

/// Remembers what it gave.
#[derive(Default)]
struct Recorder(RefCell<Vec<Vec<u8>>>);

impl Random for Recorder {
    fn fill(&self, bytes: &mut [u8]) -> CryptoResult<()> {
        SystemRandom.fill(bytes)?;
        self.0.borrow_mut().push(bytes.to_vec());
        Ok(())
    }
}

fn hkdf(key: &[u8], salt: &[u8], info: &[&[u8]]) -> Vec<u8> {
    let code = |key: &[u8], parts: &[&[u8]]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        parts.iter().for_each(|part| hmac::Mac::update(&mut mac, part));
        mac.finalize().into_bytes().to_vec()
    };
    let secret = code(if salt.is_empty() { &[0; 32] } else { salt }, &[key]);
    code(&secret, &[&info.concat(), &[1]])
}

/// The 32 bytes of an identity's text, which ends with 52 symbols of 5 bits each and 6 of a checksum.
fn seed_of(text: &str) -> Vec<u8> {
    let symbols = &text[text.len() - 58..text.len() - 6];
    let (mut bits, mut held, mut seed) = (0_u32, 0, Vec::new());
    for symbol in symbols.bytes() {
        let value = b"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L".iter().position(|it| *it == symbol);
        (bits, held) = (bits << 5 | u32::try_from(value.unwrap()).unwrap(), held + 5);
        if held >= 8 {
            held -= 8;
            seed.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    seed
}

/// Every secret of a keyring, and whatever is derived of one, by name.
#[derive(Default)]
struct Secrets(BTreeMap<String, Vec<u8>>);

impl Secrets {
    fn add(&mut self, name: impl Into<String>, bytes: &[u8]) {
        self.0.insert(name.into(), bytes.to_vec());
    }

    fn add_identity(&mut self, identity: &Identity) {
        let text = identity.to_text();
        self.add("the identity's text", &text.as_bytes()[text.len() - 58..text.len() - 6]);
        let seed = seed_of(&text);
        self.add("the identity", &seed);
        let mut expansion = [0; 96];
        let mut shake = shake::Shake256::default();
        shake.update(&seed);
        shake.finalize_xof().read(&mut expansion);
        self.add("ML-KEM's d", &expansion[..32]);
        self.add("ML-KEM's z", &expansion[32..64]);
        self.add("X25519's key", &expansion[64..]);
    }

    /// What was drawn while a keyring was made and sealed, but for what its file shows.
    fn add_drawn(&mut self, recorder: &Recorder, keyring: &Keyring, file: &[u8]) {
        for (number, bytes) in recorder.0.borrow().iter().enumerate() {
            if !file.windows(bytes.len()).any(|window| window == bytes) {
                self.add(format!("secret {number} that was drawn"), bytes);
            }
            // age's file key.
            if bytes.len() == 16 {
                self.add(format!("header key {number}"), &hkdf(bytes, &[], &[b"header"]));
                let payload = file.windows(4).rposition(|window| window == b"\n---").unwrap() + 1;
                let payload = payload + 4 + 43 + 1;
                let nonce = &file[payload..payload + 16];
                self.add(format!("payload key {number}"), &hkdf(bytes, nonce, &[b"payload"]));
            }
        }
        for key in keyring.data_keys() {
            let version = key.version();
            self.add(format!("data key {version}"), key.key().expose());
            for kind in Kind::ALL {
                let info: [&[u8]; 2] = [b"ghostwire-store sealed 1 ", kind.name().as_bytes()];
                let subkey = hkdf(key.key().expose(), keyring.store(), &info);
                self.add(format!("subkey {version} of {kind}"), &subkey);
            }
        }
        for key in keyring.hash_keys() {
            self.add(format!("hash key {}", key.number()), key.key().expose());
        }
        self.add("inventory key", keyring.authority().inventory().expose());
        self.add("pin key", keyring.authority().pin().expose());
    }

    /// The keys of single commits, whose nonces begin as those of records in these files.
    fn add_commits(&mut self, directory: &Path) {
        let subkeys: Vec<_> =
            self.0.iter().filter(|(name, _)| name.starts_with("subkey ")).collect();
        let mut keys = BTreeMap::new();
        for bytes in ["s.db", "s.db-wal"].map(|name| fs::read(directory.join(name))) {
            let bytes = bytes.unwrap_or_default();
            let frames = bytes.windows(21).filter(|bytes| bytes[..4] == [2, 0, 0, 0]);
            let prefixes: BTreeSet<[u8; 16]> =
                frames.map(|frame| frame[5..].try_into().unwrap()).collect();
            for prefix in prefixes {
                for (name, subkey) in &subkeys {
                    let subkey: [u8; 32] = subkey.as_slice().try_into().unwrap();
                    let key = chacha20::hchacha::<R20>(&subkey.into(), &prefix.into());
                    keys.insert(format!("commit's {name} {prefix:02x?}"), key.to_vec());
                }
            }
        }
        self.0.extend(keys);
    }

    /// Finds either half of each, since an allocator writes into what was given back, and each as HMAC
    /// fills it up.
    fn search(&self) -> Search {
        let halves = |(name, bytes): (&String, &Vec<u8>)| {
            let (first, last) = bytes.split_at(bytes.len() / 2);
            let whole = if bytes.len() < 32 { vec![&bytes[..]] } else { vec![first, last] };
            whole.into_iter().map(|half| (name.clone(), half.to_vec())).collect::<Vec<_>>()
        };
        let mixed = |(name, bytes): (&String, &Vec<u8>)| {
            [("inner", 0x36), ("outer", 0x5c)].map(|(side, with)| {
                let padded = bytes.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
                (format!("{name} ({side} of HMAC)"), padded)
            })
        };
        // The keys of commits are no keys for HMAC.
        let for_hmac = self.0.iter().filter(|(name, _)| !name.starts_with("commit's"));
        Search::of(self.0.iter().flat_map(halves).chain(for_hmac.flat_map(mixed)))
    }
}

/// Where in a process something may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Region {
    /// The heap and every other mapping.
    Mapping,
    /// Of a thread that runs, or one that ended and which glibc keeps for the next.
    Stack,
}

/// The memory of a process that stands still: each mapping that can be read.
fn memory_of(child: &Child) -> Vec<(Region, String, Vec<u8>)> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", child.id())).unwrap();
    let memory = File::open(format!("/proc/{}/mem", child.id())).unwrap();
    let mut regions = Vec::new();
    // glibc puts a page without access below the stack of a thread.
    let mut guard_ends = 0;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (range, access) = (fields.next().unwrap(), fields.next().unwrap());
        let name = fields.nth(3).unwrap_or("anonymous");
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
        if access == "---p" && to - from <= 64 << 10 {
            guard_ends = to;
        }
        if !access.starts_with('r') || name.starts_with("[v") {
            continue;
        }
        let is_stack = name == "[stack]" || (name == "anonymous" && from == guard_ends);
        let region = if is_stack { Region::Stack } else { Region::Mapping };
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // What was never touched, or has no page of a file behind it, cannot be read.
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            regions.push((region, format!("{name} {range} {access}"), bytes));
        }
    }
    regions
}

fn found_in(child: &Child, search: &Search) -> BTreeMap<(Region, String), BTreeSet<String>> {
    let mut all: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (region, place, bytes) in memory_of(child) {
        for (name, form, at) in search.in_bytes(&bytes) {
            let place = format!("{place} +{at:#x}, {form}");
            all.entry((region, name.to_owned())).or_default().insert(place);
        }
    }
    all
}

struct Running {
    child: Child,
    input: ChildStdin,
    output: std::io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(directory: &Path, careless: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
        command.env(DIRECTORY, directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        if careless {
            command.env(CARELESS, "1");
        }
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { input: child.stdin.take().unwrap(), child, output }
    }

    /// Waits until the child stands still where it says.
    fn wait_for(&mut self, what: &str) {
        let said = format!("child: {what}");
        let mut lines = self.output.by_ref().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with(&said)), "the child never was {what}");
    }

    fn go_on(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }
}

/// Makes a keyring of a store that is still to be made, with two versions of the data key.
fn make_keyring(directory: &Path, passphrase: bool) -> Secrets {
    let (recorder, mut secrets) = (Recorder::default(), Secrets::default());
    let stretch = passphrase.then(|| Stretch::draw(&SystemRandom).unwrap());
    let identity = match &stretch {
        Some(stretch) => {
            // Not one that stands in the program.
            let mut passphrase = [0; 24];
            SystemRandom.fill(&mut passphrase).unwrap();
            let passphrase = data_encoding::BASE32.encode(&passphrase);
            let path = directory.join("passphrase");
            fs::write(&path, format!("{passphrase}\n")).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            secrets.add("the passphrase", passphrase.as_bytes());
            stretch.identity(passphrase.as_bytes()).unwrap()
        }
        None => {
            let identity = Identity::draw(&recorder).unwrap();
            write_identity(&directory.join("root"), &identity, directory).unwrap();
            identity
        }
    };
    secrets.add_identity(&identity);
    let recipient = identity.recipient().clone();
    let first = Keyring::first(SIDE, recipient, stretch, 0, &recorder).unwrap();
    let keyring = first.rotate(Rotation::Leaked, 0, &recorder).unwrap();
    let keyring = keyring.finish_rotation().unwrap();
    let file = keyring.seal(&recorder).unwrap();
    fs::write(directory.join("s.db.keyring"), &file).unwrap();
    fs::write(directory.join("s.db.keyring.unused"), "").unwrap();
    secrets.add_drawn(&recorder, &keyring, &file);
    secrets
}

/// Gives what is left on stacks once the store is closed, and where, after what is there while it is open.
fn leftovers(passphrase: bool, careless: bool) -> BTreeMap<(Region, String), BTreeSet<String>> {
    let directory = tempfile::tempdir().unwrap();
    let mut secrets = make_keyring(directory.path(), passphrase);
    let mut running = Running::start(directory.path(), careless);
    running.wait_for("open");
    // Those that are given up when the log is emptied, too.
    secrets.add_commits(directory.path());
    let open = found_in(&running.child, &secrets.search());
    for name in ["data key 2", "subkey 2 of row", "hash key 1"] {
        assert!(open.contains_key(&(Region::Mapping, name.to_owned())), "{name} of an open store");
    }
    running.go_on();
    running.wait_for("closed");
    secrets.add_commits(directory.path());
    let left = found_in(&running.child, &secrets.search());
    running.go_on();
    assert!(running.child.wait().unwrap().success());
    left
}

fn heap(left: &BTreeMap<(Region, String), BTreeSet<String>>) -> BTreeMap<&str, &BTreeSet<String>> {
    let heap = left.iter().filter(|((region, _), _)| *region == Region::Mapping);
    heap.map(|((_, name), places)| (name.as_str(), places)).collect()
}

#[test]
fn no_key_is_left_in_memory_once_a_store_is_closed() {
    for passphrase in [false, true] {
        let left = leftovers(passphrase, false);
        assert!(heap(&left).is_empty(), "{:#?}", heap(&left));
        let stacks = left.iter().filter(|((region, _), _)| *region == Region::Stack);
        for ((_, name), places) in stacks {
            println!("left on stacks, {} times: {name}", places.len());
        }
    }
}

/// Else the search might find nothing whatever there is.
#[test]
fn a_key_that_is_left_is_found() {
    let left = leftovers(false, true);
    assert!(heap(&left).contains_key("data key 2"), "{left:#?}");
}
