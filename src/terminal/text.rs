//! Figures, times, names and tables as people read them.

use std::fmt::Write as _;

use holdfast_store::clock::Timestamp;
use jiff::tz::TimeZone;

/// Raw bytes as text that does nothing to a terminal: what is not printable UTF-8 is shown as `\xNN` or `\u{N}`.
pub fn printable(raw: &[u8]) -> String {
    let mut shown = String::with_capacity(raw.len());
    for part in raw.utf8_chunks() {
        part.valid().chars().for_each(|c| push_printable(&mut shown, c, false));
        for byte in part.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// Our own sentences, which may hold names and line ends.
pub fn printable_text(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    text.chars().for_each(|c| push_printable(&mut shown, c, true));
    shown
}

fn push_printable(shown: &mut String, c: char, lines: bool) {
    if c == '\n' && lines {
        shown.push(c);
    } else if c.is_ascii_control() {
        let _ = write!(shown, "\\x{:02x}", u32::from(c));
    } else if c.is_control() || reorders_text(c) {
        let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
    } else {
        shown.push(c);
    }
}

/// Line separators and the marks of bidirectional text, with which a name could pass for another.
fn reorders_text(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `1.234 GiB`: three decimals as restic shows them, none for bytes.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10).clamp(1, 6);
    // The 53 bits of a double are more than three decimals can show.
    let scaled = bytes as f64 / (1u64 << (10 * power)) as f64;
    format!("{scaled:.3} {}", UNITS[power as usize - 1])
}

/// `2:05` or `1:02:03`.
pub fn duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// `1 file`, `2 files`.
pub fn count(n: u64, word: &str) -> String {
    if n == 1 {
        return format!("1 {word}");
    }
    match word.strip_suffix('y') {
        Some(stem) if !stem.ends_with('a') => format!("{n} {stem}ies"),
        _ => format!("{n} {word}s"),
    }
}

/// `2026-11-20 12:00:00` in a time zone; the bare second count if no calendar reaches it.
pub fn local_time(time: Timestamp, zone: &TimeZone) -> String {
    match to_jiff(time) {
        Some(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        None => format!("@{}", time.seconds),
    }
}

/// RFC 3339 with nanoseconds, in UTC, for programs.
pub fn rfc3339(time: Timestamp) -> String {
    match to_jiff(time) {
        Some(time) => format!("{time:.9}"),
        None => format!("@{}.{:09}", time.seconds, time.nanos),
    }
}

/// The same without what is less than a second, of what is known no closer.
pub fn rfc3339_short(time: Timestamp) -> String {
    match to_jiff(Timestamp { nanos: 0, ..time }) {
        Some(time) => time.to_string(),
        None => format!("@{}", time.seconds),
    }
}

/// The moment on jiff's time line, which ends at the years -9999 and 9999.
pub fn to_jiff(time: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(time.seconds, i32::try_from(time.nanos).ok()?).ok()
}

/// A table of text, each column as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings; those that begin with `>` are of columns aligned to the right.
    pub fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|h| h.starts_with('>')).collect();
        let first = headings.iter().map(|h| h.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![first], right }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable_text(&cell)).collect());
    }

    /// The table as lines, with a rule below the headings and no blanks at the ends.
    pub fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.right.len()).map(|column| self.width(column)).collect();
        let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1));
        let mut lines: Vec<String> = self.rows.iter().map(|row| self.line(row, &widths)).collect();
        lines.insert(1, rule);
        lines.join("\n")
    }

    fn width(&self, column: usize) -> usize {
        self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let cell = |((cell, width), right): ((&String, &usize), &bool)| match right {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        };
        let cells: Vec<String> = row.iter().zip(widths).zip(&self.right).map(cell).collect();
        cells.join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_does_anything_to_a_terminal() {
        let table: [(&[u8], &str); 7] = [
            (b"plain name.txt", "plain name.txt"),
            ("Gr\u{fc}\u{df}e \u{2603}".as_bytes(), "Gr\u{fc}\u{df}e \u{2603}"),
            (b"\x1b[2J\x07", "\\x1b[2J\\x07"),
            (b"a\nb\tc\x7f", "a\\x0ab\\x09c\\x7f"),
            (b"\xff\xfea", "\\xff\\xfea"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("gpj\u{202e}exe".as_bytes(), "gpj\\u{202e}exe"),
        ];
        for (raw, shown) in table {
            assert_eq!(printable(raw), shown);
        }
    }

    #[test]
    fn sizes_and_durations_read_as_people_write_them() {
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.000 KiB"),
            (1_536 << 20, "1.500 GiB"),
            (u64::MAX, "16.000 EiB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        assert_eq!([duration(5), duration(125), duration(3_723)], ["0:05", "2:05", "1:02:03"]);
        assert_eq!(
            [count(1, "file"), count(2, "file"), count(0, "directory"), count(2, "day")],
            ["1 file", "2 files", "0 directories", "2 days"]
        );
    }

    #[test]
    fn times_are_exact_and_those_beyond_the_calendar_do_not_panic() {
        let time = Timestamp { seconds: 1_795_219_200, nanos: 7 };
        assert_eq!(rfc3339(time), "2026-11-21T00:00:00.000000007Z");
        assert_eq!(local_time(time, &TimeZone::UTC), "2026-11-21 00:00:00");
        assert_eq!(rfc3339(Timestamp { seconds: i64::MAX, nanos: 1 }), "@9223372036854775807.000000001");
        assert_eq!(rfc3339(Timestamp { seconds: -1, nanos: 500_000_000 }), "1969-12-31T23:59:59.500000000Z");
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let mut table = Table::new(&["id", ">size", "name"]);
        table.row(["a".into(), "10".into(), "x\x1by".into()]);
        table.row(["bcd".into(), "9".into(), String::new()]);
        assert_eq!(table.render(), "id   size  name\n-----------------\na      10  x\\x1by\nbcd     9");
    }
}
