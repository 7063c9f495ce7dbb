#!/usr/bin/env python3
"""Compares backup tools on one machine: time, memory and requests of what people do with them.

    bench.py datasets                 make the data (once; minutes)
    bench.py mount [PART...]          figures of a mount: ls find cp restore grep dd fio memory
    bench.py vault [PART...]          figures of a vault 30 ms away: ls first-byte dd admin-guide documentation
    bench.py backup                   figures of backup, restore and check
    bench.py proxy                    what the proxy that delays carries
    bench.py table                    all results so far as Markdown
    bench.py --smoke                  all of it with tiny data in a directory that goes away: that it runs, no figures

See README.md beside this file.
"""
import os
import resource
import signal
import sys
import tempfile
import time
from dataclasses import replace

import backup
import datasets
import mount
import proxy
import report
import settings as setup
import tools
import vault
from measure import Caches, Sheet

PROXY_WANTED_MB_S = 400
KINDS = {"mount": mount, "vault": vault, "backup": backup}


def measure(settings, kind, parts):
    """Takes the figures of one kind and prints the table."""
    module = KINDS[kind]
    known = list(getattr(module, "PARTS", {}))
    unknown = set(parts) - set(known)
    if unknown:
        sys.exit(f"{kind} has no {', '.join(sorted(unknown))}, but {' '.join(known)}")
    for name in settings.tools():
        print(f"{name} is {tools.version(settings.programs[name])}")
    if not Caches.may_drop:
        print("caches are not dropped, by want of rights or because this is a smoke run: cold figures are warm")
    places = datasets.make(settings)
    sheet = Sheet(settings.results, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    module.run(settings, places, parts or known, sheet)


def check_proxy(settings, megabytes):
    """Says what the proxy carries: figures near that are its, not a tool's."""
    for connections in (1, 8, 32):
        speed = proxy.carried(connections, megabytes, settings.delay_ms)
        verdict = "enough" if speed >= PROXY_WANTED_MB_S else f"below {PROXY_WANTED_MB_S}: it may be what is measured"
        print(f"the proxy carries {speed:.0f} MB/s over {connections} connections: {verdict}")


def smoke(options):
    """Everything once, on data that are nearly nothing."""
    Caches.may_drop = False
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as place:
        settings = setup.from_options(options, smoke_dir=place)
        if "holdfast" not in settings.programs:
            sys.exit("holdfast is not on PATH: --tool holdfast=PATH")
        for kind in KINDS:
            # Each new store costs the derivation of a key, so one dataset must do for the last kind.
            measure(settings if kind != "backup" else replace(settings, datasets=("kernel",)), kind, [])
        check_proxy(settings, 20)
        print(*report.table(settings.results), sep="\n")
        print("smoke: done")


def main():
    parser = setup.parser(__doc__)
    parser.add_argument("verb", nargs="?", choices=["datasets", *KINDS, "proxy", "table"])
    parser.add_argument("parts", nargs="*", help="parts of mount or vault; all of them by default")
    parser.add_argument("--smoke", action="store_true")
    setup.add_options(parser)
    options = parser.parse_intermixed_args()
    if options.smoke:
        return smoke(options)
    if options.verb is None:
        parser.error("a verb, or --smoke")
    settings = setup.from_options(options)
    if options.verb == "datasets":
        for name, place in datasets.make(settings).items():
            files, size = datasets.count(place)
            print(f"{name}: {files} files, {size / 1e6:.0f} MB")
    elif options.verb == "proxy":
        check_proxy(settings, 4000)
    else:
        if options.verb != "table":
            measure(settings, options.verb, options.parts)
        print(*report.table(settings.results), sep="\n")
    return None


if __name__ == "__main__":
    # Ended from outside it still ends its servers and mounts.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    # Its output is read while it runs, from a file too.
    sys.stdout.reconfigure(line_buffering=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    os.umask(0o077)
    main()
