"""ClientHellos that are made by hand: what a server may read otherwise than the proxy does must not get to it.

The server is a sink, which takes anything: that nothing arrives there is what counts.
"""

from __future__ import annotations

import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Sandgate, after_resolving, allowing, attack

HELLOS = [
    "other name",
    "two names",
    "two names, the other first",
    "two lists",
    "two lists, the other first",
    "lists far apart",
    "empty name",
    "empty list",
    "empty extension",
    "only another type",
    "address",
    "address in brackets",
    "nul and the other name",
    "nul at the end",
    "space",
    "line end",
    "empty label",
    "percent",
    "wide dot",
    "not ascii",
    "over-long",
    "long label",
    "list is longer than it says",
    "list is shorter than it says",
    "name is longer than its list",
    "bytes behind the list",
    "bytes behind the extensions",
    "without extensions",
    "behind an alert",
    "behind a warning",
    "behind a change of cipher",
    "behind application data",
    "behind a heartbeat",
    "behind a finished message",
    "behind empty records",
    "an alert in its middle",
    "another version's record",
    "larger than any",
    "many records and no end",
    "ssl 2",
    "datagram form",
    "length of no record",
    "another handshake message",
]


def hello(kind: str, port: int, *options: str) -> list[str]:
    return attack("hellos", plan.SINK4, port, kind, plan.SINK, plan.OTHER, *options)


@pytest.mark.attack(
    "P1 N3 N7",
    "says its name in a ClientHello that two parsers may read differently: several names or lists, odd names, wrong "
    "lengths, other messages before or within",
    stopped_by="tls-sni",
)
@pytest.mark.parametrize("kind", HELLOS)
def test_hello_made_by_hand(internet: Internet, sandgate: Sandgate, kind: str) -> None:
    command = hello(kind, 443)
    internet.unenforced(command)
    assert internet.sinks.data()

    with internet.capture(f"dst host {plan.SINK4}") as outside:
        run = sandgate.run(allowing(plan.SINK), *after_resolving(plan.SINK, then=command))
    assert internet.sinks.arrivals() == [] and not outside.lines, run
    assert run.audit.where(verdict="deny", ip=plan.SINK4, port=443), run


@pytest.mark.attack(
    "P2 P1", "says another server name, several or none on a port that is not the web's", stopped_by="tls-sni"
)
@pytest.mark.parametrize("port", [22, 80, 853, 4444, 8443])
@pytest.mark.parametrize(
    "kind",
    [
        "other name",
        "two names",
        "two lists",
        "empty extension",
        "without extensions",
        "behind an alert",
        "behind a warning",
        "behind a change of cipher",
    ],
)
def test_hello_on_another_port(internet: Internet, sandgate: Sandgate, kind: str, port: int) -> None:
    command = hello(kind, port)
    internet.unenforced(command)
    assert internet.sinks.data()

    run = sandgate.run(allowing(plan.SINK), *after_resolving(plan.SINK, then=command))
    assert internet.sinks.arrivals() == [], run
    assert run.audit.denied("tls-sni", ip=plan.SINK4, port=port), run


@pytest.mark.attack("P6 P1", "says a name that can be read in two ways inside a tunnel", stopped_by="tls-sni")
@pytest.mark.parametrize(
    "kind", ["other name", "two names", "two lists", "behind an alert", "ssl 2", "nul and the other name"]
)
def test_hello_inside_a_tunnel(internet: Internet, sandgate: Sandgate, kind: str) -> None:
    command = hello(kind, 443, "--connect", f"{plan.SINK}:443")
    internet.unenforced(command, {"HTTPS_PROXY": plan.OPEN_PROXY})
    assert internet.sinks.data()

    run = sandgate.run(allowing(plan.SINK), *command, options=["--proxy-env"])
    assert "proxy: HTTP/1.1 200" in run.stdout, run
    assert not internet.sinks.data(), run
    assert run.audit.where(verdict="deny", port=443), run


@pytest.mark.attack("P1", "begins a ClientHello and leaves it without its end", stopped_by="limits")
@pytest.mark.parametrize("port", [443, 4444])
def test_hello_without_its_end(internet: Internet, sandgate: Sandgate, port: int) -> None:
    """The end would come after the deadline; until then nobody outside has heard of it."""
    script = (
        "import socket, sys\n"
        f"with socket.create_connection(('{plan.SINK4}', {port}), 5) as client:\n"
        "    client.sendall(bytes.fromhex('1603010200010001fc0303') + bytes(300))\n"
        "    client.settimeout(40)\n"
        "    try: print('answer', client.recv(100))\n"
        "    except ConnectionResetError: print('reset')\n"
    )
    command = ["/usr/bin/python3", "-c", script]
    assert "answer" in internet.unenforced(command).stdout and internet.sinks.data()
    run = sandgate.run(allowing(plan.SINK), *after_resolving(plan.SINK, then=command))
    assert "answer" in run.stdout or "reset" in run.stdout, f"ended, not left to wait: {run}"
    assert not internet.sinks.data(), run


@pytest.mark.attack("P3", "offers an encrypted name behind a denied one, or behind none", stopped_by="tls-sni")
@pytest.mark.parametrize("kind", ["ech for another name", "ech for no name"])
def test_encrypted_hello(internet: Internet, sandgate: Sandgate, kind: str) -> None:
    command = hello(kind, 443)
    internet.unenforced(command)
    assert internet.sinks.data()
    run = sandgate.run(allowing(plan.SINK), *after_resolving(plan.SINK, then=command))
    assert internet.sinks.arrivals() == [], run
    assert run.audit.denied("tls-sni", ip=plan.SINK4), run


@pytest.mark.attack(
    "P2 N3", "asks for a denied host in the clear on a port that is not the web's", stopped_by="http-host"
)
@pytest.mark.parametrize("port", [22, 443, 853, 4444, 8443])
def test_host_on_another_port(internet: Internet, sandgate: Sandgate, port: int) -> None:
    request = rf"GET /smuggled HTTP/1.1\r\nHost: {plan.OTHER}\r\n\r\n"
    command = attack("pieces", plan.SINK4, port, request)
    internet.unenforced(command)
    assert "/smuggled" in internet.sinks.data()
    run = sandgate.run(allowing(plan.SINK), *after_resolving(plan.SINK, then=command))
    assert internet.sinks.arrivals() == [], run
    assert run.audit.denied("http-host", host=plan.OTHER, port=port), run


@pytest.mark.attack(
    "P4", "sends QUIC of version 1, 2, a draft, gQUIC or version negotiation on several ports", stopped_by="kernel"
)
@pytest.mark.parametrize("port", [123, 443, 853, 4444])
@pytest.mark.parametrize("version", ["1", "0x6b3343cf", "0xff00001d", "0x51303433", "0", "0x1a2a3a4a"])
def test_quic(internet: Internet, sandgate: Sandgate, version: str, port: int) -> None:
    """To an address that is pinned for an allowed name, whose rule does not list the port for UDP."""
    command = attack("packets", "quic", plan.SINK4, port, version)
    assert "1200 bytes" in internet.unenforced(command).stdout
    internet.forget()
    with internet.capture(f"udp and host {plan.SINK4}") as outside:
        run = sandgate.run(allowing(plan.SINK), *after_resolving(plan.SINK, then=command))
    assert run.returncode != 0 and not outside.lines and internet.sinks.arrivals() == [], run
    assert run.audit.denied("ip", ip=plan.SINK4, port=port, protocol="udp"), run
