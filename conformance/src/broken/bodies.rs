//! Bodies that are not stored as they came.

use bytes::Bytes;
use ghostwire_store_core::schema::{ColumnKind, RowReader, RowWriter, Schema, Table, Value};

use super::Fault;

const MIB: usize = 1024 * 1024;

/// What becomes of a body on its way to the store.
pub(super) fn stored(fault: Fault, table: Table, body: &Bytes) -> Bytes {
    match fault {
        Fault::CutsLongBodies => body.slice(..body.len().min(MIB)),
        Fault::FillsNulls
        | Fault::EmptiesText
        | Fault::CutsTimes
        | Fault::StoresIntegersAsFloats
        | Fault::StoresFloatsAsSingles
        | Fault::TrimsText
        | Fault::LowersText
        | Fault::ReplacesWideCharacters => rewritten(fault, table, body),
        _ => body.clone(),
    }
}

fn rewritten(fault: Fault, table: Table, body: &Bytes) -> Bytes {
    // Who breaks bodies leaves alone what is no body.
    let Ok(mut reader) = RowReader::new(body) else { return body.clone() };
    let mut buffer = bytes::BytesMut::new();
    let mut writer = RowWriter::begin(&mut buffer, reader.version());
    let mut columns = Schema::current().columns(table);
    while let Ok(Some(value)) = reader.next_value() {
        let kind = columns.next().map_or(ColumnKind::Text, |column| column.kind);
        let text;
        writer.put(match (fault, kind, value) {
            (Fault::FillsNulls, kind, Value::Null) => match kind {
                ColumnKind::Text | ColumnKind::Json => Value::Text(""),
                ColumnKind::Id => Value::Bytes(&[0; 16]),
                ColumnKind::Key(_) => Value::Bytes(&[0; 32]),
                _ => Value::Integer(0),
            },
            (Fault::EmptiesText, _, Value::Text("")) => Value::Null,
            (Fault::CutsTimes, ColumnKind::Time, Value::Integer(micros)) => {
                Value::Integer(micros / 1_000 * 1_000)
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
            (Fault::StoresIntegersAsFloats, _, Value::Integer(integer)) => {
                Value::Integer(integer as f64 as i64)
            }
            #[allow(clippy::cast_possible_truncation)]
            (Fault::StoresFloatsAsSingles, _, Value::Real(real)) => {
                Value::Real(f64::from(real as f32))
            }
            (Fault::TrimsText, _, Value::Text(text)) => Value::Text(text.trim_end()),
            (Fault::LowersText, _, Value::Text(mixed)) => {
                text = mixed.to_lowercase();
                Value::Text(&text)
            }
            (Fault::ReplacesWideCharacters, _, Value::Text(mixed)) => {
                text = mixed.replace(|character: char| character > '\u{ffff}', "?");
                Value::Text(&text)
            }
            (_, _, value) => value,
        });
    }
    buffer.freeze()
}

/// What becomes of a body on its way from the store.
pub(super) fn read(fault: Fault, body: Bytes) -> Bytes {
    if fault == Fault::FlipsABit && body.len() > 5_000 { flipped(&body) } else { body }
}

/// With one bit of the last byte flipped.
pub(super) fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}

/// Not more than a megabyte of it.
pub(super) fn cut(bytes: &Bytes) -> Bytes {
    bytes.slice(..bytes.len().min(MIB))
}
