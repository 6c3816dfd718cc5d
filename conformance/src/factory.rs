//! What the suite needs of whoever brings a backend.

use ghostwire_store_core::observe::Recorder;

use crate::prelude::*;

/// Makes places for stores.
#[async_trait]
pub trait Factory: Debug + Send + Sync + 'static {
    /// The backend's name, as reports and exceptions have it.
    fn name(&self) -> &str;

    /// An empty place of its own.
    ///
    /// # Errors
    /// Whatever keeps it from being made.
    async fn create(&self) -> Result<Box<dyn Place>>;

    /// An empty place on a server that nobody else uses and [`Place::kill_server`] kills. `None` if there is no
    /// server.
    ///
    /// # Errors
    /// Whatever keeps the server from being started.
    async fn create_on_own_server(&self) -> Result<Option<Box<dyn Place>>> {
        Ok(None)
    }

    /// Who is told what the stores here do.
    fn recorder(&self) -> Option<Arc<dyn Recorder>> {
        None
    }

    /// The place that [`Place::location`] named, in another process.
    ///
    /// # Errors
    /// `Unsupported`, unless places have locations.
    async fn at(&self, location: &str) -> Result<Box<dyn Place>> {
        let error = Error::new(Unsupported, "no other process can open this backend");
        Err(error.with("location", location))
    }
}

/// Where one store is kept. Dropping it removes what is kept.
#[async_trait]
pub trait Place: Debug + Send + Sync {
    /// Opens the store that is kept here, or makes one.
    ///
    /// # Errors
    /// Those of the backend.
    async fn open(&self, opening: Opening) -> Result<Arc<dyn Backend>>;

    /// The place as a new process would find it if the one that has it open died now. Nothing is
    /// being written while this is called; this place may still be open.
    ///
    /// # Errors
    /// Whatever keeps it from being made.
    async fn after_crash(&self) -> Result<Box<dyn Place>>;

    /// Kills the server at once, as a crash would, and returns once it was started again and answers.
    ///
    /// # Errors
    /// `Unsupported`, unless [`Factory::create_on_own_server`] made the place; or whatever keeps the server from
    /// being started again.
    async fn kill_server(&self) -> Result<()> {
        Err(Error::new(Unsupported, "this place is on no server that may be killed"))
    }

    /// Names the place for another process of this machine. `None` if no other can open it.
    fn location(&self) -> Option<String> {
        None
    }

    /// The files it consists of, to be damaged. Empty if there are none.
    fn files(&self) -> Vec<std::path::PathBuf> {
        Vec::new()
    }

    /// The file that holds the store, if it is in one. While it is open a log and a lock may lie
    /// beside it, named `<file>-wal` and `<file>.lock`.
    fn file(&self) -> Option<std::path::PathBuf> {
        None
    }

    /// Whether it consists of two databases, and what is opened is now one and now the other of them: with an
    /// epoch, rows and blocks of its own, but the same content.
    fn is_of_two(&self) -> bool {
        false
    }

    /// Whether somebody else's library opens the files: its errors do not tell damage from other failures, and it
    /// may write into files that are refused afterwards.
    fn is_opaque(&self) -> bool {
        false
    }

    /// The disk under it, if it can be made to fail. Ask before the place is opened.
    fn disk(&self) -> Option<&dyn Disk> {
        None
    }

    /// A place with what `disk` held, as it may be after the loss of power.
    ///
    /// # Errors
    /// `Unsupported`, unless there is a disk that can be made to fail; or whatever keeps it from
    /// being made.
    async fn after_power_loss(&self, disk: &dyn Frozen, seed: u64) -> Result<Box<dyn Place>> {
        let error = Error::new(Unsupported, "this place has no disk that loses power");
        Err(error.with("disk", format_args!("{disk:?}")).with("seed", seed))
    }

    /// A place with what `disk` held, as it is after the death of the process.
    ///
    /// # Errors
    /// As [`Place::after_power_loss`].
    async fn after_process_death(&self, disk: &dyn Frozen) -> Result<Box<dyn Place>> {
        let error = Error::new(Unsupported, "this place has no disk that remembers");
        Err(error.with("disk", format_args!("{disk:?}")))
    }
}

/// How to open a place.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Opening {
    /// The identity of a store that is made now.
    pub store: StoreId,
    /// The schema of a store that is made now; older ones are for migrations.
    pub schema: Schema,
    /// Nothing may be made or changed.
    pub read_only: bool,
}

impl Opening {
    /// To read and write, with the current schema.
    #[must_use]
    pub fn new(store: StoreId) -> Self {
        Self { store, schema: Schema::current(), read_only: false }
    }

    /// With an older schema, if a store is made.
    #[must_use]
    pub fn schema(self, schema: Schema) -> Self {
        Self { schema, ..self }
    }

    /// Only to read.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }
}
