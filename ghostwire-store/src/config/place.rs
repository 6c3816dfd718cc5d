//! Whether a store that is open is the one that is configured.

use std::fs;
use std::path::Path;

use super::types::BackendChoice;

impl BackendChoice {
    /// Whether a store of this backend at this place, as
    /// [`BackendInfo`](ghostwire_store_core::backend::BackendInfo) has both, is the one that is configured so. A file may
    /// have several names.
    #[must_use]
    pub fn is_at(&self, backend: &str, location: Option<&str>) -> bool {
        self.kind().name() == backend
            && match (self.path(), location) {
                (Some(here), Some(there)) => is_same_file(here, Path::new(there)),
                (None, there) => self.server().as_deref() == there,
                (Some(_), None) => false,
            }
    }
}

/// Where both can be looked at, one file may have several names; else the names have to be the same.
fn is_same_file(here: &Path, there: &Path) -> bool {
    let identities = (fs::metadata(here).ok(), fs::metadata(there).ok());
    if let (Some(here), Some(there)) = identities
        && let (Some(here), Some(there)) = (identity(&here), identity(&there))
    {
        return here == there;
    }
    let absolute = |path: &Path| std::path::absolute(path).ok();
    absolute(here).is_some_and(|here| Some(here) == absolute(there))
}

/// What tells a file from others, whatever its names: its device and its number there.
#[cfg(unix)]
fn identity(metadata: &fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &fs::Metadata) -> Option<(u64, u64)> {
    None
}
