//! What tests from outside need: a place of their own in which the program runs, away from the settings of whoever runs them.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A machine of its own, as far as the program can tell: home, configuration, cache, keys and a place for files.
pub struct Machine {
    dir: TempDir,
}

impl Machine {
    /// An empty machine.
    pub fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["home", "keys", "cache", "files"] {
            std::fs::create_dir(machine.dir.path().join(name)).unwrap();
        }
        machine
    }

    /// A path for the test's own files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("files").join(name)
    }

    /// The program, with nothing of the surrounding environment but what finding other programs needs.
    pub fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let at = |name: &str| self.dir.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
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
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
        Ran::of(&mut self.command(args))
    }
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
