"""Clients that others wrote, killed and resumed with each other's cursors.

    resume.py PROGRAM

PROGRAM is the tidings binary. A stream that changes all the time is piped into it; eight clients
over three transports read it. In each round every client resumes with the cursor at which another
was killed in the round before, until each has resumed from each. The tee of the pipe is the truth:
whatever a client was handed must be a piece of it, from its cursor on, whole and in order.

Prints what happened, and exits with 1 on any loss, repeat or reorder. NODE_PATH says where npm's
packages are; Python's must be importable.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
PATIENCE = 30  # seconds; who says nothing for so long has hung

# Two lines that differ each time: what the system does, each second, and how it stands, often.
# Each line is one write below PIPE_BUF, so the two writers cannot mix.
STREAM = """
vmstat -n 1 &
while sleep 0.01; do
    read -r load < /proc/loadavg
    read -r cpu < /proc/stat
    echo "$EPOCHREALTIME $load $cpu"
done
"""

# Each reads URL and is killed by its process.
CLIENTS = {
    "websockets": lambda url: [sys.executable, str(HERE / "clients.py"), "read", "websockets", url],
    "aiohttp": lambda url: [sys.executable, str(HERE / "clients.py"), "read", "aiohttp", url],
    "ws": lambda url: ["node", str(HERE / "clients.cjs"), "read", "ws", url],
    "undici": lambda url: ["node", str(HERE / "clients.cjs"), "read", "undici", url],
    "httpx-sse": lambda url: [sys.executable, str(HERE / "clients.py"), "read", "httpx-sse", url],
    "eventsource": lambda url: ["node", str(HERE / "clients.cjs"), "read", "eventsource", url],
    "curl -N": lambda url: ["curl", "-sSN", "-H", "Accept: text/event-stream", url],
    "curl poll": lambda url: ["bash", str(HERE / "poll.sh"), url],
}


class Failure(Exception):
    pass


def main(program):
    random.seed(1)
    with Server(program) as server:
        one_publish_many_arrivals(server)
        sessions = resume_each_from_each(server)
        server.end_stream()
        truth = server.truth()
        sessions += catch_up(server, sessions, truth)
        judge(sessions, truth)


def one_publish_many_arrivals(server):
    """All clients on one channel; one message; all hear it under the id the publisher was told."""
    sessions = [Session(server, name, "news", "now") for name in CLIENTS]
    for session in sessions:
        session.until_open()
    # A long poll is there when the server holds it.
    until("all are attached", lambda: server.subscribers("news") == len(sessions))
    answer = json.loads(server.curl("-d", "one for all", f"{server.url}/channels/news"))
    for session in sessions:
        session.until_messages(1)
        session.kill()
        expect(session.messages == [(answer["id"], "one for all")], f"{session}: {session.messages}")
    expect(answer["subscribers"] == len(sessions), f"{answer}")
    print(f"one publish, id {answer['id']}: {len(sessions)} arrivals with this id ({', '.join(CLIENTS)})")


def resume_each_from_each(server):
    names = list(CLIENTS)
    sessions = []
    cursors = dict.fromkeys(names, "earliest")
    for distance in range(len(names)):
        started = []
        for nth, name in enumerate(names):
            other = names[(nth + distance) % len(names)]
            started.append(Session(server, name, "stream", cursors[other], other if sessions else None))
        for session in started:
            session.until_messages(random.randint(10, 60))
            session.kill()
            print(session.story())
            cursors[session.name] = session.cursor()
        sessions += started
    return sessions


def catch_up(server, sessions, truth):
    """The stream has ended: each client reads what is left, to the last message."""
    last = {session.name: session for session in sessions}
    finals = []
    for name, session in last.items():
        final = Session(server, name, "stream", session.cursor(), name)
        final.until("the end of the stream", lambda final=final: final.cursor() == truth[-1][0])
        final.kill()
        print(final.story())
        finals.append(final)
    return finals


def judge(sessions, truth):
    places = {id: place for place, (id, _) in enumerate(truth)}
    pairs = set()
    for session in sessions:
        begin = 0 if session.after == "earliest" else places[session.after] + 1
        right = truth[begin : begin + len(session.messages)]
        for got, wanted in zip(session.messages, right):
            expect(got == wanted, f"{session}: got {got}, wanted {wanted}")
        expect(len(right) == len(session.messages), f"{session}: more messages than were published")
        if session.resumes:
            pairs.add((session.resumes, session.name))
    expect(len(pairs) == len(CLIENTS) ** 2, f"only {len(pairs)} pairs of clients resumed from each other")
    read = sum(len(session.messages) for session in sessions)
    print(f"{len(truth)} messages published, {read} read in {len(sessions)} sessions;", end=" ")
    print(f"each of {len(CLIENTS)} clients resumed from each: nothing lost, repeated or out of order")


class Session:
    """One client, from its start to its kill."""

    def __init__(self, server, name, channel, after, resumes=None):
        self.name, self.after, self.resumes = name, after, resumes
        self.messages, self.is_open, self.ended = [], False, False
        self.changed = threading.Condition()
        url = f"{server.url}/channels/{channel}?after={after}"
        self.process = subprocess.Popen(
            CLIENTS[name](url), stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        read = self.read_event_stream if name == "curl -N" else self.read_lines
        self.thread = threading.Thread(target=read, daemon=True)
        self.thread.start()
        server.sessions.append(self)

    def read_lines(self):
        for line in self.process.stdout:
            # A kill may cut a line; what is cut was not handed to anybody.
            if line.endswith("\n"):
                self.hear(*line.rstrip("\n").split(" ", 2))
        self.hear("end")

    def read_event_stream(self):
        """curl hands out the bytes; this is all it takes to read them."""
        id, data = "", None
        for line in self.process.stdout:
            field, _, value = line.rstrip("\n").partition(": ")
            if field == "id":
                id = value
            elif field == "data":
                data = value
            elif field == "event" and value == "gap":
                self.hear("gap")
            elif line == "\n":
                self.hear(*(["open"] if data is None else ["message", id, data]))
                data = None
        self.hear("end")

    def hear(self, what, *words):
        with self.changed:
            if what == "message":
                self.messages.append(tuple(words))
            elif what == "open":
                self.is_open = True
            elif what == "gap":
                # Everything is kept, so nobody may be told of one; and no message looks like this.
                self.messages.append(("gap", *words))
            else:
                self.ended = True
            self.changed.notify_all()

    def until(self, what, is_so):
        with self.changed:
            self.changed.wait_for(lambda: is_so() or self.ended, PATIENCE)
            expect(is_so(), f"{self}: waited in vain for {what} after {len(self.messages)} messages")

    def until_open(self):
        self.until("the connection", lambda: self.is_open)

    def until_messages(self, count):
        self.until(f"{count} messages", lambda: len(self.messages) >= count)

    def kill(self):
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.thread.join()

    def cursor(self):
        return self.messages[-1][0] if self.messages else self.after

    def story(self):
        from_whom = f" (of {self.resumes})" if self.resumes else ""
        return f"{self.name:<12} after {self.after:<16}{from_whom:<18} read {len(self.messages):>4}, killed at {self.cursor()}"

    def __str__(self):
        return f"{self.name} after {self.after}"


class Server:
    def __init__(self, program):
        self.file = Path(tempfile.mkdtemp()) / "stream"
        self.stream = subprocess.Popen(["bash", "-c", STREAM], stdout=subprocess.PIPE, start_new_session=True)
        tee = subprocess.Popen(["tee", str(self.file)], stdin=self.stream.stdout, stdout=subprocess.PIPE)
        self.stream.stdout.close()
        options = ["--listen", "127.0.0.1:0", "--stdin", "stream", "--history-messages", "1000000"]
        self.process = subprocess.Popen([program, *options], stdin=tee.stdout, stderr=subprocess.PIPE, text=True)
        tee.stdout.close()
        self.sessions = []
        self.url = None
        while self.url is None:
            line = self.process.stderr.readline()
            expect(line, "the server has ended before it was listening")
            match = re.match(r"listening on (http://\S+)", line)
            self.url = match and match[1]
        self.ended = threading.Event()
        threading.Thread(target=self.read_log, daemon=True).start()
        print(f"the server at {self.url} reads a changing stream from its standard input")

    def read_log(self):
        for line in self.process.stderr:
            if "standard input has ended" in line:
                self.ended.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for session in self.sessions:
            session.kill()
        if self.stream.poll() is None:
            os.killpg(self.stream.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def end_stream(self):
        os.killpg(self.stream.pid, signal.SIGTERM)
        expect(self.ended.wait(PATIENCE), "the server has not seen the end of its input")

    def curl(self, *arguments):
        return subprocess.run(["curl", "-sS", *arguments], check=True, capture_output=True, text=True).stdout

    def subscribers(self, channel):
        channels = json.loads(self.curl(f"{self.url}/channels?prefix={channel}"))["channels"]
        return sum(sum(c["subscribers"].values()) for c in channels if c["name"] == channel)

    def truth(self):
        """What was piped in, line by line, each with the id the server gave it."""
        messages, after = [], "earliest"
        while True:
            answer = json.loads(self.curl(f"{self.url}/channels/stream?wait=0&after={after}"))
            expect("gap" not in answer, f"{answer.get('gap')}")
            if not answer["messages"]:
                break
            messages += [(message["id"], message["data"]) for message in answer["messages"]]
            after = answer["cursor"]
        lines = self.file.read_text().splitlines()
        expect([data for _, data in messages] == lines, "the channel is not what was piped in")
        numbers = [int(id.partition("-")[2]) for id, _ in messages]
        expect(all(a < b for a, b in zip(numbers, numbers[1:])), "ids do not grow")
        return messages


def until(what, is_so):
    end = time.monotonic() + PATIENCE
    while not is_so():
        expect(time.monotonic() < end, f"waited in vain until {what}")
        time.sleep(0.01)


def expect(is_so, otherwise):
    if not is_so:
        raise Failure(otherwise)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    try:
        main(sys.argv[1])
    except Failure as failure:
        sys.exit(f"FAILED: {failure}")
