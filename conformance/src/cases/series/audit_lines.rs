//! Which writes leave lines in the audit trail, and which leave none.

use crate::prelude::*;

cases! {
    stored {
        "audit-trail" => [
            what_nobody_administers_leaves_no_line,
            what_changes_nothing_leaves_no_line,
        ],
    }
    stored_unopened {
        "audit-trail" => [
            every_write_to_users_and_keys_leaves_its_lines,
            every_write_to_nodes_and_routes_leaves_its_lines,
            every_write_to_documents_leaves_its_lines,
            disconnecting_many_leaves_one_line,
        ],
    }
}

async fn every_write_to_users_and_keys_leaves_its_lines(env: &mut TestEnv) {
    let mut trail = Trail::begin(env).await;
    let store = trail.admin.clone();
    let users = store.users();
    let alice = users.create(local("alice")).await.unwrap().id;
    trail.has(env, &[("user.create", EntityKind::User, &alice)]).await;
    let patch = UserPatch { email: set("a@example.com"), ..UserPatch::default() };
    users.update(alice, patch, None).await.unwrap();
    trail.has(env, &[("user.update", EntityKind::User, &alice)]).await;
    let profile = profile("1", "bob");
    let bob = users.upsert_oidc(profile.clone()).await.unwrap().id;
    trail.has(env, &[("user.create", EntityKind::User, &bob)]).await;
    users.upsert_oidc(OidcProfile { name: "robert".parse().unwrap(), ..profile }).await.unwrap();
    trail.has(env, &[("user.update", EntityKind::User, &bob)]).await;

    let keys = store.api_keys();
    let new = api_key_of(alice);
    let api = keys.create(new.clone()).await.unwrap().0.id;
    trail.has(env, &[("api_key.create", EntityKind::ApiKey, &api)]).await;
    keys.revoke(api).await.unwrap();
    trail.has(env, &[("api_key.revoke", EntityKind::ApiKey, &api)]).await;
    keys.delete(api).await.unwrap();
    trail.has(env, &[("api_key.delete", EntityKind::ApiKey, &api)]).await;
    let api = keys.create(new).await.unwrap().0.id;
    trail.has(env, &[("api_key.create", EntityKind::ApiKey, &api)]).await;

    let keys = store.preauth_keys();
    let new = one_time(alice);
    let key = keys.create(new.clone()).await.unwrap().0.id;
    trail.has(env, &[("preauth_key.create", EntityKind::PreAuthKey, &key)]).await;
    keys.revoke(key).await.unwrap();
    trail.has(env, &[("preauth_key.revoke", EntityKind::PreAuthKey, &key)]).await;
    keys.delete(key).await.unwrap();
    trail.has(env, &[("preauth_key.delete", EntityKind::PreAuthKey, &key)]).await;
    let key = keys.create(new).await.unwrap().0.id;
    trail.has(env, &[("preauth_key.create", EntityKind::PreAuthKey, &key)]).await;

    let new = session_of(SessionOwner::User(alice), Timestamp::MAX);
    let session = store.sessions().begin(new.clone()).await.unwrap().0.id;
    trail.has(env, &[("session.begin", EntityKind::Session, &session)]).await;
    store.sessions().end(session).await.unwrap();
    trail.has(env, &[("session.end", EntityKind::Session, &session)]).await;
    let session = store.sessions().begin(new).await.unwrap().0.id;
    trail.has(env, &[("session.begin", EntityKind::Session, &session)]).await;

    let node = register(&store, 1, Admission::PreAuthKey(key)).await.id;
    trail.has(env, &[("node.register", EntityKind::Node, &node)]).await;
    users.delete(alice, true).await.unwrap();
    let gone: [Line<'_>; 4] = [
        ("node.delete", EntityKind::Node, &node),
        ("preauth_key.delete", EntityKind::PreAuthKey, &key),
        ("api_key.delete", EntityKind::ApiKey, &api),
        ("user.delete", EntityKind::User, &alice),
    ];
    trail.has(env, &gone).await;
    users.delete(bob, false).await.unwrap();
    trail.has(env, &[("user.delete", EntityKind::User, &bob)]).await;
    drop(store);
    trail.end(env).await;
}

async fn every_write_to_nodes_and_routes_leaves_its_lines(env: &mut TestEnv) {
    let mut trail = Trail::begin(env).await;
    let store = trail.admin.clone();
    let nodes = store.nodes();
    let alice = user(&store, "alice").await;
    trail.has(env, &[("user.create", EntityKind::User, &alice)]).await;
    let admission = || by(alice);
    let one = nodes.register(machine(1, admission())).await.unwrap().id;
    trail.has(env, &[("node.register", EntityKind::Node, &one)]).await;
    let two = nodes.register(machine(2, admission())).await.unwrap().id;
    trail.has(env, &[("node.register", EntityKind::Node, &two)]).await;
    let again = Registration { node_key: node_key(11), ..machine(1, admission()) };
    nodes.register(again).await.unwrap();
    trail.has(env, &[("node.register", EntityKind::Node, &one)]).await;
    let patch =
        NodePatch { label: Update::Set("renamed".parse().unwrap()), ..NodePatch::default() };
    nodes.update(one, patch, None).await.unwrap();
    trail.has(env, &[("node.update", EntityKind::Node, &one)]).await;
    let patch = NodeSettingsPatch { accept_dns: Patch::Set(false), ..NodeSettingsPatch::default() };
    nodes.update_settings(one, patch, None).await.unwrap();
    trail.has(env, &[("node.update_settings", EntityKind::Node, &one)]).await;
    nodes.rotate_key(machine_key(1), node_key(11), node_key(12), None, None).await.unwrap();
    trail.has(env, &[("node.rotate_key", EntityKind::Node, &one)]).await;
    nodes.expire(vec![one, two], Timestamp::MAX).await.unwrap();
    let both: [Line<'_>; 2] =
        [("node.expire", EntityKind::Node, &one), ("node.expire", EntityKind::Node, &two)];
    trail.has(env, &both).await;

    let prefixes = || vec!["10.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()];
    let routes = store.routes().advertise(one, prefixes(), None).await.unwrap();
    trail.has(env, &[("route.advertise", EntityKind::Node, &one)]).await;
    store.routes().approve(one, prefixes(), None).await.unwrap();
    trail.has(env, &[("route.approve", EntityKind::Node, &one)]).await;
    let other: Prefix = "10.2.0.0/16".parse().unwrap();
    store.routes().advertise_one(one, other).await.unwrap();
    trail.has(env, &[("route.advertise_one", EntityKind::Node, &one)]).await;
    store.routes().withdraw_one(one, other).await.unwrap();
    trail.has(env, &[("route.withdraw_one", EntityKind::Node, &one)]).await;
    store.routes().set_approved(routes[1].id, false).await.unwrap();
    trail.has(env, &[("route.set_approved", EntityKind::Route, &routes[1].id)]).await;
    let patch = RoutePatch { description: Patch::Set(text("uplink")), ..RoutePatch::default() };
    store.routes().update(routes[1].id, patch, None).await.unwrap();
    trail.has(env, &[("route.update", EntityKind::Route, &routes[1].id)]).await;
    store.routes().delete(routes[0].id).await.unwrap();
    trail.has(env, &[("route.delete", EntityKind::Route, &routes[0].id)]).await;

    let network = NetworkSettings { ipv6: None, ..NetworkSettings::default() };
    store.settings().put(SettingDocument::Network(network), None).await.unwrap();
    trail.has(env, &[("setting.put", EntityKind::Setting, &"network")]).await;
    let three = nodes.register(machine(3, admission())).await.unwrap();
    assert_eq!(three.ipv6, None);
    trail.has(env, &[("node.register", EntityKind::Node, &three.id)]).await;
    store.settings().reset(SettingKind::Network).await.unwrap();
    trail.has(env, &[("setting.reset", EntityKind::Setting, &"network")]).await;
    assert_eq!(nodes.backfill_addresses().await.unwrap(), [three.id]);
    trail.has(env, &[("node.backfill_addresses", EntityKind::Node, &three.id)]).await;

    let new = NewPreAuthKey { user: Some(alice), ephemeral: true, ..NewPreAuthKey::default() };
    let key = store.preauth_keys().create(new).await.unwrap().0.id;
    trail.has(env, &[("preauth_key.create", EntityKind::PreAuthKey, &key)]).await;
    let short = nodes.register(machine(4, Admission::PreAuthKey(key))).await.unwrap().id;
    trail.has(env, &[("node.register", EntityKind::Node, &short)]).await;
    env.advance(3600);
    assert_eq!(nodes.reap_ephemeral().await.unwrap(), [short]);
    trail.has(env, &[("node.reap", EntityKind::Node, &short)]).await;
    nodes.delete(one).await.unwrap();
    trail.has(env, &[("node.delete", EntityKind::Node, &one)]).await;
    drop(store);
    trail.end(env).await;
}

async fn disconnecting_many_leaves_one_line(env: &mut TestEnv) {
    let mut trail = Trail::begin(env).await;
    let store = trail.admin.clone();
    let alice = user(&store, "alice").await;
    trail.has(env, &[("user.create", EntityKind::User, &alice)]).await;
    let one = store.instances().begin("one".parse().unwrap()).await.unwrap().id;
    trail.has(env, &[("instance.begin", EntityKind::Instance, &one)]).await;
    let held = store.as_instance(one);
    for number in 1..=3 {
        let node = register(&store, number, by(alice)).await.id;
        trail.has(env, &[("node.register", EntityKind::Node, &node)]).await;
        let presence = if number == 1 { held.presence() } else { store.presence() };
        presence.open(node, Update::Keep).await.unwrap();
        trail.has(env, &[]).await;
    }
    assert_eq!(store.presence().disconnect_all_of(one).await.unwrap(), 1);
    trail.has(env, &[("presence.disconnect_all", EntityKind::Instance, &one)]).await;
    assert_eq!(store.presence().disconnect_all().await.unwrap(), 2);
    trail.has(env, &[("presence.disconnect_all", EntityKind::Presence, &"all")]).await;
    assert_eq!(store.presence().disconnect_all().await.unwrap(), 0);
    trail.has(env, &[]).await;
    env.advance(30);
    assert_eq!(store.presence().disconnect_lost(Duration::from_secs(30)).await.unwrap(), 0);
    trail.has(env, &[("presence.disconnect_lost", EntityKind::Instance, &one)]).await;
    drop((store, held));
    trail.end(env).await;
}

async fn every_write_to_documents_leaves_its_lines(env: &mut TestEnv) {
    let mut trail = Trail::begin(env).await;
    let store = trail.admin.clone();
    let policies = store.policies();
    let text = |text: &str| DocumentText::new(text).unwrap();
    let first = policies.swap(None, text("{}")).await.unwrap().version;
    trail.has(env, &[("policy.swap", EntityKind::Policy, &1)]).await;
    let second = policies.swap(Some(first), text("{ }")).await.unwrap().version;
    trail.has(env, &[("policy.swap", EntityKind::Policy, &2)]).await;
    policies.rollback(second, first).await.unwrap();
    trail.has(env, &[("policy.rollback", EntityKind::Policy, &3)]).await;
    assert_eq!(policies.prune(2).await.unwrap(), 1);
    trail.has(env, &[("policy.prune", EntityKind::Policy, &2)]).await;

    let id = store.dns().create(record("wiki.example.com", "10.0.0.1")).await.unwrap().id;
    trail.has(env, &[("dns_record.create", EntityKind::DnsRecord, &id)]).await;
    let patch = DnsRecordPatch { ttl: Patch::Set(60), ..DnsRecordPatch::default() };
    store.dns().update(id, patch, None).await.unwrap();
    trail.has(env, &[("dns_record.update", EntityKind::DnsRecord, &id)]).await;
    store.dns().delete(id).await.unwrap();
    trail.has(env, &[("dns_record.delete", EntityKind::DnsRecord, &id)]).await;
    let (name, kind): (DnsName, _) = ("wiki.example.com".parse().unwrap(), DnsRecordKind::A);
    let values = ["10.0.0.1", "10.0.0.2"].map(|value| value.parse().unwrap()).into();
    let set = NewDnsRecordSet { name: name.clone(), kind, values, ttl: None };
    store.dns().put(set, None).await.unwrap();
    trail.has(env, &[("dns_record.put", EntityKind::DnsRecord, &name)]).await;
    assert_eq!(store.dns().delete_set(&name, kind, None).await.unwrap(), 2);
    trail.has(env, &[("dns_record.delete_set", EntityKind::DnsRecord, &name)]).await;

    let region = DerpRegion::new("fra".parse().unwrap(), "Frankfurt".parse().unwrap(), Vec::new());
    let regions = [(DerpRegionId::new(900).unwrap(), region)].into();
    let derp_map = DerpMap { regions, ..DerpMap::default() };
    for (document, name) in [
        (SettingDocument::Network(NetworkSettings { ipv6: None, ..Default::default() }), "network"),
        (SettingDocument::DerpMap(derp_map), "derp_map"),
        (SettingDocument::Dns(DnsSettings { magic_dns: true, ..Default::default() }), "dns"),
    ] {
        let kind = document.kind();
        store.settings().put(document, None).await.unwrap();
        trail.has(env, &[("setting.put", EntityKind::Setting, &name)]).await;
        store.settings().reset(kind).await.unwrap();
        trail.has(env, &[("setting.reset", EntityKind::Setting, &name)]).await;
    }
    drop(store);
    trail.end(env).await;
}

async fn what_nobody_administers_leaves_no_line(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let node = register(&store, 1, by(alice)).await.id;
    let (_, text) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    let expires_at = env.options().clock.now().saturating_add(HOUR);
    let new = session_of(SessionOwner::User(alice), expires_at);
    let (session, _) = store.sessions().begin(new).await.unwrap();
    let instance = store.instances().begin("one".parse().unwrap()).await.unwrap().id;
    let before = trail(&store, &AuditQuery::default(), 1000).await;
    let digest = store.digests().await.unwrap().audit;

    let number = |n| SessionNumber::new(n).unwrap();
    let presence = store.presence();
    presence.connect(node, number(1), Update::Keep).await.unwrap();
    presence.heartbeat(node, number(1), Update::Keep).await.unwrap();
    presence.disconnect(node, number(1)).await.unwrap();
    presence.connect(node, number(2), Update::Keep).await.unwrap();
    let seen = store.view().presence().get(node).unwrap().last_seen.unwrap();
    presence.touch(node, seen.saturating_add(MICROSECOND)).await.unwrap();
    store.api_keys().authenticate(text.expose()).await.unwrap();
    settle(&store).await;
    env.advance(120);
    store.instances().beat(instance).await.unwrap();
    assert_eq!(store.view().instances().get(instance).unwrap().last_seen, env.clock().now());
    store.sessions().touch(session.id, None).await.unwrap();
    env.clock().set(expires_at);
    assert_eq!(store.sessions().sweep().await.unwrap(), 1);
    let bob = User {
        id: UserId::from_bytes([9; 16]),
        name: "bob".parse().unwrap(),
        ..User::clone(store.view().users().get(alice).unwrap())
    };
    let images = vec![EntityRecord::from(bob)];
    store.restore(Restore { images, skip_invalid: false }).await.unwrap();
    let point = point(Some(node), "load", expires_at, 1.0);
    store.metrics().record(point).await.unwrap();
    store.metrics().prune(Timestamp::MAX).await.unwrap();
    store.audit().prune(Timestamp::EPOCH).await.unwrap();
    store.verify().await.unwrap();
    store.checkpoint().await.unwrap();

    let store = env.reload(store).await;
    assert_eq!(trail(&store, &AuditQuery::default(), 1000).await, before);
    assert_eq!(store.digests().await.unwrap().audit, digest);
}

async fn what_changes_nothing_leaves_no_line(env: &mut TestEnv, store: Opened) {
    let alice = create(&store, "alice").await;
    let node = register(&store, 1, by(alice.id)).await;
    store.nodes().expire(vec![node.id], Timestamp::MAX).await.unwrap();
    store.policies().swap(None, DocumentText::empty()).await.unwrap();
    let dns = SettingDocument::Dns(DnsSettings::default());
    store.settings().put(dns.clone(), None).await.unwrap();
    let before = trail(&store, &AuditQuery::default(), 1000).await;
    let serial = store.view().serial();

    store.users().create(local("alice")).await.unwrap_err();
    store.users().delete(alice.id, false).await.unwrap_err();
    store.users().update(alice.id, UserPatch::default(), None).await.unwrap();
    store.nodes().update(node.id, NodePatch::default(), None).await.unwrap();
    assert_eq!(store.nodes().expire(vec![node.id], Timestamp::MAX).await.unwrap(), 0);
    assert_eq!(store.nodes().reap_ephemeral().await.unwrap(), []);
    assert_eq!(store.nodes().backfill_addresses().await.unwrap(), []);
    store.routes().approve(node.id, Vec::new(), None).await.unwrap();
    assert_eq!(store.policies().prune(5).await.unwrap(), 0);
    store.policies().swap(None, DocumentText::empty()).await.unwrap_err();
    store.settings().put(dns, None).await.unwrap();
    store.settings().reset(SettingKind::Network).await.unwrap_err();

    assert_eq!(store.view().serial(), serial);
    let store = env.reload(store).await;
    assert_eq!(trail(&store, &AuditQuery::default(), 1000).await, before);
}

type Line<'a> = (&'a str, EntityKind, &'a (dyn Display + Sync));

/// What one administrator does, step by step, and what the trail has to say of it.
struct Trail {
    store: Arc<dyn Store>,
    admin: Arc<dyn Store>,
    seen: Vec<Arc<AuditEntry>>,
}

impl Trail {
    async fn begin(env: &TestEnv) -> Self {
        let store = env.open().await;
        let admin = store.acting_as("anna".parse().unwrap());
        Self { store, admin, seen: Vec::new() }
    }

    /// Since the last call there are exactly these lines, in any order.
    async fn has(&mut self, env: &TestEnv, expected: &[Line<'_>]) {
        let now = env.options().clock.now();
        let query = AuditQuery { from: Some(now), ..AuditQuery::default() };
        let new = trail(&self.store, &query, 1000).await;
        let mut found: Vec<_> = new
            .iter()
            .map(|entry| {
                (
                    entry.action.to_string(),
                    entry.entity.entity().unwrap(),
                    entry.subject.to_string(),
                )
            })
            .collect();
        let mut expected: Vec<_> = expected
            .iter()
            .map(|(action, entity, subject)| ((*action).to_owned(), *entity, subject.to_string()))
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        assert!(new.iter().all(|entry| entry.at == now && entry.actor.as_str() == "anna"));
        self.seen.extend(new);
        env.advance(1);
    }

    async fn end(self, env: &mut TestEnv) {
        let Self { store, admin, seen } = self;
        drop(admin);
        let store = env.reload(store).await;
        assert_eq!(trail(&store, &AuditQuery::default(), 1000).await, seen);
    }
}

fn set<T: std::str::FromStr<Err: Debug>>(text: &str) -> Patch<T> {
    Patch::Set(text.parse().unwrap())
}
