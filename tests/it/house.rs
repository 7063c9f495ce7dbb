//! The house rules, held: who may say which word, which way the arrows go, that every file says why it exists.
//!
//! Each rule is a line in a table below and a sentence in a message that names file and line. Comments are never looked at,
//! tests of the code neither: what a test says is not what the program does.
#![allow(clippy::unwrap_used)]

mod arrows;
mod source;
mod words;

use std::path::{Path, PathBuf};

use crate::testkit::repository;
use source::Source;

/// All source files of the program and its crates, without tests.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for dir in ["src", "store/src", "backup/src", "fs/src"] {
        collect(&repository().join(dir), &mut files);
    }
    files.sort();
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(repository()).unwrap().to_string_lossy().into_owned();
        Source::new(&name, &std::fs::read_to_string(path).unwrap())
    };
    files.iter().map(read).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[track_caller]
fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "{} broken house rules:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn every_file_says_at_its_top_why_it_exists() {
    let broken: Vec<String> = sources().iter().filter_map(Source::missing_top).collect();
    assert_none(&broken);
}

#[test]
fn words_are_said_only_where_they_belong() {
    let sources = sources();
    assert!(sources.len() > 30, "the search for source files finds {} only", sources.len());
    let broken: Vec<String> = sources.iter().flat_map(words::broken_rules).collect();
    assert_none(&broken);
}

#[test]
fn crates_depend_only_on_crates_below() {
    let manifest = |name: &str| std::fs::read_to_string(repository().join(name)).unwrap();
    let mut broken = Vec::new();
    for name in ["Cargo.toml", "store/Cargo.toml", "backup/Cargo.toml", "fs/Cargo.toml"] {
        broken.extend(arrows::broken_dependencies(name, &manifest(name)));
    }
    assert_none(&broken);
}

#[test]
fn floors_of_the_store_use_only_floors_below() {
    let lib = std::fs::read_to_string(repository().join("store/src/lib.rs")).unwrap();
    let floors = arrows::floors(&lib);
    assert!(floors.len() > 15, "the list of floors in store/src/lib.rs was not understood: {floors:?}");
    let broken: Vec<String> =
        sources().iter().flat_map(|source| arrows::broken_floors(source, &floors)).collect();
    assert_none(&broken);
}

#[test]
fn tests_that_pages_name_are_there() {
    let mut files = Vec::new();
    for dir in
        ["src", "store/src", "store/tests", "backup/src", "backup/tests", "fs/src", "fs/tests", "tests/it"]
    {
        collect(&repository().join(dir), &mut files);
    }
    let tests: String = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_name = |word: &&str| word.matches('_').count() > 2 && word.chars().all(is_letter);
    let mut broken = Vec::new();
    for (page, at_least) in
        [("docs/testing.md", 8), ("docs/threat-model.md", 50), ("docs/concurrency.md", 20)]
    {
        let text = std::fs::read_to_string(repository().join(page)).unwrap();
        let named: Vec<&str> = text.split('`').filter(is_name).collect();
        assert!(named.len() >= at_least, "{page}: {named:?}");
        let missing = named.iter().filter(|name| !tests.contains(&format!("fn {name}()")));
        broken.extend(missing.map(|name| format!("{page} names {name}, which is no test")));
    }
    assert_none(&broken);
}
