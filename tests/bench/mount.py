"""The figures of a mount on this machine's disk, beside those of other tools and of ext4 itself.

Each part is a function that takes one mount for one round of its figures, so that parts can be asked for one by one.
"""
import json
import os
import shutil
import subprocess

from measure import BenchError, timed
from settings import DATASET_NAMES
from tools import LIMIT, Repository, subjects, take_turns

ABSENT = "nosuchwordanywhere"


def run(settings, places, parts, sheet):
    for part in parts:
        for dataset in PARTS[part][1]:
            if dataset in places:
                run_part(settings, sheet, part, dataset, places[dataset])


def run_part(settings, sheet, part, dataset, src):
    def take(turn, subject):
        subject.ensure()
        PARTS[part][0](Round(settings, sheet, dataset, turn, subject))

    take_turns(settings, f"{part} of {dataset}", subjects(settings, dataset, src), take)


class Round:
    """One subject with one dataset in one turn."""

    def __init__(self, settings, sheet, dataset, turn, subject):
        self.settings, self.sheet, self.dataset, self.turn, self.subject = settings, sheet, dataset, turn, subject

    def put(self, figure, value, unit, **more):
        self.sheet.put(self.subject.tool, self.dataset, figure, value, unit, turn=self.turn, **more)

    def timed(self, figure, mount, command, cold, megabytes=None, **options):
        """Times a command on the mount; in MB/s if it is said how many `megabytes` it reads."""
        took = timed(command, servers=mount.servers(), cold=cold, **options)
        value, unit = (took.seconds, "s") if megabytes is None else (megabytes / took.seconds, "MB/s")
        self.put(figure, value, unit, **took.noise())
        return took

    def mounted(self):
        """A mount with cold caches; who serves it is looked at when it ends."""
        return self.subject.mounted()

    def begin(self, mount):
        if mount.began is not None:
            self.put("mount to first ls", mount.began.seconds, "s", **mount.began.noise())

    def end(self, mount, after):
        if mount.pid is not None:
            peak, resident = mount.memory_mib()
            self.put(f"daemon memory after {after}", peak, "MiB", resident=resident, cpu=mount.cpu())


def first_ls(at):
    with at.mounted() as mount:
        at.begin(mount)


def find(at):
    with at.mounted() as mount:
        at.begin(mount)
        command = ["find", mount.root + "/", "-type", "f", "-printf", "%s\n"]
        at.timed("find first", mount, command, cold=False)
        at.timed("find again", mount, command, cold=False)
        at.end(mount, "find")


def copy(at):
    at.subject.clear_out()
    target = at.subject.out / "copy"
    with at.mounted() as mount:
        at.timed("cp -r cold", mount, ["cp", "-r", mount.root + "/.", target], cold=False)
        at.end(mount, "cp")
    if at.turn == 0:
        compare(at.subject, target)
    shutil.rmtree(target)


def compare(subject, copied):
    """A copy that is not the source makes every figure worthless."""
    same = subprocess.run(["diff", "-rq", "--no-dereference", subject.src, copied], capture_output=True, text=True, errors="replace")
    if same.returncode:
        raise BenchError(f"the copy of {subject.tool} differs from the source:\n{same.stdout[:2000]}")


def restore(at):
    """The tool's own verb for the same work, for the ratio."""
    if not isinstance(at.subject, Repository):
        return
    at.subject.clear_out()
    took = at.subject.timed("restore")
    at.put("restore cold", took.seconds, "s", cpu=took.cpu, memory=took.rss_mib, **took.noise())
    at.subject.clear_out()


def grep(at):
    """Searches all files for a word that none has: all bytes are read, nothing is printed."""
    with at.mounted() as mount:
        command = ["grep", "-r", ABSENT, mount.root + "/"]
        at.timed("grep -r first", mount, command, cold=False, may_end_with=(1,))
        at.timed("grep -r again", mount, command, cold=False, may_end_with=(1,))
        at.end(mount, "grep")


def dd(at):
    image = at.subject.src / "big.img"
    with at.mounted() as mount:
        at.begin(mount)
        command = ["dd", f"if={mount.root}/big.img", "of=/dev/null", "bs=1M"]
        at.timed("dd cold", mount, command, cold=False, megabytes=os.path.getsize(image) / 1e6)
        at.timed("dd again", mount, command, cold=False, megabytes=os.path.getsize(image) / 1e6)
        at.end(mount, "dd")


def fio(at):
    """Random reads; the last part of one mount's life, so that its memory is that after everything."""
    if not shutil.which("fio"):
        print("skipped: random reads, fio is not on PATH")
        return
    with at.mounted() as mount:
        for block in ("4k", "128k"):
            for jobs in (1, 8):
                random_reads(at, mount, block, jobs)
        at.end(mount, "random reads")


def random_reads(at, mount, block, jobs):
    report = at.subject.base / "fio.json"
    took = timed(["fio", "--name=r", f"--filename={mount.root}/big.img", "--rw=randread", f"--bs={block}", "--ioengine=psync",
           f"--numjobs={jobs}", "--group_reporting", "--readonly", "--direct=0", "--invalidate=1", "--norandommap", "--thread",
           f"--runtime={at.settings.fio_ms}ms", "--time_based", "--output-format=json", f"--output={report}"],
          cwd=at.subject.base, servers=mount.servers())
    said = report.read_text()
    read = json.loads(said[said.index("{"):])["jobs"][0]["read"]
    late = read["clat_ns"]["percentile"]["99.000000"] / 1e6
    at.put(f"random {block}, {jobs} job{'s' * (jobs > 1)}", read["iops"], "IOPS", **took.noise())
    at.put(f"random {block}, {jobs} job{'s' * (jobs > 1)}, p99", late, "ms")



def memory(at):
    """One mount that does everything, for the memory of who serves it: what one reader leaves, the next one finds."""
    if at.subject.tool == LIMIT or at.turn > 0:
        return
    at.subject.clear_out()
    with at.mounted() as mount:
        timed(["ls", "-R", mount.root + "/"], cold=False)
        for _ in range(2):
            timed(["grep", "-r", ABSENT, mount.root + "/"], cold=True, may_end_with=(1,))
        timed(["cp", "-r", mount.root + "/.", at.subject.out / "copy"])
        at.end(mount, "all of it")
    at.subject.clear_out()


PARTS = {
    "ls": (first_ls, DATASET_NAMES),
    "find": (find, ("kernel",)),
    "cp": (copy, ("kernel",)),
    "restore": (restore, ("kernel",)),
    "grep": (grep, ("many",)),
    "dd": (dd, ("big",)),
    "fio": (fio, ("big",)),
    "memory": (memory, DATASET_NAMES),
}
