//! The cases, one file for each part of the contract.

mod credentials;

use crate::case::{Case, Check};

/// All cases.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [credentials::CASES].into_iter().flatten()
}

/// All checks.
pub(crate) fn checks() -> impl Iterator<Item = &'static Check> {
    [crate::model::CHECKS].into_iter().flatten()
}
