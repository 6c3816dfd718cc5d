//! The `fjall` crate: a log-structured merge tree. `PersistMode::SyncAll` is an fsync with each
//! commit.

use std::path::Path;

use fjall::{
    Iter, KeyspaceCreateOptions, PersistMode, Readable, SingleWriterTxDatabase,
    SingleWriterTxKeyspace,
};
use ghostwire_store_bench_workload::subject::Result;

use super::keyed::{Each, KeyValue, Keyed, Reader, Space, Writer};

/// An open database.
pub(super) struct Fjall {
    database: SingleWriterTxDatabase,
    keyspaces: Vec<(Space, SingleWriterTxKeyspace)>,
}

/// Makes the keyspaces.
pub(super) fn open(directory: &Path) -> Result<Keyed<Fjall>> {
    let database = SingleWriterTxDatabase::builder(directory.join("fjall")).open()?;
    let keyspaces: Result<Vec<_>> = Space::ALL
        .into_iter()
        .map(|space| Ok((space, database.keyspace(space.name(), KeyspaceCreateOptions::default)?)))
        .collect();
    Ok(Keyed(Fjall { database, keyspaces: keyspaces? }))
}

impl Fjall {
    fn keyspace(&self, space: Space) -> Result<&SingleWriterTxKeyspace> {
        let found = self.keyspaces.iter().find(|(known, _)| *known == space);
        Ok(found.map(|(_, keyspace)| keyspace).ok_or("a keyspace is missing")?)
    }
}

fn visit(mut pairs: Iter, backwards: bool, each: Each<'_>) -> Result<()> {
    while let Some(pair) = if backwards { pairs.next_back() } else { pairs.next() } {
        let (key, value) = pair.into_inner()?;
        if !each(&key, &value)? {
            break;
        }
    }
    Ok(())
}

/// A snapshot, or a transaction, with the keyspaces.
struct Within<'w, T> {
    fjall: &'w Fjall,
    transaction: T,
}

impl<T: Readable> Reader for Within<'_, T> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.transaction.get(self.fjall.keyspace(space)?, key)?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn range(
        &self,
        space: Space,
        (from, to): (&[u8], &[u8]),
        backwards: bool,
        each: Each<'_>,
    ) -> Result<()> {
        let keyspace = self.fjall.keyspace(space)?;
        visit(self.transaction.range(keyspace, from.to_vec()..to.to_vec()), backwards, each)
    }
}

impl Writer for Within<'_, fjall::SingleWriterWriteTx<'_>> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<()> {
        let keyspace = self.fjall.keyspace(space)?;
        self.transaction.insert(keyspace, key, value);
        Ok(())
    }
}

impl KeyValue for Fjall {
    fn write<T>(&self, work: impl FnOnce(&mut dyn Writer) -> Result<T>) -> Result<T> {
        let transaction = self.database.write_tx().durability(Some(PersistMode::SyncAll));
        let mut within = Within { fjall: self, transaction };
        let done = work(&mut within)?;
        within.transaction.commit()?;
        Ok(done)
    }

    fn read<T>(&self, work: impl FnOnce(&dyn Reader) -> Result<T>) -> Result<T> {
        work(&Within { fjall: self, transaction: self.database.read_tx() })
    }
}
