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

#[test]
fn who_wants_points_in_a_vault_does_not_hear_the_end_of_a_push_that_knows_nothing_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon =
        daemon(&format!("{WEB}online.schedule = \"daily\""), dir.path(), &ManualClock::at(START));
    let [one, two] = [1, 2].map(|n| RecoveryPointId([n; 16]));
    let active = Active {
        no: JobNo(1),
        task: wanted(&daemon, &[]).task,
        process: 0,
        hearing: Hearing::default(),
        asked_to_stop: false,
        points: vec![one],
        waiting: Vec::new(),
    };
    daemon.active.insert(Lane::Vault, active);
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
