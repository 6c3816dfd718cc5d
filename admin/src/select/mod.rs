//! Which entities of a table are meant, in what order they are listed, and what is shown beside them. Pure; both
//! ends use it, so that a listing is the same wherever it is made.

mod condition;
mod naming;
mod related;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::domain::{Prefix, Timestamp};
use ghostwire_store_core::error::{Error, Result};
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

/// Conditions of one selection: each is looked at for each entity.
pub const MOST_CONDITIONS: usize = 32;
/// After so many entities it is looked whether somebody still waits.
const LOOKS: usize = 1024;

impl Selection {
    /// Refuses one that takes too long.
    ///
    /// # Errors
    /// `InvalidArgument` for more than [`MOST_CONDITIONS`].
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Where(conditions, _) if conditions.len() > MOST_CONDITIONS => {
                Err(Error::invalid("a selection has too many conditions")
                    .with("conditions", conditions.len())
                    .with("at_most", MOST_CONDITIONS))
            }
            _ => Ok(()),
        }
    }
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

/// The first `limit` that are meant, after a position; and whether there are more. Ends early, with less, once it is not
/// wanted any more.
pub(crate) fn select(
    state: &State,
    table: Table,
    selection: &Selection,
    (after, limit): (Option<&[u8]>, usize),
    is_wanted: &dyn Fn() -> bool,
) -> (Vec<EntityRecord>, bool) {
    let mut seen = 0_usize;
    let all = state.images_of(table).take_while(move |_| {
        seen = seen.wrapping_add(1);
        !seen.is_multiple_of(LOOKS) || is_wanted()
    });
    let meant: Box<dyn Iterator<Item = EntityRecord> + '_> = match selection {
        Selection::Where(conditions, now) => {
            let conditions: Vec<_> = conditions.iter().map(Condition::in_one_form).collect();
            Box::new(
                all.filter(move |record| conditions.iter().all(|it| it.holds(record, state, *now))),
            )
        }
        Selection::Called(text) => Box::new(candidates(all, text).into_iter()),
    };
    // One more than is wanted is kept, however many conditions admit.
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use ghostwire_store_core::command::Restore;
    use ghostwire_store_core::domain::{NewUser, StoreId, UserId};
    use ghostwire_store_core::options::StoreOptions;
    use ghostwire_store_core::schema::Schema;
    use ghostwire_store_core::store;
    use ghostwire_store_memory::MemoryBackend;

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_ends_early() {
        let backend = MemoryBackend::at_schema(StoreId::from_bytes([1; 16]), Schema::current());
        let store = store::open(Arc::new(backend), StoreOptions::default()).await.unwrap();
        let users = (0..3_000_u32).map(|number| {
            let mut id = [7; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            let user = NewUser::local(format!("user-{number}").parse().unwrap());
            EntityRecord::from(Arc::new(user.created(UserId::from_bytes(id), Timestamp::EPOCH)))
        });
        let restore = Restore { images: users.collect(), skip_invalid: false };
        store.restore(restore).await.unwrap();
        let view = store.view();
        let all = Selection::Where(Vec::new(), Timestamp::EPOCH);
        let chosen = |is_wanted: bool| {
            let page = (None, usize::MAX);
            select(&view, Table::Users, &all, page, &|| is_wanted).0.len()
        };
        assert_eq!((chosen(true), chosen(false)), (3_000, LOOKS - 1));
    }
}
