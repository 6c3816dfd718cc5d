//! A process that is killed loses nothing that it acknowledged, and leaves nothing half done.
//!
//! The test runs itself again as a child. The child registers nodes from several tasks, each with
//! a one-time key of its own, and writes a line for every acknowledgement; the parent kills it in
//! the middle, opens the store and compares.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod world;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use ghostwire_store::Opener;
use ghostwire_store::domain::*;
use world::{Site, registration};

const CHILD: &str = "GHOSTWIRE_STORE_TEST_CHILD";

/// What the child does until it is killed.
async fn live(mut site: Site, round: u8) {
    let store = site.open().await;
    let alice = match store.view().users().iter().next().cloned() {
        Some(alice) => alice,
        None => store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap(),
    };
    let tasks = (0..4u8).map(|task| {
        let (store, alice) = (store.clone(), alice.id);
        tokio::spawn(async move {
            for step in 0..u8::MAX {
                let new = NewPreAuthKey { user: Some(alice), ..NewPreAuthKey::default() };
                let (key, _) = store.preauth_keys().create(new).await.unwrap();
                let mut wanted = registration(1, Admission::PreAuthKey(key.id));
                let mut bytes = [1; 32];
                bytes.first_chunk_mut::<3>().unwrap().copy_from_slice(&[round, task, step]);
                wanted.machine_key = MachineKey::from_bytes(bytes).unwrap();
                wanted.node_key = NodeKey::from_bytes(bytes).unwrap();
                let node = store.nodes().register(wanted).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "acknowledged {}", node.id).unwrap();
                out.flush().unwrap();
            }
        })
    });
    futures_util::future::join_all(tasks).await;
}

/// Starts a child, kills it after `lines` acknowledgements, and gives what it acknowledged.
fn kill_after(site: &Site, round: u8, lines: usize) -> Vec<NodeId> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_a_killed_process_acknowledged_is_there", "--nocapture"])
        .env(CHILD, format!("{}\n{round}", site.describe()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut read = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    while acknowledged.len() < lines {
        let Some(line) = read.next() else { break };
        acknowledged.extend(parse(&line.unwrap()));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What was written before the kill is acknowledged, too. The last line may be cut.
    acknowledged.extend(read.map_while(Result::ok).filter_map(|line| parse(&line)));
    acknowledged
}

fn parse(line: &str) -> Option<NodeId> {
    line.split_once("acknowledged ")?.1.parse().ok()
}

#[test]
fn what_a_killed_process_acknowledged_is_there() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(child) = std::env::var(CHILD) {
        let (description, round) = child.rsplit_once('\n').unwrap();
        runtime.block_on(live(Site::described(description), round.parse().unwrap()));
        return;
    }
    for site in Site::all().into_iter().filter(|site| site.config.backend.path().is_some()) {
        let mut acknowledged = BTreeSet::new();
        for round in 0..4u8 {
            let lines = 3 + usize::from(round) * 17;
            acknowledged.extend(kill_after(&site, round, lines));
            let store = runtime.block_on(Opener::new(&site.config).create(false).open()).unwrap();
            runtime.block_on(store.verify()).unwrap();
            let view = store.view();
            let there: BTreeSet<_> = view.nodes().iter().map(|node| node.id).collect();
            let lost: Vec<_> = acknowledged.difference(&there).collect();
            assert!(lost.is_empty(), "{site:?}, round {round}: lost {lost:?}");
            check_whole(&view, &runtime.block_on(registrations(store.as_ref())));
            runtime.block_on(store.close()).unwrap();
        }
        assert!(acknowledged.len() >= 3 + 20 + 37 + 54);
    }
}

/// Every registration is whole: node, used-up key, distinct addresses, audit line.
fn check_whole(view: &ghostwire_store::view::View, audited: &BTreeSet<String>) {
    let mut addresses = BTreeSet::new();
    for node in view.nodes().iter() {
        let key = view.preauth_keys().get(node.preauth_key.unwrap()).unwrap();
        assert!(key.used_at.is_some());
        assert!(addresses.insert(node.ipv4.unwrap()));
        assert!(audited.contains(&node.id.to_string()));
    }
    let used = view.preauth_keys().iter().filter(|key| key.used_at.is_some()).count();
    assert_eq!(used, view.nodes().len());
    assert_eq!(audited.len(), view.nodes().len());
}

/// The nodes of which the audit trail says that they were registered.
async fn registrations(store: &dyn ghostwire_store::Store) -> BTreeSet<String> {
    let mut page = PageRequest::first(Limit::new(1000).unwrap());
    let mut subjects = BTreeSet::new();
    loop {
        let part = store.audit().query(&AuditQuery::default(), &page).await.unwrap();
        let registered = part.items.iter().filter(|entry| entry.action.as_str() == "node.register");
        subjects.extend(registered.map(|entry| entry.subject.as_str().to_owned()));
        match part.next {
            Some(cursor) => page = PageRequest::after(page.limit, cursor),
            None => return subjects,
        }
    }
}
