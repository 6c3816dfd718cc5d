//! The state machine: what a command changes follows from the state and the command alone. `State` is
//! every entity except the series, in persistent maps with all indexes. [`State::decide`] reads it and
//! says what a command would change; [`State::evolve`] carries a change out. Deciding takes `&self`,
//! so a rejected command cannot leave a trace; the same `evolve` serves live commands, blocks that are
//! replayed and rows that are loaded (all but nodes, see `loading`), so they cannot disagree. Nothing
//! here does I/O or reads a clock. Indexes hash under a key that is random for each process, on which
//! no result depends. Loading many nodes starts threads.
//!
//! Each entity has a file: how it is found ([`Collection`] with an index), what holds for it
//! (`Rules`), and `decide`, which says what its commands do. What they have in common follows from
//! the list in `entity`.
//!
//! The maps are those of the `imbl` crate: B-trees with structural sharing, so that a snapshot is one
//! reference count per map and a change after it copies one path (docs/adr/0002-state-in-memory.md).

mod addresses;
pub(crate) mod api_keys;
pub(crate) mod clock;
mod collection;
mod decision;
pub(crate) mod dns_records;
mod execute;
mod hashes;
mod holders;
pub(crate) mod instances;
mod listing;
mod loading;
pub(crate) mod nodes;
mod part;
pub(crate) mod policies;
pub(crate) mod preauth_keys;
pub(crate) mod presence;
mod registration;
pub(crate) mod restore;
pub(crate) mod routes;
pub(crate) mod sessions;
pub(crate) mod settings;
pub(crate) mod sign_ins;
pub(crate) mod transaction;
mod unique;
pub(crate) mod users;

#[cfg(test)]
pub(crate) mod testing;

pub use addresses::Addresses;
pub use api_keys::ApiKeys;
pub use collection::Collection;
pub use decision::{ChangeKinds, Changes, Context, Decision, EntityId, Note, Reply, StateChange};
pub use dns_records::DnsRecords;
pub use hashes::CredentialHashes;
pub use instances::Instances;
pub(crate) use loading::Loading;
pub use nodes::Nodes;
pub use policies::Policies;
pub use preauth_keys::PreAuthKeys;
pub use presence::Presences;
pub use routes::Routes;
pub use sessions::Sessions;
pub use settings::Settings;
pub use sign_ins::SignIns;
pub use users::Users;

use crate::block::{BlockHash, ChangeKind, RowChange, Serial};
use crate::command::{Command, EntityRecord};
use crate::domain::Timestamp;
use crate::entity::Tables;
use crate::error::Result;
use crate::position::Position;
use crate::schema::Table;

type Map<K, V> = imbl::OrdMap<K, V>;
type Set<K> = imbl::OrdSet<K>;

/// Every entity except the series, at one moment. Cloning takes constant time and shares
/// everything.
#[derive(Clone, Default, Debug)]
pub struct State {
    position: Position,
    serial: Serial,
    hash: Option<BlockHash>,
    time: Timestamp,
    pub(crate) tables: Tables,
    addresses: Addresses,
}

impl State {
    /// How many commits there had been, those of series included.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The last block that this state contains.
    #[must_use]
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// The hash of the last block.
    #[must_use]
    pub fn hash(&self) -> BlockHash {
        self.hash.unwrap_or(BlockHash::GENESIS)
    }

    /// The effective time of the last block. Only the repair of a clock that was ahead moves it
    /// back.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Which addresses are taken, and by which node.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What `command` would change, or why it is refused. Changes nothing.
    ///
    /// # Errors
    /// The rules of docs/contract.md, as the kinds they name.
    #[doc(hidden)]
    pub fn decide(&self, command: &Command, context: &Context<'_>) -> Result<Decision> {
        let decision = command.decide(self, context)?;
        for change in &decision.changes {
            if let StateChange::Put(image) = change {
                image.check()?;
            }
        }
        Ok(decision)
    }

    /// Carries out one change. Cannot fail: whether it may happen was decided before.
    #[doc(hidden)]
    pub fn evolve(&mut self, change: StateChange) -> ChangeKind {
        match change {
            StateChange::Put(image) => {
                if self.put(image) {
                    ChangeKind::Updated
                } else {
                    ChangeKind::Created
                }
            }
            StateChange::Delete(handle) => {
                self.remove(handle);
                ChangeKind::Deleted
            }
        }
    }

    /// Carries out a change that a block or a row describes.
    ///
    /// # Errors
    /// `Corrupt` if the row cannot be read.
    #[doc(hidden)]
    pub fn evolve_row(&mut self, change: &RowChange) -> Result<()> {
        let change = match &change.body {
            Some(body) => StateChange::Put(EntityRecord::decode(change.table, &change.key, body)?),
            None => StateChange::Delete(EntityId::from_key(change.table, &change.key)?),
        };
        self.evolve(change);
        Ok(())
    }

    /// Marks that everything up to this block has been carried out.
    #[doc(hidden)]
    pub fn advance(&mut self, serial: Serial, hash: BlockHash, time: Timestamp) {
        self.serial = serial;
        self.hash = Some(hash);
        self.time = time;
    }

    /// Marks how many commits there have been.
    #[doc(hidden)]
    pub fn set_position(&mut self, position: Position) {
        self.position = position;
    }

    /// Every entity, in the order of tables and keys.
    pub fn images(&self) -> impl Iterator<Item = EntityRecord> + '_ {
        Table::STATE.into_iter().flat_map(|table| self.images_of(table))
    }
}
