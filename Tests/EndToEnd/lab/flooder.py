"""A hostile program that sends to forbidden destinations without pause: datagrams, connections, and packets made by hand.

    flooder.py SECONDS HOST:PORT…

Prints "begun" when each destination was tried in each way, and "sent N" at its end: after so many seconds, or on SIGTERM.
Packets by hand need CAP_NET_RAW; without, the others are sent.
"""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import sys
import time
from types import FrameType

from raw_packets import KINDS4, KINDS6, Packets

TEXT = b"flooded"

Target = tuple[socket.AddressFamily, str, int]


class Ended(Exception):
    """SIGTERM came."""


def end(number: int, frame: FrameType | None) -> None:
    raise Ended


def by_hand(target: Target) -> Packets:
    """A packet of each kind that goes to the target, from the address that the system would send from."""
    family, host, port = target
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((host, port))
        source = asking.getsockname()[0].partition("%")[0]
    kinds = KINDS6 if family == socket.AF_INET6 else KINDS4
    made = [packet for kind in kinds.values() for packet in kind(source, host, TEXT)]
    return [(packet, address) for packet, address in made if address == host]


def raw_socket(family: socket.AddressFamily) -> socket.socket | None:
    try:
        return socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    except PermissionError:
        return None


class Flooder:
    """Sends to one destination in turns of all ways."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.sent = 0
        self._raw = raw_socket(target[0])
        self._packets: Packets = []

    def send(self) -> None:
        family, host, port = self.target
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(family, kind) as sender, contextlib.suppress(OSError):
                sender.setblocking(False)
                self.sent += 1
                sender.connect((host, port))
                sender.send(TEXT)
        if self._raw is not None:
            self._send_by_hand(self._raw, host)

    def _send_by_hand(self, raw: socket.socket, host: str) -> None:
        if not self._packets:
            # Without a route for a while there is no source either.
            with contextlib.suppress(OSError):
                self._packets = by_hand(self.target)
        for packet, _ in random.sample(self._packets, min(8, len(self._packets))):
            with contextlib.suppress(OSError):
                self.sent += 1
                raw.sendto(packet, (host, 0))


def main(seconds: str, words: list[str]) -> None:
    flooders: list[Flooder] = []
    for word in words:
        host, _, port = word.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        flooders.append(Flooder((family, host, int(port))))
    signal.signal(signal.SIGTERM, end)
    deadline = time.monotonic() + float(seconds)
    has_begun = False
    with contextlib.suppress(Ended):
        while time.monotonic() < deadline:
            for flooder in flooders:
                flooder.send()
            if not has_begun:
                print("begun", flush=True)
                has_begun = True
    print("sent", sum(flooder.sent for flooder in flooders), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
