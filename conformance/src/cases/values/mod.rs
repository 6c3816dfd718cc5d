//! Values: what is stored as it was given, and what is refused.

pub(super) mod fields;
pub(super) mod forms;
pub(super) mod ids;
pub(super) mod names;
