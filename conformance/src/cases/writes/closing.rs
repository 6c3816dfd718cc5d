//! What closing does, and what is left afterwards.

use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::command::{Restore, Transaction};
use ghostwire_store_core::domain::*;
use ghostwire_store_core::{ErrorKind, Result, Store};

use crate::case::cases;
use crate::cases::writes::commits::until_held;
use crate::cases::writes::durable::{OneOfEach, local, machine, never_folding, record};
use crate::world::World;

cases! {
    stored {
        "close" => [a_closed_store_is_all_there],
    }
    once {
        "close" => [
            what_was_accepted_is_completed_and_folded,
            every_watch_ends,
            afterwards_every_call_is_unavailable_on_every_handle,
            the_last_view_is_still_given,
            dropping_every_handle_loses_nothing,
        ],
    }
}

async fn a_closed_store_is_all_there(world: &mut World) {
    let store = world.open().await;
    let made = OneOfEach::make(store.as_ref()).await;
    let store = world.reopen(store).await;
    assert_eq!(store.info().fold_debt, 0, "closing folded it");
    let store = world.pass(store).await;
    made.check(store.as_ref()).await;
}

async fn what_was_accepted_is_completed_and_folded(world: &mut World) {
    const CALLS: usize = 50;
    let store = world.open_with(never_folding(world)).await;
    let hold = world.faults().hold_commits();
    let create = |n: usize| store.users().create(local(&format!("user{n}")));
    let mut accepted = Box::pin(join_all((0..CALLS).map(create)));
    assert!((&mut accepted).now_or_never().is_none());
    until_held(world).await;
    let (mut first, mut second) = (store.close(), store.close());
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none_or(|closed| closed.is_ok()));
    let late = store.users().create(local("late")).await.unwrap_err();
    assert_eq!(*late.kind(), ErrorKind::Unavailable);
    drop(hold);
    first.await.unwrap();
    assert!(accepted.await.iter().all(|outcome| outcome.is_ok()));
    store.close().await.unwrap();
    // The files are free at once.
    let again = world.open_with(never_folding(world)).await;
    assert_eq!(again.view().users().len(), CALLS);
    assert_eq!(again.info().fold_debt, 0);
}

async fn every_watch_ends(world: &mut World) {
    let store = world.open().await;
    for name in ["a", "b", "c"] {
        store.users().create(local(name)).await.unwrap();
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
    let error = late.next().await.unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(late.next().await.is_none());
}

async fn the_last_view_is_still_given(world: &mut World) {
    let store = world.open().await;
    let alice = store.users().create(local("alice")).await.unwrap();
    let other = store.acting_as("other".parse().unwrap());
    let serial = store.view().serial();
    store.close().await.unwrap();
    for store in [&store, &other] {
        assert_eq!(store.view().users().get(alice.id), Some(&alice));
        assert_eq!(store.view().serial(), serial);
        assert_eq!(store.info().serial, serial);
    }
}

async fn dropping_every_handle_loses_nothing(world: &mut World) {
    let store = world.open_with(never_folding(world)).await;
    let other = store.acting_as("other".parse().unwrap());
    store.users().create(local("alice")).await.unwrap();
    drop(store);
    // One handle is enough to go on.
    other.users().create(local("bob")).await.unwrap();
    drop(other);
    let backend = loop {
        match world.try_open_backend(world.opening()).await {
            Ok(backend) => break backend,
            // The writer is still on its way out.
            Err(error) => assert_eq!(*error.kind(), ErrorKind::Busy),
        }
        tokio::task::yield_now().await;
    };
    let head = backend.head().await.unwrap();
    assert_eq!(head.serial, Serial::new(2));
    if !backend.info().shared {
        // On a shared one rows are written with each commit.
        assert_eq!(head.checkpoint, Serial::ZERO, "nothing is folded");
    }
    let store = ghostwire_store_core::open(backend, world.options()).await.unwrap();
    let names: Vec<_> = store.view().users().iter().map(|user| user.name.to_string()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    store.verify().await.unwrap();
}

async fn afterwards_every_call_is_unavailable_on_every_handle(world: &mut World) {
    let store = world.open().await;
    let made = OneOfEach::make(store.as_ref()).await;
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
    let store = world.reopen(store).await;
    assert_eq!(store.digests().await.unwrap(), digests);
    made.check(store.as_ref()).await;
}

fn closed<T>(outcome: Result<T>) {
    let Err(error) = outcome else { panic!("a closed store answered") };
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.operation().is_some(), "{error}");
}

async fn writes_are_unavailable(store: &Arc<dyn Store>, made: &OneOfEach) {
    let (user, node, session) = (made.user.id, made.node.id, made.presence.session);
    closed(store.users().create(local("bob")).await);
    closed(store.users().update(user, UserPatch::default(), None).await);
    closed(store.users().delete(user, false).await);
    let profile = OidcProfile {
        provider: Text::new("p").unwrap(),
        subject: Text::new("s").unwrap(),
        name: "bob".parse().unwrap(),
        display_name: None,
        email: None,
        picture_url: None,
    };
    closed(store.users().upsert_oidc(profile).await);

    let admission = Admission::PreAuthKey(made.preauth_key.id);
    closed(store.nodes().register(machine(2, admission)).await);
    closed(store.nodes().update(node, NodePatch::default(), None).await);
    let (machine_key, node_key) = (made.node.machine_key, made.node.node_key);
    closed(store.nodes().rotate_key(machine_key, node_key, node_key, None, None).await);
    closed(store.nodes().expire(vec![node], Timestamp::MAX).await);
    closed(store.nodes().expire(vec![], Timestamp::MAX).await);
    closed(store.nodes().delete(node).await);
    closed(store.nodes().reap_ephemeral().await);
    closed(store.nodes().backfill_addresses().await);
    closed(store.presence().connect(node, session, Change::Keep).await);
    closed(store.presence().heartbeat(node, session, Change::Keep).await);
    closed(store.presence().disconnect(node, session).await);
    closed(store.presence().disconnect_all().await);
    closed(store.routes().advertise(node, vec![]).await);
    closed(store.routes().approve(node, vec![]).await);
    closed(store.routes().delete(made.route.id).await);

    closed(store.api_keys().create(NewApiKey::default()).await);
    closed(store.api_keys().revoke(made.api_key.id).await);
    closed(store.api_keys().delete(made.api_key.id).await);
    let new = NewPreAuthKey { user: Some(user), ..NewPreAuthKey::default() };
    closed(store.preauth_keys().create(new).await);
    closed(store.preauth_keys().revoke(made.preauth_key.id).await);
    closed(store.preauth_keys().delete(made.preauth_key.id).await);
    let owner = SessionOwner::User(user);
    let new = NewSession { owner, client: None, expires_at: Timestamp::MAX };
    closed(store.sessions().begin(new).await);
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

async fn reads_are_unavailable(store: &Arc<dyn Store>, made: &OneOfEach) {
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

async fn series_are_unavailable(store: &Arc<dyn Store>) {
    let page = PageRequest::default();
    let point = MetricPoint {
        node: None,
        metric: "rx_bytes".parse().unwrap(),
        at: Timestamp::EPOCH,
        value: Sample::new(1.0).unwrap(),
    };
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
    let entry = AuditEntry {
        id: AuditId::from_bytes([1; 16]),
        at: Timestamp::EPOCH,
        actor: ActorName::system(),
        action: Text::new("a").unwrap(),
        entity: ghostwire_store_core::Entity::User,
        subject: Text::new("s").unwrap(),
    };
    closed(store.audit().append(vec![entry]).await);
    closed(store.audit().append(vec![]).await);
    closed(store.audit().query(&AuditQuery::default(), &page).await);
    closed(store.audit().prune(Timestamp::EPOCH).await);
}
