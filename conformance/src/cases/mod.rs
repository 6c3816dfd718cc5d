//! The cases, one file for each part of the contract.

mod backend;
mod credentials;
mod disk;
mod dns_settings;
mod errors;
mod following;
mod import;
mod instances;
mod listings;
mod nodes;
mod policies;
mod presence;
mod routes;
mod series;
mod shared;
mod users;
mod values;
mod views;
mod writes;

use crate::case::{Case, Check};

/// All cases.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [
        errors::CASES,
        writes::durable::CASES,
        writes::commits::CASES,
        writes::failures::CASES,
        writes::probing::CASES,
        writes::transactions::CASES,
        writes::revisions::CASES,
        writes::block_size::CASES,
        writes::parts::CASES,
        writes::clock::CASES,
        writes::closing::CASES,
        writes::opening::CASES,
        values::forms::CASES,
        values::fields::CASES,
        values::ids::CASES,
        values::names::CASES,
        listings::cursors::CASES,
        listings::order::CASES,
        listings::pages::CASES,
        users::CASES,
        nodes::registration::CASES,
        nodes::repetitions::CASES,
        nodes::machines::CASES,
        nodes::removal::CASES,
        nodes::labels::CASES,
        nodes::addresses::CASES,
        nodes::backfill::CASES,
        nodes::node_keys::CASES,
        nodes::settings::CASES,
        presence::CASES,
        instances::CASES,
        routes::offers::CASES,
        routes::one_by_one::CASES,
        routes::primaries::CASES,
        routes::expiry::CASES,
        routes::lookups::CASES,
        policies::CASES,
        dns_settings::CASES,
        credentials::secrets::CASES,
        credentials::imported::CASES,
        credentials::key::CASES,
        credentials::keys::CASES,
        credentials::lifetimes::CASES,
        credentials::sign_ins::CASES,
        series::metrics::CASES,
        series::sequences::CASES,
        series::moments::CASES,
        series::audit::CASES,
        series::audit_lines::CASES,
        views::snapshots::CASES,
        views::watching::CASES,
        import::restore::CASES,
        import::digests::CASES,
        following::feed::CASES,
        following::away::CASES,
        following::outcomes::CASES,
        following::migrating::CASES,
        shared::processes::CASES,
        shared::purged::CASES,
        shared::loading::CASES,
        shared::deadline::CASES,
        backend::adopt::CASES,
        backend::atomic::CASES,
        backend::blocks::CASES,
        backend::checkpoint::CASES,
        backend::close::CASES,
        backend::concurrent::CASES,
        backend::epoch::CASES,
        backend::head::CASES,
        backend::identity::CASES,
        backend::migrate::CASES,
        backend::position::CASES,
        backend::maintain::CASES,
        backend::probe::CASES,
        backend::prune::CASES,
        backend::record::CASES,
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
        import::digests::CHECKS,
        disk::CHECKS,
        crate::crash::CHECKS,
        crate::history::CHECKS,
        crate::model::CHECKS,
    ];
    checks.into_iter().flatten()
}
