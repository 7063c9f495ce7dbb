//! Moments that were reckoned by hand or by systemd, and what must hold of any.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use super::*;

fn schedule(text: &str) -> Schedule {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

/// `2026-03-29T02:30:00Z`.
fn at(text: &str) -> Timestamp {
    Timestamp::from_seconds(text.parse::<jiff::Timestamp>().unwrap().as_second())
}

fn shown(moment: Timestamp) -> String {
    jiff::Timestamp::from_second(moment.seconds).unwrap().to_string()
}

/// The first moments after `after`.
fn following(text: &str, after: &str, zone: &TimeZone, count: usize) -> Vec<String> {
    let (schedule, mut after, mut found) = (schedule(text), at(after), Vec::new());
    while let Some(next) = schedule.next_after(after, zone).filter(|_| found.len() < count) {
        found.push(shown(next));
        after = next;
    }
    found
}

#[test]
fn the_moments_of_expressions() {
    // What `systemd-analyze calendar` said of each, in UTC.
    for (text, after, first, second) in [
        ("daily", "2026-02-27T12:00:00Z", "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"),
        ("hourly", "2026-02-27T12:00:00Z", "2026-02-27T13:00:00Z", "2026-02-27T14:00:00Z"),
        ("weekly", "2026-02-27T12:00:00Z", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"),
        ("monthly", "2026-02-27T12:00:00Z", "2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"),
        ("quarterly", "2026-02-27T12:00:00Z", "2026-04-01T00:00:00Z", "2026-07-01T00:00:00Z"),
        ("semiannually", "2026-02-27T12:00:00Z", "2026-07-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("Yearly", "2026-02-27T12:00:00Z", "2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"),
        ("Mon..Fri 22:00", "2026-02-27T22:00:00Z", "2026-03-02T22:00:00Z", "2026-03-03T22:00:00Z"),
        ("sat,Sun *:0/15", "2026-02-27T12:00:00Z", "2026-02-28T00:00:00Z", "2026-02-28T00:15:00Z"),
        ("Sat..Mon 1:30", "2026-03-01T02:00:00Z", "2026-03-02T01:30:00Z", "2026-03-07T01:30:00Z"),
        ("8..18/5:30", "2026-02-27T12:00:00Z", "2026-02-27T13:30:00Z", "2026-02-27T18:30:00Z"),
        ("*-*-1,15 03:00", "2026-02-27T12:00:00Z", "2026-03-01T03:00:00Z", "2026-03-15T03:00:00Z"),
        ("02-29", "2026-02-27T12:00:00Z", "2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"),
        ("Sun 02-29", "2026-02-27T12:00:00Z", "2032-02-29T00:00:00Z", "2060-02-29T00:00:00Z"),
        ("*-*~1 23:59:00", "2026-02-27T12:00:00Z", "2026-02-28T23:59:00Z", "2026-03-31T23:59:00Z"),
        ("Mon *-05~7/1", "2026-02-27T12:00:00Z", "2026-05-25T00:00:00Z", "2027-05-31T00:00:00Z"),
        ("*-02~3", "2028-01-01T00:00:00Z", "2028-02-27T00:00:00Z", "2029-02-26T00:00:00Z"),
        ("22:00 America/New_York", "2026-03-07T12:00:00Z", "2026-03-08T03:00:00Z", "2026-03-09T02:00:00Z"),
        ("2026..2027-1/6-1", "2026-02-27T12:00:00Z", "2026-07-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("every 15 minutes", "2026-02-27T12:00:00Z", "2026-02-27T12:15:00Z", "2026-02-27T12:30:00Z"),
        ("every hour", "2026-02-27T12:00:01Z", "2026-02-27T13:00:00Z", "2026-02-27T14:00:00Z"),
        ("every 2 weeks", "1970-01-01T00:00:00Z", "1970-01-15T00:00:00Z", "1970-01-29T00:00:00Z"),
    ] {
        assert_eq!(following(text, after, &TimeZone::UTC, 2), [first, second], "{text}");
    }
}

#[test]
fn a_named_hour_comes_once_a_day_whatever_the_clock_does() {
    // It is put forward from 02:00 to 03:00 on the 29th of March, back from 03:00 to 02:00 on the 25th of October.
    let forward = following("02:30", "2026-03-28T00:00:00Z", &berlin(), 3);
    assert_eq!(forward, ["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]);
    let back = following("02:30", "2026-10-24T00:00:00Z", &berlin(), 3);
    assert_eq!(back, ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    let both = following("2,3:30", "2026-03-28T12:00:00Z", &berlin(), 2);
    assert_eq!(both, ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"], "one that comes later meets the next");
    let from_a_moment_between = following("02:30", "2026-10-25T01:10:00Z", &berlin(), 1);
    assert_eq!(from_a_moment_between, ["2026-10-26T01:30:00Z"], "02:10 for the second time");
}

#[test]
fn hours_that_are_not_named_are_counted_as_they_pass() {
    for (after, count) in
        [("2026-03-28T23:00:00Z", 23), ("2026-10-24T22:00:00Z", 25), ("2026-06-01T22:00:00Z", 24)]
    {
        let day = following("*:30", after, &berlin(), count + 1);
        let begin = at(after).seconds;
        let expected: Vec<_> = (0..=count as i64)
            .map(|hour| shown(Timestamp::from_seconds(begin + hour * HOUR + HOUR / 2)))
            .collect();
        assert_eq!(day, expected);
        assert_eq!(day, following("0..23:30", after, &berlin(), count + 1));
    }
}

#[test]
fn a_day_that_was_left_out_of_a_calendar_stops_nothing() {
    // Samoa went over the date line: after the 29th of December came the 31st.
    let apia = TimeZone::get("Pacific/Apia").unwrap();
    let days = following("12:00", "2011-12-29T00:00:00Z", &apia, 3);
    assert_eq!(days, ["2011-12-29T22:00:00Z", "2011-12-30T22:00:00Z", "2011-12-31T22:00:00Z"]);
}

#[test]
fn what_never_comes_has_no_moment_and_is_soon_known() {
    for text in ["*-02-30", "*-04,06-31 03:00", "2019-*-*", "1970..2025-01-01"] {
        assert_eq!(schedule(text).next_after(at("2026-02-27T12:00:00Z"), &berlin()), None, "{text}");
    }
    let end = Timestamp::from_seconds(i64::MAX);
    for text in ["daily", "every 5 minutes"] {
        assert_eq!(schedule(text).next_after(end, &berlin()), None, "{text}");
    }
    assert!(schedule("daily").next_after(Timestamp::from_seconds(i64::MIN), &berlin()).is_none());
}

#[test]
fn moments_go_on_and_lie_where_the_expression_says() {
    // Whatever is asked for from anywhere is the first of what is asked for from a little earlier.
    let texts = ["*:0/7", "Mon..Wed,Sat 2:15,45", "*-*~1 02:30", "every 37 minutes", "hourly"];
    for (text, zone) in texts.iter().flat_map(|text| [(text, TimeZone::UTC), (text, berlin())]) {
        let schedule = schedule(text);
        let (mut after, end) = (at("2026-03-27T00:00:00Z"), at("2026-04-02T00:00:00Z"));
        while after < end {
            let next = schedule.next_after(after, &zone).unwrap();
            assert!(next > after && next.seconds % MINUTE == 0, "{text}");
            let between = Timestamp::from_seconds(i64::midpoint(after.seconds, next.seconds));
            assert_eq!(schedule.next_after(between, &zone), Some(next), "{text}");
            after = next;
        }
    }
}

#[test]
fn what_is_no_schedule_is_refused_with_what_is_wrong_with_it() {
    for (text, said) in [
        ("", "empty"),
        ("   ", "empty"),
        ("every", "neither a time nor a time zone"),
        ("every 0 minutes", "a minute is the least"),
        ("every 30 seconds", "a minute is the least"),
        ("every 2 months", "different lengths"),
        ("every 5 fortnights", "none of minutes"),
        ("every 99999999999 hours", "not a number"),
        ("every -5 minutes", "not a number"),
        ("every 367 days", "a year is the most"),
        ("every 4294967295 weeks", "a year is the most"),
        ("every 5 minutes or so", "every 15 minutes"),
        ("25:00", "\"25\" is no hour, which is a number from 0 to 23"),
        ("12:60", "no minute"),
        ("12:00:30", "not seconds"),
        ("12:00:00:00", "not seconds"),
        ("*-13-01", "no month"),
        ("*-0-01", "no month"),
        ("*-01-32", "no day"),
        ("1969-01-01", "no year"),
        ("*-01-5..3", "end before they begin"),
        ("*:0/0", "a number above 0"),
        ("*:0/x", "a number above 0"),
        ("*:+5", "no minute"),
        ("Mon..Fry 12:00", "\"Fry\" is no day of the week"),
        ("Mon,", "\"\" is no day of the week"),
        ("12:00 Mars/Olympus", "neither a time nor a time zone"),
        ("12:00 UTC daily", "\"daily\" is too much"),
        ("nightly", "neither a time nor a time zone"),
        ("*-*~7/2", "only /1 is known"),
        ("~", "neither"),
        ("--", "neither"),
    ] {
        let error = text.parse::<Schedule>().unwrap_err();
        assert!(error.detail.contains(said), "{text:?}: {}", error.detail);
    }
    let long = "0,".repeat(500) + "0:00";
    assert!(long.parse::<Schedule>().unwrap_err().to_string().len() < 300);
}

#[test]
fn no_text_makes_it_panic_or_search_for_long() {
    let pieces = [
        "Mon", "..", ",", "-", "~", ":", "*", "/", "0", "31", "59", " ", "every", "minutes", "UTC", "ä", "02",
    ];
    let mut state = 20_261_128_u64;
    let mut below = |n: usize| {
        // Knuth's MMIX generator.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % n
    };
    let mut understood = 0;
    for _ in 0..20_000 {
        let text: String = (0..=below(9)).map(|_| pieces[below(pieces.len())]).collect();
        if let Ok(schedule) = text.parse::<Schedule>() {
            understood += 1;
            let _ = schedule.next_after(at("2026-02-27T12:00:00Z"), &TimeZone::UTC);
            assert_eq!(schedule.to_string().parse::<Schedule>().unwrap().to_string(), text.trim());
        }
    }
    println!("{understood} of 20000 are schedules");
    assert!(understood > 100);
}

#[test]
fn jitter_is_the_same_for_a_name_and_spreads_names() {
    let spread: Vec<u32> = (0..400).map(|n| jitter(&format!("machine-{n}"), 600)).collect();
    assert!(spread.iter().all(|seconds| *seconds <= 600));
    for quarter in 0..4 {
        let there = spread.iter().filter(|s| **s / 151 == quarter).count();
        assert!((60..=140).contains(&there), "{there} of 400 in quarter {quarter}");
    }
    assert_eq!(jitter("machine-7", 600), spread[7]);
    assert_eq!(jitter("machine-7", 0), 0);
    assert!(jitter("any", u32::MAX) > 0);
}
