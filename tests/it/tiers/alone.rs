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
