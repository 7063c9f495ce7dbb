//! The calls that mount and unmount: `mount(2)` as root, else the helper `fusermount3`.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{MountError, MountOptions, NAME_PREFIX};

const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";

/// Options that every mount has, as the helper wants them.
const OPTIONS: &str = "ro,nosuid,nodev,noatime,default_permissions,subtype=holdfast";

/// Mounts on `mountpoint` and returns the kernel's end of it.
pub fn open(mountpoint: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    if nix::unistd::geteuid().is_root() {
        match open_directly(mountpoint, options) {
            // Root of a container without the right to mount: the helper may have it.
            Err(MountError::Io { source, .. }) if source.raw_os_error() == Some(Errno::EPERM as i32) => {}
            other => return other,
        }
    }
    open_by_helper(mountpoint, options)
}

fn open_directly(mountpoint: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device = File::options().read(true).write(true).open(DEVICE).map_err(no_device)?;
    let mut flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    flags.set(MsFlags::MS_NOEXEC, options.no_exec);
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let fd = device.as_raw_fd();
    let mut data = format!("fd={fd},rootmode=40000,user_id={uid},group_id={gid},default_permissions");
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let source = source_name(options);
    mount(Some(source.as_str()), mountpoint, Some("fuse.holdfast"), flags, Some(data.as_str()))
        .map_err(|errno| MountError::io("mount on", mountpoint)(errno.into()))?;
    Ok(device.into())
}

fn no_device(error: io::Error) -> MountError {
    match error.kind() {
        io::ErrorKind::NotFound => MountError::NoFuse,
        _ => MountError::io("open", Path::new(DEVICE))(error),
    }
}

/// A comma would begin another option.
fn source_name(options: &MountOptions) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    format!("{NAME_PREFIX}{}", options.name.chars().map(safe).collect::<String>())
}

/// The helper mounts and passes the device through a socket, which is its standard input here: so no other
/// child of this process can inherit it by chance.
fn open_by_helper(mountpoint: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    if !Path::new(DEVICE).exists() {
        return Err(MountError::NoFuse);
    }
    let mut words = format!("{OPTIONS},fsname={}", source_name(options));
    if options.allow_other {
        words.push_str(",allow_other");
    }
    if options.no_exec {
        words.push_str(",noexec");
    }
    if options.over_nonempty {
        tracing::debug!("the helper mounts over what is there without being told");
    }
    let (ours, theirs) = UnixStream::pair().map_err(MountError::Threads)?;
    let child = Command::new(HELPER)
        .args(["-o", &words, "--"])
        .arg(mountpoint)
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(no_helper)?;
    let device = receive(&ours);
    let output = child.wait_with_output().map_err(MountError::io("run", Path::new(HELPER)))?;
    match device {
        Some(device) if output.status.success() => Ok(device),
        _ => Err(MountError::Helper(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

fn no_helper(error: io::Error) -> MountError {
    match error.kind() {
        io::ErrorKind::NotFound => MountError::NoHelper,
        _ => MountError::io("run", Path::new(HELPER))(error),
    }
}

/// The descriptor that came through the socket; none if the helper closed it without sending one.
fn receive(socket: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    recvmsg(socket.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

/// Whether the kernel has ended the connection, by an unmounting or an abort.
pub fn is_cut_off(device: &OwnedFd) -> bool {
    let mut look = [PollFd::new(device.as_fd(), PollFlags::empty())];
    let looked = poll(&mut look, PollTimeout::ZERO);
    looked.is_ok() && look[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLERR))
}

/// Unmounts what is on top at `mountpoint`; `detach` takes it out of sight even while it is in use.
pub fn unmount(mountpoint: &Path, detach: bool) -> Result<(), Errno> {
    let flags = if detach { MntFlags::MNT_DETACH } else { MntFlags::empty() } | MntFlags::UMOUNT_NOFOLLOW;
    match umount2(mountpoint, flags) {
        Err(Errno::EPERM) if !nix::unistd::geteuid().is_root() => unmount_by_helper(mountpoint, detach),
        other => other,
    }
}

fn unmount_by_helper(mountpoint: &Path, detach: bool) -> Result<(), Errno> {
    let mut command = Command::new(HELPER);
    command.arg("-u").args(detach.then_some("-z")).arg("--").arg(mountpoint);
    let output = command.stdin(Stdio::null()).output().map_err(|_| Errno::ENOENT)?;
    match (output.status.success(), String::from_utf8_lossy(&output.stderr).contains("busy")) {
        (true, _) => Ok(()),
        (false, true) => Err(Errno::EBUSY),
        (false, false) => Err(Errno::EPERM),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stdout)]
    use super::*;
    use crate::mount::table;

    #[test]
    fn a_name_cannot_smuggle_options() {
        assert_eq!(
            source_name(&MountOptions::new("/x", "1a2b,allow_other rw")),
            "holdfast:1a2b-allow_other-rw"
        );
    }

    #[test]
    fn the_helper_mounts_and_unmounts() {
        let is_there = |program: &str| Command::new(program).arg("-V").output().is_ok();
        if !nix::unistd::geteuid().is_root() || !Path::new(DEVICE).exists() || !is_there(HELPER) {
            println!("SKIPPED: needs root, {DEVICE} and {HELPER}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let device = open_by_helper(dir.path(), &MountOptions::new(dir.path(), "helper")).unwrap();
        let entry = table::top(dir.path()).unwrap().unwrap();
        assert!(entry.is_ours(), "{entry:?}");
        drop(device);
        unmount_by_helper(dir.path(), true).unwrap();
        assert_eq!(table::top(dir.path()).unwrap(), None);
        let refused = open_by_helper(&dir.path().join("none"), &MountOptions::new("/x", "helper"));
        assert!(matches!(refused, Err(MountError::Helper(why)) if why.contains("none")));
    }
}
