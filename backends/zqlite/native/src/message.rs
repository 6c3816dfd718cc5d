//! What parent and child say to each other.
//!
//! A message is a length, four bytes, big-endian, and so many bytes: a number, a tag and fields. Requests are
//! numbered from 1 on, and an answer has the number of its request. Whoever reads a message believes nothing
//! of it: every length is compared with what is there before anything is allocated.

use std::io::{self, Read};

/// The number of these messages' form.
pub const PROTOCOL: u64 = 1;

/// The version of this crate, which parent and child have to agree in.
pub const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// The longest message.
pub const MAX_MESSAGE: usize = 1 << 20;

/// How much of values goes into one message, so that it stays shorter than that.
pub(crate) const FILL: usize = MAX_MESSAGE / 2;

/// How many numbers go into one message.
pub(crate) const MAX_IDS: usize = 128;

/// The bytes at a value's beginning that are read without the rest.
pub const VALUE_HEADER: usize = 17;

/// A message that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// What the parent asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Request<'m> {
    /// Load the library in this file, if its bytes are those of the sum. The parent has these versions.
    Load { protocol: u64, program: &'m [u8], path: &'m [u8], sha256: [u8; 32] },
    /// Keep other children out by this file; one that lost its parent is waited for.
    Lock { path: &'m [u8] },
    /// Open the database in this file. `create`: it is new. `shared`: others may read it once it is open.
    Open { path: &'m [u8], create: bool, shared: bool },
    /// Tell the beginnings of rows after this one.
    Scan { after: u64 },
    /// Tell the values of these rows.
    Read { ids: Vec<u64> },
    /// Begin a transaction, if the value of row 1 is this. There is no answer before `Commit`.
    Begin { expected: &'m [u8] },
    /// Add rows.
    Put { rows: Vec<(u64, &'m [u8])> },
    /// Remove rows.
    Delete { ids: Vec<u64> },
    /// Make the transaction durable.
    Commit,
    /// Close the database, and end.
    Close,
    /// Do a part of the self-test.
    Test { part: &'m [u8], path: &'m [u8], argument: u64 },
    /// Go on with it.
    Continue,
}

/// What the child answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Response<'m> {
    /// The library is loaded, by a child of these versions.
    Loaded { protocol: u64, program: &'m [u8], version: &'m [u8], abi: u64, functions: u64 },
    /// It is refused. `is_file`: because of its file, not of what is in it.
    Refused { is_file: bool, why: &'m [u8] },
    /// Done.
    Done,
    /// Numbers, lengths and beginnings of rows, in order. None: there are no more.
    Scanned { rows: Vec<(u64, u32, &'m [u8])> },
    /// Values, as far as they fit, in the order that was asked for; at least one.
    Values { values: Vec<Option<&'m [u8]>> },
    /// Row 1 has another value.
    Conflict,
    /// The library failed. `is_undone`: nothing is stored; otherwise nobody knows.
    Failed { is_undone: bool, operation: &'m [u8], code: u64, category: u64, message: &'m [u8] },
    /// A part of the self-test came so far.
    Progress,
    /// A part of the self-test ended.
    Tested { passed: bool, text: &'m [u8] },
    /// The child failed, and not the library. It ends.
    Trouble { why: &'m [u8] },
}

/// Writes a message behind what is in `into`.
fn frame(into: &mut Vec<u8>, number: u64, tag: u8, fields: impl FnOnce(&mut Vec<u8>)) {
    let at = into.len();
    into.extend([0; 4]);
    put_number(into, number);
    into.push(tag);
    fields(into);
    let length = u32::try_from(into.len() - at - 4).unwrap_or(u32::MAX);
    if let Some(place) = into.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn put_number(into: &mut Vec<u8>, number: u64) {
    into.extend(number.to_be_bytes());
}

fn put_count(into: &mut Vec<u8>, count: usize) {
    into.extend(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    put_count(into, bytes.len());
    into.extend(bytes);
}

fn put_ids(into: &mut Vec<u8>, ids: &[u64]) {
    put_count(into, ids.len());
    ids.iter().for_each(|id| put_number(into, *id));
}

impl Request<'_> {
    /// Writes it, with its length, behind what is in `into`.
    pub fn encode(&self, number: u64, into: &mut Vec<u8>) {
        match self {
            Self::Load { protocol, program, path, sha256 } => frame(into, number, 1, |into| {
                put_number(into, *protocol);
                put_bytes(into, program);
                put_bytes(into, path);
                into.extend(sha256);
            }),
            Self::Open { path, create, shared } => frame(into, number, 2, |into| {
                put_bytes(into, path);
                into.extend([u8::from(*create), u8::from(*shared)]);
            }),
            Self::Scan { after } => frame(into, number, 3, |into| put_number(into, *after)),
            Self::Read { ids } => frame(into, number, 4, |into| put_ids(into, ids)),
            Self::Begin { expected } => frame(into, number, 5, |into| put_bytes(into, expected)),
            Self::Put { rows } => frame(into, number, 6, |into| {
                put_count(into, rows.len());
                for (id, value) in rows {
                    put_number(into, *id);
                    put_bytes(into, value);
                }
            }),
            Self::Delete { ids } => frame(into, number, 7, |into| put_ids(into, ids)),
            Self::Commit => frame(into, number, 8, |_| {}),
            Self::Close => frame(into, number, 9, |_| {}),
            Self::Test { part, path, argument } => frame(into, number, 10, |into| {
                put_bytes(into, part);
                put_bytes(into, path);
                put_number(into, *argument);
            }),
            Self::Continue => frame(into, number, 11, |_| {}),
            Self::Lock { path } => frame(into, number, 12, |into| put_bytes(into, path)),
        }
    }
}

impl<'m> Request<'m> {
    /// Reads what is behind the length: its number, and what it says.
    ///
    /// # Errors
    /// `Malformed` if it is none, or anything is behind it.
    pub fn decode(message: &'m [u8]) -> Result<(u64, Self), Malformed> {
        let mut fields = Fields(message);
        let number = fields.number()?;
        let request = match fields.byte()? {
            1 => {
                let (protocol, program) = (fields.number()?, fields.bytes()?);
                Self::Load { protocol, program, path: fields.bytes()?, sha256: fields.array()? }
            }
            2 => {
                let path = fields.bytes()?;
                Self::Open { path, create: fields.flag()?, shared: fields.flag()? }
            }
            3 => Self::Scan { after: fields.number()? },
            4 => Self::Read { ids: fields.ids()? },
            5 => Self::Begin { expected: fields.bytes()? },
            6 => Self::Put { rows: fields.list(12, |it| Ok((it.number()?, it.bytes()?)))? },
            7 => Self::Delete { ids: fields.ids()? },
            8 => Self::Commit,
            9 => Self::Close,
            10 => {
                let (part, path) = (fields.bytes()?, fields.bytes()?);
                Self::Test { part, path, argument: fields.number()? }
            }
            11 => Self::Continue,
            12 => Self::Lock { path: fields.bytes()? },
            _ => return Err(Malformed),
        };
        fields.end().map(|()| (number, request))
    }
}

impl Response<'_> {
    /// Writes it, with its length, behind what is in `into`.
    pub fn encode(&self, number: u64, into: &mut Vec<u8>) {
        match self {
            Self::Loaded { protocol, program, version, abi, functions } => {
                frame(into, number, 1, |into| {
                    put_number(into, *protocol);
                    put_bytes(into, program);
                    put_bytes(into, version);
                    put_number(into, *abi);
                    put_number(into, *functions);
                });
            }
            Self::Refused { is_file, why } => frame(into, number, 2, |into| {
                into.push(u8::from(*is_file));
                put_bytes(into, why);
            }),
            Self::Done => frame(into, number, 3, |_| {}),
            Self::Scanned { rows } => frame(into, number, 4, |into| {
                put_count(into, rows.len());
                for (id, length, beginning) in rows {
                    put_number(into, *id);
                    into.extend(length.to_be_bytes());
                    put_bytes(into, beginning);
                }
            }),
            Self::Values { values } => frame(into, number, 5, |into| {
                put_count(into, values.len());
                for value in values {
                    into.push(u8::from(value.is_some()));
                    put_bytes(into, value.unwrap_or_default());
                }
            }),
            Self::Conflict => frame(into, number, 6, |_| {}),
            Self::Failed { is_undone, operation, code, category, message } => {
                frame(into, number, 7, |into| {
                    into.push(u8::from(*is_undone));
                    put_bytes(into, operation);
                    put_number(into, *code);
                    put_number(into, *category);
                    put_bytes(into, message);
                });
            }
            Self::Progress => frame(into, number, 8, |_| {}),
            Self::Tested { passed, text } => frame(into, number, 9, |into| {
                into.push(u8::from(*passed));
                put_bytes(into, text);
            }),
            Self::Trouble { why } => frame(into, number, 10, |into| put_bytes(into, why)),
        }
    }
}

impl<'m> Response<'m> {
    /// Reads what is behind the length: its number, and what it says.
    ///
    /// # Errors
    /// As [`Request::decode`].
    pub fn decode(message: &'m [u8]) -> Result<(u64, Self), Malformed> {
        let mut fields = Fields(message);
        let number = fields.number()?;
        let response = match fields.byte()? {
            1 => {
                let (protocol, program) = (fields.number()?, fields.bytes()?);
                let (version, abi) = (fields.bytes()?, fields.number()?);
                Self::Loaded { protocol, program, version, abi, functions: fields.number()? }
            }
            2 => Self::Refused { is_file: fields.flag()?, why: fields.bytes()? },
            3 => Self::Done,
            4 => Self::Scanned {
                rows: fields.list(16, |it| {
                    let (id, length) = (it.number()?, it.count()?);
                    Ok((id, length, it.bytes()?))
                })?,
            },
            5 => Self::Values {
                values: fields.list(5, |it| {
                    let (is_there, bytes) = (it.flag()?, it.bytes()?);
                    match (is_there, bytes) {
                        (true, bytes) => Ok(Some(bytes)),
                        (false, []) => Ok(None),
                        (false, _) => Err(Malformed),
                    }
                })?,
            },
            6 => Self::Conflict,
            7 => {
                let (is_undone, operation) = (fields.flag()?, fields.bytes()?);
                let (code, category) = (fields.number()?, fields.number()?);
                Self::Failed { is_undone, operation, code, category, message: fields.bytes()? }
            }
            8 => Self::Progress,
            9 => Self::Tested { passed: fields.flag()?, text: fields.bytes()? },
            10 => Self::Trouble { why: fields.bytes()? },
            _ => return Err(Malformed),
        };
        fields.end().map(|()| (number, response))
    }
}

/// Fields that are still to be read.
struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    fn take(&mut self, length: usize) -> Result<&'m [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    fn count(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn bytes(&mut self) -> Result<&'m [u8], Malformed> {
        let length = self.count()?;
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }

    fn ids(&mut self) -> Result<Vec<u64>, Malformed> {
        self.list(8, Self::number)
    }

    /// A list whose entries take `least` bytes at least, so that its length cannot be made up.
    fn list<T>(
        &mut self,
        least: usize,
        mut entry: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = usize::try_from(self.count()?).map_err(|_| Malformed)?;
        if count.checked_mul(least).is_none_or(|bytes| bytes > self.0.len()) {
            return Err(Malformed);
        }
        (0..count).map(|_| entry(self)).collect()
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// How many bytes the message has whose length begins with these; `None` if they are too few.
///
/// # Errors
/// `Malformed` if no message is that long.
pub fn length_of(begun: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(length) = begun.first_chunk::<4>() else { return Ok(None) };
    match usize::try_from(u32::from_be_bytes(*length)) {
        Ok(length @ 1..=MAX_MESSAGE) => Ok(Some(length)),
        _ => Err(Malformed),
    }
}

/// Reads a message into `into`; `false` at the end.
pub(crate) fn read(from: &mut impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        outcome => outcome?,
    }
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a malformed message");
    let length = length_of(&length).ok().flatten().ok_or_else(malformed)?;
    into.clear();
    into.resize(length, 0);
    from.read_exact(into).map(|()| true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(message: &[u8]) -> &[u8] {
        let length = length_of(message).unwrap().unwrap();
        let (_, rest) = message.split_at(4);
        assert_eq!(rest.len(), length);
        rest
    }

    #[test]
    fn every_message_comes_back() {
        for request in [
            Request::Load { protocol: 1, program: b"0.1.0", path: b"/lib", sha256: [7; 32] },
            Request::Lock { path: b"/data.lock" },
            Request::Open { path: b"/data", create: true, shared: false },
            Request::Scan { after: 7 },
            Request::Read { ids: vec![1, u64::MAX] },
            Request::Begin { expected: b"head" },
            Request::Put { rows: vec![(1, b"one"), (2, b"")] },
            Request::Delete { ids: vec![] },
            Request::Commit,
            Request::Close,
            Request::Test { part: b"part", path: b"/scratch", argument: 5 },
            Request::Continue,
        ] {
            let mut bytes = Vec::new();
            request.encode(7, &mut bytes);
            assert_eq!(Request::decode(whole(&bytes)), Ok((7, request)));
        }
        for response in [
            Response::Loaded {
                protocol: 1,
                program: b"0.1.0",
                version: b"1.7.2",
                abi: 10_000,
                functions: 51,
            },
            Response::Trouble { why: b"why" },
            Response::Refused { is_file: true, why: b"why" },
            Response::Done,
            Response::Scanned { rows: vec![(1, 3000, b"beginning")] },
            Response::Values { values: vec![Some(b"one"), Some(b""), None] },
            Response::Conflict,
            Response::Failed {
                is_undone: true,
                operation: b"zqlite_step",
                code: 1,
                category: 255,
                message: b"",
            },
            Response::Progress,
            Response::Tested { passed: false, text: b"text" },
        ] {
            let mut bytes = Vec::new();
            response.encode(u64::MAX, &mut bytes);
            assert_eq!(Response::decode(whole(&bytes)), Ok((u64::MAX, response)));
        }
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(length_of(&[0, 0, 0]), Ok(None));
        assert_eq!(length_of(&[0, 0, 0, 0]), Err(Malformed));
        assert_eq!(length_of(&(MAX_MESSAGE as u32).to_be_bytes()), Ok(Some(MAX_MESSAGE)));
        assert_eq!(length_of(&(MAX_MESSAGE as u32 + 1).to_be_bytes()), Err(Malformed));
        // A list of four thousand million numbers, in eight bytes.
        assert_eq!(
            Request::decode(&[0, 0, 0, 0, 0, 0, 0, 1, 4, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]),
            Err(Malformed)
        );
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_what_would_be_written(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((number, request)) = Request::decode(&bytes) {
                let mut again = Vec::new();
                request.encode(number, &mut again);
                prop_assert_eq!(whole(&again), &bytes[..]);
            }
            if let Ok((number, response)) = Response::decode(&bytes) {
                let mut again = Vec::new();
                response.encode(number, &mut again);
                prop_assert_eq!(whole(&again), &bytes[..]);
            }
        }
    }
}
