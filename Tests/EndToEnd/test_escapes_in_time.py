"""Moments: rules that expire, policies that change and enforcers that end while something is under way; and floods."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import plan
from lab.asker import Asker
from lab.daemon import Daemon, Sandbox, attachment
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.processes import kibibytes, wait_until
from lab.sandgate import Sandgate, after_resolving, allowing, attack
from lab.sidecar import RAW
from lab.tool import binary


# Rules that expire

KEPT = """\
import socket, sys, time
address, port, first, later = sys.argv[1:]
def text(word): return word.encode().decode("unicode_escape").encode("latin-1")
with socket.create_connection((address, int(port)), 5) as client:
    client.settimeout(3)
    client.sendall(text(first))
    print("before", client.recv(65536)[:60], flush=True)
    time.sleep(4)
    try:
        for _ in range(20):
            client.sendall(text(later))
            time.sleep(0.05)
        print("after", client.recv(65536))
    except OSError as error: print("ended", error)
try:
    with socket.create_connection((address, int(port)), 3) as client:
        client.sendall(text(later))
        print("anew", client.recv(65536))
except OSError as error: print("refused", error)
"""


@pytest.mark.attack(
    "N9 B4",
    "goes on sending on a connection whose rule has expired, and connects again to the pinned address",
    stopped_by="kernel, tls-sni",
)
@pytest.mark.parametrize(
    ("port", "target"),
    [(4444, plan.SINK), (80, plan.SINK), (4444, plan.SINK4)],
    ids=["opaque, by name", "http, by name", "opaque, by address"],
)
def test_connection_whose_rule_expires(internet: Internet, sandgate: Sandgate, port: int, target: str) -> None:
    first, later = "before the end", "after the end"
    if port == 80:
        first, later = (rf"GET /{word} HTTP/1.1\r\nHost: {plan.SINK}\r\n\r\n" for word in ("before", "after"))
    command = ["/usr/bin/python3", "-c", KEPT, plan.SINK4, str(port), first, later]
    internet.unenforced(command)
    assert "after" in internet.sinks.data()

    policy = allowing({"target": target, "ttl": "3s"})
    run = sandgate.run(policy, *after_resolving(plan.SINK, then=command))
    assert "before" in run.stdout and "refused" in run.stdout, run
    data = internet.sinks.data()
    assert "before" in data and "after" not in data, run


# Policies that change


FLOOD = """\
import itertools, socket, sys
targets = [(word.rpartition(":")[0], int(word.rpartition(":")[2])) for word in sys.argv[1:]]
for number in itertools.count():
    for host, port in targets:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as sender:
                sender.settimeout(0.05)
                try:
                    sender.connect((host, port))
                    sender.send(b"flooded")
                except OSError: pass
    if number == 0: print("begun", flush=True)
"""


@contextlib.contextmanager
def flooding(box: Namespace, internet: Internet, *targets: str) -> Iterator[None]:
    """A program that tries denied destinations without pause."""
    command = ["/usr/bin/python3", "-c", FLOOD, *targets]
    process = subprocess.Popen(
        box.command(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=internet.environment(), text=True
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def _attach_under_flood(daemon: Daemon, box: Namespace) -> Sandbox:
    """Attaches, though the self-test may fail: what the kernel tells of its probes can be lost among the flood's."""
    body = {"attachment": attachment(box), "networkPolicy": allowing(plan.ALLOWED)}
    for _ in range(50):
        answer = daemon.request("POST", "/v1/sandboxes", body)
        if answer.status == 201:
            return Sandbox(daemon, answer.json["id"], answer.json["networkNamespace"])
        assert answer.status == 503 and "self-test" in answer.text, answer
    raise AssertionError("no attachment succeeded")


@pytest.mark.attack(
    "T4 T8",
    "sends to denied addresses without pause while it is attached, while its policy changes 200 times, and while the "
    "daemon is killed and started again",
    stopped_by="kernel",
)
@pytest.mark.slow
def test_flood_through_every_change(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    targets = (f"{plan.SINK4}:4444", f"{plan.SINK6}:4444", f"{plan.DENIED4}:443")
    with flooding(box, internet, *targets):
        wait_until(lambda: "flooded" in internet.sinks.data(), "what arrives without enforcement")
        sandbox = _attach_under_flood(daemon, box)
        internet.forget()
        # What those servers send again to connections from before is not the sandbox's.
        others = f"dst host {plan.SINK4} or dst host {plan.SINK6} or dst host {plan.DENIED4}"
        with internet.capture(others, unenforced=True) as outside:
            for number in range(100):
                assert sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED, f"n{number}.example")).status == 200
                rule = {"action": "allow", "target": f"203.0.113.{number}/32"}
                assert sandbox.ask("PATCH", "/policy", [rule]).status == 200
            for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                daemon.restart(number)
            sandbox.ask("POST", "/pause")
            sandbox.ask("POST", "/resume")
        assert not outside.lines, outside
        assert internet.sinks.arrivals() == []


@pytest.mark.attack(
    "B3 T9",
    "sends to denied addresses without pause while the daemon is started again, to have its own network fail for good",
    stopped_by="limits",
)
@pytest.mark.slow
def test_restart_under_a_flood(internet: Internet, daemon: Daemon, box: Namespace) -> None:
    sandbox = daemon.create(allowing(plan.ALLOWED), attachment=attachment(box))
    assert sandbox.reaches(plan.ALLOWED)
    with flooding(box, internet, f"{plan.SINK4}:4444", f"{plan.SINK6}:4444", f"{plan.DENIED4}:443"):
        for _ in range(3):
            daemon.restart()
    daemon.restart()
    assert sandbox.state == "Running" and sandbox.reaches(plan.ALLOWED)


@pytest.mark.attack(
    "T9",
    "has its policy changed a hundred times, and the same one posted again, while something allowed is under way",
    stopped_by="control API",
)
@pytest.mark.slow
def test_download_through_unrelated_changes(internet: Internet, daemon: Daemon) -> None:
    """An enforcer that cuts off what is allowed is switched off."""
    sandbox = daemon.create(allowing(plan.FILES, plan.ALLOWED))
    asker = Asker(sandbox.start(*Asker.command(plan.ALLOWED)))
    try:
        port = asker.ask().split()[0]
        download = sandbox.start(
            "/bin/sh", "-c", f"curl -sS -m 120 --limit-rate 200M https://{plan.FILES}/big.bin | sha256sum"
        )
        wait_until(lambda: sandbox.ask("GET", "/activity").json["connections"] == 2, "the download")
        for number in range(50):
            assert sandbox.ask("PUT", "/policy", allowing(plan.FILES, plan.ALLOWED)).status == 200
            policy = allowing({"target": f"n{number}.example"}, plan.FILES, plan.ALLOWED)
            assert sandbox.ask("PUT", "/policy", policy).status == 200
        assert download.poll() is None, "the changes came while it was under way"
        assert asker.ask().split()[0] == port
        output, _ = download.communicate(timeout=120)
        assert internet.content.big_file_digest in output
    finally:
        asker.end()


@pytest.mark.attack(
    "N9 B4 T12",
    "keeps a flow of datagrams, and one whose server speaks first, after a change of policy took their rule away",
    stopped_by="relay, kernel",
)
def test_datagrams_after_a_change(internet: Internet, daemon: Daemon) -> None:
    rule = {"target": plan.SINK4, "protocol": "udp", "ports": [4444]}
    sandbox = daemon.create(allowing(rule))
    script = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"s.connect(('{plan.SINK4}', 4444)); s.settimeout(2)\n"
        "for line in sys.stdin:\n"
        "    try: s.send(line.strip().encode()); print(s.recv(100), flush=True)\n"
        "    except OSError as error: print('refused', error, flush=True)\n"
    )
    process = sandbox.start("/usr/bin/python3", "-c", script)
    assert process.stdin is not None and process.stdout is not None
    try:

        def say(word: str) -> str:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
            return process.stdout.readline()

        assert "before" in say("before")
        (arrival,) = internet.sinks.arrivals()
        assert sandbox.ask("PUT", "/policy", allowing(plan.ALLOWED)).status == 200
        # The server sends first: an entry of its making would let the sandbox answer.
        forge = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n"
            f"s.bind(('{plan.SINK4}', 4445)); s.sendto(b'x', (sys.argv[1], int(sys.argv[2])))\n"
        )
        internet.namespace.check("/usr/bin/python3", "-c", forge, arrival.peer, str(arrival.peer_port))
        for word in ("after", "after"):
            assert "refused" in say(word)
        assert internet.sinks.data() == ""
    finally:
        process.kill()
        process.communicate()


@pytest.mark.attack(
    "T12", "answers a datagram or a connection from outside on a port that it does not serve", stopped_by="kernel"
)
@pytest.mark.parametrize("kind", ["datagram", "connection"])
def test_packets_from_outside(internet: Internet, daemon: Daemon, box: Namespace, kind: str) -> None:
    is_datagram = kind == "datagram"
    serve = (
        "import socket\n"
        f"s = socket.socket(socket.AF_INET, socket.{'SOCK_DGRAM' if is_datagram else 'SOCK_STREAM'})\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "s.bind(('10.78.0.2', 9999)); s.settimeout(3)\n"
        + ("" if is_datagram else "s.listen()\n")
        + "print('bound', flush=True)\n"
        + (
            "try: s.recvfrom(99)\nexcept OSError: pass\ns.sendto(b'an answer', ('10.78.0.1', 7777))\n"
            if is_datagram
            else "s.accept()[0].sendall(b'an answer')\n"
        )
    )
    ask = (
        "import socket\n"
        f"s = socket.socket(socket.AF_INET, socket.{'SOCK_DGRAM' if is_datagram else 'SOCK_STREAM'})\n"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
        "s.bind(('10.78.0.1', 7777)); s.settimeout(4)\n"
        "try:\n"
        "    s.connect(('10.78.0.2', 9999)); s.send(b'hello'); print(s.recv(99))\n"
        "except OSError as error: print(error)\n"
    )

    def exchange() -> str:
        server = subprocess.Popen(
            box.command("/usr/bin/python3", "-c", serve), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert server.stdout is not None and server.stdout.readline() == "bound\n"
        asked = subprocess.run(
            internet.namespace.command("/usr/bin/python3", "-c", ask), capture_output=True, text=True, timeout=30
        )
        server.communicate(timeout=30)
        return asked.stdout

    assert "an answer" in exchange(), "it works without enforcement"
    daemon.create({"defaultAction": "allow"}, attachment=attachment(box, inbound=[8080]))
    assert "an answer" not in exchange()


# Who may change what


CHANGES = {
    "flush": "nft flush ruleset",
    "delete": "nft delete table inet sandgate",
    "add a rule": "nft insert rule inet sandgate out accept; nft insert rule inet sandgate output accept",
    "own chain before": "nft add table inet mine; nft 'add chain inet mine o { type filter hook output priority -500; }';"
    " nft add rule inet mine o accept",
    "own translation": "nft add table ip mine; nft 'add chain ip mine o { type nat hook output priority -500; }';"
    f" nft add rule ip mine o ip daddr 192.0.2.1 dnat to {plan.SINK4}",
    "untracked": "nft add table ip mine; nft 'add chain ip mine o { type filter hook output priority -500; }';"
    " nft add rule ip mine o notrack",
    "marks": "nft add table ip mine; nft 'add chain ip mine o { type filter hook output priority -500; }';"
    " nft add rule ip mine o meta mark set 1 ct mark set 2",
    "forwarding": "sysctl -w net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1",
    "tunnel": f"ip link add t type ipip remote {plan.SINK4} local any; ip link set t up; ip route add {plan.SINK4}/32 dev t",
    "bridge": "ip link add b type bridge; ip link set eth0 master b; ip link set b up",
    "rules of routing": "ip rule add from all lookup main pref 0; ip route flush table local",
    "loopback down": "ip link set lo down",
}


@pytest.mark.attack(
    "T6 T10a",
    "changes rules, routes, devices and settings with CAP_NET_ADMIN over a network that the daemon made",
    stopped_by="kernel, fence",
)
@pytest.mark.parametrize("name", CHANGES)
def test_changes_with_privilege(internet: Internet, daemon: Daemon, name: str) -> None:
    """Stronger than any sandbox should be: what it breaks is its own network."""
    sandbox = daemon.create(allowing(plan.ALLOWED))
    assert sandbox.reaches(plan.ALLOWED)
    internet.forget()
    held = ("setpriv", "--bounding-set", "-sys_admin,-sys_ptrace,-sys_module,-dac_read_search")
    tries = " ; ".join(
        " ".join(f"'{word}'" for word in attack("packets", kind, address, 4444, "by its own rules"))
        for kind in ("tcp", "udp")
        for address in (plan.SINK4, plan.SINK6, "192.0.2.1")
    )
    pinned = f"curl -sS -k -m 2 --resolve {plan.OTHER}:443:{plan.SHARED4} https://{plan.OTHER}/"
    # The node asks now and then whether a neighbour that it spoke to before is still there.
    with internet.capture(f"host {plan.SINK4} or host {plan.SINK6}") as outside:
        sandbox.run(*held, "/bin/sh", "-c", f"({CHANGES[name]}); {tries}; {pinned}; true", timeout=60)
    assert not outside.lines, outside
    assert internet.sinks.arrivals() == [] and internet.web.requests() == []


@pytest.mark.attack("T5", "has the daemon started without CAP_NET_ADMIN", stopped_by="start")
def test_daemon_without_privilege(tmp_path: Path) -> None:
    directories = [word for name in ("state", "runtime", "audit") for word in (f"--{name}-dir", str(tmp_path / name))]
    command = [*RAW, str(binary()), "serve", "--socket", str(tmp_path / "s" / "api.sock"), *directories]
    done = subprocess.run(
        [*command, "--upstream-dns", plan.DNS4], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
    )
    assert done.returncode != 0 and "CAP_NET_ADMIN" in done.stderr, done


@pytest.mark.attack(
    "T2 N1", "asks the daemon's API and metrics over the network, at every address of the node", stopped_by="kernel"
)
def test_api_over_the_network(internet: Internet, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("full-token-of-sixteen\n")
    made = Daemon(internet, tmp_path, "--listen", f"{plan.NODE4}:64480", "--token-file", str(tokens))
    try:
        made.start()
        url = f"http://{plan.NODE4}:64480/healthz"
        outside = internet.namespace.command("curl", "-sS", "-m", "3", url)
        assert subprocess.run(outside, capture_output=True, text=True).returncode == 0, "it is served there"
        sandbox = made.create({"defaultAction": "allow"})
        for address in (plan.NODE4, "127.0.0.1", "0.0.0.0", "[::1]", f"[::ffff:{plan.NODE4}]", f"[{plan.NODE6}]"):
            for path in ("/healthz", "/metrics", "/v1/sandboxes"):
                done = sandbox.run("curl", "-sS", "-m", "3", f"http://{address}:64480{path}")
                assert done.returncode != 0 or "egress_denied" in done.stdout, done
    finally:
        made.clean_up()


@pytest.mark.attack("T2", "looks for a port on loopback that the enforcer left open", stopped_by="namespaces")
def test_ports_on_loopback(internet: Internet, sandgate: Sandgate) -> None:
    script = (
        "import socket\n"
        "for family, address in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):\n"
        "    for port in range(1, 65536):\n"
        "        with socket.socket(family) as client:\n"
        "            # A client may meet itself, where its own port is the one that it tries.\n"
        "            if client.connect_ex((address, port)) == 0 and client.getsockname()[1] != port: print(port)\n"
    )
    run = sandgate.run(allowing(plan.ALLOWED), "/usr/bin/python3", "-c", script)
    # Port 53 is redirected to the resolver's.
    assert set(map(int, run.stdout.split())) <= {53, 64053, int(plan.EXPLICIT_PROXY.rpartition(":")[2])}, run


# Floods


REFUSALS = """\
import os, random, socket, sys, time
address = sys.argv[1]
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(50)]
end, count = time.monotonic() + 4, 0
while time.monotonic() < end:
    for sender in sockets:
        try: sender.sendto(b"flood", (f"203.0.113.{random.randrange(256)}", random.randrange(1, 65536)))
        except OSError: count += 1
print("refused", count)
"""

CONNECTIONS = """\
import resource, socket, sys
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
held, failed = [], 0
for number in range(5000):
    try:
        client = socket.create_connection((sys.argv[1], 80 if number % 2 else 443), 2)
        if number % 3 == 0: client.send(b"GET / HTTP/1.1\\r\\nX: ")
        held.append(client)
    except OSError:
        failed += 1
        if failed > 50: break
print("held", len(held), "failed", failed, flush=True)
sys.stdin.readline()
"""


@pytest.mark.attack(
    "B3",
    "floods the kernel's log and the records with refused datagrams, while others on the node work",
    stopped_by="limits",
)
@pytest.mark.slow
def test_flood_of_refusals(internet: Internet, daemon: Daemon) -> None:
    """Others keep their service, memory stays bounded, and what was not recorded is counted."""
    flooder, other = daemon.create(allowing(plan.ALLOWED)), daemon.create(allowing(plan.ALLOWED))
    assert other.reaches(plan.ALLOWED)
    with internet.capture("net 203.0.113.0/24") as outside:
        floods = [flooder.start("/usr/bin/python3", "-c", REFUSALS, plan.SINK4) for _ in range(4)]
        slowest = 0.0
        while any(flood.poll() is None for flood in floods):
            begun = time.monotonic()
            assert other.reaches(plan.ALLOWED)
            slowest = max(slowest, time.monotonic() - begun)
        refused = sum(int(flood.communicate()[0].split()[1]) for flood in floods)
    assert not outside.lines and refused > 10_000
    assert slowest < 3, slowest
    assert kibibytes(daemon.pid, "VmHWM") < 300_000
    assert flooder.reaches(plan.ALLOWED)


@pytest.mark.attack(
    "P7 B3",
    "holds thousands of silent and half-spoken connections to the proxy, while others on the node work",
    stopped_by="limits",
)
@pytest.mark.slow
def test_thousands_of_idle_connections(internet: Internet, daemon: Daemon) -> None:
    holder, other = daemon.create(allowing(plan.ALLOWED)), daemon.create(allowing(plan.ALLOWED))
    assert holder.reaches(plan.ALLOWED) and other.reaches(plan.ALLOWED)
    internet.forget()
    process = holder.start("/usr/bin/python3", "-c", CONNECTIONS, plan.SHARED4)
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        assert said.startswith("held"), said
        assert other.reaches(plan.ALLOWED)
        assert kibibytes(daemon.pid, "VmHWM") < 300_000
    finally:
        process.kill()
        process.communicate()
    assert {request.host for request in internet.web.requests()} <= {plan.ALLOWED}
    wait_until(lambda: holder.reaches(plan.ALLOWED), "the holder's own service", 20)
