//! Between the kernel and a [`View`]: translation, and nothing that decides.
//!
//! Each request is tried at once with what is in memory; what is not moves with its reply to the [`Pool`]. An answer that
//! is trouble goes to the log with its cause. A panic becomes `EIO`.
//!
//! What the kernel is asked for, and why (`init`):
//! - `NO_OPEN`, `NO_OPENDIR`: after one `ENOSYS` it opens files and directories by itself, and keeps pages and listings;
//! - lifetimes of 2^30 s inside points, for absence, too; 1 s in the directories above, whose listings it drops when
//!   their time of change moves (`AUTO_INVAL_DATA`) or [`invalidate`] tells it to;
//! - `READDIRPLUS` always: `cp`, `rsync` and `tar` ask for the attributes of all that they list, and left to choose (`AUTO`) the kernel
//!   lists what comes after a directory's first answer without them, and then looks up each entry;
//! - `PARALLEL_DIROPS`, `CACHE_SYMLINKS`: fewer requests, more at once. A link that changes (`latest`) gets a new number instead;
//! - `POSIX_ACL`: ACLs are enforced and kept; `EXPORT_SUPPORT`: NFS and overlays find a node by its number alone.
//!
//! Nothing but `lookup`, `getattr` and `readdir` is required of a file system, but each `ENOSYS` silently
//! changes the connection for good: so all requests that can come have an answer here that is meant.

pub mod offer;
pub mod reply;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fuser::{
    FileHandle, Filesystem, FopenFlags, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, Notifier,
    OpenFlags, Request,
};

use crate::error::FsError;
use crate::layout::Change;
use crate::pool::{Caller, Pool, Reply, guarded};
use crate::recovery::{Patience, Seek};
use crate::view::{Detail, View, sized};
use offer::Offers;

/// What `init` asks for, one after the other: a kernel that does not know one still gives the others.
const WANTED: [InitFlags; 9] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_NO_OPEN_SUPPORT,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_EXPORT_SUPPORT,
    InitFlags::FUSE_AUTO_INVAL_DATA,
    InitFlags::FUSE_ASYNC_DIO,
];

/// Largest read at once; only direct I/O asks for so much.
const READ_BYTES_MAX: u32 = 1 << 20;

/// Reads that the kernel may have outstanding on its own account, which most reads through its page cache are. With so many it sends no more,
/// not even for what lies on this machine: more than there are readers of a vault that does not answer.
const BACKGROUND_READS: u16 = 4096;

/// Whence of `lseek`.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// `FS_IOC_GETFLAGS`, as programs of 64 and of 32 bits ask for it. The kernel asks for 4 bytes in either case.
const GET_FLAGS: [u32; 2] = [0x8008_6601, 0x8004_6601];

/// Entries prepared for one answer of a listing; the number that fitted last time is the best guess.
const LIST_ENTRIES_MIN: usize = 16;
const LIST_ENTRIES_MAX: usize = 1024;

/// The kernel's side of a view.
#[derive(Debug)]
pub struct Fuse {
    view: Arc<View>,
    pool: Arc<Pool>,
    offers: Arc<Offers>,
    no_open: bool,
    no_opendir: bool,
    fitted: Arc<AtomicUsize>,
}

impl Fuse {
    /// Answers for `view`, slow things through `pool`; what is read tells `offers` what may be read next.
    pub fn new(view: Arc<View>, pool: Arc<Pool>, offers: Arc<Offers>) -> Self {
        let fitted = Arc::new(AtomicUsize::new(LIST_ENTRIES_MIN));
        Self { view, pool, offers, no_open: false, no_opendir: false, fitted }
    }

    /// Tries with what is in memory, else moves to the pool.
    fn answer<R: Reply, T>(
        &self,
        (request, ino): (&Request, INodeNo),
        reply: R,
        work: impl Fn(&View, Patience) -> Result<T, FsError> + Send + 'static,
        answer: impl FnOnce(&View, R, T) + Send + 'static,
    ) {
        match guarded(|| work(&self.view, Patience::Now)) {
            Ok(value) => safely(|| answer(&self.view, reply, value)),
            Err(FsError::Later(reach)) => {
                let (view, own) = (self.view.clone(), self.view.clone());
                let slow = move |patience| work(&view, patience);
                let caller = Caller { pid: request.pid(), ino: ino.0 };
                self.pool.submit(reach, caller, reply, slow, move |reply, value| {
                    safely(|| answer(&own, reply, value));
                });
            }
            Err(error) => {
                self.pool.tell(ino.0, &error);
                reply.refuse(error);
            }
        }
    }

    fn list_most(&self) -> usize {
        (self.fitted.load(Ordering::Relaxed) + 8).clamp(LIST_ENTRIES_MIN, LIST_ENTRIES_MAX)
    }
}

/// Does what has no answer to give. A panic is told and has no other consequence: the session would end with its thread.
pub(crate) fn safely(work: impl FnOnce()) {
    let _ = guarded(|| {
        work();
        Ok(())
    });
}

/// Tells the kernel which directories changed. Never called by a thread that answers requests: the
/// kernel may hold a lock that only an answer releases.
pub fn invalidate(notifier: &Notifier, changes: &[Change]) {
    for change in changes {
        let folder = INodeNo(change.folder);
        for name in &change.names {
            report(notifier.inval_entry(folder, OsStr::from_bytes(name)));
        }
        report(notifier.inval_inode(folder, 0, 0));
    }
}

/// Asks the kernel to forget names, and with them the nodes that nobody uses. Never called by a thread that answers requests, as
/// [`invalidate`].
pub fn let_go(notifier: &Notifier, names: &Change) {
    for name in &names.names {
        // Most of them it has not, or not any more.
        let _ = notifier.inval_entry(INodeNo(names.folder), OsStr::from_bytes(name));
    }
}

/// The lifetime of a second ends what a failed notice leaves behind.
fn report(result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "the kernel did not take a notice of change");
    }
}

impl Filesystem for Fuse {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for flag in WANTED {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "not known to this kernel");
            }
        }
        self.no_open = config.capabilities().contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        self.no_opendir = config.capabilities().contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        let _ = config.set_max_write(READ_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND_READS);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEntry) {
        let name = name.as_bytes().to_vec();
        let work = move |view: &View, patience| match view.lookup(parent.0, &name, patience) {
            Ok(entry) => Ok(Some(entry)),
            Err(FsError::NotFound) => Ok(None),
            Err(error) => Err(error),
        };
        self.answer((request, parent), reply, work, move |view, reply, found| match found {
            Some(entry) => {
                view.accept(&entry);
                reply::entry(reply, &entry);
            }
            None => reply::absent(reply, view.lifetime_below(parent.0)),
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        safely(|| self.view.forget(ino.0, lookups));
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: fuser::ReplyAttr) {
        let work = move |view: &View, patience| view.attr(ino.0, patience);
        self.answer((request, ino), reply, work, |_, reply, (attr, lifetime)| {
            reply.attr(&reply::seconds(lifetime), &reply::attr(&attr));
        });
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: fuser::ReplyData) {
        let work = move |view: &View, patience| view.readlink(ino.0, patience);
        self.answer((request, ino), reply, work, |_, reply, target| reply.data(&target));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: fuser::ReplyOpen) {
        if self.no_open {
            return reply.error(fuser::Errno::ENOSYS);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: fuser::ReplyOpen) {
        if self.no_opendir {
            return reply.error(fuser::Errno::ENOSYS);
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: fuser::ReplyData,
    ) {
        safely(|| self.offers.asked(&self.view, request.pid(), ino.0, offset));
        let offers = self.offers.clone();
        let work = move |view: &View, patience| view.read(ino.0, offset, size, patience);
        self.answer((request, ino), reply, work, move |_, reply, bytes| {
            reply.data(&bytes);
            offers.answered(ino.0, offset, bytes.len() as u64);
        });
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: fuser::ReplyDirectory,
    ) {
        let most = self.list_most();
        let work = move |view: &View, patience| view.list(ino.0, offset, most, Detail::Names, patience);
        self.answer((request, ino), reply, work, |_, mut reply, listed| {
            for item in &listed {
                let attr = &item.entry.attr;
                let name = OsStr::from_bytes(&item.name);
                if reply.add(INodeNo(attr.ino), item.position, reply::kind(attr.kind), name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: fuser::ReplyDirectoryPlus,
    ) {
        let most = self.list_most();
        let work = move |view: &View, patience| view.list(ino.0, offset, most, Detail::All, patience);
        let (fitted, offers, reader) = (self.fitted.clone(), self.offers.clone(), request.pid());
        self.answer((request, ino), reply, work, move |view, mut reply, listed| {
            let mut count = 0;
            for item in &listed {
                if reply::add_plus(&mut reply, item) {
                    break;
                }
                count += 1;
                if !item.is_dots() {
                    view.accept(&item.entry);
                }
            }
            if count > 2 {
                fitted.store(count, Ordering::Relaxed);
            }
            reply.ok();
            if listed.is_empty() {
                offers.listed(reader, ino.0);
            }
        });
    }

    fn statfs(&self, request: &Request, ino: INodeNo, reply: fuser::ReplyStatfs) {
        self.answer((request, ino), reply, View::totals, |_, reply, totals| {
            let blocks = totals.bytes.div_ceil(u64::from(reply::STATFS_BLOCK));
            reply.statfs(blocks, 0, 0, totals.entries, 0, reply::STATFS_BLOCK, 255, reply::STATFS_BLOCK);
        });
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: fuser::ReplyXattr) {
        let name = name.as_bytes().to_vec();
        let work = move |view: &View, patience| sized(view.xattr(ino.0, &name, patience)?, size);
        self.answer((request, ino), reply, work, |_, reply, answer| reply::xattr(reply, answer));
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: fuser::ReplyXattr) {
        let root = request.uid() == 0;
        let work = move |view: &View, patience| sized(view.xattr_names(ino.0, root, patience)?, size);
        self.answer((request, ino), reply, work, |_, reply, answer| reply::xattr(reply, answer));
    }

    fn lseek(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: fuser::ReplyLseek,
    ) {
        let work = move |view: &View, patience| {
            let seek = match whence {
                SEEK_DATA => Seek::Data,
                SEEK_HOLE => Seek::Hole,
                _ => return Err(FsError::Invalid),
            };
            let offset = u64::try_from(offset).map_err(|_| FsError::NothingThere)?;
            view.seek(ino.0, offset, seek, patience)
        };
        self.answer((request, ino), reply, work, |_, reply, at| {
            reply.offset(i64::try_from(at).unwrap_or(i64::MAX))
        });
    }

    /// Nothing but the flags that `lsattr` shows. The rest is `ENOTTY`, as for a file that has none; `ENOSYS` breaks the copying-up of
    /// overlays on older kernels.
    fn ioctl(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        command: u32,
        _: &[u8],
        size: u32,
        reply: fuser::ReplyIoctl,
    ) {
        if !GET_FLAGS.contains(&command) || size as usize != size_of::<u32>() {
            return reply.error(fuser::Errno::ENOTTY);
        }
        let work = move |view: &View, patience| view.flags(ino.0, patience);
        self.answer((request, ino), reply, work, |_, reply, flags| reply.ioctl(0, &flags.to_ne_bytes()));
    }

    /// There is nothing to flush; the kernel need not ask again.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: fuser::ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: fuser::ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: fuser::ReplyEmpty) {
        reply.ok();
    }

    fn setxattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: &[u8],
        _: i32,
        _: u32,
        reply: fuser::ReplyEmpty,
    ) {
        reply.refuse(FsError::ReadOnly);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: fuser::ReplyEmpty) {
        reply.refuse(FsError::ReadOnly);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: fuser::ReplyEmpty) {
        reply.refuse(FsError::ReadOnly);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: fuser::ReplyEmpty) {
        reply.refuse(FsError::ReadOnly);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: fuser::ReplyEntry) {
        reply.refuse(FsError::ReadOnly);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: fuser::ReplyEntry) {
        reply.refuse(FsError::ReadOnly);
    }
}

/// As long as the kernel believes it anyway.
pub(crate) const FOREVER: Duration = Duration::from_secs(1 << 30);
