//! Revisions: edits that do not overwrite each other, and updates that change nothing.

use crate::prelude::*;

cases! {
    stored {
        "revisions" => [
            changes_are_counted_from_one,
            a_stale_patch_does_not_overwrite_an_edit,
            an_update_that_changes_nothing_writes_nothing,
            a_primary_that_moves_is_no_change,
            the_use_of_an_api_key_is_no_change,
        ],
    }
    once {
        "revisions" => [of_many_edits_of_one_revision_one_wins],
    }
}

async fn changes_are_counted_from_one(env: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    let first = [
        made.user.revision,
        made.node.revision,
        made.route.revision,
        made.api_key.revision,
        made.preauth_key.revision,
        made.record.revision,
        made.setting.revision,
    ];
    assert_eq!(first, [Revision::FIRST; 7]);
    assert_eq!(Revision::FIRST.get(), 1);
    env.advance(1);
    for round in 2..=4u64 {
        let name = format!("{round}");
        let patch = UserPatch { display_name: Patch::Set(text(&name)), ..UserPatch::default() };
        store.users().update(made.user.id, patch, None).await.unwrap();
        let patch =
            NodePatch { hostname: Update::Set(name.parse().unwrap()), ..NodePatch::default() };
        store.nodes().update(made.node.id, patch, None).await.unwrap();
        let patch = DnsRecordPatch {
            ttl: Patch::Set(u32::try_from(round).unwrap()),
            ..DnsRecordPatch::default()
        };
        store.dns().update(made.record.id, patch, None).await.unwrap();
        let dns = DnsSettings { nameservers: vec![text(&name)], ..DnsSettings::default() };
        store.settings().put(SettingDocument::Dns(dns), None).await.unwrap();
    }
    let prefix = made.route.prefix;
    store.routes().approve(made.node.id, vec![prefix], None).await.unwrap();
    store.api_keys().revoke(made.api_key.id).await.unwrap();
    store.preauth_keys().revoke(made.preauth_key.id).await.unwrap();
    let store = env.reload(store).await;
    let user = store.users().get(made.user.id).await.unwrap().unwrap();
    assert_eq!((user.revision.get(), user.updated_at), (4, env.clock().now()));
    assert_eq!(user.created_at, made.user.created_at);
    let node = store.nodes().get(made.node.id).await.unwrap().unwrap();
    assert_eq!((node.revision.get(), node.updated_at), (4, env.clock().now()));
    let record = store.dns().get(made.record.id).await.unwrap().unwrap();
    assert_eq!((record.revision.get(), record.updated_at), (4, env.clock().now()));
    let setting = store.settings().get(SettingKind::Dns).await.unwrap().unwrap();
    assert_eq!((setting.revision.get(), setting.updated_at), (4, env.clock().now()));
    let route = store.routes().get(made.route.id).await.unwrap().unwrap();
    assert_eq!((route.revision.get(), route.updated_at), (2, env.clock().now()));
    let key = store.api_keys().get(made.api_key.id).await.unwrap().unwrap();
    assert_eq!(key.revision.get(), 2);
    let key = store.preauth_keys().get(made.preauth_key.id).await.unwrap().unwrap();
    assert_eq!(key.revision.get(), 2);
}

async fn a_stale_patch_does_not_overwrite_an_edit(env: &mut TestEnv, mut store: Opened) {
    let made = OneOfEach::make(&store).await;
    let patch = UserPatch { display_name: Patch::Set(text("edited")), ..UserPatch::default() };
    let user = store.users().update(made.user.id, patch, Some(made.user.revision)).await.unwrap();
    let patch = NodePatch { label: Update::Set("edited".parse().unwrap()), ..NodePatch::default() };
    let node = store.nodes().update(made.node.id, patch, Some(made.node.revision)).await.unwrap();
    let patch =
        DnsRecordPatch { value: Update::Set(text("10.0.0.2")), ..DnsRecordPatch::default() };
    let record =
        store.dns().update(made.record.id, patch, Some(made.record.revision)).await.unwrap();
    let edited = SettingDocument::Dns(DnsSettings {
        nameservers: vec![text("10.0.0.53")],
        ..DnsSettings::default()
    });
    let setting = store.settings().put(edited, Some(made.setting.revision)).await.unwrap();
    // Once as it was edited, and once after the store was opened anew.
    for _ in 0..2 {
        let serial = store.view().serial();
        let patch =
            UserPatch { email: Patch::Set("a@b.c".parse().unwrap()), ..UserPatch::default() };
        let stale = Some(made.user.revision);
        fails(store.users().update(made.user.id, patch, stale).await, Conflict);
        let patch =
            NodePatch { hostname: Update::Set("stale".parse().unwrap()), ..NodePatch::default() };
        let stale = Some(made.node.revision);
        fails(store.nodes().update(made.node.id, patch, stale).await, Conflict);
        let patch = DnsRecordPatch { ttl: Patch::Set(60), ..DnsRecordPatch::default() };
        let stale = Some(made.record.revision);
        fails(store.dns().update(made.record.id, patch, stale).await, Conflict);
        let stale = Some(made.setting.revision);
        fails(store.settings().put(made.setting.document.clone(), stale).await, Conflict);
        // A revision from the future is no better, and a default has none.
        let ahead = Some(Revision::new(3).unwrap());
        fails(store.users().update(made.user.id, UserPatch::default(), ahead).await, Conflict);
        let network = SettingDocument::Network(NetworkSettings::default());
        fails(store.settings().put(network, Some(Revision::FIRST)).await, Conflict);
        assert_eq!(store.view().serial(), serial);
        store = env.reload(store).await;
    }
    assert_eq!(store.users().get(user.id).await.unwrap(), Some(user.clone()));
    assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(node.clone()));
    assert_eq!(store.dns().get(record.id).await.unwrap(), Some(record.clone()));
    assert_eq!(store.settings().get(SettingKind::Dns).await.unwrap(), Some(setting));
    let patch = UserPatch { email: Patch::Set("a@b.c".parse().unwrap()), ..UserPatch::default() };
    let user = store.users().update(user.id, patch, Some(user.revision)).await.unwrap();
    assert_eq!(user.display_name, Some(text("edited")));
    assert_eq!(user.revision.get(), 3);
}

async fn an_update_that_changes_nothing_writes_nothing(env: &mut TestEnv, mut store: Opened) {
    let made = OneOfEach::make(&store).await;
    let profile = OidcProfile { display_name: Some(text("Carol")), ..profile("1", "carol") };
    let carol = store.users().upsert_oidc(profile.clone()).await.unwrap();
    let reached = store.nodes().expire(vec![made.node.id], Timestamp::MAX).await.unwrap();
    assert_eq!(reached, 1);
    let node = store.nodes().get(made.node.id).await.unwrap().unwrap();
    let before = (store.view().serial(), audit_lines(&store).await);
    // Later the sign-in is recorded.
    assert_eq!(store.users().upsert_oidc(profile).await.unwrap(), carol);
    // As it is, and as it is read again.
    for _ in 0..2 {
        env.advance(3600);
        let patch = UserPatch {
            name: Update::Set("alice".parse().unwrap()),
            display_name: Patch::Clear,
            ..UserPatch::default()
        };
        let user = store.users().update(made.user.id, patch, Some(Revision::FIRST)).await.unwrap();
        assert_eq!(user, made.user);
        let patch = NodePatch {
            label: Update::Set(node.label.clone()),
            tags: Update::Set(TagSet::empty()),
            user: Patch::Set(made.user.id),
            expires_at: Patch::Set(Timestamp::MAX),
            ..NodePatch::default()
        };
        let same = store.nodes().update(node.id, patch, None).await.unwrap();
        assert_eq!(same, node);
        let none = store.nodes().expire(vec![node.id], Timestamp::MAX).await.unwrap();
        assert_eq!(none, 0);
        let (machine, key) = (node.machine_key, node.node_key);
        let expiry = node.expires_at;
        let same = store.nodes().rotate_key(machine, key, key, None, expiry).await.unwrap();
        assert_eq!(same, node);
        assert_eq!(store.nodes().backfill_addresses().await.unwrap(), []);
        let routes =
            store.routes().advertise(node.id, vec![made.route.prefix], None).await.unwrap();
        assert_eq!(routes, std::slice::from_ref(&made.route));
        let routes = store.routes().approve(node.id, vec![], None).await.unwrap();
        assert_eq!(routes, std::slice::from_ref(&made.route));
        let patch = DnsRecordPatch { ttl: Patch::Clear, ..DnsRecordPatch::default() };
        assert_eq!(store.dns().update(made.record.id, patch, None).await.unwrap(), made.record);
        let document = made.setting.document.clone();
        assert_eq!(store.settings().put(document, None).await.unwrap(), made.setting);
        assert_eq!((store.view().serial(), audit_lines(&store).await), before);
        store = env.reload(store).await;
    }
}

async fn a_primary_that_moves_is_no_change(env: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    let prefix = made.route.prefix;
    let approved =
        store.routes().approve(made.node.id, vec![prefix], None).await.unwrap().remove(0);
    assert!(approved.primary, "its node is online");
    env.advance(60);
    store.presence().disconnect(made.node.id, made.presence.session).await.unwrap();
    let store = env.reload(store).await;
    let offline = store.routes().get(approved.id).await.unwrap().unwrap();
    assert!(!offline.primary);
    assert_eq!((offline.revision, offline.updated_at), (approved.revision, approved.updated_at));
    let number = SessionNumber::new(2).unwrap();
    store.presence().connect(made.node.id, number, Update::Keep).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.routes().get(approved.id).await.unwrap(), Some(approved));
}

async fn the_use_of_an_api_key_is_no_change(env: &mut TestEnv, store: Opened) {
    let (key, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    env.advance(60);
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    // The use is recorded in the background, before what is written after it.
    create(&store, "alice").await;
    let store = env.reload(store).await;
    let used = store.api_keys().get(key.id).await.unwrap().unwrap();
    assert_eq!(used.last_used_at, Some(env.clock().now()));
    assert_eq!(used.revision, Revision::FIRST);
}

async fn of_many_edits_of_one_revision_one_wins(_: &mut TestEnv, store: Opened) {
    let alice = create(&store, "alice").await;
    let edits = (0..16).map(|n| {
        let store = store.clone();
        let (id, expected) = (alice.id, Some(alice.revision));
        let display_name = Patch::Set(text(&format!("{n}")));
        let patch = UserPatch { display_name, ..UserPatch::default() };
        tokio::spawn(async move { store.users().update(id, patch, expected).await })
    });
    let (mut won, mut lost) = (Vec::new(), 0);
    for edit in join_all(edits).await {
        match edit.unwrap() {
            Ok(user) => won.push(user),
            Err(error) => {
                assert_eq!(*error.kind(), Conflict);
                lost += 1;
            }
        }
    }
    assert_eq!((won.len(), lost), (1, 15));
    assert_eq!(store.users().get(alice.id).await.unwrap(), won.pop());
}
