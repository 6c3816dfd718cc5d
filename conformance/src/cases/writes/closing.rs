//! What closing does, and what is left afterwards.

use ghostwire_store_core::entropy::{Entropy, SystemEntropy};

use crate::prelude::*;

cases! {
    stored {
        "close" => [a_closed_store_is_all_there],
    }
    once {
        "close" => [
            every_watch_ends,
            afterwards_every_call_is_unavailable_on_every_handle,
            the_last_view_is_still_given,
        ],
    }
    once_unopened {
        "close" => [
            what_was_accepted_is_completed_and_flushed,
            closing_again_waits_for_a_close_that_was_given_up,
            the_place_is_free_once_it_returns,
            dropping_every_handle_loses_nothing,
        ],
        "panics" => [
            a_panic_of_the_writer_ends_the_store_and_frees_its_place,
            a_panic_of_the_writer_refuses_what_waits,
        ],
    }
}

async fn a_closed_store_is_all_there(env: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    let store = env.reopen(store).await;
    assert_eq!(store.info().dirty_rows, 0, "closing flushed it");
    let store = env.reload(store).await;
    made.check(&store).await;
}

async fn what_was_accepted_is_completed_and_flushed(env: &mut TestEnv) {
    const CALLS: usize = 50;
    let store = env.open_with(never_flushing(env)).await;
    let hold = env.faults().hold_commits();
    let create = |n: usize| store.users().create(local(&format!("user{n}")));
    let mut accepted = Box::pin(join_all((0..CALLS).map(create)));
    assert!((&mut accepted).now_or_never().is_none());
    until_held(env).await;
    let (mut first, mut second) = (store.close(), store.close());
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none_or(|closed| closed.is_ok()));
    let late = store.users().create(local("late")).await.unwrap_err();
    assert_eq!(*late.kind(), Unavailable);
    drop(hold);
    first.await.unwrap();
    assert!(accepted.await.iter().all(|outcome| outcome.is_ok()));
    store.close().await.unwrap();
    // The files are free at once.
    let again = env.open_with(never_flushing(env)).await;
    assert_eq!(again.view().users().len(), CALLS);
    assert_eq!(again.info().dirty_rows, 0);
}

async fn closing_again_waits_for_a_close_that_was_given_up(env: &mut TestEnv) {
    let store = env.open_with(never_flushing(env)).await;
    let hold = env.faults().hold_commits();
    let mut accepted = store.users().create(local("alice"));
    assert!((&mut accepted).now_or_never().is_none());
    until_held(env).await;
    assert!(store.close().now_or_never().is_none());
    let mut second = store.close();
    for _ in 0..100 {
        assert!((&mut second).now_or_never().is_none(), "what was accepted is not stored yet");
        tokio::task::yield_now().await;
    }
    drop(hold);
    second.await.unwrap();
    accepted.await.unwrap();
    // Nothing is left of the store but its last view.
    let again = env.open().await;
    assert_eq!(again.view().users().len(), 1);
    assert_eq!(again.info().dirty_rows, 0);
    store.close().await.unwrap();
}

/// Under load: while commits, reads, watchers and what a commit leaves to be tidied up are all
/// under way.
async fn the_place_is_free_once_it_returns(env: &mut TestEnv) {
    const CALLERS: usize = 2048;
    const ROUNDS: usize = 3;
    let mut stored = 0;
    for round in 0..ROUNDS {
        let store = env.open().await;
        assert_eq!(store.view().users().len(), stored, "round {round}");
        let calls: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let store = store.clone();
                tokio::spawn(async move {
                    let page = PageRequest::default();
                    let mut stored = 0;
                    for number in 0.. {
                        let name = format!("user-{round}-{caller}-{number}");
                        if store.users().create(local(&name)).await.is_err() {
                            break;
                        }
                        stored += 1;
                        let _ = store.audit().query(&AuditQuery::default(), &page).await;
                    }
                    stored
                })
            })
            .collect();
        let mut watch = store.watch(store.view().serial());
        for _ in 0..4 {
            watch.next().await.unwrap().unwrap();
        }
        store.close().await.unwrap();
        let again = env.open().await;
        for call in calls {
            stored += call.await.unwrap();
        }
        assert_eq!(again.view().users().len(), stored, "round {round}");
        again.close().await.unwrap();
    }
}

async fn every_watch_ends(_: &mut TestEnv, store: Opened) {
    for name in ["a", "b", "c"] {
        create(&store, name).await;
    }
    let last = store.view().serial();
    let other = store.acting_as("other".parse().unwrap());
    // One that waits for the next commit, one of another handle, one that was never polled.
    let (mut waiting, other, mut unpolled) =
        (store.watch(last), other.watch(last), store.watch(last));
    assert!(waiting.next().now_or_never().is_none());
    let other = tokio::spawn(other.collect::<Vec<_>>());
    store.close().await.unwrap();
    assert!(waiting.next().await.is_none());
    assert!(unpolled.next().await.is_none());
    assert!(other.await.unwrap().is_empty());
    // One that is begun afterwards ends, too: it has nothing to tell, or cannot read it any more.
    assert!(store.watch(last).next().await.is_none());
    let mut late = store.watch(Serial::ZERO);
    fails(late.next().await.unwrap(), Unavailable);
    assert!(late.next().await.is_none());
}

async fn the_last_view_is_still_given(_: &mut TestEnv, store: Opened) {
    let alice = create(&store, "alice").await;
    let other = store.acting_as("other".parse().unwrap());
    let serial = store.view().serial();
    store.close().await.unwrap();
    for store in [&store, &other] {
        assert_eq!(store.view().users().get(alice.id), Some(&alice));
        assert_eq!(store.view().serial(), serial);
        assert_eq!(store.info().serial, serial);
    }
}

async fn dropping_every_handle_loses_nothing(env: &mut TestEnv) {
    let store = env.open_with(never_flushing(env)).await;
    let other = store.acting_as("other".parse().unwrap());
    create(&store, "alice").await;
    drop(store);
    // One handle is enough to go on.
    other.users().create(local("bob")).await.unwrap();
    drop(other);
    // The writer is still on its way out, and is waited for.
    let backend = env.open_backend().await;
    let head = backend.head().await.unwrap();
    assert_eq!(head.serial, Serial::new(2));
    if !backend.info().shared && !env.place().is_of_two() {
        // On a shared one, and on one that follows, rows are written with each commit.
        assert_eq!(head.checkpoint, Serial::ZERO, "nothing is flushed");
    }
    let store = ghostwire_store_core::open(backend, env.options()).await.unwrap();
    let names: Vec<_> = store.view().users().iter().map(|user| user.name.to_string()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    store.verify().await.unwrap();
}

/// Panics on the writer's thread, once it is told to.
#[derive(Default)]
struct BadEntropy(AtomicBool);

impl Entropy for BadEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        let is_writer = std::thread::current().name() == Some("ghostwire-store");
        assert!(!is_writer || !self.0.load(Ordering::SeqCst), "a fault, made on purpose");
        SystemEntropy.fill(bytes)
    }
}

async fn open_with_bad_entropy(env: &TestEnv) -> (Arc<dyn Store>, Arc<BadEntropy>) {
    let entropy = Arc::new(BadEntropy::default());
    let options = StoreOptions { entropy: entropy.clone(), ..never_flushing(env) };
    (env.open_with(options).await, entropy)
}

async fn a_panic_of_the_writer_ends_the_store_and_frees_its_place(env: &mut TestEnv) {
    let (store, entropy) = open_with_bad_entropy(env).await;
    let alice = create(&store, "alice").await;
    let mut watch = store.watch(store.view().serial());
    entropy.0.store(true, Ordering::SeqCst);
    fails(store.users().create(local("bob")).await, OutcomeUnknown);
    fails(watch.next().await.unwrap(), Unexpected);
    assert!(watch.next().await.is_none());
    closed(store.users().create(local("carol")).await);
    closed(store.users().get(alice.id).await);
    assert_eq!(store.view().users().get(alice.id), Some(&alice));
    // Nobody has closed it yet, and still the place is free.
    let again = env.open().await;
    let names: Vec<_> = again.view().users().iter().map(|user| user.name.to_string()).collect();
    assert_eq!(names, ["alice"]);
    again.verify().await.unwrap();
    for _ in 0..2 {
        fails(store.close().await, Unexpected);
    }
}

async fn a_panic_of_the_writer_refuses_what_waits(env: &mut TestEnv) {
    let (store, entropy) = open_with_bad_entropy(env).await;
    let hold = env.faults().hold_commits();
    let create = |n: usize| store.users().create(local(&format!("user{n}")));
    let mut calls = Box::pin(join_all((0..50).map(create)));
    assert!((&mut calls).now_or_never().is_none());
    until_held(env).await;
    let mut verify = store.verify();
    let at_once = (&mut verify).now_or_never();
    entropy.0.store(true, Ordering::SeqCst);
    drop(hold);
    let stored = calls.await.into_iter().filter(|outcome| match outcome {
        Ok(_) => true,
        Err(error) => {
            let kinds = [OutcomeUnknown, Unavailable];
            assert!(kinds.contains(error.kind()), "{error}");
            false
        }
    });
    let stored = stored.count();
    // It may have seen all it needs before the writer ended.
    let verified = match at_once {
        Some(verified) => verified,
        None => verify.await,
    };
    if let Err(error) = verified {
        assert_eq!(*error.kind(), Unavailable, "{error}");
    }
    store.close().await.unwrap_err();
    let again = env.open().await;
    assert!(again.view().users().len() >= stored);
    again.verify().await.unwrap();
}

async fn afterwards_every_call_is_unavailable_on_every_handle(env: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    let before = store.acting_as("before".parse().unwrap());
    let digests = store.digests().await.unwrap();
    // Closed by another handle than the first.
    before.close().await.unwrap();
    let after = store.acting_as("after".parse().unwrap());
    for store in [&store, &before, &after] {
        writes_are_unavailable(store, &made).await;
        reads_are_unavailable(store, &made).await;
        series_are_unavailable(store).await;
        store.close().await.unwrap();
    }
    drop((before, after));
    let store = env.reopen(store).await;
    assert_eq!(store.digests().await.unwrap(), digests);
    made.check(&store).await;
}

fn closed<T>(outcome: Result<T>) {
    let Err(error) = outcome else { panic!("a closed store answered") };
    assert_eq!(*error.kind(), Unavailable, "{error}");
    assert!(error.operation().is_some(), "{error}");
}

async fn writes_are_unavailable(store: &Opened, made: &OneOfEach) {
    let (user, node, session) = (made.user.id, made.node.id, made.presence.session);
    closed(store.users().create(local("bob")).await);
    closed(store.users().update(user, UserPatch::default(), None).await);
    closed(store.users().delete(user, false).await);
    closed(store.users().upsert_oidc(profile("1", "bob")).await);

    closed(store.nodes().register(machine(2, Admission::PreAuthKey(made.preauth_key.id))).await);
    closed(store.nodes().update(node, NodePatch::default(), None).await);
    let (machine_key, node_key) = (made.node.machine_key, made.node.node_key);
    closed(store.nodes().rotate_key(machine_key, node_key, node_key, None, None).await);
    closed(store.nodes().expire(vec![node], Timestamp::MAX).await);
    closed(store.nodes().expire(vec![], Timestamp::MAX).await);
    closed(store.nodes().delete(node).await);
    closed(store.nodes().reap_ephemeral().await);
    closed(store.nodes().update_settings(node, NodeSettingsPatch::default(), None).await);
    closed(store.nodes().allowed_ips(node).await);
    closed(store.nodes().backfill_addresses().await);
    closed(store.presence().connect(node, session, Update::Keep).await);
    closed(store.presence().heartbeat(node, session, Update::Keep).await);
    let endpoint = Endpoint::new(([192, 0, 2, 1], 1).into(), Timestamp::EPOCH);
    closed(store.presence().put_endpoint(node, session, endpoint).await);
    closed(store.presence().remove_endpoint(node, session, endpoint.addr).await);
    closed(store.presence().disconnect(node, session).await);
    closed(store.presence().disconnect_all().await);
    closed(store.routes().advertise(node, vec![], None).await);
    closed(store.routes().approve(node, vec![], None).await);
    closed(store.routes().advertise_one(node, made.route.prefix).await);
    closed(store.routes().withdraw_one(node, made.route.prefix).await);
    closed(store.routes().set_approved(made.route.id, true).await);
    closed(store.routes().update(made.route.id, RoutePatch::default(), None).await);
    closed(store.routes().of_node(node).await);
    closed(store.routes().sweep().await);
    closed(store.routes().delete(made.route.id).await);

    closed(store.api_keys().create(NewApiKey::default()).await);
    closed(store.api_keys().revoke(made.api_key.id).await);
    closed(store.api_keys().delete(made.api_key.id).await);
    closed(store.preauth_keys().create(one_time(user)).await);
    closed(store.preauth_keys().revoke(made.preauth_key.id).await);
    closed(store.preauth_keys().delete(made.preauth_key.id).await);
    closed(store.sessions().begin(session_of(SessionOwner::User(user), Timestamp::MAX)).await);
    closed(store.sessions().touch(made.session.id, None).await);
    closed(store.sessions().end(made.session.id).await);
    closed(store.sessions().sweep().await);

    let (version, document) = (made.policy.version, DocumentText::empty());
    closed(store.policies().swap(Some(version), document).await);
    closed(store.policies().rollback(version, version).await);
    closed(store.policies().prune(1).await);
    closed(store.dns().create(record("new.example.com", "10.0.0.1")).await);
    closed(store.dns().update(made.record.id, DnsRecordPatch::default(), None).await);
    closed(store.dns().delete(made.record.id).await);
    closed(store.settings().put(made.setting.document.clone(), None).await);
    closed(store.settings().reset(SettingKind::Dns).await);

    closed(store.transact(Transaction::new()).await);
    closed(store.restore(Restore { images: vec![], skip_invalid: false }).await);
    closed(store.checkpoint().await);
    closed(store.verify().await);
    closed(store.digests().await);
    closed(store.fresh_view().await);
}

async fn reads_are_unavailable(store: &Opened, made: &OneOfEach) {
    let page = PageRequest::default();
    closed(store.users().get(made.user.id).await);
    closed(store.users().get_by_name(&made.user.name).await);
    closed(store.users().get_by_identity(&made.user.identity).await);
    closed(store.users().list(&UserFilter::default(), &page).await);
    closed(store.nodes().get(made.node.id).await);
    closed(store.nodes().get_by_machine_key(&made.node.machine_key).await);
    closed(store.nodes().get_by_node_key(&made.node.node_key).await);
    closed(store.nodes().get_by_label(&made.node.label).await);
    closed(store.nodes().get_by_address(made.node.ipv4.unwrap().into()).await);
    closed(store.nodes().list(&NodeFilter::default(), &page).await);
    closed(store.presence().get(made.node.id).await);
    closed(store.routes().get(made.route.id).await);
    closed(store.routes().list(&RouteFilter::default(), &page).await);
    closed(store.routes().lookup(made.route.prefix.addr()).await);
    closed(store.api_keys().get(made.api_key.id).await);
    closed(store.api_keys().list(&KeyFilter::default(), &page).await);
    closed(store.api_keys().authenticate(made.api_secret.expose()).await);
    closed(store.preauth_keys().get(made.preauth_key.id).await);
    closed(store.preauth_keys().list(&KeyFilter::default(), &page).await);
    closed(store.preauth_keys().authenticate(made.preauth_secret.expose()).await);
    closed(store.sessions().list(None, &page).await);
    closed(store.sessions().authenticate(made.token.expose()).await);
    closed(store.policies().current().await);
    closed(store.policies().get(made.policy.version).await);
    closed(store.policies().history(&page).await);
    closed(store.dns().get(made.record.id).await);
    closed(store.dns().list(&DnsRecordFilter::default(), &page).await);
    closed(store.settings().get(SettingKind::Dns).await);
}

async fn series_are_unavailable(store: &Opened) {
    let page = PageRequest::default();
    let point = point(None, "rx_bytes", Timestamp::EPOCH, 1.0);
    let query =
        MetricQuery { node: None, metric: None, from: Timestamp::EPOCH, to: Timestamp::EPOCH };
    let writer = WriterId::from_bytes([1; 16]);
    closed(store.metrics().record(point.clone()).await);
    closed(store.metrics().record_many(vec![point.clone()]).await);
    closed(store.metrics().record_many(vec![]).await);
    closed(store.metrics().record_batch(writer, 1, vec![point]).await);
    closed(store.metrics().record_batch(writer, 1, vec![]).await);
    closed(store.metrics().range(&query, &page).await);
    closed(store.metrics().aggregate(&query).await);
    closed(store.metrics().rollup(&query, Rollup::Hour).await);
    closed(store.metrics().prune(Timestamp::EPOCH).await);
    closed(store.audit().append(vec![entry(1, at(0))]).await);
    closed(store.audit().append(vec![]).await);
    closed(store.audit().query(&AuditQuery::default(), &page).await);
    closed(store.audit().prune(Timestamp::EPOCH).await);
}
