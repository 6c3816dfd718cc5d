//! The log: what blocks are, the chain that they form, replaying them, and how many are kept.

pub mod block;
pub mod chain;
pub(crate) mod consumers;
pub(crate) mod encoding;
pub mod feed;
pub(crate) mod hold;
pub(crate) mod replay;
pub(crate) mod retention;
