//! The sizes of a store's files, looked at from outside. Only by name: to open and close a file would release
//! the locks that this process has on it.

use std::path::{Path, PathBuf};

use ghostwire_store_core::backend::BackendInfo;

/// What lies beside a store's file, by what is appended to its name.
const BESIDE: [(&str, &str); 4] =
    [("main", ""), ("wal", "-wal"), ("key", ".key"), ("lock", ".lock")];

/// The path of a store that is kept in a file.
fn path(backend: &BackendInfo) -> Option<PathBuf> {
    let path = backend.location.as_deref().map(Path::new)?;
    path.is_absolute().then(|| path.to_owned()).or_else(|| std::path::absolute(path).ok())
}

/// The files that there are, and their bytes.
pub(crate) fn sizes(backend: &BackendInfo) -> Vec<(&'static str, u64)> {
    let Some(path) = path(backend).filter(|path| path.is_file()) else { return Vec::new() };
    let size = |(file, suffix): (&'static str, &str)| {
        let mut beside = path.clone().into_os_string();
        beside.push(suffix);
        std::fs::metadata(beside).ok().map(|found| (file, found.len()))
    };
    BESIDE.into_iter().filter_map(size).collect()
}
