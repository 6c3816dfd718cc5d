//! Making a file, and connecting to one.

use std::path::Path;
use std::sync::Arc;

use ghostwire_store_core::backend::Head;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::Schema;
use ghostwire_store_sqlite::{Compact, Database, StoreFile};

use crate::blocks::check_last_block;
use crate::check::{Opened, verify};
use crate::layout::check_layout;
use crate::link::Link;
use crate::meta;
use crate::shape::Shapes;

/// An open file: its connections, and what its tables look like.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) database: Database<Link>,
    pub(crate) shapes: Shapes,
}

impl Open {
    /// Connects to a store that was made, and reads what its tables look like and where it stands.
    pub(crate) fn begin(file: &Arc<StoreFile>) -> Result<(Self, Head)> {
        let moment = |link: &mut Link| {
            let Head { position, checkpoint, epoch, .. } = meta::head(link)?;
            Ok([position.get(), checkpoint.get(), epoch.get()])
        };
        let begin = || {
            let database = Database::open(file, moment)?;
            let (shapes, head) = database.read(read_tables)?;
            Ok((Self { database, shapes }, head))
        };
        begin().map_err(|error: Error| error.with("path", file.path().display()))
    }
}

fn read_tables(link: &mut Link) -> Result<(Shapes, Head)> {
    let head = meta::head(link)?;
    check_last_block(link, &head)?;
    if meta::version_of(link)?.version != head.schema.version {
        return Err(Error::corrupt("the file's header and its tables tell different schemas")
            .with("tables", head.schema.version));
    }
    Schema::current().steps_from(head.schema)?;
    check_layout(link, head.schema)?;
    let shapes = Shapes::read(link, head.schema)?;
    Ok((shapes, head))
}

impl Opened for Open {
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        work(self)
    }
}

impl Compact for Open {
    /// The head, and how many rows and blocks there are.
    type Content = (Head, usize, u64);

    fn settle(&self) -> Result<()> {
        self.database.settle()
    }

    fn verify(&self) -> Result<Self::Content> {
        verify(self)
    }

    fn bytes_in_use(&self) -> Result<u64> {
        self.database.bytes_in_use()
    }

    fn copy_to(&self, copy: &Path) -> Result<()> {
        self.database.copy_to(copy)
    }

    fn close(self) -> Result<()> {
        self.database.close()
    }
}
