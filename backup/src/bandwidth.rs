//! How much of a line uploads may take, by weekday and hour: a pure function from what the configuration says and a moment to a limit.
//!
//! What counts is what a clock on the wall shows. Where it is put forward, what it does not show has no limit of its own; where it is
//! put back, what it shows twice has it twice.

use std::fmt;
use std::str::FromStr;

use holdfast_store::clock::Timestamp;
use holdfast_store::pace::Limit;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;

use crate::retention::on_calendar;
use crate::schedule::weekdays;
use crate::values;

/// The least that is taken for a limit: at less the service would end a put for being slow (10 minutes for a megabyte), since eight of
/// them share it. It is also the slowest line on which an upload ends.
pub const LEAST: u64 = 16 << 10;
/// What holds is looked up again after so many days at the latest.
const DAYS_AHEAD: i64 = 8;

/// How fast something may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rate {
    /// As fast as it can.
    #[default]
    Unlimited,
    /// So many bytes in a second.
    BytesPerSecond(u64),
}

/// How fast uploads may go, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// At times of which nothing else is said.
    pub upload: Rate,
    /// At others. Of several that hold the first counts.
    pub during: Vec<During>,
}

/// A rate that holds at times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct During {
    /// When.
    pub when: Hours,
    /// How fast.
    pub upload: Rate,
}

/// Hours of some days of the week, such as `Mon..Fri 08:00-18:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// From Monday on: the days on which they begin.
    weekdays: [bool; 7],
    /// In minutes of the day.
    begin: u16,
    /// The first minute that is not meant any more; of the next day, if it is not after the beginning.
    end: u16,
}

const HOUR: u16 = 60;
const DAY: u16 = 24 * HOUR;

impl Bandwidth {
    /// The same rate at any time.
    pub fn always(upload: Rate) -> Self {
        Self { upload, during: Vec::new() }
    }

    /// Whether there is a limit at any time.
    pub fn is_limited(&self) -> bool {
        let mut rates = self.during.iter().map(|during| during.upload).chain([self.upload]);
        rates.any(|rate| rate != Rate::Unlimited)
    }

    /// What holds at a moment, and until when. A zone's clock tells the hour.
    pub fn at(&self, now: Timestamp, zone: &TimeZone) -> Limit {
        let held = self.rate_at(now, zone);
        let bytes_per_second = match held {
            Rate::Unlimited => None,
            Rate::BytesPerSecond(bytes) => Some(bytes),
        };
        let until = match self.during.is_empty() {
            true => None,
            false => self.moments(now, zone).into_iter().find(|moment| {
                self.rate_at(*moment, zone) != held || moment.seconds - now.seconds >= DAYS_AHEAD * 24 * 3600
            }),
        };
        Limit { bytes_per_second, until }
    }

    fn rate_at(&self, now: Timestamp, zone: &TimeZone) -> Rate {
        let shown = zone.to_datetime(on_calendar(now));
        self.during
            .iter()
            .find(|during| during.when.hold_at(shown))
            .map_or(self.upload, |during| during.upload)
    }

    /// Moments after `now` at which another rate may come to hold, ascending; the last one is when to look again in any case.
    fn moments(&self, now: Timestamp, zone: &TimeZone) -> Vec<Timestamp> {
        let start = on_calendar(now);
        let last = Timestamp::from_seconds(now.seconds.saturating_add(DAYS_AHEAD * 24 * 3600));
        let today = zone.to_datetime(start).date();
        let mut moments = vec![last];
        // A clock that is put forward or back may come into other hours by that alone.
        moments.extend(
            zone.following(start).take(2).map(|jump| Timestamp::from_seconds(jump.timestamp().as_second())),
        );
        for date in
            today.yesterday().unwrap_or(today).series(jiff::Span::new().days(1)).take(DAYS_AHEAD as usize + 2)
        {
            for minute in self.during.iter().flat_map(|during| [during.when.begin, during.when.end % DAY]) {
                moments.extend(moments_at(date.to_datetime(time(minute)), zone));
            }
        }
        moments.retain(|moment| *moment > now && *moment <= last);
        moments.sort_unstable();
        moments.dedup();
        moments
    }
}

/// When a clock shows this: once or twice. Where it is left out, moments near by, which do no harm.
fn moments_at(shown: DateTime, zone: &TimeZone) -> impl Iterator<Item = Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(shown);
    let both = [ambiguous.earlier(), ambiguous.later()];
    both.into_iter().flatten().map(|moment| Timestamp::from_seconds(moment.as_second()))
}

fn time(minute: u16) -> Time {
    let part = |number: u16| i8::try_from(number).unwrap_or(0);
    Time::new(part(minute / HOUR % 24), part(minute % HOUR), 0, 0).unwrap_or(Time::midnight())
}

impl Hours {
    fn hold_at(&self, shown: DateTime) -> bool {
        let on = |days_back: usize| {
            let weekday = usize::from(shown.weekday().to_monday_zero_offset().unsigned_abs());
            self.weekdays[(weekday + 7 - days_back) % 7]
        };
        let part = |number: i8| u16::from(number.unsigned_abs());
        let minute = part(shown.hour()) * HOUR + part(shown.minute());
        match self.begin < self.end {
            true => on(0) && (self.begin..self.end).contains(&minute),
            false => (on(0) && minute >= self.begin) || (on(1) && minute < self.end),
        }
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |detail: String| format!("{text:?} is no time of a week: {detail}");
        let form = "the form is \"Mon..Fri 08:00-18:00\", \"22:00-06:00\" or \"Sat,Sun\"";
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, hours) = match words[..] {
            [hours] if hours.contains(':') => (None, Some(hours)),
            [days] => (Some(days), None),
            [days, hours] => (Some(days), Some(hours)),
            _ => return Err(refuse(form.to_owned())),
        };
        let weekdays = days.map_or(Ok([true; 7]), weekdays).map_err(refuse)?;
        let (begin, end) = match hours.map(|hours| hours.split_once('-')) {
            None => (0, DAY),
            Some(None) => return Err(refuse(form.to_owned())),
            Some(Some((begin, end))) => (minute(begin).map_err(refuse)?, minute(end).map_err(refuse)?),
        };
        if begin == end || begin == DAY {
            return Err(refuse("it ends when it begins; for whole days name the days alone".to_owned()));
        }
        Ok(Self { weekdays, begin, end })
    }
}

/// `08:00`; `24:00` is the end of a day.
fn minute(text: &str) -> Result<u16, String> {
    let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) && (1..=2).contains(&text.len())
    {
        true => text.parse::<u16>().ok(),
        false => None,
    };
    let parts = text.split_once(':').and_then(|(hour, minute)| Some((number(hour)?, number(minute)?)));
    match parts {
        Some((hour @ 0..24, minute @ 0..60)) => Ok(hour * HOUR + minute),
        Some((24, 0)) => Ok(DAY),
        _ => Err(format!("{text:?} is no time from 00:00 to 24:00")),
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unlimited" {
            return Ok(Self::Unlimited);
        }
        match values::size(text).map_err(|error| format!("{error}, or \"unlimited\""))? {
            bytes if bytes < LEAST => Err(format!("{text:?} is too little: 16K a second is the least")),
            bytes => Ok(Self::BytesPerSecond(bytes)),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::BytesPerSecond(bytes) => write!(f, "{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests;
