//! Mounts that end with the test that made them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::Machine;
use super::process::{processes_with, wait_for_the_end};
use super::waiting::came;

/// Where something is mounted, in the order in which it was.
pub fn mounts() -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

/// A mount in the background, until dropped.
pub struct Mounted<'a> {
    machine: &'a Machine,
    path: PathBuf,
}

impl<'a> Mounted<'a> {
    /// One that was made by hand.
    pub fn at(machine: &'a Machine, path: PathBuf) -> Self {
        Self { machine, path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content of a point of this id.
    pub fn point(&self, id: &str) -> PathBuf {
        self.path.join("by-id").join(id)
    }

    /// The processes that serve it.
    pub fn processes(&self) -> Vec<i32> {
        processes_with(&self.path)
    }

    /// The one that serves it. A child that is about to become another program looks like it for a moment.
    #[track_caller]
    pub fn process(&self) -> i32 {
        let mut one = None;
        let is_one = came(10, || {
            one = <[i32; 1]>::try_from(self.processes()).ok();
            one.is_some()
        });
        assert!(is_one, "more than one process serves {}, or none", self.path.display());
        one.unwrap()[0]
    }

    /// Ends it by `holdfast umount` and waits until its process is gone, as far as others may open the store again.
    #[track_caller]
    pub fn umount(self) {
        self.machine.run([OsStr::new("umount"), self.path.as_os_str()]).expect_code(0);
        self.wait_for_the_end(10);
    }

    /// Waits until no process serves it; else says where its threads stand.
    #[track_caller]
    pub fn wait_for_the_end(&self, seconds: u64) {
        wait_for_the_end(&self.path, seconds);
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if mounts().contains(&self.path) {
            self.machine.run([OsStr::new("umount"), self.path.as_os_str()]);
        }
    }
}
