//! Pre-auth keys.

use std::collections::HashMap;

use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::domain::{
    PreAuthKey, PreAuthKeyId, Revision, SecretHash, TagSet, Timestamp, UserId,
};
use ghostwire_store_core::error::Result;

use super::collect::{Candidate, Collector, Fate, Parents};
use super::mapping::{bcrypt, created, row_name, skip_deleted};
use super::tables::{Reason, Row, Tables, parse};

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
        match preauth_key(row, id, hasher, users, &elsewhere, collector) {
            Ok(None) => keys.parents.set(id, Fate::Deleted),
            Ok(Some(key)) => {
                keys.parents.set(id, Fate::Imported(key.id));
                let image = EntityRecord::from(key);
                candidates.push(Candidate { image, table: "pre_auth_keys", id });
            }
            Err(reason) => collector.problem("pre_auth_keys", id, reason),
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
    hasher: &dyn Fn(&str) -> SecretHash,
    users: &Parents<UserId>,
    elsewhere: &Elsewhere,
    collector: &mut Collector,
) -> Result<Option<PreAuthKey>, Reason> {
    if skip_deleted(row, id, collector)? {
        return Ok(None);
    }
    let created_at = created(row, id, collector)?;
    let mut tags = row.list("tags")?;
    tags.extend(elsewhere.tags.get(&id).into_iter().flatten().cloned());
    let tags = tag_set(&tags)?;
    let user = row.reference("user_id")?;
    if user.is_none() && tags.is_empty() {
        return Err("neither a user nor tags: nobody would own the nodes it admits".into());
    }
    let user = user.map(|user| users.find(user)).transpose()?;
    let (prefix, hash) = match (row.parsed("prefix")?, row.filled("key")?) {
        (Some(prefix), _) => (Some(prefix), bcrypt(row)?.ok_or("hash: is empty")?),
        (None, Some(key)) => (None, hasher(&key)),
        (None, None) => return Err("neither a key nor a prefix: nothing could use it".into()),
    };
    if row.filled("description")?.is_some() {
        collector.remark("pre_auth_keys", id, "the description is not kept");
    }
    let used = row.flag("used")?;
    let first_node = elsewhere.first_node.get(&id).copied();
    let name = row_name(id);
    Ok(Some(PreAuthKey {
        id: PreAuthKeyId::derived(created_at, &[b"headscale", b"pre_auth_keys", name.as_bytes()]),
        prefix,
        hash,
        user,
        tags,
        reusable: row.flag("reusable")?,
        ephemeral: row.flag("ephemeral")?,
        used_at: used.then(|| first_node.unwrap_or(created_at)),
        created_at,
        expires_at: row.time("expiration")?,
        revoked_at: row.time("revoked")?,
        revision: Revision::FIRST,
    }))
}

/// The tags as a set; one that breaks the rules for tags refuses all.
pub(super) fn tag_set(tags: &[String]) -> Result<TagSet, Reason> {
    let tags = tags.iter().map(|tag| parse("tags", tag)).collect::<Result<Vec<_>, _>>()?;
    TagSet::new(tags).map_err(|error| format!("tags: {error}"))
}
