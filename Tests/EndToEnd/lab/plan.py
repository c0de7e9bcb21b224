"""Who is where in the lab's Internet: every name, address and port the tests speak of.

198.51.100.0/24 and 2001:db8:100::/64 are documentation prefixes, so that nothing here can be anybody's real host. The
node (the root namespace, where Sandgate's upstream sockets live) is a neighbour on that link.
"""

from __future__ import annotations

V4 = "198.51.100"
V6 = "2001:db8:100:"

NODE4, NODE6 = f"{V4}.1", f"{V6}:1"
"""The node's own addresses on the link to the Internet."""

MARKER4 = f"{V4}.2"
"""The Internet's first address: only the lab itself talks to it, to know that what came before has been seen."""

DNS4, DNS6 = f"{V4}.53", f"{V6}:53"
"""The nameserver that Sandgate and the unenforced programs are told to use."""

OTHER_DNS4, OTHER_DNS6 = f"{V4}.54", f"{V6}:54"
"""Another nameserver, which answers just as well: the one that a program asks to get around the first."""

SCRIPTED_DNS4 = f"{V4}.55"
"""A nameserver that answers what a test tells it to, well-formed or not."""

SHARED4, SHARED6 = f"{V4}.10", f"{V6}:10"
"""One address with many TLS names, as at a CDN: allowed and denied ones."""

DENIED4, DENIED6 = f"{V4}.11", f"{V6}:11"
CONTENT4, CONTENT6 = f"{V4}.20", f"{V6}:20"
GREETER4, GREETER6 = f"{V4}.30", f"{V6}:30"
ODD4, ODD6 = f"{V4}.40", f"{V6}:40"
SINK4, SINK6 = f"{V4}.66", f"{V6}:66"
EVERYDAY4, EVERYDAY6 = f"{V4}.70", f"{V6}:70"
"""Where the servers of test_every_client.py listen."""

ALLOWED = "allowed.example"
"""What most tests' policies allow, on the shared address."""

OTHER = "other.example"
"""A neighbour of ALLOWED on the shared address that no test's policy allows."""

DENIED = "denied.example"
"""A name that no test's policy allows, on an address of its own."""

WILD = "wild.example"
"""Every name below it resolves to the shared address."""

GIT, PYPI, FILES = "git.example", "pypi.example", "files.example"
MAIL, DATABASE = "mail.example", "db.example"
REGISTRY = "registry.example"
"""Serves every package registry that is made of files."""

MODEL = "model.example"
"""The language model that a coding agent asks (coding_agent.py)."""
SSH, RSYNC, MQTT, POSTGRES = "ssh.example", "rsync.example", "mqtt.example", "postgres.example"
WEBSOCKET, GRPC = "websocket.example", "grpc.example"
TLS_ON_80, HTTP_ON_443, OPAQUE = "tls80.example", "http443.example", "opaque.example"
SINK = "sink.example"
V4_ONLY, V6_ONLY = "v4only.example", "v6only.example"
HALF_DEAD = "half-dead.example"
"""Its IPv4 address refuses every connection; its IPv6 address serves."""
ALIAS = "alias.example"
"""A CNAME for ALLOWED."""
ALIAS_OF_DENIED = "alias-of-denied.example"
ECH = "ech.example"
"""Has an HTTPS record with ech and address hints."""

HOSTS: dict[str, tuple[str, ...]] = {
    ALLOWED: (SHARED4, SHARED6),
    OTHER: (SHARED4, SHARED6),
    ECH: (SHARED4, SHARED6),
    DENIED: (DENIED4, DENIED6),
    GIT: (CONTENT4, CONTENT6),
    PYPI: (CONTENT4, CONTENT6),
    FILES: (CONTENT4, CONTENT6),
    REGISTRY: (CONTENT4, CONTENT6),
    MODEL: (CONTENT4, CONTENT6),
    **dict.fromkeys((SSH, RSYNC, MQTT, POSTGRES, WEBSOCKET, GRPC), (EVERYDAY4, EVERYDAY6)),
    MAIL: (GREETER4, GREETER6),
    DATABASE: (GREETER4, GREETER6),
    TLS_ON_80: (ODD4, ODD6),
    HTTP_ON_443: (ODD4, ODD6),
    OPAQUE: (SINK4, SINK6),
    SINK: (SINK4, SINK6),
    V4_ONLY: (SHARED4,),
    V6_ONLY: (SHARED6,),
    HALF_DEAD: (MARKER4, SHARED6),
}

WEB_NAMES = (ALLOWED, OTHER, ECH, DENIED, V4_ONLY, V6_ONLY, HALF_DEAD, ALIAS, ALIAS_OF_DENIED, WILD, f"*.{WILD}")
"""Names whose web server answers with a line that says who was asked."""

GUARDED: dict[str, str] = {
    "guard-this-network.example": "0.0.0.0",
    "guard-loopback.example": "127.0.0.1",
    "guard-metadata.example": "169.254.169.254",
    "guard-task-metadata.example": "169.254.170.2",
    "guard-node-services.example": "168.63.129.16",
    "guard-ten.example": "10.99.0.1",
    "guard-172.example": "172.31.99.1",
    "guard-192.example": "192.168.99.1",
    "guard-cgnat.example": "100.64.99.1",
    "guard-benchmark.example": "198.18.99.1",
    "guard-multicast.example": "224.0.0.99",
    "guard-broadcast.example": "255.255.255.255",
    "guard-node.example": NODE4,
    "guard-loopback6.example": "::1",
    "guard-link-local6.example": "fe80::99",
    "guard-unique-local.example": "fd99::1",
    "guard-mapped.example": "::ffff:127.0.0.1",
    "guard-nat64.example": "64:ff9b::7f00:1",
    "guard-6to4.example": "2002:7f00:1::1",
    "guard-node6.example": NODE6,
}
"""Names that anyone could register, pointing to where no name may lead."""

REACHABLE_GUARDED4 = (
    "169.254.169.254",
    "169.254.170.2",
    "168.63.129.16",
    "10.99.0.1",
    "172.31.99.1",
    "192.168.99.1",
    "100.64.99.1",
    "198.18.99.1",
)
REACHABLE_GUARDED6 = ("fd99::1",)
"""Guarded addresses that the lab's Internet has, routed from the node: a leak would arrive there, and go no further."""

SINK_TCP_PORTS = (22, 80, 443, 853, 4444, 8443)
SINK_UDP_PORTS = (123, 443, 853, 4444, 5353)
CANARY_PORT = 4444
"""Where the node itself and the guarded addresses listen."""

SMTP_PORT, MYSQL_PORT = 25, 3306
OPEN_PROXY = f"http://{GREETER4}:3128"
"""A proxy without a policy: what attacks on a proxy are first tried at."""

OPEN_SOCKS = f"socks5h://{GREETER4}:1080"
"""The same for SOCKS."""

EXPLICIT_PROXY = "127.0.0.1:64128"
"""Sandgate's own proxy inside the sandbox, for clients that were told of it."""

ADDRESSES4 = (MARKER4, DNS4, OTHER_DNS4, SCRIPTED_DNS4, SHARED4, DENIED4, CONTENT4, GREETER4, ODD4, SINK4, EVERYDAY4)
ADDRESSES6 = (f"{V6}:2", DNS6, OTHER_DNS6, SHARED6, DENIED6, CONTENT6, GREETER6, ODD6, SINK6, EVERYDAY6)
