"""The tools that `trust` harms, each with its commands and the places where its repository keeps what.

Every tool has a directory of its own with a home, a source and a repository, and is started with nothing of the
environment but PATH and LANG, so that no cache and no configuration of whoever runs this has a say.
"""
import base64
import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import gateway
import lengths

PASSPHRASE = "five random words make a good one"
SECRETS = ("RESTIC_PASSWORD", "BORG_PASSPHRASE", "HOLDFAST_PASSWORD")
PATIENCE_S = 300
ALARMING = re.compile(r"error|warn|damage|missing|corrupt|attack|fail|mismatch|truncat|roll|withheld|instead of|inconsisten|integrity"
                      r"|no space|fatal|lost|refus|in use|locked|invalid|not found|not there|does not|do not|wrong|cannot", re.I)
CALM = re.compile(r"no errors|no damage|no problems|found 0 |still in use for|Missing +Size|guards against no disk", re.I)


class Seen:
    """How a command, or several one after the other, ended: the first exit code that is not 0, and all that was said."""

    def __init__(self, code, text):
        self.code, self.text = code, text

    def words(self):
        lines = [line.strip() for line in self.text.splitlines()]
        alarming = [line for line in lines if " " in line and ALARMING.search(line) and not CALM.search(line)]
        if not alarming and self.code:
            alarming = [line for line in lines if line.startswith("holdfast: ")] or list(filter(None, lines))[-1:]
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
    address = None
    """Where the repository is asked for, if that is not its directory."""

    def __init__(self, program, base):
        self.program, self.base = str(program), base
        self.src, self.repo, self.home, self.saved = base / "src", base / "repo", base / "home", base / "saved"
        self.more_environment = {}
        for directory in (self.src, self.home):
            directory.mkdir(parents=True)

    def environment(self, home):
        keep = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**keep, "HOME": str(home), "TMPDIR": str(self.base), "RESTIC_REPOSITORY": str(self.address or self.repo),
                "RESTIC_PASSWORD": PASSPHRASE, "BORG_REPO": str(self.address or self.repo), "BORG_PASSPHRASE": PASSPHRASE,
                "HOLDFAST_PASSWORD": PASSPHRASE, "HOLDFAST_STORE": str(self.base / "store"),
                "HOLDFAST_CONFIG": str(self.home / "holdfast.toml"), "HOLDFAST_CACHE_DIR": str(home / "cache"),
                "HOLDFAST_KEY_DIR": str(home / "keys"), **self.more_environment}

    def start(self, args, home=None, cwd=None, output=subprocess.DEVNULL, without=(), given=()):
        env = {name: value for name, value in self.environment(home or self.home).items() if name not in without}
        return subprocess.Popen([self.program, *map(str, args)], cwd=cwd or self.base, stdin=subprocess.DEVNULL,
                                stdout=output, stderr=subprocess.STDOUT, env={**env, **dict(given)})

    def run(self, *commands, home=None, cwd=None, without=(), given=()):
        code, text = 0, ""
        for args in commands:
            process = self.start(args, home, cwd, subprocess.PIPE, without, given)
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

    def look_without_key(self):
        """Looks at the bytes of the repository as somebody does who has no key and no memory of it."""
        return self.run(*self.check_bytes, home=self.new_home(), without=SECRETS)

    check_bytes = None
    unlock = []
    lies, no_gateway = (), "none: not by HTTP"
    """In which ways a gateway before the repository can lie (see gateway.py), or why there is none."""

    twins = False
    """Whether a repository can be made with the chunker's secret of another one."""

    def lengths(self):
        """What the keeper of a repository sees of lengths."""
        return lengths.files(self.repo)

    def other(self):
        """Another machine that backs up to the same repository: a home, and what each command then needs to say."""
        return self.new_home(), []


class Restic(Tool):
    lies = ("half", "nothing")
    pack_files, point_files = "data/*/*", "snapshots/*"
    look, check, check_all = [["snapshots"]], [["check"]], [["check", "--read-data"]]
    unlock, unlock_all = [["unlock"]], [["unlock"], ["unlock", "--remove-all"]]

    def make(self):
        self.must(["init"])

    def backup(self, slow=False, name="src"):
        return [["backup", "src"]]

    def ids(self, home=None, more=()):
        return [point["id"] for point in json.loads(self.run(["snapshots", "--json", *more], home=home).text)]

    def forget(self, point):
        return [["forget", point]]

    free = [["prune"]]

    def restore(self, target):
        return self.run(["restore", "latest", "--target", target], home=self.new_home())

    def gateway(self):
        self.make()
        return gateway.restic(self)

    twins = True

    def make_twin(self, of):
        given = {"RESTIC_FROM_PASSWORD": PASSPHRASE}
        seen = self.run(["init", "--copy-chunker-params", "--from-repo", of.repo], given=given)
        if seen.code:
            raise SystemExit(seen.text)

    opening = ["cat", "config"]

    def stored_parameters(self):
        key = json.loads(next(self.repo.glob("keys/*")).read_text())
        return f"{key['kdf']}, N={key['N']}, r={key['r']}, p={key['p']}"

    def root(self, target):
        return target / "src"


class Borg(Tool):
    pack_files, point_files = "data/*/*", "no-file-for-each"
    look, check, check_all = [["list"]], [["check"]], [["check", "--verify-data"]]
    check_bytes = [["check", "--repository-only"]]
    unlock = unlock_all = [["break-lock"]]

    def make(self):
        self.must(["init", "-e", "repokey"])

    def backup(self, slow=False, name="src"):
        return [["create", f"::{time.time_ns()}", "src"]]

    def ids(self, home=None, more=()):
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


    def lengths(self):
        return lengths.files(self.repo) + lengths.borg_entries(self.repo)

    opening = ["info"]

    def stored_parameters(self):
        """The key is a message pack in base64, of which two or four fields matter here."""
        lines = self.run(["key", "export"] + self.key_export).text.split("\n")
        begin = next(number for number, line in enumerate(lines) if line.startswith("BORG_KEY"))
        key = base64.b64decode("".join(lines[begin + 1:]).strip())
        said = []
        for name in (b"iterations", b"argon2_memory_cost", b"argon2_time_cost", b"argon2_parallelism"):
            if name in key:
                rest = key[key.index(name) + len(name):]
                width = {0xcc: 1, 0xcd: 2, 0xce: 4}.get(rest[0], 0)
                said.append(f"{name.decode()}={int.from_bytes(rest[1:1 + width], 'big') if width else rest[0]}")
        kind = "argon2" if "argon2" in "".join(said) else "PBKDF2-SHA256"
        return f"{kind}, " + ", ".join(said)

    key_export = ["::"]


class Borg2(Borg):
    pack_files, point_files = "packs/*/*", "archives/*"
    look = [["repo-list"]]
    check_bytes = None          # `check --repository-only` asks for the passphrase

    lies = ("half", "half, no checksum", "nothing")
    twins = True
    opening, key_export = ["repo-info"], []

    def __init__(self, program, base):
        super().__init__(program, base)
        self.server = Path(program).with_name("borgstore-server-rest")
        if not self.server.exists():
            self.lies, self.no_gateway = (), f"left out: no {self.server.name} beside borg"

    def make(self):
        self.must(["repo-create", "-e", "aes256-ocb"])

    def make_twin(self, of):
        given = {"BORG_OTHER_REPO": str(of.repo), "BORG_OTHER_PASSPHRASE": PASSPHRASE}
        seen = self.run(["repo-create", "-e", "aes256-ocb", "--other-repo", of.repo], given=given)
        if seen.code:
            raise SystemExit(seen.text)

    def lengths(self):
        return lengths.files(self.repo) + lengths.borg2_entries(self.repo)

    def gateway(self):
        started = gateway.borg(self, self.server)
        self.make()
        return started

    def backup(self, slow=False, name="src"):
        return [["create", time.time_ns(), "src"]]

    def ids(self, home=None, more=()):
        return sorted(re.findall(r"^\d{19}$", self.run(["repo-list", "--format", "{archive}{NL}"], home=home).text, re.M))

    def forget(self, point):
        return [["delete", point]]

    def restore(self, target):
        home = self.new_home()
        target.mkdir(exist_ok=True)
        newest = self.ids(home)
        again = ["--continue"] if any(target.iterdir()) else []
        return self.run(["extract", *again, newest[-1] if newest else "none"], home=home, cwd=target)


class Vaulted(Tool):
    pack_files, point_files = "pack/*/*", "rp/*/*"
    look, check, check_all = [["snapshots"], ["vault", "list"]], [["check"]], [["check", "--read-data"]]
    unlock_all = []
    free = [["prune", "--now"]]
    lies = ("half", "half, no checksum", "nothing")

    def __init__(self, program, base):
        super().__init__(program, base)
        if "HOLDFAST_AZURITE" not in os.environ:
            self.lies, self.no_gateway = (), "left out: no HOLDFAST_AZURITE"

    def gateway(self):
        started = gateway.holdfast(self, os.environ["HOLDFAST_AZURITE"])
        self.make()
        return started

    def make(self):
        (self.home / "holdfast.toml").touch()
        self.check_bytes = [["scrub", "--ciphertext", self.repo]]
        self.must(["init", "--sheet", self.base / "sheet", "--vault", self.address or f"file://{self.repo}"])

    def places(self):
        return [self.repo, self.home, self.base / "store"]

    def backup(self, slow=False, name="src"):
        return [["backup", "src", "--as", name, "--online", *(["--limit-upload", "8M"] if slow else [])]]

    def ids(self, home=None, more=()):
        return [point["id"] for point in json.loads(self.run(["snapshots", "--json", *more], home=home).text)]

    def forget(self, point):
        return [["forget", point, "--yes", "--allow-newest"]]

    def words(self):
        """What opens on a new machine: the words of the recovery sheet. They cost no time, as a passphrase does."""
        words = (self.base / "sheet").read_text().split("24 WORDS")[1].split("ON THE WORST DAY")[0]
        return {"HOLDFAST_RECOVERY_KEY": " ".join(re.findall("[a-z]+", words))}

    def restore(self, target):
        home = self.new_home()
        return self.run(["recover", self.address or f"file://{self.repo}", "--store", home / "store"],
                        ["restore", "latest", "--store", home / "store", "--target", target],
                        home=home, without=SECRETS, given=self.words())

    def root(self, target):
        return target

    def elsewhere(self):
        home = self.new_home()
        store = ["--store", home / "store"]
        self.run(["recover", f"file://{self.repo}", "--machine-key", *store], home=home)
        return home, store

    other = elsewhere
    opening = ["snapshots"]

    def stored_parameters(self):
        """Of the slot of a passphrase: docs/format.md, section 6."""
        for slot in (self.base / "store/keys").iterdir():
            kind, _, memory, passes, lanes = struct.unpack_from("<BBxxIII", slot.read_bytes(), 64)
            if kind == 1:
                return f"Argon2id, memory={memory} KiB, passes={passes}, lanes={lanes}"


class Stored(Vaulted):
    look = [["snapshots"]]

    def __init__(self, program, base):
        super().__init__(program, base)
        self.repo, self.lies, self.no_gateway = base / "store", (), Tool.no_gateway

    def make(self):
        (self.home / "holdfast.toml").touch()
        self.check_bytes = [["scrub", "--ciphertext", self.repo]]
        self.must(["init", "--sheet", self.base / "sheet"])

    def places(self):
        return [self.repo, self.home]

    def backup(self, slow=False, name="src"):
        return [["backup", "src", "--as", name]]

    def restore(self, target):
        return self.run(["restore", "latest", "--target", target], home=self.new_home(), without=SECRETS, given=self.words())

    def elsewhere(self):
        return self.home, []

    other = elsewhere
