"""The attacker's accomplice outside: a nameserver that tells of every query, and waits with its answer (waiting_nameserver.py).

Whoever knows the port, the identifier and the case of a query has all that is random in it. Only where an answer comes from is
left to tell the forged one by.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import dns.message

from . import plan, waiting_nameserver
from .internet import UPLINK, Internet

SCRIPTED_DNS6 = f"{plan.V6}:55"
_ASK = (
    "import dns.message, dns.query, sys\n"
    "answer = dns.query.udp(dns.message.make_query(sys.argv[2], sys.argv[3]), sys.argv[1], timeout=15)\n"
    "print(answer.answer)\n"
)


@dataclass(frozen=True)
class Forgery:
    """A way of answering in the nameserver's name from inside the sandbox's network (attacks/shared_namespace.py)."""

    way: str

    def __str__(self) -> str:
        return self.way

    @property
    def is_ipv6(self) -> bool:
        return self.way == "freebind"

    @property
    def server(self) -> str:
        """The nameserver's address."""
        return SCRIPTED_DNS6 if self.is_ipv6 else plan.SCRIPTED_DNS4

    @property
    def kind(self) -> str:
        """The type of what is asked for."""
        return "AAAA" if self.is_ipv6 else "A"

    @property
    def forged(self) -> str:
        """Where the forged answer leads."""
        return plan.SINK6 if self.is_ipv6 else plan.SINK4

    @property
    def honest(self) -> str:
        """Where the nameserver's own answer leads."""
        return plan.SHARED6 if self.is_ipv6 else plan.SHARED4


FORGERIES = tuple(Forgery(way) for way in ("raw", "packet", "freebind"))


class Accomplice:
    """The nameserver. Made by :func:`accomplice`."""

    def __init__(self, internet: Internet, server: str) -> None:
        address = plan.SHARED6 if ":" in server else plan.SHARED4
        command = ["/usr/bin/python3", waiting_nameserver.__file__, server, address]
        self.process = subprocess.Popen(
            internet.namespace.command(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._line() == "serving"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def query(self, name: str) -> tuple[str, bytes]:
        """The port that the next query for a name came from, and the query."""
        while True:
            _, port, message = self._line().split()
            query = bytes.fromhex(message)
            if dns.message.from_wire(query).question[0].name.to_text().lower() == f"{name}.":
                return port, query

    def answer(self) -> None:
        """Has it answer all there was."""
        assert self.process.stdin is not None
        self.process.stdin.write("now\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def asked_under_forgery(
        self,
        forgery: Forgery,
        name: str,
        inside: str,
        begin: Callable[..., subprocess.Popen[str]],
        run: Callable[..., subprocess.CompletedProcess[str]],
        attacks: str,
    ) -> str:
        """What a program is told that asks for a name, while another answers in the nameserver's name before it does itself.
        `begin` and `run` start programs inside; `inside` is the address there that queries come from, and `attacks` where
        the attacks' program is."""
        client = begin("/usr/bin/python3", "-c", _ASK, forgery.server, name, forgery.kind)
        port, query = self.query(name)
        message = waiting_nameserver.answer(query, forgery.forged).hex()
        done = run("/usr/bin/python3", attacks, "forge", forgery.way, forgery.server, inside, port, message)
        assert done.returncode == 0, done
        self.answer()
        output, _ = client.communicate(timeout=30)
        return output


@contextlib.contextmanager
def accomplice(internet: Internet, server: str) -> Iterator[Accomplice]:
    """The nameserver at an address of the lab's Internet."""
    if server == SCRIPTED_DNS6:
        internet.namespace.ip("address", "add", f"{server}/64", "dev", UPLINK, "nodad")
    made: Accomplice | None = None
    try:
        made = Accomplice(internet, server)
        yield made
    finally:
        if made is not None:
            made.end()
        if server == SCRIPTED_DNS6:
            internet.namespace.ip("address", "del", f"{server}/64", "dev", UPLINK)
