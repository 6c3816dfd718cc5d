//! Listings: their order, and their pages.

pub(super) mod cursors;
pub(super) mod order;
pub(super) mod pages;
