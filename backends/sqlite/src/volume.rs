//! Whether the file system under a store will do.
//!
//! A store is a file, a log and a lock beside it, and memory that processes share. So the three have
//! to be in one directory, and every process that may open them on one machine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, major, minor, statfs, statx};

/// Refuses a file that was mounted alone, and a directory on a file system of the network. `file`
/// is `None` if there is none yet. What the kernel, or a sandbox around it, does not tell is taken
/// to be in order.
pub(crate) fn require_local(directory: &Path, file: Option<&Path>) -> Result<()> {
    let Some(parent) = Whereabouts::find(directory) else { return Ok(()) };
    if let Some(file) = file
        && let Some(found) = Whereabouts::find(file)
        && is_mounted_alone(found, parent.device)
    {
        return Err(mounted_alone(file));
    }
    let table = match parent.kind {
        FUSE => fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
        _ => String::new(),
    };
    match network(parent.kind, mounted_type(&table, parent.device)) {
        Some(name) => Err(of_the_network(directory, name)),
        None => Ok(()),
    }
}

fn mounted_alone(file: &Path) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the store's file is mounted by itself, so its log and its lock would lie elsewhere and \
         get lost; mount the directory, not the file",
    )
    .with("path", file.display())
}

fn of_the_network(directory: &Path, name: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the store's directory is on a file system of the network, where locks and shared memory \
         do not reach every process; put it on a local disk, and copies elsewhere with `gwstore \
         export`",
    )
    .with("directory", directory.display())
    .with("file_system", name)
}

/// Where a file is.
#[derive(Debug, Clone, Copy)]
struct Whereabouts {
    /// Whether something is mounted exactly there; older kernels do not say.
    is_mount_root: Option<bool>,
    device: (u32, u32),
    /// What `statfs` calls the type of its file system.
    kind: u32,
}

impl Whereabouts {
    fn find(path: &Path) -> Option<Self> {
        // Four bytes on every architecture, in fields of different widths.
        let kind = statfs(path).ok()?.f_type as u32;
        let device = fs::metadata(path).ok()?.dev();
        let is_mount_root = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)
            .ok()
            .filter(|found| found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT))
            .map(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        Some(Self { is_mount_root, device: (major(device), minor(device)), kind })
    }
}

const OVERLAY: u32 = 0x794c_7630;
const FUSE: u32 = 0x6573_5546;

/// Whether the file was mounted by itself, `directory` being the device of its directory.
fn is_mounted_alone(file: Whereabouts, directory: (u32, u32)) -> bool {
    file.is_mount_root.unwrap_or(
        // An overlay may give files the device of the layer that they come from.
        file.device != directory && file.kind != OVERLAY,
    )
}

/// The name of a file system that other machines may use at the same time without sharing locks and
/// memory with this one. Everything that is not named here may be used: what is on a local disk, in
/// memory, or in a container's own layers (overlay). So may file systems of a cluster (OCFS2, GFS2),
/// whose locks reach all of its machines.
///
/// FUSE says nothing about where the files are, only the program behind it does, which `fuse` names
/// as the table of mounts has it. Unknown ones are allowed: most are on a local disk (ntfs-3g,
/// gocryptfs, mergerfs, fuse-overlayfs under rootless containers), and to the processes of this
/// machine the kernel gives one page cache and one set of locks for each. So are directories that a
/// virtual machine gets from its host (virtiofs).
fn network(kind: u32, fuse: Option<&str>) -> Option<&'static str> {
    const KINDS: [(u32, &str); 16] = [
        (0x0000_6969, "nfs"),
        (0x0000_517b, "smb"),
        (0xff53_4d42, "cifs"),
        (0xfe53_4d42, "smb2"),
        (0x0102_1997, "9p"),
        (0x5346_414f, "afs"),
        (0x6b41_4653, "afs"),
        (0x7375_7245, "coda"),
        (0x00c3_6400, "ceph"),
        (0x0bd0_0bd0, "lustre"),
        (0x4750_4653, "gpfs"),
        (0xaad7_aaea, "panfs"),
        (0x2003_0528, "orangefs"),
        (0x1983_0326, "beegfs"),
        (0x786f_4256, "vboxsf"),
        (0xbacb_acbc, "vmhgfs"),
    ];
    /// What follows `fuse.`.
    const PROGRAMS: [&str; 24] = [
        "sshfs",
        "glusterfs",
        "ceph",
        "ceph-fuse",
        "nfs",
        "nfs-ganesha",
        "s3fs",
        "rclone",
        "gcsfuse",
        "goofys",
        "mount-s3",
        "blobfuse",
        "blobfuse2",
        "juicefs",
        "seaweedfs",
        "mfs",
        "moosefs",
        "lizardfs",
        "davfs",
        "curlftpfs",
        "smbnetfs",
        "vmhgfs-fuse",
        "hdfs",
        "ipfs",
    ];
    if kind != FUSE {
        return KINDS.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name);
    }
    let program = fuse?.strip_prefix("fuse.")?;
    PROGRAMS.iter().find(|known| **known == program).copied()
}

/// The type of what is mounted from `device`, in the text of `/proc/self/mountinfo`: fields, some
/// that may be missing, a dash, the type.
fn mounted_type(table: &str, device: (u32, u32)) -> Option<&str> {
    let device = format!("{}:{}", device.0, device.1);
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(&device))?;
    line.split_once(" - ")?.1.split(' ').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_mounted_alone_is_told_from_one_in_a_mounted_directory() {
        const EXT4: u32 = 0xef53;
        let file = |is_mount_root, device, kind| Whereabouts { is_mount_root, device, kind };
        for (found, directory, expected) in [
            (file(Some(true), (8, 1), EXT4), (8, 1), true),
            (file(Some(true), (8, 1), EXT4), (0, 39), true),
            (file(Some(false), (8, 1), EXT4), (8, 1), false),
            (file(Some(false), (8, 1), OVERLAY), (0, 39), false),
            // Kernels before 5.8.
            (file(None, (8, 1), EXT4), (8, 1), false),
            (file(None, (8, 1), EXT4), (0, 39), true),
            (file(None, (8, 1), OVERLAY), (0, 39), false),
        ] {
            assert_eq!(is_mounted_alone(found, directory), expected, "{found:?} in {directory:?}");
        }
    }

    #[test]
    fn file_systems_of_the_network_are_told_from_local_ones() {
        for (kind, fuse, expected) in [
            (0x6969, None, Some("nfs")),
            (0x517b, None, Some("smb")),
            (0xff53_4d42, None, Some("cifs")),
            (0xfe53_4d42, None, Some("smb2")),
            (0x0102_1997, None, Some("9p")),
            (0x00c3_6400, None, Some("ceph")),
            (FUSE, Some("fuse.sshfs"), Some("sshfs")),
            (FUSE, Some("fuse.glusterfs"), Some("glusterfs")),
            (FUSE, Some("fuse.s3fs"), Some("s3fs")),
            // On this machine.
            (0xef53, None, None),      // ext4
            (0x5846_5342, None, None), // xfs
            (0x9123_683e, None, None), // btrfs
            (0x2fc1_2fc1, None, None), // zfs
            (0x0102_1994, None, None), // tmpfs
            (OVERLAY, None, None),
            (FUSE, None, None),
            (FUSE, Some("fuse"), None),
            (FUSE, Some("fuseblk"), None),
            (FUSE, Some("virtiofs"), None),
            (FUSE, Some("fuse.fuse-overlayfs"), None),
            (FUSE, Some("fuse.gocryptfs"), None),
            (FUSE, Some("fuse.mergerfs"), None),
            // A name alone is not its type.
            (0xef53, Some("fuse.sshfs"), None),
        ] {
            assert_eq!(network(kind, fuse), expected, "{kind:#x} {fuse:?}");
        }
    }

    #[test]
    fn the_table_of_mounts_tells_the_type() {
        let table = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                     35 22 0:39 / /mnt rw,nosuid master:2 propagate_from:1 - fuse.sshfs a@b:/ rw\n\
                     36 22 0:390 / /srv rw - fuse.mergerfs a:b rw\n";
        assert_eq!(mounted_type(table, (0, 39)), Some("fuse.sshfs"));
        assert_eq!(mounted_type(table, (0, 390)), Some("fuse.mergerfs"));
        assert_eq!(mounted_type(table, (8, 1)), Some("ext4"));
        assert_eq!(mounted_type(table, (8, 2)), None);
        assert_eq!(mounted_type("nonsense", (8, 1)), None);
        assert_eq!(mounted_type("22 1 8:1 no dash", (8, 1)), None);
    }
}
