//! Tests of staging: nothing half written is ever seen under an object's name.
#![allow(clippy::unwrap_used)]

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use std::collections::HashSet;
use std::sync::Mutex;

use super::area::parent_of;
use super::files::FileEntry;
use super::*;

mod annexes;

fn name(n: u8) -> ObjectName {
    ObjectName::new(format!("pack/{n:02x}/{n:064x}")).unwrap()
}

fn all_kinds() -> Vec<(Arc<dyn Files>, Option<tempfile::TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    vec![(Arc::new(MemoryFiles::default()), None), (Arc::new(DiskFiles::new(dir.path())), Some(dir))]
}

#[test]
fn objects_are_read_back_listed_and_removed() {
    for (files, _keep) in all_kinds() {
        let staging = Staging::new(files);
        staging.prepare().unwrap();
        staging.put(&name(2), b"second").unwrap();
        staging.put(&name(1), b"first").unwrap();
        assert_eq!(staging.read(&name(1), 2, 3).unwrap(), b"rst");
        assert!(staging.read(&name(1), 3, 3).is_err(), "a short read is an error");
        let listed: Vec<_> = staging.list("pack").unwrap().into_iter().map(|o| (o.name, o.len)).collect();
        assert_eq!(listed, [(name(1), 5), (name(2), 6)]);
        assert!(staging.remove(&name(1)).unwrap());
        assert!(!staging.remove(&name(1)).unwrap());
        assert_eq!(staging.len(&name(1)).unwrap(), None);
        assert_eq!(staging.read_all(&name(2), 100).unwrap().unwrap(), b"second");
        assert!(staging.read_all(&name(2), 5).is_err(), "more than the limit is not read");
    }
}

#[test]
fn a_pipe_in_the_place_of_an_object_is_an_error_and_no_wait() {
    let dir = tempfile::tempdir().unwrap();
    let files = Arc::new(DiskFiles::new(dir.path()));
    std::fs::write(dir.path().join("object"), b"bytes").unwrap();
    assert!(std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap().success());
    let (done, ended) = std::sync::mpsc::channel();
    let reader = files.clone();
    std::thread::spawn(move || done.send(reader.read_exact_at("pipe", 0, &mut [0; 5])));
    let read = ended.recv_timeout(std::time::Duration::from_secs(20)).expect("it waits for a writer");
    assert_eq!(read.unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut bytes = [0; 5];
    files.read_exact_at("object", 0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"bytes");
}

#[test]
fn no_fault_at_any_operation_leaves_a_torn_object() {
    let faults = [
        Fault::Once(ErrorKind::Other),
        Fault::Once(ErrorKind::StorageFull),
        Fault::ForEver(ErrorKind::StorageFull),
        Fault::Crash,
    ];
    for fault in faults {
        for n in 0.. {
            let memory = Arc::new(MemoryFiles::default());
            let faulty = Arc::new(FaultyFiles::new(memory.clone()));
            Staging::new(memory.clone()).prepare().unwrap();
            let staging = Staging::new(faulty.clone());
            faulty.fail_at(n, fault);
            let result = staging.put(&name(7), b"all or nothing");
            let after = Staging::new(memory);
            let seen = after.read_all(&name(7), 100).unwrap();
            assert!(seen.is_none() || seen.as_deref() == Some(b"all or nothing"), "{fault:?} at {n}");
            if result.is_ok() {
                assert!(seen.is_some());
            }
            after.clear_temp().unwrap();
            assert!(after.list(TEMP_DIR).unwrap().is_empty());
            if !faulty.struck() {
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_gives_up_its_ballast_and_is_called_full() {
    let memory = Arc::new(MemoryFiles::default());
    let faulty = Arc::new(FaultyFiles::new(memory.clone()));
    let staging = Staging::new(faulty.clone());
    staging.prepare().unwrap();
    assert!(memory.len(BALLAST).unwrap().is_some());
    faulty.fail_at(0, Fault::Once(ErrorKind::StorageFull));
    let error = staging.put(&name(1), b"x").unwrap_err();
    assert_eq!(error.class(), crate::ErrorClass::Full);
    assert_eq!(memory.len(BALLAST).unwrap(), None);
    staging.clear_temp().unwrap();
    assert!(memory.len(BALLAST).unwrap().is_some(), "it is made again when there is room");
}

#[test]
fn the_ballast_gives_back_its_length_whatever_the_file_system_compresses() {
    let memory = Arc::new(MemoryFiles::default());
    Staging::new(memory.clone()).prepare().unwrap();
    let mut ballast = vec![0; BALLAST_LEN];
    memory.read_exact_at(BALLAST, 0, &mut ballast).unwrap();
    assert!(zstd::bulk::compress(&ballast, 3).unwrap().len() >= BALLAST_LEN);
}

/// Files in memory whose directories are durable only once the one above was synced after they were made.
#[derive(Debug, Default)]
struct LazyDirs {
    files: MemoryFiles,
    unsynced: Mutex<HashSet<String>>,
    broken: Mutex<bool>,
}

impl LazyDirs {
    fn unsynced(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.unsynced.lock().unwrap()
    }

    fn break_syncs(&self, broken: bool) {
        *self.broken.lock().unwrap() = broken;
    }
}

impl Files for LazyDirs {
    fn write_synced(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.files.write_synced(path, bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        if *self.broken.lock().unwrap() {
            return Err(ErrorKind::Other.into());
        }
        self.unsynced().retain(|made| parent_of(made) != dir);
        Ok(())
    }

    fn sync_file(&self, path: &str) -> io::Result<()> {
        self.files.sync_file(path)
    }

    fn make_dir(&self, dir: &str) -> io::Result<bool> {
        let made = self.files.make_dir(dir)?;
        if made {
            self.unsynced().insert(dir.to_owned());
        }
        Ok(made)
    }

    fn read_exact_at(&self, path: &str, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.files.read_exact_at(path, offset, out)
    }

    fn read_small(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        self.files.read_small(path, limit)
    }

    fn len(&self, path: &str) -> io::Result<Option<u64>> {
        self.files.len(path)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<FileEntry>> {
        self.files.list(dir)
    }

    fn refuse_links(&self, dir: &str) -> io::Result<()> {
        self.files.refuse_links(dir)
    }

    fn identity(&self, path: &str) -> io::Result<Option<files::Identity>> {
        self.files.identity(path)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.files.remove(path)
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.files.remove_dir(dir)
    }

    fn room(&self) -> io::Result<files::Room> {
        self.files.room()
    }

    fn describe(&self, path: &str) -> PathBuf {
        self.files.describe(path)
    }
}

#[test]
fn a_directory_that_an_earlier_run_left_unsynced_is_durable_before_anything_in_it_counts() {
    let files = Arc::new(LazyDirs::default());
    let staging = Staging::new(files.clone());
    staging.prepare().unwrap();
    assert!(files.unsynced().is_empty());
    // A sync that fails: the directory is there, and nobody may rely on it.
    files.break_syncs(true);
    assert!(staging.put(&name(1), b"x").is_err());
    assert!(!files.unsynced().is_empty());
    files.break_syncs(false);
    staging.put(&name(1), b"x").unwrap();
    assert!(files.unsynced().is_empty(), "the same process tries again");
    // A run that died between making and syncing.
    files.make_dir("pack/02").unwrap();
    Staging::new(files.clone()).put(&name(2), b"x").unwrap();
    assert!(files.unsynced().is_empty(), "the next process makes sure");
    // Whoever has made sure once, and makes one more.
    staging.put(&name(3), b"x").unwrap();
    assert!(files.unsynced().is_empty());
}
