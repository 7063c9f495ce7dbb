//! A real PostgreSQL on an overlay over a point: the strictest of users, since one file that turns stale ends it.
//!
//! The cluster is stopped, backed up, and started again on the mount with an overlay above it. Under load the kernel is made to forget
//! names and nodes, and points come, so that every file is found anew again and again: its number must be the same each time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{evict_or_skip, overlay, sh};
use crate::compare::compare;
use crate::testkit::{Machine, Ran, as_nobody, can_mount, skip};

/// Length of the load, in seconds, unless this variable says another.
const LOAD_SECONDS: u64 = 8;
const LOAD_VARIABLE: &str = "HOLDFAST_TRUTH_SECONDS";

/// Few buffers and few open files, so that files are opened and read again and again.
const SETTINGS: &str = "
listen_addresses = ''
shared_buffers = 2MB
max_files_per_process = 64
max_connections = 20
fsync = off
autovacuum_naptime = 2s
max_wal_size = 64MB
";

const DATABASE: &str = "bench";

/// The programs of the newest PostgreSQL that is installed; else it says, visibly, that the test is left out.
fn programs(test: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let with_checks =
        |bin: &PathBuf| ["initdb", "pgbench", "pg_amcheck"].iter().all(|name| bin.join(name).exists());
    let newest = versions.map(|version| version.path().join("bin")).filter(with_checks).max();
    if newest.is_none() {
        skip(test, "there is no PostgreSQL with pg_amcheck below /usr/lib/postgresql");
    }
    newest
}

/// A cluster that runs as `nobody`, until dropped.
struct Server<'a> {
    bin: &'a Path,
    data: PathBuf,
    /// For its socket and log: a short path, as sockets need.
    dir: &'a Path,
}

impl<'a> Server<'a> {
    #[track_caller]
    fn start(bin: &'a Path, data: &Path, dir: &'a Path) -> Self {
        let server = Self { bin, data: data.to_path_buf(), dir };
        let options = format!("-c unix_socket_directories={}", dir.display());
        let mut start = server.command("pg_ctl");
        start.args(["start", "-w", "-t", "60", "-o", &options, "-l"]).arg(dir.join("log"));
        let status = start.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "the cluster does not start:\n{}", server.log());
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = program_of(self.bin, program);
        command
            .env("PGDATA", &self.data)
            .env("PGHOST", self.dir)
            .env("PGUSER", "postgres")
            .env("PGDATABASE", DATABASE);
        command
    }

    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let ran = Ran::of(self.command(program).args(arguments));
        assert_eq!(ran.code(), 0, "{program}: {}{}\nlog:\n{}", ran.out(), ran.err(), self.log());
        ran.out()
    }

    #[track_caller]
    fn ask(&self, sql: &str) -> String {
        self.run("psql", &["-XAtc", sql]).trim().to_owned()
    }

    /// Ends it in order, so that all is on the disk.
    #[track_caller]
    fn stop(self) {
        self.run("pg_ctl", &["stop", "-w", "-m", "fast"]);
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if self.data.join("postmaster.pid").exists() {
            let mut stop = self.command("pg_ctl");
            let _ = stop
                .args(["stop", "-w", "-m", "immediate"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn program_of(bin: &Path, program: &str) -> Command {
    let mut command = Command::new(bin.join(program));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    as_nobody(&mut command);
    command
}

/// Makes a cluster with what `pgbench` works on, and stops it.
fn make_cluster(bin: &Path, data: &Path, dir: &Path) {
    let mut make = program_of(bin, "initdb");
    make.args([
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--no-sync",
        "--data-checksums",
        "--wal-segsize=4",
        "-D",
    ]);
    Ran::of(make.arg(data)).expect_code(0);
    let path = data.join("postgresql.conf");
    let settings = std::fs::read_to_string(&path).unwrap() + SETTINGS;
    std::fs::write(path, settings).unwrap();
    let server = Server::start(bin, data, dir);
    server.run("createdb", &[DATABASE]);
    server.run("pgbench", &["-i", "-q", "-s", "1"]);
    server.stop();
}

/// What `pgbench` keeps equal, with the number of its transactions.
fn sums(server: &Server<'_>) -> (String, u64) {
    let sums = server.ask(
        "select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches),
            (select sum(tbalance) from pgbench_tellers), (select coalesce(sum(delta), 0) from pgbench_history)",
    );
    let parts: Vec<_> = sums.split('|').collect();
    assert!(parts.len() == 4 && parts.iter().all(|sum| *sum == parts[0]), "{sums}");
    (sums, server.ask("select count(*) from pgbench_history").parse().unwrap())
}

/// `pgbench` for some seconds, while the kernel forgets and points come.
fn load(server: &Server<'_>, machine: &Machine, other: &Path) {
    let seconds =
        std::env::var(LOAD_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(LOAD_SECONDS);
    let mut bench = server.command("pgbench");
    bench.args([
        "-n",
        "-c",
        "4",
        "-j",
        "2",
        "-b",
        "tpcb-like@1",
        "-b",
        "select-only@3",
        "-T",
        &seconds.to_string(),
    ]);
    let mut bench = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut rounds = 0;
    while bench.try_wait().unwrap().is_none() {
        evict_or_skip("a database under eviction");
        if rounds % 8 == 0 {
            std::fs::write(other.join("file"), rounds.to_string()).unwrap();
            machine.back_up(other, &[]);
            server.run("createdb", &["-T", "template0", &format!("more{rounds}")]);
        }
        server.ask("select count(*), sum(length(filler)) from pgbench_accounts");
        rounds += 1;
        std::thread::sleep(Duration::from_millis(500));
    }
    let ran = bench.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}\nlog:\n{}", server.log());
    assert!(rounds > 0, "nothing was evicted under load");
}

/// Every table and index read and checked, and everything dumped.
fn check(server: &Server<'_>) {
    server.run("pg_amcheck", &["--install-missing", "--heapallindexed", "--parent-check", DATABASE]);
    server.run("pg_dumpall", &["--no-sync", "-f", "/dev/null"]);
}

fn assert_no_trouble(log: &str) {
    let bad =
        ["tale file handle", "PANIC", "could not ", "Input/output", "invalid page", "terminated by signal"];
    // A client that went away is no trouble with a file.
    let is_bad = |line: &&str| bad.iter().any(|word| line.contains(word)) && !line.contains("to client");
    let lines: Vec<_> = log.lines().filter(is_bad).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn postgresql_runs_on_an_overlay_over_a_point_while_the_kernel_forgets() {
    let test = "postgresql_runs_on_an_overlay_over_a_point_while_the_kernel_forgets";
    if !can_mount(test) {
        return;
    }
    let Some(bin) = programs(test) else { return };
    let machine = Machine::with_store();
    let (dir, other) = (machine.root().join("pg"), machine.path("other"));
    let (cluster, scratch) = (dir.join("cluster"), dir.join("scratch"));
    sh(machine.root(), "chmod 755 . && mkdir \"$1\" \"$2\" && chown 65534:65534 \"$1\"", &[&dir, &other]);
    make_cluster(&bin, &cluster, &dir);
    let made = machine.back_up(&cluster, &[]);
    assert_eq!(made["state"], "complete", "{made}");
    let id = made["snapshot_id"].as_str().unwrap();

    let mount = machine.mount("recovery", &[]);
    let merged = overlay(&mount.point(id), &scratch, "");
    let server = Server::start(&bin, &merged, &dir);
    assert_eq!(sums(&server).1, 0);
    load(&server, &machine, &other);
    check(&server);
    let after = sums(&server);
    assert!(after.1 > 0);
    server.stop();
    sh(Path::new("/"), "umount \"$1\"", &[&merged]);

    // The mount dies, another takes its place, and the database goes on where it was.
    for process in mount.processes() {
        kill(Pid::from_raw(process), Signal::SIGKILL).unwrap();
    }
    mount.wait_for_the_end(10);
    let mount = machine.mount("recovery", &[]);
    let merged = overlay(&mount.point(id), &scratch, "");
    let server = Server::start(&bin, &merged, &dir);
    assert_eq!(sums(&server), after);
    assert_no_trouble(&server.log());
    server.stop();
    Ran::of(program_of(&bin, "pg_checksums").args(["--check", "-D"]).arg(&merged)).expect_code(0);
    sh(Path::new("/"), "umount \"$1\" && umount \"$2\"", &[&merged, &scratch]);
    compare(&cluster, &mount.point(id)).assert_none();
}
