"""What was measured as a table for the terminal, and as the measured part of docs/performance.md.

Measures nothing. A ratio is of two figures of the same round; what is told is the median of the
rounds' ratios and, in parentheses, the least and the greatest.
"""

import os
import platform
import re
import statistics
import subprocess
import time
from pathlib import Path

from peers import ROOT
from workloads import WORKLOADS

PAGE = ROOT / "docs" / "performance.md"
SCALING = ROOT / "docs" / "scaling.md"
BEGIN = "<!-- From here to the end mark benches/beside/run.py writes; all else is written by hand. -->"
END = "<!-- End of what benches/beside/run.py writes. -->"
NOISE = 0.15

# Why Tidings is behind where it is, by the beginning of a workload's name. Told only if it is.
WHY = {
    "ws-": (
        "It looks up what each subscriber wants and how far each has come, where the bare program walks a list; json"
        " also writes more bytes."
    ),
    "sse-": (
        "Its events carry an id, which the bare program's do not, and its streams are chunked: more bytes a delivery."
    ),
    "burst-": "Messages are delivered once a turn, so what counts is how much of the burst a turn meets.",
    "channels": "Each publish is a turn's commit of its own channel, with five subscribers to share its cost.",
    "poll-": (
        "A poll is a whole request and its answer a whole response, with a head that names the cursor; it is parsed and"
        " checked each time."
    ),
    "echo-1048576": (
        "A message that spans reads is copied together before it is acted on, and is checked to be UTF-8; its echo is"
        " sent from where it was gathered. The bare program sends each part back as it comes."
    ),
    "echo-16384": (
        "A read ends in the middle of such a message, so most are gathered over two reads and copied once more; text is"
        " checked to be UTF-8."
    ),
    "echo-": "Each message is checked (mask, lengths, UTF-8) and counted, which the bare program does not.",
    "churn-": (
        "A connection is refused or let in by its head, origin, name and token, gets deadlines and is told of in the"
        " log at its end."
    ),
    "get-": "Each request is parsed whole and checked, and its answer has a date and the headers that browsers need.",
}


def about(servers, missing, others):
    """The machine, the day, and who is measured."""
    cpus = re.findall(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "time": time.time(),
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "ram": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text(),
        "busy": os.getloadavg()[1],
        "notes": {name: server.note for name, server in servers.items() if server.note},
        "commit": (
            subprocess.run(
                ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
            ).stdout.strip()
        ),
        "missing": missing,
        "others": others,
        "failed": [],
    }


def medians(runs):
    return statistics.median(run["figure"] for run in runs)


def ratios(runs, base):
    """By round, over the rounds that have both."""
    of = {run["round"]: run["figure"] for run in base}
    return [run["figure"] / of[run["round"]] for run in runs if of.get(run["round"])]


def shown(found):
    """A median and its spread."""
    if not found:
        return "–"
    if len(found) == 1:
        return f"{found[0]:.2f}"
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def said(name):
    """A server's name in a table."""
    return name.partition(",")[0]


def base_of(workload, by_server):
    """What a workload's figures are divided by: the limit, or the fastest of the others."""
    for name in by_server:
        if name.startswith("limit"):
            return name
    rest = [name for name in by_server if not name.startswith("Tidings") and by_server[name]]
    return min(rest, key=lambda name: medians(by_server[name]), default=None)


def print_rounds(measured):
    """The rounds, a line for each server of each workload."""
    print(f"\n{'':<28} {'':<20} {'us':>9}   ratio, least, greatest")
    for workload in WORKLOADS:
        by_server = measured["workloads"].get(workload.name, {})
        base = base_of(workload, by_server)
        for name, runs in by_server.items():
            if runs:
                against = shown(ratios(runs, by_server[base])) if base else ""
                print(f"{workload.title:<28} {name:<20} {medians(runs):>9.3f}   {against}")


def write_pages(measured):
    sections = [
        machine,
        in_short,
        fan_out,
        channels,
        polls,
        echoes,
        connects,
        gets,
        memory,
        sizes,
        single,
        engine,
        behind,
    ]
    write(PAGE, "\n\n".join(part for section in sections if (part := section(measured))))
    write(SCALING, million(measured))


def write(page, measured):
    """Puts what was measured between the marks of a page."""
    before, rest = page.read_text().split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n\n{measured}\n\n{END}{after}")
    print(f"wrote {page.relative_to(ROOT)}")


def machine(measured):
    at = time.gmtime(measured["time"])
    strays = []
    for by_server in measured["workloads"].values():
        runs = [run["figure"] for run in next((by_server[name] for name in by_server if name.startswith("limit")), [])]
        if len(runs) > 1:
            strays.append((max(runs) - min(runs)) / 2 / statistics.median(runs))
    noise = f"about {statistics.median(strays):.0%}" if strays else "unknown"
    rounds = measured["rounds"]
    lines = [
        "## The machine and the day",
        "",
        (
            f"{time.strftime('%d %B %Y, %H:%M UTC', at).lstrip('0')}, in {measured['seconds'] / 60:.0f} minutes; commit"
            f" `{measured['commit']}`. {measured['cpu']}, {measured['cores']}"
            f" {'virtual ' if measured['virtual'] else ''}cores, {measured['ram'] / 2**30:.0f} GiB; Linux"
            f" {measured['kernel']}. The load average was {measured['busy']:.1f} at the start. {rounds}"
            f" round{'s' * (rounds > 1)}; the peers that are not compared with closely are in every third. Noise, as"
            f" half the distance between the limit's fastest and slowest round: {noise} (median over the workloads)."
        ),
        "",
        *(f"- **{said(name)}**: {note}" for name, note in measured["notes"].items()),
        *(f"- left out: {sentence}" for sentence in measured["missing"]),
        *(f"- not measured: {sentence}" for sentence in measured["failed"]),
    ]
    return "\n".join(lines)


def in_short(measured):
    """The ranges of the medians, over the rows of the tables below."""
    lines = [
        "## In short",
        "",
        "Medians of the rows below, the least and the greatest: processor time as a multiple of the limit's.",
        "",
    ]
    lines += ["| | Tidings | the fastest other, row by row |", "| --- | --- | --- |"]
    for title, groups in (
        ("fan-out, WebSocket", ["fan-out-ws"]),
        ("fan-out, SSE", ["fan-out-sse"]),
        ("bursts", ["burst-ws", "burst-sse"]),
        ("long poll", ["poll"]),
        ("WebSocket echo", ["echo"]),
        ("connect and close", ["churn-ws", "churn-sse"]),
        ("plain requests", ["get"]),
    ):
        ours, others = [], []
        for workload in group(*groups):
            by_server = measured["workloads"].get(workload.name, {})
            base = base_of(workload, by_server)
            if not base or not by_server[base]:
                continue
            medians_of = {
                name: statistics.median(found)
                for name, runs in by_server.items()
                if name != base and (found := ratios(runs, by_server[base]))
            }
            ours += [ratio for name, ratio in medians_of.items() if name.startswith("Tidings")]
            rest = [ratio for name, ratio in medians_of.items() if not name.startswith("Tidings")]
            others += [min(rest)] if rest else []
        lines.append(f"| {title} | {span(ours)} | {span(others)} |")
    return "\n".join(lines)


def span(found):
    return f"{min(found):.2f} to {max(found):.2f}" if found else "–"


def table(measured, workloads, first="", keep=lambda name: True):
    """A row for each workload: the limit's microseconds, then everybody's ratio to it."""
    found = [(workload, measured["workloads"].get(workload.name, {})) for workload in workloads]
    names = []
    for workload, by_server in found:
        names += [
            name
            for name in order(measured, by_server)
            if name not in names and not name.startswith("limit") and keep(name)
        ]
    lines = [
        f"| {first} | limit, µs | {' | '.join(said(name) for name in names)} |",
        f"| --- | ---: |{' --- |' * len(names)}",
    ]
    for workload, by_server in found:
        base = base_of(workload, by_server)
        if not base or not by_server[base]:
            continue
        cells = [shown(ratios(by_server.get(name, []), by_server[base])) for name in names]
        lines.append(f"| {workload.label} | {medians(by_server[base]):.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def order(measured, names):
    """Tidings first, then those from elsewhere, then the rest as they are."""
    rank = lambda name: (
        0 if name.startswith("limit") else 1 if name.startswith("Tidings") else 2 if name in measured["others"] else 3
    )
    tidings = ["Tidings", "Tidings raw", "Tidings json"]
    return sorted(names, key=lambda name: (rank(name), tidings.index(name) if name in tidings else 0))


def group(*names):
    return [workload for workload in WORKLOADS if workload.group in names]


def bytes_of(measured, workload):
    """Who sends how many bytes a delivery."""
    by_server = measured["workloads"].get(workload, {})
    sizes = {
        name: statistics.median(run["bytes"] for run in runs)
        for name, runs in by_server.items()
        if runs and runs[0]["bytes"]
    }
    return ", ".join(
        f"{said(name)} {size:.0f}" for name, size in ((name, sizes[name]) for name in order(measured, sizes))
    )


def fan_out(measured):
    lines = [
        "## Fan-out",
        "",
        (
            "Processor time of a delivery of 128 bytes to each subscriber of one channel, the next message when all"
            " have the last."
        ),
    ]
    for kind, title in (("ws", "WebSocket"), ("sse", "SSE")):
        growth = []
        of = lambda count: measured["workloads"].get(f"{kind}-{count}", {})
        for name in order(measured, of(1000)):
            if of(1000).get(name) and of(19000).get(name) and (name == "limit" or name.startswith("Tidings")):
                growth.append(f"{said(name)} {medians(of(19000)[name]) / medians(of(1000)[name]):.2f}")
        lines += ["", table(measured, group(f"fan-out-{kind}"), title), ""]
        sizes_of = bytes_of(measured, f"{kind}-1000")
        said_of = [f"Bytes of a delivery: {sizes_of}."] if sizes_of else []
        said_of += [f"A delivery at 19,000 as a multiple of one at 1,000: {', '.join(growth)}."] if growth else []
        lines += [" ".join(said_of)]
    lines += [
        "",
        (
            "Bursts: 500 subscribers of one channel, four publishers with eight posts in flight each, all of the same"
            " channel. The limit sends each message by itself; who answers a burst once for each subscriber can do"
            " better than it."
        ),
        "",
    ]
    lines += [table(measured, group("burst-ws"), ""), "", table(measured, group("burst-sse"), "")]
    return "\n".join(lines)


def channels(measured):
    by_server = measured["workloads"].get("channels", {})
    base = base_of(None, by_server)
    if not base:
        return ""
    lines = [
        "## Many channels",
        "",
        (
            "1,000 channels with five WebSockets each, four publishers with eight posts in flight each, round robin:"
            " processor time of a delivery, the publish among it. The bare program has no channels; the ratio is to"
            f" the fastest of the others, {said(base)} ({medians(by_server[base]):.2f} µs)."
        ),
        "",
        "| | µs | ratio |",
        "| --- | ---: | --- |",
    ]
    for name in order(measured, by_server):
        if by_server[name]:
            lines.append(
                f"| {said(name)} | {medians(by_server[name]):.2f} | {shown(ratios(by_server[name], by_server[base]))} |"
            )
    return "\n".join(lines)


def polls(measured):
    text = "Processor time of a delivery to a held poll, the next poll among it."
    if sizes_of := bytes_of(measured, "poll-1000"):
        text += f" Bytes of a delivery: {sizes_of}."
    return f"## Long poll\n\n{text}\n\n{table(measured, group('poll'))}"


def echoes(measured):
    text = (
        "`examples/echo.rs` and others' echo servers: text, 16 connections with up to eight messages in flight on each,"
        " one at 1 MiB (the last line: 64 connections, one in flight). Processor time of an echo. The bare program"
        " unmasks in place and sends once a read; it does not check UTF-8."
    )
    return f"## WebSocket echo\n\n{text}\n\n{table(measured, group('echo'), 'bytes')}"


def connects(measured):
    lines = [
        "## Connecting",
        "",
        "Processor time to accept a connection, answer its handshake, and let it go, 64 at a time.",
        "",
    ]
    lines += [table(measured, group("churn-ws")), "", table(measured, group("churn-sse"))]
    costs = []
    for title in ("WebSocket", "SSE"):
        for name, held in measured.get("memory", {}).get(title, {}).items():
            if name == "limit" or name.startswith("Tidings"):
                found = [last / first for first, last in zip(held["first"], held["last"])]
                costs.append(
                    f"{title}, {said(name)}: {statistics.median(held['first']):.0f} µs and"
                    f" {statistics.median(held['last']):.0f} µs, {shown(found)}"
                )
    if costs:
        lines += [
            "",
            "To connect and stay: the first 1,000, the last 1,000 of 19,000, and the ratio of the two. "
            + "; ".join(costs)
            + ".",
        ]
    return "\n".join(lines)


def gets(measured):
    text = (
        "Processor time of `GET /healthz` (the others: the smallest answer they have) over 64 keep-alive connections."
    )
    return f"## Plain requests\n\n{text}\n\n{table(measured, group('get'))}"


def memory(measured):
    found = measured.get("memory")
    if not found:
        return ""
    names = []
    for by_server in found.values():
        names += [name for name in by_server if name not in names and not name.startswith("limit")]
    titles = {}
    for name in order(measured, names):
        titles.setdefault("Tidings" if name.startswith("Tidings") else name, []).append(name)
    lines = [
        "## Memory of a connection",
        "",
        (
            "Bytes of the process for a connection that waits: the slope of anonymous memory between 1,000 and 19,000"
            " connections, each after one message of 128 bytes (keep-alive: after one answer). What the kernel keeps"
            " for its socket is not among it."
        ),
        "",
        f"| connection | {' | '.join(titles)} |",
        f"| --- |{' ---: |' * len(titles)}",
    ]
    for title, by_server in found.items():
        cells = []
        for aliases in titles.values():
            held = next((by_server[name] for name in aliases if name in by_server), None)
            cells.append(f"{statistics.median(held['bytes']):,.0f}" if held else "–")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    kernel = [
        held["kernel"] for by_server in found.values() for name, held in by_server.items() if name.startswith("Tidings")
    ]
    if kernel:
        lines += [
            "",
            (
                f"The kernel's slab grows by {statistics.median(kernel):,.0f} bytes for the two sockets of one"
                " connection, the client's and the server's."
            ),
        ]
    return "\n".join(lines)


def sizes(measured):
    found = measured.get("starting")
    if not found:
        return ""
    lines = [
        "## The program at rest",
        "",
        (
            "Once started, after one connection that said nothing. For scripts and modules the binary is that of their"
            " host."
        ),
        "",
    ]
    lines += ["| | resident | of that its own | binary |", "| --- | ---: | ---: | ---: |"]
    for name, of in found.items():
        lines.append(
            f"| {said(name)} | {of['resident'] / 2**20:.1f} MiB | {of['own'] / 2**20:.2f} MiB | {of['binary']:,} B |"
        )
    if "building" in measured:
        built = measured["building"]
        lines += [
            "",
            (
                f"A first release build of the library without default features: {built['seconds']:.0f} s,"
                f" {built['jobs']} jobs, crates fetched before."
            ),
        ]
    idle = measured.get("idling", {})
    rows = [(f"{title}, {said(name)}", of) for title, by_server in idle.items() for name, of in by_server.items()]
    if rows:
        lines += [
            "",
            (
                "With 19,000 connections and nothing to say, over one period of heartbeats (SSE 15 s, WebSocket 25 s),"
                " beside a program that sends the same heartbeats in steps of 250 ms and nothing else:"
            ),
            "",
        ]
        lines += ["| | processor time | wake-ups |", "| --- | ---: | ---: |"]
        lines += [f"| {name} | {of['ms']:.1f} ms/s | {of['wakeups']:.0f} /s |" for name, of in rows]
    return "\n".join(lines)


def single(measured):
    lines = []
    if "history" in measured:
        kept, replay = measured["history"]["kept"], measured["history"]["replay"]
        speed = lambda key: statistics.median(one["bytes"] / one[key] for one in replay) / 1e6
        lines += [
            f"- **A kept message** weighs {kept:.0f} bytes beyond its payload (200,000 messages of 128 bytes, slope of"
            " anonymous memory)."
        ]
        lines += [
            f"- **Replay**: 10,000 messages of 1 KiB to one client, {replay[0]['bytes'] / 1e6:.1f} MB of SSE, at"
            f" {speed('ours'):,.0f} MB/s (median of {len(replay)}). The same bytes from a program that only sends:"
            f" {speed('limit'):,.0f} MB/s to the same reader; ratio of the times"
            f" {shown([one['ours'] / one['limit'] for one in replay])}."
        ]
    if "quiet" in measured:
        quiet = measured["quiet"]
        text = (
            f"- **A quiet channel** with one subscriber weighs {quiet['bytes']:.0f} bytes: 100,000 of them over 1,563"
            " event streams of 64 channels each, the 64th part of a connection among it."
        )
        if "instructions, 10" in quiet:
            few, many = quiet["instructions, 10"], quiet["instructions, 100000"]
            text += (
                f" A publish takes {few:,.0f} instructions with ten channels and {many:,.0f} with 100,000:"
                f" {many / few:.2f} times as many."
            )
        lines += [text]
    for title, found in measured.get("sends", {}).items():
        calls = found["calls"]
        sent = sum(calls.get(call, 0) for call in ("sendto", "write", "writev"))
        lines += [
            f"- **Sends, {title}** (`strace -c`): {sent:,} for {found['deliveries']:,.0f} deliveries,"
            f" {found['subscribers']:,.0f} handshakes and {found['messages']:,.0f} answers to publishers:"
            f" {(sent - found['subscribers']) / found['deliveries']:.2f} a delivery; {calls.get('epoll_wait', 0):,}"
            " calls of `epoll_wait`."
        ]
    return "## Single figures\n\n" + "\n".join(lines) if lines else ""


def engine(measured):
    found = measured.get("engine")
    if not found:
        return ""
    lines = [
        "## The engine without the kernel",
        "",
        (
            "`cargo bench --bench delivery`: the whole event loop over a system that takes every byte and throws it"
            " away, 128 bytes a message."
        ),
        "",
    ]
    lines += ["| form | load | subscribers | ns a delivery | sends a delivery |", "| --- | --- | ---: | ---: | ---: |"]
    lines += [
        f"| {form} | {load} | {int(count):,} | {ns} | {sends} |"
        for form, load, count, ns, sends, _ in (line for line in found["delivery"] if len(line) == 6)
    ]
    lines += [
        "",
        (
            "`cargo bench --bench million`: a third each of WebSockets, event streams and held polls, over 1,000"
            " channels, in one process."
        ),
        "",
    ]
    lines += [
        (
            "| subscribers | resident bytes of each | ns to open | ns a delivery | ns of a request beside them | ns of"
            " an empty turn beside them | ns of a heartbeat |"
        ),
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [f"| {int(line[0]):,} | {' | '.join(line[1:7])} |" for line in found["million"] if len(line) >= 7]
    return "\n".join(lines)


def million(measured):
    """What a million subscribers take, by the slopes."""
    at = time.strftime("%d %B %Y", time.gmtime(measured["time"])).lstrip("0")
    lines = [
        f"By the slopes that were measured on {at} ([performance.md](performance.md) has them, and the machine):",
        "",
    ]
    lines += ["| of a million | WebSocket | SSE |", "| --- | ---: | ---: |"]
    own, kernel, comes, once_each, beats = [], [], [], [], []
    for title, name, kind in (("WebSocket", "Tidings json", "ws"), ("SSE", "Tidings", "sse")):
        held = measured.get("memory", {}).get(title, {}).get(name)
        own.append(f"{statistics.median(held['bytes']):.0f} MB" if held else "–")
        # Both ends of each connection were on this machine.
        kernel.append(f"{held['kernel'] / 2 / 1000:.1f} GB" if held else "–")
        comes.append(f"{statistics.median(held['last']):.0f} s" if held else "–")
        runs = measured["workloads"].get(f"{kind}-19000", {}).get(name)
        once_each.append(f"{medians(runs):.1f} s" if runs else "–")
        idle = measured.get("idling", {}).get(title, {}).get(name)
        beats.append(f"{idle['ms'] / 19_000 * 1e6 / 10:.0f} %" if idle else "–")
    lines += [
        f"| {' | '.join(row)} |"
        for row in (
            ("memory of the process", *own),
            ("memory of the kernel, sockets without data", *kernel),
            ("everybody connects, processor time", *comes),
            ("one message to everybody, processor time", *once_each),
            ("heartbeats and pings, of the one processor", *beats),
        )
    ]
    return "\n".join(lines)


def behind(measured):
    """Where Tidings takes longer than the limit, or than the fastest of the others, by more than noise."""
    rows = []
    for workload in WORKLOADS:
        by_server = measured["workloads"].get(workload.name, {})
        ours = [name for name in by_server if name.startswith("Tidings") and by_server[name]]
        rest = [name for name in by_server if not name.startswith(("Tidings", "limit")) and by_server[name]]
        base = base_of(workload, by_server)
        for name in ours:
            if not base or not by_server[base]:
                continue
            to_limit = statistics.median(ratios(by_server[name], by_server[base]) or [0])
            best = min(rest, key=lambda other: medians(by_server[other]), default=None)
            to_best = statistics.median(ratios(by_server[name], by_server[best]) or [0]) if best else 0
            if to_best > 1 + NOISE or to_limit > 1 + NOISE:
                beside = f"{to_best:.2f} {said(best)}" if best else "–"
                bare = f"{to_limit:.2f}" if base.startswith("limit") else "–"
                reason = next(why for begin, why in WHY.items() if workload.name.startswith(begin))
                rows.append((workload.title, said(name), bare, beside, reason))
    lines = ["## What is behind, and why", ""]
    if not rows:
        return "\n".join([*lines, "Nothing is behind the limit, or the fastest of the others, by more than 15 %."])
    lines += ["Everything that takes 15 % longer than the limit, or than the fastest of the others.", ""]
    lines += ["| | | to the limit | to the fastest other |", "| --- | --- | ---: | --- |"]
    lines += [f"| {title} | {name} | {bare} | {beside} |" for title, name, bare, beside, _ in rows]
    reasons = dict.fromkeys(reason for *_, reason in rows)
    lines += [""]
    for reason in reasons:
        titles = dict.fromkeys(title for title, _, _, _, why in rows if why == reason)
        lines.append(f"- {'; '.join(titles)}: {reason[0].lower()}{reason[1:]}")
    return "\n".join(lines)
