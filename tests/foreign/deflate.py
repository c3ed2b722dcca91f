"""Our DEFLATE against zlib's, both ways, over WebSockets that are written out here.

    deflate.py PROGRAM

PROGRAM is the tidings binary. Each message is sent compressed by zlib, in every way that it has: levels,
strategies, windows, memory, flushes in the middle, a last block, fragments. The server inflates it,
publishes it, and sends it back, compressed by itself: zlib, held to the window that was agreed, must
make the same message of it.

Prints what happened, and exits with 1 if anything differs. Needs nothing but Python.
"""

import base64
import itertools
import os
import random
import socket
import struct
import sys
import zlib

from talk import Failure, Server, expect

PATIENCE = 30  # seconds
TAIL = b"\x00\x00\xff\xff"
# The server compresses from here on.
BYTES_MIN = 512

STRATEGIES = [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED]
FLUSHES = [zlib.Z_NO_FLUSH, zlib.Z_PARTIAL_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_BLOCK]
WINDOWS = range(9, 16)


def main(program):
    seeded = random.Random(7692)
    sent = compressed = 0
    with Server(program) as server:
        for bits in [None, *WINDOWS]:
            channel = Channel(server, f"deflate-{bits}", bits)
            for message in messages(seeded):
                payload, how = deflated(seeded, message)
                channel.send(payload, seeded.choice([1, 1, 2, 3]))
                was_compressed, heard = channel.receive()
                expect(heard == message, f"{len(message)} bytes in a window of {bits}, {how}: heard {heard[:40]!r}")
                sent += 1
                compressed += was_compressed
            channel.socket.close()
        channel = Channel(server, "deflate-all", None)
        for message, ways in itertools.product([text(3000), noise(3000)], every_way()):
            channel.send(deflate(message, *ways), 1)
            _, heard = channel.receive()
            expect(heard == message, f"{len(message)} bytes, {ways}: heard {heard[:40]!r}")
            sent += 1
    print(f"zlib         {sent} messages by zlib heard as sent, {compressed} of them compressed by the server")


# Messages.


def messages(seeded):
    """What a compressor may meet: of each length that matters, and up to the largest."""
    lengths = [0, 1, 2, 511, 512, 513, 1024, 4096, 4097, 32_767, 32_768, 32_769, 65_535, 65_536, 262_144]
    for length in lengths + [seeded.randrange(100_000) for _ in range(10)]:
        yield text(length)
        yield bytes(length)
    for length in [1, 600, 70_000]:
        yield noise(length)
        # What is far back is worth referring to, if the window reaches there.
        yield noise(length) * 3
    for distance in [511, 512, 513, 8191, 8193, 32_767, 32_769]:
        yield noise(200) + bytes(distance - 200) + noise(200)


def text(length):
    return b"".join(b'{"id":"1766-%d","data":"tick, tock"}' % n for n in range(length // 20 + 1))[:length]


def noise(length):
    return random.Random(length).randbytes(length)


# The client's side of RFC 7692.


def deflated(seeded, message):
    """The message compressed in one way of many, and which."""
    way = [seeded.randrange(10), seeded.choice(STRATEGIES), seeded.choice(WINDOWS), seeded.randint(1, 9)]
    way += [seeded.choice(FLUSHES), seeded.random() < 0.2]
    return deflate(message, *way), way


def every_way():
    """Each level with each strategy; each flush with and without a last block; each window."""
    for level, strategy in itertools.product(range(10), STRATEGIES):
        yield level, strategy, 15, 8, zlib.Z_NO_FLUSH, False
    for flush, ends in itertools.product(FLUSHES, [False, True]):
        yield 6, zlib.Z_DEFAULT_STRATEGY, 15, 8, flush, ends
    for bits, memory in itertools.product(WINDOWS, range(1, 10)):
        yield 9, zlib.Z_DEFAULT_STRATEGY, bits, memory, zlib.Z_NO_FLUSH, False


def deflate(message, level, strategy, bits, memory, flush, ends):
    """Three parts with a flush behind each of the first two; `ends`: the last block has BFINAL."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits, memory, strategy)
    third = len(message) // 3
    out = b""
    for part in [message[:third], message[third : 2 * third]]:
        out += compressor.compress(part)
        # Some zlib writes nothing at a second flush in a row, and calls that an error.
        if flush != zlib.Z_NO_FLUSH and part:
            out += compressor.flush(flush)
    out += compressor.compress(message[2 * third :])
    if ends:
        # RFC 7692 7.2.3.4: behind the last block stands an empty one.
        return out + compressor.flush(zlib.Z_FINISH) + b"\x00"
    out += compressor.flush(zlib.Z_SYNC_FLUSH)
    return out.removesuffix(TAIL)


class Channel:
    """A connection that reads the channel it publishes to."""

    def __init__(self, server, name, bits):
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), PATIENCE)
        self.socket.settimeout(PATIENCE)
        self.reader = self.socket.makefile("rb")
        self.bits = bits or 15
        offer = "permessage-deflate" + (f"; server_max_window_bits={bits}" if bits else "")
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET /channels/{name} HTTP/1.1",
            f"Host: {host}:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Protocol: tidings.raw",
            f"Sec-WebSocket-Extensions: {offer}",
        ]
        self.socket.sendall("\r\n".join([*lines, "\r\n"]).encode())
        head = []
        while (line := self.reader.readline().decode().strip()) != "":
            head.append(line)
        agreed = next((line for line in head if line.startswith("Sec-WebSocket-Extensions: ")), "")
        expect("permessage-deflate" in agreed, f"{offer} was answered {head}")
        expect((f"server_max_window_bits={bits}" in agreed) == (bits is not None), f"{offer}: {agreed}")

    def send(self, payload, fragments):
        """As one compressed binary message."""
        size = max(1, -(-len(payload) // fragments))
        parts = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
        for nth, part in enumerate(parts):
            first = (0x42 if nth == 0 else 0) | (0x80 if nth == len(parts) - 1 else 0)
            if len(part) < 126:
                head = struct.pack("!BB", first, 0x80 | len(part))
            elif len(part) < 65_536:
                head = struct.pack("!BBH", first, 0x80 | 126, len(part))
            else:
                head = struct.pack("!BBQ", first, 0x80 | 127, len(part))
            # A mask of zeros is a mask.
            self.socket.sendall(head + bytes(4) + part)

    def receive(self):
        """The next message, and whether it was compressed."""
        first, length = self.reader.read(2)
        if length == 126:
            (length,) = struct.unpack("!H", self.reader.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.reader.read(8))
        payload = self.reader.read(length)
        expect(first in (0x82, 0xC2), f"a frame that begins with {first:#04x}: {payload[:125]!r}")
        if first == 0x82:
            return False, payload
        inflater = zlib.decompressobj(-self.bits)
        message = inflater.decompress(payload + TAIL)
        expect(not inflater.eof and not inflater.unconsumed_tail, "a message without a last block")
        expect(len(message) >= BYTES_MIN and length < len(message), f"{len(message)} bytes became {length}")
        return True, message


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (Failure, zlib.error) as failure:
        sys.exit(f"FAILED: {failure}")
