//! That a sealed store shows nothing of what it holds, whatever is done with it: names, ids and keys are
//! planted by every kind of write, by a process that is killed, and searched for in every file that it
//! leaves, its temporary ones included. The same search finds all of them once the store is plain.
#![cfg(all(feature = "zqlite", target_os = "linux"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod search;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use ghostwire_store::config::{BackendChoice, Config, RootOptions, WriterOptions, ZqliteOptions};
use ghostwire_store::domain::*;
use ghostwire_store::info::Digests;
use ghostwire_store::key_management::Rotation;
use ghostwire_store::keys::{
    Keys, crypto::SystemRandom, crypto::keyring::Identity, write_identity,
};
use ghostwire_store::{Opener, Store};
use ghostwire_store_core::error::EntityKind;
use ghostwire_store_core::schema::Schema;
use search::{Search, files_below};

const PLACE: &str = "GHOSTWIRE_PLANTED_CHILD";

/// The directory of the store, of the root secret, and of temporary files.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        for name in ["store", "root", "tmp"] {
            fs::create_dir(site.0.path().join(name)).unwrap();
        }
        let identity = Identity::draw(&SystemRandom).unwrap();
        write_identity(&site.0.path().join("root/root"), &identity, site.0.path()).unwrap();
        site
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn config(&self, sealed: bool) -> Config {
        config(self.0.path(), sealed)
    }

    /// Searches everything but where the root secret is kept.
    fn search(&self, search: &Search) -> BTreeSet<search::Found> {
        let mut found = search.in_files(&self.store());
        found.extend(search.in_files(&self.0.path().join("tmp")));
        found
    }

    #[track_caller]
    fn shows_nothing(&self, search: &Search, when: &str) {
        let found = self.search(search);
        assert!(found.is_empty(), "{when}: {found:#?}");
    }
}

fn config(place: &Path, sealed: bool) -> Config {
    let root = RootOptions { secret_file: Some(place.join("root/root")), ..Default::default() };
    let path = place.join("store/s.db");
    let options = ZqliteOptions { path, sealed, root, ..ZqliteOptions::default() };
    let environment = "production".to_owned();
    // Everything is flushed soon.
    let writer = WriterOptions { max_dirty_rows: 64, ..WriterOptions::default() };
    Config { backend: BackendChoice::Zqlite(options), environment, writer, ..Config::default() }
}

/// What is planted as text: its name is what it is.
const TEXTS: [&str; 22] = [
    "planted-user-name",
    "Planted Display Name",
    "planted@mail.example.com",
    "https://planted.example.com/picture",
    "planted-oidc-subject",
    "planted-oidc-group",
    "planted-user-metadata",
    "planted-hostname",
    "planted-operating-system",
    "tag:planted-tag",
    "planted description of an api key",
    "planted client of a session",
    "planted-purpose-of-a-sign-in",
    "planted-payload-of-a-sign-in",
    "group:planted-policy",
    "planted.dns.example.com",
    "planted value of a dns record",
    "Planted Region",
    "planted_metric_name",
    "planted-actor-of-the-audit-trail",
    "planted-subject-of-the-audit-trail",
    "planted-instance",
];

/// Keys of a machine, each of which begins with a text.
fn machine_key(text: &str) -> [u8; 32] {
    let mut key = [0x5a; 32];
    key[..text.len()].copy_from_slice(text.as_bytes());
    key
}

const KEYS: [&str; 3] = ["planted machine key", "planted node key", "planted disco key"];

/// Writes everything, and tells the ids and secrets that came of it.
async fn plant(store: &dyn Store) -> BTreeMap<String, Vec<u8>> {
    let mut made = BTreeMap::new();
    let mut note = |name: &str, bytes: &[u8]| drop(made.insert(name.to_owned(), bytes.to_vec()));
    let mut user = NewUser::local(TEXTS[0].parse().unwrap());
    user.display_name = Some(TEXTS[1].parse().unwrap());
    user.email = Some(TEXTS[2].parse().unwrap());
    user.picture_url = Some(TEXTS[3].parse().unwrap());
    let user = store.users().create(user).await.unwrap();
    note("user's id", user.id.as_bytes());
    let profile = OidcProfile {
        provider: "https://id.example.com".parse().unwrap(),
        subject: TEXTS[4].parse().unwrap(),
        name: "somebody".parse().unwrap(),
        display_name: None,
        email: None,
        email_verified: false,
        picture_url: None,
        groups: GroupSet::new([TEXTS[5].parse().unwrap()]).unwrap(),
    };
    store.users().upsert_oidc(profile).await.unwrap();
    let metadata = JsonObject::new(format!(r#"{{"note":"{}"}}"#, TEXTS[6])).unwrap();
    store.users().set_metadata(user.id, Some(metadata), None).await.unwrap();
    let key = NewPreAuthKey {
        tags: TagSet::new([TEXTS[9].parse::<Tag>().unwrap()]).unwrap(),
        ..NewPreAuthKey::default()
    };
    let (key, secret) = store.preauth_keys().create(key).await.unwrap();
    note("pre-auth key", secret.expose().as_bytes());
    let node = store.nodes().register(Registration {
        machine_key: MachineKey::from_bytes(machine_key(KEYS[0])).unwrap(),
        node_key: NodeKey::from_bytes(machine_key(KEYS[1])).unwrap(),
        disco_key: Some(DiscoKey::from_bytes(machine_key(KEYS[2])).unwrap()),
        hostname: TEXTS[7].parse().unwrap(),
        host_info: format!(r#"{{"OS":"{}"}}"#, TEXTS[8]).parse().unwrap(),
        admission: Admission::PreAuthKey(key.id),
        expires_at: None,
        families: None,
    });
    let node = node.await.unwrap();
    note("node's id", node.id.as_bytes());
    let session = SessionNumber::new(1).unwrap();
    store.presence().connect(node.id, session, Update::Keep).await.unwrap();
    store.routes().advertise(node.id, vec!["10.213.0.0/16".parse().unwrap()], None).await.unwrap();
    let description = Some(TEXTS[10].parse().unwrap());
    let (_, secret) = store
        .api_keys()
        .create(NewApiKey { user: Some(user.id), description, ..NewApiKey::default() })
        .await
        .unwrap();
    note("API key", secret.expose().as_bytes());
    let now = store.clock().now().unwrap();
    let expires_at = now.saturating_add(Duration::from_secs(3600));
    let client = Some(TEXTS[11].parse().unwrap());
    let session = NewSession { owner: SessionOwner::User(user.id), node: None, client, expires_at };
    let (_, token) = store.sessions().begin(session).await.unwrap();
    note("session's token", token.expose().as_bytes());
    let payload = SignInPayload::new(TEXTS[13]).unwrap();
    let sign_in = NewSignIn { purpose: TEXTS[12].parse().unwrap(), payload, expires_at };
    store.sign_ins().begin("planted-state-of-a-sign-in", sign_in).await.unwrap();
    note("sign-in's state", b"planted-state-of-a-sign-in");
    let policy = format!(r#"{{"groups":{{"{}":[]}}}}"#, TEXTS[14]);
    store.policies().swap(None, DocumentText::new(policy).unwrap()).await.unwrap();
    let record = NewDnsRecord {
        name: TEXTS[15].parse().unwrap(),
        kind: DnsRecordKind::Txt,
        value: TEXTS[16].parse().unwrap(),
        ttl: None,
    };
    let record = store.dns().create(record).await.unwrap();
    note("DNS record's id", record.id.as_bytes());
    let region = DerpRegion::new("fra".parse().unwrap(), TEXTS[17].parse().unwrap(), Vec::new());
    let regions = [(DerpRegionId::new(1).unwrap(), region)].into();
    let map = SettingDocument::DerpMap(DerpMap { regions, ..DerpMap::default() });
    store.settings().put(map, None).await.unwrap();
    store.instances().begin(TEXTS[21].parse().unwrap()).await.unwrap();
    points(store, node.id, 0).await;
    let name = (now, AuditId::from_bytes([7; 16]));
    let (actor, subject) = (TEXTS[19].parse().unwrap(), TEXTS[20].parse().unwrap());
    let action = "user.create".parse().unwrap();
    let entry = AuditEntry::new(name, actor, action, EntityKind::User, subject);
    store.audit().append(vec![entry]).await.unwrap();
    made
}

/// Points of a node, so many that they come to lie in data blocks.
async fn points(store: &dyn Store, node: NodeId, round: i64) {
    let points = (0..500).map(|number| MetricPoint {
        node: Some(node),
        metric: TEXTS[18].parse().unwrap(),
        at: Timestamp::from_secs(round * 500 + number).unwrap(),
        value: Sample::new(1.0).unwrap(),
    });
    store.metrics().record_many(points.collect()).await.unwrap();
}

fn tell(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "child: {what}").unwrap();
    out.flush().unwrap();
}

/// Not a test: the child, which writes until it is killed.
#[test]
fn child() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    let config = config(&place, !place.join("plain").exists());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(async {
        let store = Opener::new(&config).open().await.unwrap();
        if store.view().users().iter().next().is_none() {
            for (name, bytes) in plant(store.as_ref()).await {
                tell(&format!("made {} {name}", HEXLOWER.encode(&bytes)));
            }
        }
        let node = store.view().nodes().iter().next().unwrap().id;
        for round in 0.. {
            store.presence().open(node, Update::Keep).await.unwrap();
            points(store.as_ref(), node, round).await;
            tell("wrote");
        }
    });
}

/// Lets a child write for so many rounds, looks at what it has, and kills it. Gives what it made.
fn write_and_kill(site: &Site, rounds: usize, look: impl FnOnce()) -> BTreeMap<String, Vec<u8>> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(PLACE, site.0.path())
        .env("TMPDIR", site.0.path().join("tmp"))
        .env("SQLITE_TMPDIR", site.0.path().join("tmp"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Open until it was killed: otherwise it ends by itself.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let (mut made, mut wrote) = (BTreeMap::new(), 0);
    for line in lines.by_ref() {
        let Some((_, what)) = line.split_once("child: ") else { continue };
        if let Some((bytes, name)) = what.strip_prefix("made ").and_then(|it| it.split_once(' ')) {
            made.insert(name.to_owned(), HEXLOWER.decode(bytes.as_bytes()).unwrap());
        }
        wrote += usize::from(what == "wrote");
        if wrote == rounds {
            break;
        }
    }
    assert_eq!(wrote, rounds, "the child ended by itself");
    look();
    child.kill().unwrap();
    child.wait().unwrap();
    made
}

/// Everything that was planted, in each form in which it may be written.
fn planted(made: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let texts = TEXTS.iter().map(|text| ((*text).to_owned(), text.as_bytes().to_vec()));
    let keys = KEYS.iter().map(|text| ((*text).to_owned(), machine_key(text).to_vec()));
    let ids = made.iter().filter(|(name, _)| name.ends_with("'s id"));
    let hyphenated = ids.map(|(name, id)| {
        let id: [u8; 16] = id.as_slice().try_into().unwrap();
        (format!("{name} as text"), UserId::from_bytes(id).to_string().into_bytes())
    });
    texts.chain(keys).chain(hyphenated).chain(made.clone()).collect()
}

/// The keys of a keyring, which no store has in any form.
async fn keys_of(config: &Config) -> BTreeMap<String, Vec<u8>> {
    let keyring = Keys::of(config).unwrap().open().await.unwrap();
    let mut keys = BTreeMap::new();
    for key in keyring.data_keys() {
        keys.insert(format!("data key {}", key.version()), key.key().expose().to_vec());
    }
    for key in keyring.hash_keys() {
        keys.insert(format!("hash key {}", key.number()), key.key().expose().to_vec());
    }
    let authority = keyring.authority();
    keys.insert("inventory key".to_owned(), authority.inventory().expose().to_vec());
    keys.insert("pin key".to_owned(), authority.pin().expose().to_vec());
    keys
}

/// Those of the store, which is opened for that and closed again.
async fn digests_of(config: &Config) -> Digests {
    let store = Opener::new(config).open().await.unwrap();
    let digests = store.digests().await.unwrap();
    store.close().await.unwrap();
    digests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_planted_shows_until_the_store_is_plain() {
    let site = Site::new();
    let config = site.config(true);
    let mut made = BTreeMap::new();
    for rounds in [1, 7, 30] {
        let mut kinds = BTreeSet::new();
        let text = Search::of(TEXTS.iter().map(|text| (*text, text)));
        made.extend(write_and_kill(&site, rounds, || {
            kinds = files_below(&site.store()).into_iter().collect();
            site.shows_nothing(&text, "while it is open");
        }));
        for name in ["s.db", "s.db-wal", "s.db-shm", "s.db.lock", "s.db.keyring"] {
            assert!(kinds.contains(&site.store().join(name)), "{name} is in {kinds:?}");
        }
        let mut all = planted(&made);
        all.extend(keys_of(&config).await);
        site.shows_nothing(&Search::of(&all), "once it was killed");
    }
    // Flushed, compacted, rotated.
    let store = Opener::new(&config).open().await.unwrap();
    store.verify().await.unwrap();
    store.close().await.unwrap();
    Opener::new(&config).compact().await.unwrap();
    let mut all = planted(&made);
    all.extend(keys_of(&config).await);
    Opener::new(&config).rotate_data_key(Rotation::Routine).await.unwrap();
    Keys::of(&config).unwrap().rotate_hash_key().await.unwrap();
    write_and_kill(&site, 3, || {});
    let digests = digests_of(&config).await;
    all.extend(keys_of(&config).await);
    let everything = Search::of(&all);
    assert!(all.contains_key("data key 2") && all.contains_key("hash key 2"));
    site.shows_nothing(&everything, "after rotations");

    // Plain, everything is found that a store keeps: of credentials it has hashes alone.
    Opener::new(&config).unseal().await.unwrap();
    let plain = site.config(false);
    fs::write(site.0.path().join("plain"), "").unwrap();
    assert_eq!(digests_of(&plain).await, digests);
    write_and_kill(&site, 3, || {});
    let found: BTreeSet<_> = site.search(&everything).into_iter().map(|it| it.name).collect();
    let never = ["pre-auth key", "API key", "session's token", "sign-in's state"];
    let as_text = all.keys().filter(|name| name.ends_with("as text")).cloned();
    let keys = all.keys().filter(|name| name.contains(" key ")).cloned();
    let keys = keys.chain(["inventory key".to_owned(), "pin key".to_owned()]);
    let except: BTreeSet<_> =
        never.map(str::to_owned).into_iter().chain(as_text).chain(keys).collect();
    let expected: BTreeSet<_> =
        all.keys().filter(|name| !except.contains(*name)).cloned().collect();
    assert_eq!(expected.difference(&found).collect::<Vec<_>>(), [""; 0], "in a plain store");
    for name in never {
        assert!(!found.contains(name), "{name}");
    }
    let digests = digests_of(&plain).await;

    // Sealed again, nothing is left, in no free page and no log.
    fs::remove_file(site.0.path().join("plain")).unwrap();
    Opener::new(&config).seal().await.unwrap();
    all.extend(keys_of(&config).await);
    site.shows_nothing(&Search::of(&all), "sealed again");
    assert_eq!(digests_of(&config).await, digests);
    write_and_kill(&site, 3, || {});
    site.shows_nothing(&Search::of(&all), "and killed");
}

/// A migration keeps a copy of the store from before it.
#[tokio::test]
async fn a_migration_and_its_copy_show_nothing() {
    let site = Site::new();
    let config = site.config(true);
    let old = Opener::new(&config).schema(Schema::at(1).unwrap());
    let backend = old.open_backend().await.unwrap();
    world::write_as_version_1(backend.as_ref()).await;
    backend.close().await.unwrap();
    let store: Arc<dyn Store> = Opener::new(&config).open().await.unwrap();
    store.close().await.unwrap();
    let search = Search::of([("name", "wiki.example.com")]);
    let copies = files_below(&site.store());
    assert!(copies.iter().any(|path| path.to_string_lossy().ends_with(".v1.bak")), "{copies:?}");
    site.shows_nothing(&search, "after a migration");
    Opener::new(&config).unseal().await.unwrap();
    assert!(!site.search(&search).is_empty());
}
