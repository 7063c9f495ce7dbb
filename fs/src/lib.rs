//! Every recovery point as a directory of a read-only file system.
//!
//! Recovery points never change, and everything here follows from that: an object has one number for
//! ever, the kernel may keep what it was told as long as it likes, and `open` needs no answer at all.
//! Only the few directories above the points ([`layout`]) change; they alone have finite lifetimes and are
//! invalidated when the list of points does.
//!
//! - [`view`] is the whole file system with no kernel in sight; [`layout`] and [`inode`] are its names and numbers.
//! - [`recovery`] is the door to the store: what a view asks for and nothing more.
//! - [`fuse`] translates between the kernel and a view, and gives the kernel bytes before it asks; [`pool`] keeps slow answers from holding up quick ones.
//! - [`mount`] is the life of a mount: begin, dead predecessors, end.

pub mod error;
pub mod fuse;
pub mod inode;
mod kept;
pub mod layout;
mod lock;
pub mod mount;
pub mod pool;
pub mod recovery;
pub mod testing;
pub mod view;

pub use error::FsError;
pub use mount::{Mount, MountError, MountOptions, Unmounted};

pub use recovery::Recovery;
pub use view::View;
