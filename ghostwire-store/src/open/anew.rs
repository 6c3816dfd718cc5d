//! Setting aside a side of a migration that was superseded while it was away, and making an empty store in its
//! place.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use ghostwire_store_core::domain::SideId;
use ghostwire_store_core::entropy::Entropy;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::migration::{Occupant, Renewal, Seat};
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::secrets::HashKeys;
use ghostwire_store_sqlite::{
    KEYRING_FILE, LOCK_FILE, RESERVE_FILE, directory_of, failed, files_of, native_files_of,
    resolved, with_suffix,
};

use super::Opener;
use super::absent::Absent;
use crate::config::{BackendChoice, Config};

/// Does it for the stores of a configuration.
pub(crate) struct Anew {
    configs: Vec<Config>,
    entropy: Arc<dyn Entropy>,
    #[cfg(feature = "zqlite")]
    key_source: Option<Arc<dyn crate::keys::crypto::root::KeySource>>,
    hash_keys: Option<Arc<HashKeys>>,
    seat: Weak<Seat>,
}

impl std::fmt::Debug for Anew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let stores = self.configs.iter().map(|config| &config.store);
        f.debug_list().entries(stores).finish()
    }
}

impl Anew {
    pub(crate) fn new(
        opener: &Opener<'_>,
        hash_keys: Option<Arc<HashKeys>>,
        seat: &Arc<Seat>,
    ) -> Self {
        let (config, entropy) = opener.parts();
        let target = opener.other_side().ok().flatten();
        Self {
            configs: std::iter::once(config.clone()).chain(target).collect(),
            entropy,
            #[cfg(feature = "zqlite")]
            key_source: opener.source_of_keys(),
            hash_keys,
            seat: Arc::downgrade(seat),
        }
    }

    fn config_of(&self, location: Option<&str>) -> Result<(&Config, PathBuf)> {
        let at = location.map(|location| resolved(Path::new(location)));
        let mut found = self.configs.iter().filter_map(|config| {
            let path = resolved(config.backend.path()?);
            (at.as_ref() == Some(&path)).then_some((config, path))
        });
        found.next().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the configuration does not name the other database")
                .with("location", location.unwrap_or_default())
        })
    }

    fn opener<'c>(&self, config: &'c Config) -> Opener<'c> {
        let opener = Opener::new(config).entropy(self.entropy.clone());
        #[cfg(feature = "zqlite")]
        let opener = match &self.key_source {
            Some(source) => opener.key_source(source.clone()),
            None => opener,
        };
        opener
    }

    /// What stands beside the store is closed, and cannot be opened. Reopened, it tries again.
    async fn is_absent(
        &self,
        (opener, side): (&Opener<'_>, SideId),
        closed: &Occupant,
        error: &Error,
    ) {
        let Some(seat) = self.seat.upgrade() else { return };
        let absent = Arc::new(Absent::new(opener, side, error.clone()));
        absent.stands_at(&seat);
        let Occupant { backend, keys, materialize } = closed.clone();
        let absent = Occupant { backend: absent, keys, materialize };
        // Else the migration has ended meanwhile.
        let _ = seat.take_place_of(backend.as_ref(), absent).await;
    }
}

#[async_trait]
impl Renewal for Anew {
    fn check(&self, superseded: &Occupant) -> Result<()> {
        let info = superseded.backend.info();
        if info.shared {
            return Err(Error::new(
                ErrorKind::Restricted,
                "a store on a database server is not set aside by itself; end the migration (`abort`, or `finish` if \
                 the other store is served), and begin one to an empty schema",
            )
            .with("location", info.location.unwrap_or_default()));
        }
        let (config, path) = self.config_of(info.location.as_deref())?;
        require_movable(config, &path)?;
        require_room_aside(&path)
    }

    async fn renew(&self, superseded: &Occupant, epoch: Epoch) -> Result<Occupant> {
        self.check(superseded)?;
        let location = superseded.backend.info().location;
        let (config, path) = self.config_of(location.as_deref())?;
        let side = superseded.backend.head().await?.side;
        // What is known of it may be from before its file was taken away.
        path.symlink_metadata()
            .map_err(|error| failed("a superseded database is not in its place", &path, error))?;
        let opener = self.opener(config);
        match superseded.backend.close().await {
            Ok(()) => {}
            // It is closed once its disk answers. What is set aside before that is still written to.
            Err(error) if *error.kind() == ErrorKind::Busy => {
                self.is_absent((&opener, side), superseded, &error).await;
                return Err(error);
            }
            // Its file was away while it was open.
            Err(error) => {
                tracing::warn!(%error, "a superseded database is not closed in order");
            }
        }
        // Closing took its time.
        let seat = self.seat.upgrade();
        if !seat.is_some_and(|seat| seat.is_beside(superseded.backend.as_ref())) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the migration has ended, or the store was closed",
            ));
        }
        let made = match set_aside(&path, epoch) {
            Ok(aside) => {
                tracing::warn!(
                    name: "migration_set_aside",
                    path = %path.display(),
                    aside = %aside.display(),
                    "the database was superseded while it was away; it is set aside and copied anew"
                );
                let made = opener.open_target(self.hash_keys.as_deref()).await;
                made.or_else(|error| put_back(&aside, &path).and(Err(error)))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &made {
            self.is_absent((&opener, side), superseded, error).await;
        }
        made
    }

    async fn open_again(&self, displaced: &Occupant, side: SideId) -> Result<()> {
        let location = displaced.backend.info().location;
        let (config, _) = self.config_of(location.as_deref())?;
        let reason = Error::new(ErrorKind::Unavailable, "its file was away while it was open");
        // Before it is closed, for whoever calls this may not wait for that. Opening it is tried until it is.
        self.is_absent((&self.opener(config), side), displaced, &reason).await;
        if let Err(error) = displaced.backend.close().await {
            tracing::warn!(%error, "a database whose file was away is not closed in order");
        }
        Ok(())
    }
}

/// What lies elsewhere may belong to something else, too.
fn require_movable(config: &Config, path: &Path) -> Result<()> {
    let BackendChoice::Zqlite(options) = &config.backend else { return Ok(()) };
    let keyring = options.sealed.then(|| options.keyring_path());
    match keyring.filter(|keyring| resolved(keyring) != with_suffix(path, KEYRING_FILE)) {
        None => Ok(()),
        Some(keyring) => Err(Error::new(
            ErrorKind::Restricted,
            "a superseded database is not set aside by itself, since its keyring does not lie beside it; stop \
             the process, move both away, and begin a migration to an empty store",
        )
        .with("path", path.display())
        .with("keyring_file", keyring.display())),
    }
}

fn moved(from: &Path, to: &Path) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    let beside = [KEYRING_FILE, RESERVE_FILE].map(|suffix| with_suffix(from, suffix));
    let suffix = |path: &Path| {
        let name = path.as_os_str().as_encoded_bytes().get(from.as_os_str().len()..)?;
        std::str::from_utf8(name).ok().map(str::to_owned)
    };
    // The database goes first: whoever finds it there moves what is left. The lock says that a store is here, and goes
    // last.
    let lock = [with_suffix(from, LOCK_FILE)];
    let files: Vec<_> =
        files_of(from).chain(native_files_of(from)).chain(beside).chain(lock).collect();
    let to = to.to_owned();
    files
        .into_iter()
        .filter_map(move |file| Some((file.clone(), with_suffix(&to, &suffix(&file)?))))
}

fn aside(path: &Path, epoch: Epoch) -> PathBuf {
    with_suffix(path, &format!(".superseded-{epoch}"))
}

/// What was set aside beside this path: the epoch, which one of those it is, and the name.
fn names_aside(path: &Path) -> impl Iterator<Item = (u64, u32, String)> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let start = format!("{name}.superseded-");
    let files = std::fs::read_dir(directory_of(path)).into_iter().flatten().flatten();
    let names = files.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(move |name| {
        let rest = name.strip_prefix(&start)?;
        let (epoch, number) = rest.split_once('.').unwrap_or((rest, "1"));
        Some((epoch.parse().ok()?, number.parse().ok()?, name))
    })
}

/// Where the database was set aside that this epoch superseded, if it was. What was left of it is moved there, too: its
/// lock would say that a store is missing. What was left of an unfinished one that was to take its place is removed.
pub(super) fn set_aside_before(path: &Path, by: Epoch) -> Option<PathBuf> {
    // An earlier one was replaced by a store of its own, which may be lost by now: the files here are that one's.
    let is_last = |epoch: u64| epoch.checked_add(1) == Some(by.get());
    let (_, _, last) = names_aside(path).filter(|(epoch, ..)| is_last(*epoch)).max()?;
    let aside = path.with_file_name(last);
    clear_after(path, &aside).ok()?;
    Some(aside)
}

fn clear_after(path: &Path, aside: &Path) -> Result<()> {
    let mut beside = moved(path, aside).filter(|(from, _)| from != path);
    if with_suffix(aside, LOCK_FILE).symlink_metadata().is_err() {
        return rename_each(beside);
    }
    // The lock is moved last, so the rest belongs to a store that was being made. Its keyring is the next one's, too.
    let keyring = with_suffix(path, KEYRING_FILE);
    beside.try_for_each(|(file, _)| if file == keyring { Ok(()) } else { remove(&file) })
}

fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failed("an unfinished copy cannot be removed", file, error))
        }
        _ => Ok(()),
    }
}

/// So many lie beside a store at most: one that is set aside again and again would fill the disk.
const MOST_ASIDE: usize = 3;

fn too_many_aside(path: &Path) -> Error {
    Error::new(ErrorKind::Exhausted, "too many databases were set aside here; remove some")
        .with("path", path.display())
        .with("most", MOST_ASIDE)
}

fn require_room_aside(path: &Path) -> Result<()> {
    match names_aside(path).count() {
        MOST_ASIDE.. => Err(too_many_aside(path)),
        _ => Ok(()),
    }
}

/// Renames the files of a database. Gives where it is then.
fn set_aside(path: &Path, epoch: Epoch) -> Result<PathBuf> {
    let names = (1..=MOST_ASIDE).map(|number| match number {
        1 => aside(path, epoch),
        _ => with_suffix(&aside(path, epoch), &format!(".{number}")),
    });
    let mut free =
        names.filter(|name| moved(path, name).all(|(_, to)| to.symlink_metadata().is_err()));
    let aside = free.next().ok_or_else(|| too_many_aside(path))?;
    if let Err(error) = rename_all(path, &aside) {
        // Half of it is of no use to anybody.
        rename_all(&aside, path)?;
        return Err(error);
    }
    Ok(aside)
}

fn put_back(aside: &Path, path: &Path) -> Result<()> {
    // What was made in its place is of nobody.
    for (_, made) in moved(aside, path) {
        remove(&made)?;
    }
    rename_all(aside, path)
}

fn rename_all(from: &Path, to: &Path) -> Result<()> {
    rename_each(moved(from, to))
}

fn rename_each(files: impl Iterator<Item = (PathBuf, PathBuf)>) -> Result<()> {
    for (from, to) in files {
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(failed("a superseded database cannot be set aside", &from, error));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_whole_and_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network.db");
        let write = |name: &str, content: &str| {
            std::fs::write(directory.path().join(name), content).unwrap();
        };
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).ok();
        for number in ["1", "2"] {
            write("network.db", number);
            write("network.db-wal", number);
            write("network.db.keyring", number);
            write("network.db.lock", "");
            let aside = set_aside(&path, Epoch::new(4)).unwrap();
            assert!(!path.exists());
            let name = aside.file_name().unwrap().to_str().unwrap().to_owned();
            assert_eq!(name.ends_with(".2"), number == "2", "{name}");
            for suffix in ["", "-wal", ".keyring"] {
                assert_eq!(read(&format!("{name}{suffix}")).as_deref(), Some(number));
            }
        }
        write("network.db", "3");
        set_aside(&path, Epoch::new(5)).unwrap();
        write("network.db", "4");
        assert_eq!(*require_room_aside(&path).unwrap_err().kind(), ErrorKind::Exhausted);
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(directory.path().join("network.db.superseded-5")).unwrap();
        write("network.db.lock", "of one that is lost");
        for other in [4, 6, 7] {
            assert!(set_aside_before(&path, Epoch::new(other)).is_none());
        }
        assert_eq!(read("network.db.lock").as_deref(), Some("of one that is lost"));
        let aside = |suffix: &str| read(&format!("network.db.superseded-4.2{suffix}"));
        // A process ended when it had moved the database and not the rest.
        for suffix in [".keyring", ".lock"] {
            std::fs::remove_file(
                directory.path().join(format!("network.db.superseded-4.2{suffix}")),
            )
            .unwrap();
            write(&format!("network.db{suffix}"), "left");
        }
        set_aside_before(&path, Epoch::new(5)).unwrap();
        assert_eq!((read("network.db.keyring"), read("network.db.lock")), (None, None));
        assert_eq!((aside(".keyring"), aside(".lock")), (Some("left".into()), Some("left".into())));
        // The next one had begun to make another one.
        for suffix in [".keyring", ".lock", "-journal"] {
            write(&format!("network.db{suffix}"), "next");
        }
        set_aside_before(&path, Epoch::new(5)).unwrap();
        assert_eq!(read("network.db.keyring").as_deref(), Some("next"));
        assert_eq!((read("network.db.lock"), read("network.db-journal")), (None, None));
        assert_eq!((aside(".keyring"), aside(".lock")), (Some("left".into()), Some("left".into())));
        assert_eq!(aside("-journal"), None);
        // Another one was half made in its place.
        write("network.db", "new");
        put_back(&directory.path().join("network.db.superseded-4"), &path).unwrap();
        assert_eq!(read("network.db").as_deref(), Some("1"));
        assert_eq!(read("network.db.keyring").as_deref(), Some("1"));
    }
}
