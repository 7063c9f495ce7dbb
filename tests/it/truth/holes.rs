//! Holes: where they are, and how much room is taken by what is none.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;

use super::{sh, sorted};
use crate::roundtrip::nasty;
use crate::testkit::{Machine, Ran, can_mount};

/// Islands of data in the file that has so many that their list is of several levels.
const ISLANDS: u64 = 6000;

/// Stretches of data, as `lseek` tells them.
fn stretches(path: &Path) -> Vec<(u64, u64)> {
    let file: OwnedFd = std::fs::File::open(path).unwrap().into();
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let begin = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => return found,
            other => other.unwrap(),
        };
        at = rustix::fs::seek(&file, SeekFrom::Hole(begin)).unwrap();
        found.push((begin, at));
    }
}

/// Blocks of 512 bytes that a file of these stretches takes where room is given by 4,096 bytes.
fn blocks(stretches: &[(u64, u64)]) -> u64 {
    stretches.iter().map(|(begin, end)| end - begin).sum::<u64>().div_ceil(4096) * 8
}

/// Files with holes of all kinds.
fn holey(machine: &Machine) -> PathBuf {
    let source = machine.path("holey");
    std::fs::create_dir(&source).unwrap();
    let file = |name: &str, len: u64, parts: &[(u64, &[u8])]| {
        let file = std::fs::File::create(source.join(name)).unwrap();
        parts.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
        file.set_len(len).unwrap();
        file
    };
    file("empty", 0, &[]);
    file("hole", 1 << 20, &[]);
    file("odd", 300_001, &[(5000, &[1; 100]), (100_001, b"z")]);
    file("tail", 4097, &[(0, &[2; 4097])]);
    file("zeros", 3 << 20, &[(0, &[0; 1 << 20]), (2 << 20, &[0; 4096])]);
    file("end", (1 << 30) + 3, &[(1 << 30, b"end")]);
    let islands = file("islands", ISLANDS * 8192, &[]);
    for n in 0..ISLANDS {
        let mut island = [0; 4096];
        blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut island[..64]);
        islands.write_all_at(&island, n * 8192).unwrap();
    }
    source
}

fn names(root: &Path) -> Vec<String> {
    let found = sh(root, "find . -type f -printf '%p\\0'", &[]);
    sorted(&found, b"\0").into_iter().filter(|name| !name.is_empty()).collect()
}

#[track_caller]
fn assert_same_holes(source: &Path, mounted: &Path) {
    for name in names(source) {
        let [at_source, shown] = [source, mounted].map(|root| stretches(&root.join(&name)));
        assert!(shown == at_source, "{name}: {:?} {:?}", &at_source[..at_source.len().min(9)], shown.first());
        let stat = mounted.join(&name).metadata().unwrap();
        assert_eq!(stat.blocks(), blocks(&shown), "{name}");
    }
}

#[test]
fn holes_are_where_they_were_and_blocks_count_what_is_none() {
    if !can_mount("holes_are_where_they_were_and_blocks_count_what_is_none") {
        return;
    }
    let machine = Machine::with_store();
    let source = holey(&machine);
    let made = machine.back_up(&source, &[]);
    let mount = machine.mount("recovery", &[]);
    let point = mount.point(made["snapshot_id"].as_str().unwrap());
    assert_same_holes(&source, &point);
    let nasty = nasty();
    let of_nasty = nasty.machine.mount("mount-holes", &[]);
    for dir in ["sparse", "sizes", "links"] {
        assert_same_holes(&nasty.source.join(dir), &of_nasty.point(&nasty.point).join(dir));
    }
    // `du` adds up and counts a file of several names once.
    let script = "find . -type f -print0 | du --files0-from=- -c -B 512 | tail -n 1 | cut -f 1";
    for root in [point.clone(), of_nasty.point(&nasty.point).join("links")] {
        let mut files: Vec<_> = names(&root).iter().map(|name| root.join(name).metadata().unwrap()).collect();
        files.sort_by_key(MetadataExt::ino);
        files.dedup_by_key(|stat| stat.ino());
        let sum: u64 = files.iter().map(MetadataExt::blocks).sum();
        assert_eq!(String::from_utf8(sh(&root, script, &[])).unwrap().trim(), sum.to_string());
    }
    let apparent = "find . -type f -print0 | du --files0-from=- -c -b | tail -n 1";
    assert_eq!(sh(&source, apparent, &[]), sh(&point, apparent, &[]));
    assert_copied_with_holes(&machine, &source, &point);
}

/// `cp`, `tar` and `rsync` find holes each in a way of its own.
#[track_caller]
fn assert_copied_with_holes(machine: &Machine, source: &Path, point: &Path) {
    for (name, script) in [
        ("cp", "cp -a . \"$1\""),
        ("tar", "tar -S -cf - . | tar -C \"$1\" -xf -"),
        ("rsync", "rsync -aS --exclude /end ./ \"$1\""),
    ] {
        let copy = machine.path(&format!("copy-by-{name}"));
        std::fs::create_dir(&copy).unwrap();
        sh(point, script, &[&copy]);
        for file in names(&copy) {
            let [of_copy, of_source] = [&copy, source].map(|root| root.join(&file).metadata().unwrap());
            assert_eq!(of_copy.len(), of_source.len(), "{name} {file}");
            assert!(
                of_copy.blocks() <= of_source.blocks() + 1024,
                "{name} made {file} {} blocks",
                of_copy.blocks()
            );
        }
        std::fs::remove_dir_all(&copy).unwrap();
    }
}

#[test]
fn a_file_in_a_vault_with_many_holes_is_shown_to_have_some() {
    if !can_mount("a_file_in_a_vault_with_many_holes_is_shown_to_have_some") {
        return;
    }
    let machine = Machine::with_store();
    let source = holey(&machine);
    machine.run(["vault", "add", "vault"]).expect_code(0);
    let made = machine.back_up(&source, &["--online"]);
    std::fs::rename(machine.store(), machine.path("old")).unwrap();
    let mut recover = machine.command(["recover", "vault", "--store"]);
    Ran::of(recover.arg(machine.store()).env("HOLDFAST_RECOVERY_KEY", Machine::words())).expect_code(0);
    // What `recover` read is in the cache.
    std::fs::remove_dir_all(machine.root().join("cache")).unwrap();
    let mount = machine.mount("recovery", &[]);
    let point = mount.point(made["snapshot_id"].as_str().unwrap());
    // Exact where the list of its extents could be read without asking the vault for more.
    let islands = point.join("islands").metadata().unwrap();
    assert!(islands.blocks() * 512 < islands.len(), "{} blocks", islands.blocks());
    assert_eq!(
        point.join("odd").metadata().unwrap().blocks(),
        source.join("odd").metadata().unwrap().blocks()
    );
    assert_eq!(stretches(&point.join("islands")).len() as u64, ISLANDS);
    assert_copied_with_holes(&machine, &source, &point);
}
