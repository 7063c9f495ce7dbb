//! The local tier is whole by itself: it neither waits for a vault nor relies on one.

use std::process::{Command, Stdio};

use super::*;
use crate::cloud::{Cloud, Way};
use crate::compare::compare;
use crate::testkit::wait_for;
use holdfast_store::vault::testing::{HttpFault, Verb};

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

/// A machine whose group `web` has a page, three local points by its rule, and these rules online.
struct Web(Machine);

impl Web {
    fn new(online: &str) -> Self {
        let web = Self(Machine::with_store());
        let www = web.0.path("www");
        std::fs::create_dir(&www).unwrap();
        let text = format!(
            "[group.web]\nsources = [{www:?}]\nlocal = {{ schedule = \"daily\", keep = {{ last = 1 }} }}\n\
             online = {{ {online} }}\n"
        );
        std::fs::write(web.0.path("holdfast.toml"), text).unwrap();
        web
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.0.online(args);
        command.env("HOLDFAST_CONFIG", self.0.path("holdfast.toml"));
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args)).expect_code(0)
    }

    /// Takes a point of another page.
    fn take(&self, n: usize, args: &[&str]) {
        std::fs::write(self.0.path("www/page"), noise(n, 500_000)).unwrap();
        self.run(&[&["backup", "--group", "web"], args].concat());
    }

    /// The points with the number of vaults that have each.
    fn points(&self) -> Vec<(String, usize)> {
        let listed = self.run(&["snapshots", "--json"]).json();
        let points = listed.as_array().unwrap().iter();
        let id = |point: &serde_json::Value| point["id"].as_str().unwrap().to_owned();
        points.map(|point| (id(point), point["vaults"].as_array().unwrap().len())).collect()
    }

    fn in_vault(&self) -> usize {
        self.points().iter().map(|point| point.1).sum()
    }
}

#[test]
fn a_point_is_taken_while_another_one_expires_in_a_vault_that_hangs() {
    let Some(cloud) = Cloud::start("expiring") else { return };
    let web = Web::new("schedule = \"daily\", keep = { last = 1 }");
    web.run(&["vault", "add", &cloud.url()]);
    (0..5).for_each(|n| web.take(n, &["--online"]));
    assert_eq!(web.in_vault(), 5);
    cloud.gate.set(Way::Silent);
    let mut expiry = web.command(&["forget", "--tier", "online", "--yes"]).spawn().unwrap();
    wait_for("a request to the vault", 10, || cloud.gate.has(expiry.id()));
    web.take(5, &[]);
    assert!(expiry.try_wait().unwrap().is_none(), "it waits for the vault");
    expiry.kill().unwrap();
    expiry.wait().unwrap();
    cloud.gate.set(Way::Open);
    web.run(&["forget", "--tier", "online", "--yes"]);
    assert_eq!(web.in_vault(), 3);
}

#[test]
fn a_push_passes_over_a_point_that_expires_meanwhile_and_says_so_of_one_that_was_named() {
    for (is_named, name) in [(false, "passing"), (true, "passing-named")] {
        let Some(cloud) = Cloud::start(name) else { return };
        let web = Web::new("schedule = \"yearly\"");
        web.run(&["vault", "add", &cloud.url()]);
        (0..6).for_each(|n| web.take(n, &[]));
        let (gone, before) = (web.points().swap_remove(1).0, cloud.proxy.count(Verb::Put));
        cloud.proxy.spoil(Verb::Put, 1000, HttpFault::Refuse(503, "ServerBusy", 1));
        let args = ["vault", "push", &gone];
        let mut push = web.command(if is_named { &args } else { &args[..2] });
        let push = push.stderr(Stdio::piped()).spawn().unwrap();
        wait_for("what comes before the packs", 60, || cloud.proxy.count(Verb::Put) > before);
        web.run(&["forget", "--tier", "local", "--yes"]);
        web.run(&["prune", "--local"]);
        assert!(!web.points().iter().any(|point| point.0 == gone));
        cloud.proxy.forgive();
        let ended = Ran::from(push.wait_with_output().unwrap());
        if is_named {
            ended.expect_code(1).expect_err(&[&gone[..8], "is not there any more"]);
            assert_eq!(web.in_vault(), 0);
        } else {
            ended.expect_code(0);
            assert_eq!(web.in_vault(), web.points().len());
        }
    }
}
