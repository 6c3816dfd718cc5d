//! How many instructions hot paths take, counted by valgrind's callgrind. Times are noisy on
//! shared machines; these are not, so a change that makes a path longer fails the check.
//!
//! `cargo run --release -p ghostwire-store-benches --features instructions --bin instructions` compares with `instructions.toml`
//! and fails above its tolerance; `-- --update` writes that file anew. Paths that must cost what
//! another costs are compared with that one, whatever the file says. Each path runs in a process of
//! its own, of which only what happens inside `hot_path` counts.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use futures_util::FutureExt;
use ghostwire_store::Store;
use ghostwire_store::command::{EntityRecord, PresenceCommand, Restore, RouteCommand};
use ghostwire_store::domain::{self, Limit, PageRequest, Route, RouteFilter, SessionNumber};
use ghostwire_store::observe::Recorder;
use ghostwire_store_benches::{StateFixture, Target, apply, heartbeat, open_with, prefix, route};
use serde::{Deserialize, Serialize};

const NODES: u64 = 2_000;
const ROUTES: u32 = 10_000;
const GROUP: u64 = 256;
/// Operations whose instructions are counted together, of most paths.
const OPERATIONS: u64 = 4 * GROUP;
/// Others who offer what the node of a path does.
const OTHERS: u64 = 200;
/// As many as a node may offer.
const OFFERED: u32 = 1024;

/// A hot path.
struct HotPath {
    /// Its name in the file.
    name: &'static str,
    operations: u64,
    run: fn(),
    /// Where callgrind stops counting when it counts, and counts when it does not.
    toggles: &'static [&'static str],
}

const COUNTED: &str = "*hot_path*";
/// Processors hash with instructions of their own, which valgrind does not offer: what hashing takes
/// without them would hide the rest. Only for paths that hash nowhere else.
const HASHING: &str = "*sha256::soft*compress*";

const fn many(name: &'static str, run: fn(), toggles: &'static [&'static str]) -> HotPath {
    HotPath { name, operations: OPERATIONS, run, toggles }
}

const fn few(name: &'static str, run: fn()) -> HotPath {
    HotPath { name, operations: 8, run, toggles: &[COUNTED] }
}

const PATHS: [HotPath; 11] = [
    many("read-node-by-id", || read_by_id(None), &[COUNTED]),
    many("read-node-by-id-with-recorder", || read_by_id(Some(Arc::new(()))), &[COUNTED]),
    many("read-node-by-node-key", read_by_node_key, &[COUNTED]),
    many("register-to-block", register, &[COUNTED, HASHING]),
    many("heartbeat-to-block", beat, &[COUNTED, HASHING]),
    many("look-up-route", look_up, &[COUNTED]),
    few("come-and-go", || come_and_go(0)),
    few("come-and-go-among-offers", || come_and_go(OTHERS)),
    few("advertise-the-same-again", advertise),
    few("list-routes-of-node", || list_routes(0)),
    few("list-routes-of-node-among-offers", || list_routes(OTHERS)),
];

/// The first path may take at most so many times the instructions of the second: what others offer
/// and nobody approved costs nothing but a longer way down a tree, and a read that is counted little more.
const BOUNDS: [(&str, &str, f64); 3] = [
    // To count a read must take a few nanoseconds.
    ("read-node-by-id-with-recorder", "read-node-by-id", 1.06),
    ("come-and-go-among-offers", "come-and-go", 1.1),
    ("list-routes-of-node-among-offers", "list-routes-of-node", 1.1),
];

/// Callgrind counts from the entry to this function to its return.
#[inline(never)]
fn hot_path(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

fn store(recorder: Option<Arc<dyn Recorder>>) -> (Arc<dyn Store>, StateFixture) {
    let fixture = StateFixture::with_nodes(NODES).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(async {
        let store = open_with(Target::Memory, Path::new(""), recorder).await.unwrap();
        let restore = Restore { images: fixture.images(), skip_invalid: false };
        store.restore(restore).await.unwrap();
        store
    });
    (store, fixture)
}

fn read_by_id(recorder: Option<Arc<dyn Recorder>>) {
    let (store, fixture) = store(recorder);
    for node in fixture.nodes.iter().take(OPERATIONS as usize) {
        let mut found = None;
        hot_path(&mut || found = store.nodes().get(node.id).now_or_never());
        assert_eq!(found.unwrap().unwrap().unwrap().id, node.id);
    }
}

fn read_by_node_key() {
    let (store, fixture) = store(None);
    for node in fixture.nodes.iter().take(OPERATIONS as usize) {
        let mut found = None;
        hot_path(&mut || found = store.nodes().get_by_node_key(&node.node_key).now_or_never());
        assert_eq!(found.unwrap().unwrap().unwrap().id, node.id);
    }
}

fn register() {
    let fixture = StateFixture::with_nodes(NODES).unwrap();
    let mut state = fixture.state.clone();
    for group in 0..OPERATIONS / GROUP {
        let first = NODES + group * GROUP;
        let commands: Vec<_> =
            (first..first + GROUP).map(|number| fixture.register(number).unwrap().1).collect();
        hot_path(&mut || state = apply(&fixture, &state, &commands).unwrap());
    }
    assert_eq!(state.nodes().len() as u64, NODES + OPERATIONS);
}

fn beat() {
    let mut fixture = StateFixture::with_nodes(NODES).unwrap();
    let beats: Vec<ghostwire_store::command::Command> = (0..)
        .zip(&fixture.nodes)
        .map(|(number, node)| heartbeat(node.id, number, fixture.now).unwrap().into())
        .collect();
    beats.iter().for_each(|beat| drop(fixture.run(beat).unwrap()));
    let mut state = fixture.state.clone();
    for group in beats.chunks_exact(GROUP as usize).take((OPERATIONS / GROUP) as usize) {
        hot_path(&mut || state = apply(&fixture, &state, group).unwrap());
    }
}

fn look_up() {
    let mut fixture = StateFixture::with_nodes(NODES).unwrap();
    for (number, owner) in (0..ROUTES).zip(fixture.nodes.clone().iter().cycle()) {
        let route = route(owner.id, number, prefix(number).unwrap(), fixture.now).unwrap();
        fixture.put(EntityRecord::Route(Arc::new(route)));
    }
    let mut found = 0;
    for number in 0..OPERATIONS as u32 {
        // Half of them are addresses of prefixes.
        let address = if number % 2 == 0 {
            prefix(number).unwrap().last()
        } else {
            IpAddr::V4(Ipv4Addr::from(number.wrapping_mul(2_654_435_761)))
        };
        let found_here = || fixture.state.route_to(address, fixture.now).is_some();
        hot_path(&mut || found += u64::from(found_here()));
    }
    assert!(found >= OPERATIONS / 2);
}

/// A network in which one node offers as much as it may, and so do `others`; nobody approved any of
/// it.
fn offers(others: u64) -> StateFixture {
    let mut fixture = StateFixture::with_nodes(OTHERS + 1).unwrap();
    let prefixes: Vec<_> = (0..OFFERED).map(|number| prefix(number).unwrap()).collect();
    for (owner, first) in fixture.nodes.clone().iter().zip((0..).step_by(OFFERED as usize)) {
        if first > others as u32 * OFFERED {
            break;
        }
        for (number, prefix) in (first..).zip(&prefixes) {
            let route = route(owner.id, number, *prefix, fixture.now).unwrap();
            let route = Route { approved: false, primary: false, ..route };
            fixture.put(EntityRecord::Route(Arc::new(route)));
        }
    }
    assert_eq!(fixture.state.routes().len() as u64, (others + 1) * u64::from(OFFERED));
    fixture
}

fn come_and_go(others: u64) {
    let mut fixture = offers(others);
    let node = fixture.nodes.first().unwrap().id;
    for number in 1..=8 {
        let session = SessionNumber::new(number).unwrap();
        let endpoints = domain::Update::Keep;
        let come =
            PresenceCommand::Connect { node, session: Some(session), endpoints, instance: None }
                .into();
        let go = PresenceCommand::Disconnect { node, session }.into();
        hot_path(&mut || {
            fixture.run(&come).unwrap();
            fixture.run(&go).unwrap();
        });
    }
}

fn advertise() {
    let mut fixture = offers(OTHERS);
    let node = fixture.nodes.first().unwrap().id;
    let routes = fixture.state.routes().of_node(node);
    let prefixes = routes.map(|route| (route.id, route.prefix)).collect();
    let command = RouteCommand::Advertise { node, prefixes, expected: None }.into();
    for _ in 0..8 {
        hot_path(&mut || drop(black_box(fixture.run(&command).unwrap())));
    }
}

fn list_routes(others: u64) {
    let fixture = offers(others);
    let filter =
        RouteFilter { node: Some(fixture.nodes.first().unwrap().id), ..RouteFilter::default() };
    let page = PageRequest::first(Limit::new(100).unwrap());
    for _ in 0..8 {
        hot_path(&mut || {
            assert_eq!(fixture.state.routes().list(&filter, &page).unwrap().items.len(), 100)
        });
    }
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Reference {
    /// A path may take so many times more than here, since compilers and C libraries differ.
    tolerance: f64,
    /// The compiler that made the counted program.
    compiler: String,
    instructions_per_operation: BTreeMap<String, u64>,
}

fn reference_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.toml")
}

fn compiler() -> Result<String, String> {
    let output = Command::new("rustc").arg("--version").output();
    let output = output.map_err(|error| format!("rustc cannot be run: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Instructions of one operation of the path.
fn count(path: &HotPath) -> Result<u64, String> {
    let HotPath { name, toggles, .. } = path;
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let counts = directory.path().join("counts");
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .args(toggles.iter().map(|toggle| format!("--toggle-collect={toggle}")))
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(program)
        .args(["--path", name])
        .output()
        .map_err(|error| {
            format!(
                "valgrind cannot be run ({error}); install it, as with `apt-get install valgrind`"
            )
        })?;
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let text = std::fs::read_to_string(&counts).map_err(|error| error.to_string())?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals:"));
    match total.and_then(|total| total.trim().parse::<u64>().ok()) {
        Some(total) if total >= path.operations => Ok(total / path.operations),
        _ => Err(format!("{name}: callgrind counted nothing; is `hot_path` still in the program?")),
    }
}

fn check(update: bool) -> Result<bool, String> {
    let file = reference_file();
    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
    let mut reference: Reference = toml::from_str(&text).map_err(|error| error.to_string())?;
    let wanted = std::mem::take(&mut reference.instructions_per_operation);
    let mut within = true;
    println!("| hot path | instructions | before | change |");
    println!("|---|---|---|---|");
    for path in &PATHS {
        let name = path.name;
        let counted = count(path)?;
        let before = wanted.get(name).copied();
        let change = before.map_or(f64::INFINITY, |before| counted as f64 / before as f64 - 1.0);
        let verdict = if change <= reference.tolerance { "" } else { ", too many" };
        within &= change <= reference.tolerance;
        let before = before.map_or_else(|| "none".to_owned(), |before| before.to_string());
        println!("| {name} | {counted} | {before} | {:+.1} %{verdict} |", change * 100.0);
        reference.instructions_per_operation.insert(name.to_owned(), counted);
    }
    let counts = &reference.instructions_per_operation;
    let count_of = |name: &str| counts.get(name).copied().unwrap_or_default() as f64;
    for (name, other, at_most) in BOUNDS {
        let times = count_of(name) / count_of(other);
        if times > at_most {
            return Err(format!(
                "{name} takes {times:.2} times the instructions of {other}; at most {at_most} is right"
            ));
        }
    }
    if update {
        reference.compiler = compiler()?;
        let text = toml::to_string(&reference).map_err(|error| error.to_string())?;
        std::fs::write(&file, text).map_err(|error| error.to_string())?;
    } else if !within {
        eprintln!(
            "\na hot path takes over {:.0} % more instructions than {} says (counted with {}, now \
             {}); make it shorter, or say why not and run again with `-- --update`",
            reference.tolerance * 100.0,
            file.display(),
            reference.compiler,
            compiler()?
        );
    }
    Ok(within || update)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(wanted) = arguments.iter().skip_while(|argument| *argument != "--path").nth(1) {
        return match PATHS.iter().find(|path| path.name == wanted) {
            Some(path) => {
                (path.run)();
                ExitCode::SUCCESS
            }
            None => {
                eprintln!("there is no hot path {wanted:?}");
                ExitCode::FAILURE
            }
        };
    }
    match check(arguments.iter().any(|argument| argument == "--update")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
