//! Frames: a length, a kind, a payload. This layout is the same in every version, so that two programs
//! can at least tell each other why they do not understand each other.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// What a client sends first.
pub const MAGIC: [u8; 8] = *b"GWSADMIN";

/// Bytes before a payload: its length as 4 bytes, big-endian, and its kind.
pub const HEADER: usize = 5;

/// The longest payload.
pub const MAX_PAYLOAD: usize = 16 * 1024 * 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A client says what it speaks. JSON.
    Hello = 1,
    /// A server says what is spoken. JSON.
    Welcome = 2,
    /// A client asks for something. JSON.
    Request = 3,
    /// Part of an answer: bytes, to be joined with those before.
    Data = 4,
    /// Part of an answer: one value. JSON.
    Item = 5,
    /// The answer is still being worked on. JSON.
    Progress = 6,
    /// The end of an answer. JSON.
    Done = 7,
    /// The end of an answer, or of everything: why it is refused. JSON.
    Failed = 8,
}

impl Kind {
    fn of(number: u8) -> Option<Self> {
        let kinds = [
            Self::Hello,
            Self::Welcome,
            Self::Request,
            Self::Data,
            Self::Item,
            Self::Progress,
            Self::Done,
            Self::Failed,
        ];
        kinds.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// What it says.
    pub payload: Bytes,
}

impl Frame {
    /// One whose payload is JSON.
    ///
    /// # Errors
    /// `InvalidArgument` if that is longer than [`MAX_PAYLOAD`]; `Unexpected` if the value has no JSON.
    pub fn json(kind: Kind, value: &impl serde::Serialize) -> Result<Self> {
        let payload = serde_json::to_vec(value).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "a message has no JSON form").because(error)
        })?;
        check_length(payload.len())?;
        Ok(Self { kind, payload: payload.into() })
    }
}

fn check_length(bytes: usize) -> Result<()> {
    match bytes <= MAX_PAYLOAD {
        true => Ok(()),
        false => Err(Error::invalid("a message is too long for the admin socket")
            .with("bytes", bytes)
            .with("at_most", MAX_PAYLOAD)),
    }
}

/// Reads a header: the kind of the frame, and how long its payload is.
///
/// # Errors
/// `InvalidArgument` for a kind that there is not, and a payload longer than [`MAX_PAYLOAD`].
pub fn header(bytes: [u8; HEADER]) -> Result<(Kind, usize)> {
    let [a, b, c, d, kind] = bytes;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    let found = Kind::of(kind).ok_or_else(|| {
        Error::invalid("a frame is of no known kind: this is another protocol, or a later one")
            .with("kind", kind)
    })?;
    check_length(length)?;
    Ok((found, length))
}

/// How long is waited for the other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Until a frame begins.
    pub(crate) idle: Duration,
    /// From its first byte to its last.
    pub(crate) frame: Duration,
}

/// Reads a frame; `None` if the other end has closed the connection before it.
///
/// # Errors
/// `Unavailable` if it does not come in time, or not whole; as [`header`].
pub(crate) async fn read_frame<R: AsyncRead + Unpin>(
    from: &mut R,
    pace: Pace,
) -> Result<Option<Frame>> {
    let mut first = [0; 1];
    let begun = timeout(pace.idle, from.read(&mut first)).await.map_err(|_| too_slow(pace.idle))?;
    if begun.map_err(broken)? == 0 {
        return Ok(None);
    }
    let whole = async {
        let mut rest = [0; HEADER - 1];
        from.read_exact(&mut rest).await.map_err(broken)?;
        let ([a], [b, c, d, kind]) = (first, rest);
        let (kind, length) = header([a, b, c, d, kind])?;
        Ok(Some(Frame { kind, payload: read_payload(from, length).await? }))
    };
    timeout(pace.frame, whole).await.map_err(|_| too_slow(pace.frame))?
}

/// Room is made as bytes come, not as they are promised.
async fn read_payload<R: AsyncRead + Unpin>(from: &mut R, length: usize) -> Result<Bytes> {
    const STEP: usize = 64 * 1024;
    let mut payload = BytesMut::with_capacity(length.min(STEP));
    let mut rest = from.take(length as u64);
    while payload.len() < length {
        payload.reserve((length - payload.len()).min(STEP));
        if rest.read_buf(&mut payload).await.map_err(broken)? == 0 {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the connection ended within a message",
            )
            .with("bytes", payload.len())
            .with("of", length));
        }
    }
    Ok(payload.freeze())
}

/// Writes a frame.
///
/// # Errors
/// `Unavailable` if the other end does not take it in time, or is gone; `InvalidArgument` for a payload
/// longer than [`MAX_PAYLOAD`].
pub(crate) async fn write_frame<W: AsyncWrite + Unpin>(
    to: &mut W,
    frame: &Frame,
    patience: Duration,
) -> Result<()> {
    check_length(frame.payload.len())?;
    let length = u32::try_from(frame.payload.len()).unwrap_or(u32::MAX);
    let [a, b, c, d] = length.to_be_bytes();
    let written = async {
        to.write_all(&[a, b, c, d, frame.kind as u8]).await?;
        to.write_all(&frame.payload).await?;
        to.flush().await
    };
    timeout(patience, written).await.map_err(|_| too_slow(patience))?.map_err(broken)
}

pub(crate) async fn write_magic<W: AsyncWrite + Unpin>(
    to: &mut W,
    patience: Duration,
) -> Result<()> {
    let written = timeout(patience, to.write_all(&MAGIC)).await;
    written.map_err(|_| too_slow(patience))?.map_err(broken)
}

/// # Errors
/// `InvalidArgument` if the other end speaks something else.
pub(crate) async fn read_magic<R: AsyncRead + Unpin>(
    from: &mut R,
    patience: Duration,
) -> Result<()> {
    let mut magic = [0; MAGIC.len()];
    let read = timeout(patience, from.read_exact(&mut magic)).await;
    read.map_err(|_| too_slow(patience))?.map_err(broken)?;
    match magic == MAGIC {
        true => Ok(()),
        false => {
            Err(Error::invalid("the other end does not speak the protocol of the admin socket"))
        }
    }
}

fn broken(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the connection to the other end of the socket broke")
        .because(error)
}

fn too_slow(patience: Duration) -> Error {
    Error::new(ErrorKind::Unavailable, "the other end of the socket neither reads nor writes")
        .with("waited_ms", patience.as_millis())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SOON: Pace = Pace { idle: Duration::from_secs(5), frame: Duration::from_secs(5) };

    #[tokio::test]
    async fn frames_come_as_they_went_and_end_with_the_connection() {
        let (mut one, mut other) = tokio::io::duplex(16);
        let frame = Frame { kind: Kind::Data, payload: Bytes::from(vec![7; 100_000]) };
        let sent = frame.clone();
        let writing = tokio::spawn(async move { write_frame(&mut one, &sent, SOON.frame).await });
        assert_eq!(read_frame(&mut other, SOON).await.unwrap(), Some(frame));
        writing.await.unwrap().unwrap();
        assert_eq!(read_frame(&mut other, SOON).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_cut_short_too_long_or_of_no_kind_is_refused() {
        for (bytes, kind, word) in [
            (&b"\0\0\0\x05\x03ab"[..], ErrorKind::Unavailable, "within a message"),
            (b"\0\0", ErrorKind::Unavailable, "broke"),
            (b"\x01\0\0\x01\x03", ErrorKind::InvalidArgument, "too long"),
            (b"\xff\xff\xff\xff\x03", ErrorKind::InvalidArgument, "too long"),
            (b"\0\0\0\0\x09", ErrorKind::InvalidArgument, "no known kind"),
            (b"GET /", ErrorKind::InvalidArgument, "no known kind"),
        ] {
            let error = read_frame(&mut &*bytes, SOON).await.unwrap_err();
            assert_eq!(*error.kind(), kind, "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for_longer_than_said() {
        let (mut one, mut other) = tokio::io::duplex(4);
        let error = read_frame(&mut other, SOON).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable);
        // It begins, and does not go on.
        one.write_all(b"\0").await.unwrap();
        read_frame(&mut other, SOON).await.unwrap_err();
        // It does not read.
        let frame = Frame { kind: Kind::Data, payload: Bytes::from_static(&[0; 64]) };
        let error = write_frame(&mut one, &frame, SOON.frame).await.unwrap_err();
        assert!(error.to_string().contains("neither reads nor writes"), "{error}");
    }
}
