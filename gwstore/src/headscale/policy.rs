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
        let policy: Map<String, Value> = serde_json::from_str(&json).map_err(|error| {
            // The message itself may repeat the document.
            let (line, column) = (error.line(), error.column());
            format!("it is not an object in HuJSON, as line {line}, column {column} shows")
        })?;
        let groups = lists(&policy, "groups")?;
        let owners = lists(&policy, "tagOwners")?;
        check(&groups, &owners)?;
        let names = Names::of(users);
        let mut work = Work::default();
        let mut tags = HashMap::with_capacity(owners.len());
        for (tag, own) in &owners {
            let direct = people(own, &groups, &names, &mut work)?;
            let mut through_tags = HashSet::new();
            for tag in reachable(tag, &owners, &mut work)? {
                let own = owners.get(tag).map(Vec::as_slice).unwrap_or_default();
                through_tags.extend(people(own, &groups, &names, &mut work)?);
            }
            tags.insert(tag.clone(), Granted { direct, through_tags });
        }
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

/// A name as it may appear in an error.
fn shown(name: &str) -> String {
    format!("{:?}", name.chars().take(100).collect::<String>())
}

/// Refuses names that Headscale refuses, since it then ignores the policy as a whole.
fn check(groups: &Lists, owners: &Lists) -> Result<(), String> {
    let people = groups.values().flatten();
    if let Some(token) = people.into_iter().find(|token| !token.contains('@')) {
        return Err(format!("{} in a group is not a user, which has an @", shown(token)));
    }
    if let Some(group) = groups.keys().find(|group| !group.starts_with("group:")) {
        return Err(format!("{} is not the name of a group", shown(group)));
    }
    for (tag, own) in owners {
        if !tag.starts_with("tag:") {
            return Err(format!("{} is not a tag", shown(tag)));
        }
        for owner in own.iter().filter(|owner| !owner.contains('@')) {
            let known = groups.contains_key(owner) || owners.contains_key(owner);
            if !known {
                let (owner, tag) = (shown(owner), shown(tag));
                return Err(format!("{owner}, an owner of {tag}, is not defined"));
            }
        }
    }
    Ok(())
}

/// A policy of groups in groups of tags could take hours to resolve; the largest networks take less
/// than a hundredth of this.
const MOST_STEPS: usize = 4_000_000;

/// What resolving a policy has taken so far.
#[derive(Default)]
struct Work {
    steps: usize,
}

impl Work {
    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps <= MOST_STEPS {
            return Ok(());
        }
        Err(format!("its groups and tag owners take more than {MOST_STEPS} steps to resolve"))
    }
}

/// The users among the owners of a tag, by themselves or in a group.
fn people(
    own: &[String],
    groups: &Lists,
    names: &Names<'_>,
    work: &mut Work,
) -> Result<HashSet<i64>, String> {
    let mut found = HashSet::new();
    for owner in own {
        let members = groups.get(owner).into_iter().flatten();
        for token in std::iter::once(owner).chain(members) {
            work.step()?;
            // A group has no @, and its members all have one.
            found.extend(
                Some(token).filter(|token| token.contains('@')).and_then(|t| names.find(t)),
            );
        }
    }
    Ok(found)
}

/// The tag and all tags that own it, directly or not. Circles end where they began.
fn reachable<'a>(
    tag: &'a str,
    owners: &'a Lists,
    work: &mut Work,
) -> Result<BTreeSet<&'a str>, String> {
    let mut found = BTreeSet::new();
    let mut open = vec![tag];
    while let Some(tag) = open.pop() {
        if !found.insert(tag) {
            continue;
        }
        for owner in owners.get(tag).into_iter().flatten() {
            work.step()?;
            if owner.starts_with("tag:") {
                open.push(owner);
            }
        }
    }
    Ok(found)
}

/// Users by what a policy may call them.
struct Names<'u> {
    by_provider: HashMap<&'u str, i64>,
    /// By name and by e-mail address; `None` for what means several.
    by_name: HashMap<&'u str, Option<i64>>,
}

impl<'u> Names<'u> {
    fn of(users: &'u [PolicyUser]) -> Self {
        let (mut by_provider, mut by_name) = (HashMap::new(), HashMap::new());
        for user in users {
            if let Some(identifier) = &user.provider_identifier {
                by_provider.entry(identifier.as_str()).or_insert(user.id);
            }
            let email = Some(user.email.as_str()).filter(|email| *email != user.name);
            for name in email.into_iter().chain([user.name.as_str()]) {
                let several = by_name.contains_key(name);
                by_name.insert(name, Some(user.id).filter(|_| !several));
            }
        }
        Self { by_provider, by_name }
    }

    /// The user whose provider identifier it is, else the only one whose name or e-mail address it
    /// is. A name without an @ of its own has one at its end.
    fn find(&self, token: &str) -> Option<i64> {
        let token = token.strip_suffix('@').unwrap_or(token);
        let by_name = || self.by_name.get(token).copied().flatten();
        self.by_provider.get(token).copied().or_else(by_name)
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
    fn what_takes_too_long_to_resolve_allows_nothing() {
        // Each tag is owned by the one before, so that each reaches all before it.
        let chain = |tags: usize| {
            let owner =
                |tag: usize| format!("\"tag:t{tag}\": [\"tag:t{}\"]", tag.saturating_sub(1));
            let owners: Vec<_> = (0..tags).map(owner).collect();
            format!("{{\"tagOwners\": {{{}}}}}", owners.join(","))
        };
        assert!(TagGrants::read(&chain(1_000), &users()).is_ok());
        let error = TagGrants::read(&chain(10_000), &users()).unwrap_err();
        assert!(error.contains("4000000 steps"), "{error}");
        // So do groups, each with everybody in it.
        let everybody: Vec<_> = (0..5_000).map(|n| format!("\"p{n}@\"")).collect();
        let tags: Vec<_> = (0..1_000).map(|n| format!("\"tag:t{n}\": [\"group:all\"]")).collect();
        let policy = format!(
            "{{\"groups\": {{\"group:all\": [{}]}}, \"tagOwners\": {{{}}}}}",
            everybody.join(","),
            tags.join(",")
        );
        assert!(TagGrants::read(&policy, &users()).unwrap_err().contains("steps"));
    }

    #[test]
    fn a_document_is_not_repeated() {
        let error = TagGrants::read(&format!("\"{}\"", "s3cret".repeat(1000)), &[]).unwrap_err();
        assert!(error.len() < 100 && !error.contains("s3cret"), "{error}");
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
