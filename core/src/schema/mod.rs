//! How entities become rows: tables, columns, keys, the bytes of a row, and the versions of all
//! that.

mod field;
mod key;
mod record;
mod table;
mod value;

pub use key::{KeyKind, MAX_KEY, RowKey};
pub use record::{KeyField, Record, WriterPosition};
pub use table::{
    Column, ColumnKind, KeyColumn, MIGRATIONS, Migration, Schema, SchemaVersion, Table, TableSchema,
};
pub use value::{
    MAX_BODY, MAX_COLUMNS, RowReader, RowWriter, Value, content_of, encode_values, put_varint,
    take, take_length, take_varint,
};
