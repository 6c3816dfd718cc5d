//! Users, API keys and policies.

use std::collections::{BTreeMap, HashSet};

use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::domain::{
    ApiKey, ApiKeyId, Email, Identity, Issuer, NewUser, PermissionSet, Policy, PolicyVersion,
    Revision, Timestamp, User, UserId, UserName, UserRole,
};
use ghostwire_store_core::error::Result;

use super::collect::{Candidate, Collector, Fate, Parents, UNRANKED, Unfit};
use super::identity::Issuers;
use super::keys::{Ends, checked_hash, end};
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
pub(super) fn created(row: &Row<'_>, id: i64, collector: &mut Collector) -> Timestamp {
    if let Ok(Some(at)) = row.created() {
        return at;
    }
    collector.repaired(row.table, id, "no time of creation; 1970 was taken");
    Timestamp::EPOCH
}

/// The time of the last change, or else that of creation.
pub(super) fn updated(
    row: &Row<'_>,
    id: i64,
    created_at: Timestamp,
    collector: &mut Collector,
) -> Timestamp {
    let reason = "the time of its last change cannot be read; that of its creation was taken";
    let at = collector.or_repaired((row.table, id), row.time("updated_at"), None, reason);
    at.unwrap_or(created_at)
}

/// Skips a row that Headscale marked as deleted.
pub(super) fn skip_deleted(row: &Row<'_>, id: i64, collector: &mut Collector) -> bool {
    // Headscale takes whatever stands there for a mark.
    let deleted = row.is_deleted().unwrap_or(true);
    if deleted {
        let reason = "marked as deleted in Headscale, not imported";
        collector.unfit(row.table, id, Unfit::LeftOver(reason.into()));
    }
    deleted
}

/// The name of a row, of which its identifier is derived.
pub(super) fn row_name(id: i64) -> String {
    id.to_string()
}

pub(super) fn users(
    tables: &Tables,
    issuers: &[Issuer],
    collector: &mut Collector,
) -> Result<Users> {
    let mut issuers = Issuers::new(issuers);
    let mut parents = Parents::new("user", "users");
    let mut named = Vec::new();
    let mut candidates = Vec::new();
    let mut people = People::default();
    tables.each("users", "id", |row| {
        let id = row.id()?;
        parents.set(id, Fate::LeftOut);
        match user(row, id, &mut issuers, collector) {
            Ok(None) => parents.set(id, Fate::Deleted),
            Ok(Some(user)) => match people.same(&user) {
                Some((other, of)) => {
                    let reason = format!(
                        "is the same person to the identity provider as users {other}; one user was \
                         made of both, who owns what either owned"
                    );
                    collector.repaired("users", id, reason);
                    parents.set(id, Fate::Imported(of));
                }
                None => {
                    let user = people.add(user, id, collector);
                    parents.set(id, Fate::Imported(user.id));
                    let image = EntityRecord::from(user);
                    candidates.push(Candidate { image, table: "users", id, rank: UNRANKED });
                }
            },
            Err(reason) => collector.unfit("users", id, reason.into()),
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
    issuers.tell(collector);
    let ids: Vec<_> = candidates.iter().map(|candidate| candidate.id).collect();
    for (id, taken) in ids.into_iter().zip(collector.admit(candidates)?) {
        if !taken {
            parents.set(id, Fate::LeftOut);
        }
    }
    Ok(Users { parents, named })
}

/// Those who are there already, by what is unique of them.
#[derive(Default)]
struct People {
    local_names: HashSet<UserName>,
    identities: BTreeMap<Identity, (i64, UserId)>,
}

impl People {
    /// The row and the user who has the same identity of a provider.
    fn same(&self, user: &User) -> Option<(i64, UserId)> {
        self.identities.get(&user.identity).copied()
    }

    /// Adds a user, under a free name.
    fn add(&mut self, user: User, id: i64, collector: &mut Collector) -> User {
        if matches!(user.identity, Identity::Oidc { .. }) {
            self.identities.insert(user.identity.clone(), (id, user.id));
            return user;
        }
        if self.local_names.insert(user.name.clone()) {
            return user;
        }
        let base: String = user.name.as_str().chars().take(50).collect();
        let names = (0..1000).filter_map(|number| match number {
            0 => UserName::new(format!("{base}-{id}")).ok(),
            _ => UserName::new(format!("{base}-{id}-{number}")).ok(),
        });
        let free = names.into_iter().find(|name| !self.local_names.contains(name));
        let Some(name) = free else { return user };
        let reason = format!("a local user of this name came first; this one is called {name}");
        collector.repaired("users", id, reason);
        self.local_names.insert(name.clone());
        User { name, ..user }
    }
}

/// What a person is told of a name that is not taken as it is.
pub(super) const NAME_CHANGED: &str =
    "the name was too long, or had characters that do not show or white space; those are left out";

fn user(
    row: &Row<'_>,
    id: i64,
    issuers: &mut Issuers<'_>,
    collector: &mut Collector,
) -> Result<Option<User>, Reason> {
    if skip_deleted(row, id, collector) {
        return Ok(None);
    }
    let at = (row.table, id);
    let created_at = created(row, id, collector);
    let identifier = row.filled("provider_identifier")?;
    let identity = match &identifier {
        None => Identity::Local {},
        Some(identifier) => {
            let provider = row.filled("provider")?;
            issuers.identity(id, identifier, provider.as_deref(), collector)?
        }
    };
    let address = row.filled("email").ok().flatten();
    let name = user_name(row, id, &[&address, &identifier], collector)?;
    let email = address.as_ref().map(Email::from_outside).transpose();
    let email = collector.or_repaired(at, email, None, "the e-mail address is none, left out");
    let display_name = row.parsed("display_name");
    let reason = "the display name is too long, or no text; left out";
    let display_name = collector.or_repaired(at, display_name, None, reason);
    let picture_url = row.parsed("profile_pic_url");
    let reason = "the picture's address is too long, or no text; left out";
    let picture_url = collector.or_repaired(at, picture_url, None, reason);
    let user = NewUser { name, display_name, email, identity, picture_url, role: UserRole::Member };
    let id_of = UserId::derived(created_at, &[b"headscale", b"users", row_name(id).as_bytes()]);
    let updated_at = updated(row, id, created_at, collector);
    Ok(Some(User { updated_at, ..user.created(id_of, created_at) }))
}

/// The name, or else the first of the others of which something shows, or else one of the row's number.
fn user_name(
    row: &Row<'_>,
    id: i64,
    others: &[&Option<String>],
    collector: &mut Collector,
) -> Result<UserName, Reason> {
    let given = row.filled("name").ok().flatten();
    if let Some(name) = given.as_ref().and_then(|given| UserName::from_outside(given).ok()) {
        if given.is_some_and(|given| given != name.as_str()) {
            collector.repaired("users", id, NAME_CHANGED);
        }
        return Ok(name);
    }
    let mut others = others.iter().filter_map(|other| other.as_ref());
    if let Some(name) = others.find_map(|other| UserName::from_outside(other).ok()) {
        let reason = "no name; the e-mail address or identifier was taken";
        collector.repaired("users", id, reason);
        return Ok(name);
    }
    collector.repaired("users", id, "no name; one was made of the row's number");
    parse("name", &format!("user-{id}"))
}

pub(super) fn api_keys(
    tables: &Tables,
    now: Timestamp,
    users: &Parents<UserId>,
    collector: &mut Collector,
) -> Result<()> {
    each(tables, "api_keys", collector, |row, id, collector| {
        api_key(row, id, now, users, collector)
    })
}

/// Takes what the rows of a table are, where that breaks no rule; nothing else refers to them.
fn each<E: Into<EntityRecord>>(
    tables: &Tables,
    table: &'static str,
    collector: &mut Collector,
    mut make: impl FnMut(&Row<'_>, i64, &mut Collector) -> Result<Option<E>, Unfit>,
) -> Result<()> {
    let mut candidates = Vec::new();
    tables.each(table, "id", |row| {
        let id = row.id()?;
        match make(row, id, collector) {
            Ok(None) => {}
            Ok(Some(entity)) => {
                candidates.push(Candidate { image: entity.into(), table, id, rank: UNRANKED });
            }
            Err(unfit) => collector.unfit(table, id, unfit),
        }
        Ok(())
    })?;
    collector.admit(candidates).map(drop)
}

fn api_key(
    row: &Row<'_>,
    id: i64,
    now: Timestamp,
    users: &Parents<UserId>,
    collector: &mut Collector,
) -> Result<Option<ApiKey>, Unfit> {
    if skip_deleted(row, id, collector) {
        return Ok(None);
    }
    let created_at = created(row, id, collector);
    let (expires_at, revoked_at) = (
        end(row, id, "expiration", created_at, collector),
        end(row, id, "revoked", created_at, collector),
    );
    let ends = Ends { expires_at, revoked_at, is_used_up: false };
    let user = match row.reference("user_id").ok().flatten().map(|user| users.find(user)) {
        Some(Err(missing)) if missing.is_gone => {
            let reason = "imported without the user it was made for, who is gone; it is as good \
                          without one, as in Headscale";
            collector.repaired(row.table, id, reason);
            None
        }
        other => other.transpose().map_err(|missing| Unfit::Problem(missing.reason))?,
    };
    let last_used_at = collector.or_repaired(
        (row.table, id),
        row.time("last_seen"),
        None,
        "the time of its last use cannot be read, left out",
    );
    Ok(Some(ApiKey {
        id: ApiKeyId::derived(created_at, &[b"headscale", b"api_keys", row_name(id).as_bytes()]),
        prefix: row.required("prefix").map_err(|reason| ends.unfit(reason, now))?,
        hash: checked_hash(row, ends, now)?,
        user,
        description: None,
        permissions: PermissionSet::empty(),
        created_by: None,
        created_at,
        expires_at,
        revoked_at,
        last_used_at,
        revision: Revision::FIRST,
    }))
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
    let mut in_force = None;
    tables.each("policies", "id", |row| {
        if !row.is_deleted().unwrap_or(true) {
            in_force = Some(row.id()?);
        }
        Ok(())
    })?;
    let mut version = 1;
    each(tables, "policies", collector, |row, id, collector| {
        let policy = policy(row, id, version, in_force == Some(id), collector)?;
        version += u64::from(policy.is_some());
        Ok(policy)
    })
}

fn policy(
    row: &Row<'_>,
    id: i64,
    version: u64,
    in_force: bool,
    collector: &mut Collector,
) -> Result<Option<Policy>, Unfit> {
    if skip_deleted(row, id, collector) {
        return Ok(None);
    }
    let Some(document) = row.filled("data")? else {
        return Err(if in_force {
            Unfit::Problem(
                "data: is empty, which means 'everything is allowed' to Headscale, but 'nothing is \
                 allowed' to the store; put the policy that you want in force after the import"
                    .into(),
            )
        } else {
            Unfit::LeftOver("empty, and no longer in force".into())
        });
    };
    let failed = |error: ghostwire_store_core::error::Error| format!("data: {error}");
    Ok(Some(Policy {
        version: PolicyVersion::new(version).map_err(failed)?,
        document: parse("data", &document)?,
        author: parse("author", "headscale")?,
        created_at: created(row, id, collector),
    }))
}
