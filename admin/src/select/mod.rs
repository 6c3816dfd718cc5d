//! Which entities of a table are meant, in what order they are listed, and what is shown beside them. Pure; both
//! ends use it, so that a listing is the same wherever it is made.

mod condition;
mod naming;
mod related;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::domain::{Prefix, Timestamp};
use ghostwire_store_core::schema::Table;
use ghostwire_store_core::state::State;
use serde::{Deserialize, Serialize};

pub use condition::Condition;
pub use naming::{LEAST_PART, candidates, credential_in, id_of, is_called, public_part};
pub(crate) use related::related;

/// Which entities of a table are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// All of which every one of these is true at a moment.
    Where(Vec<Condition>, Timestamp),
    /// The one that is called so; several if it cannot be told which.
    Called(String),
}

/// Where an entity is in its listing: routes by prefix, policies with the newest first, all others in the order
/// of their ids.
#[must_use]
pub fn position(record: &EntityRecord) -> Vec<u8> {
    match record {
        EntityRecord::Route(route) => by_prefix(route.prefix, route.id.as_bytes()),
        EntityRecord::Policy(policy) => (u64::MAX - policy.version.get()).to_be_bytes().to_vec(),
        other => other.key().as_bytes().to_vec(),
    }
}

fn by_prefix(prefix: Prefix, id: &[u8]) -> Vec<u8> {
    let mut position = match prefix.addr() {
        IpAddr::V4(address) => [&[4], address.octets().as_slice()].concat(),
        IpAddr::V6(address) => [&[6], address.octets().as_slice()].concat(),
    };
    position.push(prefix.prefix_len());
    position.extend(id);
    position
}

/// The first `limit` that are meant, after a position; and whether there are more.
pub(crate) fn select(
    state: &State,
    table: Table,
    selection: &Selection,
    (after, limit): (Option<&[u8]>, usize),
) -> (Vec<EntityRecord>, bool) {
    let meant: Box<dyn Iterator<Item = EntityRecord> + '_> = match selection {
        Selection::Where(conditions, now) => Box::new(
            state
                .images_of(table)
                .filter(|record| conditions.iter().all(|it| it.holds(record, state, *now))),
        ),
        Selection::Called(text) => Box::new(candidates(state.images_of(table), text).into_iter()),
    };
    // One more than is wanted is kept, and never all of a table.
    let mut first = BTreeMap::new();
    for record in meant {
        let position = position(&record);
        if after.is_some_and(|after| position.as_slice() <= after) {
            continue;
        }
        if first.len() <= limit {
            first.insert(position, record);
        } else if first.last_key_value().is_some_and(|(last, _)| position < *last) {
            first.insert(position, record);
            first.pop_last();
        }
    }
    let more = first.len() > limit;
    (first.into_values().take(limit).collect(), more)
}
