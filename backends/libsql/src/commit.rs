//! What a commit writes.

use ghostwire_store_core::backend::Commit;
use ghostwire_store_core::error::Result;

use crate::link::Link;
use crate::meta;
use crate::shape::Shapes;

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
