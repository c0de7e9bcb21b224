"""The page for newcomers: what it shows of a first denied connection is what is printed."""

from __future__ import annotations

import re
import shlex

from lab.internet import Internet
from lab.sandgate import REPOSITORY, Sandgate

PAGE = REPOSITORY / "Sources" / "sandgate" / "sandgate.docc" / "GettingStarted.md"
HINT = "the run goes on; Ctrl-C ends it"
COMMAND = r"^    \$ \.build/release/sandgate (run -- .*)\n"


def test_first_denied_connection(internet: Internet, sandgate: Sandgate) -> None:
    """Lines are compared without their order: curl and Sandgate write to one terminal, each when it is ready."""
    found = re.search(COMMAND + r"((?:    .*\n|\n)+)", PAGE.read_text(), re.MULTILINE)
    assert found and HINT in found[2], PAGE
    shown = [line.removeprefix("    ") for line in found[2].splitlines() if line]
    # Said in a terminal alone.
    shown = [line for line in shown if HINT not in line]
    run = sandgate.tool(*shlex.split(found[1]))
    # Which sockets this machine has is no matter of the page's.
    printed = [line for line in run.stderr.splitlines() if line and "a unix socket" not in line]
    assert sorted(printed) == sorted(shown) and run.stdout == "", run
    exit_status = re.search(r"^The exit status is curl's, (\d+)\.", PAGE.read_text(), re.MULTILINE)
    assert exit_status and run.returncode == int(exit_status[1]), run
