//! What tests from outside need: a place of their own in which the program runs, away from the settings of whoever runs them.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The passphrase of every store that [`Machine::with_store`] makes.
pub const PASSPHRASE: &str = "a passphrase for nobody";

/// A store as `init` leaves it. Making one takes a second of key derivation, so it is made once, kept in memory, and
/// written out for each test that wants one.
struct Template {
    /// Content of files by path; directories have none.
    files: Vec<(PathBuf, Option<Vec<u8>>)>,
    words: String,
}

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let machine = Machine::new();
    let store = machine.path("store");
    let mut init = machine.command(["init", "--json", "--store"]);
    let ran = Ran::of(init.arg(&store).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    let words = ran.json()["recovery_key"].as_str().unwrap().to_owned();
    let mut files = Vec::new();
    for name in ["files/store", "keys"] {
        read_all(machine.dir.path(), Path::new(name), &mut files);
    }
    Template { files, words }
});

fn read_all(root: &Path, below: &Path, files: &mut Vec<(PathBuf, Option<Vec<u8>>)>) {
    files.push((below.to_path_buf(), None));
    for entry in std::fs::read_dir(root.join(below)).unwrap() {
        let path = below.join(entry.unwrap().file_name());
        if root.join(&path).is_dir() {
            read_all(root, &path, files);
        } else {
            let content = std::fs::read(root.join(&path)).unwrap();
            files.push((path, Some(content)));
        }
    }
}

/// Says that something is left out. Straight to standard error: what tests print is shown only of those that fail.
pub fn skip(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIP {what}: {why}");
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether this process is root with a kernel that mounts; else it says, visibly, that the test is left out.
pub fn can_mount(test: &str) -> bool {
    let can = is_root() && Path::new("/dev/fuse").exists();
    if !can {
        skip(test, "it needs root and /dev/fuse");
    }
    can
}

/// Whether this process can have commands run by another user; else it says, visibly, that the test is left out.
pub fn can_be_nobody(test: &str) -> bool {
    if !is_root() {
        skip(test, "only root can become another user");
    }
    is_root()
}

/// Waits until `done`; fails after `seconds`, saying what never came.
#[track_caller]
pub fn wait_for(what: &str, seconds: u64, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(Instant::now() < until, "{what} did not come within {seconds} s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A machine of its own, as far as the program can tell: home, configuration, cache, keys and a place for files.
pub struct Machine {
    dir: TempDir,
    has_store: bool,
}

impl Machine {
    /// An empty machine.
    pub fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap(), has_store: false };
        for name in ["home", "keys", "cache", "files"] {
            std::fs::create_dir(machine.dir.path().join(name)).unwrap();
        }
        machine
    }

    /// A machine with an empty store that its machine key opens.
    pub fn with_store() -> Self {
        let machine = Self::recovering();
        for (path, content) in &TEMPLATE.files {
            let path = machine.dir.path().join(path);
            let Some(content) = content else {
                std::fs::create_dir_all(&path).unwrap();
                continue;
            };
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        machine
    }

    /// A machine that has no store yet and knows where it shall be.
    pub fn recovering() -> Self {
        let mut machine = Self::new();
        machine.has_store = true;
        machine
    }

    /// The 24 words that open a store of [`Self::with_store`].
    pub fn words() -> &'static str {
        &TEMPLATE.words
    }

    /// Gives all of it to the user `nobody`, who can then run the program on it with [`as_nobody`]: a copy, for the checkout may lie
    /// where `nobody` cannot go.
    pub fn give_to_nobody(&self) {
        std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), self.copied_program()).unwrap();
        let status = Command::new("chown").args(["-R", "65534:65534"]).arg(self.dir.path()).status().unwrap();
        assert!(status.success());
    }

    /// Takes this machine's key away, so that a store needs a passphrase or words.
    pub fn forget_keys(&self) {
        for key in std::fs::read_dir(self.dir.path().join("keys")).unwrap() {
            std::fs::remove_file(key.unwrap().path()).unwrap();
        }
    }

    /// The store's directory.
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// The whole machine.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Takes a point of `source` with `options`; what `backup --json` says of it.
    #[track_caller]
    pub fn back_up(&self, source: &Path, options: &[&str]) -> Value {
        let mut command = self.command(["backup", "--json"]);
        Ran::of(command.args(options).arg(source)).expect_code(0).json()
    }

    /// Restores `point` into the new directory `name`.
    #[track_caller]
    pub fn restore(&self, point: &str, name: &str) -> PathBuf {
        let target = self.path(name);
        let mut command = self.command(["restore", point, "--target"]);
        Ran::of(command.arg(&target)).expect_code(0);
        target
    }

    /// Mounts in the background at the new directory `name`.
    #[track_caller]
    pub fn mount(&self, name: &str, options: &[&str]) -> Mounted<'_> {
        self.mount_with(name, options, &[])
    }

    /// The same with more environment.
    #[track_caller]
    pub fn mount_with(&self, name: &str, options: &[&str], env: &[(&str, &str)]) -> Mounted<'_> {
        let path = self.path(name);
        if std::fs::symlink_metadata(&path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound) {
            std::fs::create_dir(&path).unwrap();
        }
        let mut command = self.command(["mount", "--background"]);
        Ran::of(command.args(options).arg(&path).envs(env.iter().copied())).expect_code(0);
        Mounted { machine: self, path }
    }

    /// Takes away every mount below this machine, whatever holds it.
    fn unmount_all(&self) {
        for path in mounts().into_iter().rev().filter(|path| path.starts_with(self.dir.path())) {
            let _ = rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH);
        }
    }

    /// A path for the test's own files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("files").join(name)
    }

    fn copied_program(&self) -> PathBuf {
        self.dir.path().join("holdfast")
    }

    /// The program, with nothing of the surrounding environment but what finding other programs needs.
    pub fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let at = |name: &str| self.dir.path().join(name);
        let copy = self.copied_program();
        let mut command =
            if copy.exists() { Command::new(copy) } else { Command::new(env!("CARGO_BIN_EXE_holdfast")) };
        command.args(args).env_clear().current_dir(at("files")).stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("TZ", "UTC").env("TMPDIR", self.dir.path());
        command.env("HOME", at("home"));
        for (name, path) in [
            ("XDG_CONFIG_HOME", "home/.config"),
            ("XDG_CACHE_HOME", "home/.cache"),
            ("XDG_DATA_HOME", "home/.local/share"),
            ("HOLDFAST_KEY_DIR", "keys"),
            ("HOLDFAST_CACHE_DIR", "cache"),
        ] {
            command.env(name, at(path));
        }
        if self.has_store {
            command.env("HOLDFAST_STORE", self.store());
        }
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
        Ran::of(&mut self.command(args))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.unmount_all();
        // Immutable files, of which tests of restores make some, cannot be removed otherwise.
        let mut chattr = Command::new("chattr");
        chattr.args(["-R", "-f", "-i", "-a"]).arg(self.dir.path().join("files"));
        let _ = chattr.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Has a command run by the user `nobody`; only root can.
pub fn as_nobody(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    command.uid(65_534).gid(65_534)
}

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

    /// Ends it by `holdfast umount` and waits until its process is gone, as far as others may open the store again.
    #[track_caller]
    pub fn umount(self) {
        self.machine.run([OsStr::new("umount"), self.path.as_os_str()]).expect_code(0);
        wait_for("the end of the mount's process", 10, || self.processes().is_empty());
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if mounts().contains(&self.path) {
            self.machine.run([OsStr::new("umount"), self.path.as_os_str()]);
        }
    }
}

/// Processes of the program that have `path` among their arguments, without the guards of mounts.
pub fn processes_with(path: &Path) -> Vec<i32> {
    use std::os::unix::ffi::OsStrExt;
    let is_meant = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let has = |wanted: &[u8]| line.split(|byte| *byte == 0).any(|argument| argument == wanted);
        has(path.as_os_str().as_bytes()) && !has(b"guard-mount")
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_meant).collect()
}

/// A run that ended.
pub struct Ran {
    output: Output,
}

impl Ran {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        Self { output: command.output().unwrap() }
    }

    /// Its exit code; a signal counts as a failure of the test.
    pub fn code(&self) -> i32 {
        self.output.status.code().unwrap_or_else(|| panic!("ended by a signal: {}", self.output.status))
    }

    /// Standard output.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// Standard output as the bytes it is.
    pub fn stdout(&self) -> &[u8] {
        &self.output.stdout
    }

    /// Standard error.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The last line of standard output, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        let out = self.out();
        let line = out.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {out:?}"))
    }

    /// Fails unless standard error has all of `words`.
    #[track_caller]
    pub fn expect_err(self, words: &[&str]) -> Self {
        let err = self.err();
        for word in words {
            assert!(err.contains(word), "{word:?} is not in:\n{err}");
        }
        self
    }

    /// The run itself, if it ended with `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "standard output:\n{}\nstandard error:\n{}", self.out(), self.err());
        self
    }
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
