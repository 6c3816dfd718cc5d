//! The audit trail: who did what, to what, from where, and how it ended.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    ActorName, AuditId, JsonObject, Text, Timestamp, UserAgent, check_length, deserialize_stored,
    serde_as_text, shown, text_newtype,
};
use crate::error::{EntityKind, Error, Result};

/// Whom the audit trail names for a write, and where the request came from.
///
/// ```
/// use ghostwire_store::domain::Actor;
///
/// // A name alone will do.
/// let job: Actor = "nightly-sweep".parse()?;
/// assert_eq!(job.address, None);
/// let admin = Actor::from("anna@example.com".parse::<ghostwire_store::domain::ActorName>()?)
///     .at("::ffff:192.0.2.7".parse().unwrap())
///     .with_user_agent("Mozilla/5.0  (X11)\n");
/// assert_eq!(admin.address.unwrap().to_string(), "192.0.2.7");
/// assert_eq!(admin.user_agent.unwrap().as_str(), "Mozilla/5.0 (X11)");
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// Who it is.
    pub name: ActorName,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<PeerAddress>,
    /// What the program that sent it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<UserAgent>,
}

impl Actor {
    /// The store itself, or whoever gave no name.
    #[must_use]
    pub fn system() -> Self {
        ActorName::system().into()
    }

    /// The same, from this address.
    #[must_use]
    pub fn at(mut self, address: IpAddr) -> Self {
        self.address = Some(address.into());
        self
    }

    /// The same, with what shows of this user agent, cut at 255 bytes; without one if nothing does. A
    /// request is not refused for what its header says.
    #[must_use]
    pub fn with_user_agent(mut self, text: impl AsRef<str>) -> Self {
        self.user_agent = UserAgent::from_outside(text).ok();
        self
    }
}

impl From<ActorName> for Actor {
    fn from(name: ActorName) -> Self {
        Self { name, address: None, user_agent: None }
    }
}

impl FromStr for Actor {
    type Err = Error;

    /// One of whom only the name is known.
    fn from_str(name: &str) -> Result<Self> {
        name.parse().map(|name: ActorName| name.into())
    }
}

/// The address of a peer. An IPv4-mapped IPv6 address is the IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress(IpAddr);

impl PeerAddress {
    /// As a plain address.
    #[must_use]
    pub fn get(self) -> IpAddr {
        self.0
    }
}

impl From<IpAddr> for PeerAddress {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PeerAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let address: IpAddr = text.parse().map_err(|error| {
            Error::invalid("an address must be an IPv4 or IPv6 address, without a port")
                .with("address", shown(text))
                .because(error)
        })?;
        Ok(address.into())
    }
}

serde_as_text!(PeerAddress);

/// What a line of the audit trail is about: a kind of entity, or another word that the control plane uses,
/// such as `config`, `derp` or `auth`: a lower-case letter, and up to 31 more, digits and `_`.
///
/// ```
/// use ghostwire_store::EntityKind;
/// use ghostwire_store::domain::ResourceKind;
///
/// assert_eq!("user".parse::<ResourceKind>()?, EntityKind::User.into());
/// assert_eq!("config".parse::<ResourceKind>()?.entity(), None);
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKind(Kind);

/// A word that is the name of a kind of entity is always that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Entity(EntityKind),
    Word(Box<str>),
}

impl ResourceKind {
    /// The word, or the name of the kind of entity.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kind::Entity(kind) => kind.name(),
            Kind::Word(word) => word,
        }
    }

    /// The kind of entity, if it is one.
    #[must_use]
    pub fn entity(&self) -> Option<EntityKind> {
        match self.0 {
            Kind::Entity(kind) => Some(kind),
            Kind::Word(_) => None,
        }
    }
}

impl From<EntityKind> for ResourceKind {
    fn from(kind: EntityKind) -> Self {
        Self(Kind::Entity(kind))
    }
}

impl FromStr for ResourceKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(kind) = EntityKind::ALL.iter().find(|kind| kind.name() == text) {
            return Ok((*kind).into());
        }
        let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        if first && text.len() <= 32 && text.bytes().all(rest) {
            return Ok(Self(Kind::Word(text.into())));
        }
        Err(Error::invalid(
            "a kind of resource must be 1 to 32 lower-case ASCII letters, digits and `_`, and begin \
             with a letter",
        )
        .with("kind", shown(text)))
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

serde_as_text!(ResourceKind);

/// One thing that a line is about. Its text form is `kind:subject`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuditSubject {
    /// What kind of thing.
    pub kind: ResourceKind,
    /// Which one.
    pub subject: Text<255>,
}

impl AuditSubject {
    /// What its text is made of.
    pub(crate) fn parts(&self) -> [&str; 3] {
        [self.kind.as_str(), ":", self.subject.as_str()]
    }
}

impl fmt::Display for AuditSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts().into_iter().try_for_each(|part| f.write_str(part))
    }
}

impl FromStr for AuditSubject {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, subject) = text.split_once(':').ok_or_else(|| {
            Error::invalid("the second subject of an entry must be `kind:subject`")
                .with("subject", shown(text))
        })?;
        Ok(Self { kind: kind.parse()?, subject: subject.parse()? })
    }
}

serde_as_text!(AuditSubject);

/// How what a line tells of ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum AuditResult {
    /// It was done.
    #[default]
    Success,
    /// It was refused.
    Denied,
    /// It was tried, and did not succeed.
    Failed,
}

impl AuditResult {
    /// The word in snake case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_success(&self) -> bool {
        *self == Self::Success
    }
}

impl fmt::Display for AuditResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

fn audit_details(text: &str) -> Result<Arc<str>> {
    check_length("the details of an entry", text, 2, AuditDetails::MAX_BYTES)?;
    JsonObject::new(text)?;
    Ok(text.into())
}

text_newtype! {
    /// What else there is to say of an entry: a JSON object of at most 4,096 bytes, kept as text. Secrets do
    /// not belong there.
    ///
    /// ```
    /// use ghostwire_store::domain::AuditDetails;
    ///
    /// let details: AuditDetails = r#"{"reason":"policy"}"#.parse()?;
    /// assert!("[]".parse::<AuditDetails>().is_err());
    /// # Ok::<(), ghostwire_store_core::error::Error>(())
    /// ```
    AuditDetails(Arc<str>), audit_details
}

impl AuditDetails {
    /// The greatest length, in bytes.
    pub const MAX_BYTES: usize = 4096;
}

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// Time-ordered identifier.
    pub id: AuditId,
    /// When it happened.
    pub at: Timestamp,
    /// Who did it.
    #[serde(deserialize_with = "deserialize_stored")]
    pub actor: ActorName,
    /// What was done, for example `node.register`.
    pub action: Text<64>,
    /// To which kind of thing.
    pub entity: ResourceKind,
    /// To which one; the identifier stays when the entity is gone.
    pub subject: Text<255>,
    /// Where the actor was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<PeerAddress>,
    /// What program the actor used, by its own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<UserAgent>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "AuditResult::is_success")]
    pub result: AuditResult,
    /// What else there is to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<AuditDetails>,
    /// Whom or what else it is about, such as the user of a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<AuditSubject>,
}

impl AuditEntry {
    /// A line about something that was done, with where the actor was; what else there is to say can be
    /// set in its fields.
    #[must_use]
    pub fn new(
        (at, id): (Timestamp, AuditId),
        actor: Actor,
        action: Text<64>,
        entity: impl Into<ResourceKind>,
        subject: Text<255>,
    ) -> Self {
        let Actor { name, address, user_agent } = actor;
        Self {
            id,
            at,
            actor: name,
            action,
            entity: entity.into(),
            subject,
            address,
            user_agent,
            result: AuditResult::Success,
            details: None,
            second: None,
        }
    }
}

/// Which audit entries to read: `from <= at < to`, and all of the given conditions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditQuery {
    /// First moment, inclusive.
    pub from: Option<Timestamp>,
    /// Last moment, exclusive.
    pub to: Option<Timestamp>,
    /// Only by this actor.
    pub actor: Option<ActorName>,
    /// Only about this kind of thing, be it the first or the second subject.
    pub entity: Option<ResourceKind>,
    /// Only about this one; with `entity`, of that kind.
    pub subject: Option<Text<255>>,
    /// Whether the newest entry comes first; otherwise the oldest does.
    pub newest_first: bool,
    /// Only this action.
    pub action: Option<Text<64>>,
    /// Only what ended so.
    pub result: Option<AuditResult>,
}

impl AuditQuery {
    /// Whether an entry satisfies every condition but those on its time.
    pub(crate) fn admits(&self, entry: &AuditEntry) -> bool {
        let about = |kind: &ResourceKind, subject: &Text<255>| {
            self.entity.as_ref().is_none_or(|wanted| wanted == kind)
                && self.subject.as_ref().is_none_or(|wanted| wanted == subject)
        };
        let second = |second: &AuditSubject| about(&second.kind, &second.subject);
        self.actor.as_ref().is_none_or(|actor| *actor == entry.actor)
            && self.action.as_ref().is_none_or(|action| *action == entry.action)
            && self.result.is_none_or(|result| result == entry.result)
            && (about(&entry.entity, &entry.subject) || entry.second.as_ref().is_some_and(second))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_words() {
        for good in ["config", "derp", "auth", "a", "x9_y", &"x".repeat(32)] {
            let kind: ResourceKind = good.parse().unwrap();
            assert_eq!((kind.as_str(), kind.entity()), (good, None));
        }
        for kind in EntityKind::ALL {
            assert_eq!(kind.name().parse::<ResourceKind>().unwrap(), (*kind).into());
        }
        for bad in ["", "Config", "9a", "_a", "a-b", "a:b", "é", "a\n", &"x".repeat(33)] {
            assert!(bad.parse::<ResourceKind>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_second_subject_is_read_as_it_was_written() {
        for text in ["user:1", "config:", "derp:a:b"] {
            assert_eq!(text.parse::<AuditSubject>().unwrap().to_string(), text);
        }
        for bad in ["user", ":1", "User:1"] {
            assert!(bad.parse::<AuditSubject>().is_err(), "{bad}");
        }
    }

    #[test]
    fn details_are_an_object_of_limited_length() {
        let long = |length: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(length - 8));
        assert!(AuditDetails::new(long(4096)).is_ok());
        for bad in [&long(4097), "[]", "{", "", "{}\0"] {
            assert!(AuditDetails::new(bad).is_err());
        }
    }

    #[test]
    fn a_request_is_not_refused_for_its_user_agent() {
        let actor = Actor::system().with_user_agent("x".repeat(999));
        assert_eq!(actor.user_agent.unwrap().as_str().len(), 255);
        assert_eq!(Actor::system().with_user_agent("\u{200b}\n"), Actor::system());
    }

    #[test]
    fn an_entry_without_anything_new_reads_as_before() {
        let text = r#"{"id":"0190a5c8-7e1f-7000-8000-000000000001","at":"2024-02-29T12:00:00.000000Z","actor":"ann","action":"user.create","entity":"user","subject":"x"}"#;
        let entry: AuditEntry = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&entry).unwrap(), text);
        let more = text.replace(
            "}",
            r#","address":"::ffff:192.0.2.1","user_agent":"curl/8","result":"denied","details":"{\"a\":1}","second":"node:n"}"#,
        );
        let entry: AuditEntry = serde_json::from_str(&more).unwrap();
        assert_eq!(serde_json::to_string(&entry).unwrap(), more.replace("::ffff:", ""));
    }

    #[test]
    fn a_query_is_about_either_subject_and_never_about_a_mixture() {
        let second = "user:u".parse().unwrap();
        let entry = AuditEntry {
            second: Some(second),
            result: AuditResult::Denied,
            ..AuditEntry::new(
                (Timestamp::EPOCH, AuditId::from_bytes([1; 16])),
                Actor::system(),
                "node.register".parse().unwrap(),
                EntityKind::Node,
                "n".parse().unwrap(),
            )
        };
        let about = |kind: Option<&str>, subject: Option<&str>| AuditQuery {
            entity: kind.map(|kind| kind.parse().unwrap()),
            subject: subject.map(|subject| subject.parse().unwrap()),
            ..AuditQuery::default()
        };
        for (kind, subject, admits) in [
            (None, None, true),
            (Some("node"), None, true),
            (Some("user"), None, true),
            (Some("route"), None, false),
            (None, Some("u"), true),
            (Some("user"), Some("u"), true),
            (Some("node"), Some("n"), true),
            (Some("node"), Some("u"), false),
            (Some("user"), Some("n"), false),
        ] {
            assert_eq!(about(kind, subject).admits(&entry), admits, "{kind:?} {subject:?}");
        }
        let query = AuditQuery::default;
        assert!(AuditQuery { result: Some(AuditResult::Denied), ..query() }.admits(&entry));
        assert!(!AuditQuery { result: Some(AuditResult::Success), ..query() }.admits(&entry));
        let action = |text: &str| AuditQuery { action: text.parse().ok(), ..query() };
        assert!(action("node.register").admits(&entry) && !action("node").admits(&entry));
    }
}
