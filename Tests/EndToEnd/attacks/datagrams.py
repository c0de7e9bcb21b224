"""Sends datagrams in the ways that programs do, and prints a line for what came of each. Exit 1 and the error if none did.

    datagrams.py echo HOST PORT SIZE          one datagram of SIZE bytes, which must come back unchanged
    datagrams.py shared HOST PORT PORT…       one socket that is not connected, to every port in turn, twice
    datagrams.py many HOST PORT COUNT         COUNT sockets at once, each with a datagram of its own
    datagrams.py error HOST PORT              a connected socket: the error that comes back for a datagram
    datagrams.py slow HOST PORT SECONDS…      one socket, a datagram after each pause
    datagrams.py silent HOST PORT TEXT        sends and waits for nothing
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

TIMEOUT = 3.0


def resolve(host: str, port: str) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    family, *_, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)[0]
    return family, address


def opened(host: str, port: str, connect: bool = True) -> tuple[socket.socket, tuple[Any, ...]]:
    family, address = resolve(host, port)
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.settimeout(TIMEOUT)
    if connect:
        made.connect(address)
    return made, address


def echo(host: str, port: str, size: str) -> None:
    sender, _ = opened(host, port)
    data = os.urandom(int(size))
    sender.send(data)
    print("same" if sender.recv(65536) == data else "different")


def shared(host: str, *ports: str) -> None:
    sender, address = opened(host, ports[0], connect=False)
    for turn in range(2):
        for port in ports:
            sender.sendto(f"{turn} to {port}".encode(), (address[0], int(port), *address[2:]))
            data, source = sender.recvfrom(65536)
            print(data.decode(), "from", source[1])


def many(host: str, port: str, count: str) -> None:
    senders = [opened(host, port)[0] for _ in range(int(count))]
    for number, sender in enumerate(senders):
        sender.send(f"flow {number}".encode())
    print(sum(sender.recv(65536) == f"flow {number}".encode() for number, sender in enumerate(senders)), "answered")


def error(host: str, port: str) -> None:
    sender, _ = opened(host, port)
    sender.send(b"refuse me")
    print(sender.recv(65536).decode(), "came back")


def slow(host: str, port: str, *pauses: str) -> None:
    sender, _ = opened(host, port)
    for pause in pauses:
        time.sleep(float(pause))
        sender.send(f"after {pause}".encode())
        print(sender.recv(65536).decode(), flush=True)


def silent(host: str, port: str, text: str) -> None:
    sender, _ = opened(host, port)
    sender.send(text.encode())
    print("sent")


if __name__ == "__main__":
    ways: dict[str, Callable[..., None]] = {
        "echo": echo,
        "shared": shared,
        "many": many,
        "error": error,
        "slow": slow,
        "silent": silent,
    }
    try:
        ways[sys.argv[1]](*sys.argv[2:])
    except OSError as failure:
        sys.exit(f"{type(failure).__name__}: {failure}")
