//! The same life on every backend that is compiled in: live, reopened from blocks, and reopened
//! from rows.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod world;

use std::sync::Arc;

use futures_util::{StreamExt, future::join_all};
use ghostwire_store::block::{ChangeKind, Serial};
use ghostwire_store::command::{Precondition, Transaction, UserCommand};
use ghostwire_store::domain::*;
use ghostwire_store::view::View;
use ghostwire_store::{Entity, ErrorKind, Store};
use world::{Site, registration};

/// Runs `life` on every backend, in both ways of materialising.
async fn on_every_backend<F, L>(life: L)
where
    L: Fn(Site) -> F,
    F: Future<Output = ()>,
{
    for site in Site::all() {
        life(site).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_reopen() {
    on_every_backend(|mut site| async move {
        let store = site.open().await;
        let alice = store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
        let new = NewPreAuthKey { user: Some(alice.id), ..NewPreAuthKey::default() };
        let (key, secret) = store.preauth_keys().create(new).await.unwrap();
        let node =
            store.nodes().register(registration(1, Admission::PreAuthKey(key.id))).await.unwrap();
        store.policies().swap(None, DocumentText::new("{}").unwrap()).await.unwrap();
        let digests = store.digests().await.unwrap();
        let serial = store.view().serial();

        let store = site.reopen_without_closing(store).await;
        assert_eq!(store.view().serial(), serial);
        assert_eq!(store.digests().await.unwrap(), digests, "from blocks");
        store.verify().await.unwrap();

        store.close().await.unwrap();
        let store = site.open().await;
        assert_eq!(store.digests().await.unwrap(), digests, "from rows");
        assert_eq!(store.info().fold_debt, 0);
        let found = store.nodes().get_by_node_key(&node.node_key).await.unwrap();
        assert_eq!(found.as_deref(), Some(node.as_ref()));
        let again = store.preauth_keys().authenticate(secret.expose()).await.unwrap();
        assert_eq!(again.id, key.id);
        assert!(again.used_at.is_some());
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_concurrent_uses_of_a_one_time_key_one_wins() {
    on_every_backend(|mut site| async move {
        let store = site.open().await;
        let alice = store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
        let new = NewPreAuthKey { user: Some(alice.id), ..NewPreAuthKey::default() };
        let (key, _) = store.preauth_keys().create(new).await.unwrap();
        let calls = (1..=64u8).map(|n| {
            let (store, admission) = (store.clone(), Admission::PreAuthKey(key.id));
            tokio::spawn(async move { store.nodes().register(registration(n, admission)).await })
        });
        let outcomes: Vec<_> =
            join_all(calls).await.into_iter().map(|call| call.unwrap()).collect();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        for error in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
        }
        assert_eq!(store.view().nodes().len(), 1);
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_registrations_of_one_machine_give_one_node() {
    on_every_backend(|mut site| async move {
        let store = site.open().await;
        let alice = store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
        let admission = || Admission::User { user: alice.id, method: RegisterMethod::Cli };
        let calls = (0..12).map(|_| {
            let (store, admission) = (store.clone(), admission());
            tokio::spawn(async move { store.nodes().register(registration(7, admission)).await })
        });
        let nodes: Vec<_> =
            join_all(calls).await.into_iter().map(|call| call.unwrap().unwrap().id).collect();
        assert!(nodes.iter().all(|id| Some(id) == nodes.first()));
        assert_eq!(store.view().nodes().len(), 1);
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_every_commit_once_and_continues_after_a_restart() {
    on_every_backend(|mut site| async move {
        let store = site.open().await;
        let mut watch = store.watch(Serial::ZERO);
        let mut seen = Vec::new();
        for n in 0..5 {
            let name = format!("user{n}").parse().unwrap();
            let user = store.users().create(NewUser::local(name)).await.unwrap();
            let commit = watch.next().await.unwrap().unwrap();
            let change = commit.changes.first().unwrap();
            assert_eq!((change.entity, change.kind), (Entity::User, ChangeKind::Created));
            assert_eq!(format!("{:?}", change.handle), format!("User({:?})", user.id));
            seen.push(commit.serial);
        }
        let middle = *seen.get(2).unwrap();
        store.close().await.unwrap();
        assert!(watch.next().await.is_none(), "a closed store has no further changes");
        let store = site.open().await;
        let rest: Vec<_> =
            store.watch(middle).take(2).map(|commit| commit.unwrap().serial).collect().await;
        assert_eq!(rest, seen.get(3..).unwrap());
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_all_or_nothing() {
    on_every_backend(|mut site| async move {
        let store = site.open().await;
        let alice = store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
        let id = |n| UserId::time_ordered(alice.created_at, [n; 10]);
        let create = |n, name: &str| UserCommand::Create {
            id: id(n),
            user: NewUser::local(name.parse().unwrap()),
        };
        let before = store.digests().await.unwrap();
        let bad = Transaction::new().then(create(1, "bob")).unwrap();
        let bad = bad.then(create(2, "alice")).unwrap();
        let error = store.transact(bad).await.unwrap_err();
        assert_eq!(error.constraint(), Some("name"));
        assert_eq!(store.digests().await.unwrap(), before);
        let good = Transaction::new()
            .require(Precondition::UserRevision(alice.id, alice.revision))
            .unwrap()
            .then(create(1, "bob"))
            .unwrap()
            .then(create(2, "carol"))
            .unwrap();
        let committed = store.transact(good).await.unwrap();
        assert_eq!(committed.value.len(), 2);
        assert_eq!(store.view().serial(), committed.serial);
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_paged_added_up_and_pruned() {
    on_every_backend(|mut site| async move {
        let store = site.open().await;
        let at = |second: i64| Timestamp::from_micros(1_700_000_000_000_000 + second * 1_000_000);
        let nodes: Vec<_> = (0..3u8)
            .map(|n| NodeId::time_ordered(at(0).unwrap(), [n; 10]))
            .map(Some)
            .chain([None])
            .collect();
        let points: Vec<_> = nodes
            .iter()
            .flat_map(|node| ["rx_bytes", "tx_bytes"].map(|metric| (*node, metric)))
            .flat_map(|(node, metric)| {
                (0..1000).map(move |second| MetricPoint {
                    node,
                    metric: metric.parse().unwrap(),
                    at: at(second).unwrap(),
                    value: Sample::new(second as f64).unwrap(),
                })
            })
            .collect();
        store.metrics().record_many(points.clone()).await.unwrap();
        let writer = WriterId::time_ordered(at(0).unwrap(), [9; 10]);
        let extra = |value| MetricPoint {
            node: None,
            metric: "once".parse().unwrap(),
            at: at(1).unwrap(),
            value: Sample::new(value).unwrap(),
        };
        store.metrics().record_batch(writer, 1, vec![extra(1.0)]).await.unwrap();
        store.metrics().record_batch(writer, 1, vec![extra(2.0)]).await.unwrap();

        let query = MetricQuery {
            node: None,
            metric: Some("tx_bytes".parse().unwrap()),
            from: at(100).unwrap(),
            to: at(700).unwrap(),
        };
        let mut expected: Vec<_> = points
            .iter()
            .filter(|point| point.metric.as_str() == "tx_bytes")
            .filter(|point| point.at >= query.from && point.at < query.to)
            .cloned()
            .collect();
        expected.sort_by_key(|point| (point.node, point.at));
        let mut found = Vec::new();
        let mut page = PageRequest::first(Limit::new(777).unwrap());
        loop {
            let part = store.metrics().range(&query, &page).await.unwrap();
            found.extend(part.items);
            match part.next {
                Some(cursor) => page = PageRequest::after(Limit::new(777).unwrap(), cursor),
                None => break,
            }
        }
        assert_eq!(found, expected);
        let total = store.metrics().aggregate(&query).await.unwrap().unwrap();
        assert_eq!((total.count, total.min, total.max, total.last), (2400, 100.0, 699.0, 699.0));
        let minutes = store.metrics().rollup(&query, Rollup::Minute).await.unwrap();
        assert_eq!(minutes.iter().map(|minute| minute.count).sum::<u64>(), 2400);
        assert!(minutes.is_sorted_by_key(|minute| minute.from));

        let once = MetricQuery {
            metric: Some("once".parse().unwrap()),
            from: at(0).unwrap(),
            ..query.clone()
        };
        let value = store.metrics().aggregate(&once).await.unwrap().unwrap().last;
        assert!((value - 1.0).abs() < f64::EPSILON, "a repeated batch does nothing");

        store.metrics().prune(at(650).unwrap()).await.unwrap();
        let left = store.metrics().aggregate(&query).await.unwrap().unwrap();
        assert_eq!(left.count, 4 * 50);
        let digests = store.digests().await.unwrap();
        store.close().await.unwrap();
        let store = site.open().await;
        assert_eq!(store.digests().await.unwrap(), digests);
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_trail_is_whole_whatever_is_folded() {
    on_every_backend(|mut site| async move {
        let store = site.open().await;
        let admin = store.acting_as("admin".parse().unwrap());
        let everything = AuditQuery::default();
        let all = PageRequest::first(Limit::new(1000).unwrap());
        for n in 0..30 {
            let name = format!("user{n}").parse().unwrap();
            admin.users().create(NewUser::local(name)).await.unwrap();
            if n == 20 {
                store.checkpoint().await.unwrap();
            }
        }
        let oldest = store.audit().query(&everything, &all).await.unwrap().items;
        assert_eq!(oldest.len(), 30);
        assert!(oldest.is_sorted_by_key(|entry| (entry.at, entry.id)));
        assert!(oldest.iter().all(|entry| entry.actor.as_str() == "admin"));
        let newest_first = AuditQuery { newest_first: true, ..AuditQuery::default() };
        let mut newest = Vec::new();
        let mut page = PageRequest::first(Limit::new(7).unwrap());
        loop {
            let part = store.audit().query(&newest_first, &page).await.unwrap();
            newest.extend(part.items);
            let Some(cursor) = part.next else { break };
            page = PageRequest::after(page.limit, cursor);
            let wrong = store.audit().query(&everything, &page).await.unwrap_err();
            assert_eq!(*wrong.kind(), ErrorKind::InvalidArgument);
        }
        newest.reverse();
        assert_eq!(newest, oldest);
        let cut = oldest.get(25).unwrap().at;
        store.audit().prune(cut).await.unwrap();
        let left = store.audit().query(&everything, &all).await.unwrap().items;
        assert!(!left.is_empty() && left.iter().all(|entry| entry.at >= cut));
        store.close().await.unwrap();
        let store = site.open().await;
        assert_eq!(store.audit().query(&everything, &all).await.unwrap().items, left);
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_never_changes_and_its_netmap_is_of_one_moment() {
    on_every_backend(|mut site| async move {
        let store = site.open().await;
        let alice = store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
        let admission = || Admission::User { user: alice.id, method: RegisterMethod::Cli };
        let first = store.nodes().register(registration(1, admission())).await.unwrap();
        let view: View = store.view();
        let second = store.nodes().register(registration(2, admission())).await.unwrap();
        assert!(view.nodes().get(second.id).is_none());
        assert!(view.netmap(first.id).unwrap().peers.is_empty());
        let netmap = store.view().netmap(first.id).unwrap();
        assert_eq!(netmap.peers.first().unwrap().node.id, second.id);
        assert_eq!(netmap.serial, store.view().serial());
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_closing_every_call_is_unavailable() {
    on_every_backend(|mut site| async move {
        let store: Arc<dyn Store> = site.open().await;
        store.close().await.unwrap();
        store.close().await.unwrap();
        let unavailable = |error: ghostwire_store::Error| {
            assert_eq!(*error.kind(), ErrorKind::Unavailable);
        };
        let user = NewUser::local("alice".parse().unwrap());
        unavailable(store.users().create(user).await.unwrap_err());
        let id = UserId::time_ordered(Timestamp::EPOCH, [0; 10]);
        unavailable(store.users().get(id).await.unwrap_err());
        unavailable(store.metrics().record_many(vec![]).await.unwrap_err());
        unavailable(store.checkpoint().await.unwrap_err());
        unavailable(store.digests().await.unwrap_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_shown_once_and_checked() {
    on_every_backend(|mut site| async move {
        let store = site.open().await;
        let (key, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
        assert_eq!(store.api_keys().authenticate(secret.expose()).await.unwrap().id, key.id);
        let mut wrong = secret.expose().to_owned();
        let last = wrong.pop().unwrap();
        wrong.push(if last == '0' { '1' } else { '0' });
        for text in [wrong.as_str(), "", ".", "gwapi-x-y", "no such key", "hskey-api-é"] {
            let error = store.api_keys().authenticate(text).await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
            let exposed = !text.is_empty() && text.len() > 2 && error.to_string().contains(text);
            assert!(!exposed, "{error}");
        }
        store.api_keys().revoke(key.id).await.unwrap();
        assert!(store.api_keys().authenticate(secret.expose()).await.is_err());

        let alice = store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
        let new = NewSession {
            owner: SessionOwner::User(alice.id),
            client: None,
            expires_at: alice.created_at.saturating_add(std::time::Duration::from_secs(3600)),
        };
        let (session, token) = store.sessions().begin(new).await.unwrap();
        let found = store.sessions().authenticate(token.expose()).await.unwrap();
        assert_eq!(found.id, session.id);
        store.sessions().end(session.id).await.unwrap();
        assert!(store.sessions().authenticate(token.expose()).await.is_err());
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_when_rows_are_written_loses_nothing() {
    use ghostwire_store::config::Materialize;
    for mut site in Site::all().into_iter().filter(|site| site.config.backend.path().is_some()) {
        site.materialize(Materialize::Checkpoint);
        let store = site.open().await;
        store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
        let digests = store.digests().await.unwrap();
        // As after a crash: the blocks are not folded.
        let mut site = site.crashed(store);
        site.materialize(Materialize::Commit);
        let store = site.open().await;
        assert_eq!(store.digests().await.unwrap(), digests);
        store.users().create(NewUser::local("bob".parse().unwrap())).await.unwrap();
        let digests = store.digests().await.unwrap();
        let mut site = site.crashed(store);
        let store = site.open().await;
        assert_eq!(store.info().fold_debt, 0);
        assert_eq!(store.digests().await.unwrap(), digests);
        store.verify().await.unwrap();
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_into_a_block_goes_into_the_next() {
    on_every_backend(|mut site| async move {
        let store = site.open().await;
        // Each document is near its limit, so a group of them is several blocks.
        let calls = (0..40u8).map(|n| {
            let name = "x".repeat(200);
            let nameservers = vec![Text::new(format!("{n}")).unwrap()];
            let split = (0..250)
                .map(|domain| {
                    let servers = (0..16).map(|_| Text::new(&name).unwrap()).collect();
                    (format!("d{domain}.example.com").parse().unwrap(), servers)
                })
                .collect();
            let dns = DnsSettings { nameservers, split, ..DnsSettings::default() };
            store.settings().put(SettingDocument::Dns(dns), None)
        });
        for call in join_all(calls).await {
            call.unwrap();
        }
        let view = store.view();
        assert_eq!(view.settings().get(SettingKind::Dns).unwrap().revision.get(), 40);
        store.close().await.unwrap();
        let store = site.open().await;
        assert_eq!(store.view().settings().get(SettingKind::Dns).unwrap().revision.get(), 40);
        store.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_hash_key_is_not_replaced() {
    for mut site in Site::all().into_iter().filter(|site| site.config.backend.path().is_some()) {
        let store = site.open().await;
        let (_, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
        store.close().await.unwrap();
        let key = site.config.secret_key_path().unwrap();
        std::fs::rename(&key, key.with_extension("away")).unwrap();
        let store = site.open().await;
        let error = store.api_keys().authenticate(secret.expose()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Crypto);
        assert!(!key.exists());
        store.close().await.unwrap();
        std::fs::rename(key.with_extension("away"), &key).unwrap();
        let store = site.open().await;
        store.api_keys().authenticate(secret.expose()).await.unwrap();
        store.close().await.unwrap();
    }
}
