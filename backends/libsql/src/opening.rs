//! Making a file, and connecting to one.

use std::path::{Path, PathBuf};

use ghostwire_store_core::backend::Head;
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::Schema;
use ghostwire_store_sqlite::{FileKind, file_to_read, has_log};

use crate::NAME;
use crate::layout::check_layout;
use crate::link::{Link, Role, integer, text};
use crate::meta;
use crate::shape::Shapes;

/// The index that SQLite makes beside a store to read its log. A reader leaves none behind. Where
/// there is no log, SQLite is told that the file does not change, and makes nothing: what appears
/// later is a writer's.
#[derive(Debug, Default)]
pub(crate) struct Sidecar(Option<PathBuf>);

impl Sidecar {
    /// It, if it will be made and is not there already.
    pub(crate) fn missing(path: &Path) -> Self {
        let has_log = file_to_read(path) == path;
        let mut name = path.as_os_str().to_owned();
        name.push("-shm");
        let name = PathBuf::from(name);
        let is_missing = name
            .symlink_metadata()
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        Self(Some(name).filter(|_| has_log && is_missing))
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let Some(file) = &self.0 else { return };
        if let Err(error) = std::fs::remove_file(file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(db.system.name = NAME, file = %file.display(), %error, "stays");
        }
    }
}

/// Makes the tables of a new file in one transaction; only then switches to WAL, because the
/// file's owner is looked up in the file itself.
pub(crate) fn create(path: &Path, store: StoreId, schema: Schema) -> Result<()> {
    let mut link = Link::open(path, Role::Writer)?;
    link.run("PRAGMA page_size = 4096")?;
    link.run("PRAGMA encoding = 'UTF-8'")?;
    link.run("BEGIN EXCLUSIVE")?;
    link.run(&format!("PRAGMA application_id = {}", FileKind::LIBSQL.application_id))?;
    link.run(&format!("PRAGMA user_version = {}", schema.version().version))?;
    meta::create(&mut link, &Head::genesis(store, schema), schema)?;
    link.run("COMMIT")
}

/// A connection, and what was learned by it.
pub(crate) struct Connected {
    pub(crate) link: Link,
    /// A reader that is closed after `link`, so dropped after it, if that writes: whichever
    /// connection is closed last moves the log into the file and removes it, unless it only reads. So
    /// the log of a store that is refused stays: it may be what is wrong. Drop it first to have the
    /// log removed.
    pub(crate) last: Option<Link>,
    pub(crate) shapes: Shapes,
    pub(crate) head: Head,
}

/// Connects and learns what is there.
pub(crate) fn connect(path: &Path, read_only: bool) -> Result<Connected> {
    check_log(path)?;
    if read_only {
        let mut link = Link::open(path, Role::ReadOnly)?;
        let (shapes, head) = learn(&mut link)?;
        return Ok(Connected { link, last: None, shapes, head });
    }
    let reader = || {
        let mut link = Link::open(path, Role::Reader)?;
        meta::head(&mut link).map(|_| link)
    };
    let before = has_log(path).then(reader).transpose()?;
    let mut link = Link::open(path, Role::Writer)?;
    use_log(&mut link)?;
    let (shapes, head) = learn(&mut link)?;
    let last = before.map_or_else(reader, Ok)?;
    Ok(Connected { link, last: Some(last), shapes, head })
}

fn use_log(link: &mut Link) -> Result<()> {
    let mut mode = String::new();
    // A pragma's result is text of SQLite's own.
    link.run("PRAGMA journal_mode = WAL")?;
    link.query("SELECT CAST(journal_mode AS BLOB) FROM pragma_journal_mode", Vec::new(), |row| {
        mode = text(row, 0)?;
        Ok(())
    })?;
    if mode != "wal" {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the file system cannot hold a store: SQLite's WAL does not work on it; use a local one",
        )
        .with("journal_mode", mode));
    }
    link.run("PRAGMA journal_size_limit = 67108864")
}

fn learn(link: &mut Link) -> Result<(Shapes, Head)> {
    let head = meta::head(link)?;
    meta::check_last_block(link, &head)?;
    let mut version = None;
    link.query("SELECT user_version FROM pragma_user_version", Vec::new(), |row| {
        version = Some(integer(row, 0)?);
        Ok(())
    })?;
    if version != Some(i64::from(head.schema.version)) {
        return Err(Error::corrupt("the file's header and its tables tell different schemas")
            .with("tables", head.schema.version));
    }
    Schema::current().steps_from(head.schema)?;
    check_layout(link, head.schema)?;
    let shapes = Shapes::read(link, head.schema)?;
    Ok((shapes, head))
}

/// Refuses a log that is older than the file: SQLite would lay the log's pages over newer ones, and
/// the store would be in a state that never was. A file is never ahead of a log of its own.
fn check_log(path: &Path) -> Result<()> {
    if !has_log(path) {
        return Ok(());
    }
    let head = |role| Link::open(path, role).and_then(|mut link| meta::head(&mut link));
    // What cannot be read without the log was perhaps being written when a checkpoint was broken
    // off, and is written again from the log.
    let Ok(file) = head(Role::WithoutLog) else { return Ok(()) };
    let store = match head(Role::ReadOnly) {
        Err(error) if *error.kind() == ErrorKind::Corrupt => return Err(error),
        Err(_) => return Ok(()),
        Ok(store) => store,
    };
    if file.serial <= store.serial {
        return Ok(());
    }
    Err(Error::corrupt(
        "the file is newer than the log beside it, or the log was cut short; restore both from one \
         backup",
    )
    .with("serial", store.serial)
    .with("file", file.serial))
}
