"""The commands that need neither root nor the lab's Internet: `sandgate policy …`, `sandgate audit …`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .sandgate import REPOSITORY, find_binary


def binary() -> Path:
    """The binary under test; the test fails without one."""
    found = find_binary()
    if found is None:
        pytest.fail(f"no binary in {REPOSITORY}/.build: swift build -c release, or set SANDGATE")
    return found


def tool(*arguments: str | Path, stdin: str = "", timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Runs the binary with `arguments` to its end."""
    command = [str(binary()), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, input=stdin, check=False)
