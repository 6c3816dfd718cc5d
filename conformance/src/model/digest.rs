//! The digest of a state, computed from its description: 256 buckets for each table by the last
//! byte of the key, a hash over each bucket's rows, and one over all buckets. The tables of a later
//! schema are preceded by their numbers, and do not count while they are empty.

use ghostwire_store_core::schema::{Record, content_of};
use sha2::{Digest as _, Sha256};

use super::oracle::Oracle;

/// The digest of everything in the oracle.
pub(super) fn of(oracle: &Oracle) -> [u8; 32] {
    let mut root = Sha256::new();
    root.update(b"ghostwire-store state 1");
    let tables = [
        (None, rows(&oracle.users)),
        (None, rows(&oracle.nodes)),
        (None, rows(&oracle.presence)),
        (None, rows(&oracle.routes)),
        (None, rows(&oracle.api_keys)),
        (None, rows(&oracle.preauth_keys)),
        (None, rows(&oracle.policies)),
        (None, rows(&oracle.dns_records)),
        (None, rows(&oracle.sessions)),
        (None, rows(&oracle.settings)),
        (Some(16), rows(&oracle.sign_ins)),
        (Some(17), rows(&oracle.instances)),
    ];
    let empty = bucket(&[]);
    for (number, mut rows) in tables {
        if let Some(number) = number {
            if rows.is_empty() {
                continue;
            }
            root.update([number]);
        }
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
