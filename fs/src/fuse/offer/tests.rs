//! Who is offered what, without a kernel.
#![allow(clippy::unwrap_used)]

use super::*;

const D: u64 = 77;

/// A reader of files at these positions in order; an offer of `files` files is made as soon as it is asked for.
fn read_on(readers: &mut Readers, positions: std::ops::Range<u64>, all: u64) -> (u64, u64) {
    let (mut requests, mut given_to, mut left_out) = (0, positions.start, None);
    for at in positions {
        if at < given_to && left_out != Some(at) {
            continue;
        }
        requests += 1;
        if readers.began(D, at) {
            let walk = *readers.walks.peek(&D).unwrap();
            let from = walk.front.max(walk.next);
            given_to = (from + walk.files as u64).min(all);
            left_out = (given_to < all).then_some(from + walk.files as u64 / 2);
            let stage = left_out.map_or(Stage::Done(None), Stage::Awaiting);
            assert!(!readers.offered(D, given_to, stage));
        }
    }
    (requests, readers.walks.peek(&D).unwrap().files as u64)
}

#[test]
fn offers_grow_while_their_reader_goes_on() {
    let mut readers = Readers::new();
    let (requests, files) = read_on(&mut readers, 0..1000, 1000);
    assert!(requests < 30, "{requests}");
    assert_eq!((files, readers.trust), (OFFER_FILES_MAX as u64, TRUST_MAX));
}

#[test]
fn who_reads_one_file_or_jumps_is_offered_nothing() {
    let mut readers = Readers::new();
    for at in [5, 500, 100, 3000, 2000, 4] {
        assert!(!readers.began(D, at), "{at}");
    }
    for directory in 100..200 {
        assert!(!readers.began(directory, 3));
    }
    assert_eq!(readers.trust, 0);
}

#[test]
fn trust_is_won_by_arriving_and_spent_on_new_directories() {
    let mut readers = Readers::new();
    assert!(!readers.began(1, 0) && readers.began(1, 1));
    assert_eq!(readers.trust, TRUST_BEGUN);
    readers.offered(1, 9, Stage::Done(Some(8)));
    assert!(!readers.began(1, 8), "the end of the directory");
    assert_eq!(readers.trust, TRUST_MAX);
    let offered = (100..200).filter(|directory| readers.began(*directory, 0)).count();
    assert_eq!(offered, TRUST_MAX as usize, "a file of each directory is not a walk");
}

#[test]
fn what_is_left_out_depends_on_how_sure_the_reader_is() {
    let file = |ordinal| Coming::sample(ordinal, 100);
    let chosen = |all| Chosen { files: (0..9).map(file).collect(), front: 9, all };
    assert_eq!(chosen(false).left_out(TRUST_MAX), Some(4));
    assert_eq!(chosen(false).left_out(0), Some(4));
    assert_eq!(chosen(true).left_out(0), Some(8));
    assert_eq!(chosen(true).left_out(TRUST_ENOUGH), None);
}

#[test]
fn a_reader_who_is_ahead_of_the_offer_is_made_the_next_one() {
    let mut readers = Readers::new();
    readers.began(D, 0);
    assert!(readers.began(D, 1), "an offer is being made");
    assert!(!readers.began(D, 2) && !readers.began(D, 7));
    assert!(readers.offered(D, 10, Stage::Awaiting(6)), "he has passed the one left out");
    assert!(!readers.offered(D, 26, Stage::Awaiting(18)));
    assert!(!readers.began(D, 12) && readers.began(D, 18));
}

#[test]
fn reads_far_from_where_the_last_one_ended_are_jumps() {
    let mut readers = Readers::new();
    assert!(!readers.jumped(1, 0, 4096), "the beginning");
    assert!(!readers.jumped(1, 4096, 131_072) && !readers.jumped(1, 500_000, 4096), "read-ahead");
    assert!(readers.jumped(1, 9_000_000, 4096) && readers.jumped(1, 4_000_000, 4096));
    assert!(readers.jumped(2, 4096, 4096), "a file never read before");
    assert!(!readers.jumped(1, 4_004_096, 4096));
}

#[test]
fn a_listing_is_enough_where_there_is_much_trust() {
    let mut readers = Readers::new();
    assert!(!readers.listed(1), "none yet");
    readers.trust = TRUST_MAX;
    let lists_only = (100..200).filter(|directory| readers.listed(*directory)).count();
    assert_eq!(lists_only, (TRUST_MAX - TRUST_ENOUGH + 1) as usize, "who only lists is found out");
    readers.trust = TRUST_MAX;
    assert!(readers.listed(1));
    readers.offered(1, 9, Stage::Done(Some(8)));
    assert!(!readers.began(1, 8), "all of it was offered");
    assert_eq!(readers.trust, TRUST_MAX, "the reader of what was left out is there");
}
