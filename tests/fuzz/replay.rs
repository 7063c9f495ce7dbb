//! Replays what fuzzing kept, with the compiler and in the time of every other test: each file of `corpus/TARGET/` goes through the target, so what
//! was once found stays found where nobody fuzzes. The targets are the same code that libFuzzer runs (`main.rs`).
#![allow(dead_code, clippy::unwrap_used)]

mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use holdfast_store::tree::testing::TestRandom;
use targets::program::source::small_file;
use targets::program::{outcome, terminal};
use targets::{TARGETS, Target, seeds};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

/// The files kept for a target, in the order of their names.
fn kept(target: &Target) -> Vec<PathBuf> {
    let listed = fs::read_dir(corpus().join(target.name)).unwrap();
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_takes_all_that_was_kept_of_it() {
    for target in TARGETS {
        let files = kept(target);
        assert!(!files.is_empty(), "{} has no corpus", target.name);
        for file in files {
            let data = fs::read(&file).unwrap();
            let run = std::panic::AssertUnwindSafe(|| (target.run)(&data));
            if std::panic::catch_unwind(run).is_err() {
                panic!("HOLDFAST_FUZZ={} fails on {}", target.name, file.display());
            }
        }
    }
}

/// A few changes of the kinds that a fuzzer makes: bytes flipped, set, removed, doubled, and parts of another input.
fn changed(data: &[u8], other: &[u8], random: &mut TestRandom) -> Vec<u8> {
    let mut data = data.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len() as u64 + 1) as usize;
        let end = data.len().min(at + 1 + random.below(16) as usize);
        match random.below(7) {
            0 => data.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            1 => data
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte = [0, 1, 127, 128, 255][random.below(5) as usize]),
            2 => drop(data.drain(at..end)),
            3 => data.extend_from_within(at..end),
            4 => data.truncate(at),
            5 => data.splice(at..at, random.bytes(4)).for_each(drop),
            _ => {
                let from = random.below(other.len() as u64 + 1) as usize;
                let part = other[from..].iter().take(32).copied().collect::<Vec<_>>();
                data.splice(at..end, part).for_each(drop);
            }
        }
    }
    data
}

/// Not what fuzzing is, for nothing is learned of what was reached; but it needs no other compiler. `HOLDFAST_MUTANTS` says how many of each file,
/// `HOLDFAST_FUZZ` of which target alone.
#[test]
fn what_is_near_to_what_was_kept_is_taken_as_well() {
    let number = |name: &str, usual| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (seed, mutants) = (number("HOLDFAST_SEED", 1), number("HOLDFAST_MUTANTS", 10));
    let only = std::env::var("HOLDFAST_FUZZ").ok();
    let mut random = TestRandom::new(seed);
    for target in TARGETS.iter().filter(|target| only.as_deref().is_none_or(|only| only == target.name)) {
        let files: Vec<Vec<u8>> = kept(target).iter().map(|file| fs::read(file).unwrap()).collect();
        for (n, file) in files.iter().cycle().take(files.len() * mutants as usize).enumerate() {
            let other = &files[random.below(files.len() as u64) as usize];
            let data = changed(file, other, &mut random);
            let run = std::panic::AssertUnwindSafe(|| (target.run)(&data));
            if std::panic::catch_unwind(run).is_err() {
                let find = std::env::temp_dir().join(format!("holdfast-find-{}", target.name));
                fs::write(&find, &data).unwrap();
                panic!(
                    "HOLDFAST_SEED={seed}: {} fails on its mutant {n}, which lies at {}",
                    target.name,
                    find.display()
                );
            }
        }
    }
}

#[test]
fn every_corpus_has_a_target_and_all_of_them_together_are_small() {
    let listed = fs::read_dir(corpus()).unwrap();
    let folders: BTreeSet<String> =
        listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(folders, names);
    let bytes: u64 = TARGETS.iter().flat_map(kept).map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes < 2 << 20, "{bytes} bytes");
}

#[test]
fn the_page_on_tests_names_every_target() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/testing.md");
    let page = fs::read_to_string(page).unwrap();
    let missing: Vec<&str> = TARGETS
        .iter()
        .map(|target| target.name)
        .filter(|name| !page.contains(&format!("| `{name}` |")))
        .collect();
    assert!(missing.is_empty(), "docs/testing.md has no row for {missing:?}");
}

#[test]
fn what_is_sound_is_taken_by_every_target() {
    for (target, name, data) in seeds::all() {
        let target = TARGETS.iter().find(|known| known.name == target).unwrap();
        let run = std::panic::AssertUnwindSafe(|| (target.run)(&data));
        assert!(std::panic::catch_unwind(run).is_ok(), "{} fails on its seed {name}", target.name);
    }
}

/// Writes what fuzzing begins with. It is run by `tests/fuzz/run` for a target whose corpus is empty.
#[test]
#[ignore = "it writes into the tree"]
fn write_seeds() {
    for (target, name, data) in seeds::all() {
        let folder = corpus().join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), data).unwrap();
    }
}
