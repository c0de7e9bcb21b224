"""Floods to forbidden destinations (flooder.py), and a count of what of them gets out."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from . import plan
from .internet import Internet

TARGETS = (f"{plan.SINK4}:4444", f"{plan.SINK6}:4444", f"{plan.DENIED4}:443", f"{plan.DENIED6}:443")
"""What no policy of these tests allows, and Sandgate itself has nothing to do with."""


def flooder(seconds: float) -> list[str]:
    """The command that floods for so long."""
    program = Path(__file__).with_name("flooder.py")
    return ["/usr/bin/python3", str(program), str(seconds), *TARGETS]


class Box(Protocol):
    """Where programs run: a namespace, or a sandbox."""

    def command(self, *command: str) -> list[str]: ...


def starting(internet: Internet, box: Box) -> Callable[..., subprocess.Popen[str]]:
    """What starts programs there, for :func:`flooding`."""

    def start(*command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            box.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=internet.environment(),
            text=True,
        )

    return start


@contextlib.contextmanager
def flooding(start: Callable[..., subprocess.Popen[str]]) -> Iterator[subprocess.Popen[str]]:
    """A program that floods for as long as the `with` lasts. `start` runs a command with a pipe for its output."""
    process = start(*flooder(3600))
    try:
        assert process.stdout is not None
        # Whoever starts it may have its errors in the same pipe.
        said = process.stdout.readline()
        assert said == "begun\n", said + process.stdout.read()
        yield process
        # Unless the test did.
        process.terminate()
        output, _ = process.communicate(timeout=60)
        assert output.startswith("sent ") and int(output.split()[-1]) > 0, output
    finally:
        process.kill()
        process.communicate()


class Watch:
    """Counts packets to forbidden destinations where they enter the Internet, from whatever link. Costs next to nothing
    for each, so that a flood may be let through for comparison."""

    _table = f"watch-{os.getpid()}"

    def __init__(self, internet: Internet) -> None:
        self._internet = internet
        self._forgotten = 0

    def install(self) -> None:
        """Begins to count. What a connection from before sends again is among it."""
        v4, v6 = f"{{ {plan.SINK4}, {plan.DENIED4} }}", f"{{ {plan.SINK6}, {plan.DENIED6} }}"
        rules = f"""table inet {self._table} {{
            counter forbidden {{ }}
            chain entry {{
                type filter hook prerouting priority -450; policy accept;
                iif lo accept
                udp dport 9 accept
                udp dport 4444 @th,64,48 0x6d61726b6572 accept
                icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
                ip daddr {v4} counter name forbidden
                ip6 daddr {v6} counter name forbidden
            }}
        }}"""
        self._nft("-f", "-", input=rules)

    def remove(self) -> None:
        self._nft("delete", "table", "inet", self._table)

    @property
    def count(self) -> int:
        """How many packets there were."""
        listed = self._nft("list", "counter", "inet", self._table, "forbidden")
        found = re.search(r"packets (\d+)", listed)
        assert found is not None, listed
        return int(found.group(1))

    def forget(self, counted: int = 0) -> None:
        """Begins to count anew."""
        self._forgotten = self.count - counted

    @property
    def counted(self) -> int:
        """How many packets there were since then."""
        return self.count - self._forgotten

    @contextlib.contextmanager
    def nothing(self, what: object = "") -> Iterator[None]:
        """Nothing may arrive for as long as the `with` lasts."""
        before = self.count
        yield
        assert self.count == before, f"{self.count - before} forbidden packets arrived: {what}"

    def _nft(self, *arguments: str, input: str | None = None) -> str:
        command: Sequence[str] = self._internet.namespace.command("nft", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, input=input, timeout=60)
        assert done.returncode == 0, done
        return done.stdout


@contextlib.contextmanager
def watching(internet: Internet) -> Iterator[Watch]:
    """Counts for as long as the `with` lasts."""
    watch = Watch(internet)
    watch.install()
    try:
        yield watch
    finally:
        watch.remove()
