//! The whole engine in a simulated world: machines on one vault, and everything that can go wrong. One seed is one run, with the same trace
//! each time; what was acknowledged must be there whatever happened (`docs/testing.md`).
//!
//!     tests/sim --seeds N      many seeds; --from S: beginning with S; --seed S: one of them, told step by step

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod director;
mod doors;
mod expiry;
mod life;
mod machine;
mod policy;
mod rot;
mod scrub;
mod swarm;
mod truth;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use director::{Run, run};

/// Seeds of an ordinary run of the tests.
const SEEDS: u64 = 200;
/// Seeds of which a world found something, and what. A change of the engine makes another world of a seed, so that each story in which
/// that was wrong has a test of its own as well.
const FOUND: [(u64, &str); 17] = [
    (78, "a generation named a pack twice, and no machine could read it"),
    (79, "a recovery kept a config in which the way from the vault had flipped a bit"),
    (500, "a recovery kept a key slot in which the way from the vault had flipped a bit"),
    (
        793,
        "what nobody could open stayed in the vault as long as something damaged there was not proven elsewhere, as it is said to",
    ),
    (
        2055,
        "who put a damaged point right removed what another machine had put right meanwhile, and died before it put its own",
    ),
    (4264, "a backup after a recovery that was cut off passed for the first of its source"),
    (4870, "as 500"),
    (10467, "as 500"),
    (12399, "what an upload put there and did not live to note was told as damaged, and sent by no scrub"),
    (12851, "as 12399"),
    (13289, "a check said that points need what nobody needs of a damaged pack"),
    (
        13560,
        "what another machine had put right was damaged for a collector that had not read it since, and kept garbage there",
    ),
    (
        17850,
        "a point that staging did not have was one of the last four of a catalog that had lost its last commits",
    ),
    (18067, "a point that a vault lost was told by every check of a catalog made anew, and sent by none"),
    (
        18271,
        "what is damaged of a point whose removal was cut off stayed until somebody removed it once more: so people do now",
    ),
    (
        18775,
        "who had the last whole copy of what is damaged in the vault did not know whose point needs it, and freed it",
    ),
    (18822, "as 18271"),
];

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn whatever_goes_wrong_what_was_acknowledged_is_there_and_all_comes_to_its_end() {
    let (first, seeds) = (number("HOLDFAST_SIM_FROM", 1), number("HOLDFAST_SIM_SEEDS", SEEDS));
    let (next, bad) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let [steps, points, failures, lost] = [const { AtomicU64::new(0) }; 4];
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + seeds {
                        return;
                    }
                    let run = std::panic::catch_unwind(|| run(seed, false)).unwrap_or_else(|_| Run::broken());
                    steps.fetch_add(run.steps, Ordering::SeqCst);
                    points.fetch_add((run.points.0 + run.points.1) as u64, Ordering::SeqCst);
                    failures.fetch_add(run.failures as u64, Ordering::SeqCst);
                    lost.fetch_add(u64::from(run.lost), Ordering::SeqCst);
                    if !run.wrong.is_empty() {
                        eprintln!("seed {seed}: {:?}", run.wrong);
                        bad.lock().unwrap().push((seed, run.wrong));
                    }
                }
            });
        }
    });
    let [steps, points, failures, lost] = [steps, points, failures, lost].map(AtomicU64::into_inner);
    eprintln!(
        "{seeds} seeds from {first}: {steps} steps, {points} points held to the end, {failures} runs of verbs failed, in {lost} worlds something rotted away"
    );
    let bad = bad.into_inner().unwrap();
    assert!(bad.is_empty(), "{} of {seeds} seeds, the first {:?}", bad.len(), bad.iter().min());
    assert!(points > seeds && failures > 0, "worlds in which nothing happens");
}

#[test]
fn worlds_that_found_something_find_nothing_more() {
    for (seed, story) in FOUND {
        let wrong = run(seed, false).wrong;
        assert!(wrong.is_empty(), "seed {seed}, in which {story}: {wrong:?}");
    }
}

#[test]
fn a_seed_is_a_run() {
    for seed in [number("HOLDFAST_SIM_SEED", 7), 8, 9, 10] {
        let (one, two) = (run(seed, true), run(seed, true));
        let differ = one.told.iter().zip(&two.told).position(|(a, b)| a != b);
        let around =
            differ.map(|at| (&one.told[at.saturating_sub(3)..=at], &two.told[at.saturating_sub(3)..=at]));
        assert_eq!(one.trace, two.trace, "seed {seed}: {around:#?}");
    }
}

#[test]
fn one_seed_is_told() {
    let Ok(seed) = std::env::var("HOLDFAST_SIM_SEED") else { return };
    let run = run(seed.parse().unwrap(), true);
    run.told.iter().for_each(|line| eprintln!("{line}"));
    assert!(run.wrong.is_empty(), "{:#?}", run.wrong);
}
