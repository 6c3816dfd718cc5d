//! The cases, one file for each part of the contract.

mod addresses;
mod credentials;
mod labels;
mod machines;
mod registration;

use crate::case::{Case, Check};

/// All cases.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [addresses::CASES, credentials::CASES, labels::CASES, machines::CASES, registration::CASES]
        .into_iter()
        .flatten()
}

/// All checks.
pub(crate) fn checks() -> impl Iterator<Item = &'static Check> {
    let checks: [&'static [Check]; 0] = [];
    checks.into_iter().flatten()
}
