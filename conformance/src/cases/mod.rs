//! The cases, one file for each part of the contract.

mod addresses;
mod backfill;
mod block_size;
mod closing;
mod commits;
mod credentials;
mod errors;
mod failures;
mod fields;
mod labels;
mod listings;
mod lookups;
mod machines;
mod node_keys;
mod nodes;
mod opening;
mod pages;
mod policies;
mod presence;
mod primaries;
mod registration;
mod revisions;
mod routes;
mod transactions;
mod users;
mod values;
mod writes;

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
        block_size::CASES,
        closing::CASES,
        commits::CASES,
        errors::CASES,
        failures::CASES,
        fields::CASES,
        listings::CASES,
        opening::CASES,
        pages::CASES,
        revisions::CASES,
        transactions::CASES,
        users::CASES,
        values::CASES,
        writes::CASES,
    ]
    .into_iter()
    .flatten()
}

/// All checks.
pub(crate) fn checks() -> impl Iterator<Item = &'static Check> {
    let checks: [&'static [Check]; 0] = [];
    checks.into_iter().flatten()
}
