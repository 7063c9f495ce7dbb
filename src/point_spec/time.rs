//! Times in names: `2026-11-20`, `2026-11-20T12.00`, `2026-11-20T12.00.00Z`, `2026-11-20T12:00:00.5+01:00`.
//!
//! Dots in place of colons are what the mount writes, because Samba cannot export a colon.

use holdfast_store::clock::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, ToSpan};

/// A time as written, with the span that its last given part covers.
struct Written {
    time: DateTime,
    covers: Span,
    zone: Option<TimeZone>,
}

/// The end of the time that `text` names: the first moment that is after it. `None` if it is no time.
pub fn parse_time(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let (written, rest) = scan(text.as_bytes())?;
    if !rest.is_empty() {
        return None;
    }
    let end = written.time.checked_add(written.covers).ok()?;
    let zone = written.zone.unwrap_or_else(|| zone.clone());
    let end = zone.to_ambiguous_zoned(end).compatible().ok()?.timestamp();
    let nanos = i64::from(end.subsec_nanosecond());
    let (seconds, nanos) =
        if nanos < 0 { (end.as_second() - 1, nanos + 1_000_000_000) } else { (end.as_second(), nanos) };
    Some(Timestamp { seconds, nanos: u32::try_from(nanos).ok()? })
}

/// How many of the first bytes are a time; 0 if they are none.
pub fn extent(bytes: &[u8]) -> usize {
    scan(bytes).map_or(0, |(_, rest)| bytes.len() - rest.len())
}

/// Takes as much of a time as there is and returns what follows it.
fn scan(bytes: &[u8]) -> Option<(Written, &[u8])> {
    let (year, rest) = digits(bytes, 4)?;
    let (month, rest) = digits(skip(rest, b"-")?, 2)?;
    let (day, rest) = digits(skip(rest, b"-")?, 2)?;
    let date =
        Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    let of_day = || (Written { time: date.at(0, 0, 0, 0), covers: 1.day(), zone: None }, rest);
    Some(scan_clock(date, rest).unwrap_or_else(of_day))
}

fn scan_clock(date: Date, rest: &[u8]) -> Option<(Written, &[u8])> {
    let (hour, rest) = digits(skip(rest, b"T ")?, 2)?;
    let (minute, rest) = digits(skip(rest, b".:")?, 2)?;
    let second = skip(rest, b".:").and_then(|rest| digits(rest, 2));
    let (second, covers, rest) = match second {
        Some((second, rest)) => (second, 1.second(), rest),
        None => (0, 1.minute(), rest),
    };
    let (nanos, covers, rest) = match (covers.get_seconds(), fraction(rest)) {
        (1, Some((nanos, rest))) => (nanos, 1.nanosecond(), rest),
        _ => (0, covers, rest),
    };
    let (zone, rest) = scan_zone(rest);
    let part = |n: u32| i8::try_from(n).ok();
    let time = DateTime::new(
        date.year(),
        date.month(),
        date.day(),
        part(hour)?,
        part(minute)?,
        part(second)?,
        i32::try_from(nanos).ok()?,
    );
    Some((Written { time: time.ok()?, covers, zone }, rest))
}

/// `Z`, `+01:00`, `+01.00` or `+0100`.
fn scan_zone(bytes: &[u8]) -> (Option<TimeZone>, &[u8]) {
    if let Some(rest) = skip(bytes, b"Zz") {
        return (Some(TimeZone::UTC), rest);
    }
    let offset = || {
        let (hours, rest) = digits(skip(bytes, b"+-")?, 2)?;
        let (minutes, rest) = digits(skip(rest, b".:").unwrap_or(rest), 2)?;
        let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
        let seconds = if bytes.first() == Some(&b'-') { -seconds } else { seconds };
        Some((TimeZone::fixed(Offset::from_seconds(seconds).ok()?), rest))
    };
    match offset() {
        Some((zone, rest)) => (Some(zone), rest),
        None => (None, bytes),
    }
}

/// A dot and one to nine digits, as nanoseconds.
fn fraction(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let rest = skip(bytes, b".")?;
    let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (value, after) = digits(rest, len).filter(|_| (1..=9).contains(&len))?;
    Some((value * 10u32.pow(9 - u32::try_from(len).ok()?), after))
}

fn digits(bytes: &[u8], len: usize) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_at_checked(len)?;
    let all_digits = head.iter().all(u8::is_ascii_digit);
    let value = std::str::from_utf8(head).ok()?.parse().ok()?;
    all_digits.then_some((value, rest))
}

fn skip<'a>(bytes: &'a [u8], any_of: &[u8]) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_first()?;
    any_of.contains(first).then_some(rest)
}
