"""Layer connect: the explicit proxy judges the authority, and the ClientHello inside the tunnel."""

from __future__ import annotations

import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Sandgate, allowing, attack

OPEN_PROXY = {"HTTPS_PROXY": plan.OPEN_PROXY, "https_proxy": plan.OPEN_PROXY}
PROXY_ENVIRONMENT = ["--proxy-env"]


def tunnel(authority: str, sni: str | None = None, *options: str) -> list[str]:
    """A TLS client that goes through the proxy of its environment."""
    host, _, port = authority.rpartition(":")
    return attack("hello", host, port, "--connect", authority, *(["--sni", sni] if sni else []), *options)


def test_allowed_authority_arrives(internet: Internet, sandgate: Sandgate) -> None:
    command = tunnel(f"{plan.ALLOWED}:443", plan.ALLOWED)
    assert "200 OK" in internet.unenforced(command, OPEN_PROXY).stdout
    internet.forget()

    run = sandgate.run(allowing(plan.ALLOWED), *command, options=PROXY_ENVIRONMENT)
    assert f"served {plan.ALLOWED}" in run.stdout, run
    assert internet.web.hosts() == {plan.ALLOWED}
    assert run.audit.where(event="connection.allowed", host=plan.ALLOWED), run


@pytest.mark.attack("P6", "asks the proxy for a tunnel to a denied name", stopped_by="connect")
def test_denied_authority(internet: Internet, sandgate: Sandgate) -> None:
    command = tunnel(f"{plan.DENIED}:443", plan.DENIED)
    assert "200 OK" in internet.unenforced(command, OPEN_PROXY).stdout
    internet.forget()

    with internet.capture(f"host {plan.DENIED4} or host {plan.DENIED6}") as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command, options=PROXY_ENVIRONMENT)
    assert "proxy: HTTP/1.1 403" in run.stdout and "egress_denied" in run.stdout, run
    assert not outside.lines and internet.dns.queries() == []
    assert run.audit.denied("connect", host=plan.DENIED), run


@pytest.mark.attack("P6", "has curl ask the proxy for a tunnel to a denied name", stopped_by="connect")
def test_denied_authority_by_curl(internet: Internet, sandgate: Sandgate) -> None:
    command = ["curl", "-sS", f"https://{plan.DENIED}/"]
    assert internet.unenforced(command, OPEN_PROXY).returncode == 0
    internet.forget()

    run = sandgate.run(allowing(plan.ALLOWED), *command, options=PROXY_ENVIRONMENT)
    assert run.returncode == 56 and "403" in run.stderr, run
    assert internet.web.requests() == []


@pytest.mark.attack("P6 N1", "asks the proxy for a tunnel to an address that no rule names", stopped_by="connect")
@pytest.mark.parametrize("address", [plan.DENIED4, f"[{plan.DENIED6}]"])
def test_denied_address_as_authority(internet: Internet, sandgate: Sandgate, address: str) -> None:
    command = tunnel(f"{address}:443", plan.DENIED)
    assert "200 OK" in internet.unenforced(command, OPEN_PROXY).stdout
    internet.forget()

    run = sandgate.run(allowing(plan.ALLOWED), *command, options=PROXY_ENVIRONMENT)
    assert "proxy: HTTP/1.1 403" in run.stdout, run
    assert internet.web.requests() == []


@pytest.mark.attack(
    "P6 N4",
    "asks the proxy for a tunnel into a guard range, by address or by a name that resolves there",
    stopped_by="connect",
)
@pytest.mark.parametrize(
    "authority",
    [
        *(f"{address}:{plan.CANARY_PORT}" for address in plan.REACHABLE_GUARDED4),
        *(f"[{address}]:{plan.CANARY_PORT}" for address in plan.REACHABLE_GUARDED6),
        f"guard-ten.example:{plan.CANARY_PORT}",
        f"guard-metadata.example:{plan.CANARY_PORT}",
        f"guard-unique-local.example:{plan.CANARY_PORT}",
    ],
)
def test_guard_range_as_authority(internet: Internet, sandgate: Sandgate, authority: str) -> None:
    command = tunnel(authority, plan.ALLOWED)
    assert "proxy: HTTP/1.1 200" in internet.unenforced(command, OPEN_PROXY).stdout
    assert internet.sinks.arrivals() != []

    # Even where everything is allowed by default.
    policy = {"defaultAction": "allow", "egress": [{"action": "allow", "target": "*.example"}]}
    run = sandgate.run(policy, *command, options=PROXY_ENVIRONMENT)
    assert "proxy: HTTP/1.1 200" not in run.stdout, run
    assert internet.sinks.arrivals() == [] and internet.canary.arrivals() == [], run
    assert run.audit.where(reason="guard-range", verdict="deny"), run


@pytest.mark.attack(
    "P6 N4",
    "asks the proxy for a tunnel to the node's loopback or its own addresses, by address or by name",
    stopped_by="connect",
)
@pytest.mark.parametrize(
    "authority",
    [f"127.0.0.1:{plan.CANARY_PORT}", f"[::1]:{plan.CANARY_PORT}", f"{plan.NODE4}:{plan.CANARY_PORT}"]
    + [f"guard-{what}.example:{plan.CANARY_PORT}" for what in ("loopback", "loopback6", "node", "node6", "mapped")],
)
def test_node_as_authority(internet: Internet, sandgate: Sandgate, authority: str) -> None:
    """The proxy dials from the node: its loopback and its own addresses must not be within reach."""
    policy = {"defaultAction": "allow", "egress": [{"action": "allow", "target": "*.example"}]}
    run = sandgate.run(policy, *tunnel(authority, plan.ALLOWED), options=PROXY_ENVIRONMENT)
    assert "proxy: HTTP/1.1 200" not in run.stdout, run
    assert internet.canary.arrivals() == [], run


@pytest.mark.attack(
    "P6 N3", "asks for a tunnel to an allowed name and says a denied one in the ClientHello", stopped_by="tls-sni"
)
def test_hello_inside_the_tunnel_names_another_host(internet: Internet, sandgate: Sandgate) -> None:
    command = tunnel(f"{plan.ALLOWED}:443", plan.OTHER)
    assert f"served {plan.OTHER}" in internet.unenforced(command, OPEN_PROXY).stdout
    internet.forget()

    with internet.capture(f"host {plan.SHARED4} or host {plan.SHARED6}") as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command, options=PROXY_ENVIRONMENT)
    assert "served" not in run.stdout and run.returncode != 0, run
    assert internet.web.requests() == []
    assert plan.OTHER.encode() not in outside.payload
    assert run.audit.denied("tls-sni", host=plan.OTHER), run


@pytest.mark.attack(
    "P6 N3",
    "asks for a tunnel to one allowed name and says another allowed one in the ClientHello",
    stopped_by="tls-sni",
)
def test_hello_inside_the_tunnel_names_another_allowed_host(internet: Internet, sandgate: Sandgate) -> None:
    """Both names are allowed, but the tunnel was asked for one and used for the other."""
    command = tunnel(f"{plan.ALLOWED}:443", plan.OTHER)
    run = sandgate.run(allowing(plan.ALLOWED, plan.OTHER), *command, options=PROXY_ENVIRONMENT)
    assert "served" not in run.stdout, run
    assert internet.web.requests() == []
    assert run.audit.denied("tls-sni", host=plan.OTHER, reason="name-address-mismatch"), run


@pytest.mark.attack(
    "P6 N3", "asks for a tunnel to an allowed name and for a denied host inside", stopped_by="http-host"
)
def test_http_inside_the_tunnel_names_another_host(internet: Internet, sandgate: Sandgate) -> None:
    command = ["curl", "-sS", "--proxytunnel", "-H", f"Host: {plan.OTHER}", f"http://{plan.ALLOWED}/"]
    environment = {"http_proxy": plan.OPEN_PROXY}
    assert f"served {plan.OTHER}" in internet.unenforced(command, environment).stdout
    internet.forget()

    run = sandgate.run(allowing(plan.ALLOWED), *command, options=PROXY_ENVIRONMENT)
    assert "served" not in run.stdout, run
    assert internet.web.requests() == []
    assert run.audit.denied("http-host", host=plan.OTHER), run


@pytest.mark.attack("P6", "asks the proxy for a denied host in absolute form", stopped_by="http-host")
def test_absolute_form_request(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing(plan.ALLOWED), "curl", "-sS", f"http://{plan.ALLOWED}/", options=PROXY_ENVIRONMENT)
    assert f"served {plan.ALLOWED}" in run.stdout, run
    internet.forget()

    run = sandgate.run(allowing(plan.ALLOWED), "curl", "-sS", f"http://{plan.DENIED}/", options=PROXY_ENVIRONMENT)
    assert "egress_denied" in run.stdout, run
    assert internet.web.requests() == [] and internet.dns.queries() == []
    assert run.audit.where(host=plan.DENIED, verdict="deny"), run
