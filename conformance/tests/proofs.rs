//! The list of proofs in the repository's documents is the suite's own.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fmt::Write;
use std::path::Path;

use ghostwire_store_conformance::Suite;

/// Writes the list anew if `UPDATE_PROOFS` is set; otherwise compares.
#[test]
fn the_list_of_proofs_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/proofs.md");
    let list = list();
    if std::env::var_os("UPDATE_PROOFS").is_some() {
        std::fs::write(&path, list).unwrap();
        return;
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == list,
        "docs/proofs.md is out of date: UPDATE_PROOFS=1 cargo test -p ghostwire-store-conformance --test proofs"
    );
}

fn list() -> String {
    let mut list = String::from(
        "# Which case proves which rule\n\n\
         Generated from the conformance suite; `UPDATE_PROOFS=1 cargo test -p ghostwire-store-conformance --test proofs`\n\
         writes it anew. [contract.md](contract.md) has the rules, [conformance.md](conformance.md) says how the cases run.\n\n\
         | rule | cases and checks |\n|---|---|\n",
    );
    for (rule, proofs) in Suite::proofs() {
        let names = proofs.iter().map(|proof| format!("`{}`", proof.split_once('/').unwrap().1));
        writeln!(list, "| `{rule}` | {} |", names.collect::<Vec<_>>().join(", ")).unwrap();
    }
    list
}
