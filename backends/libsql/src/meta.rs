//! The table that tells where the store stands, in one row.

use data_encoding::HEXLOWER;
use ghostwire_store_core::backend::Head;
use ghostwire_store_core::block::{BlockHash, Serial};
use ghostwire_store_core::domain::{
    BlockId, CommitId, LineageId, MigrationId, SideId, StoreId, Timestamp,
};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::migration::{Membership, Part, Role};
use ghostwire_store_core::position::{Epoch, Position};
use ghostwire_store_core::schema::{Schema, SchemaVersion};
use ghostwire_store_core::secrets::KeyCheck;
use ghostwire_store_sqlite::Connection;
use libsql::{Row, Value};

use crate::blocks::CREATE_BLOCKS;
use crate::layout::create_table;
use crate::link::{Link, Storage, cell, integer, text};
use crate::shape::{id_text, parse_id, row_check};

/// The table.
pub(crate) const META: &str = "ghostwire_meta";

/// Its columns, which a schema decides.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MetaLayout {
    pub(crate) create: &'static str,
    select: &'static str,
    insert: &'static str,
    update: &'static str,
    counts_positions: bool,
    has_records: bool,
}

/// Of schemas 1 and 2.
static UNCOUNTED: MetaLayout = MetaLayout {
    create: "\
CREATE TABLE ghostwire_meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  store TEXT NOT NULL, -- drawn when the store was made
  serial INTEGER NOT NULL, -- the last commit
  block TEXT NOT NULL, -- its block's id
  hash TEXT NOT NULL, -- its block's SHA-256
  time INTEGER NOT NULL, -- its block's time, microseconds since 1970-01-01 UTC
  [checkpoint] INTEGER NOT NULL, -- the tables hold every commit up to here
  oldest_block INTEGER NOT NULL, -- the first serial in ghostwire_blocks, or serial + 1
  schema_version INTEGER NOT NULL,
  oldest_reader INTEGER NOT NULL, -- the oldest schema version whose programs may open this
  row_check INTEGER NOT NULL -- of the other columns: a row edited by hand is refused
) STRICT",
    select: "SELECT CAST([store] AS BLOB), [serial], CAST([block] AS BLOB), CAST([hash] AS BLOB), \
             [time], [checkpoint], [oldest_block], [schema_version], [oldest_reader], [row_check] \
             FROM ghostwire_meta",
    insert: "INSERT INTO ghostwire_meta (one, store, serial, block, hash, time, [checkpoint], \
             oldest_block, schema_version, oldest_reader, row_check) \
             VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    update: "UPDATE ghostwire_meta SET store = ?1, serial = ?2, block = ?3, hash = ?4, time = ?5, \
             [checkpoint] = ?6, oldest_block = ?7, schema_version = ?8, oldest_reader = ?9, \
             row_check = ?10 WHERE one = 1 AND serial = ?11",
    counts_positions: false,
    has_records: false,
};

/// Of schemas 3 and 4.
static COUNTED: MetaLayout = MetaLayout {
    create: "\
CREATE TABLE ghostwire_meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  store TEXT NOT NULL, -- the network, the same in every database that holds it
  serial INTEGER NOT NULL, -- the last block
  block TEXT NOT NULL, -- its id
  hash TEXT NOT NULL, -- its SHA-256
  time INTEGER NOT NULL, -- its time, microseconds since 1970-01-01 UTC
  [checkpoint] INTEGER NOT NULL, -- the tables hold every block up to here
  oldest_block INTEGER NOT NULL, -- the first serial in ghostwire_blocks, or serial + 1
  schema_version INTEGER NOT NULL,
  oldest_reader INTEGER NOT NULL, -- the oldest schema version whose programs may open this
  side TEXT NOT NULL, -- this database, drawn when it was made
  lineage TEXT NOT NULL, -- the history; another one after a return to an older copy
  epoch INTEGER NOT NULL, -- who may write
  position INTEGER NOT NULL, -- counts the commits that changed content
  [commit] TEXT NOT NULL, -- the id of the last of them
  filling INTEGER NOT NULL, -- 1 while this is being filled as a copy, and not complete
  credential_key TEXT, -- tells which key credentials were hashed with, and nothing else about it
  row_check INTEGER NOT NULL -- of the other columns: a row edited by hand is refused
) STRICT",
    select: "SELECT CAST([store] AS BLOB), [serial], CAST([block] AS BLOB), CAST([hash] AS BLOB), \
             [time], [checkpoint], [oldest_block], [schema_version], [oldest_reader], \
             CAST([side] AS BLOB), CAST([lineage] AS BLOB), [epoch], [position], \
             CAST([commit] AS BLOB), [filling], CAST([credential_key] AS BLOB), [row_check] \
             FROM ghostwire_meta",
    insert: "INSERT INTO ghostwire_meta (one, store, serial, block, hash, time, [checkpoint], \
             oldest_block, schema_version, oldest_reader, side, lineage, epoch, position, [commit], \
             filling, credential_key, row_check) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, \
             ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
    update: "UPDATE ghostwire_meta SET store = ?1, serial = ?2, block = ?3, hash = ?4, time = ?5, \
             [checkpoint] = ?6, oldest_block = ?7, schema_version = ?8, oldest_reader = ?9, \
             side = ?10, lineage = ?11, epoch = ?12, position = ?13, [commit] = ?14, filling = ?15, \
             credential_key = ?16, row_check = ?17 WHERE one = 1 AND position = ?18 AND epoch = ?19",
    counts_positions: true,
    has_records: false,
};

/// Since schema 5.
static RECORDED: MetaLayout = MetaLayout {
    create: "\
CREATE TABLE ghostwire_meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  store TEXT NOT NULL, -- the network, the same in every database that holds it
  serial INTEGER NOT NULL, -- the last block
  block TEXT NOT NULL, -- its id
  hash TEXT NOT NULL, -- its SHA-256
  time INTEGER NOT NULL, -- its time, microseconds since 1970-01-01 UTC
  [checkpoint] INTEGER NOT NULL, -- the tables hold every block up to here
  oldest_block INTEGER NOT NULL, -- the first serial in ghostwire_blocks, or serial + 1
  schema_version INTEGER NOT NULL,
  oldest_reader INTEGER NOT NULL, -- the oldest schema version whose programs may open this
  side TEXT NOT NULL, -- this database, drawn when it was made
  lineage TEXT NOT NULL, -- the history; another one after a return to an older copy
  epoch INTEGER NOT NULL, -- who may write
  position INTEGER NOT NULL, -- counts the commits that changed content
  [commit] TEXT NOT NULL, -- the id of the last of them
  filling INTEGER NOT NULL, -- 1 while this is being filled as a copy, and not complete
  credential_key TEXT, -- tells which key credentials were hashed with, and nothing else about it
  role TEXT, -- what a migration between backends made this; null if there never was one
  migration TEXT, -- the migration that it is part of,
  peer TEXT, -- the other database of that,
  part TEXT, -- and which end of it this is: source or target
  row_check INTEGER NOT NULL -- of the other columns: a row edited by hand is refused
) STRICT",
    select: "SELECT CAST([store] AS BLOB), [serial], CAST([block] AS BLOB), CAST([hash] AS BLOB), \
             [time], [checkpoint], [oldest_block], [schema_version], [oldest_reader], \
             CAST([side] AS BLOB), CAST([lineage] AS BLOB), [epoch], [position], \
             CAST([commit] AS BLOB), [filling], CAST([credential_key] AS BLOB), \
             CAST([role] AS BLOB), CAST([migration] AS BLOB), CAST([peer] AS BLOB), \
             CAST([part] AS BLOB), [row_check] \
             FROM ghostwire_meta",
    insert: "INSERT INTO ghostwire_meta (one, store, serial, block, hash, time, [checkpoint], \
             oldest_block, schema_version, oldest_reader, side, lineage, epoch, position, [commit], \
             filling, credential_key, role, migration, peer, part, row_check) VALUES (1, ?1, ?2, ?3, ?4, \
             ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
    update: "UPDATE ghostwire_meta SET store = ?1, serial = ?2, block = ?3, hash = ?4, time = ?5, \
             [checkpoint] = ?6, oldest_block = ?7, schema_version = ?8, oldest_reader = ?9, \
             side = ?10, lineage = ?11, epoch = ?12, position = ?13, [commit] = ?14, filling = ?15, \
             credential_key = ?16, role = ?17, migration = ?18, peer = ?19, part = ?20, \
             row_check = ?21 WHERE one = 1 AND position = ?22 AND epoch = ?23",
    counts_positions: true,
    has_records: true,
};

/// The number that the check of the meta row has in place of a table's.
const META_NUMBER: u8 = 0;

impl MetaLayout {
    /// That of a schema.
    pub(crate) fn of(schema: SchemaVersion) -> &'static Self {
        match (schema.has_records(), schema.counts_positions()) {
            (true, _) => &RECORDED,
            (false, true) => &COUNTED,
            (false, false) => &UNCOUNTED,
        }
    }

    fn values(&self, head: &Head) -> Vec<Value> {
        let mut values = vec![
            id(head.store.as_bytes()),
            number(head.serial.get()),
            id(head.block.as_bytes()),
            Value::Text(hash_text(&head.hash)),
            Value::Integer(head.time.as_micros()),
            number(head.checkpoint.get()),
            number(head.oldest_block.get()),
            Value::Integer(head.schema.version.into()),
            Value::Integer(head.schema.oldest_reader.into()),
        ];
        if self.counts_positions {
            let key = head.credential_key.map(|key| HEXLOWER.encode(key.as_bytes()));
            values.extend([
                id(head.side.as_bytes()),
                id(head.lineage.as_bytes()),
                number(head.epoch.get()),
                number(head.position.get()),
                id(head.commit.as_bytes()),
                Value::Integer(head.filling.into()),
                key.map_or(Value::Null, Value::Text),
            ]);
        }
        if self.has_records {
            let text = |text: Option<String>| text.map_or(Value::Null, Value::Text);
            let membership = head.membership;
            values.extend([
                text(head.role.map(|role| role.name().to_owned())),
                membership.map_or(Value::Null, |it| id(it.migration.as_bytes())),
                membership.map_or(Value::Null, |it| id(it.peer.as_bytes())),
                text(membership.map(|it| it.part.name().to_owned())),
            ]);
        }
        let check = row_check(META_NUMBER, &values, &mut Vec::new());
        values.push(Value::Integer(check));
        values
    }

    /// Where the store stands, from the file.
    pub(crate) fn head(&self, link: &mut Link) -> Result<Head> {
        let mut found = Vec::new();
        link.query(self.select, Vec::new(), |row| {
            let head = self.head_at(row)?;
            let values = self.values(&head);
            if values.last() != Some(&Value::Integer(integer(row, values.len() - 1)?)) {
                return Err(damaged());
            }
            found.push(head);
            Ok(())
        })?;
        match found.as_slice() {
            [head] => Ok(*head),
            _ => Err(damaged()),
        }
    }

    fn head_at(&self, row: &Row) -> Result<Head> {
        let version = |index| u32::try_from(integer(row, index)?).map_err(|_| damaged());
        let id = |index| parse_id(&text(row, index)?);
        let schema = SchemaVersion { version: version(7)?, oldest_reader: version(8)? };
        let genesis = Head::genesis(StoreId::from_bytes(id(0)?), Schema::current());
        let head = Head {
            serial: serial_at(row, 1)?,
            block: BlockId::from_bytes(id(2)?),
            hash: parse_hash(&text(row, 3)?)?,
            time: Timestamp::from_micros(integer(row, 4)?)
                .map_err(|error| damaged().because(error))?,
            checkpoint: serial_at(row, 5)?,
            oldest_block: serial_at(row, 6)?,
            schema,
            ..genesis
        };
        if !self.counts_positions {
            return Ok(head.carried_forward());
        }
        let head = Head {
            side: SideId::from_bytes(id(9)?),
            lineage: LineageId::from_bytes(id(10)?),
            epoch: Epoch::new(count_at(row, 11)?),
            position: Position::new(count_at(row, 12)?),
            commit: CommitId::from_bytes(id(13)?),
            filling: match integer(row, 14)? {
                0 => false,
                1 => true,
                _ => return Err(damaged()),
            },
            credential_key: match cell(row, 15, Storage::Text)? {
                Value::Text(check) => Some(KeyCheck::from_bytes(parse_hex(&check)?)),
                _ => None,
            },
            ..head
        };
        if !self.has_records {
            return Ok(head);
        }
        let optional = |index| match cell(row, index, Storage::Text)? {
            Value::Text(text) => Ok(Some(text)),
            _ => Ok(None),
        };
        let role = optional(16)?.map(|name| Role::named(&name).ok_or_else(damaged)).transpose()?;
        let membership = match (optional(17)?, optional(18)?, optional(19)?) {
            (None, None, None) => None,
            (Some(migration), Some(peer), Some(part)) => Some(Membership {
                migration: MigrationId::from_bytes(parse_id(&migration)?),
                peer: SideId::from_bytes(parse_id(&peer)?),
                part: Part::named(&part).ok_or_else(damaged)?,
            }),
            _ => return Err(damaged()),
        };
        Ok(Head { role, membership, ..head })
    }

    /// Replaces the row of a store that stands at `from`.
    pub(crate) fn move_head(&self, link: &mut Link, from: &Head, head: &Head) -> Result<()> {
        let mut parameters = self.values(head);
        match self.counts_positions {
            true => {
                parameters.extend([number(from.position.get()), number(from.epoch.get())]);
            }
            false => parameters.push(number(from.serial.get())),
        }
        match link.execute(self.update, parameters)? {
            1 => Ok(()),
            _ => Err(Error::new(ErrorKind::Conflict, "the store has moved on")
                .with("expected", from.position)),
        }
    }

    fn insert(&self, link: &mut Link, head: &Head) -> Result<()> {
        link.run(self.create)?;
        link.run_with(self.insert, self.values(head))
    }
}

/// The schema by which a file is laid out, as its header says.
pub(crate) fn version_of(link: &mut Link) -> Result<SchemaVersion> {
    let [version] = link.integers("SELECT user_version FROM pragma_user_version")?;
    // One that no release ever had is not what the head says.
    let version = u32::try_from(version).unwrap_or(0);
    Ok(SchemaVersion { version, oldest_reader: version })
}

/// As [`MetaLayout::head`], of a file whose schema is not known yet.
pub(crate) fn head(link: &mut Link) -> Result<Head> {
    let version = version_of(link)?;
    MetaLayout::of(version).head(link)
}

/// Makes every table and the row; to be called in a transaction.
pub(crate) fn create(link: &mut Link, head: &Head, schema: Schema) -> Result<()> {
    MetaLayout::of(head.schema).insert(link, head)?;
    link.run(CREATE_BLOCKS)?;
    for table in schema.tables() {
        link.run(&create_table(table, schema))?;
    }
    link.run(&format!("PRAGMA user_version = {}", head.schema.version))
}

/// Lays the table out by the schema of `head`, the row of which replaces the one that is there; to be
/// called in a transaction.
pub(crate) fn rebuild(link: &mut Link, head: &Head) -> Result<()> {
    link.run("DROP TABLE ghostwire_meta")?;
    MetaLayout::of(head.schema).insert(link, head)
}

fn id(bytes: &[u8; 16]) -> Value {
    Value::Text(id_text(*bytes))
}

/// Serials, positions and epochs are at most `i64::MAX`.
pub(crate) fn number(count: u64) -> Value {
    Value::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

pub(crate) fn hash_text(hash: &BlockHash) -> String {
    HEXLOWER.encode(hash.as_bytes())
}

pub(crate) fn damaged() -> Error {
    Error::corrupt(
        "the row that tells where the store stands is damaged, or was edited by hand; restore the \
         file from a backup",
    )
    .with("table", META)
}

fn count_at(row: &Row, index: usize) -> Result<u64> {
    u64::try_from(integer(row, index)?).map_err(|_| damaged())
}

pub(crate) fn serial_at(row: &Row, index: usize) -> Result<Serial> {
    count_at(row, index).map(Serial::new)
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N]> {
    let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| damaged())?;
    bytes.try_into().map_err(|_| damaged())
}

pub(crate) fn parse_hash(text: &str) -> Result<BlockHash> {
    parse_hex(text).map(BlockHash::from_bytes)
}
