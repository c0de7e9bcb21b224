"""What sandgate-benchmark measures within its own process, in a namespace of its own where it changes the kernel."""

from __future__ import annotations

from collections.abc import Iterator

from lab.namespaces import Namespace
from lab.processes import check

from bench.result import Measured, Outcome
from bench.stage import Stage

NAMES = ("pin-latency", "policy-decision", "ruleset-apply", "policy-compile")


def measure(stage: Stage, wanted: frozenset[str]) -> Iterator[Outcome]:
    """One start of the program for each row."""
    for name in NAMES:
        if name not in wanted:
            continue
        namespace = Namespace("bench-kernel")
        try:
            command = namespace.command(stage.programs.in_process, name, str(stage.effort.samples))
            lines = check(*command, timeout=600).splitlines()
        finally:
            namespace.remove()
        pairs = [tuple(map(float, line.split())) for line in lines]
        yield Measured(name, [(ours, theirs) for ours, theirs in pairs])
