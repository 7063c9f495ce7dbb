//! A run of a program, and what is expected of it.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use serde_json::Value;

/// A run that ended.
pub struct Ran {
    output: Output,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self { output }
    }
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

    /// Its exit code, if it was not a signal that ended it.
    pub fn ended(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// Whether it was killed.
    pub fn was_killed(&self) -> bool {
        self.output.status.signal() == Some(nix::libc::SIGKILL)
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
