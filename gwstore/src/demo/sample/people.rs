//! Users, their keys and sessions, settings, policies and DNS records of the sample network.

use std::collections::BTreeMap;
use std::time::Duration;

use ghostwire_store::Result;
use ghostwire_store::command::{
    ApiKeyCommand, DnsCommand, PolicyCommand, PreAuthKeyCommand, SessionCommand, SettingCommand,
    UserCommand,
};
use ghostwire_store::domain::{
    ApiKeyId, DerpMap, DerpRegion, DerpRegionId, DerpServer, DnsRecordId, DnsRecordKind,
    DnsSettings, DocumentText, NetworkSettings, NewApiKey, NewDnsRecord, NewPreAuthKey, NewSession,
    NewUser, OidcProfile, PolicyVersion, PreAuthKeyId, SessionId, SessionOwner, SettingDocument,
    TagSet, Text, UserId,
};
use ghostwire_store_core::state::Reply;

use super::world::{World, unexpected};
use super::{POLICIES, SECRET, hash_key};

/// The administrator.
pub(super) const ADMIN: &str = "user:ada";

const ISSUER: &str = "https://id.example.com/realms/mesh";
const HOUR: Duration = Duration::from_secs(3600);

/// Who is there, by name, and the keys that admit machines, by the public part.
pub(super) struct People {
    pub(super) users: BTreeMap<&'static str, UserId>,
    pub(super) keys: BTreeMap<&'static str, PreAuthKeyId>,
}

/// Settings, users and keys: what must be there before machines.
pub(super) fn add(world: &mut World) -> Result<People> {
    settings(world)?;
    let mut users = BTreeMap::new();
    for (name, display, subject) in [
        ("ada", "Ada Example", "6f1c2a"),
        ("bruno", "Bruno Example", "91b7d0"),
        ("chiara", "Chiara Example", "c03e55"),
    ] {
        let profile = OidcProfile {
            provider: Text::new(ISSUER)?,
            subject: Text::new(subject)?,
            name: name.parse()?,
            display_name: Some(Text::new(display)?),
            email: Some(format!("{name}@example.com").parse()?),
            picture_url: None,
        };
        let id = world.id(UserId::time_ordered)?;
        users.insert(name, user(world.run("oidc", UserCommand::UpsertOidc { id, profile })?)?);
    }
    for (name, display) in [("ops", "Operations"), ("ci", "Build runners"), ("lab", "Laboratory")] {
        let new =
            NewUser { display_name: Some(Text::new(display)?), ..NewUser::local(name.parse()?) };
        let id = world.id(UserId::time_ordered)?;
        users.insert(name, user(world.run(ADMIN, UserCommand::Create { id, user: new })?)?);
    }
    let keys = preauth_keys(world, &users)?;
    Ok(People { users, keys })
}

fn user(reply: Reply) -> Result<UserId> {
    match reply {
        Reply::User(user) => Ok(user.id),
        other => Err(unexpected(&other)),
    }
}

fn settings(world: &mut World) -> Result<()> {
    let network = NetworkSettings { ephemeral_cutoff_seconds: 1800, ..NetworkSettings::default() };
    let mut regions = BTreeMap::new();
    for (number, code, name, v4, v6) in [
        (901, "nth", "North", [192, 0, 2, 10], "2001:db8:1::10"),
        (902, "sth", "South", [198, 51, 100, 10], "2001:db8:2::10"),
        (903, "isl", "Islands", [203, 0, 113, 10], "2001:db8:3::10"),
    ] {
        let server = DerpServer {
            host: format!("derp-{code}.example.com").parse()?,
            ipv4: Some(v4.into()),
            ipv6: v6.parse().ok(),
            derp_port: None,
            stun_port: (number == 903).then_some(3479),
        };
        let name = Text::new(name)?;
        let region = DerpRegion { code: code.parse()?, name, servers: vec![server] };
        regions.insert(DerpRegionId::new(number)?, region);
    }
    let dns = DnsSettings {
        base_domain: Some("mesh.example.com".parse()?),
        magic_dns: true,
        nameservers: vec![Text::new("192.0.2.53")?, Text::new("2001:db8::53")?],
        split: [("corp.example.com".parse()?, vec![Text::new("10.20.0.53")?])].into(),
        search_domains: vec!["mesh.example.com".parse()?, "corp.example.com".parse()?],
    };
    for document in [
        SettingDocument::Network(network),
        SettingDocument::DerpMap(DerpMap { regions }),
        SettingDocument::Dns(dns),
    ] {
        world.run(ADMIN, SettingCommand::Put { document, expected: None })?;
    }
    Ok(())
}

fn preauth_keys(
    world: &mut World,
    users: &BTreeMap<&'static str, UserId>,
) -> Result<BTreeMap<&'static str, PreAuthKeyId>> {
    // The public part, the owner, the tag; reusable, ephemeral.
    const KEYS: [(&str, Option<&str>, &str, bool, bool); 14] = [
        ("sampleweb", None, "tag:web", true, false),
        ("sampledb", None, "tag:db", true, false),
        ("samplemonitoring", None, "tag:monitoring", true, false),
        ("samplebuild", None, "tag:build", true, false),
        ("samplerouter", None, "tag:router", true, false),
        ("sampleexit", None, "tag:exit", true, false),
        ("sampleci", Some("ci"), "tag:ci", true, true),
        ("sampleonce1", Some("lab"), "", false, false),
        ("sampleonce2", Some("lab"), "", false, false),
        ("sampleonce3", Some("lab"), "", false, false),
        ("sampleonce4", Some("ops"), "", false, false),
        ("sampleonce5", Some("ops"), "", false, false),
        ("sampleexpired", Some("ops"), "", false, false),
        ("samplerevoked", Some("ops"), "", true, false),
    ];
    let mut keys = BTreeMap::new();
    for (prefix, owner, tag, reusable, ephemeral) in KEYS {
        let tags = if tag.is_empty() { TagSet::empty() } else { TagSet::new([tag.parse()?])? };
        let lifetime = if prefix == "sampleexpired" { HOUR / 4 } else { 24 * 90 * HOUR };
        let key = NewPreAuthKey {
            user: owner.and_then(|owner| users.get(owner).copied()),
            tags,
            reusable,
            ephemeral,
            expires_at: Some(world.now().saturating_add(lifetime)),
        };
        let id = world.id(PreAuthKeyId::time_ordered)?;
        let hash = hash_key().hash("preauth_key", SECRET);
        world.run(ADMIN, PreAuthKeyCommand::Create { id, prefix: prefix.parse()?, hash, key })?;
        if prefix == "samplerevoked" {
            world.run(ADMIN, PreAuthKeyCommand::Revoke { id })?;
        }
        keys.insert(prefix, id);
    }
    Ok(keys)
}

/// API keys, sessions, policies and DNS records: what people make once the network is there.
pub(super) fn work(world: &mut World, people: &People) -> Result<()> {
    api_keys(world, people)?;
    for (owner, client) in
        [("ada", "Firefox on ada-laptop"), ("bruno", "Safari on bruno-phone"), ("ops", "gwstore")]
    {
        let Some(&user) = people.users.get(owner) else { continue };
        let session = NewSession {
            owner: SessionOwner::User(user),
            client: Some(Text::new(client)?),
            expires_at: world.now().saturating_add(24 * 30 * HOUR),
        };
        let id = world.id(SessionId::time_ordered)?;
        let hash = hash_key().hash("session", SECRET);
        world.run(&format!("user:{owner}"), SessionCommand::Begin { id, hash, session })?;
    }
    let mut expected = None;
    for policy in POLICIES {
        let document = DocumentText::new(policy)?;
        world.run(ADMIN, PolicyCommand::Swap { expected, document })?;
        expected = Some(PolicyVersion::new(expected.map_or(1, |version| version.get() + 1))?);
    }
    dns_records(world)
}

fn api_keys(world: &mut World, people: &People) -> Result<()> {
    for (prefix, owner, description) in [
        ("sampledeploy", Some("ci"), "Deployments"),
        ("sampledashboard", Some("ops"), "Dashboard"),
        ("samplebackup", None, "Nightly export"),
        ("sampleold", Some("ada"), "Replaced"),
    ] {
        let key = NewApiKey {
            user: owner.and_then(|owner| people.users.get(owner).copied()),
            description: Some(Text::new(description)?),
            expires_at: Some(world.now().saturating_add(24 * 365 * HOUR)),
        };
        let id = world.id(ApiKeyId::time_ordered)?;
        let hash = hash_key().hash("api_key", SECRET);
        world.run(ADMIN, ApiKeyCommand::Create { id, prefix: prefix.parse()?, hash, key })?;
        if prefix == "sampleold" {
            world.run(ADMIN, ApiKeyCommand::Revoke { id })?;
        }
    }
    Ok(())
}

fn dns_records(world: &mut World) -> Result<()> {
    for (name, kind, value, ttl) in [
        ("grafana.corp.example.com", DnsRecordKind::A, "100.64.0.99", Some(300)),
        ("db.corp.example.com", DnsRecordKind::Cname, "db-01.mesh.example.com", Some(60)),
        ("www.corp.example.com", DnsRecordKind::A, "100.64.0.51", Some(60)),
        ("www.corp.example.com", DnsRecordKind::A, "100.64.0.52", Some(60)),
        ("www.corp.example.com", DnsRecordKind::Aaaa, "fd7a:115c:a1e0::33", None),
        ("printer.corp.example.com", DnsRecordKind::A, "10.20.4.7", None),
        ("*.preview.corp.example.com", DnsRecordKind::Cname, "web-01.mesh.example.com", None),
        ("_owner.corp.example.com", DnsRecordKind::Txt, "ops, see the wiki", None),
    ] {
        let record = NewDnsRecord { name: name.parse()?, kind, value: Text::new(value)?, ttl };
        let id = world.id(DnsRecordId::time_ordered)?;
        world.run(ADMIN, DnsCommand::Create { id, record })?;
    }
    Ok(())
}
