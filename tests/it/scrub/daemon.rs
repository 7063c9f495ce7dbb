//! The daemon scrubs by itself, and says when what it reads is damaged.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{flip, name_of, objects};
use crate::daemon::Site;
use crate::testkit::{Ran, noise, wait_for};

/// Nothing but scrubs is done by itself, once a point was taken.
const SCRUBS: &str = "
[group.web]
sources = [\"ROOT/www\"]
local.schedule = \"yearly\"
[scrub]
schedule = \"every minute\"
[check]
schedule = \"never\"
[reclaim]
schedule = \"never\"
";

#[test]
fn the_daemon_reads_what_is_new_and_tells_of_damage_until_it_is_healed() {
    let site = Site::new(SCRUBS);
    std::fs::write(site.machine.path("www").join("large"), noise(5, 1 << 20)).unwrap();
    // Its minutes are seconds.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let clock = format!("{now}@{now}x60");
    let run = |args: &[&str]| Ran::of(site.command(args).env("HOLDFAST_CLOCK", &clock));
    let alerts = || run(&["status", "--json"]).expect_code(0).json()["alerts"].to_string();
    run(&["backup"]).expect_code(0);
    let store = site.machine.store();
    let object =
        objects(&store, "pack").into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let good = std::fs::read(&object).unwrap();
    flip(&object);
    let daemon = site.start_with(site.command(&["daemon"]).env("HOLDFAST_CLOCK", &clock));
    wait_for("a scrub", 120, || site.states("scrub").contains(&"failed".to_owned()));
    let jobs = site.jobs();
    let job = jobs.iter().find(|job| job["work"] == "scrub" && job["state"] == "failed").unwrap();
    assert!(job.to_string().contains(&name_of(&store, &object)), "{job}");
    assert!(alerts().contains("`holdfast scrub` found that the store is damaged"), "{}", alerts());
    std::fs::write(&object, good).unwrap();
    let is_well = || site.states("scrub").first().is_some_and(|state| state == "done");
    wait_for("one that finds none", 300, is_well);
    assert!(!alerts().contains("\"damage\""), "{}", alerts());
    let places = run(&["status", "--json"]).expect_code(0).json()["places"].clone();
    assert!(places[0]["proven_since"].is_string(), "{places}");
    daemon.end();
}
