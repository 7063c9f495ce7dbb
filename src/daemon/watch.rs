//! What the daemon sees and tells: it looks every few minutes, and after what went wrong, puts down what is open, and has each way tell what
//! it has not told yet. Neither a look nor a way that hangs holds up the loop or each other.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_backup::agenda::{Cut, Lane, Past, Task};
use holdfast_backup::alert::telling::{Event, Found, Known, follow};
use holdfast_backup::ledger::{JobState, LedgerError};
use holdfast_store::clock::Timestamp;
use nix::sys::signal::Signal;

use super::look::Seen;
use super::{Daemon, Happened, job, look, until};
use crate::commands::status::{Answered, VAULT_AWAY};
use crate::telling::{From, Message, Way};
use crate::terminal::text;

/// What a configuration says of it.
#[derive(Debug)]
pub struct Watching {
    /// How often it is looked.
    pub every: Duration,
    /// How people are told.
    pub ways: Vec<Way>,
    /// Where from.
    pub from: From,
    /// Where figures are written.
    pub metrics_file: Option<PathBuf>,
}

/// Vaults are not asked again before so many seconds: in some of them each question costs something.
const VAULTS_EVERY: i64 = 300;

/// A look that is under way.
struct Looking {
    process: u32,
    /// When it began, if it asks the vaults.
    asks: Option<Timestamp>,
    /// It was killed and is still there, as what hangs in the kernel is.
    overdue: bool,
}

/// What is going on.
pub struct Watch {
    plan: Watching,
    next: Timestamp,
    looking: Option<Looking>,
    /// Something happened while it was looked.
    again: bool,
    /// When the vaults were last asked, and what they said.
    vaults: Option<(Timestamp, Vec<Answered>)>,
    /// Tasks that failed and wait to be tried again, of which a vault is back since.
    freed: BTreeSet<Task>,
    /// Ways that are telling.
    telling: BTreeSet<&'static str>,
    /// Ways that failed, which was logged.
    failing: BTreeSet<&'static str>,
    /// Ways that told something since they began, of which the ledger knows nothing.
    unwritten: BTreeSet<&'static str>,
}

impl Watch {
    /// It is first looked after a while: what is due is to be done first.
    pub fn new(plan: Watching, now: Timestamp) -> Self {
        let (telling, failing, unwritten) = Default::default();
        let next = later(now, plan.every);
        let freed = BTreeSet::new();
        Self { plan, next, looking: None, again: false, vaults: None, freed, telling, failing, unwritten }
    }

    /// The vaults were asked; whether one is back.
    fn asked_vaults(&mut self, at: Timestamp, answered: Vec<Answered>) -> bool {
        let (_, before) = self.vaults.replace((at, answered)).unwrap_or((at, Vec::new()));
        let now = self.vaults.iter().flat_map(|(_, now)| now);
        let was_away = |place: &str| before.iter().any(|was| was.place == place && was.trouble.is_some());
        now.into_iter().any(|answered| answered.trouble.is_none() && was_away(&answered.place))
    }

    /// Whether a task need not wait any longer to be tried again.
    pub fn frees(&self, task: &Task) -> bool {
        self.freed.contains(task)
    }

    /// It is tried again.
    pub fn tried(&mut self, task: &Task) {
        self.freed.remove(task);
    }

    /// What the vaults said, if it is not time to ask them again.
    fn known_vaults(&self, now: Timestamp) -> Option<&[Answered]> {
        let (at, answered) = self.vaults.as_ref()?;
        let age = now.seconds.saturating_sub(at.seconds);
        (0..VAULTS_EVERY).contains(&age).then_some(answered)
    }

    fn way_names(&self) -> Vec<&'static str> {
        self.plan.ways.iter().map(Way::name).collect()
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp { seconds: now.seconds.saturating_add(by.as_secs().cast_signed()), ..now }
}

fn warn_of(result: Result<(), LedgerError>) {
    if let Err(error) = result {
        tracing::error!("{error}");
    }
}

impl Daemon {
    /// Begins with what an earlier daemon left, or with other ways than before.
    pub(super) fn set_ways(&self) {
        warn_of(self.parts.ledger.set_ways(&self.watch.way_names()));
    }

    /// Another configuration holds.
    pub(super) fn watch_as(&mut self, plan: Watching) {
        self.watch.plan = plan;
        self.watch.vaults = None;
        self.watch.failing.clear();
        self.set_ways();
        self.look();
    }

    /// Looks, if it is time; how long until it is.
    pub(super) fn look_if_due(&mut self) -> Duration {
        let now = self.parts.clock.now();
        // A clock that was set back does not put it off.
        self.watch.next = self.watch.next.min(later(now, self.watch.plan.every));
        if self.watch.next <= now {
            self.look();
        }
        until(self.watch.next, now)
    }

    /// Looks after a job that was not done, and after any as long as something is open, for that may have been what it was.
    pub(super) fn look_after(&mut self, state: JobState) {
        let open = || self.parts.ledger.open_alerts().is_ok_and(|open| !open.is_empty());
        if !self.stopping && (state != JobState::Done || open()) {
            self.look();
        }
    }

    pub(super) fn look(&mut self) {
        let now = self.parts.clock.now();
        self.watch.next = later(now, self.watch.plan.every);
        match &self.watch.looking {
            Some(Looking { overdue: true, .. }) => return self.take_found(&look::overdue()),
            Some(_) => return self.watch.again = true,
            None => {}
        }
        let known = self.watch.known_vaults(now);
        let asks = known.is_none().then_some(now);
        match look::start(&self.parts.caller, self.watch.plan.metrics_file.as_deref(), known) {
            Ok(child) => {
                self.watch.looking = Some(Looking { process: child.id().unwrap_or(0), asks, overdue: false });
                tokio::spawn(look::see(child, Arc::clone(&self.parts.clock), self.to_loop.clone()));
            }
            Err(error) => self.take_found(&look::failed(&format!("its process cannot be started: {error}"))),
        }
    }

    /// A look has found something.
    pub(super) fn looked(&mut self, seen: Seen) {
        let Seen { found, vaults } = seen;
        let found = match self.watch.looking.as_ref().and_then(|looking| looking.asks) {
            Some(at) if found.whole => {
                if self.watch.asked_vaults(at, vaults) {
                    self.free_what_waits_for_vaults();
                }
                found
            }
            // What they said before was found before.
            _ => found.passing_over(VAULT_AWAY),
        };
        if !self.stopping {
            self.take_found(&found);
        }
        self.look_ended();
    }

    /// What failed is tried again at once, for that was the reason, most likely.
    fn free_what_waits_for_vaults(&mut self) {
        let tasks = self.agenda.tasks().into_iter().filter(|task| task.work.lane() == Lane::Vault);
        let waits = |past: Past| past.failures > 0 && past.cut != Some(Cut::Cancelled);
        let failed = |task: &Task| self.parts.ledger.past(task).is_ok_and(waits);
        let freed: Vec<Task> = tasks.filter(failed).collect();
        self.watch.freed.extend(freed);
    }

    /// A look takes too long. Until its process is gone there is no other one.
    pub(super) fn look_overdue(&mut self) {
        if let Some(looking) = &mut self.watch.looking {
            looking.overdue = true;
        }
        if !self.stopping {
            self.take_found(&look::overdue());
        }
    }

    /// The process of a look is gone.
    pub(super) fn look_ended(&mut self) {
        self.watch.looking = None;
        if std::mem::take(&mut self.watch.again) && !self.stopping {
            self.look();
        }
    }

    /// Nothing is looked at any more.
    pub(super) fn stop_looking(&self) {
        if let Some(looking) = &self.watch.looking {
            job::signal(looking.process, Signal::SIGKILL);
        }
    }

    fn take_found(&mut self, found: &Found) {
        let ledger = &self.parts.ledger;
        let followed = ledger.open_alerts().map(|open| follow(open, found, self.parts.clock.now()));
        let put = followed.and_then(|followed| {
            ledger.follow(&followed, &self.watch.way_names())?;
            Ok(followed)
        });
        match put {
            Ok(followed) => followed.iter().for_each(log),
            Err(error) => tracing::error!("{error}"),
        }
        self.tell();
    }

    /// Has each way tell what it has not told, unless it is at it.
    fn tell(&mut self) {
        for way in &self.watch.plan.ways {
            let name = way.name();
            if self.watch.telling.contains(name) {
                continue;
            }
            let untold = self.parts.ledger.untold(name).unwrap_or_else(|error| {
                tracing::error!("{error}");
                Vec::new()
            });
            let from = &self.watch.plan.from;
            let mut messages = Vec::new();
            for untold in &untold {
                let no = untold.alert.no.unwrap_or(0);
                let about = |event: &Event| (no, *event, Message::about(*event, &untold.alert.alert, from));
                messages.extend(untold.events.iter().map(about));
            }
            if !messages.is_empty() {
                self.watch.telling.insert(name);
                tokio::spawn(tell_all(way.clone(), messages, from.clone(), self.to_loop.clone()));
            }
        }
    }

    /// A way has told something.
    pub(super) fn told(&mut self, way: &'static str, alert: i64, event: Event) {
        if let Err(error) = self.parts.ledger.told(alert, way, event) {
            tracing::error!("{error}");
            self.watch.unwritten.insert(way);
        } else if self.watch.failing.remove(way) {
            tracing::info!("alerts can be told by {way} again");
        }
    }

    /// A way has told all that it had, or cannot. What failed is tried again after the next look.
    pub(super) fn way_ended(&mut self, way: &'static str, result: Result<(), String>) {
        self.watch.telling.remove(way);
        // It would be told again at once, and so on without an end.
        let result = match self.watch.unwritten.remove(way) {
            true => result.and(Err("that it was told cannot be put down".to_owned())),
            false => result,
        };
        match result {
            Err(error) if self.watch.failing.insert(way) => {
                tracing::error!("alerts cannot be told by {way}, which is tried again: {error}");
            }
            Err(error) => tracing::debug!("alerts cannot be told by {way}: {error}"),
            // Something may have come meanwhile.
            Ok(()) if !self.stopping => self.tell(),
            Ok(()) => {}
        }
    }
}

async fn tell_all(
    way: Way,
    messages: Vec<(i64, Event, Message)>,
    from: From,
    to_loop: tokio::sync::mpsc::Sender<Happened>,
) {
    let mut result = Ok(());
    for (alert, event, message) in messages {
        result = way.tell(message, &from.zone).await;
        if result.is_err() {
            break;
        }
        let _ = to_loop.send(Happened::Told(way.name(), alert, event)).await;
    }
    let _ = to_loop.send(Happened::WayEnded(way.name(), result)).await;
}

/// The log is always told.
fn log((known, event): &(Known, Option<Event>)) {
    if let Some(event) = event {
        let alert = &known.alert;
        let line = format!("alert {event}: {} ({}): {}", alert.name, alert.subject, alert.what);
        let line = text::printable(line.as_bytes());
        match event {
            Event::Closed => tracing::info!("{line}"),
            Event::Opened | Event::Still => tracing::warn!("{line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_backup::agenda::Work;
    use holdfast_backup::alert::Alert;
    use holdfast_backup::ledger::{Ended, Ledger};
    use holdfast_store::clock::ManualClock;

    use super::super::testing::{START, daemon};
    use super::*;

    #[test]
    fn it_is_looked_every_few_minutes_whatever_the_clock_does_and_never_twice_at_once() {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(START));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut daemon = daemon("", dir.path(), &clock);
            clock.advance(Duration::from_secs(299));
            daemon.look_if_due();
            assert!(daemon.watch.looking.is_none());
            clock.advance(Duration::from_secs(1));
            let sleep = daemon.look_if_due();
            assert!(daemon.watch.looking.is_some() && sleep > Duration::from_secs(299), "{sleep:?}");
            let process = daemon.watch.looking.as_ref().unwrap().process;
            daemon.look_after(JobState::Failed);
            assert!(daemon.watch.again && daemon.watch.looking.as_ref().unwrap().process == process);
            daemon.look_ended();
            assert!(
                daemon.watch.looking.as_ref().unwrap().process != process,
                "what happened meanwhile is seen"
            );
            daemon.look_ended();
            // Nothing is open, and all is done.
            daemon.look_after(JobState::Done);
            assert!(daemon.watch.looking.is_none());
            // As if the clock had been years ahead.
            daemon.watch.next = later(START, Duration::from_secs(1 << 30));
            daemon.look_if_due();
            clock.advance(Duration::from_secs(300));
            daemon.look_if_due();
            assert!(daemon.watch.looking.is_some());
        });
    }

    #[test]
    fn vaults_are_not_asked_again_for_five_minutes_and_what_they_said_is_found_once() {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(START));
        let mut daemon = daemon("", dir.path(), &clock);
        let alert = |trouble: &str| Alert {
            name: VAULT_AWAY.into(),
            subject: "/v".into(),
            since: None,
            what: trouble.into(),
            next_step: String::new(),
        };
        let mut now = START;
        // After so many seconds: whether they are asked, and in how many looks in a row the vault was away then.
        for (after, asks, looks) in
            [(0, true, 1), (299, false, 1), (1, true, 2), (100, false, 2), (-500, true, 3)]
        {
            now.seconds += after;
            assert_eq!(daemon.watch.known_vaults(now).is_none(), asks, "{after}");
            daemon.watch.looking = Some(Looking { process: 0, asks: asks.then_some(now), overdue: false });
            let vaults = vec![Answered { place: "/v".into(), trouble: Some("gone".into()) }];
            daemon.looked(Seen {
                found: Found { alerts: vec![alert("gone")], whole: true, passed_over: None },
                vaults,
            });
            let open = daemon.parts.ledger.open_alerts().unwrap();
            assert_eq!((open.len(), open[0].looks), (1, looks), "{after}");
        }
    }

    #[test]
    fn what_was_told_and_cannot_be_put_down_is_told_again_after_the_next_look_and_not_at_once() {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(START));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // What is spawned does not run: this test is the way.
        let _entered = runtime.enter();
        let mut daemon = daemon("", dir.path(), &clock);
        daemon.watch.plan.ways = vec![Way::Webhook("http://localhost:1/".parse().unwrap())];
        let is_telling = |daemon: &Daemon| daemon.watch.telling.contains("webhook");
        (0..2).for_each(|_| daemon.take_found(&look::failed("gone")));
        let untold = daemon.parts.ledger.untold("webhook").unwrap();
        let no = untold[0].alert.no.unwrap();
        assert_eq!((untold.len(), is_telling(&daemon)), (1, true));
        let told = |daemon: &mut Daemon| {
            daemon.told("webhook", no, Event::Opened);
            daemon.way_ended("webhook", Ok(()));
        };
        let written = std::mem::replace(&mut daemon.parts.ledger, Ledger::look(dir.path()).unwrap().unwrap());
        for _ in 0..2 {
            told(&mut daemon);
            assert!(!is_telling(&daemon) && daemon.watch.failing.contains("webhook"));
            daemon.take_found(&look::failed("gone"));
            assert!(is_telling(&daemon), "it is tried again");
        }
        daemon.parts.ledger = written;
        told(&mut daemon);
        assert!(!is_telling(&daemon) && daemon.watch.failing.is_empty());
        daemon.take_found(&look::failed("gone"));
        assert!(!is_telling(&daemon) && daemon.parts.ledger.untold("webhook").unwrap().is_empty());
    }

    #[test]
    fn what_failed_is_tried_again_once_as_soon_as_a_look_sees_that_a_vault_is_back() {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(START));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let group =
            "[group.web]\nsources = [\"/s\"]\nlocal.schedule = \"yearly\"\nonline.schedule = \"yearly\"\n";
        let mut daemon = daemon(group, dir.path(), &clock);
        let ended = |daemon: &Daemon, no, state| {
            let end = Ended { at: START, state, said: String::new(), points: Vec::new(), sent: None };
            daemon.parts.ledger.end(no, &end).unwrap();
        };
        let failed = |daemon: &Daemon, no| ended(daemon, no, JobState::Failed);
        let push = Task { work: Work::Push, group: Some("web".into()) };
        (0..7).for_each(|_| failed(&daemon, daemon.parts.ledger.begin(&push, false, START).unwrap()));
        let pushes = |daemon: &mut Daemon| {
            daemon.start_what_is_due();
            let pushing = std::mem::take(&mut daemon.active).remove(&Lane::Vault);
            pushing.map(|active| failed(daemon, active.no)).is_some()
        };
        // After each look in which the vault was away, or answered: whether the upload is tried.
        for (trouble, tries) in
            [(None, false), (Some("gone"), false), (Some("gone"), false), (None, true), (None, false)]
        {
            daemon.watch.looking = Some(Looking { process: 0, asks: Some(START), overdue: false });
            let vaults = vec![Answered { place: "/v".into(), trouble: trouble.map(str::to_owned) }];
            daemon.looked(Seen { found: Found { whole: true, ..Found::default() }, vaults });
            assert_eq!(pushes(&mut daemon), tries, "{trouble:?}");
        }
        // Somebody wants none before its next moment.
        let no = daemon.parts.ledger.begin(&push, false, START).unwrap();
        ended(&daemon, no, JobState::Cancelled);
        daemon.free_what_waits_for_vaults();
        assert!(!pushes(&mut daemon));
    }

    #[test]
    fn a_look_that_cannot_be_ended_is_seen_at_each_look_and_there_is_no_other() {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(START));
        let mut daemon = daemon("", dir.path(), &clock);
        daemon.watch.looking = Some(Looking { process: 0, asks: None, overdue: false });
        daemon.look_overdue();
        daemon.look();
        let open = daemon.parts.ledger.open_alerts().unwrap();
        assert_eq!((open.len(), open[0].looks, open[0].told.is_some()), (1, 2, true));
        assert!(daemon.watch.looking.is_some());
    }
}
