//! For a terminal.

use super::figures::{self, Table};
use crate::results::Results;

/// All tables, the goals last.
pub fn text(results: &Results) -> String {
    let settings = &results.settings;
    let mut text = format!(
        "{}\n{}\n{}: {} rounds, at least {} s each; medians (least to most)\n",
        figures::processor(&results.machine),
        figures::disk(&results.machine),
        settings.effort,
        settings.rounds,
        settings.seconds
    );
    for table in figures::all(results).iter().chain([&figures::reach(results)]) {
        text.push('\n');
        write(table, &mut text);
    }
    text
}

fn write(table: &Table, text: &mut String) {
    text.push_str(&table.title);
    text.push('\n');
    let titles: Vec<String> = table.columns.iter().map(|&title| title.to_owned()).collect();
    let all = || std::iter::once(&titles).chain(&table.rows);
    let widths: Vec<usize> = (0..table.columns.len())
        .map(|column| {
            let cells = all().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    for row in all() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str("  ");
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}
