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

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Instant;

use self::cell::{Cell, Fault, changes_a_file};
use self::verb::Verb;
use self::victim::Victim;
use crate::testkit::{Choice, skip};

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

fn each_call(verb: &'static Verb, some: usize) {
    if !can_trace() {
        return;
    }
    let (mut choice, begun) = (Choice::new(verb.name), Instant::now());
    let victim = Victim::new(verb, &mut choice.random);
    let cells = victim.cells();
    assert!(cells.len() > 50, "{cells:?}");
    let mut cells = choice.of(cells, some);
    if !cells.contains(&Cell::no_sync()) {
        cells.push(Cell::no_sync());
    }
    let (mut hit, mut wrong) = (0, Vec::new());
    for (n, cell) in cells.iter().enumerate() {
        let tried = catch_unwind(AssertUnwindSafe(|| each(&victim, verb, n, cell)));
        match tried {
            Ok(was_there) => hit += usize::from(was_there),
            // At once: a run that is cut off has told what it found. What it was stands above it.
            Err(_) => {
                println!("{} {n}: {cell:?}: WRONG", verb.name);
                wrong.push(cell);
            }
        }
    }
    println!("{}: {} cells in {} s", verb.name, cells.len(), begun.elapsed().as_secs());
    assert!(wrong.is_empty(), "{} of {} cells: {wrong:?}", wrong.len(), cells.len());
    // Runs are not quite alike, and of a few calls by chance most may not be there; syncs are.
    let least = if cells.len() > 20 { cells.len() / 2 } else { 1 };
    assert!(hit >= least, "only {hit} of {} calls were there", cells.len());
}

/// One of the cells. Whether the call was there.
fn each(victim: &Victim, verb: &Verb, n: usize, cell: &Cell) -> bool {
    victim.reset();
    let (ran, calls) = victim.hurt(cell);
    println!("{} {n}: {cell:?}: {}", verb.name, calls.first().map_or("", |call| call));
    let (killed, what) = (ran.was_killed(), || format!("{calls:?}: {:?}: {}", ran.ended(), ran.err()));
    if cell.fault != Fault::Kill {
        assert!(!killed, "it does not end: {}", what());
    }
    // The call of this number of another thread may be one of another kind: whoever is woken by what never fails may do anything when it
    // does, and what cannot be read is told in other words.
    let changes = calls.iter().all(|call| changes_a_file(call));
    if cell.fault != Fault::Kill && changes {
        assert!(matches!(ran.ended(), Some(0..=12 | INTERRUPTED)), "{}", what());
        let says_why = cell.fault.words().iter().chain(verb.says).any(|how| ran.err().contains(how));
        assert!(ran.code() == verb.code || says_why, "{}", what());
    }
    if *cell == Cell::no_sync() && verb.lasts {
        assert_ne!(ran.ended(), Some(verb.code), "nothing was made durable: {}{}", ran.out(), ran.err());
    }
    victim.examine(cell, &ran);
    killed || (changes && !calls.is_empty())
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
