//! Tables, columns and the versions in which they came to be.

use bytes::Bytes;

use super::key::KeyKind;
use super::value::{MAX_COLUMNS, RowReader, RowWriter, Value};
pub use crate::entity::Table;
use crate::error::{Error, Result};

/// How a column's values look in a database with real columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// 0 or 1.
    Bool,
    /// A 64-bit integer.
    Integer,
    /// A finite 64-bit float.
    Real,
    /// Microseconds since the epoch.
    Time,
    /// UTF-8, stored as it is.
    Text,
    /// A JSON document.
    Json,
    /// 16 bytes; hyphenated in text.
    Id,
    /// 32 bytes; this prefix and hexadecimal digits in text.
    Key(&'static str),
    /// Bytes of a format of its own.
    Bytes,
}

/// One column of a table's body.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Column {
    /// The name, also in SQL.
    pub name: &'static str,
    /// What its values are.
    pub kind: ColumnKind,
    /// Whether it may be null. A column that came after version 1 always may.
    pub nullable: bool,
    /// The schema version that added it.
    pub since: u32,
}

/// One column of a table's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyColumn {
    /// The name, also in SQL.
    pub name: &'static str,
    /// What its values are.
    pub kind: KeyKind,
}

/// A table's shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TableSchema {
    /// The table whose shape this is.
    pub table: Table,
    /// Its key, in order.
    pub key: &'static [KeyColumn],
    /// Its body, in order; a later version only appends.
    pub columns: &'static [Column],
    /// The schema version that added the table.
    pub since: u32,
}

/// The version of a stored schema, and who may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaVersion {
    /// The version that this step leads to.
    pub version: u32,
    /// The oldest version whose code may still open what this one writes.
    pub oldest_reader: u32,
}

impl SchemaVersion {
    /// Whether the head of what is stored counts positions, and has an epoch and an id of its own.
    #[must_use]
    pub fn counts_positions(self) -> bool {
        self.version >= 3
    }

    /// Whether it says of what migration the database is part.
    #[must_use]
    pub fn has_records(self) -> bool {
        self.version >= 5
    }
}

/// One step of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// What it leads to.
    pub to: SchemaVersion,
    /// What it changes, in a sentence.
    pub summary: &'static str,
}

/// Every version there has been, oldest first.
pub const MIGRATIONS: &[Migration] = &[
    Migration { to: SchemaVersion { version: 1, oldest_reader: 1 }, summary: "the first schema" },
    Migration {
        to: SchemaVersion { version: 2, oldest_reader: 1 },
        summary: "dns_records.ttl: an optional time to live",
    },
    // Programs that know version 2 at most would commit without counting positions.
    Migration {
        to: SchemaVersion { version: 3, oldest_reader: 3 },
        summary: "the head counts positions and has an epoch; tables `feed` and `consumers`",
    },
    // Programs that know version 3 at most refuse the table, and values of forms that they do not know.
    Migration {
        to: SchemaVersion { version: 4, oldest_reader: 4 },
        summary: "what a control plane keeps beside its nodes: sign-ins, settings, details",
    },
    // Programs that know version 4 at most would write to a database that another one has followed.
    Migration {
        to: SchemaVersion { version: 5, oldest_reader: 5 },
        summary: "the head says of what migration between backends the database is part",
    },
];

/// The tables and columns as of one version. [`Schema::current`] is the one in use; older ones
/// exist so that files can be carried forward, and tested.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schema {
    version: SchemaVersion,
}

impl Schema {
    /// The schema that this build writes.
    #[must_use]
    pub fn current() -> Self {
        let version = MIGRATIONS
            .last()
            .map_or(SchemaVersion { version: 1, oldest_reader: 1 }, |migration| migration.to);
        Self { version }
    }

    /// An older schema.
    ///
    /// # Errors
    /// `SchemaMismatch` if this build does not know that version.
    pub fn at(version: u32) -> Result<Self> {
        MIGRATIONS
            .iter()
            .find(|migration| migration.to.version == version)
            .map(|migration| Self { version: migration.to })
            .ok_or_else(|| schema_mismatch(version))
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> SchemaVersion {
        self.version
    }

    /// The tables of this version.
    pub fn tables(&self) -> impl Iterator<Item = Table> + use<> {
        let version = self.version.version;
        Table::ALL.into_iter().filter(move |table| table.schema().since <= version)
    }

    /// The columns of `table` in this version.
    pub fn columns(&self, table: Table) -> impl Iterator<Item = &'static Column> + use<> {
        let version = self.version.version;
        table.schema().columns.iter().filter(move |column| column.since <= version)
    }

    /// The key columns of `table`.
    #[must_use]
    pub fn key(&self, table: Table) -> &'static [KeyColumn] {
        table.schema().key
    }

    /// The steps that lead from `stored` to this schema, oldest first; empty if there are none to
    /// take, also where `stored` is newer and still admits this reader.
    ///
    /// # Errors
    /// `SchemaMismatch`, naming both versions, if `stored` does not admit this reader.
    pub fn steps_from(&self, stored: SchemaVersion) -> Result<&'static [Migration]> {
        if stored.version > self.version.version {
            return if stored.oldest_reader <= self.version.version {
                Ok(&[])
            } else {
                Err(schema_mismatch(stored.version).with("oldest_reader", stored.oldest_reader))
            };
        }
        let first = MIGRATIONS.partition_point(|step| step.to.version <= stored.version);
        let last = MIGRATIONS.partition_point(|step| step.to.version <= self.version.version);
        Ok(MIGRATIONS.get(first..last).unwrap_or_default())
    }

    /// Rewrites a body so that it has exactly this schema's columns: missing ones become null,
    /// unknown ones are dropped. A body that fits already is shared, not copied.
    ///
    /// # Errors
    /// `Corrupt` if the body cannot be read.
    pub fn fit(&self, table: Table, body: &Bytes) -> Result<Bytes> {
        let wanted = self.columns(table).count();
        let mut reader = RowReader::new(body)?;
        if reader.version() == self.version.version {
            return Ok(body.clone());
        }
        let mut fitted = bytes::BytesMut::with_capacity(body.len() + 8);
        let mut writer = RowWriter::begin(&mut fitted, self.version.version);
        for _ in 0..wanted.min(MAX_COLUMNS) {
            writer.put(reader.next_value()?.unwrap_or(Value::Null));
        }
        Ok(fitted.freeze())
    }
}

fn schema_mismatch(found: u32) -> Error {
    let supported = Schema::current().version.version;
    let message = if found > supported {
        "the stored schema cannot be read by this version; use a newer release"
    } else {
        "no release ever had a schema of this version; the file is damaged, or was not made by one"
    };
    Error::new(crate::error::ErrorKind::SchemaMismatch { found, supported }, message)
        .with("found", found)
        .with("supported", supported)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::{Revision, WriterId};
    use crate::error::ErrorKind;
    use crate::schema::value::encode_values;
    use crate::schema::{Record, RowKey, WriterPosition};

    #[test]
    fn versions_are_consecutive() {
        for (index, step) in MIGRATIONS.iter().enumerate() {
            assert_eq!(step.to.version as usize, index + 1);
            assert!(step.to.oldest_reader <= step.to.version);
        }
    }

    #[test]
    fn later_columns_are_appended_and_nullable() {
        for table in Table::ALL {
            let columns = table.schema().columns;
            assert!(columns.len() <= MAX_COLUMNS);
            assert!(columns.is_sorted_by_key(|column| column.since), "{table:?}");
            let first = table.schema().since;
            assert!(columns.iter().all(|column| column.since == first || column.nullable));
        }
    }

    #[test]
    fn a_newer_schema_opens_only_while_it_admits_this_reader() {
        let schema = Schema::current();
        let newer = schema.version().version + 1;
        let admits = SchemaVersion { version: newer, oldest_reader: 1 };
        assert_eq!(schema.steps_from(admits).unwrap(), &[]);
        let refuses = SchemaVersion { version: newer, oldest_reader: newer };
        let error = schema.steps_from(refuses).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::SchemaMismatch { found: newer, supported: newer - 1 });
        assert!(error.to_string().contains(&format!("found={newer}")));
    }

    #[test]
    fn a_row_under_the_nil_id_is_corrupt_and_named() {
        let position = WriterPosition {
            writer: WriterId::from_bytes([1; 16]),
            sequence: Revision::new(7).unwrap(),
        };
        let body = position.encode();
        assert_eq!(WriterPosition::decode(&position.key(), &body).unwrap(), position);
        let error = WriterPosition::decode(&RowKey::new().id(&[0; 16]), &body).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        assert!(text.contains("writer_positions") && text.contains("column=writer"), "{text}");
    }

    #[test]
    fn a_version_1_body_fits_the_current_schema() {
        assert!(Schema::at(0).unwrap_err().to_string().contains("no release ever"));
        assert!(Schema::at(u32::MAX).unwrap_err().to_string().contains("newer release"));
        let columns = Schema::at(1).unwrap().columns(Table::DnsRecords).count();
        let old = encode_values(1, (0..columns).map(|_| Value::Integer(7)));
        let fitted = Schema::current().fit(Table::DnsRecords, &old).unwrap();
        let mut reader = RowReader::new(&fitted).unwrap();
        let mut last = None;
        let mut count = 0;
        while let Some(value) = reader.next_value().unwrap() {
            last = Some(value);
            count += 1;
        }
        assert_eq!(count, Schema::current().columns(Table::DnsRecords).count());
        assert_eq!(last, Some(Value::Null));
    }
}
