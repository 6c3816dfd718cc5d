//! Credentials: their secrets, and their use.

pub(super) mod imported;
pub(super) mod key;
pub(super) mod keys;
pub(super) mod lifetimes;
pub(super) mod secrets;
pub(super) mod sign_ins;
