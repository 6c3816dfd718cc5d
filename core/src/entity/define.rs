//! What follows from the list of entities.

/// Defines kinds, records, ids, tables, writes and replies, and all that differs between entities by
/// nothing but their types. Each line is one entity:
///
/// `Record "name" (Id: field) Table = number "rows" module: Collection Commands;`
///
/// The record is a type of [`domain`](crate::domain), the name that of exports and logs. The number
/// stands for the table in blocks and in zqlite's rows and is never used for another; the rows are
/// what the table is called in a database. The module of [`state`](crate::state) has the rules, as
/// `decide` and as an implementation of [`Rules`](super::Rules); the collection is what the state
/// keeps the records in.
macro_rules! entities {
    ($(
        $kind:ident $name:literal ($id:ident: $($path:tt)+) $table:ident = $number:literal $rows:literal
        $module:ident: $collection:ident $command:ident;
    )+) => {
        /// Which kind of thing an error or a change is about. Ordered by the numbers of their tables.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum EntityKind {
            $(#[serde(rename = $name)] $kind = $number,)+
            Metric = 11,
            Audit = 12,
        }

        impl EntityKind {
            /// Every kind, those of the state in the order in which a restore takes them.
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)+ Self::Metric, Self::Audit];

            /// The name in snake case, as it appears in exports and logs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                    Self::Metric => "metric",
                    Self::Audit => "audit",
                }
            }
        }

        /// A set of rows of one shape, ordered by key. Ordered by their numbers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Table {
            $($table = $number,)+
            /// Series; not held in memory.
            Metrics = 11,
            /// Series; not held in memory.
            Audit = 12,
            /// How far each writer's metric batches got.
            WriterPositions = 13,
            /// The commits that consumers have not taken yet.
            Feed = 14,
            /// Who follows the feed, and how far they are.
            Consumers = 15,
        }

        impl Table {
            /// The tables of the state in an order in which what is referred to comes first.
            pub(crate) const RESTORED: [Self; [$($number),+].len()] = [$(Self::$table),+];

            /// The tables whose rows make up the state that is held in memory.
            pub const STATE: [Self; Self::RESTORED.len()] = by_number(Self::RESTORED);

            /// Every table, in the order of their numbers.
            pub const ALL: [Self; Self::STATE.len() + 5] = by_number([
                $(Self::$table,)+
                Self::Metrics,
                Self::Audit,
                Self::WriterPositions,
                Self::Feed,
                Self::Consumers,
            ]);

            /// The table with this number.
            ///
            /// # Errors
            /// `Corrupt` if there is none.
            pub fn from_number(number: u8) -> Result<Self> {
                Ok(match number {
                    $($number => Self::$table,)+
                    11 => Self::Metrics,
                    12 => Self::Audit,
                    13 => Self::WriterPositions,
                    14 => Self::Feed,
                    15 => Self::Consumers,
                    _ => return Err(Error::corrupt("unknown table").with("number", number)),
                })
            }

            /// The number by which blocks and zqlite's rows name the table. Never reused.
            #[must_use]
            pub fn number(self) -> u8 {
                self as u8
            }

            /// The table's name in a database.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$table => $rows,)+
                    Self::Metrics => "metrics",
                    Self::Audit => "audit",
                    Self::WriterPositions => "writer_positions",
                    Self::Feed => "feed",
                    Self::Consumers => "consumers",
                }
            }

            /// What its rows are about; `None` for bookkeeping.
            #[must_use]
            pub fn entity(self) -> Option<EntityKind> {
                Some(match self {
                    $(Self::$table => EntityKind::$kind,)+
                    Self::Metrics => EntityKind::Metric,
                    Self::Audit => EntityKind::Audit,
                    Self::WriterPositions | Self::Feed | Self::Consumers => return None,
                })
            }

            /// Whether its rows are part of the state that is held in memory.
            #[must_use]
            pub fn is_state(self) -> bool {
                matches!(self, $(Self::$table)|+)
            }

            /// Its shape in the current schema.
            #[must_use]
            pub fn schema(self) -> TableSchema {
                match self {
                    $(Self::$table => domain::$kind::SCHEMA,)+
                    Self::Metrics => MetricPoint::SCHEMA,
                    Self::Audit => AuditEntry::SCHEMA,
                    Self::WriterPositions => WriterPosition::SCHEMA,
                    Self::Feed => FeedRow::SCHEMA,
                    Self::Consumers => Consumer::SCHEMA,
                }
            }
        }

        /// An entity of the state, whole. Cheap to clone.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum EntityRecord {
            $(#[serde(rename = $name)] $kind(Arc<domain::$kind>),)+
        }

        impl EntityRecord {
            /// What kind of entity it is.
            #[must_use]
            pub fn entity(&self) -> EntityKind {
                match self { $(Self::$kind(_) => EntityKind::$kind),+ }
            }

            /// The row's table.
            #[must_use]
            pub fn table(&self) -> Table {
                match self { $(Self::$kind(_) => Table::$table),+ }
            }

            /// The row's key.
            #[must_use]
            pub fn key(&self) -> RowKey {
                match self { $(Self::$kind(record) => record.key()),+ }
            }

            /// The row's body.
            #[must_use]
            pub fn encode(&self) -> Bytes {
                match self { $(Self::$kind(record) => record.encode()),+ }
            }

            /// Appends the row's body to `buffer`.
            pub fn encode_into(&self, buffer: &mut BytesMut) {
                match self { $(Self::$kind(record) => record.encode_into(buffer)),+ }
            }

            /// Decodes a row of the state.
            ///
            /// # Errors
            /// `Corrupt` if the row cannot be read or is not part of the state.
            pub fn decode(table: Table, key: &RowKey, body: &[u8]) -> Result<Self> {
                match table {
                    $(Table::$table => Record::decode(key, body).map(|it| Self::$kind(Arc::new(it))),)+
                    _ => Err(Error::corrupt("a series row stands among the rows of the state")
                        .with("table", table.name())),
                }
            }

            /// Adds the row to a block.
            pub fn put_into(&self, block: &mut BlockBuilder, kind: ChangeKind) {
                match self { $(Self::$kind(record) => block.put(kind, record.as_ref())),+ }
            }

            /// Refuses what no entity may be, whoever brings it in.
            pub(crate) fn check(&self) -> Result<()> {
                match self { $(Self::$kind(record) => check(record.as_ref())),+ }
            }

            /// Refuses an entity that breaks a rule beside those that are there.
            pub(crate) fn check_beside(&self, state: &State) -> Result<()> {
                match self { $(Self::$kind(record) => record.check_beside(state)),+ }
            }

            /// Whether the state has just this one; `None` if it has none with its id.
            pub(crate) fn is_in(&self, state: &State) -> Option<bool> {
                match self {
                    $(Self::$kind(it) => state.$module().get(it.id()).map(|found| found == it),)+
                }
            }

            /// The entity with what happened after `now` dated to it; `None` if nothing did.
            pub(crate) fn brought_back(&self, now: Timestamp) -> Option<Self> {
                match self { $(Self::$kind(it) => brought_back(it, now).map(Self::from)),+ }
            }

            /// The value of a map's entry under the name of a kind; `None` under another name.
            pub(crate) fn next_of<'de, A: MapAccess<'de>>(
                name: &str,
                map: &mut A,
            ) -> Result<Option<Self>, A::Error> {
                match name {
                    $($name => map.next_value().map(|it| Some(Self::$kind(it))),)+
                    _ => Ok(None),
                }
            }
        }

        /// Names one entity of the state.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum EntityId {
            $($kind(domain::$id),)+
        }

        impl std::fmt::Display for EntityId {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self { $(Self::$kind(id) => std::fmt::Display::fmt(id, f)),+ }
            }
        }

        impl EntityId {
            /// The row's table.
            #[must_use]
            pub fn table(self) -> Table {
                match self { $(Self::$kind(_) => Table::$table),+ }
            }

            /// The row's key.
            #[must_use]
            pub fn key(self) -> RowKey {
                match self { $(Self::$kind(id) => id.push(RowKey::new())),+ }
            }

            /// The inverse of [`EntityId::table`] and [`EntityId::key`].
            ///
            /// # Errors
            /// `Corrupt` if the key does not have its table's shape.
            pub fn from_key(table: Table, key: &RowKey) -> Result<Self> {
                let id = match table {
                    $(Table::$table => key.only().map(Self::$kind),)+
                    _ => Err(Error::corrupt("a series has no entities")),
                };
                id.map_err(|error| {
                    Error::corrupt("a row's key does not have its table's shape")
                        .with("table", table.name())
                        .with("key", format_args!("{key:?}"))
                        .because(error)
                })
            }
        }

        /// What the state keeps entities in.
        #[derive(Clone, Default, Debug)]
        pub(crate) struct Tables {
            $(pub(crate) $module: state::$collection,)+
        }

        impl State {
            $(
                #[doc = concat!("What is in table `", $rows, "`.")]
                #[must_use]
                pub fn $module(&self) -> &state::$collection {
                    &self.tables.$module
                }
            )+

            /// Every entity of one table, in the order of keys.
            pub fn images_of(&self, table: Table) -> Box<dyn Iterator<Item = EntityRecord> + '_> {
                match table {
                    $(Table::$table => Box::new(self.$module().iter().cloned().map(EntityRecord::$kind)),)+
                    _ => Box::new(std::iter::empty()),
                }
            }

            /// The entities of one table after a key, in the order of keys; all of them after none.
            ///
            /// # Errors
            /// `Corrupt` for a key that is none of the table's.
            pub(crate) fn images_after<'s>(
                &'s self,
                table: Table,
                key: Option<&RowKey>,
            ) -> Result<Box<dyn Iterator<Item = EntityRecord> + 's>> {
                Ok(match table {
                    $(Table::$table => {
                        let after = key.map(RowKey::only).transpose()?;
                        let entities = self.$module().after(after).cloned();
                        Box::new(entities.map(EntityRecord::$kind))
                    })+
                    _ => Box::new(std::iter::empty()),
                })
            }

            /// The entity whose row has this key.
            ///
            /// # Errors
            /// `Corrupt` for a key that is none of the table's.
            pub(crate) fn image(&self, table: Table, key: &RowKey) -> Result<Option<EntityRecord>> {
                Ok(match EntityId::from_key(table, key)? {
                    $(EntityId::$kind(id) => {
                        self.$module().get(id).cloned().map(EntityRecord::$kind)
                    })+
                })
            }

            /// How many entities there are of each kind.
            pub(crate) fn entity_counts(&self) -> impl Iterator<Item = (EntityKind, usize)> {
                [$((EntityKind::$kind, self.$module().len())),+].into_iter()
            }

            /// Puts an entity in. Whether it replaced another.
            pub(crate) fn put(&mut self, image: EntityRecord) -> bool {
                match image {
                    $(EntityRecord::$kind(new) => {
                        let old = self.tables.$module.put(new.clone());
                        domain::$kind::follow(self, old.as_deref(), Some(&new));
                        old.is_some()
                    })+
                }
            }

            /// Takes an entity out, if it is there.
            pub(crate) fn remove(&mut self, handle: EntityId) {
                match handle {
                    $(EntityId::$kind(id) => {
                        if let Some(old) = self.tables.$module.remove(id) {
                            domain::$kind::follow(self, Some(&old), None);
                        }
                    })+
                }
            }
        }

        /// A write.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs)]
        pub enum Command {
            $(#[serde(rename = $name)] $kind(command::$command),)+
            Clock(ClockCommand),
            Restore(Restore),
            Transaction(Transaction),
        }

        impl Command {
            /// Its name, as traces, errors and the audit trail have it.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$kind(command) => command.name(),)+
                    Self::Clock(command) => command.name(),
                    Self::Restore(_) => Restore::NAME,
                    Self::Transaction(_) => Transaction::NAME,
                }
            }

            /// Its name, as metrics and spans have it: a transaction of one kind of command is called as
            /// that is. One of few, whatever a caller does.
            pub(crate) fn told_name(&self) -> &'static str {
                match self {
                    Self::Transaction(transaction) => transaction.told_name(),
                    other => other.name(),
                }
            }

            /// The table of what it is about, if that is one.
            pub(crate) fn collection(&self) -> Option<&'static str> {
                match self {
                    $(Self::$kind(_) => Some($rows),)+
                    Self::Clock(_) | Self::Restore(_) | Self::Transaction(_) => None,
                }
            }

            /// What it would change, or why it is refused.
            pub(crate) fn decide(&self, state: &State, context: &Context<'_>) -> Result<Decision> {
                match self {
                    $(Self::$kind(command) => state::$module::decide(state, command, context),)+
                    Self::Clock(command) => Ok(state::clock::decide(state, command, context)),
                    Self::Restore(restore) => state::restore::decide(state, restore),
                    Self::Transaction(it) => state::transaction::decide(state, it, context),
                }
            }
        }

        /// What a command answers.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[allow(missing_docs)]
        pub enum Reply {
            Done,
            $($kind(Arc<domain::$kind>),)+
            Nodes(Vec<NodeId>),
            Routes(Vec<Arc<domain::Route>>),
            DnsRecords(Vec<Arc<domain::DnsRecord>>),
            Count(u64),
            Restored(Restored),
            All(Vec<Reply>),
            /// What one part of a command over many entities came to, and where the next one begins.
            Unfinished {
                so_far: Box<Reply>,
                after: Option<NodeId>,
            },
        }

        $(
            impl StateEntity for domain::$kind {
                type Id = domain::$id;
                const KIND: EntityKind = EntityKind::$kind;

                fn id(&self) -> Self::Id {
                    self.$($path)+
                }
            }

            impl From<Arc<domain::$kind>> for EntityRecord {
                fn from(record: Arc<domain::$kind>) -> Self {
                    Self::$kind(record)
                }
            }

            impl From<domain::$kind> for EntityRecord {
                fn from(record: domain::$kind) -> Self {
                    Self::$kind(Arc::new(record))
                }
            }

            impl From<Arc<domain::$kind>> for Reply {
                fn from(record: Arc<domain::$kind>) -> Self {
                    Self::$kind(record)
                }
            }

            impl From<command::$command> for Command {
                fn from(command: command::$command) -> Self {
                    Self::$kind(command)
                }
            }
        )+
    };
}
