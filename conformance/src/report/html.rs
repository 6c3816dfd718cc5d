//! A report as one page that needs nothing else: a row for each case, a column for each backend,
//! layers and mode.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use super::{Outcome, Report, Trial};
use crate::contract;

/// Where a trial stands in a row.
type Column<'r> = (&'r str, &'r str, &'r str);

impl Report {
    /// The page. `title` says what was tried, and each of `facts` under which circumstances: a
    /// name and a value, such as the version and the directory.
    #[must_use]
    pub fn to_html(&self, title: &str, facts: &[(&str, String)]) -> String {
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = write_page(&mut page, self, title, facts);
        page
    }

    fn columns(&self) -> Vec<Column<'_>> {
        let mut columns: Vec<Column<'_>> = Vec::new();
        for trial in &self.trials {
            let column = column_of(trial);
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        columns
    }
}

fn column_of(trial: &Trial) -> Column<'_> {
    (&trial.backend, &trial.stack, trial.mode.map_or("check", crate::test_env::Mode::name))
}

fn write_page(
    page: &mut String,
    report: &Report,
    title: &str,
    facts: &[(&str, String)],
) -> fmt::Result {
    let title = Escaped(title);
    let (passed, failed, excepted) = report.counts();
    let class = if failed == 0 { "passed" } else { "failed" };
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Conformance: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>Conformance: {title}</h1>\n\
         <p class=\"{class}\">{passed} passed, {failed} failed, {excepted} excepted</p>\n"
    )?;
    page.push_str("<dl class=\"facts\">\n");
    for (name, value) in facts {
        writeln!(page, "<dt>{}</dt><dd>{}</dd>", Escaped(name), Escaped(value))?;
    }
    page.push_str("</dl>\n");
    page.push_str(LEGEND);
    if failed > 0 {
        page.push_str("<h2>What failed</h2>\n<dl>\n");
        for trial in report.failures() {
            let (backend, stack, mode) = column_of(trial);
            let place = format!("{backend}, {stack}, {mode}: {}", trial.case());
            let Outcome::Failed(message) = &trial.outcome else { continue };
            writeln!(page, "<dt>{}</dt><dd>{}</dd>", Escaped(&place), Escaped(message))?;
        }
        page.push_str("</dl>\n");
    }
    write_exceptions(page, report)?;
    write_matrix(page, report)?;
    page.push_str("</body>\n</html>\n");
    Ok(())
}

fn write_exceptions(page: &mut String, report: &Report) -> fmt::Result {
    let mut reasons: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for trial in &report.trials {
        if let Outcome::Excepted(reason) = &trial.outcome {
            reasons.entry(reason).or_default().insert(format!(
                "{}: {}",
                trial.backend,
                trial.case()
            ));
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    page.push_str("<h2>What was not tried</h2>\n<dl>\n");
    for (reason, cases) in reasons {
        let cases: Vec<_> = cases.into_iter().collect();
        writeln!(page, "<dt>{}</dt><dd>{}</dd>", Escaped(reason), Escaped(&cases.join("\n")))?;
    }
    page.push_str("</dl>\n");
    Ok(())
}

fn write_matrix(page: &mut String, report: &Report) -> fmt::Result {
    let columns = report.columns();
    let mut rows: BTreeMap<(usize, &str), BTreeMap<Column<'_>, &Trial>> = BTreeMap::new();
    let rules: Vec<_> = contract::rules().collect();
    for trial in &report.trials {
        let rule = rules.iter().position(|rule| *rule == trial.rule).unwrap_or(rules.len());
        rows.entry((rule, &trial.name)).or_default().insert(column_of(trial), trial);
    }
    page.push_str(
        "<h2>Every case that was run</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>case</th>",
    );
    for (backend, stack, mode) in &columns {
        let (backend, stack) = (Escaped(backend), Escaped(stack));
        write!(page, "<th>{backend}<br>{stack}<br>{mode}</th>")?;
    }
    page.push_str("</tr></thead>\n");
    let mut last = None;
    for ((rule, name), trials) in rows {
        if last != Some(rule) {
            last = Some(rule);
            let rule = rules.get(rule).copied().unwrap_or("no line of the contract");
            let width = columns.len() + 1;
            writeln!(
                page,
                "<tr><th class=\"rule\" colspan=\"{width}\">{}</th></tr>",
                Escaped(rule)
            )?;
        }
        write!(page, "<tr><td>{}</td>", Escaped(name))?;
        for column in &columns {
            write_cell(page, trials.get(column).copied())?;
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
    Ok(())
}

fn write_cell(page: &mut String, trial: Option<&Trial>) -> fmt::Result {
    let Some(trial) = trial else { return page.write_str("<td></td>") };
    let milliseconds = trial.elapsed.as_millis();
    match &trial.outcome {
        Outcome::Passed => {
            write!(page, "<td class=\"passed\" title=\"{milliseconds} ms\">passed</td>")
        }
        Outcome::Failed(message) => {
            write!(page, "<td class=\"failed\" title=\"{}\">failed</td>", Escaped(message))
        }
        Outcome::Excepted(reason) => {
            write!(page, "<td class=\"excepted\" title=\"{}\">excepted</td>", Escaped(reason))
        }
    }
}

/// Text as HTML shows it.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;"),
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '"' => f.write_str("&quot;"),
                other => f.write_char(other),
            }?;
        }
        Ok(())
    }
}

const LEGEND: &str = "<p>Columns are backend, layers on top of it, and what happened between \
what a case did and what it checked: nothing (live), the process died and blocks were read (blocks), \
everything was flushed and rows were read (rows), rows were written with each commit and the process \
died (at_once). Other layers than none run in one mode. A check sees to that itself.</p>\n";

const STYLE: &str = "\
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 0.85rem; }
td, th { padding: 0.15rem 0.5rem; text-align: left; border-bottom: 1px solid #8884; }
thead th { position: sticky; top: 0; background: Canvas; vertical-align: bottom; font-weight: 500; }
th.rule { padding-top: 1rem; font-family: ui-monospace, monospace; }
.passed { color: #2a7d3c; } .failed { color: #c22a2a; font-weight: 600; } .excepted { color: #8a6d00; }
.wide { overflow-x: auto; }
.facts { display: grid; grid-template-columns: max-content auto; column-gap: 1rem; }
.facts dd { margin: 0; }
dd { white-space: pre-wrap; font-family: ui-monospace, monospace; margin-bottom: 1rem; }
@media (prefers-color-scheme: dark) {
  .passed { color: #6fce84; } .failed { color: #ff8080; } .excepted { color: #e0c060; }
}
";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::test_env::Mode;

    #[test]
    fn the_page_has_every_case_once_and_no_markup_of_strangers() {
        let trial = |backend: &str, name: &str, outcome| Trial {
            backend: backend.to_owned(),
            stack: "bare".to_owned(),
            mode: Some(Mode::Rows),
            rule: "duplicate".to_owned(),
            name: name.to_owned(),
            outcome,
            elapsed: Duration::from_millis(3),
        };
        let report = Report {
            trials: vec![
                trial("a", "one_case", Outcome::Passed),
                trial("b", "one_case", Outcome::Failed("<script>".to_owned())),
                trial("b", "other", Outcome::Excepted("because".to_owned())),
            ],
        };
        let page = report.to_html("a & b", &[("seed", "1".to_owned())]);
        assert_eq!(page.matches("<td>one_case</td>").count(), 1);
        assert_eq!(page.matches("class=\"rule\"").count(), 1);
        assert!(page.contains("1 passed, 1 failed, 1 excepted"));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
        assert!(page.contains("a &amp; b") && page.contains("<dt>because</dt>"));
    }
}
