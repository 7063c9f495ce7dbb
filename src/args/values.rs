//! Values as people type them on a command line.

use std::time::Duration;

use holdfast_backup::config::TierName;
pub use holdfast_backup::values::{keep_count, name, size, span};
use holdfast_store::point::hold::REASON_LEN_MAX;
use holdfast_store::seal::Compression;

/// Most bytes of a tag.
const TAG_LEN_MAX: usize = 1000;

/// A size that is not 0: what is written at no bytes a second never ends.
pub fn some_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        0 => Err("it must be more than 0".to_owned()),
        more => Ok(more),
    }
}

/// Seconds, at least one, perhaps with `s`, `m` or `h` behind.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) if text.ends_with('m') => (number, 60),
        Some(number) if text.ends_with('h') => (number, 3600),
        Some(number) => (number, 1),
        None => (text, 1),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    seconds
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is no time in seconds"))
}

/// `off`, `auto`, `max` as restic says, or a zstd level from 1 to 19: the windows of higher ones are bigger than the format allows.
pub fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "off" | "none" | "0" => Ok(Compression::None),
        "auto" => Ok(Compression::Zstd(3)),
        "max" => Ok(Compression::Zstd(19)),
        _ => match text.parse() {
            Ok(level @ 1..=19) => Ok(Compression::Zstd(level)),
            _ => Err(format!("{text:?} is none of off, auto, max, 1 to 19")),
        },
    }
}

/// `local` or `online`.
pub fn tier(text: &str) -> Result<TierName, String> {
    let known = TierName::ALL.into_iter().find(|name| name.as_str() == text);
    known.ok_or_else(|| format!("{text:?} is neither local nor online"))
}

/// A word to find a point by, of at most 1,000 bytes: a point's object has room for no more.
pub fn tag(text: &str) -> Result<String, String> {
    if text.len() > TAG_LEN_MAX {
        return Err(format!("a tag has at most {TAG_LEN_MAX} bytes; this one has {}", text.len()));
    }
    Ok(text.to_owned())
}

/// Why a point is held.
pub fn reason(text: &str) -> Result<String, String> {
    match text.len() {
        0..=REASON_LEN_MAX => Ok(text.to_owned()),
        len => Err(format!("a reason has at most {REASON_LEN_MAX} bytes; this one has {len}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_rate_of_nothing_is_refused() {
        assert_eq!(some_size("1K"), Ok(1024));
        assert!(["0", "0M", "0.0001", "x"].iter().all(|bad| some_size(bad).is_err()));
    }

    #[test]
    fn times_and_levels_are_checked() {
        assert_eq!(
            [seconds("90"), seconds("90s"), seconds("2m")],
            [90, 90, 120].map(|s| Ok(Duration::from_secs(s)))
        );
        assert!(seconds("0").is_err() && seconds("x").is_err());
        assert_eq!([compression("off"), compression("7")], [Ok(Compression::None), Ok(Compression::Zstd(7))]);
        assert!(compression("23").is_err());
    }

    #[test]
    fn a_tag_has_at_most_1000_bytes() {
        assert!(tag(&"a".repeat(1000)).is_ok());
        assert!(tag(&"\u{e4}".repeat(501)).is_err());
        assert!(reason(&"a".repeat(1000)).is_ok() && reason(&"a".repeat(1001)).is_err());
    }
}
