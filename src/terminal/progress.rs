//! How far the work is: pure figures, from which every face draws what it shows.

use std::time::Duration;

use super::text;

/// Figures of the stage that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Name of the stage.
    pub stage: &'static str,
    /// Files done in this stage.
    pub files: u64,
    /// Bytes done in this stage.
    pub bytes: u64,
    /// Files to do, 0 if not known.
    pub files_total: u64,
    /// Bytes to do, 0 if not known.
    pub bytes_total: u64,
    /// Troubles so far, of all stages.
    pub problems: u64,
    /// Time since the stage began.
    pub elapsed: Duration,
}

impl Progress {
    /// Part done, 0 to 1; by bytes if their total is known, else by files; `None` if no total is known.
    pub fn fraction(&self) -> Option<f64> {
        let part = |done: u64, total: u64| (total > 0).then(|| (done as f64 / total as f64).min(1.0));
        part(self.bytes, self.bytes_total).or_else(|| part(self.files, self.files_total))
    }

    /// Bytes a second since the stage began; `None` before there is anything to divide.
    pub fn rate(&self) -> Option<u64> {
        let seconds = self.elapsed.as_secs_f64();
        (seconds >= 0.1 && self.bytes > 0).then(|| (self.bytes as f64 / seconds) as u64)
    }

    /// Seconds that the rest will take if it goes on like this.
    pub fn seconds_left(&self) -> Option<u64> {
        let fraction = self.fraction().filter(|fraction| *fraction > 0.0)?;
        let seconds = self.elapsed.as_secs_f64();
        (seconds >= 1.0).then(|| (seconds * (1.0 - fraction) / fraction).round() as u64)
    }

    /// `backup: 45 %, 1200 of 2000 files, 1.5 GiB of 3 GiB, 100 MiB/s, 0:15 left`.
    pub fn line(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.fraction().map(|fraction| format!("{:.0} %", (fraction * 100.0).floor())));
        if self.files > 0 || self.files_total > 0 {
            parts.push(of(self.files.to_string(), self.files_total, |n| n.to_string()) + " files");
        }
        if self.bytes > 0 || self.bytes_total > 0 {
            parts.push(of(text::size(self.bytes), self.bytes_total, text::size));
        }
        parts.extend(self.rate().map(|rate| format!("{}/s", text::size(rate))));
        parts.extend(self.seconds_left().map(|seconds| format!("{} left", text::duration(seconds))));
        if self.problems > 0 {
            parts.push(text::count(self.problems, "problem"));
        }
        if parts.is_empty() { self.stage.to_owned() } else { format!("{}: {}", self.stage, parts.join(", ")) }
    }
}

fn of(done: String, total: u64, show: impl Fn(u64) -> String) -> String {
    if total == 0 { done } else { format!("{done} of {}", show(total)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_time_left_come_from_what_was_done() {
        let progress = Progress {
            stage: "backup",
            files: 10,
            bytes: 1 << 30,
            files_total: 40,
            bytes_total: 4 << 30,
            problems: 1,
            elapsed: Duration::from_secs(8),
        };
        assert_eq!(progress.rate(), Some(1 << 27));
        assert_eq!(progress.seconds_left(), Some(24));
        assert_eq!(
            progress.line(),
            "backup: 25 %, 10 of 40 files, 1.000 GiB of 4.000 GiB, 128.000 MiB/s, 0:24 left, 1 problem"
        );
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let progress = Progress { stage: "scan", files: 3, ..Progress::default() };
        assert_eq!(progress.line(), "scan: 3 files");
        assert_eq!(Progress { stage: "scan", ..Progress::default() }.line(), "scan");
        let grown = Progress { bytes: 20, bytes_total: 10, ..Progress::default() };
        assert_eq!(grown.fraction(), Some(1.0));
    }
}
