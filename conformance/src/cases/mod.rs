//! The cases, one file for each part of the contract.

mod api_keys;
mod audit;
mod audit_lines;
mod credentials;
mod digests;
mod dns_settings;
mod import;
mod series;
mod shared;
mod views;
mod watching;

use crate::case::{Case, Check};

/// All cases.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [
        credentials::CASES,
        api_keys::CASES,
        series::CASES,
        audit::CASES,
        audit_lines::CASES,
        dns_settings::CASES,
        views::CASES,
        watching::CASES,
        import::CASES,
        digests::CASES,
        shared::CASES,
    ]
    .into_iter()
    .flatten()
}

/// All checks.
pub(crate) fn checks() -> impl Iterator<Item = &'static Check> {
    [digests::CHECKS].into_iter().flatten()
}
