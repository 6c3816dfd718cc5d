//! The digest of a state, computed from its description: 256 buckets for each table by the last
//! byte of the key, a hash over each bucket's rows, and one over all buckets. Scripts begin no sign-ins,
//! whose table does not count while it is empty.

use ghostwire_store_core::schema::{Record, content_of};
use sha2::{Digest as _, Sha256};

use super::oracle::Oracle;

/// The digest of everything in the oracle.
pub(super) fn of(oracle: &Oracle) -> [u8; 32] {
    let mut root = Sha256::new();
    root.update(b"ghostwire-store state 1");
    let tables = [
        rows(&oracle.users),
        rows(&oracle.nodes),
        rows(&oracle.presence),
        rows(&oracle.routes),
        rows(&oracle.api_keys),
        rows(&oracle.preauth_keys),
        rows(&oracle.policies),
        rows(&oracle.dns_records),
        rows(&oracle.sessions),
        rows(&oracle.settings),
    ];
    let empty = bucket(&[]);
    for mut rows in tables {
        rows.sort();
        for number in 0..=u8::MAX {
            let own = rows.iter().filter(|(key, _)| key.last() == Some(&number));
            let own: Vec<_> = own.collect();
            root.update(if own.is_empty() { empty } else { bucket(&own) });
        }
    }
    root.finalize().into()
}

type Row = (Vec<u8>, Vec<u8>);

fn rows<R: Record>(entities: &[R]) -> Vec<Row> {
    let row = |entity: &R| {
        let body = entity.encode();
        let content = content_of(&body).expect("what was just encoded can be read");
        (entity.key().as_bytes().to_vec(), content.to_vec())
    };
    entities.iter().map(row).collect()
}

fn bucket(rows: &[&Row]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (key, content) in rows {
        for part in [key, content] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    hash.update((rows.len() as u64).to_be_bytes());
    hash.finalize().into()
}
