//! Groups that take no more points.

use super::expiry::{foreseen, of};
use super::*;

const DAILY_4: &str = "schedule = \"12:00\", keep = { daily = 4 }";

#[test]
fn a_group_that_is_stopped_takes_and_sends_nothing_until_it_goes_on() {
    let tiers = Tiers::new(DAILY_4, DAILY_4);
    let ids = tiers.take(&[0, 24, 48, 72, 96]);
    let before = std::fs::read_to_string(&tiers.config).unwrap();
    let stop = |how: &str| tiers.run(&["protect", "stop", "web", how]).expect_code(0);
    assert!(stop("--keep").out().contains("stopped; keeps everything"));
    assert_eq!(foreseen(&tiers), BTreeSet::new());
    let refused = tiers.run(&["backup", "--group", "web"]).expect_code(1);
    refused.expect_err(&["protection of web is stopped", "holdfast protect resume web"]);
    let www = tiers.machine.path("www");
    tiers.run(&["backup", www.to_str().unwrap(), "--group", "web"]).expect_code(1);
    tiers.run(&["backup"]).expect_code(0);
    tiers.run(&["vault", "push", "--pending"]).expect_code(0);
    assert_eq!((shown_in(&tiers.machine.store()), shown_in(&tiers.vault())), (set(&ids), BTreeSet::new()));
    assert!(tiers.run(&["plan"]).expect_code(0).out().contains("web local: stopped (keep)\n"));
    let status = tiers.run(&["status", "--json"]).expect_code(0).json();
    assert_eq!(status["tiers"][0]["schedule"], "stopped (keep)");
    assert!(status["tiers"][0].get("next").is_none(), "{status}");
    assert!(!status["alerts"].to_string().contains("no-good-point"), "{status}");

    // The points are of last year: of rules that reach back from now nothing is left but the guards.
    stop("--until-expiry");
    assert_eq!(foreseen(&tiers), of("local", &[&ids[0], &ids[1]]));
    tiers.run(&["protect", "resume", "web"]).expect_code(0);
    assert_eq!(std::fs::read_to_string(&tiers.config).unwrap(), before);
    let status = tiers.run(&["status", "--json"]).expect_code(0).json();
    assert!(status["alerts"].to_string().contains("no-good-point"), "{status}");
    tiers.run(&["protect", "stop", "wbe", "--keep"]).expect_code(2).expect_err(&["wbe", "web"]);
    tiers.run(&["protect", "stop", "web"]).expect_code(2);
    tiers.run(&["protect", "stop", "web", "--keep", "--delete"]).expect_code(2);
}

#[test]
fn what_is_deleted_with_its_group_goes_from_everywhere_but_what_is_held() {
    let tiers = Tiers::new(DAILY_4, DAILY_4);
    let ids = tiers.take(&[0, 24, 48]);
    let other = tiers.take_of("other", &[0]);
    tiers.run(&["vault", "push"]).expect_code(0);
    tiers.run(&["hold", &ids[1]]).expect_code(0);
    let before = std::fs::read_to_string(&tiers.config).unwrap();
    let delete = |more: &[&str]| tiers.run(&[&["protect", "stop", "web", "--delete"], more].concat());
    delete(&[]).expect_code(1).expect_err(&["2 recovery points of web would be deleted", "--yes"]);
    assert_eq!(std::fs::read_to_string(&tiers.config).unwrap(), before);
    std::fs::rename(tiers.vault(), tiers.away()).unwrap();
    delete(&["--yes"]).expect_code(1);
    std::fs::rename(tiers.away(), tiers.vault()).unwrap();
    let said = delete(&["--yes"]).expect_code(0).out();
    assert!(said.contains("2 recovery points deleted\nheld: 1 recovery point"), "{said}");
    let left = set([&ids[1], &other[0]]);
    assert_eq!((shown_in(&tiers.machine.store()), shown_in(&tiers.vault())), (left.clone(), left));
    assert!(std::fs::read_to_string(&tiers.config).unwrap().contains("stopped = \"keep\""));
    tiers.run(&["check"]).expect_code(0);
}
