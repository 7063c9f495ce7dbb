//! Limits that were reckoned by hand, and what must hold at each minute of weeks in which a clock is set.
#![allow(clippy::unwrap_used)]
use super::*;

const MINUTE: i64 = 60;

fn during(when: &str, upload: u64) -> During {
    let when = when.parse().unwrap_or_else(|error| panic!("{error}"));
    During { when, upload: Rate::BytesPerSecond(upload) }
}

fn bandwidth(all: &[(&str, u64)]) -> Bandwidth {
    let during = all.iter().map(|(when, upload)| during(when, *upload)).collect();
    Bandwidth { upload: Rate::Unlimited, during }
}

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp::from_seconds(text.parse::<jiff::Timestamp>().unwrap().as_second())
}

/// The limit at a moment of UTC and until when it holds.
fn held(bandwidth: &Bandwidth, moment: &str, zone: &TimeZone) -> (Option<u64>, String) {
    let limit = bandwidth.at(at(moment), zone);
    let until = limit.until.map(|until| jiff::Timestamp::from_second(until.seconds).unwrap().to_string());
    (limit.bytes_per_second, until.unwrap_or_default())
}

#[test]
fn hours_of_working_days_hold_then_and_not_at_the_weekend() {
    let office = bandwidth(&[("Mon..Fri 08:00-18:00", 7)]);
    // The 27th of February 2026 is a Friday; Berlin is an hour ahead.
    for (moment, limit, until) in [
        ("2026-02-27T06:59:59Z", None, "2026-02-27T07:00:00Z"),
        ("2026-02-27T07:00:00Z", Some(7), "2026-02-27T17:00:00Z"),
        ("2026-02-27T16:59:59Z", Some(7), "2026-02-27T17:00:00Z"),
        ("2026-02-27T17:00:00Z", None, "2026-03-02T07:00:00Z"),
        ("2026-02-28T12:00:00Z", None, "2026-03-02T07:00:00Z"),
    ] {
        assert_eq!(held(&office, moment, &berlin()), (limit, until.to_owned()), "{moment}");
    }
    assert_eq!(held(&office, "2026-02-27T07:00:00Z", &TimeZone::UTC).0, None);
}

#[test]
fn hours_that_go_over_midnight_belong_to_the_day_on_which_they_begin() {
    let night = bandwidth(&[("Fri,Sun 22:00-06:00", 7)]);
    for (moment, limit, until) in [
        ("2026-02-27T05:00:00Z", None, "2026-02-27T22:00:00Z"),
        ("2026-02-27T22:00:00Z", Some(7), "2026-02-28T06:00:00Z"),
        ("2026-02-28T05:59:59Z", Some(7), "2026-02-28T06:00:00Z"),
        ("2026-02-28T22:30:00Z", None, "2026-03-01T22:00:00Z"),
        ("2026-03-02T00:00:00Z", Some(7), "2026-03-02T06:00:00Z"),
    ] {
        assert_eq!(held(&night, moment, &TimeZone::UTC), (limit, until.to_owned()), "{moment}");
    }
}

#[test]
fn of_several_that_hold_the_first_counts() {
    let all = [("12:00-13:00", 3), ("Mon..Fri 08:00-18:00", 2), ("Sat,Sun", 1)];
    let several = Bandwidth { upload: Rate::BytesPerSecond(9), ..bandwidth(&all) };
    for (moment, limit, until) in [
        ("2026-02-27T11:00:00Z", 2, "2026-02-27T12:00:00Z"),
        ("2026-02-27T12:30:00Z", 3, "2026-02-27T13:00:00Z"),
        ("2026-02-27T13:00:00Z", 2, "2026-02-27T18:00:00Z"),
        ("2026-02-27T18:00:00Z", 9, "2026-02-28T00:00:00Z"),
        ("2026-02-28T13:00:00Z", 1, "2026-03-01T12:00:00Z"),
        ("2026-03-01T13:00:00Z", 1, "2026-03-02T00:00:00Z"),
    ] {
        assert_eq!(held(&several, moment, &TimeZone::UTC), (Some(limit), until.to_owned()), "{moment}");
    }
}

#[test]
fn what_always_holds_is_looked_up_again_within_days_or_never() {
    let limit = |bandwidth: &Bandwidth| held(bandwidth, "2026-02-27T12:00:00Z", &berlin());
    assert_eq!(limit(&Bandwidth::default()), (None, String::new()));
    assert_eq!(limit(&Bandwidth::always(Rate::BytesPerSecond(5))), (Some(5), String::new()));
    assert_eq!(limit(&bandwidth(&[("Mon..Sun", 5)])), (Some(5), "2026-03-07T12:00:00Z".to_owned()));
    assert!(!Bandwidth::default().is_limited() && bandwidth(&[("Sun", 5)]).is_limited());
    let end = Timestamp::from_seconds(i64::MAX);
    for moment in [end, Timestamp::from_seconds(i64::MIN)] {
        let _ = bandwidth(&[("22:00-06:00", 5)]).at(moment, &berlin());
    }
}

#[test]
fn a_limit_holds_as_long_as_it_says_and_changes_just_then_whatever_the_clock_does() {
    // Berlin puts its clock forward on the 29th of March and back on the 25th of October, Lord Howe by half an hour on the
    // 4th of October and the 5th of April, and Samoa left out the 30th of December 2011.
    let places = [
        ("Europe/Berlin", "2026-03-23T00:00:00Z"),
        ("Europe/Berlin", "2026-10-19T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-09-28T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-03-30T00:00:00Z"),
        ("Pacific/Apia", "2011-12-25T00:00:00Z"),
        ("UTC", "2026-12-28T00:00:00Z"),
    ];
    let weeks = [
        bandwidth(&[("Mon..Fri 08:00-18:00", 1)]),
        bandwidth(&[("22:00-02:30", 1), ("02:00-03:00", 2)]),
        bandwidth(&[("Sun 02:15-02:45", 1), ("Sat..Mon 01:45-24:00", 2), ("Fri", 3)]),
    ];
    for ((place, from), week) in places.iter().flat_map(|place| weeks.iter().map(move |week| (place, week))) {
        let (zone, first) = (TimeZone::get(place).unwrap(), at(from).seconds);
        let rate = |seconds| week.rate_at(Timestamp::from_seconds(seconds), &zone);
        // From the last minute to the first: what comes after a minute is known then.
        let mut change = None;
        for now in (0..9 * 24 * 60).rev().map(|minute| first + minute * MINUTE) {
            if rate(now) != rate(now + MINUTE) {
                change = Some(now + MINUTE);
            }
            let until = week.at(Timestamp::from_seconds(now), &zone).until.unwrap().seconds;
            match change {
                Some(change) => assert_eq!(until, change, "{place}, {now}"),
                None => assert!(until > now, "{place}, {now}"),
            }
        }
    }
}

#[test]
fn an_hour_that_a_clock_shows_twice_is_limited_twice() {
    let hour = bandwidth(&[("Sun 02:00-03:00", 7)]);
    assert_eq!(held(&hour, "2026-10-25T00:00:00Z", &berlin()), (Some(7), "2026-10-25T02:00:00Z".to_owned()));
    // In March there is no such hour.
    assert_eq!(held(&hour, "2026-03-29T01:00:00Z", &berlin()), (None, "2026-04-05T00:00:00Z".to_owned()));
}

#[test]
fn what_is_no_time_of_a_week_and_no_rate_is_refused_with_what_is_wrong_with_it() {
    for (text, said) in [
        ("", "the form is"),
        ("Mon..Fry 08:00-18:00", "\"Fry\" is no day of the week"),
        ("08:00", "the form is"),
        ("Mon 08:00", "the form is"),
        ("08:00-25:00", "\"25:00\" is no time"),
        ("08:60-09:00", "\"08:60\" is no time"),
        ("8-18", "no day of the week"),
        ("24:01-03:00", "is no time"),
        ("08:00-08:00", "it ends when it begins"),
        ("24:00-08:00", "it ends when it begins"),
        ("+8:00-09:00", "is no time"),
        ("Mon 08:00-18:00 UTC", "the form is"),
        ("é 08:00-18:00", "no day of the week"),
    ] {
        let error = text.parse::<Hours>().unwrap_err();
        assert!(error.contains(said), "{text:?}: {error}");
    }
    for (text, said) in
        [("0", "16K a second is the least"), ("15K", "the least"), ("fast", "\"unlimited\""), ("", "no size")]
    {
        let error = text.parse::<Rate>().unwrap_err();
        assert!(error.contains(said), "{text:?}: {error}");
    }
    assert_eq!("10M".parse(), Ok(Rate::BytesPerSecond(10 << 20)));
    assert_eq!("unlimited".parse(), Ok(Rate::Unlimited));
}
