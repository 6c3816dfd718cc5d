//! Errors: which kind, which constraint, and what is not in them.

use std::error::Error as _;

use crate::cases::writes::transactions::user_id;
use crate::prelude::*;

cases! {
    stored {
        "duplicate" => [
            what_is_unique_is_refused_by_its_constraint,
            what_is_restored_is_refused_by_its_constraint,
        ],
        "missing" => [
            what_was_removed_is_missing_the_second_time_too,
            what_was_withdrawn_cannot_be_withdrawn_again,
            what_went_with_its_owner_is_missing,
        ],
    }
    once {
        "retryable" => [exactly_three_kinds_are_retryable],
        "no-secrets-in-errors" => [
            a_secret_is_not_repeated_by_its_refusal,
            what_is_given_by_mistake_is_not_repeated,
            long_values_are_cut,
        ],
    }
}

async fn exactly_three_kinds_are_retryable(_: &mut TestEnv, store: Opened) {
    let kinds = [
        (NotFound, false),
        (AlreadyExists { constraint: "name" }, false),
        (Conflict, false),
        (InvalidArgument, false),
        (Restricted, false),
        (Exhausted, false),
        (PermissionDenied, false),
        (Busy, true),
        (Unavailable, true),
        (OutcomeUnknown, false),
        (Corrupt, false),
        (Crypto, false),
        (Unsupported, false),
        (ReadOnly, false),
        (SchemaMismatch { found: 9, supported: 2 }, false),
        (Compacted { oldest: 7 }, false),
        (Unexpected, false),
    ];
    for (kind, retryable) in kinds {
        assert_eq!(Error::new(kind.clone(), "").is_retryable(), retryable, "{kind:?}");
    }
    let error = store.users().delete(user_id(1), false).await.unwrap_err();
    assert!(!error.is_retryable());
    store.close().await.unwrap();
    assert!(store.users().delete(user_id(1), false).await.unwrap_err().is_retryable());
}

async fn what_is_unique_is_refused_by_its_constraint(env: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    let carol = store.users().upsert_oidc(profile("1", "carol")).await.unwrap();
    let bob = store.users().create(local("bob")).await.unwrap();
    let of_bob = |n| machine(n, by(bob.id));
    let second = store.nodes().register(of_bob(2)).await.unwrap();
    let other = store.dns().create(record("wiki.example.com", "10.0.0.2")).await.unwrap();
    let store = env.reload(store).await;
    let before = (store.view().serial(), store.digests().await.unwrap());

    taken("name", EntityKind::User, store.users().create(local("bob")).await);
    let patch = UserPatch { name: Update::Set("alice".parse().unwrap()), ..UserPatch::default() };
    taken("name", EntityKind::User, store.users().update(bob.id, patch, None).await);
    let new = NewUser { identity: carol.identity.clone(), ..local("carol") };
    taken("identity", EntityKind::User, store.users().create(new).await);
    let create = UserCommand::Create { id: bob.id, user: local("dave") };
    taken("id", EntityKind::User, store.transact(Transaction::new().then(create).unwrap()).await);

    taken("machine_key", EntityKind::Node, store.nodes().register(of_bob(1)).await);
    let new = Registration { node_key: made.node.node_key, ..of_bob(3) };
    taken("node_key", EntityKind::Node, store.nodes().register(new).await);
    let (from, to) = (second.node_key, made.node.node_key);
    let rotated = store.nodes().rotate_key(second.machine_key, from, to, None, None).await;
    taken("node_key", EntityKind::Node, rotated);
    let patch = NodePatch { label: Update::Set(made.node.label.clone()), ..NodePatch::default() };
    taken("label", EntityKind::Node, store.nodes().update(second.id, patch, None).await);

    let create = ApiKeyCommand::Create {
        id: ApiKeyId::from_bytes([1; 16]),
        prefix: made.api_key.prefix.clone(),
        hash: SecretHash::hmac([1; 4], [1; 32]),
        key: NewApiKey::default(),
    };
    taken(
        "prefix",
        EntityKind::ApiKey,
        store.transact(Transaction::new().then(create).unwrap()).await,
    );
    let create = PreAuthKeyCommand::Create {
        id: PreAuthKeyId::from_bytes([1; 16]),
        prefix: made.preauth_key.prefix.clone().unwrap(),
        hash: SecretHash::hmac([1; 4], [1; 32]),
        key: one_time(bob.id),
    };
    let again = Transaction::new().then(create).unwrap();
    taken("prefix", EntityKind::PreAuthKey, store.transact(again).await);

    let again = record("WIKI.example.com.", "10.0.0.1");
    taken("content", EntityKind::DnsRecord, store.dns().create(again).await);
    let patch =
        DnsRecordPatch { value: Update::Set(text("10.0.0.1")), ..DnsRecordPatch::default() };
    taken("content", EntityKind::DnsRecord, store.dns().update(other.id, patch, None).await);

    assert_eq!((store.view().serial(), store.digests().await.unwrap()), before);
    let store = env.reload(store).await;
    // What is not quite the same is welcome.
    store.users().upsert_oidc(profile("2", "carol")).await.unwrap();
    store.nodes().register(of_bob(3)).await.unwrap();
    let txt = NewDnsRecord { kind: DnsRecordKind::Txt, ..record("wiki.example.com", "10.0.0.1") };
    store.dns().create(txt).await.unwrap();
}

async fn what_is_restored_is_refused_by_its_constraint(env: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    let prefix = made.route.prefix;
    let approved =
        store.routes().approve(made.node.id, vec![prefix], None).await.unwrap().remove(0);
    assert!(approved.primary);
    let keyless = PreAuthKey {
        id: PreAuthKeyId::from_bytes([1; 16]),
        prefix: None,
        hash: SecretHash::hmac([1; 4], [1; 32]),
        ..PreAuthKey::clone(&made.preauth_key)
    };
    restore(&store, EntityRecord::from(keyless.clone())).await.unwrap();
    let second = Node {
        id: NodeId::from_bytes([2; 16]),
        label: "second".parse().unwrap(),
        machine_key: MachineKey::from_bytes([2; 32]).unwrap(),
        node_key: NodeKey::from_bytes([2; 32]).unwrap(),
        ipv4: None,
        ipv6: None,
        ..Node::clone(&made.node)
    };
    restore(&store, EntityRecord::from(second.clone())).await.unwrap();
    let online = Presence { node: second.id, ..Presence::clone(&made.presence) };
    restore(&store, EntityRecord::from(online)).await.unwrap();
    let store = env.reload(store).await;
    let before = store.digests().await.unwrap();

    let other = User { email: Some("a@b.c".parse().unwrap()), ..User::clone(&made.user) };
    taken("id", EntityKind::User, restore(&store, EntityRecord::from(other)).await);
    let hash = PreAuthKey { id: PreAuthKeyId::from_bytes([2; 16]), ..keyless };
    taken("hash", EntityKind::PreAuthKey, restore(&store, EntityRecord::from(hash)).await);
    let third = Node {
        id: NodeId::from_bytes([3; 16]),
        label: "third".parse().unwrap(),
        machine_key: MachineKey::from_bytes([3; 32]).unwrap(),
        node_key: NodeKey::from_bytes([3; 32]).unwrap(),
        ..second.clone()
    };
    let address = Node { ipv4: made.node.ipv4, ..third.clone() };
    taken("address", EntityKind::Node, restore(&store, EntityRecord::from(address)).await);
    let address = Node { ipv6: made.node.ipv6, ..third };
    taken("address", EntityKind::Node, restore(&store, EntityRecord::from(address)).await);
    let route = Route { id: RouteId::from_bytes([1; 16]), ..Route::clone(&approved) };
    let again = EntityRecord::from(Route { primary: false, ..route.clone() });
    taken("node_prefix", EntityKind::Route, restore(&store, again).await);
    let rival = EntityRecord::from(Route { node: second.id, ..route.clone() });
    taken("primary", EntityKind::Route, restore(&store, rival).await);

    assert_eq!(store.digests().await.unwrap(), before);
    let standby = Route { node: second.id, primary: false, ..route };
    restore(&store, EntityRecord::from(standby)).await.unwrap();
}

async fn what_was_removed_is_missing_the_second_time_too(env: &mut TestEnv, mut store: Opened) {
    let made = OneOfEach::make(&store).await;
    store.routes().delete(made.route.id).await.unwrap();
    store.sessions().end(made.session.id).await.unwrap();
    store.api_keys().delete(made.api_key.id).await.unwrap();
    store.preauth_keys().delete(made.preauth_key.id).await.unwrap();
    store.dns().delete(made.record.id).await.unwrap();
    store.settings().reset(SettingKind::Dns).await.unwrap();
    store.nodes().delete(made.node.id).await.unwrap();
    store.users().delete(made.user.id, false).await.unwrap();
    // At once, and once more after the store was opened anew.
    for _ in 0..2 {
        let serial = store.view().serial();
        all_is_missing(&store, &made).await;
        assert_eq!(store.view().serial(), serial);
        store = env.reload(store).await;
    }
}

async fn what_went_with_its_owner_is_missing(env: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    store.users().delete(made.user.id, true).await.unwrap();
    store.dns().delete(made.record.id).await.unwrap();
    store.settings().reset(SettingKind::Dns).await.unwrap();
    let store = env.reload(store).await;
    all_is_missing(&store, &made).await;
    let version = PolicyVersion::new(9).unwrap();
    missing(EntityKind::Policy, store.policies().rollback(made.policy.version, version).await);
    assert_eq!(store.policies().get(version).await.unwrap(), None);
    // These were at their defaults all the time.
    missing(EntityKind::Setting, store.settings().reset(SettingKind::Network).await);
    missing(EntityKind::Setting, store.settings().reset(SettingKind::DerpMap).await);
}

/// `get` gives nothing, and everything else says that there is nothing.
async fn all_is_missing(store: &Opened, made: &OneOfEach) {
    let (user, node, number) = (made.user.id, made.node.id, made.presence.session);
    assert_eq!(store.users().get(user).await.unwrap(), None);
    assert_eq!(store.users().get_by_name(&made.user.name).await.unwrap(), None);
    missing(EntityKind::User, store.users().update(user, UserPatch::default(), None).await);
    let stale = Some(Revision::FIRST);
    missing(EntityKind::User, store.users().update(user, UserPatch::default(), stale).await);
    missing(EntityKind::User, store.users().delete(user, false).await);
    missing(EntityKind::User, store.users().delete(user, true).await);

    assert_eq!(store.nodes().get(node).await.unwrap(), None);
    assert_eq!(store.nodes().get_by_machine_key(&made.node.machine_key).await.unwrap(), None);
    assert_eq!(store.nodes().get_by_node_key(&made.node.node_key).await.unwrap(), None);
    assert_eq!(store.nodes().get_by_label(&made.node.label).await.unwrap(), None);
    assert_eq!(store.nodes().get_by_address(made.node.ipv4.unwrap().into()).await.unwrap(), None);
    missing(EntityKind::Node, store.nodes().update(node, NodePatch::default(), None).await);
    let (machine_key, key) = (made.node.machine_key, made.node.node_key);
    let rotated = store.nodes().rotate_key(machine_key, key, key, None, None).await;
    missing(EntityKind::Node, rotated);
    missing(EntityKind::Node, store.nodes().expire(vec![node], at(0)).await);
    missing(EntityKind::Node, store.nodes().delete(node).await);
    missing(EntityKind::User, store.nodes().register(machine(1, by(user))).await);
    let admission = Admission::PreAuthKey(made.preauth_key.id);
    missing(EntityKind::PreAuthKey, store.nodes().register(machine(1, admission)).await);

    assert_eq!(store.presence().get(node).await.unwrap(), None);
    missing(EntityKind::Node, store.presence().connect(node, number, Update::Keep).await);
    missing(EntityKind::Node, store.presence().heartbeat(node, number, Update::Keep).await);
    missing(EntityKind::Node, store.presence().disconnect(node, number).await);
    assert_eq!(store.routes().get(made.route.id).await.unwrap(), None);
    missing(EntityKind::Node, store.routes().advertise(node, vec![], None).await);
    missing(EntityKind::Node, store.routes().approve(node, vec![made.route.prefix], None).await);
    missing(EntityKind::Route, store.routes().delete(made.route.id).await);

    let id = made.api_key.id;
    assert_eq!(store.api_keys().get(id).await.unwrap(), None);
    missing(EntityKind::ApiKey, store.api_keys().revoke(id).await);
    missing(EntityKind::ApiKey, store.api_keys().delete(id).await);
    missing(EntityKind::User, store.api_keys().create(api_key_of(user)).await);
    let id = made.preauth_key.id;
    assert_eq!(store.preauth_keys().get(id).await.unwrap(), None);
    missing(EntityKind::PreAuthKey, store.preauth_keys().revoke(id).await);
    missing(EntityKind::PreAuthKey, store.preauth_keys().delete(id).await);
    let id = made.session.id;
    missing(EntityKind::Session, store.sessions().touch(id, None).await);
    missing(EntityKind::Session, store.sessions().end(id).await);
    let new = session_of(SessionOwner::Node(node), Timestamp::MAX);
    missing(EntityKind::Node, store.sessions().begin(new).await);

    let id = made.record.id;
    assert_eq!(store.dns().get(id).await.unwrap(), None);
    missing(EntityKind::DnsRecord, store.dns().update(id, DnsRecordPatch::default(), None).await);
    missing(EntityKind::DnsRecord, store.dns().delete(id).await);
    let dns = store.settings().get(SettingKind::Dns).await.unwrap();
    assert!(dns.is_none_or(|dns| dns.document.is_default()), "a reset leaves the default");
    missing(EntityKind::Setting, store.settings().reset(SettingKind::Dns).await);
}

async fn what_was_withdrawn_cannot_be_withdrawn_again(env: &mut TestEnv, mut store: Opened) {
    let made = OneOfEach::make(&store).await;
    let api_key = store.api_keys().revoke(made.api_key.id).await.unwrap();
    let preauth_key = store.preauth_keys().revoke(made.preauth_key.id).await.unwrap();
    let new = session_of(SessionOwner::User(made.user.id), at(60));
    let (session, _) = store.sessions().begin(new).await.unwrap();
    env.advance(60);
    for _ in 0..2 {
        missing(EntityKind::ApiKey, store.api_keys().revoke(api_key.id).await);
        missing(EntityKind::PreAuthKey, store.preauth_keys().revoke(preauth_key.id).await);
        missing(EntityKind::Session, store.sessions().touch(session.id, Some(at(600))).await);
        store = env.reload(store).await;
    }
    // They are still there to be seen.
    assert_eq!(store.api_keys().get(api_key.id).await.unwrap(), Some(api_key));
    assert_eq!(store.preauth_keys().get(preauth_key.id).await.unwrap(), Some(preauth_key));
    assert_eq!(store.sessions().sweep().await.unwrap(), 1);
}

async fn a_secret_is_not_repeated_by_its_refusal(_: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    let secrets = [made.api_secret.expose(), made.preauth_secret.expose(), made.token.expose()];
    // Each of the wrong kind, and with a letter too many.
    for secret in secrets {
        let longer = format!("{secret}a");
        for text in [secret, &longer] {
            let outcomes = [
                store.api_keys().authenticate(text).await.map(|key| key.id.to_string()),
                store.preauth_keys().authenticate(text).await.map(|key| key.id.to_string()),
                store.sessions().authenticate(text).await.map(|found| found.id.to_string()),
            ];
            let refused: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
            assert_eq!(refused.len(), if text == secret { 2 } else { 3 });
            for error in refused {
                assert_eq!(*error.kind(), PermissionDenied);
                let tail = secret.rsplit('-').next().unwrap();
                says_nothing_of(&error, &[secret, tail]);
            }
        }
    }
}

async fn what_is_given_by_mistake_is_not_repeated(_: &mut TestEnv, store: Opened) {
    let (key, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    let secret = secret.expose();
    let hash = key.hash.as_str();
    let errors = [
        secret.parse::<KeyPrefix>().unwrap_err(),
        secret.parse::<SecretHash>().unwrap_err(),
        secret.parse::<MachineKey>().unwrap_err(),
        secret.parse::<NodeKey>().unwrap_err(),
        secret.parse::<DiscoKey>().unwrap_err(),
        secret.parse::<Cursor>().unwrap_err(),
        format!("{secret}{}", "A".repeat(600)).parse::<Cursor>().unwrap_err(),
        hash.parse::<KeyPrefix>().unwrap_err(),
        hash.parse::<Cursor>().unwrap_err(),
        format!("{hash}0").parse::<SecretHash>().unwrap_err(),
        store.api_keys().authenticate(hash).await.unwrap_err(),
    ];
    for error in errors {
        let tail = secret.rsplit('-').next().unwrap();
        says_nothing_of(&error, &[secret, tail, hash, hash.rsplit(':').next().unwrap()]);
    }
    for name in ["a", "b"] {
        create(&store, name).await;
    }
    let first = PageRequest::first(Limit::MIN);
    let cursor = store.users().list(&UserFilter::default(), &first).await.unwrap().next.unwrap();
    let page = PageRequest::after(Limit::MIN, cursor.clone());
    let error = store.nodes().list(&NodeFilter::default(), &page).await.unwrap_err();
    says_nothing_of(&error, &[&cursor.to_string()]);
    let cut = cursor.to_string().split_off(2);
    says_nothing_of(&cut.parse::<Cursor>().unwrap_err(), &[&cut]);
}

async fn long_values_are_cut(_: &mut TestEnv, store: Opened) {
    let long = "é".repeat(500);
    let error = fails(store.dns().create(record("wiki.example.com", &long)).await, InvalidArgument);
    let (_, value) = error.context().iter().find(|(name, _)| *name == "value").unwrap();
    assert_eq!(*value, format!("{}…", "é".repeat(100)), "200 bytes, and a whole character");
    for error in [
        format!(" {}", "x".repeat(250)).parse::<UserName>().unwrap_err(),
        "-".repeat(5000).parse::<DnsName>().unwrap_err(),
        "9".repeat(5000).parse::<Limit>().unwrap_err(),
    ] {
        assert!(error.to_string().len() < 600, "{error}");
    }
}

fn taken<T: Debug>(constraint: &'static str, entity: EntityKind, outcome: Result<T>) {
    let error = fails(outcome, AlreadyExists { constraint });
    assert_eq!(error.constraint(), Some(constraint));
    assert_eq!(error.entity(), Some(entity));
    assert!(error.operation().is_some(), "{error}");
}

fn missing<T: Debug>(entity: EntityKind, outcome: Result<T>) {
    let error = fails(outcome, NotFound);
    assert_eq!(error.entity(), Some(entity), "{error}");
    assert!(error.operation().is_some(), "{error}");
}

fn says_nothing_of(error: &Error, secrets: &[&str]) {
    let mut said = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(error) = source {
        said.push_str(&format!(" {error} {error:?}"));
        source = error.source();
    }
    for secret in secrets {
        assert!(!said.contains(secret), "{said}");
    }
}

async fn restore(store: &Opened, image: EntityRecord) -> Result<Restored> {
    let restore = Restore { images: vec![image], skip_invalid: false };
    store.restore(restore).await.map(|committed| committed.value)
}
