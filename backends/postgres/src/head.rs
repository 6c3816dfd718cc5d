//! The table that tells where the store stands, in one row, and that every commit changes.

use std::time::{SystemTime, UNIX_EPOCH};

use ghostwire_store_core::backend::{Commit, Head};
use ghostwire_store_core::block::{BlockHash, Serial};
use ghostwire_store_core::domain::{
    BlockId, CommitId, LineageId, MigrationId, SideId, StoreId, Timestamp,
};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::migration::{Membership, Part, Role};
use ghostwire_store_core::position::{Epoch, Position};
use ghostwire_store_core::schema::{Schema, SchemaVersion};
use ghostwire_store_core::secrets::KeyCheck;
use sqlx::postgres::PgRow;

use crate::shape::row_check;
use crate::wire::{
    Param, Storage, boolean_at, cell, count_at, fixed_at, integer_at, text_at, time_at,
};

/// The table.
pub(crate) const META: &str = "ghostwire_meta";

/// Its columns that a head is stored in: names, types, and what they are.
const COLUMNS: [(&str, Storage, &str); 22] = [
    ("store", Storage::Id, "the network, the same in every database that holds it"),
    ("side", Storage::Id, "this database, drawn when the store was made"),
    ("lineage", Storage::Id, "the history; another one after a return to an older copy"),
    ("epoch", Storage::Integer, "who may write"),
    ("position", Storage::Integer, "counts the commits that changed content"),
    ("last_commit", Storage::Id, "the id of the last of them"),
    ("serial", Storage::Integer, "the last block"),
    ("block", Storage::Id, "its id"),
    ("hash", Storage::Bytes, "its SHA-256"),
    ("time", Storage::Time, "its time"),
    ("checkpoint", Storage::Integer, "the tables hold every block up to here"),
    ("oldest_block", Storage::Integer, "the first serial in ghostwire_blocks, or serial + 1"),
    ("schema_version", Storage::Integer, "the schema of the tables"),
    ("oldest_reader", Storage::Integer, "the oldest schema version whose programs may open this"),
    ("filling", Storage::Boolean, "true while this is being filled as a copy, and not complete"),
    ("credential_key", Storage::Bytes, "tells which key credentials were hashed with, and no more"),
    (
        "role",
        Storage::Text,
        "what a migration between backends made this; null if there never was one",
    ),
    ("migration", Storage::Id, "the migration that it is part of"),
    ("peer", Storage::Id, "the other database of that"),
    ("part", Storage::Text, "which end of it this is: source or target"),
    ("revision", Storage::Integer, "counts the changes of this row"),
    ("row_check", Storage::Integer, "of the other columns: a row edited by hand is refused"),
];

/// Those that may be null.
const OPTIONAL: [&str; 5] = ["credential_key", "role", "migration", "peer", "part"];

/// The number that the check of the row has in place of a table's.
const META_NUMBER: u8 = 0;

/// The statements that make the table, without its row. A page is nearly empty, so that the new version of
/// the row finds room beside the old one and no index has to change.
pub(crate) fn create(schema: &str) -> Vec<String> {
    let columns = COLUMNS.iter().map(|(name, storage, _)| {
        let null = if OPTIONAL.contains(name) { "" } else { " NOT NULL" };
        format!("\"{name}\" {}{null},\n  ", storage.definition())
    });
    let create = format!(
        "CREATE TABLE \"{schema}\".\"{META}\" (\n  {}\"halted\" {},\n  \
         \"one\" boolean PRIMARY KEY DEFAULT true CHECK (\"one\")\n) WITH (fillfactor = 10, \
         autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)",
        columns.collect::<String>(),
        Storage::Text.definition()
    );
    let comments = COLUMNS.iter().map(|(name, _, what)| {
        format!("COMMENT ON COLUMN \"{schema}\".\"{META}\".\"{name}\" IS '{what}'")
    });
    let halted = format!(
        "COMMENT ON COLUMN \"{schema}\".\"{META}\".\"halted\" IS 'why nothing may be written; set by \
         hand, too'"
    );
    [create].into_iter().chain(comments).chain([halted]).collect()
}

/// The names and types of all its columns, as the catalog has them.
pub(crate) fn columns() -> impl Iterator<Item = (String, Storage, bool)> {
    let of_head = COLUMNS
        .into_iter()
        .map(|(name, storage, _)| (name.to_owned(), storage, !OPTIONAL.contains(&name)));
    let others = [("halted", Storage::Text, false), ("one", Storage::Boolean, true)];
    of_head.chain(others.map(|(name, storage, required)| (name.to_owned(), storage, required)))
}

/// Where the store stands, and what the next commit has to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredHead {
    pub(crate) head: Head,
    /// How often the row was changed.
    pub(crate) revision: u64,
    check: i64,
    halted: Option<String>,
    /// The server's clock when the row was read, in microseconds.
    clock: i64,
    /// What answered is a standby, and may lag behind.
    pub(crate) lags: bool,
    /// What answered may forget what it confirms: a setting that a running server was given.
    pub(crate) forgets: bool,
}

/// How many columns [`select`] gives.
const SELECTED: usize = COLUMNS.len() + 4;

/// What to select of the row, from the table under this name.
pub(crate) fn selection(table: &str) -> String {
    let columns = COLUMNS.iter().map(|(name, ..)| format!("{table}.\"{name}\", "));
    format!(
        "{}{table}.\"halted\", pg_catalog.clock_timestamp(), pg_catalog.pg_is_in_recovery(), \
         NOT (pg_catalog.current_setting('fsync')::boolean \
         AND pg_catalog.current_setting('full_page_writes')::boolean)",
        columns.collect::<String>()
    )
}

/// The query for the row: by its key, since old versions of it may fill many pages.
pub(crate) fn select(schema: &str) -> String {
    format!("SELECT {} FROM \"{schema}\".\"{META}\" AS m WHERE m.\"one\"", selection("m"))
}

fn values(head: &Head, revision: u64) -> Vec<Param> {
    let (key, member) = (head.credential_key, head.membership);
    let text = |text: Option<&str>| text.map_or(Param::null(Storage::Text), Param::text);
    let mut values = vec![
        Param::id(head.store.as_bytes()),
        Param::id(head.side.as_bytes()),
        Param::id(head.lineage.as_bytes()),
        Param::count(head.epoch.get()),
        Param::count(head.position.get()),
        Param::id(head.commit.as_bytes()),
        Param::count(head.serial.get()),
        Param::id(head.block.as_bytes()),
        Param::bytes(head.hash.as_bytes()),
        Param::time(head.time.as_micros()),
        Param::count(head.checkpoint.get()),
        Param::count(head.oldest_block.get()),
        Param::integer(head.schema.version.into()),
        Param::integer(head.schema.oldest_reader.into()),
        Param::boolean(head.filling),
        key.map_or(Param::null(Storage::Bytes), |key| Param::bytes(key.as_bytes())),
        text(head.role.map(Role::name)),
        member.map_or(Param::null(Storage::Id), |member| Param::id(member.migration.as_bytes())),
        member.map_or(Param::null(Storage::Id), |member| Param::id(member.peer.as_bytes())),
        text(member.map(|member| member.part.name())),
        Param::count(revision),
    ];
    let check = row_check(META_NUMBER, values.iter().map(Param::wire));
    values.push(Param::integer(check));
    values
}

/// The statement that puts the first row into the table, and its parameters.
pub(crate) fn insert(schema: &str, head: &Head) -> (String, Vec<Param>) {
    let names: Vec<String> = COLUMNS.iter().map(|(name, ..)| format!("\"{name}\"")).collect();
    let marks: Vec<String> = (1..=COLUMNS.len()).map(|number| format!("${number}")).collect();
    let (names, marks) = (names.join(", "), marks.join(", "));
    let sql = format!("INSERT INTO \"{schema}\".\"{META}\" ({names}) VALUES ({marks})");
    (sql, values(head, 1))
}

/// How many parameters [`update`] has.
pub(crate) const UPDATE_PARAMS: usize = 2 * COLUMNS.len() + 2;

/// The statement that changes the row from what is known to what follows, if every column still is as
/// known; `$1` is the first of its parameters. One row says that it did.
pub(crate) fn update(schema: &str) -> String {
    let list = |part: &dyn Fn((usize, &str)) -> String| {
        let parts = COLUMNS.iter().enumerate().map(|(index, (name, ..))| part((index + 1, name)));
        parts.collect::<Vec<_>>().join(", ")
    };
    let count = COLUMNS.len();
    let sets = list(&|(number, name)| format!("\"{name}\" = ${number}"));
    let columns = list(&|(_, name)| format!("m.\"{name}\""));
    let known = list(&|(number, _)| format!("${}", count + number));
    let [time, ahead] = [2 * count + 1, 2 * count + 2];
    format!(
        "UPDATE \"{schema}\".\"{META}\" AS m SET {sets} WHERE m.\"one\" \
         AND ROW({columns}) IS NOT DISTINCT FROM ROW({known}) AND m.\"halted\" IS NULL \
         AND (${time} IS NULL OR ${time} <= pg_catalog.clock_timestamp() \
         + ${ahead} * pg_catalog.make_interval(secs => 0.000001)) RETURNING 1 AS stored"
    )
}

/// What a name stands for, if there is one.
fn named<T>(row: &PgRow, index: usize, of: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>> {
    if cell(row, index)?.is_none() {
        return Ok(None);
    }
    of(text_at(row, index)?)
        .map(Some)
        .ok_or_else(|| Error::corrupt("a name that stands for nothing"))
}

/// The migration that is named by three columns, or by none.
fn membership(row: &PgRow, from: usize) -> Result<Option<Membership>> {
    let part = named(row, from + 2, Part::named)?;
    match (cell(row, from)?.is_some(), cell(row, from + 1)?.is_some(), part) {
        (false, false, None) => Ok(None),
        (true, true, Some(part)) => Ok(Some(Membership {
            migration: MigrationId::from_bytes(fixed_at(row, from)?),
            peer: SideId::from_bytes(fixed_at(row, from + 1)?),
            part,
        })),
        _ => Err(Error::corrupt("half of a migration")),
    }
}

impl StoredHead {
    /// Reads a row of [`select`], whose columns begin at `from`.
    pub(crate) fn read(row: &PgRow, from: usize) -> Result<Self> {
        Self::read_unnamed(row, from).map_err(|error| match error.kind() {
            ErrorKind::Corrupt => damaged().because(error.to_string()),
            _ => error,
        })
    }

    fn read_unnamed(row: &PgRow, from: usize) -> Result<Self> {
        let at = |index: usize| from + index;
        let version = |index| {
            u32::try_from(integer_at(row, at(index))?).map_err(|_| Error::corrupt("a version"))
        };
        let schema = SchemaVersion { version: version(12)?, oldest_reader: version(13)? };
        let store = StoreId::from_bytes(fixed_at(row, at(0))?);
        let head = Head {
            store,
            side: SideId::from_bytes(fixed_at(row, at(1))?),
            lineage: LineageId::from_bytes(fixed_at(row, at(2))?),
            epoch: Epoch::new(count_at(row, at(3))?),
            position: Position::new(count_at(row, at(4))?),
            commit: CommitId::from_bytes(fixed_at(row, at(5))?),
            serial: Serial::new(count_at(row, at(6))?),
            block: BlockId::from_bytes(fixed_at(row, at(7))?),
            hash: BlockHash::from_bytes(fixed_at(row, at(8))?),
            time: Timestamp::from_micros(time_at(row, at(9))?)
                .map_err(|error| Error::corrupt("a time").because(error))?,
            checkpoint: Serial::new(count_at(row, at(10))?),
            oldest_block: Serial::new(count_at(row, at(11))?),
            schema,
            filling: boolean_at(row, at(14))?,
            credential_key: match cell(row, at(15))? {
                Some(_) => Some(KeyCheck::from_bytes(fixed_at(row, at(15))?)),
                None => None,
            },
            role: named(row, at(16), Role::named)?,
            membership: membership(row, at(17))?,
        };
        let revision = count_at(row, at(20))?;
        let check = integer_at(row, at(21))?;
        if values(&head, revision).last() != Some(&Param::integer(check)) {
            return Err(Error::corrupt("its check is not that of its columns"));
        }
        let halted = match cell(row, at(22))? {
            Some(_) => Some(text_at(row, at(22))?.to_owned()),
            None => None,
        };
        let clock = time_at(row, at(SELECTED - 3))?;
        let (lags, forgets) =
            (boolean_at(row, at(SELECTED - 2))?, boolean_at(row, at(SELECTED - 1))?);
        Ok(Self { head, revision, check, halted, clock, lags, forgets })
    }

    /// The parameters of [`update`] that lead from here to `next`. `time` is that of a block that comes
    /// with it, and `ahead` how far it may be ahead of the server's clock.
    pub(crate) fn to(
        &self,
        next: &Head,
        time: Option<Timestamp>,
        ahead: Option<i64>,
    ) -> Vec<Param> {
        let mut params = values(next, self.revision.saturating_add(1));
        let bounded = time.filter(|_| ahead.is_some());
        params.extend(values(&self.head, self.revision));
        params.extend([
            bounded.map_or(Param::null(Storage::Time), |time| Param::time(time.as_micros())),
            Param::integer(ahead.unwrap_or(0)),
        ]);
        params
    }

    /// What it is once `next` is stored.
    pub(crate) fn moved_to(&self, next: &Head) -> Self {
        let revision = self.revision.saturating_add(1);
        let check = row_check(
            META_NUMBER,
            values(next, revision).iter().rev().skip(1).rev().map(Param::wire),
        );
        Self { head: *next, revision, check, halted: None, ..*self }
    }

    /// Whether nothing was changed since `other` was read.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        (self.revision, self.check) == (other.revision, other.check)
    }

    /// The head after a commit, as [`Head::after`] has it, if nothing was stored since the commit was planned.
    ///
    /// # Errors
    /// Those of that; `Conflict`.
    pub(crate) fn after(&self, commit: &Commit) -> Result<Head> {
        let next = self.head.after(commit)?;
        match commit.revision.is_none_or(|planned| planned == self.revision) {
            true => Ok(next),
            false => Err(Error::new(ErrorKind::Conflict, "something else was stored since")
                .with("planned_on", commit.revision.unwrap_or(0))
                .with("revision", self.revision)),
        }
    }

    /// How far the server's clock was ahead of this machine's, in milliseconds, if the row was asked for at
    /// the first of these moments and there by the second.
    pub(crate) fn clock_ahead_ms(&self, asked: SystemTime, answered: SystemTime) -> i64 {
        let micros = |at: SystemTime| {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
        };
        let (asked, answered) = (micros(asked), micros(answered));
        let middle = asked + answered.saturating_sub(asked) / 2;
        self.clock.saturating_sub(middle) / 1000
    }

    /// Why the row would not be changed, though it is what was expected.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn refusal(&self, time: Option<Timestamp>) -> Error {
        if let Some(why) = &self.halted {
            return Error::new(
                ErrorKind::Unavailable,
                "the store was halted: nothing is written until somebody looks after it and clears \
                 `halted` in the table of the head",
            )
            .with("why", why);
        }
        let ahead = time.map_or(0, |time| time.as_micros().saturating_sub(self.clock));
        Error::new(
            ErrorKind::Unavailable,
            "this machine's clock, or the last block, is ahead of the database server's clock: correct the \
             clocks",
        )
        .with("ahead_ms", ahead / 1000)
    }

    /// Refuses a store of a schema that this program does not know: what it does not know of a row it would
    /// erase.
    pub(crate) fn require_known(&self) -> Result<()> {
        let (found, supported) = (self.head.schema.version, Schema::current().version().version);
        if found <= supported {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::SchemaMismatch { found, supported },
            "the store was migrated to a later schema; this program may read it and not write to it, use \
             the newer release",
        )
        .with("found", found)
        .with("supported", supported))
    }
}

pub(crate) fn damaged() -> Error {
    Error::corrupt(
        "the row that tells where the store stands is damaged, missing, or was edited by hand; restore \
         the database from a backup",
    )
    .with("table", META)
}
