//! The door for libFuzzer: one program for all targets, so that the engine is built and linked once. `HOLDFAST_FUZZ` says which; see `run`.
#![no_main]
#![allow(dead_code)]

mod targets;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use targets::program::source::small_file;
use targets::program::{outcome, terminal};
use targets::{TARGETS, Target};

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("HOLDFAST_FUZZ").unwrap_or_default();
    let known = TARGETS.iter().find(|target| target.name == name);
    known.unwrap_or_else(|| panic!("HOLDFAST_FUZZ={name:?} is no target; see tests/fuzz/targets.rs"))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
