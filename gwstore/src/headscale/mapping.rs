//! Users, API keys and policies.

use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::domain::{
    ApiKey, ApiKeyId, Email, Identity, NewUser, PermissionSet, Policy, PolicyVersion, Revision,
    SecretHash, Text, Timestamp, User, UserId, UserName, UserRole,
};
use ghostwire_store_core::error::Result;

use super::collect::{Candidate, Collector, Fate, Parents};
use super::policy::{PolicyUser, TagGrants};
use super::release::Origin;
use super::tables::{Reason, Row, Tables, parse};

/// Users, for those that refer to them.
pub(super) struct Users {
    pub(super) parents: Parents<UserId>,
    /// By which names a policy knows them, also those that were left out.
    pub(super) named: Vec<PolicyUser>,
}

/// The time of creation, which is part of the identifier.
pub(super) fn created(
    row: &Row<'_>,
    id: i64,
    collector: &mut Collector,
) -> Result<Timestamp, Reason> {
    if let Some(at) = row.created()? {
        return Ok(at);
    }
    collector.remark(row.table, id, "no time of creation; 1970 was taken");
    Ok(Timestamp::EPOCH)
}

/// Skips a row that Headscale marked as deleted.
pub(super) fn skip_deleted(
    row: &Row<'_>,
    id: i64,
    collector: &mut Collector,
) -> Result<bool, Reason> {
    let deleted = row.is_deleted()?;
    if deleted {
        collector.remark(row.table, id, "marked as deleted in Headscale, not imported");
    }
    Ok(deleted)
}

/// The name of a row, of which its identifier is derived.
pub(super) fn row_name(id: i64) -> String {
    id.to_string()
}

pub(super) fn users(tables: &Tables, collector: &mut Collector) -> Result<Users> {
    let mut parents = Parents::new("user", "users");
    let mut named = Vec::new();
    let mut candidates = Vec::new();
    tables.each("users", "id", |row| {
        let id = row.id()?;
        parents.set(id, Fate::LeftOut);
        match user(row, id, collector) {
            Ok(None) => parents.set(id, Fate::Deleted),
            Ok(Some(user)) => {
                parents.set(id, Fate::Imported(user.id));
                candidates.push(Candidate { image: EntityRecord::from(user), table: "users", id });
            }
            Err(reason) => collector.problem("users", id, reason),
        }
        if !row.is_deleted().unwrap_or(true) {
            let text = |column| row.filled(column).ok().flatten();
            named.push(PolicyUser {
                id,
                name: text("name").unwrap_or_default(),
                email: text("email").unwrap_or_default(),
                provider_identifier: text("provider_identifier"),
            });
        }
        Ok(())
    })?;
    let ids: Vec<_> = candidates.iter().map(|candidate| candidate.id).collect();
    for (id, taken) in ids.into_iter().zip(collector.admit(candidates)?) {
        if !taken {
            parents.set(id, Fate::LeftOut);
        }
    }
    Ok(Users { parents, named })
}

/// What a person is told of a name that is not taken as it is.
pub(super) const NAME_CHANGED: &str =
    "the name was too long, or had characters that do not show or white space; those are left out";

fn user(row: &Row<'_>, id: i64, collector: &mut Collector) -> Result<Option<User>, Reason> {
    if skip_deleted(row, id, collector)? {
        return Ok(None);
    }
    let created_at = created(row, id, collector)?;
    let email = row.filled("email")?;
    let identifier = row.filled("provider_identifier")?;
    let given = row.filled("name")?;
    let name = match given.as_ref().map(|given| (given, UserName::from_outside(given))) {
        Some((given, Ok(name))) => {
            if name.as_str() != given {
                collector.remark("users", id, NAME_CHANGED);
            }
            name
        }
        Some((_, Err(_))) | None => {
            let other = email.as_ref().or(identifier.as_ref()).ok_or("name: is empty")?;
            collector.remark("users", id, "no name; the e-mail address or identifier was taken");
            UserName::from_outside(other).map_err(|error| format!("name: {error}"))?
        }
    };
    let identity = match &identifier {
        None => Identity::Local {},
        Some(identifier) => oidc(identifier, row.filled("provider")?.as_deref())?,
    };
    let mut decoration = |column, remark| -> Result<Option<String>, Reason> {
        let text = row.filled(column)?;
        let limit = if column == "display_name" { 255 } else { 2048 };
        if text.as_ref().is_some_and(|text| text.len() > limit || text.contains('\0')) {
            collector.remark("users", id, remark);
            return Ok(None);
        }
        Ok(text)
    };
    let display_name = decoration("display_name", "the display name is too long, left out")?;
    let picture = decoration("profile_pic_url", "the picture's address is too long, left out")?;
    let user = NewUser {
        name,
        display_name: display_name.map(|text| parse("display_name", &text)).transpose()?,
        email: email
            .map(|email| Email::from_outside(email).map_err(|error| format!("email: {error}")))
            .transpose()?,
        identity,
        picture_url: picture.map(|text| parse("profile_pic_url", &text)).transpose()?,
        role: UserRole::Member,
    };
    let id = UserId::derived(created_at, &[b"headscale", b"users", row_name(id).as_bytes()]);
    let updated_at = row.time("updated_at")?.unwrap_or(created_at);
    Ok(Some(User { updated_at, ..user.created(id, created_at) }))
}

/// Headscale joins issuer and subject with a slash. The issuer is a URL, the subject what stands
/// behind its last slash, percent-encoded as part of a URL.
fn oidc(identifier: &str, provider: Option<&str>) -> Result<Identity, Reason> {
    let column = "provider_identifier";
    let (scheme, rest) = identifier.split_once("://").unwrap_or(("", identifier));
    let split = rest.rsplit_once('/').filter(|(issuer, subject)| {
        !scheme.is_empty() && !issuer.is_empty() && !subject.is_empty()
    });
    let (provider, subject) = match split {
        Some((issuer, subject)) => {
            // Versions before 0.26 doubled the slash behind some issuers.
            let issuer = issuer.trim_end_matches('/');
            let subject = percent_decoded(subject).unwrap_or_else(|| subject.to_owned());
            (format!("{scheme}://{issuer}"), subject)
        }
        None => (provider.unwrap_or("oidc").to_owned(), identifier.to_owned()),
    };
    let provider: Text<255> = parse(column, &provider)?;
    Ok(Identity::Oidc { provider, subject: parse(column, &subject)? })
}

/// `None` if the text is not percent-encoded, or if decoding it would make more of it than a
/// segment of a path.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let (digits, behind) = escape.split_at_checked(2)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok().filter(|text| !text.contains(['/', '%', '\0']))
}

pub(super) fn api_keys(
    tables: &Tables,
    users: &Parents<UserId>,
    collector: &mut Collector,
) -> Result<()> {
    each(tables, "api_keys", collector, |row, id, collector| api_key(row, id, users, collector))
}

/// Takes what the rows of a table are, where that breaks no rule; nothing else refers to them.
fn each<E: Into<EntityRecord>>(
    tables: &Tables,
    table: &'static str,
    collector: &mut Collector,
    mut make: impl FnMut(&Row<'_>, i64, &mut Collector) -> Result<Option<E>, Reason>,
) -> Result<()> {
    let mut candidates = Vec::new();
    tables.each(table, "id", |row| {
        let id = row.id()?;
        match make(row, id, collector) {
            Ok(None) => {}
            Ok(Some(entity)) => candidates.push(Candidate { image: entity.into(), table, id }),
            Err(reason) => collector.problem(table, id, reason),
        }
        Ok(())
    })?;
    collector.admit(candidates).map(drop)
}

fn api_key(
    row: &Row<'_>,
    id: i64,
    users: &Parents<UserId>,
    collector: &mut Collector,
) -> Result<Option<ApiKey>, Reason> {
    if skip_deleted(row, id, collector)? {
        return Ok(None);
    }
    let created_at = created(row, id, collector)?;
    Ok(Some(ApiKey {
        id: ApiKeyId::derived(created_at, &[b"headscale", b"api_keys", row_name(id).as_bytes()]),
        prefix: row.required("prefix")?,
        hash: bcrypt(row)?.ok_or("hash: is empty")?,
        user: row.reference("user_id")?.map(|user| users.find(user)).transpose()?,
        description: None,
        permissions: PermissionSet::empty(),
        created_by: None,
        created_at,
        expires_at: row.time("expiration")?,
        revoked_at: row.time("revoked")?,
        last_used_at: row.time("last_seen")?,
        revision: Revision::FIRST,
    }))
}

/// The bcrypt hash of a row.
pub(super) fn bcrypt(row: &Row<'_>) -> Result<Option<SecretHash>, Reason> {
    let hash = row.filled("hash")?;
    let hash = hash.map(|hash| SecretHash::bcrypt(&hash)).transpose();
    hash.map_err(|_| "hash: not a bcrypt hash".into())
}

/// The policy in force, which grants tags.
pub(super) fn tag_grants(
    tables: &Tables,
    origin: &Origin,
    users: &[PolicyUser],
    collector: &mut Collector,
) -> Result<Option<TagGrants>> {
    if !origin.lacks_granted_tags() {
        return Ok(Some(TagGrants::default()));
    }
    let mut policy = None;
    tables.each("policies", "id", |row| {
        if !row.is_deleted().unwrap_or(true) {
            policy = Some((row.id()?, row.filled("data").ok().flatten().unwrap_or_default()));
        }
        Ok(())
    })?;
    let Some((id, document)) = policy.filter(|(_, document)| !document.is_empty()) else {
        return Ok(None);
    };
    match TagGrants::read(&document, users) {
        Ok(grants) => Ok(Some(grants)),
        Err(reason) => {
            collector.note(format!("policies: row {id} grants no tags: {reason}"));
            Ok(Some(TagGrants::default()))
        }
    }
}

pub(super) fn policies(tables: &Tables, collector: &mut Collector) -> Result<()> {
    let mut version = 1;
    each(tables, "policies", collector, |row, id, collector| {
        let policy = policy(row, id, version, collector)?;
        version += u64::from(policy.is_some());
        Ok(policy)
    })
}

fn policy(
    row: &Row<'_>,
    id: i64,
    version: u64,
    collector: &mut Collector,
) -> Result<Option<Policy>, Reason> {
    if skip_deleted(row, id, collector)? {
        return Ok(None);
    }
    let document = row.filled("data")?.ok_or(
        "data: is empty, which means 'everything is allowed' to Headscale, but 'nothing is allowed' \
         to the store; put the policy that you want in force after the import",
    )?;
    let failed = |error: ghostwire_store_core::error::Error| format!("data: {error}");
    Ok(Some(Policy {
        version: PolicyVersion::new(version).map_err(failed)?,
        document: parse("data", &document)?,
        author: parse("author", "headscale")?,
        created_at: created(row, id, collector)?,
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn split(identifier: &str) -> (String, String) {
        match oidc(identifier, Some("oidc")).unwrap() {
            Identity::Oidc { provider, subject } => (provider.into(), subject.into()),
            other => (format!("{other:?}"), String::new()),
        }
    }

    #[test]
    fn issuer_and_subject() {
        for (identifier, provider, subject) in [
            ("https://accounts.google.com/1234", "https://accounts.google.com", "1234"),
            ("https://id.example.com/realms/x/ab-cd", "https://id.example.com/realms/x", "ab-cd"),
            ("https://t.auth0.com//auth0%7C5f", "https://t.auth0.com", "auth0|5f"),
            ("https://id.example.com/a%2Fb", "https://id.example.com", "a%2Fb"),
            ("https://id.example.com/100%", "https://id.example.com", "100%"),
            ("https://id.example.com", "oidc", "https://id.example.com"),
            ("https://id.example.com/", "oidc", "https://id.example.com/"),
            ("/sub", "oidc", "/sub"),
            ("f00", "oidc", "f00"),
        ] {
            assert_eq!(split(identifier), (provider.into(), subject.into()), "{identifier}");
        }
        assert!(oidc(&"x".repeat(256), None).is_err());
    }
}
