//! The cases, one file for each part of the contract.

mod block_size;
mod closing;
mod commits;
mod credentials;
mod errors;
mod failures;
mod fields;
mod listings;
mod opening;
mod pages;
mod revisions;
mod transactions;
mod users;
mod values;
mod writes;

use crate::case::{Case, Check};

/// All cases.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [
        block_size::CASES,
        closing::CASES,
        commits::CASES,
        credentials::CASES,
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
