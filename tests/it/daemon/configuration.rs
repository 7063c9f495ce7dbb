//! A configuration that has mistakes while a daemon goes by the one before.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Daemon, GROUP, Site};
use crate::testkit::wait_for;

/// One word is wrong.
fn broken() -> String {
    format!("{GROUP}[alrts]\n")
}

/// The alerts of `status`, which shows its page.
fn alerts(site: &Site) -> Vec<Value> {
    let page = site.status();
    assert_eq!(page["tiers"].as_array().unwrap().len(), 2, "{page}");
    page["alerts"].as_array().unwrap().clone()
}

fn told(site: &Site) -> String {
    site.run(&["alerts", "--json"]).expect_code(0).out()
}

/// The first point is in both tiers.
fn start(site: &Site) -> Daemon<'_> {
    let daemon = site.start();
    wait_for("the first jobs", 60, || {
        site.states("push") == ["done"] && site.states("expire-local") == ["done"]
    });
    daemon
}

/// Has points taken by the daemon, whatever stands in the file: who types it is told of the mistake.
fn have_taken(site: &Site) {
    site.run(&["backup"]).expect_code(2).expect_err(&["config check"]);
    let question = "{\"ask\":\"run\",\"work\":\"backup\",\"group\":\"web\"}\n";
    let said = super::ask(site, question);
    assert!(said.contains("\"state\":\"done\""), "{said}");
}

#[test]
fn jobs_go_by_what_the_daemon_accepted_and_the_mistake_is_told() {
    let site = Site::new(GROUP);
    let daemon = start(&site);
    assert_eq!(alerts(&site), [] as [Value; 0]);
    site.configure(&broken());
    // Nobody has it read again.
    have_taken(&site);
    assert_eq!(site.states("backup"), ["done", "done"]);
    let shown = alerts(&site);
    let what = shown[0]["what"].as_str().unwrap();
    assert!(shown.len() == 1 && shown[0]["name"] == "bad-configuration", "{shown:?}");
    let line = broken().lines().count();
    assert!(
        what.contains(&format!("holdfast.toml:{line}: alrts")) && what.contains("the one before"),
        "{what}"
    );
    daemon.signal(Signal::SIGHUP);
    wait_for("the refusal", 30, || site.log().contains("stays what it was"));
    assert_eq!(alerts(&site).len(), 1);
    wait_for("a look", 60, || told(&site).contains("bad-configuration"));
    assert!(!told(&site).contains("status-fails"), "{}", told(&site));
    site.configure(GROUP);
    daemon.signal(Signal::SIGHUP);
    wait_for("it to be read", 30, || alerts(&site).is_empty());
    daemon.end();
}

#[test]
fn a_daemon_that_finds_mistakes_goes_by_what_one_before_it_accepted() {
    let site = Site::new(&broken());
    site.run(&["daemon"]).expect_code(1).expect_err(&["alrts", "config check"]);
    site.configure(GROUP);
    let mut daemon = start(&site);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    site.configure(&broken());
    let page = site.status();
    assert_eq!(page["tiers"], serde_json::json!([]), "nobody knows: {page}");
    let names: Vec<_> = page["alerts"].as_array().unwrap().iter().map(|alert| &alert["name"]).collect();
    assert_eq!(names, ["no-daemon", "bad-configuration"]);
    let daemon = site.start();
    assert!(site.log().contains("that of before holds"), "{}", site.log());
    have_taken(&site);
    assert_eq!(alerts(&site)[0]["name"], "bad-configuration");
    daemon.end();
    // Who takes the configuration away wants an end.
    std::fs::remove_file(&site.config).unwrap();
    site.run(&["daemon"]).expect_code(1).expect_err(&["holdfast.toml"]);
}

#[test]
fn one_that_protects_nothing_is_refused_and_the_one_before_stays() {
    let site = Site::new(GROUP);
    let daemon = start(&site);
    let kept = site.machine.store().join("configuration.json");
    let before = std::fs::read(&kept).unwrap();
    site.configure("");
    daemon.signal(Signal::SIGHUP);
    wait_for("the refusal", 30, || site.log().contains("protects nothing"));
    assert_eq!(std::fs::read(&kept).unwrap(), before);
    let page = site.status();
    assert_eq!(page["alerts"][0]["name"], "bad-configuration", "{page}");
    site.configure(GROUP);
    daemon.signal(Signal::SIGHUP);
    wait_for("it to be read", 30, || alerts(&site).is_empty());
    // Nobody else's words are kept.
    std::fs::set_permissions(&site.config, std::fs::Permissions::from_mode(0o666)).unwrap();
    daemon.signal(Signal::SIGHUP);
    wait_for("the copy to go", 30, || !kept.exists());
    std::fs::set_permissions(&site.config, std::fs::Permissions::from_mode(0o644)).unwrap();
    daemon.signal(Signal::SIGHUP);
    wait_for("it to be kept", 30, || kept.exists());
    daemon.end();
}
