//! The bench runs: all of it, on data that are nearly nothing. What it measures is nobody's business here.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Stdio};

use crate::testkit::{repository, skip};

/// Lines that a whole run prints, one of each part; those of the vault need the emulator.
const LOCAL: [&str; 6] = [
    "| kernel | find again, s |",
    "| kernel | cp -r cold, s |",
    "| many | grep -r again, s |",
    "| big | dd cold, MB/s |",
    "| many | daemon memory after all of it, MiB |",
    "| kernel | backup, unchanged, s |",
];
const VAULT: [&str; 3] = [
    "| kernel | vault, mount to first ls, no cache, s |",
    "| kernel | vault, cp -r Documentation, requests per file |",
    "| big | vault, dd of 256 MB, s |",
];

#[test]
fn the_bench_takes_every_figure() {
    let test = "the_bench_takes_every_figure";
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/fuse").exists() {
        return skip(test, "needs root and /dev/fuse");
    }
    if Command::new("python3").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip(test, "python3 is not here");
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut bench = Command::new("python3");
    bench.arg("-B").arg(repository().join("tests/bench/bench.py")).arg("--smoke");
    bench.arg("--tool").arg(concat!("holdfast=", env!("CARGO_BIN_EXE_holdfast")));
    let ran = bench.env("TMPDIR", scratch.path()).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    let vault = std::env::var_os("HOLDFAST_AZURITE").map(|_| VAULT);
    for wanted in LOCAL.iter().chain(vault.iter().flatten()) {
        assert!(said.contains(wanted), "{wanted} is missing:\n{said}");
    }
    assert!(said.ends_with("smoke: done\n"));
}
