"""The stage: an Internet in a namespace, and a namespace for the clients of every contender.

    sandbox (Sandgate's) ── Sandgate ──┐
                                     node ── veth ── internet: origin, nameserver
    inside ── HAProxy ────────────────┘                 │
    plain ───────────────────────────── veth ───────────┘   no proxy; also where proxies and resolvers live that can
                                                            listen in one namespace only
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.namespaces import NODE_LINK, Namespace, exclusive, remove_node_link
from lab.processes import Child, check

NODE, PLAIN, PLAIN_GATEWAY = "198.51.100.1", "198.51.100.130", "198.51.100.129"
ORIGIN = ("198.51.100.10", 443)
NAMESERVER = ("198.51.100.53", 53)
ORIGIN_NAME = "origin.example"
RULES = tuple(f"host{number}.example" for number in range(500)) + (ORIGIN_NAME,)
RULES += tuple(f"host{number}.example" for number in range(500, 999))
"""The 1,000 names that every contender allows; the one that is used stands in the middle."""

QUERY_NAMES = "q%d.query.example"
"""Names for DNS; the nameserver knows all of them."""


@dataclass(frozen=True)
class Programs:
    """What deploy/benchmark built."""

    sandgate: Path
    in_process: Path
    load: Path
    go_sleeper: Path

    @staticmethod
    def built(directory: Path) -> Programs:
        """Sandgate's by SANDGATE and SANDGATE_BENCHMARK, the others in `directory`."""
        ours = Path(os.environ["SANDGATE"]), Path(os.environ["SANDGATE_BENCHMARK"])
        return Programs(*ours, directory / "load", directory / "sleeper")


@dataclass(frozen=True)
class Effort:
    """How much is done: for a result, or to see that the harness works."""

    samples: int = 7
    bulk_bytes: int = 3 << 30
    short_connections: int = 20_000
    connect_connections: int = 4_000
    latency_connections: int = 3_000
    tunnels: int = 2_000
    """Five rounds of two contenders dial from one address; each port is out of use for a minute afterwards."""
    crowd_connections: int = 4_000
    queries: int = 60_000
    uncached_queries: int = 2_000
    start_ups: int = 21
    sandboxes: int = 5_000
    attachments: int = 100
    changes: int = 100
    node_queries: int = 2_000
    node_connections: int = 500

    @staticmethod
    def quick() -> Effort:
        """Enough to pass through every line, too little to mean anything."""
        return Effort(3, 64 << 20, 500, 200, 200, 200, 200, 2_000, 200, 3, 100, 5, 10, 200, 50)


class Stage:
    """Made by :func:`stage`; everything on it goes with it."""

    def __init__(self, directory: Path, programs: Programs, effort: Effort, stack: contextlib.ExitStack) -> None:
        self.directory, self.programs, self.effort = directory, programs, effort
        self.internet = self._namespace("internet", stack)
        self.inside = self._namespace("inside", stack)
        self.plain = self._namespace("plain", stack)
        check("ip", "link", "add", NODE_LINK, "type", "veth", "peer", "name", "uplink", "netns", self.internet.name)
        stack.callback(remove_node_link)
        check("ip", "address", "add", f"{NODE}/25", "dev", NODE_LINK)
        check("ip", "link", "set", NODE_LINK, "up")
        self._address(self.internet, "uplink", f"{ORIGIN[0]}/25", f"{NAMESERVER[0]}/25")
        self.internet.ip("link", "add", "plain", "type", "veth", "peer", "name", "eth0", "netns", self.plain.name)
        self._address(self.internet, "plain", f"{PLAIN_GATEWAY}/30")
        self._address(self.plain, "eth0", f"{PLAIN}/30")
        self.plain.ip("route", "add", "default", "via", PLAIN_GATEWAY)
        # As in a sandbox: a route for connections to begin with, and nothing at the end of it.
        self.inside.ip("link", "add", "eth0", "type", "veth", "peer", "name", "nowhere")
        self._address(self.inside, "eth0", "198.51.100.133/30")
        self.inside.ip("route", "add", "default", "dev", "eth0")
        self._serve("serve", *ORIGIN, stack=stack)
        self._serve("nameserver", *NAMESERVER, f"{ORIGIN_NAME}={ORIGIN[0]}", stack=stack)

    @staticmethod
    def _namespace(role: str, stack: contextlib.ExitStack) -> Namespace:
        namespace = Namespace(f"bench-{role}")
        stack.callback(namespace.remove)
        # Room for many connections between one pair of addresses, for everybody who can be given it.
        namespace.sysctl("net.ipv4.ip_local_port_range", "10000 60999")
        return namespace

    @staticmethod
    def _address(namespace: Namespace, link: str, *addresses: str) -> None:
        namespace.ip("link", "set", link, "up")
        for address in addresses:
            namespace.ip("address", "add", address, "dev", link)

    def _serve(self, *words: object, stack: contextlib.ExitStack) -> None:
        command = self.internet.command(self.programs.load, *map(str, words))
        stack.callback(Child(command, "serving").stop)

    def client_command(self) -> list[str]:
        """The command line of a load client."""
        return [str(self.programs.load), "client"]

    def policy(self, names: Sequence[str] = RULES) -> Path:
        """A policy file that allows `names`, one rule each, and denies the rest."""
        path = self.directory / f"policy-{len(names)}.yaml"
        rules = "".join(f"    - action: allow\n      target: {name}\n" for name in names)
        path.write_text(f"networkPolicy:\n  defaultAction: deny\n  egress:\n{rules}")
        return path


@contextlib.contextmanager
def stage(directory: Path, programs: Programs, effort: Effort) -> Iterator[Stage]:
    """The stage, for as long as the `with` lasts. One at a time on a machine, the end-to-end tests' lab included."""
    with exclusive(), contextlib.ExitStack() as stack:
        yield Stage(directory, programs, effort, stack)
