"""A client that goes from network namespace to network namespace: a DNS query, a TLS connection, a datagram in each.

Runs as a program of its own: visitor.py AUTHORITY. Reads a JSON line for each visit and writes one with the outcome. It
starts once and makes a visit in milliseconds, so that hundreds of sandboxes can be tried within a test.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import ssl
import struct
import sys
from collections.abc import Iterator
from typing import Any

TIMEOUT = 10.0
"""For what is to be answered or refused; nothing that is tried here is to be left without either."""

CLONE_NEWNET = 0x40000000
TYPE_A = 1

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(path: str) -> Iterator[None]:
    """In a network namespace for as long as the `with` lasts: one that a process is in does not go."""
    with open("/proc/self/ns/net", "rb") as own, open(path, "rb") as other:
        enter(other.fileno())
        try:
            yield
        finally:
            enter(own.fileno())


def enter(descriptor: int) -> None:
    """Moves this process into a network namespace. os.setns came with Python 3.12."""
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")


def query(name: str, identifier: int) -> bytes:
    """A query for the name's IPv4 addresses."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">6H", identifier, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, TYPE_A, 1)


def resolve(name: str, nameserver: str) -> str:
    """ "found" when there are addresses, and otherwise what there was instead."""
    identifier = int.from_bytes(os.urandom(2), "big")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(TIMEOUT)
        try:
            asking.connect((nameserver, 53))
            asking.send(query(name, identifier))
            answer = asking.recv(4096)
        except OSError as error:
            return type(error).__name__
    received, flags, _, answers = struct.unpack_from(">4H", answer)
    if received != identifier:
        return "another query's answer"
    return "found" if answers and not flags & 15 else f"rcode {flags & 15}"


def fetch(context: ssl.SSLContext, name: str, address: str, path: str) -> str:
    """ "served NAME" when the server of that name answered, and otherwise what happened instead."""
    try:
        with socket.create_connection((address, 443), TIMEOUT) as connection:
            with context.wrap_socket(connection, server_hostname=name) as tls:
                tls.sendall(f"GET {path} HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
                answer = b""
                while piece := tls.recv(4096):
                    answer += piece
    except OSError as error:
        return type(error).__name__
    return " ".join(answer.decode("latin-1").splitlines()[-1].split()[:2]) if answer else "nothing"


def send(address: str, port: int, data: str) -> str:
    """ "echoed" when a datagram came back, and otherwise what happened instead."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.settimeout(TIMEOUT)
        try:
            sending.connect((address, port))
            sending.send(data.encode())
            return "echoed" if sending.recv(4096) == data.encode() else "something else"
        except OSError as error:
            return type(error).__name__


def visit(context: ssl.SSLContext, order: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Carries out one order."""
    with inside(order["namespace"]):
        found = {name: resolve(name, order["nameserver"]) for name in order["resolve"]}
        # What has no address is tried all the same.
        served = {name: fetch(context, name, address, order["path"]) for name, address in order["fetch"].items()}
        sent = {address: send(address, order["port"], order["path"]) for address in order["send"]}
    return {"resolve": found, "fetch": served, "send": sent}


def main(authority: str) -> None:
    context = ssl.create_default_context(cafile=authority)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(visit(context, json.loads(line))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
