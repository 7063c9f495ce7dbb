//! The local tier is whole by itself: it neither waits for a vault nor relies on one.

use super::*;
use crate::cloud::{Cloud, Way};
use crate::compare::compare;
use crate::testkit::wait_for;
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
fn a_point_is_taken_while_another_one_expires_in_a_vault_that_hangs() {
    let Some(cloud) = Cloud::start("expiring") else { return };
    let machine = Machine::with_store();
    let (www, config) = (machine.path("www"), machine.path("holdfast.toml"));
    std::fs::create_dir(&www).unwrap();
    let text = format!(
        "[group.web]\nsources = [{www:?}]\nlocal = {{ schedule = \"daily\" }}\n\
         online = {{ schedule = \"daily\", keep = {{ last = 1 }} }}\n"
    );
    std::fs::write(&config, text).unwrap();
    let command = |args: &[&str]| {
        let mut command = machine.online(args);
        command.env("HOLDFAST_CONFIG", &config);
        command
    };
    let run = |args: &[&str]| Ran::of(&mut command(args)).expect_code(0);
    let take = |n: usize, args: &[&str]| {
        std::fs::write(www.join("page"), noise(n, 10_000)).unwrap();
        run(&[&["backup", "--group", "web"], args].concat());
    };
    run(&["vault", "add", &cloud.url()]);
    (0..5).for_each(|n| take(n, &["--online"]));
    let in_vault = || {
        let listed = run(&["snapshots", "--json"]).json();
        let points: Vec<_> = listed.as_array().unwrap().iter().flat_map(|p| p.as_array().unwrap()).collect();
        points.iter().filter(|point| point["vaults"] != serde_json::json!([])).count()
    };
    assert_eq!(in_vault(), 5);
    cloud.gate.set(Way::Silent);
    let mut expiry = command(&["forget", "--tier", "online", "--yes"]).spawn().unwrap();
    wait_for("a request to the vault", 10, || cloud.gate.has(expiry.id()));
    take(5, &[]);
    assert!(expiry.try_wait().unwrap().is_none(), "it waits for the vault");
    expiry.kill().unwrap();
    expiry.wait().unwrap();
    cloud.gate.set(Way::Open);
    run(&["forget", "--tier", "online", "--yes"]);
    assert_eq!(in_vault(), 3);
}
