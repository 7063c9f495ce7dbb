//! A backup into a vault over the network, killed at each call that sends something.

use std::collections::BTreeMap;
use std::path::Path;

use holdfast_store::id::VaultId;
use holdfast_store::tree::testing::TestRandom;
use holdfast_store::vault::testing::Azurite;

use super::can_trace;
use super::cell::{Cell, OF_SOCKETS};
use super::victim::{SOURCE, traced};
use crate::testkit::{Choice, Machine, Ran};
use crate::trouble::{
    SmallStore, Tree, assert_restores, azurite, command, points, run, sample, summary_id, write_tree,
};

/// Cells that are tried unless all are asked for.
const CELLS: usize = 4;

/// A machine whose store has a vault in the emulator.
struct Bed {
    machine: Machine,
    store: SmallStore,
    vault: String,
    /// What each point that was called saved must restore to.
    expected: BTreeMap<String, Tree>,
}

impl Bed {
    fn new(emulator: &Azurite) -> Self {
        let machine = Machine::new();
        let store = SmallStore::make(&machine, machine.path("store"));
        std::fs::write(store.dir.join("ballast"), "").unwrap();
        let name = format!("sending{}", &VaultId::random().hex()[..16]);
        let vault = Azurite::address(&name, emulator.port()).unwrap().to_string();
        run(&machine, &store.dir, &["vault", "add", &vault]).expect_code(0);
        Self { machine, store, vault, expected: BTreeMap::new() }
    }

    /// The source has other content from now on.
    fn change(&self, random: &mut TestRandom) -> Tree {
        let tree = sample(random, SOURCE);
        write_tree(&self.machine.path("source"), &tree);
        tree
    }

    fn back_up(&self, cell: Option<&Cell>) -> (Ran, Vec<String>) {
        let source = self.machine.path("source");
        let args = ["backup", "--json", "--online", source.to_str().unwrap()];
        traced(&command(&self.machine, &self.store.dir, &args), &self.machine, &OF_SOCKETS, cell)
    }

    fn saved(&mut self, ran: &Ran, tree: &Tree) {
        self.expected.extend(summary_id(&ran.out()).map(|id| (id, tree.clone())));
    }

    /// Of the points that are there the newest, and whatever was called saved.
    fn all_restore(&self, machine: &Machine, store: &Path) {
        let shown = points(machine, store);
        assert!(self.expected.keys().all(|id| shown.contains(id)), "{shown:?}");
        for id in shown.iter().rev().take(3).filter(|id| self.expected.contains_key(*id)) {
            assert_restores(machine, store, id, &self.expected[id]);
        }
    }
}

#[test]
fn a_backup_killed_at_any_call_that_sends_something_loses_nothing() {
    let (Some(emulator), true) = (azurite(), can_trace()) else { return };
    let mut choice = Choice::new("backup over the network");
    let mut bed = Bed::new(&emulator);
    let tree = bed.change(&mut choice.random);
    let (ran, calls) = bed.back_up(None);
    bed.saved(&ran.expect_code(0), &tree);
    let cells = Cell::of_sending(&calls);
    assert!(cells.len() > 5, "{cells:?}");
    let (cells, mut killed) = (choice.of(cells, CELLS), 0);
    for (n, cell) in cells.iter().enumerate() {
        println!("{n}: {cell:?}");
        let tree = bed.change(&mut choice.random);
        let (ran, _) = bed.back_up(Some(cell));
        killed += usize::from(ran.was_killed());
        bed.saved(&ran, &tree);
        // Killed again where it goes on, and then left alone.
        let (ran, _) = bed.back_up(Some(&Cell { nth: cell.nth.div_ceil(2), ..cell.clone() }));
        bed.saved(&ran, &tree);
        let (ran, _) = bed.back_up(None);
        bed.saved(&ran.expect_code(0), &tree);
        run(&bed.machine, &bed.store.dir, &["vault", "push"]).expect_code(0);
        run(&bed.machine, &bed.store.dir, &["check", "--read-data"]).expect_code(0);
        bed.all_restore(&bed.machine, &bed.store.dir);
        let bare = Machine::new();
        let dir = bare.path("recovered");
        let mut recover = command(&bare, &dir, &["recover", &bed.vault, "--machine-key"]);
        Ran::of(recover.env("HOLDFAST_RECOVERY_KEY", &bed.store.words)).expect_code(0);
        bed.all_restore(&bare, &dir);
    }
    println!("backup over the network: {} cells", cells.len());
    assert!(killed * 2 > cells.len(), "only {killed} of {} calls were there", cells.len());
}
