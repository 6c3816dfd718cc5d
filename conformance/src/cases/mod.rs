//! The cases, one file for each part of the contract.

mod credentials;
mod disk;

use crate::case::{Case, Check};

/// All cases.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [credentials::CASES].into_iter().flatten()
}

/// All checks.
pub(crate) fn checks() -> impl Iterator<Item = &'static Check> {
    let checks: [&'static [Check]; 1] = [disk::CHECKS];
    checks.into_iter().flatten()
}
