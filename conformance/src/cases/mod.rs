//! The cases, one file for each part of the contract.

mod addresses;
mod backfill;
mod credentials;
mod labels;
mod lookups;
mod machines;
mod node_keys;
mod nodes;
mod policies;
mod presence;
mod primaries;
mod registration;
mod routes;

use crate::case::{Case, Check};

/// All cases.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [
        registration::CASES,
        machines::CASES,
        nodes::CASES,
        labels::CASES,
        addresses::CASES,
        backfill::CASES,
        node_keys::CASES,
        presence::CASES,
        routes::CASES,
        primaries::CASES,
        lookups::CASES,
        policies::CASES,
        credentials::CASES,
    ]
    .into_iter()
    .flatten()
}

/// All checks.
pub(crate) fn checks() -> impl Iterator<Item = &'static Check> {
    let checks: [&'static [Check]; 0] = [];
    checks.into_iter().flatten()
}
