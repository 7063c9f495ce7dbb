//! Readers without a deadline, as verbs are, and vaults that do not answer: the first waits, the others do not wait again.

use super::*;
use crate::error::ErrorClass;
use crate::staging::Files;

impl World {
    /// Time that a read without a deadline takes to fail.
    fn fails_after(&self, reader: &Reader, n: usize) -> u64 {
        let begin = self.clock.monotonic();
        let error = reader.chunk(ChunkType::Data, &self.chunks[n].0, Deadline::NEVER).unwrap_err();
        assert!(error.is_vault_away(), "{error}");
        (self.clock.monotonic() - begin).as_secs()
    }
}

#[test]
fn who_waits_for_ever_waits_once_for_a_vault_that_went_away_and_then_once_a_minute() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    let asked = |n| {
        let before = world.vault.requests().len();
        world.fails_after(&reader, n);
        world.vault.requests().len() - before
    };
    world.vault.fail_any_from(1, Fault::FailBefore);
    assert!(asked(0) > 1, "as long as a transfer tries");
    let begin = world.clock.monotonic();
    assert_eq!((1..100).map(asked).sum::<usize>(), 0);
    assert_eq!(world.clock.monotonic(), begin);
    for _ in 0..3 {
        world.clock.advance(Duration::from_secs(61));
        assert!(asked(7) > 0 && asked(8) == 0);
    }
    world.clock.advance(Duration::from_secs(61));
    world.vault.heal();
    world.assert_reads(&reader, 0);
    world.vault.fail_any_from(1, Fault::FailBefore);
    assert!(asked(99) > 0, "it had answered");
}

#[test]
fn a_reader_with_a_deadline_asks_also_a_vault_that_others_have_given_up() {
    let world = World::new();
    world.only_in_vault();
    let reader = world.reader();
    world.vault.fail_any_from(1, Fault::FailBefore);
    world.fails_after(&reader, 0);
    world.vault.heal();
    let minute = Deadline::after(&*world.clock, Duration::from_secs(60));
    assert!(reader.chunk(ChunkType::Data, &world.chunks[0].0, minute).is_ok());
    world.assert_reads(&reader, 50);
}

#[test]
fn two_vaults_that_are_away_cost_little_once_that_is_known() {
    let world = World::new();
    let (reader, second) = with_second_vault(&world);
    world.vault.fail_any_from(1, Fault::FailBefore);
    second.fail_any_from(1, Fault::FailBefore);
    let first = world.fails_after(&reader, 0);
    assert!((500..700).contains(&first), "each is tried for five minutes: {first}");
    let rest = (1..100).map(|n| world.fails_after(&reader, n)).sum::<u64>();
    assert!(rest <= 10, "{rest}");
    world.clock.advance(Duration::from_secs(61));
    let again = (1..100).map(|n| world.fails_after(&reader, n)).sum::<u64>();
    assert!((2..=10).contains(&again), "each is asked again, and briefly: {again}");
    second.heal();
    world.clock.advance(Duration::from_secs(61));
    let begin = world.clock.monotonic();
    (0..100).for_each(|n| world.assert_reads(&reader, n));
    assert!((world.clock.monotonic() - begin).as_secs() <= 30);
}

#[test]
fn what_staging_lost_and_a_vault_does_not_give_is_told_as_the_vaults_doing() {
    let world = World::new();
    let name = world.pack_name();
    let read = || world.reader().chunk(ChunkType::Data, &world.chunks[40].0, Deadline::NEVER).unwrap_err();
    for damage in [true, false] {
        if damage {
            world.files.damage(name.as_str(), |bytes| bytes.fill(7));
        } else {
            world.files.remove(name.as_str()).unwrap();
        }
        for fault in [Fault::FailBefore, Fault::Short] {
            world.vault.fail_any_from(1, fault);
            let error = read();
            assert!(error.is_vault_away() && error.class() == ErrorClass::Unavailable, "{fault:?}: {error}");
            world.vault.heal();
        }
        world.vault.fail_any_from(1, Fault::Deny);
        assert_ne!(read().class(), ErrorClass::Unavailable, "the vault answers");
        world.vault.heal();
    }
}

#[test]
fn a_vault_that_gives_wrong_answers_costs_no_more_than_one_that_gives_none() {
    let world = World::new();
    let (reader, second) = with_second_vault(&world);
    let minute = || Deadline::after(&*world.clock, Duration::from_secs(60));
    let read = |n: usize| {
        let begin = world.clock.monotonic();
        let read = reader.chunk(ChunkType::Data, &world.chunks[n].0, minute());
        ((world.clock.monotonic() - begin).as_secs(), read)
    };
    for fault in [Fault::Short, Fault::FailBefore] {
        world.vault.fail_any_from(1, fault);
        second.fail_any_from(1, fault);
        let (first, next) = (read(0), read(50));
        assert!(first.0 <= 60 && next.0 <= 10, "{fault:?}: {first:?}, then {next:?}");
        assert!(first.1.unwrap_err().is_vault_away() && next.1.unwrap_err().is_vault_away());
        world.vault.heal();
        second.heal();
        world.clock.advance(Duration::from_secs(61));
    }
}
