"""A sandbox that floods and sandboxes that do not, on one daemon: what the flood costs the others and the daemon."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import statistics
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

from . import plan
from .daemon import Daemon, Sandbox
from .processes import kibibytes, wait_until
from .sandgate import allowing, attack

ROUNDS = 3
"""Of measuring with the flood and without it, in turn."""
REQUESTS = 12
"""Queries and requests of each quiet sandbox in a round."""
MEDIAN_FACTOR = 12
"""How many times as long half of what the others do may take: the machine is shared, with the flood's own program too."""
MEAN_FACTOR = 200
"""The same on average, which one lost segment among the others' can make many times what it is alone."""
GROWTH = 128 << 10
"""KiB that the daemon may grow by, whatever one sandbox does."""


class Flood:
    """floods.py in a sandbox."""

    def __init__(self, sandbox: Sandbox, kind: str, *arguments: str | int) -> None:
        self._process = sandbox.start(*attack("floods", kind, *arguments))
        self.counts: Counter[str] = Counter()

    def begin(self) -> None:
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said == "begun\n", said + self._process.stdout.read()

    def hold(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> Counter[str]:
        """Ends it; what it did."""
        said, _ = self._process.communicate("\n", timeout=120)
        self.counts = Counter(json.loads(said.splitlines()[-1]))
        failed = [name for name in self.counts if name.startswith("failed")]
        assert not failed, failed
        return self.counts

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Quiet:
    """quiet.py in a sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._process = sandbox.start(*attack("quiet", plan.DNS4, plan.ALLOWED, plan.SHARED4))
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def measure(self, count: int = REQUESTS) -> dict[str, list[float]]:
        """How long each took, in milliseconds; everything has to succeed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert found.pop("failures") == [], found
        return found

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Node:
    """A daemon, a sandbox that floods it, and two that do not: with two threads, one of them shares the flood's."""

    def __init__(self, daemon: Daemon, hostile_policy: object, stack: contextlib.ExitStack) -> None:
        self.daemon = daemon
        self.hostile = daemon.create(hostile_policy)
        others = [daemon.create(allowing(plan.ALLOWED)) for _ in range(2)]
        self.quiet = [Quiet(sandbox) for sandbox in others]
        for quiet in self.quiet:
            stack.callback(quiet.kill)
            # Once, so that what is done the first time is not measured.
            quiet.measure(3)
        self._stack = stack
        self._before = self.kibibytes

    @property
    def kibibytes(self) -> int:
        """How much memory the daemon has."""
        return kibibytes(self.daemon.pid)

    @property
    def connections(self) -> float:
        """How many TCP connections the daemon has."""
        return self.daemon.metrics()['sandgate_connections{protocol="tcp"}']

    def flood(self, kind: str, *arguments: str | int, sandbox: Sandbox | None = None) -> Flood:
        """Starts one that is under way when this returns."""
        flood = Flood(sandbox or self.hostile, kind, *arguments)
        self._stack.callback(flood.kill)
        flood.begin()
        return flood

    def compare(self, what: str, flood: Flood) -> None:
        """Measures what the others do, with the flood and without it in turn; prints it, and finds it bearable."""
        quiet: list[dict[str, list[float]]] = []
        beside: list[dict[str, list[float]]] = []
        most = self.kibibytes
        for _ in range(ROUNDS):
            beside += [other.measure() for other in self.quiet]
            most = max(most, self.kibibytes)
            flood.hold()
            quiet += [other.measure() for other in self.quiet]
            flood.go_on()
        grown = most - self._before
        for kind in ("query", "request"):
            alone, flooded = ([one for taken in side for one in taken[kind]] for side in (quiet, beside))
            text = " | ".join(
                f"{statistics.median(side):.2f} ms, {statistics.mean(side):.2f} on average, {max(side):.2f} at worst"
                for side in (alone, flooded)
            )
            print(f"{what}: {kind}: alone | beside: {text}; +{grown} KiB")
            assert statistics.median(flooded) <= MEDIAN_FACTOR * statistics.median(alone), f"{what}: {kind}: {text}"
            assert statistics.mean(flooded) <= MEAN_FACTOR * statistics.mean(alone), f"{what}: {kind}: {text}"
        self.expect_bounded_memory()

    def expect_bounded_memory(self, growth: int = GROWTH) -> None:
        assert self.kibibytes - self._before < growth, f"grown by {self.kibibytes - self._before} KiB"

    def count(self, sandbox: Sandbox | None = None) -> Counter[str]:
        """How many things each event and reason in the sandbox's records stands for, all of them."""
        wait_until(lambda: self.daemon.metrics()["sandgate_audit_queue_records"] == 0, "the records", 60)
        found: Counter[str] = Counter()
        # Asking has what was recorded written.
        self.daemon.records(limit="1")
        for path in sorted(self.daemon.audit.glob("*.jsonl")):
            for line in path.read_text().splitlines():
                record = json.loads(line)
                if record.get("sandbox", "") == (sandbox or self.hostile).id:
                    found[f"{record['event']} {record.get('reason', '')}".strip()] += record.get("count", 1)
        return found

    def expect(self, number: int, *kinds: str) -> Counter[str]:
        """Waits until the hostile sandbox's records of these kinds stand for so many things; all of them."""
        found: Counter[str] = Counter()

        def told() -> int:
            found.clear()
            found.update(self.count())
            return sum(found[kind] for kind in kinds)

        try:
            wait_until(lambda: told() >= number, "records", 60)
        except TimeoutError as error:
            raise AssertionError(f"{number} of {kinds} expected, not {found}") from error
        assert sum(found[kind] for kind in kinds) == number, (number, kinds, found)
        return found

    def tracked(self, sandbox: Sandbox) -> int:
        """How many entries the connection tracking of its network has."""
        return int(sandbox.run("cat", "/proc/sys/net/netfilter/nf_conntrack_count").stdout)

    def refused_by_kernel(self) -> int:
        """What the rules of the hostile sandbox have counted."""
        listed = subprocess.run(
            ["nsenter", f"--net={self.hostile.namespace}", "nft", "list", "chain", "inet", "sandgate", "refused"],
            capture_output=True,
            text=True,
            check=True,
        )
        found = re.search(r"counter packets (\d+)", listed.stdout)
        assert found is not None, listed
        return int(found[1])


@contextlib.contextmanager
def node(daemon: Daemon, hostile_policy: object) -> Iterator[Node]:
    """The three sandboxes, until the `with` ends."""
    with contextlib.ExitStack() as stack:
        yield Node(daemon, hostile_policy, stack)
