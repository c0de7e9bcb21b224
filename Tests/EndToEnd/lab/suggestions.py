"""Policies that were suggested, and the command that a run names to have one."""

from __future__ import annotations

import re
import shlex


def named_arguments(stderr: str) -> list[str]:
    """The arguments of the `policy suggest` that a run names at its end, but for the file to write to."""
    found = re.search(r"^  sandgate policy suggest (--audit .*) -o policy(-\d+)?\.yaml$", stderr, re.MULTILINE)
    assert found, stderr
    return shlex.split(found[1])


def lines_of(policy: str) -> list[str]:
    """The rules of a policy as it was written."""
    return [line for line in policy.splitlines() if line.strip().startswith("- {")]


def rule(target: str, port: int = 443) -> str:
    """The line that is suggested for a name."""
    return f'    - {{action: allow, target: "{target}", ports: [{port}], protocol: tcp}}'
