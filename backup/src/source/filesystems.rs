//! Which file system an entry lies on, by a number that is the same next time (`docs/format.md`, section 9.2).
//!
//! Device numbers are not: they follow the order of mounting. So a file system is named by the path at which the walk
//! first crosses into it. Two file systems of one walk never share a number, whatever their hashes are: equal numbers
//! with equal inodes would make one file of two at restore.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Mutex;

use rustix::fs::StatVfsMountFlags;

/// Numbers of the file systems that a walk has met.
#[derive(Debug, Default)]
pub(super) struct Filesystems {
    known: Mutex<HashMap<u64, u32>>,
    /// Of those in which something seemed unchanged: whether that means anything.
    showing: Mutex<HashMap<u64, bool>>,
}

impl Filesystems {
    /// Number of the file system with `device`, met at `path` (relative to the root; empty for the root itself).
    ///
    /// Layered file systems (overlayfs) show other device numbers for files of their lower layers without any mount
    /// point between: those get the path of the first such file.
    pub(super) fn number(&self, device: u64, path: impl FnOnce() -> Vec<u8>) -> u32 {
        let mut known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(&number) = known.get(&device) {
            return number;
        }
        let path = path();
        let number = if known.is_empty() && path.is_empty() {
            0
        } else {
            let taken: HashSet<u32> = known.values().copied().chain([0]).collect();
            free_number(&path, &taken)
        };
        known.insert(device, number);
        number
    }

    /// Whether all that changes in the file system with `device` shows in ctime; asked once, of an entry that is opened for it. Where it cannot be
    /// asked, nothing is unchanged.
    pub(super) fn shows_changes<F: AsFd, E>(
        &self,
        device: u64,
        entry: impl FnOnce() -> Result<F, E>,
    ) -> bool {
        let mut showing = self.showing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(&shows) = showing.get(&device) {
            return shows;
        }
        let Some(shows) = entry().ok().and_then(|entry| shows_changes(entry, device)) else { return false };
        showing.insert(device, shows);
        shows
    }
}

/// File systems whose files may change without a sign. tmpfs and ramfs write nothing out, so only the first store through a mapping into
/// each page moves ctime, and none after it.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58F6];
/// Those that come whole, as an image: squashfs, EROFS, ISO 9660, cramfs, romfs. Whoever builds images so that they can be built again fixes
/// all times in them, and the next one has the same, and other bytes.
const IMAGES: [u64; 5] = [0x7371_7368, 0xE0F5_E1E2, 0x9660, 0x28CD_3D45, 0x7275];
/// Major number of loop devices.
const LOOP: u32 = 7;

/// Asks the file system of `fd`, which has this device number.
fn shows_changes(fd: impl AsFd, device: u64) -> Option<bool> {
    let kind = rustix::fs::fstatfs(&fd).ok()?.f_type.cast_unsigned();
    let read_only = rustix::fs::fstatvfs(&fd).ok()?.f_flag.contains(StatVfsMountFlags::RDONLY);
    Some(kind_shows_changes(kind, device, read_only))
}

/// What is mounted from a file and cannot change in place is an image as well, whatever its kind. Snapshots of volumes are read-only too,
/// and on no loop device.
fn kind_shows_changes(kind: u64, device: u64, read_only: bool) -> bool {
    let from_file = rustix::fs::major(device) == LOOP && read_only;
    !(IN_MEMORY.contains(&kind) || IMAGES.contains(&kind) || from_file)
}

/// First four bytes of the path's hash; of the path with one more slash as long as another file system has that number.
fn free_number(path: &[u8], taken: &HashSet<u32>) -> u32 {
    let mut material = path.to_vec();
    loop {
        let [a, b, c, d, ..] = *blake3::hash(&material).as_bytes();
        let number = u32::from_le_bytes([a, b, c, d]);
        if !taken.contains(&number) {
            return number;
        }
        material.push(b'/');
    }
}

/// File systems in which the kernel shows itself: nothing of them is stored anywhere, and some of their files have no end, or change
/// something when they are read. tmpfs is none of them; what people put there is theirs.
const OF_KERNEL: [&[u8]; 20] = [
    b"proc",
    b"sysfs",
    b"devtmpfs",
    b"devpts",
    b"cgroup",
    b"cgroup2",
    b"tracefs",
    b"debugfs",
    b"securityfs",
    b"configfs",
    b"pstore",
    b"bpf",
    b"efivarfs",
    b"fusectl",
    b"binfmt_misc",
    b"mqueue",
    b"hugetlbfs",
    b"nsfs",
    b"selinuxfs",
    b"rpc_pipefs",
];

/// Device numbers of mounts that a walk never enters from above: Holdfast's own, and those in which the kernel shows itself.
pub(super) fn closed_mounts() -> HashSet<u64> {
    mounts(|kind, source| is_own(kind, source) || OF_KERNEL.contains(&kind))
}

/// Device numbers of Holdfast's own mounts, from the kernel's list of mounts: entering one would back up the backups, and
/// may wait for this very process.
pub(crate) fn own_mounts() -> HashSet<u64> {
    mounts(is_own)
}

fn is_own(kind: &[u8], source: &[u8]) -> bool {
    kind.starts_with(b"fuse") && source.starts_with(b"holdfast")
}

/// Those of a type and a source.
fn mounts(wanted: impl Fn(&[u8], &[u8]) -> bool) -> HashSet<u64> {
    let mut text = Vec::new();
    let read = std::fs::File::open("/proc/self/mountinfo").and_then(|mut file| file.read_to_end(&mut text));
    if read.is_ok() { parse_mounts(&text, wanted) } else { HashSet::new() }
}

/// `proc_pid_mountinfo(5)`: `id parent major:minor root point options [optional…] - type source super-options`.
fn parse_mounts(mountinfo: &[u8], wanted: impl Fn(&[u8], &[u8]) -> bool) -> HashSet<u64> {
    mountinfo.split(|&byte| byte == b'\n').filter_map(|line| mount(line, &wanted)).collect()
}

fn mount(line: &[u8], wanted: impl Fn(&[u8], &[u8]) -> bool) -> Option<u64> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let (kind, source) = (fields.get(dash + 1)?, fields.get(dash + 2)?);
    if !wanted(kind, source) {
        return None;
    }
    let (major, minor) = std::str::from_utf8(fields.get(2)?).ok()?.split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roots_file_system_is_zero_and_others_are_named_by_their_mount_point() {
        let systems = Filesystems::default();
        assert_eq!(systems.number(17, Vec::new), 0);
        let [a, b, c, d, ..] = *blake3::hash(b"var/lib").as_bytes();
        assert_eq!(systems.number(18, || b"var/lib".to_vec()), u32::from_le_bytes([a, b, c, d]));
        assert_eq!(systems.number(18, || b"elsewhere".to_vec()), u32::from_le_bytes([a, b, c, d]));
        assert_eq!(systems.number(17, || b"bind".to_vec()), 0);
    }

    #[test]
    fn two_file_systems_never_share_a_number() {
        let first = free_number(b"m", &HashSet::from([0]));
        assert_ne!(free_number(b"m", &HashSet::from([0, first])), first);
    }

    #[test]
    fn what_is_in_memory_or_an_image_shows_no_changes() {
        use rustix::fs::makedev;
        let (ext4, tmpfs, squashfs) = (0xEF53, 0x0102_1994, 0x7371_7368);
        assert!(kind_shows_changes(ext4, makedev(253, 1), true), "a snapshot of a volume");
        assert!(kind_shows_changes(ext4, makedev(7, 1), false));
        assert!(!kind_shows_changes(ext4, makedev(7, 1), true));
        assert!(!kind_shows_changes(tmpfs, makedev(0, 31), false));
        assert!(!kind_shows_changes(squashfs, makedev(253, 1), true));
    }

    #[test]
    fn only_fuse_mounts_of_holdfast_are_its_own() {
        let text = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
            40 35 0:51 / /mnt/points ro,nosuid,nodev shared:9 - fuse.holdfast holdfast:/srv ro,user_id=0\n\
            41 35 0:52 / /mnt/other ro - fuse.sshfs host:/ ro\n\
            42 35 0:53 / /mnt/more ro - fuse holdfast ro\n\
            43 35 0:54 / /mnt/dir rw - ext4 holdfast rw\n\
            garbage - fuse\n";
        assert_eq!(
            parse_mounts(text, is_own),
            HashSet::from([rustix::fs::makedev(0, 51), rustix::fs::makedev(0, 53)])
        );
    }
}
