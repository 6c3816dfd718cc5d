//! What an import has to say of the rows that it read.

use std::collections::BTreeMap;

/// A row, and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Headscale's table.
    pub table: &'static str,
    /// The row's `id`.
    pub id: i64,
    /// What became of the row, and why. Never shows a key or hash.
    pub reason: String,
}

/// All that is to be said, by how much it matters.
#[derive(Debug, Default)]
pub struct Findings {
    /// Rows that cannot come in, though somebody or something is known by them. They refuse an import.
    pub problems: Vec<Finding>,
    /// Rows that came in with something else than they say, or without something that nobody is known by.
    pub repaired: Vec<Finding>,
    /// Rows that mean nothing any longer: Headscale ignores them, or removes them when it upgrades.
    pub left_over: Vec<Finding>,
    /// What an operator should know of the whole, a sentence each.
    pub notes: Vec<String>,
}

impl Findings {
    /// How many rows of this table cannot come in.
    pub fn lost(&self, table: &str) -> usize {
        self.problems.iter().filter(|problem| problem.table == table).count()
    }
}

/// One line for all rows of a table of which the same is said.
pub fn grouped(findings: &[Finding]) -> Vec<String> {
    let mut groups: BTreeMap<(&str, &str), Vec<i64>> = BTreeMap::new();
    for Finding { table, id, reason } in findings {
        groups.entry((table, reason)).or_default().push(*id);
    }
    let line = |((table, reason), rows): ((&str, &str), Vec<i64>)| {
        let first: Vec<_> = rows.iter().take(5).map(i64::to_string).collect();
        let more = if rows.len() > first.len() { ", …" } else { "" };
        let count = counted(rows.len(), "row", "rows");
        format!("{table}: {reason} ({count}: {}{more})", first.join(", "))
    };
    groups.into_iter().map(line).collect()
}

/// A number with its noun.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
