//! Storing a commit: one transaction.

use ghostwire_store_core::backend::Commit;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::StoreFile;

use crate::NAME;
use crate::link::Link;
use crate::meta;
use crate::shape::Shapes;

/// Ends a transaction that failed. Tells whether the connection can be used again.
fn roll_back(link: &mut Link) -> bool {
    if !link.is_idle()
        && let Err(error) = link.run("ROLLBACK")
    {
        tracing::warn!(db.system.name = NAME, %error, "a transaction could not be rolled back");
    }
    link.is_idle()
}

/// Whether an error of `COMMIT` says that nothing was stored.
fn was_surely_refused(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Busy | ErrorKind::Exhausted | ErrorKind::ReadOnly)
}

/// Runs `work` in a transaction that is stored as a whole or not at all.
pub(crate) fn transaction<T>(
    file: &StoreFile,
    slot: &mut Option<Link>,
    failed: &mut Option<Link>,
    work: impl FnOnce(&mut Link) -> Result<T>,
) -> Result<T> {
    let link = slot.as_mut().ok_or_else(|| {
        Error::new(ErrorKind::Unavailable, "an earlier commit failed; reopen the store first")
    })?;
    link.execute("BEGIN IMMEDIATE", Vec::new())?;
    let (error, is_usable) = match work(link) {
        Err(error) => (error, roll_back(link)),
        Ok(done) => match link.execute("COMMIT", Vec::new()) {
            Ok(_) => match file.confirm_commit() {
                Ok(()) => return Ok(done),
                Err(error) => (error, false),
            },
            Err(error) if was_surely_refused(&error) => (error, roll_back(link)),
            Err(error) => {
                roll_back(link);
                let unknown = Error::new(
                    ErrorKind::OutcomeUnknown,
                    "it cannot be told whether the commit was stored; reopen the store",
                );
                (unknown.because(error), false)
            }
        },
    };
    if !is_usable {
        *failed = slot.take();
    }
    Err(error)
}

/// Writes everything that `commit` names; to be called in a transaction. Tells how many rows.
pub(crate) fn fill(
    link: &mut Link,
    shapes: &Shapes,
    commit: &Commit,
    scratch: &mut Vec<u8>,
) -> Result<usize> {
    let before = meta::head(link)?;
    let head = before.after(commit)?;
    if let Some(block) = &commit.block {
        meta::insert_block(link, block)?;
    }
    for range in &commit.prune {
        if let Some((sql, parameters)) = shapes.of(range.table)?.prune(range) {
            link.execute(&sql, parameters)?;
        }
    }
    let rows = fold(link, shapes, commit, scratch)?;
    if head.oldest_block > before.oldest_block {
        meta::purge_blocks(link, head.oldest_block)?;
    }
    if head != before {
        meta::move_head(link, before.serial, &head)?;
    }
    Ok(rows)
}

/// Writes the row images in the order of their keys; of two for one key, the later one.
fn fold(link: &mut Link, shapes: &Shapes, commit: &Commit, scratch: &mut Vec<u8>) -> Result<usize> {
    let mut changes: Vec<_> = commit.rows.iter().collect();
    changes.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    let is_last = |index: usize| {
        let key = |at: usize| changes.get(at).map(|change| (change.table, &change.key));
        key(index) != key(index + 1)
    };
    let mut kept: Vec<_> = changes
        .iter()
        .enumerate()
        .filter(|(index, _)| is_last(*index))
        .map(|(_, row)| *row)
        .collect();
    // Deletions and writes of different keys commute.
    kept.sort_by_key(|change| (change.table, change.body.is_some()));
    for run in kept.chunk_by(|a, b| (a.table, a.body.is_some()) == (b.table, b.body.is_some())) {
        let Some(first) = run.first() else { continue };
        let shape = shapes.of(first.table)?;
        let sql = if first.body.is_some() { &shape.insert } else { &shape.delete };
        let values = run.iter().map(|change| match &change.body {
            Some(body) => shape.row_values(&change.key, body, scratch),
            None => shape.key_values(&change.key),
        });
        link.execute_each(sql, values)?;
    }
    Ok(kept.len())
}
