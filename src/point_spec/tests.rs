//! Every kind of name, parsed and resolved, and every way to get it wrong.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;

/// 2026-11-20T12:00:00Z.
const NOON: i64 = 1_795_176_000;

fn parse(text: &str) -> Result<PointSpec, PointSpecError> {
    PointSpec::parse(OsStr::new(text), &TimeZone::UTC)
}

fn before(text: &str) -> (i64, u32, String) {
    match parse(text).unwrap() {
        PointSpec { point: PointName::OfSource { when: When::Before(end), .. }, path } => {
            (end.seconds - NOON, end.nanos, String::from_utf8(path).unwrap())
        }
        other => panic!("{text}: {other:?}"),
    }
}

fn point(id: u8, source: &str, started: i64) -> Candidate {
    Candidate {
        id: RecoveryPointId([id; 16]),
        host: "host".into(),
        group: "group".into(),
        source: source.into(),
        sequence: started.unsigned_abs(),
        started: Timestamp { seconds: started, nanos: 500_000_000 },
    }
}

/// Three points of `docs`, an hour apart, and a younger one of `mail`.
fn points() -> Vec<Candidate> {
    vec![
        point(0x22, "docs", NOON),
        point(0x23, "docs", NOON + 3600),
        point(0x11, "docs", NOON - 3600),
        point(0x44, "mail", NOON + 7200),
    ]
}

fn resolve(text: &str, scope: &Scope) -> Result<u8, PointSpecError> {
    parse(text)?.point.resolve(&points(), &[], scope).map(|id| id.0[0])
}

fn everywhere(text: &str) -> Result<u8, PointSpecError> {
    resolve(text, &Scope::default())
}

#[test]
fn a_path_follows_the_first_colon_that_is_not_part_of_a_time() {
    let table = [
        ("latest", ""),
        ("latest:", ""),
        ("latest:/", ""),
        ("latest:/etc/passwd", "etc/passwd"),
        ("latest:etc/", "etc"),
        ("latest:a:b", "a:b"),
        ("latest~3:/x@y:z", "x@y:z"),
        ("ab12:/etc", "etc"),
        ("docs@latest~1:/etc", "etc"),
        ("docs@2026-11-20:/etc", "etc"),
        ("docs@2026-11-20T12:00:/etc", "etc"),
        ("docs@2026-11-20T12:00:00Z:/etc", "etc"),
        ("docs@2026-11-20T12:00:00.25+01:00:12", "12"),
    ];
    for (text, path) in table {
        assert_eq!(parse(text).unwrap().path, path.as_bytes(), "{text}");
    }
}

#[test]
fn paths_are_raw_bytes() {
    let text = OsString::from_vec(b"latest:/a\xff".to_vec());
    assert_eq!(PointSpec::parse(&text, &TimeZone::UTC).unwrap().path, b"a\xff");
}

#[test]
fn a_time_reaches_to_the_end_of_its_last_given_part() {
    let table = [
        ("d@2026-11-20T12.00.00Z", 1, 0),
        ("d@2026-11-20T12:00:00Z", 1, 0),
        ("d@2026-11-20T12.00Z", 60, 0),
        ("d@2026-11-20T12:00", 60, 0),
        ("d@2026-11-20 12:00", 60, 0),
        ("d@2026-11-20", 12 * 3600, 0),
        ("d@2026-11-20T12:00:00.5Z", 0, 500_000_001),
        ("d@2026-11-20T13:00:00+01:00", 1, 0),
        ("d@2026-11-20T11:00:00-0100", 1, 0),
    ];
    for (text, seconds, nanos) in table {
        assert_eq!(before(text), (seconds, nanos, String::new()), "{text}");
    }
}

#[test]
fn a_time_without_a_zone_is_local() {
    let berlin = TimeZone::fixed(jiff::tz::offset(1));
    let spec = PointSpec::parse(OsStr::new("d@2026-11-20T13:00:00"), &berlin).unwrap();
    let end = Timestamp::from_seconds(NOON + 1);
    assert_eq!(spec.point, PointName::OfSource { source: "d".into(), when: When::Before(end) });
}

#[test]
fn times_before_1970_keep_their_nanoseconds_positive() {
    let spec = parse("d@1969-12-31T23:59:59.5Z").unwrap();
    let end = Timestamp { seconds: -1, nanos: 500_000_001 };
    assert_eq!(spec.point, PointName::OfSource { source: "d".into(), when: When::Before(end) });
}

#[test]
fn what_is_no_name_is_refused() {
    let bad = [
        "",
        ":",
        ":/etc",
        "latest~",
        "latest~x",
        "latest~+1",
        "latests",
        "latest~99999999999999999999",
        "docs",
        "@latest",
        "docs@",
        "docs@yesterday",
        "docs@2026-13-01",
        "docs@2026-11-20T25:00",
        "docs@2026-11-20T12:00:00Zx",
        "docs@9999-12-31T23:59:59.9999999999Z",
        &"a".repeat(33),
    ];
    for text in bad {
        let failure = Failure::from(parse(text).unwrap_err());
        assert_eq!(failure.exit_code(), 2, "{text}");
    }
}

#[test]
fn latest_counts_back_from_the_newest_in_scope() {
    let docs = Scope { source: Some("docs".into()), ..Scope::default() };
    assert_eq!(everywhere("latest"), Ok(0x44));
    assert_eq!(everywhere("latest~3"), Ok(0x11));
    assert_eq!(resolve("latest", &docs), Ok(0x23));
    assert_eq!(resolve("latest~1", &docs), Ok(0x22));
    assert_eq!(everywhere("docs@latest~2"), Ok(0x11));
    let too_far = everywhere("latest~4").unwrap_err().to_string();
    assert_eq!(too_far, "latest~4 goes back further than the 4 recovery points there are");
    let nowhere = Scope { group: Some("other".into()), ..Scope::default() };
    assert_eq!(resolve("latest", &nowhere), Err(PointSpecError::NoPoints(String::new())));
}

#[test]
fn a_name_at_a_time_is_the_newest_at_or_before_it() {
    assert_eq!(everywhere("docs@2026-11-20T12.00.00Z"), Ok(0x22));
    assert_eq!(everywhere("docs@2026-11-20T11.59.59Z"), Ok(0x11));
    assert_eq!(everywhere("docs@2026-11-21"), Ok(0x23));
    assert!(matches!(everywhere("docs@2026-11-19"), Err(PointSpecError::TooEarly { .. })));
    assert_eq!(everywhere("none@2026-11-21"), Err(PointSpecError::NoPoints(" of none".into())));
}

#[test]
fn an_id_may_be_cut_short_until_it_is_ambiguous() {
    assert_eq!(everywhere("4"), Ok(0x44));
    assert_eq!(everywhere(&"22".repeat(16)), Ok(0x22));
    assert_eq!(everywhere("99"), Err(PointSpecError::NoSuchId("99".into())));
    let text = everywhere("2").unwrap_err().to_string();
    assert_eq!(text, "2 is the beginning of several ids: 22222222 (docs), 23232323 (docs)");
}

#[test]
fn an_id_is_found_out_of_scope() {
    let docs = Scope { source: Some("docs".into()), ..Scope::default() };
    assert_eq!(resolve("44", &docs), Ok(0x44));
}

#[test]
fn one_name_on_two_machines_must_be_told_apart() {
    let mut points = points();
    points.push(Candidate { host: "other".into(), ..point(0x55, "docs", NOON) });
    let name = parse("docs@latest").unwrap().point;
    let error = name.resolve(&points, &[], &Scope::default()).unwrap_err().to_string();
    assert_eq!(error, "docs is the name of several sources: host/group/docs, other/group/docs");
    let here = Scope { host: Some("other".into()), ..Scope::default() };
    assert_eq!(name.resolve(&points, &[], &here), Ok(RecoveryPointId([0x55; 16])));
}

#[test]
fn latest_is_the_last_that_was_taken_whatever_its_clock_said() {
    let mut points = points();
    points.push(Candidate { sequence: u64::MAX, ..point(0x66, "docs", 60) });
    let resolve =
        |text: &str| parse(text).unwrap().point.resolve(&points, &[], &Scope::default()).unwrap().0[0];
    assert_eq!(resolve("docs@latest"), 0x66);
    assert_eq!(resolve("docs@latest~1"), 0x23);
    assert_eq!(resolve("docs@2026-11-21"), 0x23);
    assert_eq!(resolve("docs@1970-01-01"), 0x66);
    assert_eq!([resolve("latest"), resolve("latest~1")], [0x44, 0x66]);
}
