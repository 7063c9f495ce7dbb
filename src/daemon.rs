//! The daemon of a store: does what is due, one job after the other in each lane, and answers whoever asks.
//!
//! It holds nothing that matters: what is due follows from the configuration and the ledger (`holdfast_backup::agenda`), and a job is a
//! process of its own (`job`). So it may be killed at any time; the next one does what is due then.
//!
//! One loop takes what happens: a question, the end of a job, a signal, the time that something is due. No more than that is decided
//! anywhere else.

mod ask;
mod control;
mod history;
mod job;
mod look;
mod questions;
pub mod talk;
#[cfg(test)]
mod testing;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use holdfast_backup::agenda::{Agenda, Lane, Task, Work};
use holdfast_backup::alert::telling::Event;
use holdfast_backup::ledger::{Ended, JobNo, JobState, Ledger, LedgerError};
use holdfast_store::clock::{Clock, Timestamp};
use holdfast_store::id::RecoveryPointId;
use holdfast_store::staging::give_up_reserve;
use nix::sys::signal::Signal;
use tokio::sync::mpsc::{Receiver, Sender, channel};

pub use ask::{reload, through_daemon};
pub use job::{Caller, MARK, be_nice};
pub use look::VAULTS;
pub use watch::Watching;

use crate::notify::Manager;
use crate::terminal::text;
use control::Answers;
use job::Hearing;
use look::Seen;
use talk::{Answer, Question};
use watch::Watch;

/// How long the daemon sleeps at most: a clock may be put forward meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(20);
/// A job that was asked to stop and does not is killed after this.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// What waits to be taken by the loop.
const QUEUE: usize = 256;

/// What the loop takes.
#[derive(Debug)]
pub enum Happened {
    /// Somebody asks.
    Asked(Question, Answers),
    /// The process of a job ended.
    Ended(JobNo, Result<ExitStatus, String>),
    /// A job was asked to stop a while ago.
    Overdue(JobNo),
    /// It was looked.
    Looked(Seen),
    /// It is looked for too long: the process was killed.
    LookOverdue,
    /// The process of a look that was overdue is gone.
    OverdueLookEnded,
    /// A way has told an event of an alert.
    Told(&'static str, i64, Event),
    /// A way has told all that there was to tell, or cannot.
    WayEnded(&'static str, Result<(), String>),
    /// The configuration is to be read again.
    Reload,
    /// The daemon is to end.
    Stop,
}

/// What a daemon is made of.
pub struct Parts {
    /// The store's directory.
    pub store: PathBuf,
    /// The jobs so far.
    pub ledger: Ledger,
    /// How jobs are started.
    pub caller: Caller,
    /// Reads the configuration, or says what is wrong with it.
    pub read: Box<dyn Fn() -> Result<Planned, String>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who started this process.
    pub manager: Manager,
    /// How often he wants to be told that it is well.
    pub watchdog: Option<Duration>,
}

/// What a configuration asks for.
#[derive(Debug)]
pub struct Planned {
    /// What is to be done, and when.
    pub agenda: Agenda,
    /// How often it is looked whether all is well, and who is told.
    pub watching: Watching,
    /// How nice jobs are to other programs.
    pub nice: u8,
}

/// A job that runs.
struct Active {
    no: JobNo,
    task: Task,
    process: u32,
    hearing: Hearing,
    asked_to_stop: bool,
    /// Points that it was asked for by name.
    points: Vec<RecoveryPointId>,
    /// Who waits for its end.
    waiting: Vec<Answers>,
}

/// A task that a person asked for and that waits for its lane.
struct Wanted {
    task: Task,
    /// Points that are to be in the vaults then, if it puts any there.
    points: Vec<RecoveryPointId>,
    answers: Vec<Answers>,
}

struct Daemon {
    parts: Parts,
    agenda: Agenda,
    since: Timestamp,
    trouble: Option<String>,
    active: BTreeMap<Lane, Active>,
    wanted: VecDeque<Wanted>,
    watch: Watch,
    to_loop: Sender<Happened>,
    stopping: bool,
}

/// Serves until it is asked to stop.
/// It goes by `planned`; `trouble` says why that is not what the configuration says now, if it is not.
pub fn run(parts: Parts, planned: Planned, trouble: Option<String>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let served = runtime.block_on(serve(parts, planned, trouble));
    // A server of mail that does not answer is not waited for.
    runtime.shutdown_background();
    served
}

async fn serve(parts: Parts, planned: Planned, trouble: Option<String>) -> Result<(), String> {
    if let Some(trouble) = &trouble {
        tracing::error!("the configuration has mistakes, and that of before holds: {trouble}");
    }
    let listener =
        control::listen(&parts.store).map_err(|error| format!("cannot make its socket: {error}"))?;
    let (to_loop, mut happened) = channel(QUEUE);
    watch_signals(&to_loop).map_err(|error| format!("cannot watch for signals: {error}"))?;
    tokio::spawn(control::serve(listener, to_loop.clone(), Arc::clone(&parts.clock)));
    let since = parts.clock.now();
    let mut daemon = Daemon {
        agenda: planned.agenda,
        since,
        trouble,
        active: BTreeMap::new(),
        wanted: VecDeque::new(),
        watch: Watch::new(planned.watching, since),
        to_loop,
        stopping: false,
        parts,
    };
    daemon.parts.caller.nice = planned.nice;
    daemon.note_lost();
    daemon.set_ways();
    daemon.parts.manager.ready(&daemon.present().sentence());
    daemon.live(&mut happened).await;
    control::leave(&daemon.parts.store);
    Ok(())
}

fn watch_signals(to_loop: &Sender<Happened>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    for kind in kinds {
        let (mut stream, to_loop) = (signal(kind)?, to_loop.clone());
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                let what = if kind == SignalKind::hangup() { Happened::Reload } else { Happened::Stop };
                if to_loop.send(what).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

impl Daemon {
    async fn live(&mut self, happened: &mut Receiver<Happened>) {
        loop {
            let sleep = match self.stopping {
                true => SLEEP_MAX,
                false => self.start_what_is_due().min(self.look_if_due()),
            };
            if self.stopping && self.active.is_empty() {
                return;
            }
            self.parts.manager.alive(&self.present().sentence());
            let sleep = self.parts.watchdog.map_or(sleep, |every| sleep.min(every / 3));
            let clock = Arc::clone(&self.parts.clock);
            tokio::select! {
                what = happened.recv() => self.take(what),
                () = clock.sleep(sleep) => {}
            }
        }
    }

    fn take(&mut self, what: Option<Happened>) {
        match what {
            Some(Happened::Asked(question, answers)) => self.answer(question, answers),
            Some(Happened::Ended(no, status)) => self.ended(no, status),
            Some(Happened::Overdue(no)) => self.kill(no),
            Some(Happened::Looked(seen)) => self.looked(seen),
            Some(Happened::LookOverdue) => self.look_overdue(),
            Some(Happened::OverdueLookEnded) => self.look_ended(),
            Some(Happened::Told(way, alert, event)) => self.told(way, alert, event),
            Some(Happened::WayEnded(way, result)) => self.way_ended(way, result),
            // Whoever sends a signal hears nothing; the log and `status` tell.
            Some(Happened::Reload) => drop(self.reload()),
            Some(Happened::Stop) | None => self.stop(),
        }
    }

    // --- what is due ---

    /// Starts what is due and has a free lane; how long there is nothing to start.
    fn start_what_is_due(&mut self) -> Duration {
        self.see_to_ledger();
        while let Some(at) = self.wanted.iter().position(|wanted| self.is_free(&wanted.task)) {
            if let Some(wanted) = self.wanted.remove(at) {
                self.start(wanted, true);
            }
        }
        let (tasks, now) = (self.agenda.tasks(), self.parts.clock.now());
        let mut sleep = SLEEP_MAX;
        let past = match self.parts.ledger.pasts(&tasks) {
            Ok(past) => past,
            // What was done is not known, so nothing is due: else all of it would be, again and again.
            Err(error) => {
                self.ledger_failed(&error);
                return sleep;
            }
        };
        for task in tasks {
            let next = if self.watch.frees(&task) { Some(now) } else { self.agenda.next(&task, &past, now) };
            let Some(next) = next else { continue };
            if next > now {
                sleep = sleep.min(self.parts.clock.until_passed(until(next, now)));
            } else if self.is_free(&task) {
                self.start(Wanted { task, points: Vec::new(), answers: Vec::new() }, false);
            }
        }
        sleep
    }

    /// Whether a task may begin beside what runs.
    fn is_free(&self, task: &Task) -> bool {
        let is_before =
            |active: &Active| active.task == *task || task.work.begins_after().contains(&active.task.work);
        !self.active.contains_key(&task.work.lane()) && !self.active.values().any(is_before)
    }

    fn start(&mut self, wanted: Wanted, person: bool) {
        let Wanted { task, points, answers: waiting } = wanted;
        self.watch.tried(&task);
        match self.try_start(&task, &points, person) {
            Ok(active) => {
                let begun = Answer::Begun { job: active.no.0 };
                tell(&waiting, &begun);
                self.active.insert(task.work.lane(), Active { points, waiting, ..active });
            }
            Err(reason) => {
                tracing::error!("{task}: {reason}");
                tell(&waiting, &Answer::Refused { reason });
            }
        }
    }

    fn try_start(&self, task: &Task, points: &[RecoveryPointId], person: bool) -> Result<Active, String> {
        let Parts { ledger, caller, clock, .. } = &self.parts;
        let begin = || ledger.begin(task, person, clock.now());
        let begun = begin().or_else(|error| match error.is_full() && give_up_reserve(&self.parts.store) {
            // What frees room can be done.
            true => begin(),
            false => Err(error),
        });
        let no = begun.map_err(|error| error.to_string())?;
        let child = match caller.start(task, points) {
            Ok(child) => child,
            Err(error) => {
                let said = format!("its process cannot be started: {error}");
                let end = Ended {
                    at: clock.now(),
                    state: JobState::Failed,
                    said: said.clone(),
                    points: Vec::new(),
                    sent: None,
                };
                ledger.end(no, &end).map_err(|error| error.to_string())?;
                return Err(said);
            }
        };
        let process = child.id().unwrap_or(0);
        let hearing = Hearing::default();
        let (heard, to_loop, name) =
            (Arc::clone(&hearing), self.to_loop.clone(), format!("job {no} ({task})"));
        let clock = Arc::clone(clock);
        tokio::spawn(async move {
            let status = job::hear(child, name, heard, clock).await.map_err(|error| error.to_string());
            // The loop is there as long as there are jobs.
            let _ = to_loop.send(Happened::Ended(no, status)).await;
        });
        let (task, points, waiting) = (task.clone(), Vec::new(), Vec::new());
        Ok(Active { no, task, process, hearing, asked_to_stop: false, points, waiting })
    }

    // --- ends ---

    fn ended(&mut self, no: JobNo, status: Result<ExitStatus, String>) {
        let Some(active) = self.remove(no) else { return };
        let mut heard = active.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut said, points) = (std::mem::take(&mut heard.said), std::mem::take(&mut heard.points));
        let sent = heard.sent.filter(|_| active.task.work == Work::Push);
        drop(heard);
        let made = active.task.work == Work::Take && !points.is_empty();
        let (state, code) = match &status {
            Ok(status) => (job::state_of(*status, active.asked_to_stop, made), status.code()),
            Err(_) => (JobState::Failed, None),
        };
        match &status {
            Ok(status) if status.code().is_none() => {
                said.push_str(&format!("its process ended by {status}\n"))
            }
            Err(error) => said.push_str(error),
            Ok(_) => {}
        }
        // What was cut off because the daemon ends is to be done again by the next one.
        let state = if self.stopping && state == JobState::Cancelled { JobState::Lost } else { state };
        let end = Ended { at: self.parts.clock.now(), state, said, points, sent };
        if let Err(error) = self.parts.ledger.end(no, &end) {
            tracing::error!("{error}");
        }
        let line = line_of_end(no, &active.task, &end);
        match state {
            JobState::Done | JobState::Cancelled => tracing::info!("{line}"),
            _ => tracing::warn!("{line}"),
        }
        let Ended { said, points, .. } = end;
        let answer = Answer::Ended { job: no.0, state: state.to_string(), said, points, code };
        tell(&active.waiting, &answer);
        self.look_after(state);
    }

    fn remove(&mut self, no: JobNo) -> Option<Active> {
        let lane = self.active.iter().find(|(_, active)| active.no == no).map(|(lane, _)| *lane)?;
        self.active.remove(&lane)
    }

    /// Jobs that an earlier daemon did not see end. A process of it that is still there is left to end by itself.
    fn note_lost(&self) {
        let note = || -> Result<(), LedgerError> {
            for job in self.parts.ledger.running()? {
                let said = "the daemon ended before it; it is done again".to_owned();
                let at = self.parts.clock.now();
                let end = Ended { at, state: JobState::Lost, said, points: Vec::new(), sent: None };
                self.parts.ledger.end(job.no, &end)?;
            }
            Ok(())
        };
        if let Err(error) = note() {
            tracing::error!("{error}");
        }
    }

    fn cancel(&mut self, no: JobNo) -> bool {
        let Some(active) = self.active.values_mut().find(|active| active.no == no) else { return false };
        if !std::mem::replace(&mut active.asked_to_stop, true) {
            job::signal(active.process, Signal::SIGINT);
            let (to_loop, clock) = (self.to_loop.clone(), Arc::clone(&self.parts.clock));
            tokio::spawn(async move {
                clock.sleep(STOP_PATIENCE).await;
                let _ = to_loop.send(Happened::Overdue(no)).await;
            });
        }
        true
    }

    fn kill(&self, no: JobNo) {
        if let Some(active) = self.active.values().find(|active| active.no == no) {
            tracing::warn!("job {no} ({}) does not stop: it is killed", active.task);
            job::kill(active.process);
        }
    }

    fn stop(&mut self) {
        if self.stopping {
            // Whoever asks twice is in a hurry.
            self.active.values().for_each(|active| job::kill(active.process));
            return;
        }
        self.stopping = true;
        self.parts.manager.stopping();
        self.stop_looking();
        for wanted in self.wanted.drain(..) {
            tell(&wanted.answers, &Answer::Refused { reason: "the daemon ends".to_owned() });
        }
        let running: Vec<JobNo> = self.active.values().map(|active| active.no).collect();
        running.into_iter().for_each(|no| {
            self.cancel(no);
        });
    }
}

fn tell(waiting: &[Answers], answer: &Answer) {
    for answers in waiting {
        // Who has gone needs no answer.
        let _ = answers.send(answer.clone());
    }
}

/// How a job ended, for the log: a point that was taken leaves a line there.
fn line_of_end(no: JobNo, task: &Task, end: &Ended) -> String {
    let points: Vec<&str> = end.points.iter().map(|id| id.get(..8).unwrap_or(id)).collect();
    let points =
        if points.is_empty() { String::new() } else { format!(", recovery points {}", points.join(" ")) };
    let sent = end.sent.map(|bytes| format!(", {} sent", text::size(bytes))).unwrap_or_default();
    format!("job {no} ({task}): {}{points}{sent}", end.state)
}

fn until(next: Timestamp, now: Timestamp) -> Duration {
    let seconds = next.seconds.saturating_sub(now.seconds).max(0).unsigned_abs();
    // A little later rather than earlier.
    Duration::from_secs(seconds).saturating_add(Duration::from_millis(1))
}

#[cfg(test)]
mod tests;
