//! Applying blocks to the state that they follow.

use std::sync::Arc;

use super::block::{EncodedBlock, RowChange};
use crate::domain::AuditEntry;
use crate::error::Result;
use crate::state::State;

/// What a block changed.
pub(crate) struct Replayed {
    pub(crate) rows: Vec<RowChange>,
    pub(crate) audit: Vec<Arc<AuditEntry>>,
}

/// Applies a block to the state that it follows, which was checked when it was read.
pub(crate) fn replay(state: &mut State, encoded: &EncodedBlock) -> Result<Replayed> {
    let block = encoded.decode()?;
    for change in &block.changes {
        state.evolve_row(change).map_err(|error| error.with("serial", encoded.serial))?;
    }
    state.advance(encoded.serial, encoded.hash, encoded.time);
    let audit = block.audit.unwrap_or_default().into_iter().map(Arc::new).collect();
    Ok(Replayed { rows: block.changes, audit })
}
