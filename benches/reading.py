#!/usr/bin/env python3
"""What the server does for those who ask, in instructions: a busy machine counts as many as an idle one.

    benches/reading.py              counts, and compares with benches/reading.txt
    BLESS=1 benches/reading.py      writes the file anew

Runs examples/echo, as it is shipped, under callgrind; the client is in here. A figure is the
difference of two runs of different length, for each thing asked. The kernel's part is not counted.
Fails if a figure is a tenth above the file's, or if one more connection costs a tenth more
beside thousands of idle ones than beside none.
"""

import os
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).parent.parent
FIGURES = ROOT / "benches" / "reading.txt"
IDLE = 4000

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

PUBLISH = b"POST /channels/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\nhello, world"
POLL = b"GET /channels/news?after=%s HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Client:
    """A socket that reads exactly what it is told to."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.kept = b""

    def send(self, data):
        self.socket.sendall(data)

    def read(self, count):
        while len(self.kept) < count:
            data = self.socket.recv(1 << 20)
            assert data, "the server ended the connection"
            self.kept += data
        data, self.kept = self.kept[:count], self.kept[count:]
        return data

    def read_through(self, mark):
        """How many bytes there are up to the end of this mark."""
        while mark not in self.kept:
            data = self.socket.recv(1 << 16)
            assert data, "the server ended the connection"
            self.kept += data
        return len(self.read(self.kept.index(mark) + len(mark)))

    def read_answer(self):
        """The body of an answer that says its length."""
        while b"\r\n\r\n" not in self.kept:
            data = self.socket.recv(1 << 16)
            assert data, "the server ended the connection"
            self.kept += data
        head = self.read(self.kept.index(b"\r\n\r\n") + 4)
        return self.read(int(re.search(rb"Content-Length: (\d+)", head)[1]))

    def read_message(self, count):
        """The frame of a message. Where callgrind is slow the server pings meanwhile."""
        while (head := self.read(2))[0] == 0x89:
            self.read(head[1])
        return head + self.read(count - 2)

    def end(self):
        self.send(b"\x88\x82\0\0\0\0\x03\xe8")
        while self.socket.recv(1 << 16):
            pass
        self.socket.close()


def frame(first, payload, mask=b""):
    length = len(payload)
    bit = 0x80 if mask else 0
    if length < 126:
        head = bytes([first, bit | length])
    elif length < 1 << 16:
        head = bytes([first, bit | 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([first, bit | 127]) + length.to_bytes(8, "big")
    return head + mask + payload


def requests(at_once):
    def ask(port, count):
        client = Client(port)
        client.send(REQUEST)
        length = client.read_through(b"ok\n")
        for _ in range(count // at_once):
            client.send(REQUEST * at_once)
            client.read(length * at_once)

    return ask


def publishes(port, count):
    client = Client(port)
    for _ in range(count):
        client.send(PUBLISH % b"unread")
        client.read_answer()


def polls(port, count):
    """Each is held, answered by a publish, and followed by the next from the cursor in its answer."""
    poller, publisher = Client(port), Client(port)
    cursor = b"earliest"
    for _ in range(count):
        poller.send(POLL % cursor)
        # So that nearly each is held before, in a turn of its own.
        time.sleep(0.003)
        publisher.send(PUBLISH % b"news")
        publisher.read_answer()
        answer = poller.read_answer()
        assert answer.count(b"hello, world") == 1
        cursor = re.search(rb'"cursor":"([^"]+)"', answer)[1]


def echoes(size):
    # A key of zeros is as good as any, and needs no masking here.
    asked, answer = frame(0x81, b"a" * size, bytes(4)), frame(0x81, b"a" * size)

    def ask(port, count):
        client = Client(port)
        client.send(HANDSHAKE)
        client.read_through(b"\r\n\r\n")
        for _ in range(count):
            # A long one does not fit into the sockets: it is sent while its beginning is read.
            sender = threading.Thread(target=client.send, args=(asked,))
            sender.start()
            assert client.read_message(len(answer)) == answer
            sender.join()

    return ask


def connections(idle):
    def ask(port, count):
        waiting = []
        for _ in range(idle):
            # Whoever has been answered may stay for longer than this runs; and one after the other they
            # take as many turns each time.
            client = Client(port)
            client.send(REQUEST)
            client.read_through(b"ok\n")
            waiting.append(client)
        for _ in range(count):
            client = Client(port)
            client.send(HANDSHAKE)
            client.read_through(b"\r\n\r\n")
            client.end()
        return waiting

    return ask


WORK = [
    ("a request", requests(1), 200, 2200),
    ("a request, 16 in one read", requests(16), 1600, 17600),
    ("a publish that nobody reads", publishes, 1200, 3200),
    ("a poll held, and its publish", polls, 1200, 2200),
    ("an echo of 16 bytes", echoes(16), 200, 2200),
    ("an echo of 1 MiB", echoes(1 << 20), 5, 25),
    ("connect, handshake, close", connections(0), 100, 1100),
    (f"the same beside {IDLE} idle", connections(IDLE), 100, 1100),
]


def instructions(program, ask, count):
    """Of a whole run of the server in which so much is asked."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, f"127.0.0.1:{port}"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    server.stdout.readline()
    kept = ask(port, count)
    # What the last one left behind is cleared away before the end.
    time.sleep(0.3)
    server.terminate()
    del kept
    return int(re.search(r"Collected : (\d+)", server.communicate()[1])[1])


def main():
    if not shutil.which("valgrind"):
        print("skipped: no valgrind")
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    subprocess.run(["cargo", "build", "--locked", "--release", "--example", "echo"], cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    program = str(target / "release" / "examples" / "echo")

    found = {}
    for name, ask, few, many in WORK:
        more = instructions(program, ask, many) - instructions(program, ask, few)
        found[name] = round(more / (many - few))
        print(f"{name:<32}{found[name]:>10}", flush=True)

    comment = [line for line in FIGURES.read_text().splitlines() if line.startswith("#")]
    if os.environ.get("BLESS"):
        lines = comment + [f"{name:<32}{figure:>10}" for name, figure in found.items()]
        FIGURES.write_text("\n".join(lines) + "\n")
        return
    wrong = []
    for line in FIGURES.read_text().splitlines():
        if line.startswith("#"):
            continue
        name, figure = line[:32].rstrip(), int(line[32:])
        if name in found and found[name] > 1.1 * figure:
            wrong.append(f"{name}: {found[name]} instructions, where {FIGURES.name} has {figure}")
    alone, beside = found["connect, handshake, close"], found[f"the same beside {IDLE} idle"]
    if beside > 1.1 * alone:
        wrong.append(f"a connection costs {beside} instructions beside {IDLE} idle ones, {alone} alone")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
