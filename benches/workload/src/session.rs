//! A subject with its files and what it holds, ready to be measured.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::data::Content;
use crate::results::{Case, Run};
use crate::subject::{Candidate, Result, Subject, load};
use crate::targets::Targets;
use crate::{Kind, Operation, Spread, driver, machine};

/// How long a plain file is appended to, for comparison.
const BARE: Duration = Duration::from_millis(300);

pub struct Session {
    subject: Arc<dyn Subject>,
    targets: Arc<Targets>,
    directory: TempDir,
    content: Content,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("content", &self.content).finish_non_exhaustive()
    }
}

/// Whether a run changes what the next one of its kind would find, so that each needs a subject of
/// its own.
pub fn needs_a_fresh_subject(operation: Operation) -> bool {
    use Operation::*;
    matches!(operation, Register | SignIn | Import | Metrics | ReadsWhileWriting)
}

impl Session {
    pub fn subject(&self) -> &Arc<dyn Subject> {
        &self.subject
    }

    /// Opens a candidate in a directory of its own below `within`, and loads what it shall hold.
    pub async fn open(candidate: &Candidate, content: Content, within: &Path) -> Result<Self> {
        let session = Self::open_empty(candidate, content, within).await?;
        load(session.subject.as_ref(), content).await?;
        Ok(session)
    }

    async fn open_empty(candidate: &Candidate, content: Content, within: &Path) -> Result<Self> {
        let directory = machine::scratch(within)?;
        let subject = candidate.open(directory.path().to_owned()).await?;
        Ok(Self { subject, targets: Arc::new(Targets::new(content)), directory, content })
    }

    /// A subject that somebody else has filled with this content.
    pub fn on(subject: Arc<dyn Subject>, content: Content, within: &Path) -> Result<Self> {
        let directory = machine::scratch(within)?;
        Ok(Self { subject, targets: Arc::new(Targets::new(content)), directory, content })
    }

    pub async fn run(&self, case: &Case) -> Result<Run> {
        let (subject, targets) = (&self.subject, &self.targets);
        let run = match case.operation.kind() {
            Kind::Write => driver::writes(subject, targets, case).await,
            Kind::Read => driver::reads(subject, targets, case).await,
            Kind::Special if case.operation == Operation::ReadsWhileWriting => {
                driver::reads_while_writing(subject, targets, case).await
            }
            Kind::Special => driver::import(subject, self.content).await,
        };
        Ok(driver::with_files(run?, self.directory.path()))
    }

    pub async fn end(self) -> Result<()> {
        self.subject.close().await
    }

    /// Closes it, and gives the mean size of its blocks, if it writes any.
    async fn end_with_blocks(self) -> Result<Option<f64>> {
        self.subject.close().await?;
        self.subject.block_bytes().await
    }
}

/// Measures a candidate once, with a subject of its own.
pub async fn run_once(candidate: &Candidate, case: &Case, within: &Path) -> Result<Run> {
    // Importing is what the run does.
    let session = if case.operation == Operation::Import {
        Session::open_empty(candidate, case.content, within).await?
    } else {
        Session::open(candidate, case.content, within).await?
    };
    let run = session.run(case).await?;
    let block_bytes = match case.operation {
        Operation::Register | Operation::SignIn => session.end_with_blocks().await?,
        _ => session.end().await.map(|()| None)?,
    };
    let bare = block_bytes.map(|bytes| machine::append_and_sync(within, bytes as usize, BARE));
    let bare_sync_us = bare
        .transpose()?
        .map(|times| Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e6)).median);
    Ok(Run { block_bytes, bare_sync_us, ..run })
}

/// A candidate that holds nothing but users and nodes, in this directory.
pub async fn fill(candidate: &Candidate, nodes: u64, directory: &Path) -> Result<()> {
    let subject = candidate.open(directory.to_owned()).await?;
    driver::fill(&subject, Content { nodes, ..Content::default() }).await?;
    subject.settle().await?;
    subject.close().await
}
