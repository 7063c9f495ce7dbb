//! A vault that goes away while nothing is to be sent there.
#![allow(clippy::unwrap_used)]

use holdfast_store::clock::{Clock, SystemClock};
use serde_json::Value;

use super::{GROUP, Site};
use crate::testkit::wait_for;

#[test]
fn a_vault_that_is_away_is_told_before_anything_is_to_go_there() {
    let site = Site::new(&format!("{GROUP}[metrics]\nfile = \"ROOT/holdfast.prom\"\n"));
    let (vault, away) = (site.machine.path("vault"), site.machine.path("away"));
    let (address, now) = (vault.to_str().unwrap().to_owned(), SystemClock.now().seconds);
    // Five minutes, between two looks, are three seconds.
    let mut command = site.command(&["daemon"]);
    let daemon = site.start_with(command.env("HOLDFAST_CLOCK", format!("{now}@{now}x100")));
    wait_for("the first jobs", 60, || site.states("push").contains(&"done".to_owned()));
    let place = || site.status()["places"][1].clone();
    let figure = || std::fs::read_to_string(site.machine.path("holdfast.prom")).unwrap_or_default();
    let up = |up: u8| format!("holdfast_vault_up{{place=\"{address}\"}} {up}\n");
    assert_eq!((&place()["up"], &place()["trouble"]), (&true.into(), &Value::Null));
    wait_for("a look", 60, || figure().contains(&up(1)));
    std::fs::rename(&vault, &away).unwrap();
    let told = || -> Value {
        let out = site.run(&["alerts", "--json"]).expect_code(0).out();
        let mut lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|alert| alert["name"] == "vault-away").unwrap_or_default()
    };
    wait_for("the alert", 60, || told()["told"].is_string());
    let alert = told();
    assert!(alert["subject"] == *address && alert["what"].as_str().unwrap().contains("not found"), "{alert}");
    wait_for("the figure", 60, || figure().contains(&up(0)));
    // Whoever types it asks himself.
    assert!(place()["up"] == false && place()["trouble"].is_string(), "{}", place());
    let page = site.run(&["status"]).expect_code(0).out();
    let row = page.lines().find(|line| line.starts_with(&address)).unwrap();
    assert!(row.trim_end().ends_with(" away") && page.contains("ALERT vault-away"), "{page}");
    std::fs::rename(&away, &vault).unwrap();
    assert!(site.run(&["status"]).expect_code(0).out().contains(" answers"));
    wait_for("the end of the alert", 60, || told()["closed"].is_string());
    daemon.end();
}
