"""The tools that `trust` harms, each with its commands and the places where its repository keeps what.

Every tool has a directory of its own with a home, a source and a repository, and is started with nothing of the
environment but PATH and LANG, so that no cache and no configuration of whoever runs this has a say.
"""
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

PASSPHRASE = "five random words make a good one"
PATIENCE_S = 300
ALARMING = re.compile(r"error|warn|damage|missing|corrupt|attack|fail|mismatch|truncat|roll|withheld|instead of|inconsisten|integrity"
                      r"|no space|fatal|lost|refus|in use|locked|invalid|not found|does not|cannot", re.I)
CALM = re.compile(r"no errors|no damage|no problems|found 0 |still in use for|Missing +Size|guards against no disk", re.I)


class Seen:
    """How a command, or several one after the other, ended: the first exit code that is not 0, and all that was said."""

    def __init__(self, code, text):
        self.code, self.text = code, text

    def words(self):
        lines = [line.strip() for line in self.text.splitlines()]
        alarming = [line for line in lines if ALARMING.search(line) and not CALM.search(line)]
        if not alarming and self.code:
            alarming = list(filter(None, lines))[-1:]
        return max(alarming, key=lambda line: bool(re.search(r"rolled|withheld|attack", line)), default="")

    def cell(self):
        words = re.sub(r"\S*/trust-\w+/\w+/", "", self.words()).replace("|", "/")
        words = re.sub(r"\b([0-9a-f]{8})[0-9a-f]{8,}", r"\1…", words)
        words = words if len(words) <= 130 else words[:130] + "…"
        return f"{self.code}, {'“' + words + '”' if words else 'silent'}"

    def noticed(self):
        return bool(self.code or self.words())


def copy(source, target):
    subprocess.run(["cp", "-a", source, target], check=True)


def size(directory):
    total = 0
    for where, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except FileNotFoundError:
                pass
    return total


class Tool:
    """One tool with a repository of its own in a directory of its own. `repo` is what is harmed."""
    label = ""

    def __init__(self, program, base):
        self.program, self.base = str(program), base
        self.src, self.repo, self.home, self.saved = base / "src", base / "repo", base / "home", base / "saved"
        for directory in (self.src, self.home):
            directory.mkdir(parents=True)

    def environment(self, home):
        keep = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**keep, "HOME": str(home), "TMPDIR": str(self.base), "RESTIC_REPOSITORY": str(self.repo),
                "RESTIC_PASSWORD": PASSPHRASE, "BORG_REPO": str(self.repo), "BORG_PASSPHRASE": PASSPHRASE,
                "HOLDFAST_PASSWORD": PASSPHRASE, "HOLDFAST_STORE": str(self.base / "store"),
                "HOLDFAST_CONFIG": str(self.home / "holdfast.toml"), "HOLDFAST_CACHE_DIR": str(home / "cache"),
                "HOLDFAST_KEY_DIR": str(home / "keys")}

    def start(self, args, home=None, cwd=None, output=subprocess.DEVNULL):
        return subprocess.Popen([self.program, *map(str, args)], cwd=cwd or self.base, stdin=subprocess.DEVNULL,
                                stdout=output, stderr=subprocess.STDOUT, env=self.environment(home or self.home))

    def run(self, *commands, home=None, cwd=None):
        code, text = 0, ""
        for args in commands:
            process = self.start(args, home, cwd, subprocess.PIPE)
            try:
                said = process.communicate(timeout=PATIENCE_S)[0]
            except subprocess.TimeoutExpired:
                process.kill()
                said = process.communicate()[0] + b"\nno end in sight: error"
            finally:
                process.kill()
            code, text = code or process.returncode, text + said.decode(errors="replace") + "\n"
        return Seen(code, text)

    def must(self, *commands):
        seen = self.run(*commands)
        if seen.code:
            raise SystemExit(f"{self.label}: {commands} failed before any harm was done:\n{seen.text}")

    def places(self):
        return [self.repo, self.home]

    def save(self):
        shutil.rmtree(self.saved, ignore_errors=True)
        self.saved.mkdir()
        for place in self.places():
            copy(place, self.saved / place.name)

    def reset(self):
        for place in self.places():
            shutil.rmtree(place)
            copy(self.saved / place.name, place)

    def new_home(self):
        return Path(tempfile.mkdtemp(prefix="home-", dir=self.base))

    def points(self):
        """Files of points, oldest first; none where a tool keeps no file for each."""
        return sorted(self.repo.glob(self.point_files), key=lambda file: file.stat().st_mtime_ns)

    def packs(self):
        return sorted(file for file in self.repo.glob(self.pack_files) if file.is_file())

    def elsewhere(self):
        """Who else works on the repository: a home, and what each command then needs to say."""
        return self.home, []

    check_bytes = None
    unlock = []


class Restic(Tool):
    pack_files, point_files = "data/*/*", "snapshots/*"
    look, check, check_all = [["snapshots"]], [["check"]], [["check", "--read-data"]]
    unlock, unlock_all = [["unlock"]], [["unlock"], ["unlock", "--remove-all"]]

    def make(self):
        self.must(["init"])

    def backup(self, slow=False):
        return [["backup", "src"]]

    def ids(self):
        return [point["id"] for point in json.loads(self.run(["snapshots", "--json"]).text)]

    def forget(self, point):
        return [["forget", point]]

    free = [["prune"]]

    def restore(self, target):
        return self.run(["restore", "latest", "--target", target], home=self.new_home())

    def root(self, target):
        return target / "src"


class Borg(Tool):
    pack_files, point_files = "data/*/*", "no-file-for-each"
    look, check, check_all = [["list"]], [["check"]], [["check", "--verify-data"]]
    unlock = unlock_all = [["break-lock"]]

    def make(self):
        self.must(["init", "-e", "repokey"])

    def backup(self, slow=False):
        return [["create", f"::{time.time_ns()}", "src"]]

    def ids(self, home=None):
        return re.findall(r"^\d{19}$", self.run(["list", "--short"], home=home).text, re.M)

    def forget(self, point):
        return [["delete", f"::{point}"]]

    free = [["compact"]]

    def restore(self, target):
        home = self.new_home()
        target.mkdir(exist_ok=True)
        newest = self.ids(home)
        return self.run(["extract", f"::{newest[-1] if newest else 'none'}"], home=home, cwd=target)

    def root(self, target):
        return target / "src"


class Vaulted(Tool):
    pack_files, point_files = "pack/*/*", "rp/*/*"
    look, check, check_all = [["snapshots"], ["vault", "list"]], [["check"]], [["check", "--read-data"]]
    unlock_all = []
    free = [["prune", "--now"]]

    def make(self):
        (self.home / "holdfast.toml").touch()
        self.check_bytes = [["scrub", "--ciphertext", self.repo]]
        self.must(["init", "--sheet", self.base / "sheet", "--vault", f"file://{self.repo}"])

    def places(self):
        return [self.repo, self.home, self.base / "store"]

    def backup(self, slow=False):
        return [["backup", "src", "--as", "src", "--online", *(["--limit-upload", "8M"] if slow else [])]]

    def ids(self):
        return [point["id"] for point in json.loads(self.run(["snapshots", "--json"]).text)]

    def forget(self, point):
        return [["forget", point, "--yes"]]

    def restore(self, target):
        home = self.new_home()
        return self.run(["recover", f"file://{self.repo}", "--store", home / "store"],
                        ["restore", "latest", "--store", home / "store", "--target", target], home=home)

    def root(self, target):
        return target

    def elsewhere(self):
        home = self.new_home()
        store = ["--store", home / "store"]
        self.run(["recover", f"file://{self.repo}", "--machine-key", *store], home=home)
        return home, store


class Stored(Vaulted):
    look = [["snapshots"]]

    def __init__(self, program, base):
        super().__init__(program, base)
        self.repo = base / "store"

    def make(self):
        (self.home / "holdfast.toml").touch()
        self.check_bytes = [["scrub", "--ciphertext", self.repo]]
        self.must(["init", "--sheet", self.base / "sheet"])

    def places(self):
        return [self.repo, self.home]

    def backup(self, slow=False):
        return [["backup", "src", "--as", "src"]]

    def restore(self, target):
        return self.run(["restore", "latest", "--target", target], home=self.new_home())

    def elsewhere(self):
        return self.home, []
