"""A daemon that is replaced under way: traffic goes on in the next process, judged by the policies that are in force there."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import plan
from lab.asker import Asker
from lab.daemon import Daemon, Sandbox, attachment, hanging, running
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.processes import wait_until
from lab.retrying import Retrying, second_hello
from lab.sandgate import allowing
from lab.tool import tool

SLOW_SERVER = """
import hashlib, socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
connection, _ = listener.accept()
print("accepted", flush=True)
sys.stdin.readline()
digest = hashlib.sha256()
while piece := connection.recv(1 << 16):
    digest.update(piece)
print(digest.hexdigest(), flush=True)
connection.sendall(b"got all")
"""
"""Reads nothing before it is told to."""


COUNTING_SERVER = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
connection, _ = listener.accept()
count = len(connection.recv(1))
print("receiving", flush=True)
while piece := connection.recv(1 << 16):
    count += len(piece)
connection.sendall(b"got all")
print(count, flush=True)
"""
"""Says when the first byte has come, and in the end how many did."""


@pytest.fixture
def deny_always(tmp_path: Path) -> Path:
    path = tmp_path / "deny.always"
    path.touch()
    return path


@pytest.fixture
def daemon(internet: Internet, tmp_path: Path, deny_always: Path) -> Iterator[Daemon]:
    configuration = tmp_path / "configuration.yaml"
    configuration.write_text(f"denyAlways: {deny_always}\n")
    with running(internet, tmp_path, "--config", str(configuration)) as made:
        yield made


@pytest.fixture
def retrying(internet: Internet, tmp_path: Path) -> Iterator[Retrying]:
    made = Retrying(internet, tmp_path)
    yield made
    made.stop()


def asker(sandbox: Sandbox, name: str) -> Asker:
    return Asker(sandbox.start(*Asker.command(name)))


@pytest.mark.honest("a download of a gibibyte across three hot restarts")
def test_download_goes_on(internet: Internet, daemon: Daemon) -> None:
    """A gibibyte, while the daemon is replaced three times: every byte arrives once."""
    sandbox = daemon.create(allowing(plan.FILES), id="box")
    command = f"curl -sS -m 120 https://{plan.FILES}/big.bin"
    download = sandbox.start("/bin/bash", "-c", f"set -o pipefail; {command} | tee >(wc -c >&2) | sha256sum")
    for _ in range(3):
        wait_until(lambda: sandbox.ask("GET", "/activity").json["connections"] == 1, "the download")
        daemon.hand_over()
    output, _ = download.communicate(timeout=120)
    assert download.returncode == 0 and internet.content.big_file_digest in output, output
    closed = [record for record in daemon.records(sandbox="box") if record["event"] == "connection.closed"]
    assert len(closed) == 1 and closed[0]["bytesDown"] > 1 << 30 and closed[0]["host"] == plan.FILES, closed
    assert [request.host for request in internet.web.requests()] == [plan.FILES]
    assert tool("audit", "--dir", daemon.audit, "--verify").returncode == 0


def shaking_hands(retrying: Retrying, daemon: Daemon, sandbox: Sandbox, second: str, moment: str) -> str:
    """What a client says whose daemon is replaced before its server has answered, or between its two hellos."""
    assert sandbox.run("getent", "ahostsv4", plan.SINK).returncode == 0
    with retrying.stopped() if moment == "unanswered" else contextlib.nullcontext():
        client = sandbox.start(*second_hello(second, *(["--waits"] if moment == "asked" else [])))
        if moment == "asked":
            assert client.stdout is not None and client.stdout.readline() == "asked\n"
        wait_until(lambda: any(one["bytesUp"] for one in sandbox.ask("GET", "/connections").json["items"]), "the hello")
        daemon.hand_over()
    return client.communicate("go on\n", timeout=30)[0]


@pytest.mark.honest("a TLS handshake across a hot restart")
@pytest.mark.parametrize("moment", ["unanswered", "asked"])
def test_handshake_goes_on(retrying: Retrying, daemon: Daemon, moment: str) -> None:
    """It is held to its first hello until its server has answered that."""
    sandbox = daemon.create(allowing(plan.SINK), id="box")
    assert f"served {plan.SINK}" in shaking_hands(retrying, daemon, sandbox, plan.SINK, moment)
    assert retrying.names() == [plan.SINK] * 2


@pytest.mark.attack(
    "P1 N3", "names another server in the second ClientHello, when the daemon was replaced after the first", stopped_by="tls-sni"
)
@pytest.mark.parametrize("moment", ["unanswered", "asked"])
def test_second_hello_after_a_restart(
    internet: Internet, retrying: Retrying, daemon: Daemon, moment: str
) -> None:
    without = internet.unenforced(second_hello(plan.OTHER))
    assert f"served {plan.OTHER}" in without.stdout and retrying.names() == [plan.SINK, plan.OTHER], without
    sandbox = daemon.create(allowing(plan.SINK), id="box")
    said = shaking_hands(retrying, daemon, sandbox, plan.OTHER, moment)
    assert "shook hands" not in said and retrying.names() == [plan.SINK], said
    assert daemon.records(sandbox="box", verdict="deny")[0]["host"] == plan.OTHER


@dataclasses.dataclass
class Upload:
    """24 MiB for a server that reads nothing before it is told to."""

    digest: str
    client: subprocess.Popen[str]
    server: subprocess.Popen[str]


@contextlib.contextmanager
def stuck_upload(internet: Internet, daemon: Daemon, sandbox: Sandbox, file: Path) -> Iterator[Upload]:
    """An upload from a sandbox that may reach plan.SINK4, with bytes in the daemon that it cannot get rid of."""
    server = subprocess.Popen(
        internet.namespace.command("/usr/bin/python3", "-c", SLOW_SERVER, plan.SINK4, "4445"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None and server.stdout.readline() == "listening\n"
        payload = os.urandom(24 << 20)
        file.write_bytes(payload)
        client = sandbox.start("/bin/bash", "-c", f"exec nc -N -w 60 {plan.SINK4} 4445 <{file}")
        assert server.stdout.readline() == "accepted\n"
        # Both sockets and the pipe between them are full when nothing moves any more.
        wait_until(lambda: _waiting_in(daemon) > 0, "bytes in the daemon's pipe")
        yield Upload(hashlib.sha256(payload).hexdigest(), client, server)
    finally:
        server.kill()
        server.wait()


def to_sink(*targets: str) -> dict[str, Any]:
    return allowing({"target": plan.SINK4, "ports": [4445]}, *targets)


@pytest.mark.honest("an upload across a hot restart")
def test_upload_goes_on(internet: Internet, daemon: Daemon, tmp_path: Path) -> None:
    """Bytes that wait in the daemon because the server does not take them are not lost."""
    sandbox = daemon.create(to_sink(), id="box")
    with stuck_upload(internet, daemon, sandbox, tmp_path / "payload") as upload:
        daemon.hand_over()
        output, _ = upload.server.communicate("read\n", timeout=60)
        assert upload.digest in output
        assert upload.client.communicate(timeout=60)[0] == "got all"


@pytest.mark.attack(
    "B3 T4",
    "has bytes on their way when its daemon is replaced, and is gone before the next one begins, which ends by it",
    stopped_by="limits",
)
def test_upload_of_a_sandbox_that_is_gone(
    internet: Internet, daemon: Daemon, box: Namespace, tmp_path: Path
) -> None:
    """Nobody goes on with its connections; those of others go on."""
    sandbox = daemon.create(to_sink(), id="box", attachment=attachment(box))
    client = asker(daemon.create(allowing(plan.ALLOWED), id="other"), plan.ALLOWED)
    try:
        before = client.ask()
        assert f"served {plan.ALLOWED}" in before
        with stuck_upload(internet, daemon, sandbox, tmp_path / "payload") as upload:
            kept = daemon.end_keeping()
            upload.client.kill()
            upload.client.communicate()
            box.remove()
            daemon.start(kept)
        assert client.ask() == before
        assert daemon.request("GET", sandbox.path).status == 404
    finally:
        client.end()


def _waiting_in(daemon: Daemon) -> int:
    """Bytes in the daemon's pipes."""
    total = 0
    for path in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if not os.readlink(path).startswith("pipe:"):
                continue
            # Opens the same pipe anew.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            try:
                total += struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0]
            finally:
                os.close(descriptor)
    return total


@pytest.mark.attack(
    "T4", "connects while one daemon has ended and the next has not begun", stopped_by="kernel, dns, tls-sni"
)
def test_connections_that_come_meanwhile_wait(internet: Internet, daemon: Daemon) -> None:
    """Nobody is there for a moment: what comes then is neither refused nor let through, and is judged afterwards."""
    sandbox = daemon.create(allowing(plan.ALLOWED), id="box")
    assert sandbox.reaches(plan.ALLOWED)
    internet.forget()
    kept = daemon.end_keeping()
    clients = {name: sandbox.start("curl", "-sS", "-m", "20", f"https://{name}/") for name in (plan.ALLOWED, plan.DENIED)}
    pinned = f"{plan.ALLOWED}:443:{plan.SHARED4}"
    clients["pinned"] = sandbox.start("curl", "-sS", "-m", "20", "--resolve", pinned, f"https://{plan.ALLOWED}/")
    with internet.capture(f"net {plan.V4}.0/24") as capture:
        wait_until(lambda: _waiting(sandbox, 64128) >= 1 and _waiting(sandbox, 64053) >= 1, "what waits")
    assert [line for line in capture.lines if f"{plan.SHARED4}.443" in line] == [] and internet.web.requests() == []
    daemon.start(kept)
    outputs = {name: client.communicate(timeout=30)[0] for name, client in clients.items()}
    assert f"served {plan.ALLOWED}" in outputs[plan.ALLOWED] and f"served {plan.ALLOWED}" in outputs["pinned"], outputs
    assert "Could not resolve" in outputs[plan.DENIED], outputs
    assert internet.web.hosts() == {plan.ALLOWED}


SENDER = """
import select, socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 60)
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
piece, sent = bytes(4), 0
while not select.select([sys.stdin], [], [], 0.0002)[0]:
    connection.sendall(piece)
    sent += len(piece)
connection.shutdown(socket.SHUT_WR)
assert connection.recv(16) == b"got all"
print(sent, flush=True)
"""
"""Sends a few bytes at a time, so that it never has to wait for room, until it is told that it is enough."""


@pytest.mark.honest("a trickle of bytes across hot restarts")
def test_trickle_goes_on(internet: Internet, daemon: Daemon) -> None:
    """At every moment of a restart something of it is on its way."""
    command = internet.namespace.command("/usr/bin/python3", "-c", COUNTING_SERVER, plan.SINK4, "4446")
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None and server.stdout.readline() == "listening\n"
        sandbox = daemon.create({"egress": [{"action": "allow", "target": plan.SINK4, "ports": [4446]}]}, id="box")
        sender = sandbox.start("/usr/bin/python3", "-c", SENDER, plan.SINK4, "4446")
        assert server.stdout.readline() == "receiving\n"
        for _ in range(5):
            daemon.hand_over()
        output, _ = sender.communicate("enough\n", timeout=60)
        assert sender.returncode == 0, output
        assert server.communicate(timeout=60)[0] == output
    finally:
        server.kill()
        server.wait()


def _waiting(sandbox: Sandbox, port: int) -> int:
    """How much waits in the sockets on a port: connections that nobody has accepted, bytes that nobody has read."""
    lines = sandbox.run("ss", "-Hlntu", "sport", "=", str(port)).stdout.splitlines()
    return sum(int(line.split()[2]) for line in lines)


@pytest.mark.attack("N9 B4", "keeps a connection across a hot restart with a narrower policy", stopped_by="tls-sni")
def test_policies_of_the_next_process_decide(internet: Internet, daemon: Daemon, deny_always: Path) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED, plan.OTHER), id="box")
    kept, ended = asker(sandbox, plan.ALLOWED), asker(sandbox, plan.OTHER)
    try:
        before = kept.ask()
        assert f"served {plan.ALLOWED}" in before and f"served {plan.OTHER}" in ended.ask()
        stash = daemon.end_keeping()
        deny_always.write_text(f"{plan.OTHER}\n")
        daemon.start(stash)
        assert kept.ask() == before
        assert ended.ask().startswith("Traceback")
        assert not sandbox.reaches(plan.OTHER)
        # What was taken over is still under policies.
        assert sandbox.ask("PUT", "/policy", {"egress": []}).status == 200
        assert kept.ask().startswith("Traceback")
        assert sandbox.ask("GET", "/activity").json["connections"] == 0
    finally:
        kept.end()
        ended.end()


@pytest.mark.honest("a connection across a hot restart, of a daemon of which a request waits for the disk")
def test_request_that_hangs(internet: Internet, daemon: Daemon) -> None:
    """It keeps nobody's traffic from being handed over."""
    sandbox, busy = daemon.create(allowing(plan.ALLOWED), id="box"), daemon.create(allowing(), id="busy")
    client = asker(sandbox, plan.ALLOWED)
    try:
        before = client.ask()
        assert plan.ALLOWED in before
        with hanging(daemon, busy, is_ended=True):
            kept = daemon.end_keeping(expected_status=1)
        daemon.start(kept)
        assert client.ask() == before, daemon.log
        assert busy.state == "Running"
    finally:
        client.end()


def by_hand_over(daemon: Daemon) -> None:
    daemon.hand_over()


def by_crash(daemon: Daemon) -> None:
    daemon.restart()


REPLACEMENTS = pytest.mark.parametrize("replace", [by_hand_over, by_crash], ids=["hot restart", "crash"])


@pytest.mark.honest("a client that keeps the address that a name shares with others, across a hot restart and a crash")
@REPLACEMENTS
def test_address_of_several_names(internet: Internet, daemon: Daemon, replace: Callable[[Daemon], None]) -> None:
    """As programs do that look a name up once. In the kernel's set stands the name that was looked up last."""
    names = (plan.ALLOWED, plan.ECH)
    sandbox = daemon.create(allowing(*names), id="box")
    assert all(sandbox.reaches(name) for name in names)
    replace(daemon)
    for name in names:
        for port, address in ((443, plan.SHARED4), (443, f"[{plan.SHARED6}]"), (80, plan.SHARED4)):
            url = f"{'http' if port == 80 else 'https'}://{name}/"
            said = sandbox.run("curl", "-sS", "-m", "10", "--resolve", f"{name}:{port}:{address}", url)
            assert f"served {name}" in said.stdout, (url, said)


@pytest.mark.attack(
    "N3",
    "says an allowed or a denied name at an address that was pinned for another one before its daemon was replaced",
    stopped_by="tls-sni",
)
@REPLACEMENTS
def test_other_names_at_an_address_from_before(
    internet: Internet, daemon: Daemon, replace: Callable[[Daemon], None]
) -> None:
    """An allowed one gets to its own address at most, whatever the client says."""
    sandbox = daemon.create(allowing(plan.ALLOWED, plan.FILES), id="box")
    assert sandbox.reaches(plan.ALLOWED) and sandbox.fetch(plan.FILES).returncode == 0
    replace(daemon)
    internet.forget()
    for name in (plan.OTHER, plan.DENIED):
        assert not sandbox.reaches(name, "--resolve", f"{name}:443:{plan.SHARED4}")
    assert internet.web.requests() == []
    with internet.capture(f"tcp and dst host {plan.SHARED4}") as outside:
        sandbox.fetch(plan.FILES, "--resolve", f"{plan.FILES}:443:{plan.SHARED4}")
    assert outside.lines == [], outside


@pytest.mark.attack("T4", "is paused across a hot restart", stopped_by="kernel")
def test_paused_sandbox_stays_paused(internet: Internet, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED), id="box")
    assert sandbox.reaches(plan.ALLOWED)
    sandbox.ask("POST", "/pause")
    daemon.hand_over()
    assert sandbox.state == "Paused" and not sandbox.reaches(plan.ALLOWED)
    assert sandbox.ask("POST", "/resume").status == 200 and sandbox.reaches(plan.ALLOWED)


@pytest.mark.attack("B4 T4", "keeps connections that the next daemon was not handed", stopped_by="kernel")
def test_what_nobody_takes_over_is_closed(internet: Internet, daemon: Daemon) -> None:
    """A manager that loses what it was given, or gives something else: sandboxes are taken up as after a crash."""
    sandbox = daemon.create(allowing(plan.ALLOWED), id="box")
    client = asker(sandbox, plan.ALLOWED)
    try:
        assert plan.ALLOWED in client.ask()
        os.close(daemon.end_keeping())
        assert client.ask().startswith("Traceback")
        daemon.start()
        assert sandbox.reaches(plan.ALLOWED)
        os.close(daemon.end_keeping())
        daemon.start(os.open("/dev/null", os.O_RDWR))
        assert "connections of the process before are lost" in daemon.log
        assert sandbox.reaches(plan.ALLOWED) and not sandbox.reaches(plan.DENIED)
    finally:
        client.end()


def test_process_that_cannot_serve_takes_nothing_over(internet: Internet, tmp_path: Path) -> None:
    """A mistake in its files is corrected, and the next process goes on with what was kept."""
    tokens = tmp_path / "tokens"
    good = "full-token-of-sixteen\n"
    tokens.write_text(good)
    with running(internet, tmp_path, "--listen", "127.0.0.1:64480", "--token-file", str(tokens)) as daemon:
        sandbox = daemon.create(allowing(plan.ALLOWED), id="box")
        client = asker(sandbox, plan.ALLOWED)
        try:
            before = client.ask()
            assert f"served {plan.ALLOWED}" in before
            kept = daemon.end_keeping()
            tokens.write_text("short\n")
            assert not daemon.tries_to_start(os.dup(kept))
            assert f"{tokens}: " in daemon.log
            tokens.write_text(good)
            daemon.start(kept)
            assert client.ask() == before, daemon.log
        finally:
            client.end()


@pytest.mark.honest("a connection across the attempt of a daemon whose port somebody else has")
def test_process_that_cannot_listen_hands_over(internet: Internet, tmp_path: Path) -> None:
    """That is known only when it listens, as the last thing; what it has taken over by then is for the next process."""
    tokens = tmp_path / "tokens"
    tokens.write_text("full-token-of-sixteen\n")
    with running(internet, tmp_path, "--listen", "127.0.0.1:64480", "--token-file", str(tokens)) as daemon:
        client = asker(daemon.create(allowing(plan.ALLOWED), id="box"), plan.ALLOWED)
        try:
            before = client.ask()
            assert f"served {plan.ALLOWED}" in before
            kept = daemon.end_keeping()
            with socket.create_server(("127.0.0.1", 64480)):
                daemon.launch(kept)
                (again,) = daemon.kept_at_its_end()
                assert daemon.process is not None and daemon.process.wait(1) == 1
                assert "cannot listen at 127.0.0.1:64480" in daemon.log
            daemon.start(again)
            assert client.ask() == before, daemon.log
        finally:
            client.end()


@pytest.mark.attack("B4 T4", "keeps a connection across a hot restart and a crash", stopped_by="kernel")
def test_crash_after_a_restart(internet: Internet, daemon: Daemon) -> None:
    """What was taken over is in nobody else's hands: a crash ends it as it ends everything."""
    sandbox = daemon.create(allowing(plan.ALLOWED), id="box")
    client = asker(sandbox, plan.ALLOWED)
    try:
        assert plan.ALLOWED in client.ask()
        daemon.hand_over()
        assert plan.ALLOWED in client.ask()
        daemon.end(signal.SIGKILL)
        assert client.ask().startswith("Traceback")
        assert not sandbox.reaches(plan.ALLOWED, "--resolve", f"{plan.ALLOWED}:443:{plan.SHARED4}")
        daemon.start()
        assert sandbox.reaches(plan.ALLOWED)
    finally:
        client.end()
