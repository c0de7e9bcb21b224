"""The commands of a page of the documentation, carried out as they stand there."""

from __future__ import annotations

import re
import subprocess
import textwrap
from collections.abc import Mapping
from pathlib import Path

from . import plan
from .daemon import Daemon
from .guarded import SEND
from .internet import Internet
from .sandgate import REPOSITORY
from .tool import binary

PAGES = REPOSITORY / "Sources" / "sandgate" / "sandgate.docc"
ASKING = "attach|detach|inspect|lock|ps|retry"
"""The commands that ask a daemon."""


TRY = f"/bin/sh -c '{SEND}; curl -sS -m 5 http://{plan.ALLOWED}/; curl -sS -m 5 http://{plan.DENIED}/; true'"
"""What a workload does: what it gets of the allowed name is seen in its output, and what it should not get outside."""


def holds(internet: Internet, output: str) -> bool:
    """Whether a workload that did :data:`TRY` got what the policy allows, and nothing else."""
    allowed, denied = (f"served {name}" in output for name in (plan.ALLOWED, plan.DENIED))
    return allowed and not denied and internet.web.hosts() == {plan.ALLOWED} and internet.sinks.data() == ""


def blocks(page: str, begins: str) -> list[str]:
    """The blocks of code of a page that begin with these words, in their order. Lines within lists count too."""
    found, lines = [], list[str]()
    for line in [*(PAGES / page).read_text().splitlines(), ""]:
        if line.startswith("    ") and (lines or line.strip()):
            lines.append(line)
            continue
        text = textwrap.dedent("\n".join(lines)).strip("\n")
        if text.startswith(begins):
            found.append(text)
        lines = []
    assert found, f"{page} has no block that begins with {begins!r}"
    return found


def block(page: str, begins: str) -> str:
    """The one block that :func:`blocks` finds."""
    (found,) = blocks(page, begins)
    return found


class Shell:
    """A user's shell, in a directory with the user's policies: `sandgate` asks the test's daemon, engines are the test's."""

    def __init__(self, directory: Path, daemon: Daemon | None = None, **programs: str) -> None:
        """`programs` are the shell's words that run a program in place of the one of that name."""
        self._directory = directory
        self.environment: dict[str, str] = {}
        """What the user has set besides."""
        self._bin = directory / "bin"
        self._bin.mkdir()
        own = str(binary())
        at = f' --socket "{daemon.socket}"' if daemon else ""
        asking = f'case $1 in {ASKING}) command=$1; shift; exec "{own}" "$command"{at} "$@" ;; esac'
        self._program("sandgate", f'{asking}\nexec "{own}" "$@"')
        for name, words in programs.items():
            self._program(name, f'exec {words} "$@"')

    def _program(self, name: str, script: str) -> None:
        path = self._bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(self, text: str, words: Mapping[str, str] | None = None, timeout: float = 120) -> str:
        """Runs a block of commands, with `words` in place of those that the page leaves to its reader; a failure raises."""
        # What it takes to build the program is not the page's matter here.
        text = text.replace("deploy/build-image", f"deploy/build-image --binary {binary()}")
        text = text.replace("deploy/", f"{REPOSITORY}/deploy/")
        for word, meant in (words or {}).items():
            assert re.search(rf"\b{word}\b", text), f"{word} is not in {text}"
            text = re.sub(rf"\b{word}\b", meant.replace("\\", r"\\"), text)
        environment = {"PATH": f"{self._bin}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(self._directory)}
        environment |= self.environment
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", text],
            cwd=self._directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{text}: exit {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout
