//! When something is to run: a pure function from a text and a moment to the next moment.
//!
//! Two forms. `every 15 minutes` falls on a grid that begins at 1970-01-01T00:00Z, so all machines and all restarts mean the same
//! moments. `Mon..Fri 22:00 Europe/Berlin` is a calendar expression of systemd (`systemd.time(7)`), down to minutes.
//!
//! Nothing here asks a clock. What follows from when something last ran is told by [`crate::agenda`].

mod calendar;
mod field;

use std::fmt;
use std::str::FromStr;

use holdfast_store::clock::Timestamp;
use jiff::tz::TimeZone;

use calendar::Calendar;
pub(crate) use calendar::weekdays;

/// Longest text that is read.
const TEXT_MAX: usize = 200;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;
/// Who wants it less often names the days.
const INTERVAL_MAX: i64 = 366 * DAY;

/// Words for calendar expressions, as systemd has them.
const WORDS: [(&str, &str); 9] = [
    ("minutely", "*:*"),
    ("hourly", "*:00"),
    ("daily", "00:00"),
    ("weekly", "Mon 00:00"),
    ("monthly", "*-*-01 00:00"),
    ("quarterly", "*-01,04,07,10-01 00:00"),
    ("semiannually", "*-01,07-01 00:00"),
    ("yearly", "*-01-01 00:00"),
    ("annually", "*-01-01 00:00"),
];

/// When something is to run.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    moments: Moments,
}

#[derive(Clone, Debug)]
enum Moments {
    /// Each so many seconds since 1970.
    Every(i64),
    Calendar(Box<Calendar>),
}

/// A text that is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no schedule: {detail}")]
pub struct ScheduleError {
    /// As it was given.
    pub given: String,
    /// Why, and what would be right.
    pub detail: String,
}

impl Schedule {
    /// The first moment after `after`; `None` if there is none within 40 years. A calendar expression without a zone of its own is
    /// meant in `zone`.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.moments {
            Moments::Every(seconds) => {
                let next = after.seconds.div_euclid(*seconds).checked_add(1)?.checked_mul(*seconds)?;
                Some(Timestamp::from_seconds(next))
            }
            Moments::Calendar(calendar) => calendar.next_after(after, zone),
        }
    }

    /// The least number of seconds between two of its first hundred moments since 1970.
    pub fn shortest(&self) -> Option<i64> {
        let first = self.next_after(Timestamp::default(), &TimeZone::UTC);
        let following = |after: &Timestamp| self.next_after(*after, &TimeZone::UTC);
        let moments: Vec<i64> =
            std::iter::successors(first, following).take(100).map(|m| m.seconds).collect();
        moments.iter().zip(moments.iter().skip(1)).map(|(one, next)| next - one).min()
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(given: &str) -> Result<Self, ScheduleError> {
        let text = given.trim();
        let no = |detail: String| ScheduleError { given: shortened(given), detail };
        if text.len() > TEXT_MAX {
            return Err(no(format!("it has more than {TEXT_MAX} bytes")));
        }
        let moments = match text.strip_prefix("every ") {
            Some(interval) => Moments::Every(seconds_of(interval).map_err(no)?),
            None => {
                let expression = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
                let calendar = Calendar::parse(expression.map_or(text, |(_, meant)| meant)).map_err(no)?;
                Moments::Calendar(Box::new(calendar))
            }
        };
        Ok(Self { text: text.to_owned(), moments })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn shortened(given: &str) -> String {
    given.chars().take(TEXT_MAX).collect()
}

/// Seconds of `15 minutes`, `hour`: of what lies on the grid, and of other lengths of time that people write.
pub fn seconds_of(interval: &str) -> Result<i64, String> {
    let mut words = interval.split_whitespace();
    let (number, unit) = match (words.next(), words.next(), words.next()) {
        (Some(unit), None, _) => ("1", unit),
        (Some(number), Some(unit), None) => (number, unit),
        _ => return Err("it has the form \"every 15 minutes\"".to_owned()),
    };
    let length = match unit.strip_suffix('s').unwrap_or(unit) {
        "minute" => MINUTE,
        "hour" => HOUR,
        "day" => DAY,
        "week" => WEEK,
        "second" => return Err("a minute is the least".to_owned()),
        "month" | "year" => {
            return Err(format!("{unit} are of different lengths: name the days, as in \"*-*-01 03:00\""));
        }
        _ => return Err(format!("{unit:?} is none of minutes, hours, days, weeks")),
    };
    let number = number.parse::<u32>().map_err(|_| format!("{number:?} is not a number"))?;
    match length * i64::from(number) {
        0 => Err("a minute is the least".to_owned()),
        seconds if seconds > INTERVAL_MAX => Err("a year is the most".to_owned()),
        seconds => Ok(seconds),
    }
}

/// A part of `most` seconds, always the same for the same name: what many machines have on the same schedule is spread by it.
pub fn jitter(name: &str, most: u32) -> u32 {
    let hash = blake3::hash(name.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u32::try_from(u64::from_le_bytes(first) % (u64::from(most) + 1)).unwrap_or(most)
}

#[cfg(test)]
mod tests;
