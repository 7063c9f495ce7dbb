//! The local tier is whole by itself: it neither waits for a vault nor relies on one.

use super::*;
use crate::cloud::{Cloud, Way};
use crate::compare::compare;
use holdfast_store::vault::testing::Verb;

#[test]
fn a_local_point_is_taken_and_read_without_the_vault_that_alone_had_what_is_in_it() {
    let Some(cloud) = Cloud::start("alone") else { return };
    let machine = Machine::with_store();
    let (www, config) = (machine.path("www"), machine.path("holdfast.toml"));
    std::fs::create_dir(&www).unwrap();
    for n in 0..20 {
        std::fs::write(www.join(format!("page-{n}")), noise(n, 10_000)).unwrap();
    }
    let once = noise("once", 300_000);
    std::fs::write(www.join("once"), &once).unwrap();
    let text = format!(
        "[group.web]\nsources = [{www:?}]\nlocal = {{ schedule = \"daily\", keep = {{ last = 1 }} }}\n\
         online = {{ schedule = \"yearly\" }}\n"
    );
    std::fs::write(&config, text).unwrap();
    let run = |args: &[&str]| Ran::of(machine.online(args).env("HOLDFAST_CONFIG", &config)).expect_code(0);
    run(&["vault", "add", &cloud.url()]);
    run(&["backup", "--group", "web", "--online"]);
    std::fs::remove_file(www.join("once")).unwrap();
    for n in 0..3 {
        std::fs::write(www.join("page-0"), noise(format!("again {n}"), 10_000)).unwrap();
        run(&["backup", "--group", "web"]);
    }
    run(&["forget", "--tier", "local", "--yes"]);
    run(&["prune", "--local"]);
    // It comes back, and nobody but the vault has it.
    std::fs::write(www.join("once"), &once).unwrap();
    let asked = || {
        [Verb::Get, Verb::List, Verb::Stat, Verb::Put]
            .map(|verb| cloud.proxy.count(verb))
            .iter()
            .sum::<usize>()
    };
    let before = asked();
    run(&["backup", "--group", "web"]);
    assert_eq!(asked(), before, "the vault was asked");
    cloud.gate.set(Way::Silent);
    run(&["restore", "latest", "--target", machine.path("back").to_str().unwrap()]);
    compare(&www, &machine.path("back")).assert_none();
    cloud.gate.set(Way::Open);
}

#[test]
fn what_one_vault_lost_comes_back_from_another_though_it_is_nowhere_here() {
    let tiers = Tiers::new("schedule = \"daily\", keep = { last = 1 }", "schedule = \"daily\"");
    let second = tiers.machine.path("second");
    tiers.run(&["vault", "add", second.to_str().unwrap()]).expect_code(0);
    let points = tiers.take(&[0, 24, 48, 72]);
    tiers.run(&["vault", "push"]).expect_code(0);
    tiers.run(&["forget", "--tier", "local", "--yes"]).expect_code(0);
    tiers.run(&["prune", "--local"]).expect_code(0);
    std::fs::remove_dir_all(tiers.vault().join("pack")).unwrap();
    let said = tiers.run(&["vault", "push"]).expect_code(3);
    assert!(said.out().contains("4 recovery points vaulted"), "{}", said.out());
    tiers.run(&["check", "--read-data"]).expect_code(0);
    let stranger = Machine::recovering();
    let mut recover = stranger.command(["recover", "--machine-key"]);
    Ran::of(recover.arg(tiers.vault()).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    let back = stranger.restore(&points[0], "back");
    assert!(std::fs::read(back.join("page")).unwrap() == noise("web 0", 50_000));
}
