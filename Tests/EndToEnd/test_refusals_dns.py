"""Layer dns: what a sandbox may ask, and what the answers may say. Judged by the nameservers' own logs."""

from __future__ import annotations

import dns.flags
import dns.message
import pytest

from lab import plan
from lab.internet import Internet
from lab.nameservers import TXT
from lab.sandgate import Sandgate, allowing, attack, shell

QUERY_WAYS = pytest.mark.parametrize(
    ("server", "options"),
    [
        pytest.param(plan.OTHER_DNS4, [], id="udp"),
        pytest.param(plan.OTHER_DNS4, ["--tcp"], id="tcp"),
        pytest.param(plan.OTHER_DNS6, [], id="udp6"),
        pytest.param(plan.OTHER_DNS6, ["--tcp"], id="tcp6"),
    ],
)


def test_allowed_name_is_answered(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing(plan.ALLOWED), *attack("query", plan.DNS4, plan.ALLOWED, "A", "AAAA"))
    assert run.returncode == 0, run
    assert plan.SHARED4 in run.stdout and plan.SHARED6 in run.stdout, run
    assert internet.dns.names() == {plan.ALLOWED}
    assert run.audit.allowed("dns", event="dns.allowed", host=plan.ALLOWED), run


@pytest.mark.attack("D1", "asks the nameserver for a denied name", stopped_by="dns")
def test_denied_name_is_not_asked(internet: Internet, sandgate: Sandgate) -> None:
    command = attack("query", plan.DNS4, plan.DENIED, "A")
    assert plan.DENIED4 in internet.unenforced(command).stdout
    assert internet.dns.names() == {plan.DENIED}

    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert "rcode NXDOMAIN" in run.stdout, run
    assert "option 15" in run.stdout, "the refusal should carry an Extended DNS Error"
    assert internet.dns.queries() == []
    assert run.audit.denied("dns", event="dns.denied", host=plan.DENIED, reason="default"), run


@pytest.mark.attack("D1", "looks a denied name up with the C library", stopped_by="dns")
def test_resolver_library_reports_denied_name(internet: Internet, sandgate: Sandgate) -> None:
    command = ["getent", "ahosts", plan.DENIED]
    assert internet.unenforced(command).returncode == 0
    internet.forget()

    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert run.returncode == 2, run
    assert internet.dns.queries() == []


@pytest.mark.attack("T3 D1", "asks another nameserver, over UDP or TCP, IPv4 or IPv6", stopped_by="dns, kernel")
@QUERY_WAYS
def test_query_to_another_server_is_ours(
    internet: Internet, sandgate: Sandgate, server: str, options: list[str]
) -> None:
    commands = [attack("query", server, name, *options) for name in (plan.ALLOWED, plan.DENIED)]
    for command in commands:
        assert "rcode NOERROR" in internet.unenforced(command).stdout
    assert internet.other_dns.names() == {plan.ALLOWED, plan.DENIED}
    internet.forget()

    allowed, denied = (sandgate.run(allowing(plan.ALLOWED), *command) for command in commands)
    assert plan.SHARED4 in allowed.stdout, allowed
    assert "rcode NXDOMAIN" in denied.stdout, denied
    assert internet.other_dns.queries() == []
    assert internet.dns.names() == {plan.ALLOWED}


@pytest.mark.attack("D3 D1", "puts data into a label below a denied name, for types of every kind", stopped_by="dns")
@pytest.mark.parametrize("kind", ["TXT", "MX", "NULL", "ANY", "HTTPS"])
def test_denied_name_is_no_carrier(internet: Internet, sandgate: Sandgate, kind: str) -> None:
    command = attack("query", plan.DNS4, f"c2VjcmV0.{plan.DENIED}", kind)
    assert internet.unenforced(command).returncode == 0
    assert internet.dns.names() == {f"c2vjcmv0.{plan.DENIED}"}

    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert "rcode NXDOMAIN" in run.stdout or "rcode REFUSED" in run.stdout, run
    assert internet.dns.queries() == []


@pytest.mark.attack("D3", "reads a text from a denied name's TXT record", stopped_by="dns")
def test_text_of_denied_name_stays_outside(internet: Internet, sandgate: Sandgate) -> None:
    command = attack("query", plan.DNS4, plan.DENIED, "TXT")
    assert TXT in internet.unenforced(command).stdout
    internet.forget()

    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert TXT not in run.stdout, run
    assert internet.dns.queries() == []


@pytest.mark.attack("D3", "asks for NULL, ANY, a zone transfer or an unknown type of an allowed name", stopped_by="dns")
@pytest.mark.parametrize("kind", ["NULL", "ANY", "AXFR", "TYPE65280"])
def test_unusual_type_is_refused_even_for_allowed_name(internet: Internet, sandgate: Sandgate, kind: str) -> None:
    command = attack("query", plan.DNS4, plan.ALLOWED, kind)
    with internet.capture(f"port 53 and host {plan.DNS4}", unenforced=True) as outside:
        internet.unenforced(command)
    assert outside.lines
    internet.forget()
    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert "rcode REFUSED" in run.stdout, run
    assert internet.dns.queries() == []


@pytest.mark.attack("D3", "puts data into the address of a reverse lookup", stopped_by="dns")
def test_unknown_address_is_not_looked_up_backwards(internet: Internet, sandgate: Sandgate) -> None:
    command = attack("query", plan.DNS4, "1.0.0.10.in-addr.arpa", "PTR")
    assert internet.unenforced(command).returncode == 0
    assert internet.dns.names() == {"1.0.0.10.in-addr.arpa"}

    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert "rcode NXDOMAIN" in run.stdout, run
    assert internet.dns.queries() == []


def _two_questions() -> bytes:
    first = bytearray(dns.message.make_query(plan.ALLOWED, "A").to_wire())
    second = dns.message.make_query(plan.DENIED, "A").to_wire()[12:]
    first[5] = 2
    return bytes(first + second)


def _response_as_query() -> bytes:
    message = dns.message.make_query(plan.ALLOWED, "A")
    message.flags |= dns.flags.QR
    return message.to_wire()


MALFORMED = {
    "two questions": _two_questions(),
    "trailing bytes": dns.message.make_query(plan.ALLOWED, "A").to_wire() + b"smuggled",
    "response as query": _response_as_query(),
    "update": bytes([0, 1, 0x28, 0]) + dns.message.make_query(plan.ALLOWED, "A").to_wire()[4:],
    "class chaos": dns.message.make_query(plan.ALLOWED, "A", rdclass="CH").to_wire(),
    "label of 64 bytes": bytes.fromhex("000101000001000000000000") + b"\x40" + b"a" * 64 + b"\x00\x00\x01\x00\x01",
    "name of 300 bytes": bytes.fromhex("000101000001000000000000")
    + (b"\x3b" + b"a" * 59) * 5
    + b"\x07example\x00\x00\x01\x00\x01",
    "dot in a label": bytes.fromhex("000101000001000000000000") + b"\x0fallowed.example\x00\x00\x01\x00\x01",
    "nul in a label": bytes.fromhex("000101000001000000000000") + b"\x08allowed\0\x07example\x00\x00\x01\x00\x01",
    "compression loop": bytes.fromhex("000101000001000000000000") + b"\xc0\x0c\x00\x01\x00\x01",
}


@pytest.mark.attack(
    "D2 N7",
    "sends two questions, trailing bytes, a response, an update, another class, or a name with NULs, dots, "
    "loops or over-long labels",
    stopped_by="dns",
)
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_query_goes_nowhere(internet: Internet, sandgate: Sandgate, name: str, tcp: bool) -> None:
    command = attack("query", plan.DNS4, "--hex", MALFORMED[name].hex(), *(["--tcp"] if tcp else []))
    # That the message reaches a nameserver without enforcement is seen on the wire: dnsmasq would not log it.
    with internet.capture(f"port 53 and host {plan.DNS4}", unenforced=True) as outside:
        internet.unenforced(command)
    assert MALFORMED[name] in outside.payload

    with internet.capture("port 53") as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert not outside.lines, f"{run}\n{outside}"
    assert "NOERROR" not in run.stdout, run


@pytest.mark.attack("D5 P3", "takes ECH keys and address hints from an HTTPS record", stopped_by="dns")
def test_ech_and_hints_are_removed(internet: Internet, sandgate: Sandgate) -> None:
    command = attack("query", plan.DNS4, plan.ECH, "HTTPS")
    offered = internet.unenforced(command).stdout
    assert "ech=" in offered and "ipv4hint=" in offered

    run = sandgate.run(allowing(plan.ECH), *command)
    assert 'alpn="h2"' in run.stdout, run
    assert "ech=" not in run.stdout and "hint=" not in run.stdout, run


@pytest.mark.attack(
    "N4",
    "uses an allowed name that resolves into a guard range, mapped and translated forms included",
    stopped_by="dns",
)
@pytest.mark.parametrize(("name", "address"), plan.GUARDED.items(), ids=plan.GUARDED)
def test_name_leads_into_no_guard_range(internet: Internet, sandgate: Sandgate, name: str, address: str) -> None:
    kind = "AAAA" if ":" in address else "A"
    lookup = attack("query", plan.DNS4, name, kind)
    connect = attack("packets", "tcp", name, plan.CANARY_PORT, "through a guarded name")
    assert address in internet.unenforced(lookup).stdout
    internet.unenforced(connect)
    if address in plan.REACHABLE_GUARDED4 + plan.REACHABLE_GUARDED6:
        assert "through a guarded name" in internet.sinks.data()
    internet.forget()

    run = sandgate.run(allowing("*.example"), *shell(f"{' '.join(lookup)}; {' '.join(connect[:-1])} guarded"))
    assert f" {address}\n" not in run.stdout, run
    assert internet.sinks.arrivals() == [], run
    assert internet.canary.arrivals() == [], run
    assert run.audit.where(host=name, reason="guard-range", verdict="deny"), run


def test_guarded_address_is_reached_where_a_rule_names_it(internet: Internet, sandgate: Sandgate) -> None:
    name = "guard-ten.example"
    command = attack("packets", "tcp", name, plan.CANARY_PORT, "by explicit rule")
    run = sandgate.run(allowing(name, "10.99.0.1"), *command)
    assert run.returncode == 0, run
    assert "by explicit rule" in internet.sinks.data()


def test_alias_of_denied_name_is_judged_by_the_question(internet: Internet, sandgate: Sandgate) -> None:
    run = sandgate.run(allowing(plan.ALIAS_OF_DENIED), "curl", "-sS", f"https://{plan.ALIAS_OF_DENIED}/")
    assert run.returncode == 0, run
    assert internet.web.hosts() == {plan.ALIAS_OF_DENIED}


def test_apex_of_allowed_wildcard_has_no_data(internet: Internet, sandgate: Sandgate) -> None:
    command = attack("query", plan.DNS4, plan.WILD, "A")
    assert plan.SHARED4 in internet.unenforced(command).stdout
    internet.forget()

    run = sandgate.run(allowing(f"*.{plan.WILD}"), *command)
    assert "rcode NOERROR" in run.stdout and plan.SHARED4 not in run.stdout, run
    assert internet.dns.queries() == []


@pytest.mark.attack("D4", "carries data in hundreds of names below an allowed wildcard", stopped_by="limits, dns")
def test_tunnel_below_wildcard_runs_into_the_budget(internet: Internet, sandgate: Sandgate) -> None:
    script = (
        "import socket\n"
        "for number in range(400):\n"
        f"    try: socket.gethostbyname(f'secret-{{number}}.{plan.WILD}')\n"
        "    except OSError: pass\n"
    )
    command = ["/usr/bin/python3", "-c", script]
    internet.unenforced(command)
    assert len(internet.dns.names()) == 400

    run = sandgate.run(allowing(f"*.{plan.WILD}"), *command)
    asked = internet.dns.names()
    assert 0 < len(asked) <= 250, len(asked)
    assert run.audit.denied("dns", reason="dns-budget"), run.stderr
