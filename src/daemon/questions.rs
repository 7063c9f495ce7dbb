//! What the daemon is asked: by people, through the socket.

use std::sync::PoisonError;

use holdfast_backup::agenda::{Task, Work};
use holdfast_backup::ledger::JobNo;
use holdfast_store::id::RecoveryPointId;

use super::control::Answers;
use super::talk::{Answer, Present, Question, Running};
use super::{Active, Daemon, Wanted, tell};

impl Daemon {
    pub(super) fn answer(&mut self, question: Question, answers: Answers) {
        let answer = match question {
            Question::Status => Answer::Status(self.present()),
            Question::Run { work, group, points } => match self.wanted(&work, group, &points) {
                Ok(wanted) => return self.want(Wanted { answers: vec![answers], ..wanted }),
                Err(reason) => Answer::Refused { reason },
            },
            Question::Cancel { job } if self.cancel(JobNo(job)) => Answer::Done,
            Question::Reload => match self.reload() {
                Ok(()) => Answer::Done,
                Err(reason) => Answer::Refused { reason },
            },
            Question::Cancel { job } => Answer::Refused { reason: format!("no job {job} runs") },
        };
        // Who has gone needs no answer.
        let _ = answers.send(answer);
    }

    pub(super) fn wanted(
        &self,
        work: &str,
        group: Option<String>,
        points: &[String],
    ) -> Result<Wanted, String> {
        let point =
            |id: &String| RecoveryPointId::from_hex(id).ok_or_else(|| format!("{id:?} is no recovery point"));
        let points = points.iter().map(point).collect::<Result<Vec<_>, String>>()?;
        match self.task(work, group, &points)? {
            task if points.is_empty() || task.work == Work::Push => {
                Ok(Wanted { task, points, answers: Vec::new() })
            }
            task => Err(format!("{task} is not for recovery points")),
        }
    }

    fn task(&self, work: &str, group: Option<String>, points: &[RecoveryPointId]) -> Result<Task, String> {
        if self.stopping {
            return Err("the daemon ends".to_owned());
        }
        let task = Task { work: work.parse()?, group };
        let of_store = matches!(
            task.work,
            Work::Reclaim | Work::ReclaimVaults | Work::Check | Work::Scrub | Work::Drill
        ) && task.group.is_none();
        // Points can be sent of any group that takes some.
        let takes = Task { work: Work::Take, group: task.group.clone() };
        let sends = !points.is_empty() && self.agenda.tasks().contains(&takes);
        if of_store || sends || self.agenda.tasks().contains(&task) {
            return Ok(task);
        }
        Err(format!("by its configuration the daemon has no {task} to do"))
    }

    /// Has a task done; whoever wants one that runs or waits already hears of its end, unless he wants points of which that knows nothing.
    pub(super) fn want(&mut self, new: Wanted) {
        let does = |active: &&mut Active| {
            active.task == new.task && new.points.iter().all(|point| active.points.contains(point))
        };
        if let Some(active) = self.active.values_mut().find(does) {
            tell(&new.answers, &Answer::Begun { job: active.no.0 });
            active.waiting.retain(|answers| !answers.is_closed());
            return active.waiting.extend(new.answers);
        }
        self.wanted.iter_mut().for_each(|wanted| wanted.answers.retain(|answers| !answers.is_closed()));
        match self.wanted.iter_mut().find(|wanted| wanted.task == new.task) {
            Some(wanted) => {
                wanted.answers.extend(new.answers);
                wanted.points.extend(new.points);
            }
            None => self.wanted.push_back(new),
        }
    }

    pub(super) fn present(&self) -> Present {
        let running = |active: &Active| {
            let heard = active.hearing.lock().unwrap_or_else(PoisonError::into_inner);
            let (job, task) = (active.no.0, active.task.to_string());
            Running { job, task, part_done: heard.part_done, stage: heard.stage.clone() }
        };
        Present {
            process: std::process::id(),
            since: self.since.seconds,
            running: self.active.values().map(running).collect(),
            waiting: self.wanted.iter().map(|wanted| wanted.task.to_string()).collect(),
            trouble: self.trouble.clone(),
        }
    }

    pub(super) fn reload(&mut self) -> Result<(), String> {
        let read = (self.parts.read)();
        self.trouble = read.as_ref().err().cloned();
        let planned = match read {
            Ok(planned) => planned,
            Err(error) => {
                tracing::error!("the configuration stays what it was: {error}");
                self.look();
                return Err(error);
            }
        };
        let caller = &mut self.parts.caller;
        caller.nice = planned.nice;
        self.agenda = planned.agenda;
        self.watch_as(planned.watching);
        tracing::info!("the configuration was read again");
        Ok(())
    }
}
