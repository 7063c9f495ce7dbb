//! Values as people write them, on command lines and in configurations: sizes, counts, spans, names.

/// `500`, `64K`, `10M`, `1.5GiB`: bytes in powers of 1024, whatever the letter after the power.
pub fn size(text: &str) -> Result<u64, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let power = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        other => return Err(format!("{other:?} is no unit; use K, M, G or T")),
    };
    let factor = 1024u64.pow(power);
    let whole = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let broken =
        || number.parse::<f64>().ok().map(|number| number * factor as f64).filter(|size| *size < 9e18);
    whole.or_else(|| broken().map(|size| size as u64)).ok_or_else(|| format!("{number:?} is no size"))
}

/// How many to keep; `unlimited` for all.
pub fn keep_count(text: &str) -> Result<u32, String> {
    match text {
        "unlimited" => Ok(u32::MAX),
        _ => text.parse().map_err(|_| format!("{text:?} is neither a number nor `unlimited`")),
    }
}

/// A calendar span: `30d`, `1y6m`, `2w12h`; `m` is months.
pub fn span(text: &str) -> Result<jiff::Span, String> {
    let refuse = || format!("{text:?} is no span; write it like 1y6m2w3d12h");
    let mut span = jiff::Span::new();
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
        let (number, unit) = rest.split_at(digits);
        let number: i64 = number.parse().map_err(|_| refuse())?;
        let unit_is_new = match unit.as_bytes().first() {
            Some(b'y') => span.get_years() == 0,
            Some(b'm') => span.get_months() == 0,
            Some(b'w') => span.get_weeks() == 0,
            Some(b'd') => span.get_days() == 0,
            Some(b'h') => span.get_hours() == 0,
            _ => false,
        };
        // The second of two would count alone.
        if !unit_is_new {
            return Err(refuse());
        }
        span = match unit.as_bytes().first() {
            Some(b'y') => span.try_years(number),
            Some(b'm') => span.try_months(number),
            Some(b'w') => span.try_weeks(number),
            Some(b'd') => span.try_days(number),
            Some(b'h') => span.try_hours(number),
            _ => return Err(refuse()),
        }
        .map_err(|_| refuse())?;
        rest = unit.get(1..).unwrap_or_default();
    }
    if span.is_zero() { Err(refuse()) } else { Ok(span) }
}

/// A name that can stand in a path and in `NAME@TIME`.
pub fn name(text: &str) -> Result<String, String> {
    let forbidden = |c: char| c.is_control() || matches!(c, '/' | '@' | ':' | '\\');
    if text.is_empty() || text.starts_with(['.', '-']) || text.len() > 200 {
        return Err("a name has 1 to 200 bytes and begins with neither a dot nor a dash".to_owned());
    }
    match text.chars().find(|c| forbidden(*c)) {
        Some(c) => Err(format!("a name cannot hold {c:?}")),
        None => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::ToSpan;

    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let table = [
            ("0", 0),
            ("500", 500),
            ("64K", 65_536),
            ("10MB", 10 << 20),
            ("1.5GiB", 3 << 29),
            ("2 t", 2 << 40),
        ];
        for (text, bytes) in table {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "K", "1X", "-1", "1.2.3", "99999999T", "18446744073709551616"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_are_of_the_calendar() {
        assert_eq!(
            span("1y6m2w3d12h").unwrap().fieldwise(),
            1.year().months(6).weeks(2).days(3).hours(12).fieldwise()
        );
        for bad in ["", "0d", "d", "1y2y", "3d1w4d", "3", "3x", "-3d", "99999999999999999999d", "3\u{e4}"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_count_may_be_unlimited() {
        assert_eq!([keep_count("3"), keep_count("unlimited")], [Ok(3), Ok(u32::MAX)]);
        assert!(keep_count("-1").is_err());
    }

    #[test]
    fn names_can_stand_in_a_path_and_before_an_at() {
        assert!(name("home-me").is_ok() && name("B\u{fc}ro 2").is_ok());
        for bad in ["", ".", "..", ".hidden", "-x", "a/b", "a@b", "a:b", "a\nb", &"a".repeat(201)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
