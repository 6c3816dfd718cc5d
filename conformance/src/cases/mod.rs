//! The cases, one file for each part of the contract.

mod addresses;
mod api_keys;
mod audit;
mod audit_lines;
mod backend;
mod backfill;
mod block_size;
mod closing;
mod commits;
mod credentials;
mod digests;
mod disk;
mod dns_settings;
mod errors;
mod failures;
mod fields;
mod import;
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
mod series;
mod shared;
mod transactions;
mod users;
mod values;
mod views;
mod watching;
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
    let checks: [&[Check]; 5] = [
        digests::CHECKS,
        disk::CHECKS,
        crate::crash::CHECKS,
        crate::history::CHECKS,
        crate::model::CHECKS,
    ];
    checks.into_iter().flatten()
}
