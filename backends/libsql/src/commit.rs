//! What a commit writes.

use ghostwire_store_core::backend::{Commit, Head};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::Connection;

use crate::blocks;
use crate::link::Link;
use crate::shape::Shapes;

/// Writes everything that `commit` names; to be called in a transaction. Tells how many rows.
pub(crate) fn fill(
    link: &mut Link,
    shapes: &Shapes,
    commit: &Commit,
    scratch: &mut Vec<u8>,
) -> Result<usize> {
    let before = shapes.meta.head(link)?;
    let head = before.after(commit)?;
    if let Some(block) = &commit.block {
        blocks::insert_block(link, block)?;
    }
    for range in &commit.prune {
        let shape = shapes.of(range.table);
        if let Some((sql, parameters)) = shape.and_then(|shape| shape.prune(range)) {
            link.execute(&sql, parameters)?;
        }
    }
    let rows = fold(link, shapes, commit, scratch)?;
    if head.oldest_block > before.oldest_block {
        blocks::purge_blocks(link, head.oldest_block)?;
    }
    if head != before {
        shapes.meta.move_head(link, &before, &head)?;
    }
    Ok(rows)
}

/// Has an empty store stand where `head` does; to be called in a transaction.
pub(crate) fn adopt(link: &mut Link, shapes: &Shapes, head: &Head) -> Result<()> {
    let before = shapes.meta.head(link)?;
    let after = before.adopt(head)?;
    // What is only flushed is not counted by the head.
    for shape in shapes.all() {
        let [has_rows] = link.integers(&shape.has_rows())?;
        if has_rows != 0 {
            return Err(Error::new(ErrorKind::Restricted, "the store has rows; name an empty one")
                .with("table", shape.table.name()));
        }
    }
    shapes.meta.move_head(link, &before, &after)
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
        // The head refused rows that the stored schema has no table for.
        let Some(shape) = shapes.of(first.table) else { continue };
        let sql = if first.body.is_some() { &shape.insert } else { &shape.delete };
        let values = run.iter().map(|change| match &change.body {
            Some(body) => shape.row_values(&change.key, body, scratch),
            None => shape.key_values(&change.key),
        });
        link.execute_each(sql, values)?;
    }
    Ok(kept.len())
}
