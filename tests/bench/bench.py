#!/usr/bin/env python3
"""Compares backup tools on one machine: time, memory and size of what people do with them.

    bench.py datasets                 make KERNEL and MANY (once; minutes)
    bench.py run TOOL [TOOL...]       measure tools in turn, round after round
    bench.py table                    medians of all results as Markdown

TOOL is restic, holdfast, rustic or borg, as found on PATH. See README.md beside this file.
"""
import argparse, json, os, random, re, resource, shlex, shutil, statistics, subprocess, sys, time
from pathlib import Path

WORK = Path(os.environ.get("BENCH_DIR", "/var/tmp/holdfast-bench"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
MANY = int(os.environ.get("BENCH_MANY", "100000"))
TARBALL = os.environ.get("BENCH_KERNEL", "/usr/src/linux-source-6.1.tar.xz")
RESULTS = WORK / "results.jsonl"
COLD = os.access("/proc/sys/vm/drop_caches", os.W_OK)

# Commands of each tool. {src} {repo} {cache} {mnt} {out} are filled in; `root` is where the newest point of {src} appears.
TOOLS = {
    "holdfast": dict(
        init="holdfast init -q --sheet {cache}/sheet", backup="holdfast backup -q --as bench {src}",
        restore="holdfast restore -q latest --target {out}", check="holdfast check -q --read-data",
        mount="holdfast mount {mnt}", umount="holdfast umount {mnt}", root="{mnt}/by-group/default/bench/latest",
        env=dict(HOLDFAST_STORE="{repo}", HOLDFAST_PASSWORD="bench correct horse", HOLDFAST_CACHE_DIR="{cache}",
                 HOLDFAST_KEY_DIR="{cache}/keys"),
        version="holdfast --version"),
    "restic": dict(
        init="restic init -q", backup="restic backup -q --host bench {src}",
        restore="restic restore -q latest --target {out}", check="restic check -q --read-data",
        mount="restic mount {mnt}", umount="umount {mnt}", root="{mnt}/snapshots/latest{src}",
        env=dict(RESTIC_REPOSITORY="{repo}", RESTIC_PASSWORD="bench", RESTIC_CACHE_DIR="{cache}"),
        version="restic version"),
    "rustic": dict(
        init="rustic init", backup="rustic backup --host bench {src}",
        restore="rustic restore latest {out}", check="rustic check --read-data",
        mount="rustic mount {mnt} latest", umount="umount {mnt}", root="{mnt}{src}",
        env=dict(RUSTIC_REPOSITORY="{repo}", RUSTIC_PASSWORD="bench", RUSTIC_CACHE_DIR="{cache}",
                 RUSTIC_NO_PROGRESS="true", RUSTIC_LOG_LEVEL="warn"),
        version="rustic --version"),
    "borg": dict(
        init="borg init -e repokey-blake2", backup="borg create ::{stamp} {src}",
        restore="borg extract ::{stamp}", check="borg check --verify-data",
        mount="borg mount -f ::{stamp} {mnt}", umount="umount {mnt}", root="{mnt}{src}",
        env=dict(BORG_REPO="{repo}", BORG_PASSPHRASE="bench", BORG_BASE_DIR="{cache}"),
        version="borg --version"),
}


# --- data ------------------------------------------------------------------------------------------------------------

def make_datasets():
    """KERNEL: the distribution's kernel source. MANY: small files with words in them, in directories of a hundred."""
    data = WORK / "data"
    data.mkdir(parents=True, exist_ok=True)
    kernel = data / "kernel"
    if not kernel.exists() and Path(TARBALL).exists():
        scratch = data / "kernel.tmp"
        scratch.mkdir(exist_ok=True)
        subprocess.check_call(["tar", "xf", TARBALL, "-C", scratch, "--strip-components=1"])
        scratch.rename(kernel)
    elif not kernel.exists():
        print(f"no {TARBALL}: `apt-get install linux-source-6.1`, or set BENCH_KERNEL; KERNEL is left out")
    many = data / "many"
    if not many.exists():
        make_many(data / "many.tmp", MANY)
        (data / "many.tmp").rename(many)
    for place in sorted(data.iterdir()):
        files, size = count(place)
        print(f"{place.name}: {files} files, {size / 1e6:.0f} MB")


def make_many(place, number):
    shutil.rmtree(place, ignore_errors=True)
    chance = random.Random(20260101)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(4000)]
    for n in range(number):
        directory = place / f"{n // 10000:03}" / f"{n // 100 % 100:03}"
        if n % 100 == 0:
            directory.mkdir(parents=True)
        text = " ".join(chance.choices(words, k=chance.randint(15, 500)))
        (directory / f"{n:07}.txt").write_text(text)


def count(place):
    sizes = [os.lstat(os.path.join(d, f)).st_size for d, _, files in os.walk(place) for f in files]
    return len(sizes), sum(sizes)


# --- measuring -------------------------------------------------------------------------------------------------------

class Bench:
    """One tool with one dataset in one round: a repository, a cache and a mount point of its own."""

    def __init__(self, tool, dataset, round_no):
        self.tool, self.spec, self.dataset, self.round = tool, TOOLS[tool], dataset, round_no
        base = WORK / "run" / f"{tool}-{dataset}"
        shutil.rmtree(base, ignore_errors=True)
        self.names = dict(src=WORK / "data" / dataset, stamp="0")
        for name in ("repo", "cache", "mnt", "out", "copy"):
            self.names[name] = base / name
            self.names[name].mkdir(parents=True)
        self.base = base

    def command(self, what):
        return shlex.split(self.spec[what].format(**self.names))

    def env(self):
        own = {key: value.format(**self.names) for key, value in self.spec["env"].items()}
        return dict(os.environ, **own)

    def emit(self, metric, **values):
        line = dict(tool=self.tool, dataset=self.dataset, round=self.round, metric=metric)
        line.update({key: round(value, 3) for key, value in values.items()})
        with RESULTS.open("a") as out:
            out.write(json.dumps(line) + "\n")
        print("  ", *(f"{key}={value}" for key, value in line.items()), flush=True)

    def timed(self, metric, command, cold=True, ours=True):
        if cold:
            drop_caches()
        started = time.perf_counter()
        child = subprocess.Popen(command, env=self.env(), cwd=self.names["out"], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        if child.returncode:
            sys.exit(f"{shlex.join(map(str, command))} ended with {child.returncode}:\n{said.decode(errors='replace')[-2000:]}")
        # Memory and processor time of `find` and `cp` say nothing about the tool.
        more = dict(cpu=usage.ru_utime + usage.ru_stime, rss_mb=usage.ru_maxrss / 1024) if ours else {}
        self.emit(metric, seconds=seconds, **more)

    def run(self):
        subprocess.run(self.command("init"), env=self.env(), check=True, capture_output=True)
        self.backup("backup, initial")
        self.emit("repository", mb=count(self.names["repo"])[1] / 1e6)
        self.backup("backup, unchanged")
        self.timed("restore", self.command("restore"))
        shutil.rmtree(self.names["out"])
        self.names["out"].mkdir()
        self.timed("check, all data", self.command("check"))
        self.mount()
        shutil.rmtree(self.base)

    def backup(self, metric):
        self.names["stamp"] = str(int(self.names["stamp"]) + 1)
        self.timed(metric, self.command("backup"))

    def mount(self):
        root = self.spec["root"].format(**self.names)
        drop_caches()
        started = time.perf_counter()
        server = subprocess.Popen(self.command("mount"), env=self.env(), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for_listing(server, root)
            self.emit("mount, first ls", seconds=time.perf_counter() - started)
            find = ["find", root, "-type", "f", "-printf", "%s\n"]
            self.timed("mount, find", find, cold=False, ours=False)
            self.timed("mount, find again", find, cold=False, ours=False)
            self.timed("mount, cp -r", ["cp", "-r", root + "/.", str(self.names["copy"])], ours=False)
            self.emit("mount, server", rss_mb=peak_rss_mb(server.pid))
            self.compare()
        finally:
            unmount(self.command("umount"), self.names["mnt"], server)

    def compare(self):
        """A copy that is not the source makes every figure worthless."""
        same = subprocess.run(["diff", "-rq", "--no-dereference", self.names["src"], self.names["copy"]], capture_output=True)
        if same.returncode:
            sys.exit(f"{self.tool}: the copy differs from the source:\n{same.stdout.decode(errors='replace')[:2000]}")


def wait_for_listing(server, root):
    give_up = time.monotonic() + 300
    while True:
        try:
            if os.listdir(root):
                return
        except OSError:
            pass
        if server.poll() is not None or time.monotonic() > give_up:
            sys.exit(f"{root} did not appear")
        time.sleep(0.002)


def unmount(command, place, server):
    for _ in range(100):
        if not os.path.ismount(place):
            break
        subprocess.run(command, capture_output=True)
        time.sleep(0.1)
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.terminate()
        server.wait()


def peak_rss_mb(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


def drop_caches():
    os.sync()
    if COLD:
        Path("/proc/sys/vm/drop_caches").write_text("3")


def run(tools, datasets):
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        sys.exit(f"not on PATH: {', '.join(missing)}")
    for tool in tools:
        said = subprocess.run(shlex.split(TOOLS[tool]["version"]), capture_output=True, text=True).stdout
        print(tool, "is", said.strip().split("\n")[0])
    if not COLD:
        print("caches are not dropped, because this is not root: figures are warm")
    for round_no in range(ROUNDS):
        for dataset in datasets:
            # In turn, and each time another one first: what else the machine does then hits all of them.
            for tool in tools[round_no % len(tools):] + tools[:round_no % len(tools)]:
                Bench(tool, dataset, round_no).run()


# --- the table -------------------------------------------------------------------------------------------------------

def table():
    found = {}
    for line in map(json.loads, RESULTS.read_text().splitlines()):
        for unit, letter in (("seconds", "s"), ("rss_mb", "MB of memory at most"), ("mb", "MB")):
            if unit in line:
                found.setdefault((line["dataset"], line["metric"], letter), {}).setdefault(line["tool"], []).append(line[unit])
    tools = sorted({tool for row in found.values() for tool in row})
    print("| dataset | figure |", " | ".join(tools), "|")
    print("| --- | --- |", " | ".join("---" for _ in tools), "|")
    for (dataset, metric, unit), row in found.items():
        cells = [f"{statistics.median(row[tool]):.3g} ({len(row[tool])})" if tool in row else "" for tool in tools]
        print(f"| {dataset} | {metric}, {unit} |", " | ".join(cells), "|")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("datasets")
    runs = verbs.add_parser("run")
    runs.add_argument("tools", nargs="+", choices=sorted(TOOLS))
    runs.add_argument("--datasets", nargs="+", default=None)
    verbs.add_parser("table")
    args = parser.parse_args()
    if args.verb == "datasets":
        make_datasets()
    elif args.verb == "table":
        table()
    else:
        there = sorted(place.name for place in (WORK / "data").glob("*") if not place.name.endswith(".tmp"))
        run(args.tools, args.datasets or there or sys.exit("no data: run `bench.py datasets` first"))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    main()
