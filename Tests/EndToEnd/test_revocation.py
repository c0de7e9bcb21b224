"""Revocation: what a new policy no longer allows is dead when the API has answered, seen from the last byte on the wire.

In every test the sandbox and its server send to each other without pause while the policy changes. The node's end of the
link to the Internet is captured; what left there after the client had read the API's answer would be a leak.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from lab import plan, streams
from lab.asker import Asker
from lab.capture import Capture, capture
from lab.clock import Clock, paused
from lab.daemon import Daemon, Sandbox, running
from lab.flood_watch import starting
from lab.internet import Internet
from lab.namespaces import NODE_LINK
from lab.processes import check, wait_until
from lab.sandgate import Sandgate, after_resolving, allowing, attack
from lab.sidecar import sidecar
from lab.tool import tool

pytestmark = pytest.mark.usefixtures("stream_server")

PORTS = {
    "tls": streams.TLS_PORT,
    "connect": streams.CONNECT_PORT,
    "plain": streams.PLAIN_PORT,
    "http": streams.HTTP_PORT,
    "keep-alive": streams.KEEP_ALIVE_PORT,
    "udp": streams.UDP_PORT,
}
DATAGRAMS: dict[str, object] = {"target": plan.SINK, "protocol": "udp", "ports": [streams.UDP_PORT]}
BEFORE = allowing(plan.SINK, DATAGRAMS, plan.ALLOWED)
IN_SETUP = allowing(plan.ALLOWED, setup={"egress": allowing(plan.SINK, DATAGRAMS)["egress"]})
Start = Callable[..., "subprocess.Popen[str]"]


@contextlib.contextmanager
def streaming(start: Start) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """One flow of each kind, all of them live."""
    flows = {kind: start(*attack("stream", kind, plan.SINK, port)) for kind, port in PORTS.items()}
    try:
        for kind, flow in flows.items():
            assert flow.stdout is not None
            said = flow.stdout.readline()
            assert said == "live\n", (kind, said + flow.stdout.read())
        yield flows
    finally:
        for flow in flows.values():
            flow.kill()
            flow.communicate()


def last_bytes(packets: list[tuple[float, str]]) -> dict[str, float]:
    """When the last byte of each kind of flow was on its way to the server."""
    found: dict[str, float] = {}
    for moment, line in packets:
        for kind, port in PORTS.items():
            length = re.search(r"length (\d+)", line)
            if f"> {plan.SINK4}.{port}:" in line and length is not None and int(length[1]) > 0:
                found[kind] = moment
    return found


def wait_for_bytes(outside: Capture, kinds: Iterable[str]) -> None:
    """Waits until a capture that goes on has bytes of each of these kinds of flow."""

    def are_seen() -> bool:
        # The last packet may not be written whole yet.
        with contextlib.suppress(RuntimeError):
            return last_bytes(outside.timed()).keys() >= set(kinds)
        return False

    wait_until(are_seen, "bytes of every flow", 30)


def judge(
    internet: Internet, flows: dict[str, subprocess.Popen[str]], link: list[str], device: str, change: Callable[[], None]
) -> dict[str, float]:
    """Changes the policy while all flows are live and finds all of them dead, inside and outside. Returns how many
    milliseconds after the answer the last byte of each was seen (before it: less than none)."""
    file = internet.directory / f"revocation-{time.monotonic_ns()}.pcap"
    with capture(link, device, file, f"dst host {plan.SINK4}") as outside:
        wait_for_bytes(outside, PORTS)
        change()
        answered = time.time()
        for kind, flow in flows.items():
            said, _ = flow.communicate(timeout=30)
            assert said.startswith("ended"), (kind, said)
    last = last_bytes(outside.timed())
    assert last.keys() == PORTS.keys(), "every flow was live when the capture began"
    late = {kind: moment - answered for kind, moment in last.items() if moment > answered}
    assert not late, f"bytes were sent after the answer (seconds): {late}"
    return {kind: (moment - answered) * 1e3 for kind, moment in last.items()}


def show(what: str, found: dict[str, float]) -> None:
    """pytest shows it with -s."""
    times = ", ".join(f"{kind} {value:+.2f}" for kind, value in found.items())
    print(f"{what}: from the answer to the last byte, in ms: {times}")


def by_replacing(sandbox: Sandbox) -> None:
    assert sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED)).status == 200


def by_a_rule_before(sandbox: Sandbox) -> None:
    rules = [{"action": "deny", "target": plan.SINK}, {"action": "deny", "target": f"{plan.SINK4}/32"}]
    assert sandbox.ask("PATCH", "/policy", rules).status == 200


def by_reset(sandbox: Sandbox) -> None:
    assert sandbox.ask("DELETE", "/policy").status in (200, 204)


def by_pause(sandbox: Sandbox) -> None:
    assert sandbox.ask("POST", "/pause").status == 200


def by_lock(sandbox: Sandbox) -> None:
    assert sandbox.ask("POST", "/lock").status == 200


@pytest.mark.attack(
    "N9 B4 T4",
    "goes on sending on a TLS tunnel, a CONNECT tunnel, an opaque connection, an unfinished HTTP request, a kept HTTP "
    "connection and a UDP flow, without pause, while a change of policy takes their rule away",
    stopped_by="tls-sni, connect, http-host, relay, kernel",
)
@pytest.mark.parametrize(
    ("policy", "change"),
    [(BEFORE, by_replacing), (BEFORE, by_a_rule_before), (BEFORE, by_pause), (IN_SETUP, by_lock)],
    ids=["put", "patch", "pause", "lock"],
)
def test_live_flows(internet: Internet, daemon: Daemon, policy: object, change: Callable[[Sandbox], None]) -> None:
    sandbox = daemon.create(policy)
    with streaming(sandbox.start) as flows:
        show(change.__name__, judge(internet, flows, [], NODE_LINK, lambda: change(sandbox)))
    assert sandbox.ask("GET", "/activity").json["connections"] == 0


@pytest.mark.attack(
    "N9 B4 T4",
    "goes on sending on live flows of six kinds when its sandbox is released",
    stopped_by="relay, namespaces",
)
def test_live_flows_at_release(internet: Internet, daemon: Daemon) -> None:
    """The network that is released has no rules any more, and no way out: its link leads nowhere."""
    sandbox = daemon.create(BEFORE)
    with streaming(sandbox.start) as flows:

        def release() -> None:
            assert sandbox.ask("DELETE").status == 204

        show("release", judge(internet, flows, [], NODE_LINK, release))


@pytest.mark.attack(
    "N9 N1",
    "looks a name up from the cache, and connects to its pinned address, after a change of policy took its rule away",
    stopped_by="dns, kernel",
)
@pytest.mark.parametrize(("policy", "change"), [(BEFORE, by_replacing), (IN_SETUP, by_lock)], ids=["put", "lock"])
def test_cached_answer_and_pin(
    internet: Internet, daemon: Daemon, policy: object, change: Callable[[Sandbox], None]
) -> None:
    sandbox = daemon.create(policy)
    query = attack("query", plan.DNS4, plan.SINK)
    assert plan.SINK4 in sandbox.run(*query).stdout and plan.SINK4 in sandbox.run(*query).stdout
    nft = ("nsenter", f"--net={sandbox.namespace}", "nft", "list", "table", "inet", "sandgate")
    pinned = re.search(r"set pinned4 \{.*?\n\t\}", check(*nft), re.DOTALL)
    assert pinned is not None and plan.SINK4 in pinned[0]
    internet.forget()
    with internet.capture(f"dst host {plan.SINK4}") as outside:
        change(sandbox)
        # At once: nothing is waited for.
        listed = check(*nft)
        answer = sandbox.run(*query).stdout
        connected = sandbox.run(*attack("packets", "tcp", plan.SINK4, plan.CANARY_PORT, "by its pin"))
    assert plan.SINK4 not in listed and "NXDOMAIN" in answer and plan.SINK4 not in answer, answer
    assert connected.returncode != 0 and not outside.lines, outside
    assert internet.dns.names() == set() and internet.sinks.arrivals() == []


@pytest.mark.attack(
    "N3 N9 B4",
    "keeps a connection that report mode let pass, to an address that was never its allowed name's, when the policy is enforced",
    stopped_by="tls-sni",
)
@pytest.mark.parametrize("is_replaced", [False, True], ids=["same daemon", "next daemon"])
def test_what_report_mode_let_pass(internet: Internet, daemon: Daemon, is_replaced: bool) -> None:
    """A rule speaks of the name that both show."""
    sandbox = daemon.create(allowing(plan.ALLOWED, mode="report"))
    kept, ended = (Asker(sandbox.start(*Asker.command(plan.ALLOWED, at))) for at in ("", plan.DENIED4))
    try:
        before = kept.ask()
        assert f"served {plan.ALLOWED}" in before and f"served {plan.ALLOWED}" in ended.ask()
        if is_replaced:
            daemon.hand_over()
        assert kept.ask() == before and f"served {plan.ALLOWED}" in ended.ask()
        assert sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED)).status == 200
        internet.forget()
        assert kept.ask() == before
        assert ended.ask().startswith("Traceback")
        assert [request.server for request in internet.web.requests()] == [plan.SHARED4]
        assert not sandbox.reaches(plan.ALLOWED, "--resolve", f"{plan.ALLOWED}:443:{plan.DENIED4}")
    finally:
        kept.end()
        ended.end()


@pytest.mark.attack(
    "D1 N9",
    "asks for a name whose nameserver does not answer, to have it asked again when a change of policy took the rule away",
    stopped_by="dns",
)
def test_lookup_under_way(internet: Internet, tmp_path: Path) -> None:
    settings = tmp_path / "serve.yaml"
    settings.write_text("upstreamMilliseconds: 1000\n")
    with running(internet, tmp_path, "--config", str(settings)) as daemon:
        sandbox = daemon.create(allowing(plan.SINK, plan.ALLOWED))
        os.kill(internet.dns.pid, signal.SIGSTOP)
        try:
            with internet.capture(f"udp dst port 53 and dst host {plan.DNS4}") as outside:
                program = sandbox.start("getent", "ahostsv4", plan.SINK)
                wait_until(lambda: b"\x04sink\x07example" in outside.payload.lower(), "the question")
                assert sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED)).status == 200
                answered = time.time()
                # It is asked twice, as the other would be, and so for longer.
                assert sandbox.run("getent", "ahostsv4", plan.ALLOWED).returncode != 0
        finally:
            os.kill(internet.dns.pid, signal.SIGCONT)
        program.communicate(timeout=30)
        questions = [(moment, line.lower()) for moment, line in outside.timed()]
        assert len([line for _, line in questions if f"a? {plan.ALLOWED}" in line]) >= 2, outside
        assert [line for moment, line in questions if moment > answered and plan.SINK in line] == [], outside


ACCEPT = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
print("listening", flush=True)
connection, _ = listener.accept()
head = b""
"""
"""The beginning of a server that takes little at a time."""

COUNT = """
sys.stdin.readline()
count = 0
try:
    while piece := connection.recv(65536): count += len(piece)
except ConnectionResetError: pass
print(count, flush=True)
"""
"""Its end: takes what it was sent when it is told to, and says how much came."""

EARLY_SERVER = f"""{ACCEPT}
while b"\\r\\n\\r\\n" not in head: head += connection.recv(1)
connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
{COUNT}"""
"""Answers a request when it has its head, and takes the body when it is told to; then says how much of it came."""

EARLY_CLIENT = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", 64128))
head = f"POST http://{sys.argv[1]}/ HTTP/1.1\\r\\nHost: {sys.argv[1]}\\r\\nContent-Length: {sys.argv[2]}\\r\\n\\r\\n"
connection.sendall(head.encode() + b"body" * (int(sys.argv[2]) // 4))
while b"\\r\\n\\r\\n" not in connection.recv(65536): pass
for name in sys.argv[3:]:
    connection.sendall(f"GET http://{name}/ HTTP/1.1\\r\\nHost: {name}\\r\\n\\r\\n".encode())
print("answered", flush=True)
sys.stdin.readline()
"""
"""A request with a body, and when it is answered another one to each of some names."""


@pytest.mark.attack(
    "N9 B4",
    "has the kernel hold part of a request whose server answers before it has read it, while its rule is taken away",
    stopped_by="http-host",
)
@pytest.mark.parametrize(
    ("then", "change"),
    [("nothing", by_replacing), ("a request whose name is being looked up", by_replacing), ("nothing", by_pause)],
    ids=["put", "put in a look-up", "pause"],
)
def test_request_that_was_answered_early(
    internet: Internet, daemon: Daemon, then: str, change: Callable[[Sandbox], None]
) -> None:
    port, length = 9460, 30_000
    command = internet.namespace.command("/usr/bin/python3", "-c", EARLY_SERVER, plan.SINK4, str(port))
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    sandbox = daemon.create(allowing(plan.SINK, plan.ALLOWED))
    assert sandbox.run("getent", "ahostsv4", plan.SINK).returncode == 0
    os.kill(internet.dns.pid, signal.SIGSTOP)
    try:
        assert server.stdout is not None and server.stdout.readline() == "listening\n"
        names = [] if then == "nothing" else [plan.ALLOWED]
        client = sandbox.start("/usr/bin/python3", "-c", EARLY_CLIENT, f"{plan.SINK}:{port}", str(length), *names)
        assert client.stdout is not None and client.stdout.readline() == "answered\n"
        with internet.capture(f"dst host {plan.SINK4} and dst port {port}") as outside:
            change(sandbox)
            received, _ = server.communicate("read\n", timeout=30)
        assert 0 < int(received) < length and b"body" * 4 not in outside.payload, received
        client.communicate("", timeout=30)
    finally:
        os.kill(internet.dns.pid, signal.SIGCONT)
        server.kill()
        server.communicate()


SLOW_SERVER = f"""{ACCEPT}
while sys.argv[3] == "http" and b"\\r\\n\\r\\n" not in head: head += connection.recv(1)
sys.stdin.readline()
if head: connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
else: connection.shutdown(socket.SHUT_WR)
{COUNT}"""
"""Says all it has to say when it is told to, and takes what it was sent when it is told again; then says how much came."""

QUICK_CLIENT = """
import socket, sys
address, port, length, kind, name = sys.argv[1:]
head = f"POST / HTTP/1.1\\r\\nHost: {name}\\r\\nContent-Length: {length}\\r\\n\\r\\n" if kind == "http" else ""
connection = socket.create_connection((address, int(port)))
connection.sendall(head.encode() + b"body" * (int(length) // 4))
if not head: connection.shutdown(socket.SHUT_WR)
print("sent", flush=True)
while connection.recv(65536): pass
connection.close()
print("ended", flush=True)
"""
"""Says what it has to say, and is gone when the server has said all."""


SLOW_PORT = 9461


@contextlib.contextmanager
def slow_server(internet: Internet, kind: str) -> Iterator[subprocess.Popen[str]]:
    command = internet.namespace.command("/usr/bin/python3", "-c", SLOW_SERVER, plan.SINK4, str(SLOW_PORT), kind)
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None and server.stdout.readline() == "listening\n"
        yield server
    finally:
        server.kill()
        server.communicate()


def quick_client(kind: str, length: int) -> list[str]:
    return ["/usr/bin/python3", "-c", QUICK_CLIENT, plan.SINK4, str(SLOW_PORT), str(length), kind, plan.SINK]


def tell(server: subprocess.Popen[str], word: str) -> None:
    assert server.stdin is not None
    server.stdin.write(f"{word}\n")
    server.stdin.flush()


@contextlib.contextmanager
def served_slowly(internet: Internet, sandbox: Sandbox, kind: str, length: int) -> Iterator[subprocess.Popen[str]]:
    """A server that has taken little of what a connection has sent that is over."""

    def is_passed_on() -> bool:
        found = sandbox.ask("GET", "/connections").json["items"]
        return any(connection["bytesUp"] >= length for connection in found)

    with slow_server(internet, kind) as server:
        assert sandbox.run("getent", "ahostsv4", plan.SINK).returncode == 0
        client = sandbox.start(*quick_client(kind, length))
        assert client.stdout is not None and client.stdout.readline() == "sent\n"
        wait_until(is_passed_on, "all of it in the kernel", 30)
        tell(server, "end")
        assert client.stdout.readline() == "ended\n" and client.wait(30) == 0
        wait_until(lambda: sandbox.ask("GET", "/activity").json["connections"] == 0, "the connection's end", 30)
        yield server


def by_replacing_after_a_hot_restart(sandbox: Sandbox) -> None:
    sandbox.daemon.hand_over()
    by_replacing(sandbox)


def by_release(sandbox: Sandbox) -> None:
    assert sandbox.ask("DELETE").status == 204


@pytest.mark.attack(
    "N9 B4",
    "has the kernel hold what a connection that is over has sent, to a server that takes it when its rule was taken away",
    stopped_by="tls-sni, http-host",
)
@pytest.mark.parametrize(
    "change",
    [by_replacing, by_pause, by_release, by_replacing_after_a_hot_restart],
    ids=["put", "pause", "release", "put after a hot restart"],
)
@pytest.mark.parametrize("kind", ["opaque", "http"])
def test_what_a_server_has_not_taken(
    internet: Internet, daemon: Daemon, kind: str, change: Callable[[Sandbox], None]
) -> None:
    """The server reads nothing until then."""
    length = 30_000
    sandbox = daemon.create(allowing(plan.SINK, plan.ALLOWED))
    with served_slowly(internet, sandbox, kind, length) as server:
        with internet.capture(f"dst host {plan.SINK4}") as outside:
            change(sandbox)
            received, _ = server.communicate("read\n", timeout=30)
    assert 0 < int(received) < length and b"body" * 4 not in outside.payload, received


@pytest.mark.honest("a server that takes what it was sent long after its client is gone")
@pytest.mark.parametrize("is_replaced", [False, True], ids=["same daemon", "next daemon"])
@pytest.mark.parametrize("kind", ["opaque", "http"])
def test_server_that_takes_its_time(internet: Internet, daemon: Daemon, kind: str, is_replaced: bool) -> None:
    """While other names come and go."""
    length = 30_000
    sandbox = daemon.create(allowing(plan.SINK, plan.ALLOWED))
    before = daemon.descriptors
    with served_slowly(internet, sandbox, kind, length) as server:
        if is_replaced:
            daemon.hand_over()
        assert sandbox.ask("PUT", "/policy", allowing(plan.SINK)).status == 200
        received, _ = server.communicate("read\n", timeout=30)
        assert int(received) == length
        wait_until(lambda: daemon.descriptors <= before, "nothing of it is kept", 30)
    closed = [record for record in daemon.records() if record["event"] == "connection.closed"]
    assert len(closed) == 1 and closed[0]["bytesUp"] >= length, closed


LATE_SERVER = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
print("listening", flush=True)
connection, _ = listener.accept()
sys.stdin.readline()
count, end = 0, "ended"
try:
    while piece := connection.recv(65536): count += len(piece)
except ConnectionResetError: end = "reset"
print(end, count, flush=True)
"""
"""Takes what it is sent when it is told to; then says how that ended, and how much came."""

STEADY_CLIENT = """
import socket, sys
address, port, length, kind, name = sys.argv[1:]
connection = socket.create_connection((address, int(port)))
head = f"POST / HTTP/1.1\\r\\nHost: {name}\\r\\nContent-Length: {2 * int(length)}\\r\\n\\r\\n" if kind == "http" else ""
connection.sendall(head.encode() + b"body" * (int(length) // 4))
try:
    while connection.recv(65536): pass
except ConnectionResetError: sys.exit("reset")
"""
"""Has more to say later."""

Guarded = tuple[Start, Callable[[], object], list[str]]
"""What starts programs in a sandbox, what stops its guard, and what is put before a command to have it where the guard's sockets
to the outside are."""


def _unsent(place: list[str]) -> int:
    """How many bytes wait for the server there."""
    sockets = check(*place, "ss", "-Htn", "dst", f"{plan.SINK4}:{SLOW_PORT}").splitlines()
    return max((int(line.split()[2]) for line in sockets), default=0)


@contextlib.contextmanager
def stopped_daemon(internet: Internet, directory: Path, policy: object) -> Iterator[Guarded]:
    """A daemon that nobody keeps anything for."""
    with running(internet, directory) as daemon:
        daemon.end()
        daemon.prefix = ["env", "-u", "NOTIFY_SOCKET"]
        daemon.launch()
        wait_until(lambda: answers(daemon), "the daemon", 30)
        yield daemon.create(policy).start, daemon.end, []


def answers(daemon: Daemon) -> bool:
    with contextlib.suppress(OSError):
        return daemon.request("GET", "/healthz").status == 200
    return False


@contextlib.contextmanager
def forgotten_daemon(internet: Internet, directory: Path, policy: object) -> Iterator[Guarded]:
    """A daemon whose service manager loses what it keeps."""
    with running(internet, directory) as daemon:
        yield daemon.create(policy).start, lambda: os.close(daemon.end_keeping()), []


@contextlib.contextmanager
def killed_daemon(internet: Internet, directory: Path, policy: object) -> Iterator[Guarded]:
    with running(internet, directory) as daemon:
        yield daemon.create(policy).start, lambda: daemon.end(signal.SIGKILL), []


@contextlib.contextmanager
def stopped_sidecar(
    internet: Internet, directory: Path, policy: object, number: signal.Signals = signal.SIGTERM
) -> Iterator[Guarded]:
    with sidecar(internet, directory) as shared:
        shared.start(policy)
        yield starting(internet, shared), lambda: shared.end(number), shared.namespace.command()


def killed_sidecar(
    internet: Internet, directory: Path, policy: object
) -> contextlib.AbstractContextManager[Guarded]:
    return stopped_sidecar(internet, directory, policy, signal.SIGKILL)


@pytest.mark.attack(
    "T8 B4",
    "has the kernel go on sending for it when its guard is stopped or killed, and end what was cut off as if it were whole",
    stopped_by="tls-sni, http-host",
)
@pytest.mark.parametrize("kind", ["opaque", "http"])
@pytest.mark.parametrize("guard", [stopped_daemon, forgotten_daemon, killed_daemon, stopped_sidecar, killed_sidecar])
def test_what_was_under_way_at_a_stop(
    internet: Internet,
    tmp_path: Path,
    guard: Callable[[Internet, Path, object], contextlib.AbstractContextManager[Guarded]],
    kind: str,
) -> None:
    length = 30_000
    command = internet.namespace.command("/usr/bin/python3", "-c", LATE_SERVER, plan.SINK4, str(SLOW_PORT))
    arguments = (plan.SINK4, str(SLOW_PORT), str(length), kind, plan.SINK)
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None and server.stdout.readline() == "listening\n"
        with guard(internet, tmp_path, allowing(plan.SINK)) as (start, stop, listing):
            looked_up = start("getent", "ahostsv4", plan.SINK)
            assert plan.SINK4 in looked_up.communicate(timeout=30)[0]
            client = start("/usr/bin/python3", "-c", STEADY_CLIENT, *arguments)
            wait_until(lambda: _unsent(listing) >= length // 2, "it to wait for the server", 30)
            stop()
            said, _ = client.communicate(timeout=30)
            received, _ = server.communicate("read\n", timeout=30)
        end, count = received.split()
        assert (end, said) == ("reset", "reset\n") and int(count) < length, (received, said)
        if guard in (stopped_daemon, stopped_sidecar):
            said = tool("audit", "--dir", tmp_path / "audit", "--event", "connection.closed", "--json").stdout
            assert [json.loads(line)["bytesUp"] >= length for line in said.splitlines()] == [True], said
    finally:
        server.kill()
        server.communicate()


WAITING_SERVER = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
connection, _ = listener.accept()
print("connected", flush=True)
try: connection.recv(1)
except ConnectionResetError: pass
print("ended", flush=True)
"""
"""Says when its client is gone."""

TUNNEL_CLIENT = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", 64128))
connection.sendall(f"CONNECT {sys.argv[1]} HTTP/1.1\\r\\nHost: {sys.argv[1]}\\r\\n\\r\\n".encode())
print(connection.recv(4096).split()[1].decode(), flush=True)
sys.stdin.readline()
"""
"""Has a tunnel opened and says nothing in it."""


@pytest.mark.attack(
    "N9 B4",
    "keeps a connection open that the proxy made for it, and has said nothing on it, when its rule is taken away",
    stopped_by="connect",
)
def test_tunnel_before_its_first_bytes(internet: Internet, daemon: Daemon) -> None:
    """Its end would say when to whoever serves the name, up to the deadline for first bytes."""
    command = internet.namespace.command("/usr/bin/python3", "-c", WAITING_SERVER, plan.GREETER4, "80")
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None and server.stdout.readline() == "listening\n"
        sandbox = daemon.create(allowing(plan.MAIL, plan.ALLOWED))
        client = sandbox.start("/usr/bin/python3", "-c", TUNNEL_CLIENT, f"{plan.MAIL}:80")
        assert client.stdout is not None and client.stdout.readline() == "200\n"
        assert server.stdout.readline() == "connected\n"
        assert sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED)).status == 200
        changed = time.monotonic()
        assert server.stdout.readline() == "ended\n"
        assert time.monotonic() - changed < 5, "it was ended by the change, not by its deadline of ten seconds"
        assert sandbox.ask("GET", "/activity").json["connections"] == 0
        client.communicate("", timeout=30)
    finally:
        server.kill()
        server.communicate()


@pytest.mark.honest("a server that takes what it was sent when the run is over")
def test_server_that_takes_its_time_after_a_run(internet: Internet, sandgate: Sandgate) -> None:
    length = 30_000
    with slow_server(internet, "opaque") as server:
        running = sandgate.start(allowing(plan.SINK), after_resolving(plan.SINK, then=quick_client("opaque", length)))
        running.wait_for("sent")
        tell(server, "end")
        assert running.finish().returncode == 0
        received, _ = server.communicate("read\n", timeout=30)
        assert int(received) == length


@pytest.mark.honest("a connection and a flow that stay permitted, without a break, while others are revoked")
def test_what_stays_permitted_is_not_touched(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(BEFORE)
    asker = Asker(sandbox.start(*Asker.command(plan.ALLOWED)))
    try:
        with streaming(sandbox.start) as flows:
            port = asker.ask().split()[0]
            kept = {"target": plan.SINK, "ports": [streams.TLS_PORT, streams.KEEP_ALIVE_PORT]}
            policy = allowing(plan.ALLOWED, kept, DATAGRAMS)
            assert sandbox.ask("PUT", "/policy", policy).status == 200
            staying = ("tls", "keep-alive", "udp")
            for kind, flow in flows.items():
                if kind not in staying:
                    assert flow.communicate(timeout=30)[0].startswith("ended"), kind
            with internet.capture(f"dst host {plan.SINK4}") as outside:
                assert asker.ask().split()[0] == port
                wait_for_bytes(outside, staying)
            assert last_bytes(outside.timed()).keys() == set(staying), outside
            assert all(flows[kind].poll() is None for kind in staying)
    finally:
        asker.end()


@pytest.mark.attack(
    "N9 B4 T4",
    "goes on sending on live flows of six kinds while a policy that is posted to the sidecar takes their rule away",
    stopped_by="tls-sni, connect, http-host, relay, kernel",
)
@pytest.mark.parametrize("policy", [allowing(plan.ALLOWED), {}], ids=["post", "reset"])
def test_live_flows_beside_a_sidecar(internet: Internet, tmp_path: Path, policy: object) -> None:
    with sidecar(internet, tmp_path) as shared:
        shared.start(BEFORE)

        def change() -> None:
            assert shared.request("POST", "/policy", policy).status == 200

        with streaming(starting(internet, shared)) as flows:
            show("sidecar", judge(internet, flows, internet.namespace.command(), "any", change))
        assert not shared.reaches(plan.SINK)


@pytest.mark.attack(
    "N9 B4 T4",
    "goes on sending on live flows of six kinds while their guard is paused for longer than their rules last",
    stopped_by="tls-sni, connect, http-host, relay, kernel",
)
def test_live_flows_whose_rules_end_in_a_pause(internet: Internet, tmp_path: Path) -> None:
    """What the flows sent meanwhile waits in the sidecar's sockets when it goes on; not a byte of it leaves."""
    end = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()
    names, datagrams = {"target": plan.SINK, "expiresAt": end}, DATAGRAMS | {"expiresAt": end}
    with contextlib.closing(Clock(tmp_path)) as clock, sidecar(internet, tmp_path) as shared:
        shared.variables = clock.environment()
        shared.start(allowing(names, datagrams, plan.ALLOWED))
        file = internet.directory / "pause.pcap"
        expression = f"dst host {plan.SINK4}"
        with (
            streaming(starting(internet, shared)) as flows,
            capture(internet.namespace.command(), "any", file, expression) as outside,
        ):
            wait_for_bytes(outside, PORTS)
            with paused(shared.process, clock, 3601):
                # What it had let out is out.
                wait_until(lambda: max(last_bytes(outside.timed()).values()) < time.time() - 1, "silence")
                resumed = time.time()
            for kind, flow in flows.items():
                said, _ = flow.communicate(timeout=30)
                assert said.startswith("ended"), (kind, said)
        late = {kind: moment - resumed for kind, moment in last_bytes(outside.timed()).items() if moment > resumed}
        assert not late, f"bytes were sent after the pause (seconds): {late}"
        assert shared.reaches(plan.ALLOWED) and not shared.reaches(plan.SINK)
