"""Timing one command: wall clock, its own processor time and memory, and what others burnt on the machine meanwhile."""
import json
import os
import re
import shlex
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
DROP = Path("/proc/sys/vm/drop_caches")


class Caches:
    """The kernel's caches of the whole machine, which only root may drop, and which a smoke run leaves to others."""

    may_drop = os.access(DROP, os.W_OK)


class BenchError(Exception):
    """A command that should have worked did not; the figures of its tool are worth nothing."""


class Sheet:
    """The results: one line of JSON for each figure, printed as well."""

    def __init__(self, path, run):
        self.path, self.run = path, run
        path.parent.mkdir(parents=True, exist_ok=True)

    def put(self, tool, dataset, figure, value, unit, **more):
        line = dict(run=self.run, tool=tool, dataset=dataset, figure=figure, value=rounded(value), unit=unit)
        line.update({key: rounded(extra) for key, extra in more.items()})
        with self.path.open("a") as out:
            out.write(json.dumps(line) + "\n")
        noted = " ".join(f"{key}={rounded(extra)}" for key, extra in more.items())
        print(f"  {dataset:7} {figure:32} {tool:9} {rounded(value):>10} {unit:5} {noted}", flush=True)


def rounded(value):
    return round(value, 4) if isinstance(value, float) else value


def drop_caches():
    """Makes the next access cold; without the right to do so nothing happens, and the caller has said so."""
    if Caches.may_drop:
        os.sync()
        DROP.write_text("3")


def busy_seconds():
    """Processor seconds used on the whole machine since it started, those that its host took away included."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def cpu_seconds(pid):
    """Processor seconds of a process so far; none of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_mib(pid):
    """Peak and present resident memory of a process."""
    said = Path(f"/proc/{pid}/status").read_text()
    sizes = [re.search(rf"{key}:\s+(\d+) kB", said) for key in ("VmHWM", "VmRSS")]
    return tuple(int(size.group(1)) / 1024 for size in sizes)


class Others:
    """Processor seconds that others than a command and its `servers` burn from now on."""

    def __init__(self, servers=()):
        self.servers, self.busy, self.served = servers, busy_seconds(), sum(map(cpu_seconds, servers))

    def since(self, own):
        """Those of others, if the command itself used `own`."""
        return max(0.0, busy_seconds() - self.busy - own - (sum(map(cpu_seconds, self.servers)) - self.served))


@dataclass
class Timing:
    """One timed command. `foreign`: processor seconds of everything but it and the processes that serve it."""

    seconds: float
    cpu: float
    rss_mib: float
    foreign: float
    code: int | None

    def noise(self):
        """What every timed figure tells beside itself: for how long others burnt how much."""
        return dict(took=self.seconds, foreign=self.foreign)


def timed(command, env=None, cwd=None, servers=(), cold=True, may_end_with=(0,), patience=None):
    """Runs a command to its end, or for `patience` seconds (`code` is then None), and times it."""
    if cold:
        drop_caches()
    command = [str(part) for part in command]
    others = Others(servers)
    with tempfile.TemporaryFile() as stderr:
        started = time.perf_counter()
        child = subprocess.Popen(command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
        code, usage = ended(child, patience)
        seconds = time.perf_counter() - started
        stderr.seek(0)
        said = stderr.read().decode(errors="replace")
    cpu = usage.ru_utime + usage.ru_stime
    foreign = others.since(cpu)
    if code is not None and code not in may_end_with:
        raise BenchError(f"{shlex.join(command)} ended with {code}:\n{said[-2000:]}")
    return Timing(seconds, cpu, usage.ru_maxrss / 1024, foreign, code)


def ended(child, patience):
    """Exit code and usage of a child; the code is None if it had to be killed after `patience` seconds."""
    cut_off = threading.Event()

    def cut():
        cut_off.set()
        child.kill()

    timer = threading.Timer(patience or threading.TIMEOUT_MAX, cut)
    timer.daemon = True
    timer.start()
    _, status, usage = os.wait4(child.pid, 0)
    timer.cancel()
    child.returncode = os.waitstatus_to_exitcode(status)
    return (None if cut_off.is_set() else child.returncode), usage
