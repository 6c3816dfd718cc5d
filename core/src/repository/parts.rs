//! Calls over many entities: as many commands as it takes, each of a size that a commit can have.

use crate::command::{Command, Part};
use crate::domain::NodeId;
use crate::error::Result;
use crate::handle::StoreHandle;
use crate::state::Reply;

impl StoreHandle {
    /// Runs the command that `make` gives for each part until one comes to the end, and hands each
    /// reply to `take`. Others are served in between. If a part fails, those before it stay.
    pub(super) async fn run_in_parts(
        &self,
        mut make: impl FnMut(Part) -> Command + Send,
        mut take: impl FnMut(Reply) -> Result<()> + Send,
    ) -> Result<()> {
        let mut part = Part { after: None, bytes: Some(self.part_bytes()) };
        loop {
            match self.run(make(part)).await? {
                Reply::Unfinished { so_far, after } => {
                    take(*so_far)?;
                    part.after = after;
                }
                last => return take(last),
            }
        }
    }

    /// As [`StoreHandle::run_in_parts`], for commands that answer how many they changed.
    pub(super) async fn count_in_parts(
        &self,
        make: impl FnMut(Part) -> Command + Send,
    ) -> Result<u64> {
        let mut count = 0;
        let add = |reply| {
            count += super::expect_reply!(reply, Count)?;
            Ok(())
        };
        self.run_in_parts(make, add).await?;
        Ok(count)
    }

    /// As [`StoreHandle::run_in_parts`], for commands that answer which nodes they changed.
    pub(super) async fn nodes_in_parts(
        &self,
        make: impl FnMut(Part) -> Command + Send,
    ) -> Result<Vec<NodeId>> {
        let mut nodes = Vec::new();
        let add = |reply| {
            nodes.extend(super::expect_reply!(reply, Nodes)?);
            Ok(())
        };
        self.run_in_parts(make, add).await?;
        Ok(nodes)
    }
}
