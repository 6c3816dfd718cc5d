//! What the writer does when commits fail, stall, or come second, where only a backend shows it. What
//! callers see of it the conformance suite tries.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::domain::*;
use ghostwire_store_core::layer::{Chaos, FaultKind, Faults};
use ghostwire_store_core::options::{Materialize, StoreOptions, WriterOptions};
use ghostwire_store_core::{ErrorKind, Store, open};
use ghostwire_store_memory::MemoryBackend;

/// Something to open stores on, whose commits fail when told to.
#[derive(Clone)]
struct Bed {
    memory: MemoryBackend,
    faults: Arc<Faults>,
}

impl Bed {
    fn handle(&self) -> Arc<dyn Backend> {
        Arc::new(Chaos::with(Arc::new(self.memory.clone()), self.faults.clone()))
    }

    fn shared(self) -> Self {
        Self { memory: self.memory.shared(), ..self }
    }

    fn faults(&self) -> &Faults {
        &self.faults
    }
}

fn memory() -> Bed {
    Bed { memory: MemoryBackend::new(StoreId::from_bytes([7; 16])), faults: Arc::default() }
}

async fn open_on(bed: &Bed) -> Arc<dyn Store> {
    open(bed.handle(), StoreOptions::default()).await.unwrap()
}

fn user(name: &str) -> NewUser {
    NewUser::local(name.parse().unwrap())
}

fn registration(n: u8, user: UserId) -> Registration {
    Registration {
        machine_key: MachineKey::from_bytes([n; 32]).unwrap(),
        node_key: NodeKey::from_bytes([n; 32]).unwrap(),
        disco_key: None,
        hostname: format!("machine-{n}").parse().unwrap(),
        host_info: HostInfo::default(),
        admission: Admission::User { user, method: RegisterMethod::Cli },
        expires_at: None,
        families: None,
    }
}

/// What a fresh process would find is what callers were told.
async fn agrees_with_a_reopen(backend: &Bed, store: &Arc<dyn Store>) {
    let other = open_on(backend).await;
    assert_eq!(other.digests().await.unwrap(), store.digests().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_share_a_backend_never_overwrite_each_other() {
    let backend = memory().shared();
    let (a, b) = (open_on(&backend).await, open_on(&backend).await);
    let alice = a.users().create(user("alice")).await.unwrap().id;
    b.fresh_view().await.unwrap();
    let calls = (1..=60u8).map(|n| {
        let store = if n % 2 == 0 { a.clone() } else { b.clone() };
        tokio::spawn(async move { store.nodes().register(registration(n, alice)).await })
    });
    let mut addresses = std::collections::BTreeSet::new();
    for call in join_all(calls).await {
        assert!(addresses.insert(call.unwrap().unwrap().ipv4.unwrap()));
    }
    assert_eq!(addresses.last(), Some(&"100.64.0.60".parse().unwrap()));
    let (fresh_a, fresh_b) = (a.fresh_view().await.unwrap(), b.fresh_view().await.unwrap());
    assert_eq!(fresh_a.nodes().len(), 60);
    assert_eq!(fresh_a.hash(), fresh_b.hash());
    assert_eq!(a.digests().await.unwrap(), b.digests().await.unwrap());
    agrees_with_a_reopen(&backend, &a).await;
}

#[tokio::test]
async fn a_stale_process_learns_before_it_decides() {
    let backend = memory().shared();
    let (a, b) = (open_on(&backend).await, open_on(&backend).await);
    a.users().create(user("alice")).await.unwrap();
    // b has not seen alice, and still cannot take her name.
    let error = b.users().create(user("alice")).await.unwrap_err();
    assert_eq!(error.constraint(), Some("name"));
}

#[tokio::test]
async fn flushing_keeps_up_under_a_sustained_load() {
    let backend = memory();
    let writer = WriterOptions { max_dirty_rows: 512, ..WriterOptions::default() };
    let options =
        StoreOptions { writer, materialize: Materialize::Checkpoint, ..StoreOptions::default() };
    let store = open(backend.handle(), options).await.unwrap();
    let mut most = 0;
    for round in 0..60 {
        let calls = (0..64).map(|n| store.users().create(user(&format!("user{round}-{n}"))));
        for call in join_all(calls).await {
            call.unwrap();
        }
        most = most.max(store.info().dirty_rows);
    }
    assert!(most <= 512 + 4 * 128, "{most}");
    assert!(store.info().checkpoints >= 3);
    agrees_with_a_reopen(&backend, &store).await;
}

#[tokio::test]
async fn blocks_of_few_busy_rows_do_not_pile_up() {
    let backend = memory();
    // The queue is never idle for long enough, and the rows are far too few to be a debt.
    let writer = WriterOptions {
        retain_block_bytes: 64 * 1024,
        idle_before_flush: Duration::from_secs(3600),
        ..WriterOptions::default()
    };
    let options = StoreOptions { writer, ..StoreOptions::default() };
    let store = open(backend.handle(), options).await.unwrap();
    let alice = store.users().create(user("alice")).await.unwrap();
    for round in 0..2000u64 {
        let display_name = Patch::Set(Text::new(format!("{round} {}", "x".repeat(100))).unwrap());
        let patch = UserPatch { display_name, ..UserPatch::default() };
        store.users().update(alice.id, patch, None).await.unwrap();
    }
    assert!(store.info().checkpoints > 1);
    let head = backend.handle().head().await.unwrap();
    assert!(head.oldest_block.get() > 1, "{head:?}");
    assert!(head.serial.get() - head.checkpoint.get() < 500, "{head:?}");
    agrees_with_a_reopen(&backend, &store).await;
}

#[tokio::test]
async fn a_lost_answer_and_a_failed_reopen_bring_no_old_rows_back() {
    let backend = memory();
    let store = open_on(&backend).await;
    let alice = store.users().create(user("alice")).await.unwrap();
    // Another process finds the blocks unflushed, and flushes with every commit.
    drop(store);
    let options = StoreOptions { materialize: Materialize::Commit, ..StoreOptions::default() };
    let store = open(backend.handle(), options).await.unwrap();
    backend.faults().fail_next_commits(1, FaultKind::After);
    backend.faults().fail_next_reopens(1);
    let patch =
        UserPatch { display_name: Patch::Set(Text::new("new").unwrap()), ..UserPatch::default() };
    let error = store.users().update(alice.id, patch, None).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
    store.users().create(user("bob")).await.unwrap();
    let found = store.view().users().get(alice.id).cloned().unwrap();
    assert_eq!(found.display_name.as_ref().map(Text::as_str), Some("new"));
    agrees_with_a_reopen(&backend, &store).await;
    store.verify().await.unwrap();
}

#[tokio::test]
async fn a_refusal_never_rests_on_what_another_process_has_changed() {
    let backend = memory().shared();
    let (a, b) = (open_on(&backend).await, open_on(&backend).await);
    let alice = a.users().create(user("alice")).await.unwrap();
    b.users().delete(alice.id, false).await.unwrap();
    let error = a.users().delete(alice.id, false).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_under_load_leave_exactly_what_was_acknowledged() {
    const CALLERS: usize = 8;
    const CALLS: usize = 60;
    for materialize in [Materialize::Checkpoint, Materialize::Commit] {
        let backend = memory();
        let writer = WriterOptions { max_group: 8, max_dirty_rows: 64, ..WriterOptions::default() };
        let options = StoreOptions { writer, materialize, ..StoreOptions::default() };
        let store = open(backend.handle(), options).await.unwrap();
        let callers = (0..CALLERS).map(|caller| {
            let (store, backend) = (store.clone(), backend.clone());
            tokio::spawn(async move {
                let mut created = Vec::new();
                for call in 0..CALLS {
                    // Each name is wanted by two callers, and only one can have it.
                    let name = format!("user-{}-{call}", caller / 2);
                    match (caller, call % 7) {
                        (0, 1) => backend.faults().fail_next_commits(1, FaultKind::Before),
                        (0, 3) => backend.faults().fail_next_commits(1, FaultKind::After),
                        (0, 5) => backend.faults().fail_next_commits(2, FaultKind::DiskFull),
                        _ => {}
                    }
                    match store.users().create(user(&name)).await {
                        Ok(user) => {
                            // Whoever was told, finds it.
                            assert!(store.view().users().get(user.id).is_some());
                            created.push((user.id, name));
                        }
                        Err(error) => assert!(
                            matches!(
                                error.kind(),
                                ErrorKind::AlreadyExists { .. }
                                    | ErrorKind::Unavailable
                                    | ErrorKind::Exhausted
                            ),
                            "{error}"
                        ),
                    }
                }
                created
            })
        });
        let mut acknowledged = std::collections::BTreeSet::new();
        for caller in join_all(callers).await {
            acknowledged.extend(caller.unwrap());
        }
        backend.faults().clear();
        assert!(acknowledged.len() > CALLS, "{}", acknowledged.len());
        let stored: std::collections::BTreeSet<_> =
            store.view().users().iter().map(|user| (user.id, user.name.to_string())).collect();
        assert_eq!(stored, acknowledged);
        agrees_with_a_reopen(&backend, &store).await;
        store.verify().await.unwrap();
        store.checkpoint().await.unwrap();
        let head = backend.handle().head().await.unwrap();
        assert_eq!(head.checkpoint, head.serial);
        // Each has its line in the audit trail, once.
        let page = PageRequest::first(Limit::new(1000).unwrap());
        let lines = store.audit().query(&AuditQuery::default(), &page).await.unwrap();
        assert_eq!(lines.items.len(), acknowledged.len());
    }
}

#[tokio::test]
async fn what_was_decided_on_a_commit_that_fails_is_decided_again() {
    let backend = memory();
    let writer = WriterOptions { max_group: 2, ..WriterOptions::default() };
    let options = StoreOptions { writer, ..StoreOptions::default() };
    let store = open(backend.handle(), options).await.unwrap();
    let hold = backend.faults().hold_commits();
    let create = |name: &'static str| {
        let store = store.clone();
        tokio::spawn(async move { store.users().create(user(name)).await })
    };
    let first = create("first");
    while backend.faults().held_commits() == 0 {
        tokio::task::yield_now().await;
    }
    // Two share the commit that fails; the next two are refused while it is under way, for names
    // that are then free again.
    let calls = ["a", "b", "a", "b"].map(create);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    backend.faults().fail_next_commits(1, FaultKind::After);
    backend.faults().fail_next_commits(1, FaultKind::Before);
    drop(hold);
    first.await.unwrap().unwrap();
    let outcomes = join_all(calls).await.into_iter().map(|call| call.unwrap().is_ok());
    assert_eq!(outcomes.collect::<Vec<_>>(), [false, false, true, true]);
    assert_eq!(store.view().users().len(), 3);
    agrees_with_a_reopen(&backend, &store).await;
}
