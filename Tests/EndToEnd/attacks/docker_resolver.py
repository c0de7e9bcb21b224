"""Asks Docker's embedded resolver at 127.0.0.11 for a name by every way there is, from inside a network that has it. The
arguments are the name and an address of the network's own."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from shared_namespace import datagram, deliver, question

RESOLVER = "127.0.0.11"
IDENTIFIER = 4711
OWN = "127.0.0.55"
"""A loopback address that no device has: the kernel drops frames that come from one of its own."""


def ports(table: str) -> list[int]:
    """Where it really listens: Docker's own rules turn port 53 into these."""
    rows = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    # Of TCP's sockets only those that listen.
    return [
        int(row[1].split(":")[1], 16)
        for row in rows
        if row[1].startswith("0B00007F:") and (table == "udp" or row[3] == "0A")
    ]


def over_udp(family: int, target: str, port: int, source: str, name: str) -> bytes:
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.settimeout(1)
        asking.bind((source, 0))
        asking.sendto(question(name, IDENTIFIER), (target, port))
        return asking.recv(512)


def over_tcp(port: int, name: str) -> bytes:
    with socket.create_connection((RESOLVER, port), 1) as asking:
        query = question(name, IDENTIFIER)
        asking.sendall(struct.pack("!H", len(query)) + query)
        return asking.recv(512)[2:]


def behind_the_rules(way: str, port: int, name: str) -> bytes:
    """With a packet of one's own making; the answer comes to an ordinary socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiving:
        receiving.settimeout(1)
        receiving.bind((OWN, 0))
        query = question(name, IDENTIFIER)
        deliver(way, RESOLVER, datagram(OWN, RESOLVER, receiving.getsockname()[1], port, query))
        return receiving.recv(512)


def ask(name: str, own: str) -> None:
    """Asks it by every way there is; says which of them was answered with an address, and with which."""
    ways: dict[str, Callable[[], bytes]] = {"tcp-53": lambda: over_tcp(53, name)}
    ways["udp-53"] = lambda: over_udp(socket.AF_INET, RESOLVER, 53, "0.0.0.0", name)
    for number, port in enumerate(ports("tcp")):
        ways[f"tcp-{number}"] = lambda port=port: over_tcp(port, name)  # type: ignore[misc]
    for number, port in [(-1, 53), *enumerate(ports("udp"))]:
        for source in ("0.0.0.0", RESOLVER, own):
            ways[f"udp-{number}-from-{source}"] = (
                lambda port=port, source=source: over_udp(socket.AF_INET, RESOLVER, port, source, name)  # type: ignore[misc]
            )
        mapped = f"::ffff:{RESOLVER}"
        ways[f"udp-{number}-mapped"] = lambda port=port: over_udp(socket.AF_INET6, mapped, port, "::", name)  # type: ignore[misc]
        for way in ("raw", "packet"):
            ways[f"{way}-{number}"] = lambda way=way, port=port: behind_the_rules(way, port, name)  # type: ignore[misc]
    for way, attempt in ways.items():
        try:
            reply = attempt()
        except OSError:
            continue
        if len(reply) > 16 and struct.unpack("!H", reply[6:8])[0] > 0:
            print(way, socket.inet_ntoa(reply[-4:]), flush=True)


if __name__ == "__main__":
    ask(*sys.argv[1:])
