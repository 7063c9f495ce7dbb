"""The emulator of Azure Blob Storage, as a process with its data in a directory."""
import re
import subprocess
import threading

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The published key that every emulator has; a secret of nobody."""


class Azurite:
    """A running emulator; ends with the `with` block. Its data stay in `place`."""

    def __init__(self, main_js, place):
        place.mkdir(parents=True, exist_ok=True)
        self.child = subprocess.Popen(
            ["node", main_js, "--blobHost", "127.0.0.1", "--blobPort", "0", "--disableTelemetry", "--skipApiVersionCheck",
             "--location", str(place)], cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.pid, self.port = self.child.pid, None
        for line in self.child.stdout:
            found = re.search(r"listens on http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                break
        if self.port is None:
            raise SystemExit(f"{main_js} does not listen")
        # It stops when nobody reads what it says.
        threading.Thread(target=lambda: [None for _ in self.child.stdout], daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait()


def url(port, vault):
    return f"azure+http://127.0.0.1:{port}/{ACCOUNT}/{vault}"
