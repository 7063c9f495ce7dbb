//! What a person asks a daemon to put into vaults.
#![allow(clippy::unwrap_used)]

use nix::sys::signal::Signal;

use super::{GROUP, Site};
use crate::testkit::{points_in, wait_for};

#[test]
fn what_was_just_taken_is_in_the_vault_when_a_daemon_says_that_it_is_done() {
    let site = Site::new(GROUP);
    let (vault, away) = (site.machine.path("vault"), site.machine.path("away"));
    let daemon = site.start();
    let is_done = |work| site.states(work) == ["done"];
    wait_for("the first jobs", 60, || is_done("expire-local") && is_done("push"));
    // By its schedule the vault is to be given nothing more this year.
    let said = site.run(&["backup", "--group", "web", "--online"]).expect_code(0).out();
    let there = points_in(&vault);
    let vaulted = said.lines().filter_map(|line| line.strip_suffix(" vaulted")?.rsplit(' ').next());
    let vaulted: Vec<&str> = vaulted.collect();
    assert!(vaulted.len() == 1 && there.iter().any(|id| id.starts_with(vaulted[0])), "{said} {there:?}");
    assert_eq!(there.len(), 2, "{said}");
    let push = site.jobs().into_iter().find(|job| job["work"] == "push").unwrap();
    assert!(push["points"][0].as_str().unwrap().starts_with(vaulted[0]), "{push}");
    std::fs::rename(&vault, &away).unwrap();
    site.run(&["backup", "--group", "web", "--online"]).expect_code(1).expect_err(&["push web", "not found"]);
    std::fs::rename(&away, &vault).unwrap();
    site.run(&["backup", "--group", "web", "--online"]).expect_code(0);
    assert_eq!(points_in(&vault).len(), 3);
    daemon.end();
}

#[test]
fn who_waits_for_a_daemon_that_is_stopped_is_told() {
    let site = Site::new(GROUP);
    let daemon = site.start();
    wait_for("the first jobs", 60, || {
        site.states("push") == ["done"] && site.states("expire-local") == ["done"]
    });
    daemon.signal(Signal::SIGSTOP);
    let errors = site.machine.path("errors");
    let mut asking = site.command(&["backup", "--group", "web"]);
    let mut asking = asking.stderr(std::fs::File::create(&errors).unwrap()).spawn().unwrap();
    let process = daemon.child.id();
    let told = format!("the daemon (process {process}) does not answer");
    wait_for("a word", 60, || std::fs::read_to_string(&errors).unwrap().contains(&told));
    daemon.signal(Signal::SIGCONT);
    assert_eq!(asking.wait().unwrap().code(), Some(0));
    daemon.end();
}
