//! Plans beside a model that is slow and plain, and what holds of them whatever clocks said.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Three years.
const SPAN: i64 = 3 * 366 * DAY;

/// Points of up to three sources in up to two series, no two at one moment; the clock was right.
fn right_points() -> impl Strategy<Value = Vec<PointFacts>> {
    let facts = (0..SPAN, 0..3u8, any::<bool>(), prop::bool::weighted(0.05), 0..40i64);
    prop::collection::vec(facts, 0..40).prop_map(|facts| {
        let mut times = BTreeSet::new();
        let mut points = Vec::new();
        for (at, source, complete, held, near) in facts {
            // Some of them close together.
            let at = if near < 20 { NOON - near * 1000 } else { NOON - at };
            if times.insert(at) {
                points.push((at, source, complete, held));
            }
        }
        points.sort();
        let numbered = points.into_iter().enumerate().map(|(n, (at, source, complete, held))| PointFacts {
            source: SourceName { host: "h".into(), group: "g".into(), source: source.to_string() },
            series: if source == 2 { "other" } else { "one" }.into(),
            complete,
            held,
            ..point(n as u32 + 1, at)
        });
        numbered.collect()
    })
}

fn count() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 3 => 1..6u32, 1 => Just(u32::MAX)]
}

fn policy() -> impl Strategy<Value = Retention> {
    let counts = (count(), count(), count(), count(), count(), count());
    (counts, prop::option::of(1..60i64)).prop_map(|((last, hourly, daily, weekly, monthly, yearly), days)| {
        let within = days.map(|days| jiff::Span::new().days(days));
        Retention { last, hourly, daily, weekly, monthly, yearly, within, ends: false }
    })
}

/// Number of the year and of the month of a day since 1970 (after Howard Hinnant's `civil_from_days`).
fn civil(day: i64) -> (i64, i64) {
    let z = day + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let mp = (5 * (doe - (365 * yoe + yoe / 4 - yoe / 100)) + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month)
}

/// Of seconds since 1970 what all moments of a period have in common.
type Period = fn(i64) -> (i64, i64);

fn guards(points: &[PointFacts]) -> BTreeSet<u32> {
    let mut stay: BTreeSet<u32> =
        points.iter().filter(|point| point.held).map(|point| number(point.id)).collect();
    let sources: BTreeSet<&SourceName> = points.iter().map(|point| &point.source).collect();
    for source in sources {
        let mut of: Vec<&PointFacts> = points.iter().filter(|point| point.source == *source).collect();
        of.sort_by_key(|point| (point.sequence, point.started, point.id));
        stay.extend(of.iter().rev().take(3).map(|point| number(point.id)));
        stay.extend(of.iter().rev().find(|point| point.complete).map(|point| number(point.id)));
    }
    stay
}

/// What stays, in UTC and where the clock was right.
fn modelled(points: &[PointFacts], policy: &Retention) -> BTreeSet<u32> {
    let mut stay = guards(points);
    if policy.is_empty() {
        return points.iter().map(|point| number(point.id)).collect();
    }
    for series in ["one", "other"] {
        let mut of: Vec<&PointFacts> = points.iter().filter(|point| point.series == series).collect();
        of.sort_by_key(|point| std::cmp::Reverse(point.started));
        stay.extend(of.iter().take(policy.last as usize).map(|point| number(point.id)));
        let rules: [(u32, Period); 5] = [
            (policy.hourly, |s| (s.div_euclid(HOUR), 0)),
            (policy.daily, |s| (s.div_euclid(DAY), 0)),
            (policy.weekly, |s| ((s.div_euclid(DAY) + 3).div_euclid(7), 0)),
            (policy.monthly, |s| civil(s.div_euclid(DAY))),
            (policy.yearly, |s| (civil(s.div_euclid(DAY)).0, 0)),
        ];
        for (count, period) in rules {
            let periods: BTreeSet<_> = of.iter().map(|point| period(point.started.seconds)).collect();
            for chosen in periods.iter().rev().take(count as usize) {
                let mut inside = of.iter().filter(|point| period(point.started.seconds) == *chosen);
                let newest = inside.clone().next();
                stay.extend(inside.find(|point| point.complete).or(newest).map(|point| number(point.id)));
            }
            if periods.len() < count as usize {
                stay.extend(of.last().map(|point| number(point.id)));
            }
        }
        if let (Some(span), Some(newest)) = (policy.within, of.first()) {
            let begin = newest.started.seconds - i64::from(span.get_days()) * DAY;
            stay.extend(
                of.iter().filter(|point| point.started.seconds >= begin).map(|point| number(point.id)),
            );
        }
    }
    stay
}

/// Begin, source, whether complete, whether held, expiry, number.
type Wild = (i64, u8, bool, bool, Option<i64>, u64);

/// Any clocks, any expiries, numbers that come twice.
fn wild_points() -> impl Strategy<Value = Vec<PointFacts>> {
    let time = prop_oneof![5 => NOON - SPAN..NOON, 1 => NOON..NOON + SPAN, 1 => any::<i64>()];
    let expires = prop::option::weighted(0.2, NOON - SPAN..NOON + SPAN);
    let facts = (time, 0..3u8, any::<bool>(), prop::bool::weighted(0.1), expires, 0..30u64);
    prop::collection::vec(facts, 0..30).prop_map(|facts| {
        let one = |(n, (at, source, complete, held, expires, sequence)): (usize, Wild)| PointFacts {
            source: SourceName { host: "h".into(), group: "g".into(), source: source.to_string() },
            series: (source % 2).to_string(),
            complete,
            held,
            expires,
            sequence,
            ..point(n as u32 + 1, at)
        };
        facts.into_iter().enumerate().map(one).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_plan_keeps_what_the_plain_model_keeps(points in right_points(), policy in policy()) {
        let plan = plan(&points, &policy, &TimeZone::UTC);
        let stays: BTreeSet<u32> = kept(&plan).into_iter().collect();
        prop_assert_eq!(stays, modelled(&points, &policy));
    }

    #[test]
    fn whatever_clocks_said_a_plan_names_every_point_once_and_keeps_the_guarded_ones(
        points in wild_points(), policy in policy(), ends in any::<bool>(), vienna in any::<bool>(), now in NOON - SPAN..NOON + SPAN
    ) {
        let zone = if vienna { TimeZone::get("Europe/Vienna").unwrap() } else { TimeZone::UTC };
        let (policy, now) = (Retention { ends, ..policy }, Timestamp::from_seconds(now));
        let plan = super::super::plan(&points, &policy, &zone, now);
        let mut named: Vec<u32> = [kept(&plan), removed(&plan)].concat();
        named.sort_unstable();
        prop_assert_eq!(named, (1..=points.len() as u32).collect::<Vec<_>>());
        let gone: BTreeSet<u32> = removed(&plan).into_iter().collect();
        prop_assert!(gone.is_disjoint(&guards(&points)));
        let until = points.iter().filter(|point| point.expires.is_some_and(|at| at > now.seconds));
        prop_assert!(until.into_iter().all(|point| !gone.contains(&number(point.id))));
        prop_assert!(plan.keep.iter().chain(&plan.remove).all(|decision| !decision.reasons.is_empty()));
        let backwards: Vec<PointFacts> = points.iter().rev().cloned().collect();
        prop_assert_eq!(super::super::plan(&backwards, &policy, &zone, now), plan);
    }
}
