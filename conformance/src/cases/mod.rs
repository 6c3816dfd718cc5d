//! The cases, one file for each part of the contract.

mod api_keys;
mod audit;
mod audit_lines;
mod credentials;
mod dns_settings;
mod import;
mod series;
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
    ]
    .into_iter()
    .flatten()
}

/// All checks.
pub(crate) fn checks() -> impl Iterator<Item = &'static Check> {
    let checks: [&'static [Check]; 0] = [];
    checks.into_iter().flatten()
}
