//! DNS records and settings.

use crate::prelude::*;

cases! {
    stored {
        "dns-record" => [
            a_record_is_unique_by_name_kind_and_value,
            a_value_fits_its_kind,
            records_change_in_value_and_lifetime_only,
            a_cname_may_stand_beside_other_records,
            a_value_of_several_parts_has_one_form,
        ],
        "dns-set" => [
            a_put_keeps_what_stays,
            a_set_is_deleted_and_counted,
            of_two_who_read_a_set_one_replaces_it,
            a_put_takes_at_most_1024_values,
        ],
        "settings" => [
            what_was_never_set_is_at_its_default,
            put_replaces_the_whole_document,
            reset_goes_back_to_the_default,
            a_document_has_at_most_a_mebibyte,
            a_document_that_breaks_its_rules_is_refused,
            what_nodes_are_told_comes_back,
        ],
        "derp-other-fields" => [
            a_map_in_the_fields_form_is_kept_whole,
            fields_that_nobody_knows_come_back,
            fields_that_nobody_knows_have_limits,
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
    use DnsRecordKind::{A, Aaaa, Cname, Mx, Ptr, Srv, Txt};
    let good = [
        (A, "255.255.255.255"),
        (Aaaa, "fd7a:115c:a1e0::53"),
        (Aaaa, "::"),
        (Cname, "target.example.com"),
        (Txt, ""),
        (Txt, "any text; \"at all\" é"),
        (Mx, "10 mail.example.com"),
        (Mx, "0 ."),
        (Ptr, "web.example.com"),
        (Srv, "0 5 389 ldap.example.com"),
        (Srv, "65535 65535 65535 ."),
    ];
    for (kind, value) in good {
        env.advance(1);
        let created = store.dns().create(record("x.example.com", kind, value)).await.unwrap();
        assert_eq!((created.kind, created.value.as_str()), (kind, value));
    }
    let forms = [(Aaaa, "FD7A:115C:A1E0:0::53"), (Cname, "Target.Example.com.")];
    for (kind, value) in forms {
        // Both are there already.
        let again = store.dns().create(record("x.example.com", kind, value)).await.unwrap_err();
        assert_eq!(again.constraint(), Some("content"), "{value}");
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
        (Mx, "mail.example.com"),
        (Mx, "65536 mail.example.com"),
        (Mx, "+1 mail.example.com"),
        (Mx, "10 *.example.com"),
        (Mx, "10 mail.example.com 20"),
        (Ptr, "."),
        (Ptr, "10.0.0.1 "),
        (Ptr, "*.example.com"),
        (Srv, "0 389 ldap.example.com"),
        (Srv, "0 5 389 not_a_name!"),
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

async fn a_value_of_several_parts_has_one_form(env: &mut TestEnv, store: Opened) {
    use DnsRecordKind::{Mx, Ptr, Srv};
    for (owner, kind, given, kept, other) in [
        ("example.com", Mx, "010  Mail.Example.COM.", "10 mail.example.com", "11 mail.example.com"),
        ("7.0.20.10.in-addr.arpa", Ptr, "Web.Example.COM.", "web.example.com", "web.example.org"),
        ("1.0.0.2.ip6.arpa", Ptr, "WEB.example", "web.example", "web2.example"),
        ("_ldap._tcp.example.com", Srv, "0 05 389 LDAP.example", "0 5 389 ldap.example", "0 0 0 ."),
    ] {
        let created = store.dns().create(record(owner, kind, given)).await.unwrap();
        assert_eq!((created.name.as_str(), created.value.as_str()), (owner, kept));
        let error = store.dns().create(record(owner, kind, kept)).await.unwrap_err();
        assert_eq!(error.constraint(), Some("content"));
        let patch = |value| DnsRecordPatch { value: set(value), ..DnsRecordPatch::default() };
        let same = store.dns().update(created.id, patch(given), None).await.unwrap();
        assert_eq!(same, created, "nothing changed");
        store.dns().update(created.id, patch(other), None).await.unwrap();
        // Another form of it is not brought in either.
        let odd = DnsRecord {
            id: DnsRecordId::from_bytes([9; 16]),
            value: given.parse().unwrap(),
            ..DnsRecord::clone(&created)
        };
        let restore = Restore { images: vec![odd.into()], skip_invalid: false };
        assert_eq!(*store.restore(restore).await.unwrap_err().kind(), InvalidArgument);
    }
    let store = env.reload(store).await;
    assert_eq!(store.view().dns_records().len(), 4);
}

/// The values of a set, with the revision of each.
fn values(set: &DnsRecordSet) -> Vec<(&str, u64)> {
    set.records.iter().map(|it| (it.value.as_str(), it.revision.get())).collect()
}

fn new_set(name: &str, values: &[&str], ttl: Option<u32>) -> NewDnsRecordSet {
    NewDnsRecordSet {
        name: name.parse().unwrap(),
        kind: DnsRecordKind::A,
        values: values.iter().map(|value| value.parse().unwrap()).collect(),
        ttl,
    }
}

async fn a_put_keeps_what_stays(env: &mut TestEnv, mut store: Opened) {
    let (name, other) = ("wiki.example.com", "www.example.com");
    store.dns().create(record(name, DnsRecordKind::Txt, "10.0.0.1")).await.unwrap();
    store.dns().create(record(other, DnsRecordKind::A, "10.0.0.1")).await.unwrap();
    let wanted = new_set(name, &["10.0.0.2", "10.0.0.1", "10.0.0.2"], None);
    let first = store.dns().put(wanted, None).await.unwrap();
    assert_eq!(values(&first), [("10.0.0.1", 1), ("10.0.0.2", 1)]);
    store = env.reload(store).await;
    env.advance(1);
    let serial = store.view().serial();
    let wanted = new_set(name, &["10.0.0.3", "10.0.0.2"], None);
    let second = store.dns().put(wanted.clone(), None).await.unwrap();
    assert_eq!(store.view().serial(), serial.next(), "one commit");
    assert_eq!(second.records[0], first.records[1], "what stays is as it was");
    let new = &second.records[1];
    let now = env.options().clock.now();
    assert_eq!((new.value.as_str(), new.created_at, new.updated_at), ("10.0.0.3", now, now));
    let idle = store.dns().put(wanted, None).await.unwrap();
    assert_eq!((&idle, store.view().serial()), (&second, serial.next()), "nothing changed");
    env.advance(1);
    let wanted = new_set(name, &["10.0.0.2", "10.0.0.3"], Some(60));
    let third = store.dns().put(wanted, Some(second.fingerprint)).await.unwrap();
    assert_eq!(values(&third), [("10.0.0.2", 2), ("10.0.0.3", 2)]);
    for (new, old) in third.records.iter().zip(&second.records) {
        let times = (old.created_at, env.options().clock.now());
        assert_eq!(
            (new.id, new.ttl, new.created_at, new.updated_at),
            (old.id, Some(60), times.0, times.1)
        );
    }
    let store = env.reload(store).await;
    let (name, kind) = (name.parse().unwrap(), DnsRecordKind::A);
    assert_eq!(store.dns().get_set(&name, kind).await.unwrap(), third);
    assert_eq!(store.view().dns_records().set(&name, kind), third);
    let other = other.parse().unwrap();
    assert_eq!(store.view().dns_records().of_name(&other).count(), 1, "another name");
    assert_eq!(store.view().dns_records().of_name(&name).count(), 3, "another kind");
    // A value that does not fit changes nothing.
    let wrong = NewDnsRecordSet { name, ..new_set("x.example", &["10.0.0.9", "fd00::1"], None) };
    fails(store.dns().put(wrong, None).await, InvalidArgument);
    assert_eq!(store.view().dns_records().len(), 4);
}

async fn a_set_is_deleted_and_counted(env: &mut TestEnv, store: Opened) {
    let name: DnsName = "wiki.example.com".parse().unwrap();
    let a = DnsRecordKind::A;
    assert_eq!(store.dns().delete_set(&name, a, None).await.unwrap(), 0);
    assert_eq!(store.view().serial().get(), 0, "nothing was written");
    store.dns().put(new_set(name.as_str(), &["10.0.0.1", "10.0.0.2"], None), None).await.unwrap();
    store.dns().create(record(name.as_str(), DnsRecordKind::Txt, "")).await.unwrap();
    assert_eq!(store.dns().delete_set(&name, a, None).await.unwrap(), 2);
    let store = env.reload(store).await;
    assert_eq!(store.dns().get_set(&name, a).await.unwrap().records, []);
    assert_eq!(store.view().dns_records().len(), 1);
    // No values are no set.
    store.dns().put(new_set(name.as_str(), &["10.0.0.1"], None), None).await.unwrap();
    let gone = store.dns().put(new_set(name.as_str(), &[], None), None).await.unwrap();
    assert_eq!(gone.records, []);
    let store = env.reload(store).await;
    assert_eq!(store.view().dns_records().len(), 1);
}

async fn of_two_who_read_a_set_one_replaces_it(env: &mut TestEnv, store: Opened) {
    let name: DnsName = "wiki.example.com".parse().unwrap();
    let a = DnsRecordKind::A;
    let put = |value: &'static str, expected| {
        let set = new_set(name.as_str(), &[value], None);
        let store = store.clone();
        async move { store.dns().put(set, Some(expected)).await }
    };
    // Nobody has begun it.
    let none = store.dns().get_set(&name, a).await.unwrap().fingerprint;
    let both = join_all([put("10.0.0.1", none), put("10.0.0.2", none)]).await;
    let (won, lost): (Vec<_>, Vec<_>) = both.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 1));
    assert_eq!(*lost[0].as_ref().unwrap_err().kind(), Conflict);
    let set = won[0].as_ref().unwrap();
    assert_eq!(store.dns().get_set(&name, a).await.unwrap(), *set);
    // Any change of a record counts, whoever made it, and going back is a change.
    let id = set.records[0].id;
    for ttl in [Patch::Set(60), Patch::Clear] {
        let patch = DnsRecordPatch { ttl, ..DnsRecordPatch::default() };
        store.dns().update(id, patch, None).await.unwrap();
    }
    fails(put("10.0.0.3", set.fingerprint).await, Conflict);
    fails(store.dns().delete_set(&name, a, Some(set.fingerprint)).await, Conflict);
    fails(store.dns().delete_set(&name, a, Some(none)).await, Conflict);
    // What happens to others does not.
    store.dns().create(record(name.as_str(), DnsRecordKind::Txt, "")).await.unwrap();
    let read = store.dns().get_set(&name, a).await.unwrap().fingerprint;
    store.dns().create(record("www.example.com", a, "10.0.0.1")).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.dns().get_set(&name, a).await.unwrap().fingerprint, read);
    assert_eq!(store.dns().delete_set(&name, a, Some(read)).await.unwrap(), 1);
    assert_eq!(store.dns().get_set(&name, a).await.unwrap().fingerprint, none);
}

async fn a_put_takes_at_most_1024_values(env: &mut TestEnv, store: Opened) {
    let set = |count: u16| {
        let value = |number: u16| {
            let [high, low] = number.to_be_bytes();
            Text::new(format!("10.0.{high}.{low}")).unwrap()
        };
        NewDnsRecordSet {
            values: (0..count).map(value).collect(),
            ..new_set("a.example", &[], None)
        }
    };
    fails(store.dns().put(set(1025), None).await, InvalidArgument);
    assert_eq!(store.dns().put(set(1024), None).await.unwrap().records.len(), 1024);
    let store = env.reload(store).await;
    assert_eq!(store.view().dns_records().len(), 1024);
    assert_eq!(store.view().serial().get(), 1, "one commit");
}

async fn what_nodes_are_told_comes_back(env: &mut TestEnv, store: Opened) {
    let network = NetworkSettings {
        name: Some("Example GmbH".parse().unwrap()),
        mtu: Mtu::new(1280).ok(),
        keepalive_seconds: Some(25),
        default_routes: vec!["10.0.0.0/8".parse().unwrap()],
        ssh: Some(true),
        ..NetworkSettings::default()
    };
    let dns = DnsSettings {
        split_enabled: Some(false),
        internal_domains: vec!["corp.example.com".parse().unwrap()],
        fallback_to_public: Some(true),
        cache_ttl_seconds: Some(300),
        ..DnsSettings::default()
    };
    store.settings().put(SettingDocument::Network(network.clone()), None).await.unwrap();
    store.settings().put(SettingDocument::Dns(dns.clone()), None).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(*store.view().settings().network(), network);
    assert_eq!(*store.view().settings().dns(), dns);
    // A document in which nothing of it is said is written as it always was.
    let bare = SettingDocument::Network(NetworkSettings::default());
    let text = serde_json::to_string(&bare).unwrap();
    for field in ["name", "mtu", "keepalive", "default_routes", "ssh"] {
        assert!(!text.contains(field), "{text}");
    }
}

async fn fields_that_nobody_knows_come_back(env: &mut TestEnv, store: Opened) {
    let text = concat!(
        r#"{"regions":{"900":{"code":"fra","name":"Frankfurt","servers":[{"host":"a.example","#,
        r#""stun_only":true,"can_port_80":true,"capabilities":["relay"],"limits":{"up":[1.5,null]}}],"#,
        r#""avoid":true,"location":{"latitude":50.11,"longitude":-8.68},"cost":-7}},"omit":false}"#
    );
    let map: DerpMap = serde_json::from_str(text).unwrap();
    store.settings().put(SettingDocument::DerpMap(map.clone()), None).await.unwrap();
    let store = env.reload(store).await;
    let view = store.view();
    let kept = view.settings().derp_map();
    assert_eq!(*kept, map);
    assert_eq!(serde_json::to_string(kept).unwrap(), text);
}

async fn a_map_in_the_fields_form_is_kept_whole(env: &mut TestEnv, store: Opened) {
    let document = serde_json::json!({ "omitDefaultRegions": true, "Regions": { "2": null, "900": {
        "RegionID": 900, "RegionCode": "fra", "RegionName": "Frankfurt", "Latitude": 50.11,
        "Nodes": [
            { "Name": "900a", "RegionID": 900, "HostName": "a.example", "STUNPort": -1 },
            { "Name": "900b", "RegionID": 900, "HostName": "b.example", "STUNOnly": true, "IPv6": "none" },
        ],
    } } });
    let (map, notes) = DerpMap::from_tailscale(document).unwrap();
    assert_eq!(notes.len(), 2, "{notes:?}");
    store.settings().put(SettingDocument::DerpMap(map.clone()), None).await.unwrap();
    let store = env.reload(store).await;
    let view = store.view();
    let kept = view.settings().derp_map();
    assert_eq!(*kept, map);
    let servers: Vec<_> = kept.regions.values().flat_map(|region| &region.servers).collect();
    assert_eq!(servers.iter().map(|it| it.no_stun).collect::<Vec<_>>(), [true, false]);
    assert_eq!(servers[1].other.get("IPv6"), Some(&"none".into()));
    assert_eq!(kept.other.get("omitDefaultRegions"), Some(&true.into()));
}

async fn fields_that_nobody_knows_have_limits(env: &mut TestEnv, store: Opened) {
    let other = |name: &str, value: serde_json::Value| OtherFields::new([(name.to_owned(), value)]);
    let nested = |depth: usize| {
        (1..depth).fold(serde_json::json!([]), |inner, _| [inner].into_iter().collect())
    };
    let long = |bytes: usize| serde_json::Value::from("x".repeat(bytes - 8));
    for bad in [other("a", nested(9)), other("a", long(4097)), other("", 1.into())] {
        assert_eq!(*bad.unwrap_err().kind(), InvalidArgument);
    }
    let map = |other: OtherFields| {
        let server = DerpServer { other, ..DerpServer::new("a.example".parse().unwrap()) };
        let region = DerpRegion::new("fra".parse().unwrap(), text(""), vec![server]);
        let regions = [(DerpRegionId::new(1).unwrap(), region)].into();
        SettingDocument::DerpMap(DerpMap { regions, ..DerpMap::default() })
    };
    // Neither a field that has a place of its own, nor one that would leave a relay unchecked.
    for name in ["host", "insecure_for_tests", "InsecureForTests"] {
        let map = map(other(name, true.into()).unwrap());
        fails(store.settings().put(map, None).await, InvalidArgument);
    }
    for good in [other("a", nested(8)), other("a", long(4096))] {
        store.settings().put(map(good.unwrap()), None).await.unwrap();
    }
    let store = env.reload(store).await;
    let revision = store.settings().get(SettingKind::DerpMap).await.unwrap().unwrap().revision;
    assert_eq!(revision.get(), 2);
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
        let document = match document {
            SettingDocument::Network(network) => {
                SettingDocument::Network(NetworkSettings { ipv6: None, ..network })
            }
            other => other,
        };
        fails(store.settings().reset(kind).await, NotFound);
        let first = store.settings().put(document.clone(), None).await.unwrap();
        store.settings().reset(kind).await.unwrap();
        store = env.reload(store).await;
        let reset = store.settings().get(kind).await.unwrap().unwrap();
        assert!(reset.document.is_default() && reset.revision == first.revision.next());
        fails(store.settings().reset(kind).await, NotFound);
        // What somebody read before the reset is not in force.
        let stale = store.settings().put(document.clone(), Some(first.revision)).await;
        fails(stale, Conflict);
        let saved = vec![EntityRecord::from(first.clone())];
        store.restore(Restore { images: saved.clone(), skip_invalid: false }).await.unwrap();
        assert_eq!(store.settings().get(kind).await.unwrap(), Some(first.clone()));
        store.settings().reset(kind).await.unwrap();
        let again = store.settings().put(document, Some(reset.revision)).await.unwrap();
        assert_eq!(again.revision.get(), 3);
        let other = Setting { revision: Revision::new(9).unwrap(), ..Setting::clone(&first) };
        let images = vec![EntityRecord::from(other)];
        let taken = store.restore(Restore { images, skip_invalid: false }).await;
        fails(taken, AlreadyExists { constraint: "id" });
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
    let region = |code: &str, servers| {
        DerpRegion::new(code.parse().unwrap(), "Frankfurt".parse().unwrap(), servers)
    };
    let regions = |regions: Vec<DerpRegion>| {
        let numbered = (1..).map(|n| DerpRegionId::new(n).unwrap()).zip(regions);
        SettingDocument::DerpMap(DerpMap { regions: numbered.collect(), ..DerpMap::default() })
    };
    let server = || DerpServer::new("derp.example.com".parse().unwrap());
    let able = |count: usize| DerpServer { capabilities: vec![text(""); count], ..server() };
    let dns = |dns: DnsSettings| SettingDocument::Dns(dns);
    let resolver = |n: usize| Text::new(format!("10.0.0.{n}")).unwrap();
    let names = |count: usize| (0..count).map(|n| format!("d{n}.com").parse().unwrap());
    let code = |n: usize| region(&format!("r{n}"), Vec::new());
    let with_nameservers = |count: usize| {
        dns(DnsSettings {
            nameservers: (0..count).map(resolver).collect(),
            ..DnsSettings::default()
        })
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
        of_network(NetworkSettings { default_routes: many(1025), ..network() }),
        regions(vec![region("fra", vec![able(65)])]),
        regions((0..513).map(code).collect()),
        regions(vec![region("fra", vec![server(); 65])]),
        regions(vec![region("fra", Vec::new()), region("fra", Vec::new())]),
        with_nameservers(17),
        with_split(257),
        with_search(65),
        dns(DnsSettings { internal_domains: names(65).collect(), ..DnsSettings::default() }),
    ] {
        fails(store.settings().put(bad, None).await, InvalidArgument);
    }
    let store = env.reload(store).await;
    assert_eq!(store.view().serial().get(), 0, "nothing was written");
    for good in [
        of_network(NetworkSettings { reserved: many(1024), ..network() }),
        of_network(NetworkSettings { default_routes: many(1024), ..network() }),
        regions(vec![region("fra", vec![able(64)])]),
        regions((0..512).map(code).collect()),
        regions(vec![region("fra", vec![server(); 64]), region("ber", Vec::new())]),
        with_nameservers(16),
        with_split(256),
        dns(DnsSettings { internal_domains: names(64).collect(), ..DnsSettings::default() }),
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
        ipv4: "192.0.2.1".parse().ok(),
        ipv6: "2001:db8::1".parse().ok(),
        derp_port: Some(8443),
        stun_port: Some(3479),
        ..DerpServer::new("derp1.example.com".parse().unwrap())
    };
    let region =
        DerpRegion::new("fra".parse().unwrap(), "Frankfurt".parse().unwrap(), vec![server]);
    let dns = DnsSettings {
        base_domain: "mesh.example.com".parse().ok(),
        magic_dns: true,
        nameservers: vec!["9.9.9.9".parse().unwrap()],
        split: [("corp.example.com".parse().unwrap(), vec!["10.0.0.53".parse().unwrap()])].into(),
        search_domains: vec!["example.com".parse().unwrap()],
        ..DnsSettings::default()
    };
    [
        SettingDocument::Network(NetworkSettings::default()),
        SettingDocument::DerpMap(DerpMap {
            regions: [(DerpRegionId::new(900).unwrap(), region)].into(),
            ..DerpMap::default()
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
