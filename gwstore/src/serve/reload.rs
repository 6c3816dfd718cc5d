//! What a configuration that was read anew may change while a store is served. Pure.

use std::collections::BTreeMap;

use ghostwire_store::config::{Config, JobOptions, LogOptions};
use serde::Serialize;

/// Keys that hold at once.
const SAFE: [&str; 5] = ["jobs.", "series.", "serve.", "switches.", "log.level"];

/// The one of those that does not: the instance has begun under that name.
const FIXED: &str = "jobs.instance";

/// What comes of reading the configuration again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    /// What holds from now on.
    pub(crate) applied: Vec<Change>,
    /// What holds only once the process is started anew.
    pub(crate) refused: Vec<Change>,
}

/// A key whose value is another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
}

/// Compares two configurations.
pub(crate) fn plan(before: &Config, after: &Config) -> Plan {
    let values = |config: &Config| -> BTreeMap<String, String> {
        let explained = config.explain().into_iter();
        explained.map(|explained| (explained.key, explained.value)).collect()
    };
    let (before, after) = (values(before), values(after));
    let mut keys: Vec<_> = before.keys().chain(after.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    let changes = changed.map(|key| Change {
        key: key.clone(),
        before: before.get(key).cloned(),
        after: after.get(key).cloned(),
    });
    let (applied, refused) = changes.partition(|change| is_safe(&change.key));
    Plan { applied, refused }
}

fn is_safe(key: &str) -> bool {
    key != FIXED && SAFE.iter().any(|safe| key.starts_with(safe))
}

/// The configuration that holds from now on.
pub(crate) fn merged(before: &Config, after: &Config) -> Config {
    Config {
        jobs: JobOptions { instance: before.jobs.instance.clone(), ..after.jobs.clone() },
        series: after.series.clone(),
        serve: after.serve,
        log: LogOptions { level: after.log.level, ..before.log },
        switches: after.switches.clone(),
        ..before.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ghostwire_store::config::{BackendKind, LoadRequest, load};

    fn config(overrides: &[(&str, &str)]) -> Config {
        let overrides = overrides.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        let request = LoadRequest { overrides: overrides.collect(), ..LoadRequest::default() };
        load(&request, &BTreeMap::new()).unwrap()
    }

    fn keys(changes: &[Change]) -> Vec<&str> {
        changes.iter().map(|change| change.key.as_str()).collect()
    }

    #[test]
    fn what_is_safe_is_applied_and_the_rest_is_refused() {
        let before = config(&[("series.audit_retention_days", "9")]);
        let after = config(&[
            ("jobs.reap_seconds", "5"),
            ("jobs.instance", "control-1"),
            ("writer.max_group", "7"),
            ("http.listen", "127.0.0.1:80"),
        ]);
        let plan = plan(&before, &after);
        assert_eq!(keys(&plan.applied), ["jobs.reap_seconds", "series.audit_retention_days"]);
        assert_eq!(keys(&plan.refused), ["http.listen", "jobs.instance", "writer.max_group"]);
        let merged = merged(&before, &after);
        assert_eq!((merged.jobs.reap_seconds, merged.series.audit_retention_days), (5, None));
        assert_eq!(merged.jobs.instance, None);
        assert_eq!(merged.writer, before.writer);
        assert_eq!(merged.http, before.http);
        // What was refused stays refused, and what was applied is known.
        let again = super::plan(&merged, &after);
        assert_eq!((keys(&again.applied), keys(&again.refused).len()), (vec![], 3));
    }

    #[test]
    fn another_store_is_never_taken_up() {
        let plan = plan(&Config::default(), &Config::with_backend(BackendKind::Zqlite));
        assert!(keys(&plan.refused).contains(&"backend"), "{plan:?}");
        assert!(plan.applied.is_empty());
    }

    #[test]
    fn the_same_is_no_change() {
        assert_eq!(plan(&config(&[]), &config(&[])), Plan::default());
    }
}
