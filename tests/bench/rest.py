#!/usr/bin/env python3
"""Serves a restic repository on this machine's disk by restic's REST protocol, so that restic and rustic can be had 30 ms away.

    rest.py DIR          listens on a free port of this machine, which it prints; ends with its standard input

Only what reading needs, and locks: it trusts whoever asks.
"""
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LIST_V2 = "application/vnd.x.restic.rest.v2"
KINDS = ("data", "keys", "locks", "snapshots", "index")


class Quiet(BaseHTTPRequestHandler):
    """Keeps connections, says nothing, and bears that whoever asked goes away."""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except ConnectionError:
            pass        # whoever asked has gone


class Handler(Quiet):
    wbufsize = -1
    root = Path()

    def answer(self, code, body=b"", kind="application/octet-stream", length=None):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def file(self):
        """What the request names: None if it is no file of a repository."""
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts == ["config"]:
            return self.root / "config"
        if len(parts) != 2 or parts[0] not in KINDS or not re.fullmatch("[0-9a-f]{64}", parts[1]):
            return None
        kind, name = parts
        return self.root / kind / name[:2] / name if kind == "data" else self.root / kind / name

    def do_HEAD(self):
        path = self.file()
        if path is None or not path.is_file():
            return self.answer(404)
        return self.answer(200, length=path.stat().st_size)

    def do_GET(self):
        kind = self.path.strip("/")
        if kind in KINDS:
            return self.list(kind)
        path = self.file()
        if path is None or not path.is_file():
            return self.answer(404)
        with path.open("rb") as content:
            size = os.fstat(content.fileno()).st_size
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            first = int(asked.group(1)) if asked else 0
            last = min(size, int(asked.group(2)) + 1) if asked and asked.group(2) else size
            content.seek(first)
            return self.answer(206 if asked else 200, content.read(max(0, last - first)))

    def list(self, kind):
        found = [dict(name=path.name, size=path.stat().st_size) for path in (self.root / kind).glob("**/*") if path.is_file()]
        if LIST_V2 not in self.headers.get("Accept", ""):
            found = [entry["name"] for entry in found]
        self.answer(200, json.dumps(found).encode(), LIST_V2)

    def do_POST(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.file()
        if path is None:
            return self.answer(404)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return self.answer(200)

    def do_DELETE(self):
        path = self.file()
        if path is None or not path.is_file():
            return self.answer(404)
        path.unlink()
        return self.answer(200)


class RestServer:
    """A running server of the repository in `root`; ends with the `with` block."""

    def __init__(self, root):
        command = [sys.executable, str(Path(__file__).resolve()), str(root)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port, self.pid = int(self.child.stdout.readline()), self.child.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        self.child.wait()


def main():
    Handler.root = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
