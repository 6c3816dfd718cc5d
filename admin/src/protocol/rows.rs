//! Rows and blocks in frames of data: one after the other, without regard to where a frame ends.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ghostwire_store_core::backend::Row;
use ghostwire_store_core::block::{BlockHash, EncodedBlock, MAX_BLOCK, Serial};
use ghostwire_store_core::domain::{BlockId, Timestamp};
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{RowKey, Table};

/// What has a form in frames of data.
pub trait Wire: Sized {
    /// Appends it.
    fn put(&self, to: &mut BytesMut);

    /// Takes one from the beginning; `None` if more bytes are needed for that.
    ///
    /// # Errors
    /// `InvalidArgument` for what cannot be one, whatever follows.
    fn take(from: &mut BytesMut) -> Result<Option<Self>>;
}

/// Splits `length` bytes off, behind a header that was looked at; `None` if they are not all there.
fn split(from: &mut BytesMut, header: usize, length: usize) -> Result<Option<Bytes>> {
    if length > MAX_BLOCK {
        let error = Error::invalid("a row or block on the admin socket is too long");
        return Err(error.with("bytes", length).with("at_most", MAX_BLOCK));
    }
    if from.len() < header + length {
        return Ok(None);
    }
    from.advance(header);
    Ok(Some(from.split_to(length).freeze()))
}

/// The length of a key as 2 bytes, the key, the length of a body as 4 bytes, the body.
impl Wire for Row {
    fn put(&self, to: &mut BytesMut) {
        let key = self.key.as_bytes();
        to.put_u16(u16::try_from(key.len()).unwrap_or(u16::MAX));
        to.put_slice(key);
        to.put_u32(u32::try_from(self.body.len()).unwrap_or(u32::MAX));
        to.put_slice(&self.body);
    }

    fn take(from: &mut BytesMut) -> Result<Option<Self>> {
        let mut seen = &from[..];
        let Ok(key_length) = seen.try_get_u16() else { return Ok(None) };
        let key_length = usize::from(key_length);
        let Some(key) = seen.get(..key_length) else { return Ok(None) };
        let key = RowKey::from_bytes(key)?;
        seen.advance(key_length);
        let Ok(length) = seen.try_get_u32() else { return Ok(None) };
        let body = split(from, 2 + key_length + 4, length as usize)?;
        Ok(body.map(|body| Self { key, body }))
    }
}

/// Serial, id, time, hash of the block before, hash; the length of the bytes as 4 bytes; the bytes.
impl Wire for EncodedBlock {
    fn put(&self, to: &mut BytesMut) {
        to.put_u64(self.serial.get());
        to.put_slice(self.id.as_bytes());
        to.put_i64(self.time.as_micros());
        to.put_slice(self.previous.as_bytes());
        to.put_slice(self.hash.as_bytes());
        to.put_u32(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
        to.put_slice(&self.bytes);
    }

    fn take(from: &mut BytesMut) -> Result<Option<Self>> {
        const HEADER: usize = 8 + 16 + 8 + 32 + 32 + 4;
        let Some(mut header) = from.get(..HEADER) else { return Ok(None) };
        let (mut id, mut previous, mut hash) = ([0; 16], [0; 32], [0; 32]);
        let number = header.get_u64();
        let serial = Serial::new(number);
        if serial.get() != number {
            let error = Error::invalid("a block on the admin socket has no serial");
            return Err(error.with("serial", number));
        }
        header.copy_to_slice(&mut id);
        let time = Timestamp::from_micros(header.get_i64())?;
        header.copy_to_slice(&mut previous);
        header.copy_to_slice(&mut hash);
        let length = header.get_u32() as usize;
        let bytes = split(from, HEADER, length)?;
        Ok(bytes.map(|bytes| Self {
            serial,
            id: BlockId::from_bytes(id),
            time,
            previous: BlockHash::from_bytes(previous),
            hash: BlockHash::from_bytes(hash),
            bytes,
        }))
    }
}

/// An entity as it is stored, and whether it is one of those that were asked for or is shown beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedRow {
    /// Whether it was asked for.
    pub is_meant: bool,
    /// Where it is stored.
    pub table: Table,
    /// How.
    pub row: Row,
}

/// The table's number as 1 byte, 1 for what was asked for or else 0 as 1 byte, the row.
impl Wire for SelectedRow {
    fn put(&self, to: &mut BytesMut) {
        to.put_u8(self.table.number());
        to.put_u8(self.is_meant.into());
        self.row.put(to);
    }

    fn take(from: &mut BytesMut) -> Result<Option<Self>> {
        let Some((&[table, is_meant], _)) = from.split_first_chunk() else { return Ok(None) };
        let table = Table::from_number(table)
            .map_err(|error| Error::invalid("no such row is stored").because(error))?;
        let is_meant = match is_meant {
            0 => false,
            1 => true,
            _ => return Err(Error::invalid("a row is neither asked for nor shown beside those")),
        };
        let mut rest = from.split_off(2);
        let row = Row::take(&mut rest)?;
        match row {
            Some(_) => *from = rest,
            None => from.unsplit(rest),
        }
        Ok(row.map(|row| Self { is_meant, table, row }))
    }
}

/// Joins frames of data into what they carry.
#[derive(Debug)]
pub struct Decoder<T> {
    rest: BytesMut,
    of: PhantomData<T>,
}

impl<T: Wire> Default for Decoder<T> {
    fn default() -> Self {
        Self { rest: BytesMut::new(), of: PhantomData }
    }
}

impl<T: Wire> Decoder<T> {
    /// Adds a frame's bytes. Gives what is whole by now.
    ///
    /// # Errors
    /// `InvalidArgument` for what cannot be right.
    pub fn push(&mut self, data: &[u8]) -> Result<Vec<T>> {
        self.rest.extend_from_slice(data);
        std::iter::from_fn(|| T::take(&mut self.rest).transpose()).collect()
    }

    /// The answer has ended.
    ///
    /// # Errors
    /// `InvalidArgument` if something is not whole.
    pub fn finish(self) -> Result<()> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => {
                Err(Error::invalid("an answer on the admin socket ends in the middle of a row")
                    .with("bytes", self.rest.len()))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |key: &[u8], body: usize| Row {
            key: RowKey::from_bytes(key).unwrap(),
            body: Bytes::from(vec![9; body]),
        };
        vec![row(b"", 0), row(b"a", 300), row(&[255; 512], 1)]
    }

    fn sent<T: Wire>(items: &[T]) -> BytesMut {
        let mut bytes = BytesMut::new();
        items.iter().for_each(|item| item.put(&mut bytes));
        bytes
    }

    #[test]
    fn rows_come_whole_wherever_frames_end() {
        let bytes = sent(&rows());
        for size in [1, 2, 7, 64, bytes.len()] {
            let mut decoder = Decoder::<Row>::default();
            let mut came = Vec::new();
            bytes.chunks(size).for_each(|frame| came.extend(decoder.push(frame).unwrap()));
            assert_eq!(came, rows());
            decoder.finish().unwrap();
        }
        let mut decoder = Decoder::<Row>::default();
        decoder.push(&bytes[..bytes.len() - 1]).unwrap();
        decoder.finish().unwrap_err();
    }

    #[test]
    fn selected_rows_come_whole_wherever_frames_end() {
        let selected =
            |(number, row)| SelectedRow { is_meant: number == 0, table: Table::Nodes, row };
        let selected: Vec<_> = rows().into_iter().enumerate().map(selected).collect();
        let bytes = sent(&selected);
        for size in [1, 3, 64, bytes.len()] {
            let mut decoder = Decoder::<SelectedRow>::default();
            let mut came = Vec::new();
            bytes.chunks(size).for_each(|frame| came.extend(decoder.push(frame).unwrap()));
            assert_eq!(came, selected);
            decoder.finish().unwrap();
        }
        Decoder::<SelectedRow>::default().push(&[99, 0]).unwrap_err();
        Decoder::<SelectedRow>::default().push(&[Table::Nodes.number(), 2]).unwrap_err();
    }

    #[test]
    fn blocks_come_as_they_went() {
        let block = EncodedBlock {
            serial: Serial::new(7),
            id: BlockId::from_bytes([1; 16]),
            time: Timestamp::EPOCH,
            previous: BlockHash::from_bytes([2; 32]),
            hash: BlockHash::from_bytes([3; 32]),
            bytes: Bytes::from_static(b"block"),
        };
        let blocks = [block.clone(), block];
        let mut decoder = Decoder::<EncodedBlock>::default();
        assert_eq!(decoder.push(&sent(&blocks)).unwrap(), blocks);
        decoder.finish().unwrap();
    }

    #[test]
    fn what_cannot_be_right_is_refused_at_once() {
        let mut long_key = BytesMut::new();
        long_key.put_u16(513);
        long_key.put_bytes(0, 513);
        Decoder::<Row>::default().push(&long_key).unwrap_err();
        let mut long_body = BytesMut::new();
        long_body.put_u16(0);
        long_body.put_u32(u32::MAX);
        Decoder::<Row>::default().push(&long_body).unwrap_err();
    }
}
