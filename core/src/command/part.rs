//! How much of a command over many entities one commit takes.

use serde::{Deserialize, Serialize};

use crate::domain::NodeId;

/// How much of a command over many entities one commit takes. The default is all of it, as in
/// transactions. A command that did not come to its end answers `Reply::Unfinished`, and is sent
/// again with the place from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// Only the nodes after this one. Commands that remove what they have dealt with need no
    /// place to go on from.
    pub after: Option<NodeId>,
    /// The part ends once its rows take about so many bytes of a block; it has one entity at least.
    pub bytes: Option<u64>,
}

impl Part {
    /// All of it in one commit.
    pub const WHOLE: Self = Self { after: None, bytes: None };
}
