//! Requests that are no commands. They are served while no batch is open and nothing is in flight.

use super::{ATTEMPTS, Request, Writer, outrun, read_only};
use crate::backend::{Commit, KeyRange};
use crate::block::RowChange;
use crate::error::{ErrorKind, Result};
use crate::schema::Table;

impl Writer {
    pub(super) async fn maintain(&mut self, request: Request) {
        match request {
            Request::Refresh(answer) => answer.send(self.refresh().await),
            Request::Replace(ranges, rows, answer) => answer.send(self.replace(ranges, rows).await),
            Request::Checkpoint(answer) => answer.send(self.flush_all().await),
            Request::Verify(answer) => answer.send(self.verify().await),
            Request::Submit(..) | Request::Append(..) => {}
        }
    }

    /// Removes rows of series and writes others, in one commit without a block.
    async fn replace(&mut self, prune: Vec<KeyRange>, rows: Vec<RowChange>) -> Result<()> {
        if self.read_only {
            return Err(read_only());
        }
        for _ in 0..ATTEMPTS {
            self.refresh().await?;
            if self.has_unflushed_in(&prune) {
                self.flush_all().await?;
            }
            let expected = self.state().serial();
            let (prune, rows) = (prune.clone(), rows.clone());
            let commit = Commit { expected, prune, rows, ..Commit::default() };
            match self.store(&commit).await {
                Err(error) if *error.kind() == ErrorKind::Conflict => {
                    self.catch_up_after_conflict().await?;
                }
                stored => return stored,
            }
        }
        Err(outrun())
    }

    /// Whether audit entries in these ranges are only in blocks: a later flush would bring them back.
    fn has_unflushed_in(&self, ranges: &[KeyRange]) -> bool {
        let published = self.shared.published.load();
        let mut of_audit = ranges.iter().filter(|range| range.table == Table::Audit);
        of_audit.any(|range| published.audit.within(range, false).next().is_some())
    }

    /// Brings the state to where the backend stands.
    pub(super) async fn refresh(&mut self) -> Result<()> {
        if self.poisoned {
            return self.reopen().await;
        }
        if self.is_shared { self.catch_up().await } else { Ok(()) }
    }
}
