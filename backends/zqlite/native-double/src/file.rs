//! Where the double is, and copies of it that are broken.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::{Switch, UNBROKEN};

const NAME: &str = "libghostwire_zqlite_double.so";

/// The double's file, which is built with the tests that need it.
///
/// # Errors
/// `NotFound` if it is not beside the program that is running.
pub fn built() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let directories = program.ancestors().skip(1).take(2);
    let places = directories.flat_map(|it| [it.join(NAME), it.join("deps").join(NAME)]);
    let newest = |path: &PathBuf| fs::metadata(path).and_then(|it| it.modified()).ok();
    places.filter(|path| path.is_file()).max_by_key(newest).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("there is no {NAME} beside {program:?}"))
    })
}

/// Copies the double into a directory, broken in one way or not at all.
///
/// # Errors
/// As [`built`], and those of the file system.
pub fn install(directory: &Path, switch: Option<Switch>) -> io::Result<PathBuf> {
    let text = switch.map_or(UNBROKEN, Switch::text);
    altered(directory, &UNBROKEN, &text)
}

/// Copies the double into a directory, without a function that ABI 1.0.0 has.
///
/// # Errors
/// As [`install`].
pub fn install_without(directory: &Path, function: &str) -> io::Result<PathBuf> {
    // As a whole name of the table of symbols.
    let name = [b"\0", function.as_bytes(), b"\0"].concat();
    let mut other = name.clone();
    if let Some(last) = other.iter_mut().rev().nth(1) {
        *last = b'_';
    }
    altered(directory, &name, &other)
}

fn altered(directory: &Path, from: &[u8], to: &[u8]) -> io::Result<PathBuf> {
    let mut bytes = fs::read(built()?)?;
    let mut is_found = from == to;
    let mut at = 0;
    while let Some(found) =
        bytes.get(at..).and_then(|rest| rest.windows(from.len()).position(|window| window == from))
    {
        at += found;
        if let Some(place) = bytes.get_mut(at..at + to.len()) {
            place.copy_from_slice(to);
        }
        is_found = true;
        at += to.len();
    }
    if !is_found {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the double has no such text"));
    }
    let path = directory.join("libzqlite_c.so");
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
