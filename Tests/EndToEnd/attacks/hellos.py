"""Sends a ClientHello that is made by hand, and prints what comes back.

    hellos.py ADDRESS PORT KIND NAME OTHER [--connect AUTHORITY]

NAME is the server name that a policy allows, OTHER one that it does not. --connect goes through the proxy of HTTPS_PROXY.
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import struct
from collections.abc import Callable

import hello

TIMEOUT = 1.5
SERVER_NAME, PADDING, ECH = 0, 21, 0xFE0D

Extension = tuple[int, bytes]


def ordinary(name: str) -> bytes:
    """The handshake message that OpenSSL writes for a server name."""
    outgoing = ssl.MemoryBIO()
    session = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()[5:]


def vector(data: bytes, size: int = 2) -> bytes:
    return len(data).to_bytes(size, "big") + data


def names(*entries: tuple[int, bytes]) -> Extension:
    """The extension with a list of names (RFC 6066 3)."""
    return SERVER_NAME, vector(b"".join(bytes([kind]) + vector(name) for kind, name in entries))


def with_extensions(message: bytes, change: Callable[[list[Extension]], list[Extension]] | None) -> bytes:
    """The message with other extensions; without any if there is no `change`."""
    position = 4 + 2 + 32
    position += 1 + message[position]
    position += 2 + int.from_bytes(message[position : position + 2], "big")
    position += 1 + message[position]
    rest, found = message[position + 2 :], []
    while rest:
        kind, length = struct.unpack("!HH", rest[:4])
        found.append((kind, rest[4 : 4 + length]))
        rest = rest[4 + length :]
    body = message[4:position]
    if change is not None:
        body += vector(b"".join(struct.pack("!H", kind) + vector(data) for kind, data in change(found)))
    return b"\x01" + vector(body, 3)


def record(data: bytes, kind: int = 22) -> bytes:
    return bytes([kind, 3, 1]) + vector(data)


def records(message: bytes, size: int = 16_000) -> bytes:
    return b"".join(record(message[index : index + size]) for index in range(0, len(message), size))


def named(*extensions: Extension, first: bool = True) -> Callable[[list[Extension]], list[Extension]]:
    """Replaces the server name by these extensions."""

    def change(found: list[Extension]) -> list[Extension]:
        others = [extension for extension in found if extension[0] != SERVER_NAME]
        return [*extensions, *others] if first else [*others, *extensions]

    return change


def encrypted(found: list[Extension]) -> list[Extension]:
    """Offers an encrypted inner hello (draft-ietf-tls-esni, outer form)."""
    inner = b"\0" + struct.pack("!HHB", 1, 1, 7) + vector(os.urandom(32)) + vector(os.urandom(200))
    return [*found, (ECH, inner)]


def sslv2(name: bytes) -> bytes:
    """A hello in the form of SSL 2.0 (RFC 5246 E.2), which has no room for a name; one stands in its challenge."""
    challenge = name[:32].ljust(32, b".")
    body = b"\x01\x03\x01" + struct.pack("!HHH", 3, 0, 32) + b"\x00\x00\x2f" + challenge
    return struct.pack("!H", 0x8000 | len(body)) + body


def make(kind: str, name: str, other: str) -> list[bytes]:
    """The pieces of the attack, sent one after the other."""
    one, two = name.encode(), other.encode()
    hidden = ordinary(other)
    lists: dict[str, Callable[[list[Extension]], list[Extension]] | None] = {
        "other name": named(names((0, two))),
        "two names": named(names((0, one), (0, two))),
        "two names, the other first": named(names((0, two), (0, one))),
        "two lists": named(names((0, one)), names((0, two))),
        "two lists, the other first": named(names((0, two)), names((0, one))),
        "lists far apart": lambda found: [names((0, one)), *named()(found), names((0, two))],
        "empty name": named(names((0, b""))),
        "empty list": named((SERVER_NAME, b"\0\0")),
        "empty extension": named((SERVER_NAME, b"")),
        "other type first": named(names((7, two), (0, one))),
        "only another type": named(names((7, one))),
        "address": named(names((0, b"198.51.100.66"))),
        "address in brackets": named(names((0, b"[2001:db8:100::66]"))),
        "nul and the other name": named(names((0, one + b"\0" + two))),
        "nul at the end": named(names((0, one + b"\0"))),
        "space": named(names((0, one + b" "))),
        "line end": named(names((0, one + b"\r\nHost: " + two))),
        "empty label": named(names((0, one.replace(b".", b"..")))),
        "percent": named(names((0, one.replace(b".", b"%2e")))),
        "wide dot": named(names((0, one.replace(b".", "。".encode())))),
        "not ascii": named(names((0, b"s\xefnk.example"))),
        "over-long": named(names((0, b".".join([b"a" * 60] * 5) + b"." + one))),
        "long label": named(names((0, b"a" * 64 + b"." + one))),
        "list is longer than it says": named((SERVER_NAME, b"\0\5" + vector(b"\0" + vector(one))[2:])),
        "list is shorter than it says": named((SERVER_NAME, struct.pack("!H", 500) + b"\0" + vector(one))),
        "name is longer than its list": named((SERVER_NAME, vector(b"\0" + struct.pack("!H", 400) + one))),
        "bytes behind the list": named((SERVER_NAME, names((0, one))[1] + two)),
        "ech for another name": lambda found: encrypted(named(names((0, two)))(found)),
        "ech for no name": lambda found: encrypted(named()(found)),
        "without extensions": None,
    }
    if kind in lists:
        return [record(with_extensions(ordinary(name), lists[kind]))]
    message = ordinary(name)
    pieces: dict[str, Callable[[], list[bytes]]] = {
        "bytes behind the extensions": lambda: [record(message[:1] + vector(message[4:] + two, 3))],
        "behind an alert": lambda: [record(b"\1\0", 21), record(hidden)],
        # user_canceled (RFC 8446 6.1).
        "behind a warning": lambda: [record(b"\1\x5a", 21), record(hidden)],
        "behind a change of cipher": lambda: [record(b"\1", 20), record(hidden)],
        "behind application data": lambda: [record(b"hello", 23), record(hidden)],
        "behind a heartbeat": lambda: [record(b"\1\0\0", 24), record(hidden)],
        "behind a finished message": lambda: [record(b"\x14\0\0\x0c" + bytes(12)), record(hidden)],
        "behind empty records": lambda: [record(b""), record(b""), record(hidden)],
        "an alert in its middle": lambda: [record(hidden[:50]), record(b"\1\0", 21), record(hidden[50:])],
        "two in one record": lambda: [record(message + hidden)],
        "another version's record": lambda: [b"\x16\x05\x01" + vector(hidden)],
        "larger than any": lambda: [
            records(with_extensions(hidden, lambda found: [*[(40000 + n, bytes(60_000)) for n in range(1)], *found]))
        ],
        "many records and no end": lambda: [record(b"\x01\xff\xff\xff")] + [record(two.ljust(16_000, b"."))] * 30,
        "cut off": lambda: [record(hidden)[:-5]],
        "ssl 2": lambda: [sslv2(two)],
        "datagram form": lambda: [b"\x16\xfe\xfd" + bytes(8) + vector(hidden)],
        "length of no record": lambda: [b"\x16\x03\x01\xff\xff" + hidden],
        "another handshake message": lambda: [record(b"\x02" + hidden[1:])],
    }
    return pieces[kind]()


KINDS_LATE = ("cut off", "many records and no end")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("kind")
    parser.add_argument("name")
    parser.add_argument("other")
    parser.add_argument("--connect")
    arguments = parser.parse_args()
    if arguments.connect:
        connection = hello.connect_through_proxy(arguments.connect)
    else:
        connection = socket.create_connection((arguments.address, arguments.port), 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(TIMEOUT)
    try:
        for piece in make(arguments.kind, arguments.name, arguments.other):
            connection.sendall(piece)
        while received := connection.recv(65536):
            print("received", received[:7].hex(), len(received), flush=True)
        print("closed")
    except OSError as error:
        print(type(error).__name__)


if __name__ == "__main__":
    main()
