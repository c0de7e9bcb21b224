"""Clients that go from sandbox to sandbox (visitor.py), a few of them at once."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from . import plan


@dataclass(frozen=True)
class Visit:
    """What is tried in a namespace, in this order: names resolved, fetched at an address, a datagram sent."""

    namespace: str
    path: str
    """Asked of web servers and sent in datagrams, so that the servers' logs say whose it was."""
    names: tuple[str, ...]
    address: str = plan.SHARED4
    """Where every name is fetched, resolved or not."""
    sink: str = plan.SINK4


@dataclass(frozen=True)
class Outcome:
    """What came of a visit: by name, and for the datagram."""

    resolved: dict[str, str]
    fetched: dict[str, str]
    sent: str

    @property
    def served(self) -> set[str]:
        """The names that were served."""
        return {name for name, result in self.fetched.items() if result == f"served {name}"}

    @property
    def found(self) -> set[str]:
        """The names that had addresses."""
        return {name for name, result in self.resolved.items() if result == "found"}


class Visitors:
    """As many processes as go about at once. Made by :func:`visitors`."""

    def __init__(self, authority: Path, count: int, stack: contextlib.ExitStack) -> None:
        program = Path(__file__).with_name("visitor.py")
        self._idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self._count = count
        for _ in range(count):
            process = subprocess.Popen(
                ["/usr/bin/python3", str(program), str(authority)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            self._idle.put(process)

    def go(self, visits: Iterable[Visit]) -> list[Outcome]:
        """Makes all visits and returns what came of each."""
        with ThreadPoolExecutor(self._count) as threads:
            return list(threads.map(self._visit, visits))

    def _visit(self, visit: Visit) -> Outcome:
        order = {
            "namespace": visit.namespace,
            "nameserver": plan.DNS4,
            "path": visit.path,
            "resolve": visit.names,
            "fetch": {name: visit.address for name in visit.names},
            "send": [visit.sink],
            "port": plan.CANARY_PORT,
        }
        process = self._idle.get()
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        finally:
            self._idle.put(process)
        if not line:
            raise RuntimeError(f"the visitor to {visit.namespace} ended")
        found = json.loads(line)
        return Outcome(found["resolve"], found["fetch"], found["send"][visit.sink])


@contextlib.contextmanager
def visitors(authority: Path, count: int = 4) -> Iterator[Visitors]:
    """Visitors who trust `authority`, for as long as the `with` lasts."""
    with contextlib.ExitStack() as stack:
        yield Visitors(authority, count, stack)
