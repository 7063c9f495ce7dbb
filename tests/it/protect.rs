//! The configuration as `protect` writes it: begun, changed in place, and left alone where a change would be a mistake.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::testkit::{Machine, PASSPHRASE, Ran, as_nobody, can_be_nobody};

fn machine() -> (Machine, PathBuf) {
    let machine = Machine::with_store();
    for name in ["www", "app"] {
        std::fs::create_dir(machine.path(name)).unwrap();
        std::fs::write(machine.path(name).join("page"), name).unwrap();
    }
    let file = machine.path("etc/holdfast.toml");
    (machine, file)
}

fn protect(machine: &Machine, file: &Path, args: &[&str]) -> Ran {
    Ran::of(machine.command(["protect", "--config"]).arg(file).args(args))
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn protect_and_then_backup_is_all_that_is_needed() {
    let (machine, file) = machine();
    let ran = protect(&machine, &file, &[]).expect_code(0);
    assert!(ran.out().contains("nothing is protected"), "{}", ran.out());
    let ran = protect(&machine, &file, &["www", "./app", "--exclude", "*.tmp"]).expect_code(0);
    for said in ["its store is ", "hourly it is", "is changed", "within 7d, daily 30, monthly 12", "never"] {
        assert!(ran.out().contains(said), "{said:?} is not in {}", ran.out());
    }
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o644);
    let begun = text(&file);
    let ran = protect(&machine, &file, &["app", "www"]).expect_code(0);
    assert!(ran.out().contains("says so already"), "{}", ran.out());
    assert_eq!(text(&file), begun);
    let mut backup = machine.command(["backup"]);
    let ran = Ran::of(backup.env_remove("HOLDFAST_STORE").env("HOLDFAST_CONFIG", &file)).expect_code(0);
    assert_eq!(ran.out().matches(" saved\n").count(), 2, "{}", ran.out());
    let lines = protect(&machine, &file, &["--json"]).expect_code(0).out();
    let group: serde_json::Value = serde_json::from_str(lines.trim()).unwrap();
    assert_eq!((&group["group"], &group["local"]["schedule"]), (&"default".into(), &"hourly".into()));
    assert_eq!(group["sources"][0]["path"], machine.path("www").to_str().unwrap());
    assert!(group["online"].is_null(), "{group}");
}

const WRITTEN: &str = "\
# Ours.
[group.web]            # pages
sources = [
    \"/srv/www\",      # all
]
[group.web.local]
schedule = \"daily\"   # at night
";

#[test]
fn the_file_in_which_a_group_stands_is_changed_and_keeps_what_is_its_own() {
    let (machine, file) = machine();
    let beside = machine.path("etc/holdfast.toml.d/web.toml");
    std::fs::create_dir_all(beside.parent().unwrap()).unwrap();
    std::fs::write(&file, "# main\n").unwrap();
    let real = machine.path("web-of-eva.toml");
    std::fs::write(&real, WRITTEN).unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o664)).unwrap();
    std::os::unix::fs::symlink(&real, &beside).unwrap();
    let args = ["www", "--group", "web", "--as", "pages", "--local", "hourly", "--online", "22:00"];
    let ran = protect(&machine, &file, &args).expect_code(0);
    assert!(ran.out().contains("web.toml is changed"), "{}", ran.out());
    let www = machine.path("www").display().to_string();
    let all = format!("    \"/srv/www\",      # all\n    {{ path = \"{www}\", name = \"pages\" }},\n");
    let expected = WRITTEN
        .replace("    \"/srv/www\",      # all\n", &all)
        .replace("schedule = \"daily\"   # at night", "schedule = \"hourly\"   # at night");
    assert_eq!(text(&real), expected + "\n[group.web.online]\nschedule = \"22:00\"\n");
    assert_eq!(text(&file), "# main\n");
    assert!(std::fs::symlink_metadata(&beside).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&real).unwrap().mode() & 0o7777, 0o664);
    protect(&machine, &file, &["app", "--group", "new"]).expect_code(0);
    assert!(text(&file).starts_with("# main\n\n[group.new]\n"), "{}", text(&file));
    let begun = text(&file);
    let remove = ["--group", "new", "--remove", "app"];
    let ran = protect(&machine, &file, &remove).expect_code(0);
    assert!(ran.out().contains("the group new has no source any more and goes"), "{}", ran.out());
    assert_eq!(text(&file), "# main\n");
    std::fs::write(&file, begun).unwrap();
    let ran = protect(&machine, &file, &[&remove[..], &["--json"]].concat()).expect_code(0);
    assert_eq!((&ran.json()["changed"], ran.out().lines().count()), (&true.into(), 1), "{}", ran.out());
    assert_eq!(text(&file), "# main\n");
}

#[test]
fn what_would_be_a_mistake_is_refused_and_nothing_is_written() {
    let (machine, file) = machine();
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, WRITTEN).unwrap();
    let refused = |args: &[&str], code: i32, words: &[&str]| {
        protect(&machine, &file, args).expect_code(code).expect_err(words);
        assert_eq!(text(&file), WRITTEN, "{args:?}");
    };
    refused(&["nowhere"], 1, &["nowhere", "--allow-missing"]);
    refused(&["www", "app", "--as", "x"], 2, &["--as"]);
    refused(&["www", "--local", "every 3 bananas"], 2, &["bananas"]);
    refused(&["www", "--keep-local", "dayly=3"], 2, &["dayly"]);
    refused(&["--group", "web", "--keep-online", "daily=3"], 1, &["no online schedule", "--online"]);
    refused(&["--group", "web", "--remove", "www"], 1, &["is no source of the group web"]);
    refused(&["--group", "nobody"], 2, &["no group nobody", "it has web"]);
    refused(&["--group", "nobody", "--local", "daily"], 1, &["nobody"]);
    refused(&["--group", "web", "--remove", "/srv/www", "--local", "daily"], 2, &["--remove"]);
    // Both sources would have the same name.
    let named = ["/srv/www", "--group", "web", "--as", "x", "--allow-missing"];
    protect(&machine, &file, &named).expect_code(0);
    let before = text(&file);
    let ran = protect(&machine, &file, &["www", "--group", "web", "--as", "x"]).expect_code(1);
    assert!(ran.out().contains("holdfast.toml:5: group.web.sources: another source"), "{}", ran.out());
    assert!(ran.err().contains("nothing was changed"), "{}", ran.err());
    assert_eq!(text(&file), before);
    // One that has mistakes already is for people to put right.
    std::fs::write(&file, "[group.web]\n").unwrap();
    protect(&machine, &file, &["www"]).expect_code(1).expect_err(&["config check"]);
    assert_eq!(text(&file), "[group.web]\n");
}

#[test]
fn who_may_not_write_it_changes_nothing() {
    if !can_be_nobody("who_may_not_write_it_changes_nothing") {
        return;
    }
    let (machine, file) = machine();
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, WRITTEN).unwrap();
    machine.give_to_nobody();
    for (mode, owner) in [(0o644, 0), (0o555, 65_534)] {
        let dir = file.parent().unwrap();
        std::os::unix::fs::chown(dir, Some(owner), None).unwrap();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode | 0o111)).unwrap();
        let mut command = machine.command(["protect", "/", "--config"]);
        Ran::of(as_nobody(command.arg(&file))).expect_code(1).expect_err(&["denied", "root"]);
        assert_eq!(text(&file), WRITTEN);
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
    }
}

#[test]
fn where_nothing_can_be_done_it_is_said_what_there_is_and_what_to_do() {
    let (machine, file) = machine();
    // Without a store that is named.
    let mut command = machine.command(["protect", "--config"]);
    let ran = Ran::of(command.arg(&file).arg("www").env_remove("HOLDFAST_STORE")).expect_code(0);
    for said in [file.to_str().unwrap(), "names no store", "--store", "holdfast init"] {
        assert!(ran.out().contains(said), "{said:?} is not in {}", ran.out());
    }
    protect(&machine, &file, &["app", "--group", "app"]).expect_code(0);
    let run = |args: &[&str]| Ran::of(machine.command(args).env("HOLDFAST_CONFIG", &file));
    run(&["protect", "stop"]).expect_code(2).expect_err(&["name the group", "app, default"]);
    run(&["protect", "stop", "app"]).expect_code(2).expect_err(&["--keep", "--until-expiry", "--delete"]);
    for group in ["app", "default"] {
        run(&["protect", "stop", group, "--keep"]).expect_code(0);
    }
    run(&["backup"]).expect_code(0).expect_err(&["app, default", "nothing is taken", "protect resume"]);
    std::fs::write(&file, "").unwrap();
    run(&["config", "check"]).expect_code(1).expect_err(&["protects nothing", "holdfast protect"]);
    std::fs::write(&file, "groups = 1\n").unwrap();
    let mut command = machine.command(["snapshots"]);
    Ran::of(command.env("HOLDFAST_CONFIG", &file).env_remove("HOLDFAST_STORE"))
        .expect_code(1)
        .expect_err(&["config check", "--store DIR"]);
}

#[test]
fn a_vault_beside_its_store_is_told_and_what_is_recovered_from_it_says_how_to_go_on() {
    let machine = Machine::with_store();
    let vault = machine.path("vault");
    Ran::of(machine.command(["vault", "add"]).arg(&vault)).expect_code(0).expect_err(&["on the same disk"]);
    let stranger = Machine::recovering();
    let mut recover = stranger.command(["recover"]);
    let ran = Ran::of(recover.arg(&vault).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    let store = stranger.store().display().to_string();
    for verb in ["snapshots", "mount", "restore"] {
        let command = format!("`holdfast --store {store} {verb}");
        assert!(ran.out().contains(&command), "{command} is not in {}", ran.out());
    }
}
