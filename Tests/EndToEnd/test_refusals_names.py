"""Layers tls-sni and http-host: the name that a connection carries is judged, whatever address it goes to.

Judged by the web server's log, by what reached a sink, and by the bytes on the wire.
"""

from __future__ import annotations

import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Sandgate, after_resolving, allowing, attack

SHARED = pytest.mark.parametrize("address", [plan.SHARED4, plan.SHARED6], ids=["ipv4", "ipv6"])


def curl_at(address: str, url: str, *options: str) -> list[str]:
    """curl that asks `address` for `url`, whatever the URL's name resolves to."""
    bracketed = f"[{address}]" if ":" in address else address
    return ["curl", "-sS", "--max-time", "10", *options, "--connect-to", f"::{bracketed}:", url]


@SHARED
def test_allowed_server_name_arrives(internet: Internet, sandgate: Sandgate, address: str) -> None:
    command = after_resolving(plan.ALLOWED, then=curl_at(address, f"https://{plan.ALLOWED}/in"))
    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert run.returncode == 0 and f"served {plan.ALLOWED} on {address}" in run.stdout, run
    assert [(request.sni, request.path) for request in internet.web.requests()] == [(plan.ALLOWED, "/in")]
    assert run.audit.allowed("tls-sni", event="connection.allowed", host=plan.ALLOWED, ip=address, port=443), run


@pytest.mark.attack(
    "N3", "says a denied server name at an address that is pinned for an allowed one", stopped_by="tls-sni"
)
@SHARED
def test_other_server_name_on_shared_address(internet: Internet, sandgate: Sandgate, address: str) -> None:
    command = after_resolving(plan.ALLOWED, then=curl_at(address, f"https://{plan.OTHER}/out"))
    assert internet.unenforced(command).returncode == 0
    assert internet.web.hosts() == {plan.OTHER}

    with internet.capture(f"host {address}") as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert run.returncode == 35, f"a TLS alert should end curl: {run}"
    assert internet.web.requests() == []
    assert plan.OTHER.encode() not in outside.payload
    assert run.audit.denied("tls-sni", event="connection.denied", host=plan.OTHER, ip=address, port=443), run


@pytest.mark.attack(
    "N3", "says an allowed server name at an address that is pinned for another allowed name", stopped_by="tls-sni"
)
def test_allowed_name_at_another_names_address(internet: Internet, sandgate: Sandgate) -> None:
    """Both names are allowed and both addresses pinned, but not this name at that address."""
    policy = allowing(plan.ALLOWED, plan.GIT)
    command = after_resolving(
        plan.ALLOWED, plan.GIT, then=curl_at(plan.CONTENT4, f"https://{plan.ALLOWED}/in", "--insecure")
    )
    assert internet.unenforced(command).returncode == 0
    assert internet.web.hosts() == {plan.ALLOWED}

    with internet.capture(f"host {plan.CONTENT4}") as outside:
        run = sandgate.run(policy, *command)
    assert run.returncode != 0, run
    assert not outside.lines, f"{run}\n{outside}"
    assert run.audit.denied("tls-sni", reason="name-address-mismatch", host=plan.ALLOWED, ip=plan.CONTENT4), run


@pytest.mark.attack("P2", "says no server name at an address that is pinned for an allowed one", stopped_by="tls-sni")
@SHARED
def test_no_server_name(internet: Internet, sandgate: Sandgate, address: str) -> None:
    command = after_resolving(plan.ALLOWED, then=attack("hello", address, 443, "--host", plan.OTHER))
    assert f"served {plan.OTHER}" in internet.unenforced(command).stdout
    internet.forget()

    with internet.capture(f"host {address}") as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert run.returncode != 0, run
    assert not outside.lines, f"{run}\n{outside}"
    assert run.audit.denied("tls-sni", reason="no-sni", ip=address), run


@pytest.mark.attack("P1", "sends a ClientHello byte by byte, or cut into many TLS records", stopped_by="tls-sni")
@pytest.mark.parametrize("split", ["bytes", "records"])
def test_split_hello(internet: Internet, sandgate: Sandgate, split: str) -> None:
    allowed, denied = (
        after_resolving(plan.ALLOWED, then=attack("hello", plan.SHARED4, 443, "--sni", name, "--split", split))
        for name in (plan.ALLOWED, plan.OTHER)
    )
    for command in (allowed, denied):
        assert "200 OK" in internet.unenforced(command).stdout
    internet.forget()

    run = sandgate.run(allowing(plan.ALLOWED), *allowed)
    assert f"served {plan.ALLOWED}" in run.stdout, run
    internet.forget()

    with internet.capture(f"host {plan.SHARED4}") as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *denied)
    assert run.returncode != 0, run
    assert not outside.lines, f"{run}\n{outside}"
    assert run.audit.denied("tls-sni", host=plan.OTHER), run


@pytest.mark.attack("P2 N3", "speaks TLS for a denied name on port 80", stopped_by="tls-sni")
def test_tls_on_port_80(internet: Internet, sandgate: Sandgate) -> None:
    allowed, denied = (
        after_resolving(plan.TLS_ON_80, then=curl_at(plan.ODD4, f"https://{name}:80/"))
        for name in (plan.TLS_ON_80, plan.HTTP_ON_443)
    )
    assert internet.unenforced(allowed).returncode == internet.unenforced(denied).returncode == 0
    internet.forget()

    run = sandgate.run(allowing(plan.TLS_ON_80), *allowed)
    assert run.returncode == 0, run
    assert run.audit.allowed("tls-sni", port=80), run
    internet.forget()
    run = sandgate.run(allowing(plan.TLS_ON_80), *denied)
    assert run.returncode == 35, run
    assert internet.web.requests() == []
    assert run.audit.denied("tls-sni", host=plan.HTTP_ON_443, port=80), run


@pytest.mark.attack("P2 N3", "speaks HTTP for a denied host on port 443", stopped_by="http-host")
def test_http_on_port_443(internet: Internet, sandgate: Sandgate) -> None:
    allowed, denied = (
        after_resolving(plan.HTTP_ON_443, then=curl_at(plan.ODD4, f"http://{name}:443/"))
        for name in (plan.HTTP_ON_443, plan.TLS_ON_80)
    )
    assert internet.unenforced(allowed).stdout and internet.unenforced(denied).stdout
    internet.forget()

    run = sandgate.run(allowing(plan.HTTP_ON_443), *allowed)
    assert f"served {plan.HTTP_ON_443}" in run.stdout, run
    assert run.audit.allowed("http-host", port=443), run
    internet.forget()
    run = sandgate.run(allowing(plan.HTTP_ON_443), *denied)
    assert "served" not in run.stdout, run
    assert internet.web.requests() == []
    assert run.audit.denied("http-host", host=plan.TLS_ON_80, port=443), run


@pytest.mark.attack(
    "P2", "speaks neither TLS nor HTTP on a web port of an allowed name", stopped_by="tls-sni, http-host"
)
@pytest.mark.parametrize("port", [80, 443])
def test_opaque_bytes_on_web_port(internet: Internet, sandgate: Sandgate, port: int) -> None:
    command = attack("packets", "tcp", plan.OPAQUE, port, "neither TLS nor HTTP")
    assert "neither TLS nor HTTP" in internet.unenforced(command).stdout
    internet.forget()

    run = sandgate.run(allowing(plan.OPAQUE), *command)
    assert run.returncode != 0, run
    assert internet.sinks.arrivals() == []
    assert run.audit.where(reason="opaque-on-web-port", verdict="deny", ip=plan.SINK4, port=port), run


def test_opaque_bytes_on_another_port_of_an_allowed_name(internet: Internet, sandgate: Sandgate) -> None:
    command = attack("packets", "tcp", plan.OPAQUE, 4444, "neither TLS nor HTTP")
    run = sandgate.run(allowing(plan.OPAQUE), *command)
    assert run.returncode == 0, run
    assert "neither TLS nor HTTP" in internet.sinks.data()

    internet.forget()
    run = sandgate.run(allowing({"target": plan.OPAQUE, "ports": [443]}), *command)
    assert run.returncode != 0, run
    assert internet.sinks.arrivals() == []


@pytest.mark.attack(
    "N3", "asks for a denied host at an address that is pinned for an allowed name", stopped_by="http-host"
)
@SHARED
def test_other_host_on_pinned_address(internet: Internet, sandgate: Sandgate, address: str) -> None:
    allowed, denied = (
        after_resolving(plan.ALLOWED, then=curl_at(address, f"http://{name}/")) for name in (plan.ALLOWED, plan.OTHER)
    )
    assert internet.unenforced(allowed).returncode == internet.unenforced(denied).returncode == 0
    assert internet.web.hosts() == {plan.ALLOWED, plan.OTHER}

    run = sandgate.run(allowing(plan.ALLOWED), *allowed)
    assert f"served {plan.ALLOWED} on {address}" in run.stdout, run
    assert run.audit.allowed("http-host", host=plan.ALLOWED, ip=address, port=80), run
    internet.forget()
    run = sandgate.run(allowing(plan.ALLOWED), *denied)
    assert "egress_denied" in run.stdout and plan.OTHER in run.stdout, run
    assert internet.web.requests() == []
    assert run.audit.denied("http-host", host=plan.OTHER, ip=address, port=80), run


def _request(host: str, path: str = "/") -> str:
    return rf"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"


@pytest.mark.attack(
    "P5 N3",
    "asks for an allowed host first and for a denied one on the same connection, in turn or pipelined",
    stopped_by="http-host",
)
@pytest.mark.parametrize("together", [False, True], ids=["keep-alive", "pipelined"])
def test_second_request_with_another_host(internet: Internet, sandgate: Sandgate, together: bool) -> None:
    options = ["--together"] if together else []
    requests = [_request(plan.ALLOWED, "/first"), _request(plan.OTHER, "/second")]
    command = after_resolving(plan.ALLOWED, then=attack("pieces", plan.SHARED4, 80, *options, *requests))
    assert internet.unenforced(command).returncode == 0
    assert {request.path for request in internet.web.requests()} == {"/first", "/second"}

    with internet.capture(f"host {plan.SHARED4}") as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert f"served {plan.ALLOWED}" in run.stdout and "403 Forbidden" in run.stdout, run
    assert [request.path for request in internet.web.requests()] == ["/first"]
    assert plan.OTHER.encode() not in outside.payload
    assert run.audit.denied("http-host", host=plan.OTHER), run


@pytest.mark.honest("twenty pipelined requests on one connection")
def test_many_requests_on_one_connection(internet: Internet, sandgate: Sandgate) -> None:
    requests = [_request(plan.ALLOWED, f"/{number}") for number in range(20)]
    command = after_resolving(plan.ALLOWED, then=attack("pieces", plan.SHARED4, 80, "--together", *requests))
    run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert run.stdout.count(f"served {plan.ALLOWED}") == 20, run
    assert [request.path for request in internet.web.requests()] == [f"/{number}" for number in range(20)]


AMBIGUOUS = {
    "two hosts": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}\r\nHost: {plan.OTHER}\r\n\r\n",
    "no host": r"GET /smuggled HTTP/1.1\r\nAccept: */*\r\n\r\n",
    "absolute form against host": rf"GET http://{plan.OTHER}/smuggled HTTP/1.1\r\nHost: {plan.SINK}\r\n\r\n",
    "userinfo": rf"GET /smuggled HTTP/1.1\r\nHost: user@{plan.SINK}\r\n\r\n",
    "bare line feeds": rf"GET /smuggled HTTP/1.1\nHost: {plan.SINK}\n\n",
    "folded header": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}\r\nX: a\r\n  b\r\n\r\n",
    "space before colon": rf"GET /smuggled HTTP/1.1\r\nHost : {plan.SINK}\r\n\r\n",
    "nul in a header": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}\r\nX: a\x00b\r\n\r\n",
    "length and chunked": rf"POST /smuggled HTTP/1.1\r\nHost: {plan.SINK}\r\nContent-Length: 4\r\n"
    r"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": rf"POST /smuggled HTTP/1.1\r\nHost: {plan.SINK}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "chunked twice": rf"POST /smuggled HTTP/1.1\r\nHost: {plan.SINK}\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    "length with a sign": rf"POST /smuggled HTTP/1.1\r\nHost: {plan.SINK}\r\nContent-Length: +1\r\n\r\na",
    "lower-case version": rf"GET /smuggled http/1.1\r\nHost: {plan.SINK}\r\n\r\n",
    "octal address": r"GET /smuggled HTTP/1.1\r\nHost: 0306.063.0144.0102\r\n\r\n",
}


@pytest.mark.attack(
    "P5 N8",
    "sends a request that two parsers may read differently: two hosts, two lengths, chunks and a length, "
    "folded or odd headers, an octal host",
    stopped_by="http-host",
)
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_request_goes_nowhere(internet: Internet, sandgate: Sandgate, name: str) -> None:
    command = attack("pieces", plan.SINK, 80, AMBIGUOUS[name])
    internet.unenforced(command)
    assert "/smuggled" in internet.sinks.data()

    run = sandgate.run(allowing(plan.SINK), *command)
    assert internet.sinks.arrivals() == [], run
    assert run.audit.where(reason="malformed-http", verdict="deny"), run


@pytest.mark.attack("P5", "carries data in a chunk extension", stopped_by="http-host")
def test_chunk_extension_does_not_pass(internet: Internet, sandgate: Sandgate) -> None:
    head = rf"POST / HTTP/1.1\r\nHost: {plan.SINK}\r\nTransfer-Encoding: chunked\r\n\r\n"
    command = attack("pieces", plan.SINK, 80, "--together", head, r"4;smuggled=secret\r\nabcd\r\n0\r\n\r\n")
    internet.unenforced(command)
    assert "smuggled=secret" in internet.sinks.data()

    sandgate.run(allowing(plan.SINK), *command)
    assert "smuggled" not in internet.sinks.data()


@pytest.mark.attack("P5 P2", "speaks HTTP/2 in the clear, whose hosts would not be read", stopped_by="http-host")
def test_http2_with_prior_knowledge_is_refused(internet: Internet, sandgate: Sandgate) -> None:
    command = attack("pieces", plan.SINK, 80, r"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    internet.unenforced(command)
    assert "PRI * HTTP/2.0" in internet.sinks.data()

    run = sandgate.run(allowing(plan.SINK), *command)
    assert internet.sinks.arrivals() == [], run


@pytest.mark.attack(
    "N3", "says a server name that a rule denies before a wildcard would allow it", stopped_by="tls-sni"
)
def test_denied_rule_wins_over_a_later_wildcard(internet: Internet, sandgate: Sandgate) -> None:
    policy = {
        "egress": [{"action": "deny", "target": plan.OTHER}, {"action": "allow", "target": "*.example"}],
    }
    command = after_resolving(plan.ALLOWED, then=curl_at(plan.SHARED4, f"https://{plan.OTHER}/"))
    assert internet.unenforced(command).returncode == 0
    internet.forget()

    run = sandgate.run(policy, *command)
    assert run.returncode == 35, run
    assert internet.web.requests() == []
    denied = run.audit.denied("tls-sni", host=plan.OTHER, reason="rule")
    assert denied and denied[0]["rule"]["target"] == plan.OTHER, run
