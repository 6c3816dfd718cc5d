//! Going on from an older copy.

use crate::backend::{Backend, Head, HeadChange};
use crate::block::{ChangeKind, RowChange};
use crate::domain::{Actor, AuditEntry, AuditId, Clock, LineageId, ResourceKind};
use crate::entropy::{Entropy, draw};
use crate::error::Result;
use crate::log::hold::commit_entry;
use crate::position::Epoch;

/// Begins a history of its own where a store stands that was put back to an older copy: one commit with a
/// later epoch, a new lineage and a line in the audit trail, `pin.accept` of the serial. Whoever followed
/// the store further than that learns by those that its history is another one. Gives the head after it.
///
/// # Errors
/// `InvalidArgument` if the epoch is not above the store's; those of
/// [`Backend::commit`] and [`Backend::confirm`].
pub async fn begin_timeline(
    backend: &dyn Backend,
    epoch: Epoch,
    actor: Actor,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<Head> {
    let found = backend.head().await?;
    let at = clock.now().max(found.time);
    let id = AuditId::time_ordered(at, draw(entropy)?);
    let (action, kind) = ("pin.accept".parse()?, "store".parse::<ResourceKind>()?);
    let line = AuditEntry::new((at, id), actor, action, kind, found.serial.to_string().parse()?);
    let rows = [RowChange::put(ChangeKind::Created, &line)];
    let lineage = Some(LineageId::from_bytes(draw(entropy)?));
    let change = HeadChange { epoch: Some(epoch), lineage, ..HeadChange::default() };
    let head = commit_entry(backend, entropy, None, &rows, |_, _, commit| {
        commit.head = change;
        Ok(())
    })
    .await?;
    backend.confirm().await?;
    Ok(head)
}
