//! Who is offered what, without a kernel.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::inode::ROOT;
use crate::recovery::Patience;
use crate::testing::{MemoryRecovery, point};

use super::*;

/// Two readers.
const ME: u32 = 1000;
const YOU: u32 = 2000;

fn mine(directory: u64) -> Way {
    Way { directory, reader: ME }
}

fn yours(directory: u64) -> Way {
    Way { directory, reader: YOU }
}

/// The requests of a reader of `all` files in order, to whom an offer is made as soon as it is asked for, and the files of the last
/// offer; `meanwhile` something else happens after each.
fn read_on(
    readers: &mut Readers,
    by: Way,
    all: u64,
    mut meanwhile: impl FnMut(&mut Readers, u64),
) -> (u64, usize) {
    let (mut requests, mut given_to, mut left_out) = (0, 0, None);
    for at in 0..all {
        if at < given_to && left_out != Some(at) {
            continue;
        }
        requests += 1;
        if let Some(way) = readers.began(by, at) {
            let walk = *readers.walks.peek(&way).unwrap();
            let from = walk.front.max(walk.next);
            given_to = (from + walk.files as u64).min(all);
            left_out = (given_to < all).then_some(from + walk.files as u64 / 2);
            let stage = left_out.map_or(Stage::Done(None), Stage::Awaiting);
            assert!(!readers.offered(way, given_to, stage));
        }
        meanwhile(readers, at);
    }
    (requests, readers.walks.peek(&by).unwrap().files)
}

#[test]
fn offers_grow_while_their_reader_goes_on() {
    let mut readers = Readers::new();
    let (requests, files) = read_on(&mut readers, mine(77), 1000, |_, _| {});
    assert!(requests < 30, "{requests}");
    assert_eq!((files, readers.trust(ME)), (OFFER_FILES_MAX, TRUST_MAX));
}

#[test]
fn who_reads_one_file_or_jumps_is_offered_nothing() {
    let mut readers = Readers::new();
    for at in [5, 500, 100, 3000, 2000, 4] {
        assert_eq!(readers.began(mine(77), at), None, "{at}");
    }
    for directory in 100..200 {
        assert_eq!(readers.began(mine(directory), 3), None);
    }
    assert_eq!(readers.trust(ME), 0);
}

#[test]
fn trust_is_won_by_arriving_and_spent_on_new_directories() {
    let mut readers = Readers::new();
    assert_eq!((readers.began(mine(1), 0), readers.began(mine(1), 1)), (None, Some(mine(1))));
    assert_eq!(readers.trust(ME), TRUST_BEGUN);
    readers.offered(mine(1), 9, Stage::Done(Some(8)));
    assert_eq!(readers.began(mine(1), 8), None, "the end of the directory");
    assert_eq!(readers.trust(ME), TRUST_MAX);
    let offered = (100..200).filter(|directory| readers.began(mine(*directory), 0).is_some()).count();
    assert_eq!(offered, TRUST_MAX as usize, "a file of each directory is not a walk");
}

#[test]
fn nobody_spends_or_uses_the_trust_of_another() {
    let mut readers = Readers::new();
    readers.earn(ME, TRUST_MAX);
    for directory in 100..200 {
        assert!(!readers.listed(yours(directory)), "who only lists");
        assert_eq!(readers.began(yours(directory), 3), None, "who reads a file here and there");
    }
    assert_eq!((readers.trust(ME), readers.trust(YOU)), (TRUST_MAX, 0));
    assert!(readers.listed(mine(1)));
    for reader in 3000..4000 {
        readers.earn(reader, TRUST_BEGUN);
    }
    assert_eq!((readers.trust.len(), readers.trust(3999)), (READERS.get(), TRUST_BEGUN));
}

#[test]
fn who_jumps_about_in_a_directory_does_not_disturb_who_walks_there() {
    let mut readers = Readers::new();
    let (requests, _) = read_on(&mut readers, mine(77), 1000, |readers, at| {
        assert_eq!(readers.began(yours(77), 9_000_000 - 1000 * at), None);
    });
    assert!(requests < 30, "{requests}");
    assert_eq!((readers.trust(ME), readers.trust(YOU)), (TRUST_MAX, 0));
}

#[test]
fn who_jumps_while_an_offer_is_made_does_not_move_it() {
    let mut readers = Readers::new();
    readers.began(mine(1), 0);
    assert_eq!(readers.began(mine(1), 1), Some(mine(1)));
    assert_eq!(readers.began(yours(1), 5000), None);
    assert_eq!(readers.walks.peek(&mine(1)).unwrap().next, 2);
}

#[test]
fn readers_who_share_a_directory_take_one_walk_further() {
    let mut readers = Readers::new();
    assert_eq!(readers.began(mine(1), 0), None);
    assert_eq!(readers.began(yours(1), 1), Some(mine(1)), "one after the other");
    assert_eq!(readers.trust(YOU), TRUST_BEGUN);
    readers.offered(mine(1), 10, Stage::Awaiting(6));
    assert_eq!(readers.began(yours(1), 6), Some(mine(1)));
    assert_eq!((readers.trust(ME), readers.trust(YOU), readers.walks.len()), (0, TRUST_MAX, 1));
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
    let (mut readers, by) = (Readers::new(), mine(77));
    readers.began(by, 0);
    assert!(readers.began(by, 1).is_some(), "an offer is being made");
    assert!(readers.began(by, 2).is_none() && readers.began(by, 7).is_none());
    assert!(readers.offered(by, 10, Stage::Awaiting(6)), "he has passed the one left out");
    assert!(!readers.offered(by, 26, Stage::Awaiting(18)));
    assert!(readers.began(by, 12).is_none() && readers.began(by, 18).is_some());
}

#[test]
fn reads_far_from_where_the_last_ones_ended_are_jumps() {
    let mut readers = Readers::new();
    assert!(!readers.jumped(1, 0, 4096), "the beginning");
    assert!(!readers.jumped(1, 4096, 131_072) && !readers.jumped(1, 300_000, 4096), "read-ahead");
    assert!(readers.jumped(1, 9_000_000, 4096) && readers.jumped(1, 4_000_000, 4096));
    assert!(readers.jumped(2, 4096, 4096), "a file never read before");
    assert!(!readers.jumped(1, 4_004_096, 4096));
}

#[test]
fn streams_beside_each_other_in_a_file_are_no_jumps() {
    let mut readers = Readers::new();
    let begun = |stream: u64| stream * (100 << 20);
    let mut jumps = |streams: u64| {
        let reads = (0..100).flat_map(|at| (0..streams).map(move |stream| begun(stream) + (at << 17)));
        reads.filter(|offset| readers.jumped(streams, *offset, 1 << 17)).count()
    };
    assert_eq!(jumps(2), 1, "the beginning of the second");
    assert_eq!(jumps(STREAMS as u64), STREAMS - 1);
    assert_eq!(jumps(STREAMS as u64 + 1), 499, "more than are told apart");
}

#[test]
fn a_listing_is_enough_where_there_is_much_trust() {
    let mut readers = Readers::new();
    assert!(!readers.listed(mine(1)), "none yet");
    readers.earn(ME, TRUST_MAX);
    let lists_only = (100..200).filter(|directory| readers.listed(mine(*directory))).count();
    assert_eq!(lists_only, (TRUST_MAX - TRUST_ENOUGH + 1) as usize, "who only lists is found out");
    readers.earn(ME, TRUST_MAX);
    assert!(readers.listed(mine(1)));
    readers.offered(mine(1), 9, Stage::Done(Some(8)));
    assert_eq!(readers.began(mine(1), 8), None, "all of it was offered");
    assert_eq!(readers.trust(ME), TRUST_MAX, "the reader of what was left out is there");
}

#[test]
fn an_offer_for_which_there_is_no_room_is_dropped_and_holds_nobody_up() {
    let recovery = MemoryRecovery::new();
    let files = ["a", "b"].map(|name| recovery.file(name, &[])).to_vec();
    recovery.add(point("h", "g", "s", 1_795_176_000, 1), recovery.directory("root", files));
    let view = View::new(recovery, 0, 0).unwrap();
    let inos = ["a", "b"].map(|name| {
        let path = ["by-group", "g", "s", "2026-11-20T12.00.00Z", name];
        path.iter().fold(ROOT, |at, name| {
            let entry = view.lookup(at, name.as_bytes(), Patience::Now).unwrap();
            view.accept(&entry);
            entry.attr.ino
        })
    });
    // Nobody makes them.
    let offers = Offers::default();
    (0..WAITING).for_each(|_| offers.submit(Offer::Beside { ino: 1, offset: 0, len: 1 }));
    let (done, told) = bounded(1);
    thread::spawn(move || {
        inos.iter().for_each(|ino| offers.asked(&view, ME, *ino, 0));
        offers.listed(ME, 7);
        offers.answered(inos[0], 0, 1);
        done.send(lock(&offers.readers).walks.len()).unwrap();
    });
    assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(0), "the walk begins anew");
}
