//! Values to choose from: small pools, so that they meet.

use ghostwire_store_core::domain::*;

use super::operation::Choices;

pub(super) const NAMES: [&str; 4] = ["ann", "bob", "Ann", "Ångström"];
pub(super) const TEXTS: [&str; 3] = ["one", "two", ""];
pub(super) const EMAILS: [&str; 2] = ["ann@example.org", "BOB@Example.org"];
pub(super) const PROVIDERS: [&str; 2] = ["https://a.example", "https://b.example/realms/x"];
pub(super) const SUBJECTS: [&str; 2] = ["1", "2"];
pub(super) const HOSTNAMES: [&str; 6] = [
    "laptop",
    "Laptop.local",
    "ann's _box",
    "...",
    "a-very-long-name-of-a-machine-that-does-not-fit-into-a-label--of-the-dns",
    "-laptop-",
];
pub(super) const LABELS: [&str; 3] = ["laptop", "web", "NODE"];
pub(super) const HOST_INFOS: [&str; 2] = ["{}", r#"{"OS":"linux"}"#];
pub(super) const TAGS: [&[&str]; 4] = [&["tag:a"], &[], &["tag:a", "tag:b"], &["tag:b"]];
pub(super) const PREFIXES: [&str; 7] =
    ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "fd00::/8", "fd00:1::/32", "0.0.0.0/0", "::/0"];
pub(super) const DOCUMENTS: [&str; 3] = ["{}", "", "allow"];
pub(super) const DNS_NAMES: [&str; 2] = ["a.example", "*.b.example"];
pub(super) const DNS_VALUES: [&str; 8] = [
    "192.0.2.1",
    "::1",
    "host.example",
    "HOST.example.",
    "0:0:0:0:0:0:0:1",
    "not a name!",
    "10 host.example",
    "010  HOST.example.",
];
pub(super) const KINDS: [DnsRecordKind; 7] = [
    DnsRecordKind::Txt,
    DnsRecordKind::A,
    DnsRecordKind::Aaaa,
    DnsRecordKind::Cname,
    DnsRecordKind::Txt,
    DnsRecordKind::Mx,
    DnsRecordKind::Ptr,
];
pub(super) const DESCRIPTIONS: [&str; 2] = ["uplink", ""];
pub(super) const ENDPOINTS: [&str; 2] = ["192.0.2.1:41641", "[2001:db8::1]:41641"];
pub(super) const PERMISSIONS: [&[&str]; 2] = [&["nodes:read"], &["nodes:write", "nodes:read"]];
pub(super) const GROUPS: [&[&str]; 3] = [&["staff"], &["admins", "staff"], &[]];
pub(super) const METRICS: [&str; 2] = ["rx", "tx"];
pub(super) const INSTANCES: [&str; 2] = ["control-1", "control-2"];
pub(super) const STATES: [&str; 3] = ["the first state", "the second", "the third"];
pub(super) const PURPOSES: [&str; 2] = ["oidc", "device"];

pub(super) fn parsed<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("a constant of the pools")
}

pub(super) fn parsed_one<T: std::str::FromStr>(choices: &mut Choices, pool: &[&str]) -> T
where
    T::Err: std::fmt::Debug,
{
    parsed(choices.one_of::<&str>(pool))
}

pub(super) fn patch<T>(choices: &mut Choices, value: impl FnOnce(&mut Choices) -> T) -> Patch<T> {
    match choices.roll() {
        0..8 => Patch::Keep,
        8..11 => Patch::Clear,
        _ => Patch::Set(value(choices)),
    }
}

pub(super) fn change<T>(choices: &mut Choices, value: impl FnOnce(&mut Choices) -> T) -> Update<T> {
    if choices.happens(7) { Update::Set(value(choices)) } else { Update::Keep }
}

/// Sometimes what is there already, so that things meet.
pub(super) fn echo<T: Clone>(
    choices: &mut Choices,
    there: &[T],
    other: impl FnOnce(&mut Choices) -> T,
) -> T {
    if choices.happens(6) && !there.is_empty() {
        choices.one_of(there).clone()
    } else {
        other(choices)
    }
}

pub(super) fn role(choices: &mut Choices) -> UserRole {
    *choices.one_of(&UserRole::ALL)
}

pub(super) fn permissions(choices: &mut Choices) -> PermissionSet {
    let names = choices.one_of(&PERMISSIONS).iter();
    PermissionSet::new(names.map(|name| parsed(name))).expect("few")
}

pub(super) fn groups(choices: &mut Choices) -> GroupSet {
    let names = choices.one_of(&GROUPS).iter();
    GroupSet::new(names.map(|name| parsed(name))).expect("few")
}

pub(super) fn name(choices: &mut Choices) -> UserName {
    parsed_one(choices, &NAMES)
}

pub(super) fn email(choices: &mut Choices) -> Email {
    parsed_one(choices, &EMAILS)
}

pub(super) fn text<const MAX: usize>(choices: &mut Choices) -> Text<MAX> {
    parsed_one(choices, &TEXTS)
}

pub(super) fn identity(choices: &mut Choices) -> Identity {
    match choices.roll() {
        0..10 => Identity::Local {},
        10..14 => Identity::Oidc {
            provider: parsed_one(choices, &PROVIDERS),
            subject: parsed_one(choices, &SUBJECTS),
        },
        _ => Identity::PreAuth {},
    }
}

pub(super) fn tags(choices: &mut Choices) -> TagSet {
    let tags = choices.one_of(&TAGS);
    TagSet::new(tags.iter().map(|tag| parsed(tag))).expect("few tags")
}

pub(super) fn key_bytes(number: usize) -> [u8; 32] {
    [u8::try_from(number + 1).expect("few keys"); 32]
}

pub(super) fn machine_key(choices: &mut Choices) -> MachineKey {
    MachineKey::from_bytes(key_bytes(choices.roll() % 6)).expect("not zero")
}

pub(super) fn node_key(choices: &mut Choices) -> NodeKey {
    NodeKey::from_bytes(key_bytes(choices.roll() % 8)).expect("not zero")
}

pub(super) fn disco_key(choices: &mut Choices) -> DiscoKey {
    DiscoKey::from_bytes(key_bytes(choices.roll() % 2)).expect("not zero")
}

/// Mostly the first few, so that nodes offer the same.
pub(super) fn prefixes(choices: &mut Choices) -> Vec<Prefix> {
    let mut prefixes = Vec::new();
    for (place, prefix) in PREFIXES.iter().enumerate() {
        if choices.happens(if place < 2 { 11 } else { 3 }) {
            prefixes.push(parsed(prefix));
        }
    }
    if choices.happens(2) {
        // Twice in one list is as good as once.
        prefixes.extend(prefixes.first().copied());
    }
    prefixes
}

/// Mostly small ones, in which addresses run out.
pub(super) fn network(choices: &mut Choices) -> NetworkSettings {
    let prefix = |text: &str| Some(parsed::<Prefix>(text));
    let (ipv4, ipv6) = match choices.roll() {
        0..3 => (prefix("10.9.0.0/29"), prefix("fd09::/126")),
        3..6 => (prefix("10.9.0.0/30"), None),
        6..8 => (prefix("10.9.0.4/31"), prefix("fd09::/127")),
        8..11 => (None, prefix("fd09::/64")),
        11 => (prefix("10.9.0.6/32"), prefix("fd09::7/128")),
        12 => (None, None),
        13 => (prefix("fd09::/64"), None),
        14 => (None, prefix("10.9.0.0/29")),
        _ => (prefix("10.9.0.0/24"), prefix("fd09::/120")),
    };
    let reserved: &[&str] = match choices.roll() {
        0..8 => &[],
        8..12 => &["10.9.0.1/32", "fd09::2/127"],
        _ => &["10.9.0.2/31", "10.0.0.0/24", "fd09::1/128"],
    };
    NetworkSettings {
        ipv4,
        ipv6,
        reserved: reserved.iter().map(|text| parsed(text)).collect(),
        ephemeral_cutoff_seconds: *choices.one_of(&[60, 1800, 0]),
        max_api_keys_per_user: choices.maybe(6, |_| 1),
        max_preauth_keys_per_user: choices.maybe(2, |_| 1),
        heartbeat_interval_seconds: choices.maybe(4, |_| 60).unwrap_or_default(),
        ..NetworkSettings::default()
    }
}

pub(super) fn derp_map(choices: &mut Choices) -> DerpMap {
    let codes: &[&str] = match choices.roll() {
        0..6 => &["fra"],
        6..9 => &[],
        9..12 => &["fra", "nyc"],
        _ => &["fra", "fra"],
    };
    let region = |(number, code): (u16, &&str)| {
        let region = DerpRegion::new(parsed(code), parsed(code), Vec::new());
        (DerpRegionId::new(number).expect("not zero"), region)
    };
    let regions = (1..).zip(codes).map(region).collect();
    DerpMap { regions, ..DerpMap::default() }
}

pub(super) fn dns_settings(choices: &mut Choices) -> DnsSettings {
    let nameservers = [0, 1, 16, 17][choices.roll() % 4];
    DnsSettings {
        base_domain: choices.maybe(8, |choices| parsed_one(choices, &DNS_NAMES)),
        magic_dns: choices.happens(8),
        nameservers: (0..nameservers).map(|number| parsed(&format!("192.0.2.{number}"))).collect(),
        ..DnsSettings::default()
    }
}
