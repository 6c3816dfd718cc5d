//! Values come back as they were given, or are refused.

use crate::prelude::*;

cases! {
    stored {
        "case" => [
            names_that_look_alike_are_different,
            what_the_dns_and_mail_ignore_is_stored_in_lower_case,
        ],
        "tags" => [every_tag_of_the_field_comes_back],
        "time" => [
            times_come_back_to_the_microsecond,
            things_expire_at_the_instant_itself,
        ],
        "text" => [any_text_comes_back_unmodified],
        "numbers" => [numbers_come_back_exactly],
        "keys-not-zero" => [keys_come_back_to_the_bit],
    }
    once {
        "numbers" => [numbers_out_of_range_are_refused],
    }
    once_unopened {
        "case" => [tags_with_capitals_are_refused],
        "tags" => [a_tag_shows_and_has_no_blanks],
        "time" => [times_outside_of_1970_to_9999_are_refused],
        "text" => [text_that_is_too_long_or_not_text_is_refused],
        "keys-not-zero" => [a_key_of_zeros_is_refused],
    }
}

/// Different to the byte, alike to the eye or to a locale.
const LOOKALIKES: [&str; 13] = [
    "Ann", "ANN", "ann", "\u{e9}", "e\u{301}", "\u{c9}", "a", "\u{430}", "\u{ff41}", "ss",
    "\u{df}", "\u{131}", "i",
];

async fn names_that_look_alike_are_different(env: &mut TestEnv, store: Opened) {
    let mut users = Vec::new();
    for name in LOOKALIKES {
        users.push(store.users().create(local(name)).await.unwrap());
        let actor = store.acting_as(name.parse().unwrap());
        actor.policies().prune(1).await.unwrap();
        actor
            .dns()
            .create(record("a.example.com", &format!("10.0.0.{}", users.len())))
            .await
            .unwrap();
    }
    let prefixes = ["aB_-", "ab_-", "AB_-"];
    for (n, prefix) in prefixes.iter().enumerate() {
        let create = ApiKeyCommand::Create {
            id: ApiKeyId::from_bytes([n as u8 + 1; 16]),
            prefix: prefix.parse().unwrap(),
            hash: SecretHash::hmac([1; 4], [1; 32]),
            key: NewApiKey::default(),
        };
        store.transact(Transaction::new().then(create).unwrap()).await.unwrap();
    }
    let points = ["rx", "Rx", "RX"].into_iter().zip(1..);
    let points = points.map(|(metric, value)| point(None, metric, at(0), value)).collect();
    store.metrics().record_many(points).await.unwrap();

    let store = env.reload(store).await;
    for (name, user) in LOOKALIKES.iter().zip(users) {
        let found = store.users().get_by_name(&name.parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(found.name.as_str().as_bytes(), name.as_bytes());
        assert_eq!(found, user);
        let filter = UserFilter { name: Some(name.parse().unwrap()), ..UserFilter::default() };
        let listed = store.users().list(&filter, &PageRequest::default()).await.unwrap();
        assert_eq!(listed.items, [user]);
        let query = AuditQuery { actor: Some(name.parse().unwrap()), ..AuditQuery::default() };
        let lines = store.audit().query(&query, &PageRequest::default()).await.unwrap();
        assert_eq!(lines.items.len(), 1, "{name}");
    }
    for (n, prefix) in prefixes.iter().enumerate() {
        let view = store.view();
        let key = view.api_keys().by_prefix(&prefix.parse().unwrap()).unwrap();
        assert_eq!(key.id, ApiKeyId::from_bytes([n as u8 + 1; 16]));
    }
    assert!(store.view().api_keys().by_prefix(&"Ab_-".parse().unwrap()).is_none());
    for (metric, value) in [("rx", Some(1.0)), ("Rx", Some(2.0)), ("RX", Some(3.0)), ("rX", None)] {
        let query = MetricQuery {
            node: None,
            metric: Some(metric.parse().unwrap()),
            from: Timestamp::EPOCH,
            to: Timestamp::MAX,
        };
        let found = store.metrics().aggregate(&query).await.unwrap();
        assert_eq!(found.map(|found| found.sum), value, "{metric}");
    }
}

async fn what_the_dns_and_mail_ignore_is_stored_in_lower_case(env: &mut TestEnv, store: Opened) {
    let new = NewUser { email: Some("ÅNN+Tag@Exämple.ORG".parse().unwrap()), ..local("ann") };
    let user = store.users().create(new).await.unwrap();
    let node = register(&store, 1, by(user.id)).await;
    let patch = NodePatch {
        label: Update::Set("Web-1".parse().unwrap()),
        hostname: Update::Set("Ann's MacBook".parse().unwrap()),
        ..NodePatch::default()
    };
    store.nodes().update(node.id, patch, None).await.unwrap();
    let wiki = store.dns().create(record("Wiki.EXAMPLE.com.", "10.0.0.1")).await.unwrap();
    let dns = DnsSettings {
        base_domain: Some("Mesh.Example.COM.".parse().unwrap()),
        ..DnsSettings::default()
    };
    store.settings().put(SettingDocument::Dns(dns), None).await.unwrap();
    let store = env.reload(store).await;
    let found = store.users().get(user.id).await.unwrap().unwrap();
    // Only the letters of ASCII.
    assert_eq!(found.email.as_ref().unwrap().as_str(), "Ånn+tag@exämple.org");
    let filter = UserFilter {
        email: Some("Ånn+TAG@exämple.org".parse().unwrap()),
        ..UserFilter::default()
    };
    let listed = store.users().list(&filter, &PageRequest::default()).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    let found = store.nodes().get_by_label(&"WEB-1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((found.label.as_str(), found.hostname.as_str()), ("web-1", "Ann's MacBook"));
    let found = store.dns().get(wiki.id).await.unwrap().unwrap();
    assert_eq!(found.name.as_str(), "wiki.example.com");
    assert_eq!(
        store.view().settings().dns().base_domain.as_ref().unwrap().as_str(),
        "mesh.example.com"
    );
    invalid("wiki.example.com..".parse::<DnsName>());
}

async fn tags_with_capitals_are_refused(_: &mut TestEnv) {
    for bad in ["tag:Server", "TAG:server", "Tag:server", "tag:\u{410}"] {
        invalid(bad.parse::<Tag>());
    }
    assert_eq!("tag:server-1".parse::<Tag>().unwrap().as_str(), "tag:server-1");
}

async fn every_tag_of_the_field_comes_back(env: &mut TestEnv, store: Opened) {
    let longest = format!("tag:{}", "x".repeat(251));
    let names = ["tag:location:site1", "tag:prod_db", "tag:1.2/3", "tag:b\u{fc}ro", &longest];
    let new = NewPreAuthKey { tags: tags(&names), ..NewPreAuthKey::default() };
    let (key, _) = store.preauth_keys().create(new).await.unwrap();
    let node = register(&store, 1, with(&key)).await;
    let store = env.reload(store).await;
    let stored = store.nodes().get(node.id).await.unwrap().unwrap();
    assert_eq!((stored.user, &stored.tags), (None, &tags(&names)));
    for name in names {
        let filter = NodeFilter { tag: Some(name.parse().unwrap()), ..NodeFilter::default() };
        let listed = store.nodes().list(&filter, &PageRequest::default()).await.unwrap();
        assert_eq!(listed.items, std::slice::from_ref(&node), "{name}");
    }
}

async fn a_tag_shows_and_has_no_blanks(_: &mut TestEnv) {
    let too_long = format!("tag:{}", "x".repeat(252));
    for bad in ["", "tag:", "server", "tag:a b", "tag:a\n", "tag:\0", "tag:a\u{200b}", &too_long] {
        invalid(bad.parse::<Tag>());
    }
    assert_eq!(Tag::from_outside("Tag:Web server\t1").unwrap().as_str(), "tag:web-server-1");
    invalid(Tag::from_outside("tag:\u{200b}"));
}

async fn times_come_back_to_the_microsecond(env: &mut TestEnv, mut store: Opened) {
    let instants = [
        Timestamp::from_micros(BEGINNING + 1).unwrap(),
        "2024-02-29T13:00:00.1234569+01:00".parse().unwrap(),
        "9999-12-31T23:59:59.999999Z".parse().unwrap(),
    ];
    assert_eq!(instants[1].as_micros(), 1_709_208_000_123_456, "in UTC, finer digits cut");
    assert_eq!(instants[2], Timestamp::MAX);
    let mut keys = Vec::new();
    for expires_at in instants.into_iter().chain([Timestamp::EPOCH]) {
        let new = NewApiKey { expires_at: Some(expires_at), ..NewApiKey::default() };
        keys.push((store.api_keys().create(new).await.unwrap().0.id, expires_at));
    }
    let odd = Timestamp::from_micros(BEGINNING + 123_457).unwrap();
    env.clock().set(odd);
    let user = create(&store, "ann").await;
    for _ in 0..2 {
        for (id, expires_at) in &keys {
            let found = store.api_keys().get(*id).await.unwrap().unwrap();
            assert_eq!(found.expires_at, Some(*expires_at));
        }
        assert_eq!(store.users().get(user.id).await.unwrap().unwrap().created_at, odd);
        store = env.reload(store).await;
    }
}

async fn times_outside_of_1970_to_9999_are_refused(_: &mut TestEnv) {
    for bad in [-1, i64::MIN, Timestamp::MAX.as_micros() + 1, i64::MAX] {
        invalid(Timestamp::from_micros(bad));
    }
    for bad in [
        "1969-12-31T23:59:59.9999999Z",
        "1970-01-01T00:30:00+01:00",
        "+010000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-00:01",
    ] {
        invalid(bad.parse::<Timestamp>());
    }
    assert_eq!("1969-12-31T23:00:00-01:00".parse::<Timestamp>().unwrap(), Timestamp::EPOCH);
}

async fn things_expire_at_the_instant_itself(env: &mut TestEnv, store: Opened) {
    let end = at(10);
    let before = Timestamp::from_micros(end.as_micros() - 1).unwrap();
    let expires_at = Some(end);
    let user = user(&store, "ann").await;
    let (_, api_secret) =
        store.api_keys().create(NewApiKey { expires_at, ..NewApiKey::default() }).await.unwrap();
    let new =
        NewPreAuthKey { user: Some(user), reusable: true, expires_at, ..NewPreAuthKey::default() };
    let (preauth_key, _) = store.preauth_keys().create(new).await.unwrap();
    let begin = session_of(SessionOwner::User(user), end);
    let (session, token) = store.sessions().begin(begin.clone()).await.unwrap();
    let with_key =
        |n| Registration { expires_at, ..machine(n, Admission::PreAuthKey(preauth_key.id)) };
    let mut store = env.reload(store).await;

    env.clock().set(before);
    store.api_keys().authenticate(api_secret.expose()).await.unwrap();
    store.sessions().authenticate(token.expose()).await.unwrap();
    let node = store.nodes().register(with_key(1)).await.unwrap();
    let (key, next) = (node.node_key, NodeKey::from_bytes([9; 32]).unwrap());
    store.nodes().rotate_key(node.machine_key, key, next, None, expires_at).await.unwrap();
    assert_eq!(active(&store, before).await, (1, 1, 0));
    assert_eq!(store.sessions().sweep().await.unwrap(), 0);

    env.clock().set(end);
    for _ in 0..2 {
        denied(store.api_keys().authenticate(api_secret.expose()).await);
        denied(store.sessions().authenticate(token.expose()).await);
        denied(store.nodes().register(with_key(2)).await);
        let rotated = store.nodes().rotate_key(node.machine_key, next, key, None, None).await;
        denied(rotated);
        fails(store.sessions().touch(session.id, Some(Timestamp::MAX)).await, NotFound);
        invalid(store.sessions().begin(begin.clone()).await);
        assert_eq!(active(&store, end).await, (0, 0, 1));
        store = env.reload(store).await;
    }
    assert_eq!(store.sessions().sweep().await.unwrap(), 1);
}

/// How many API keys and pre-auth keys are active, and how many nodes have expired.
async fn active(store: &Opened, now: Timestamp) -> (usize, usize, usize) {
    let page = PageRequest::default();
    let keys = KeyFilter { active_at: Some((true, now)), ..KeyFilter::default() };
    let nodes = NodeFilter { expired_at: Some((true, now)), ..NodeFilter::default() };
    (
        store.api_keys().list(&keys, &page).await.unwrap().items.len(),
        store.preauth_keys().list(&keys, &page).await.unwrap().items.len(),
        store.nodes().list(&nodes, &page).await.unwrap().items.len(),
    )
}

/// Whatever a database, a shell, a terminal or a parser may take for something else.
const TEXTS: [&str; 14] = [
    " ",
    "'; DROP TABLE users; --",
    "%_*?[a-z]\\",
    "{\"a\":1}",
    "\u{feff}// a comment\r\n{\n\t\"acls\": [],\n}\n\n",
    "\u{1}\u{1b}[31m\u{7f}\u{85}",
    "\u{fffd}\u{fffe}\u{10ffff}",
    "e\u{301}\u{e9}\u{1e9b}\u{323}",
    "\u{202e}ltr\u{2066}",
    "👩\u{200d}👩\u{200d}👧",
    "null",
    "0x00",
    "1e999",
    "\\0\\u0000",
];

async fn any_text_comes_back_unmodified(env: &mut TestEnv, store: Opened) {
    let mut expected = None;
    let mut made = Vec::new();
    for (n, given) in TEXTS.iter().enumerate() {
        let new = NewUser { display_name: Some(text(given)), ..local(&format!("user{n}")) };
        let user = store.users().create(new).await.unwrap().id;
        let new = NewDnsRecord { kind: DnsRecordKind::Txt, ..record("a.example.com", given) };
        let txt = store.dns().create(new).await.unwrap().id;
        let document = DocumentText::new(given).unwrap();
        let policy = store.policies().swap(expected, document).await.unwrap().version;
        expected = Some(policy);
        made.push((*given, user, txt, policy));
    }
    // As long as it may be: 255 bytes, of which most are not ASCII.
    let longest = format!("{}a", "é".repeat(127));
    let new = NewUser { display_name: Some(text(&longest)), ..local(&longest) };
    let long = store.users().create(new).await.unwrap().id;
    let store = env.reload(store).await;
    for (given, user, txt, policy) in made {
        let user = store.users().get(user).await.unwrap().unwrap();
        assert_eq!(user.display_name.as_ref().unwrap().as_str(), given);
        assert_eq!(store.dns().get(txt).await.unwrap().unwrap().value.as_str(), given);
        let policy = store.policies().get(policy).await.unwrap().unwrap();
        assert_eq!(policy.document.as_str(), given);
    }
    let user = store.users().get(long).await.unwrap().unwrap();
    assert_eq!((user.name.as_str(), user.name.as_str().len()), (longest.as_str(), 255));
    assert_eq!(user.display_name.as_ref().unwrap().as_str(), longest);
}

async fn text_that_is_too_long_or_not_text_is_refused(_: &mut TestEnv) {
    let too_long = format!("{}aa", "é".repeat(127));
    invalid(Text::<255>::new(&too_long));
    invalid(too_long.parse::<UserName>());
    invalid(too_long.parse::<Hostname>());
    invalid("x".repeat(DocumentText::MAX_BYTES + 1).parse::<DocumentText>());
    DocumentText::new("x".repeat(DocumentText::MAX_BYTES)).unwrap();
    invalid(Text::<255>::new("a\0b"));
    invalid(DocumentText::new("\0"));
    for control in ["", " ", "a\nb", "a\tb", "a\u{1b}b", "a\u{7f}", "a\u{85}b", "a\0b"] {
        invalid(control.parse::<UserName>());
        invalid(control.parse::<Hostname>());
        invalid(control.parse::<ActorName>());
    }
}

async fn numbers_come_back_exactly(env: &mut TestEnv, store: Opened) {
    let values = [
        0.1,
        1.0 / 3.0,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        f64::EPSILON,
        9_007_199_254_740_993.0,
        -1e-300,
        -0.0,
    ];
    let points: Vec<_> = values
        .iter()
        .enumerate()
        .map(|(n, value)| point(None, "rx", at(n as i64), *value))
        .collect();
    store.metrics().record_many(points).await.unwrap();
    let largest = i64::MAX as u64;
    let writer = WriterId::from_bytes([1; 16]);
    store.metrics().record_batch(writer, largest, vec![]).await.unwrap();
    let made = OneOfEach::make(&store).await;
    let session = SessionNumber::new(largest).unwrap();
    store.presence().connect(made.node.id, session, Update::Keep).await.unwrap();
    let new = NewDnsRecord { ttl: Some(u32::MAX), ..record("a.example.com", "10.0.0.1") };
    let ttl = store.dns().create(new).await.unwrap().id;

    let store = env.reload(store).await;
    let query = all_points();
    let found = store.metrics().range(&query, &PageRequest::default()).await.unwrap().items;
    for (point, value) in found.iter().zip(values) {
        let expected = if value == 0.0 { 0.0 } else { value };
        assert_eq!(point.value.get().to_bits(), f64::to_bits(expected), "{value:e}");
    }
    assert_eq!(found.len(), values.len());
    let presence = store.presence().get(made.node.id).await.unwrap().unwrap();
    assert_eq!(presence.session.get(), largest);
    assert_eq!(store.dns().get(ttl).await.unwrap().unwrap().ttl, Some(u32::MAX));
}

async fn numbers_out_of_range_are_refused(_: &mut TestEnv, store: Opened) {
    let above = i64::MAX as u64 + 1;
    for number in [above, u64::MAX] {
        invalid(Revision::new(number));
        invalid(SessionNumber::new(number));
        invalid(PolicyVersion::new(number));
        let writer = WriterId::from_bytes([1; 16]);
        invalid(store.metrics().record_batch(writer, number, vec![]).await);
    }
    for value in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        invalid(Sample::new(value));
    }
    assert!(Sample::new(-0.0).unwrap().get().is_sign_positive());
}

async fn keys_come_back_to_the_bit(env: &mut TestEnv, store: Opened) {
    let user = user(&store, "ann").await;
    let mut almost_zero = [0; 32];
    almost_zero[31] = 1;
    let mut nodes = Vec::new();
    for (n, bytes) in
        [almost_zero, [0xff; 32], std::array::from_fn(|n| n as u8)].into_iter().enumerate()
    {
        let registration = Registration {
            machine_key: MachineKey::from_bytes(bytes).unwrap(),
            node_key: NodeKey::from_bytes(bytes).unwrap(),
            disco_key: Some(DiscoKey::from_bytes(bytes).unwrap()),
            ..machine(n as u32 + 1, by(user))
        };
        nodes.push((bytes, store.nodes().register(registration).await.unwrap()));
    }
    let store = env.reload(store).await;
    for (bytes, node) in nodes {
        let key = MachineKey::from_bytes(bytes).unwrap();
        let found = store.nodes().get_by_machine_key(&key).await.unwrap().unwrap();
        assert_eq!(found, node);
        assert_eq!((found.machine_key.as_bytes(), found.node_key.as_bytes()), (&bytes, &bytes));
        assert_eq!(found.disco_key.unwrap().as_bytes(), &bytes);
        let key = NodeKey::from_bytes(bytes).unwrap();
        assert_eq!(store.nodes().get_by_node_key(&key).await.unwrap(), Some(node));
    }
}

async fn a_key_of_zeros_is_refused(_: &mut TestEnv) {
    invalid(MachineKey::from_bytes([0; 32]));
    invalid(NodeKey::from_bytes([0; 32]));
    invalid(DiscoKey::from_bytes([0; 32]));
    let zeros = "0".repeat(64);
    invalid(format!("mkey:{zeros}").parse::<MachineKey>());
    invalid(format!("nodekey:{zeros}").parse::<NodeKey>());
    invalid(format!("discokey:{zeros}").parse::<DiscoKey>());
    let short = "1".repeat(62);
    invalid(format!("mkey:{short}").parse::<MachineKey>());
    invalid(format!("nodekey:{}", "1".repeat(66)).parse::<NodeKey>());
}
