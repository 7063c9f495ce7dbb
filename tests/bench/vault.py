"""The figures of a vault that is some 30 ms away: everything a tool asks for goes through a proxy that delays.

holdfast reads from the emulator of Azure Blob Storage, with nothing on this machine but what `recover` makes. restic and rustic read
their repository through a small REST server; borg has no such vault. Each part is a function, as in `mount`.
"""
import os
import shutil
from contextlib import ExitStack, contextmanager, nullcontext

import azurite
from measure import BenchError, timed
from proxy import Proxy
from rest import RestServer
from tools import PASSWORD, Repository, take_turns

FIRST_FILE = "Documentation/admin-guide/README.rst"
DD_BYTES = 256_000_000
REMOTE_TOOLS = ("holdfast", "restic", "rustic")


def run(settings, places, parts, sheet):
    tools, emulator = [name for name in settings.tools() if has_vault(settings, name)], nullcontext()
    if "holdfast" in tools:
        emulator = azurite.Azurite(settings.azurite, settings.work / "run" / "azurite")
    with emulator as vault:
        for dataset in ("kernel", "big"):
            wanted = [part for part in parts if dataset in PARTS[part][1]]
            if dataset not in places or not wanted:
                continue
            with ExitStack() as until_end:
                rigs = [begin(settings, name, dataset, places[dataset], vault, until_end) for name in tools]
                for part in wanted:
                    run_part(settings, sheet, part, dataset, [rig for rig in rigs if rig])


def has_vault(settings, name):
    if name not in REMOTE_TOOLS:
        print(f"skipped: {name} has no vault of this kind")
    elif name == "holdfast" and not (settings.azurite and shutil.which("node")):
        print("skipped: holdfast's vault needs node, and --azurite or HOLDFAST_AZURITE")
    else:
        return True
    return False


def begin(settings, name, dataset, src, emulator, until_end):
    """A rig that lasts until the end; nothing if the tool fails at it."""
    try:
        if name == "holdfast":
            return until_end.enter_context(azure_rig(settings, dataset, src, emulator))
        return until_end.enter_context(rest_rig(settings, name, dataset, src))
    except BenchError as error:
        print(f"skipped: {name}: {error}")
        if name == "holdfast":
            raise
    return None


def run_part(settings, sheet, part, dataset, rigs):
    def take(turn, rig):
        PARTS[part][0](Round(settings, sheet, dataset, turn, rig))

    take_turns(settings, f"{part} of {dataset}", rigs, take)


# --- vaults ----------------------------------------------------------------------------------------------------------

class Rig:
    """A repository that is behind `proxy`; `servers` are the processes of the vault."""

    def __init__(self, repository, proxy, servers):
        self.repository, self.proxy, self.servers, self.tool = repository, proxy, (proxy.pid, *servers), repository.tool


@contextmanager
def rest_rig(settings, name, dataset, src):
    """The repository that the figures of a mount use, too, seen through a server; with caches of its own."""
    local = Repository(name, settings.programs[name], src, settings.work / "run" / f"{name}-{dataset}")
    local.ensure()
    with RestServer(local.repo) as server, Proxy(server.port, settings.delay_ms) as proxy:
        away = Repository(name, settings.programs[name], src, settings.work / "run" / f"{name}-{dataset}-away")
        shutil.rmtree(away.base, ignore_errors=True)
        for place in (away.cache, away.mnt, away.out):
            place.mkdir(parents=True)
        away.names["repo"] = f"rest:http://127.0.0.1:{proxy.port}/"
        yield Rig(away, proxy, (server.pid,))


class Recovered(Repository):
    """A store that `recover` made from a vault."""

    def env(self, what=None):
        secret = dict(HOLDFAST_PASSWORD=PASSWORD) if what in ("init", "recover") else {}
        return dict(super().env(what), AZURE_STORAGE_KEY=azurite.KEY, **secret)


@contextmanager
def azure_rig(settings, dataset, src, emulator):
    """A vault in the emulator: filled without delay and once, then recovered from through the proxy."""
    name, base = "holdfast", settings.work / "run" / f"holdfast-{dataset}-vault"
    vault = f"bench-{dataset}"
    with Proxy(emulator.port, settings.delay_ms) as proxy:
        fill(settings, name, src, base, azurite.url(emulator.port, vault))
        away = Recovered(name, settings.programs[name], src, settings.work / "run" / f"{name}-{dataset}-away")
        away.spec = dict(away.spec, recover="{bin} recover {url} --store {repo} --machine-key")
        away.names["url"] = azurite.url(proxy.port, vault)
        shutil.rmtree(away.base, ignore_errors=True)
        for place in (away.cache, away.mnt, away.out):
            place.mkdir(parents=True)
        away.run("recover")
        yield Rig(away, proxy, (emulator.pid,))


def fill(settings, name, src, base, url):
    """Backs up into the vault, and then removes the store from which that was done: what is read comes from the vault."""
    mark = base / "holds"
    base.mkdir(parents=True, exist_ok=True)
    if mark.exists() and mark.read_text() == str(src):
        return
    print(f"{name} backs up {src} into {url}", flush=True)
    origin = Recovered(name, settings.programs[name], src, base / "origin")
    origin.spec = dict(origin.spec, init=origin.spec["init"] + f" --vault {url}",
                       backup=origin.spec["backup"].replace(" backup ", " backup --online "))
    origin.create()
    origin.run("backup")
    shutil.rmtree(origin.base)
    mark.write_text(str(src))


# --- figures ---------------------------------------------------------------------------------------------------------

class Round:
    """One tool with one dataset in one turn."""

    def __init__(self, settings, sheet, dataset, turn, rig):
        self.settings, self.sheet, self.dataset, self.turn, self.rig = settings, sheet, dataset, turn, rig
        self.round_trip = 2 * settings.delay_ms / 1000

    def put(self, figure, value, unit, **more):
        self.sheet.put(self.rig.tool, self.dataset, f"vault, {figure}", value, unit, turn=self.turn, **more)

    def mounted(self, with_cache=False):
        """A mount that knows nothing but what was recovered, or what the mount before it knew, too."""
        if not with_cache:
            self.rig.repository.forget_cache()
        return self.rig.repository.mounted(behind=self.rig.servers)

    @contextmanager
    def counted(self):
        """Fills a dict with the requests and megabytes that passed the proxy."""
        before, passed = self.rig.proxy.counts(), {}
        yield passed
        after = self.rig.proxy.counts()
        passed.update(requests=after["requests"] - before["requests"], mb=(after["received"] - before["received"]) / 1e6)


def first_ls(at):
    """Without anything kept on this machine, and again with what the first mount kept."""
    for with_cache, figure in ((False, "mount to first ls, no cache"), (True, "mount to first ls, cached")):
        with at.counted() as passed, at.mounted(with_cache) as mount:
            pass
        at.put(figure, mount.began.seconds, "s", **mount.began.noise(), **passed)


def first_byte(at):
    with at.mounted() as mount, at.counted() as passed:
        command = ["head", "-c1", f"{mount.root}/{FIRST_FILE}"]
        took = timed(command, servers=mount.servers(), cold=False)
    at.put("first byte", took.seconds, "s", **took.noise(), **passed)
    at.put("first byte, round trips", took.seconds / at.round_trip, "")


def dd(at):
    with at.mounted() as mount, at.counted() as passed:
        command = ["dd", f"if={mount.root}/big.img", "of=/dev/null", "bs=1M", f"count={DD_BYTES}", "iflag=count_bytes"]
        took = timed(command, servers=mount.servers(), cold=False, patience=at.settings.patience)
        end(at, mount, "dd")
    if took.code is None:
        raise BenchError(f"dd is not over after {at.settings.patience} s")
    at.put("dd of 256 MB", took.seconds, "s", **took.noise(), **passed)


def copy(at, below, figure):
    """Copies a directory; one that is not there after the patience is over is put down as its files would have gone on."""
    source, target = at.rig.repository.src / below, at.rig.repository.out / "copy"
    at.rig.repository.clear_out()
    with at.mounted() as mount, at.counted() as passed:
        took = timed(["cp", "-r", f"{mount.root}/{below}", target], servers=mount.servers(), cold=False,
                     patience=at.settings.patience)
        end(at, mount, figure)
    files, whole = files_below(target), files_below(source)
    seconds, more = took.seconds, dict(**took.noise(), files=files, **passed)
    if took.code is None:
        seconds, more["estimate"] = took.seconds * whole / max(1, files), True
    elif files != whole:
        raise BenchError(f"{files} of {whole} files of {below} were copied")
    at.put(figure, seconds, "s", **more)
    at.put(f"{figure}, requests per file", passed["requests"] / max(1, files), "")
    at.rig.repository.clear_out()


def end(at, mount, after):
    peak, resident = mount.memory_mib()
    at.put(f"daemon memory after {after}", peak, "MiB", resident=resident, cpu=mount.cpu())


def files_below(place):
    return sum(len(files) for _, _, files in os.walk(place))


PARTS = {
    "ls": (first_ls, ("kernel", "big")),
    "first-byte": (first_byte, ("kernel",)),
    "dd": (dd, ("big",)),
    "admin-guide": (lambda at: copy(at, "Documentation/admin-guide", "cp -r admin-guide"), ("kernel",)),
    "documentation": (lambda at: copy(at, "Documentation", "cp -r Documentation"), ("kernel",)),
}
