#!/usr/bin/env python3
"""A TCP proxy that delays: each direction by the same time, neither limited in bandwidth.

    proxy.py PORT DELAY_MS          listens on a free port of this machine, passes on to PORT

It prints its port, and for each line on its standard input a line of JSON with what passed so far: connections, requests (reads
from a client that begin with a method of HTTP, right for clients that wait for an answer before they ask again on a connection),
bytes each way. It ends with its standard input. A new connection is quiet for one round trip first, as a handshake is.
"""
import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

METHODS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ", b"PATCH ")
HELD_MAX = 64 << 20
"""Bytes that one direction of a connection may hold until it stops reading: two seconds at 30 MB/s, or 60 ms at 1 GB/s."""


class Counts:
    def __init__(self):
        self.connections = self.requests = self.sent = self.received = 0


class Pipe(asyncio.Protocol):
    """One end of a connection: what arrives here leaves `peer` a delay later."""

    def __init__(self, delay, saw):
        self.delay, self.saw, self.peer = delay, saw, None
        self.held, self.held_bytes, self.transport, self.paused, self.waking = deque(), 0, None, False, False
        self.not_before, self.full = 0.0, False

    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A long buffer of a transport is moved at each write; what waits longer waits in `held`.
        transport.set_write_buffer_limits(high=1 << 20)

    def data_received(self, data):
        self.saw(data)
        self.hold(data)

    def eof_received(self):
        self.hold(None)
        return True

    def connection_lost(self, _error):
        self.hold(None)

    def pause_writing(self):
        self.full = True

    def resume_writing(self):
        self.full = False
        self.peer.release()

    def hold(self, data):
        now = asyncio.get_running_loop().time()
        self.held.append((max(now + self.delay, self.not_before), data))
        self.held_bytes += len(data or b"")
        if self.held_bytes > HELD_MAX and not self.paused:
            self.paused = True
            self.transport.pause_reading()
        self.wake()

    def wake(self):
        """Sets the alarm for the first thing that is held, if it can go on anywhere and none is set."""
        if self.held and self.peer and not self.peer.full and not self.waking:
            self.waking = True
            asyncio.get_running_loop().call_at(self.held[0][0], self.alarm)

    def alarm(self):
        self.waking = False
        self.release()

    def release(self):
        due = asyncio.get_running_loop().time() + 0.0005
        while self.held and self.held[0][0] <= due and not self.peer.full:
            data = self.held.popleft()[1]
            self.held_bytes -= len(data or b"")
            self.pass_on(data)
        if self.paused and self.held_bytes < HELD_MAX // 2:
            self.paused = False
            self.transport.resume_reading()
        self.wake()

    def pass_on(self, data):
        out = self.peer.transport
        if out is None or out.is_closing():
            return
        if data is not None:
            out.write(data)
        elif self.transport.is_closing():
            out.close()
        else:
            self.end(out)

    @staticmethod
    def end(out):
        try:
            out.write_eof()
        except OSError:
            # It is gone already, and nobody has told us yet.
            out.abort()


async def accept(client, counts, delay, port):
    """Joins a new client to a connection of its own to the server."""
    counts.connections += 1

    def saw(data):
        counts.received += len(data)

    try:
        _, server = await asyncio.get_running_loop().create_connection(lambda: Pipe(delay, saw), "127.0.0.1", port)
    except OSError:
        client.transport.abort()
        return
    client.peer, server.peer = server, client
    client.wake()


async def serve(port, delay):
    counts, loop = Counts(), asyncio.get_running_loop()

    def saw(data):
        counts.sent += len(data)
        counts.requests += data.startswith(METHODS)

    class Client(Pipe):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.not_before = loop.time() + 3 * delay
            self.joining = loop.create_task(accept(self, counts, delay, port))

    server = await loop.create_server(lambda: Client(delay, saw), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    asked = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while await asked.readline():
        print(json.dumps(vars(counts)), flush=True)


class Proxy:
    """A running proxy before `port`; ends with the `with` block."""

    def __init__(self, port, delay_ms):
        command = [sys.executable, str(Path(__file__).resolve()), str(port), str(delay_ms)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port, self.pid = int(self.child.stdout.readline()), self.child.pid

    def counts(self):
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        self.child.wait()


# --- what it carries -------------------------------------------------------------------------------------------------

def carried(connections, megabytes, delay_ms):
    """MB/s that pass it from a server that sends as fast as it can over so many connections at once, the delay included."""
    share = megabytes * 1_000_000 // connections
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        threading.Thread(target=pour, args=(listener, connections, share), daemon=True).start()
        with Proxy(listener.getsockname()[1], delay_ms) as proxy:
            started = time.perf_counter()
            readers = [threading.Thread(target=drain, args=(proxy.port, share)) for _ in range(connections)]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            return connections * share / 1e6 / (time.perf_counter() - started)


def pour(listener, connections, share):
    block = memoryview(bytes(1 << 20))

    def answer(client):
        with client:
            client.recv(1)
            left = share
            while left:
                left -= client.send(block[:min(left, len(block))])

    for _ in range(connections):
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def drain(port, share):
    buffer = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port)) as server:
        server.sendall(b"?")
        left = share
        while left:
            got = server.recv_into(buffer)
            if not got:
                raise SystemExit("the proxy ended a connection early")
            left -= got


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
