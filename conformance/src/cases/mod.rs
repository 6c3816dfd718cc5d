//! The cases, one file for each part of the contract.

mod closing;
mod commits;
mod credentials;
mod errors;
mod listings;
mod opening;
mod revisions;
mod transactions;
mod users;
mod values;
mod writes;

use crate::case::{Case, Check};

/// All cases.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [
        closing::CASES,
        commits::CASES,
        credentials::CASES,
        errors::CASES,
        listings::CASES,
        opening::CASES,
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
