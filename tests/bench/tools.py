"""What each tool is told: its commands, and one dataset backed up by it as a `Repository` that can be mounted.

`ext4`, the limit, is a tool without commands whose mount is the source itself.
"""
import os
import shlex
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass

from measure import BenchError, Others, Timing, cpu_seconds, drop_caches, memory_mib, timed

PASSWORD = "bench correct horse"
LIMIT = "ext4"

# {bin} {src} {repo} {cache} {mnt} {out} {name} are filled in; `root` is where the newest point of {src} appears. Variables of
# `secret` are given to `init` only: holdfast opens its store by the machine key, as its daemon does. The others have no such
# key, so that each of their commands derives one; that is how they are used.
TOOLS = {
    "holdfast": dict(
        init="{bin} init -q --sheet {cache}/sheet", backup="{bin} backup -q --as bench {src}",
        restore="{bin} restore -q latest --target {out}", check="{bin} check -q --read-data",
        mount="{bin} mount {mnt}", umount="{bin} umount {mnt}", root="{mnt}/by-group/default/bench/latest",
        env=dict(HOLDFAST_STORE="{repo}", HOLDFAST_CACHE_DIR="{cache}/cache", HOLDFAST_KEY_DIR="{cache}/keys"),
        secret=dict(HOLDFAST_PASSWORD=PASSWORD)),
    "restic": dict(
        init="{bin} init -q", backup="{bin} backup -q --host bench {src}",
        restore="{bin} restore -q latest --target {out}", check="{bin} check -q --read-data",
        mount="{bin} mount {mnt}", umount="umount {mnt}", root="{mnt}/snapshots/latest{src}",
        env=dict(RESTIC_REPOSITORY="{repo}", RESTIC_PASSWORD=PASSWORD, RESTIC_CACHE_DIR="{cache}/cache")),
    "rustic": dict(
        init="{bin} init", backup="{bin} backup --host bench {src}",
        restore="{bin} restore latest {out}", check="{bin} check --read-data",
        mount="{bin} mount {mnt} latest", umount="umount {mnt}", root="{mnt}{src}",
        env=dict(RUSTIC_REPOSITORY="{repo}", RUSTIC_PASSWORD=PASSWORD, RUSTIC_CACHE_DIR="{cache}/cache",
                 RUSTIC_NO_PROGRESS="true", RUSTIC_LOG_LEVEL="warn")),
    "borg": dict(
        init="{bin} init -e repokey-blake2", backup="{bin} create ::{name} {src}",
        restore="{bin} extract ::{name}", check="{bin} check --verify-data",
        mount="{bin} mount -f ::{name} {mnt}", umount="umount {mnt}", root="{mnt}{src}",
        env=dict(BORG_REPO="{repo}", BORG_PASSPHRASE=PASSWORD, BORG_BASE_DIR="{cache}/cache",
                 BORG_FUSE_IMPL="pyfuse3,llfuse")),
}


def version(program):
    for word in ("--version", "version"):
        ran = subprocess.run([program, word], capture_output=True, text=True)
        if ran.returncode == 0:
            return ran.stdout.strip().split("\n")[0]
    return "of no known version"


@dataclass
class Mounted:
    """A mount that lists: where the source appears, who serves it, how long that took, and who serves those."""

    root: str
    pid: int | None = None
    began: Timing | None = None
    behind: tuple = ()

    def servers(self):
        return (() if self.pid is None else (self.pid,)) + self.behind

    def memory_mib(self):
        """Peak and present memory of who serves it, or nothing for the limit."""
        return None if self.pid is None else memory_mib(self.pid)

    def cpu(self):
        return 0.0 if self.pid is None else cpu_seconds(self.pid)


class Repository:
    """One tool with one dataset: repository, cache, mount point and a place to restore to, below `base`."""

    def __init__(self, tool, program, src, base, out=None):
        self.tool, self.src, self.base, self.spec = tool, src, base, TOOLS[tool]
        self.names = dict(bin=shlex.quote(program), src=src, name="0")
        self.mark = base / "holds"
        for name in ("repo", "cache", "mnt", "out"):
            self.names[name] = base / name
        if out is not None:
            self.names["out"] = out / base.name
        self.repo, self.cache, self.mnt, self.out = (self.names[name] for name in ("repo", "cache", "mnt", "out"))

    # --- life of it ---

    def create(self):
        """An empty repository, whatever was there."""
        shutil.rmtree(self.base, ignore_errors=True)
        for name in ("repo", "cache", "mnt", "out"):
            self.names[name].mkdir(parents=True, exist_ok=True)
        self.run("init")

    def ensure(self):
        """A repository with one backup of the source: the one of an earlier run, if it ended well and the source is the same."""
        self.out.mkdir(parents=True, exist_ok=True)
        if self.mark.exists() and self.mark.read_text() == str(self.src):
            return
        print(f"{self.tool} backs up {self.src}", flush=True)
        self.create()
        self.run("backup")
        self.remember()

    def remember(self):
        """Puts down that there is a backup of the source here, so that other figures need not make one."""
        self.mark.write_text(str(self.src))

    def clear_out(self):
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)

    def forget_cache(self):
        shutil.rmtree(self.cache / "cache", ignore_errors=True)

    # --- commands ---

    def command(self, what):
        return shlex.split(self.spec[what].format(**self.names))

    def env(self, what=None):
        own = {key: value.format(**self.names) for key, value in self.spec["env"].items()}
        secret = self.spec.get("secret", {}) if what == "init" else {}
        return dict(os.environ, HOME=str(self.cache), **own, **secret)

    def run(self, what):
        ran = subprocess.run(self.command(what), env=self.env(what), cwd=self.out, stdin=subprocess.DEVNULL,
                             capture_output=True, text=True, errors="replace")
        if ran.returncode:
            raise BenchError(f"{self.tool} {what} ended with {ran.returncode}:\n{(ran.stdout + ran.stderr)[-2000:]}")

    def timed(self, what):
        return timed(self.command(what), env=self.env(what), cwd=self.out)

    # --- mounting ---

    @contextmanager
    def mounted(self, behind=()):
        """Mounts, waits for the first listing of the source's root, and ends the mount afterwards."""
        drop_caches()
        root = self.spec["root"].format(**self.names)
        log = self.base / "mount.log"
        others, started = Others(behind), time.perf_counter()
        with log.open("wb") as said:
            server = subprocess.Popen(self.command("mount"), env=self.env(), cwd=self.base, stdin=subprocess.DEVNULL,
                                      stdout=said, stderr=said)
        try:
            wait_for_listing(server, root, log)
            seconds, cpu = time.perf_counter() - started, cpu_seconds(server.pid)
            yield Mounted(root, server.pid, Timing(seconds, cpu, 0, others.since(cpu), None), behind)
        finally:
            self.unmount(server)

    def unmount(self, server):
        for _ in range(100):
            if not os.path.ismount(self.mnt):
                break
            subprocess.run(self.command("umount"), env=self.env(), capture_output=True)
            time.sleep(0.05)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.terminate()
            server.wait()


def wait_for_listing(server, root, log):
    give_up = time.monotonic() + 600
    while True:
        try:
            if os.listdir(root):
                return
        except OSError:
            pass
        if server.poll() is not None or time.monotonic() > give_up:
            raise BenchError(f"{root} did not appear:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.001)


class Plain:
    """The source itself as if it were a mount: what the disk and ext4 do without any tool."""

    tool = LIMIT

    def __init__(self, src, base):
        self.src, self.base, self.out = src, base, base / "out"

    def ensure(self):
        self.out.mkdir(parents=True, exist_ok=True)

    clear_out = Repository.clear_out

    @contextmanager
    def mounted(self):
        drop_caches()
        yield Mounted(str(self.src))


def subjects(settings, dataset, src):
    """Who is measured with a dataset: all tools that are here, and the limit."""
    base = settings.work / "run"
    found = [Repository(name, settings.programs[name], src, base / f"{name}-{dataset}", settings.out) for name in settings.tools()]
    return [*found, Plain(src, (settings.out or base) / f"{LIMIT}-{dataset}")]


def take_turns(settings, what, subjects, take):
    """`take(turn, subject)` for each subject in each turn, each turn another one first: what else the machine does then hits
    all of them. One tool that fails is no reason to have no figures of the others, but for holdfast."""
    failed = set()
    for turn in range(settings.turns):
        at = turn % max(1, len(subjects))
        for subject in subjects[at:] + subjects[:at]:
            if subject.tool in failed:
                continue
            try:
                take(turn, subject)
            except BenchError as error:
                print(f"skipped: {what} by {subject.tool}: {error}", flush=True)
                failed.add(subject.tool)
                if subject.tool == "holdfast":
                    raise
