//! Bringing in whole entities.

use crate::prelude::*;

cases! {
    stored {
        "restore" => [
            entities_come_with_their_ids_times_and_revisions,
            repeating_a_restore_changes_nothing,
            every_uniqueness_rule_holds,
            nothing_is_overwritten,
            what_is_referred_to_comes_first,
            a_primary_route_is_eligible,
            rules_of_single_entities_hold,
            the_first_that_breaks_a_rule_rejects_all,
            what_breaks_a_rule_is_left_out_and_reported,
        ],
    }
}

async fn entities_come_with_their_ids_times_and_revisions(env: &mut TestEnv, store: Opened) {
    let images = sample();
    env.advance(1_000_000);
    let restored = restore(&store, &images).await;
    assert_eq!(restored, Restored { restored: 13, unchanged: 0, skipped: vec![] });
    let audit = store.audit().query(&AuditQuery::default(), &PageRequest::default()).await.unwrap();
    assert!(audit.items.is_empty(), "no lines");
    let store = env.reload(store).await;
    let view = store.view();
    assert_eq!(view.images().count(), images.len());
    for image in &images {
        assert!(view.images_of(image.table()).any(|found| found == *image), "{image:?}");
    }
    // They are found by everything that finds them, and go on from there.
    let node = view.nodes().get(id(11)).unwrap();
    assert_eq!(
        store.nodes().get_by_address(node.ipv4.unwrap().into()).await.unwrap().as_ref(),
        Some(node)
    );
    assert_eq!(store.nodes().get_by_label(&node.label).await.unwrap().as_ref(), Some(node));
    assert_eq!(
        store.nodes().get_by_machine_key(&node.machine_key).await.unwrap().as_ref(),
        Some(node)
    );
    let found = store.routes().lookup("10.9.8.7".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(found.node, node.id);
    let patch = UserPatch { email: Patch::Clear, ..UserPatch::default() };
    let updated = store.users().update(id(1), patch, Revision::new(7).ok()).await.unwrap();
    assert_eq!(updated.revision.get(), 8);
    let next = store.policies().swap(PolicyVersion::new(3).ok(), DocumentText::empty()).await;
    assert_eq!(next.unwrap().version.get(), 4);
    let store = env.reload(store).await;
    assert_eq!(store.view().policies().len(), 2);
}

async fn repeating_a_restore_changes_nothing(env: &mut TestEnv, store: Opened) {
    let images = sample();
    // As if it had been interrupted.
    restore(&store, &images[..5]).await;
    let rest = restore(&store, &images).await;
    assert_eq!(rest, Restored { restored: 8, unchanged: 5, skipped: vec![] });
    let store = env.reload(store).await;
    let before = (store.view().serial(), store.digests().await.unwrap());
    let again = restore(&store, &images).await;
    assert_eq!(again, Restored { restored: 0, unchanged: 13, skipped: vec![] });
    // One that comes twice within a restore is there already the second time.
    let twice = restore(&store, &[images[0].clone(), images[0].clone()]).await;
    assert_eq!(twice.unchanged, 2);
    let store = env.reload(store).await;
    assert_eq!((store.view().serial(), store.digests().await.unwrap()), before);
}

async fn every_uniqueness_rule_holds(env: &mut TestEnv, store: Opened) {
    restore(&store, &sample()).await;
    let digests = store.digests().await.unwrap();
    let node = |change: fn(&mut Node)| {
        let mut node = second_node();
        change(&mut node);
        EntityRecord::from(node)
    };
    let first = |change: fn(&Node, &mut Node)| {
        let mut node = second_node();
        change(&first_node(), &mut node);
        EntityRecord::from(node)
    };
    let route = |prefix: &str, node, primary| {
        let route = Route { id: id(29), node, primary, ..route_of(prefix) };
        EntityRecord::from(route)
    };
    let key = |prefix: Option<&str>, hash| {
        let prefix = prefix.map(|prefix| prefix.parse().unwrap());
        EntityRecord::from(PreAuthKey { id: id(49), prefix, hash, ..preauth_key() })
    };
    let oidc = User { id: id(9), name: "other".parse().unwrap(), ..oidc_user() };
    let of_taken_node = Route { node: id(11), ..route_of("10.0.0.0/8") };
    for (image, constraint) in [
        (EntityRecord::from(User { id: id(9), ..local_user() }), "name"),
        (EntityRecord::from(oidc), "identity"),
        (first(|first, node| node.machine_key = first.machine_key), "machine_key"),
        (first(|first, node| node.node_key = first.node_key), "node_key"),
        (first(|first, node| node.label = first.label.clone()), "label"),
        (node(|node| node.ipv4 = first_node().ipv4), "address"),
        (node(|node| node.ipv6 = first_node().ipv6), "address"),
        (EntityRecord::from(Route { id: id(29), primary: false, ..of_taken_node }), "node_prefix"),
        (EntityRecord::from(ApiKey { id: id(39), ..api_key() }), "prefix"),
        (key(Some("abcdef"), SecretHash::hmac([1; 4], [9; 32])), "prefix"),
        (key(None, SecretHash::hmac([1; 4], [5; 32])), "hash"),
        (EntityRecord::from(DnsRecord { id: id(59), ..dns_record() }), "content"),
    ] {
        let error = refused(&store, image.clone()).await;
        assert_eq!(error.constraint(), Some(constraint), "{error}");
        if let EntityRecord::Node(node) = image {
            // It says which value that is.
            let value = match constraint {
                "machine_key" => node.machine_key.to_string(),
                "node_key" => node.node_key.to_string(),
                "label" => node.label.to_string(),
                _ => continue,
            };
            assert!(error.context().contains(&("value", value)), "{error}");
        }
    }
    // The prefix has a primary: another eligible node is none beside it.
    let online = Presence { node: id(12), ..presence() };
    restore(&store, &[EntityRecord::from(second_node()), EntityRecord::from(online)]).await;
    let error = refused(&store, route("10.0.0.0/8", id(12), true)).await;
    assert_eq!(error.constraint(), Some("primary"));
    restore(&store, &[route("10.0.0.0/8", id(12), false)]).await;
    assert_ne!(store.digests().await.unwrap(), digests);
    let store = env.reload(store).await;
    assert_eq!(store.view().images().count(), 16);
}

async fn nothing_is_overwritten(env: &mut TestEnv, store: Opened) {
    let images = sample();
    restore(&store, &images).await;
    let digests = store.digests().await.unwrap();
    let later = at(99);
    let two = Revision::new(99).unwrap();
    for image in images {
        let other = match image {
            EntityRecord::User(user) => {
                EntityRecord::from(User { revision: two, ..(*user).clone() })
            }
            EntityRecord::Node(node) => {
                EntityRecord::from(Node { updated_at: later, ..(*node).clone() })
            }
            EntityRecord::Instance(instance) => {
                EntityRecord::from(Instance { last_seen: later, ..(*instance).clone() })
            }
            EntityRecord::Presence(presence) => {
                EntityRecord::from(Presence { online: false, ..(*presence).clone() })
            }
            EntityRecord::Route(route) => {
                EntityRecord::from(Route { primary: false, ..(*route).clone() })
            }
            EntityRecord::ApiKey(key) => {
                EntityRecord::from(ApiKey { last_used_at: Some(later), ..(*key).clone() })
            }
            EntityRecord::PreAuthKey(key) => {
                EntityRecord::from(PreAuthKey { revoked_at: Some(later), ..(*key).clone() })
            }
            EntityRecord::Policy(policy) => {
                EntityRecord::from(Policy { author: "x".parse().unwrap(), ..(*policy).clone() })
            }
            EntityRecord::DnsRecord(record) => {
                EntityRecord::from(DnsRecord { ttl: Some(1), ..(*record).clone() })
            }
            EntityRecord::Session(session) => {
                EntityRecord::from(Session { last_seen: later, ..(*session).clone() })
            }
            EntityRecord::SignIn(sign_in) => {
                EntityRecord::from(SignIn { purpose: "x".parse().unwrap(), ..(*sign_in).clone() })
            }
            EntityRecord::Setting(setting) => {
                EntityRecord::from(Setting { updated_at: later, ..(*setting).clone() })
            }
        };
        let entity = other.entity();
        let error = refused(&store, other).await;
        assert_eq!((error.constraint(), error.entity()), (Some("id"), Some(entity)));
    }
    let store = env.reload(store).await;
    assert_eq!(store.digests().await.unwrap(), digests);
}

async fn what_is_referred_to_comes_first(env: &mut TestEnv, store: Opened) {
    let tagged = Node { user: None, tags: tags(), ..second_node() };
    let of_user = SessionOwner::User(id(1));
    for image in [
        EntityRecord::from(first_node()),
        EntityRecord::from(presence()),
        EntityRecord::from(route_of("10.0.0.0/8")),
        EntityRecord::from(api_key()),
        EntityRecord::from(preauth_key()),
        EntityRecord::from(session()),
        EntityRecord::from(Session { owner: of_user, ..session() }),
    ] {
        assert_eq!(*refused(&store, image).await.kind(), NotFound);
    }
    // The order within one restore counts, too.
    let node = EntityRecord::from(first_node());
    let backwards = vec![node.clone(), EntityRecord::from(local_user())];
    let restore_of = |images| Restore { images, skip_invalid: false };
    fails(store.restore(restore_of(backwards)).await, NotFound);
    assert_eq!(store.view().images().count(), 0);
    restore(&store, &[EntityRecord::from(local_user()), node]).await;
    restore(&store, &[EntityRecord::from(tagged)]).await;
    let store = env.reload(store).await;
    assert_eq!(store.view().images().count(), 3);
}

async fn a_primary_route_is_eligible(env: &mut TestEnv, store: Opened) {
    let mut offline = presence();
    offline.online = false;
    let owner = EntityRecord::from(local_user());
    let node = |number, node: Node| {
        let presence =
            if number == 11 { presence() } else { Presence { node: id(12), ..offline.clone() } };
        [EntityRecord::from(node), EntityRecord::from(presence)]
    };
    restore(&store, &[owner]).await;
    restore(&store, &node(11, first_node())).await;
    restore(&store, &node(12, second_node())).await;
    let good = Route { primary: true, ..route_of("10.0.0.0/8") };
    for bad in [
        Route { advertised: false, ..good.clone() },
        Route { approved: false, ..good.clone() },
        Route { node: id(12), ..good.clone() },
        Route { prefix: "0.0.0.0/0".parse().unwrap(), ..good.clone() },
        Route { prefix: "::/0".parse().unwrap(), ..good.clone() },
    ] {
        let error = refused(&store, EntityRecord::from(bad.clone())).await;
        assert_eq!(*error.kind(), InvalidArgument, "{error}");
    }
    let store = env.reload(store).await;
    assert!(store.view().routes().primary(good.prefix).is_none());
    restore(&store, &[EntityRecord::from(good.clone())]).await;
    let store = env.reload(store).await;
    assert_eq!(store.view().routes().primary(good.prefix).map(AsRef::as_ref), Some(&good));
}

async fn rules_of_single_entities_hold(env: &mut TestEnv, store: Opened) {
    restore(&store, &[EntityRecord::from(local_user())]).await;
    let network = NetworkSettings { ipv4: None, ipv6: None, ..NetworkSettings::default() };
    let document = SettingDocument::Network(network);
    let (forged, unkeyed) = (SecretHash::bcrypt(BCRYPT).unwrap(), SecretHash::blake3([7; 32]));
    let nobodys = PreAuthKey { user: None, tags: TagSet::empty(), ..preauth_key() };
    for image in [
        EntityRecord::from(Node { user: None, tags: TagSet::empty(), ..first_node() }),
        EntityRecord::from(nobodys),
        EntityRecord::from(Session { owner: SessionOwner::User(id(1)), hash: forged, ..session() }),
        EntityRecord::from(Session {
            owner: SessionOwner::User(id(1)),
            hash: unkeyed,
            ..session()
        }),
        EntityRecord::from(DnsRecord { kind: DnsRecordKind::Aaaa, ..dns_record() }),
        EntityRecord::from(Setting { document, ..setting() }),
    ] {
        let error = refused(&store, image).await;
        assert_eq!(*error.kind(), InvalidArgument, "{error}");
    }
    let store = env.reload(store).await;
    assert_eq!(store.view().images().count(), 1);
}

async fn the_first_that_breaks_a_rule_rejects_all(env: &mut TestEnv, store: Opened) {
    let mut images = sample();
    images.insert(7, EntityRecord::from(User { id: id(9), ..local_user() }));
    images.push(EntityRecord::from(Session { owner: SessionOwner::Node(id(99)), ..session() }));
    let error = store.restore(Restore { images, skip_invalid: false }).await.unwrap_err();
    assert_eq!(error.constraint(), Some("name"));
    assert!(error.context().contains(&("index", "7".to_owned())), "{error}");
    assert_eq!(store.view().serial().get(), 0);
    let store = env.reload(store).await;
    assert_eq!(store.view().images().count(), 0);
}

async fn what_breaks_a_rule_is_left_out_and_reported(env: &mut TestEnv, store: Opened) {
    let mut images = sample();
    images.insert(3, EntityRecord::from(User { id: id(9), ..local_user() }));
    let stranger = Session { id: id(99), owner: SessionOwner::Node(id(99)), ..session() };
    images.push(EntityRecord::from(stranger));
    // What refers to what was left out is left out as well.
    let of_stranger = ApiKey { id: id(98), user: Some(id(9)), ..api_key() };
    images.push(EntityRecord::from(of_stranger));
    let done = store.restore(Restore { images, skip_invalid: true }).await.unwrap();
    assert_eq!(done.serial, store.view().serial());
    assert_eq!((done.value.restored, done.value.unchanged), (13, 0));
    let skipped: Vec<_> = done.value.skipped.iter().map(|(index, _)| *index).collect();
    assert_eq!(skipped, [3, 14, 15]);
    let reasons: Vec<_> = done.value.skipped.iter().map(|(_, why)| why.as_str()).collect();
    assert!(reasons[0].contains("user already exists (name)"), "{reasons:?}");
    assert!(reasons[1].contains("node does not exist"), "{reasons:?}");
    assert!(reasons[2].contains("user does not exist"), "{reasons:?}");
    let store = env.reload(store).await;
    let view = store.view();
    assert_eq!(view.images().count(), 13);
    // What was left out can still be had in another way.
    create(&store, "bertha").await;
}

async fn restore(store: &Opened, images: &[EntityRecord]) -> Restored {
    let restore = Restore { images: images.to_vec(), skip_invalid: false };
    store.restore(restore).await.unwrap().value
}

async fn refused(store: &Opened, image: EntityRecord) -> Error {
    let serial = store.view().serial();
    let restore = Restore { images: vec![image], skip_invalid: false };
    let error = store.restore(restore).await.unwrap_err();
    assert_eq!(store.view().serial(), serial);
    error
}

fn id<I: Id>(n: u8) -> I {
    I::from_bytes([n; 16])
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(1_600_000_000 + second).unwrap()
}

fn tags() -> TagSet {
    TagSet::new(["tag:server".parse().unwrap()]).unwrap()
}

/// Thirteen entities, of every kind, in an order in which what is referred to comes first.
pub(crate) fn sample() -> Vec<EntityRecord> {
    vec![
        EntityRecord::from(local_user()),
        EntityRecord::from(oidc_user()),
        EntityRecord::from(first_node()),
        EntityRecord::from(presence()),
        EntityRecord::from(Route { primary: true, ..route_of("10.0.0.0/8") }),
        EntityRecord::from(api_key()),
        EntityRecord::from(preauth_key()),
        EntityRecord::from(bare_key()),
        EntityRecord::from(policy()),
        EntityRecord::from(dns_record()),
        EntityRecord::from(session()),
        EntityRecord::from(setting()),
        EntityRecord::from(sign_in()),
    ]
}

fn local_user() -> User {
    let new = NewUser {
        display_name: "Alice".parse().ok(),
        email: "alice@example.com".parse().ok(),
        ..local("alice")
    };
    User { updated_at: at(2), revision: Revision::new(7).unwrap(), ..new.created(id(1), at(1)) }
}

fn oidc_user() -> User {
    let identity = Identity::Oidc {
        provider: "https://id.example.com".parse().unwrap(),
        subject: "1".parse().unwrap(),
    };
    // It shares its name with the local one.
    User {
        id: id(2),
        identity,
        role: UserRole::Auditor,
        groups: GroupSet::new(["staff".parse().unwrap()]).unwrap(),
        metadata: JsonObject::new("{ }").ok(),
        metadata_revision: Some(Revision::FIRST),
        last_sign_in_at: Some(at(3)),
        ..local_user()
    }
}

fn first_node() -> Node {
    Node {
        id: id(11),
        user: Some(id(1)),
        tags: tags(),
        hostname: "laptop".parse().unwrap(),
        label: "laptop".parse().unwrap(),
        machine_key: MachineKey::from_bytes([1; 32]).unwrap(),
        node_key: NodeKey::from_bytes([1; 32]).unwrap(),
        disco_key: DiscoKey::from_bytes([1; 32]).ok(),
        ipv4: "100.64.0.77".parse().ok(),
        ipv6: "fd7a:115c:a1e0::77".parse().ok(),
        host_info: HostInfo::default(),
        register_method: RegisterMethod::Oidc,
        preauth_key: None,
        ephemeral: false,
        expires_at: Some(at(9_000_000_000)),
        created_at: at(3),
        updated_at: at(4),
        revision: Revision::new(5).unwrap(),
        families: AddressFamilies::Both,
        settings: None,
    }
}

fn second_node() -> Node {
    Node {
        id: id(12),
        label: "desktop".parse().unwrap(),
        machine_key: MachineKey::from_bytes([2; 32]).unwrap(),
        node_key: NodeKey::from_bytes([2; 32]).unwrap(),
        ipv4: "100.64.0.78".parse().ok(),
        ipv6: "fd7a:115c:a1e0::78".parse().ok(),
        ..first_node()
    }
}

fn presence() -> Presence {
    Presence {
        session: SessionNumber::new(3).unwrap(),
        online: true,
        last_seen: Some(at(5)),
        ..Presence::new(id(11))
    }
}

fn route_of(prefix: &str) -> Route {
    Route {
        id: id(21),
        node: id(11),
        prefix: prefix.parse().unwrap(),
        advertised: true,
        approved: true,
        primary: false,
        metric: RouteMetric::default(),
        description: None,
        created_at: at(6),
        updated_at: at(7),
        revision: Revision::new(2).unwrap(),
    }
}

fn api_key() -> ApiKey {
    ApiKey {
        id: id(31),
        prefix: "0123456789ab".parse().unwrap(),
        hash: SecretHash::hmac([1; 4], [2; 32]),
        user: Some(id(1)),
        description: "backups".parse().ok(),
        permissions: PermissionSet::new(["nodes:read".parse().unwrap()]).unwrap(),
        created_by: "anna".parse().ok(),
        created_at: at(8),
        expires_at: Some(at(9_000_000)),
        revoked_at: None,
        last_used_at: Some(at(9)),
        revision: Revision::FIRST,
    }
}

fn preauth_key() -> PreAuthKey {
    PreAuthKey {
        id: id(41),
        prefix: "abcdef".parse().ok(),
        hash: SecretHash::hmac([1; 4], [3; 32]),
        user: Some(id(1)),
        tags: tags(),
        reusable: false,
        ephemeral: true,
        used_at: Some(at(10)),
        created_at: at(9),
        expires_at: None,
        revoked_at: None,
        revision: Revision::new(2).unwrap(),
    }
}

fn bare_key() -> PreAuthKey {
    let hash = SecretHash::hmac([1; 4], [5; 32]);
    PreAuthKey { id: id(42), prefix: None, hash, ..preauth_key() }
}

fn policy() -> Policy {
    Policy {
        version: PolicyVersion::new(3).unwrap(),
        document: DocumentText::new("{\"acls\": []}").unwrap(),
        author: "anna".parse().unwrap(),
        created_at: at(11),
    }
}

fn dns_record() -> DnsRecord {
    DnsRecord {
        id: id(51),
        name: "wiki.example.com".parse().unwrap(),
        kind: DnsRecordKind::A,
        value: "10.0.0.1".parse().unwrap(),
        ttl: Some(300),
        created_at: at(12),
        updated_at: at(13),
        revision: Revision::new(4).unwrap(),
    }
}

/// What anybody can make of a secret of their own.
const BCRYPT: &str = "$2b$04$ABCDEFGHIJKLMNOPQRSTUu5pUYnC0pESokJLt705oY3/ycNDD4BIW";

fn session() -> Session {
    Session {
        id: id(61),
        owner: SessionOwner::Node(id(11)),
        node: None,
        hash: SecretHash::hmac([1; 4], [4; 32]),
        client: "browser".parse().ok(),
        created_at: at(14),
        expires_at: at(9_000_000),
        last_seen: at(15),
    }
}

fn sign_in() -> SignIn {
    SignIn {
        id: id(71),
        purpose: "oidc".parse().unwrap(),
        hash: SecretHash::hmac([1; 4], [6; 32]),
        payload: SignInPayload::new("{}").unwrap(),
        created_at: at(17),
        expires_at: at(600),
    }
}

fn setting() -> Setting {
    let dns = DnsSettings { magic_dns: true, ..DnsSettings::default() };
    Setting {
        document: SettingDocument::Dns(dns),
        revision: Revision::new(6).unwrap(),
        updated_at: at(16),
    }
}
