//! Whether what is stored amounts to the state in memory.

use std::collections::HashMap;

use bytes::Bytes;

use super::Writer;
use crate::backend::Backend;
use crate::block::RowChange;
use crate::command::EntityRecord;
use crate::error::{Error, Result};
use crate::log::chain::{Chain, read_chain};
use crate::schema::{RowKey, Table, content_of};
use crate::state::State;

impl Writer {
    /// Compares everything that is stored with the state. Writers wait meanwhile, so that all that is
    /// read belongs to one commit.
    pub(super) async fn verify(&mut self) -> Result<()> {
        // What another process has committed is no damage.
        self.refresh().await?;
        self.flush_all().await?;
        self.backend.verify().await?;
        let limit = self.options.retain_block_bytes;
        let loaded = crate::loader::load(&self.backend, limit).await?;
        let (stored, state) = (loaded.state, self.state());
        let digest = crate::digest::state_digest(&stored);
        if stored.hash() != state.hash() || digest != crate::digest::state_digest(&state) {
            return Err(Error::corrupt("what is stored differs from what is in memory")
                .with("serial", state.serial())
                .with("stored_serial", stored.serial())
                .with("stored_digest", digest));
        }
        check_blocks(self.backend.as_ref(), &state).await
    }
}

/// Compares the rows that the kept blocks changed with `state`: a row that is older than its last
/// block, or newer than every block, may be intact by itself.
async fn check_blocks(backend: &dyn Backend, state: &State) -> Result<()> {
    let head = backend.head().await?;
    let mut last = LastImages::default();
    read_chain(backend, Chain::kept(&head), |encoded| {
        if encoded.serial <= state.serial() {
            last.add(encoded.decode()?.changes);
        }
        Ok(())
    })
    .await?;
    last.compare(state.images())
}

/// The last image of each row in the blocks; `None` if it was deleted.
#[derive(Debug, Default)]
struct LastImages(HashMap<(Table, RowKey), Option<Bytes>>);

impl LastImages {
    fn add(&mut self, changes: Vec<RowChange>) {
        // A slice would keep the bytes of its whole block.
        let own = |body: Bytes| Bytes::copy_from_slice(&body);
        let image = |change: RowChange| ((change.table, change.key), change.body.map(own));
        self.0.extend(changes.into_iter().map(image));
    }

    fn compare(mut self, images: impl Iterator<Item = EntityRecord>) -> Result<()> {
        for image in images {
            let row = (image.table(), image.key());
            let same = match self.0.remove(&row) {
                Some(Some(body)) => content_of(&body)? == content_of(&image.encode())?,
                Some(None) => false,
                None => true,
            };
            if !same {
                return Err(contradicts(&row));
            }
        }
        match self.0.iter().find(|(_, body)| body.is_some()) {
            Some((row, _)) => Err(contradicts(row)),
            None => Ok(()),
        }
    }
}

fn contradicts((table, key): &(Table, RowKey)) -> Error {
    Error::corrupt(
        "a row differs from the last block that changed it: a write was lost, or the files are of \
         different times; restore the store from a backup",
    )
    .with("table", table.name())
    .with("key", format_args!("{key:?}"))
}
