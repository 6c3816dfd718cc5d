//! One digest of the state, and one of each series, by which two stores can be compared whatever
//! their backends.
//!
//! The state's digest is a Merkle root with two levels: entities of each table are put into 256
//! buckets by their key, a bucket's hash is SHA-256 over its rows in the order of their keys, and
//! the root is SHA-256 over all buckets; tables that came later count once they have rows. Rows are hashed as [`Record::encode`](crate::schema::Record)
//! writes them, without the schema version and trailing nulls, so the digest depends neither on the
//! version they were stored in nor on serials or places. After a change only the buckets that it touched are hashed again.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use sha2::{Digest as _, Sha256};

use crate::block::{RowChange, Serial};
use crate::schema::{RowKey, Table, content_of};
use crate::state::State;

/// Buckets of each table.
const BUCKETS: usize = 256;

/// A SHA-256 over a state or a series.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The digests of everything a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Digests {
    /// Of every entity.
    pub state: Digest,
    /// Of the metrics.
    pub metrics: Digest,
    /// Of the audit trail.
    pub audit: Digest,
}

/// The digest of a state, computed from scratch: every entity is encoded and hashed.
#[must_use]
pub fn state_digest(state: &State) -> Digest {
    root(&all_hashes(state))
}

fn all_hashes(state: &State) -> Vec<[u8; 32]> {
    let wanted = vec![true; Table::STATE.len() * BUCKETS];
    let mut hashes = vec![[0; 32]; wanted.len()];
    hash_buckets(state, &wanted, &mut hashes);
    hashes
}

/// Hashes rows in the order of their keys.
#[derive(Clone, Default)]
pub(crate) struct RowHasher {
    hasher: Sha256,
    rows: u64,
}

impl RowHasher {
    pub(crate) fn add(&mut self, key: &RowKey, body: &[u8]) {
        // What was just encoded can be read; damaged bytes would only make another digest.
        let content = content_of(body).unwrap_or(body);
        for part in [key.as_bytes(), content] {
            self.hasher.update((part.len() as u64).to_be_bytes());
            self.hasher.update(part);
        }
        self.rows += 1;
    }

    pub(crate) fn finish(mut self) -> Digest {
        self.hasher.update(self.rows.to_be_bytes());
        Digest(self.hasher.finalize().into())
    }
}

/// A table of a later schema is left out while it is empty, and otherwise preceded by its number, so
/// that content which an older release can hold keeps its digest.
fn root(hashes: &[[u8; 32]]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update(b"ghostwire-store state 1");
    let empty = RowHasher::default().finish().0;
    for (table, hashes) in Table::STATE.into_iter().zip(hashes.chunks(BUCKETS)) {
        if table.schema().since > 1 {
            if hashes.iter().all(|hash| *hash == empty) {
                continue;
            }
            hasher.update([table.number()]);
        }
        hashes.iter().for_each(|hash| hasher.update(hash));
    }
    Digest(hasher.finalize().into())
}

/// Which bucket of all a row belongs to. The last bytes of an identifier are random, so the
/// buckets of large tables are of one size.
fn bucket(table: Table, key: &RowKey) -> Option<usize> {
    let position = Table::STATE.iter().position(|candidate| *candidate == table)?;
    let last = key.as_bytes().last().copied().unwrap_or(0);
    Some(position * BUCKETS + usize::from(last))
}

/// Computes the wanted buckets' hashes in one pass over the tables that have any.
fn hash_buckets(state: &State, wanted: &[bool], hashes: &mut [[u8; 32]]) {
    let mut body = BytesMut::new();
    for (position, table) in Table::STATE.into_iter().enumerate() {
        let range = position * BUCKETS..(position + 1) * BUCKETS;
        let Some(wanted) = wanted.get(range.clone()) else { continue };
        if !wanted.contains(&true) {
            continue;
        }
        let mut hashers = vec![RowHasher::default(); BUCKETS];
        for image in state.images_of(table) {
            let key = image.key();
            let index = usize::from(key.as_bytes().last().copied().unwrap_or(0));
            if wanted.get(index) == Some(&true)
                && let Some(hasher) = hashers.get_mut(index)
            {
                body.clear();
                image.encode_into(&mut body);
                hasher.add(&key, &body);
            }
        }
        let slots = hashes.get_mut(range).into_iter().flatten();
        for ((slot, hasher), wanted) in slots.zip(hashers).zip(wanted) {
            if *wanted {
                *slot = hasher.finish().0;
            }
        }
    }
}

/// Remembers bucket hashes between digests.
#[derive(Debug)]
pub(crate) struct DigestCache {
    /// The serial at which each bucket last changed.
    changed: Vec<AtomicU64>,
    /// The bucket hashes, and the serial of the state that they were computed from.
    computed: Mutex<Option<(Serial, Vec<[u8; 32]>)>>,
}

impl DigestCache {
    pub(crate) fn new() -> Self {
        let changed = (0..Table::STATE.len() * BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { changed, computed: Mutex::new(None) }
    }

    /// Notes that a state was loaded anew, in which anything may differ.
    pub(crate) fn mark_all(&self, serial: Serial) {
        self.changed.iter().for_each(|changed| changed.store(serial.get(), Ordering::Release));
    }

    /// Notes, before a commit is published, which buckets it touches.
    pub(crate) fn mark(&self, serial: Serial, changes: &[RowChange]) {
        for change in changes {
            let bucket = bucket(change.table, &change.key);
            if let Some(changed) = bucket.and_then(|bucket| self.changed.get(bucket)) {
                changed.store(serial.get(), Ordering::Release);
            }
        }
    }

    /// The state's digest; hashes only buckets that changed since the last one.
    pub(crate) fn digest(&self, state: &State) -> Digest {
        let mut computed = self.computed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match computed.as_mut() {
            Some((serial, hashes)) if *serial <= state.serial() => {
                let dirty: Vec<bool> = self
                    .changed
                    .iter()
                    .map(|changed| changed.load(Ordering::Acquire) > serial.get())
                    .collect();
                hash_buckets(state, &dirty, hashes);
                *serial = state.serial();
                root(hashes)
            }
            // A view older than what was computed; leave the cache to the newer one.
            Some(_) => state_digest(state),
            None => {
                let hashes = all_hashes(state);
                let digest = root(&hashes);
                *computed = Some((state.serial(), hashes));
                digest
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::command::{EntityRecord, Part, PresenceCommand, Restore, RouteCommand, UserCommand};
    use crate::domain::{Endpoint, EndpointList, SessionNumber, Update};
    use crate::schema::{Record, Schema};
    use crate::state::testing::World;

    #[test]
    fn equal_states_have_equal_digests_however_they_came_about() {
        let mut world = World::new();
        let alice = world.user("alice");
        for n in 1..40 {
            world.register(alice.id, n).unwrap();
        }
        let mut copy = World::new();
        let images = world.state.images().collect();
        copy.run(Restore { images, skip_invalid: false }).unwrap();
        assert_ne!(world.state.serial(), copy.state.serial());
        assert_eq!(state_digest(&world.state), state_digest(&copy.state));
        copy.register(alice.id, 99).unwrap();
        assert_ne!(state_digest(&world.state), state_digest(&copy.state));
    }

    #[test]
    fn what_nobody_uses_leaves_rows_as_they_were_before_it_came() {
        let mut world = World::new();
        let alice = world.user("alice");
        let node = world.register(alice.id, 1).unwrap().id;
        let endpoint = Endpoint::new(([192, 0, 2, 1], 41641).into(), world.now);
        let endpoints = Update::Set(EndpointList::new([endpoint]).unwrap());
        let session = SessionNumber::new(1).unwrap();
        world
            .run(PresenceCommand::Connect {
                node,
                session: Some(session),
                endpoints,
                instance: None,
            })
            .unwrap();
        let prefixes = world.prefixes(&["10.1.0.0/16"]);
        world.run(RouteCommand::Advertise { node, prefixes, expected: None }).unwrap();
        let older = Schema::at(3).unwrap();
        for image in world.state.images() {
            let body = image.encode();
            let before = older.fit(image.table(), &body).unwrap();
            assert_eq!(content_of(&before).unwrap(), content_of(&body).unwrap());
            let read = EntityRecord::decode(image.table(), &image.key(), &before).unwrap();
            assert_eq!(read, image);
        }
        let presence = world.state.presence().get(node).unwrap().encode();
        let presence = String::from_utf8_lossy(&presence).into_owned();
        assert!(!presence.contains("kind") && !presence.contains("preference"), "{presence}");
    }

    #[test]
    fn a_table_of_a_later_schema_counts_once_it_has_rows() {
        let hashes = all_hashes(&State::default());
        let first: Vec<_> = Table::STATE.into_iter().filter(|it| it.schema().since == 1).collect();
        let mut hasher = Sha256::new();
        hasher.update(b"ghostwire-store state 1");
        hashes.iter().take(first.len() * BUCKETS).for_each(|hash| hasher.update(hash));
        assert_eq!(root(&hashes).0, <[u8; 32]>::from(hasher.finalize()));
        assert_eq!(Table::STATE.first_chunk::<10>().unwrap().as_slice(), first);
        let mut seen = std::collections::BTreeSet::from([root(&hashes).0]);
        for table in first.len()..Table::STATE.len() {
            let mut hashes = hashes.clone();
            *hashes.get_mut(table * BUCKETS).unwrap() = [7; 32];
            assert!(seen.insert(root(&hashes).0), "{table}");
        }
    }

    #[test]
    fn the_cache_agrees_with_a_computation_from_scratch() {
        let mut world = World::new();
        let cache = DigestCache::new();
        assert_eq!(cache.digest(&world.state), state_digest(&world.state));
        let alice = world.user("alice");
        let old = world.state.clone();
        for n in 1..30 {
            let node = world.register(alice.id, n).unwrap();
            let touched = [(Table::Users, alice.id.as_bytes()), (Table::Nodes, node.id.as_bytes())];
            let changes = touched.map(|(table, id)| RowChange {
                table,
                kind: crate::block::ChangeKind::Updated,
                key: RowKey::new().id(id),
                body: None,
            });
            cache.mark(world.state.serial(), &changes);
            if n % 3 == 0 {
                assert_eq!(cache.digest(&world.state), state_digest(&world.state));
            }
        }
        assert_eq!(cache.digest(&old), state_digest(&old));
        let delete = UserCommand::Delete { id: alice.id, cascade: true, part: Part::WHOLE };
        let before = state_digest(&world.state);
        world.run(delete).unwrap();
        assert_ne!(before, state_digest(&world.state));
    }
}
