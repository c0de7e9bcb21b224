"""From exec to exit of the shortest run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from lab.namespaces import PREFIX

from bench.quiet_files import PROGRAM, QuietFiles, quiet_files
from bench.result import Measured, Outcome, alternate
from bench.sandgate import sandgate_run
from bench.stage import Stage

DIRECTORIES = {"start-up": 0, "start-up-3000": 3_000}
"""How many directories there are to look through, beside the system's own."""

NAMES = tuple(DIRECTORIES)


def measure(stage: Stage, wanted: frozenset[str]) -> Iterator[Outcome]:
    """The rows that are wanted."""
    for name in NAMES:
        if name in wanted:
            yield _measure(stage, name)


def _measure(stage: Stage, name: str) -> Outcome:
    """`sandgate run -- true`, and three commands of `ip` for a namespace that enforces nothing."""
    _, *arguments = sandgate_run(stage)
    with quiet_files(stage.programs.sandgate, DIRECTORIES[name]) as files:
        ways = {
            "ours": partial(files.milliseconds, [PROGRAM, *arguments, "true"]),
            "theirs": partial(_namespace_milliseconds, files),
        }
        for way in ways.values():
            way()
        rounds = alternate(stage.effort.start_ups, ways)
    return Measured(name, [(taken["ours"], taken["theirs"]) for taken in rounds])


def _namespace_milliseconds(files: QuietFiles) -> float:
    name = f"{PREFIX}start-{os.getpid()}"
    commands = (["netns", "add", name], ["netns", "exec", name, "true"], ["netns", "del", name])
    return files.milliseconds(*(["ip", *command] for command in commands))
