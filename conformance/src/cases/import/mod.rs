//! Bringing in whole entities, and comparing stores.

pub(super) mod digests;
pub(super) mod restore;
