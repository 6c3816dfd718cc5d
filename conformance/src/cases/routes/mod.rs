//! Routes: offering and approving them, which one is primary, and looking one up.

pub(super) mod expiry;
pub(super) mod lookups;
pub(super) mod offers;
pub(super) mod one_by_one;
pub(super) mod primaries;
