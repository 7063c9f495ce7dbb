//! What the daemon tells people and machines of, as they hear it: by mail, by a request, in the log, as figures in a file.
//!
//! The daemon looks each few minutes, and after each job as long as something is wrong; so a job that a test asks for makes a look.
#![allow(clippy::unwrap_used)]

mod servers;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::daemon::{Daemon, GROUP, Site};
use crate::testkit::{PASSPHRASE, Ran, wait_for};
use servers::{Http, Smtp};

/// A group with a source that is not there. Nothing expires: only points that are taken, and the first upload, make looks.
fn missing() -> String {
    let two = GROUP.replace("[\"ROOT/www\"]", "[\"ROOT/nowhere\", \"ROOT/www\"]");
    two.replace(", keep = { last = 2 }", "")
}

/// A daemon that has put online what it can, so that it is only the other source that is wrong.
fn start(site: &Site) -> Daemon<'_> {
    let daemon = site.start();
    wait_for("the upload", 60, || site.states("push") == ["done"]);
    daemon
}

/// A job that is not done, so that it is looked.
fn look(site: &Site) {
    site.run(&["backup"]).expect_code(1);
}

fn mail(smtp: &Smtp) -> String {
    let server = smtp.address("");
    format!(
        "[alerts.mail]\nto = [\"ops@example.org\", \"me@example.org\"]\nfrom = \"holdfast@box\"\nserver = \"{server}\"\n"
    )
}

fn webhook(port: u16) -> String {
    format!("[alerts]\nwebhook = \"http://127.0.0.1:{port}/hook/geheim\"\n")
}

fn alerts(site: &Site) -> Vec<Value> {
    let out = site.run(&["alerts", "--json"]).expect_code(0).out();
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The name that the points of a source have, or will.
fn name_of(path: &std::path::Path) -> String {
    path.to_str().unwrap().trim_start_matches('/').replace('/', "-")
}

/// What is wrong with the source that is not there.
fn of_missing(site: &Site) -> [String; 2] {
    let name = name_of(&site.machine.path("nowhere"));
    ["local", "online"].map(|tier| format!("no-good-point web {tier} {name}"))
}

/// The source is there after all, and in both tiers.
fn bring(site: &Site) {
    std::fs::create_dir(site.machine.path("nowhere")).unwrap();
    site.run(&["backup", "--online"]).expect_code(0);
}

#[test]
fn what_is_wrong_is_told_once_by_each_way_and_so_is_that_it_is_over() {
    let (smtp, http) = (Smtp::new(), Http::new(None));
    let site = Site::new(&format!("{}{}{}", missing(), webhook(http.port), mail(&smtp)));
    let daemon = start(&site);
    look(&site);
    let expected = of_missing(&site);
    wait_for("the request", 60, || http.subjects("opened") == expected);
    wait_for("the mail", 60, || smtp.letters().len() == 2);
    (0..3).for_each(|_| look(&site));
    bring(&site);
    wait_for("the end, by request", 60, || http.subjects("closed") == expected);
    wait_for("the end, by mail", 60, || smtp.letters().len() == 4);
    assert_eq!(http.told().len(), 4, "{:?}", http.told());
    let host = http.told()[0]["host"].as_str().unwrap().to_owned();
    let titles = ["", "", "closed: ", "closed: "].into_iter().zip(expected.iter().cycle());
    let titles: Vec<String> = titles.map(|(event, of)| format!("holdfast {host}: {event}{of}")).collect();
    assert_eq!(smtp.headers("Subject"), titles);
    assert_eq!(smtp.headers("To")[0], "ops@example.org, me@example.org");
    assert_eq!(smtp.headers("Auto-Submitted")[0], "auto-generated");
    let store = site.machine.store().display().to_string();
    let body = smtp.letters().remove(0);
    for word in ["there is no good recovery point", &store, "holdfast status", "holdfast jobs"] {
        assert!(body.contains(word), "{word}\n{body}");
    }
    let log = site.log();
    assert_eq!(
        (log.matches("alert opened: ").count(), log.matches("alert closed: ").count()),
        (2, 2),
        "{log}"
    );
    let shown = alerts(&site);
    let told = shown.iter().filter(|alert| alert["told"].is_string() && alert["closed"].is_string());
    assert_eq!(told.count(), 2, "{shown:?}");
    let said = site.run(&["alerts"]).expect_code(0).out();
    assert!(said.contains("closed no-good-point (web online") && !said.contains("OPEN"), "{said}");
    daemon.end();
}

#[test]
fn a_way_that_is_away_is_told_later_and_holds_up_no_other() {
    let (smtp, port) = (Smtp::new(), Http::nowhere());
    let site = Site::new(&format!("{}{}{}", missing(), webhook(port), mail(&smtp)));
    let daemon = start(&site);
    look(&site);
    wait_for("the mail", 60, || smtp.letters().len() == 2);
    wait_for("the failure", 60, || site.log().contains("alerts cannot be told by webhook"));
    (0..3).for_each(|_| look(&site));
    let open: Vec<Value> = alerts(&site).into_iter().filter(|alert| alert["closed"].is_null()).collect();
    assert!(
        open.len() == 2 && open.iter().all(|alert| alert["untold"] == serde_json::json!(["webhook"])),
        "{open:?}"
    );
    assert_eq!(site.status()["untold"], serde_json::json!({ "webhook": 2 }));
    assert!(site.run(&["status"]).expect_code(0).out().contains("not told by webhook yet: 2 alerts"));
    let http = Http::new(Some(port));
    http.answer_with(503);
    look(&site);
    http.answer_with(200);
    wait_for("the request", 60, || {
        look(&site);
        http.subjects("opened") == of_missing(&site)
    });
    wait_for("what is put down", 60, || {
        alerts(&site).iter().all(|alert| alert["untold"] == serde_json::json!([]))
    });
    let log = site.log();
    assert_eq!(log.matches("alerts cannot be told by webhook").count(), 1, "{log}");
    assert!(log.contains("can be told by webhook again") && !log.contains("geheim"), "{log}");
    assert_eq!((http.told().len(), smtp.letters().len()), (2, 2));
    daemon.end();
}

#[test]
fn ways_that_the_configuration_names_later_are_told_what_is_open() {
    let (smtp, http) = (Smtp::new(), Http::new(None));
    let site = Site::new(&missing());
    let daemon = start(&site);
    look(&site);
    wait_for("the log", 60, || site.log().matches("alert opened: ").count() == 2);
    site.configure(&format!("{}{}", missing(), webhook(http.port)));
    daemon.signal(Signal::SIGHUP);
    wait_for("the request", 60, || http.subjects("opened") == of_missing(&site));
    site.configure(&format!("{}{}", missing(), mail(&smtp)));
    daemon.signal(Signal::SIGHUP);
    wait_for("the mail", 60, || smtp.letters().len() == 2);
    bring(&site);
    wait_for("the end", 60, || smtp.letters().len() == 4);
    assert_eq!(http.told().len(), 2, "a way that is not named any more is told nothing");
    daemon.end();
}

#[test]
fn somebody_can_try_whether_the_ways_work() {
    let (smtp, http) = (Smtp::new(), Http::new(None));
    let secret = "[alerts.mail]\npassword-file = \"ROOT/password\"\n";
    let with_user = mail(&smtp).replace("127.0.0.1", "ops%40example.org@127.0.0.1");
    let with_user = with_user.replace("[alerts.mail]\n", secret);
    let site = Site::new(&format!("{GROUP}{}{with_user}", webhook(http.port)));
    std::fs::write(site.machine.path("password"), "geheim\n").unwrap();
    let said = site.run(&["alerts", "--test"]).expect_code(0).out();
    assert_eq!(said, "mail: sent\nwebhook: sent\n");
    assert_eq!((smtp.letters().len(), http.told()[0]["event"].clone()), (1, "test".into()));
    // The user and the password, each after a zero byte.
    let auth = "AUTH PLAIN AG9wc0BleGFtcGxlLm9yZwBnZWhlaW0=";
    assert!(smtp.lines().iter().any(|line| line == auth), "{:?}", smtp.lines());
    assert!(!format!("{:?}{:?}", smtp.letters(), http.told()).contains("geheim"));
    http.answer_with(500);
    std::fs::remove_file(site.machine.path("password")).unwrap();
    let ran =
        site.run(&["alerts", "--test", "--json"]).expect_code(1).expect_err(&["not told by mail, webhook"]);
    let lines: Vec<Value> = ran.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["ok"] == false && lines[0]["error"].as_str().unwrap().contains("password"), "{lines:?}");
    assert!(lines[1]["error"].as_str().unwrap().contains("500"), "{lines:?}");
    assert!(!ran.out().contains("geheim") && !ran.err().contains("geheim"));
    site.configure(GROUP);
    site.run(&["alerts", "--test"]).expect_code(1).expect_err(&["names no way", "[alerts]"]);
    site.configure(&format!("{GROUP}{}", webhook(http.port).replace("http:", "gopher:")));
    let ran = site.run(&["config", "check"]).expect_code(1);
    assert!(
        ran.out().contains("holdfast.toml:7: alerts.webhook") && !ran.out().contains("geheim"),
        "{}",
        ran.out()
    );
}

#[test]
fn figures_are_printed_and_the_daemon_writes_them_for_whoever_collects_them() {
    let site = Site::new(&format!("{}[metrics]\nfile = \"ROOT/holdfast.prom\"\n", missing()));
    let file = site.machine.path("holdfast.prom");
    let daemon = site.start();
    let missing = name_of(&site.machine.path("nowhere"));
    let figure = |text: &str, of: &str| -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(' ')?.parse().ok())
    };
    let alert = format!("holdfast_alert{{name=\"no-good-point\",subject=\"web local {missing}\"}}");
    let text = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_for("the file", 60, || figure(&text(), &alert) == Some(1.0));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(figure(&text(), "holdfast_up"), Some(1.0));
    wait_for("the upload", 60, || site.states("push") == ["done"]);
    let printed = site.run(&["status", "--metrics"]).expect_code(0).out();
    let source = site.machine.path("www").display().to_string();
    let tiers = printed.lines().filter(|line| line.starts_with("holdfast_points{")).count();
    assert_eq!(tiers, 4, "{printed} {source}");
    let ends = "holdfast_job_last_end_timestamp_seconds{work=\"push\",group=\"web\",state=\"done\"}";
    assert!(figure(&printed, ends).is_some_and(|at| at > 1.7e9), "{printed}");
    assert_eq!(figure(&printed, "holdfast_job_failures{work=\"backup\",group=\"web\"}"), Some(0.0));
    assert!(figure(&printed, "holdfast_disk_size_bytes") > figure(&printed, "holdfast_disk_free_bytes"));
    daemon.end();
    let printed = site.run(&["status", "--metrics"]).expect_code(0).out();
    assert_eq!(figure(&printed, "holdfast_up"), Some(0.0));
    assert_eq!(figure(&printed, "holdfast_alert{name=\"no-daemon\",subject=\"daemon\"}"), Some(1.0));
    // The daemon's own look does not say that there is none.
    let page = Ran::of(site.command(&["status", "--json"]).env("HOLDFAST_JOB", "1")).expect_code(0).json();
    assert!(!page["alerts"].to_string().contains("no-daemon"), "{page}");
    site.run(&["status", "--metrics", "--json"]).expect_code(2);
    site.run(&["config", "check"]).expect_code(0);
    site.configure(&format!("{GROUP}[metrics]\nfile = \"ROOT/none/holdfast.prom\"\n"));
    site.run(&["config", "check"]).expect_code(0).expect_err(&["file of figures", "none"]);
    assert!(site.status()["alerts"].to_string().contains("metrics-fail"), "{}", site.status());
    let ran = site.run(&["status", "--metrics-file", "/nonexistent/a.prom"]).expect_code(1);
    assert!(ran.out().contains("ALERT no-daemon"), "the page is there all the same: {}", ran.out());
}

#[test]
fn damage_that_a_check_of_a_person_found_is_told_until_a_check_finds_none() {
    let http = Http::new(None);
    let site = Site::new(&format!("{GROUP}{}", webhook(http.port)));
    let daemon = start(&site);
    let damaged =
        || site.status()["alerts"].as_array().unwrap().iter().any(|alert| alert["name"] == "damage");
    site.run(&["check"]).expect_code(0);
    assert!(!damaged());
    let packs = site.machine.store().join("pack");
    std::fs::rename(&packs, site.machine.path("aside")).unwrap();
    std::fs::create_dir(&packs).unwrap();
    site.run(&["check"]).expect_code(1);
    assert!(damaged(), "{}", site.status());
    wait_for("the request", 60, || {
        // So that it is looked.
        daemon.signal(Signal::SIGHUP);
        http.subjects("opened") == ["damage store"]
    });
    std::fs::remove_dir(&packs).unwrap();
    std::fs::rename(site.machine.path("aside"), &packs).unwrap();
    site.run(&["check"]).expect_code(0);
    assert!(!damaged(), "{}", site.status());
    daemon.end();
}

#[test]
fn that_nobody_knows_whether_all_is_well_is_told_too() {
    let http = Http::new(None);
    let site = Site::new(&format!("{GROUP}{}", webhook(http.port)));
    site.machine.forget_keys();
    let broken = site.machine.path("broken");
    std::fs::write(&broken, "").unwrap();
    let script = format!(
        "if [ -n \"$HOLDFAST_JOB\" ] && [ -e {} ]; then exit 7; fi; echo '{PASSPHRASE}'",
        broken.display()
    );
    let command = |args: &[&str]| -> Command {
        let mut command = site.command(args);
        command.env("HOLDFAST_PASSWORD_COMMAND", &script);
        command
    };
    let log = std::fs::File::create(site.machine.path("daemon.log")).unwrap();
    let child = command(&["daemon"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let daemon = Daemon { site: &site, child };
    wait_for("a job", 60, || site.states("backup") == ["failed"]);
    Ran::of(&mut command(&["backup"]));
    wait_for("the request", 60, || http.subjects("opened") == ["status-fails status"]);
    assert!(http.told()[0]["what"].as_str().unwrap().contains("exit"), "{:?}", http.told());
    std::fs::remove_file(&broken).unwrap();
    Ran::of(&mut command(&["backup", "--online"])).expect_code(0);
    wait_for("its end", 60, || http.subjects("closed") == ["status-fails status"]);
    assert_eq!(http.told().len(), 2, "{:?}", http.told());
    daemon.end();
}
