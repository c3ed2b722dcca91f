"""WebSocket clients that others wrote, each in conversation with the server.

    talk.py PROGRAM

PROGRAM is the tidings binary. Each client publishes and subscribes, text and binary, without a
subprotocol, with tidings.raw and by the commands of tidings.v1, and hears every byte as it was sent.
Each offers compression, and the server agrees: what is heard is the same, and what is sent is less.

Prints what happened, and exits with 1 if anything differs. NODE_PATH says where npm's packages are;
Python's must be importable.
"""

import base64
import json
import os
import queue
import re
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
PATIENCE = 30  # seconds; who says nothing for so long has hung

CLIENTS = {
    "websockets": [sys.executable, str(HERE / "clients.py"), "talk", "websockets"],
    "aiohttp": [sys.executable, str(HERE / "clients.py"), "talk", "aiohttp"],
    "ws": ["node", str(HERE / "clients.cjs"), "talk", "ws"],
    "undici": ["node", str(HERE / "clients.cjs"), "talk", "undici"],
}

# Each length of a frame's head, some more than one segment, and what a compressor meets: what it
# can make small and what it cannot.
TEXTS = ["", "hello", "Grüße, \U0001f600", "x" * 125, "x" * 126, "é" * 40_000, "line\nline\r\nline", '{"a":"\\u0000"}']
BINARIES = [b"", b"\x00", bytes(range(256)), os.urandom(100_000), b"\xff" * 70_000]


class Failure(Exception):
    pass


def main(program):
    with Server(program) as server:
        for name in CLIENTS:
            without_a_subprotocol(server, name)
            raw(server, name)
            extensions = commands(server, name)
            spared = compressed(server, name)
            print(f"{name:<12} all heard as sent; agreed: {extensions}; {spared}")


def without_a_subprotocol(server, name):
    channel = f"plain-{name}"
    with Talk(server, name, channel, "-") as talk:
        first = talk.json()
        expect(first["heartbeat"] == 25, f"{name}: the first frame {first}")
        for text in TEXTS:
            talk.send(text)
            expect(talk.json()["data"] == text, f"{name}: {text[:40]!r}")
        for payload in BINARIES:
            talk.send(payload)
            message = talk.json()
            expect(message["type"] == "application/octet-stream", f"{name}: {message}")
            expect(base64.b64decode(message["base64"]) == payload, f"{name}: {payload[:40]!r}")
    expect(talk.closed == "closed 1000", f"{name}: {talk.closed}")


def raw(server, name):
    with Talk(server, name, f"raw-{name}", "tidings.raw") as talk:
        for payload in [*TEXTS, *BINARIES]:
            talk.send(payload)
            expect(talk.next() == payload, f"{name}: {payload[:40]!r}")
    expect(talk.closed == "closed 1000", f"{name}: {talk.closed}")


def commands(server, name):
    channel = f"v1-{name}"
    with Talk(server, name, channel, "tidings.v1") as talk:
        cursor = talk.json()["cursor"]
        answer = talk.ask("subscribe other-%61 ref=1")
        expect(answer == {"subscribed": ["other-a", channel], "cursor": cursor, "ref": "1"}, f"{name}: {answer}")
        for nth, payload in enumerate([*TEXTS, *BINARIES]):
            line = f"publish other-a event=e%20e ref=p{nth}\n"
            talk.send(line + payload if isinstance(payload, str) else line.encode() + payload)
            # The answer and the message come in either order, and a message may be sent first.
            frames = [talk.json(), talk.json()]
            published = next(frame for frame in frames if "published" in frame)
            message = next(frame for frame in frames if "data" in frame or "base64" in frame)
            expect(published["ref"] == f"p{nth}" and published["published"]["id"] == message["id"], f"{frames}")
            heard = message.get("data", base64.b64decode(message.get("base64", "")))
            expect(heard == payload and message["event"] == "e e", f"{name}: {payload[:40]!r}")
        answer = talk.ask("unsubscribe other-a")
        expect(answer["subscribed"] == [channel] and "ref" not in answer, f"{name}: {answer}")
        answer = talk.ask("publish a/b ref=!\nx")
        expect((answer["error"]["code"], answer["ref"]) == ("bad_channel", "!"), f"{name}: {answer}")
        answer = talk.ask("hello")
        expect(answer["error"]["code"] == "bad_command", f"{name}: {answer}")
    expect(talk.closed == "closed 1000", f"{name}: {talk.closed}")
    return talk.extensions


def compressed(server, name):
    """A long message of little sense is short on the way back; noise comes as it is."""
    told = []
    with Talk(server, name, f"deflate-{name}", "tidings.raw") as talk:
        expect("permessage-deflate" in talk.extensions, f"{name}: agreed {talk.extensions}")
        for payload, is_less in [("x" * 200_000, True), (os.urandom(200_000), False)]:
            before = server.metrics()
            talk.send(payload)
            expect(talk.next() == payload, f"{name}: {payload[:40]!r}")
            after = server.metrics()
            there, back, times = (after[metric] - before[metric] for metric in METRICS)
            # The answer to a scrape is some KiB too.
            fits = back < 20_000 if is_less else back > 200_000
            expect(fits and times == 1, f"{name}: {there} bytes there, {back} back, compressed {times} times")
            # Not every client that inflates also deflates.
            told.append(f"{there} there, {back} back")
    return f"200000 bytes took {told[0]}, of noise {told[1]}, with a scrape"


METRICS = ["tidings_received_bytes_total", "tidings_sent_bytes_total", "tidings_messages_compressed_total"]


class Talk:
    """One client, connected until the end of the block."""

    def __init__(self, server, name, channel, protocol):
        url = f"{server.url}/channels/{channel}"
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([*CLIENTS[name], url, protocol], stdin=pipe, stdout=pipe, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.name, self.closed = name, None
        opened, chosen, self.extensions = self.line().split(" ", 2)
        expect(opened == "open" and chosen == protocol.replace("-", "None"), f"{name}: {opened} {chosen}")

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def line(self):
        try:
            return self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise Failure(f"{self.name} says nothing") from None

    def next(self):
        kind, _, payload = self.line().partition(" ")
        expect(kind in ("text", "binary"), f"{self.name}: {kind} {payload}")
        payload = bytes.fromhex(payload)
        return payload.decode() if kind == "text" else payload

    def json(self):
        text = self.next()
        expect(isinstance(text, str), f"{self.name}: a binary frame instead of JSON")
        return json.loads(text)

    def send(self, payload):
        kind, payload = ("text", payload.encode()) if isinstance(payload, str) else ("binary", payload)
        self.process.stdin.write(f"{kind} {payload.hex()}\n")
        self.process.stdin.flush()

    def ask(self, command):
        self.send(command)
        return self.json()

    def __enter__(self):
        return self

    def __exit__(self, failed, *_):
        if failed:
            self.process.kill()
        else:
            # The client closes, and the server answers.
            self.process.stdin.close()
            self.closed = self.line()
        self.process.wait(PATIENCE)


class Server:
    def __init__(self, program):
        options = ["--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen([program, *options], stderr=subprocess.PIPE, text=True)
        self.url = None
        while self.url is None:
            line = self.process.stderr.readline()
            expect(line, "the server has ended before it was listening")
            match = re.match(r"listening on (http://\S+)", line)
            self.url = match and match[1]

    def metrics(self):
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        return {name: int(value) for name, _, value in (line.partition(" ") for line in lines) if name in METRICS}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def expect(is_so, otherwise):
    if not is_so:
        raise Failure(otherwise)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    try:
        main(sys.argv[1])
    except Failure as failure:
        sys.exit(f"FAILED: {failure}")
