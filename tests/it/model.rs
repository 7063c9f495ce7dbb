//! The protocol by which a vault's packs are freed while others write to it, and all that may happen in a small world.
//!
//! `docs/decisions/fenced-generations.md` tells the protocol and what these tests showed. Here stateright, a model checker, takes each step
//! that is possible in each state: writers that bring points in, collectors that delete packs, both cut off anywhere and begun again, commits
//! that arrive late or twice, points that are purged, sessions that are revoked at any moment (so no clock is needed: impatience may come at
//! any time). In every state each point must find its chunks. That the model would see it otherwise is shown by breaking one rule
//! at a time: each of these tests wants a way to a lost chunk. A few rules turned out not to be needed, and tests say that as well.
//!
//! One object is read or put in one step; a listing is one, too. Damage, sizes and times are not in it.
//!
//! The worlds here take seconds. `HOLDFAST_MODEL=big cargo test --test it model::bigger -- --nocapture` goes through some with up to three million
//! states in minutes, and `--nocapture` says of each search how many they were.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod collector;
mod same;
mod state;
mod steps;
mod world;
mod writer;

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use steps::{NEVER_BROKEN, SOMEWHERE};
use world::{Rules, World};

/// A writer of a new point; the other point is there, and may be purged and come back. Two attempts, two generations.
const ONE_WRITER: World = World {
    rules: Rules::AsTheyAre,
    writers: &[0],
    collectors: 1,
    generations: 2,
    attempts: 2,
    purges: 2,
    copies: 1,
};

/// Two writers, of which the second one's point is there until it is purged.
const TWO_WRITERS: World = World { writers: &[0, 1], generations: 1, attempts: 1, purges: 1, ..ONE_WRITER };

/// Where markers go there are many more states: one generation is enough.
const TIDIED: World = World { generations: 1, purges: 1, copies: 0, ..ONE_WRITER };

/// Two of everything, for who has minutes.
const BIG: World = World { collectors: 2, generations: 2, ..TWO_WRITERS };

/// The worlds in which the protocol is looked at. All that is to happen somewhere happens in one of them.
const WORLDS: [World; 4] = [
    World { collectors: 2, ..ONE_WRITER },
    World { collectors: 2, ..TWO_WRITERS },
    World { attempts: 2, copies: 0, ..TWO_WRITERS },
    // Two runs that push the same point, and do not know of one another.
    World { writers: &[0, 0], attempts: 2, ..TWO_WRITERS },
];

/// What a search came to.
struct Searched {
    /// States that differ.
    states: usize,
    /// Properties for which an example was found.
    found: BTreeSet<&'static str>,
    /// The way to a state that must not be, a step a line.
    broken: Option<String>,
}

/// Looks at every state of a world, or until one is found that must not be.
fn search(world: World) -> Searched {
    let begun = std::time::Instant::now();
    let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    eprintln!("{states} states, {depth} steps deep, {:.1?}: {world:?}", begun.elapsed());
    let discoveries = checker.discoveries();
    let broken = NEVER_BROKEN.iter().find_map(|name| {
        let way = discoveries.get(name)?.clone().into_actions();
        let steps: Vec<String> = way.iter().map(|step| format!("  {step:?}")).collect();
        Some(format!("not so: {name}, in {world:?}, after\n{}", steps.join("\n")))
    });
    Searched { states, found: discoveries.into_keys().collect(), broken }
}

/// A world in which nothing must go wrong.
#[track_caller]
fn holds(world: World) -> Searched {
    let searched = search(world);
    if let Some(way) = &searched.broken {
        panic!("{way}");
    }
    assert!(searched.states > 10_000, "too small to say anything: {} states of {world:?}", searched.states);
    searched
}

/// A world in which something must go wrong, and not by a want of names.
#[track_caller]
fn breaks(world: World) {
    let searched = search(world);
    let way = searched
        .broken
        .unwrap_or_else(|| panic!("nothing breaks in {} states of {world:?}", searched.states));
    assert!(!way.contains(NEVER_BROKEN[2]), "{way}");
}

fn with(rules: Rules) -> World {
    World { rules, ..ONE_WRITER }
}

fn tidied(rules: Rules) -> World {
    World { rules, attempts: 1, ..TIDIED }
}

#[test]
fn no_point_loses_a_chunk_whatever_happens_when() {
    let found: BTreeSet<&str> = WORLDS.into_iter().flat_map(|world| holds(world).found).collect();
    let missing: Vec<_> = SOMEWHERE.iter().filter(|name| !found.contains(*name)).collect();
    assert!(missing.is_empty(), "never happens: {missing:?}");
}

#[test]
fn markers_may_go_where_no_name_of_a_session_is_used_twice() {
    holds(World { rules: Rules::NamesOnce, collectors: 2, ..TIDIED });
}

#[test]
fn bigger_worlds_hold_if_one_asks_for_them() {
    use Rules::*;
    if std::env::var_os("HOLDFAST_MODEL").is_none_or(|wish| wish != "big") {
        return;
    }
    holds(BIG);
    holds(World { rules: NamesOnce, generations: 2, collectors: 2, ..TIDIED });
    for rules in [PacksBeforeSession, PacksBeforeGenerations, HomesCondemned, NoLastMark] {
        holds(World { collectors: 2, ..with(rules) });
    }
}

/// One test for each rule that is needed.
macro_rules! needed {
    ($($name:ident: $world:expr;)*) => { $(#[test] fn $name() { breaks($world); })* };
}

needed! {
    sessions_are_waited_for: with(Rules::NoWaiting);
    an_outcome_counts_in_the_listing_that_is_marked_from: with(Rules::OutcomeSeenOnce);
    sessions_of_purged_points_are_waited_for: with(Rules::PurgedNotAwaited);
    a_new_point_of_somebody_is_not_enough: with(Rules::OneNewPoint);
    there_is_a_second_mark: with(Rules::NoSecondMark);
    the_second_mark_reads_index_objects_anew: with(Rules::IndexOfFirstMark);
    the_session_is_put_before_generations_are_read: with(Rules::GenerationsBeforeSession);
    what_is_condemned_is_not_relied_on: with(Rules::CondemnedIgnored);
    a_condemned_sealed_pack_is_sealed_anew: with(Rules::BlindOffer);
    a_commit_never_replaces_a_marker: with(Rules::CommitOverwrites);
    copies_count_outside_of_what_is_condemned: with(Rules::CondemnedCounted);
    a_pack_that_a_finished_generation_names_is_no_copy: with(Rules::DeadCounted);
    a_marker_that_goes_is_not_made_up_for_by_a_look_after_the_commit: tidied(Rules::MarkersTidied);
    nor_by_a_look_before: tidied(Rules::MarkersTidiedSessionAsked);
    markers_that_go_unseen_lose_points: tidied(Rules::MarkersTidiedUnseen);
    markers_that_go_before_sessions_lose_points: tidied(Rules::MarkersTidiedFirst);
}

/// One test for each rule that is not: the searches end, and nothing is lost.
macro_rules! not_needed {
    ($($name:ident: $world:expr;)*) => { $(#[test] fn $name() { holds($world); })* };
}

// Kept all the same, each for a reason of its own: see the page.
not_needed! {
    packs_may_be_listed_before_the_session_is_put: with(Rules::PacksBeforeSession);
    packs_may_be_listed_before_generations_are_read: with(Rules::PacksBeforeGenerations);
    an_old_mark_may_be_condemned_by: World { collectors: 2, purges: 1, ..with(Rules::NumberAfterMark) };
    copies_and_homes_may_be_condemned_together: with(Rules::HomesCondemned);
    the_mark_before_a_delete_may_be_left_out: with(Rules::NoLastMark);
}
