//! What a person has to be told of without asking: a pure function from what should be and what is.
//!
//! An alert has a name and a subject that stay the same as long as its cause does, so that it can be told once, and closes by itself when its
//! cause is gone. The first of them is always looked for: that a tier has no good point of a source since when it should have one. It holds
//! whatever the reason is, be it one that nobody thought of.
//!
//! Whether and when a person is told of an alert is decided in [`telling`].

pub mod telling;

use holdfast_store::clock::Timestamp;

use crate::agenda::{Agenda, History, Task, TierName, Work};

/// How late a point may be before somebody is told, where it is taken often …
const LATE: i64 = 3600;
/// … and how many moments may pass without one.
const MOMENTS: usize = 2;
/// A tier that never had a point has so many seconds from the begin of its first job on, if that runs so long.
const FIRST_JOB: i64 = 24 * 3600;
/// Name of the alert of a task that fails.
const JOB_FAILS: &str = "job-fails";
/// After so many failures in turn somebody is told.
const FAILURES: u32 = 3;

/// Something that somebody has to see to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What is wrong, in a word that programs can rely on.
    pub name: String,
    /// With what.
    pub subject: String,
    /// Since when, if that is known. Of a job: when it was last done.
    pub since: Option<Timestamp>,
    /// What is wrong, for people.
    pub what: String,
    /// What to do.
    pub next_step: String,
}

impl Alert {
    /// Whether it tells that work for the whole store fails.
    pub fn is_of_failing(&self, work: Work) -> bool {
        self.name == JOB_FAILS && self.subject == work.to_string()
    }

    /// What its moment is the moment of.
    pub fn word_for_since(&self) -> &'static str {
        if self.name == JOB_FAILS { "last done" } else { "since" }
    }
}

/// The newest good point that a tier has of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// The group.
    pub group: String,
    /// The source, as its points name it, or will.
    pub source: String,
    /// The tier.
    pub tier: TierName,
    /// When the point began; `None` if there is none.
    pub started: Option<Timestamp>,
}

/// What there is to tell. `said` is what the last job of a task said when it failed; `since` is when the daemon, or whoever asks, began to
/// look: a tier that never had a point has time from then on.
pub fn alerts(
    agenda: &Agenda,
    newest: &[Newest],
    history: &dyn History,
    said: &dyn Fn(&Task) -> Option<String>,
    now: Timestamp,
) -> Vec<Alert> {
    let goes_on = |newest: &&Newest| !agenda.is_stopped(&newest.group);
    let counts = |newest: &&Newest| newest.started.is_some() || !first_job_runs(newest, history, now);
    let counted = newest.iter().filter(goes_on).filter(counts);
    let late = counted.filter_map(|newest| late(agenda, newest, history, said, now));
    let failing = agenda.tasks().into_iter().filter_map(|task| failing(&task, history, said, now));
    late.chain(failing).collect()
}

fn late(
    agenda: &Agenda,
    newest: &Newest,
    history: &dyn History,
    said: &dyn Fn(&Task) -> Option<String>,
    now: Timestamp,
) -> Option<Alert> {
    let subject = format!("{} {} {}", newest.group, newest.tier, newest.source);
    let task = |work| Task { work, group: Some(newest.group.clone()) };
    let reasons = [Work::Take, Work::Push].map(|work| said(&task(work)));
    let reason = match newest.tier {
        TierName::Local => reasons.into_iter().next().flatten(),
        TierName::Online => reasons.into_iter().rev().flatten().next(),
    };
    let because = reason.map_or_else(String::new, |reason| format!(": {}", last_line(&reason)));
    let what = match newest.started {
        None => format!("there is no good recovery point{because}"),
        Some(started) if is_late(agenda, newest, started, now) => {
            format!("there is no good recovery point since that one{because}")
        }
        Some(started) if was_left_out(newest, started, history) => {
            format!("the last backup of its group took no good recovery point of it{because}")
        }
        Some(_) => return None,
    };
    let online = if newest.tier == TierName::Online { " --online" } else { "" };
    let next_step = format!(
        "`holdfast jobs` shows what was tried; `holdfast backup --group {}{online}` tries it now",
        newest.group
    );
    Some(Alert { name: "no-good-point".to_owned(), subject, since: newest.started, what, next_step })
}

/// Whether a job is on its way that may bring a tier its first point, and none before it failed.
fn first_job_runs(newest: &Newest, history: &dyn History, now: Timestamp) -> bool {
    let works: &[Work] = match newest.tier {
        TierName::Local => &[Work::Take],
        TierName::Online => &[Work::Take, Work::Push],
    };
    works.iter().any(|work| {
        let past = history.past(&Task { work: *work, group: Some(newest.group.clone()) });
        let is_first = past.good.is_none() && past.ended.is_none() && past.failures == 0;
        is_first && past.begun.is_some_and(|begun| now.seconds < begun.seconds.saturating_add(FIRST_JOB))
    })
}

/// Whether a backup of the group was done since and took none of this source: its disk is full, say, or the source is gone.
fn was_left_out(newest: &Newest, started: Timestamp, history: &dyn History) -> bool {
    let done = history.past(&Task { work: Work::Take, group: Some(newest.group.clone()) }).good;
    newest.tier == TierName::Local && done.is_some_and(|begun| started < begun)
}

/// Whether moments passed without a point, and enough time.
fn is_late(agenda: &Agenda, newest: &Newest, started: Timestamp, now: Timestamp) -> bool {
    let mut due = started;
    for _ in 0..MOMENTS {
        match agenda.moment_after(&newest.group, newest.tier, due) {
            Some(moment) => due = moment,
            None => return false,
        }
    }
    due <= now && started.seconds.saturating_add(LATE) <= now.seconds
}

fn failing(
    task: &Task,
    history: &dyn History,
    said: &dyn Fn(&Task) -> Option<String>,
    now: Timestamp,
) -> Option<Alert> {
    let past = history.past(task);
    if past.failures < FAILURES {
        return None;
    }
    let reason = said(task).map_or_else(String::new, |reason| format!(": {}", last_line(&reason)));
    Some(Alert {
        name: JOB_FAILS.to_owned(),
        subject: task.to_string(),
        since: past.good.filter(|good| *good <= now),
        what: format!("it failed {} times in turn{reason}", past.failures),
        next_step: "`holdfast jobs --failed` shows all that was said".to_owned(),
    })
}

/// The reason stands last.
fn last_line(said: &str) -> &str {
    said.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing was said")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::tz::TimeZone;

    use super::*;
    use crate::agenda::Past;
    use crate::config::Config;

    fn at(text: &str) -> Timestamp {
        Timestamp::from_seconds(text.parse::<jiff::Timestamp>().unwrap().as_second())
    }

    fn agenda() -> Agenda {
        let text = "[group.web]\nsources = [\"/s\"]\nlocal.schedule = \"every 15 minutes\"\nonline.schedule = \"22:00\"";
        let config = Config::parse(&[("holdfast.toml".into(), text.to_owned())]).unwrap();
        Agenda::new(&config, "host", TimeZone::UTC, at("2026-01-01T00:00:00Z"))
    }

    fn newest(tier: TierName, started: Option<&str>) -> Newest {
        Newest { group: "web".into(), source: "s".into(), tier, started: started.map(at) }
    }

    fn names(newest: &[Newest], past: Past, now: &str) -> Vec<String> {
        let said = |task: &Task| (past.failures > 0).then(|| format!("first\n{task} cannot\n"));
        let all = alerts(&agenda(), newest, &move |_: &Task| past, &said, at(now));
        all.into_iter().map(|alert| format!("{} {}: {}", alert.name, alert.subject, alert.what)).collect()
    }

    #[test]
    fn a_tier_without_a_point_when_it_should_have_one_is_told_whatever_the_reason() {
        let (quiet, started) = (Past::default(), Some("2026-03-01T10:00:00Z"));
        let local = |now: &str| names(&[newest(TierName::Local, started)], quiet, now).len();
        assert_eq!((local("2026-03-01T10:59:59Z"), local("2026-03-01T11:00:00Z")), (0, 1));
        let online = |now: &str| names(&[newest(TierName::Online, started)], quiet, now).len();
        assert_eq!((online("2026-03-02T21:59:59Z"), online("2026-03-02T22:00:00Z")), (0, 1));
        let none = names(&[newest(TierName::Online, None)], quiet, "2026-03-02T22:00:00Z");
        assert_eq!(none, ["no-good-point web online s: there is no good recovery point"]);
    }

    #[test]
    fn a_tier_without_a_point_waits_for_the_end_of_its_first_job() {
        let now = "2026-03-02T22:00:00Z";
        let told = |past| TierName::ALL.map(|tier| names(&[newest(tier, None)], past, now).len());
        let running = Past { begun: Some(at("2026-03-02T10:00:00Z")), ..Past::default() };
        assert_eq!(told(running), [0, 0]);
        assert_eq!(told(Past { begun: Some(at("2026-03-01T22:00:00Z")), ..running }), [1, 1], "it hangs");
        assert_eq!(told(Past { failures: 1, ..running }), [1, 1]);
        assert_eq!(told(Past { good: running.begun, ..running }), [1, 1]);
        assert_eq!(told(Past { ended: Some(at("2026-03-02T11:00:00Z")), ..running }), [1, 1]);
        // One that had a point is late whatever runs.
        assert_eq!(names(&[newest(TierName::Local, Some("2026-03-01T10:00:00Z"))], running, now).len(), 1);
    }

    #[test]
    fn a_source_of_which_the_last_backup_of_its_group_took_none_is_told_at_once() {
        let (before, now) = (Some("2026-03-02T10:00:00Z"), "2026-03-02T10:16:00Z");
        let past = |good: &str| Past { good: Some(at(good)), ..Past::default() };
        let left_out = past("2026-03-02T10:15:00Z");
        let told = names(&[newest(TierName::Local, before)], left_out, now);
        assert_eq!(
            told,
            ["no-good-point web local s: the last backup of its group took no good recovery point of it"]
        );
        assert_eq!(names(&[newest(TierName::Online, before)], left_out, now), [""; 0]);
        let after = Some("2026-03-02T10:15:01Z");
        assert_eq!(names(&[newest(TierName::Local, after)], left_out, now), [""; 0]);
    }

    #[test]
    fn an_alert_says_what_the_last_job_said() {
        let past = Past { failures: 2, ..Past::default() };
        let told = names(&[newest(TierName::Online, None)], past, "2026-03-02T22:00:00Z");
        assert_eq!(told, ["no-good-point web online s: there is no good recovery point: push web cannot"]);
        let told = names(&[newest(TierName::Local, None)], past, "2026-03-02T22:00:00Z");
        assert_eq!(told, ["no-good-point web local s: there is no good recovery point: backup web cannot"]);
    }

    #[test]
    fn what_fails_again_and_again_is_told_once_for_each_task() {
        let past = |failures| Past { failures, ..Past::default() };
        assert_eq!(names(&[], past(2), "2026-03-02T22:00:00Z"), [] as [String; 0]);
        let told = names(&[], past(3), "2026-03-02T22:00:00Z");
        assert_eq!(told.len(), agenda().tasks().len());
        assert_eq!(told[0], "job-fails backup web: it failed 3 times in turn: backup web cannot");
    }

    #[test]
    fn an_alert_says_what_can_be_typed_and_of_what_its_moment_is() {
        let now = at("2026-03-02T22:00:00Z");
        let past = Past { failures: 3, good: Some(at("2026-03-01T22:00:00Z")), ..Past::default() };
        let newest = TierName::ALL.map(|tier| newest(tier, Some("2026-03-01T10:00:00Z")));
        let all = alerts(&agenda(), &newest, &move |_: &Task| past, &|_| None, now);
        assert!(all[0].next_step.contains("`holdfast backup --group web` tries"), "{all:?}");
        assert!(all[1].next_step.contains("`holdfast backup --group web --online` tries"), "{all:?}");
        assert_eq!([&all[0], &all[2]].map(Alert::word_for_since), ["since", "last done"]);
        assert_eq!(all[2].since, past.good);
    }

    #[test]
    fn a_group_that_is_stopped_misses_no_point() {
        let text = "[group.web]\nsources = [\"/s\"]\nlocal.schedule = \"hourly\"\nstopped = \"keep\"";
        let config = Config::parse(&[("holdfast.toml".into(), text.to_owned())]).unwrap();
        let now = at("2026-03-01T00:00:00Z");
        let agenda = Agenda::new(&config, "host", TimeZone::UTC, now);
        let newest = [None, Some("2026-01-01T00:00:00Z")].map(|started| newest(TierName::Local, started));
        let past = |_: &Task| Past { failures: 9, ..Past::default() };
        let told = alerts(&agenda, &newest, &past, &|_| None, now);
        assert!(told.iter().all(|alert| !alert.subject.contains("web")), "{told:?}");
    }

    #[test]
    fn a_point_from_the_future_is_not_late() {
        assert_eq!(
            names(
                &[newest(TierName::Local, Some("2036-01-01T00:00:00Z"))],
                Past::default(),
                "2026-03-01T00:00:00Z"
            ),
            [] as [String; 0]
        );
    }
}
