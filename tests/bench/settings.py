"""What a run is told: where it works, on which data, with which tools, how often. Options win over the environment."""
import argparse
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

TOOL_NAMES = ("holdfast", "restic", "rustic", "borg")
DATASET_NAMES = ("kernel", "big", "many")


@dataclass
class Settings:
    """Everything a run depends on. `size` says how large generated data are: FULL or SMOKE."""

    work: Path
    out: Path | None = None
    programs: dict = field(default_factory=dict)
    datasets: tuple = DATASET_NAMES
    turns: int = 3
    fio_ms: int = 10_000
    patience: int = 120
    delay_ms: float = 30.0
    kernel: str | None = None
    big: str | None = None
    many_files: int = 300_000
    azurite: str | None = None
    smoke: bool = False

    @property
    def results(self):
        return self.work / "results.jsonl"

    def tools(self):
        """Tools that are here, holdfast first."""
        return [name for name in TOOL_NAMES if name in self.programs]


def add_options(parser):
    env = os.environ.get
    parser.add_argument("--work", default=env("BENCH_DIR", "/var/tmp/holdfast-bench"), help="data, repositories, results")
    parser.add_argument("--out", type=Path, default=env("BENCH_OUT"), help="where to copy and restore to; default: below --work")
    parser.add_argument("--tool", action="append", default=[], metavar="NAME=PATH", help="where a tool is, if not on PATH")
    parser.add_argument("--tools", nargs="+", choices=TOOL_NAMES, default=None, help="only these; default: all that are found")
    parser.add_argument("--datasets", nargs="+", choices=DATASET_NAMES, default=list(DATASET_NAMES))
    parser.add_argument("--turns", type=int, default=int(env("BENCH_TURNS", "3")), help="how often each figure is taken")
    parser.add_argument("--fio-seconds", type=int, default=10)
    parser.add_argument("--patience", type=int, default=120, help="seconds until a slow copy out of a vault is cut off")
    parser.add_argument("--delay-ms", type=float, default=30.0, help="delay of the vault, each way")
    parser.add_argument("--kernel", default=env("BENCH_KERNEL"), help="KERNEL: a source tree, or a tar file of one")
    parser.add_argument("--big", default=env("BENCH_BIG"), help="BIG: a directory that holds the image big.img")
    parser.add_argument("--many-files", type=int, default=int(env("BENCH_MANY", "300000")))
    parser.add_argument("--azurite", default=env("HOLDFAST_AZURITE"), help="dist/src/blob/main.js of the npm package azurite")


def from_options(options, smoke_dir=None):
    """The settings of parsed options; with `smoke_dir`, those of the smallest run that still does everything."""
    # Of a smoke run the other tools are no part, unless asked for: they take their time to derive keys.
    wanted = options.tools or (("holdfast",) if smoke_dir else TOOL_NAMES)
    said = dict(pair.split("=", 1) for pair in options.tool)
    unknown = set(said) - set(TOOL_NAMES)
    if unknown:
        raise SystemExit(f"unknown tools: {', '.join(sorted(unknown))}")
    found = {name: said.get(name) or os.environ.get(f"BENCH_{name.upper()}") or shutil.which(name) for name in wanted}
    for name in sorted(set(wanted) - {name for name, path in found.items() if path}):
        print(f"skipped: {name} is not on PATH; --tool {name}=PATH names it")
    programs = {name: str(Path(path).absolute()) for name, path in found.items() if path}
    common = dict(programs=programs, azurite=options.azurite, delay_ms=options.delay_ms)
    if smoke_dir:
        return Settings(work=Path(smoke_dir), turns=1, fio_ms=100, patience=20, many_files=300, smoke=True,
                        datasets=tuple(options.datasets), **common)
    return Settings(work=Path(options.work), out=options.out, datasets=tuple(options.datasets), turns=options.turns,
                    fio_ms=options.fio_seconds * 1000, patience=options.patience, kernel=options.kernel, big=options.big,
                    many_files=options.many_files, **common)


def parser(doc):
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
