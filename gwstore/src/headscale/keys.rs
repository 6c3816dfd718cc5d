//! Pre-auth keys.

use std::collections::{BTreeSet, HashMap};

use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::domain::{
    PreAuthKey, PreAuthKeyId, Revision, SecretHash, Tag, TagSet, Timestamp, UserId, expired,
};
use ghostwire_store_core::error::Result;

use super::collect::{Candidate, Collector, Fate, Parents, UNRANKED, Unfit};
use super::mapping::{created, row_name, skip_deleted};
use super::tables::{Reason, Row, Tables};

/// Pre-auth keys, for the nodes that they admitted.
pub(super) struct Keys {
    pub(super) parents: Parents<PreAuthKeyId>,
    facts: HashMap<i64, Facts>,
}

/// What a key decides about its nodes, also one that is left out itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts {
    pub(super) ephemeral: bool,
    pub(super) user: Option<i64>,
}

impl Keys {
    pub(super) fn facts(&self, id: i64) -> Facts {
        self.facts.get(&id).copied().unwrap_or_default()
    }
}

/// What other tables say about keys.
struct Elsewhere {
    /// When the first node that used a key was made.
    first_node: HashMap<i64, Timestamp>,
    /// Tags, which had a table of their own in 0.23.
    tags: HashMap<i64, Vec<String>>,
}

impl Elsewhere {
    fn read(tables: &Tables) -> Result<Self> {
        let mut first_node = HashMap::new();
        tables.each("nodes", "id", |row| {
            // A column that cannot be read is reported where the node is imported.
            let key = row.reference("auth_key_id").ok().flatten();
            if let (Some(key), Some(at)) = (key, row.created().ok().flatten()) {
                let first = first_node.entry(key).or_insert(at);
                *first = at.min(*first);
            }
            Ok(())
        })?;
        let mut tags: HashMap<i64, Vec<String>> = HashMap::new();
        if !tables.has_column("pre_auth_keys", "tags")? {
            tables.each("pre_auth_key_acl_tags", "id", |row| {
                let key = row.reference("pre_auth_key_id").ok().flatten();
                if let (Some(key), Some(tag)) = (key, row.filled("tag").ok().flatten()) {
                    tags.entry(key).or_default().push(tag);
                }
                Ok(())
            })?;
        }
        Ok(Self { first_node, tags })
    }
}

pub(super) fn preauth_keys(
    tables: &Tables,
    now: Timestamp,
    hasher: &dyn Fn(&str) -> SecretHash,
    users: &Parents<UserId>,
    collector: &mut Collector,
) -> Result<Keys> {
    let elsewhere = Elsewhere::read(tables)?;
    let mut keys = Keys { parents: Parents::new("key", "pre_auth_keys"), facts: HashMap::new() };
    let mut candidates = Vec::new();
    tables.each("pre_auth_keys", "id", |row| {
        let id = row.id()?;
        keys.facts.insert(
            id,
            Facts {
                ephemeral: row.flag("ephemeral").unwrap_or_default(),
                user: row.reference("user_id").ok().flatten(),
            },
        );
        keys.parents.set(id, Fate::LeftOut);
        match preauth_key(row, id, now, hasher, users, &elsewhere, collector) {
            Ok(None) => keys.parents.set(id, Fate::Deleted),
            Ok(Some(key)) => {
                keys.parents.set(id, Fate::Imported(key.id));
                let image = EntityRecord::from(key);
                candidates.push(Candidate { image, table: "pre_auth_keys", id, rank: UNRANKED });
            }
            Err(unfit) => collector.unfit("pre_auth_keys", id, unfit),
        }
        Ok(())
    })?;
    let ids: Vec<_> = candidates.iter().map(|candidate| candidate.id).collect();
    for (id, taken) in ids.into_iter().zip(collector.admit(candidates)?) {
        if !taken {
            keys.parents.set(id, Fate::LeftOut);
        }
    }
    Ok(keys)
}

fn preauth_key(
    row: &Row<'_>,
    id: i64,
    now: Timestamp,
    hasher: &dyn Fn(&str) -> SecretHash,
    users: &Parents<UserId>,
    elsewhere: &Elsewhere,
    collector: &mut Collector,
) -> Result<Option<PreAuthKey>, Unfit> {
    if skip_deleted(row, id, collector) {
        return Ok(None);
    }
    let at = (row.table, id);
    let created_at = created(row, id, collector);
    let mut tags = collector.or_repaired(at, row.list("tags"), Vec::new(), TAGS_UNREADABLE);
    tags.extend(elsewhere.tags.get(&id).into_iter().flatten().cloned());
    let tags = tag_set(at, &tags, collector);
    let user = match row.reference("user_id")? {
        Some(_) if !tags.is_empty() => {
            collector.repaired(
                row.table,
                id,
                "belongs to its tags, no longer to its user, as the nodes that it admits",
            );
            None
        }
        Some(user) => Some(users.find(user).map_err(|missing| missing.left_over())?),
        None => None,
    };
    if user.is_none() && tags.is_empty() {
        let reason = "neither a user nor tags: it could admit nobody";
        return Err(Unfit::LeftOver(reason.into()));
    }
    let mut flag = |column, otherwise| {
        let reason = "says neither yes nor no in a column; the one that admits less was taken";
        collector.or_repaired(at, row.flag(column), otherwise, reason)
    };
    let (reusable, ephemeral) = (flag("reusable", false), flag("ephemeral", false));
    let used = flag("used", true);
    let (expires_at, revoked_at) = (
        end(row, id, "expiration", created_at, collector),
        end(row, id, "revoked", created_at, collector),
    );
    let ends = Ends { expires_at, revoked_at, is_used_up: used && !reusable };
    let unfit = |reason| ends.unfit(reason, now);
    let prefix = row.parsed("prefix").map_err(unfit)?;
    let (prefix, hash) = match (prefix, row.filled("key").map_err(unfit)?) {
        (Some(prefix), _) => (Some(prefix), checked_hash(row, ends, now)?),
        (None, Some(key)) => (None, hasher(&key)),
        (None, None) => {
            return Err(Unfit::LeftOver("neither a key nor a prefix: nothing could use it".into()));
        }
    };
    if row.filled("description").unwrap_or_default().is_some() {
        collector.repaired(row.table, id, "the description is not kept");
    }
    // Headscale does not mark a reusable key as used; the nodes that it admitted do. They may show it again,
    // whether or not it has ended since.
    let first_node = elsewhere.first_node.get(&id).copied();
    let name = row_name(id);
    Ok(Some(PreAuthKey {
        id: PreAuthKeyId::derived(created_at, &[b"headscale", b"pre_auth_keys", name.as_bytes()]),
        prefix,
        hash,
        user,
        tags,
        reusable,
        ephemeral,
        used_at: first_node.or(used.then_some(created_at)),
        created_at,
        expires_at,
        revoked_at,
        revision: Revision::FIRST,
    }))
}

/// When a key ends, as far as that decides whether anybody misses it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) expires_at: Option<Timestamp>,
    pub(super) revoked_at: Option<Timestamp>,
    pub(super) is_used_up: bool,
}

impl Ends {
    /// Why a key does not come in: a problem, unless it has ended, so that it proves nothing any more.
    pub(super) fn unfit(self, reason: Reason, now: Timestamp) -> Unfit {
        let has_ended =
            self.is_used_up || self.revoked_at.is_some() || expired(self.expires_at, now);
        match has_ended {
            true => Unfit::LeftOver(format!("{reason}; the key has ended, so nobody misses it")),
            false => Unfit::Problem(reason),
        }
    }
}

/// The bcrypt hash of a row.
pub(super) fn checked_hash(row: &Row<'_>, ends: Ends, now: Timestamp) -> Result<SecretHash, Unfit> {
    let read = || {
        let hash = row.filled("hash")?.ok_or("hash: is empty")?;
        SecretHash::bcrypt(&hash).map_err(|_| Reason::from("hash: not a bcrypt hash"))
    };
    read().map_err(|reason| ends.unfit(reason, now))
}

/// When a credential ends. What cannot be read ended at once: better a key too few than one too many.
pub(super) fn end(
    row: &Row<'_>,
    id: i64,
    column: &'static str,
    created_at: Timestamp,
    collector: &mut Collector,
) -> Option<Timestamp> {
    let reason = "the time at which it ends cannot be read; it counts as over";
    collector.or_repaired((row.table, id), row.time(column), Some(created_at), reason)
}

/// What is said of a list of tags that is none.
pub(super) const TAGS_UNREADABLE: &str = "the tags are not a JSON list of texts, left out";

/// The tags as a set.
pub(super) fn tag_set(
    (table, id): (&'static str, i64),
    given: &[String],
    collector: &mut Collector,
) -> TagSet {
    let mut tags = BTreeSet::new();
    for text in given {
        if let Ok(tag) = text.parse() {
            tags.insert(tag);
        } else if let Ok(tag) = Tag::from_outside(text) {
            collector.repaired(
                table,
                id,
                format!(
                    "the tag {} became {tag}, which may be another one to the policy",
                    shown(text)
                ),
            );
            tags.insert(tag);
        } else {
            collector.repaired(table, id, "a tag of which nothing shows was left out");
        }
    }
    if tags.len() > TagSet::MAX_LEN {
        collector.repaired(table, id, "has more than 64 tags; the first 64 were taken");
    }
    TagSet::new(tags.into_iter().take(TagSet::MAX_LEN)).unwrap_or_default()
}

/// A text of the database as it may appear in a line.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(100).collect::<String>())
}
