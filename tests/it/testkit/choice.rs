//! Which cells of a matrix are tried: all with `HOLDFAST_MATRIX=all`, else some that `HOLDFAST_SEED` chooses.

use holdfast_store::tree::testing::TestRandom;

/// What is asked for.
pub struct Choice {
    all: bool,
    /// Chance, from the seed.
    pub random: TestRandom,
}

impl Choice {
    /// For a matrix of this name, which it prints with the seed.
    pub fn new(matrix: &str) -> Self {
        let told = std::env::var("HOLDFAST_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = told.unwrap_or(1);
        let all = std::env::var_os("HOLDFAST_MATRIX").is_some_and(|wish| wish == "all");
        println!("{matrix}: HOLDFAST_SEED={seed}{}", if all { " HOLDFAST_MATRIX=all" } else { "" });
        Self { all, random: TestRandom::new(seed) }
    }

    /// All cells, or `some` of them.
    pub fn of<T>(&mut self, mut cells: Vec<T>, some: usize) -> Vec<T> {
        while !self.all && cells.len() > some {
            cells.swap_remove(self.random.below(cells.len() as u64) as usize);
        }
        cells
    }
}
