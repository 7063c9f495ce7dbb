//! What a daemon is asked for, and who hears of which job's end.

#![allow(clippy::unwrap_used)]
use holdfast_store::clock::ManualClock;
use tokio::sync::mpsc::unbounded_channel;

use super::testing::{START, daemon};
use super::*;

const WEB: &str = "[group.web]\nsources = [\"/s\"]\nlocal.schedule = \"hourly\"\n";

fn wanted(daemon: &Daemon, points: &[RecoveryPointId]) -> Wanted {
    let points: Vec<String> = points.iter().map(RecoveryPointId::hex).collect();
    daemon.wanted("push", Some("web".to_owned()), &points).unwrap()
}

fn active(task: Task) -> Active {
    Active {
        no: JobNo(1),
        task,
        process: 0,
        hearing: Hearing::default(),
        asked_to_stop: false,
        points: Vec::new(),
        waiting: Vec::new(),
    }
}

#[test]
fn a_point_is_taken_while_space_is_freed_which_begins_when_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = daemon(WEB, dir.path(), &ManualClock::at(START));
    let [take, free] = [("backup", Some("web".to_owned())), ("reclaim", None)]
        .map(|(work, group)| daemon.wanted(work, group, &[]).unwrap().task);
    assert!(daemon.is_free(&take) && daemon.is_free(&free));
    daemon.active.insert(free.work.lane(), active(free.clone()));
    assert!(daemon.is_free(&take) && !daemon.is_free(&free));
    daemon.active.clear();
    daemon.active.insert(take.work.lane(), active(take.clone()));
    assert!(!daemon.is_free(&take) && !daemon.is_free(&free));
}

#[test]
fn points_of_vaults_expire_and_space_is_freed_there_one_after_the_other_and_uploads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let online = format!("{WEB}online = {{ schedule = \"daily\", keep = {{ last = 9 }} }}\n");
    let mut daemon = daemon(&online, dir.path(), &ManualClock::at(START));
    let [push, expire, free] = ["push", "expire-online", "reclaim-vaults"].map(|work| {
        let group = (work != "reclaim-vaults").then(|| "web".to_owned());
        daemon.wanted(work, group, &[]).unwrap().task
    });
    for (runs, free_ones) in
        [(&push, [false, false, true]), (&expire, [false; 3]), (&free, [true, false, false])]
    {
        daemon.active.clear();
        daemon.active.insert(runs.work.lane(), active(runs.clone()));
        assert_eq!([&push, &expire, &free].map(|task| daemon.is_free(task)), free_ones, "{runs}");
    }
}

#[test]
fn who_wants_points_in_a_vault_does_not_hear_the_end_of_a_push_that_knows_nothing_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon =
        daemon(&format!("{WEB}online.schedule = \"daily\""), dir.path(), &ManualClock::at(START));
    let [one, two] = [1, 2].map(|n| RecoveryPointId([n; 16]));
    let push = wanted(&daemon, &[]).task;
    daemon.active.insert(Lane::Vault, Active { points: vec![one], ..active(push) });
    let mut listeners = Vec::new();
    for (points, joins) in [(&[][..], true), (&[one], true), (&[one, two], false), (&[two], false)] {
        let (answers, heard) = unbounded_channel();
        listeners.push(heard);
        let waiting = daemon.active[&Lane::Vault].waiting.len();
        let new = wanted(&daemon, points);
        daemon.want(Wanted { answers: vec![answers], ..new });
        assert_eq!(daemon.active[&Lane::Vault].waiting.len() > waiting, joins, "{points:?}");
    }
    // Both wait for one more push, of all that they want.
    assert_eq!(daemon.wanted.len(), 1);
    assert!(
        daemon.wanted[0].answers.len() == 2
            && [one, two].iter().all(|id| daemon.wanted[0].points.contains(id))
    );
}

#[test]
fn points_of_any_group_that_takes_some_can_be_sent_and_by_nothing_but_a_push() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = daemon(WEB, dir.path(), &ManualClock::at(START));
    let asked = |work: &str, group: &str, points: &[&str]| {
        let points: Vec<String> = points.iter().map(|point| (*point).to_owned()).collect();
        daemon.wanted(work, Some(group.to_owned()), &points).map(|wanted| wanted.points.len())
    };
    let id = RecoveryPointId([1; 16]).hex();
    assert_eq!(asked("push", "web", &[&id]), Ok(1));
    assert!(asked("push", "web", &[]).unwrap_err().contains("no push web to do"));
    for (work, group, point) in [("push", "wbe", &*id), ("backup", "web", &*id), ("push", "web", "--force")] {
        assert!(asked(work, group, &[point]).is_err(), "{work} {group} {point}");
    }
}
