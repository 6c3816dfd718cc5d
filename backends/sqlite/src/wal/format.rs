//! The bytes of a write-ahead log and of its index:
//! <https://sqlite.org/fileformat2.html#the_write_ahead_log> and <https://sqlite.org/walformat.html>.

/// Bytes before the first frame.
pub(super) const LOG_HEADER: usize = 32;
/// Bytes of a frame before its page.
pub(super) const FRAME_HEADER: usize = 24;
/// What the index begins with: two copies of its header.
pub(super) const INDEX_HEADERS: usize = 2 * INDEX_HEADER;
const INDEX_HEADER: usize = 48;
/// With checksums over little-endian words; one more is over big-endian ones.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// What frames have in common that were written since the log was begun anew.
pub(super) type Salts = [u8; 8];

/// The header of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogHeader {
    pub(super) page_size: usize,
    pub(super) salts: Salts,
    checksum: Checksum,
}

impl LogHeader {
    /// `None` if SQLite would not take it for one, and thus the log for an empty one.
    pub(super) fn read(bytes: &[u8; LOG_HEADER]) -> Option<Self> {
        let magic = word(bytes, 0)?;
        let page_size = usize::try_from(word(bytes, 8)?).ok()?;
        let is_known = magic & !1 == MAGIC
            && word(bytes, 4)? == VERSION
            && page_size.is_power_of_two()
            && (512..=65_536).contains(&page_size);
        let checksum = Checksum::new(magic & 1 == 1).over(bytes.get(..24)?);
        let is_whole = checksum.is(bytes.get(24..)?);
        (is_known && is_whole).then_some(Self { page_size, salts: array(bytes, 16)?, checksum })
    }

    pub(super) fn frame_size(&self) -> usize {
        FRAME_HEADER + self.page_size
    }

    /// Where frames are checked from the first one on.
    pub(super) fn chain(&self) -> Chain {
        Chain { salts: self.salts, checksum: self.checksum }
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Whether a transaction ends with it.
    pub(super) commits: bool,
    pub(super) salts: Salts,
}

impl FrameHeader {
    pub(super) fn read(bytes: &[u8; FRAME_HEADER]) -> Option<Self> {
        Some(Self { commits: word(bytes, 4)? != 0, salts: array(bytes, 8)? })
    }
}

/// Frames that follow each other: the checksum of each goes over all before it.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    salts: Salts,
    checksum: Checksum,
}

impl Chain {
    /// Takes the next frame, header and page; `None` if it does not follow.
    pub(super) fn take(&mut self, frame: &[u8]) -> Option<FrameHeader> {
        let (header, page) = frame.split_at_checked(FRAME_HEADER)?;
        let fields = FrameHeader::read(&array(header, 0)?)?;
        let checksum = self.checksum.over(header.get(..8)?).over(page);
        let follows =
            word(header, 0)? != 0 && fields.salts == self.salts && checksum.is(header.get(16..)?);
        follows.then(|| {
            self.checksum = checksum;
            fields
        })
    }
}

/// What the index of a log says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Index {
    /// The frames up to here were committed. SQLite writes that after they were synchronised.
    pub(super) frames: u64,
    pub(super) salts: Salts,
}

impl Index {
    /// `None` if it was being written, or says nothing.
    pub(super) fn read(bytes: &[u8; INDEX_HEADERS]) -> Option<Self> {
        let (header, copy) = bytes.split_at_checked(INDEX_HEADER)?;
        let native = |at| array(header, at).map(u32::from_ne_bytes);
        let is_filled = header.get(12) != Some(&0);
        let checksum = Checksum::new(cfg!(target_endian = "big")).over(header.get(..40)?);
        let is_whole = header == copy
            && native(0)? == VERSION
            && native(40)? == checksum.0
            && native(44)? == checksum.1;
        (is_filled && is_whole)
            .then_some(Self { frames: u64::from(native(16)?), salts: array(header, 32)? })
    }
}

/// SQLite's checksum of words in pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checksum(pub(super) u32, pub(super) u32, bool);

impl Checksum {
    pub(super) fn new(is_big_endian: bool) -> Self {
        Self(0, 0, is_big_endian)
    }

    /// Bytes that are no whole pair of words do not count; there are none.
    pub(super) fn over(self, bytes: &[u8]) -> Self {
        let Self(mut first, mut second, is_big_endian) = self;
        let (pairs, _) = bytes.as_chunks::<8>();
        for &[a, b, c, d, e, f, g, h] in pairs {
            let (one, two) = match is_big_endian {
                true => (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])),
                false => (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])),
            };
            first = first.wrapping_add(one).wrapping_add(second);
            second = second.wrapping_add(two).wrapping_add(first);
        }
        Self(first, second, is_big_endian)
    }

    /// Whether it is the one that is stored, which is big-endian always.
    fn is(&self, stored: &[u8]) -> bool {
        word(stored, 0) == Some(self.0) && word(stored, 4) == Some(self.1)
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

/// For the fuzz target.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads bytes as a log and as an index, whatever they are.
    pub fn read(bytes: &[u8]) {
        let index = bytes.first_chunk().and_then(super::Index::read);
        let found = super::super::survey::of_log(&mut std::io::Cursor::new(bytes), index);
        assert!(found.is_ok_and(|found| found.frames <= bytes.len() as u64 / 512));
    }
}
