"""What the load generator does to each server, as a table.

A workload is a row: who is measured, with which arguments, and which of the generator's figures
counts. Knows no program and prints nothing.
"""

from dataclasses import dataclass, field

WEBSOCKET = ["Tidings raw", "Tidings json", "OTHERS", "fastwebsockets", "tokio-tungstenite", "ws", "nchan"]
EVENTS = ["Tidings", "axum-sse", "ws", "nchan"]
ECHO = ["Tidings, echo", "OTHERS", "fastwebsockets", "tokio-tungstenite", "ws"]
# These are measured in each round, the others in every third: they are slow, and it is not about them.
EACH_ROUND = ("limit", "Tidings", "OTHERS")


@dataclass
class Workload:
    name: str
    title: str
    servers: list
    arguments: list
    figure: str
    group: str
    label: str
    notes: dict = field(default_factory=dict)


def fan_out():
    for transport, said, servers in (("ws", "WebSocket", WEBSOCKET), ("sse", "SSE", EVENTS)):
        for subscribers, messages in ((1_000, 60), (10_000, 16), (19_000, 10)):
            yield Workload(
                f"{transport}-{subscribers}",
                f"fan-out, {said}, {subscribers:,}",
                ["limit", *servers],
                [
                    "fanout",
                    "--transport",
                    transport,
                    "--n",
                    subscribers,
                    "--messages",
                    messages,
                    "--size",
                    128,
                    *QUICKLY,
                ],
                "cpu_us_per_delivery",
                f"fan-out-{transport}",
                f"{subscribers:,} subscribers",
            )
    for transport, said, servers in (("ws", "WebSocket", WEBSOCKET), ("sse", "SSE", EVENTS)):
        yield Workload(
            f"burst-{transport}",
            f"burst, {said}",
            ["limit", *servers],
            ["pubrate", "--transport", transport, "--channels", 1, "--subs", 500, "--publishers", 4, "--depth", 8]
            + ["--messages", 1200, "--size", 128, "--timeout", 120, *QUICKLY],
            "cpu_us_per_delivery",
            f"burst-{transport}",
            f"{said}",
        )
    yield Workload(
        "channels",
        "1,000 channels of 5",
        WEBSOCKET,
        ["pubrate", "--transport", "ws", "--channels", 1000, "--subs", 5, "--publishers", 4, "--depth", 8]
        + ["--messages", 10_000, "--size", 128, *QUICKLY],
        "cpu_us_per_delivery",
        "channels",
        "1,000 channels of 5",
    )


def polls():
    for subscribers, messages in ((1_000, 20), (18_000, 4)):
        yield Workload(
            f"poll-{subscribers}",
            f"long poll, {subscribers:,}",
            ["limit, polled", "Tidings, polled", "nchan"],
            ["longpoll", "--n", subscribers, "--messages", messages, "--size", 128, *QUICKLY],
            "cpu_us_per_delivery",
            "poll",
            f"{subscribers:,} pollers",
        )


def echoes():
    for size, said, connections, depth, seconds in (
        (16, "16 B", 16, 8, 0.4),
        (128, "128 B", 16, 8, 0.4),
        (1024, "1 KiB", 16, 8, 0.4),
        (16_384, "16 KiB", 16, 8, 0.5),
        (1_048_576, "1 MiB", 16, 8, 0.8),
        (128, "128 B, one in flight", 64, 1, 0.4),
    ):
        yield Workload(
            f"echo-{size}" if depth > 1 else "echo-one",
            f"echo, {said}",
            ["limit", *ECHO],
            ["echo", "--c", connections, "--depth", depth, "--sizes", size, "--secs", seconds, "--warmup-secs", 0.15]
            + ["--echo-path", "/echo"],
            "cpu_us_per_echo",
            "echo",
            said,
        )


def connections():
    for transport, said, servers in (("ws", "WebSocket", WEBSOCKET[1:]), ("sse", "SSE", EVENTS)):
        yield Workload(
            f"churn-{transport}",
            f"connect and close, {said}",
            ["limit", *servers],
            ["churn", "--transport", transport, "--secs", 0.6],
            "cpu_us_per_connect",
            f"churn-{transport}",
            f"{said}",
        )
    for depth, said in ((1, "one in flight"), (16, "sixteen in flight")):
        yield Workload(
            f"get-{depth}",
            f"GET, {said}",
            ["limit", "Tidings", "OTHERS", "nchan", "axum-sse", "ws"],
            ["reqs", "--depth", depth, "--secs", 0.5],
            "cpu_us_per_request",
            "get",
            said,
        )


# Short waits before, between and after the phases.
QUICKLY = ["--settle", 0.15, "--drain", 0.1]

WORKLOADS = [*fan_out(), *polls(), *echoes(), *connections()]


def named(workload, others):
    """The servers of a workload, with the names of those from elsewhere in their place."""
    return [name for server in workload.servers for name in (others if server == "OTHERS" else [server])]


def in_round(server, number, others):
    """Whether a server is measured in this round."""
    return server.startswith(EACH_ROUND) or server in others or number % 3 == 0


def figure(report, name):
    """A figure of the generator's report, wherever it stands in it."""
    if isinstance(report, dict):
        if name in report:
            return report[name]
        report = report.values()
    elif not isinstance(report, list):
        return None
    return next((found for part in report if (found := figure(part, name)) is not None), None)
