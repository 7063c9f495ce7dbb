#!/usr/bin/env python3
"""What a look at a store costs by its size: points, chunks, and entries of one directory.

    size.py points N        a store of N points: mount, lists, an idle minute's share
    size.py chunks PACKS    a catalog of PACKS packs of 16 chunks: mount, lists, verbs
    size.py entries N       a directory of N files: backup, mount, ls, find, cp

Wants `cargo build --release` and, for points and chunks, `cargo test --release --test it --no-run`. Works below SIZE_DIR (default
/var/tmp/holdfast-size). Each line: seconds, CPU seconds (user and system) of the mount or the command, peak memory of it in MiB.
"""
import os, shutil, subprocess, sys, time
from pathlib import Path

WORK = Path(os.environ.get("SIZE_DIR", "/var/tmp/holdfast-size"))
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/release/holdfast"
ENV = dict(os.environ, HOLDFAST_STORE=str(WORK / "store"), HOLDFAST_PASSWORD="size correct horse",
           HOLDFAST_CACHE_DIR=str(WORK / "cache"), HOLDFAST_KEY_DIR=str(WORK / "keys"))


def line(what, seconds, cpu, peak):
    print(f"{what:30} {seconds:9.3f} s {cpu:9.2f} s CPU {peak:6} MiB", flush=True)


def run(*args):
    begin = time.monotonic()
    process = subprocess.Popen([PROGRAM, "-q", *args], env=ENV, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    line(" ".join(map(str, args[:2])), time.monotonic() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss >> 10)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{args} failed")


def new_store(source):
    shutil.rmtree(WORK, ignore_errors=True)
    source.mkdir(parents=True)
    run("init", "--sheet", WORK / "sheet")


def grow(**more):
    """Has the tests' own tool make the store look old."""
    tools = [p for p in (ROOT / "target/release/deps").glob("it-*") if not p.suffix and os.access(p, os.X_OK)]
    if not tools:
        sys.exit("cargo test --release --test it --no-run")
    env = dict(ENV, HOLDFAST_GROW=ENV["HOLDFAST_STORE"], **{f"HOLDFAST_GROW_{k.upper()}": str(v) for k, v in more.items()})
    tool = max(tools, key=lambda p: p.stat().st_mtime)
    subprocess.check_call([tool, "--ignored", "--exact", "size::grow_the_store_that_is_named"], env=env, stdout=subprocess.DEVNULL)


class Mount:
    """A mount whose process is looked at."""

    def __enter__(self):
        self.path = WORK / "mnt"
        self.path.mkdir(exist_ok=True)
        begin = time.monotonic()
        self.process = subprocess.Popen([PROGRAM, "-q", "mount", self.path], env=ENV)
        while not os.path.ismount(self.path):
            time.sleep(0.0005)
        os.listdir(self.path)
        line("mount to first ls", time.monotonic() - begin, *self.used())
        return self

    def used(self):
        of = Path("/proc", str(self.process.pid))
        ticks = of.joinpath("stat").read_text().rsplit(")", 1)[1].split()[11:13]
        peak = of.joinpath("status").read_text().split("VmHWM:")[1].split()[0]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), int(peak) >> 10

    def step(self, what, command):
        before, begin = self.used()[0], time.monotonic()
        subprocess.run(command, shell=True, cwd=self.path, stdout=subprocess.DEVNULL, check=True)
        cpu, peak = self.used()
        line(what, time.monotonic() - begin, cpu - before, peak)

    def __exit__(self, *_):
        subprocess.run([PROGRAM, "-q", "umount", self.path], env=ENV, check=True)
        self.process.wait()


def looks(mount):
    for what in ("by-group/default/size", "by-group/default/size/latest", "by-id", "by-time"):
        mount.step(f"ls {what}", f"ls {what}/")
    mount.step("ls -l by-id", "ls -l by-id")
    mount.step("cat of a file", "cat by-group/default/size/latest/file")
    mount.step("idle for 10 s", "sleep 10")


def small():
    source = WORK / "source"
    new_store(source)
    (source / "file").write_text("content")
    run("backup", "--as", "size", source)
    return source


def points(number):
    source = small()
    grow(points=number)
    with Mount() as mount:
        looks(mount)
    run("snapshots")
    run("backup", "--as", "size", source)


def chunks(packs):
    source = small()
    grow(packs=packs)
    with Mount() as mount:
        looks(mount)
    for verb in ("snapshots", "ls latest", "stats", "check"):
        run(*verb.split())
    run("backup", "--as", "size", source)


def entries(number):
    source = WORK / "source"
    new_store(source)
    for n in range(number):
        os.close(os.open(source / f"entry-{n:07}", os.O_CREAT | os.O_WRONLY, 0o644))
    run("backup", "--as", "size", source)
    (source / f"entry-{number // 2:07}").write_text("changed")
    run("backup", "--as", "size", source)
    with Mount() as mount:
        root = "by-group/default/size/latest"
        for what in ("ls -f", "ls -f", "find", "ls -lU"):
            mount.step(what, f"{what} {root}/")
        mount.step("cp of 1,000", f"mkdir {WORK}/out; ls -f {root} | head -1000 | grep entry | (cd {root}/; xargs cp -t {WORK}/out)")


if __name__ == "__main__":
    kinds = {"points": points, "chunks": chunks, "entries": entries}
    if len(sys.argv) != 3 or sys.argv[1] not in kinds:
        sys.exit(__doc__)
    kinds[sys.argv[1]](int(sys.argv[2]))
