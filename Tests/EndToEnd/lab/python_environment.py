"""Python environments of their own, with packages that the tests' own Python has not: made once a clone, from a package index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .processes import check
from .sandgate import REPOSITORY


def python_environment(name: str, requirements: Sequence[str], *, alone: Sequence[str] = ()) -> Path:
    """The environment's directory; those `alone` are installed without what they ask for."""
    directory = REPOSITORY / ".build" / name
    complete, content = directory / "complete", "\n".join((*requirements, *alone))
    if not complete.exists() or complete.read_text() != content:
        check("/usr/bin/python3", "-m", "venv", "--clear", directory)
        install = (directory / "bin/pip", "install", "--quiet", "--disable-pip-version-check")
        check(*install, *requirements, timeout=600)
        if alone:
            check(*install, "--no-deps", *alone, timeout=600)
        complete.write_text(content)
    return directory
