//! The mount tells the truth: what it answers to `stat`, `getfattr`, `lseek`, `find` and their like is what the source answered, and
//! programs that know nothing of it (databases, `git`, overlays, whoever opens files by handle) work on it as on a disk.
//!
//! Where the source can be asked the same, both are asked and the answers compared.
#![allow(clippy::unwrap_used)]

mod attributes;
mod handles;
mod holes;
mod postgres;
mod tools;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::testkit::{Ran, repository, skip};

/// Runs a script of `sh` in a directory, with `arguments` as `$1` and so on; what it printed, if it ended well.
#[track_caller]
fn sh(at: &Path, script: &str, arguments: &[&Path]) -> Vec<u8> {
    shell(at, script, arguments).expect_code(0).stdout().to_vec()
}

/// The same however it ended.
fn shell(at: &Path, script: &str, arguments: &[&Path]) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args(arguments).current_dir(at);
    Ran::of(command.env("LC_ALL", "C").env("HOME", "/nonexistent").env("GIT_CONFIG_NOSYSTEM", "1"))
}

/// Parts of an output in an order of their own: tools print in the order of directories.
fn sorted(output: &[u8], separator: &[u8]) -> Vec<String> {
    let text = output.escape_ascii().to_string();
    let separator = separator.escape_ascii().to_string();
    let mut parts: Vec<_> = text.split(&separator).map(str::to_owned).collect();
    parts.sort();
    parts
}

/// Fails with the lines that only one side has.
#[track_caller]
fn assert_same(what: &str, source: &[String], mount: &[String]) {
    let only = |a: &[String], b: &[String]| a.iter().filter(|x| !b.contains(x)).take(20).cloned().collect();
    if source != mount {
        let (lost, new): (Vec<_>, Vec<_>) = (only(source, mount), only(mount, source));
        panic!("{what}\nonly of the source: {lost:#?}\nonly of the mount: {new:#?}");
    }
}

/// `probe.c`, built once: it makes the calls that safe Rust has not.
static PROBE: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (fresh, built) = (dir.join(format!("probe-{}", std::process::id())), dir.join("probe"));
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-Wall", "-Werror", "-o"]).arg(&fresh);
    Ran::of(compiler.arg(repository().join("tests/it/truth/probe.c"))).expect_code(0);
    std::fs::rename(&fresh, &built).unwrap();
    built
});

/// What `probe.c` says.
#[track_caller]
fn probe(arguments: &[&dyn AsRef<OsStr>]) -> String {
    let mut command = Command::new(&*PROBE);
    for argument in arguments {
        command.arg(argument);
    }
    Ran::of(command.env("LC_ALL", "C")).expect_code(0).out().trim().to_owned()
}

/// Has the kernel let go of names and nodes that nobody uses: twice, since overlays hold on to what lies below them.
fn evict() -> std::io::Result<()> {
    (0..2).try_for_each(|_| std::fs::write("/proc/sys/vm/drop_caches", "2"))
}

/// The same, said visibly where it cannot be had.
fn evict_or_skip(test: &str) {
    if let Err(error) = evict() {
        skip(test, &format!("the kernel's caches cannot be dropped: {error}"));
    }
}

/// An overlay over `lower`, with its scratch in memory: not every disk can be an upper layer.
#[track_caller]
fn overlay(lower: &Path, scratch: &Path, options: &str) -> PathBuf {
    let script = "mkdir -p \"$2\" && { mountpoint -q \"$2\" || mount -t tmpfs -o size=512m scratch \"$2\"; } && cd \"$2\" &&
        mkdir -p upper work merged && chown --reference=\"$1\" upper && chmod --reference=\"$1\" upper &&
        mount -t overlay overlay -o \"lowerdir=$1,upperdir=upper,workdir=work$3\" merged";
    sh(Path::new("/"), script, &[lower, scratch, Path::new(options)]);
    scratch.join("merged")
}
