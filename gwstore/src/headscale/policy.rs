//! Which tags a policy lets the nodes of a user ask for.
//!
//! Until 0.27 Headscale kept such tags in a node's host info only and asked the policy each time;
//! its migration `202601121700-migrate-hostinfo-request-tags` turned those that the policy allows
//! into tags of the node. An import of an older database must do the same, or nodes would lose the
//! tags, and with them the access, that they have.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Map, Value};

use super::hujson;

/// What a policy may call a user by.
#[derive(Debug, Clone, Default)]
pub(super) struct PolicyUser {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) email: String,
    pub(super) provider_identifier: Option<String>,
}

/// Who may give which tag.
#[derive(Debug, Default)]
pub(super) struct TagGrants {
    tags: HashMap<String, Granted>,
}

#[derive(Debug, Default)]
struct Granted {
    /// Users that the tag's owners name, by themselves or in a group.
    direct: HashSet<i64>,
    /// Users that own the tag through another tag; this holds for nodes without tags only.
    through_tags: HashSet<i64>,
}

type Lists = BTreeMap<String, Vec<String>>;

impl TagGrants {
    /// Reads a policy.
    ///
    /// # Errors
    /// Says why the policy is not one, in which case it allows no tags, as in Headscale.
    pub(super) fn read(policy: &str, users: &[PolicyUser]) -> Result<Self, String> {
        let json = hujson::to_json(policy).ok_or("a comment or string in it has no end")?;
        let policy: Map<String, Value> =
            serde_json::from_str(&json).map_err(|error| format!("it is not HuJSON: {error}"))?;
        let groups = lists(&policy, "groups")?;
        let owners = lists(&policy, "tagOwners")?;
        check(&groups, &owners)?;
        let of_token: HashMap<&str, i64> = groups
            .values()
            .chain(owners.values())
            .flatten()
            .filter(|token| token.contains('@'))
            .filter_map(|token| Some((token.as_str(), named(token, users)?)))
            .collect();
        let people = |owner: &String| -> Vec<i64> {
            let group = groups.get(owner).into_iter().flatten();
            let tokens = std::iter::once(owner).filter(|token| token.contains('@')).chain(group);
            tokens.filter_map(|token| of_token.get(token.as_str()).copied()).collect()
        };
        let tags = owners
            .iter()
            .map(|(tag, own)| {
                let reached = reachable(tag, &owners);
                let through_tags = reached.iter().filter_map(|tag| owners.get(*tag)).flatten();
                let granted = Granted {
                    direct: own.iter().flat_map(people).collect(),
                    through_tags: through_tags.flat_map(people).collect(),
                };
                (tag.clone(), granted)
            })
            .collect();
        Ok(Self { tags })
    }

    /// Whether a node of this user may have the tag because it asks for it. `plain` is a node that
    /// has an address and no tags yet.
    pub(super) fn allows(&self, tag: &str, user: i64, plain: bool) -> bool {
        self.tags.get(tag).is_some_and(|granted| {
            granted.direct.contains(&user) || (plain && granted.through_tags.contains(&user))
        })
    }
}

/// The lists of names under `key`, whose case does not matter.
fn lists(policy: &Map<String, Value>, key: &str) -> Result<Lists, String> {
    let value = policy.iter().find(|(found, _)| found.eq_ignore_ascii_case(key));
    match value.map(|(_, value)| value) {
        None | Some(Value::Null) => Ok(Lists::new()),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|_| format!("its `{key}` is not an object of lists of names")),
    }
}

/// Refuses names that Headscale refuses, since it then ignores the policy as a whole.
fn check(groups: &Lists, owners: &Lists) -> Result<(), String> {
    let people = groups.values().flatten();
    if let Some(token) = people.into_iter().find(|token| !token.contains('@')) {
        return Err(format!("{token:?} in a group is not a user, which has an @"));
    }
    if let Some(group) = groups.keys().find(|group| !group.starts_with("group:")) {
        return Err(format!("{group:?} is not the name of a group"));
    }
    for (tag, own) in owners {
        if !tag.starts_with("tag:") {
            return Err(format!("{tag:?} is not a tag"));
        }
        for owner in own.iter().filter(|owner| !owner.contains('@')) {
            let known = groups.contains_key(owner) || owners.contains_key(owner);
            if !known {
                return Err(format!("{owner:?}, an owner of {tag}, is not defined"));
            }
        }
    }
    Ok(())
}

/// The tag and all tags that own it, directly or not. Circles end where they began.
fn reachable<'a>(tag: &'a str, owners: &'a Lists) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![tag];
    while let Some(tag) = open.pop() {
        if found.insert(tag) {
            let own = owners.get(tag).into_iter().flatten();
            open.extend(own.map(String::as_str).filter(|owner| owner.starts_with("tag:")));
        }
    }
    found
}

/// The user that a policy names: the one whose provider identifier it is, else the only one whose
/// name or e-mail address it is. A name without an @ of its own has one at its end.
fn named(token: &str, users: &[PolicyUser]) -> Option<i64> {
    let token = token.strip_suffix('@').unwrap_or(token);
    let by_provider = users.iter().find(|user| user.provider_identifier.as_deref() == Some(token));
    if let Some(user) = by_provider {
        return Some(user.id);
    }
    let mut users = users.iter().filter(|user| user.email == token || user.name == token);
    match (users.next(), users.next()) {
        (Some(user), None) => Some(user.id),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn user(id: i64, name: &str, email: &str) -> PolicyUser {
        PolicyUser { id, name: name.into(), email: email.into(), provider_identifier: None }
    }

    fn users() -> Vec<PolicyUser> {
        let mut oidc = user(3, "carol", "carol@x.org");
        oidc.provider_identifier = Some("https://id.x.org/42@x".into());
        vec![
            user(1, "ann", "ann@x.org"),
            user(2, "bob", ""),
            oidc,
            user(4, "bob2", "dup@x.org"),
            user(5, "dup@x.org", ""),
        ]
    }

    fn grants(policy: &str) -> TagGrants {
        TagGrants::read(policy, &users()).unwrap()
    }

    #[test]
    fn users_and_groups_own_tags() {
        let grants = grants(
            r#"{ // who may what
                "GROUPS": {"group:ops": ["bob@", "carol@x.org",], "group:none": []},
                "tagOwners": {
                    "tag:a": ["ann@x.org"],
                    "tag:b": ["group:ops"],
                    "tag:c": ["https://id.x.org/42@x", "ghost@x.org"],
                    "tag:d": ["dup@x.org"],
                    "tag:e": ["group:none"],
                },
            }"#,
        );
        let allowed: Vec<_> = ["a", "b", "c", "d", "e", "f"]
            .into_iter()
            .map(|tag| {
                (1..=5)
                    .filter(|id| grants.allows(&format!("tag:{tag}"), *id, true))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(allowed, [vec![1], vec![2, 3], vec![3], vec![], vec![], vec![]]);
    }

    #[test]
    fn tags_that_own_tags_count_for_plain_nodes() {
        let grants = grants(
            r#"{"tagOwners": {
                "tag:root": ["ann@", "tag:leaf"], "tag:mid": ["tag:root"], "tag:leaf": ["tag:mid", "bob@"]
            }}"#,
        );
        assert!(grants.allows("tag:root", 1, false));
        assert!(grants.allows("tag:leaf", 1, true));
        assert!(!grants.allows("tag:leaf", 1, false));
        assert!(grants.allows("tag:mid", 2, true), "through the circle");
        assert!(!grants.allows("tag:mid", 3, true));
    }

    #[test]
    fn what_headscale_refuses_allows_nothing() {
        for bad in [
            "",
            "[]",
            "{",
            r#"{"tagOwners": {"tag:a": ["ann"]}}"#,
            r#"{"tagOwners": {"tag:a": ["tag:b"]}}"#,
            r#"{"tagOwners": {"tag:a": ["group:x"]}}"#,
            r#"{"tagOwners": {"a": ["ann@"]}}"#,
            r#"{"tagOwners": {"tag:a": "ann@"}}"#,
            r#"{"groups": {"group:x": ["group:y"]}}"#,
            r#"{"groups": {"x": ["ann@"]}}"#,
        ] {
            assert!(TagGrants::read(bad, &users()).is_err(), "{bad}");
        }
        assert!(!grants("{}").allows("tag:a", 1, true));
    }
}
