//! Fault matrices: everything that can go wrong, at every place where it can, over the same small store. Each is complete over its axis:
//! every request of a vault, every change of a file, every byte of every object.
//!
//! Without `HOLDFAST_MATRIX=all` a part of the larger ones runs, chosen by `HOLDFAST_SEED`, and always the same one without it.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod disk;
mod lab;
mod requests;
mod rot;

use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast_store::tree::testing::TestRandom;

/// Which cells of a matrix run.
struct Slice {
    seed: u64,
    all: bool,
}

impl Slice {
    fn of(matrix: &str) -> Self {
        let all = std::env::var_os("HOLDFAST_MATRIX").is_some_and(|wish| wish == "all");
        let told = std::env::var("HOLDFAST_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = told.unwrap_or(1);
        println!("{matrix}: HOLDFAST_SEED={seed}{}", if all { " HOLDFAST_MATRIX=all" } else { "" });
        Self { seed, all }
    }

    /// All cells, or one in `of` of them.
    fn cells<T>(&self, cells: Vec<T>, of: u64) -> Vec<T> {
        let mut random = TestRandom::new(self.seed);
        cells.into_iter().filter(|_| self.all || random.below(of) == 0).collect()
    }
}

/// Does something with each cell, on all cores; what was wrong, of some of them.
fn each<T: Sync>(cells: &[T], look: impl Fn(&T) -> Result<(), String> + Sync) {
    let (next, wrong) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(e) = look(cell) {
                        // At once: a run that is cut off has told what it found.
                        println!("{e}");
                        wrong.lock().unwrap().push(e);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    println!("{} cells", cells.len());
    assert!(
        wrong.is_empty(),
        "{} of {} cells:\n{}",
        wrong.len(),
        cells.len(),
        wrong[..wrong.len().min(60)].join("\n")
    );
}
