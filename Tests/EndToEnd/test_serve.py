"""The node daemon: sandboxes attached, changed, paused, expired and released through its API, judged from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab import plan
from lab.daemon import Answer, Daemon, Sandbox, attachment, hanging, running
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.processes import check, wait_until
from lab.sandgate import after_resolving, allowing, attack
from lab.tool import tool


def attach(daemon: Daemon, box: Namespace, policy: object, **fields: object) -> Sandbox:
    return daemon.create(policy, attachment={"netns": f"/run/netns/{box.name}", **fields})


# Attachments


def test_sandbox_reaches_what_its_policy_allows(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED), id="first", metadata={"owner": "tests"})
    assert sandbox.reaches(plan.ALLOWED) and sandbox.reaches(plan.ALLOWED, "-6")
    assert not sandbox.reaches(plan.DENIED)
    assert not sandbox.reaches(plan.DENIED, "--resolve", f"{plan.DENIED}:443:{plan.DENIED4}")
    assert internet.web.hosts() == {plan.ALLOWED}
    answer = sandbox.ask("GET").json
    assert answer["status"]["state"] == "Running" and answer["selfTest"] == "passed"
    assert answer["metadata"] == {"owner": "tests"} and answer["revision"] == 1
    expected = {"sandbox.attached", "connection.allowed", "connection.denied", "dns.denied"}
    # The kernel tells of what it refused a moment later.
    wait_until(
        lambda: {record["event"] for record in daemon.records(sandbox="first")} >= expected, "all kinds of records"
    )


@pytest.mark.attack("T6", "uses what another sandbox of the daemon may reach", stopped_by="namespaces")
def test_sandboxes_do_not_share_what_they_may(internet: Internet, daemon: Daemon) -> None:
    one, two = daemon.create(allowing(plan.ALLOWED)), daemon.create(allowing(plan.DENIED))
    assert one.reaches(plan.ALLOWED) and two.reaches(plan.DENIED)
    assert not one.reaches(plan.DENIED) and not two.reaches(plan.ALLOWED)


@pytest.mark.attack("T4", "has no policy at all", stopped_by="kernel, dns")
def test_without_a_policy_everything_is_denied(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create()
    assert not sandbox.reaches(plan.ALLOWED)
    assert sandbox.ask("GET", "/policy").json["mode"] == "deny_all"


@pytest.mark.attack(
    "N1 N3", "sends to addresses from a namespace that had a way of its own before it was attached", stopped_by="kernel"
)
def test_namespace_that_exists(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    target = ["curl", "-sS", "-m", "5", "--resolve", f"{plan.DENIED}:443:{plan.DENIED4}", f"https://{plan.DENIED}/"]
    unguarded = subprocess.run(box.command(*target), env=internet.environment(), capture_output=True, text=True)
    assert f"served {plan.DENIED}" in unguarded.stdout, unguarded
    internet.forget()
    sandbox = attach(daemon, box, allowing(plan.ALLOWED))
    with internet.capture(f"host {plan.DENIED4} or host {plan.SINK4}", unenforced=True) as capture:
        assert sandbox.run(*target[:-1], f"https://{plan.DENIED}/").returncode != 0
        assert sandbox.run("ping", "-c", "1", "-W", "1", plan.SINK4).returncode != 0
    assert not capture.lines, capture
    assert sandbox.reaches(plan.ALLOWED)
    assert internet.web.hosts() == {plan.ALLOWED}
    assert sandbox.ask("DELETE").status == 204
    assert "served" in sandbox.run(*target).stdout
    assert "sandgate" not in box.check("nft", "list", "ruleset")


@pytest.mark.attack(
    "T12", "begins connections from a port that is served, and is reached on one that is not", stopped_by="kernel"
)
def test_connections_from_outside(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """Let in on the ports that are served; what they began may be answered, and nothing else goes out by it."""
    with contextlib.ExitStack() as stack:
        for port in (8080, 9090):
            server = subprocess.Popen(
                box.command("/usr/bin/python3", "-m", "http.server", str(port)),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(server.wait)
            stack.callback(server.kill)

        def is_served(port: int, address: str = "10.78.0.2") -> bool:
            command = internet.namespace.command("curl", "-sS", "-m", "2", f"http://{address}:{port}/")
            return "Directory listing" in subprocess.run(command, capture_output=True, text=True).stdout

        wait_until(lambda: is_served(8080) and is_served(9090), "the servers")
        sandbox = attach(daemon, box, allowing(plan.ALLOWED), inbound=[8080], acceptRawSockets=True)
        assert is_served(8080) and not is_served(9090)
        # From the served port the sandbox begins nothing by itself.
        begin = f"import socket; s = socket.socket(); s.bind(('10.78.0.2', 8081)); s.connect(('{plan.SINK4}', 4444))"
        assert "ConnectionRefusedError" in sandbox.run("/usr/bin/python3", "-c", begin).stderr
        assert internet.sinks.arrivals() == []
        daemon.restart()
        assert is_served(8080) and not is_served(9090)
        sandbox.ask("POST", "/pause")
        assert not is_served(8080)
        sandbox.ask("POST", "/resume")
        assert is_served(8080) and sandbox.reaches(plan.ALLOWED)


def test_neighbour_over_ipv6(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """Whoever connects from the same link asks for the sandbox's link-layer address from the address that it connects from."""
    command = box.command("/usr/bin/python3", "-m", "http.server", "--bind", "::", "8080")
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def is_served() -> bool:
        # Whatever each knew of the other is forgotten.
        internet.namespace.check("ip", "-6", "neigh", "flush", "to", "fd78::/64")
        box.check("ip", "-6", "neigh", "flush", "all")
        command = internet.namespace.command("curl", "-sS", "-m", "3", "http://[fd78::2]:8080/")
        return "Directory listing" in subprocess.run(command, capture_output=True, text=True).stdout

    try:
        wait_until(is_served, "the server")
        sandbox = attach(daemon, box, allowing(plan.ALLOWED), inbound=[8080], acceptRawSockets=True)
        assert is_served()
        daemon.restart()
        assert is_served()
        sandbox.ask("POST", "/pause")
        assert not is_served()
    finally:
        server.kill()
        server.wait()


def test_namespace_of_a_process(internet: Internet, daemon: Daemon) -> None:
    command = ["unshare", "--net", "setpriv", "--bounding-set=-net_raw,-net_admin,-sys_admin", "sleep", "60"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        own = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != own, "the process's namespace")
        wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", "the process's program")
        sandbox = daemon.create(allowing(plan.ALLOWED), id="proc", attachment={"pid": process.pid})
        assert sandbox.namespace == f"/proc/{process.pid}/ns/net"
        assert "policy drop" in sandbox.run("nft", "list", "table", "inet", "sandgate").stdout
    finally:
        process.kill()
        process.wait()
    sandbox.wait_for("gone")
    assert [record["event"] for record in daemon.records(sandbox="proc")] == ["sandbox.attached", "sandbox.detached"]


@contextlib.contextmanager
def _engine(path: Path, answer: bytes | None) -> Iterator[None]:
    """A container engine that says the same to everybody, or nothing."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                clients.append(client)
                if answer is not None:
                    client.recv(4096)
                    client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + answer)
                    client.close()

    clients: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for client in clients:
                client.close()


def test_container_engine_that_has_ended(internet: Internet, tmp_path: Path) -> None:
    """Its socket is still there: the next one is asked. One that says nothing is said to."""
    dead, live, silent = tmp_path / "dead.sock", tmp_path / "live.sock", tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
    configuration = tmp_path / "configuration.yaml"
    command = ["unshare", "--net", "setpriv", "--bounding-set=-net_raw,-net_admin,-sys_admin", "sleep", "60"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", "the process's program")
            state = json.dumps({"State": {"Pid": process.pid, "Running": True}}).encode()
            body = {"id": "box", "attachment": {"container": "web"}}
            configuration.write_text(f"containerSockets: [{dead}, {live}]\n")
            with _engine(live, state), running(internet, tmp_path, "--config", str(configuration)) as daemon:
                answer = daemon.request("POST", "/v1/sandboxes", body)
                assert answer.status == 201, answer
                assert daemon.request("DELETE", "/v1/sandboxes/box").status == 204
                daemon.end()
                configuration.write_text(f"containerSockets: [{dead}, {silent}]\n")
                with _engine(silent, None):
                    daemon.start()
                    answer = daemon.request("POST", "/v1/sandboxes", body)
                    assert answer.status == 422 and f"cannot read from {silent}: nothing for 5 s" in answer.text, answer
        finally:
            process.kill()


def test_namespace_that_vanishes(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    sandbox = attach(daemon, box, allowing(plan.ALLOWED))
    before = daemon.descriptors
    box.remove()
    sandbox.wait_for("gone")
    # Six listeners and two netlink sockets. What the daemon has open for a moment only, such as a state file, is waited for.
    wait_until(lambda: daemon.descriptors <= before - 8, "the end of the sandbox's descriptors")


def test_namespaces_that_vanish_from_two_names_of_a_directory(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """inotify(7) has one watch for a directory, whatever it is called: who looks by one name does not end it for the other."""
    others = [Namespace("one"), Namespace("two")]
    try:
        sandbox = attach(daemon, box, allowing(plan.ALLOWED))
        one, two = [
            daemon.create(allowing(), attachment={"netns": f"/var/run/netns/{other.name}"}) for other in others
        ]
        assert one.namespace.startswith("/var/run/") and sandbox.namespace.startswith("/run/")
        others[0].remove()
        one.wait_for("gone")
        assert two.ask("DELETE").status == 204
        box.remove()
        sandbox.wait_for("gone")
    finally:
        for other in others:
            other.remove()


def test_namespace_that_vanishes_waits_for_no_other(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    other = Namespace("other")
    try:
        busy = attach(daemon, box, allowing())
        sandbox = daemon.create(allowing(), attachment=attachment(other))
        with hanging(daemon, busy):
            box.remove()
            other.remove()
            sandbox.wait_for("gone")
            assert busy.state == "Running"
        busy.wait_for("gone")
    finally:
        other.remove()


def test_namespace_of_a_failed_sandbox_vanishes(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """The kernel gives the number of a namespace that is gone to the next one."""
    box.check("nft", "table ip before { chain c { type filter hook output priority -1; ip daddr 169.254.169.254 drop; }; }")
    body = {"id": "box", "attachment": attachment(box), "networkPolicy": allowing(plan.ALLOWED)}
    assert daemon.request("POST", "/v1/sandboxes", body).status == 503
    sandbox = Sandbox(daemon, "box", f"/run/netns/{box.name}")
    assert sandbox.state == "Failed"
    box.remove()
    sandbox.wait_for("gone")


def test_namespace_of_a_sandbox_that_was_not_taken_up_vanishes(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED), id="box", attachment=attachment(box))
    daemon.end(signal.SIGKILL)
    box.check("nft", "add table ip before { chain c { type filter hook output priority -1; ip daddr 169.254.169.254 drop; }; }")
    daemon.start()
    assert sandbox.state == "Failed"
    box.remove()
    sandbox.wait_for("gone")


def test_process_that_is_about_to_end(daemon: Daemon, box: Namespace) -> None:
    """As a runtime's own is in a container that has just been started."""
    with subprocess.Popen(box.command("sleep", "0.3"), stdin=subprocess.DEVNULL):
        path = f"/run/netns/{box.name}"
        answer = daemon.request("POST", "/v1/sandboxes", {"id": "box", "attachment": {"netns": path}})
    assert answer.status == 201, answer


@pytest.mark.attack(
    "T10 T10a", "lives in the namespace with CAP_NET_RAW or CAP_NET_ADMIN when it is attached", stopped_by="start"
)
def test_processes_that_could_get_around_the_rules(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    process = subprocess.Popen(box.command("sleep", "60"), stdin=subprocess.DEVNULL)
    try:
        path = f"/run/netns/{box.name}"
        answer = daemon.request("POST", "/v1/sandboxes", {"id": "box", "attachment": {"netns": path}})
        assert answer.status == 422 and "CAP_NET_RAW" in answer.json["message"], answer
        assert daemon.request("GET", "/v1/sandboxes/box").status == 404
        assert "sandgate" not in box.check("nft", "list", "ruleset")
        sandbox = attach(daemon, box, allowing(plan.ALLOWED), acceptRawSockets=True)
        assert sandbox.ask("GET").json["acceptedRisks"] == ["raw-sockets"]
    finally:
        process.kill()
        process.wait()


HIDE = """\
import ctypes, os, sys, threading
libc = ctypes.CDLL(None)
ended = threading.Event()
hidden = threading.Thread(target=ended.wait)
hidden.start()
if sys.argv[1] == "given up":
    for number in range(64): libc.prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP
    libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())  # none
elif sys.argv[1] == "elsewhere": libc.unshare(0x40000000)  # CLONE_NEWNET
print(hidden.native_id, flush=True)
if sys.argv[1] == "ended": libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit, of this thread
sys.stdin.read()
"""


@pytest.mark.attack(
    "T10 T10a",
    "lives in the namespace with CAP_NET_RAW, in a thread whose process's first thread has given its capabilities up, has "
    "gone elsewhere or has ended",
    stopped_by="start",
)
@pytest.mark.parametrize("first", ["given up", "elsewhere", "ended"])
def test_threads_that_could_get_around_the_rules(
    internet: Internet, daemon: Daemon, box: Namespace, first: str
) -> None:
    """What /proc/PID says is of the first thread alone."""
    command = box.command("/usr/bin/python3", "-c", HIDE, first)
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        thread = int(child.stdout.readline())
        status = Path(f"/proc/{thread}/status").read_text()
        assert int(status.split("CapPrm:")[1].split()[0], 16) >> 13 & 1, "the thread has CAP_NET_RAW"
        if first == "ended":
            wait_until(lambda: "State:\tZ" in Path(f"/proc/{child.pid}/status").read_text(), "the first thread's end")
        path = f"/run/netns/{box.name}"
        answer = daemon.request("POST", "/v1/sandboxes", {"id": "box", "attachment": {"netns": path}})
        assert answer.status == 422 and f"process {child.pid} " in answer.json["message"], answer
        assert daemon.request("GET", "/v1/sandboxes/box").status == 404
    finally:
        child.kill()
        child.communicate()


CROWD = """\
import os, sys
os.setgroups(range(1_000_000, 1_000_000 + int(sys.argv[1])))
print("in them", flush=True)
sys.stdin.read()
"""


@pytest.mark.attack(
    "T10 T10a",
    "lives in the namespace with CAP_NET_RAW when it is attached, in so many groups that what /proc says of it is long",
    stopped_by="start",
)
@pytest.mark.parametrize("groups", [2_000, 60_000])
def test_process_in_many_groups(internet: Internet, daemon: Daemon, box: Namespace, groups: int) -> None:
    """Its groups stand before its capabilities."""
    command = box.command("/usr/bin/python3", "-c", CROWD, str(groups))
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "in them\n"
        body = {"id": "box", "attachment": {"netns": f"/run/netns/{box.name}"}}
        answer = daemon.request("POST", "/v1/sandboxes", body)
        assert answer.status == 422 and "CAP_NET_RAW" in answer.json["message"], answer
        assert f"process {child.pid} " in answer.json["message"], answer
    finally:
        child.kill()
        child.communicate()


KEEP = """\
import ctypes, socket, sys
kept = socket.socket(int(sys.argv[1]), socket.SOCK_RAW, 0)
libc = ctypes.CDLL(None)
for number in range(64): libc.prctl(24, number, 0, 0, 0)  # PR_CAPBSET_DROP
libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())  # none
print("kept", flush=True)
for line in sys.stdin:
    kept.bind(("eth0", 0x0800))
    kept.send(b"\\xff" * 6 + b"\\x02" * 6 + b"\\x08\\x00" + line.encode())
    print("sent", flush=True)
"""


@pytest.mark.attack(
    "T10", "keeps a packet or AF_XDP socket from before it was attached, and no capability", stopped_by="start"
)
@pytest.mark.parametrize(("family", "name"), [(socket.AF_PACKET, "1 packet socket"), (44, "1 AF_XDP socket")])
def test_sockets_from_before(internet: Internet, daemon: Daemon, box: Namespace, family: int, name: str) -> None:
    """A socket needs its capability when it is opened, and none to send."""
    command = box.command("/usr/bin/python3", "-c", KEEP, str(int(family)))
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None and child.stdout is not None
    try:
        assert child.stdout.readline() == "kept\n", "this kernel has no such sockets"
        path = f"/run/netns/{box.name}"
        answer = daemon.request("POST", "/v1/sandboxes", {"id": "box", "attachment": {"netns": path}})
        assert answer.status == 422 and f"somebody has {name} open" in answer.json["message"], answer
        assert daemon.request("GET", "/v1/sandboxes/box").status == 404
        assert "sandgate" not in box.check("nft", "list", "ruleset")
        attach(daemon, box, allowing(plan.ALLOWED), acceptRawSockets=True)
        if family == socket.AF_PACKET:
            with internet.capture(unenforced=True) as outside:
                child.stdin.write("past the rules\n")
                child.stdin.flush()
                assert child.stdout.readline() == "sent\n"
            assert b"past the rules" in outside.payload, "what a socket from before sends is not held by the rules"
    finally:
        child.kill()
        child.communicate()


def test_attaching_twice(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    path = f"/run/netns/{box.name}"

    def create(**fields: object) -> Answer:
        body = {"id": "box", "attachment": {"netns": path}, "networkPolicy": allowing(plan.ALLOWED)}
        return daemon.request("POST", "/v1/sandboxes", body | fields)

    first, second = create(), create()
    assert (first.status, second.status) == (201, 200) and first.json == second.json
    assert create(id="other").status == 409
    assert create(attachment={"create": True}).status == 409
    assert create(networkPolicy={}).status == 409
    assert [item["id"] for item in daemon.request("GET", "/v1/sandboxes").json["items"]] == ["box"]


@pytest.mark.attack("T6", "has another daemon take the namespace over", stopped_by="start")
def test_namespace_that_somebody_else_guards(internet: Internet, daemon: Daemon, tmp_path: Path) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED))
    directory = tmp_path / "second"
    directory.mkdir()
    with running(internet, directory) as second:
        answer = second.request("POST", "/v1/sandboxes", {"attachment": {"netns": sandbox.namespace}})
        assert answer.status == 409 and "another process" in answer.json["message"], answer
        assert second.request("GET", "/v1/sandboxes").json["items"] == []
    assert sandbox.reaches(plan.ALLOWED)


MALFORMED: dict[str, tuple[dict[str, object], str]] = {
    "no attachment": ({}, "attachment"),
    "two attachments": ({"attachment": {"create": True, "pid": 1}}, "attachment"),
    "unknown attachment": ({"attachment": {"vm": "x"}}, "attachment.vm"),
    "relative path": ({"attachment": {"netns": "run/x"}}, "attachment.netns"),
    "no process": ({"attachment": {"pid": 0}}, "attachment.pid"),
    "id": ({"id": "../x", "attachment": {"create": True}}, "id"),
    "timeout": ({"timeout": 0, "attachment": {"create": True}}, "timeout"),
    "past": ({"expiresAt": "2001-01-01T00:00:00Z", "attachment": {"create": True}}, "expiresAt"),
    "metadata": ({"metadata": {"a": 1}, "attachment": {"create": True}}, "metadata.a"),
    "inbound": ({"attachment": {"pid": 7, "inbound": "some"}}, "attachment.inbound"),
    "rule": (
        {"networkPolicy": {"egress": [{"action": "allow", "target": "*"}]}, "attachment": {"create": True}},
        "networkPolicy.egress[0].target",
    ),
    "unknown key": (
        {"networkPolicy": {"egres": []}, "attachment": {"create": True}},
        "networkPolicy.egres",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_request(internet: Internet, daemon: Daemon, case: str) -> None:
    body, path = MALFORMED[case]
    answer = daemon.request("POST", "/v1/sandboxes", body)
    assert answer.status == 400 and path in [detail["path"] for detail in answer.json["details"]], answer
    assert daemon.request("GET", "/v1/sandboxes?state=all").json["items"] == []


@pytest.mark.parametrize(
    "attachment",
    [{"netns": "/run/netns/absent"}, {"netns": "/etc/passwd"}, {"pid": 2**22 - 1}, {"pid": 1}, {"container": "absent"}],
    ids=str,
)
def test_namespace_that_cannot_be_had(internet: Internet, daemon: Daemon, attachment: dict[str, object]) -> None:
    answer = daemon.request("POST", "/v1/sandboxes", {"attachment": attachment})
    assert answer.status == 422 and answer.json["details"], answer
    assert daemon.request("GET", "/v1/sandboxes?state=all").json["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/sandboxes/absent", 404),
        ("DELETE", "/v1/sandboxes/absent", 204),
        ("POST", "/v1/sandboxes/absent/pause", 404),
        ("GET", "/v1/sandboxes/absent/policy", 404),
        ("GET", "/nothing", 404),
        ("GET", "/v1/sandboxes?limit=0", 400),
        ("GET", "/v1/sandboxes?state=sleeping", 400),
        ("GET", "/v1/audit?since=tomorrow", 400),
        ("POST", "/v1/sandboxes", 400),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
    ],
)
def test_status(internet: Internet, daemon: Daemon, method: str, path: str, status: int) -> None:
    answer = daemon.request(method, path)
    assert answer.status == status, answer
    if status >= 400:
        assert answer.json.keys() == {"code", "message", "details"}


# Life


@pytest.mark.attack("T4 B4", "keeps a connection and a pinned address through a pause", stopped_by="kernel")
def test_pause_and_resume(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED))
    assert sandbox.reaches(plan.ALLOWED)
    live = sandbox.start("openssl", "s_client", "-quiet", "-connect", f"{plan.ALLOWED}:443", "-servername", plan.ALLOWED)
    wait_until(lambda: len(_connections(daemon, sandbox)) == 2, "the connection")
    assert sandbox.ask("POST", "/pause").json["status"]["state"] == "Paused"
    live.communicate(timeout=10)
    pinned = ("--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
    assert not sandbox.reaches(plan.ALLOWED) and not sandbox.reaches(plan.ALLOWED, *pinned)
    assert sandbox.ask("POST", "/pause").status == 200
    assert sandbox.ask("POST", "/resume").json["status"]["state"] == "Running"
    # The pins were kept: no name is looked up.
    internet.forget()
    assert sandbox.reaches(plan.ALLOWED, *pinned)
    assert internet.dns.queries() == []


def _connections(daemon: Daemon, sandbox: Sandbox) -> list[dict[str, object]]:
    return [record for record in daemon.records(sandbox=sandbox.id) if record["event"] == "connection.allowed"]


@pytest.mark.attack("N9", "uses a pinned address after its sandbox has expired", stopped_by="kernel")
def test_expiry(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED), id="short", timeout=2)
    assert sandbox.reaches(plan.ALLOWED)
    sandbox.wait_for("Terminated")
    assert not sandbox.reaches(plan.ALLOWED, "--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
    assert daemon.request("GET", "/v1/sandboxes").json["items"] == []
    assert [item["id"] for item in daemon.request("GET", "/v1/sandboxes?state=all").json["items"]] == ["short"]
    for action in ("/pause", "/resume", "/renew-expiration"):
        body = {"expiresAt": "2099-01-01T00:00:00Z"} if action == "/renew-expiration" else None
        assert sandbox.ask("POST", action, body).status == 409
    assert sandbox.ask("PUT", "/policy", allowing(plan.DENIED)).status == 409
    assert sandbox.ask("DELETE").status == 204
    assert sandbox.ask("DELETE").status == 204
    assert sandbox.ask("GET").status == 404
    assert not Path(sandbox.namespace).exists()


@pytest.mark.attack("N9", "uses a pinned address after it has expired, while the daemon waits for the disk", stopped_by="kernel")
def test_expiry_waits_for_no_other(internet: Internet, daemon: Daemon) -> None:
    """One that cannot expire yet, as a change to it waits for a disk that hangs, keeps no other one open, nor itself."""
    busy = daemon.create(allowing(plan.ALLOWED), id="busy", timeout=4)
    sandbox = daemon.create(allowing(plan.ALLOWED), id="box", timeout=5)
    assert busy.reaches(plan.ALLOWED) and sandbox.reaches(plan.ALLOWED)
    pinned = ("--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
    with hanging(daemon, busy):
        sandbox.wait_for("Terminated")
        assert not sandbox.reaches(plan.ALLOWED, *pinned)
        assert busy.state == "Running"
        wait_until(lambda: not busy.reaches(plan.ALLOWED, *pinned), "the door to be closed")
    busy.wait_for("Terminated")
    assert [record["event"] for record in daemon.records(sandbox="busy")].count("sandbox.expired") == 1


@contextlib.contextmanager
def _disk(directory: Path) -> Iterator[None]:
    """Gives a directory a file system of its own."""
    directory.mkdir()
    image = directory.with_suffix(".image")
    image.touch()
    os.truncate(image, 32 << 20)
    check("mkfs.ext4", "-q", image)
    check("mount", "-o", "loop", image, directory)
    try:
        yield
    finally:
        check("umount", directory)


@contextlib.contextmanager
def _frozen(directory: Path) -> Iterator[None]:
    """Has what is written to a file system wait."""
    check("fsfreeze", "--freeze", directory)
    try:
        yield
    finally:
        check("fsfreeze", "--unfreeze", directory)


def test_renewal_that_waits_for_the_disk(internet: Internet, tmp_path: Path) -> None:
    """It was asked for in time: what was closed meanwhile opens again."""
    with _disk(tmp_path / "state"), running(internet, tmp_path) as daemon:
        sandbox = daemon.create(allowing(plan.ALLOWED), id="box", timeout=5)
        assert sandbox.reaches(plan.ALLOWED)
        pinned = ("--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
        answers: list[Answer] = []
        body = {"expiresAt": "2099-01-01T00:00:00Z"}
        renewal = threading.Thread(target=lambda: answers.append(sandbox.ask("POST", "/renew-expiration", body)))
        with _frozen(tmp_path / "state"):
            renewal.start()
            wait_until(lambda: not sandbox.reaches(plan.ALLOWED, *pinned), "the door to be closed", 20)
            assert not answers, answers
        renewal.join()
        assert [answer.status for answer in answers] == [200], answers
        wait_until(lambda: sandbox.reaches(plan.ALLOWED, *pinned), "the door to be open again")
        assert sandbox.state == "Running"


@pytest.mark.attack("N9", "uses a pinned address after it has expired, while its beginning waits for the audit's disk", stopped_by="kernel")
def test_beginning_that_waits_for_the_audit(internet: Internet, tmp_path: Path) -> None:
    with _disk(tmp_path / "audit"), running(internet, tmp_path) as daemon:
        sandbox = Sandbox(daemon, "box", str(tmp_path / "run" / "netns" / "box"))
        body = {"id": "box", "attachment": {"create": True}, "networkPolicy": allowing(plan.ALLOWED), "timeout": 6}
        beginning = threading.Thread(target=lambda: daemon.request("POST", "/v1/sandboxes", body))
        pinned = ("--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
        with _frozen(tmp_path / "audit"):
            beginning.start()
            wait_until(lambda: Path(sandbox.namespace).exists() and sandbox.reaches(plan.ALLOWED), "the door to be open")
            assert beginning.is_alive()
            wait_until(lambda: not sandbox.reaches(plan.ALLOWED, *pinned), "the door to be closed", 20)
            assert beginning.is_alive()
        beginning.join()
        sandbox.wait_for("Terminated")


@pytest.mark.attack("N9", "uses a pinned address after it has expired, while it is tried again and the disk hangs", stopped_by="kernel")
def test_retry_that_waits_for_the_disk(internet: Internet, box: Namespace, tmp_path: Path) -> None:
    with _disk(tmp_path / "state"), running(internet, tmp_path) as daemon:
        sandbox = daemon.create(allowing(plan.ALLOWED), id="box", attachment=attachment(box), timeout=8)
        box.check("nft", "add table ip others")
        sandbox.wait_for("Failed")
        wait_until(lambda: "ruleset-changed" in daemon.record("box").read_text(), "the record")
        retry = threading.Thread(target=lambda: sandbox.ask("POST", "/retry"))
        pinned = ("--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
        with _frozen(tmp_path / "state"):
            retry.start()
            wait_until(lambda: sandbox.reaches(plan.ALLOWED), "the door to be open")
            wait_until(lambda: not sandbox.reaches(plan.ALLOWED, *pinned), "the door to be closed", 20)
            assert retry.is_alive()
        retry.join()
        sandbox.wait_for("Terminated")


def test_renewal(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED), timeout=2)
    answer = sandbox.ask("POST", "/renew-expiration", {"expiresAt": "2099-01-01T00:00:00Z"})
    assert answer.status == 200 and answer.json["expiresAt"].startswith("2099-01-01T00:00:00")
    short = daemon.create(allowing(plan.ALLOWED), timeout=3)
    short.wait_for("Terminated")
    assert sandbox.state == "Running" and sandbox.reaches(plan.ALLOWED)
    assert sandbox.ask("POST", "/renew-expiration", {"expiresAt": "2001-01-01T00:00:00Z"}).status == 400
    assert sandbox.ask("POST", "/renew-expiration", {}).status == 400


# Policies


@pytest.mark.attack(
    "N9 T4", "uses pinned addresses of names that each change of policy takes away", stopped_by="kernel, tls-sni"
)
def test_policy_is_changed(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED))
    assert sandbox.reaches(plan.ALLOWED)
    answer = sandbox.ask("PUT", "/policy", allowing(plan.DENIED))
    assert answer.status == 200 and answer.json["revision"] == 2 and answer.headers["etag"] == '"2"'
    pinned = ("--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
    assert sandbox.reaches(plan.DENIED) and not sandbox.reaches(plan.ALLOWED, *pinned)
    answer = sandbox.ask("PATCH", "/policy", [{"action": "allow", "target": plan.ALLOWED}])
    assert [rule["target"] for rule in answer.json["policy"]["egress"]] == [plan.ALLOWED, plan.DENIED]
    assert sandbox.reaches(plan.ALLOWED)
    answer = sandbox.ask("PATCH", "/policy", [{"action": "deny", "target": plan.ALLOWED}])
    assert [rule["action"] for rule in answer.json["policy"]["egress"]] == ["deny", "allow"]
    assert not sandbox.reaches(plan.ALLOWED)
    answer = sandbox.ask("DELETE", "/policy", [plan.ALLOWED, "absent.example"])
    assert [rule["target"] for rule in answer.json["policy"]["egress"]] == [plan.DENIED]
    assert sandbox.ask("POST", "/policy").json["mode"] == "deny_all"
    assert not sandbox.reaches(plan.DENIED)
    revisions = [record["policyRevision"] for record in daemon.records() if record["event"] == "policy.changed"]
    assert revisions == [2, 3, 4, 5, 6]


def test_stale_change_is_refused(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED))
    tag = sandbox.ask("GET", "/policy").headers["etag"]
    assert sandbox.ask("PUT", "/policy", {}, If_Match=tag).status == 200
    answer = sandbox.ask("PUT", "/policy", allowing(plan.DENIED), If_Match=tag)
    assert answer.status == 412 and answer.json["code"] == "stale", answer
    assert sandbox.ask("GET", "/policy").json["mode"] == "deny_all"
    assert sandbox.ask("PUT", "/policy", allowing(plan.DENIED), If_Match="*").status == 200
    assert sandbox.ask("PUT", "/policy", {}, If_Match="yesterday").status == 400


@pytest.mark.attack("T4", "has a malformed policy posted, to be left with none", stopped_by="control API")
def test_malformed_policy_changes_nothing(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED))
    bodies: dict[str, object] = {"PUT": {"egress": [{"action": "allow"}]}, "PATCH": {"action": "allow"}, "DELETE": [1]}
    for method, body in bodies.items():
        answer = sandbox.ask(method, "/policy", body)
        assert answer.status == 400 and answer.json["details"], answer
    assert sandbox.ask("GET", "/policy").json["revision"] == 1
    assert sandbox.reaches(plan.ALLOWED)


@pytest.mark.attack(
    "N9 B4 T9",
    "keeps a connection whose rule a change takes away, beside one that stays allowed",
    stopped_by="tls-sni, kernel",
)
def test_change_ends_what_it_no_longer_allows(internet: Internet, daemon: Daemon) -> None:
    """And leaves alone what it still allows."""
    sandbox = daemon.create(allowing(plan.ALLOWED, plan.DENIED))
    names = (plan.ALLOWED, plan.DENIED)
    live = {
        name: sandbox.start("openssl", "s_client", "-quiet", "-connect", f"{name}:443", "-servername", name)
        for name in names
    }
    wait_until(lambda: len(_connections(daemon, sandbox)) == 2, "both connections")
    assert sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED)).status == 200
    live[plan.DENIED].communicate(timeout=10)
    output, _ = live[plan.ALLOWED].communicate(f"GET / HTTP/1.0\r\nHost: {plan.ALLOWED}\r\n\r\n", timeout=10)
    assert f"served {plan.ALLOWED}" in output


def test_datagrams_once_a_policy_opens_them(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.SINK))
    before = daemon.descriptors
    command = after_resolving(plan.SINK, then=attack("packets", "udp", plan.SINK4, 4444, "hello"))
    assert "PermissionError" in sandbox.run(*command).stderr
    rule = {"target": plan.SINK, "protocol": "udp", "ports": [4444]}
    assert sandbox.ask("PUT", "/policy", allowing(rule)).status == 200
    assert "hello" in sandbox.run(*command).stdout and internet.sinks.data() == "hello"
    assert sandbox.ask("PUT", "/policy", allowing(plan.SINK)).status == 200
    assert "PermissionError" in sandbox.run(*command).stderr
    # Its sockets for datagrams stay; there is one set, however often a policy opens them.
    for policy in (allowing(rule), allowing(), allowing(rule)):
        assert sandbox.ask("PUT", "/policy", policy).status == 200
    assert daemon.descriptors <= before + 6
    daemon.restart()
    internet.forget()
    assert "hello" in sandbox.run(*command).stdout and internet.sinks.data() == "hello"


def test_questions_about_policies(internet: Internet, daemon: Daemon) -> None:
    good = daemon.request("POST", "/v1/policies/check", allowing(plan.ALLOWED)).json
    assert good["valid"] is True and good["problems"] == []
    bad = daemon.request("POST", "/v1/policies/check", {"egress": [{"action": "allow", "target": "*"}]}).json
    assert bad["valid"] is False and bad["problems"][0]["path"] == "egress[0].target"
    question = {"networkPolicy": allowing(plan.ALLOWED), "host": plan.ALLOWED}
    verdict = daemon.request("POST", "/v1/policies/explain", question).json
    assert verdict["verdict"] == "allow" and verdict["rule"]["target"] == plan.ALLOWED
    sandbox = daemon.create(allowing(plan.DENIED))
    other = {"sandbox": sandbox.id, "host": plan.ALLOWED, "port": 8443}
    assert daemon.request("POST", "/v1/policies/explain", other).json["verdict"] == "deny"
    change = {"sandbox": sandbox.id, "new": allowing({"target": plan.ALLOWED, "ports": [443]})}
    difference = daemon.request("POST", "/v1/policies/diff", change).json
    assert difference == {"opened": [f"tcp 443 {plan.ALLOWED}"], "closed": [f"tcp any port {plan.DENIED}"]}


def test_operators_rules(internet: Internet, tmp_path: Path) -> None:
    deny, allow, default = tmp_path / "deny.always", tmp_path / "allow.always", tmp_path / "default.yaml"
    deny.write_text("")
    allow.write_text(f"# everybody's\n{plan.ALLOWED}\n")
    default.write_text("egress: []\n")
    config = tmp_path / "config.yaml"
    config.write_text(f"denyAlways: {deny}\nallowAlways: {allow}\ndefaultPolicy: {default}\n")
    with running(internet, tmp_path, "--config", str(config)) as daemon:
        own, by_default = daemon.create(allowing(plan.DENIED)), daemon.create()
        assert own.reaches(plan.ALLOWED) and own.reaches(plan.DENIED)
        assert by_default.reaches(plan.ALLOWED) and not by_default.reaches(plan.DENIED)
        deny.write_text(f"{plan.DENIED}\n")
        wait_until(lambda: not own.reaches(plan.DENIED), "the file to be read", 20)
        # Replaced by another file, as editors do.
        other = tmp_path / "other"
        other.write_text("# nobody\n")
        other.rename(allow)
        default.write_text(f"egress: [{{action: allow, target: {plan.OTHER}}}]\n")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: by_default.reaches(plan.OTHER), "the default to be read", 20)
        wait_until(lambda: not own.reaches(plan.ALLOWED), "the replaced file to be read", 20)
        assert not own.reaches(plan.OTHER)
        # What cannot be read changes nothing.
        deny.write_text("*\n")
        wait_until(lambda: f"{deny}:1" in daemon.log, "the complaint", 20)
        assert by_default.reaches(plan.OTHER) and not own.reaches(plan.DENIED)


def test_operators_rules_wait_for_no_other(internet: Internet, tmp_path: Path) -> None:
    """Sandboxes that wait for the disk keep no other one from what is denied from now on, and later, and get it when they do not wait
    any more."""
    deny, config = tmp_path / "deny.always", tmp_path / "config.yaml"
    deny.write_text("")
    config.write_text(f"denyAlways: {deny}\n")
    with running(internet, tmp_path, "--config", str(config)) as daemon, contextlib.ExitStack() as stack:
        sandbox = daemon.create(allowing(plan.ALLOWED, plan.OTHER))
        assert sandbox.reaches(plan.ALLOWED) and sandbox.reaches(plan.OTHER)
        waiting = [daemon.create(allowing(plan.ALLOWED)) for _ in range(6)]
        assert waiting[0].reaches(plan.ALLOWED)
        for busy in waiting:
            stack.enter_context(hanging(daemon, busy))
        deny.write_text(f"{plan.ALLOWED}\n")
        wait_until(lambda: not sandbox.reaches(plan.ALLOWED), "the file to be read", 10)
        assert sandbox.reaches(plan.OTHER)
        deny.write_text(f"{plan.ALLOWED}\n{plan.OTHER}\n")
        wait_until(lambda: not sandbox.reaches(plan.OTHER), "the file to be read again", 10)
        assert "not in force yet in sandboxes that are busy (sandboxes: 6)" in daemon.log
        stack.close()
        wait_until(lambda: not waiting[0].reaches(plan.ALLOWED), "the rules where the disk was waited for", 10)
        assert {busy.state for busy in waiting} == {"Running"}


# Restarts


@pytest.mark.attack(
    "T4 T8 N9", "uses pinned addresses while the daemon is down, after a crash and after a stop", stopped_by="kernel"
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_restart(internet: Internet, daemon: Daemon, box: Namespace, number: signal.Signals) -> None:
    """Nothing acknowledged is lost, nothing passes in between, and pins are known by their names again."""
    made = daemon.create(allowing(plan.ALLOWED), id="made", metadata={"kept": "yes"})
    found = attach(daemon, box, allowing(plan.DENIED), acceptRawSockets=True)
    paused = daemon.create(allowing(plan.ALLOWED), id="paused")
    assert made.reaches(plan.ALLOWED) and found.reaches(plan.DENIED) and paused.reaches(plan.ALLOWED)
    paused.ask("POST", "/pause")
    made.ask("PATCH", "/policy", [{"action": "allow", "target": plan.GIT}])
    before = [made.ask("GET").json, found.ask("GET").json, paused.ask("GET").json]
    daemon.end(number)
    pinned = ("--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
    internet.forget()
    with internet.capture(f"net {plan.V4}.0/24", unenforced=True) as capture:
        assert not made.reaches(plan.ALLOWED, *pinned)
        assert not found.reaches(plan.DENIED, "--resolve", f"{plan.DENIED}:443:{plan.DENIED4}")
    assert [line for line in capture.lines if "10.78" in line] == [] and internet.web.requests() == []
    daemon.start()
    assert [made.ask("GET").json, found.ask("GET").json, paused.ask("GET").json] == before
    assert made.reaches(plan.ALLOWED, *pinned)
    assert found.reaches(plan.DENIED, "--resolve", f"{plan.DENIED}:443:{plan.DENIED4}")
    assert internet.dns.queries() == []
    assert not paused.reaches(plan.ALLOWED, *pinned)
    assert paused.ask("POST", "/resume").status == 200 and paused.reaches(plan.ALLOWED, *pinned)
    assert not made.reaches(plan.DENIED)
    chain = tool("audit", "--dir", daemon.audit, "--verify")
    assert chain.returncode == 0, chain


def test_end_while_a_request_hangs(internet: Internet, daemon: Daemon) -> None:
    """The disk is waited for, but not for ever; it is said what was waited for, and everything is closed."""
    sandbox, busy = daemon.create(allowing(plan.ALLOWED), id="box"), daemon.create(allowing(plan.ALLOWED), id="busy")
    assert sandbox.reaches(plan.ALLOWED) and busy.reaches(plan.ALLOWED)
    pinned = ("--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
    with hanging(daemon, busy, is_ended=True):
        assert daemon.end() == 1, daemon.log
        assert "(for: PUT /v1/sandboxes/busy/policy)" in daemon.log
        assert not sandbox.reaches(plan.ALLOWED, *pinned) and not busy.reaches(plan.ALLOWED, *pinned)
    daemon.start()
    assert sandbox.reaches(plan.ALLOWED, *pinned) and busy.reaches(plan.ALLOWED, *pinned)
    assert not busy.reaches(plan.OTHER), "what was not acknowledged is in force"
    assert tool("audit", "--dir", daemon.audit, "--verify").returncode == 0


@pytest.mark.slow
def test_end_while_the_audit_hangs(internet: Internet, tmp_path: Path) -> None:
    with _disk(tmp_path / "audit"), running(internet, tmp_path) as daemon:
        sandbox = daemon.create(allowing(plan.ALLOWED), id="box")
        assert daemon.process is not None
        with _frozen(tmp_path / "audit"):
            daemon.process.terminate()
            wait_until(lambda: "without having waited for the audit trail" in daemon.log, "the end", 40)
        # What waits for a disk like this ends when the disk goes on.
        assert daemon.process.wait(10) == 1
        assert not sandbox.reaches(plan.ALLOWED)
        daemon.start()
        assert sandbox.reaches(plan.ALLOWED)
        assert tool("audit", "--dir", daemon.audit, "--verify").returncode == 0


OCCUPANT = """
import socket, sys
listener = socket.create_server(("0.0.0.0", 64128))
print("there", flush=True)
sys.stdin.read()
"""


def test_retry_in_vain_is_forgotten_by_the_next_daemon(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """What was acknowledged is taken up when what was in the way is gone, whether somebody tried before or not."""
    sandbox = attach(daemon, box, allowing(plan.ALLOWED), acceptRawSockets=True)
    assert sandbox.reaches(plan.ALLOWED)
    daemon.end(signal.SIGKILL)
    occupant = sandbox.start("/usr/bin/python3", "-c", OCCUPANT)
    try:
        assert occupant.stdout is not None and occupant.stdout.readline() == "there\n"
        daemon.start()
        assert sandbox.state == "Failed"
        assert sandbox.ask("POST", "/retry").status == 503 and sandbox.state == "Failed"
    finally:
        occupant.kill()
        occupant.communicate()
    daemon.restart()
    assert sandbox.state == "Running" and sandbox.reaches(plan.ALLOWED)


@pytest.mark.attack("N9", "expires while no daemon runs", stopped_by="kernel")
def test_what_ended_while_no_daemon_ran(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    short = daemon.create(allowing(plan.ALLOWED), id="short", timeout=1)
    gone = attach(daemon, box, allowing(plan.ALLOWED))
    daemon.end(signal.SIGKILL)
    box.remove()
    time.sleep(1.1)  # the expiry is a point in time, and nobody is there to be awaited
    daemon.start()
    assert gone.ask("GET").status == 404
    short.wait_for("Terminated")
    assert not short.reaches(plan.ALLOWED)


@pytest.mark.attack(
    "N9", "expires while no daemon runs, and tries while the next one has not taken up the others", stopped_by="kernel"
)
def test_what_expired_is_not_served_by_the_next_daemon(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """Not for the moment that it takes to try what guards the others."""
    short = daemon.create(allowing(plan.ALLOWED), id="short", timeout=4)
    attach(daemon, box, allowing(plan.ALLOWED), acceptRawSockets=True)
    assert short.reaches(plan.ALLOWED)
    daemon.end(signal.SIGKILL)
    # The others' probes are not answered: that is noticed after a while.
    box.check("nft", "add table ip before { chain c { type filter hook output priority -1; ip daddr 169.254.169.254 drop; }; }")
    expiry = datetime.fromisoformat(json.loads(daemon.record("short").read_text())["expiresAt"])
    wait_until(lambda: datetime.now(UTC) > expiry, "the expiry")
    internet.forget()
    attempt = "while :; do curl -sS -m 1 -H 'Connection: close' --resolve $2 http://$1/; sleep 0.02; done"
    client = short.start("/bin/sh", "-c", attempt, "sh", plan.ALLOWED, f"{plan.ALLOWED}:80:{plan.SHARED4}")
    try:
        daemon.start()
        short.wait_for("Terminated")
    finally:
        client.kill()
        client.communicate()
    assert internet.web.requests() == []
    events = [record["event"] for record in daemon.records(sandbox="short")]
    assert events[-1] == "sandbox.expired" and events.count("sandbox.expired") == 1, events


@pytest.mark.attack("B4 T4", "keeps a connection across a crash of the daemon", stopped_by="kernel")
def test_tunnels_of_the_old_process_end(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED))
    live = sandbox.start("openssl", "s_client", "-quiet", "-connect", f"{plan.ALLOWED}:443", "-servername", plan.ALLOWED)
    wait_until(lambda: len(_connections(daemon, sandbox)) == 1, "the connection")
    daemon.restart()
    live.communicate(timeout=10)
    assert sandbox.reaches(plan.ALLOWED)


def test_large_policy_is_taken_up_again(internet: Internet, daemon: Daemon) -> None:
    """What was acknowledged is on the disk in a form that is read again: also what grew by and by."""
    rules = [{"target": f"host-{number}.some-domain.example"} for number in range(60_000)]
    sandbox = daemon.create(allowing(*rules, plan.ALLOWED), id="large")
    more = [{"action": "allow", "target": f"more-{number}.some-domain.example"} for number in range(30_000)]
    assert sandbox.ask("PATCH", "/policy", more).status == 200
    others = [{**rule, "target": f"other-{rule['target']}"} for rule in more]
    answer = sandbox.ask("PATCH", "/policy", others)
    assert answer.status == 422 and "at most 100000 are accepted" in answer.json["message"], answer
    before = sandbox.ask("GET").json
    daemon.restart()
    assert sandbox.ask("GET").json == before
    assert sandbox.reaches(plan.ALLOWED)


def test_two_daemons_do_not_share_a_state(internet: Internet, daemon: Daemon, tmp_path: Path) -> None:
    state = ("--state-dir", tmp_path / "state")
    rest = ("--runtime-dir", tmp_path / "x", "--audit-dir", tmp_path / "y", "--upstream-dns", plan.DNS4)
    other = tool("serve", "--socket", tmp_path / "other" / "api.sock", *state, *rest)
    assert other.returncode != 0 and "another process keeps its state" in other.stderr, other
    same = tool("serve", "--socket", daemon.socket, "--state-dir", tmp_path / "z", *rest)
    assert same.returncode != 0 and "another daemon serves there" in same.stderr, same


# Audit, access, commands


def test_records_as_they_happen(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED), id="watched")
    other = daemon.create(allowing(plan.ALLOWED))
    stream = daemon.events("/v1/audit/stream?sandbox=watched&verdict=deny")
    assert next(stream) is None
    other.fetch(plan.DENIED)
    sandbox.fetch(plan.DENIED)
    record = next(stream)
    assert (record["sandbox"], record["event"], record["host"]) == ("watched", "dns.denied", plan.DENIED)
    stream.close()  # type: ignore[attr-defined]
    first = daemon.records(sandbox="watched")[0]["seq"]
    resumed = daemon.events("/v1/audit/stream?sandbox=watched&verdict=deny", {"Last-Event-ID": str(first)})
    assert next(resumed) is None
    assert next(resumed) == record


def test_audit_is_read_in_pages(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing())
    for number in range(7):
        sandbox.run("getent", "hosts", f"name{number}.example")
    seen: list[str] = []
    cursor = ""
    while True:
        page = daemon.request("GET", f"/v1/audit?verdict=deny&limit=3{cursor}").json
        seen += [record["host"] for record in page["items"]]
        if "nextCursor" not in page:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert list(dict.fromkeys(seen)) == [f"name{number}.example" for number in range(7)]


def test_metrics(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED))
    sandbox.fetch(plan.ALLOWED)
    sandbox.fetch(plan.DENIED)
    answer = daemon.request("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = daemon.metrics()
    assert samples['sandgate_sandboxes{state="Running"}'] == 1
    assert samples['sandgate_events_total{event="dns.denied",layer="dns",verdict="deny",reason="default"}'] > 0
    assert samples["sandgate_audit_lost_total"] == 0


def test_metrics_of_what_goes_on(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED))
    before = daemon.metrics()
    assert before["sandgate_pins"] == 0 and before['sandgate_connections{protocol="tcp"}'] == 0
    live = sandbox.start("openssl", "s_client", "-quiet", "-connect", f"{plan.ALLOWED}:443", "-servername", plan.ALLOWED)
    wait_until(lambda: daemon.metrics()['sandgate_connections{protocol="tcp"}'] == 1, "the connection")
    wait_until(lambda: daemon.metrics()["sandgate_audit_queue_records"] == 0, "the journal")
    assert daemon.metrics()["sandgate_pins"] > 0
    sandbox.ask("POST", "/pause")
    live.communicate(timeout=10)
    paused = daemon.metrics()
    assert paused['sandgate_connections{protocol="tcp"}'] == 0 and paused["sandgate_pins"] > 0


def test_latencies(internet: Internet, daemon: Daemon) -> None:
    first, second = daemon.create(allowing(plan.ALLOWED)), daemon.create(allowing(plan.ALLOWED))
    for sandbox in (first, second):
        assert sandbox.reaches(plan.ALLOWED, "-4") and sandbox.reaches(plan.ALLOWED, "-4")
        assert not sandbox.reaches(plan.DENIED, "-4")
    samples = daemon.metrics()
    answers = {
        outcome: samples[f'sandgate_dns_answer_seconds_count{{outcome="{outcome}"}}']
        for outcome in ("upstream", "cached", "refused", "failed", "local")
    }
    assert min(answers["upstream"], answers["cached"], answers["refused"]) >= 2, answers
    assert answers["failed"] == answers["local"] == 0
    assert samples["sandgate_pin_seconds_count"] >= 2
    assert samples["sandgate_connect_seconds_count"] == 4
    # A connection waits for its first server once, whatever it asks for afterwards.
    url = f"http://{plan.ALLOWED}/"
    assert first.run("curl", "-sS", url, url).stdout.count(f"served {plan.ALLOWED}") == 2
    samples = daemon.metrics()
    assert samples["sandgate_connect_seconds_count"] == 5
    # Of sandboxes that are gone too: a counter never goes back.
    assert first.ask("DELETE").status == 204
    after = daemon.metrics()
    for name, value in samples.items():
        if name.startswith(("sandgate_dns_answer_seconds", "sandgate_pin_seconds", "sandgate_connect_seconds")):
            assert after[name] >= value
    for name, labels in (("dns_answer", 'outcome="cached",'), ("pin", ""), ("connect", "")):
        start = f"sandgate_{name}_seconds_bucket{{{labels}le="
        buckets = [value for sample, value in after.items() if sample.startswith(start)]
        total = f"sandgate_{name}_seconds_count" + (f"{{{labels[:-1]}}}" if labels else "")
        assert len(buckets) == 18 and buckets == sorted(buckets) and buckets[-1] == after[total], name
        assert after[total.replace("_count", "_sum")] < 10 * after[total]
    assert first.id not in daemon.request("GET", "/metrics").text


@pytest.mark.attack(
    "T2", "asks the daemon's API without a token, with a wrong one, or with one for reading", stopped_by="control API"
)
def test_tokens(internet: Internet, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("full-token-of-sixteen\nread-token-of-sixteen read-only\n")
    address = "127.0.0.1:64480"
    with running(internet, tmp_path, "--listen", address, "--token-file", str(tokens)) as daemon:
        daemon.create(allowing(plan.ALLOWED), id="box")

        def status(token: str | None, method: str, path: str) -> str:
            header = ["-H", f"Authorization: Bearer {token}"] if token else []
            command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, *header]
            return check(*command, f"http://{address}{path}")

        assert status(None, "GET", "/v1/sandboxes") == "401"
        assert status("wrong-token-of-sixteen", "GET", "/v1/sandboxes") == "401"
        assert status(None, "GET", "/healthz") == "200"
        assert status("read-token-of-sixteen", "GET", "/v1/sandboxes/box") == "200"
        assert status("read-token-of-sixteen", "POST", "/v1/sandboxes/box/pause") == "403"
        assert status("read-token-of-sixteen", "DELETE", "/v1/sandboxes/box") == "403"
        assert status("full-token-of-sixteen", "POST", "/v1/sandboxes/box/pause") == "200"
    none = tool("serve", "--socket", tmp_path / "s" / "api.sock", "--state-dir", tmp_path / "q", "--listen", address)
    assert none.returncode != 0 and "--token-file" in none.stderr, none


@pytest.mark.attack("T2", "opens the API's socket, the records or the state as another user", stopped_by="control API")
def test_socket_is_its_owners(internet: Internet, daemon: Daemon) -> None:
    assert daemon.socket.stat().st_mode & 0o777 == 0o600
    assert daemon.socket.parent.stat().st_mode & 0o777 == 0o700
    for path in (daemon.audit, daemon.directory / "state"):
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.attack(
    "T2",
    "asks the daemon for its own release, as root who sees the API's socket, from three kinds of namespaces",
    stopped_by="control API",
)
def test_sandboxes_cannot_ask_for_their_release(internet: Internet, daemon: Daemon) -> None:
    """Root in a sandbox that shares the node's file system could open the socket."""
    sandbox = daemon.create(allowing(plan.ALLOWED))
    release = ["curl", "-sS", "-X", "DELETE", "--unix-socket", str(daemon.socket), f"http://localhost{sandbox.path}"]
    for command in (release, ["unshare", "--net", *release], ["unshare", "--user", "--net", *release]):
        answer = sandbox.run(*command)
        assert "foreign-network" in answer.stdout, answer
    assert sandbox.state == "Running"
    assert subprocess.run(release, capture_output=True, text=True).stdout == ""
    sandbox.wait_for("gone")


def test_commands(internet: Internet, daemon: Daemon, box: Namespace, tmp_path: Path) -> None:
    at = ("--socket", daemon.socket)
    policy = tmp_path / "policy.yaml"
    rule = f"{{action: allow, target: {plan.ALLOWED}, ports: [443, 8000-8100], protocol: tcp, expiresAt: 2099-01-01T00:00:00Z}}"
    policy.write_text(f"networkPolicy:\n  mode: report\n  egress:\n    - {rule}\n    - {{action: deny, target: {plan.DENIED}}}\n")
    attached = tool("attach", *at, "--netns", f"/run/netns/{box.name}", "--policy", policy, "--id", "box")
    assert (attached.returncode, attached.stdout) == (0, "box\n"), attached
    listed = tool("ps", *at)
    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:]] == [["box", "Running"]], listed
    shown = tool("inspect", *at, "box")
    assert f"\n  allow {plan.ALLOWED}, ports 443, 8000-8100, tcp, until 2099-01-01T00:00:00Z\n" in shown.stdout, shown
    assert f"\n  deny {plan.DENIED}\n" in shown.stdout and "default deny, mode report\n" in shown.stdout, shown
    assert tool("detach", *at, "box").returncode == 0
    missing = tool("inspect", *at, "box")
    assert missing.returncode == 1 and "there is no sandbox box" in missing.stderr, missing
    again = tool("attach", *at, "--netns", "/run/netns/absent")
    assert again.returncode == 1 and "attachment" in again.stderr and "No such file" in again.stderr, again
    daemon.end()
    nobody = tool("ps", *at)
    assert nobody.returncode == 1 and "no daemon at" in nobody.stderr, nobody


def test_thousands_that_expired_while_no_daemon_ran(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    """The next daemon serves soon, without a thread for each; and they are listed, which are more than the API lists at once."""
    kept = daemon.create(allowing(plan.ALLOWED), id="kept")
    daemon.create(allowing(), id="sandbox-0", attachment=attachment(box), timeout=3600)
    daemon.end(signal.SIGKILL)
    record = json.loads(daemon.record("sandbox-0").read_text()) | {"expiresAt": "2020-01-01T00:00:00Z"}
    expected = [f"sandbox-{number}" for number in range(10_050)]
    for id in expected:
        daemon.record(id).write_text(json.dumps(record | {"id": id}))
    daemon.start()
    assert kept.reaches(plan.ALLOWED)
    assert len(os.listdir(f"/proc/{daemon.pid}/task")) < 100
    wait_until(lambda: len(tool("ps", "--socket", daemon.socket).stdout.splitlines()) == 2, "the end of all", 30)
    listed = tool("ps", "--all", "--socket", daemon.socket)
    found = [line.split()[:2] for line in listed.stdout.splitlines()[1:]]
    assert found == [["kept", "Running"], *([id, "Terminated"] for id in sorted(expected))], listed.stderr
    answer = json.loads(tool("ps", "--all", "--json", "--socket", daemon.socket).stdout)
    assert [item["id"] for item in answer["items"]] == ["kept", *sorted(expected)]
    assert [item["id"] for item in json.loads(tool("ps", "--json", "--socket", daemon.socket).stdout)["items"]] == ["kept"]


def test_configuration_is_documented(tmp_path: Path) -> None:
    printed = tool("serve", "--print-config")
    assert printed.returncode == 0
    config = tmp_path / "config.yaml"
    config.write_text(printed.stdout + "\nsokcet: /x\n")
    wrong = tool("serve", "--config", config)
    line = printed.stdout.count("\n") + 2
    assert wrong.returncode == 1 and f"{config}:{line}: sokcet: unknown option" in wrong.stderr, wrong
    assert wrong.stderr.endswith("; did you mean socket?\n")
    config.write_text("tlsCertficate: /x\n")
    assert tool("serve", "--config", config).stderr.endswith("; did you mean tlsCertificate?\n")
