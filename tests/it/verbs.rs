//! Verbs that look into recovery points, let them go and manage keys, through the program as scripts use it.
//!
//! Making a store costs a second of key derivation, so each test makes one and asks it many things.
#![allow(clippy::unwrap_used)]

mod fetch;
mod forget;
mod history;
mod key;
mod look;
mod restore;
mod rotate;
mod sheet;

use std::ffi::OsStr;
use std::path::PathBuf;

use serde_json::Value;

use crate::testkit::{Machine, Ran};
use crate::trouble::files_below;

/// The passphrase of the stores that tests make.
const PASSPHRASE: &str = "a passphrase for tests";

/// A machine with a store, and perhaps a vault.
struct Stored {
    machine: Machine,
}

impl Stored {
    fn new() -> Self {
        Self::init(&[])
    }

    fn with_vault() -> Self {
        Self::init(&["--vault", "vault"])
    }

    fn init(more: &[&str]) -> Self {
        let stored = Self { machine: Machine::new() };
        std::fs::create_dir(stored.path("src")).unwrap();
        stored.run(["init", "--sheet", "sheet.txt"].iter().chain(more)).expect_code(0);
        stored
    }

    fn path(&self, name: &str) -> PathBuf {
        self.machine.path(name)
    }

    fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> std::process::Command {
        let mut command = self.machine.command(args);
        command.env("HOLDFAST_STORE", self.path("store")).env("HOLDFAST_PASSWORD", PASSPHRASE);
        command
    }

    fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
        Ran::of(&mut self.command(args))
    }

    /// Lines of JSON on standard output.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Vec<Value> {
        let out = self.run(args.iter().chain(&["--json"])).expect_code(0).out();
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A recovery point of `src`; its id.
    #[track_caller]
    fn backup(&self) -> String {
        let lines = self.json(&["backup", "src", "--as", "docs"]);
        let summary = lines.iter().find(|line| line["message_type"] == "summary").unwrap();
        summary["snapshot_id"].as_str().unwrap().to_owned()
    }

    /// Ids of all recovery points, oldest first.
    fn points(&self) -> Vec<String> {
        let points = self.json(&["snapshots"]).remove(0);
        points.as_array().unwrap().iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Bytes of all packs below a directory.
    fn pack_bytes(&self, place: &str) -> u64 {
        let packs = files_below(&self.path(place).join("pack"));
        packs.iter().map(|pack| pack.metadata().unwrap().len()).sum()
    }
}
