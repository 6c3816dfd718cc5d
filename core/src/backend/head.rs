//! Where a store stands, and the rules by which a commit moves that.

use super::{Commit, HeadChange, RecordChange};
use crate::block::{BlockHash, Serial};
use crate::domain::{BlockId, CommitId, LineageId, SideId, StoreId, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::migration::{Membership, Record, Refusal, Role, Seen};
use crate::position::{Epoch, Position};
use crate::schema::{Schema, SchemaVersion};
use crate::secrets::KeyCheck;

/// Where a store stands: its last commit, and what is kept of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Identifies the network; the same in every database that holds it.
    pub store: StoreId,
    /// Identifies this database.
    pub side: SideId,
    /// Identifies the history; another one once the network was put back to an older copy.
    pub lineage: LineageId,
    /// Who may write: commits name it.
    pub epoch: Epoch,
    /// How many commits changed what is stored.
    pub position: Position,
    /// The id of the last of them; all zero before the first.
    pub commit: CommitId,
    /// The last block's number.
    pub serial: Serial,
    /// The last block's id; all zero before the first.
    pub block: BlockId,
    /// The last block's hash.
    pub hash: BlockHash,
    /// The last block's time.
    pub time: Timestamp,
    /// Up to here the tables are complete; they may hold some of what follows.
    pub checkpoint: Serial,
    /// The oldest block that is still stored; `serial + 1` if none is.
    pub oldest_block: Serial,
    /// The schema of what is stored.
    pub schema: SchemaVersion,
    /// Tells whether a key is the one that credentials were hashed with. `None` until the store was
    /// opened with one.
    pub credential_key: Option<KeyCheck>,
    /// Whether it is being filled as a copy of another database, and so is not complete.
    pub filling: bool,
    /// What a migration made it; `None` if there never was one.
    pub role: Option<Role>,
    /// The migration that it is part of.
    pub membership: Option<Membership>,
}

impl Head {
    /// Where a new store stands.
    #[must_use]
    pub fn genesis(store: StoreId, schema: Schema) -> Self {
        Self {
            store,
            side: SideId::from_bytes(*store.as_bytes()),
            lineage: LineageId::from_bytes(*store.as_bytes()),
            epoch: Epoch::ZERO,
            position: Position::ZERO,
            commit: CommitId::from_bytes([0; 16]),
            serial: Serial::ZERO,
            block: BlockId::from_bytes([0; 16]),
            hash: BlockHash::GENESIS,
            time: Timestamp::EPOCH,
            checkpoint: Serial::ZERO,
            oldest_block: Serial::ZERO.next(),
            schema: schema.version(),
            credential_key: None,
            filling: false,
            role: None,
            membership: None,
        }
    }

    /// Whether nothing was ever committed to it.
    fn is_empty(&self) -> bool {
        self.position == Position::ZERO && self.serial == Serial::ZERO
    }

    /// What it says of its part in the network.
    #[must_use]
    pub fn record(&self) -> Record {
        let role = match self.role {
            Some(role) => role,
            None if self.filling => Role::Filling,
            None if self.is_empty() => Role::None,
            None => Role::ActiveAlone,
        };
        Record { epoch: self.epoch, role, membership: self.membership }
    }

    /// Gives a head that was stored by schema 1 or 2, whose commits were not counted, what it lacks:
    /// every block counts as one commit. Until it is migrated that holds for what is committed, too.
    #[must_use]
    pub fn carried_forward(self) -> Self {
        Self {
            position: Position::new(self.serial.get()),
            commit: CommitId::from_bytes(*self.block.as_bytes()),
            side: SideId::from_bytes(*self.store.as_bytes()),
            lineage: LineageId::from_bytes(*self.store.as_bytes()),
            ..self
        }
    }

    /// The refusal of a commit of another epoch.
    pub(crate) fn fenced(&self) -> Error {
        Error::new(
            ErrorKind::Fenced { epoch: self.epoch.get() },
            "another database of the network, or another process, has taken over; open the store anew by \
             its configuration",
        )
        .with("epoch", self.epoch)
    }

    /// # Errors
    /// `Conflict` if it says something else of its part in the network.
    pub(crate) fn require_record(&self, expected: &Record) -> Result<()> {
        require_record(&self.record(), expected)
    }

    /// Whether it can be opened as a store by itself.
    ///
    /// # Errors
    /// `Unavailable` if it is being filled, or if the other side of its migration has to be seen before it
    /// is written; `Restricted` if it is no longer, or not yet, the network.
    pub(crate) fn require_served(&self, read_only: bool) -> Result<()> {
        let record = self.record();
        let seen = Seen::of(self);
        match record.role {
            Role::ActiveAlone | Role::ActiveAsync => Ok(()),
            // Of a new store.
            Role::None if record.membership.is_none() => Ok(()),
            Role::ActiveSync | Role::PassiveSync if read_only => Ok(()),
            Role::ActiveSync | Role::PassiveSync => Err(Refusal::NeedsOther(seen).error()),
            Role::Filling => Err(Error::new(
                ErrorKind::Unavailable,
                "the store is being filled as a copy of another one and is not complete; let that end, or \
                 discard it",
            )
            .with("store", self.store)
            .with("side", self.side)),
            Role::None | Role::PassiveAsync | Role::Fenced | Role::Retired => {
                Err(Refusal::NoStore(seen).error())
            }
        }
    }

    /// Whether somebody may write in this epoch.
    ///
    /// # Errors
    /// `Fenced` if it is another one.
    pub fn require_epoch(&self, epoch: Epoch) -> Result<()> {
        match epoch == self.epoch {
            true => Ok(()),
            false => Err(self.fenced().with("expected", epoch)),
        }
    }

    /// The head that `commit` leads to. These are the rules for a commit, for every backend.
    ///
    /// # Errors
    /// `Fenced` if the commit is of another epoch; `Conflict` if this is not the head that it builds on;
    /// `InvalidArgument` for a block that does not follow, a checkpoint that moves back or beyond the
    /// last block, or an epoch that is not above this one's; `SchemaMismatch` for what the stored schema
    /// has no place for.
    pub fn after(mut self, commit: &Commit) -> Result<Self> {
        self.require_epoch(commit.epoch)?;
        if commit.expected != self.position {
            return Err(Error::new(ErrorKind::Conflict, "the store has moved on")
                .with("expected", commit.expected)
                .with("position", self.position));
        }
        self.require_place(commit)?;
        // Whoever wrote to it before it was fenced is still in its epoch.
        let record = self.record();
        let is_new = record.role == Role::None && record.membership.is_none();
        if commit.id().is_some() && !record.role.admits_content() && !is_new {
            return Err(self.fenced().with("role", record.role));
        }
        if let Some(block) = &commit.block {
            if block.serial != self.serial.next() || block.previous != self.hash {
                return Err(Error::invalid("a block does not follow the last one")
                    .with("block", block.serial)
                    .with("serial", self.serial));
            }
            self.serial = block.serial;
            self.block = block.id;
            self.hash = block.hash;
            self.time = block.time;
        }
        if let Some(id) = commit.id() {
            self.position = self.position.next();
            self.commit = id;
        }
        if let Some(checkpoint) = commit.checkpoint {
            if checkpoint < self.checkpoint || checkpoint > self.serial {
                return Err(Error::invalid("a checkpoint moves forward, up to the last block")
                    .with("checkpoint", checkpoint)
                    .with("stored", self.checkpoint)
                    .with("serial", self.serial));
            }
            self.checkpoint = checkpoint;
        }
        if let Some(before) = commit.purge_before {
            // A block whose rows are not flushed is the only copy of them.
            self.oldest_block = self.oldest_block.max(before.min(self.checkpoint.next()));
        }
        let change = &commit.head;
        if let Some(epoch) = change.epoch {
            if epoch <= self.epoch {
                return Err(Error::invalid("an epoch is followed by a later one")
                    .with("epoch", self.epoch)
                    .with("next", epoch));
            }
            self.epoch = epoch;
        }
        self.lineage = change.lineage.unwrap_or(self.lineage);
        if let Some(key) = change.credential_key {
            // It is not counted, so two first openings with different keys fit the same position.
            if key.before != self.credential_key {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "the store has another credential key by now",
                ));
            }
            self.credential_key = Some(key.after);
        }
        if let Some(change) = change.record {
            self.replace_record(&record, &change)?;
        }
        if change.filled && self.role == Some(Role::Filling) {
            return Err(Error::invalid("a copy that a migration makes is completed by its record"));
        }
        self.filling &= !change.filled;
        Ok(if self.schema.counts_positions() { self } else { self.carried_forward() })
    }

    /// Changes what it says of its part in the network, if it still says what it is to say before.
    fn replace_record(&mut self, found: &Record, change: &RecordChange) -> Result<()> {
        let RecordChange { before, after } = change;
        require_record(found, before)?;
        if after.epoch < self.epoch {
            return Err(Error::invalid("an epoch is followed by a later one")
                .with("epoch", self.epoch)
                .with("next", after.epoch));
        }
        if after.role == Role::Filling {
            return Err(Error::invalid("only an empty store can be filled; it adopts a head"));
        }
        self.epoch = after.epoch;
        self.role = Some(after.role);
        self.membership = after.membership;
        self.filling = false;
        Ok(())
    }

    /// Refuses what can only be stored after a migration.
    fn require_place(&self, commit: &Commit) -> Result<()> {
        let (stored, current) = (self.schema, Schema::current().version());
        if stored.version >= current.version {
            return Ok(());
        }
        let tables = commit.rows.iter().map(|row| row.table);
        let mut tables = tables.chain(commit.prune.iter().map(|range| range.table));
        if let Some(table) = tables.find(|table| table.schema().since > stored.version) {
            return Err(unmigrated(stored).with("table", table.name()));
        }
        let is_placed = commit.head == HeadChange::default()
            || stored.has_records()
            || stored.counts_positions() && commit.head.record.is_none();
        if is_placed { Ok(()) } else { Err(unmigrated(stored)) }
    }

    /// The head of this store, which is empty, once it stands where `other` does: network, lineage,
    /// epoch, position, last block and the check of the credential key are taken over, as if every
    /// block had been stored, flushed and purged. Which database this is, and its schema, stay; of a
    /// migration it becomes part if `other` says [`Role::Filling`]. If the outcome is unknown, the head
    /// tells: it is then `filling`.
    ///
    /// # Errors
    /// `Restricted` if anything was ever committed to this store, or if it is filling already; `Fenced` if it is of a later epoch; `SchemaMismatch` if it has to be migrated first.
    pub fn adopt(self, other: &Self) -> Result<Self> {
        let role = other.role.filter(|role| *role == Role::Filling);
        if !self.schema.counts_positions() || role.is_some() && !self.schema.has_records() {
            return Err(unmigrated(self.schema));
        }
        if !self.is_empty() || self.filling || self.role.is_some() {
            return Err(Error::new(
                ErrorKind::Restricted,
                "only an empty store can become a copy of another one; name an empty one",
            )
            .with("store", self.store)
            .with("position", self.position)
            .with("filling", self.filling));
        }
        if other.epoch < self.epoch {
            return Err(self.fenced().with("expected", other.epoch));
        }
        Ok(Self {
            side: self.side,
            schema: self.schema,
            checkpoint: other.serial,
            oldest_block: other.serial.next(),
            filling: true,
            membership: other.membership.filter(|_| role.is_some()),
            role,
            ..*other
        })
    }
}

fn require_record(found: &Record, expected: &Record) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Conflict,
        "the database is at another stage of its migration by now; look at both sides anew",
    )
    .with("expected", expected)
    .with("found", found))
}

/// The refusal of what the stored schema has no place for.
fn unmigrated(stored: SchemaVersion) -> Error {
    let (found, supported) = (stored.version, Schema::current().version().version);
    Error::new(
        ErrorKind::SchemaMismatch { found, supported },
        "the stored schema has no place for this; migrate the store first",
    )
    .with("found", found)
    .with("supported", supported)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backend::{KeyChange, KeyRange};
    use crate::block::{BlockBuilder, EncodedBlock};
    use crate::domain::MigrationId;
    use crate::migration::Part;
    use crate::schema::Table;

    fn genesis() -> Head {
        Head::genesis(StoreId::from_bytes([1; 16]), Schema::current())
    }

    fn entry(head: &Head) -> Commit {
        Commit { entry: Some(CommitId::from_bytes([9; 16])), ..Commit::on(head) }
    }

    fn next_block(head: &Head) -> EncodedBlock {
        let (serial, id) = (head.serial.next(), BlockId::from_bytes([2; 16]));
        BlockBuilder::default().finish(serial, id, head.hash, head.time).unwrap().block
    }

    #[test]
    fn the_position_counts_what_changes_content() {
        let head = genesis();
        let with_block = Commit { block: Some(next_block(&head)), ..Commit::on(&head) };
        let head = head.after(&with_block).unwrap();
        assert_eq!((head.position.get(), head.serial.get()), (1, 1));
        assert_eq!(head.commit.as_bytes(), head.block.as_bytes());
        let head = head.after(&entry(&head)).unwrap();
        assert_eq!((head.position.get(), head.serial.get()), (2, 1));
        assert_eq!(head.commit, CommitId::from_bytes([9; 16]));
        let flush = Commit { checkpoint: Some(head.serial), ..Commit::on(&head) };
        let flushed = head.after(&flush).unwrap();
        assert_eq!((flushed.position, flushed.commit), (head.position, head.commit));
        assert_eq!(*head.after(&with_block).unwrap_err().kind(), ErrorKind::Conflict);
    }

    #[test]
    fn a_stale_epoch_is_fenced_whatever_the_position() {
        let head = genesis();
        let raise = HeadChange { epoch: Some(Epoch::new(2)), ..HeadChange::default() };
        let raised = head.after(&Commit { head: raise, ..Commit::on(&head) }).unwrap();
        assert_eq!((raised.epoch.get(), raised.position), (2, head.position));
        for stale in [entry(&head), Commit { expected: Position::new(7), ..Commit::on(&head) }] {
            let error = raised.after(&stale).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Fenced { epoch: 2 });
        }
        let lower = Commit { head: raise, ..Commit::on(&raised) };
        assert_eq!(*raised.after(&lower).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn only_an_empty_store_adopts_a_head() {
        let source = genesis();
        let source = source.after(&entry(&source)).unwrap();
        let empty = Head::genesis(StoreId::from_bytes([5; 16]), Schema::current());
        let adopted = empty.adopt(&source).unwrap();
        assert_eq!((adopted.store, adopted.position), (source.store, source.position));
        assert_eq!((adopted.side, adopted.filling), (empty.side, true));
        assert_eq!(*adopted.adopt(&source).unwrap_err().kind(), ErrorKind::Restricted);
        let filled = HeadChange { filled: true, ..HeadChange::default() };
        let filled = adopted.after(&Commit { head: filled, ..Commit::on(&adopted) }).unwrap();
        assert!(!filled.filling);
        assert_eq!(*filled.adopt(&source).unwrap_err().kind(), ErrorKind::Restricted);
    }

    #[test]
    fn a_copy_is_not_of_an_earlier_epoch() {
        let raise = HeadChange { epoch: Some(Epoch::new(2)), ..HeadChange::default() };
        let empty = genesis();
        let empty = empty.after(&Commit { head: raise, ..Commit::on(&empty) }).unwrap();
        let source = genesis();
        let source = source.after(&entry(&source)).unwrap();
        let error = empty.adopt(&source).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Fenced { epoch: 2 });
    }

    #[test]
    fn of_two_first_keys_the_second_is_in_conflict() {
        let head = genesis();
        let first = |key| {
            let change = KeyChange { before: None, after: KeyCheck::from_bytes([key; 16]) };
            let change = HeadChange { credential_key: Some(change), ..HeadChange::default() };
            Commit { head: change, ..Commit::on(&head) }
        };
        let after = head.after(&first(1)).unwrap();
        assert_eq!(*after.after(&first(2)).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(after.credential_key, Some(KeyCheck::from_bytes([1; 16])));
    }

    #[test]
    fn what_an_older_schema_lacks_is_not_committed_before_it_is_migrated() {
        let head = Head::genesis(StoreId::from_bytes([1; 16]), Schema::at(2).unwrap());
        let with_block = Commit { block: Some(next_block(&head)), ..Commit::on(&head) };
        let head = head.after(&with_block).unwrap();
        assert_eq!(head, head.carried_forward());
        // Its commits without a block are not counted.
        assert_eq!(head.after(&entry(&head)).unwrap(), head);
        let raise = HeadChange { epoch: Some(Epoch::new(2)), ..HeadChange::default() };
        let prune = vec![KeyRange::all(Table::Feed)];
        for misplaced in
            [Commit { head: raise, ..Commit::on(&head) }, Commit { prune, ..Commit::on(&head) }]
        {
            let kind = head.after(&misplaced).unwrap_err().kind().clone();
            assert!(matches!(kind, ErrorKind::SchemaMismatch { found: 2, .. }), "{kind:?}");
        }
        let empty = Head::genesis(StoreId::from_bytes([1; 16]), Schema::at(2).unwrap());
        let kind = empty.adopt(&head).unwrap_err().kind().clone();
        assert!(matches!(kind, ErrorKind::SchemaMismatch { found: 2, .. }), "{kind:?}");
    }

    fn membership() -> Option<Membership> {
        let (migration, peer) = (MigrationId::from_bytes([3; 16]), SideId::from_bytes([4; 16]));
        Some(Membership { migration, peer, part: Part::Source })
    }

    /// What writes this record.
    fn recording(head: &Head, after: Record) -> Commit {
        let record = Some(RecordChange { before: head.record(), after });
        Commit { head: HeadChange { record, ..HeadChange::default() }, ..Commit::on(head) }
    }

    #[test]
    fn a_record_is_replaced_only_by_who_has_seen_it() {
        let head = genesis();
        assert_eq!(head.record().role, Role::None);
        let head = head.after(&entry(&head)).unwrap();
        assert_eq!(head.record().role, Role::ActiveAlone);
        let active = Record { role: Role::ActiveAsync, membership: membership(), ..head.record() };
        let begun = head.after(&recording(&head, active)).unwrap();
        assert_eq!((begun.record(), begun.position), (active, head.position));
        let again = Commit { head: recording(&head, active).head, ..Commit::on(&begun) };
        assert_eq!(*begun.after(&again).unwrap_err().kind(), ErrorKind::Conflict);
        let raised = active.from_epoch(Epoch::new(2), Role::ActiveAlone);
        let raised = begun.after(&recording(&begun, raised)).unwrap();
        assert_eq!(
            *raised.after(&entry(&begun)).unwrap_err().kind(),
            ErrorKind::Fenced { epoch: 2 }
        );
        for wrong in [begun.record(), raised.record().with(Role::Filling)] {
            let error = raised.after(&recording(&raised, wrong)).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
        assert_eq!(
            raised.after(&recording(&raised, begun.record().released())).unwrap_err().kind().name(),
            "invalid_argument"
        );
    }

    #[test]
    fn who_wrote_before_the_fence_writes_no_more_though_the_epoch_is_the_same() {
        let head = genesis();
        let head = head.after(&entry(&head)).unwrap();
        for role in [Role::Fenced, Role::Retired, Role::None] {
            let left = Record { role, membership: membership(), ..head.record() };
            let left = head.after(&recording(&head, left)).unwrap();
            let error = left.after(&entry(&head)).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Fenced { epoch: 0 }, "{error}");
            // What changes no content goes on: rows are flushed, and the record moves.
            let flush = Commit { checkpoint: Some(left.serial), ..Commit::on(&left) };
            left.after(&flush).unwrap();
            left.after(&recording(&left, left.record().released())).unwrap();
        }
    }

    #[test]
    fn what_is_not_the_network_is_not_served() {
        let head = genesis();
        head.require_served(false).unwrap();
        let head = head.after(&entry(&head)).unwrap();
        for (role, written, read) in [
            (Role::None, false, false),
            (Role::PassiveAsync, false, false),
            (Role::PassiveSync, false, true),
            (Role::ActiveAlone, true, true),
            (Role::ActiveAsync, true, true),
            (Role::ActiveSync, false, true),
            (Role::Fenced, false, false),
            (Role::Retired, false, false),
        ] {
            let head = Head { role: Some(role), membership: membership(), ..head };
            let served = [false, true].map(|read_only| head.require_served(read_only).is_ok());
            assert_eq!(served, [written, read], "{role}");
        }
    }

    #[test]
    fn a_copy_becomes_part_of_the_migration_that_makes_it() {
        let source = genesis();
        let source = source.after(&entry(&source)).unwrap();
        let active =
            Record { role: Role::ActiveAsync, membership: membership(), ..source.record() };
        let source = source.after(&recording(&source, active)).unwrap();
        let empty = Head::genesis(StoreId::from_bytes([5; 16]), Schema::current());
        // A copy of what is being migrated is not itself.
        assert_eq!(empty.adopt(&source).unwrap().record().membership, None);
        let filling = Head { role: Some(Role::Filling), ..source };
        let adopted = empty.adopt(&filling).unwrap();
        assert_eq!((adopted.record().role, adopted.membership), (Role::Filling, membership()));
        let filled = HeadChange { filled: true, ..HeadChange::default() };
        let error = adopted.after(&Commit { head: filled, ..Commit::on(&adopted) }).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
        let passive = adopted.record().with(Role::PassiveAsync);
        let passive = adopted.after(&recording(&adopted, passive)).unwrap();
        assert!(!passive.filling);
    }
}
