//! Listings: their order, and their pages.

pub(super) mod order;
pub(super) mod pages;
