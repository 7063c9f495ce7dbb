//! Lives of a daemon with a clock that is told what time it is: whatever happens, the work that the plan names is done, and no more.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;
use crate::config::Config;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

const TWO_TIERS: &str = r#"
time-zone = "Europe/Berlin"
reclaim = { schedule = "04:30" }
check = { schedule = "never" }
scrub = { schedule = "never" }
drill = { schedule = "never" }
[group.web]
sources = ["/srv/www"]
local = { schedule = "every 15 minutes", keep = { within = "7d" } }
online = { schedule = "22:00", keep = { daily = 14 } }
"#;

fn at(text: &str) -> Timestamp {
    Timestamp::from_seconds(text.parse::<jiff::Timestamp>().unwrap().as_second())
}

fn task(work: Work) -> Task {
    let of_store = [Work::Reclaim, Work::ReclaimVaults, Work::Check, Work::Scrub, Work::Drill];
    let group = (!of_store.contains(&work)).then(|| "web".to_owned());
    Task { work, group }
}

/// A daemon's life: jobs take no time unless told, and end as they are told.
struct Life {
    agenda: Agenda,
    past: BTreeMap<Task, Past>,
    now: Timestamp,
    done: Vec<(Timestamp, Work)>,
    vault_is_there: bool,
}

impl Life {
    fn new(config: &str, now: &str) -> Self {
        let config = Config::parse(&[("holdfast.toml".into(), config.to_owned())]).unwrap();
        let now = at(now);
        let agenda = Agenda::new(&config, "host", TimeZone::UTC, now);
        Self { agenda, past: BTreeMap::new(), now, done: Vec::new(), vault_is_there: true }
    }

    fn next(&self, task: &Task) -> Option<Timestamp> {
        self.agenda.next(task, &self.past, self.now)
    }

    fn run(&mut self, task: &Task) {
        let past = self.past.entry(task.clone()).or_default();
        (past.begun, past.ended, past.cut) = (Some(self.now), Some(self.now), None);
        if task.work == Work::Push && !self.vault_is_there {
            past.failures += 1;
            return;
        }
        (past.good, past.failures) = (Some(self.now), 0);
        self.done.push((self.now, task.work));
    }

    /// It was begun before and has been cut off now.
    fn cut_off(&mut self, work: Work, cut: Cut) {
        let past = self.past.entry(task(work)).or_default();
        (past.ended, past.cut) = (Some(self.now), Some(cut));
    }

    /// Does what is due until nothing is, then lets the time come at which something is.
    fn live_until(&mut self, end: Timestamp) {
        loop {
            let due =
                self.agenda.tasks().into_iter().find(|task| self.next(task).is_some_and(|at| at <= self.now));
            if let Some(task) = due {
                self.run(&task);
                continue;
            }
            match self.agenda.tasks().iter().filter_map(|task| self.next(task)).min() {
                Some(next) if next < end => self.now = next,
                _ => break,
            }
        }
        self.now = end;
    }

    fn times(&self, work: Work) -> Vec<Timestamp> {
        self.done.iter().filter(|(_, done)| *done == work).map(|(at, _)| *at).collect()
    }
}

#[test]
fn a_year_has_all_its_moments_and_no_others() {
    let mut life = Life::new(TWO_TIERS, "2026-01-01T00:00:00Z");
    life.live_until(at("2027-01-01T00:00:00Z"));
    let taken = life.times(Work::Take);
    assert_eq!(taken.len() as i64, 365 * DAY / 900);
    assert!(taken.iter().all(|at| at.seconds % 900 == 0));
    // At 22:00 by the clock on the wall, on both sides of both changes; the first one at once, for a point had never been there.
    let pushed = life.times(Work::Push);
    assert_eq!(pushed.len(), 1 + 365);
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    for moment in &pushed[1..] {
        let local = jiff::Timestamp::from_second(moment.seconds).unwrap().to_zoned(zone.clone());
        assert_eq!((local.hour(), local.minute()), (22, 0), "{local}");
    }
    assert_eq!((life.times(Work::Reclaim).len(), life.times(Work::ReclaimVaults).len()), (365, 365));
    assert_eq!(life.times(Work::ExpireLocal).len(), taken.len());
    assert_eq!(life.times(Work::ExpireOnline).len(), 366);
}

#[test]
fn what_was_missed_is_done_once() {
    let mut life = Life::new(TWO_TIERS, "2026-03-01T00:00:00Z");
    life.live_until(at("2026-03-02T00:00:00Z"));
    life.done.clear();
    // The machine was off for three days.
    life.now = at("2026-03-05T10:07:00Z");
    life.live_until(at("2026-03-05T10:30:00Z"));
    let expected = [
        (at("2026-03-05T10:07:00Z"), Work::Take),
        (at("2026-03-05T10:07:00Z"), Work::Push),
        (at("2026-03-05T10:07:00Z"), Work::ExpireLocal),
        (at("2026-03-05T10:07:00Z"), Work::ExpireOnline),
        (at("2026-03-05T10:07:00Z"), Work::Reclaim),
        (at("2026-03-05T10:07:00Z"), Work::ReclaimVaults),
        (at("2026-03-05T10:15:00Z"), Work::Take),
        (at("2026-03-05T10:15:00Z"), Work::ExpireLocal),
    ];
    assert_eq!(life.done, expected);
}

#[test]
fn a_clock_that_is_set_back_or_forth_silences_nothing() {
    let mut life = Life::new(TWO_TIERS, "2026-03-01T00:00:00Z");
    life.live_until(at("2026-03-02T00:00:00Z"));
    for jump in
        ["2036-01-01T00:00:00Z", "2026-03-02T00:01:00Z", "1970-01-02T00:00:00Z", "2026-03-02T00:02:00Z"]
    {
        life.now = at(jump);
        life.done.clear();
        let end = Timestamp::from_seconds(life.now.seconds + 2 * DAY);
        life.live_until(end);
        let taken = life.times(Work::Take);
        assert!((192..=193).contains(&taken.len()), "{jump}: {} points", taken.len());
        assert!((2..=3).contains(&life.times(Work::Push).len()), "{jump}: {:?}", life.times(Work::Push));
        assert!((192..=193).contains(&life.times(Work::ExpireLocal).len()), "{jump}");
    }
}

#[test]
fn a_vault_that_is_away_delays_no_point_and_is_asked_again_until_it_is_back() {
    let mut life = Life::new(TWO_TIERS, "2026-03-01T00:00:00Z");
    life.live_until(at("2026-03-02T00:00:00Z"));
    life.done.clear();
    life.vault_is_there = false;
    life.live_until(at("2026-03-09T00:00:00Z"));
    assert_eq!(life.times(Work::Push), []);
    assert_eq!(life.times(Work::Take).len() as i64, 7 * DAY / 900);
    life.vault_is_there = true;
    life.live_until(at("2026-03-09T01:01:00Z"));
    assert_eq!(life.times(Work::Push).len(), 1, "once, within the longest wait");
}

#[test]
fn what_was_cancelled_waits_for_its_next_moment_whatever_failed_before() {
    let mut life = Life::new(TWO_TIERS, "2026-03-01T00:00:00Z");
    life.live_until(at("2026-03-02T00:00:00Z"));
    life.vault_is_there = false;
    life.live_until(at("2026-03-02T21:05:00Z"));
    assert!(life.past[&task(Work::Push)].failures > 0);
    life.vault_is_there = true;
    life.cut_off(Work::Push, Cut::Cancelled);
    life.done.clear();
    life.live_until(at("2026-03-04T00:00:00Z"));
    assert_eq!(life.times(Work::Push), [at("2026-03-03T21:00:00Z")]);
    // The very first one, too.
    let mut life = Life::new(TWO_TIERS, "2026-03-01T00:00:00Z");
    life.run(&task(Work::Take));
    life.past.insert(task(Work::Push), Past { begun: Some(life.now), ..Past::default() });
    life.cut_off(Work::Push, Cut::Cancelled);
    life.live_until(at("2026-03-02T00:00:00Z"));
    assert_eq!(life.times(Work::Push), [at("2026-03-01T21:00:00Z")]);
    for work in [Work::Take, Work::Reclaim] {
        let failed = Past { begun: Some(life.now), ended: Some(life.now), failures: 3, ..Past::default() };
        life.past.insert(task(work), failed);
        let retried = life.next(&task(work)).unwrap();
        life.cut_off(work, Cut::Cancelled);
        assert!(life.next(&task(work)).unwrap() > retried, "{work}");
    }
}

#[test]
fn what_was_lost_goes_on_a_minute_later_however_often_that_was() {
    let mut life = Life::new(TWO_TIERS, "2026-03-01T00:00:00Z");
    life.live_until(at("2026-03-02T00:00:00Z"));
    for work in [Work::Take, Work::Push, Work::Reclaim] {
        for failures in [0, 7] {
            let begun = Some(life.now);
            life.past.insert(task(work), Past { begun, failures, good: None, ..Past::default() });
            life.cut_off(work, Cut::Lost);
            assert_eq!(life.next(&task(work)), Some(at("2026-03-02T00:01:00Z")), "{work} {failures}");
        }
    }
}

#[test]
fn waits_between_tries_grow_to_an_hour() {
    let waits: Vec<u64> = (1..=9).map(|failures| retry_after(failures).as_secs()).collect();
    assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    assert_eq!(retry_after(u32::MAX).as_secs(), 3600);
}

#[test]
fn what_fails_is_tried_before_its_next_moment_and_a_moment_does_not_wait_for_the_next_try() {
    let life = |begun: &str, failures: u32| {
        let mut life = Life::new("[group.web]\nsources = [\"/s\"]\nlocal.schedule = \"hourly\"", begun);
        let past = Past { begun: Some(at(begun)), good: None, ended: Some(at(begun)), failures, cut: None };
        life.past.insert(task(Work::Take), past);
        life.next(&task(Work::Take)).unwrap()
    };
    assert_eq!(life("2026-03-01T10:00:00Z", 1), at("2026-03-01T10:01:00Z"));
    assert_eq!(life("2026-03-01T10:50:00Z", 9), at("2026-03-01T11:00:00Z"));
}

#[test]
fn nothing_is_pushed_before_a_point_was_taken_for_it() {
    let mut life = Life::new(TWO_TIERS, "2026-03-01T00:00:00Z");
    assert_eq!(life.next(&task(Work::Push)), None);
    let failed = Past { begun: Some(life.now), good: None, ended: Some(life.now), failures: 1, cut: None };
    life.past.insert(task(Work::Take), failed);
    assert_eq!(life.next(&task(Work::Push)), None);
    life.run(&task(Work::Take));
    assert_eq!(life.next(&task(Work::Push)), Some(life.now));
    life.run(&task(Work::Push));
    // Points of the day are none of the online tier's.
    life.now = at("2026-03-01T20:45:00Z");
    life.run(&task(Work::Take));
    assert_eq!(life.next(&task(Work::Push)), None);
    life.now = at("2026-03-01T21:00:00Z");
    life.run(&task(Work::Take));
    assert_eq!(life.next(&task(Work::Push)), Some(life.now));
}

#[test]
fn points_of_each_minute_are_expired_every_other_one() {
    let text =
        "[group.web]\nsources = [\"/s\"]\nlocal = { schedule = \"every 1 minute\", keep = { last = 5 } }";
    let mut life = Life::new(text, "2026-03-01T10:00:00Z");
    life.live_until(at("2026-03-01T11:00:00Z"));
    assert_eq!(life.times(Work::Take).len(), 60);
    assert_eq!(life.times(Work::ExpireLocal).len(), 30);
}

#[test]
fn what_is_in_no_hurry_waits_for_its_first_moment() {
    let life = Life::new(TWO_TIERS, "2026-03-01T10:00:00Z");
    assert_eq!(life.next(&task(Work::Reclaim)), Some(at("2026-03-02T03:30:00Z")));
    assert_eq!(life.next(&task(Work::Check)), None, "never");
    assert!(!life.agenda.tasks().contains(&task(Work::Check)));
}

#[test]
fn it_is_looked_whether_all_is_there_and_some_of_it_is_read_each_day_if_nobody_says_otherwise() {
    let group = "[group.web]\nsources = [\"/s\"]\nlocal.schedule = \"hourly\"";
    let mut life = Life::new(group, "2026-03-01T00:00:00Z");
    life.live_until(at("2026-03-08T00:00:00Z"));
    assert_eq!((life.times(Work::Check).len(), life.times(Work::Scrub).len()), (7, 7));
    assert_eq!(life.times(Work::Drill).len(), 1, "and once a week it is tried whether all can be had back");
    assert_ne!(life.times(Work::Check)[0], life.times(Work::Scrub)[0]);
    let life = Life::new(&format!("scrub.schedule = \"never\"\n{group}"), "2026-03-01T00:00:00Z");
    assert_eq!(life.next(&task(Work::Scrub)), None);
    assert!(!life.agenda.tasks().contains(&task(Work::Scrub)));
}

#[test]
fn space_in_vaults_is_freed_beside_everything_but_expiry_there_unless_the_configuration_says_no() {
    for (work, _) in WORDS.iter().filter(|(work, _)| *work != Work::ReclaimVaults) {
        assert_ne!(work.lane(), Work::ReclaimVaults.lane());
        let waits = [(*work, Work::ReclaimVaults), (Work::ReclaimVaults, *work)]
            .map(|(one, other)| one.begins_after().contains(&other));
        assert_eq!(waits, [*work == Work::ExpireOnline; 2], "{work}");
    }
    let alone = TWO_TIERS.replace("schedule = \"04:30\"", "schedule = \"04:30\", vaults = false");
    let life = Life::new(&alone, "2026-03-01T10:00:00Z");
    let tasks = life.agenda.tasks();
    assert!(tasks.contains(&task(Work::Reclaim)) && !tasks.contains(&task(Work::ReclaimVaults)));
}

#[test]
fn space_is_freed_beside_a_backup_that_comes_and_begins_beside_none() {
    assert_ne!(Work::Reclaim.lane(), Work::Take.lane());
    assert_eq!(Work::Reclaim.begins_after(), [Work::Take, Work::ExpireLocal]);
    assert!([Work::Take, Work::ExpireLocal].iter().all(|work| work.begins_after().is_empty()));
}

#[test]
fn tiers_without_a_rule_are_not_expired_and_groups_without_a_vault_not_pushed() {
    let life =
        Life::new("[group.web]\nsources = [\"/s\"]\nlocal.schedule = \"hourly\"", "2026-03-01T10:00:00Z");
    let works: Vec<Work> = life.agenda.tasks().iter().map(|task| task.work).collect();
    assert_eq!(
        works,
        [Work::Take, Work::Reclaim, Work::ReclaimVaults, Work::Check, Work::Scrub, Work::Drill]
    );
}

#[test]
fn a_group_that_is_stopped_takes_nothing_and_is_expired_once_a_day_if_it_lets_go() {
    let stopped = |how: &str| TWO_TIERS.replace("sources =", &format!("stopped = \"{how}\"\nsources ="));
    let works = |life: &Life| -> Vec<Work> { life.agenda.tasks().iter().map(|task| task.work).collect() };
    let mut life = Life::new(&stopped("until-expiry"), "2026-03-01T10:00:00Z");
    assert_eq!(works(&life), [Work::ExpireLocal, Work::ExpireOnline, Work::Reclaim, Work::ReclaimVaults]);
    life.live_until(at("2026-03-11T10:00:00Z"));
    for work in [Work::ExpireLocal, Work::ExpireOnline] {
        assert_eq!(life.times(work).len(), 10);
        assert_eq!(life.times(work)[1], at("2026-03-02T10:00:00Z"));
    }
    let life = Life::new(&stopped("keep"), "2026-03-01T10:00:00Z");
    assert_eq!(works(&life), [Work::Reclaim, Work::ReclaimVaults]);
    assert_eq!(life.next(&task(Work::Take)), None);
    assert!(life.agenda.is_stopped("web") && !life.agenda.is_stopped("db"));
    assert_eq!(life.agenda.moment_after("web", TierName::Local, life.now), None);
}

#[test]
fn machines_come_at_their_own_time() {
    let config = "[group.web]\nsources = [\"/s\"]\nlocal = { schedule = \"daily\", jitter = \"1 hour\" }";
    let config = Config::parse(&[("holdfast.toml".into(), config.to_owned())]).unwrap();
    let (began, now) = (at("2026-03-01T12:00:00Z"), at("2026-03-01T13:00:00Z"));
    let past = |_: &Task| {
        let began = Some(began);
        Past { begun: began, good: began, ended: began, failures: 0, cut: None }
    };
    let next = |host: &str| {
        Agenda::new(&config, host, TimeZone::UTC, now).next(&task(Work::Take), &past, now).unwrap().seconds
    };
    let midnight = at("2026-03-02T00:00:00Z").seconds;
    let later: Vec<i64> = ["a", "b", "c"].map(|host| next(host) - midnight).into();
    assert!(later.iter().all(|later| (0..=HOUR).contains(later)), "{later:?}");
    assert!(later[0] != later[1] && later[1] != later[2], "{later:?}");
    assert_eq!(next("a"), next("a"));
}

#[test]
fn words_of_work_are_read_as_they_are_written() {
    for (work, word) in WORDS {
        assert_eq!((work.to_string().as_str(), Work::from_str(word)), (word, Ok(work)));
    }
    assert!(Work::from_str("").is_err());
}
