//! Views, network maps, and reading what was written.

use ghostwire_store_core::schema::Record;
use ghostwire_store_core::view::View;

use crate::prelude::*;

cases! {
    stored {
        "view" => [
            a_view_never_changes_over_1000_writes,
            a_view_counts_what_it_holds,
        ],
        "read-your-writes" => [
            every_writer_sees_its_own_writes_among_others,
            every_kind_of_write_is_seen_at_once,
        ],
        "netmap" => [
            a_network_map_has_everything_of_one_view,
            a_network_map_is_of_one_moment_under_writes,
        ],
        "verify" => [
            nothing_is_wrong_after_everything,
            verifying_under_writes_finds_nothing_wrong,
        ],
    }
    once {
        "view" => [a_view_is_had_while_commits_wait],
        "verify" => [rows_that_contradict_the_kept_blocks_are_found],
    }
    once_unopened {
        "verify" => [verifying_flushes_nothing_and_holds_nobody_up],
    }
}

async fn a_view_never_changes_over_1000_writes(env: &mut TestEnv, store: Opened) {
    populate(env, &store).await;
    let view = store.view();
    let (serial, hash, time) = (view.serial(), view.hash(), view.time());
    let images: Vec<EntityRecord> = view.images().collect();
    let digest = state_digest(&view);
    let node = view.nodes().iter().next().unwrap().id;
    let peers = view.netmap(node).unwrap().peer_count();
    let clone = view.clone();

    for round in 0..5 {
        let calls = (0..190).map(|n| {
            let (store, name) = (store.clone(), format!("user{round}-{n}"));
            async move { create(&store, &name).await }
        });
        join_all(calls).await;
        for (image, n) in images.iter().zip(0..) {
            // Everything that the view holds is changed or removed.
            let _ = match image {
                EntityRecord::User(user) if n % 2 == 0 => {
                    let name = format!("renamed{round}-{n}").parse().unwrap();
                    let patch = UserPatch { name: Update::Set(name), ..UserPatch::default() };
                    store.users().update(user.id, patch, None).await.map(|_| ())
                }
                EntityRecord::User(user) => store.users().delete(user.id, true).await,
                EntityRecord::Node(node) => store.nodes().delete(node.id).await,
                EntityRecord::DnsRecord(record) => store.dns().delete(record.id).await,
                EntityRecord::Setting(setting) => {
                    store.settings().reset(setting.document.kind()).await
                }
                _ => Ok(()),
            };
        }
    }
    assert!(store.view().serial() > serial);
    assert!(store.view().users().len() >= 950);
    let store = env.reload(store).await;
    assert!(store.view().users().len() >= 950);
    for view in [view, clone] {
        assert_eq!((view.serial(), view.hash(), view.time()), (serial, hash, time));
        assert!(view.images().eq(images.iter().cloned()));
        assert_eq!(state_digest(&view), digest);
        assert_eq!(view.netmap(node).unwrap().peer_count(), peers);
    }
}

async fn a_view_counts_what_it_holds(env: &mut TestEnv, store: Opened) {
    assert_eq!(counts(&store.view()), [(0, true); 10]);
    populate(env, &store).await;
    let owner = store.view().users().iter().next().unwrap().id;
    store.api_keys().create(NewApiKey::default()).await.unwrap();
    store.preauth_keys().create(reusable(owner)).await.unwrap();
    let store = env.reload(store).await;
    let held = [2, 6, 2, 4, 12, 2, 2, 2, 2, 2];
    assert_eq!(counts(&store.view()), held.map(|count| (count, false)));
}

/// How many there are of each kind, and whether there are none.
fn counts(view: &View) -> [(usize, bool); 10] {
    macro_rules! counts {
        ($($held:ident),*) => { [$((view.$held().len(), view.$held().is_empty())),*] };
    }
    counts!(
        users,
        nodes,
        presence,
        routes,
        addresses,
        policies,
        dns_records,
        api_keys,
        preauth_keys,
        sessions
    )
}

async fn a_view_is_had_while_commits_wait(env: &mut TestEnv, store: Opened) {
    create(&store, "alice").await;
    let hold = env.faults().hold_commits();
    let write = spawn_create(&store, "bob");
    until_held(env).await;
    let view = store.view();
    assert_eq!((view.serial().get(), view.users().len()), (1, 1));
    assert!(!write.is_finished());
    drop(hold);
    write.await.unwrap().unwrap();
    assert_eq!(view.users().len(), 1);
    assert_eq!(store.view().users().len(), 2);
}

async fn every_writer_sees_its_own_writes_among_others(env: &mut TestEnv, store: Opened) {
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = store.acting_as(format!("writer-{writer}").parse().unwrap());
            tokio::spawn(async move {
                for n in 0..25 {
                    let name: UserName = format!("user{writer}-{n}").parse().unwrap();
                    let made = store.users().create(NewUser::local(name.clone())).await.unwrap();
                    assert_eq!(store.view().users().get(made.id), Some(&made));
                    let fresh = store.fresh_view().await.unwrap();
                    assert_eq!(fresh.users().get(made.id), Some(&made));
                    let found = store.users().get_by_name(&name).await.unwrap();
                    assert_eq!(found, Some(made.clone()));
                    let filter = UserFilter { name: Some(name), ..UserFilter::default() };
                    let page = PageRequest::default();
                    assert_eq!(store.users().list(&filter, &page).await.unwrap().items.len(), 1);
                    if n % 3 == 0 {
                        store.users().delete(made.id, false).await.unwrap();
                        assert_eq!(store.users().get(made.id).await.unwrap(), None);
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let store = env.reload(store).await;
    assert_eq!(store.view().users().len(), 8 * 16);
}

async fn every_kind_of_write_is_seen_at_once(env: &mut TestEnv, store: Opened) {
    let alice = create(&store, "alice").await;
    assert_eq!(store.users().get(alice.id).await.unwrap().as_ref(), Some(&alice));
    let (api, _) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    assert_eq!(store.api_keys().get(api.id).await.unwrap(), Some(api));
    let key = reusable_key(&store, alice.id).await;
    assert_eq!(store.preauth_keys().get(key.id).await.unwrap().as_ref(), Some(&key));
    let node = register(&store, 1, with(&key)).await;
    assert_eq!(store.nodes().get_by_label(&node.label).await.unwrap(), Some(node.clone()));
    let number = SessionNumber::new(1).unwrap();
    let presence = store.presence().connect(node.id, number, Update::Keep).await.unwrap();
    assert_eq!(store.presence().get(node.id).await.unwrap(), Some(presence));
    let prefix = || vec!["10.0.0.0/8".parse().unwrap()];
    store.routes().advertise(node.id, prefix(), None).await.unwrap();
    let routes = store.routes().approve(node.id, prefix(), None).await.unwrap();
    let found = store.routes().lookup("10.1.2.3".parse().unwrap()).await.unwrap();
    assert_eq!(found.as_ref(), routes.first());
    let policy = store.policies().swap(None, DocumentText::empty()).await.unwrap();
    assert_eq!(store.policies().current().await.unwrap(), Some(policy));
    let record = store.dns().create(note(1)).await.unwrap();
    assert_eq!(store.dns().get(record.id).await.unwrap(), Some(record));
    let dns = SettingDocument::Dns(DnsSettings::default());
    let setting = store.settings().put(dns, None).await.unwrap();
    assert_eq!(store.settings().get(SettingKind::Dns).await.unwrap(), Some(setting));
    let owner = SessionOwner::User(alice.id);
    let (session, _) = store.sessions().begin(session_of(owner, Timestamp::MAX)).await.unwrap();
    let page = PageRequest::default();
    assert_eq!(store.sessions().list(Some(owner), &page).await.unwrap().items, [session]);
    let point = point(None, "load", Timestamp::EPOCH, 1.0);
    store.metrics().record(point.clone()).await.unwrap();
    let query = all_points();
    assert_eq!(store.metrics().range(&query, &page).await.unwrap().items, [point]);
    let lines = store.audit().query(&AuditQuery::default(), &page).await.unwrap().items.len();
    assert_eq!(lines, 10);
    let store = env.reload(store).await;
    assert_eq!(store.view().images().count(), 10);
}

async fn a_network_map_has_everything_of_one_view(env: &mut TestEnv, store: Opened) {
    populate(env, &store).await;
    let store = env.reload(store).await;
    let view = store.view();
    let nodes: Vec<_> = view.nodes().iter().cloned().collect();
    assert_eq!(nodes.len(), 6);
    for node in &nodes {
        let map = view.netmap(node.id).unwrap();
        assert_eq!((map.serial, &map.node), (view.serial(), node));
        let others: Vec<_> = nodes.iter().filter(|other| other.id != node.id).cloned().collect();
        let peers: Vec<_> = map.peers().map(|peer| peer.node.clone()).collect();
        assert_eq!(peers, others);
        for peer in map.peers() {
            assert_eq!(peer.presence.as_ref(), view.presence().get(peer.node.id));
        }
        assert!(map.peers().any(|peer| peer.presence.is_some()));
        assert!(map.peers().any(|peer| peer.presence.is_none()));
        let mut routes: Vec<_> = map.routes.iter().map(|route| route.prefix.to_string()).collect();
        routes.sort();
        assert_eq!(routes, ["0.0.0.0/0", "10.0.0.0/8"]);
        assert!(map.users.iter().eq(view.users().iter()));
        assert_eq!(map.policy.as_ref(), view.policies().current());
        assert_eq!(map.policy.as_ref().unwrap().version.get(), 2);
        assert!(map.dns_records.iter().eq(view.dns_records().iter()));
        assert_eq!(map.settings, *view.settings().network());
        assert!(map.dns.magic_dns);
        assert_eq!(map.derp_map.regions.len(), 1);
    }
    assert!(view.netmap(NodeId::from_bytes([9; 16])).is_none());
    let gone = nodes[0].id;
    store.nodes().delete(gone).await.unwrap();
    assert!(store.view().netmap(gone).is_none());
    let map = store.view().netmap(nodes[1].id).unwrap();
    assert!(map.peers().all(|peer| peer.node.id != gone));
}

async fn a_network_map_is_of_one_moment_under_writes(env: &mut TestEnv, store: Opened) {
    const ROUNDS: u64 = 60;
    let alice = user(&store, "alice").await;
    let key = reusable_key(&store, alice).await;
    let node = register(&store, 1, with(&key)).await.id;
    let now = env.options().clock.now();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for round in 1..=ROUNDS {
                // Each version of the policy comes with one more record.
                let mut random = [0; 10];
                random[..8].copy_from_slice(&round.to_be_bytes());
                let id = DnsRecordId::time_ordered(now, random);
                let expected = PolicyVersion::new(round - 1).ok();
                let document = DocumentText::new(round.to_string()).unwrap();
                let both = Transaction::new()
                    .then(PolicyCommand::Swap { expected, document })
                    .unwrap()
                    .then(DnsCommand::Create { id, record: note(round) })
                    .unwrap();
                store.transact(both).await.unwrap();
            }
        }
    });
    let mut last = 0;
    while last < ROUNDS {
        let map = store.view().netmap(node).unwrap();
        let version = map.policy.as_ref().map_or(0, |policy| policy.version.get());
        assert_eq!(map.dns_records.len() as u64, version);
        assert_eq!(map.serial.get(), 3 + version);
        assert!(version >= last);
        last = version;
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.view().netmap(node).unwrap().dns_records.len() as u64, ROUNDS);
}

async fn nothing_is_wrong_after_everything(env: &mut TestEnv, store: Opened) {
    store.verify().await.unwrap();
    let store = env.reload(store).await;
    populate(env, &store).await;
    store.verify().await.unwrap();
    let store = env.reload(store).await;
    let alice = store.view().users().iter().next().unwrap().id;
    store.users().delete(alice, true).await.unwrap();
    store.audit().prune(env.options().clock.now()).await.unwrap();
    store.verify().await.unwrap();
    let store = env.reload(store).await;
    let store = env.reopen(store).await;
    store.verify().await.unwrap();
    let store = env.crash(store).await;
    store.verify().await.unwrap();
    assert_eq!(store.view().nodes().len(), 0);
}

async fn verifying_under_writes_finds_nothing_wrong(env: &mut TestEnv, store: Opened) {
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for round in 0..20 {
                let calls = (0..10).map(|n| {
                    let (store, name) = (store.clone(), format!("user{round}-{n}"));
                    async move { create(&store, &name).await }
                });
                join_all(calls).await;
            }
        }
    });
    let mut verified = 0;
    while !writer.is_finished() || verified == 0 {
        store.verify().await.unwrap();
        verified += 1;
    }
    writer.await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.view().users().len(), 200);
}

async fn verifying_flushes_nothing_and_holds_nobody_up(env: &mut TestEnv) {
    let mut options = env.options();
    options.writer.idle_before_flush = HOUR;
    let store = env.open_with(options).await;
    populate(env, &store).await;
    let rows_at_once = store.info().backend.shared;
    assert_eq!(store.info().dirty_rows == 0, rows_at_once);
    let dirty = store.info().dirty_rows;
    store.verify().await.unwrap();
    assert_eq!(store.info().dirty_rows, dirty);
    if rows_at_once {
        // It asks for what others have written, behind what is under way.
        return;
    }
    let hold = env.faults().hold_commits();
    let under_way = spawn_create(&store, "under-way");
    until_held(env).await;
    store.verify().await.unwrap();
    drop(hold);
    under_way.await.unwrap().unwrap();
    store.verify().await.unwrap();
}

/// As a disk leaves them that lost a write, or a copy of files that were of different moments.
async fn rows_that_contradict_the_kept_blocks_are_found(
    env: &mut TestEnv,
    store: Opened,
) -> Verdict {
    if env.place().is_of_two() {
        return Verdict::Skipped(
            "what is altered in one database is not in the one that is opened next",
        );
    }
    let row = |user: &User| RowChange {
        table: Table::Users,
        kind: ChangeKind::Updated,
        key: user.key(),
        body: Some(user.encode()),
    };
    let older = create(&store, "alice").await;
    let patch =
        UserPatch { display_name: Patch::Set("Alice".parse().unwrap()), ..UserPatch::default() };
    let newer = store.users().update(older.id, patch, None).await.unwrap();
    let deleted = create(&store, "bob").await;
    store.users().delete(deleted.id, false).await.unwrap();
    store.checkpoint().await.unwrap();
    store.verify().await.unwrap();
    store.close().await.unwrap();
    let gone = |user: &User| RowChange { kind: ChangeKind::Deleted, body: None, ..row(user) };
    // A lost update, a lost insertion, a lost deletion, and how it was.
    for (change, is_sound) in [
        (row(&older), false),
        (gone(&newer), false),
        (row(&newer), true),
        (row(&deleted), false),
        (gone(&deleted), true),
    ] {
        let backend = env.open_backend().await;
        let head = backend.head().await.unwrap();
        let commit = Commit { rows: vec![change.clone()], ..Commit::on(&head) };
        backend.commit(&commit).await.unwrap();
        backend.close().await.unwrap();
        let store = env.open().await;
        match store.verify().await {
            Ok(()) => assert!(is_sound, "nothing is wrong with {change:?}"),
            Err(error) => {
                assert!(!is_sound, "{error}");
                assert_eq!(*error.kind(), Corrupt, "{error}");
            }
        }
        store.close().await.unwrap();
    }
    Verdict::Passed
}
