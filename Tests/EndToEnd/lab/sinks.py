"""What reached the sinks and greeters (services.py), read from their journal."""

from __future__ import annotations

import json
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

from .growing_file import GrowingFile
from .processes import Child


@dataclass(frozen=True)
class Arrival:
    """One event that a service noted."""

    event: str
    service: str
    address: str
    port: int
    peer: str
    peer_port: int
    data: str


class Services:
    """services.py, run by `prefix` (a namespace's command). The first service is a udp-sink: it gets the marker."""

    def __init__(self, prefix: list[str], journal: Path, services: list[tuple[str, str, int]]) -> None:
        assert services[0][0] == "udp-sink"
        self._marker_address = services[0][1:]
        self._prefix = prefix
        self._journal = GrowingFile(journal, "the services' journal")
        program = Path(__file__).with_name("services.py")
        arguments = [f"{kind},{address},{port}" for kind, address, port in services]
        self._child = Child([*prefix, "/usr/bin/python3", str(program), str(journal), *arguments], "serving")

    def stop(self) -> None:
        self._child.stop()

    def arrivals(self) -> list[Arrival]:
        """What arrived since the last call; everything that arrived before this call is in it."""
        marker = f"marker-{uuid.uuid4().hex}"
        family = socket.AF_INET6 if ":" in self._marker_address[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            lines = self._journal.lines_until(marker, lambda: sender.sendto(marker.encode(), self._marker_address))
        found = (Arrival(**json.loads(line)) for line in lines.splitlines())
        return [arrival for arrival in found if not arrival.data.startswith("marker-")]

    def data(self) -> str:
        """All data that arrived since the last call, joined."""
        return "".join(arrival.data for arrival in self.arrivals())
