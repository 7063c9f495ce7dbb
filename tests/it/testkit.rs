//! What tests from outside need: a place of their own in which the program runs, away from the settings of whoever runs them.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod choice;
mod mounted;
mod process;
mod ran;
mod waiting;

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};

use holdfast_store::clock::Clock;
use holdfast_store::monitor::VoidMonitor;
use holdfast_store::seal::machine::MachineKey;
use holdfast_store::seal::slots::KeySlot;
use holdfast_store::seal::writer_file;
use holdfast_store::store::{Store, StoreOptions};
use holdfast_store::vault::testing::Azurite;
use serde_json::Value;
use tempfile::TempDir;

pub use choice::Choice;
pub use mounted::{Mounted, mounts};
pub use process::{descriptors, drop_pages, figure, processes_with, stands_in};
pub use ran::Ran;
pub use waiting::{noise, number, wait_for};

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

/// Ids of the points that a store or a vault in a directory shows, without those in whose place a revocation stands.
pub fn points_in(place: &Path) -> Vec<String> {
    let sources = std::fs::read_dir(place.join("rp")).into_iter().flatten();
    let objects = sources.flat_map(|source| std::fs::read_dir(source.unwrap().path()).unwrap());
    let paths = objects.map(|object| object.unwrap().path());
    // The kind stands in the header, and 5 is that of points.
    let points = paths.filter(|path| std::fs::read(path).is_ok_and(|bytes| bytes.get(8) == Some(&5)));
    // A further attempt has its number behind the id.
    let id =
        |path: PathBuf| path.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
    points.map(id).collect()
}

/// Opens the store in `dir` by the machine key in `keys`, without its vaults.
pub fn open_store(dir: &Path, keys: &Path, clock: Arc<dyn Clock>) -> Store {
    let head = Store::head(dir).unwrap();
    let secret = MachineKey::read(&MachineKey::path_in(keys, &head.vault)).unwrap().secret();
    let mut opened = head.slots.iter().filter_map(|(_, slot)| KeySlot::open(slot, &head.vault, &secret).ok());
    let writer = writer_file::read_in(keys, &head.vault).unwrap().map(Arc::new);
    let options = StoreOptions { writer, ..StoreOptions::local(clock) };
    Store::open(dir, &opened.next().unwrap().0, options, &VoidMonitor).unwrap()
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

    /// A machine that has nothing but what it recovered from a vault of such a store.
    pub fn recovered_from(vault: impl AsRef<OsStr>) -> Self {
        let machine = Self::recovering();
        let mut recover = machine.command(["recover", "--machine-key"]);
        Ran::of(recover.arg(vault).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
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

    /// The file of this machine's key.
    pub fn key_file(&self) -> PathBuf {
        let files = std::fs::read_dir(self.dir.path().join("keys")).unwrap();
        let mut paths = files.map(|file| file.unwrap().path());
        paths.find(|path| path.extension().is_some_and(|found| found == "key")).unwrap()
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
        Mounted::at(self, path)
    }

    /// Mounts what may lie in vaults of the emulator.
    #[track_caller]
    pub fn mount_online(&self, name: &str, options: &[&str]) -> Mounted<'_> {
        self.mount_with(name, options, &[("AZURE_STORAGE_KEY", Azurite::KEY)])
    }

    /// What its mounts in the background wrote into their logs.
    pub fn log(&self) -> String {
        process::logs(&self.dir.path().join("cache"))
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

    /// The program, with what opens vaults of the emulator.
    pub fn online(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = self.command(args);
        command.env("AZURE_STORAGE_KEY", Azurite::KEY);
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

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
