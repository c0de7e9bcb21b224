"""SOCKS5 on the explicit proxy: what CONNECT is judged by judges it too, and it says so in its own words."""

from __future__ import annotations

import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Sandgate, after_resolving, allowing, attack

OPEN_SOCKS = {"ALL_PROXY": plan.OPEN_SOCKS, "all_proxy": plan.OPEN_SOCKS}
ANNOUNCED = ["--socks-env"]
OPEN_POLICY = {"defaultAction": "allow", "egress": [{"action": "allow", "target": "*.example"}]}


def socks(host: str, port: int, *options: str) -> list[str]:
    """A SOCKS client that goes through the proxy of its environment."""
    return attack("socks", host, port, *options)


@pytest.mark.honest("curl over SOCKS, with names and with addresses")
@pytest.mark.parametrize("option", ["--socks5-hostname", "--socks5"], ids=["name", "address"])
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_curl_by_option(internet: Internet, sandgate: Sandgate, scheme: str, option: str) -> None:
    command = ["curl", "-sS", option, plan.EXPLICIT_PROXY, f"{scheme}://{plan.ALLOWED}/socks"]
    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert f"served {plan.ALLOWED}" in run.stdout, run
    assert internet.web.hosts() == {plan.ALLOWED}


@pytest.mark.honest("curl over SOCKS as its environment says, to names with one family or both")
@pytest.mark.parametrize("name", [plan.ALLOWED, plan.V4_ONLY, plan.V6_ONLY])
def test_curl_by_environment(internet: Internet, sandgate: Sandgate, name: str) -> None:
    run = sandgate.run(allowing(name), "curl", "-sSv", f"https://{name}/", options=ANNOUNCED)
    assert f"served {name}" in run.stdout and "SOCKS" in run.stderr, run


def test_curl_to_the_listener_of_the_other_family(internet: Internet, sandgate: Sandgate) -> None:
    port = plan.EXPLICIT_PROXY.rpartition(":")[2]
    command = ["curl", "-sS", "--proxy", f"socks5h://[::1]:{port}", f"https://{plan.ALLOWED}/"]
    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert f"served {plan.ALLOWED}" in run.stdout, run


@pytest.mark.parametrize("address", [plan.SHARED4, plan.SHARED6], ids=["ipv4", "ipv6"])
def test_address_rule(internet: Internet, sandgate: Sandgate, address: str) -> None:
    url = f"http://[{address}]/" if ":" in address else f"http://{address}/"
    run = sandgate.run(allowing(address), "curl", "-sS", url, options=ANNOUNCED)
    assert f"on {address}" in run.stdout, run


def test_announced_only_on_request(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(None, "env", options=["--proxy-env"])
    assert "HTTP_PROXY=" in run.stdout and "ALL_PROXY" not in run.stdout, run
    run = sandgate.run(None, "env", options=["--proxy-env", "--socks-env"])
    assert "all_proxy=socks5h://127.0.0.1:" in run.stdout and "https_proxy=http://127.0.0.1:" in run.stdout, run


@pytest.mark.honest("a SOCKS client that does not wait for the answer to its greeting")
def test_client_in_a_hurry(internet: Internet, sandgate: Sandgate) -> None:
    """Greeting and request in one segment, before the greeting was answered."""
    command = socks(plan.ALLOWED, 443, "--sni", plan.ALLOWED, "--in-a-hurry")
    run = sandgate.run(allowing(plan.ALLOWED), *command, options=ANNOUNCED)
    assert f"served {plan.ALLOWED}" in run.stdout, run


@pytest.mark.honest("SMTP over SOCKS")
def test_server_speaks_first(internet: Internet, sandgate: Sandgate) -> None:
    command = ["curl", "-sS", "--max-time", "10", f"smtp://{plan.MAIL}", "-X", "NOOP"]
    run = sandgate.run(allowing(plan.MAIL), *command, "-v", options=ANNOUNCED)
    assert "220 mail.example" in run.stderr, run
    assert "NOOP" in internet.sinks.data()


@pytest.mark.attack("P6", "asks for a denied name over SOCKS", stopped_by="connect")
def test_denied_name(internet: Internet, sandgate: Sandgate) -> None:
    command = ["curl", "-sS", f"https://{plan.DENIED}/"]
    assert internet.unenforced(command, OPEN_SOCKS).returncode == 0
    internet.forget()

    with internet.capture(f"host {plan.DENIED4} or host {plan.DENIED6}") as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command, options=ANNOUNCED)
    assert run.returncode == 97 and "(2)" in run.stderr, run
    assert not outside.lines and internet.dns.queries() == []
    assert run.audit.denied("connect", host=plan.DENIED), run


@pytest.mark.attack(
    "P6 N1", "asks for an address that no rule names over SOCKS, as an address and as text", stopped_by="connect"
)
@pytest.mark.parametrize("address", [plan.DENIED4, plan.DENIED6])
@pytest.mark.parametrize("form", ["address", "name"])
def test_denied_address(internet: Internet, sandgate: Sandgate, address: str, form: str) -> None:
    command = socks(address, 443, "--as", form, "--sni", plan.DENIED)
    assert "200 OK" in internet.unenforced(command, OPEN_SOCKS).stdout
    internet.forget()

    run = sandgate.run(allowing(plan.ALLOWED), *command, options=ANNOUNCED)
    assert "reply: 2" in run.stdout, run
    assert internet.web.requests() == []
    assert run.audit.denied("connect", ip=address), run


@pytest.mark.attack(
    "P6 N4", "asks for a guard range over SOCKS, by address or by a name that resolves there", stopped_by="connect"
)
@pytest.mark.parametrize(
    "host",
    [*plan.REACHABLE_GUARDED4, *plan.REACHABLE_GUARDED6]
    + [f"guard-{what}.example" for what in ("ten", "metadata", "unique-local")],
)
def test_guard_range(internet: Internet, sandgate: Sandgate, host: str) -> None:
    form = "name" if host.endswith(".example") else "address"
    command = socks(host, plan.CANARY_PORT, "--as", form, "--text", "knock")
    assert "knock" in internet.unenforced(command, OPEN_SOCKS).stdout
    assert "knock" in internet.sinks.data()

    # Even where everything is allowed by default.
    run = sandgate.run(OPEN_POLICY, *command, options=ANNOUNCED)
    assert "reply: 2" in run.stdout, run
    assert internet.sinks.arrivals() == [] and internet.canary.arrivals() == [], run
    assert run.audit.where(reason="guard-range", verdict="deny"), run


@pytest.mark.attack(
    "P6 N4", "asks for the node's loopback or its own addresses over SOCKS, mapped forms included", stopped_by="connect"
)
@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "::1", "::ffff:127.0.0.1", plan.NODE4, plan.NODE6]
    + [f"guard-{what}.example" for what in ("loopback", "loopback6", "node", "node6", "mapped")],
)
def test_node(internet: Internet, sandgate: Sandgate, host: str) -> None:
    """The proxy dials from the node: its loopback and its own addresses must not be within reach."""
    form = "name" if host.endswith(".example") else "address"
    run = sandgate.run(
        OPEN_POLICY, *socks(host, plan.CANARY_PORT, "--as", form, "--text", "knock"), options=ANNOUNCED
    )
    assert "reply: 2" in run.stdout, run
    assert internet.canary.arrivals() == [], run


@pytest.mark.attack("P6 N3", "asks for one name over SOCKS and says another in the ClientHello", stopped_by="tls-sni")
@pytest.mark.parametrize("others", [[], [plan.OTHER]], ids=["denied", "allowed"])
def test_hello_names_another_host(internet: Internet, sandgate: Sandgate, others: list[str]) -> None:
    """The tunnel was asked for one name and used for another, whether that is allowed or not."""
    command = socks(plan.ALLOWED, 443, "--sni", plan.OTHER)
    assert f"served {plan.OTHER}" in internet.unenforced(command, OPEN_SOCKS).stdout
    internet.forget()

    with internet.capture(f"host {plan.SHARED4} or host {plan.SHARED6}") as outside:
        run = sandgate.run(allowing(plan.ALLOWED, *others), *command, options=ANNOUNCED)
    assert "reply: 0" in run.stdout and "served" not in run.stdout, run
    assert internet.web.requests() == []
    assert plan.OTHER.encode() not in outside.payload
    assert run.audit.denied("tls-sni", host=plan.OTHER, reason="name-address-mismatch"), run


@pytest.mark.attack(
    "P6 N3", "asks for a pinned address over SOCKS and says a neighbour's name in the ClientHello", stopped_by="tls-sni"
)
def test_hello_names_another_host_at_an_address(internet: Internet, sandgate: Sandgate) -> None:
    """An address that is pinned for an allowed name, and a neighbour's name in the hello."""
    command = socks(plan.SHARED4, 443, "--as", "address", "--sni", plan.OTHER)
    run = sandgate.run(allowing(plan.ALLOWED), *after_resolving(plan.ALLOWED, then=command), options=ANNOUNCED)
    assert "reply: 0" in run.stdout and "served" not in run.stdout, run
    assert internet.web.requests() == []
    assert run.audit.denied("tls-sni", host=plan.OTHER), run


@pytest.mark.attack("P6 N3", "asks for one name over SOCKS and for another host in the request", stopped_by="http-host")
def test_request_names_another_host(internet: Internet, sandgate: Sandgate) -> None:
    command = socks(plan.ALLOWED, 80, "--http", plan.OTHER)
    assert f"served {plan.OTHER}" in internet.unenforced(command, OPEN_SOCKS).stdout
    internet.forget()

    run = sandgate.run(allowing(plan.ALLOWED), *command, options=ANNOUNCED)
    assert "reply: 0" in run.stdout and "served" not in run.stdout, run
    assert internet.web.requests() == []
    assert run.audit.denied("http-host", host=plan.OTHER), run


@pytest.mark.attack("P6 P2", "speaks neither TLS nor HTTP on a web port over SOCKS", stopped_by="tls-sni, http-host")
def test_opaque_on_a_web_port(internet: Internet, sandgate: Sandgate) -> None:
    command = socks(plan.OPAQUE, 443, "--text", "\u0001 neither TLS nor HTTP")
    assert "neither TLS" in internet.unenforced(command, OPEN_SOCKS).stdout
    internet.forget()

    run = sandgate.run(allowing(plan.OPAQUE), *command, options=ANNOUNCED)
    assert "neither TLS" not in run.stdout, run
    assert "neither TLS" not in internet.sinks.data()
    assert run.audit.where(reason="opaque-on-web-port"), run


def test_connection_refused(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing(plan.ALLOWED), *socks(plan.ALLOWED, 4), options=ANNOUNCED)
    assert "reply: 5" in run.stdout, run


def test_name_without_an_address(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing("nowhere.example"), *socks("nowhere.example", 443), options=ANNOUNCED)
    assert "reply: 4" in run.stdout, run


@pytest.mark.attack("P6", "asks for a listening port or a way for datagrams over SOCKS", stopped_by="connect")
@pytest.mark.parametrize("command", [2, 3], ids=["bind", "udp-associate"])
def test_other_commands(internet: Internet, sandgate: Sandgate, command: int) -> None:
    run = sandgate.run(OPEN_POLICY, *socks(plan.ALLOWED, 443, "--command", str(command)), options=ANNOUNCED)
    assert "reply: 7" in run.stdout, run
    assert run.audit.denied("connect", reason="unsupported-socks", host=plan.ALLOWED), run
    assert "socks5h" in run.stderr, run


@pytest.mark.attack("P6", "sends an address of an unknown type over SOCKS", stopped_by="connect")
def test_other_address_types(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(OPEN_POLICY, *socks(plan.ALLOWED, 443, "--as", "9"), options=ANNOUNCED)
    assert "reply: 8" in run.stdout, run
    assert run.audit.denied("connect", reason="unsupported-socks"), run


@pytest.mark.attack(
    "N8 P6",
    "asks for a short or hexadecimal address, a name with a port or userinfo, or one with an empty label over SOCKS",
    stopped_by="connect",
)
@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "a..b", "allowed.example:443", "user@allowed.example"])
def test_no_name(internet: Internet, sandgate: Sandgate, host: str) -> None:
    run = sandgate.run(OPEN_POLICY, *socks(host, 443), options=ANNOUNCED)
    assert "reply: 2" in run.stdout, run
    assert run.audit.denied("connect", reason="malformed-name"), run
    assert internet.dns.queries() == [] and internet.canary.arrivals() == []


@pytest.mark.attack(
    "P6", "asks for an allowed name with SOCKS 4, which carries no checkable name", stopped_by="connect"
)
@pytest.mark.parametrize("flag", ["--socks4", "--socks4a"])
def test_version_4(internet: Internet, sandgate: Sandgate, flag: str) -> None:
    command = ["curl", "-4", "-sS", flag, plan.EXPLICIT_PROXY, f"https://{plan.ALLOWED}/"]
    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert run.returncode == 97 and "(91)" in run.stderr, run
    assert internet.web.requests() == []
    assert run.audit.denied("connect", reason="unsupported-socks"), run


@pytest.mark.attack("P6", "sends malformed SOCKS messages, at once and in pieces", stopped_by="connect")
@pytest.mark.parametrize(
    ("words", "answer", "reason"),
    [
        (["0500"], "", "malformed-socks"),
        (["050102"], "05ff", "unsupported-socks"),
        (["05", "01", "00", "0401000101020304"], "05000501000100000000000", "malformed-socks"),
        (["050100", "05010101c0000201", "01bb"], "05000501000100000000000", "malformed-socks"),
        (["050100", "0501000300", "01bb"], "05000501000100000000000", "malformed-socks"),
        (["050100", "05010001c0000201", "0000"], "05000501000100000000000", "malformed-socks"),
        (["050100", "47455420"], "05000501000100000000000", "malformed-socks"),
    ],
)
def test_malformed(internet: Internet, sandgate: Sandgate, words: list[str], answer: str, reason: str) -> None:
    run = sandgate.run(OPEN_POLICY, *attack("socks", "--raw", *words), options=ANNOUNCED)
    assert f"answer: {answer}" in run.stdout and "still open" not in run.stdout, run
    assert run.audit.denied("connect", reason=reason), run


@pytest.mark.attack("P6 T3", "asks for port 53 of another nameserver over SOCKS", stopped_by="connect")
@pytest.mark.parametrize("policy", [allowing(plan.OTHER_DNS4), OPEN_POLICY], ids=["address", "default"])
def test_port_of_resolvers(internet: Internet, sandgate: Sandgate, policy: dict[str, object]) -> None:
    """Queries over TCP go to Sandgate's resolver and nowhere else, whoever is allowed."""
    command = socks(plan.OTHER_DNS4, 53, "--as", "address")
    assert "reply: 0" in internet.unenforced(command, OPEN_SOCKS).stdout
    run = sandgate.run(policy, *command, options=ANNOUNCED)
    assert "reply: 2" in run.stdout, run
    assert run.audit.denied("connect", port=53) or run.audit.denied("connect", host=f"{plan.OTHER_DNS4}:53"), run
