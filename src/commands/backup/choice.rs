//! What of a source `holdfast backup` takes, and how long the points are kept.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;
use holdfast_backup::source::exclude::Exclude;
use holdfast_store::clock::Timestamp;
use jiff::tz::TimeZone;

use crate::args::values;
use crate::outcome::Failure;
use crate::point_spec::parse_time;
use crate::terminal::text;

/// What of a source is taken.
#[derive(Debug, Default, Args)]
pub struct ChoiceArgs {
    /// Leave out what matches this pattern; may be repeated
    #[arg(short, long, value_name = "PATTERN")]
    pub exclude: Vec<OsString>,
    /// The same, whatever the case of letters
    #[arg(long, value_name = "PATTERN")]
    pub iexclude: Vec<OsString>,
    /// A file of patterns, one a line; # begins a comment
    #[arg(long, value_name = "FILE")]
    pub exclude_file: Vec<PathBuf>,
    /// Leave out directories marked as caches by a CACHEDIR.TAG file
    #[arg(long)]
    pub exclude_caches: bool,
    /// Leave out directories that hold a file of this name
    #[arg(long, value_name = "NAME")]
    pub exclude_if_present: Vec<OsString>,
    /// Leave out files bigger than this (K, M, G, T)
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub exclude_larger_than: Option<u64>,
    /// Do not go into other file systems
    #[arg(short = 'x', long)]
    pub one_file_system: bool,
}

impl ChoiceArgs {
    pub(super) fn is_empty(&self) -> bool {
        let none = self.exclude.is_empty() && self.iexclude.is_empty() && self.exclude_file.is_empty();
        let none = none && self.exclude_if_present.is_empty() && self.exclude_larger_than.is_none();
        none && !self.exclude_caches && !self.one_file_system
    }

    /// Adds what is left out to the rules of a source.
    pub(super) fn add_rules(&self, exclude: &mut Exclude) -> Result<(), Failure> {
        for pattern in &self.exclude {
            exclude.pattern(pattern.as_bytes())?;
        }
        for pattern in &self.iexclude {
            exclude.pattern_any_case(pattern.as_bytes())?;
        }
        for file in &self.exclude_file {
            let text =
                std::fs::read(file).map_err(|error| Failure::io("read the patterns in", file, &error))?;
            exclude.pattern_file(&text, false)?;
        }
        if self.exclude_caches {
            exclude.caches();
        }
        for name in &self.exclude_if_present {
            exclude.if_present(name.as_bytes())?;
        }
        if let Some(size) = self.exclude_larger_than {
            exclude.larger_than(size);
        }
        if self.one_file_system {
            exclude.one_file_system(true);
        }
        Ok(())
    }
}

/// How long the points are kept, if no rules are to say that.
#[derive(Debug, Default, Args)]
pub(super) struct KeepArgs {
    /// Keep the point for this span whatever the rules say, as in 1y6m2w3d12h, and let it expire then; it takes no other
    /// point's place
    #[arg(long, value_name = "SPAN", value_parser = values::span, conflicts_with = "keep_until")]
    keep_for: Option<jiff::Span>,
    /// The same to the end of this day, or minute, as in 2026-12-31 or 2026-12-31T18:00
    #[arg(long, value_name = "TIME")]
    keep_until: Option<String>,
}

impl KeepArgs {
    pub(super) fn is_empty(&self) -> bool {
        self.keep_for.is_none() && self.keep_until.is_none()
    }

    /// From when on points taken now may expire, in seconds since 1970.
    pub(super) fn expires(&self, now: Timestamp, zone: &TimeZone) -> Result<Option<i64>, Failure> {
        let span_ends = |span: &jiff::Span| {
            let from = text::to_jiff(now)?.to_zoned(zone.clone());
            from.checked_add(*span).ok().map(|end| end.timestamp().as_second())
        };
        let end = match (&self.keep_for, &self.keep_until) {
            (Some(span), _) => {
                let end = span_ends(span).filter(|end| *end > now.seconds);
                end.ok_or_else(|| Failure::usage("--keep-for ends beyond the calendar"))?
            }
            (None, Some(text)) => {
                let end = parse_time(text, zone).map(|end| end.seconds);
                let end = end.ok_or_else(|| Failure::usage(format!("--keep-until: {text:?} is no time")))?;
                if end <= now.seconds {
                    return Err(Failure::usage(format!("--keep-until: {text} is over")));
                }
                end
            }
            (None, None) => return Ok(None),
        };
        Ok(Some(end))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::BackupArgs;
    use super::*;
    use crate::outcome::Kind;

    #[test]
    fn a_time_to_be_kept_to_is_of_the_calendar_and_ahead() {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: BackupArgs,
        }
        let args = |line: &[&str]| <Line as clap::Parser>::try_parse_from([&["backup"], line].concat());
        // 2026-11-20 at noon.
        let now = Timestamp::from_seconds(1_795_176_000);
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let expires = |line: &[&str]| args(line).unwrap().args.keep.expires(now, &zone);
        let day = 86_400;
        assert_eq!(expires(&[]).unwrap(), None);
        assert_eq!(expires(&["--keep-for", "2w1d12h"]).unwrap(), Some(now.seconds + 15 * day + day / 2));
        assert_eq!(expires(&["--keep-for", "1m"]).unwrap(), Some(now.seconds + 30 * day));
        // To the end of the day there.
        assert_eq!(expires(&["--keep-until", "2026-11-20"]).unwrap(), Some(now.seconds + 11 * 3600));
        assert_eq!(expires(&["--keep-until", "2026-11-20T14:30"]).unwrap(), Some(now.seconds + 5460));
        for over in ["2026-11-19", "2026-11-20T12:59", "tomorrow", ""] {
            assert_eq!(expires(&["--keep-until", over]).unwrap_err().kind, Kind::Usage, "{over}");
        }
        assert_eq!(expires(&["--keep-for", "9000y"]).unwrap_err().kind, Kind::Usage);
        assert!(args(&["--keep-for", "1d", "--keep-until", "2027-01-01"]).is_err());
        assert!(!args(&["--keep-for", "1d"]).unwrap().args.is_as_configured());
    }
}
