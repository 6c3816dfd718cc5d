//! Several processes on one backend, for those that can be shared.

use super::{NOT_SHARED, two};
use crate::prelude::*;

cases! {
    stored_unopened {
        "shared-write" => [
            processes_never_overwrite_each_other,
            a_process_that_is_behind_learns_before_it_decides,
            series_of_several_processes_are_all_there,
        ],
        "view-age" => [
            a_fresh_view_has_what_others_made_durable,
            what_others_commit_arrives_by_itself,
        ],
    }
    once {
        "view-age" => [a_view_grows_old_only_where_others_may_write],
    }
    once_unopened {
        "shared-write" => [
            after_32_lost_attempts_a_write_is_busy,
            a_consumer_that_two_processes_move_does_not_go_back,
        ],
        "view-age" => [a_credential_check_refreshes_a_view_that_is_too_old],
    }
}

async fn processes_never_overwrite_each_other(env: &mut TestEnv) -> Verdict {
    let Some((a, b)) = two(env, |_| ()).await else { return NOT_SHARED };
    let alice = user(&a, "alice").await;
    let key = reusable_key(&a, alice).await;
    let calls = (1..=60).map(|n| {
        let store = if n % 2 == 0 { a.clone() } else { b.clone() };
        let registration = machine(n, with(&key));
        tokio::spawn(async move { store.nodes().register(registration).await.unwrap() })
    });
    let mut addresses = BTreeSet::new();
    for call in join_all(calls).await {
        assert!(addresses.insert(call.unwrap().ipv4.unwrap()));
    }
    assert_eq!(addresses.len(), 60);
    assert_eq!(addresses.last(), "100.64.0.60".parse().ok().as_ref());
    // Of 20 names that both want at once, each is had once.
    let calls = (0..40).map(|n| {
        let store = if n % 2 == 0 { a.clone() } else { b.clone() };
        tokio::spawn(async move { store.users().create(local(&format!("user{}", n / 2))).await })
    });
    let outcomes: Vec<_> = join_all(calls).await.into_iter().map(|call| call.unwrap()).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 20);
    for error in outcomes.into_iter().filter_map(std::result::Result::err) {
        assert_eq!(error.constraint(), Some("name"));
    }
    let (fresh_a, fresh_b) = (a.fresh_view().await.unwrap(), b.fresh_view().await.unwrap());
    assert_eq!((fresh_a.serial(), fresh_a.hash()), (fresh_b.serial(), fresh_b.hash()));
    assert_eq!(a.digests().await.unwrap(), b.digests().await.unwrap());
    b.close().await.unwrap();
    let store = env.reload(a).await;
    assert_eq!((store.view().nodes().len(), store.view().users().len()), (60, 21));
    Verdict::Passed
}

async fn a_process_that_is_behind_learns_before_it_decides(env: &mut TestEnv) -> Verdict {
    let Some((a, b)) = two(env, |_| ()).await else { return NOT_SHARED };
    let alice = a.users().create(local("alice")).await.unwrap();
    assert!(b.view().users().is_empty());
    // A refusal may not rest on what has changed meanwhile, nor may an acceptance.
    let error = b.users().create(local("alice")).await.unwrap_err();
    assert_eq!(error.constraint(), Some("name"));
    let name = Update::Set("alicia".parse().unwrap());
    let rename = UserPatch { name, ..UserPatch::default() };
    a.users().update(alice.id, rename.clone(), None).await.unwrap();
    b.users().create(local("alice")).await.unwrap();
    fails(b.users().update(alice.id, rename, Some(alice.revision)).await, Conflict);
    b.users().delete(alice.id, false).await.unwrap();
    fails(a.users().delete(alice.id, false).await, NotFound);
    // A one-time key is used once, whoever admits.
    let owner = user(&b, "bob").await;
    let key = one_time_key(&b, owner).await;
    register(&a, 1, with(&key)).await;
    fails(b.nodes().register(machine(2, with(&key))).await, PermissionDenied);
    b.close().await.unwrap();
    a.fresh_view().await.unwrap();
    let store = env.reload(a).await;
    assert_eq!((store.view().nodes().len(), store.view().users().len()), (1, 2));
    Verdict::Passed
}

/// A backend on which something else happens before a commit.
#[derive(Debug)]
struct Interrupted {
    inner: Arc<dyn Backend>,
    /// Moves the consumer by another store, once.
    other: Mutex<Option<(Arc<dyn Store>, Position)>>,
}

#[async_trait]
impl Layer for Interrupted {
    fn inner(&self) -> &dyn Backend {
        self.inner.as_ref()
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let other = self.other.lock().unwrap().take();
        if let Some((store, to)) = other {
            store.consumers().advance(&mirror(), to).await.unwrap();
        }
        self.inner.commit(commit).await
    }
}

fn mirror() -> ConsumerName {
    ConsumerName::new("mirror").unwrap()
}

async fn a_consumer_that_two_processes_move_does_not_go_back(env: &mut TestEnv) -> Verdict {
    let inner = env.open_backend().await;
    if !inner.info().shared {
        return NOT_SHARED;
    }
    let interrupted = Arc::new(Interrupted { inner, other: Mutex::default() });
    let options = StoreOptions { follows: false, ..env.options() };
    let a = ghostwire_store_core::open(interrupted.clone(), options).await.unwrap();
    let b = env.open().await;
    let registered = a.consumers().register(mirror(), 1 << 20).await.unwrap().position;
    for name in ["alice", "bob", "carol"] {
        create(&a, name).await;
    }
    let last = b.fresh_view().await.unwrap().position();
    *interrupted.other.lock().unwrap() = Some((b.clone(), last));
    let between = registered.next();
    fails(a.consumers().advance(&mirror(), between).await, InvalidArgument);
    let listed = a.consumers().list().await.unwrap();
    assert_eq!(listed.iter().map(|it| it.position).collect::<Vec<_>>(), [last]);
    // And on it goes.
    create(&a, "dave").await;
    let moved = a.consumers().advance(&mirror(), last.next()).await.unwrap();
    assert_eq!(moved.position, last.next());
    b.close().await.unwrap();
    a.close().await.unwrap();
    Verdict::Passed
}

async fn series_of_several_processes_are_all_there(env: &mut TestEnv) -> Verdict {
    let Some((a, b)) = two(env, |_| ()).await else { return NOT_SHARED };
    let point = |second, value| point(None, "load", Timestamp::from_secs(second).unwrap(), value);
    for n in 0..10 {
        a.users().create(local(&format!("user{n}"))).await.unwrap();
        b.metrics().record(point(n, 1.0)).await.unwrap();
    }
    // Each process numbers its own batches.
    for (store, number) in [(&a, 1), (&b, 2)] {
        let writer = WriterId::from_bytes([number; 16]);
        for value in [1.0, 2.0] {
            let batch = vec![point(100 + i64::from(number), value)];
            store.metrics().record_batch(writer, 1, batch).await.unwrap();
        }
    }
    b.users().create(local("last")).await.unwrap();
    b.metrics().prune(Timestamp::from_secs(5).unwrap()).await.unwrap();
    a.metrics().record(point(7, 3.0)).await.unwrap();
    b.close().await.unwrap();
    a.fresh_view().await.unwrap();
    let store = env.reload(a).await;
    let query = all_points();
    let found = store.metrics().range(&query, &PageRequest::default()).await.unwrap().items;
    let expected = [
        point(5, 1.0),
        point(6, 1.0),
        point(7, 3.0),
        point(8, 1.0),
        point(9, 1.0),
        point(101, 1.0),
        point(102, 1.0),
    ];
    assert_eq!(found, expected);
    let audit = store.audit().query(&AuditQuery::default(), &PageRequest::default()).await.unwrap();
    assert_eq!(audit.items.len(), 11);
    Verdict::Passed
}

async fn after_32_lost_attempts_a_write_is_busy(env: &mut TestEnv) -> Verdict {
    let rival = env.open().await;
    if !rival.info().backend.shared {
        return NOT_SHARED;
    }
    let inner = env.open_backend().await;
    let backend = Arc::new(Overtaken::new(inner, rival.clone()));
    let store = ghostwire_store_core::open(backend.clone(), env.options()).await.unwrap();
    // The 32nd attempt may be the one that is first.
    backend.lose(31);
    let alice = create(&store, "alice").await;
    assert_eq!(backend.attempts(), 32);
    backend.lose(32);
    let error = fails(store.users().create(local("bob")).await, Busy);
    assert!(error.is_retryable());
    assert_eq!(backend.attempts(), 32);
    let view = rival.fresh_view().await.unwrap();
    assert_eq!(view.users().get(alice.id), Some(&alice));
    assert_eq!(view.users().len(), 1 + 31 + 32, "nothing of it was stored");
    // Attempts in a row are counted, and the next write begins anew.
    backend.lose(31);
    create(&store, "bob").await;
    let point = point(None, "load", Timestamp::EPOCH, 1.0);
    backend.lose(32);
    fails(store.metrics().record(point.clone()).await, Busy);
    store.metrics().record(point).await.unwrap();
    backend.lose(32);
    fails(store.metrics().prune(Timestamp::MAX).await, Busy);
    assert_eq!(backend.attempts(), 32);
    store.metrics().prune(Timestamp::MAX).await.unwrap();
    store.verify().await.unwrap();
    Verdict::Passed
}

async fn a_fresh_view_has_what_others_made_durable(env: &mut TestEnv) -> Verdict {
    let Some((a, b)) = two(env, |_| ()).await else { return NOT_SHARED };
    for n in 0..20 {
        let (writer, reader) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let made = writer.users().create(local(&format!("user{n}"))).await.unwrap();
        assert_eq!(reader.fresh_view().await.unwrap().users().get(made.id), Some(&made));
        assert_eq!(reader.view().users().get(made.id), Some(&made), "it is the view from then on");
    }
    b.close().await.unwrap();
    let store = env.reload(a).await;
    assert_eq!(store.view().users().len(), 20);
    Verdict::Passed
}

async fn what_others_commit_arrives_by_itself(env: &mut TestEnv) -> Verdict {
    let follow = |options: &mut StoreOptions| {
        options.follows = true;
        options.max_view_age = Duration::ZERO;
    };
    let Some((a, b)) = two(env, follow).await else { return NOT_SHARED };
    for n in 0..6 {
        let (writer, follower) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let mut changes = follower.watch(writer.view().serial());
        let made = writer.users().create(local(&format!("user{n}"))).await.unwrap();
        changes.next().await.unwrap().unwrap();
        assert_eq!(follower.view().users().get(made.id), Some(&made));
    }
    b.close().await.unwrap();
    let store = env.reload(a).await;
    assert_eq!(store.view().users().len(), 6);
    Verdict::Passed
}

async fn a_view_grows_old_only_where_others_may_write(env: &mut TestEnv, store: Opened) {
    create(&store, "alice").await;
    let view = store.view();
    if !store.info().backend.shared {
        assert_eq!((view.age(), store.view().age()), (Duration::ZERO, Duration::ZERO));
        assert_eq!(store.fresh_view().await.unwrap().serial(), view.serial());
        return;
    }
    env.advance(60);
    assert_eq!(view.age(), Duration::from_secs(60));
    let fresh = store.fresh_view().await.unwrap();
    assert_eq!(fresh.age(), Duration::ZERO);
    assert_eq!(fresh.serial(), view.serial(), "nobody has written");
    assert_eq!(view.age(), Duration::from_secs(60), "a view that is held grows old");
}

async fn a_credential_check_refreshes_a_view_that_is_too_old(env: &mut TestEnv) -> Verdict {
    for (max_view_age, refreshes) in [(Duration::ZERO, true), (HOUR, false)] {
        let set = |options: &mut StoreOptions| options.max_view_age = max_view_age;
        let Some((a, b)) = two(env, set).await else { return NOT_SHARED };
        let alice = user(&a, if refreshes { "alice" } else { "bob" }).await;
        let (api, api_text) = a.api_keys().create(NewApiKey::default()).await.unwrap();
        let (preauth, preauth_text) = a.preauth_keys().create(reusable(alice)).await.unwrap();
        let new = session_of(SessionOwner::User(alice), Timestamp::MAX);
        let (session, session_text) = a.sessions().begin(new).await.unwrap();
        let check = async || {
            [
                b.api_keys().authenticate(api_text.expose()).await.is_ok(),
                b.preauth_keys().authenticate(preauth_text.expose()).await.is_ok(),
                b.sessions().authenticate(session_text.expose()).await.is_ok(),
            ]
        };
        assert_eq!(check().await, [refreshes; 3]);
        b.fresh_view().await.unwrap();
        assert_eq!(check().await, [true; 3]);
        a.api_keys().revoke(api.id).await.unwrap();
        a.preauth_keys().delete(preauth.id).await.unwrap();
        a.sessions().end(session.id).await.unwrap();
        if refreshes {
            assert_eq!(check().await, [false; 3]);
        }
        b.fresh_view().await.unwrap();
        assert_eq!(check().await, [false; 3]);
        a.close().await.unwrap();
        b.close().await.unwrap();
    }
    Verdict::Passed
}

/// A process whose commits come second as often as they are told to.
#[derive(Debug)]
struct Overtaken {
    inner: Arc<dyn Backend>,
    rival: Arc<dyn Store>,
    to_lose: AtomicUsize,
    attempts: AtomicUsize,
    overtaken: AtomicUsize,
}

impl Overtaken {
    fn new(inner: Arc<dyn Backend>, rival: Arc<dyn Store>) -> Self {
        let (to_lose, attempts, overtaken) = Default::default();
        Self { inner, rival, to_lose, attempts, overtaken }
    }

    /// Another process is first with each of the next `count` commits.
    fn lose(&self, count: usize) {
        self.to_lose.store(count, Ordering::SeqCst);
        self.attempts.store(0, Ordering::SeqCst);
    }

    /// How many commits were tried since then.
    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Layer for Overtaken {
    fn inner(&self) -> &dyn Backend {
        self.inner.as_ref()
    }

    async fn take_turn(&self) -> Result<bool> {
        // In a turn it could not be overtaken.
        Ok(false)
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        let to_lose = self.to_lose.load(Ordering::SeqCst);
        if to_lose > 0 {
            self.to_lose.store(to_lose - 1, Ordering::SeqCst);
            let number = self.overtaken.fetch_add(1, Ordering::SeqCst);
            self.rival.users().create(local(&format!("rival{number}"))).await?;
        }
        self.inner.commit(commit).await
    }
}
