"""Writes the fuzz targets' seeds: valid messages of every kind, and some that are nearly so.

    seeds.py DIRECTORY      writes DIRECTORY/TARGET/NAME, the same files on every run

What a fuzzer cannot find by itself (lengths that fit, checksums of the file format's own making) has to stand in a seed.
"""

from __future__ import annotations

import ipaddress
import json
import struct
import sys
from pathlib import Path

# MARK: DNS


def name(text: str) -> bytes:
    """The wire form of dotted text."""
    labels = [label.encode() for label in text.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def question(text: str, kind: int = 1) -> bytes:
    return name(text) + struct.pack("!HH", kind, 1)


def record(owner: bytes, kind: int, data: bytes, ttl: int = 300) -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def message(flags: int, asked: bytes, *sections: list[bytes]) -> bytes:
    counts = [len(section) for section in sections] + [0] * (3 - len(sections))
    header = struct.pack("!HHHHHH", 0x1234, flags, 1, *counts)
    return header + asked + b"".join(part for section in sections for part in section)


OPT = b"\0" + struct.pack("!HHIH", 41, 1232, 0x8000, 0)
COOKIE = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 12) + struct.pack("!HH", 10, 8) + b"sandgate"
AT_QUESTION = b"\xc0\x0c"


def dns_queries() -> list[bytes]:
    return [
        message(0x0100, question("example.com")),
        message(0x0120, question("wWw.ExAmPlE.cOm", 28), [], [], [OPT]),
        message(0x0110, question("_443._tcp.example.com", 52), [], [], [COOKIE]),
        message(0x0100, question("7.2.0.192.in-addr.arpa", 12)),
        message(0x0100, question("")),
    ]


def service_bindings() -> list[bytes]:
    def parameter(key: int, value: bytes) -> bytes:
        return struct.pack("!HH", key, len(value)) + value

    alpn = parameter(1, b"\x02h2\x08http/1.1")
    return [
        struct.pack("!H", 1) + b"\0" + alpn,
        struct.pack("!H", 0) + name("alias.example"),
        struct.pack("!H", 1) + b"\0" + parameter(0, b"\0\1\0\3") + alpn + parameter(3, b"\x20\xfb"),
        struct.pack("!H", 2) + name("a.example") + alpn + parameter(4, bytes(4)) + parameter(5, b"ech") + parameter(6, bytes(16)),
        struct.pack("!H", 1) + b"\0" + parameter(0, b"\0\5") + parameter(5, b"ech"),
    ]


def dns_answers() -> list[bytes]:
    www = question("www.example.com")
    chain = [
        record(AT_QUESTION, 5, b"\x03cdn\xc0\x10"),
        record(b"\x03cdn\xc0\x10", 1, bytes([192, 0, 2, 7])),
        record(b"\x03cdn\xc0\x10", 1, bytes([192, 0, 2, 8]), ttl=5),
    ]
    soa = name("ns.example.com") + b"\x05admin\xc0\x10" + struct.pack("!IIIII", 1, 2, 3, 4, 60)
    rrsig = struct.pack("!HBBIIIH", 1, 8, 3, 300, 2, 1, 7) + name("example.com") + b"signature"
    https = question("www.example.com", 65)
    naptr = struct.pack("!HH", 1, 2) + b"\x01u\x07E2U+sip\x00" + name("sip.example.com")
    return [
        message(0x8180, www, chain, [], [OPT]),
        message(0x81A0, www, [record(AT_QUESTION, 1, bytes([192, 0, 2, 7])), record(AT_QUESTION, 46, rrsig)], [], [OPT]),
        message(0x8183, www, [], [record(b"\xc0\x10", 6, soa)]),
        message(0x8180, www, [], [record(b"\xc0\x10", 6, soa)], [OPT]),
        message(0x8180, question("www.example.com", 28), [record(AT_QUESTION, 28, bytes(15) + b"\1")]),
        message(0x8180, https, [record(AT_QUESTION, 65, data) for data in service_bindings()]),
        message(0x8180, question("example.com", 15), [record(AT_QUESTION, 15, b"\0\x0a\x04mail\xc0\x0c")]),
        message(0x8180, question("example.com", 16), [record(AT_QUESTION, 16, b"\x05hello")]),
        message(0x8180, question("_s._tcp.example.com", 33), [record(AT_QUESTION, 33, bytes(6) + b"\x01a\xc0\x14")]),
        message(0x8180, question("example.com", 35), [record(AT_QUESTION, 35, naptr)]),
        message(0x8180, question("example.com", 5), [record(AT_QUESTION, 5, name("a.example"))]),
    ]


# MARK: TLS and SOCKS


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def client_hello(server_name: bytes | None, *extensions: tuple[int, bytes], suites: int = 4) -> bytes:
    """A handshake message."""
    listed = []
    if server_name is not None:
        listed.append((0, vector(2, b"\0" + vector(2, server_name))))
    listed += [(10, vector(2, b"\0\x1d")), (13, vector(2, b"\4\3\x08\4")), *extensions]
    body = b"\3\3" + b"Z" * 32 + vector(1, b"\7" * 32)
    body += vector(2, b"\x13\x01\x13\x02\xc0\x2b\xc0\x2f"[: 2 * suites]) + vector(1, b"\0")
    body += vector(2, b"".join(struct.pack("!H", kind) + vector(2, data) for kind, data in listed))
    return b"\x01" + vector(3, body)


def records(handshake: bytes, size: int = 16384) -> bytes:
    parts = [handshake[start : start + size] for start in range(0, len(handshake), size)]
    return b"".join(b"\x16\3\1" + vector(2, part) for part in parts)


def hellos() -> list[bytes]:
    alpn = (16, vector(2, vector(1, b"h2") + vector(1, b"http/1.1")))
    versions = (43, vector(1, b"\3\4\3\3"))
    share = (51, vector(2, b"\0\x1d" + vector(2, b"K" * 32)))
    ech = (0xFE0D, b"\0\0\1\0\1\x09" + vector(2, b"E" * 32) + vector(2, b"P" * 64))
    rich = client_hello(b"www.example.com", alpn, versions, share, ech)
    return [
        records(client_hello(b"example.com")),
        records(client_hello(b"example.com", alpn, versions, share)),
        records(rich),
        records(rich, 40),
        records(client_hello(b"a.example"), 1),
        records(client_hello(None)),
        records(client_hello(b"192.0.2.1")),
        records(client_hello(b"example.com.")),
        b"\x80\x2e\x01\3\1\0\x15\0\0\0\x10",
        b"\x15\3\1\0\2\1\x5a" + records(client_hello(b"example.com")),
    ]


def retries() -> list[bytes]:
    """What a server says that asks for another hello, and what a client may say then."""
    random = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
    body = b"\3\3" + random + vector(1, b"\7" * 32) + b"\x13\x01\0" + vector(2, b"\0\x2b\0\2\3\4\0\x33\0\2\0\x17")
    answer = records(b"\2" + vector(3, body))
    change = b"\x14\3\3\0\1\1"
    early = b"\x17\3\3" + vector(2, b"E" * 40)
    return [answer, b"\x15\3\3\0\2\1\x70" + answer, change + hellos()[1], early + change + hellos()[0]]


def socks() -> list[bytes]:
    return [
        b"\5\1\0",
        b"\5\2\0\2",
        b"\5\1\0\3" + vector(1, b"example.com") + b"\x01\xbb",
        b"\5\1\0\1" + bytes([192, 0, 2, 7]) + b"\0\x50",
        b"\5\1\0\4" + ipaddress.ip_address("2001:db8::1").packed + b"\x01\xbb",
        b"\5\3\0\1" + bytes(6),
        b"\4\1\0\x50\xc0\0\2\1user\0",
    ]


# MARK: HTTP

REQUESTS = [
    b"GET /a?b HTTP/1.1\r\nHost: example.com:8080\r\nAccept: */*\r\nConnection: keep-alive, X\r\nX: y\r\n\r\n",
    b"POST http://example.com/ HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    b"5\r\nhello\r\n0\r\n\r\n",
    b"PUT / HTTP/1.0\r\nHost: [2001:db8::1]\r\nContent-Length: 12\r\n\r\nhello, world",
    b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"EHLO example.com\r\n",
    b"GET /c HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: k\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n",
]

RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nServer: x\r\n y\r\n\r\nhello",
    b"HTTP/1.0 404\nConnection: keep-alive\n\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
]

BODIES = [
    b"5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nX: y\r\n\r\nGET /",
    b"0\r\n\r\n",
    b"1\r\na\r\n0\r\n\r\n",
    b"fffffffffffffff\r\nx",
]

AUTHORITIES = [b"example.com", b"example.com:8080", b"192.0.2.1:80", b"[2001:db8::1]:443", b"[::ffff:192.0.2.1]"]


def exchanges() -> list[bytes]:
    """Events of http-forwarding: who sends how much in eights of bytes, and the bytes."""

    def event(side: int, data: bytes) -> bytes:
        data += b" " * (-len(data) % 8) if side == 2 else b""
        return bytes([side << 6 | min(len(data) // 8, 63)]) + data

    def aligned(request: bytes) -> bytes:
        # The padding stands in a field of its own.
        return request.replace(b"\r\n\r\n", b"\r\nP: " + b"p" * ((-len(request) - 5) % 8) + b"\r\n\r\n", 1)

    get = aligned(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
    other = aligned(b"GET /2 HTTP/1.1\r\nHost: b.example\r\n\r\n")
    post = aligned(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 8\r\n\r\n")
    answer = aligned(b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n")
    socket = aligned(REQUESTS[7])
    return [
        event(0, get) + event(2, answer) + event(0, other) + event(2, answer),
        event(0, get + other) + event(2, answer) + event(2, answer) + b"\xc0",
        event(0, post) + event(0, b"12345678") + event(2, answer) + b"\xc1",
        event(0, socket) + event(2, aligned(RESPONSES[4])),
    ]


# MARK: Documents

RULES: list[dict[str, object]] = [
    {"action": "allow", "target": "*.example.com", "ports": [443, "8000-8100"], "protocol": "tcp"},
    {"action": "deny", "target": "api-*.example.com", "comment": "no \u00e9 \"quotes\"\n"},
    {"action": "allow", "target": "2001:db8::/32", "expiresAt": "2027-01-01T00:00:00Z"},
    {"action": "allow", "target": "192.0.2.0/24", "protocol": "udp", "ports": [53], "ttl": "10m"},
]
SETUP = {"expiresAt": "2027-01-01T00:00:00Z", "egress": RULES[:1]}
POLICY = {"defaultAction": "deny", "mode": "report", "egress": RULES, "setup": SETUP}

YAML = """networkPolicy:
  defaultAction: deny
  egress:
    # A comment
    - action: allow
      target: "*.github.com"
    - {action: allow, target: db.internal.example, ports: [5432, 8000-8100], ttl: 1h}
    - action: deny
      target: 192.0.2.0/24
      comment: >-
        folded
        text
      expiresAt: 2027-01-01T00:00:00+01:00
  setup:
    ttl: 1h
    egress: [{action: allow, target: a.example}]
"""

REQUEST = {
    "id": "sandbox-1",
    "networkPolicy": POLICY,
    "timeout": 3600,
    "metadata": {"team": "a", "who": "\ud83d\ude00"},
    "attachment": {"netns": "/run/netns/a", "inbound": [80, "8000-8100"], "acceptRawSockets": True, "acceptSidePaths": True},
    "image": {"uri": "x"},
}

STORED = {
    "id": "sandbox-1",
    "networkPolicy": POLICY | {"egress": RULES[:3]},
    "expiresAt": "2027-01-01T00:00:00.000000Z",
    "metadata": {"team": "a"},
    "attachment": {"create": True, "inbound": "none"},
    "status": {
        "state": "Failed",
        "reason": "Gone",
        "message": "it went",
        "lastTransitionAt": "2026-11-23T00:41:07.123456Z",
        "createdAt": "2026-11-23T00:41:07.123456Z",
        "revision": 3,
        "namespace": "/run/netns/a",
        "inode": "4026531840",
        "bootID": "b",
    },
}


# In the order of ImportFormat.allCases.
IMPORTS = [
    [b'{"network": {"allowOut": ["a.example", "*.b.example", "192.0.2.0/24"], "denyOut": ["0.0.0.0/0"]}}'],
    [b'{"outbound_cidr_allowlist": ["192.0.2.0/24"], "outbound_domain_allowlist": ["*.a.example"]}', b"block_network: true\n"],
    [b'{"network": {"allowedDomains": ["a.example:443", "[2001:db8::1]"], "deniedDomains": ["*:22", "*.b.example"]}}'],
    [
        b"version: v1\nservices:\n  - {name: s, action: enforce, allowed_domains: [a.example]}\n"
        b"default: {action: open}\nglobal_deny_list: ['*.b.example']\n"
    ],
    [
        b"kind: CiliumNetworkPolicy\nspec:\n  egressDeny: [{toCIDR: [192.0.2.1/32]}]\n  egress:\n"
        b"    - toFQDNs: [{matchName: a.example}, {matchPattern: '**.b.example'}]\n"
        b"      toPorts: [{ports: [{port: '443', endPort: 445, protocol: TCP}]}]\n"
        b"    - toCIDRSet: [{cidr: 0.0.0.0/0, except: [10.0.0.0/8]}]\n    - toEntities: [world]\n"
    ],
    [
        b"docker sandbox network proxy s --policy deny --allow-host 'a.example' \\\n --block-cidr 192.0.2.0/24",
        b'{"policy": {"default": "allow"}, "network": {"allowedDomains": ["a.example:80"], "blockedDomains": ["*:443"]}}',
    ],
    [
        b"a.example:443 *.b.example:80\n192.0.2.1:22\n",
        b"jobs: {j: {steps: [{uses: step-security/harden-runner@v2, with: {allowed-endpoints: 'a.example:443'}}]}}\n",
    ],
]


def documents() -> dict[str, list[bytes]]:
    def text(value: object, indent: int | None = None) -> bytes:
        return json.dumps(value, indent=indent).encode()

    return {
        "policy-json": [text(POLICY), text({"networkPolicy": POLICY}, 2), b"{}", b"null", text(RULES), text(["a.example"])],
        "policy-yaml": [YAML.encode(), text(POLICY), b"- {action: allow, target: a.example}\n", b"", b"---\n{}\n...\n"],
        "policy-import": [bytes([index]) + seed for index, seeds in enumerate(IMPORTS) for seed in seeds],
        "create-request": [
            text(REQUEST),
            text({"attachment": {"pid": 7}, "expiresAt": "2027-01-01T00:00:00Z"}),
            text({"attachment": {"container": "c", "inbound": "all"}}, 1),
            text({"attachment": {"pid": 7, "upstreamInside": True, "nameservers": ["192.0.2.1", "[::1]:53"]}}, 1),
            text({"expiresAt": "2027-01-01T00:00:00Z"}),
        ],
        "sandbox-record": [
            text(STORED, 2),
            text(STORED | {"attachment": {"pid": 7, "inbound": ["1-65535"]}}),
            text(STORED | {"attachment": {"pid": 7, "upstreamInside": True, "nameservers": ["192.0.2.1"], "dockerNames": True}}),
            text(STORED | {"attachment": {"pid": 7, "upstreamInside": True, "dockerNames": True, "dockerDomains": ["internal"]}}),
        ],
    }


# MARK: The kernel


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def netlink_message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body + bytes(-len(body) % 4)


def packets() -> list[bytes]:
    source, destination = bytes([192, 0, 2, 1]), bytes([203, 0, 113, 9])
    ports = b"\x9c\x40\x01\xbb" + bytes(4)
    four = bytes([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]) + source + destination
    options = b"\x46" + four[1:] + bytes([1, 1, 1, 1])
    fragment = four[:6] + b"\0\3" + four[8:]
    six_source, six_destination = (ipaddress.ip_address(text).packed for text in ("2001:db8::1", "2001:db8::2"))

    def six(next_header: int, rest: bytes) -> bytes:
        return bytes([0x60, 0, 0, 0, 0, len(rest), next_header, 64]) + six_source + six_destination + rest

    return [
        four + ports,
        options + ports,
        fragment + ports,
        six(6, ports),
        six(0, bytes([60, 0, 1, 4, 0, 0, 0, 0, 51, 1]) + bytes(14) + bytes([17, 4]) + bytes(22) + ports),
        six(44, bytes([6, 0, 0, 8, 0, 0, 0, 0]) + ports),
        six(44, bytes([6, 0, 0, 1, 0, 0, 0, 0]) + ports),
        six(58, b"\x80\0" + bytes(6)),
    ]


def datagrams() -> list[bytes]:
    family = b"\2\0\0\0"
    nflog = [
        netlink_message(0x400, family + attribute(9, packet) + attribute(10, b"sandgate: \0") + attribute(11, bytes(4)) + attribute(12, b"\0\0\0\1"))
        for packet in packets()
    ]
    acknowledged = netlink_message(2, bytes(20))
    refused = netlink_message(2, struct.pack("=i", -17) + bytes(16) + attribute(1, b"already there\0"), 0x200)
    comment = b"\0\x0c" + b"example.com\0"
    element = attribute(1, attribute(1 | 0x8000, attribute(1, bytes([192, 0, 2, 7]))) + attribute(5, struct.pack("!Q", 60_000)) + attribute(6, comment))
    pins = netlink_message(0xA0C, family + attribute(1, b"sandgate\0") + attribute(2, b"pinned4\0") + attribute(3 | 0x8000, element))
    addresses = attribute(1 | 0x8000, attribute(1, bytes([10, 0, 0, 2])) + attribute(2, bytes([192, 0, 2, 7])))
    ports = attribute(2 | 0x8000, attribute(1, b"\x11") + attribute(2, b"\x9c\x40") + attribute(3, b"\0\x35"))
    flow = netlink_message(0x100, family + attribute(1 | 0x8000, addresses + ports) + attribute(3, struct.pack("!I", 0x1A8)) + attribute(7, struct.pack("!I", 30)))
    return [*nflog, acknowledged + refused, pins, flow, b"".join(nflog[:3])]


# MARK: Records

LINES = [
    b'{"seq":1,"ts":"2026-11-23T00:41:07.123456Z","event":"daemon.started","prev":null}',
    b'{"seq":2,"ts":"2026-11-23T00:41:07.123456Z","sandbox":"sbx-1","event":"connection.denied","layer":"tls-sni",'
    b'"verdict":"deny","reason":"default","host":"evil.example","ip":"203.0.113.5","port":443,"protocol":"tcp",'
    b'"rule":{"index":0,"action":"deny","target":"*.example","source":"deny.always"},"policyRevision":7,"prev":"'
    + b"0123456789abcdef" * 4
    + b'"}',
    b'{"seq":3,"ts":"2026-11-23T00:41:08Z","sandbox":"\\ud83d\\ude00\\u001b","event":"connection.closed","bytesUp":1,'
    b'"bytesDown":18446744073709551615,"durationMs":12,"report":true,"prev":null}',
    b'{"seq":4,"ts":"2026-11-23T00:41:08Z","event":"audit.lost","count":12,"prev":null}',
]

TEXTS = [
    b"example.com", b"*.example.com", b"api-*.example.com", b"EXAMPLE.com.", b"192.0.2.7", b"192.0.2.0/24",
    b"2001:db8::/32", b"::ffff:192.0.2.1", b"64:ff9b::192.0.2.1", b"fe80::1", b"1:2:3:4:5:6:7:8", b"::",
    b"8000-8100", b"443", b"0x7f.1", b"127.1", b"2026-11-23T00:41:07.123456Z", b"2024-02-29T23:59:60+14:00",
    b"7.2.0.192.in-addr.arpa", b"b\xc3\xbccher.example", b"http://a.example/", b"a.example:80",
    b".".join([b"1"] + [b"0"] * 31) + b".ip6.arpa",
]  # fmt: skip


def seeds() -> dict[str, list[bytes]]:
    """The seeds of every target."""
    return {
        "dns-query": dns_queries(),
        "dns-answer": dns_answers(),
        "service-binding": service_bindings(),
        "client-hello": hellos(),
        "hello-retry": retries() + hellos(),
        "first-bytes": hellos() + REQUESTS,
        "http-request": REQUESTS,
        "http-response": [bytes([method]) + response for method in (0, 1) for response in RESPONSES],
        "http-body": [b"\3" + body for body in BODIES] + [b"\1hello", b"\2hello", b"\0"],
        "http-authority": AUTHORITIES,
        "http-forwarding": exchanges(),
        "socks": socks(),
        **documents(),
        "netlink": datagrams(),
        "refused-packet": packets(),
        "audit-line": LINES,
        "audit-log": [b"\n".join(LINES) + b"\n", b"\n".join(LINES), LINES[0][:20] + b"\n" + LINES[3] + b"\n"],
        "audit-chain": [b"\3\0\0\x10one\0two\0three \xf0\x9f\x98\x80\0\x1b[31m\1", b"\x0b\0\1\2a\0b\0c\x80"],
        "primitives": TEXTS,
    }


def main() -> None:
    directory = Path(sys.argv[1])
    for target, inputs in seeds().items():
        (directory / target).mkdir(parents=True, exist_ok=True)
        for index, data in enumerate(inputs):
            (directory / target / f"seed-{index:02}").write_bytes(data)


if __name__ == "__main__":
    main()
