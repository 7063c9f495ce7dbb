//! Scrubbing from outside: what is damaged is found where nobody reads it, with a key and without one.
#![allow(clippy::unwrap_used)]

mod ciphertext;
mod daemon;
mod rotation;

use std::path::{Path, PathBuf};

use crate::testkit::Machine;
use crate::trouble::files_below;

/// The objects of a place below a directory, in the order of their names.
fn objects(place: &Path, below: &str) -> Vec<PathBuf> {
    files_below(&place.join(below))
}

fn name_of(place: &Path, object: &Path) -> String {
    object.strip_prefix(place).unwrap().to_str().unwrap().to_owned()
}

/// The path of a configuration that names no group: `status` needs one.
pub fn empty_configuration(machine: &Machine) -> String {
    let path = machine.path("holdfast.toml");
    std::fs::write(&path, "").unwrap();
    path.to_str().unwrap().to_owned()
}

fn flip(object: &Path) {
    let mut bytes = std::fs::read(object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(object, bytes).unwrap();
}
