//! Against a slow model that walks all moments while clocks are right; and what must hold when they are not.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use super::*;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// `2026-03-29T02:30:00Z`.
fn at(text: &str) -> Timestamp {
    Timestamp::from_seconds(text.parse::<jiff::Timestamp>().unwrap().as_second())
}

fn point(n: u64, started: Timestamp) -> OnlineFacts {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&n.to_be_bytes());
    let id = RecoveryPointId(id);
    OnlineFacts { id, sequence: n, started, complete: true, staged: true, vaulted: false }
}

fn number(id: RecoveryPointId) -> u64 {
    u64::from_be_bytes(id.0[8..].try_into().unwrap())
}

/// Points numbered from 1 that began at these times.
fn points(times: &[&str]) -> Vec<OnlineFacts> {
    (1..).zip(times).map(|(n, time)| point(n, at(time))).collect()
}

/// Numbers of what is pending, by a schedule in Berlin.
fn found(points: &[OnlineFacts], schedule: &str, jitter: u32) -> Vec<u64> {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let rhythm = Rhythm { schedule: &schedule.parse().unwrap(), jitter, zone: &zone };
    pending(points, &rhythm).into_iter().map(number).collect()
}

/// Each hour at :30, and which of them the vault has.
fn hours(from: &str, count: u64, vaulted: &[u64]) -> Vec<OnlineFacts> {
    let begin = at(from).seconds;
    let hour = |n: u64| OnlineFacts {
        vaulted: vaulted.contains(&n),
        ..point(n, Timestamp::from_seconds(begin + n as i64 * HOUR + HOUR / 2))
    };
    (1..=count).map(hour).collect()
}

#[test]
fn the_first_point_of_each_span_goes_online() {
    // Number n began at n:30 UTC of the 1st, an hour later on the clock of Berlin: 22:00 there is 21:00 UTC.
    let days = hours("2026-12-01T00:00:00Z", 100, &[1]);
    assert_eq!(found(&days, "22:00", 0), [21, 45, 69, 93]);
    assert_eq!(found(&days, "22:00", 40 * 60), [22, 46, 70, 94], "with jitter the moment is 22:40");
    assert_eq!(found(&days, "22:00", 30 * 60), [21, 45, 69, 93], "what begins just then is of the new span");
    assert_eq!(found(&hours("2026-12-01T00:00:00Z", 100, &[21]), "22:00", 0), [45, 69, 93]);
    assert_eq!(found(&hours("2026-12-01T00:00:00Z", 100, &[46]), "22:00", 0), [69, 93], "its span is served");
    assert_eq!(found(&hours("2026-12-01T00:00:00Z", 100, &[93]), "22:00", 0), [0; 0]);
    assert_eq!(found(&[], "22:00", 0), [0; 0]);
}

#[test]
fn a_vault_begins_with_the_newest_span() {
    assert_eq!(found(&hours("2026-12-01T00:00:00Z", 100, &[]), "22:00", 0), [93]);
    assert_eq!(found(&hours("2026-12-01T00:00:00Z", 5, &[]), "22:00", 0), [1]);
}

#[test]
fn a_vault_that_was_cut_for_a_week_is_given_what_it_missed() {
    let week = hours("2026-12-01T00:00:00Z", 24 * 7 + 20, &[20]);
    let missed = found(&week, "22:00", 0);
    assert_eq!(missed, [21, 45, 69, 93, 117, 141, 165]);
    // Cut again after two of them.
    let two: Vec<OnlineFacts> = week
        .iter()
        .map(|point| OnlineFacts { vaulted: point.vaulted || [21, 45].contains(&point.sequence), ..*point })
        .collect();
    assert_eq!(found(&two, "22:00", 0), missed[2..]);
}

#[test]
fn a_partial_point_goes_online_only_where_its_span_has_no_complete_one() {
    let mut days = hours("2026-12-01T00:00:00Z", 100, &[1]);
    days.iter_mut().filter(|p| p.sequence < 23 || p.sequence >= 93).for_each(|p| p.complete = false);
    assert_eq!(found(&days, "22:00", 0), [23, 45, 69, 93]);
}

#[test]
fn what_is_in_neither_place_is_passed_over() {
    let mut days = hours("2026-12-01T00:00:00Z", 100, &[1]);
    days.iter_mut().filter(|p| [1, 21, 45].contains(&p.sequence)).for_each(|p| p.staged = false);
    assert_eq!(found(&days, "22:00", 0), [22, 46, 69, 93]);
}

#[test]
fn days_of_23_and_25_hours_have_one_point_each() {
    // 02:30 is left out on the 29th of March and comes twice on the 25th of October.
    for (from, firsts) in
        [("2026-03-27T00:00:00Z", [1, 25, 49, 72, 96]), ("2026-10-23T00:00:00Z", [0, 24, 48, 73, 97])]
    {
        let points = hours(from, 100, &[1]);
        let expected: Vec<u64> = firsts.into_iter().filter(|first| *first > 1).collect();
        assert_eq!(found(&points, "02:30", 0), expected, "{from}");
    }
}

#[test]
fn a_clock_that_was_wrong_keeps_nothing_back() {
    // The vault's newest is of a clock years ahead; it was put right after.
    let mut ahead = points(&[
        "2026-12-01T22:00:00Z",
        "2031-01-01T00:00:00Z",
        "2026-12-02T10:00:00Z",
        "2026-12-02T22:00:00Z",
        "2026-12-03T22:00:00Z",
    ]);
    ahead[1].vaulted = true;
    assert_eq!(found(&ahead, "22:00", 0), [3, 4, 5]);
    // A machine whose clock begins anew with each start.
    let start = "1970-01-01T00:05:00Z";
    let mut again = points(&[start, "1970-01-01T00:20:00Z", start, "1970-01-01T00:20:00Z"]);
    again[0].vaulted = true;
    assert_eq!(found(&again, "22:00", 0), [3]);
    // Of a vault that has nothing the newest is the one that was taken last, and not the one with the latest time.
    let late = points(&["2026-12-01T22:00:00Z", "2126-12-01T22:00:00Z", "2026-12-02T22:00:00Z"]);
    assert_eq!(found(&late, "22:00", 0), [3]);
}

#[test]
fn the_ends_of_time_and_a_schedule_that_has_no_more_moments_end_it() {
    let ends = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX].map(Timestamp::from_seconds);
    for schedule in ["every 1 minute", "*:*", "2019-*-*", "*-02-30", "Sun 02-29"] {
        let mut points: Vec<OnlineFacts> = (1..).zip(ends).map(|(n, time)| point(n, time)).collect();
        points[0].vaulted = true;
        let found = found(&points, schedule, u32::MAX);
        assert!(found.len() < points.len() && found.is_sorted(), "{schedule}: {found:?}");
    }
}

#[test]
fn years_of_minutes_are_not_walked() {
    let mut points = points(&["1990-01-01T00:00:00Z", "2026-12-01T22:00:00Z", "2199-12-01T22:00:00Z"]);
    points[0].vaulted = true;
    for schedule in ["every 1 minute", "*:*"] {
        assert_eq!(found(&points, schedule, 30), [2, 3]);
    }
}

/// Knuth's MMIX generator.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn points(&mut self, mut next: impl FnMut(&mut Self) -> i64) -> Vec<OnlineFacts> {
        let count = self.below(40);
        let (cut, complete) = (self.below(count + 1), 1 + self.below(4));
        (1..=count)
            .map(|n| OnlineFacts {
                complete: self.below(complete) == 0,
                staged: self.below(8) > 0,
                vaulted: n <= cut && self.below(3) == 0,
                ..point(n, Timestamp::from_seconds(next(self)))
            })
            .collect()
    }

    fn schedule(&mut self) -> (&'static str, u32) {
        let texts = ["every 7 minutes", "every 5 hours", "02:30", "Mon,Thu 2,14:15", "*:0/20", "*-*~1"];
        (texts[self.below(texts.len() as u64) as usize], self.below(200) as u32)
    }
}

/// All moments are walked, as the rule is told.
fn model(points: &[OnlineFacts], schedule: &str, jitter: u32) -> Vec<u64> {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let schedule: Schedule = schedule.parse().unwrap();
    let there: Vec<&OnlineFacts> = points.iter().filter(|p| p.staged || p.vaulted).collect();
    let newest = there.iter().filter(|p| p.vaulted).map(|p| p.started).max();
    let first = Timestamp::from_seconds(at("2026-03-01T00:00:00Z").seconds - 70 * DAY);
    let following = |after: &Timestamp| schedule.next_after(*after, &zone);
    let moments: Vec<i64> = std::iter::successors(following(&first), following)
        .map(|moment| moment.seconds + i64::from(jitter))
        .take_while(|moment| *moment < at("2026-06-10T00:00:00Z").seconds)
        .collect();
    let mut found = Vec::new();
    for (moment, next) in moments.iter().zip(&moments[1..]) {
        if newest.is_some_and(|newest| *moment <= newest.seconds) {
            continue;
        }
        let of_it: Vec<_> = there.iter().filter(|p| (*moment..*next).contains(&p.started.seconds)).collect();
        let chosen = of_it.iter().find(|p| p.complete).or(of_it.first());
        found.extend(chosen.map(|p| p.sequence));
    }
    if newest.is_none() { found.split_off(found.len().saturating_sub(1)) } else { found }
}

#[test]
fn it_is_what_a_walk_through_all_moments_finds() {
    let seed = 20_261_128;
    println!("seed {seed}");
    let (mut chance, mut found_any) = (Chance(seed), 0);
    for round in 0..150 {
        // Two weeks at most around the day on which clocks are put forward, or later.
        let mut time = at("2026-03-20T00:00:00Z").seconds + chance.below(40) as i64 * DAY;
        let gap = [MINUTE, HOUR, 8 * HOUR][chance.below(3) as usize];
        let points = chance.points(|chance| {
            time += chance.below(2 * gap as u64) as i64 + 1;
            time
        });
        let (schedule, jitter) = chance.schedule();
        let expected = model(&points, schedule, jitter);
        assert_eq!(
            found(&points, schedule, jitter),
            expected,
            "round {round}: {schedule} + {jitter} s: {points:#?}"
        );
        found_any += usize::from(expected.len() > 1);
    }
    assert!(found_any > 20, "{found_any} rounds had something to find");
}

#[test]
fn whatever_clocks_say_a_push_that_goes_on_ends_with_nothing_pending() {
    let seed = 11_282_026;
    println!("seed {seed}");
    let mut chance = Chance(seed);
    for round in 0..400 {
        let mut points = chance.points(|chance| match chance.below(4) {
            // Any time from 1970 to 2160.
            0 => chance.below(6_000_000_000) as i64,
            _ => at("2026-03-28T00:00:00Z").seconds + chance.below(3 * DAY as u64) as i64,
        });
        let (schedule, jitter) = chance.schedule();
        let (newest, had) = (points.last().map(|p| p.started), points.iter().rposition(|p| p.vaulted));
        let mut all = found(&points, schedule, jitter);
        assert!(all.is_sorted(), "round {round}: {all:?}");
        assert!(all.iter().all(|n| had.is_none_or(|had| *n > had as u64 + 1)), "round {round}: {all:?}");
        while !all.is_empty() {
            // The oldest is sent, then it is looked again.
            points[all.remove(0) as usize - 1].vaulted = true;
            assert_eq!(found(&points, schedule, jitter), all, "round {round}");
        }
        // What comes more than two months later is newest, and goes.
        let Some(newest) = newest else { continue };
        let next = Timestamp::from_seconds(newest.seconds + 63 * DAY);
        let n = points.len() as u64 + 1;
        points.push(point(n, next));
        assert_eq!(found(&points, schedule, jitter), [n], "round {round}");
    }
}
