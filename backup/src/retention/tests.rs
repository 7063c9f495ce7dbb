//! A table of policies over the same year of points, then each guard, then what calendars do to clocks.
#![allow(clippy::unwrap_used)]

mod properties;

use jiff::ToSpan;

use super::*;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// 2026-11-20T12:00:00Z, a Friday.
const NOON: i64 = 1_795_176_000;

fn point(n: u32, started: i64) -> PointFacts {
    let mut id = [0; 16];
    id[12..].copy_from_slice(&n.to_be_bytes());
    PointFacts {
        id: RecoveryPointId(id),
        source: SourceName { host: "h".into(), group: "g".into(), source: "s".into() },
        series: "s".into(),
        sequence: u64::from(n),
        started: Timestamp::from_seconds(started),
        complete: true,
        held: false,
        expires: None,
        forged: false,
    }
}

/// A plan made a month after the newest of [`days`].
fn plan(points: &[PointFacts], policy: &Retention, zone: &TimeZone) -> RetentionPlan {
    super::plan(points, policy, zone, Timestamp::from_seconds(NOON + 30 * DAY))
}

fn number(id: RecoveryPointId) -> u32 {
    u32::from_be_bytes(id.0[12..].try_into().unwrap())
}

fn kept(plan: &RetentionPlan) -> Vec<u32> {
    plan.keep.iter().map(|decision| number(decision.id)).collect()
}

fn removed(plan: &RetentionPlan) -> Vec<u32> {
    plan.remove.iter().map(|decision| number(decision.id)).collect()
}

fn why(plan: &RetentionPlan, n: u32) -> String {
    plan.keep.iter().chain(&plan.remove).find(|decision| number(decision.id) == n).unwrap().why()
}

/// One point a day at noon, number 0 the oldest, the last on 2026-11-20.
fn days(count: u32) -> Vec<PointFacts> {
    (0..count).map(|n| point(n, NOON - i64::from(count - 1 - n) * DAY)).collect()
}

#[test]
fn each_rule_keeps_the_newest_point_of_its_periods() {
    let none = Retention::default;
    // The last three stay in any case: 397, 398, 399 of 400 days; 399 is 2026-11-20.
    let table: [(&str, Retention, &[u32]); 9] = [
        ("last", Retention { last: 5, ..none() }, &[395, 396, 397, 398, 399]),
        ("hourly", Retention { hourly: 4, ..none() }, &[396, 397, 398, 399]),
        ("daily", Retention { daily: 4, ..none() }, &[396, 397, 398, 399]),
        // Sundays the 15th, 8th, 1st.
        ("weekly", Retention { weekly: 4, ..none() }, &[380, 387, 394, 397, 398, 399]),
        // 31 October, 30 September.
        ("monthly", Retention { monthly: 3, ..none() }, &[348, 379, 397, 398, 399]),
        // 31 December 2025.
        ("yearly", Retention { yearly: 2, ..none() }, &[75, 397, 398, 399]),
        // A third year is not there, so the oldest point stands in.
        ("yearly, short", Retention { yearly: 3, ..none() }, &[0, 75, 397, 398, 399]),
        ("within", Retention { within: Some(4.days()), ..none() }, &[395, 396, 397, 398, 399]),
        ("both", Retention { daily: 2, yearly: 2, ..none() }, &[75, 397, 398, 399]),
    ];
    for (name, policy, expected) in table {
        let plan = plan(&days(400), &policy, &TimeZone::UTC);
        assert_eq!(kept(&plan), expected, "{name}");
        assert_eq!(plan.keep.len() + plan.remove.len(), 400, "{name}");
    }
}

#[test]
fn reasons_name_every_rule_that_keeps_a_point() {
    let policy = Retention { last: 1, daily: 1, yearly: 3, ..Retention::default() };
    let plan = plan(&days(400), &policy, &TimeZone::UTC);
    assert_eq!(why(&plan, 399), "last, daily, yearly, newest complete, among the last three");
    assert_eq!(why(&plan, 398), "among the last three");
    assert_eq!(why(&plan, 75), "yearly");
    assert_eq!(why(&plan, 0), "oldest");
    assert_eq!(why(&plan, 1), "no rule keeps it");
}

#[test]
fn unlimited_means_all_of_a_kind() {
    let policy = Retention { monthly: u32::MAX, ..Retention::default() };
    // 14 ends of months from October 2025 to November 2026, the last three, the oldest.
    assert_eq!(plan(&days(400), &policy, &TimeZone::UTC).keep.len(), 14 + 2 + 1);
    let policy = Retention { last: u32::MAX, ..Retention::default() };
    assert_eq!(plan(&days(400), &policy, &TimeZone::UTC).remove, []);
}

#[test]
fn an_empty_policy_removes_nothing() {
    assert!(Retention::default().is_empty());
    assert_eq!(plan(&days(30), &Retention::default(), &TimeZone::UTC).remove, []);
}

#[test]
fn a_partial_point_stands_for_its_day_only_where_there_is_no_complete_one() {
    // Two points on each of five days; the later one of each day is partial, on one day both are.
    let mut points = Vec::new();
    for day in 0..5u32 {
        let morning = NOON + i64::from(day) * DAY;
        points.push(PointFacts { complete: day != 1, ..point(day * 2, morning) });
        points.push(PointFacts { complete: false, ..point(day * 2 + 1, morning + HOUR) });
    }
    let plan = plan(&points, &Retention { daily: 5, ..Retention::default() }, &TimeZone::UTC);
    // Days 0 to 4: 0, 3 (both partial: the newer), 4, 6, 8; and 7, 8, 9 are the last three.
    assert_eq!(kept(&plan), [0, 3, 4, 6, 7, 8, 9]);
}

#[test]
fn the_newest_complete_point_stays_behind_any_number_of_partial_ones() {
    let mut points = days(20);
    points.iter_mut().skip(5).for_each(|point| point.complete = false);
    let plan = plan(&points, &Retention { last: 1, ..Retention::default() }, &TimeZone::UTC);
    assert_eq!(kept(&plan), [4, 17, 18, 19]);
    assert_eq!(why(&plan, 4), "newest complete");
}

#[test]
fn a_held_point_stays_by_policy_and_by_name() {
    let mut points = days(20);
    points[2].held = true;
    let by_policy = plan(&points, &Retention { last: 3, ..Retention::default() }, &TimeZone::UTC);
    assert_eq!(kept(&by_policy), [2, 17, 18, 19]);
    let by_name = plan_named(&points, &[points[2].id, points[3].id], true);
    assert_eq!(removed(&by_name), [3]);
}

#[test]
fn a_point_with_an_expiry_of_its_own_stays_till_then_and_goes_then_whatever_the_rules_say() {
    // The plan is made on 2026-12-20 at noon.
    let now = NOON + 30 * DAY;
    let mut points = days(20);
    points[2].expires = Some(now + 1);
    points[3].expires = Some(now);
    points[16].expires = Some(now - 1);
    for rules in [Retention { last: 5, ..Retention::default() }, Retention::default()] {
        let plan = plan(&points, &rules, &TimeZone::UTC);
        assert_eq!(why(&plan, 2), "kept until 2026-12-20 12:00:01 UTC");
        assert_eq!(why(&plan, 3), "was kept until 2026-12-20 12:00:00 UTC");
        // It would be among the last five, and its place is given to another one.
        let goes: Vec<u32> =
            if rules.is_empty() { vec![3, 16] } else { (0..14).filter(|n| *n != 2).chain([16]).collect() };
        assert_eq!(removed(&plan), goes);
        assert_eq!(kept(&plan).len(), 20 - goes.len());
    }
}

#[test]
fn a_point_that_is_not_by_whom_it_says_takes_no_period_and_no_guard_and_stays() {
    // One of each day, a second after it and complete; then some that are newer than all, with high numbers.
    let honest = days(12);
    let twins = honest.iter().map(|twin| PointFacts {
        sequence: twin.sequence,
        forged: true,
        ..point(100 + number(twin.id), twin.started.seconds + 1)
    });
    let ahead = (0..5).map(|n| PointFacts {
        sequence: 1 << 40,
        forged: true,
        // It would go of itself.
        expires: (n == 0).then_some(NOON - DAY),
        ..point(200 + n, NOON + i64::from(n) * HOUR)
    });
    let points: Vec<PointFacts> = honest.iter().cloned().chain(twins).chain(ahead).collect();
    for policy in [
        Retention { daily: 5, ..Retention::default() },
        Retention { last: 4, ..Retention::default() },
        Retention { weekly: 2, within: Some(3.days()), ..Retention::default() },
    ] {
        let (alone, beside) =
            (plan(&honest, &policy, &TimeZone::UTC), plan(&points, &policy, &TimeZone::UTC));
        assert!(!alone.remove.is_empty());
        assert_eq!(removed(&beside), removed(&alone), "{policy:?}");
        assert!(points[12..].iter().all(|point| why(&beside, number(point.id)).starts_with("not by whom")));
        assert_eq!(beside.removes_much(), alone.removes_much());
    }
    // The newest complete one that is refused by name is an honest one; a forged one goes.
    let named = plan_named(&points, &[11, 204].map(|n| point(n, 0).id), false);
    assert_eq!(removed(&named), [204]);
    // Where all are forged all stay.
    let forged: Vec<PointFacts> = points[12..].to_vec();
    assert_eq!(plan(&forged, &Retention { last: 1, ..Retention::default() }, &TimeZone::UTC).remove, []);
}

#[test]
fn a_point_with_an_expiry_of_its_own_stands_for_no_period() {
    let mut points = days(10);
    points.push(PointFacts {
        sequence: 6,
        expires: Some(NOON),
        ..point(90, points[6].started.seconds + HOUR)
    });
    let plan = plan(&points, &Retention { daily: 5, ..Retention::default() }, &TimeZone::UTC);
    assert_eq!((why(&plan, 6), removed(&plan)), ("daily".to_owned(), vec![0, 1, 2, 3, 4, 90]));
}

#[test]
fn guards_keep_a_point_beyond_an_expiry_of_its_own() {
    let mut points = days(10);
    points.iter_mut().for_each(|point| point.expires = Some(0));
    points[0].held = true;
    points.iter_mut().skip(4).for_each(|point| point.complete = false);
    for rules in [Retention { last: 1, ..Retention::default() }, Retention::default()] {
        assert_eq!(kept(&plan(&points, &rules, &TimeZone::UTC)), [0, 3, 7, 8, 9]);
    }
    assert_eq!(removed(&plan_named(&points, &[points[1].id], false)), [1]);
}

#[test]
fn an_expiry_that_is_no_time_does_no_harm() {
    let mut points = days(10);
    for (n, expires) in [i64::MIN, -1, 0, i64::MAX].into_iter().enumerate() {
        points[n].expires = Some(expires);
    }
    for now in [i64::MIN, -1, NOON, i64::MAX - 1] {
        let now = Timestamp::from_seconds(now);
        let plan = super::plan(&points, &Retention::default(), &TimeZone::UTC, now);
        assert!(removed(&plan).iter().all(|n| *n < 3), "{plan:?}");
        assert!(why(&plan, 3).starts_with("kept until 9999-12-30"), "{}", why(&plan, 3));
        assert!(why(&plan, 0).starts_with("was kept until -9999-01-02"), "{}", why(&plan, 0));
    }
}

#[test]
fn where_no_more_points_come_rules_reach_back_from_now_until_the_guards_alone_are_left() {
    let kept_after = |policy: Retention, days_later: i64| {
        let now = Timestamp::from_seconds(NOON + days_later * DAY);
        let policy = Retention { ends: true, ..policy };
        super::plan(&days(400), &policy, &TimeZone::UTC, now).keep.len()
    };
    let none = Retention::default;
    let later = |policy: &Retention, days: &[i64]| -> Vec<usize> {
        days.iter().map(|later| kept_after(policy.clone(), *later)).collect()
    };
    let days_later = [0, 1, 2, 3, 100, 100_000];
    assert_eq!(later(&Retention { daily: 6, ..none() }, &days_later), [6, 5, 4, 3, 3, 3]);
    assert_eq!(later(&Retention { within: Some(5.days()), ..none() }, &days_later), [6, 5, 4, 3, 3, 3]);
    // One a week that none of the last three is: Sundays. The Friday is in the week up to the 22nd.
    assert_eq!(later(&Retention { weekly: 3, ..none() }, &[0, 2, 3, 10, 17]), [5, 5, 4, 3, 3]);
    assert_eq!(later(&Retention { monthly: 2, ..none() }, &[0, 10, 11, 50]), [4, 4, 3, 3]);
    assert_eq!(later(&Retention { yearly: 2, ..none() }, &[0, 41, 42, 500]), [4, 4, 3, 3]);
    assert_eq!(later(&Retention { hourly: 5, ..none() }, &[0, 1]), [5, 3]);
    // What has no time stays.
    assert_eq!(later(&Retention { last: 10, ..none() }, &days_later), [10; 6]);
    assert_eq!(later(&Retention { daily: u32::MAX, ..none() }, &days_later), [400; 6]);
    assert_eq!(later(&none(), &days_later), [400; 6]);
    // A clock that went back lets nothing go.
    assert_eq!(kept_after(Retention { daily: 6, ..none() }, -500), 6);
}

#[test]
fn guards_are_of_sources_even_where_rules_count_wider_series() {
    let mut points = days(10);
    for point in points.iter_mut().take(5) {
        point.source.source = "other".into();
    }
    let plan = plan(&points, &Retention { last: 1, ..Retention::default() }, &TimeZone::UTC);
    assert_eq!(kept(&plan), [2, 3, 4, 7, 8, 9]);
}

#[test]
fn series_are_counted_apart() {
    let mut points = days(20);
    for point in points.iter_mut().step_by(2) {
        point.series = "even".into();
        point.source.source = "even".into();
    }
    let plan = plan(&points, &Retention { last: 4, ..Retention::default() }, &TimeZone::UTC);
    assert_eq!(kept(&plan), [12, 13, 14, 15, 16, 17, 18, 19]);
}

#[test]
fn names_remove_what_they_name_but_the_newest_complete_point() {
    let points = days(4);
    let named: Vec<RecoveryPointId> = points.iter().map(|point| point.id).collect();
    assert_eq!(removed(&plan_named(&points, &named, false)), [0, 1, 2]);
    assert_eq!(removed(&plan_named(&points, &named, true)), [0, 1, 2, 3]);
    let one = plan_named(&points, &named[2..3], false);
    assert_eq!(removed(&one), [2]);
    assert_eq!(why(&one, 0), "not named");
    assert_eq!(why(&one, 3), "newest complete, not named");
}

#[test]
fn all_points_of_a_source_that_was_never_complete_may_go_by_name() {
    let mut points = days(3);
    points.iter_mut().for_each(|point| point.complete = false);
    let named: Vec<RecoveryPointId> = points.iter().map(|point| point.id).collect();
    assert_eq!(plan_named(&points, &named, false).keep, []);
}

#[test]
fn the_brake_is_for_many_of_many() {
    let removes = |total: u32, last: u32| {
        plan(&days(total), &Retention { last, ..Retention::default() }, &TimeZone::UTC).removes_much()
    };
    // Exactly 30 % is allowed; of ten points or fewer, four may go.
    let few = [(5, 3, false), (8, 3, true), (9, 5, false), (10, 5, true), (10, 6, false)];
    let many = [(11, 7, true), (20, 14, false), (20, 13, true), (100, 70, false), (100, 69, true)];
    let table = few.into_iter().chain(many);
    for (total, last, much) in table {
        assert_eq!(removes(total, last), much, "{last} of {total}");
    }
}

#[test]
fn the_brake_lets_one_go_for_each_that_has_come() {
    // Of so many points, of which the last have come since, so many stay.
    let much = |total: u32, new: usize, last: u32| {
        let points = days(total);
        let plan = plan(&points, &Retention { last, ..Retention::default() }, &TimeZone::UTC);
        let old = points.len() - new;
        plan.removes_much_for(|id| points[old..].iter().any(|point| point.id == id))
    };
    // A tier of fourteen after an outage of ten, fourteen or forty days.
    for new in [10, 14, 40] {
        assert!(!much(14 + new as u32, new, 14), "{new}");
        assert!(much(14 + new as u32, new, 7), "{new}: and its rule is another now");
    }
    assert!(much(100, 1, 14) && much(20, 0, 13));
    assert!(!much(15, 1, 10) && much(15, 1, 9));
}

#[test]
fn the_order_of_the_list_does_not_matter() {
    let policy = Retention { daily: 3, weekly: 3, ..Retention::default() };
    let mut points = days(60);
    let straight = plan(&points, &policy, &TimeZone::UTC);
    points.reverse();
    assert_eq!(plan(&points, &policy, &TimeZone::UTC), straight);
    points.rotate_left(17);
    assert_eq!(plan(&points, &policy, &TimeZone::UTC), straight);
}

#[test]
fn days_are_those_of_the_zone() {
    // 23:30 and 00:30 UTC are one day in Tokyo and two in UTC.
    let points: Vec<PointFacts> =
        (0..8).map(|n| point(n, NOON + 11 * HOUR + HOUR / 2 + i64::from(n) * HOUR)).collect();
    let policy = Retention { daily: 2, ..Retention::default() };
    assert_eq!(kept(&plan(&points, &policy, &TimeZone::UTC)), [0, 5, 6, 7]);
    let tokyo = TimeZone::fixed(jiff::tz::offset(9));
    // All eight on the 21st; a second day is missing, so the oldest stays as well.
    let in_tokyo = plan(&points, &policy, &tokyo);
    assert_eq!(kept(&in_tokyo), [0, 5, 6, 7]);
    assert_eq!(why(&in_tokyo, 0), "oldest");
}

#[test]
fn the_hour_that_a_clock_repeats_in_autumn_is_two_hours() {
    let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    // 2026-10-25: at 03:00 local the clock goes back to 02:00; 00:30Z and 01:30Z are both 02:30.
    let first = 1_792_888_200;
    let points: Vec<PointFacts> = (0..6).map(|n| point(n, first + i64::from(n) * HOUR)).collect();
    let policy = Retention { hourly: 6, ..Retention::default() };
    assert_eq!(plan(&points, &policy, &berlin).remove, []);
}

#[test]
fn a_span_is_of_the_calendar_and_reaches_back_from_the_newest_point() {
    // One month before 2026-11-20 is 2026-10-20, 31 days; the point of that very moment is within.
    let policy = Retention { within: Some(1.month()), ..Retention::default() };
    assert_eq!(plan(&days(60), &policy, &TimeZone::UTC).keep.len(), 32);
    let for_ever = Retention { within: Some(19_000.years()), ..Retention::default() };
    assert_eq!(plan(&days(60), &for_ever, &TimeZone::UTC).remove, []);
}

#[test]
fn times_beyond_the_calendar_are_kept_in_order_without_panic() {
    let points = vec![point(0, i64::MIN), point(1, NOON), point(2, i64::MAX), point(3, i64::MAX - 1)];
    let all = Retention {
        last: 1,
        hourly: 1,
        daily: 1,
        weekly: 1,
        monthly: 1,
        yearly: 1,
        within: Some(1.day()),
        ends: false,
    };
    assert_eq!(removed(&plan(&points, &all, &TimeZone::UTC)), [0]);
}

#[test]
fn a_time_beyond_the_calendar_stands_at_the_end_that_it_is_beyond() {
    let (first, last) = (jiff::Timestamp::MIN, jiff::Timestamp::MAX);
    let at = |seconds: i64, nanos: u32| on_calendar(Timestamp { seconds, nanos });
    for before in [i64::MIN, first.as_second() - 1] {
        assert_eq!(at(before, 0), first, "{before}");
    }
    for after in [i64::MAX, last.as_second() + 1] {
        assert_eq!(at(after, 0), last, "{after}");
    }
    assert_eq!(at(first.as_second(), 0), first);
    assert_eq!(at(last.as_second(), 999_999_999), last);
    assert_eq!(
        [at(0, 0), at(-1, 500_000_000)],
        [0, -500].map(|ms| jiff::Timestamp::from_millisecond(ms).unwrap())
    );
    // No second has so many nanoseconds: it is as far away as can be, on the side of 1970 where its second lies.
    assert_eq!([at(-1, 1_000_000_000), at(0, 1_000_000_000), at(1, 1_000_000_000)], [first, last, last]);
}

#[test]
fn a_span_reaches_as_far_back_before_1970_as_after_it() {
    for seconds in [NOON, DAY, 0, -NOON] {
        for nanos in [0, 1, 250_000_000] {
            let begin = reach_back(Timestamp { seconds, nanos }, 1.day(), &TimeZone::UTC);
            assert_eq!(begin, Some(Timestamp { seconds: seconds - DAY, nanos }), "{seconds} {nanos}");
        }
    }
}

#[test]
fn clocks_may_differ_by_ten_minutes() {
    let (now, at) = (Timestamp::from_seconds(NOON), |seconds| Timestamp::from_seconds(NOON + seconds));
    assert!(!is_after(at(-1), now) && !is_after(at(1), now) && !is_after(at(600), now));
    assert!(is_after(Timestamp { nanos: 1, ..at(600) }, now) && is_after(at(601), now));
    assert!(!is_after(Timestamp::from_seconds(i64::MAX), Timestamp::from_seconds(i64::MAX)));
}

const YEARS: i64 = 365 * DAY;

#[test]
fn a_point_from_the_future_does_not_carry_a_span_away() {
    let policy = Retention { within: Some(30.days()), ..Retention::default() };
    // In the middle, as the first, as the newest.
    for odd in [0, 4, 9] {
        let mut points = days(10);
        points[odd].started.seconds += 10 * YEARS;
        assert_eq!(plan(&points, &policy, &TimeZone::UTC).remove, [], "point {odd}");
    }
}

#[test]
fn points_of_a_clock_that_fell_back_are_still_the_newest() {
    let mut points = days(10);
    points[8].started = Timestamp::from_seconds(60);
    points[9].started = Timestamp::from_seconds(3660);
    let last = plan(&points, &Retention { last: 5, ..Retention::default() }, &TimeZone::UTC);
    let mut stay = kept(&last);
    stay.sort_unstable();
    assert_eq!(stay, [5, 6, 7, 8, 9]);
    let guarded = plan(&points, &Retention { last: 1, ..Retention::default() }, &TimeZone::UTC);
    assert_eq!(why(&guarded, 9), "last, newest complete, among the last three");
    let named = plan_named(&points, &[points[9].id], false);
    assert_eq!(named.remove, []);
}

#[test]
fn a_wrong_time_takes_no_period_from_the_points_with_right_ones() {
    for odd in [60, NOON + 10 * YEARS] {
        let mut points = days(20);
        points[17].started = Timestamp::from_seconds(odd);
        let plan = plan(&points, &Retention { daily: 7, ..Retention::default() }, &TimeZone::UTC);
        let mut stay = kept(&plan);
        stay.sort_unstable();
        // Seven days with right times, 19 and 18 and five from 16 down, and the odd one.
        assert_eq!(stay, [12, 13, 14, 15, 16, 17, 18, 19], "{odd}");
    }
}

#[test]
fn a_present_that_is_wrong_removes_nothing_more() {
    let policies = [
        Retention { within: Some(5.days()), ..Retention::default() },
        Retention { last: 5, ..Retention::default() },
        Retention { daily: 5, weekly: 2, ..Retention::default() },
    ];
    for policy in policies {
        let right = removed(&plan(&days(20), &policy, &TimeZone::UTC));
        for now in [i64::MIN, 0, NOON - 7 * DAY, NOON + 10 * YEARS, i64::MAX] {
            let plan = super::plan(&days(20), &policy, &TimeZone::UTC, Timestamp::from_seconds(now));
            let more: Vec<u32> = removed(&plan).into_iter().filter(|n| !right.contains(n)).collect();
            assert!(more.is_empty(), "{policy:?} at {now}: {more:?}");
        }
    }
}
