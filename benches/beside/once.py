"""What is measured once, or a few times, and not in rounds: memory, idling, history, counts, sizes.

Each function gives figures by name, as `report.py` expects them. Bytes and counts do not wander as
times do, so few repetitions are enough; where time is measured, it is beside the limit in turns.
"""

import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import time

from peers import BUILT, CHANNELS, CONNECTIONS, LOAD_CPU, ROOT, TIDINGS, Server, cargo, load
from workloads import QUICKLY

PAYLOAD = b"x" * 128


def memory(servers, others, say):
    """Bytes of the process for a connection that waits: the slope of RssAnon between 1,000 and 19,000
    connections, each after one message, and what a connect costs at the start and at the end."""
    cases = {
        "WebSocket": ("ws", ["limit", "Tidings json", *others, "fastwebsockets", "tokio-tungstenite", "ws", "nchan"]),
        "SSE": ("sse", ["limit", "Tidings", "axum-sse", "ws", "nchan"]),
        "long poll": ("longpoll", ["Tidings, polled", "nchan"]),
        "keep-alive": ("http", ["Tidings", "nchan", "axum-sse", "ws"]),
    }
    figures = {}
    for title, (transport, names) in cases.items():
        for name in names:
            if name not in servers:
                continue
            # The ratio of two connects is of times: so three of it, for those it is about.
            for _ in range(3 if name == "limit" or name.startswith("Tidings") and transport in ("ws", "sse") else 1):
                steps = f"1000,{CONNECTIONS - 1000},{CONNECTIONS}"
                with servers[name].start() as running:
                    try:
                        held = load(
                            running, ["hold", "--transport", transport, "--n", steps, "--messages", 1, "--settle", 0.3]
                        )
                    except (RuntimeError, subprocess.TimeoutExpired) as error:
                        say(f"{title} {name}: {error}")
                        break
                first, _, last = held["step"]
                one = figures.setdefault(title, {}).setdefault(name, {"bytes": [], "first": [], "last": []})
                one["bytes"].append(held["slope_anon_per_conn"])
                # Since the start, and by then the kernel may have freed what was there before: so the slope.
                slab = [step["slab_both_ends_per_conn"] * step["n"] for step in (first, last)]
                one["kernel"] = (slab[1] - slab[0]) / (last["n"] - first["n"])
                one["first"].append(first["cpu_us_per_connect"])
                one["last"].append(last["cpu_us_per_connect"])
            if name in figures.get(title, {}):
                say(f"{title} {name}: {statistics.median(figures[title][name]['bytes']):.0f} B")
    return figures


def idling(servers, say):
    """Processor time and wake-ups a second with 19,000 connections, over one whole period of
    heartbeats, beside a program that sends heartbeats and nothing else."""
    figures = {}
    for title, transport, period, names in (
        ("SSE", "sse", 15, ("Tidings", "limit, sse heartbeats")),
        ("WebSocket", "ws", 25, ("Tidings json", "limit, ws heartbeats")),
    ):
        for name in names:
            with servers[name].start() as running:
                arguments = ["hold", "--transport", transport, "--n", CONNECTIONS, "--settle", 1, "--hold-secs", period]
                held = load(running, arguments)
            one = {"ms": held["idle_cpu_ms_per_s"], "wakeups": held["idle_wakeups_per_s"]}
            figures.setdefault(title, {})[name] = one
            say(f"idle, {title}, {name}: {one['ms']:.1f} ms/s, {one['wakeups']:.0f} wake-ups/s")
    return figures


def history(say):
    """What a kept message weighs beyond its payload, and how fast 10,000 of them are replayed."""
    roomy = ["--history-messages", "1000000", "--history-bytes", "1GiB"]
    server = Server("Tidings", [TIDINGS, "--listen", "127.0.0.1:{port}", *roomy], CHANNELS)
    with server.start() as running:
        publish(running.port, ["kept"], 20_000, PAYLOAD)
        before = running.resident("RssAnon")
        publish(running.port, ["kept"], 200_000, PAYLOAD)
        kept = (running.resident("RssAnon") - before) / 200_000 - len(PAYLOAD)
    say(f"a kept message: {kept:.0f} B beyond its payload")

    figures = {"kept": kept, "replay": []}
    limit = Server("limit", [BUILT / "release/limit", "{port}"])
    body = b"y" * 1024
    request = "GET /channels/replay?transport=sse&after=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with server.start() as running, limit.start() as bare:
        publish(running.port, ["replay"], 10_000, body)
        size = size_of(running, request, body, 10_000)
        for _ in range(11):
            ours = read_all(running, request, size)
            theirs = read_all(bare, f"GET /bytes/{size} HTTP/1.1\r\n\r\n", size)
            figures["replay"].append({"bytes": size, "ours": ours, "limit": theirs})
    median = lambda key: statistics.median(one[key] for one in figures["replay"])
    say(
        f"replay: {median('bytes') / median('ours') / 1e6:,.0f} MB/s, of {median('bytes') / median('limit') / 1e6:,.0f}"
    )
    return figures


def publish(port, channels, count, body, burst=64):
    """So many messages over one connection, to the channels in turn; the next burst when all of the
    last are answered. The bytes of a burst and of its answers fit into the kernel's buffers."""
    posts = [
        f"POST /channels/{channel} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        for channel in channels
    ]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for first in range(0, count, burst):
            burst = min(burst, count - first)
            connection.sendall(b"".join(posts[nth % len(posts)] for nth in range(first, first + burst)))
            answers = b""
            while answers.count(b"HTTP/1.1 ") < burst or not answers.endswith((b"}", b"}\n")):
                got = connection.recv(1 << 20)
                if not got:
                    raise RuntimeError("the publisher was cut off")
                answers += got
            if answers.count(b"HTTP/1.1 200") != burst:
                raise RuntimeError(f"publishing: {answers[:100]}")


def size_of(running, request, mark, count):
    """Bytes of an answer until a mark was there so often, and all that came with it."""
    answer = b""
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        connection.sendall(request.encode())
        connection.settimeout(1)
        try:
            while got := connection.recv(1 << 20):
                answer += got
        except TimeoutError:
            pass
    if answer.count(mark) != count:
        raise RuntimeError(f"of {count} messages {answer.count(mark)} were replayed")
    return len(answer)


def read_all(running, request, size):
    """Seconds from the request to the last byte of its answer."""
    os.sched_setaffinity(0, {LOAD_CPU})
    buffer = bytearray(4 << 20)
    with socket.create_connection(("127.0.0.1", running.port)) as connection:
        began = time.perf_counter()
        connection.sendall(request.encode())
        while size > 0:
            got = connection.recv_into(buffer)
            if not got:
                raise RuntimeError("the answer ended early")
            size -= got
        took = time.perf_counter() - began
    os.sched_setaffinity(0, set(range(os.cpu_count())))
    return took


def quiet_channels(say):
    """100,000 channels with one subscriber each, 64 to a connection: bytes of one, and instructions of a
    publish beside those with ten channels (callgrind, if there is one)."""
    figures = {}
    server = Server("Tidings", [TIDINGS, "--listen", "127.0.0.1:{port}", "--channels-max", "200000"], CHANNELS)
    with server.start() as running:
        few = subscribe_to(running.port, 10_000)
        before = running.resident("RssAnon")
        more = subscribe_to(running.port, 100_000, 10_000)
        figures["bytes"] = (running.resident("RssAnon") - before) / 90_000
        say(f"a quiet channel: {figures['bytes']:.0f} B, a 64th of its connection among it")
        close(few + more)
    if shutil.which("valgrind"):
        for channels in (10, 100_000):
            counts = [instructions(channels, publishes) for publishes in (200, 1200)]
            figures[f"instructions, {channels}"] = (counts[1] - counts[0]) / 1000
            say(f"a publish with {channels:,} channels: {figures[f'instructions, {channels}']:,.0f} instructions")
    return figures


def subscribe_to(port, channels, already=0):
    """Event streams of 64 channels each; gives them when each has been answered."""
    connections = []
    for first in range(already, channels, 64):
        names = ",".join(f"quiet-{nth:06}" for nth in range(first, min(first + 64, channels)))
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(f"GET /channels/{names}?transport=sse HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        connections.append(connection)
        if len(connections) % 100 == 0:
            connections[-1].recv(1 << 16)
    for connection in connections:
        connection.settimeout(60)
        if not connection.recv(1 << 16):
            raise RuntimeError("a stream was refused")
        connection.settimeout(None)
    return connections


def close(connections):
    for connection in connections:
        connection.close()


def instructions(channels, publishes):
    """Of a whole run that publishes so often."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = BUILT / "callgrind.log"
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--log-file={log}", TIDINGS]
    command += ["--listen", f"127.0.0.1:{port}", "--channels-max", "200000", "--drain", "0s"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        connections = subscribe_to(port, channels)
        # One by one, so that each publish is a turn; to the same ten of the channels.
        publish(port, [f"quiet-{nth * channels // 10:06}" for nth in range(10)], publishes, PAYLOAD, burst=1)
        close(connections)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
    return int(re.search(r"Collected : (\d+)", log.read_text())[1])


def sends(servers, say):
    """Calls of the system for a delivery, by strace, and who may not trace says so."""
    if not shutil.which("strace"):
        say("strace is not here")
        return {}
    figures = {}
    for title, name, arguments in (
        ("one message at a time", "Tidings json", ["fanout", "--transport", "ws", "--n", 1000, "--messages", 60]),
        (
            "32 in flight",
            "Tidings json",
            ["pubrate", "--transport", "ws", "--channels", 1, "--subs", 500]
            + ["--publishers", 4, "--depth", 8, "--messages", 1600],
        ),
    ):
        with servers[name].start() as running:
            log = BUILT / "strace.log"
            tracer = subprocess.Popen(
                ["strace", "-f", "-c", "-o", str(log), "-p", str(running.pid)], stderr=subprocess.DEVNULL
            )
            time.sleep(0.5)
            report = load(running, [*arguments, "--warmup", 0, *QUICKLY])
            tracer.send_signal(signal.SIGINT)
            tracer.wait(10)
        calls = {
            line.split()[-1]: int(line.split()[3]) for line in log.read_text().splitlines() if re.match(r"\s+\d", line)
        }
        figures[title] = {
            "deliveries": report["deliveries"],
            "subscribers": report["subscribers"],
            "messages": report["messages"],
        }
        figures[title]["calls"] = {
            call: calls[call]
            for call in ("sendto", "write", "writev", "recvfrom", "read", "epoll_wait")
            if call in calls
        }
        say(f"{title}: {figures[title]['deliveries']:,} deliveries, calls {figures[title]['calls']}")
    return figures


def starting(servers, others, say):
    """Resident bytes of each program that has answered one connection, and the size of each binary."""
    figures = {}
    for name in ("limit", "Tidings", *others, "fastwebsockets", "tokio-tungstenite", "axum-sse", "ws", "nchan"):
        if name not in servers:
            continue
        with servers[name].start() as running:
            time.sleep(0.2)
            binary = os.readlink(f"/proc/{running.pid}/exe")
            figures[name] = {
                "resident": running.resident(),
                "own": running.resident("RssAnon"),
                "binary": os.path.getsize(binary),
            }
    say(
        f"Tidings at start: {figures['Tidings']['resident'] / 2**20:.2f} MiB resident;"
        f" {figures['Tidings']['binary']:,} B"
    )
    return figures


def engine(say):
    """The engine without the kernel, by cargo's own benches: lines of their tables."""
    figures = {}
    for bench in ("delivery", "million"):
        lines = cargo("bench", "--quiet", "--locked", "--bench", bench, target=ROOT / "target").splitlines()
        figures[bench] = [re.split(r"\s{2,}", line.strip()) for line in lines if re.search(r"\d\s*$", line)]
        say(f"{bench}: {len(figures[bench])} lines")
    return figures


def building(say):
    """Seconds of a first release build of the library without default features; crates fetched before."""
    cold = BUILT / "cold"
    shutil.rmtree(cold, ignore_errors=True)
    cargo("fetch", "--locked")
    began = time.monotonic()
    cargo("build", "--release", "--locked", "--lib", "--no-default-features", target=cold)
    took = time.monotonic() - began
    shutil.rmtree(cold, ignore_errors=True)
    say(f"a cold release build of the library: {took:.1f} s")
    return {"seconds": took, "jobs": int(os.environ.get("CARGO_BUILD_JOBS", os.cpu_count()))}
