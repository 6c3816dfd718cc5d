//! The `redb` crate: a copy-on-write B-tree. `Durability::Immediate` is an fsync with each commit.

use std::cell::RefCell;
use std::path::Path;

use ghostwire_store_bench_workload::subject::Result;
use redb::{
    Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, Table,
    TableDefinition,
};

use super::keyed::{Each, KeyValue, Keyed, Reader, Space, Writer};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

fn definition(space: Space) -> Definition {
    TableDefinition::new(space.name())
}

/// An open database.
pub(super) struct Redb(Database);

/// Makes the tables.
pub(super) fn open(directory: &Path) -> Result<Keyed<Redb>> {
    let database = Database::create(directory.join("redb.db"))?;
    let transaction = database.begin_write()?;
    for space in Space::ALL {
        transaction.open_table(definition(space))?;
    }
    transaction.commit()?;
    Ok(Keyed(Redb(database)))
}

fn get(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Vec<u8>>> {
    Ok(table.get(key)?.map(|value| value.value().to_vec()))
}

fn range(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    (from, to): (&[u8], &[u8]),
    backwards: bool,
    each: Each<'_>,
) -> Result<()> {
    let mut pairs = table.range::<&[u8]>(from..to)?;
    while let Some(pair) = if backwards { pairs.next_back() } else { pairs.next() } {
        let (key, value) = pair?;
        if !each(key.value(), value.value())? {
            break;
        }
    }
    Ok(())
}

/// Tables are opened when they are first needed, and kept until the transaction ends.
struct Reading<'r> {
    transaction: &'r ReadTransaction,
    tables: RefCell<Vec<(Space, std::rc::Rc<ReadOnlyTable<&'static [u8], &'static [u8]>>)>>,
}

impl Reading<'_> {
    fn table(
        &self,
        space: Space,
    ) -> Result<std::rc::Rc<ReadOnlyTable<&'static [u8], &'static [u8]>>> {
        let known = self.tables.borrow().iter().find(|(known, _)| *known == space).cloned();
        if let Some((_, table)) = known {
            return Ok(table);
        }
        let table = std::rc::Rc::new(self.transaction.open_table(definition(space))?);
        self.tables.borrow_mut().push((space, table.clone()));
        Ok(table)
    }
}

impl Reader for Reading<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        get(&*self.table(space)?, key)
    }

    fn range(
        &self,
        space: Space,
        keys: (&[u8], &[u8]),
        backwards: bool,
        each: Each<'_>,
    ) -> Result<()> {
        range(&*self.table(space)?, keys, backwards, each)
    }
}

struct Writing<'t>(Vec<(Space, Table<'t, &'static [u8], &'static [u8]>)>);

impl<'t> Writing<'t> {
    fn table(&self, space: Space) -> Result<&Table<'t, &'static [u8], &'static [u8]>> {
        let found = self.0.iter().find(|(known, _)| *known == space);
        Ok(found.map(|(_, table)| table).ok_or("a table is missing")?)
    }
}

impl Reader for Writing<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        get(self.table(space)?, key)
    }

    fn range(
        &self,
        space: Space,
        keys: (&[u8], &[u8]),
        backwards: bool,
        each: Each<'_>,
    ) -> Result<()> {
        range(self.table(space)?, keys, backwards, each)
    }
}

impl Writer for Writing<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<()> {
        let found = self.0.iter_mut().find(|(known, _)| *known == space);
        let (_, table) = found.ok_or("a table is missing")?;
        table.insert(key, value)?;
        Ok(())
    }
}

impl KeyValue for Redb {
    fn write<T>(&self, work: impl FnOnce(&mut dyn Writer) -> Result<T>) -> Result<T> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let done = {
            let open = |space| Ok((space, transaction.open_table(definition(space))?));
            let tables: Result<Vec<_>> = Space::ALL.into_iter().map(open).collect();
            work(&mut Writing(tables?))?
        };
        transaction.commit()?;
        Ok(done)
    }

    fn read<T>(&self, work: impl FnOnce(&dyn Reader) -> Result<T>) -> Result<T> {
        let transaction = self.0.begin_read()?;
        work(&Reading { transaction: &transaction, tables: RefCell::default() })
    }
}
