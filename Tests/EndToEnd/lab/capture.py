"""Packets as tcpdump sees them in a namespace, from when it listens to when everything sent has been seen."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from . import plan
from .processes import Child, check, wait_until

MARKER_PORT = 9
"""Discard: the port of the datagram that says that the capture may end."""


class Capture:
    """A finished capture (or, inside the `with`, one that has not been read yet)."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.lines: list[str] = []

    def finish(self) -> None:
        """Reads the packets, without the lab's own marker."""
        self.lines = self._read()

    def timed(self) -> list[tuple[float, str]]:
        """The packets, each with the moment (of `time.time()`) at which it was seen."""
        found = [line.split(" ", 1) for line in self._read("-tt")]
        return [(float(moment), line) for moment, line in found]

    def _read(self, *options: str) -> list[str]:
        text = check("tcpdump", *options, "-nn", "-r", self._file)
        return [line for line in text.splitlines() if not _is_marker(line)]

    @property
    def payload(self) -> bytes:
        """The raw bytes of all packets, to look for a name in."""
        return self._file.read_bytes()

    def __len__(self) -> int:
        return len(self.lines)

    def __str__(self) -> str:
        return "\n".join(self.lines[:20])


def _is_marker(line: str) -> bool:
    return re.search(rf"> {re.escape(plan.MARKER4)}\.{MARKER_PORT}: ", line) is not None


@contextlib.contextmanager
def capture(prefix: list[str], interface: str, file: Path, expression: str = "") -> Iterator[Capture]:
    """Captures what `expression` (as tcpdump has it) selects on `interface` in the namespace that `prefix` enters.

    At the end a marker datagram is sent from the node to the Internet, and the capture ends when it has been seen: what
    was sent before it has been seen too.
    """
    marker = f"(udp dst port {MARKER_PORT} and dst host {plan.MARKER4})"
    command = [*prefix, "tcpdump", "-i", interface, "-nn", "-U", "--immediate-mode", "-B", "32768", "-Z", "root"]
    command += ["-s", "2048", "-w", str(file), f"({expression}) or {marker}" if expression else ""]
    tcpdump = Child([word for word in command if word], "listening on")
    result = Capture(file)
    try:
        yield result
        seen = os.urandom(16)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, contextlib.suppress(ConnectionRefusedError):
            sender.sendto(seen, (plan.MARKER4, MARKER_PORT))
        wait_until(lambda: seen in file.read_bytes(), "the capture")
    finally:
        tcpdump.stop(signal.SIGINT)
    result.finish()


