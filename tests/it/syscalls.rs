//! Every call of the system that changes a file, in every verb that writes what must last × what may come of it: the program is killed
//! there, or the disk is full or broken, at that call or from it on. The program is the real one, with all that it links; `strace` hurts the
//! call. Whatever was acknowledged before or in such a run is there afterwards, byte for byte, and the next run succeeds.
//!
//! Without `HOLDFAST_MATRIX=all` a part of the calls is tried, chosen by `HOLDFAST_SEED`, and always the same one without it. `key rotate`
//! is killed in `verbs/rotate.rs`. All of them are quickest with a `TMPDIR` in memory.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod cell;
mod online;
mod verb;
mod victim;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use holdfast_store::tree::testing::TestRandom;

use self::cell::{Cell, Fault, is_of_a_file};
use self::verb::Verb;
use self::victim::Victim;
use crate::testkit::skip;

/// Cells of a verb that are tried unless all are asked for.
const CELLS: usize = 4;
/// The exit code of a run that somebody did not want to wait for.
const INTERRUPTED: i32 = 130;

/// Whether the right to trace is there; else it says, visibly, that the test is left out.
fn can_trace() -> bool {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    let can = works.is_ok_and(|status| status.success());
    if !can {
        skip("calls of the system", "there is no strace that may trace");
    }
    can
}

/// Which cells are tried.
struct Choice {
    all: bool,
    random: TestRandom,
}

impl Choice {
    fn new(name: &str) -> Self {
        let told = std::env::var("HOLDFAST_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = told.unwrap_or(1);
        println!("{name}: HOLDFAST_SEED={seed}");
        let all = std::env::var_os("HOLDFAST_MATRIX").is_some_and(|wish| wish == "all");
        Self { all, random: TestRandom::new(seed) }
    }

    fn of(&mut self, mut cells: Vec<Cell>, some: usize) -> Vec<Cell> {
        while !self.all && cells.len() > some {
            cells.swap_remove(self.random.below(cells.len() as u64) as usize);
        }
        cells
    }
}

fn each_call(verb: &'static Verb, some: usize) {
    if !can_trace() {
        return;
    }
    let (mut choice, begun) = (Choice::new(verb.name), Instant::now());
    let victim = Victim::new(verb, &mut choice.random);
    let cells = victim.cells();
    assert!(cells.len() > 50, "{cells:?}");
    let mut cells = choice.of(cells, some);
    let no_sync = Cell::no_sync();
    if !cells.contains(&no_sync) {
        cells.push(no_sync.clone());
    }
    let mut hit = BTreeSet::new();
    for (n, cell) in cells.iter().enumerate() {
        victim.reset();
        let (ran, calls) = victim.hurt(cell);
        println!("{n}: {cell:?}: {}", calls.first().map_or("", |call| call));
        let killed = ran.was_killed();
        if cell.fault == Fault::Kill {
            hit.extend(killed.then_some(n));
        } else if calls.iter().all(|call| is_of_a_file(call)) {
            hit.extend((!calls.is_empty()).then_some(n));
            let what = || format!("{cell:?}: {calls:?}: {:?}: {}", ran.ended(), ran.err());
            assert!(matches!(ran.ended(), Some(0..=12 | INTERRUPTED)), "{}", what());
            let says_why = cell.fault.words().iter().any(|how| ran.err().contains(how));
            assert!(ran.code() == verb.code || says_why, "{}", what());
        } else {
            assert!(!killed, "{cell:?}: {calls:?}: it does not end");
        }
        if *cell == no_sync && verb.lasts {
            assert_ne!(ran.ended(), Some(verb.code), "nothing was made durable: {}{}", ran.out(), ran.err());
        }
        victim.examine(cell, &ran);
    }
    println!("{}: {} cells in {} s", verb.name, cells.len(), begun.elapsed().as_secs());
    // Runs are not quite alike.
    assert!(hit.len() * 2 > cells.len(), "only {} of {} calls were there", hit.len(), cells.len());
}

#[test]
fn a_backup_hurt_in_any_call_that_changes_a_file_loses_nothing() {
    each_call(&verb::BACKUP, 2 * CELLS);
}

#[test]
fn a_push_hurt_in_any_call_that_changes_a_file_loses_nothing() {
    each_call(&verb::PUSH, 2 * CELLS);
}

#[test]
fn a_copy_hurt_in_any_call_that_changes_a_file_loses_nothing() {
    each_call(&verb::COPY, CELLS);
}

#[test]
fn a_removal_hurt_in_any_call_that_changes_a_file_is_ended_and_costs_nothing_else() {
    each_call(&verb::FORGET, 2 * CELLS);
}

#[test]
fn freeing_hurt_in_any_call_that_changes_a_file_loses_nothing() {
    each_call(&verb::PRUNE, 2 * CELLS);
}

#[test]
fn a_point_that_is_brought_back_by_a_run_hurt_in_any_call_is_back_or_still_to_be_brought_back() {
    each_call(&verb::UNDELETE, CELLS);
}

#[test]
fn a_hold_hurt_in_any_call_that_changes_a_file_holds_once_it_said_so() {
    each_call(&verb::HOLD, CELLS);
}

#[test]
fn a_release_hurt_in_any_call_that_changes_a_file_lets_go_once_it_said_so() {
    each_call(&verb::RELEASE, CELLS);
}

#[test]
fn a_vault_whose_acceptance_was_hurt_in_any_call_is_accepted_by_the_next_one_and_loses_nothing() {
    each_call(&verb::ACCEPT, CELLS);
}

#[test]
fn a_vault_that_was_added_by_a_run_hurt_in_any_call_takes_all_points_after_the_next_one() {
    each_call(&verb::VAULT_ADD, CELLS);
}

#[test]
fn an_annex_that_was_added_by_a_run_hurt_in_any_call_takes_packs_after_the_next_one() {
    each_call(&verb::STAGING_ADD, CELLS);
}

#[test]
fn an_annex_that_is_left_by_a_run_hurt_in_any_call_loses_nothing() {
    each_call(&verb::STAGING_REMOVE, CELLS);
}

#[test]
fn a_scrub_hurt_in_any_call_that_changes_a_file_spoils_nothing_and_the_next_ones_heal() {
    each_call(&verb::SCRUB, CELLS);
}

#[test]
fn a_check_hurt_in_any_call_that_changes_a_file_spoils_nothing_and_the_next_one_notes_the_damage() {
    each_call(&verb::CHECK, CELLS);
}

#[test]
fn a_fetch_hurt_in_any_call_that_changes_a_file_brings_right_bytes_or_says_so() {
    each_call(&verb::FETCH, CELLS);
}

#[test]
fn a_recovery_hurt_in_any_call_that_changes_a_file_is_finished_by_the_same_command() {
    each_call(&verb::RECOVER, CELLS);
}
