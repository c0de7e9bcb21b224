"""Real nameservers (dnsmasq) that know the lab's names and log every query."""

from __future__ import annotations

import re
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

import dns.message

from . import plan
from .growing_file import GrowingFile
from .namespaces import Namespace
from .processes import Daemon

TXT = "a text that came from outside"

_LINE = re.compile(r"query\[(?P<type>[^\]]+)\] (?P<name>\S*) from (?P<client>\S+)")


@dataclass(frozen=True)
class Query:
    """One query as the nameserver logged it."""

    type: str
    name: str
    client: str


class Nameserver:
    """dnsmasq at `addresses`, answering from its own configuration alone."""

    def __init__(self, namespace: Namespace, directory: Path, addresses: tuple[str, ...]) -> None:
        directory.mkdir(parents=True)
        self.address = addresses[0]
        log = directory / "queries.log"
        self._log = GrowingFile(log, "the nameserver's log")
        configuration, pid_file = directory / "dnsmasq.conf", directory / "dnsmasq.pid"
        lines = [f"listen-address={address}" for address in addresses] + [
            "bind-interfaces",
            "no-resolv",
            "no-hosts",
            "user=root",
            "local-ttl=60",
            "log-queries",
            f"log-facility={log}",
            f"pid-file={pid_file}",
            *_records(),
        ]
        configuration.write_text("\n".join(lines) + "\n")
        self._daemon = Daemon(namespace.command("dnsmasq", f"--conf-file={configuration}"), pid_file)

    @property
    def pid(self) -> int:
        return self._daemon.pid

    def stop(self) -> None:
        self._daemon.stop()

    def queries(self) -> list[Query]:
        """What was asked since the last call; everything sent before this call is in it."""
        marker = f"marker-{uuid.uuid4().hex}.example"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect((self.address, 53))
            query = dns.message.make_query(marker, "A").to_wire()
            lines = self._log.lines_until(marker, lambda: asking.send(query))
        found = (Query(*match.group("type", "name", "client")) for match in _LINE.finditer(lines))
        return [query for query in found if not query.name.startswith("marker-")]

    def names(self) -> set[str]:
        """The names asked for since the last call, in lower case."""
        return {query.name.lower() for query in self.queries()}


def _records() -> list[str]:
    """dnsmasq's configuration of the lab's zone. `local` makes every other name NXDOMAIN at once."""
    lines = ["local=/example/", "local=/test/", "local=/arpa/"]
    lines += [f"host-record={name},{address}" for name, addresses in plan.HOSTS.items() for address in addresses]
    lines += [f"address=/{plan.WILD}/{address}" for address in plan.HOSTS[plan.ALLOWED]]
    lines += [f"host-record={name},{address}" for name, address in plan.GUARDED.items()]
    lines += [f"cname={plan.ALIAS},{plan.ALLOWED}", f"cname={plan.ALIAS_OF_DENIED},{plan.DENIED}"]
    lines += [f"txt-record={name},{TXT}" for name in (plan.ALLOWED, plan.DENIED)]
    lines += [f"dns-rr={plan.ECH},65,{_https_record().hex()}"]
    return lines


def _https_record() -> bytes:
    """RDATA of an HTTPS record (RFC 9460): priority 1, target ".", alpn h2, ipv4hint, ech, ipv6hint."""
    parameters = {
        1: b"\x02h2",
        4: bytes(map(int, plan.SHARED4.split("."))),
        5: bytes.fromhex("003ffe0d003b0000200020") + b"secret-encrypted-client-hello-key",
    }
    body = b"".join(key.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value for key, value in parameters.items())
    return b"\x00\x01\x00" + body
