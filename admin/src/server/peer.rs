//! Who may use the socket.

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use nix::unistd::{Gid, Uid, User, getgrouplist};
use tokio::net::unix::UCred;

/// Whom the socket answers: root, this process's user, the store's, and a group's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    /// The user that this process runs as.
    pub(super) process: u32,
    /// The user that the store belongs to.
    pub(super) owner: u32,
    pub(super) group: Option<u32>,
}

impl Access {
    /// Whether this user is let in. `groups` tells those of his beside the first.
    fn admits(self, user: u32, group: u32, groups: impl FnOnce() -> Vec<u32>) -> bool {
        let is_known = [0, self.process, self.owner].contains(&user);
        let is_member = |wanted| group == wanted || groups().contains(&wanted);
        is_known || self.group.is_some_and(is_member)
    }

    /// # Errors
    /// `PermissionDenied`, with what would let him in.
    pub(super) fn check(self, peer: &UCred) -> Result<()> {
        if self.admits(peer.uid(), peer.gid(), || groups_of(peer.uid(), peer.gid())) {
            return Ok(());
        }
        let error =
            Error::new(ErrorKind::PermissionDenied, "the admin socket does not answer this user")
                .with("user", peer.uid())
                .with("socket_user", self.owner);
        Err(match self.group {
            Some(group) => error.with("socket_group", group).with(
                "help",
                format_args!("run this as user {} or root, or join group {group}", self.owner),
            ),
            None => error.with(
                "help",
                format_args!(
                    "run this as user {} or root, or set admin.group to a group of user {}",
                    self.owner,
                    peer.uid()
                ),
            ),
        })
    }
}

/// The groups of a user, as the system knows him: the kernel tells only the first one of a peer.
#[cfg(not(target_vendor = "apple"))]
fn groups_of(user: u32, group: u32) -> Vec<u32> {
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(user)) else { return Vec::new() };
    let Ok(name) = std::ffi::CString::new(user.name) else { return Vec::new() };
    let groups = getgrouplist(&name, Gid::from_raw(group)).unwrap_or_default();
    groups.into_iter().map(Gid::as_raw).collect()
}

#[cfg(target_vendor = "apple")]
fn groups_of(_: u32, _: u32) -> Vec<u32> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_let_in_by_the_group_alone() {
        let access = Access { process: 10, owner: 20, group: None };
        for user in [0, 10, 20] {
            assert!(access.admits(user, 99, Vec::new));
        }
        assert!(!access.admits(30, 10, || vec![0, 20]));
        let access = Access { group: Some(7), ..access };
        assert!(access.admits(30, 7, Vec::new));
        assert!(access.admits(30, 99, || vec![1, 7]));
        assert!(!access.admits(30, 99, || vec![1, 8]));
    }
}
