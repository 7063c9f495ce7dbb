//! The page of `status` as figures for machines: the text format of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>). Names and units stay as they are.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use holdfast_backup::agenda::{Agenda, Task};
use holdfast_backup::ledger::{JobState, Ledger};
use holdfast_store::clock::Timestamp;

use super::Page;
use crate::commands::staging::DirectoryLine;
use crate::outcome::Failure;
use crate::terminal::text;

/// What the ledger tells of tasks.
#[derive(Debug, Default)]
pub struct Jobs {
    /// When jobs of a task last ended in a way.
    pub ends: Vec<(Task, JobState, Timestamp)>,
    /// How often each task failed since it was done.
    pub failures: Vec<(Task, u32)>,
}

impl Jobs {
    /// Those of the tasks that there are now.
    pub fn of(agenda: &Agenda, ledger: Option<&Ledger>) -> Result<Self, Failure> {
        let (tasks, Some(ledger)) = (agenda.tasks(), ledger) else { return Ok(Self::default()) };
        let mut ends = ledger.last_ends().map_err(|error| Failure::failed(error.to_string()))?;
        ends.retain(|(task, ..)| tasks.contains(task));
        let failures = |task: Task| (task.clone(), ledger.past(&task).unwrap_or_default().failures);
        Ok(Self { ends, failures: tasks.into_iter().map(failures).collect() })
    }
}

/// A text in the making.
#[derive(Debug, Default)]
struct Text {
    text: String,
    /// Two figures of one name and the same labels would make all of it invalid.
    said: HashSet<String>,
}

impl Text {
    /// Begins the figures of a name.
    fn family(&mut self, name: &'static str, help: &str) -> Family<'_> {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge");
        Family { text: self, name }
    }
}

/// The figures of a name.
struct Family<'a> {
    text: &'a mut Text,
    name: &'static str,
}

impl Family<'_> {
    fn figure(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let series = format!("{}{labels}", self.name);
        if self.text.said.insert(series.clone()) {
            let _ = writeln!(self.text.text, "{series} {value}");
        }
    }
}

/// Control characters of names are shown as everywhere; what the format itself would take for something else is escaped.
fn escaped(value: &str) -> String {
    text::printable(value.as_bytes()).replace('\\', "\\\\").replace('"', "\\\"")
}

/// All figures.
pub fn render(page: &Page, jobs: &Jobs, now: Timestamp) -> String {
    let mut text = Text::default();
    text.family("holdfast_up", "Whether a daemon serves the store.")
        .figure(&[], u8::from(page.daemon.is_some()));
    text.family("holdfast_status_timestamp_seconds", "When these figures were taken.")
        .figure(&[], now.seconds);
    of_disk(&mut text, page);
    of_staging(&mut text, page);
    of_tiers(&mut text, page);
    of_places(&mut text, page, now);
    of_jobs(&mut text, jobs);
    let mut family = text.family("holdfast_alert", "1 for each alert that `holdfast status` shows.");
    for alert in &page.alerts {
        family.figure(&[("name", &alert.name), ("subject", &alert.subject)], 1);
    }
    text.text
}

fn of_disk(text: &mut Text, page: &Page) {
    if page.bytes_total > 0 {
        text.family("holdfast_disk_free_bytes", "Bytes free on the disk of the store.")
            .figure(&[], page.bytes_free);
        text.family("holdfast_disk_size_bytes", "Bytes of the disk of the store.")
            .figure(&[], page.bytes_total);
    }
}

fn of_staging(text: &mut Text, page: &Page) {
    let mut each = |name, help, value: &dyn Fn(&DirectoryLine) -> Option<u64>| {
        let mut family = text.family(name, help);
        for line in &page.staging {
            if let Some(value) = value(line) {
                family.figure(&[("directory", &line.directory)], value);
            }
        }
    };
    let help = "Whether a directory of staging is there.";
    each("holdfast_staging_present", help, &|line| Some(u64::from(line.state != "away")));
    let help = "Bytes free on the disk of a directory of staging.";
    each("holdfast_staging_free_bytes", help, &|line| line.bytes_free);
    let help = "Bytes of packs in a directory of staging.";
    each("holdfast_staging_pack_bytes", help, &|line| Some(line.bytes));
}

fn of_tiers(text: &mut Text, page: &Page) {
    let mut each = |name, help, value: &dyn Fn(&super::TierLine) -> Option<i64>| {
        let mut family = text.family(name, help);
        for line in &page.tiers {
            let labels = [("group", &line.group), ("source", &line.source), ("tier", &line.tier)];
            if let Some(value) = value(line) {
                family.figure(&labels.map(|(name, value)| (name, value.as_str())), value);
            }
        }
    };
    let newest = "holdfast_point_newest_timestamp_seconds";
    each(newest, "When the newest complete point began.", &|line| line.newest_at.map(|at| at.seconds));
    each("holdfast_points", "Points that the tier has.", &|line| i64::try_from(line.points).ok());
    let next = "holdfast_next_timestamp_seconds";
    each(next, "When the next point is due.", &|line| line.next_at.map(|at| at.seconds));
}

fn of_places(text: &mut Text, page: &Page, now: Timestamp) {
    let help = "Seconds since the pack was proven whose proof is the oldest, +Inf if one never was.";
    let mut family = text.family("holdfast_oldest_unproven_age_seconds", help);
    for line in &page.places {
        match line.unproven_seconds(now) {
            Some(age) if age.is_finite() => family.figure(&[("place", &line.place)], age),
            Some(_) => family.figure(&[("place", &line.place)], "+Inf"),
            None => {}
        }
    }
    let mut family = text.family("holdfast_packs_never_proven", "Packs that nobody has read back yet.");
    for line in &page.places {
        family.figure(&[("place", &line.place)], line.packs_never_proven);
    }
    let mut family = text.family("holdfast_vault_up", "Whether the vault answers.");
    for (place, up) in page.places.iter().filter_map(|line| Some((&line.place, line.up?))) {
        family.figure(&[("place", place)], u8::from(up));
    }
}

fn of_jobs(text: &mut Text, jobs: &Jobs) {
    let group = |task: &Task| task.group.clone().unwrap_or_default();
    let help = "When a job last ended in this state.";
    let mut family = text.family("holdfast_job_last_end_timestamp_seconds", help);
    for (task, state, at) in &jobs.ends {
        let (work, group, state) = (task.work.to_string(), group(task), state.to_string());
        family.figure(&[("work", &work), ("group", &group), ("state", &state)], at.seconds);
    }
    let mut family = text.family("holdfast_job_failures", "Failures in turn, 0 once it was done.");
    for (task, failures) in &jobs.failures {
        family.figure(&[("work", &task.work.to_string()), ("group", &group(task))], failures);
    }
}

/// Puts a text in the place of a file, for all to read. Whoever reads it meanwhile sees the old one or the new one.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = || {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        // The collector takes names that end in .prom alone.
        let temp: PathBuf = dir.join(format!(".{}.{}.new", name.display(), std::process::id()));
        let _ = fs::remove_file(&temp);
        let put = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
            file.write_all(text.as_bytes())?;
            file.set_permissions(Permissions::from_mode(0o644))?;
            fs::rename(&temp, path)
        };
        put().inspect_err(|_| drop(fs::remove_file(&temp)))
    };
    written().map_err(|error| Failure::io("write the metrics into", path, &error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::MetadataExt;

    use holdfast_backup::agenda::Work;

    use holdfast_store::catalog::Proof;

    use super::super::{AlertLine, Answered, PlaceLine, TierLine};
    use super::*;

    fn page(source: &str) -> Page {
        let tier = |newest: Option<i64>| TierLine {
            group: "web".into(),
            source: source.into(),
            tier: "local".into(),
            schedule: "daily".into(),
            newest: None,
            points: 3,
            next: None,
            newest_at: newest.map(Timestamp::from_seconds),
            next_at: Some(Timestamp::from_seconds(200)),
        };
        let alert = AlertLine {
            name: "no-good-point".into(),
            subject: format!("web local {source}"),
            since: None,
            since_at: None,
            since_word: "since",
            what: "w".into(),
            next_step: "n".into(),
        };
        Page {
            message_type: "status",
            store: "/s".into(),
            bytes_free: 5,
            bytes_total: 10,
            staging: vec![directory("/s", None), directory("/b", Some("no marker"))],
            daemon: None,
            tiers: vec![tier(Some(100)), tier(Some(101))],
            places: vec![place("local", 1, Some(30)), place("/v", 0, Some(30)), place("/w", 0, None)],
            recovery_sheet: Default::default(),
            alerts: vec![alert],
            untold: Default::default(),
        }
    }

    fn directory(path: &str, away: Option<&str>) -> DirectoryLine {
        DirectoryLine {
            directory: path.into(),
            kind: "annex",
            state: if away.is_some() { "away" } else { "present" },
            reason: away.map(str::to_owned),
            packs: 1,
            bytes: 7,
            bytes_free: away.is_none().then_some(5),
            bytes_total: away.is_none().then_some(10),
        }
    }

    fn place(place: &str, packs_never: u64, oldest: Option<i64>) -> PlaceLine {
        let oldest = oldest.map(Timestamp::from_seconds);
        let line = PlaceLine::new(
            place.into(),
            &Proof { packs: 3, bytes: 9, packs_never, bytes_never: 9, oldest },
            None,
        );
        let trouble = (place == "/w").then(|| "it is gone".to_owned());
        let answered = Answered { place: place.into(), trouble };
        if place == "local" { line } else { line.answering(&[answered]) }
    }

    fn jobs() -> Jobs {
        let task = Task { work: Work::Take, group: Some("web".into()) };
        let check = Task { work: Work::Check, group: None };
        Jobs {
            ends: vec![(task.clone(), JobState::Failed, Timestamp::from_seconds(90))],
            failures: vec![(task, 2), (check, 0)],
        }
    }

    #[test]
    fn all_figures_stand_there_under_their_names() {
        let text = render(&page("/srv/www"), &jobs(), Timestamp::from_seconds(150));
        let figures: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let of = r#"{group="web",source="/srv/www",tier="local"}"#;
        let expected = [
            "holdfast_up 0".to_owned(),
            "holdfast_status_timestamp_seconds 150".to_owned(),
            "holdfast_disk_free_bytes 5".to_owned(),
            "holdfast_disk_size_bytes 10".to_owned(),
            r#"holdfast_staging_present{directory="/s"} 1"#.to_owned(),
            r#"holdfast_staging_present{directory="/b"} 0"#.to_owned(),
            r#"holdfast_staging_free_bytes{directory="/s"} 5"#.to_owned(),
            r#"holdfast_staging_pack_bytes{directory="/s"} 7"#.to_owned(),
            r#"holdfast_staging_pack_bytes{directory="/b"} 7"#.to_owned(),
            // Two of the same labels are one.
            format!("holdfast_point_newest_timestamp_seconds{of} 100"),
            format!("holdfast_points{of} 3"),
            format!("holdfast_next_timestamp_seconds{of} 200"),
            r#"holdfast_oldest_unproven_age_seconds{place="local"} +Inf"#.to_owned(),
            r#"holdfast_oldest_unproven_age_seconds{place="/v"} 120"#.to_owned(),
            r#"holdfast_packs_never_proven{place="local"} 1"#.to_owned(),
            r#"holdfast_packs_never_proven{place="/v"} 0"#.to_owned(),
            r#"holdfast_packs_never_proven{place="/w"} 0"#.to_owned(),
            r#"holdfast_vault_up{place="/v"} 1"#.to_owned(),
            r#"holdfast_vault_up{place="/w"} 0"#.to_owned(),
            r#"holdfast_job_last_end_timestamp_seconds{work="backup",group="web",state="failed"} 90"#
                .to_owned(),
            r#"holdfast_job_failures{work="backup",group="web"} 2"#.to_owned(),
            r#"holdfast_job_failures{work="check",group=""} 0"#.to_owned(),
            r#"holdfast_alert{name="no-good-point",subject="web local /srv/www"} 1"#.to_owned(),
        ];
        assert_eq!(figures, expected);
    }

    /// A figure by the grammar of the format: its name, its labels as they are meant, its value.
    fn figure(line: &str) -> (String, Vec<(String, String)>, f64) {
        let end = line.find(['{', ' ']).unwrap();
        let (name, mut rest) = line.split_at(end);
        let word = |word: &str| {
            let mut chars = word.chars();
            chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        assert!(word(name), "{line}");
        let mut labels = Vec::new();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            while !rest.starts_with('}') {
                let (label, after) = rest.split_once("=\"").unwrap();
                assert!(word(label), "{line}");
                let (mut value, mut chars) = (String::new(), after.char_indices());
                rest = loop {
                    match chars.next().unwrap() {
                        (at, '"') => break &after[at + 1..],
                        (_, '\\') => value.push(match chars.next().unwrap().1 {
                            'n' => '\n',
                            c @ ('\\' | '"') => c,
                            c => panic!("\\{c} in {line}"),
                        }),
                        (_, c) => value.push(c),
                    }
                };
                labels.push((label.to_owned(), value));
                rest = rest.strip_prefix(',').unwrap_or(rest);
            }
            rest = &rest[1..];
        }
        (name.to_owned(), labels, rest.strip_prefix(' ').unwrap().parse().unwrap())
    }

    #[test]
    fn whatever_a_source_is_called_the_text_keeps_to_the_grammar_of_the_format() {
        let names = ["a\"b", "a\\", "a\nholdfast_up 7", "a\\\"} 1", "\u{fc}\u{202e}", "\r\x1b[2J", ""];
        for name in names {
            let text = render(&page(name), &jobs(), Timestamp::from_seconds(150));
            assert!(text.ends_with('\n') && !text.contains('\r'));
            let mut family = String::new();
            let mut figures = Vec::new();
            for line in text.lines() {
                if let Some(help) = line.strip_prefix("# HELP ") {
                    family = help.split_once(' ').unwrap().0.to_owned();
                } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                    assert_eq!(kind, format!("{family} gauge"));
                } else {
                    figures.push(figure(line));
                    assert_eq!(figures.last().unwrap().0, family, "{line}");
                }
            }
            let points = figures.iter().find(|(name, ..)| name == "holdfast_points").unwrap();
            assert_eq!(points.1[1], ("source".to_owned(), text::printable(name.as_bytes())));
            assert_eq!(figures.len(), 23, "{text}");
        }
    }

    #[test]
    fn the_file_is_replaced_as_a_whole_and_all_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("holdfast.prom");
        write(&path, "one\n").unwrap();
        let first = fs::metadata(&path).unwrap();
        let mut reader = fs::File::open(&path).unwrap();
        write(&path, "two\n").unwrap();
        let second = fs::metadata(&path).unwrap();
        assert_eq!(second.mode() & 0o7777, 0o644);
        assert_ne!(first.ino(), second.ino());
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "one\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let nowhere = write(&dir.path().join("no/holdfast.prom"), "x").unwrap_err();
        assert!(nowhere.message.contains("holdfast.prom"), "{nowhere:?}");
    }
}
