//! Decides about what is in the way in a target directory, makes entries under temporary names, and gives them their own.

use std::os::fd::{AsFd, OwnedFd};

use holdfast_store::tree::{Node, NodeKind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, StatxFlags};
use rustix::io::Errno;

use super::compare::{Likeness, There, file_type, look};
use super::directory::UNFINISHED;
use super::{Overwrite, temporary};
use crate::descent::{DirectoryId, Place, open_directory};
use crate::error::TargetError;

/// Longest name that a directory holds.
const NAME_MAX: usize = 255;
/// Names tried for keeping both.
const KEEP_BOTH_MAX: u32 = 1_000;

/// A directory of the target.
#[derive(Clone, Copy)]
pub(super) struct TargetDir<'a> {
    pub(super) fd: &'a OwnedFd,
    pub(super) place: &'a Place,
    pub(super) overwrite: Overwrite,
    /// Whether this process may set everything.
    pub(super) privileged: bool,
}

/// What is to be done with an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing is in the way.
    Create,
    /// What is in the way goes when the new one is whole.
    Replace,
    /// What is in the way stays, and the new one gets another name.
    Beside,
    /// It is there already, under this name.
    Same(Vec<u8>, DirectoryId),
    /// Its content is there, and its attributes are not.
    Mend,
    /// What is in the way stays.
    Keep,
}

/// Whether a name can be given to an entry without leading anywhere else.
pub(super) fn is_valid_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= NAME_MAX
        && !name.iter().any(|&byte| byte == b'/' || byte == 0)
}

/// A name with something at its end, as long as names may be.
fn with_end(name: &[u8], end: &str) -> Vec<u8> {
    let kept = name.len().min(NAME_MAX - end.len());
    [name.get(..kept).unwrap_or(name), end.as_bytes()].concat()
}

/// `NAME.word`, `NAME.word-2` and so on.
fn numbered<'a>(name: &'a [u8], word: &'a str) -> impl Iterator<Item = Vec<u8>> + 'a {
    (1..=KEEP_BOTH_MAX).map(move |number| match number {
        1 => with_end(name, &format!(".{word}")),
        _ => with_end(name, &format!(".{word}-{number}")),
    })
}

/// Names for the second of two that are kept.
pub(super) fn names_beside(name: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    numbered(name, "restored")
}

/// Names for what could be read of a damaged file whose own name is taken.
pub(super) fn names_incomplete(name: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    numbered(name, "incomplete")
}

impl TargetDir<'_> {
    pub(super) fn failed<E: Into<std::io::Error>>(
        &self,
        action: &'static str,
        name: &[u8],
    ) -> impl FnOnce(E) -> TargetError {
        TargetError::io(action, self.place.join(name))
    }

    pub(super) fn look(&self, name: &[u8], node: &Node) -> Result<Option<There>, TargetError> {
        look(self.fd, name, node, self.privileged).map_err(self.failed("look at", name))
    }

    /// What is to be done with a node. `content` proves that what looks the same is the same.
    pub(super) fn plan(&self, node: &Node, content: &dyn Fn(&[u8]) -> bool) -> Result<Plan, TargetError> {
        let name = node.name.as_slice();
        let likeness = |name: &[u8], there: &There| match there.likeness {
            Likeness::Same | Likeness::Content if !content(name) => Likeness::Different,
            other => other,
        };
        let Some(there) = self.look(name, node)? else { return Ok(Plan::Create) };
        let alike = likeness(name, &there);
        let newer = there.mtime > node.mtime || (there.mtime == node.mtime && alike == Likeness::Different);
        match self.overwrite {
            _ if alike == Likeness::Same => Ok(Plan::Same(name.to_vec(), there.id)),
            Overwrite::Refuse => Err(TargetError::Exists { path: self.place.join(name) }),
            Overwrite::Never => Ok(Plan::Keep),
            Overwrite::IfNewer if newer => Ok(Plan::Keep),
            Overwrite::Always | Overwrite::IfNewer if alike == Likeness::Content => Ok(Plan::Mend),
            Overwrite::Always | Overwrite::IfNewer => Ok(Plan::Replace),
            Overwrite::KeepBoth => self.plan_beside(node, &likeness),
        }
    }

    fn plan_beside(
        &self,
        node: &Node,
        likeness: &dyn Fn(&[u8], &There) -> Likeness,
    ) -> Result<Plan, TargetError> {
        for name in names_beside(&node.name) {
            match self.look(&name, node)? {
                None => return Ok(Plan::Beside),
                Some(there) if likeness(&name, &there) == Likeness::Same => {
                    return Ok(Plan::Same(name, there.id));
                }
                Some(_) => {}
            }
        }
        Err(TargetError::Exists { path: self.place.join(&node.name) })
    }

    /// What is to be done with a further name of a file that is there as `first`, if it is there yet.
    pub(super) fn plan_link(&self, node: &Node, first: Option<DirectoryId>) -> Result<Plan, TargetError> {
        let name = node.name.as_slice();
        let Some(there) = self.look(name, node)? else { return Ok(Plan::Create) };
        match self.overwrite {
            _ if Some(there.id) == first => Ok(Plan::Same(name.to_vec(), there.id)),
            Overwrite::Refuse => Err(TargetError::Exists { path: self.place.join(name) }),
            Overwrite::Never => Ok(Plan::Keep),
            // Of the same time and content, it is a copy where there should be a link.
            Overwrite::IfNewer if there.mtime > node.mtime => Ok(Plan::Keep),
            Overwrite::IfNewer if there.mtime == node.mtime && there.likeness == Likeness::Different => {
                Ok(Plan::Keep)
            }
            Overwrite::Always | Overwrite::IfNewer => Ok(Plan::Replace),
            Overwrite::KeepBoth => {
                for name in names_beside(name) {
                    match self.look(&name, node)? {
                        None => return Ok(Plan::Beside),
                        Some(there) if Some(there.id) == first => return Ok(Plan::Same(name, there.id)),
                        Some(_) => {}
                    }
                }
                Err(TargetError::Exists { path: self.place.join(name) })
            }
        }
    }

    /// A new, empty file for its owner alone, under a temporary name.
    pub(super) fn file(&self, node: &Node) -> Result<(Vec<u8>, OwnedFd), TargetError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        temporary::make(|name| rustix::fs::openat(self.fd, name, flags, Mode::RUSR | Mode::WUSR))
            .map_err(self.failed("create", &node.name))
    }

    /// A new directory for its owner alone, open, and the name that it got; `None` if what is in the way stays.
    pub(super) fn directory(
        &self,
        node: &Node,
        plan: &Plan,
    ) -> Result<Option<(Vec<u8>, OwnedFd)>, TargetError> {
        let make = |name: &[u8]| rustix::fs::mkdirat(self.fd, name, UNFINISHED);
        let name = match plan {
            Plan::Keep | Plan::Same(..) | Plan::Mend => return Ok(None),
            Plan::Create => make(&node.name).map(|()| node.name.clone()),
            Plan::Replace => rustix::fs::unlinkat(self.fd, node.name.as_slice(), AtFlags::empty())
                .and_then(|()| make(&node.name))
                .map(|()| node.name.clone()),
            Plan::Beside => first_free(names_beside(&node.name), make),
        };
        let name = name.map_err(self.failed("create", &node.name))?;
        let open = open_directory(self.fd, &name).map_err(self.failed("open", &name))?;
        Ok(Some((name, open)))
    }

    /// A symbolic link or special file under a temporary name, opened with `O_PATH`.
    pub(super) fn other(&self, node: &Node) -> Result<(Vec<u8>, OwnedFd), TargetError> {
        let invalid =
            |detail: &str| TargetError::Invalid { path: self.place.join(&node.name), detail: detail.into() };
        let device = match node.device {
            Some((major, minor)) => rustix::fs::makedev(major, minor),
            None => 0,
        };
        let kind = file_type(node.kind);
        let made = match node.kind {
            NodeKind::File | NodeKind::Directory => return Err(invalid("it is no link and no special file")),
            NodeKind::Symlink => {
                let target = node.target.as_deref().ok_or_else(|| invalid("the link has no target"))?;
                temporary::make(|name| rustix::fs::symlinkat(target, self.fd, name))
            }
            _ => temporary::make(|name| {
                rustix::fs::mknodat(self.fd, name, kind, Mode::RUSR | Mode::WUSR, device)
            }),
        };
        let (name, ()) = made.map_err(self.failed("create", &node.name))?;
        Ok((name.clone(), self.handle(&name, Some(kind))?))
    }

    /// Opens an entry with `O_PATH`, which reads nothing and blocks on nothing.
    pub(super) fn handle(&self, name: &[u8], kind: Option<FileType>) -> Result<OwnedFd, TargetError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(self.fd, name, flags, Mode::empty()).map_err(self.failed("open", name))?;
        let stat = rustix::fs::fstat(&fd).map_err(self.failed("stat", name))?;
        if kind.is_some_and(|kind| FileType::from_raw_mode(stat.st_mode) != kind) {
            let detail = "something of another kind has its name now".into();
            return Err(TargetError::Changed { path: self.place.join(name), detail });
        }
        Ok(fd)
    }

    /// Gives what was made under a temporary name its own, as the policy says, and takes the temporary one away where that
    /// fails. Returns the name; `None` if what is in the way stays.
    pub(super) fn settle(&self, made: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, TargetError> {
        let fresh = |name: &[u8]| self.rename_fresh(made, name);
        let result = match self.overwrite {
            Overwrite::Always | Overwrite::IfNewer => {
                self.rename_over(made, name).map(|()| Some(name.to_vec()))
            }
            Overwrite::Refuse | Overwrite::Never => match fresh(name) {
                Err(Errno::EXIST) if self.overwrite == Overwrite::Never => Ok(None),
                other => other.map(|()| Some(name.to_vec())),
            },
            Overwrite::KeepBoth => {
                first_free(std::iter::once(name.to_vec()).chain(names_beside(name)), fresh).map(Some)
            }
        };
        if !matches!(result, Ok(Some(_))) {
            self.remove(made);
        }
        match result {
            Err(Errno::EXIST) if matches!(self.overwrite, Overwrite::Refuse | Overwrite::KeepBoth) => {
                Err(TargetError::Exists { path: self.place.join(name) })
            }
            other => other.map_err(self.failed("replace", name)),
        }
    }

    /// Takes the place of what has a name: anything but a directory with something in it.
    fn rename_over(&self, made: &[u8], name: &[u8]) -> rustix::io::Result<()> {
        match rustix::fs::renameat(self.fd, made, self.fd, name) {
            Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => {
                rustix::fs::unlinkat(self.fd, name, AtFlags::REMOVEDIR)?;
                rustix::fs::renameat(self.fd, made, self.fd, name)
            }
            other => other,
        }
    }

    /// Takes a name that nothing has. Where the file system cannot promise that in one step, it is looked at before.
    pub(super) fn rename_fresh(&self, made: &[u8], name: &[u8]) -> rustix::io::Result<()> {
        match rustix::fs::renameat_with(self.fd, made, self.fd, name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => {
                match rustix::fs::statat(self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => rustix::fs::renameat(self.fd, made, self.fd, name),
                    Ok(_) => Err(Errno::EXIST),
                    Err(error) => Err(error),
                }
            }
            other => other,
        }
    }

    /// Takes a temporary name away.
    pub(super) fn remove(&self, made: &[u8]) {
        // If it is gone already, so be it; what stays for another reason is swept by the next run.
        let _ = rustix::fs::unlinkat(self.fd, made, AtFlags::empty());
    }
}

/// Does something with the first name for which it does not say that it is taken.
fn first_free(
    names: impl Iterator<Item = Vec<u8>>,
    mut make: impl FnMut(&[u8]) -> rustix::io::Result<()>,
) -> rustix::io::Result<Vec<u8>> {
    for name in names {
        match make(&name) {
            Ok(()) => return Ok(name),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::EXIST)
}

/// Opens the directory at `place`, one name after the other from the target's root.
pub(super) fn open_place(root: &OwnedFd, place: &Place) -> std::io::Result<OwnedFd> {
    let mut at = root.try_clone()?;
    for name in place.components() {
        at = open_directory(&at, name)?;
    }
    Ok(at)
}

/// Device and inode number of anything that is open.
pub(super) fn identity(fd: impl AsFd) -> std::io::Result<DirectoryId> {
    crate::descent::directory_id(fd)
}

/// Device and inode number of an entry.
pub(super) fn identity_at(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<DirectoryId> {
    let stat = rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::INO)?;
    Ok((rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino))
}
