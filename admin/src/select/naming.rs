//! Which entity a text names. Nobody guesses here: what names several is told as several.

use std::net::IpAddr;

use ghostwire_store_core::command::EntityRecord;

/// A shorter part of an id is rather a mistake.
pub const LEAST_PART: usize = 4;
/// How credentials begin: those that the store made, and those of Headscale from 0.28 on.
const MARKS: [&str; 5] = ["gwapi-", "gwauth-", "gwsession-", "hskey-api-", "hskey-auth-"];
/// So long is the public part of a key from Headscale, which may contain the separator.
const IMPORTED_PART: usize = 12;

/// The public part of a credential, whether it is given alone, behind its mark or with its secret.
#[must_use]
pub fn public_part(text: &str) -> &str {
    for mark in MARKS {
        let Some(rest) = text.strip_prefix(mark) else { continue };
        let is_imported = mark.starts_with("hskey-");
        return match rest.split_at_checked(IMPORTED_PART).filter(|_| is_imported) {
            Some((part, _)) => part,
            None => rest.split_once('-').map_or(rest, |(part, _)| part),
        };
    }
    text
}

/// Where a credential begins in a text.
#[must_use]
pub fn credential_in(text: &str) -> Option<usize> {
    MARKS.iter().filter_map(|mark| text.find(mark)).min()
}

/// Those that a text names: the one with that id, else those that are called so, else those whose id has it as
/// a part.
pub fn candidates(records: impl Iterator<Item = EntityRecord>, text: &str) -> Vec<EntityRecord> {
    let called = Called::of(text);
    let part = text.to_ascii_lowercase();
    let is_part = part.len() >= LEAST_PART;
    let (mut named, mut partly) = (Vec::new(), Vec::new());
    for record in records {
        let id = id_of(&record);
        if id == part {
            return vec![record];
        }
        if called.is(&record) {
            named.push(record);
        } else if is_part && id.contains(&part) {
            partly.push(record);
        }
    }
    if named.is_empty() { partly } else { named }
}

/// Whether an entity is called so.
#[must_use]
pub fn is_called(record: &EntityRecord, text: &str) -> bool {
    Called::of(text).is(record)
}

/// The id as text; of a policy its version, of a setting its name.
#[must_use]
pub fn id_of(record: &EntityRecord) -> String {
    match record {
        EntityRecord::User(user) => user.id.to_string(),
        EntityRecord::Node(node) => node.id.to_string(),
        EntityRecord::Instance(instance) => instance.id.to_string(),
        EntityRecord::Presence(presence) => presence.node.to_string(),
        EntityRecord::Route(route) => route.id.to_string(),
        EntityRecord::ApiKey(key) => key.id.to_string(),
        EntityRecord::PreAuthKey(key) => key.id.to_string(),
        EntityRecord::Policy(policy) => policy.version.to_string(),
        EntityRecord::DnsRecord(record) => record.id.to_string(),
        EntityRecord::Session(session) => session.id.to_string(),
        EntityRecord::SignIn(sign_in) => sign_in.id.to_string(),
        EntityRecord::Setting(setting) => setting.document.kind().to_string(),
    }
}

/// A text in the forms in which entities are compared with it.
struct Called<'a> {
    text: &'a str,
    /// Of a credential.
    public_part: &'a str,
    /// What has no upper case where it is stored.
    folded: String,
    address: Option<IpAddr>,
}

impl<'a> Called<'a> {
    fn of(text: &'a str) -> Self {
        let folded = text.trim_end_matches('.').to_ascii_lowercase();
        Self { text, public_part: public_part(text), folded, address: text.parse().ok() }
    }

    fn is(&self, record: &EntityRecord) -> bool {
        match record {
            EntityRecord::User(user) => {
                user.name.as_str() == self.text
                    || user.email.as_ref().is_some_and(|email| email.as_str() == self.folded)
            }
            EntityRecord::Node(node) => {
                node.label.as_str() == self.folded
                    || node.hostname.as_str() == self.text
                    || self.address.is_some_and(|address| match address {
                        IpAddr::V4(address) => node.ipv4 == Some(address),
                        IpAddr::V6(address) => node.ipv6 == Some(address),
                    })
                    || self.text.contains(':') && {
                        node.machine_key.to_string() == self.text
                            || node.node_key.to_string() == self.text
                    }
            }
            EntityRecord::Instance(instance) => instance.name.as_str() == self.text,
            EntityRecord::Route(route) => route.prefix.to_string() == self.folded,
            EntityRecord::ApiKey(key) => key.prefix.as_str() == self.public_part,
            EntityRecord::PreAuthKey(key) => {
                key.prefix.as_ref().is_some_and(|prefix| prefix.as_str() == self.public_part)
            }
            EntityRecord::DnsRecord(record) => record.name.as_str() == self.folded,
            EntityRecord::Setting(setting) => {
                setting.document.kind().name() == self.folded.replace('-', "_")
            }
            _ => false,
        }
    }
}
