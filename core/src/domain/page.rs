//! Paging through listings: limits, cursors and pages.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{serde_as_text, shown};
use crate::error::{Error, Result};

/// How many items a page has at most: 1 to 1000, 100 unless said otherwise. In serde a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "usize", into = "usize")]
pub struct Limit(u16);

impl Limit {
    /// The smallest page, of one item.
    pub const MIN: Self = Self(1);

    /// 1000 items.
    pub const MAX: Self = Self(1_000);

    /// A limit of this many items.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for 0 and for more than 1000.
    pub fn new(items: usize) -> Result<Self> {
        match u16::try_from(items) {
            Ok(items) if (Self::MIN.0..=Self::MAX.0).contains(&items) => Ok(Self(items)),
            _ => Err(Error::invalid("a limit must be 1 to 1000 items").with("limit", items)),
        }
    }

    /// The number of items.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl TryFrom<usize> for Limit {
    type Error = Error;

    fn try_from(items: usize) -> Result<Self> {
        Self::new(items)
    }
}

impl From<Limit> for usize {
    fn from(limit: Limit) -> Self {
        limit.get()
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Limit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed =
            |_| Error::invalid("a limit must be 1 to 1000 items").with("limit", shown(text));
        text.parse().map_err(malformed).and_then(Self::new)
    }
}

/// The fingerprint of a query, for [`Cursor::new`]: the first 8 bytes of a SHA-256 hash of its parts
/// (the listing's name, filters and order), each after its length.
#[must_use]
pub fn fingerprint(parts: &[&[u8]]) -> [u8; 8] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(hash) {
        *to = from;
    }
    first
}

/// The position after the last item of a page, at which the next page begins. Opaque: pass it back
/// unread, with the same query.
///
/// The text form is base64url without padding, at most 512 characters. It names a position in the
/// order of the listing, so that items added or removed elsewhere neither repeat nor hide others. It
/// is not signed, and decides only where a page begins: whoever makes one up gets an end of the very
/// listing that they ask for.
///
/// ```
/// use ghostwire_store::domain::{Cursor, fingerprint};
///
/// let query = fingerprint(&[b"nodes", b"online"]);
/// let cursor = Cursor::new(query, b"position")?;
/// let again: Cursor = cursor.to_string().parse()?;
/// assert_eq!(again.position_for(query)?, b"position");
/// assert!(again.position_for(fingerprint(&[b"users"])).is_err());
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    fingerprint: [u8; 8],
    position: Box<[u8]>,
}

/// The only form so far.
const CURSOR_VERSION: u8 = 1;

impl Cursor {
    /// The greatest length of the text form, in characters.
    pub const MAX_CHARS: usize = 512;

    /// The greatest length of a position, in bytes.
    pub const MAX_POSITION_BYTES: usize = Self::MAX_CHARS / 4 * 3 - 9;

    /// The cursor at this position of the query with this [`fingerprint`].
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the position is longer than [`Cursor::MAX_POSITION_BYTES`].
    pub fn new(fingerprint: [u8; 8], position: &[u8]) -> Result<Self> {
        if position.len() > Self::MAX_POSITION_BYTES {
            return Err(Error::invalid("the position of a cursor must be at most 375 bytes long")
                .with("length", position.len()));
        }
        Ok(Self { fingerprint, position: position.into() })
    }

    /// The position, if the cursor belongs to the query with this [`fingerprint`].
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when it belongs to another query.
    pub fn position_for(&self, fingerprint: [u8; 8]) -> Result<&[u8]> {
        if self.fingerprint == fingerprint {
            Ok(&self.position)
        } else {
            Err(Error::invalid(
                "cursor belongs to another query; repeat the query it came from, or start anew",
            ))
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(9 + self.position.len());
        bytes.push(CURSOR_VERSION);
        bytes.extend_from_slice(&self.fingerprint);
        bytes.extend_from_slice(&self.position);
        BASE64URL_NOPAD.encode_display(&bytes).fmt(f)
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({self})")
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // The text is not repeated: it may be a secret given by mistake.
        let malformed = || {
            Error::invalid("not a cursor of this store; start at the first page")
                .with("length", text.len())
        };
        if text.len() > Self::MAX_CHARS {
            return Err(malformed());
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| malformed())?;
        match bytes.split_first() {
            Some((&CURSOR_VERSION, rest)) => {
                let (fingerprint, position) = rest.split_first_chunk().ok_or_else(malformed)?;
                Self::new(*fingerprint, position)
            }
            _ => Err(malformed()),
        }
    }
}

serde_as_text!(Cursor);

/// Which page of a listing is wanted. The default is the first, of 100 items.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageRequest {
    /// At most this many items.
    pub limit: Limit,
    /// Where to go on, from [`Page::next`]; `None` for the first page.
    pub cursor: Option<Cursor>,
}

impl PageRequest {
    /// The first page.
    #[must_use]
    pub fn first(limit: Limit) -> Self {
        Self { limit, cursor: None }
    }

    /// The page after the one that gave this cursor.
    #[must_use]
    pub fn after(limit: Limit, cursor: Cursor) -> Self {
        Self { limit, cursor: Some(cursor) }
    }
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items, in the order of the listing.
    pub items: Vec<T>,
    /// Where the next page begins; `None` when this is the last one.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// The page with each item replaced by what `with` makes of it.
    #[must_use]
    pub fn map<U>(self, with: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(with).collect(), next: self.next }
    }
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), next: None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn limits() {
        assert_eq!(Limit::default().get(), 100);
        assert_eq!(Limit::new(1).unwrap(), Limit::MIN);
        assert_eq!("1000".parse::<Limit>().unwrap(), Limit::MAX);
        for bad in [0, 1_001, 65_537, usize::MAX] {
            let error = Limit::new(bad).unwrap_err().to_string();
            assert!(error.contains("1 to 1000"), "{error}");
        }
        assert!("ten".parse::<Limit>().is_err());
        assert_eq!(serde_json::to_string(&Limit::MAX).unwrap(), "1000");
        assert!(serde_json::from_str::<Limit>("0").is_err());
    }

    #[test]
    fn cursors_survive_their_text() {
        for position in [&b""[..], b"\xff\x00", &[7; Cursor::MAX_POSITION_BYTES]] {
            let cursor = Cursor::new([3; 8], position).unwrap();
            let text = cursor.to_string();
            assert!(text.len() <= Cursor::MAX_CHARS);
            let again: Cursor = serde_json::from_str(&format!("\"{text}\"")).unwrap();
            assert_eq!(again, cursor);
            assert_eq!(again.position_for([3; 8]).unwrap(), position);
        }
        let cursor = Cursor::new([3; 8], &[7; Cursor::MAX_POSITION_BYTES]).unwrap();
        assert_eq!(cursor.to_string().len(), Cursor::MAX_CHARS);
        assert!(Cursor::new([3; 8], &[7; Cursor::MAX_POSITION_BYTES + 1]).is_err());
    }

    #[test]
    fn cursors_of_another_query_are_refused() {
        let error = Cursor::new([3; 8], b"").unwrap().position_for([4; 8]).unwrap_err();
        assert!(error.to_string().contains("cursor belongs to another query"));
        assert_eq!(*error.kind(), crate::error::ErrorKind::InvalidArgument);
    }

    #[test]
    fn other_text_is_no_cursor() {
        let good = Cursor::new([3; 8], b"a").unwrap().to_string();
        let other_version = good.replacen("AQ", "Ag", 1);
        let too_long = "A".repeat(513);
        for bad in ["", "A", "AQ", "AQMDAwMDAwM", "!!!!", &other_version, &(good + "="), &too_long]
        {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn fingerprints_keep_parts_apart() {
        assert_eq!(fingerprint(&[b"a", b"b"]), fingerprint(&[b"a", b"b"]));
        assert_ne!(fingerprint(&[b"ab"]), fingerprint(&[b"a", b"b"]));
        assert_ne!(fingerprint(&[]), fingerprint(&[b""]));
    }

    #[test]
    fn pages() {
        let cursor = Cursor::new([0; 8], b"2").unwrap();
        let page = Page { items: vec![1, 2], next: Some(cursor.clone()) };
        let page = page.map(|number| number.to_string());
        assert_eq!(page.items, ["1", "2"]);
        assert_eq!(page.next, Some(cursor.clone()));
        assert_eq!(PageRequest::first(Limit::default()), PageRequest::default());
        assert_eq!(PageRequest::after(Limit::MIN, cursor.clone()).cursor, Some(cursor));
        assert_eq!(serde_json::from_str::<PageRequest>("{}").unwrap(), PageRequest::default());
        assert!(serde_json::from_str::<PageRequest>(r#"{"limt":1}"#).is_err());
        assert_eq!(
            serde_json::to_string(&Page::<u8>::default()).unwrap(),
            r#"{"items":[],"next":null}"#
        );
    }
}
