//! The signed manifest: what convinces somebody who has no key that the store stood where it does.
//!
//! A record of constant size, sealed like all others, is written in the transaction of each checkpoint
//! and names the one before by its hash; the head names the newest. `docs/cryptography.md` has its
//! bytes, and what it is compared with.

use ghostwire_store_core::backend::{Attestation, AttestedState};
use ghostwire_store_core::block::{BlockHash, Serial};
use ghostwire_store_core::domain::SideId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_crypto::signature::{
    self, Attested, Counts, Manifest, SignedManifest, Signer, Successions,
};
use sha2::{Digest, Sha256};

use crate::engine::{Batch, Snapshot, Write};
use crate::envelope::{Envelope, Kind, Reader, Sealer, missing, older, refused, unexpected};
use crate::head::{Signed, Stored, Sums};

/// In `meta`: the newest signature record.
pub(crate) const SIGNATURE: u64 = 2;
/// In `meta`: the keys that signed before, each with what it signed of the one that followed.
pub(crate) const FORMER_SIGNERS: u64 = 3;
/// The number of that record. Signatures count from 1.
const NO_SIGNATURE: u64 = 0;

/// Signs where the store stands once the batch is written, and has the head name it. To be called when
/// nothing but the head is left to write. Does nothing in a plain store.
pub(crate) fn sign(
    sealer: &mut Sealer<'_>,
    batch: &mut Batch<'_>,
    after: &mut Stored,
) -> Result<()> {
    let start = batch.bytes.len();
    if sign_into(sealer, after, &mut batch.bytes)? {
        let body = start..batch.bytes.len();
        batch.writes.push(Write::BesideHead { id: SIGNATURE, body });
    }
    Ok(())
}

/// Does so with a record that is written some other way. Tells whether there is one.
pub(crate) fn sign_into(
    sealer: &mut Sealer<'_>,
    after: &mut Stored,
    into: &mut Vec<u8>,
) -> Result<bool> {
    let Some(signer) = sealer.signer() else { return Ok(false) };
    let (record, signed) = record_of(after, signer)?;
    sealer.seal(Kind::Signature, signed.number, &[&record.to_bytes()], into)?;
    after.signature = Some(signed);
    Ok(true)
}

fn record_of(stored: &Stored, signer: &Signer) -> Result<(SignedManifest, Signed)> {
    let (number, before) = match stored.signature {
        Some(Signed { number, hash }) => (number.checked_add(1), hash),
        None => (Some(1), [0; 32]),
    };
    let number = number
        .ok_or_else(|| Error::new(ErrorKind::Exhausted, "the numbers of signatures are used up"))?;
    let record = SignedManifest::sign(manifest(stored, before), signer);
    let record = record.map_err(|error| refused(&error))?;
    let hash = record.hash();
    Ok((record, Signed { number, hash }))
}

/// What a store that stands here is signed as.
fn manifest(stored: &Stored, before: [u8; 32]) -> Manifest {
    let Stored { head, series, directory, inventory, .. } = stored;
    let Sums { rows, journal, blocks, leaves } = inventory;
    let sums = [rows, journal, blocks, leaves].map(|sum| *sum.as_bytes());
    Manifest {
        store: *head.side.as_bytes(),
        epoch: head.epoch.get(),
        commit: stored.commits,
        serial: head.serial.get(),
        block: *head.block.as_bytes(),
        block_hash: *head.hash.as_bytes(),
        checkpoint: head.checkpoint.get(),
        time: u64::try_from(head.time.as_micros()).unwrap_or_default(),
        counts: Counts {
            rows: stored.rows,
            blocks: head.serial.next().get().saturating_sub(head.oldest_block.get()),
            journal: series.next.saturating_sub(series.first),
            leaves: directory.leaves,
        },
        inventory: Sha256::digest(sums.as_flattened()).into(),
        before,
    }
}

/// Reads and checks the newest signature: that it is the one that the head names, that it holds, and that
/// the head is what was signed, or follows from it. Gives the commit that was signed; `None` if the store
/// is plain, or of a build that signed nothing.
pub(crate) fn check(
    snapshot: &mut dyn Snapshot,
    envelope: &Envelope,
    stored: &Stored,
) -> Result<Option<u64>> {
    let found = snapshot.beside_head(SIGNATURE)?;
    let (signed, bytes) = match (stored.signature, found) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(unexpected(Kind::Signature, NO_SIGNATURE)),
        (Some(signed), None) => return Err(missing(Kind::Signature, signed.number)),
        (Some(signed), Some(bytes)) => (signed, bytes),
    };
    let mut reader = envelope.reader();
    let record = reader.open_signature(signed.number, &bytes)?;
    let record = SignedManifest::parse(record).map_err(|error| refused(&error))?;
    if record.hash() != signed.hash {
        return Err(older(Kind::Signature, signed.number));
    }
    let keys = envelope.signers().find(|keys| keys.id() == record.signer()).ok_or_else(|| {
        Error::corrupt(
            "the store is signed by other keys than those of its keyring: somebody signed it who has a \
             data key, or a rotation ended before it was signed anew; restore the store and its keyring \
             from backups of one time",
        )
        .with("signer", record.signer())
    })?;
    let manifest = record.verify(keys).map_err(|error| {
        Error::corrupt("the store's signature does not hold; restore the store from a backup")
            .because(error)
    })?;
    compare(manifest, stored)?;
    require_descent(manifest, snapshot, &mut reader, stored)?;
    snapshot.frames(Kind::Signature, FORMER_SIGNERS, 1, &mut |number, _| {
        Err(unexpected(Kind::Signature, number))
    })?;
    Ok(Some(manifest.commit))
}

/// A manifest of the head's own commit says what the head does. An older one says of everything that
/// only grows at most what the head does.
fn compare(signed: &Manifest, stored: &Stored) -> Result<()> {
    let own = manifest(stored, signed.before);
    let is_own = signed.commit == own.commit;
    let has_blocks = signed.serial != own.serial;
    let checks = [
        ("store", signed.store == own.store),
        ("commit", signed.commit <= own.commit),
        ("epoch", signed.epoch <= own.epoch && (!is_own || signed.epoch == own.epoch)),
        ("serial", signed.serial <= own.serial && (!is_own || signed.serial == own.serial)),
        ("checkpoint", signed.checkpoint <= own.checkpoint),
        ("block", has_blocks || (signed.block, signed.block_hash) == (own.block, own.block_hash)),
        ("time", has_blocks || signed.time == own.time),
        ("checkpoint", !is_own || signed.checkpoint == own.checkpoint),
        ("counts", !is_own || signed.counts == own.counts),
        ("inventory", !is_own || signed.inventory == own.inventory),
    ];
    match checks.into_iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((field, _)) => Err(contradicts(field, signed, stored)),
    }
}

/// The block after the one that was signed, if it is kept, has to name that as the one before it. The
/// chain from there to the head is followed by whoever reads it.
fn require_descent(
    signed: &Manifest,
    snapshot: &mut dyn Snapshot,
    reader: &mut Reader<'_>,
    stored: &Stored,
) -> Result<()> {
    let next = Serial::new(signed.serial).next();
    if next > stored.head.serial || next < stored.head.oldest_block {
        return Ok(());
    }
    let mut previous = None;
    snapshot.blocks(next.get(), next.get(), 1, &mut |block| {
        previous = Some(reader.open_block(block, None)?.previous);
        Ok(())
    })?;
    match previous == Some(BlockHash::from_bytes(signed.block_hash)) {
        true => Ok(()),
        false => Err(contradicts("block", signed, stored)),
    }
}

fn contradicts(field: &'static str, signed: &Manifest, stored: &Stored) -> Error {
    Error::corrupt(
        "the store is not where it was signed to be, nor does it follow from there; restore it from a backup",
    )
    .with("field", field)
    .with("signed_commit", signed.commit)
    .with("commit", stored.commits)
    .with("signed_serial", signed.serial)
    .with("serial", stored.head.serial)
}

/// Signs that the store was in a state.
pub(crate) fn attest(
    snapshot: &mut dyn Snapshot,
    envelope: &Envelope,
    side: SideId,
    state: &AttestedState,
) -> Result<Attestation> {
    let Some(signer) = envelope.signer() else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the store is plain: it has no keys, so nothing that it says of itself convinces anybody else",
        )
        .with("help", "`gwstore seal` makes a sealed store of it"));
    };
    let attested = Attested {
        store: *side.as_bytes(),
        epoch: state.epoch.get(),
        commit: state.position.get(),
        serial: state.serial.get(),
        block_hash: *state.hash.as_bytes(),
        time: u64::try_from(state.time.as_micros()).unwrap_or_default(),
        digest: *state.digest.as_bytes(),
    };
    let former = former_signers(snapshot, envelope)?;
    let signed =
        signature::Attestation::sign(attested, signer, former).map_err(|error| refused(&error))?;
    let signer = signed.signer().to_string();
    Ok(Attestation { state: *state, signer, text: signed.to_string() })
}

/// The keys that signed before those of the keyring. Nobody needs them but to follow from one to the next.
pub(crate) fn former_signers(
    snapshot: &mut dyn Snapshot,
    envelope: &Envelope,
) -> Result<Successions> {
    let Some(bytes) = snapshot.beside_head(FORMER_SIGNERS)? else {
        return Ok(Successions::default());
    };
    let mut reader = envelope.reader();
    let (content, _) = reader.open(Kind::Signature, NO_SIGNATURE, &bytes)?;
    Successions::parse(content).map_err(|error| refused(&error))
}

/// Nothing but following depends on them, so a store is opened all the same; verifying it says so.
pub(crate) fn warn_of_unreadable_signers(snapshot: &mut dyn Snapshot, envelope: &Envelope) {
    if let Err(error) = former_signers(snapshot, envelope) {
        tracing::warn!(%error, "the keys that signed before cannot be read; the next rotation leaves them out");
    }
}

/// Writes the former signers anew, under the version that seals now, and with those before a rotation that
/// is under way.
pub(crate) fn write_former_signers(
    snapshot: &mut dyn Snapshot,
    sealer: &mut Sealer<'_>,
    envelope: &Envelope,
    batch: &mut Batch<'_>,
) -> Result<()> {
    let mut former = former_signers(snapshot, envelope).unwrap_or_else(|error| {
        tracing::warn!(
            %error,
            "the keys that signed before cannot be read and are left out: who knows one of those cannot \
             follow from it to the ones that sign now"
        );
        Successions::default()
    });
    if let Some(succession) = envelope.succession()? {
        former.note(succession);
    }
    if former.is_empty() {
        return Ok(());
    }
    let (start, content) = (batch.bytes.len(), former.to_bytes());
    sealer.seal(Kind::Signature, NO_SIGNATURE, &[&content], &mut batch.bytes)?;
    let body = start..batch.bytes.len();
    batch.writes.push(Write::BesideHead { id: FORMER_SIGNERS, body });
    Ok(())
}

#[cfg(test)]
mod tests;
