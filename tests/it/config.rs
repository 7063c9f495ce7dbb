//! The configuration as a person writes it: looked at, used by `backup`, and where the store is found.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use crate::testkit::{Machine, Ran};

/// A machine with a store and sources, and this configuration.
fn configured(text: &str) -> (Machine, PathBuf) {
    let machine = Machine::with_store();
    for name in ["www", "app"] {
        let dir = machine.path(name);
        std::fs::create_dir_all(dir.join("cache")).unwrap();
        std::fs::write(dir.join("page"), name).unwrap();
        std::fs::write(dir.join("cache/made"), "again").unwrap();
    }
    let file = machine.path("holdfast.toml");
    let text = text.replace("STORE", machine.store().to_str().unwrap());
    let text = text.replace("ROOT", machine.path("www").parent().unwrap().to_str().unwrap());
    std::fs::write(&file, text).unwrap();
    (machine, file)
}

const GOOD: &str = r#"
store = "STORE"
[group.web]
sources = ["ROOT/www", { path = "ROOT/app", name = "the-app", exclude = ["page"] }]
exclude = ["cache"]
local = { schedule = "every 15 minutes", keep = { within = "7d" } }
[group.more]
sources = ["ROOT/nowhere", "ROOT/www"]
online = { schedule = "daily" }
"#;

/// What a verb says that finds the store by the configuration alone.
fn with_config(machine: &Machine, file: &PathBuf, args: &[&str]) -> Ran {
    Ran::of(machine.command(args).env_remove("HOLDFAST_STORE").env("HOLDFAST_CONFIG", file))
}

#[test]
fn what_the_configuration_protects_is_taken_as_it_says() {
    let (machine, file) = configured(GOOD);
    with_config(&machine, &file, &["backup", "--group", "web"]).expect_code(0);
    let points = with_config(&machine, &file, &["snapshots", "--json"]).expect_code(0).json();
    let told: Vec<_> =
        points.as_array().unwrap().iter().map(|point| (&point["group"], &point["source"])).collect();
    assert_eq!(told.len(), 2, "{points}");
    assert!(told.iter().all(|(group, _)| **group == "web"), "{points}");
    assert!(told.iter().any(|(_, source)| **source == "the-app"), "{points}");
    for point in points.as_array().unwrap() {
        let listed =
            with_config(&machine, &file, &["ls", point["id"].as_str().unwrap()]).expect_code(0).out();
        assert!(!listed.contains("made"), "the rule of the group: {listed}");
        assert_eq!(listed.contains("page"), point["source"] != "the-app", "a rule of its own: {listed}");
    }
    // One that is not there keeps nobody from the others, and a source is one whichever group it is in.
    let ran = with_config(&machine, &file, &["backup"]).expect_code(1).expect_err(&["nowhere"]);
    assert_eq!(ran.out().matches(" saved\n").count(), 3, "{}", ran.out());
    with_config(&machine, &file, &["backup", "--group", "wbe"])
        .expect_code(2)
        .expect_err(&["wbe", "more, web"]);
}

#[test]
fn mistakes_are_named_by_line_and_keep_nothing_from_being_done_that_needs_no_configuration() {
    let (machine, file) = configured("store = \"STORE\"\n[group.a]\nsorces = [\"/a\"]\n");
    let ran = with_config(&machine, &file, &["config", "check"]).expect_code(1).expect_err(&["2 mistakes"]);
    let name = file.to_str().unwrap();
    assert!(ran.out().contains(&format!("{name}:3: group.a.sorces is not known")), "{}", ran.out());
    let lines = with_config(&machine, &file, &["config", "check", "--json"]).expect_code(1).out();
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((&first["message_type"], &first["line"]), (&"problem".into(), &2.into()), "{first}");
    with_config(&machine, &file, &["backup"]).expect_code(2).expect_err(&["config check"]);
    with_config(&machine, &file, &["snapshots"]).expect_code(1).expect_err(&["config check"]);
    Ran::of(machine.command(["snapshots"]).env("HOLDFAST_CONFIG", &file)).expect_code(0);
    // The page says what is wrong.
    let page = with_config(&machine, &file, &["status"]).expect_code(0).out();
    assert!(page.contains("ALERT bad-configuration") && page.contains("2 mistakes"), "{page}");
}

#[test]
fn a_configuration_that_was_named_must_be_there() {
    let (machine, file) = configured(GOOD);
    let ran = with_config(&machine, &file, &["config", "check"]).expect_code(0);
    assert!(ran.out().contains("2 groups, 4 sources"), "{}", ran.out());
    std::fs::remove_file(&file).unwrap();
    with_config(&machine, &file, &["config", "check"]).expect_code(1).expect_err(&["holdfast.toml"]);
    with_config(&machine, &file, &["backup"]).expect_code(2).expect_err(&["holdfast.toml"]);
    Ran::of(machine.command(["backup"]).env("HOME", machine.path("home")))
        .expect_code(2)
        .expect_err(&["PATH"]);
}

#[test]
fn a_plan_says_when_what_is_kept_and_why_for_each_tier() {
    let (machine, file) = configured(
        r#"
store = "STORE"
time-zone = "Europe/Berlin"
[group.web]
sources = ["ROOT/www"]
local = { schedule = "every 15 minutes", keep = { last = 4 } }
online = { schedule = "22:00", keep = { last = 1 } }
"#,
    );
    with_config(&machine, &file, &["vault", "add", machine.path("vault").to_str().unwrap()]).expect_code(0);
    for n in 0..5 {
        std::fs::write(machine.path("www/page"), format!("{n}")).unwrap();
        let online = if n == 4 { &["backup", "--online"][..] } else { &["backup"] };
        with_config(&machine, &file, online).expect_code(0);
    }
    let told = with_config(&machine, &file, &["plan", "--json", "--next", "2"]).expect_code(0).out();
    let plans: Vec<serde_json::Value> =
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [local, online] = &plans[..] else { panic!("{told}") };
    let actions = |plan: &serde_json::Value| -> Vec<String> {
        let points = plan["points"].as_array().unwrap().iter();
        points.map(|point| point["action"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(actions(local), ["expire", "keep", "keep", "keep", "keep"], "{told}");
    // The first of its span and, as --online was said, the last one.
    let online = actions(online);
    assert!((1..=2).contains(&online.len()) && online.iter().all(|action| action == "keep"), "{told}");
    assert_eq!(local["points"][0]["reason"], "no rule keeps it");
    let times: Vec<&str> = local["next"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    assert!(times.len() == 2 && times.iter().all(|t| t[14..19].ends_with(":00")), "{times:?}");
    let text = with_config(&machine, &file, &["plan"]).expect_code(0).out();
    assert!(
        text.contains("web local: every 15 minutes; next ") && text.contains("no rule keeps it"),
        "{text}"
    );
    with_config(&machine, &file, &["plan", "--group", "nobody"])
        .expect_code(2)
        .expect_err(&["nobody", "web"]);
}
