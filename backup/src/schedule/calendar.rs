//! Calendar expressions, as `systemd.time(7)` has them, down to minutes: `[WEEKDAYS] [[YEAR-]MONTH-DAY] [HOUR:MINUTE] [ZONE]`.
//!
//! Where a clock is put forward or back, a *named* hour comes once a day all the same: one that is left out comes as much later as
//! the clock jumps (as RFC 5545, 3.3.5, has it), of one that is repeated the first counts. Without a named hour (`*:0/15`) hours are
//! counted as they pass: none for those that are left out, twice for those that are repeated.

use holdfast_store::clock::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::field::{Bounds, Field};
use crate::retention::on_calendar;

const YEARS: Bounds = Bounds { name: "year", min: 1970, max: 2199 };
const MONTHS: Bounds = Bounds { name: "month", min: 1, max: 12 };
const DAYS: Bounds = Bounds { name: "day", min: 1, max: 31 };
const HOURS: Bounds = Bounds { name: "hour", min: 0, max: 23 };
const MINUTES: Bounds = Bounds { name: "minute", min: 0, max: 59 };

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// The 29th of February falls on each day of the week within 40 years.
const DAYS_AHEAD: usize = 366 * 41;

/// A calendar expression.
#[derive(Clone, Debug)]
pub struct Calendar {
    /// From Monday on.
    weekdays: [bool; 7],
    years: Field,
    months: Field,
    days: Field,
    /// Days are counted from the end of the month, its last one being 1.
    days_from_end: bool,
    hours: Field,
    minutes: Field,
    zone: Option<TimeZone>,
}

impl Calendar {
    /// Reads an expression; what is left out of it is any day, or midnight.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut calendar = Self {
            weekdays: [true; 7],
            years: Field::all(YEARS),
            months: Field::all(MONTHS),
            days: Field::all(DAYS),
            days_from_end: false,
            hours: Field::just(0),
            minutes: Field::just(0),
            zone: None,
        };
        let mut words = text.split_whitespace().peekable();
        if words.peek().is_none() {
            return Err("it is empty".to_owned());
        }
        if let Some(word) = words.next_if(|word| is_of_weekdays(word)) {
            calendar.weekdays = weekdays(word)?;
        }
        if let Some(word) = words.next_if(|word| is_of_date(word)) {
            calendar.set_date(word)?;
        }
        if let Some(word) = words.next_if(|word| word.contains(':')) {
            calendar.set_time(word)?;
        }
        if let Some(word) = words.next() {
            calendar.zone = Some(zone(word)?);
        }
        match words.next() {
            Some(word) => {
                Err(format!("{word:?} is too much; the form is \"Mon..Fri *-*-01 22:00 Europe/Berlin\""))
            }
            None => Ok(calendar),
        }
    }

    fn set_date(&mut self, word: &str) -> Result<(), String> {
        let (before, days) = match word.rsplit_once('~') {
            Some((before, days)) => (before, days),
            None => word.rsplit_once('-').ok_or_else(|| format!("{word:?} is no date"))?,
        };
        self.days_from_end = word.contains('~');
        // `~7/1` is the seventh day before the end and those after it.
        self.days = if self.days_from_end { last_days(days)? } else { Field::parse(days, DAYS)? };
        let months = match before.rsplit_once('-') {
            Some((years, months)) => {
                self.years = Field::parse(years, YEARS)?;
                months
            }
            None => before,
        };
        self.months = Field::parse(months, MONTHS)?;
        Ok(())
    }

    fn set_time(&mut self, word: &str) -> Result<(), String> {
        let mut fields = word.split(':');
        let (hours, minutes) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        self.hours = Field::parse(hours, HOURS)?;
        self.minutes = Field::parse(minutes, MINUTES)?;
        match (fields.next(), fields.next()) {
            (None | Some("0" | "00"), None) => Ok(()),
            _ => Err(format!("{word:?}: a schedule names minutes, not seconds")),
        }
    }

    /// The first moment after `after`; `None` if there is none within 40 years.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let zone = self.zone.as_ref().unwrap_or(zone);
        // Where a clock is put back, a moment may belong to the day before.
        let first = zone.to_datetime(on_calendar(after)).date().yesterday().ok()?;
        first
            .series(jiff::Span::new().days(1))
            .take(DAYS_AHEAD)
            .take_while(|date| u16::try_from(date.year()).is_ok_and(|year| year <= self.years.last()))
            .filter(|date| self.takes(*date))
            .find_map(|date| self.moments(date, zone).into_iter().find(|moment| *moment > after))
    }

    fn takes(&self, date: Date) -> bool {
        let day = if self.days_from_end { date.days_in_month() - date.day() + 1 } else { date.day() };
        let weekday = date.weekday().to_monday_zero_offset();
        number(date.month()).is_some_and(|month| self.months.takes(month))
            && number(day).is_some_and(|day| self.days.takes(day))
            && u16::try_from(date.year()).is_ok_and(|year| self.years.takes(year))
            && self.weekdays.get(usize::from(weekday.unsigned_abs())).is_some_and(|taken| *taken)
    }

    /// All moments of a day, ascending.
    fn moments(&self, date: Date, zone: &TimeZone) -> Vec<Timestamp> {
        let mut moments: Vec<Timestamp> = Vec::new();
        for hour in self.hours.numbers(HOURS) {
            for minute in self.minutes.numbers(MINUTES) {
                let (Ok(hour), Ok(minute)) = (i8::try_from(hour), i8::try_from(minute)) else { continue };
                moments.extend(self.moments_at(date.at(hour, minute, 0, 0), zone));
            }
        }
        moments.sort_unstable();
        moments.dedup();
        moments
    }

    /// When a clock shows this: twice or never where it is put back or forward.
    fn moments_at(&self, shown: DateTime, zone: &TimeZone) -> impl Iterator<Item = Timestamp> {
        let (first, second) = match (zone.to_ambiguous_timestamp(shown).offset(), self.names_hours()) {
            (AmbiguousOffset::Unambiguous { offset }, _) => (Some(offset), None),
            (AmbiguousOffset::Gap { before, .. } | AmbiguousOffset::Fold { before, .. }, true) => {
                (Some(before), None)
            }
            (AmbiguousOffset::Gap { .. }, false) => (None, None),
            (AmbiguousOffset::Fold { before, after }, false) => (Some(before), Some(after)),
        };
        let moment = move |offset: jiff::tz::Offset| {
            Some(Timestamp::from_seconds(offset.to_timestamp(shown).ok()?.as_second()))
        };
        first.into_iter().chain(second).filter_map(moment)
    }

    /// Whether some hours are meant and not all.
    fn names_hours(&self) -> bool {
        self.hours.numbers(HOURS).count() < 24
    }
}

fn number(of_date: i8) -> Option<u16> {
    u16::try_from(of_date).ok()
}

fn is_of_weekdays(word: &str) -> bool {
    word.split([',', '.']).find(|name| !name.is_empty()).is_some_and(|name| weekday(name).is_some())
}

fn is_of_date(word: &str) -> bool {
    !word.contains(':')
        && word.contains(['-', '~'])
        && word.starts_with(|c: char| c == '*' || c.is_ascii_digit())
}

/// From Monday on.
fn weekday(name: &str) -> Option<usize> {
    let name = name.to_ascii_lowercase();
    WEEKDAYS.iter().position(|whole| *whole == name || (name.len() == 3 && whole.starts_with(&name)))
}

/// `Mon..Fri,Sun`; a range may go over the end of a week.
pub fn weekdays(word: &str) -> Result<[bool; 7], String> {
    let day = |name: &str| weekday(name).ok_or_else(|| format!("{name:?} is no day of the week"));
    let mut taken = [false; 7];
    for part in word.split(',') {
        let (first, last) = match part.split_once("..") {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        for ahead in 0..=(last + 7 - first) % 7 {
            taken[(first + ahead) % 7] = true;
        }
    }
    Ok(taken)
}

/// Days from the end of the month: `1` is the last one, and repetitions go towards the end.
fn last_days(text: &str) -> Result<Field, String> {
    match text.split_once('/') {
        Some((first, "1")) => Field::parse(&format!("1..{first}"), DAYS),
        Some(_) => Err(format!("{text:?}: from the end of a month only /1 is known, as in \"Mon *-*~7/1\"")),
        None => Field::parse(text, DAYS),
    }
}

fn zone(name: &str) -> Result<TimeZone, String> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name)
        .map_err(|_| format!("{name:?} is neither a time nor a time zone that this machine knows"))
}
