//! Counting what no head counts, or counts wrongly.

use ghostwire_store_core::error::Result;

use super::{Counts, Cursor, Resealing};
use crate::engine::Snapshot;
use crate::envelope::{Envelope, Kind, version_of};
use crate::head::Stored;

/// How far a store is sealed anew, by what is stored. Says so if the head counts something else.
pub(crate) fn recounted(
    snapshot: &mut dyn Snapshot,
    envelope: &Envelope,
    stored: &Stored,
) -> Result<Resealing> {
    let counts = count_versions(snapshot, envelope, stored)?;
    let counted = stored.resealing.counts;
    // The head of an earlier build, or of a store that was just written anew, counts nothing.
    if !counted.is_empty() && counted != counts {
        tracing::warn!(
            counted = ?counted.iter().collect::<Vec<_>>(),
            found = ?counts.iter().collect::<Vec<_>>(),
            "records were counted wrongly by versions of the data key, and are counted anew; what is to be \
             sealed anew is looked for from the beginning"
        );
    }
    Ok(Resealing { counts, cursor: Cursor::default(), ..stored.resealing })
}

/// How many records there are under which version. Read only if the keyring has several.
fn count_versions(
    snapshot: &mut dyn Snapshot,
    envelope: &Envelope,
    stored: &Stored,
) -> Result<Counts> {
    if let Some(version) = envelope.only_version() {
        return Ok(Counts::only(version, stored.records()));
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
