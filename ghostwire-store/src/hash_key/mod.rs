//! The file with the key that hashes credentials: for each version a line of 32 bytes as hexadecimal
//! text, 0600, outside the database. Whoever loses it loses every API key, pre-auth key and session with
//! it.

mod hex;
mod part;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ghostwire_store_core::entropy::Entropy;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::secrets::{HashKey, HashKeys};
use ghostwire_store_sqlite::{directory_of, failed};
use zeroize::Zeroizing;

pub(crate) use part::Part;

/// Longer files have no keys.
const MAX_BYTES: u64 = 8192;
/// The most versions of a key.
const MOST_VERSIONS: usize = 64;

/// Whether there is no file for the key. One that cannot be looked up, or a link that leads nowhere, may
/// be there.
///
/// # Errors
/// Those of the file system, such as `PermissionDenied` for a directory that cannot be searched.
pub fn hash_key_is_absent(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(failed("the hash key's file cannot be looked up", path, error)),
    }
}

/// Reads a key, a line of 64 hexadecimal digits for each version of it, oldest first, white space
/// around them. The last one hashes, and the others verify: appending a line rotates the key.
///
/// # Errors
/// `NotFound`, `PermissionDenied`; `InvalidArgument` if it is no regular file; `Crypto` if the file
/// holds anything else or a key that nobody drew at random, or if others than its owner may read it.
pub fn read_hash_key(path: &Path) -> Result<HashKeys> {
    let versions = read_versions(path)?;
    HashKeys::new(versions.iter().map(|key| HashKey::new(**key))).map_err(|error| {
        let error = error.with("secret_key_file", path.display());
        error.with("help", "leave one of the two lines out that are alike")
    })
}

/// The versions of a key, oldest first.
pub(crate) fn read_versions(path: &Path) -> Result<Vec<Zeroizing<[u8; 32]>>> {
    let refused = |kind, message: &'static str, help: &'static str| {
        Err(Error::new(kind, message).with("secret_key_file", path.display()).with("help", help))
    };
    let cannot_open = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => failed("the hash key's file is not there", path, error)
            .with("help", "put it back from its own backup, or name its place as secret_key_file"),
        _ => failed("the hash key's file cannot be opened", path, error),
    };
    // Before it is opened: a pipe would wait for somebody to write.
    let metadata = fs::metadata(path).map_err(cannot_open)?;
    if !metadata.is_file() {
        let kind = ErrorKind::InvalidArgument;
        return match metadata.is_dir() {
            true => refused(kind, "the hash key's path is a directory", "name a file inside it"),
            false => refused(kind, "the hash key's path is not a regular file", "name another"),
        };
    }
    let file = File::open(path).map_err(cannot_open)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if file.metadata().map_err(cannot_open)?.permissions().mode() & 0o077 != 0 {
            return refused(
                ErrorKind::Crypto,
                "the hash key's file can be read by others",
                "run `chmod 600` on it",
            );
        }
    }
    // Large enough, so that no copy is left behind by growing.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * MAX_BYTES as usize));
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut text);
    let keys = if text.len() as u64 > MAX_BYTES { None } else { parse(text.trim_ascii()) };
    read.map_err(|error| failed("the hash key's file cannot be read", path, error))?;
    match keys {
        None => refused(
            ErrorKind::Crypto,
            "the hash key's file must hold 64 hex digits, or a line of them for each version",
            "restore it from its own backup, or name the right file as secret_key_file",
        ),
        Some(keys) if keys.iter().any(|key| is_no_secret(key)) => refused(
            ErrorKind::Crypto,
            "the hash key is one byte again and again, which anybody can guess",
            "restore the real one from its own backup",
        ),
        Some(keys) => Ok(keys),
    }
}

/// Makes a new key and its file. Whenever that is broken off, there is the whole file or none; a
/// file `<path>.<16 digits>.part` may be left then, which holds a key that was never used.
///
/// # Errors
/// `AlreadyExists` if there is such a file; `PermissionDenied`, `NotFound`, `ReadOnly`, `Exhausted`,
/// `Unavailable`.
pub fn create_hash_key(path: &Path, entropy: &dyn Entropy) -> Result<HashKey> {
    NewKey::begin(path, directory_of(path), entropy)?.publish()
}

/// A new key that is on the disk, but has not its name yet. Dropped before it is published, it leaves
/// nothing.
#[derive(Debug)]
pub(crate) struct NewKey {
    part: Part,
    path: PathBuf,
    key: HashKey,
}

impl NewKey {
    /// Its file belongs to whoever owns `like`, if it may be given away.
    pub(crate) fn begin(path: &Path, like: &Path, entropy: &dyn Entropy) -> Result<Self> {
        let (mut key, mut number) = ([0; 32], [0; 8]);
        entropy.fill(&mut key)?;
        entropy.fill(&mut number)?;
        let mut text = hex::encode(&key);
        text.push('\n');
        let written = Part::begin(path, &hex::encode(&number), like).and_then(|mut part| {
            part.fill(text.as_bytes())?;
            Ok(part)
        });
        let part = written.map_err(|error| cannot_make(path, error))?;
        Ok(Self { part, path: path.to_owned(), key: HashKey::new(key) })
    }

    #[cfg(feature = "zqlite")]
    pub(crate) fn key(&self) -> &HashKey {
        &self.key
    }

    /// Gives it its name.
    pub(crate) fn publish(self) -> Result<HashKey> {
        let Self { part, path, key } = self;
        part.publish().map_err(|error| cannot_make(&path, error))?;
        Ok(key)
    }
}

fn cannot_make(path: &Path, error: io::Error) -> Error {
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    let error = failed("the hash key's file cannot be written", path, error);
    if is_missing {
        let help = "the key's directory has to exist; name another with secret_key_file";
        return error.with("help", help);
    }
    error
}

/// Writes the versions of a key that lay elsewhere, oldest first. A file that has them already is left.
///
/// # Errors
/// `AlreadyExists` if there is a file with anything else; otherwise as [`create_hash_key`].
#[cfg(feature = "zqlite")]
pub(crate) fn write_versions<'k>(
    path: &Path,
    versions: impl Iterator<Item = &'k [u8; 32]>,
    like: &Path,
    entropy: &dyn Entropy,
) -> Result<()> {
    if !hash_key_is_absent(path)? {
        if read_versions(path)?.iter().map(|key| &**key).eq(versions) {
            return Ok(());
        }
        let kind = ErrorKind::AlreadyExists { constraint: "secret_key_file" };
        let error = Error::new(kind, "there is a hash key already, and it is not the keyring's");
        return Err(error.with("secret_key_file", path.display()));
    }
    let mut number = [0; 8];
    entropy.fill(&mut number)?;
    let mut text = Zeroizing::new(String::with_capacity(65 * MOST_VERSIONS));
    for version in versions {
        text.push_str(&hex::encode(version));
        text.push('\n');
    }
    let written = Part::begin(path, &hex::encode(&number), like).and_then(|mut part| {
        part.fill(text.as_bytes())?;
        part.publish()
    });
    written.map_err(|error| cannot_make(path, error))
}

/// Whether an earlier release was broken off while it wrote the file, which it did in place.
pub(crate) fn is_cut_short(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() < 64)
}

fn parse(text: &[u8]) -> Option<Vec<Zeroizing<[u8; 32]>>> {
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let keys: Vec<_> = lines.map(hex::decode).collect::<Option<_>>()?;
    (keys.len() <= MOST_VERSIONS).then_some(keys)
}

/// A file that was filled with zeros, or typed in for the time being.
fn is_no_secret(key: &[u8; 32]) -> bool {
    key.iter().all(|byte| Some(byte) == key.first())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use ghostwire_store_core::entropy::SystemEntropy;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = create_hash_key(&path, &SystemEntropy).unwrap();
        assert_eq!(read_hash_key(&path).unwrap().current().id(), made.id());
        assert!(create_hash_key(&path, &SystemEntropy).is_err());
    }

    #[test]
    fn a_file_with_anything_else_is_refused_without_showing_it() {
        let directory = tempfile::tempdir().unwrap();
        let good = "0f".repeat(32);
        let behind = format!("{good}{}hunter2", " ".repeat(8192));
        for (name, text) in [
            ("short", "abcd"),
            ("long", &"ab".repeat(40)),
            ("words", "hunter2"),
            ("signs", &"+f".repeat(32)),
            ("zeros", &"0".repeat(64)),
            ("same", &"ab".repeat(32)),
            ("behind", &behind),
            ("second", &format!("{good}\nhunter2")),
            ("blank", &format!("{good}\n\n{}", "0e".repeat(32))),
            ("zeros-first", &format!("{}\n{good}", "0".repeat(64))),
            ("many", &format!("{good}\n").repeat(65)),
        ] {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            }
            let error = read_hash_key(&path).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Crypto);
            assert!(!error.to_string().contains(text));
        }
    }

    #[test]
    fn each_line_is_a_version_and_the_last_one_hashes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create_hash_key(&path, &SystemEntropy).unwrap();
        let first = read_hash_key(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{}\r\n", "0F1e".repeat(16))).unwrap();
        let ids: Vec<_> = read_hash_key(&path).unwrap().iter().map(HashKey::id).collect();
        let second = std::array::from_fn(|index| if index % 2 == 0 { 15 } else { 30 });
        assert_eq!(ids, [HashKey::new(second).id(), first.current().id()]);
        fs::write(&path, format!("{text}{text}")).unwrap();
        let error = read_hash_key(&path).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    }

    /// Forgets what is in the making, as a kill does.
    #[test]
    fn whenever_it_is_broken_off_there_is_a_whole_key_or_none() {
        let text = "ab".repeat(32);
        for written in 0..=text.len() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("key");
            let mut part = Part::begin(&path, "0", directory.path()).unwrap();
            part.fill(&text.as_bytes()[..written]).unwrap();
            std::mem::forget(part);
            assert_eq!(*read_hash_key(&path).unwrap_err().kind(), ErrorKind::NotFound);
            let made = create_hash_key(&path, &SystemEntropy).unwrap();
            assert_eq!(read_hash_key(&path).unwrap().current().id(), made.id());
        }
    }

    #[test]
    fn a_key_that_is_there_is_never_replaced_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = create_hash_key(&path, &SystemEntropy).unwrap();
        for _ in 0..2 {
            let error = create_hash_key(&path, &SystemEntropy).map(drop).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::AlreadyExists { constraint: "path" });
        }
        assert_eq!(read_hash_key(&path).unwrap().current().id(), made.id());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let missing = directory.path().join("missing/key");
        let error = create_hash_key(&missing, &SystemEntropy).map(drop).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create_hash_key(&path, &SystemEntropy).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(read_hash_key(&path).unwrap_err().to_string().contains("chmod 600"));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        let pipe =
            if made.is_ok_and(|made| made.success()) { &*pipe } else { Path::new("/dev/zero") };
        for path in [directory.path(), Path::new("/dev/zero"), pipe] {
            let error = read_hash_key(path).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert!(!error.to_string().contains("chmod"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_what_is_not_there_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert!(hash_key_is_absent(&path).unwrap());
        std::os::unix::fs::symlink("/nonexistent/key", &path).unwrap();
        assert!(!hash_key_is_absent(&path).unwrap());
        assert_eq!(*read_hash_key(&path).unwrap_err().kind(), ErrorKind::NotFound);
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        hash_key_is_absent(&file.join("below")).unwrap_err();
    }
}
