//! Backends whose calls do not return.

use ghostwire_store_core::backend::BackendInfo;
use ghostwire_store_core::layer::Deadlines;

use crate::prelude::*;

cases! {
    stored_backend {
        "deadline" => [a_commit_that_is_given_up_is_stored_as_a_whole_or_not_at_all],
    }
    once_unopened {
        "deadline" => [
            a_commit_that_does_not_return_is_found_out,
            calls_that_do_not_return_end_and_writes_go_on_later,
            a_store_that_cannot_be_read_is_not_opened,
            closing_ends,
        ],
    }
}

/// A backend that others may write to, and that never answers some calls.
#[derive(Debug)]
struct Hanging {
    inner: Arc<dyn Backend>,
    /// These calls, so many times.
    calls: Mutex<BTreeMap<&'static str, usize>>,
}

impl Hanging {
    fn new(inner: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self { inner, calls: Mutex::default() })
    }

    fn hang(&self, calls: &[&'static str], times: usize) {
        self.calls.lock().unwrap().extend(calls.iter().map(|call| (*call, times)));
    }

    fn heal(&self) {
        self.calls.lock().unwrap().clear();
    }

    async fn pass(&self, call: &str) {
        let hangs = match self.calls.lock().unwrap().get_mut(call) {
            Some(times) if *times > 0 => {
                *times -= 1;
                true
            }
            _ => false,
        };
        if hangs {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Layer for Hanging {
    fn inner(&self) -> &dyn Backend {
        self.inner.as_ref()
    }

    fn info(&self) -> BackendInfo {
        BackendInfo { shared: true, ..self.inner.info() }
    }

    async fn head(&self) -> Result<Head> {
        self.pass("head").await;
        self.inner.head().await
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        self.pass("scan").await;
        self.inner.scan(scan).await
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.pass("blocks").await;
        self.inner.blocks(after, limit).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.pass("commit").await;
        self.inner.commit(commit).await?;
        self.pass("stored commit").await;
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.pass("close").await;
        self.inner.close().await
    }

    async fn reopen(&self) -> Result<Head> {
        self.pass("reopen").await;
        self.inner.reopen().await
    }
}

fn impatient(env: &TestEnv) -> StoreOptions {
    // Longer than what returns takes on a machine that is busy.
    let soon = Duration::from_secs(1);
    let deadlines = Deadlines { connect: soon, read: soon, commit: soon };
    StoreOptions { deadlines, max_view_age: Duration::ZERO, ..never_flushing(env) }
}

async fn a_commit_that_does_not_return_is_found_out(env: &mut TestEnv) {
    let hanging = Hanging::new(env.open_backend().await);
    let store = ghostwire_store_core::open(hanging.clone(), impatient(env)).await.unwrap();
    for (number, call) in (1..).zip(["commit", "stored commit"]) {
        hanging.hang(&[call], 1);
        create(&store, &format!("user-{number}")).await;
        hanging.hang(&[call], 1);
        let load = point(None, "load", at(number), 1.0);
        store.metrics().record(load).await.unwrap();
        assert_eq!(store.view().position().get(), 2 * number.unsigned_abs());
    }
    assert!(store.info().recoveries >= 4);
    let store = env.crash(store).await;
    assert_eq!(store.view().position().get(), 4);
    assert_eq!(names(&store), ["user-1", "user-2"]);
    assert_eq!(range(&store, &all_points(), 1000).await.len(), 2);
}

async fn calls_that_do_not_return_end_and_writes_go_on_later(env: &mut TestEnv) {
    let hanging = Hanging::new(env.open_backend().await);
    let store = ghostwire_store_core::open(hanging.clone(), impatient(env)).await.unwrap();
    let alice = create(&store, "alice").await;
    let (_, secret) = store.api_keys().create(api_key_of(alice.id)).await.unwrap();
    hanging.hang(&["head", "scan", "blocks", "stored commit", "reopen"], usize::MAX);
    assert!(Backend::head(hanging.as_ref()).now_or_never().is_none(), "it would never end");
    fails(store.users().create(local("bob")).await, OutcomeUnknown);
    fails(store.users().create(local("carol")).await, Unavailable);
    fails(store.fresh_view().await, Unavailable);
    fails(store.api_keys().authenticate(secret.expose()).await, Unavailable);
    fails(store.metrics().range(&all_points(), &PageRequest::default()).await, Unavailable);
    // What is in memory goes on.
    assert_eq!(store.users().get(alice.id).await.unwrap().as_ref(), Some(&alice));
    hanging.heal();
    create(&store, "dave").await;
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    assert_eq!(names(&store), ["alice", "bob", "dave"], "what was unknown was stored");
    settle(&store).await;
    let store = env.crash(store).await;
    assert_eq!(names(&store), ["alice", "bob", "dave"]);
}

async fn a_store_that_cannot_be_read_is_not_opened(env: &mut TestEnv) {
    for call in ["head", "scan"] {
        let hanging = Hanging::new(env.open_backend().await);
        hanging.hang(&[call], usize::MAX);
        fails(ghostwire_store_core::open(hanging, impatient(env)).await, Unavailable);
    }
    let hanging = Hanging::new(env.open_backend().await);
    let store = ghostwire_store_core::open(hanging, impatient(env)).await.unwrap();
    create(&store, "alice").await;
}

async fn closing_ends(env: &mut TestEnv) {
    let hanging = Hanging::new(env.open_backend().await);
    let store = ghostwire_store_core::open(hanging.clone(), impatient(env)).await.unwrap();
    create(&store, "alice").await;
    hanging.hang(&["close"], 1);
    fails(store.close().await, Unavailable);
    hanging.inner.close().await.unwrap();
}

/// Whoever gives it up drops its future, at whatever it waits for.
async fn a_commit_that_is_given_up_is_stored_as_a_whole_or_not_at_all(
    env: &mut TestEnv,
    mut backend: OpenedBackend,
) {
    for round in 0..12u8 {
        let head = backend.head().await.unwrap();
        let noted = (0..4).map(|part| row(&entry(round * 4 + part, at(round.into())))).collect();
        let commit = Commit {
            entry: Some(CommitId::from_bytes([round + 1; 16])),
            rows: noted,
            ..Commit::on(&head)
        };
        let mut stored = false;
        {
            let mut storing = Box::pin(backend.commit(&commit));
            for _ in 0..round {
                if let Some(outcome) = (&mut storing).now_or_never() {
                    outcome.unwrap();
                    stored = true;
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        if round % 4 == 3 {
            backend = env.reload_backend(backend).await;
        }
        let after = backend.reopen().await.unwrap();
        assert!(after == head || after == head.after(&commit).unwrap());
        assert!(!stored || after != head);
        let scan = Scan { range: KeyRange::all(Table::Audit), reverse: true, limit: 4 };
        let rows = backend.scan(scan).await.unwrap().rows;
        let there =
            commit.rows.iter().filter(|row| rows.iter().any(|it| it.key == row.key)).count();
        assert_eq!(there, if after == head { 0 } else { 4 }, "half of it is there");
        // The next one is not held up.
        let next = Commit { entry: Some(CommitId::from_bytes([99; 16])), ..Commit::on(&after) };
        backend.commit(&next).await.unwrap();
    }
}
