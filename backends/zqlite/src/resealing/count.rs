//! Counting what no head counts yet.

use ghostwire_store_core::error::Result;

use super::Counts;
use crate::engine::Snapshot;
use crate::envelope::{Envelope, Kind, version_of};
use crate::head::Stored;

/// How many records there are under which version, of a store whose head does not say it: that of an earlier
/// build, a plain one, one that has none. Read only if the keyring has several versions.
pub(crate) fn count_versions(
    snapshot: &mut dyn Snapshot,
    envelope: &Envelope,
    stored: &Stored,
) -> Result<Counts> {
    let Stored { rows, head, series, directory, .. } = stored;
    if let Some(version) = envelope.only_version() {
        let blocks = head.serial.next().get().saturating_sub(head.oldest_block.get());
        let journal = series.next.saturating_sub(series.first);
        let parts = [*rows, blocks, blocks, journal, series.data_blocks, directory.leaves];
        let records = parts.into_iter().fold(0, u64::saturating_add);
        return Ok(Counts::only(version, records));
    }
    let mut counts = Counts::default();
    if envelope.version().is_some() {
        for kind in
            Kind::ALL.into_iter().filter(|kind| !matches!(kind, Kind::Head | Kind::Signature))
        {
            snapshot.frames(kind, 0, usize::MAX, &mut |_, frame| {
                version_of(frame).into_iter().for_each(|version| counts.add(version));
                Ok(())
            })?;
        }
    }
    Ok(counts)
}
