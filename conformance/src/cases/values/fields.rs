//! Fields that are absent, empty, or patched.

use crate::prelude::*;

cases! {
    stored {
        "empty-and-null" => [
            nothing_is_not_empty,
            an_emptied_list_stays_empty,
        ],
        "patches" => [
            a_patch_keeps_clears_or_sets,
            a_list_is_replaced_as_a_whole,
        ],
    }
}
async fn nothing_is_not_empty(env: &mut TestEnv, store: Opened) {
    let empty =
        NewUser { display_name: Some(text("")), picture_url: Some(text("")), ..local("empty") };
    let empty = store.users().create(empty).await.unwrap().id;
    let null = user(&store, "null").await;
    let described = NewApiKey { description: Some(text("")), ..NewApiKey::default() };
    let described = store.api_keys().create(described).await.unwrap().0.id;
    let plain = store.api_keys().create(NewApiKey::default()).await.unwrap().0.id;
    let owner = SessionOwner::User(null);
    let new = NewSession { client: Some(text("")), ..session_of(owner, Timestamp::MAX) };
    let named = store.sessions().begin(new.clone()).await.unwrap().0.id;
    let unnamed = store.sessions().begin(NewSession { client: None, ..new }).await.unwrap().0.id;
    let zero = NewDnsRecord { ttl: Some(0), ..record("a.example.com", "10.0.0.1") };
    let zero = store.dns().create(zero).await.unwrap().id;
    let no_ttl = store.dns().create(record("a.example.com", "10.0.0.2")).await.unwrap().id;
    let txt = NewDnsRecord { kind: DnsRecordKind::Txt, ..record("a.example.com", "") };
    let txt = store.dns().create(txt).await.unwrap().id;
    assert_eq!(store.policies().current().await.unwrap(), None);
    store.policies().swap(None, DocumentText::empty()).await.unwrap();
    let bare = SettingDocument::DerpMap(DerpMap::default());
    store.settings().put(bare.clone(), None).await.unwrap();

    let store = env.reload(store).await;
    let user = store.users().get(empty).await.unwrap().unwrap();
    assert_eq!((user.display_name.clone(), user.email.clone()), (Some(text("")), None));
    assert_eq!(user.picture_url, Some(text("")));
    let user = store.users().get(null).await.unwrap().unwrap();
    assert_eq!((&user.display_name, &user.email, &user.picture_url), (&None, &None, &None));
    let description = |key: Option<Arc<ApiKey>>| key.unwrap().description.clone();
    assert_eq!(description(store.api_keys().get(described).await.unwrap()), Some(text("")));
    assert_eq!(description(store.api_keys().get(plain).await.unwrap()), None);
    assert_eq!(store.view().sessions().get(named).unwrap().client, Some(text("")));
    assert_eq!(store.view().sessions().get(unnamed).unwrap().client, None);
    assert_eq!(store.dns().get(zero).await.unwrap().unwrap().ttl, Some(0));
    assert_eq!(store.dns().get(no_ttl).await.unwrap().unwrap().ttl, None);
    assert_eq!(store.dns().get(txt).await.unwrap().unwrap().value, text(""));
    let policy = store.policies().current().await.unwrap().unwrap();
    assert!(policy.document.is_empty());
    // Equal to the default, and yet set.
    let setting = store.settings().get(SettingKind::DerpMap).await.unwrap().unwrap();
    assert_eq!(setting.document, bare);
    assert_eq!(store.settings().get(SettingKind::Dns).await.unwrap(), None);
}

async fn an_emptied_list_stays_empty(env: &mut TestEnv, mut store: Opened) {
    let made = OneOfEach::make(&store).await;
    let (node, session) = (made.node.id, made.presence.session);
    let tags = TagSet::new(["tag:a".parse().unwrap(), "tag:b".parse().unwrap()]).unwrap();
    let patch = NodePatch { tags: Update::Set(tags), ..NodePatch::default() };
    store.nodes().update(node, patch, None).await.unwrap();
    let seen = Endpoint::new("192.0.2.1:41641".parse().unwrap(), at(0));
    let endpoints = Update::Set(EndpointList::new([seen]).unwrap());
    store.presence().heartbeat(node, session, endpoints).await.unwrap();
    let dns = DnsSettings {
        base_domain: Some("mesh.example.com".parse().unwrap()),
        magic_dns: true,
        nameservers: vec![text("10.0.0.53")],
        split: BTreeMap::from([("corp.example.com".parse().unwrap(), vec![text("10.1.0.53")])]),
        search_domains: vec!["example.com".parse().unwrap()],
        internal_domains: vec!["corp.example.com".parse().unwrap()],
        ..DnsSettings::default()
    };
    store.settings().put(SettingDocument::Dns(dns.clone()), None).await.unwrap();
    store = env.reload(store).await;
    assert_eq!(store.nodes().get(node).await.unwrap().unwrap().tags.len(), 2);
    assert_eq!(store.presence().get(node).await.unwrap().unwrap().endpoints.as_slice(), [seen]);
    assert_eq!(*store.view().settings().dns(), dns);

    let patch = NodePatch { tags: Update::Set(TagSet::empty()), ..NodePatch::default() };
    store.nodes().update(node, patch, None).await.unwrap();
    let endpoints = Update::Set(EndpointList::empty());
    store.presence().heartbeat(node, session, endpoints).await.unwrap();
    assert_eq!(store.routes().advertise(node, vec![], None).await.unwrap(), []);
    // A domain without resolvers is there, and has none.
    let emptied = DnsSettings {
        base_domain: None,
        magic_dns: false,
        nameservers: vec![],
        split: BTreeMap::from([("corp.example.com".parse().unwrap(), vec![])]),
        search_domains: vec![],
        ..DnsSettings::default()
    };
    store.settings().put(SettingDocument::Dns(emptied.clone()), None).await.unwrap();
    // By default there are some.
    let network = NetworkSettings { reserved: vec![], ..NetworkSettings::default() };
    assert_ne!(network, NetworkSettings::default());
    store.settings().put(SettingDocument::Network(network.clone()), None).await.unwrap();
    for _ in 0..2 {
        store = env.reload(store).await;
        assert!(store.nodes().get(node).await.unwrap().unwrap().tags.is_empty());
        assert!(store.presence().get(node).await.unwrap().unwrap().endpoints.is_empty());
        assert!(store.view().routes().is_empty());
        assert_eq!(*store.view().settings().dns(), emptied);
        assert_eq!(*store.view().settings().network(), network);
        // What touches the entity otherwise brings nothing back.
        env.advance(1);
        store.presence().heartbeat(node, session, Update::Keep).await.unwrap();
        let hostname = Update::Set(format!("at-{:?}", env.clock().now()).parse().unwrap());
        let patch = NodePatch { hostname, ..NodePatch::default() };
        store.nodes().update(node, patch, None).await.unwrap();
    }
}

async fn a_patch_keeps_clears_or_sets(env: &mut TestEnv, mut store: Opened) {
    let new = NewUser {
        display_name: Some(text("Ann")),
        email: Some("ann@example.com".parse().unwrap()),
        picture_url: Some(text("https://example.com/ann.png")),
        ..local("ann")
    };
    let first = store.users().create(new).await.unwrap();
    store = env.reload(store).await;
    let patch = UserPatch {
        display_name: Patch::Clear,
        email: Patch::Set("a@example.com".parse().unwrap()),
        ..UserPatch::default()
    };
    let user = store.users().update(first.id, patch, None).await.unwrap();
    store = env.reload(store).await;
    let expected = User {
        display_name: None,
        email: Some("a@example.com".parse().unwrap()),
        revision: Revision::new(2).unwrap(),
        ..User::clone(&first)
    };
    assert_eq!(*user, expected);
    assert_eq!(store.users().get(first.id).await.unwrap(), Some(user.clone()));
    let same = store.users().update(first.id, UserPatch::default(), None).await.unwrap();
    assert_eq!(same, user, "what is not given is kept");

    let admission = by(user.id);
    let disco = DiscoKey::from_bytes([3; 32]).unwrap();
    let registration =
        Registration { disco_key: Some(disco), expires_at: Some(at(100)), ..machine(1, admission) };
    let node = store.nodes().register(registration).await.unwrap();
    let patch = NodePatch {
        disco_key: Patch::Clear,
        hostname: Update::Set("other".parse().unwrap()),
        ..NodePatch::default()
    };
    store.nodes().update(node.id, patch, None).await.unwrap();
    store = env.reload(store).await;
    let found = store.nodes().get(node.id).await.unwrap().unwrap();
    let expected = Node {
        disco_key: None,
        hostname: "other".parse().unwrap(),
        revision: Revision::new(2).unwrap(),
        ..Node::clone(&node)
    };
    assert_eq!(*found, expected, "the label and the expiry among them");
    let patch = NodePatch { expires_at: Patch::Clear, ..NodePatch::default() };
    store.nodes().update(node.id, patch, None).await.unwrap();
    store = env.reload(store).await;
    assert_eq!(store.nodes().get(node.id).await.unwrap().unwrap().expires_at, None);
}

async fn a_list_is_replaced_as_a_whole(env: &mut TestEnv, mut store: Opened) {
    let made = OneOfEach::make(&store).await;
    let node = made.node.id;
    let tags = |names: &[&str]| {
        let tags = names.iter().map(|name| format!("tag:{name}").parse().unwrap());
        TagSet::new(tags).unwrap()
    };
    for (names, texts) in [
        (&["a", "b"][..], &["10.2.0.0/16", "10.3.0.0/16"][..]),
        (&["b", "c"], &["10.3.0.0/16", "10.4.0.0/16"]),
        (&["c"], &["10.1.0.0/16"]),
        (&[], &[]),
    ] {
        let patch = NodePatch { tags: Update::Set(tags(names)), ..NodePatch::default() };
        store.nodes().update(node, patch, None).await.unwrap();
        store.routes().advertise(node, prefixes(texts), None).await.unwrap();
        store = env.reload(store).await;
        assert_eq!(store.nodes().get(node).await.unwrap().unwrap().tags, tags(names));
        let view = store.view();
        let found: Vec<_> = view.routes().of_node(node).map(|route| route.prefix).collect();
        assert_eq!(found, prefixes(texts));
    }
}
