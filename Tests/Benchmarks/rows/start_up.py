"""From exec to exit of the shortest run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

from lab.namespaces import PREFIX

from bench.processes import milliseconds
from bench.result import Measured, Outcome, alternate
from bench.sandgate import sandgate_run
from bench.stage import Stage

NAMES = ("start-up",)


def measure(stage: Stage) -> Iterator[Outcome]:
    """`sandgate run -- true`, and three commands of `ip` for a namespace that enforces nothing."""
    ours = partial(_run_milliseconds, stage)
    ways: dict[str, Callable[[], float]] = {"ours": ours, "theirs": _namespace_milliseconds}
    for way in ways.values():
        way()
    rounds = alternate(stage.effort.start_ups, ways)
    yield Measured("start-up", [(taken["ours"], taken["theirs"]) for taken in rounds])


def _run_milliseconds(stage: Stage) -> float:
    return milliseconds([*sandgate_run(stage), "true"])


def _namespace_milliseconds() -> float:
    name = f"{PREFIX}start-{os.getpid()}"
    commands = (["netns", "add", name], ["netns", "exec", name, "true"], ["netns", "del", name])
    return sum(milliseconds(["ip", *command]) for command in commands)
