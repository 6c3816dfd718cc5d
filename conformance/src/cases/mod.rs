//! The cases, one file for each part of the contract.

mod backend;
mod credentials;

use crate::case::{Case, Check};

/// All cases.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [
        credentials::CASES,
        backend::atomic::CASES,
        backend::blocks::CASES,
        backend::checkpoint::CASES,
        backend::close::CASES,
        backend::concurrent::CASES,
        backend::head::CASES,
        backend::migrate::CASES,
        backend::prune::CASES,
        backend::rows::CASES,
        backend::scan::CASES,
        backend::serial::CASES,
        backend::values::CASES,
    ]
    .into_iter()
    .flatten()
}

/// All checks.
pub(crate) fn checks() -> impl Iterator<Item = &'static Check> {
    let checks: [&'static [Check]; 0] = [];
    checks.into_iter().flatten()
}
