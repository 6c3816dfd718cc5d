//! DNS records and settings.

use crate::prelude::*;

cases! {
    stored {
        "dns-record" => [
            a_record_is_unique_by_name_kind_and_value,
            a_value_fits_its_kind,
            records_change_in_value_and_lifetime_only,
            a_cname_may_stand_beside_other_records,
        ],
        "settings" => [
            what_was_never_set_is_at_its_default,
            put_replaces_the_whole_document,
            reset_goes_back_to_the_default,
            a_document_has_at_most_a_mebibyte,
            a_document_that_breaks_its_rules_is_refused,
        ],
    }
}

async fn a_record_is_unique_by_name_kind_and_value(env: &mut TestEnv, store: Opened) {
    let a = DnsRecordKind::A;
    let first = store.dns().create(record("wiki.example.com", a, "10.0.0.1")).await.unwrap();
    let second = store.dns().create(record("wiki.example.com", a, "10.0.0.2")).await.unwrap();
    store.dns().create(record("wiki.example.com", DnsRecordKind::Txt, "10.0.0.1")).await.unwrap();
    store.dns().create(record("mail.example.com", a, "10.0.0.1")).await.unwrap();
    let store = env.reload(store).await;
    for name in ["wiki.example.com", "Wiki.EXAMPLE.com."] {
        let duplicate = NewDnsRecord { ttl: Some(60), ..record(name, a, "10.0.0.1") };
        let error = store.dns().create(duplicate).await.unwrap_err();
        assert_eq!(error.constraint(), Some("content"));
    }
    let patch = DnsRecordPatch { value: set("10.0.0.1"), ..DnsRecordPatch::default() };
    let error = store.dns().update(second.id, patch, None).await.unwrap_err();
    assert_eq!(error.constraint(), Some("content"));
    assert_eq!(store.dns().get(second.id).await.unwrap(), Some(second.clone()));
    // Freed content can be used again, by a change or a new record.
    store.dns().delete(first.id).await.unwrap();
    let patch = DnsRecordPatch { value: set("10.0.0.1"), ..DnsRecordPatch::default() };
    store.dns().update(second.id, patch, None).await.unwrap();
    store.dns().create(record("wiki.example.com", a, "10.0.0.2")).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.dns().get(first.id).await.unwrap(), None);
    fails(store.dns().delete(first.id).await, NotFound);
    assert_eq!(store.view().dns_records().len(), 4);
    let filter = DnsRecordFilter { name: Some("wiki.example.com".parse().unwrap()), kind: Some(a) };
    let found = store.dns().list(&filter, &PageRequest::default()).await.unwrap();
    // Those of one millisecond are in no order that anybody could know.
    let mut values: Vec<_> = found.items.iter().map(|record| record.value.as_str()).collect();
    values.sort_unstable();
    assert_eq!(values, ["10.0.0.1", "10.0.0.2"]);
}

async fn a_value_fits_its_kind(env: &mut TestEnv, store: Opened) {
    use DnsRecordKind::{A, Aaaa, Cname, Txt};
    let good = [
        (A, "255.255.255.255"),
        (Aaaa, "fd7a:115c:a1e0::53"),
        (Aaaa, "::"),
        (Cname, "target.example.com"),
        (Txt, ""),
        (Txt, "any text; \"at all\" é"),
    ];
    for (kind, value) in good {
        env.advance(1);
        let created = store.dns().create(record("x.example.com", kind, value)).await.unwrap();
        assert_eq!((created.kind, created.value.as_str()), (kind, value));
    }
    let bad = [
        (A, "fd00::1"),
        (A, "10.0.0"),
        (A, "10.0.0.256"),
        (A, "10.0.0.1 "),
        (A, ""),
        (Aaaa, "10.0.0.1"),
        (Aaaa, "fd00::1%eth0"),
        (Aaaa, "[fd00::1]"),
        (Cname, "not a name"),
        (Cname, ""),
    ];
    for (kind, value) in bad {
        let error = store.dns().create(record("y.example.com", kind, value)).await.unwrap_err();
        assert_eq!(*error.kind(), InvalidArgument, "{kind:?} {value:?}");
    }
    let store = env.reload(store).await;
    let found =
        store.dns().list(&DnsRecordFilter::default(), &PageRequest::default()).await.unwrap();
    let found: Vec<_> =
        found.items.iter().map(|record| (record.kind, record.value.as_str())).collect();
    assert_eq!(found, good);
}

async fn records_change_in_value_and_lifetime_only(env: &mut TestEnv, store: Opened) {
    let new = record("wiki.example.com", DnsRecordKind::A, "10.0.0.1");
    let created = store.dns().create(new).await.unwrap();
    assert_eq!((created.revision, created.ttl), (Revision::FIRST, None));
    env.advance(1);
    let patch = DnsRecordPatch { value: set("10.0.0.2"), ttl: Patch::Set(0) };
    let expected = Some(Revision::FIRST);
    let updated = store.dns().update(created.id, patch.clone(), expected).await.unwrap();
    let store = env.reload(store).await;
    let value = DnsRecord {
        value: "10.0.0.2".parse().unwrap(),
        ttl: Some(0),
        updated_at: env.options().clock.now(),
        revision: Revision::new(2).unwrap(),
        ..DnsRecord::clone(&created)
    };
    assert_eq!(*updated, value);
    assert_eq!(store.dns().get(created.id).await.unwrap(), Some(updated.clone()));
    env.advance(1);
    let idle = store.dns().update(created.id, patch.clone(), None).await.unwrap();
    assert_eq!(idle, updated, "nothing changed");
    fails(store.dns().update(created.id, patch, expected).await, Conflict);
    let wrong = DnsRecordPatch { value: set("fd00::1"), ..DnsRecordPatch::default() };
    let error = store.dns().update(created.id, wrong, None).await.unwrap_err();
    assert_eq!(*error.kind(), InvalidArgument, "the kind stays");
    let clear = DnsRecordPatch { ttl: Patch::Clear, ..DnsRecordPatch::default() };
    store.dns().update(created.id, clear.clone(), None).await.unwrap();
    let nobody = DnsRecordId::from_bytes([9; 16]);
    fails(store.dns().update(nobody, clear, None).await, NotFound);
    let store = env.reload(store).await;
    let found = store.dns().get(created.id).await.unwrap().unwrap();
    assert_eq!((found.ttl, found.revision.get()), (None, 3));
}

async fn a_cname_may_stand_beside_other_records(env: &mut TestEnv, store: Opened) {
    use DnsRecordKind::{A, Aaaa, Cname};
    let kinds =
        [(Cname, "a.example.com"), (A, "10.0.0.1"), (Cname, "b.example.com"), (Aaaa, "fd00::1")];
    for (kind, value) in kinds {
        store.dns().create(record("x.example.com", kind, value)).await.unwrap();
    }
    let store = env.reload(store).await;
    let name = "x.example.com".parse().unwrap();
    let view = store.view();
    let found: Vec<_> = view.dns_records().of_name(&name).map(|record| record.kind).collect();
    assert_eq!(found, [A, Aaaa, Cname, Cname]);
}

async fn what_was_never_set_is_at_its_default(env: &mut TestEnv, store: Opened) {
    let store = env.reload(store).await;
    for kind in KINDS {
        assert_eq!(store.settings().get(kind).await.unwrap(), None);
    }
    let view = store.view();
    let network = view.settings().network();
    assert_eq!(*network, NetworkSettings::default());
    assert_eq!(network.ipv4, "100.64.0.0/10".parse().ok());
    assert_eq!(network.ipv6, "fd7a:115c:a1e0::/48".parse().ok());
    let reserved: Vec<_> = network.reserved.iter().map(Prefix::to_string).collect();
    assert_eq!(reserved, ["100.100.100.100/32", "100.115.92.0/23", "fd7a:115c:a1e0::53/128"]);
    assert_eq!(network.ephemeral_cutoff_seconds, 1800);
    assert_eq!(*view.settings().derp_map(), DerpMap::default());
    assert_eq!(*view.settings().dns(), DnsSettings::default());
    // Setting a default is not the same as having set nothing.
    let put = store.settings().put(documents()[0].clone(), None).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.settings().get(SettingKind::Network).await.unwrap(), Some(put));
    assert_eq!(store.settings().get(SettingKind::Dns).await.unwrap(), None);
}

async fn put_replaces_the_whole_document(env: &mut TestEnv, mut store: Opened) {
    for document in documents() {
        let kind = document.kind();
        let first = Some(Revision::FIRST);
        let error = store.settings().put(document.clone(), first).await.unwrap_err();
        assert_eq!(*error.kind(), Conflict, "there is no revision yet");
        let put = store.settings().put(document.clone(), None).await.unwrap();
        assert_eq!((put.revision, &put.document), (Revision::FIRST, &document));
        store = env.reload(store).await;
        assert_eq!(store.settings().get(kind).await.unwrap(), Some(put.clone()));
        env.advance(1);
        let idle = store.settings().put(document, first).await.unwrap();
        assert_eq!(idle, put, "an equal document changes nothing");
        let bare = match kind {
            SettingKind::Network => SettingDocument::Network(NetworkSettings {
                ipv4: None,
                ipv6: "fd00::/64".parse().ok(),
                reserved: Vec::new(),
                ephemeral_cutoff_seconds: 0,
                ..NetworkSettings::default()
            }),
            SettingKind::DerpMap => SettingDocument::DerpMap(DerpMap::default()),
            SettingKind::Dns => SettingDocument::Dns(DnsSettings::default()),
        };
        let replaced = store.settings().put(bare.clone(), first).await.unwrap();
        assert_eq!((replaced.revision.get(), &replaced.document), (2, &bare));
        assert_eq!(replaced.updated_at, env.options().clock.now());
        fails(store.settings().put(bare, first).await, Conflict);
        store = env.reload(store).await;
        assert_eq!(store.view().settings().get(kind), Some(&replaced));
    }
    let view = store.view();
    assert_eq!(view.settings().network().ipv4, None);
    assert!(view.settings().derp_map().regions.is_empty());
    assert!(view.settings().dns().nameservers.is_empty());
}

async fn reset_goes_back_to_the_default(env: &mut TestEnv, mut store: Opened) {
    for document in documents() {
        let kind = document.kind();
        fails(store.settings().reset(kind).await, NotFound);
        store.settings().put(document.clone(), None).await.unwrap();
        store.settings().reset(kind).await.unwrap();
        store = env.reload(store).await;
        assert_eq!(store.settings().get(kind).await.unwrap(), None);
        fails(store.settings().reset(kind).await, NotFound);
        let again = store.settings().put(document, None).await.unwrap();
        assert_eq!(again.revision, Revision::FIRST);
        store.settings().reset(kind).await.unwrap();
    }
    let store = env.reload(store).await;
    let view = store.view();
    assert_eq!(*view.settings().network(), NetworkSettings::default());
    assert_eq!(*view.settings().derp_map(), DerpMap::default());
    assert_eq!(*view.settings().dns(), DnsSettings::default());
}

async fn a_document_has_at_most_a_mebibyte(env: &mut TestEnv, store: Opened) {
    // The document with nothing in it, with one domain, and with 256 and their resolvers.
    let bare =
        r#"{"dns":{"magic_dns":false,"nameservers":[""],"split":{},"search_domains":[]}}"#.len();
    let domain = r#""d000.example.com":[],"#.len();
    let filled = bare + 256 * domain - 1;
    let resolvers = 16;
    let quoted = |length: usize| length + r#""","#.len();
    let of = |bytes: usize| {
        let each = (bytes - filled) / 256;
        let length = each / resolvers - quoted(0);
        let mut rest = bytes - filled - 256 * (resolvers * quoted(length) - 1);
        let split = (0..256).map(|n| {
            // What does not divide evenly is spread over the domains, a byte to each resolver.
            let longer = rest.min(resolvers);
            rest -= longer;
            let servers = (0..resolvers).map(|n| "x".repeat(length + usize::from(n < longer)));
            let servers = servers.map(|server| Text::new(server).unwrap()).collect();
            (format!("d{n:03}.example.com").parse().unwrap(), servers)
        });
        let split = split.collect::<BTreeMap<_, _>>();
        let nameservers = vec![text("")];
        SettingDocument::Dns(DnsSettings { nameservers, split, ..DnsSettings::default() })
    };
    let error = fails(store.settings().put(of(1024 * 1024 + 1), None).await, InvalidArgument);
    let bytes = error.context().iter().find(|(key, _)| *key == "bytes").unwrap();
    assert_eq!(bytes.1, "1048577");
    let put = store.settings().put(of(1024 * 1024), None).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.settings().get(SettingKind::Dns).await.unwrap(), Some(put));
}

async fn a_document_that_breaks_its_rules_is_refused(env: &mut TestEnv, store: Opened) {
    let network = NetworkSettings::default;
    let prefix = |text: &str| text.parse::<Prefix>().ok();
    let many = |count: usize| vec![prefix("10.0.0.0/8").unwrap(); count];
    let region = |code: &str, servers| DerpRegion {
        code: code.parse().unwrap(),
        name: "Frankfurt".parse().unwrap(),
        servers,
    };
    let regions = |regions: Vec<DerpRegion>| {
        let numbered = (1..).map(|n| DerpRegionId::new(n).unwrap()).zip(regions);
        SettingDocument::DerpMap(DerpMap { regions: numbered.collect() })
    };
    let server = || DerpServer {
        host: "derp.example.com".parse().unwrap(),
        ipv4: None,
        ipv6: None,
        derp_port: None,
        stun_port: None,
    };
    let dns = |dns: DnsSettings| SettingDocument::Dns(dns);
    let text = |n: usize| Text::new(format!("10.0.0.{n}")).unwrap();
    let names = |count: usize| (0..count).map(|n| format!("d{n}.com").parse().unwrap());
    let code = |n: usize| region(&format!("r{n}"), Vec::new());
    let with_nameservers = |count: usize| {
        dns(DnsSettings { nameservers: (0..count).map(text).collect(), ..DnsSettings::default() })
    };
    let with_split = |count: usize| {
        let split = names(count).map(|name| (name, Vec::new())).collect();
        dns(DnsSettings { split, ..DnsSettings::default() })
    };
    let with_search = |count: usize| {
        dns(DnsSettings { search_domains: names(count).collect(), ..DnsSettings::default() })
    };
    let of_network = SettingDocument::Network;
    for bad in [
        of_network(NetworkSettings { ipv4: None, ipv6: None, ..network() }),
        of_network(NetworkSettings { ipv4: prefix("fd00::/64"), ..network() }),
        of_network(NetworkSettings { ipv6: prefix("10.0.0.0/8"), ..network() }),
        of_network(NetworkSettings { reserved: many(1025), ..network() }),
        regions((0..513).map(code).collect()),
        regions(vec![region("fra", vec![server(); 65])]),
        regions(vec![region("fra", Vec::new()), region("fra", Vec::new())]),
        with_nameservers(17),
        with_split(257),
        with_search(65),
    ] {
        fails(store.settings().put(bad, None).await, InvalidArgument);
    }
    let store = env.reload(store).await;
    assert_eq!(store.view().serial().get(), 0, "nothing was written");
    for good in [
        of_network(NetworkSettings { reserved: many(1024), ..network() }),
        regions((0..512).map(code).collect()),
        regions(vec![region("fra", vec![server(); 64]), region("ber", Vec::new())]),
        with_nameservers(16),
        with_split(256),
        with_search(64),
    ] {
        store.settings().put(good, None).await.unwrap();
    }
    let store = env.reload(store).await;
    assert_eq!(store.view().settings().derp_map().regions.len(), 2);
    assert_eq!(store.view().settings().dns().search_domains.len(), 64);
}

const KINDS: [SettingKind; 3] = [SettingKind::Network, SettingKind::DerpMap, SettingKind::Dns];

/// One of each kind; the network is at its default, the others are filled.
fn documents() -> [SettingDocument; 3] {
    let server = DerpServer {
        host: "derp1.example.com".parse().unwrap(),
        ipv4: "192.0.2.1".parse().ok(),
        ipv6: "2001:db8::1".parse().ok(),
        derp_port: Some(8443),
        stun_port: Some(3479),
    };
    let region = DerpRegion {
        code: "fra".parse().unwrap(),
        name: "Frankfurt".parse().unwrap(),
        servers: vec![server],
    };
    let dns = DnsSettings {
        base_domain: "mesh.example.com".parse().ok(),
        magic_dns: true,
        nameservers: vec!["9.9.9.9".parse().unwrap()],
        split: [("corp.example.com".parse().unwrap(), vec!["10.0.0.53".parse().unwrap()])].into(),
        search_domains: vec!["example.com".parse().unwrap()],
    };
    [
        SettingDocument::Network(NetworkSettings::default()),
        SettingDocument::DerpMap(DerpMap {
            regions: [(DerpRegionId::new(900).unwrap(), region)].into(),
        }),
        SettingDocument::Dns(dns),
    ]
}

fn record(name: &str, kind: DnsRecordKind, value: &str) -> NewDnsRecord {
    let (name, value) = (name.parse().unwrap(), value.parse().unwrap());
    NewDnsRecord { name, kind, value, ttl: None }
}

fn set(value: &str) -> Update<Text<1024>> {
    Update::Set(value.parse().unwrap())
}
