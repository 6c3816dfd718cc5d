//! Whose a file is, and what others may do with it.

use std::fs::Metadata;

/// The permission bits, where the system has them.
#[cfg(unix)]
pub(crate) fn mode(metadata: &Metadata) -> Option<u32> {
    Some(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o7777)
}

#[cfg(not(unix))]
pub(crate) fn mode(_: &Metadata) -> Option<u32> {
    None
}

/// The mode, if others than the owner can write it: in such a directory they can replace every file.
/// The sticky bit keeps them from that.
pub(crate) fn writable_by_others(metadata: &Metadata) -> Option<u32> {
    mode(metadata).filter(|mode| mode & 0o022 != 0 && mode & 0o1000 == 0)
}

/// The user that owns it, by number.
#[cfg(unix)]
pub(crate) fn owner(metadata: &Metadata) -> Option<u32> {
    Some(std::os::unix::fs::MetadataExt::uid(metadata))
}

#[cfg(not(unix))]
pub(crate) fn owner(_: &Metadata) -> Option<u32> {
    None
}

/// The user that this process acts for.
#[cfg(unix)]
pub(crate) fn this_user() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
pub(crate) fn this_user() -> Option<u32> {
    None
}
