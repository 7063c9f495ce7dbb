//! What the configuration has run around the points of a group, by real scripts: order, environment, failure, limit, interruption.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::testkit::{Machine, Ran, is_root, skip, wait_for};

/// A machine whose group `web` has these hooks, and whose group `zoo` has none. `ROOT` is where its files are.
fn hooked(hooks: &str) -> (Machine, PathBuf) {
    let machine = Machine::with_store();
    for name in ["www", "zoo"] {
        std::fs::create_dir(machine.path(name)).unwrap();
        std::fs::write(machine.path(name).join("page"), name).unwrap();
    }
    let text = format!(
        "[group.web]\nsources = [\"ROOT/www\"]\nlocal = {{ schedule = \"daily\" }}\n\
         [group.zoo]\nsources = [\"ROOT/zoo\"]\nlocal = {{ schedule = \"daily\" }}\n[group.web.hooks]\n{hooks}\n"
    );
    let file = machine.path("holdfast.toml");
    std::fs::write(&file, text.replace("ROOT", machine.path("").to_str().unwrap().trim_end_matches('/')))
        .unwrap();
    (machine, file)
}

fn command(machine: &Machine, file: &PathBuf, args: &[&str]) -> Command {
    let mut command = machine.command(args);
    command.env("HOLDFAST_CONFIG", file);
    command
}

fn run(machine: &Machine, file: &PathBuf, args: &[&str]) -> Ran {
    Ran::of(&mut command(machine, file, args))
}

/// The points of a group, as `snapshots --json` tells them.
fn points(machine: &Machine, group: &str) -> Vec<Value> {
    let all = machine.run(["snapshots", "--json"]).expect_code(0).json();
    all.as_array().unwrap().iter().filter(|point| point["group"] == group).cloned().collect()
}

fn text(machine: &Machine, name: &str) -> String {
    std::fs::read_to_string(machine.path(name)).unwrap_or_default()
}

const SAYS_AFTER: &str = r#"after = "echo after $HOLDFAST_RESULT $HOLDFAST_POINTS >> ROOT/log""#;

#[test]
fn one_runs_before_the_points_and_one_after_them_and_both_know_what_for() {
    let before =
        r#"before = "env > ROOT/www/env; pwd > ROOT/www/pwd; echo before >> ROOT/log; echo said; cat""#;
    let (machine, file) = hooked(&format!("{before}\n{SAYS_AFTER}\nconsistency = \"application\""));
    let secrets = [
        "HOLDFAST_PASSWORD",
        "HOLDFAST_RECOVERY_KEY",
        "HOLDFAST_NEW_PASSWORD",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_CLIENT_SECRET",
    ];
    let mut backup = command(&machine, &file, &["backup", "-v"]);
    let ran = Ran::of(backup.envs(secrets.map(|name| (name, "c2VjcmV0"))).env("OURS", "1")).expect_code(0);
    assert!(ran.err().contains("before of web: said"), "{}", ran.err());
    let [point] = &points(&machine, "web")[..] else { panic!() };
    assert_eq!((&point["consistency"], &point["tags"]), (&"application".into(), &serde_json::json!([])));
    assert_eq!(points(&machine, "zoo")[0]["consistency"], "fuzzy");
    assert_eq!(text(&machine, "log"), format!("before\nafter done {}\n", point["id"].as_str().unwrap()));
    let env = machine.run(["dump", &format!("{}:env", point["id"].as_str().unwrap())]).expect_code(0).out();
    let store = format!("HOLDFAST_STORE={}", machine.store().display());
    for said in ["HOLDFAST_GROUP=web", &store, "OURS=1"] {
        assert!(env.lines().any(|line| line == said), "{said}\n{env}");
    }
    assert!(!env.contains("c2VjcmV0") && !env.contains("HOLDFAST_RESULT"), "{env}");
    assert_eq!(text(&machine, "www/pwd"), "/\n");
    // Who names a path asks for that path alone.
    run(&machine, &file, &["backup", "www", "--group", "web"]).expect_code(0);
    assert_eq!(text(&machine, "log").lines().count(), 2);
    // Without -v, and with -q, nobody hears of what went well.
    let ran = run(&machine, &file, &["backup", "-q"]).expect_code(0);
    assert_eq!(ran.err(), "");
}

#[test]
fn if_the_one_before_fails_no_point_is_taken_and_the_one_after_runs_all_the_same() {
    let (machine, file) =
        hooked(&format!("before = [\"/bin/sh\", \"-c\", \"echo 'no server' >&2; exit 4\"]\n{SAYS_AFTER}"));
    let words =
        ["warning: before of web: no server", "hook `before` of the group web: exit status: 4", "no point"];
    run(&machine, &file, &["backup"]).expect_code(1).expect_err(&words);
    assert_eq!((points(&machine, "web").len(), points(&machine, "zoo").len()), (0, 1));
    assert_eq!(text(&machine, "log"), "after failed\n");
}

#[test]
fn a_point_that_is_taken_all_the_same_is_marked_and_claims_nothing() {
    let (machine, file) = hooked(&format!(
        "before = \"test -e ROOT/server\"\non-failure = \"mark\"\nconsistency = \"application\"\n{SAYS_AFTER}"
    ));
    run(&machine, &file, &["backup", "--group", "web"])
        .expect_code(3)
        .expect_err(&["exit status: 1", "hook-failed"]);
    std::fs::write(machine.path("server"), "").unwrap();
    run(&machine, &file, &["backup", "--group", "web"]).expect_code(0);
    let points = points(&machine, "web");
    let told: Vec<_> =
        points.iter().map(|point| (point["tags"].to_string(), &point["consistency"])).collect();
    let marked = ("[\"hook-failed\"]".to_owned(), &Value::from("fuzzy"));
    let shown = machine.run(["snapshots"]).expect_code(0).out();
    assert_eq!(shown.matches("hook failed").count(), 1, "{shown}");
    assert_eq!(told, [marked, ("[]".to_owned(), &Value::from("application"))]);
    let results: Vec<String> =
        text(&machine, "log").lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(results, ["partial", "done"]);
}

#[test]
fn if_the_one_after_fails_the_point_is_there_and_the_exit_code_says_it() {
    let (machine, file) = hooked("after = \"echo still locked; exit 1\"");
    let words = ["after of web: still locked", "hook `after` of the group web: exit status: 1"];
    run(&machine, &file, &["backup"]).expect_code(3).expect_err(&words);
    assert_eq!((points(&machine, "web").len(), points(&machine, "zoo").len()), (1, 1));
}

#[test]
fn one_that_cannot_begin_has_nothing_to_be_ended() {
    let (machine, file) = hooked(&format!("before = [\"/nowhere/hook\"]\n{SAYS_AFTER}"));
    run(&machine, &file, &["backup"]).expect_code(1).expect_err(&["could not be started", "No such file"]);
    assert_eq!((points(&machine, "web").len(), text(&machine, "log").as_str()), (0, ""));
}

#[test]
fn one_that_hangs_is_ended_and_what_it_leaves_behind_is_not_waited_for() {
    let (machine, file) =
        hooked(&format!("before = \"sleep 1000; echo never\"\ntimeout = \"1 second\"\n{SAYS_AFTER}"));
    run(&machine, &file, &["backup"]).expect_code(1).expect_err(&["did not end within 0:01"]);
    assert_eq!(text(&machine, "log"), "after failed\n");
    let (machine, file) = hooked("before = \"sleep 1000 & echo $! > ROOT/pid\"");
    run(&machine, &file, &["backup"]).expect_code(0);
    let left = Pid::from_raw(text(&machine, "pid").trim().parse().unwrap());
    kill(left, Signal::SIGKILL).unwrap();
}

#[test]
fn who_is_interrupted_still_runs_the_one_after() {
    let (machine, file) =
        hooked(&format!("before = \"touch ROOT/begun; sleep 1000; echo never\"\n{SAYS_AFTER}"));
    let child = command(&machine, &file, &["backup"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("the hook", 60, || machine.path("begun").exists());
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text(&machine, "log"), "after failed\n");
    assert!(points(&machine, "web").is_empty());
    // Asked to stop while the points are taken, or just before: what was begun is ended.
    let (machine, file) = hooked(&format!("before = \"kill -INT $PPID\"\n{SAYS_AFTER}"));
    run(&machine, &file, &["backup"]).expect_code(130);
    assert_eq!(text(&machine, "log"), "after failed\n");
    assert!(points(&machine, "web").is_empty() && points(&machine, "zoo").is_empty());
}

#[test]
fn what_others_may_write_root_does_not_run() {
    let (machine, file) = hooked(&format!("before = \"touch ROOT/ran\"\n{SAYS_AFTER}"));
    if !is_root() {
        return skip("what_others_may_write_root_does_not_run", "it needs root");
    }
    let set = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    set(0o646);
    run(&machine, &file, &["backup"]).expect_code(1).expect_err(&["everybody may write to", "are not run"]);
    assert!(!machine.path("ran").exists() && text(&machine, "log").is_empty());
    assert_eq!((points(&machine, "web").len(), points(&machine, "zoo").len()), (0, 1));
    let ran = run(&machine, &file, &["config", "check"]).expect_code(1);
    assert!(ran.out().contains("holdfast.toml:7: everybody may write to"), "{}", ran.out());
    std::os::unix::fs::chown(&file, Some(65_534), None).unwrap();
    set(0o644);
    run(&machine, &file, &["config", "check"]).expect_code(1);
    std::os::unix::fs::chown(&file, Some(0), None).unwrap();
    run(&machine, &file, &["config", "check"]).expect_code(0);
    run(&machine, &file, &["backup"]).expect_code(0);
    assert!(machine.path("ran").exists());
}
