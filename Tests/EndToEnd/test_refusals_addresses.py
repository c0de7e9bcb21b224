"""Layer ip: what carries no name, or goes where no name led. Judged by captures and by what reached the sinks."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from lab import plan
from lab.internet import Internet
from lab.processes import check
from lab.sandgate import Sandgate, allowing, attack, shell

SINK_PACKETS = f"host {plan.SINK4} or host {plan.SINK6}"

BOTH = pytest.mark.parametrize("address", [plan.SINK4, plan.SINK6], ids=["ipv4", "ipv6"])


@BOTH
def test_allowed_address_arrives(internet: Internet, sandgate: Sandgate, address: str) -> None:
    run = sandgate.run(allowing(address), *attack("packets", "tcp", address, 4444, "to an address"))
    assert run.returncode == 0 and "to an address" in run.stdout, run
    assert "to an address" in internet.sinks.data()
    assert run.audit.where(event="connection.allowed", ip=address, port=4444), run


@pytest.mark.attack(
    "N1",
    "connects to an address that no rule names, on a port of SSH, TLS, DNS over TLS or anything",
    stopped_by="kernel",
)
@pytest.mark.parametrize("port", [22, 443, 853, 4444])
@BOTH
def test_direct_address(internet: Internet, sandgate: Sandgate, address: str, port: int) -> None:
    command = attack("packets", "tcp", address, port, "straight there")
    assert internet.unenforced(command).returncode == 0
    assert "straight there" in internet.sinks.data()

    with internet.capture(SINK_PACKETS) as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert run.returncode != 0 and "ConnectionRefusedError" in run.stderr, f"refused at once, not left to wait: {run}"
    assert not outside.lines and internet.sinks.arrivals() == []
    assert run.audit.denied("ip", event="connection.denied", ip=address, port=port, protocol="tcp"), run


@pytest.mark.attack("N1", "has curl fetch from an address without a name", stopped_by="kernel")
def test_direct_address_by_curl(internet: Internet, sandgate: Sandgate) -> None:
    command = ["curl", "-sS", "--insecure", f"https://{plan.SHARED4}/"]
    assert internet.unenforced(command).returncode == 0
    internet.forget()

    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert run.returncode == 7, run
    assert internet.web.requests() == []


@pytest.mark.attack(
    "N1 D6", "sends a datagram to an address: NTP, QUIC, DNS over DTLS, mDNS and other ports", stopped_by="kernel"
)
@pytest.mark.parametrize("port", [123, 443, 853, 4444, 5353])
@BOTH
def test_datagram(internet: Internet, sandgate: Sandgate, address: str, port: int) -> None:
    command = attack("packets", "udp", address, port, "a datagram")
    assert "a datagram" in internet.unenforced(command).stdout
    internet.forget()

    with internet.capture(SINK_PACKETS) as outside:
        run = sandgate.run(allowing(plan.SINK), *command)
    assert run.returncode != 0, run
    assert not outside.lines and internet.sinks.arrivals() == []
    assert run.audit.denied("ip", ip=address, port=port, protocol="udp"), run


@pytest.mark.attack("P4", "sends a QUIC Initial to an address, pinned for an allowed name or not", stopped_by="kernel")
@BOTH
def test_quic(internet: Internet, sandgate: Sandgate, address: str) -> None:
    """Refused also to an address that is pinned for an allowed name, so that clients fall back to TCP."""
    command = attack("packets", "quic", plan.SINK if address == plan.SINK4 else address, 443)
    assert "1200 bytes" in internet.unenforced(command).stdout
    internet.forget()

    with internet.capture(f"udp and ({SINK_PACKETS})") as outside:
        run = sandgate.run(allowing(plan.SINK), *command)
    assert run.returncode != 0, run
    assert not outside.lines and internet.sinks.arrivals() == []


@pytest.mark.attack("B1", "carries data in the payload of a ping", stopped_by="kernel, capabilities")
@BOTH
def test_ping_with_payload(internet: Internet, sandgate: Sandgate, address: str) -> None:
    command = attack("packets", "icmp", address, "carried by a ping")
    assert "carried by a ping" in internet.unenforced(command).stdout

    with internet.capture(f"icmp or icmp6 and ({SINK_PACKETS})") as outside:
        run = sandgate.run(allowing(plan.SINK), *command)
    assert run.returncode != 0, run
    assert b"carried by a ping" not in outside.payload


@pytest.mark.attack("T11", "binds a socket to the outer device, past the redirect to loopback", stopped_by="kernel")
@pytest.mark.parametrize("kind", ["tcp", "udp"])
@BOTH
def test_socket_bound_to_the_outer_device(internet: Internet, sandgate: Sandgate, kind: str, address: str) -> None:
    command = attack("packets", kind, address, 4444, "by the device", "--device")
    assert "by the device" in internet.unenforced(command).stdout
    internet.forget()

    with internet.capture(SINK_PACKETS) as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert run.returncode != 0, run
    assert not outside.lines and internet.sinks.arrivals() == []


@pytest.mark.attack(
    "T11 T3", "lets a redirected query leave by the device that its socket is bound to", stopped_by="kernel"
)
def test_query_bound_to_the_outer_device(internet: Internet, sandgate: Sandgate) -> None:
    """A redirected packet keeps the device it is bound to; it must not leave by it."""
    command = attack("packets", "udp", plan.OTHER_DNS4, 53, "smuggled in a redirected query", "--device")
    with internet.capture("udp port 53", unenforced=True) as outside:
        internet.unenforced(command)
    assert b"smuggled in a redirected query" in outside.payload

    with internet.capture() as outside:
        sandgate.run(allowing(plan.ALLOWED), *command)
    assert b"smuggled in a redirected query" not in outside.payload


@pytest.mark.attack(
    "T10 B1",
    "writes a frame with a packet socket, behind every hook of the IP layer",
    stopped_by="capabilities, seccomp",
)
def test_packet_socket(internet: Internet, sandgate: Sandgate) -> None:
    command = attack("packets", "packet-socket", plan.SINK4, "past every hook")
    with internet.capture(f"dst host {plan.SINK4}", unenforced=True) as outside:
        assert internet.unenforced(command).returncode == 0
    assert b"past every hook" in outside.payload

    with internet.capture() as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert run.returncode != 0, run
    assert b"past every hook" not in outside.payload


@pytest.mark.attack(
    "B1",
    "sends IGMP, IP in IP, GRE, ESP, SCTP, UDP-Lite or a protocol without a name",
    stopped_by="capabilities, kernel",
)
@pytest.mark.parametrize("transport", ["igmp", "ipip", "gre", "esp", "sctp", "unassigned", "udplite"])
def test_other_transports(internet: Internet, sandgate: Sandgate, transport: str) -> None:
    numbers = {"igmp": 2, "ipip": 4, "gre": 47, "esp": 50, "sctp": 132, "unassigned": 253}
    if transport in numbers:
        command = attack("packets", "protocol", plan.SINK4, numbers[transport], "by another transport")
    else:
        command = attack("packets", "socktype", plan.SINK4, 4444, transport, "by another transport")
    with internet.capture(f"dst host {plan.SINK4}", unenforced=True) as outside:
        if internet.unenforced(command).returncode != 0:
            pytest.skip(f"this kernel has no {transport}: the attack does not work without enforcement either")
    assert b"by another transport" in outside.payload

    with internet.capture() as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert run.returncode != 0, run
    assert b"by another transport" not in outside.payload


@pytest.mark.attack(
    "N1 N4",
    "connects to a private, CGNAT, benchmark, metadata or unique local address under a policy that allows everything",
    stopped_by="kernel",
)
@pytest.mark.parametrize("address", [*plan.REACHABLE_GUARDED4, *plan.REACHABLE_GUARDED6])
def test_guard_range_directly(internet: Internet, sandgate: Sandgate, address: str) -> None:
    command = attack("packets", "tcp", address, plan.CANARY_PORT, "to a guarded address")
    assert internet.unenforced(command).returncode == 0
    assert "to a guarded address" in internet.sinks.data()

    run = sandgate.run({"defaultAction": "allow"}, *command)
    assert run.returncode != 0, run
    assert internet.sinks.arrivals() == []
    assert run.audit.denied("ip", ip=address), run


@pytest.mark.attack(
    "N1", "connects to the node's own addresses under a policy that allows everything", stopped_by="kernel"
)
@pytest.mark.parametrize("address", [plan.NODE4, plan.NODE6])
def test_node_itself(internet: Internet, sandgate: Sandgate, address: str) -> None:
    command = attack("packets", "tcp", address, plan.CANARY_PORT, "to the node")
    run = sandgate.run({"defaultAction": "allow"}, *command)
    assert run.returncode != 0, run
    assert internet.canary.arrivals() == []


@pytest.mark.honest("servers and clients on loopback inside the sandbox")
def test_loopback_inside_is_free(internet: Internet, sandgate: Sandgate) -> None:
    script = (
        "import socket, threading\n"
        "for family, address in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):\n"
        "    server = socket.create_server((address, 5000), family=family)\n"
        "    threading.Thread(target=lambda: server.accept()[0].sendall(b'hello'), daemon=True).start()\n"
        "    print(socket.create_connection((address, 5000)).recv(5).decode(), address)\n"
    )
    run = sandgate.run(allowing(), "/usr/bin/python3", "-c", script)
    assert "hello 127.0.0.1" in run.stdout and "hello ::1" in run.stdout, run


def test_rule_about_what_the_self_test_tries(internet: Internet, sandgate: Sandgate) -> None:
    """The self-test picks addresses that the kernel refuses by itself."""
    rules = [{"target": target, "ports": [443]} for target in ("192.0.2.0/24", "2001:db8::/32")]
    run = sandgate.run(allowing(*rules), "/bin/echo", "made it")
    assert run.stdout == "made it\n", run


@pytest.mark.attack("N2", "uses another port or protocol of an address whose rule names ports", stopped_by="kernel")
def test_rule_for_ports_opens_no_other(internet: Internet, sandgate: Sandgate) -> None:
    policy = allowing({"target": f"{plan.V4}.0/24", "ports": [4444], "protocol": "tcp"})
    run = sandgate.run(policy, *attack("packets", "tcp", plan.SINK4, 4444, "this port"))
    assert run.returncode == 0, run
    internet.forget()

    for command in (
        attack("packets", "tcp", plan.SINK4, 22, "that port"),
        attack("packets", "udp", plan.SINK4, 4444, "that protocol"),
    ):
        assert internet.unenforced(command).returncode == 0
        internet.forget()
        run = sandgate.run(policy, *command)
        assert run.returncode != 0, run
        assert internet.sinks.arrivals() == []


NEW4 = f"{plan.V4}.201"
"""An address that the node gets while a sandbox runs."""


@contextlib.contextmanager
def _served_by_the_node(kind: str, *, after: Callable[[], object]) -> Iterator[list[bytes]]:
    """The node with a new address, or a local route to one, and a server there that notes what arrives; at the end."""
    addition = ["address", "add", f"{NEW4}/32", "dev", "lo"] if kind == "address" else ["route", "add", "local", NEW4, "dev", "lo"]
    removal = [word if word != "add" else "del" for word in addition]
    arrived: list[bytes] = []
    after()
    check("ip", *addition)
    try:
        with socket.socket() as server:
            server.bind((NEW4, plan.CANARY_PORT))
            server.listen()
            yield arrived
            server.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    client, _ = server.accept()
                    with client, contextlib.suppress(ConnectionResetError):
                        client.settimeout(2)
                        arrived.append(client.recv(64))
    finally:
        check("ip", *removal)


@pytest.mark.attack(
    "N1 N4",
    "connects to an address, or a local route, that the node has got since the sandbox began",
    stopped_by="connect",
)
@pytest.mark.parametrize("kind", ["address", "route"])
def test_new_address_of_the_node(internet: Internet, sandgate: Sandgate, kind: str) -> None:
    """What the node serves at an address that it did not have when the sandbox began is as closed as the rest of it."""
    command = attack("packets", "tcp", NEW4, plan.CANARY_PORT, "to the node")
    with _served_by_the_node(kind, after=lambda: None) as arrived:
        subprocess.run(command, capture_output=True, timeout=30)
    assert arrived == [b"to the node\n"]

    running = sandgate.start({"defaultAction": "allow"}, shell(f"echo begun; read go; {' '.join(map(repr, command))}"))
    with _served_by_the_node(kind, after=lambda: running.wait_for("begun")) as arrived:
        assert running.process.stdin is not None
        running.process.stdin.write("go\n")
        running.process.stdin.flush()
        run = running.finish()
    assert not any(arrived), run
    assert run.audit.where(verdict="deny", reason="guard-range", ip=NEW4), run
