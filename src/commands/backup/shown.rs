//! What `holdfast backup` says of a point that it took.

use holdfast_store::clock::Timestamp;
use holdfast_store::store::StoredPoint;
use jiff::tz::TimeZone;

use crate::json::{BackupSummary, seconds_between, state_word};
use crate::outcome::Failure;
use crate::terminal::{Terminal, text};

/// A point that was taken.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) stored: StoredPoint,
    /// Files that the point before does not have.
    pub(super) files_new: u64,
    /// Files that were read again because they changed.
    pub(super) files_changed: u64,
}

/// Tells people, or programs.
pub(super) fn show(terminal: &Terminal, taken: &Taken) -> Result<(), Failure> {
    if terminal.json() {
        return terminal.json_line(&as_json(taken));
    }
    terminal.say(&sentences(taken, &TimeZone::system()))
}

fn seconds_taken(taken: &Taken) -> f64 {
    let (from, to): (Timestamp, Timestamp) = (taken.stored.point.started, taken.stored.point.ended);
    seconds_between(from, to).max(0.0)
}

fn sentences(taken: &Taken, zone: &TimeZone) -> String {
    let point = &taken.stored.point;
    let counts = &point.counts;
    let mut lines = vec![
        format!(
            "{}: {} ({}), {} read ({}), {} new, {} stored, in {}",
            point.source.source,
            text::count(counts.files, "file"),
            text::size(counts.bytes),
            counts.files_read,
            text::size(counts.bytes_read),
            text::size(counts.bytes_new),
            text::size(counts.bytes_stored),
            text::duration(seconds_taken(taken) as u64)
        ),
        format!("recovery point {} saved", point.id.short()),
    ];
    if point.errors_total > 0 {
        lines.push(format!("it is partial: {} could not be read", text::count(point.errors_total, "file")));
    }
    if let Some(expires) = point.expires() {
        let end = text::local_time(Timestamp::from_seconds(expires), zone);
        lines.push(format!("it is kept until {end}, whatever the rules say"));
    }
    lines.join("\n")
}

fn as_json(taken: &Taken) -> BackupSummary {
    let point = &taken.stored.point;
    let counts = &point.counts;
    BackupSummary {
        message_type: "summary",
        files_new: taken.files_new,
        files_changed: taken.files_changed,
        files_unmodified: counts.files.saturating_sub(taken.files_new).saturating_sub(taken.files_changed),
        data_added: counts.bytes_new,
        data_added_packed: counts.bytes_stored,
        total_files_processed: counts.files,
        total_bytes_processed: counts.bytes,
        total_duration: seconds_taken(taken),
        backup_start: text::rfc3339(point.started),
        backup_end: text::rfc3339(point.ended),
        snapshot_id: point.id.hex(),
        source: point.source.source.clone(),
        state: state_word(point.state),
        errors: point.errors_total,
        expires: point.expires().map(|seconds| text::rfc3339(Timestamp::from_seconds(seconds))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::commands::testing::stored_point;

    fn taken() -> Taken {
        let stored = stored_point(7, "docs", 1_795_176_000);
        Taken { stored, files_new: 1, files_changed: 0 }
    }

    #[test]
    fn the_summary_says_what_was_taken_and_what_was_not() {
        let mut taken = taken();
        assert_eq!(
            sentences(&taken, &TimeZone::UTC),
            "docs: 2 files (2.000 KiB), 0 read (0 B), 0 B new, 0 B stored, in 0:02\n\
             recovery point 07070707 saved"
        );
        Arc::make_mut(&mut taken.stored.point).errors_total = 1;
        assert!(sentences(&taken, &TimeZone::UTC).ends_with("it is partial: 1 file could not be read"));
        Arc::make_mut(&mut taken.stored.point).set_expires(1_795_176_000);
        let said = sentences(&taken, &TimeZone::UTC);
        assert!(said.ends_with("it is kept until 2026-11-20 12:00:00, whatever the rules say"), "{said}");
        let value = serde_json::to_value(as_json(&taken)).unwrap();
        assert_eq!(value["expires"], "2026-11-20T12:00:00.000000000Z");
    }

    #[test]
    fn the_summary_for_programs_has_the_known_fields() {
        let value = serde_json::to_value(as_json(&taken())).unwrap();
        assert_eq!(value["files_unmodified"], 1);
        assert_eq!(value["total_duration"], 2.0);
        assert_eq!(value["snapshot_id"], "07".repeat(16));
    }
}
