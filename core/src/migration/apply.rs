//! What a follower stores of each commit that it takes.

use crate::backend::{Commit, Head};
use crate::block::{Block, ChangeKind, EncodedBlock, RowChange, Serial};
use crate::error::{Error, Result};
use crate::log::feed::{self, LogEntry};

/// The commit that makes an entry of the log part of a follower that stands at `head`. Its rows are written
/// at once, whatever the other side does; blocks below `purge_before` are not kept.
///
/// # Errors
/// `Corrupt` if it is not the entry after the last one, or cannot be read.
pub(super) fn apply(head: &Head, entry: &LogEntry, purge_before: Serial) -> Result<Commit> {
    if entry.position != head.position.next() {
        return Err(Error::corrupt("a commit is missing between two sides of a migration")
            .with("position", head.position)
            .with("entry", entry.position));
    }
    let mut rows = match &entry.block {
        Some(block) => rows_of(block)?,
        None => Vec::new(),
    };
    rows.extend(entry.rows.iter().cloned());
    Ok(Commit {
        entry: Some(entry.commit),
        block: entry.block.clone(),
        rows,
        prune: entry.prune.clone(),
        checkpoint: Some(entry.serial),
        purge_before: Some(purge_before),
        ..Commit::on(head)
    })
}

/// The same where the follower takes each commit together with the authority: it keeps the entry of the last
/// one, since the authority may lack it.
///
/// # Errors
/// As [`apply`].
pub(super) fn apply_in_step(head: &Head, entry: &LogEntry, purge_before: Serial) -> Result<Commit> {
    let mut commit = apply(head, entry, purge_before)?;
    commit.prune.push(feed::up_to(head.position));
    commit.rows.extend(feed::rows_for(entry));
    Ok(commit)
}

/// The commit that writes the rows of a block which a copy that stands at `head` has already.
pub(super) fn fold(head: &Head, block: &EncodedBlock) -> Result<Commit> {
    Ok(Commit { rows: rows_of(block)?, checkpoint: Some(block.serial), ..Commit::on(head) })
}

fn rows_of(encoded: &EncodedBlock) -> Result<Vec<RowChange>> {
    let Block { changes, audit, .. } = encoded.decode()?;
    let mut rows = changes;
    let entries = audit.unwrap_or_default();
    rows.extend(entries.iter().map(|entry| RowChange::put(ChangeKind::Created, entry)));
    Ok(rows)
}
