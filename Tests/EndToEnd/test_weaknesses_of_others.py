"""Ways around other enforcers, proxies and sandboxes that were published, where no other test has the same way.

The page "Weaknesses of others" says which were read, and which test answers each.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import dns.message
import pytest

from lab import plan
from lab.daemon import Daemon, attachment
from lab.internet import Internet
from lab.lenient import Lenient
from lab.namespaces import Namespace
from lab.processes import Child
from lab.retrying import Retrying, second_hello
from lab.sandgate import Sandgate, after_resolving, allowing, attack

PYTHON = "/usr/bin/python3"

# What comes before a ClientHello


@pytest.fixture
def lenient(internet: Internet, tmp_path: Path) -> Iterator[Lenient]:
    made = Lenient(internet, tmp_path)
    yield made
    made.stop()


@pytest.mark.attack(
    "P1 P2 N3",
    "says another name behind a TLS warning, which its server skips, on a port where what is not TLS goes by its address",
    stopped_by="tls-sni",
)
@pytest.mark.parametrize("way", ["transparent", "tunnel"])
def test_hello_behind_a_warning(internet: Internet, sandgate: Sandgate, lenient: Lenient, way: str) -> None:
    proxied = way == "tunnel"
    command = attack("hellos", plan.SINK4, Lenient.PORT, "behind a warning", plan.SINK, plan.OTHER)
    if proxied:
        command += ["--connect", f"{plan.SINK}:{Lenient.PORT}"]
    internet.unenforced(command, {"HTTPS_PROXY": plan.OPEN_PROXY} if proxied else None)
    assert lenient.names() == [plan.OTHER]

    with internet.capture(f"dst host {plan.SINK4}") as outside:
        run = sandgate.run(
            allowing(plan.SINK),
            *after_resolving(plan.SINK, then=command),
            options=["--proxy-env"] if proxied else [],
        )
    assert lenient.names() == [] and plan.OTHER.encode() not in outside.payload, run
    assert run.audit.denied("tls-sni", reason="malformed-hello", ip=plan.SINK4, port=Lenient.PORT), run


# A second ClientHello


@pytest.fixture
def retrying(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retrying]:
    made = Retrying(internet, tmp_path_factory.mktemp("retrying"))
    yield made
    made.stop()


@pytest.mark.attack(
    "P1 N3",
    "says an allowed name in its first ClientHello, and another in the second, which its server asks for and goes by",
    stopped_by="tls-sni",
)
@pytest.mark.parametrize("way", ["transparent", "tunnel"])
def test_second_hello(internet: Internet, sandgate: Sandgate, retrying: Retrying, way: str) -> None:
    proxied = way == "tunnel"
    command = second_hello(plan.OTHER, *(["--connect", f"{plan.SINK}:{Retrying.PORT}"] if proxied else []))
    without = internet.unenforced(command, {"HTTPS_PROXY": plan.OPEN_PROXY} if proxied else None)
    assert f"served {plan.OTHER}" in without.stdout, without
    assert retrying.names() == [plan.SINK, plan.OTHER]

    with internet.capture(f"dst host {plan.SINK4}") as outside:
        run = sandgate.run(
            allowing(plan.SINK),
            *after_resolving(plan.SINK, then=command),
            options=["--proxy-env"] if proxied else [],
        )
    assert "shook hands" not in run.stdout, run
    assert retrying.names() == [plan.SINK], run
    assert plan.OTHER.encode() not in outside.payload
    assert run.audit.denied("tls-sni", reason="name-address-mismatch", host=plan.OTHER, port=Retrying.PORT), run


def test_second_hello_in_report_mode(internet: Internet, sandgate: Sandgate, retrying: Retrying) -> None:
    policy = allowing(plan.SINK)
    run = sandgate.run(policy, *after_resolving(plan.SINK, then=second_hello(plan.OTHER)), options=["--report"])
    assert f"served {plan.OTHER}" in run.stdout, run
    assert run.audit.where(layer="tls-sni", host=plan.OTHER, reason="name-address-mismatch", report=True), run


@pytest.mark.attack(
    "P1 N9 B4",
    "keeps a connection whose second ClientHello report mode let pass with another name, when the policy is enforced",
    stopped_by="tls-sni",
)
def test_second_hello_that_report_mode_let_pass(retrying: Retrying, daemon: Daemon) -> None:
    sandbox = daemon.create(allowing(plan.SINK, mode="report"))
    assert sandbox.run("getent", "ahostsv4", plan.SINK).returncode == 0
    for mode in ("report", "enforce"):
        client = sandbox.start(*second_hello(plan.OTHER, "--again"))
        assert client.stdout is not None
        said = "".join(iter(client.stdout.readline, f"served {plan.OTHER}\n"))
        assert "shook hands" in said, said
        assert sandbox.ask("PUT", "/policy", allowing(plan.SINK, mode=mode)).status == 200
        said, _ = client.communicate("\n", timeout=30)
        assert (f"served {plan.OTHER}" in said) == (mode == "report"), said
    assert sandbox.ask("GET", "/activity").json["connections"] == 0


@pytest.mark.honest("a TLS client whose server asks for another ClientHello")
@pytest.mark.parametrize("way", ["transparent", "proxy"])
@pytest.mark.parametrize("families", ["1.3", "1.2"])
def test_client_that_is_asked_again(
    internet: Internet, sandgate: Sandgate, retrying: Retrying, way: str, families: str
) -> None:
    curves = ["--curves", "X25519:P-256", "--tls-max", families]
    command = ["curl", "-4", "-sS", *curves, f"https://{plan.SINK}:{Retrying.PORT}/"]
    run = sandgate.run(allowing(plan.SINK), *command, options=["--proxy-env"] if way == "proxy" else [])
    assert f"served {plan.SINK}" in run.stdout, run
    assert retrying.names() == [plan.SINK] * (2 if families == "1.3" else 1)


HASTY = """\
import socket, sys
sys.path.insert(0, sys.argv[1])
import hellos
first, second = (hellos.records(hellos.ordinary(name)) for name in sys.argv[2:4])
with socket.create_connection((sys.argv[4], 9444), 5) as client:
    client.settimeout(3)
    client.sendall(first + b"\\x14\\3\\3\\0\\1\\1" + second)
    try:
        while client.recv(65536): pass
    except OSError as error: print(error)
"""

SLOW = """\
import socket, sys, time
ASK = bytes.fromhex("160303002c020000280303cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c00130100")
listener = socket.create_server((sys.argv[1], 9444))
print("serving", flush=True)
while True:
    connection = listener.accept()[0]
    connection.recv(100)
    time.sleep(0.5)
    connection.sendall(ASK[:20])
    time.sleep(0.2)
    connection.sendall(ASK[20:])
    connection.settimeout(2)
    try:
        while connection.recv(65536): pass
    except OSError: pass
    connection.close()
"""


@pytest.mark.attack(
    "P1 N3", "sends a second ClientHello with another name before its server has asked for it", stopped_by="tls-sni"
)
def test_second_hello_before_it_is_asked_for(internet: Internet, sandgate: Sandgate) -> None:
    attacks = str(Path(__file__).parent / "attacks")
    command = [PYTHON, "-c", HASTY, attacks, plan.SINK, plan.OTHER, plan.SINK4]
    server = Child(internet.namespace.command(PYTHON, "-c", SLOW, plan.SINK4), "serving")
    try:
        with internet.capture(f"dst host {plan.SINK4}", unenforced=True) as outside:
            internet.unenforced(command)
        assert plan.OTHER.encode() in outside.payload
        with internet.capture(f"dst host {plan.SINK4}") as outside:
            run = sandgate.run(allowing(plan.SINK), *after_resolving(plan.SINK, then=command))
    finally:
        server.stop()
    assert plan.SINK.encode() in outside.payload and plan.OTHER.encode() not in outside.payload, run
    assert run.audit.denied("tls-sni", host=plan.OTHER, reason="name-address-mismatch"), run


# Names


@pytest.mark.attack(
    "N8 P6", "asks over SOCKS for a denied name with a NUL and an allowed one behind it, or the other way round", stopped_by="connect"
)
@pytest.mark.parametrize("behind", [True, False], ids=["allowed one behind", "denied one behind"])
def test_nul_in_a_name_over_socks(internet: Internet, sandgate: Sandgate, behind: bool) -> None:
    """What matches suffixes sees all of it, what resolves it (getaddrinfo) what comes before the NUL."""
    allowed = f"x.{plan.WILD}"
    name = f"{plan.DENIED}\0.{allowed}" if behind else f"{allowed}\0.{plan.DENIED}"
    request = b"\5\1\0\3" + bytes([len(name)]) + name.encode() + (443).to_bytes(2, "big")
    command = attack("socks", "--raw", "050100", request.hex())
    run = sandgate.run(allowing(f"*.{plan.WILD}"), *command, options=["--socks-env"])
    assert "answer: 05000502" in run.stdout, run
    assert internet.dns.queries() == [], run
    assert run.audit.denied("connect", reason="malformed-name"), run


@pytest.mark.attack(
    "D1 D7", "hides a query for a denied name behind one for an allowed name, in one segment over TCP", stopped_by="dns"
)
@pytest.mark.parametrize("allowed_first", [True, False])
def test_denied_query_in_the_same_segment(internet: Internet, sandgate: Sandgate, allowed_first: bool) -> None:
    names = [plan.ALLOWED, plan.DENIED] if allowed_first else [plan.DENIED, plan.ALLOWED]
    queries = [dns.message.make_query(name, "A").to_wire() for name in names]
    stream = b"".join(len(query).to_bytes(2, "big") + query for query in queries)
    escaped = "".join(f"\\x{byte:02x}" for byte in stream)
    command = attack("pieces", plan.DNS4, 53, escaped)
    internet.unenforced(command)
    assert internet.dns.names() == {plan.ALLOWED, plan.DENIED}
    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert internet.dns.names() == {plan.ALLOWED}, run
    assert run.audit.denied("dns", host=plan.DENIED), run


@pytest.mark.attack(
    "P6", "asks the proxy through a relay of its own in the sandbox, for one tunnel after the other", stopped_by="connect"
)
def test_proxy_behind_a_relay(internet: Internet, sandgate: Sandgate) -> None:
    host, _, port = plan.EXPLICIT_PROXY.rpartition(":")
    relay = f"""
import socket, subprocess, sys, threading
def copy(source, sink):
    while data := source.recv(65536): sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)
def serve():
    while True:
        client, upstream = listener.accept()[0], socket.create_connection(({host!r}, {port}))
        for ends in ((client, upstream), (upstream, client)):
            threading.Thread(target=copy, args=ends, daemon=True).start()
listener = socket.create_server(("127.0.0.1", 8888))
threading.Thread(target=serve, daemon=True).start()
for name in ({plan.ALLOWED!r}, {plan.DENIED!r}, {plan.ALLOWED!r}, {plan.DENIED!r}):
    done = subprocess.run(["curl", "-sS", "-x", "http://127.0.0.1:8888", f"https://{{name}}/"], capture_output=True, text=True)
    print(name, done.stdout.strip() or done.stderr.strip(), flush=True)
"""
    run = sandgate.run(allowing(plan.ALLOWED), PYTHON, "-c", relay)
    assert run.stdout.count(f"served {plan.ALLOWED}") == 2 and "response 403" in run.stdout, run
    assert internet.web.hosts() == {plan.ALLOWED} and plan.DENIED not in internet.dns.names(), run


HEADERS = {
    "version 1": r"PROXY TCP4 192.0.2.1 198.51.100.66 40000 443\r\n",
    "version 2": r"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x42\x9c\x40\x01\xbb",
}


@pytest.mark.attack(
    "P2 P5", "puts the header of a proxy (PROXY protocol) before a request or a hello for a denied host", stopped_by="http-host, tls-sni"
)
@pytest.mark.parametrize("version", HEADERS)
@pytest.mark.parametrize("port", [80, 443])
def test_header_of_a_proxy(internet: Internet, sandgate: Sandgate, version: str, port: int) -> None:
    command = attack(
        *("pieces", plan.SINK4, port, "--together", HEADERS[version]),
        rf"GET /smuggled HTTP/1.1\r\nHost: {plan.OTHER}\r\n\r\n",
    )
    internet.unenforced(command)
    assert "smuggled" in internet.sinks.data()
    run = sandgate.run(allowing(plan.SINK), *after_resolving(plan.SINK, then=command))
    assert internet.sinks.arrivals() == [], run
    assert run.audit.where(verdict="deny", ip=plan.SINK4, port=port), run


# System calls


@pytest.mark.attack(
    "N1 T6",
    "sends by every system call that does, in the first segment of a connection, and over several paths",
    stopped_by="kernel",
)
@pytest.mark.parametrize("address", [plan.SINK4, plan.SINK6])
def test_every_call_that_sends(internet: Internet, sandgate: Sandgate, box: Namespace, daemon: Daemon, address: str) -> None:
    text = f"sent-{uuid.uuid4().hex}"
    command = attack("sending_calls", address, 4444, text)
    internet.unenforced(command)
    found = internet.sinks.data()
    ways = [way for way in found.split(text)[1:]]
    assert len(ways) >= 12, found

    with internet.capture(f"host {address}") as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert "tried everything" in run.stdout and "did " not in run.stdout, run
    assert not outside.lines and internet.sinks.arrivals() == [], run

    # Where no filter of system calls is.
    sandbox = daemon.create(allowing(plan.ALLOWED), attachment=attachment(box))
    with internet.capture(f"host {address}", unenforced=True) as outside:
        done = sandbox.run(*command)
    assert "tried everything" in done.stdout and "did " not in done.stdout, done
    assert not outside.lines and internet.sinks.arrivals() == [], done


REQUEST_KEY = Path("/sbin/request-key")
KEYS = """\
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for kind in (b"user", b"dns_resolver"):
    key = libc.syscall(249, kind, b"sent-by-the-kernel", b"secret", -2)
    print(kind.decode(), key, ctypes.get_errno())
print("tried everything")
"""


@pytest.mark.attack(
    "T16 D1", "has the kernel start a program of the node (request-key), which resolves a name or sends what a key says", stopped_by="seccomp"
)
def test_program_that_the_kernel_starts(internet: Internet, sandgate: Sandgate) -> None:
    """It is started in the node's own namespaces, whoever asked: so what it writes is not in a directory of the lab's."""
    if os.uname().machine != "x86_64" or os.path.lexists(REQUEST_KEY):
        pytest.skip(f"{REQUEST_KEY} is in use here")
    told = Path(f"/var/cache/sandgate-lab-{uuid.uuid4().hex}")
    REQUEST_KEY.write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    try:
        REQUEST_KEY.chmod(0o755)
        without = internet.unenforced([PYTHON, "-c", KEYS])
        if not told.exists():
            pytest.skip(f"this kernel asks nobody for keys: {without.stdout}")
        told.unlink()
        run = sandgate.run(allowing(), PYTHON, "-c", KEYS)
        assert "tried everything" in run.stdout and not told.exists(), run
    finally:
        REQUEST_KEY.unlink()
        told.unlink(missing_ok=True)


# Directories


@pytest.mark.attack(
    "T16 T13", "is started in a directory that is hidden from it, and goes on from there by relative names", stopped_by="mounts"
)
@pytest.mark.parametrize("place", ["/run", "/dev/shm"])
def test_working_directory(internet: Internet, sandgate: Sandgate, place: str) -> None:
    """A process keeps the directory that it is in, whatever is mounted over it (CVE-2024-21626 of runc is its cousin)."""
    name = f"sandgate-lab-{uuid.uuid4().hex}"
    look = "import socket\n"
    if place == "/run":
        look += f"s = socket.socket(socket.AF_UNIX); s.connect({name!r}); print('inside', s.recv(9))"
    else:
        look += f"print('inside', open({name!r}).read())"
    with contextlib.ExitStack() as stack:
        if place == "/run":
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(f"/run/{name}")
            stack.callback(os.unlink, f"/run/{name}")
            os.chmod(f"/run/{name}", 0o666)
            server.listen()
        else:
            Path(f"/dev/shm/{name}").write_text("secret")
            stack.callback(os.unlink, f"/dev/shm/{name}")
        line, _ = sandgate.command(allowing(), [PYTHON, "-c", look])
        environment = internet.environment(sandgate.user.environment() if sandgate.user else None)
        run = subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True, timeout=30)
        without = subprocess.Popen([PYTHON, "-c", look], cwd=place, stdout=subprocess.PIPE, text=True)
        if place == "/run":
            server.settimeout(10)
            server.accept()[0].send(b"hello")
        said = without.communicate(timeout=30)[0]
    assert "inside" in said, said
    assert "inside" not in run.stdout, run
