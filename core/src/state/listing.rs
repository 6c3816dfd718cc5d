//! Keyset paging over the maps.

use std::ops::Bound;

use serde::Serialize;

use crate::domain::{Cursor, Id, Page, PageRequest, fingerprint};
use crate::error::{EntityKind, Error, Result};
use crate::schema::{KeyField, RowKey};

/// One listing: what a cursor belongs to.
pub(super) struct Listing {
    fingerprint: [u8; 8],
}

impl Listing {
    /// A cursor of one listing is refused by every other, also by the same with another filter.
    pub(super) fn new(entity: EntityKind, filter: &impl Serialize) -> Self {
        let filter = serde_json::to_vec(filter).unwrap_or_default();
        Self { fingerprint: fingerprint(&[entity.name().as_bytes(), &filter]) }
    }

    /// Where a page begins: after the cursor's position, if there is one.
    pub(super) fn start<K: Position>(&self, request: &PageRequest) -> Result<Option<K>> {
        let Some(cursor) = &request.cursor else { return Ok(None) };
        let position = cursor.position_for(self.fingerprint)?;
        K::from_position(position)
            .map(Some)
            .ok_or_else(|| Error::invalid("the cursor is damaged; start again without one"))
    }

    /// A cursor at any position.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(super) fn cursor<K: Position>(&self, position: &K) -> Cursor {
        Cursor::new(self.fingerprint, &position.to_position()).unwrap()
    }

    /// Takes a page from `items`, which begin after the cursor.
    pub(super) fn take<K: Position, T>(
        &self,
        request: &PageRequest,
        items: impl Iterator<Item = T>,
        key: impl Fn(&T) -> K,
    ) -> Page<T> {
        let limit = request.limit.get();
        let mut items = items;
        let page: Vec<T> = items.by_ref().take(limit).collect();
        let more = page.len() == limit && items.next().is_some();
        let next = page
            .last()
            .filter(|_| more)
            .and_then(|last| Cursor::new(self.fingerprint, &key(last).to_position()).ok());
        Page { items: page, next }
    }
}

/// A sort key that a cursor can hold.
pub(super) trait Position: Sized {
    fn to_position(&self) -> Vec<u8>;
    fn from_position(bytes: &[u8]) -> Option<Self>;
}

/// An id's position is its bytes in a key.
impl<K: KeyField> Position for K {
    fn to_position(&self) -> Vec<u8> {
        self.push(RowKey::new()).as_bytes().to_vec()
    }

    fn from_position(bytes: &[u8]) -> Option<Self> {
        RowKey::from_bytes(bytes).ok()?.only().ok()
    }
}

impl Position for (crate::domain::Prefix, crate::domain::RouteId) {
    fn to_position(&self) -> Vec<u8> {
        let mut bytes = self.1.as_bytes().to_vec();
        bytes.extend_from_slice(self.0.to_string().as_bytes());
        bytes
    }

    fn from_position(bytes: &[u8]) -> Option<Self> {
        let (id, prefix) = bytes.split_at_checked(16)?;
        let prefix = std::str::from_utf8(prefix).ok()?.parse().ok()?;
        Some((prefix, Position::from_position(id)?))
    }
}

/// What belongs to `owner` in an index by owner and id: the range after a position, or all of it.
pub(super) fn owned<O: Copy, I: Id>(owner: O, start: Option<I>) -> (Bound<(O, I)>, Bound<(O, I)>) {
    let first = match start {
        Some(start) => Bound::Excluded((owner, start)),
        None => Bound::Included((owner, I::from_bytes([0; 16]))),
    };
    (first, Bound::Included((owner, I::from_bytes([0xff; 16]))))
}

/// The range after a position, or everything.
pub(super) fn after<K: Clone>(start: Option<&K>) -> (Bound<K>, Bound<K>) {
    (start.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone())), Bound::Unbounded)
}
