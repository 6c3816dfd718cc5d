//! Whether a state is the one that the blocks lead to which are kept.

use std::collections::HashMap;

use bytes::Bytes;

use crate::backend::Backend;
use crate::block::{RowChange, Serial};
use crate::command::Image;
use crate::error::{Error, Result};
use crate::schema::{RowKey, Table, content_of};
use crate::state::State;
use crate::writer::read_blocks;

/// Compares the rows that kept blocks changed with `state`. A row as it was before its last block, or
/// after blocks that are not there, has a valid check of its own.
pub(crate) async fn check(backend: &dyn Backend, state: &State) -> Result<()> {
    let oldest = backend.head().await?.oldest_block.get();
    let mut last = LastImages::default();
    read_blocks(backend, Serial::new(oldest.saturating_sub(1)), |encoded| {
        if encoded.serial <= state.serial() {
            last.add(encoded.decode()?.changes);
        }
        Ok(())
    })
    .await?;
    last.compare(state.images())
}

/// What each row was last changed to; `None` if it was deleted.
#[derive(Debug, Default)]
struct LastImages(HashMap<(Table, RowKey), Option<Bytes>>);

impl LastImages {
    fn add(&mut self, changes: Vec<RowChange>) {
        // A body that is part of its block's bytes would keep all of those.
        let own = |body: Bytes| Bytes::copy_from_slice(&body);
        let image = |change: RowChange| ((change.table, change.key), change.body.map(own));
        self.0.extend(changes.into_iter().map(image));
    }

    fn compare(mut self, images: impl Iterator<Item = Image>) -> Result<()> {
        for image in images {
            let place = (image.table(), image.key());
            let same = match self.0.remove(&place) {
                Some(Some(body)) => content_of(&body)? == content_of(&image.encode())?,
                Some(None) => false,
                None => true,
            };
            if !same {
                return Err(contradicts(&place));
            }
        }
        match self.0.iter().find(|(_, body)| body.is_some()) {
            Some((place, _)) => Err(contradicts(place)),
            None => Ok(()),
        }
    }
}

fn contradicts((table, key): &(Table, RowKey)) -> Error {
    Error::corrupt(
        "a row is not what the last block that changed it says: a write got lost, or files of \
         different moments were put together; restore the store from a backup",
    )
    .with("table", table.name())
    .with("key", format_args!("{key:?}"))
}
