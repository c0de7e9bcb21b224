"""The lab's Internet: a namespace with all servers, joined to the node and to a namespace without enforcement."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from . import plan
from .capture import Capture, capture
from .certificates import make_certificates
from .content import content
from .nameservers import Nameserver
from .namespaces import NODE_LINK, Namespace, exclusive, remove_node_link
from .processes import check
from .sinks import Services
from .webserver import Webserver

UPLINK, PLAIN_LINK = "uplink", "plain"
"""The Internet's ends of its links to the node and to the namespace without enforcement."""


class Internet:
    """Everything outside the sandbox. Made by :func:`internet`."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.directory = directory
        self._numbers = itertools.count()
        self.namespace = Namespace("internet")
        stack.callback(self.namespace.remove)
        self.plain = Namespace("plain")
        stack.callback(self.plain.remove)
        self._join_node(stack)
        self._join_plain()
        for namespace in (self.namespace, self.plain):
            namespace.use_nameserver(plan.DNS4)
            # One peer gets an ICMP error a second, after a few at once: what one test provokes would be missing in the next.
            namespace.sysctl("net.ipv4.icmp_ratelimit", "0")
            namespace.sysctl("net.ipv6.icmp.ratelimit", "0")
        names = [*plan.WEB_NAMES, *plan.HOSTS]
        self.certificates = make_certificates(directory / "tls", dict.fromkeys(names))
        self.content = stack.enter_context(content(directory / "content"))
        self.dns = Nameserver(self.namespace, directory / "dns", (plan.DNS4, plan.DNS6))
        stack.callback(self.dns.stop)
        self.other_dns = Nameserver(self.namespace, directory / "other-dns", (plan.OTHER_DNS4, plan.OTHER_DNS6))
        stack.callback(self.other_dns.stop)
        self.web = Webserver(self.namespace, directory / "web", self.content.directory, self.certificates)
        stack.callback(self.web.stop)
        self.sinks = Services(self.namespace.command(), directory / "sinks.jsonl", _services())
        stack.callback(self.sinks.stop)
        self.canary = Services([], directory / "canary.jsonl", _canaries())
        stack.callback(self.canary.stop)

    def _join_node(self, stack: contextlib.ExitStack) -> None:
        """A link between the node and the Internet, with all the Internet's addresses on it."""
        check("ip", "link", "add", NODE_LINK, "type", "veth", "peer", "name", UPLINK, "netns", self.namespace.name)
        stack.callback(remove_node_link)
        check("ip", "address", "add", f"{plan.NODE4}/24", "dev", NODE_LINK)
        check("ip", "address", "add", f"{plan.NODE6}/64", "dev", NODE_LINK, "nodad")
        check("ip", "link", "set", NODE_LINK, "up")
        self.namespace.ip("link", "set", UPLINK, "up")
        for address in plan.ADDRESSES4:
            self.namespace.ip("address", "add", f"{address}/24", "dev", UPLINK)
        for address in plan.ADDRESSES6:
            self.namespace.ip("address", "add", f"{address}/64", "dev", UPLINK, "nodad")
        for address in (*plan.REACHABLE_GUARDED4, *plan.REACHABLE_GUARDED6):
            version, length, via = ("-6", 128, f"{plan.V6}:2") if ":" in address else ("-4", 32, plan.MARKER4)
            self.namespace.ip("address", "add", f"{address}/{length}", "dev", "lo")
            # Where the node has such a route already, it stays.
            route = ["ip", version, "route", "add", f"{address}/{length}", "via", via, "dev", NODE_LINK]
            subprocess.run(route, capture_output=True)

    def _join_plain(self) -> None:
        """A link between the Internet and the namespace without enforcement, which has everything routed to it."""
        plain, outside = self.plain, self.namespace
        outside.ip("link", "add", PLAIN_LINK, "type", "veth", "peer", "name", "eth0", "netns", plain.name)
        for namespace, link, number in ((outside, PLAIN_LINK, 1), (plain, "eth0", 2)):
            namespace.ip("address", "add", f"10.77.0.{number}/30", "dev", link)
            namespace.ip("address", "add", f"fd77::{number}/64", "dev", link, "nodad")
            namespace.ip("link", "set", link, "up")
        plain.ip("route", "add", "default", "via", "10.77.0.1")
        plain.ip("-6", "route", "add", "default", "via", "fd77::1")

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a client: the lab's authority, and nothing of the caller's that would change its way."""
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "TERM", "USER", "LANG") if name in os.environ}
        quiet = {"PIP_CONFIG_FILE": "/dev/null", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "GIT_TERMINAL_PROMPT": "0"}
        return kept | quiet | self.certificates.environment() | dict(extra or {})

    def unenforced(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Runs `command` where nothing enforces anything, with the same nameserver."""
        return subprocess.run(
            self.plain.command(*command),
            env=self.environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def capture(self, expression: str = "", *, unenforced: bool = False) -> contextlib.AbstractContextManager[Capture]:
        """Captures in the Internet what comes from the node, or from the namespace without enforcement.

        Less the node's own neighbour discovery (ARP, NDP), which its kernel does when an entry has aged: on this link it is the
        node's in any case, since a sandbox has no part in it.
        """
        own = "not arp and not (icmp6 and ip6[40] >= 135 and ip6[40] <= 136)"
        expression = f"({expression}) and {own}" if expression else own
        file = self.directory / f"capture-{next(self._numbers)}.pcap"
        interface = "any" if unenforced else UPLINK
        return capture(self.namespace.command(), interface, file, expression)

    def forget(self) -> None:
        """Begins anew with every log."""
        self.dns.queries()
        self.other_dns.queries()
        self.web.requests()
        self.sinks.arrivals()
        self.canary.arrivals()


def _services() -> list[tuple[str, str, int]]:
    services = [("udp-sink", plan.SINK4, plan.CANARY_PORT)]
    services += [("udp-sink", plan.SINK4, port) for port in plan.SINK_UDP_PORTS if port != plan.CANARY_PORT]
    services += [("udp-sink", plan.SINK6, port) for port in plan.SINK_UDP_PORTS]
    services += [("tcp-sink", address, port) for address in (plan.SINK4, plan.SINK6) for port in plan.SINK_TCP_PORTS]
    for address in (plan.GREETER4, plan.GREETER6):
        services += [("smtp", address, plan.SMTP_PORT), ("mysql", address, plan.MYSQL_PORT)]
    services += [("proxy", plan.GREETER4, 3128), ("socks", plan.GREETER4, 1080)]
    guarded = (*plan.REACHABLE_GUARDED4, *plan.REACHABLE_GUARDED6)
    return services + [("tcp-sink", address, plan.CANARY_PORT) for address in guarded]


def _canaries() -> list[tuple[str, str, int]]:
    """What listens on the node itself, where nothing from a sandbox may arrive."""
    tcp = [("tcp-sink", address, plan.CANARY_PORT) for address in ("127.0.0.1", "::1", plan.NODE4, plan.NODE6)]
    return [("udp-sink", "127.0.0.1", plan.CANARY_PORT), *tcp]


@contextlib.contextmanager
def internet(directory: Path) -> Iterator[Internet]:
    """The Internet, for as long as the `with` lasts."""
    with exclusive(), contextlib.ExitStack() as stack:
        yield Internet(directory, stack)
