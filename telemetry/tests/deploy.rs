//! The dashboard and the alerts ask for what is exported, and each alert has a page, a case in which it fires and
//! one in which it does not. `promtool` runs the cases.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;

use ghostwire_store_telemetry::catalogue::{Kind, METRICS};

const RULES: &str = include_str!("../../deploy/prometheus/ghostwire-store.rules.yml");
const CASES: &str = include_str!("../../deploy/prometheus/ghostwire-store.test.yml");
const DASHBOARD: &str = include_str!("../../deploy/grafana/ghostwire-store.json");
const RUNBOOK: &str = include_str!("../../docs/runbook.md");

/// What Prometheus and its libraries bring.
const FOREIGN: [&str; 5] = [
    "up",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
];
const LABELS: [&str; 3] = ["job", "instance", "le"];
/// Words of the query language that are no functions.
const WORDS: [&str; 12] = [
    "and", "or", "unless", "by", "on", "without", "offset", "ignoring", "bool", "sum", "min", "max",
];

/// Every name of a series.
fn exported() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = FOREIGN.map(str::to_owned).into();
    for metric in METRICS {
        let name = metric.prometheus();
        if let Kind::Histogram(_) = metric.kind {
            names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        } else {
            names.insert(name);
        }
    }
    names
}

fn labels() -> BTreeSet<String> {
    let declared = METRICS.iter().flat_map(|metric| metric.attributes.iter());
    declared.map(|name| name.replace('.', "_")).chain(LABELS.map(str::to_owned)).collect()
}

/// The names of series and of labels in a query.
fn names_of(query: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut series, mut labels) = (BTreeSet::new(), BTreeSet::new());
    let mut rest = query;
    let mut before = String::new();
    while let Some(next) = rest.chars().next() {
        if next == '{' {
            let (inside, after) = rest.strip_prefix('{').unwrap().split_once('}').unwrap();
            labels.extend(
                inside
                    .split(',')
                    .map(|pair| pair.trim().split(['=', '!']).next().unwrap().to_owned()),
            );
            rest = after;
        } else if next == '[' {
            rest = rest.split_once(']').unwrap().1;
        } else if next.is_ascii_alphabetic() || next == '_' {
            let end =
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let is_function = after.trim_start().starts_with('(') && !WORDS.contains(&word);
            if ["by", "on", "without", "ignoring"].contains(&word) {
                let (inside, beyond) =
                    after.trim_start().strip_prefix('(').unwrap().split_once(')').unwrap();
                labels.extend(inside.split(',').map(|label| label.trim().to_owned()));
                rest = beyond;
                word.clone_into(&mut before);
                continue;
            }
            if !is_function && !WORDS.contains(&word) && before != "offset" {
                series.insert(word.to_owned());
            }
            word.clone_into(&mut before);
            rest = after;
        } else if next.is_ascii_digit() {
            let end =
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.')).unwrap_or(rest.len());
            rest = rest.split_at(end).1;
        } else {
            rest = rest.split_at(next.len_utf8()).1;
        }
    }
    (series, labels)
}

fn check(query: &str, place: &str) {
    let (exported, known) = (exported(), labels());
    let (series, used) = names_of(query);
    assert!(!series.is_empty(), "{place} asks for nothing: {query}");
    for name in &series {
        assert!(exported.contains(name), "{place} asks for {name}, which is not exported");
    }
    for label in &used {
        assert!(known.contains(label), "{place} uses a label {label}, which nothing has: {query}");
    }
}

/// An alert as the file of rules has it.
#[derive(Debug, Default)]
struct Alert {
    name: String,
    expr: String,
    body: String,
}

fn alerts() -> Vec<Alert> {
    let mut alerts: Vec<Alert> = Vec::new();
    let mut in_expr = false;
    for line in RULES.lines() {
        let text = line.trim();
        if let Some(name) = text.strip_prefix("- alert: ") {
            alerts.push(Alert { name: name.to_owned(), ..Alert::default() });
            continue;
        }
        let Some(alert) = alerts.last_mut() else { continue };
        if let Some(expr) = text.strip_prefix("expr:") {
            in_expr = true;
            alert.expr.push_str(expr.trim().trim_start_matches(">-"));
        } else if ["for:", "labels:"].iter().any(|key| text.starts_with(key)) {
            in_expr = false;
        } else if in_expr {
            alert.expr.push(' ');
            alert.expr.push_str(text);
        }
        alert.body.push_str(text);
        alert.body.push('\n');
    }
    alerts
}

#[test]
fn names_are_found_in_queries() {
    let query = r#"histogram_quantile(0.99, sum by (job, le) (rate(a_bucket{x="1", y!="2"}[5m]))) > 2 and on (job) b offset 10m"#;
    let (series, labels) = names_of(query);
    assert_eq!(series, ["a_bucket", "b"].map(str::to_owned).into());
    assert_eq!(labels, ["job", "le", "x", "y"].map(str::to_owned).into());
}

/// The titles of what the dashboard shows.
fn panels() -> BTreeSet<String> {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let shown = panels.filter(|panel| panel["type"] != "row");
    shown.map(|panel| panel["title"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn alerts_ask_for_what_is_exported_and_say_what_to_do() {
    let (alerts, panels) = (alerts(), panels());
    assert!(alerts.len() >= 25);
    for Alert { name, expr, body } in &alerts {
        check(expr, name);
        assert!(body.contains("severity: page") || body.contains("severity: ticket"), "{name}");
        let anchor = format!("docs/runbook.md#{}", name.to_lowercase());
        assert!(body.contains(&anchor), "{name} has no runbook");
        let panel = body.lines().find_map(|line| line.strip_prefix("panel: "));
        let panel = panel.unwrap_or_else(|| panic!("{name} names no panel")).trim_matches('"');
        assert!(panels.contains(panel), "{name}: the dashboard has no panel {panel}");
        assert!(
            RUNBOOK.contains(&format!("### {name}\n")),
            "docs/runbook.md has no heading {name}"
        );
        // What happened once is over before it could last.
        let lasts = body.contains("for: ");
        assert!(lasts || expr.contains("increase(") || expr.contains("changes("), "{name}");
        for case in ["fires", "stays quiet"] {
            let title = format!("- name: {name} {case}\n");
            assert!(CASES.contains(&title), "{name} has no case in which it {case}");
        }
    }
    let headings = RUNBOOK.lines().filter_map(|line| line.strip_prefix("### "));
    for heading in headings {
        assert!(alerts.iter().any(|alert| alert.name == heading), "no alert is called {heading}");
    }
}

#[test]
fn the_dashboard_asks_for_what_is_exported() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    assert!(dashboard.get("uid").is_none(), "a fixed uid collides where it is imported twice");
    let panels = dashboard["panels"].as_array().unwrap();
    let mut queries = 0;
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let is_rate = query.contains("rate(") || query.contains("increase(");
            assert!(!is_rate || query.contains("[$__rate_interval]"), "{title}: {query}");
            check(query, title);
            queries += 1;
        }
    }
    assert!(queries > 60);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> =
        variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "job", "instance", "store"]);
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        let query = variable["definition"].as_str().unwrap();
        assert!(query.starts_with("label_values(ghostwire_store_serial"), "{query}");
    }
}

#[test]
fn every_metric_of_ours_that_matters_is_on_the_dashboard() {
    // What the others show already, or is of those who send it.
    let left_out = [
        "ghostwire_store_position",
        "ghostwire_store_block_oldest_serial",
        "ghostwire_store_checkpoint_duration_seconds",
        "ghostwire_store_config_reload_last_success_timestamp_seconds",
        "ghostwire_store_job_duration_seconds",
        "ghostwire_store_job_interval_seconds",
        "ghostwire_store_admin_request_duration_seconds",
        "ghostwire_store_admin_rejections_total",
    ];
    for metric in METRICS.iter().filter(|metric| metric.name.starts_with("ghostwire.")) {
        let name = metric.prometheus();
        let is_shown = DASHBOARD.contains(&name);
        assert_ne!(is_shown, left_out.contains(&name.as_str()), "{name}");
    }
}
