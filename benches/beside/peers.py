"""The servers that are measured: how each is built, started, and spoken to.

Knows no workload. Whatever cannot be had is left out, with a sentence that says why (`missing`).
Invariant: each server runs on processor 0 alone, and serves the same channels over the same payloads.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILT = ROOT / "target" / "beside"
RELEASE = BUILT / "release"
TIDINGS = ROOT / "target" / "release" / "tidings"
ECHO = ROOT / "target" / "release" / "examples" / "echo"
SERVER_CPU, LOAD_CPU = 0, (os.cpu_count() or 2) - 1
# Of the soft limit of descriptors, what connections leave for everything else.
CONNECTIONS = 19_000

# How Tidings is spoken to. It answers nobody who calls it by a name that it was not told.
CHANNELS = [
    *("--host", "localhost", "--get-path", "/healthz", "--pub-path", "/channels/{ch}"),
    *("--ws-path", "/channels/{ch}", "--sse-path", "/channels/{ch}", "--lp-path", "/channels/{ch}"),
]
RAW = ["--header", "Sec-WebSocket-Protocol: tidings.raw"]
CURSOR = ["--capture", 'id=body:"cursor":"', "--poll-query", "?after={id}"]


class Server:
    """One way to run one program. `command` and `talk` may name {port} and {next_port}."""

    def __init__(self, name, command, talk=(), note="", prepare=None):
        self.name, self.command, self.talk, self.note = name, command, talk, note
        self.prepare = prepare  # called with the port; fills a directory, gives its command

    def start(self, *more):
        return Running(self, more)


class Running:
    """A server that has answered its first connection; `with` ends it."""

    def __init__(self, server, more):
        self.port = free_ports()
        fill = lambda words: [
            str(word).replace("{next_port}", str(self.port + 1)).replace("{port}", str(self.port)) for word in words
        ]
        command = server.prepare(self.port) if server.prepare else fill(server.command)
        self.talk = fill(server.talk)
        self.process = subprocess.Popen(
            [*command, *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CPU}),
        )
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.process.kill()
                    raise RuntimeError(f"{server.name} did not start: {' '.join(command)}")
                time.sleep(0.01)
        self.pid = self.process.pid
        while server.prepare and self.pid == self.process.pid:
            # nginx does its work in a child, which may come a moment later than the socket.
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            self.pid = int(children[0]) if children else self.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM if self.pid != self.process.pid else signal.SIGKILL)
        self.process.wait()

    def resident(self, field="VmRSS"):
        """Bytes, by proc(5)'s status."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.M)[1]) * 1024

    def cpu_seconds(self):
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def free_ports():
    """Two ports in a row that nobody listens on."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
                return port
            except (OSError, OverflowError):
                continue


def load(running, arguments, timeout=180):
    """What the load generator measured, as it prints it; an error if anything was lost or wrong."""
    command = [
        *(str(RELEASE / "load"), arguments[0], "--addr", f"127.0.0.1:{running.port}", "--pid", str(running.pid)),
        *("--cpu", LOAD_CPU, "--json", *arguments[1:], *running.talk),
    ]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=timeout)
    try:
        figures = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(done.stderr.strip()[:200] or f"exit code {done.returncode}") from None
    if done.returncode:
        wrong = ("errors", "lost", "gaps", "dups_or_reordered", "damaged", "bad_status", "closed_by_server", "failed")
        raise RuntimeError(", ".join(f"{key} {figures[key]}" for key in wrong if figures.get(key))[:200] or "unclean")
    return figures


def run(command, **options):
    """A step of building. Its output is shown if it fails."""
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stdout.strip()[-600:]}")
    return done.stdout


def cargo(*arguments, target=BUILT):
    return run(["cargo", *arguments], cwd=ROOT, env={**os.environ, "CARGO_TARGET_DIR": str(target)})


def build(others):
    """Builds everything; gives the servers by name, and a sentence for each that cannot be had.

    `others` are pairs of a name and a command: programs from elsewhere that serve `/ws/{ch}`, `/echo`,
    `POST /pub/{ch}` and `GET /healthz`. What follows the name in parentheses says how one was built.
    """
    print("building Tidings", flush=True)
    cargo("build", "--release", "--locked", "--bin", "tidings", "--example", "echo", target=ROOT / "target")
    tidings = [TIDINGS, "--listen", "127.0.0.1:{port}", "--connections-max", "20000"]
    versions = {"Tidings": version(ROOT / "Cargo.toml")}
    print("building the load generator and the limit", flush=True)
    cargo("build", "--release", "--locked", "--manifest-path", HERE / "load/Cargo.toml")
    cargo("build", "--release", "--locked", "--manifest-path", HERE / "peers/limit/Cargo.toml")
    limit = RELEASE / "limit"
    servers = [
        Server("limit", [limit, "{port}"]),
        Server("limit, polled", [limit, "{port}"], ["--preset", "etag"]),
        Server("limit, sse heartbeats", [limit, "{port}", "15000"]),
        Server("limit, ws heartbeats", [limit, "{port}", "25000"]),
        Server("Tidings", tidings, CHANNELS, f"{versions['Tidings']}, this tree"),
        Server("Tidings raw", tidings, [*CHANNELS, *RAW]),
        Server("Tidings json", tidings, CHANNELS),
        Server("Tidings, polled", tidings, [*CHANNELS, *CURSOR]),
        Server("Tidings, echo", [ECHO, "127.0.0.1:{port}"], CHANNELS),
    ]
    missing = []
    for add in (rust_peers, node_peer, nchan_peer):
        try:
            servers += add()
        except (RuntimeError, OSError) as error:
            name = add.__name__.removesuffix("_peers").removesuffix("_peer")
            missing.append(f"{name}: {str(error).splitlines()[0][:200]}")
    for name, command in others:
        name, _, note = name.partition(" (")
        servers.append(Server(name, command.split(), ["--get-path", "/healthz"], note.removesuffix(")")))
    return {server.name: server for server in servers}, missing


def rust_peers():
    print("building tokio-tungstenite, fastwebsockets and axum", flush=True)
    cargo("build", "--release", "--locked", "--manifest-path", HERE / "peers/rust/Cargo.toml")
    lock = (HERE / "peers/rust/Cargo.lock").read_text()
    of = lambda crate: re.search(rf'name = "{crate}"\nversion = "([^"]*)"', lock)[1]
    compiler = run(["rustc", "--version"]).split()[1]
    # These answer publishers on a port of its own, so that they measure no HTTP framework.
    publish = ["--pub-addr", "127.0.0.1:{next_port}"]
    how = f"rustc {compiler}, opt-level 3, fat LTO, tokio's current-thread runtime"
    return [
        Server(name, [RELEASE / name, "{port}"], talk, f"{of(crate)}, {how}")
        for name, crate, talk in (
            ("tokio-tungstenite", "tokio-tungstenite", publish),
            ("fastwebsockets", "fastwebsockets", publish),
            ("axum-sse", "axum", []),
        )
    ]


def node_peer():
    print("installing ws", flush=True)
    there = BUILT / "node"
    there.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "server.js"):
        shutil.copy(HERE / "peers/node" / name, there)
    run(["npm", "ci", "--silent", "--no-audit", "--no-fund", "--prefix", there])
    package = json.loads((there / "node_modules/ws/package.json").read_text())["version"]
    node = run(["node", "--version"]).strip()
    return [
        Server(
            "ws", ["node", there / "server.js", "{port}"], [], f"{package}, Node.js {node}; SSE and GET by node:http"
        )
    ]


def nchan_peer():
    """Debian's packages, unpacked under target and not installed; an nginx that is installed is used."""
    there = BUILT / "nchan"
    module = there / "usr/lib/nginx/modules/ngx_nchan_module.so"
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not module.exists():
        print("fetching nchan", flush=True)
        there.mkdir(parents=True, exist_ok=True)
        run(["apt-get", "update", "-qq"])
        run(["apt-get", "download", "-qq", "libnginx-mod-nchan", *([] if nginx else ["nginx"])], cwd=there)
        for package in there.glob("*.deb"):
            run(["dpkg", "-x", package, there])
    nginx = nginx or there / "usr/sbin/nginx"
    about = subprocess.run([nginx, "-v"], capture_output=True, text=True).stderr
    package = next(there.glob("libnginx-mod-nchan_*.deb")).name.split("_")[1].replace("%3a", ":")

    def prepare(port):
        place = there / f"run-{port}"
        place.mkdir(exist_ok=True)
        config = (HERE / "peers/nchan/nginx.conf").read_text()
        (place / "nginx.conf").write_text(config.replace("MODULE", str(module)).replace("PORT", str(port)))
        return [str(nginx), "-p", f"{place}/", "-c", "nginx.conf"]

    server = Server(
        "nchan", [], ["--preset", "nchan"], f"{package} and nginx {about.strip().split('/')[-1]}, of Debian", prepare
    )
    with server.start():
        pass
    return [server]


def version(manifest):
    return re.search(r'^version = "([^"]*)"', manifest.read_text(), re.M)[1]
