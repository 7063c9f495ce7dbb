//! The daemon as a person and a service manager meet it: what it does by itself, what it is asked, and how it ends.
#![allow(clippy::unwrap_used)]

mod configuration;
mod online;
mod vaults;

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::compare::compare;
use crate::testkit::{Machine, PASSPHRASE, Ran, wait_for};

/// A machine with a source, a store with a vault in a directory, and a configuration of one group.
pub struct Site {
    /// Its machine.
    pub machine: Machine,
    config: PathBuf,
}

/// Its schedules come so seldom that nothing is due but what was never done.
pub const GROUP: &str = r#"
[group.web]
sources = ["ROOT/www"]
local = { schedule = "yearly", keep = { last = 2 } }
online = { schedule = "yearly" }
"#;

impl Site {
    pub fn new(text: &str) -> Self {
        let machine = Machine::with_store();
        std::fs::create_dir(machine.path("www")).unwrap();
        for n in 0..20 {
            std::fs::write(machine.path("www").join(format!("page-{n}")), format!("page {n}")).unwrap();
        }
        Ran::of(machine.command(["vault", "add"]).arg(machine.path("vault"))).expect_code(0);
        let site = Self { config: machine.path("holdfast.toml"), machine };
        site.configure(text);
        site
    }

    pub fn configure(&self, text: &str) {
        let root = self.machine.path("www").parent().unwrap().to_str().unwrap().to_owned();
        std::fs::write(&self.config, text.replace("ROOT", &root)).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.machine.command(args);
        command.env("HOLDFAST_CONFIG", &self.config);
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args))
    }

    pub fn jobs(&self) -> Vec<Value> {
        let out = self.run(&["jobs", "--json", "-n", "100"]).expect_code(0).out();
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The states of the jobs of one kind, the newest first.
    pub fn states(&self, work: &str) -> Vec<String> {
        let jobs = self.jobs();
        let of = jobs.iter().filter(|job| job["work"] == work);
        of.map(|job| job["state"].as_str().unwrap().to_owned()).collect()
    }

    pub fn status(&self) -> Value {
        self.run(&["status", "--json"]).expect_code(0).json()
    }

    pub fn start(&self) -> Daemon<'_> {
        self.start_with(&mut self.command(&["daemon"]))
    }

    /// A daemon that answers.
    pub fn start_with(&self, command: &mut Command) -> Daemon<'_> {
        let log = std::fs::File::create(self.machine.path("daemon.log")).unwrap();
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let daemon = Daemon { site: self, child };
        wait_for("the daemon", 30, || !self.status()["daemon"].is_null());
        daemon
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.machine.path("daemon.log")).unwrap()
    }
}

/// What the daemon of a site answers to a question, line by line, until it has no more to say.
fn ask(site: &Site, question: &str) -> String {
    let mut stream = UnixStream::connect(site.machine.store().join("daemon.sock")).unwrap();
    stream.write_all(question.as_bytes()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

/// A daemon that ends with the test.
pub struct Daemon<'a> {
    /// What it serves.
    pub site: &'a Site,
    /// Its process.
    pub child: Child,
}

impl Daemon<'_> {
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Asks it to end, and sees that it does.
    pub fn end(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.site.log());
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_was_never_done_is_done_at_once_on_both_tiers_and_told() {
    let site = Site::new(GROUP);
    let daemon = site.start();
    wait_for("the upload", 60, || site.states("push") == ["done"]);
    assert_eq!(site.states("backup"), ["done"]);
    wait_for("the expiry", 60, || site.states("expire-local") == ["done"]);
    assert_eq!(site.states("expire-online"), [] as [String; 0], "without a rule everything is kept");
    let page = site.status();
    assert_eq!(page["alerts"], serde_json::json!([]), "{page}");
    let tiers: Vec<_> =
        page["tiers"].as_array().unwrap().iter().map(|t| (t["tier"].clone(), t["points"].clone())).collect();
    assert_eq!(tiers, [("local".into(), 1.into()), ("online".into(), 1.into())]);
    assert!(site.run(&["status"]).expect_code(0).out().contains("all is well"));
    daemon.end();
    assert!(!site.machine.store().join("daemon.sock").exists());
    // The vault alone has all of it.
    let stranger = Machine::recovering();
    let mut recover = stranger.command(["recover"]);
    Ran::of(recover.arg(site.machine.path("vault")).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    let mut restore = stranger.command(["restore", "latest", "--target"]);
    Ran::of(restore.arg(stranger.path("back")).env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    compare(&site.machine.path("www"), &stranger.path("back")).assert_none();
}

#[test]
fn a_person_asks_and_the_daemon_does_it() {
    let site = Site::new(GROUP);
    let daemon = site.start();
    // Who asks for what runs already hears of its end, and it is not his.
    let is_done = |work| site.states(work) == ["done"];
    wait_for("the first jobs", 60, || is_done("expire-local") && is_done("push"));
    std::fs::write(site.machine.path("www/new"), "new").unwrap();
    let said = site.run(&["backup", "--online"]).expect_code(0).out();
    assert!(
        said.contains("saved") && said.contains("(backup web): done") && said.contains("(push web): done"),
        "{said}"
    );
    let asked: Vec<Value> = site.jobs().into_iter().filter(|job| job["person"] == true).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[1]["points"].as_array().unwrap().len(), 1);
    let line = site.run(&["backup", "--group", "web", "--json"]).expect_code(0).json();
    assert_eq!((&line["message_type"], &line["state"]), (&"job".into(), &"done".into()));
    // What a daemon would not do is done by who asks.
    // The daemon may have the store just now, to expire what it took.
    let mine = || site.run(&["backup", "--group", "web", "--tag", "mine"]).code() == 0;
    wait_for("the store", 30, mine);
    assert_eq!(site.states("backup").len(), 3);
    site.run(&["cancel", "9999"]).expect_code(1).expect_err(&["no job 9999 runs"]);
    daemon.end();
    site.run(&["cancel", "1"]).expect_code(1).expect_err(&["no daemon serves this store"]);
    assert_eq!(site.status()["alerts"][0]["name"], "no-daemon");
}

#[test]
fn jobs_and_their_hooks_are_as_nice_as_the_configuration_has_it() {
    let hook = "[group.web.hooks]\nbefore = \"cut -d' ' -f19 /proc/self/stat >>ROOT/nice\"\n";
    let nice = |nice: u8| format!("{GROUP}{hook}[jobs]\nnice = {nice}\n");
    let site = Site::new(&format!("{GROUP}{hook}"));
    let own = rustix::process::getpriority_process(None).unwrap();
    let seen = || std::fs::read_to_string(site.machine.path("nice")).unwrap();
    let daemon = site.start();
    wait_for("the first point", 60, || site.states("backup") == ["done"]);
    for (round, more) in [17, 0].into_iter().enumerate() {
        site.configure(&nice(more));
        daemon.signal(Signal::SIGHUP);
        wait_for("it to be read", 30, || site.log().matches("read again").count() == round + 1);
        site.run(&["backup", "--group", "web"]).expect_code(0);
    }
    // What a person types is as nice as he is, whatever stands in his environment.
    let mut typed = site.command(&["backup", "--group", "web", "--tag", "mine"]);
    Ran::of(typed.env("HOLDFAST_JOB_NICE", "19")).expect_code(0);
    let wanted = [10, 17, 0, 0].map(|nice: i32| nice.max(own).to_string());
    assert_eq!(seen().lines().collect::<Vec<_>>(), wanted);
    daemon.end();
}

#[test]
fn one_daemon_serves_a_store() {
    let site = Site::new(GROUP);
    let daemon = site.start();
    let pid = daemon.child.id().to_string();
    site.run(&["daemon"]).expect_code(11).expect_err(&["another daemon", &pid]);
    daemon.end();
    site.configure("");
    site.run(&["daemon"]).expect_code(1).expect_err(&["protects nothing", "holdfast protect"]);
}

/// A site whose jobs hang where they ask for the passphrase, as long as the file `hang` is there.
fn hanging() -> (Site, impl Fn(&Site) -> Command) {
    let site = Site::new(GROUP);
    site.machine.forget_keys();
    let script = format!(
        "if [ -n \"$HOLDFAST_JOB\" ] && [ -e {} ]; then exec sleep 1000; fi; echo '{PASSPHRASE}'",
        site.machine.path("hang").display()
    );
    std::fs::write(site.machine.path("hang"), "").unwrap();
    let command = move |site: &Site| {
        let mut command = site.command(&["daemon"]);
        command.env("HOLDFAST_PASSWORD_COMMAND", &script);
        command
    };
    (site, command)
}

/// The process of the job that runs.
fn process_of(site: &Site) -> i32 {
    let daemon: i32 =
        std::fs::read_to_string(site.machine.store().join("daemon.lock")).unwrap().trim().parse().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).unwrap();
    // It may look whether all is well besides.
    let is_job = |child: &&str| {
        std::fs::read_to_string(format!("/proc/{child}/cmdline")).is_ok_and(|line| line.contains("backup"))
    };
    children.split_whitespace().find(is_job).unwrap().parse().unwrap()
}

#[test]
fn a_job_is_cancelled_and_a_daemon_that_stops_takes_its_jobs_along() {
    let (site, command) = hanging();
    let with_key = |args: &[&str]| Ran::of(site.command(args).env("HOLDFAST_PASSWORD", PASSPHRASE));
    let child = command(&site).stderr(Stdio::null()).spawn().unwrap();
    let daemon = Daemon { site: &site, child };
    wait_for("the job", 60, || site.states("backup") == ["running"]);
    let job = site.jobs()[0]["job"].to_string();
    with_key(&["cancel", &job]).expect_code(0);
    wait_for("its end", 60, || site.states("backup") == ["cancelled"]);
    // Whoever asks for it now waits for a job that hangs, and is told when it ends with the daemon.
    let asking = site.command(&["backup"]).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("another job", 60, || site.states("backup") == ["running", "cancelled"]);
    let process = process_of(&site);
    // Whoever looks at the processes sees what it is, as soon as it has begun.
    let shown = |what| std::fs::read_to_string(format!("/proc/{process}/{what}")).unwrap();
    wait_for("its name", 60, || shown("comm").trim_end() == "holdfast");
    assert_eq!(shown("cmdline").split('\0').next(), Some("holdfast"));
    std::fs::write(site.machine.path("daemon.log"), "").unwrap();
    daemon.end();
    assert!(kill(Pid::from_raw(process), None).is_err(), "its job is still there");
    assert_eq!(site.states("backup"), ["lost", "cancelled"]);
    assert_eq!(asking.wait_with_output().unwrap().status.code(), Some(1));
}

#[test]
fn what_a_killed_daemon_left_is_done_by_the_next_one() {
    let (site, command) = hanging();
    let mut child = command(&site).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the job", 60, || site.states("backup") == ["running"]);
    let process = process_of(&site);
    child.kill().unwrap();
    child.wait().unwrap();
    killpg(Pid::from_raw(process), Signal::SIGKILL).unwrap();
    assert!(site.machine.store().join("daemon.sock").exists());
    std::fs::remove_file(site.machine.path("hang")).unwrap();
    let child = command(&site).stderr(Stdio::null()).spawn().unwrap();
    let daemon = Daemon { site: &site, child };
    wait_for("what is told of it", 60, || site.states("backup").last().is_some_and(|state| state == "lost"));
    // It is tried again a minute later, or when a person asks.
    site.run(&["backup"]).expect_code(0);
    assert_eq!(site.states("backup"), ["done", "lost"]);
    std::fs::write(site.machine.path("daemon.log"), "").unwrap();
    daemon.end();
}

#[test]
fn the_configuration_is_read_again_and_one_with_mistakes_changes_nothing() {
    let site = Site::new(GROUP);
    let daemon = site.start();
    wait_for("the first point", 60, || site.states("backup") == ["done"]);
    site.configure("[group.web]\nsources = []\n");
    daemon.signal(Signal::SIGHUP);
    wait_for("the mistake", 30, || site.log().contains("stays what it was"));
    assert!(site.log().contains("holdfast.toml"), "{}", site.log());
    std::fs::create_dir(site.machine.path("more")).unwrap();
    let more = GROUP.replace("group.web", "group.more").replace("www", "more");
    site.configure(&format!("{GROUP}{more}"));
    daemon.signal(Signal::SIGHUP);
    wait_for("a point of the new group", 60, || site.states("backup") == ["done", "done"]);
    assert_eq!(site.jobs().iter().filter(|job| job["group"] == "more" && job["work"] == "backup").count(), 1);
    // Whoever changes it by a verb need not say so.
    let mut protect = site.command(&["protect", "--group", "third", "--local", "yearly"]);
    Ran::of(protect.arg(site.machine.path("more"))).expect_code(0);
    wait_for("a point of the third group", 60, || site.states("backup") == ["done", "done", "done"]);
    daemon.end();
}

#[test]
fn a_source_that_is_missing_keeps_neither_the_others_from_being_taken_nor_from_going_online() {
    let site = Site::new(&GROUP.replace("[\"ROOT/www\"]", "[\"ROOT/nowhere\", \"ROOT/www\"]"));
    let daemon = site.start();
    wait_for("the upload", 60, || site.states("push") == ["done"]);
    assert_eq!(site.states("backup"), ["partial"]);
    assert!(site.jobs().iter().any(|job| job["said"].as_str().unwrap().contains("nowhere")));
    let page = site.status();
    let alerts = page["alerts"].as_array().unwrap();
    assert!(
        alerts
            .iter()
            .any(|a| a["name"] == "no-good-point" && a["subject"].as_str().unwrap().contains("nowhere")),
        "{page}"
    );
    assert!(!alerts.iter().any(|a| a["subject"].as_str().unwrap().contains("www")), "{page}");
    daemon.end();
}

#[test]
fn a_job_that_is_killed_takes_its_hooks_along_and_one_that_outlives_its_daemon_is_whole() {
    let ran = |site: &Site| site.machine.path("ran");
    let hooks = |before: &str, after: &str| {
        format!("{GROUP}[group.web.hooks]\nbefore = \"{before}\"\nafter = \"{after}\"\n")
    };
    let site = Site::new(&hooks("echo $$ > ROOT/ran; exec sleep 4", "echo $HOLDFAST_RESULT > ROOT/result"));
    let mut daemon = site.start();
    wait_for("the hook", 60, || std::fs::read_to_string(ran(&site)).is_ok_and(|text| text.ends_with('\n')));
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    // Nobody hears of its point any more, and it is made all the same.
    let result = site.machine.path("result");
    wait_for("the end of the job", 60, || {
        std::fs::read_to_string(&result).is_ok_and(|text| text == "done\n")
    });
    std::fs::remove_file(ran(&site)).unwrap();
    site.configure(&hooks("trap '' TERM INT; echo $$ > ROOT/ran; while :; do sleep 1; done", "true"));
    let daemon = site.start();
    let asking = site.command(&["backup"]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the hook", 60, || std::fs::read_to_string(ran(&site)).is_ok_and(|text| text.ends_with('\n')));
    let hook: i32 = std::fs::read_to_string(ran(&site)).unwrap().trim().parse().unwrap();
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGTERM);
    daemon.end();
    wait_for("the end of the hook", 10, || kill(Pid::from_raw(hook), None).is_err());
    assert_ne!(asking.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn many_who_wait_keep_nobody_from_being_answered() {
    let (site, command) = hanging();
    let mut command = command(&site);
    let child = command.stderr(Stdio::null()).spawn().unwrap();
    let daemon = Daemon { site: &site, child };
    wait_for("the job", 60, || site.states("backup") == ["running"]);
    let socket = site.machine.store().join("daemon.sock");
    let idle: Vec<_> = (0..700).map(|_| UnixStream::connect(&socket)).collect();
    let mut asking = Vec::new();
    for _ in 0..20 {
        asking.push(site.command(&["backup"]).stderr(Stdio::null()).spawn().unwrap());
    }
    wait_for("an answer", 30, || site.run(&["cancel", "1"]).code() == 0);
    drop(idle);
    wait_for("the end of the first job", 60, || {
        site.states("backup").last().is_some_and(|state| state == "cancelled")
    });
    std::fs::write(site.machine.path("daemon.log"), "").unwrap();
    daemon.end();
    asking.into_iter().for_each(|mut child| drop(child.wait()));
}

#[test]
fn a_service_manager_hears_that_it_serves_that_it_is_well_and_that_it_ends() {
    let site = Site::new(GROUP);
    let path = site.machine.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let heard = || {
        let mut bytes = [0; 512];
        let len = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let mut command = site.command(&["daemon"]);
    let child = command
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "3000000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let daemon = Daemon { site: &site, child };
    let first = heard();
    assert!(first.starts_with(&format!("READY=1\nMAINPID={}\n", daemon.child.id())), "{first}");
    let second = heard();
    assert!(second.starts_with("WATCHDOG=1\nSTATUS=job 1 (backup web)"), "{second}");
    wait_for("the first point", 60, || site.states("backup") == ["done"]);
    while heard() != "WATCHDOG=1\nSTATUS=waits for what is due" {}
    daemon.signal(Signal::SIGTERM);
    while heard() != "STOPPING=1" {}
    std::fs::write(site.machine.path("daemon.log"), "").unwrap();
    daemon.end();
}

#[test]
fn the_journal_is_told_of_each_job_with_priorities_and_without_times() {
    let site = Site::new(GROUP);
    // A file that is to be the journal, by its device and inode.
    let log = std::fs::File::create(site.machine.path("daemon.log")).unwrap().metadata().unwrap();
    let mut command = site.command(&["daemon"]);
    let daemon = site.start_with(command.env("JOURNAL_STREAM", format!("{}:{}", log.dev(), log.ino())));
    wait_for("the upload", 60, || site.states("push") == ["done"]);
    daemon.signal(Signal::SIGHUP);
    let told = |line: &str| site.log().lines().any(|told| told.starts_with(line));
    wait_for("it to be read", 30, || told("<6>the configuration was read again"));
    assert!(told("<6>job 1 (backup web): done, recovery points "), "{}", site.log());
    std::fs::remove_dir_all(site.machine.path("www")).unwrap();
    site.run(&["backup", "--group", "web"]).expect_code(1);
    wait_for("its end", 30, || site.log().contains("(backup web): failed"));
    let log = site.log();
    assert!(log.lines().all(|line| line.starts_with("<6>") || line.starts_with("<4>")), "{log}");
    assert!(log.lines().any(|line| line.starts_with("<4>job ") && line.ends_with(": failed")), "{log}");
    daemon.end();
}

#[test]
fn a_history_that_is_removed_under_the_daemon_is_put_back_and_nothing_is_done_twice() {
    let site = Site::new(GROUP);
    let daemon = site.start();
    wait_for("the expiry", 60, || site.states("expire-local") == ["done"] && site.states("push") == ["done"]);
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        let _ = std::fs::remove_file(site.machine.store().join(name));
    }
    // Whoever asks wakes it.
    wait_for("the history", 60, || !site.status()["daemon"].is_null() && !site.jobs().is_empty());
    site.run(&["backup", "--group", "web"]).expect_code(0);
    assert_eq!(site.states("backup"), ["done", "done"]);
    assert_eq!(site.states("push"), ["done"]);
    let log = site.log();
    assert_eq!(log.matches("was removed: it is put back").count(), 1, "{log}");
    daemon.end();
}
