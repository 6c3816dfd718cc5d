//! A page that needs nothing from elsewhere.

use super::figures::{self, Table};
use super::svg;
use crate::results::{Results, Run};

const STYLE: &str =
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
table{border-collapse:collapse;font-size:13px;margin:.5rem 0 1.5rem}
th,td{border-bottom:1px solid #8884;padding:.25rem .6rem;text-align:left;vertical-align:top}
h2{font-size:1.05rem;margin:2rem 0 .3rem}
p.disk{color:#777;margin:0}
svg{width:100%;max-width:60rem}
svg text{font-size:12px;fill:currentColor}
svg text.name{text-anchor:end}svg text.axis{text-anchor:middle;opacity:.6}
svg rect{fill:#4a7fb5}svg line.grid{stroke:#8884}svg line.range{stroke:#d9822b;stroke-width:3}
td.yes{color:#2a7d2a}td.no{color:#b3261e}
@media (prefers-color-scheme:dark){body{background:#16181c;color:#ddd}}";

/// Text that is only text in a page.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page: the goals, then each case with a chart and its table.
pub fn page(results: &Results) -> String {
    let settings = &results.settings;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>ghostwire-store beside other databases</title><style>{STYLE}</style></head><body>\n\
         <h1>What ghostwire-store costs beside a database that is called directly</h1>\n\
         <p>{}<br>{}<br>{}: {} rounds, at least {} s each. Medians, with the least and the most. \
         Charts show operations a second on a logarithmic scale; the line on a bar is its range.</p>\n",
        escaped(&figures::processor(&results.machine)),
        escaped(&figures::disk(&results.machine)),
        escaped(&settings.effort),
        settings.rounds,
        settings.seconds
    );
    write(&figures::reach(results), &mut page);
    for measured in &results.tables {
        let table = figures::measured(measured, &results.machine);
        heading(&table, &mut page);
        let measured = measured.subjects.iter().filter(|of| !of.runs.is_empty());
        let rows: Vec<_> =
            measured.map(|of| (of.about.name.clone(), of.spread(Run::rate))).collect();
        page.push_str(&svg::bars(&rows));
        rows_of(&table, &mut page);
    }
    if let Some(table) = figures::openings(results) {
        write(&table, &mut page);
    }
    page.push_str("</body></html>\n");
    page
}

fn write(table: &Table, page: &mut String) {
    heading(table, page);
    rows_of(table, page);
}

fn heading(table: &Table, page: &mut String) {
    let (title, disk) = table.title.split_once(" [").unwrap_or((&table.title, ""));
    page.push_str(&format!(
        "<h2>{}</h2><p class=\"disk\">{}</p>\n",
        escaped(title),
        escaped(disk.trim_end_matches(']'))
    ));
}

fn rows_of(table: &Table, page: &mut String) {
    page.push_str("<table><tr>");
    for column in table.columns {
        page.push_str(&format!("<th>{}</th>", escaped(&column.to_lowercase())));
    }
    page.push_str("</tr>\n");
    for row in &table.rows {
        page.push_str("<tr>");
        for cell in row {
            let class = match cell.as_str() {
                "yes" => " class=\"yes\"",
                "no" => " class=\"no\"",
                _ => "",
            };
            page.push_str(&format!("<td{class}>{}</td>", escaped(cell)));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}
