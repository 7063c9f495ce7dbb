//! A view beside the real folder that was backed up: whatever a kernel could ask, both must say the same.
//!
//! For each seed a tree is made by chance, backed up by the real engine, and asked some hundred questions by chance, without a
//! kernel. Numbers of nodes must be one for each thing, and the same in each new view. What fails is made shorter by leaving
//! operations out, and printed with its seed.
//!
//! `HOLDFAST_MODEL_SEEDS=N` tries so many seeds, `HOLDFAST_MODEL_FIRST=N` begins at another one.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::print_stderr)]

mod answers;
mod chance;
mod driver;
mod home;
mod ops;
mod real;
mod tree;

use std::panic::{AssertUnwindSafe, catch_unwind};

use chance::Chance;
use driver::Driver;
use home::Home;
use ops::Op;

const SEEDS: u64 = 24;
const OPERATIONS: usize = 500;

/// Runs until the first that fails: which, and why.
fn run(home: &Home, operations: &[Op]) -> Result<(), (usize, String)> {
    let mut driver = Driver::new(home);
    for (at, operation) in operations.iter().enumerate() {
        let done = catch_unwind(AssertUnwindSafe(|| driver.apply(operation)));
        done.unwrap_or_else(|_| Err("a panic".to_owned())).map_err(|why| (at, why))?;
    }
    Ok(())
}

/// Leaves out ever shorter stretches of operations as long as what is left still fails.
fn shrunk(home: &Home, mut operations: Vec<Op>) -> (Vec<Op>, String) {
    let (at, mut why) = run(home, &operations).unwrap_err();
    operations.truncate(at + 1);
    let mut stretch = operations.len().div_ceil(2);
    loop {
        let mut from = 0;
        while from < operations.len() {
            let end = (from + stretch).min(operations.len());
            let fewer: Vec<_> = operations[..from].iter().chain(&operations[end..]).copied().collect();
            match run(home, &fewer) {
                Err((at, new)) => {
                    operations = fewer;
                    operations.truncate(at + 1);
                    why = new;
                }
                Ok(()) => from = end,
            }
        }
        if stretch <= 1 {
            return (operations, why);
        }
        stretch = stretch.div_ceil(2);
    }
}

fn check(seed: u64) {
    let home = Home::new(seed);
    let operations = ops::operations(&mut Chance(!seed), OPERATIONS);
    if run(&home, &operations).is_ok() {
        return;
    }
    let (operations, why) = shrunk(&home, operations);
    let lines: Vec<_> = operations.iter().map(|op| format!("  {op:?}")).collect();
    panic!(
        "seed {seed} (HOLDFAST_MODEL_FIRST={seed} HOLDFAST_MODEL_SEEDS=1): {why}\nafter {} operations:\n{}",
        operations.len(),
        lines.join("\n")
    );
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|said| said.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn a_view_answers_as_the_folder_that_was_backed_up() {
    let first = from_environment("HOLDFAST_MODEL_FIRST", 0);
    for seed in first..first + from_environment("HOLDFAST_MODEL_SEEDS", SEEDS) {
        check(seed);
    }
}
