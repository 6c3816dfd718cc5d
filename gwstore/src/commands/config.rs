//! `gwstore config`.

use ghostwire_store::config::Config;

use crate::failure::Outcome;
use crate::output::{Shell, Table};

/// Every effective value and where it came from.
pub(super) fn show(config: &Config, shell: &mut Shell<'_>) -> Outcome {
    let explained = config.explain();
    if shell.json {
        return shell.object(&explained);
    }
    let rows: Vec<Vec<String>> = explained
        .into_iter()
        .map(|value| vec![value.key, value.value, value.origin.to_string()])
        .collect();
    Table::new(&["KEY", "VALUE", "ORIGIN"]).rows(shell, &rows)
}
