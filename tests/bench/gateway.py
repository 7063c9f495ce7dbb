"""A gateway before a store that is asked for by HTTP: it passes everything on, and lies once when it is told to.

Lies, each told of one data pack that is put, and acknowledged like all others:

    half                    half of the body is passed on, with the headers of all of it
    half, no checksum       the same, without the headers by which the store could notice
    nothing                 nothing is passed on
"""
import base64
import hashlib
import hmac
import re
import socket
import subprocess
import threading
import time
import urllib.parse
from http.client import HTTPConnection
from http.server import ThreadingHTTPServer

from azurite import ACCOUNT, KEY, Azurite, url
from rest import Quiet, RestServer

CHECKSUMS = {"content-md5", "x-ms-content-crc64", "x-content-hash-sha256"}
NOT_PASSED_ON = {"content-length", "connection", "transfer-encoding", "expect"}
LARGE = 300_000
"""A pack of less than that is no data pack of what is backed up here."""


class Handler(Quiet):
    def handle_any(self):
        gate, body = self.server.gate, self.body()
        lie = gate.lie_about(self.command, self.path, body)
        if lie == "nothing":
            return self.answer(gate.success, [("ETag", '"0x8DD0000000000"'), ("Last-Modified", self.date_time_string()),
                                              ("x-ms-version", "2022-11-02"), ("x-ms-request-id", "0")], b"")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED_ON}
        if lie == "half, no checksum":
            headers = {name: value for name, value in headers.items() if name.lower() not in CHECKSUMS}
        if lie:
            body = body[:len(body) // 2]
        if body or self.command in ("PUT", "POST"):
            headers["Content-Length"] = str(len(body))
        upstream = HTTPConnection("127.0.0.1", gate.upstream, timeout=60)
        upstream.request(self.command, self.path, body or None, headers)
        said = upstream.getresponse()
        content = said.read()
        if lie:
            gate.answered = said.status
        self.answer(said.status, said.getheaders(), content, said.getheader("Content-Length"))
        upstream.close()

    def body(self):
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while length := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, status, headers, content, length=None):
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in NOT_PASSED_ON:
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = handle_any


class Gateway:
    """A running gateway before `upstream`; ends with the `with` block. `pattern` tells paths of packs."""

    def __init__(self, upstream, pattern, success=200):
        self.upstream, self.pattern, self.success = upstream, re.compile(pattern), success
        self.lie, self.told, self.answered = None, 0, None
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.gate = self
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def lie_about(self, method, path, body):
        with self.lock:
            lie = self.lie
            is_pack = len(body) >= LARGE and self.pattern.search(urllib.parse.unquote(path))
            if not lie or method not in ("PUT", "POST") or not is_pack:
                return None
            self.lie, self.told = None, len(body)
            return lie

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


# --- the stores behind it ------------------------------------------------------------------------------------------

def restic(tool):
    """restic's REST protocol; `tool` has made the repository in its directory."""
    server = RestServer(tool.repo)
    gate = Gateway(server.port, "/data/")
    tool.address = f"rest:http://127.0.0.1:{gate.port}/"
    return server, gate


class BorgStore:
    """borg 2's own server, which lies beside the program."""

    def __init__(self, program, place):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.child = subprocess.Popen([program, "--port", str(self.port), "--backend", f"file://{place}"],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                return socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                time.sleep(0.05)
        raise SystemExit(f"{program} does not listen")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait()


def borg(tool, program):
    server = BorgStore(program, tool.repo)
    gate = Gateway(server.port, "packs/")
    tool.address = f"http://127.0.0.1:{gate.port}/"
    return server, gate


def holdfast(tool, main_js):
    """The emulator of Azure. A signature of the account opens it: one by the key would bind the length and the checksum."""
    server = Azurite(main_js, tool.base / "azurite")
    gate = Gateway(server.port, "-data/pack/", 201)
    tool.address = url(gate.port, f"trust-{time.time_ns()}")
    tool.more_environment = {"AZURE_STORAGE_SAS_TOKEN": signature()}
    return server, gate


def signature():
    version, rights, services, types, end = "2022-11-02", "rwdlc", "b", "sco", "2090-01-01T00:00:00Z"
    text = f"{ACCOUNT}\n{rights}\n{services}\n{types}\n\n{end}\n\nhttps,http\n{version}\n\n"
    sealed = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest())
    return (f"?sv={version}&ss={services}&srt={types}&sp={rights}&se={end}&spr=https,http"
            f"&sig={urllib.parse.quote(sealed, safe='')}")
