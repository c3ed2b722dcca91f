#!/usr/bin/env python3
"""Tidings beside the limit and beside others: measures, prints a table, writes docs/performance.md and the figures in docs/scaling.md.

    benches/beside/run.py [--rounds N] [--quick] [--only WORD] [--peer 'NAME (HOW IT WAS BUILT)=COMMAND'] [--again]

    --rounds N    rounds of everything (9). In each the servers take turns, one after the other.
    --quick       one round of the rounds alone, and nothing is written
    --only WORD   workloads whose name begins so, and nothing is written; `--only list` names them
    --peer ...    a program from elsewhere, with {port} in its command; may be given again
    --again       measures nothing: writes the pages from what was measured last

It takes some 35 minutes, two processors, 20,000 descriptors, and a machine that does nothing else. Builds
everything under target/beside. Needs cargo; node, npm and apt for the peers, which are left out if those
are not there. Ends with 1 if something could not be measured.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import once
import report
from peers import BUILT, build, load
from workloads import WORKLOADS, figure, in_round, named

MEASURED = BUILT / "measured.json"


def main():
    options = argparse.ArgumentParser(usage=__doc__)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--only", default="")
    options.add_argument("--peer", action="append", default=[])
    options.add_argument("--again", action="store_true")
    options = options.parse_args()
    if options.again:
        return finish(json.loads(MEASURED.read_text()))
    if options.only == "list":
        print("\n".join([workload.name for workload in WORKLOADS] + list(parts({}, []))))
        return 0

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    peers = [peer.split("=", 1) for peer in options.peer]
    others = [name.partition(" (")[0] for name, _ in peers]
    servers, missing = build(peers)
    for sentence in missing:
        print(f"left out: {sentence}")
    measured = report.about(servers, missing, others)
    rounds = 1 if options.quick else options.rounds
    is_whole = not (options.quick or options.only)
    measured["workloads"] = {}

    def keep(rounds_done):
        """Whoever is stopped in the middle has what was measured."""
        measured["rounds"] = rounds_done
        measured["seconds"] = time.time() - measured["time"]
        if is_whole:
            MEASURED.write_text(json.dumps(measured))

    in_rounds(measured["workloads"], servers, others, rounds, options.only, keep)
    if not options.quick:
        for name, measure in parts(servers, others).items():
            if name.startswith(options.only):
                print(f"=== {name}", flush=True)
                try:
                    measured[name] = measure(say)
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    measured["failed"].append(f"{name}: {error}")
                    print(f"    FAILED: {error}", flush=True)
                keep(rounds)
    if is_whole:
        return finish(measured)
    report.print_rounds(measured)
    return 0


def finish(measured):
    report.print_rounds(measured)
    report.write_pages(measured)
    for sentence in measured["failed"]:
        print(f"FAILED {sentence}")
    return bool(measured["failed"])


def parts(servers, others):
    """What is not measured in rounds, by name."""
    return {
        "memory": lambda say: once.memory(servers, others, say),
        "idling": lambda say: once.idling(servers, say),
        "history": once.history,
        "quiet": once.quiet_channels,
        "sends": lambda say: once.sends(servers, say),
        "starting": lambda say: once.starting(servers, others, say),
        "engine": once.engine,
        "building": once.building,
    }


def in_rounds(measured, servers, others, rounds, only, keep):
    """Fills {workload: {server: [{round, figure, bytes}]}}, servers interleaved within each round."""
    for number in range(rounds):
        began = time.monotonic()
        for workload in WORKLOADS:
            names = [name for name in named(workload, others) if name in servers and in_round(name, number, others)]
            if not workload.name.startswith(only):
                continue
            # Whoever went first goes last in the next round.
            turn = number % len(names)
            line = []
            for name in names[turn:] + names[:turn]:
                found = measured.setdefault(workload.name, {}).setdefault(name, [])
                try:
                    with servers[name].start() as running:
                        figures = load(running, workload.arguments)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    line.append(f"{name} FAILED ({str(error)[:80]})")
                    continue
                value = figure(figures, workload.figure)
                found.append({"round": number, "figure": value, "bytes": figure(figures, "bytes_per_delivery")})
                line.append(f"{name} {value:.3g}")
            print(f"{number + 1}/{rounds} {workload.title}: {', '.join(line)}", flush=True)
        took = time.monotonic() - began
        print(f"=== round {number + 1} of {rounds}: {took:.0f} s", flush=True)
        keep(number + 1)


def say(sentence):
    print(f"    {sentence}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
